//! Every metric's name and help, in one list.
//!
//! Base units only (seconds, bytes), `_total` for counters; label values come from the configuration or from a closed set, never from a
//! client: a label that a client can choose fills Prometheus' memory. `docs/METRICS.md` is written from this list.

/// What kind of series a metric has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, and starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets with these upper bounds, in the metric's unit.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// A metric as Prometheus sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The whole name, prefix included.
    pub name: &'static str,
    /// What kind of series it has.
    pub kind: Kind,
    /// The names of its labels, in the order their values are given.
    pub labels: &'static [&'static str],
    /// What it tells, with the unit.
    pub help: &'static str,
}

/// Bounds in seconds for what a client or an instance is waited for: a hit takes less than a millisecond, a generated answer minutes.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// Bounds in seconds for what happens within the gateway or one round trip away: memory takes microseconds, Redis at most its budget.
pub const SHORT_SECONDS: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
];

macro_rules! metrics {
    ($($id:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: concat!("vanne_", $name),
                kind: $kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    REQUESTS: Kind::Counter, "requests_total", ["route", "method", "code"],
        "Requests that ended, by the status sent.";
    REQUEST_DURATION: Kind::Histogram(SECONDS), "request_duration_seconds", ["route", "cache"],
        "Seconds from a request's head to the end of its answer.";
    REQUESTS_IN_FLIGHT: Kind::Gauge, "requests_in_flight", [],
        "Requests being served now.";
    REQUEST_BYTES: Kind::Counter, "request_bytes_total", ["route"],
        "Bytes of request bodies received.";
    RESPONSE_BYTES: Kind::Counter, "response_bytes_total", ["route"],
        "Bytes of answer bodies sent.";
    REFUSED: Kind::Counter, "refused_total", ["reason"],
        "Requests refused before routing, by what was wrong with them.";
    DENIED: Kind::Counter, "denied_total", ["route", "reason"],
        "Requests that a route did not let pass: for their address, for want of the right name and password, or by a limit.";
    LIMIT_REFUSED: Kind::Counter, "limit_refused_total", ["limit", "reason"],
        "Requests refused by a limit.";
    LIMIT_UNCOUNTED: Kind::Counter, "limit_uncounted_total", ["limit"],
        "Requests that Redis could not count for the fleet.";
    LIMIT_FORGOTTEN: Kind::Counter, "limit_forgotten_total", ["limit"],
        "Clients whose requests were forgotten before their time, since the limit remembers no more than `most_keys`.";
    CACHE_REQUESTS: Kind::Counter, "cache_requests_total", ["route", "tier", "result"],
        "Requests that a cache stood before, by what it did.";
    CACHE_LOOKUPS: Kind::Counter, "cache_lookups_total", ["name", "tier", "result"],
        "Look-ups in one tier of a cache, by how they ended.";
    CACHE_LOOKUP_DURATION: Kind::Histogram(SHORT_SECONDS), "cache_lookup_duration_seconds", ["name", "tier"],
        "Seconds of a look-up in one tier of a cache.";
    CACHE_COLLAPSED: Kind::Counter, "cache_collapsed_total", ["name"],
        "Requests that shared another request's fetch.";
    CACHE_LEASES: Kind::Counter, "cache_leases_total", ["name", "result"],
        "Fetches for which the other gateways were asked first, by what that came to.";
    CACHE_STORES: Kind::Counter, "cache_stores_total", ["name", "result"],
        "Fetched answers, by whether they were stored or why not.";
    SHADOW: Kind::Counter, "shadow_answers_total", ["route", "result"],
        "Answers of routes in shadow mode that the cache would have given, by how they compare with those of the instances.";
    CACHE_ENTRIES: Kind::Gauge, "cache_entries", ["name", "tier"],
        "Answers held now.";
    CACHE_BYTES: Kind::Gauge, "cache_bytes", ["name", "tier"],
        "Bytes held now.";
    CACHE_CAPACITY: Kind::Gauge, "cache_capacity_bytes", ["name", "tier"],
        "Bytes that may be held.";
    CACHE_EVICTIONS: Kind::Counter, "cache_evictions_total", ["name", "tier"],
        "Answers that left to make room for others.";
    PURGES: Kind::Counter, "purges_total", ["kind", "force", "told"],
        "Things purged at this gateway: a tag is one, whatever it hits.";
    PURGES_RECEIVED: Kind::Counter, "purges_received_total", [],
        "Purges that arrived from the fleet, this gateway's own among them: what all gateways count alike has reached all.";
    PURGE_LAG: Kind::Histogram(SHORT_SECONDS), "purge_lag_seconds", [],
        "Seconds from when Redis took a purge, by its clock, to when it held here, by this machine's.";
    REDIS_UP: Kind::Gauge, "redis_up", [],
        "1 when the last operation on every server of Redis succeeded, else 0; 0 before the first.";
    REDIS_COMMAND_DURATION: Kind::Histogram(SHORT_SECONDS), "redis_command_duration_seconds", ["command"],
        "Seconds of an operation on Redis, well ended or not.";
    REDIS_ERRORS: Kind::Counter, "redis_errors_total", ["kind"],
        "Operations on Redis that failed, or were given up before they were tried.";
    REDIS_CIRCUIT_OPEN: Kind::Gauge, "redis_circuit_open", [],
        "1 while a server of Redis is not asked because it failed too often, else 0.";
    UPSTREAM_REQUESTS: Kind::Counter, "upstream_requests_total", ["upstream", "instance", "code"],
        "Exchanges that an instance answered, by its status.";
    UPSTREAM_FAILURES: Kind::Counter, "upstream_failures_total", ["upstream", "instance", "at"],
        "Exchanges that failed, by how far they had come.";
    UPSTREAM_DURATION: Kind::Histogram(SECONDS), "upstream_duration_seconds", ["upstream", "phase"],
        "Seconds until a new connection stood, and from sending a request to the first byte of its answer.";
    UPSTREAM_CONNECTIONS: Kind::Counter, "upstream_connections_total", ["upstream", "reused"],
        "Connections used for an exchange, kept from an earlier one or new.";
    UPSTREAM_RETRIES: Kind::Counter, "upstream_retries_total", ["upstream", "reason"],
        "Exchanges tried again on another instance.";
    UPSTREAM_RETRIES_DENIED: Kind::Counter, "upstream_retries_denied_total", ["upstream"],
        "Exchanges that would have been tried again, had the retry budget not been spent.";
    UPSTREAM_IN_FLIGHT: Kind::Gauge, "upstream_in_flight", ["upstream", "instance"],
        "Exchanges under way now.";
    UPSTREAM_EJECTIONS: Kind::Counter, "upstream_ejections_total", ["upstream", "instance"],
        "Times that an instance was taken out because exchanges with it failed.";
    UPSTREAM_WAITING: Kind::Gauge, "upstream_waiting", ["upstream"],
        "Requests that wait for a place on an instance now.";
    UPSTREAM_WAIT_DURATION: Kind::Histogram(SECONDS), "upstream_wait_duration_seconds", ["upstream"],
        "Seconds that requests waited for a place on an instance, in vain or not; those that found one at once are not counted.";
    UPSTREAM_REJECTED: Kind::Counter, "upstream_rejected_total", ["upstream", "reason"],
        "Requests that got no place on an instance.";
    UPSTREAM_UP: Kind::Gauge, "upstream_up", ["upstream", "instance"],
        "1 while an instance may be used, else 0.";
    UPSTREAM_PANIC: Kind::Gauge, "upstream_panic", ["upstream"],
        "1 while so few instances are up that all are used, else 0.";
    UPSTREAM_CIRCUIT_OPEN: Kind::Gauge, "upstream_circuit_open", ["upstream"],
        "1 while an upstream is not asked, or only on probation, because its exchanges failed, else 0.";
    UPSTREAM_CIRCUIT_OPENED: Kind::Counter, "upstream_circuit_opened_total", ["upstream"],
        "Times that an upstream was not asked any more because its exchanges failed.";
    UPSTREAM_STATE: Kind::Gauge, "upstream_state", ["upstream", "instance", "state"],
        "1 for the state an instance is in, else 0.";
    UPSTREAM_STATE_DURATION: Kind::Gauge, "upstream_state_duration_seconds", ["upstream", "instance"],
        "Seconds since an instance came into its state.";
    HEALTH_CHECKS: Kind::Counter, "health_checks_total", ["upstream", "instance", "result"],
        "Health checks made.";
    COMPRESSIONS: Kind::Counter, "compressions_total", ["coding"],
        "Contents that were compressed here.";
    ACCESS_LOG_DROPPED: Kind::Counter, "access_log_dropped_total", [],
        "Access log lines lost, because their writer was behind or could not write.";
    TLS_HANDSHAKES: Kind::Counter, "tls_handshakes_total", ["listener", "result"],
        "Handshakes on secured listeners, by how they ended.";
    TLS_HANDSHAKE_DURATION: Kind::Histogram(SECONDS), "tls_handshake_duration_seconds", ["listener"],
        "Seconds of a handshake, well ended or not.";
    TLS_CERTIFICATE_EXPIRY: Kind::Gauge, "tls_certificate_expiry_timestamp_seconds", ["listener", "certificate"],
        "When a certificate in use expires, in seconds since the Unix epoch.";
    TLS_RELOADS: Kind::Counter, "tls_reloads_total", ["listener", "result"],
        "Times that changed certificate files were read anew, by whether they are in use now.";
    RELOADS: Kind::Counter, "reloads_total", ["result"],
        "Reloads of the configuration that were asked for, by how they ended.";
    RELOAD_OK: Kind::Gauge, "config_last_reload_successful", [],
        "1 while the file as last read is in force; 0 after a reload that changed nothing because something was wrong.";
    RELOAD_TIME: Kind::Gauge, "config_last_reload_success_timestamp_seconds", [],
        "When the configuration in force was read, in seconds since the Unix epoch.";
    UPGRADE_FAILURES: Kind::Counter, "upgrade_failures_total", [],
        "Upgrades in place after which this process went on, because the new one did not begin to serve.";
    BUILD_INFO: Kind::Gauge, "build_info", ["version"],
        "Always 1; the version is in the label.";
}

/// Every label, and where its values come from.
pub const LABELS: &[(&str, &str)] = &[
    ("at", "`connect`, `reused-connection`, `before-answer`, `timeout`, `during-answer`"),
    (
        "cache",
        "as `result` of `vanne_cache_requests_total`, with `hit-memory` and `hit-redis` for `hit`; `none`: the route has no cache",
    ),
    ("certificate", "the file of the certificate as written in the configuration"),
    ("code", "the status; `none`: the client left before any was sent; `other`: not within 100–599"),
    ("coding", "`br`, `gzip`, `zstd`"),
    ("command", "`get`, `set`, `del`, `xadd`, `lease`, `limit`"),
    ("force", "`hard`, `soft`"),
    ("instance", "`host:port` as written in the configuration"),
    (
        "kind",
        "of `vanne_purges_total`: `tag`, `url`, `prefix`, `all`, `group`; of `vanne_redis_errors_total`: `timeout`, `connection`, `tls`, `sign-in` (the password is wrong), `loading`, `moved` (to another server of a Cluster), `full` (out of memory), `read-only`, `forbidden` (by its ACL), `response` (any other error), `damaged`, `missing` (a piece of a large body), `circuit-open`, `dropped` (a write given up because Redis was too far behind)",
    ),
    ("limit", "the limit's name in the configuration"),
    ("listener", "the listener's name in the configuration"),
    (
        "method",
        "`GET`, `HEAD`, `POST`, `PUT`, `DELETE`, `CONNECT`, `OPTIONS`, `TRACE`, `PATCH`, `QUERY`, or `OTHER`",
    ),
    ("name", "the cache's name in the configuration"),
    ("phase", "`connect` (new connections only), `first_byte`"),
    (
        "reason",
        "of `vanne_refused_total`: `host`, `authority`, `target`, `framing`, `method`, `head-too-large`, `body-too-large`, `expectation`, `too-many-connections`, `flood` (of HTTP/2); of `vanne_denied_total`: `address-denied`, `unauthorized`, `sign-in-busy`, `rate-limited`, `too-many-in-flight`, `limit-unknown`; of `vanne_limit_refused_total`: `rate`, `in-flight`, `uncounted`; of `vanne_upstream_retries_total`: `connect`, `reused-connection`, `before-answer`, `timeout`, how far the failed exchange had come, and `status`: its answer was given up for its status; of `vanne_upstream_rejected_total`: `full`, `timeout`, `circuit-open`",
    ),
    (
        "result",
        "of `vanne_cache_requests_total`: `hit`, `stale`, `miss`, `collapsed`, `revalidated`, `bypass`; of `vanne_cache_lookups_total`: `hit`, `miss`, `error`; of `vanne_cache_stores_total`: `stored`, or why not; of `vanne_shadow_answers_total`: `same`, or what differs first: `status`, `type`, `content`; of `vanne_cache_leases_total`: `taken` (this gateway fetches for all), `shared` (another fetched it), `followed` (another fetches it, and it came from there as it came), `unfit` (another fetched it, and it must be validated), `not-shared`, `nothing` (another's fetch failed or was not stored), `late` (it took longer than `wait_timeout`), `deserted` (nobody waits any more), `unknown` (Redis could not say), `lost` (another gateway took over); of `vanne_health_checks_total`: `success`, `failure`; of `vanne_reloads_total`: `success`, `failure`; of `vanne_tls_handshakes_total`: `ok`, `timeout`, `closed`, `plain-http`, `version`, `cipher`, `protocol` (ALPN), `unknown-name`, `no-certificate` and `bad-certificate` (of the client), `refused` (by the client), `other`; of `vanne_tls_reloads_total`: `ok`, `failed` (those before stay in use)",
    ),
    ("reused", "`true`: kept from an earlier exchange; `false`: new"),
    ("route", "the route's name in the configuration; `_none`: no route matched"),
    (
        "state",
        "`up`, `warming` (back, its share grows), `on-trial` (one request at a time), `ejected`, `resting` (its Retry-After says so), `down`, `draining`, `drained`, `idle` (weight 0), `unresolved`",
    ),
    (
        "tier",
        "`memory`, `redis`; of `vanne_cache_requests_total`: where a hit lay, `none` for every other result",
    ),
    ("told", "`fleet`; `later`: Redis could not be reached yet; `process`: there is no Redis"),
    ("upstream", "the upstream's name in the configuration"),
    ("version", "the gateway's version"),
];

/// What is told about the process itself (on Linux), under the names every Prometheus client uses: name, type, help.
pub const PROCESS: &[(&str, Kind, &str)] = &[
    ("process_cpu_seconds_total", Kind::Counter, "Processor time used, in seconds."),
    ("process_max_fds", Kind::Gauge, "File descriptors that may be open."),
    ("process_open_fds", Kind::Gauge, "File descriptors open now."),
    ("process_resident_memory_bytes", Kind::Gauge, "Memory in use, in bytes."),
    ("process_start_time_seconds", Kind::Gauge, "When the process started, in seconds since the Unix epoch."),
    ("process_threads", Kind::Gauge, "Threads."),
    ("process_virtual_memory_bytes", Kind::Gauge, "Address space reserved, in bytes."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fmt::Write;

    fn bounds(bounds: &[f64]) -> String {
        bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
    }

    fn document() -> String {
        let mut page = String::from(
            "# Metrics\n\n\
             Generated from `src/observe/names.rs`; `UPDATE=1 cargo test --lib observe::names` writes it anew.\n\n\
             They are served in Prometheus' text format at `/metrics` of the admin address. Series whose labels are known from the\n\
             configuration exist at 0 from the start, so that `rate()` and alerts see the first event; others appear with it.\n\
             Units are seconds and bytes.\n\n\
             | name | type | labels | tells |\n|---|---|---|---|\n",
        );
        for metric in ALL {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help);
            writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(" ")).unwrap();
        }
        page.push_str("\n`vanne_redis_*`, `vanne_purges_received_total` and `vanne_purge_lag_seconds` are there only when a Redis is configured.\n");
        page.push_str("\n## Labels\n\n| label | values |\n|---|---|\n");
        for (label, values) in LABELS {
            writeln!(page, "| `{label}` | {values} |").unwrap();
        }
        page.push_str("\n## Buckets\n\nUpper bounds in seconds.\n\n");
        for (title, of) in [("Requests and upstreams", SECONDS), ("Caches and Redis", SHORT_SECONDS)] {
            writeln!(page, "- {title}: {}", bounds(of)).unwrap();
        }
        page.push_str("\n## The process\n\n| name | type | tells |\n|---|---|---|\n");
        for (name, kind, help) in PROCESS {
            writeln!(page, "| `{name}` | {} | {help} |", kind.as_str()).unwrap();
        }
        page
    }

    #[test]
    fn the_documentation_is_what_the_list_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        let wanted = document();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
            std::fs::write(path, &wanted).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == wanted, "docs/METRICS.md is out of date; write it anew with UPDATE=1");
    }

    #[test]
    fn a_name_is_used_once() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn counters_end_in_total_and_nothing_else_does() {
        for metric in ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_measured_in_seconds_or_bytes_says_so_in_its_name() {
        for metric in ALL {
            if let Kind::Histogram(_) = metric.kind {
                assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
            }
            for (unit, word) in [("Seconds", "_seconds"), ("Bytes", "_bytes")] {
                if metric.help.starts_with(unit) {
                    assert!(metric.name.contains(word), "{}", metric.name);
                }
            }
        }
    }

    #[test]
    fn every_label_is_explained_and_no_explanation_is_in_vain() {
        let used: BTreeSet<_> = ALL.iter().flat_map(|metric| metric.labels).copied().collect();
        let explained: BTreeSet<_> = LABELS.iter().map(|(label, _)| *label).collect();
        assert_eq!(used, explained);
        assert_eq!(explained.len(), LABELS.len());
    }

    #[test]
    fn bounds_grow() {
        for of in [SECONDS, SHORT_SECONDS] {
            assert!(of.is_sorted_by(|a, b| a < b));
        }
    }
}
