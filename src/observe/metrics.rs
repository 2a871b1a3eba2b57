//! Counters, gauges and histograms with their label handles resolved when the plan is loaded: a request never looks one up by name.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use prometheus::{Histogram, IntCounter, IntGauge, TextEncoder};

use super::series::{Codes, Family, Shown, Shows, Words};
pub use super::tls::TlsMetrics;
use super::{names, tls};
use crate::balance::retry::FailedAt;
use crate::base::name::{CacheName, LimitName, ListenerName, UpstreamName};
use crate::guard::request::Refusal;
use crate::plan::{Action, Plan, Route, RouteId, Upstream};

/// All metrics of one running gateway, in a registry of its own.
pub struct Metrics {
    registry: Arc<Shown>,
    families: Arc<Families>,
    /// By [`RouteId`].
    routes: Vec<RouteSeries>,
    /// Of requests that no route matched.
    unrouted: RouteSeries,
    caches: Vec<(CacheName, CacheMetrics)>,
    upstreams: Vec<(UpstreamName, UpstreamMetrics)>,
    limits: Vec<(LimitName, LimitMetrics)>,
    redis: OnceLock<RedisMetrics>,
    refused: [IntCounter; REFUSALS.len()],
    in_flight: IntGauge,
    compressions: Words<IntCounter, 1>,
    access_log_dropped: IntCounter,
}

/// What the cache did, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// The route has no cache.
    None,
    /// Served fresh from memory.
    HitMemory,
    /// Served fresh from Redis.
    HitRedis,
    /// Served stale.
    Stale,
    /// Fetched.
    Miss,
    /// Fetched by another request and shared.
    Collapsed,
    /// Validated with the origin and served from storage.
    Revalidated,
    /// Passed by.
    Bypass,
}

impl CacheResult {
    const ALL: [CacheResult; 8] = [
        CacheResult::None,
        CacheResult::HitMemory,
        CacheResult::HitRedis,
        CacheResult::Stale,
        CacheResult::Miss,
        CacheResult::Collapsed,
        CacheResult::Revalidated,
        CacheResult::Bypass,
    ];

    /// The word of the label `cache`.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheResult::None => "none",
            CacheResult::HitMemory => "hit-memory",
            CacheResult::HitRedis => "hit-redis",
            CacheResult::Stale => "stale",
            CacheResult::Miss => "miss",
            CacheResult::Collapsed => "collapsed",
            CacheResult::Revalidated => "revalidated",
            CacheResult::Bypass => "bypass",
        }
    }

    /// The words of the labels `tier` and `result`.
    fn tier_and_result(self) -> (&'static str, &'static str) {
        match self {
            CacheResult::HitMemory => ("memory", "hit"),
            CacheResult::HitRedis => ("redis", "hit"),
            other => ("none", other.as_str()),
        }
    }
}

/// The metrics of one cache's store.
#[derive(Clone)]
pub struct CacheMetrics(Arc<CacheSeries>);

/// The metrics of the connection to Redis.
#[derive(Clone)]
pub struct RedisMetrics(Arc<RedisSeries>);

/// The metrics of one limit.
#[derive(Clone)]
pub struct LimitMetrics(Arc<LimitSeries>);

/// The metrics of one upstream.
#[derive(Clone)]
pub struct UpstreamMetrics(Arc<UpstreamSeries>);

impl Metrics {
    /// Registers everything for a plan; every series that is known from the plan exists at 0 from the start.
    pub fn new(plan: &Plan) -> Arc<Self> {
        let registry = Arc::new(Shown::default());
        let families = Arc::new(Families::new(&*registry));
        register_process(&registry);
        families.build_info.series(&[env!("CARGO_PKG_VERSION")]).set(1);
        for result in RELOADS {
            families.reloads.series(&[result]);
        }
        families.reload_ok.series(&[]).set(1);
        families.reload_time.series(&[]);
        families.upgrade_failures.series(&[]);
        Self::over(registry, families, plan)
    }

    /// The metrics of the plan that takes this one's place: counters go on from where they are.
    pub fn succeeded_by(&self, plan: &Plan) -> Arc<Self> {
        Self::over(Arc::clone(&self.registry), Arc::clone(&self.families), plan)
    }

    /// Forgets series of what `plan` does not name: an instance that is gone must not be shown as up for ever.
    pub fn forget_what_is_not_in(&self, plan: &Plan) {
        let upstreams: HashSet<&str> = plan.upstreams.iter().map(|u| u.name.as_str()).collect();
        let instances: HashSet<&str> =
            plan.upstreams.iter().flat_map(|u| &u.servers).map(|server| server.addr.as_str()).collect();
        let caches: HashSet<&str> = plan.caches.iter().map(|c| c.name.as_str()).collect();
        let limits: HashSet<&str> = plan.limits.iter().map(|l| l.name.as_str()).collect();
        let routes: HashSet<&str> = plan.routes.iter().map(|r| r.name.as_str()).chain([NO_ROUTE]).collect();
        let listeners = tls::names(plan);
        self.registry.retain(&|label, value| match label {
            "upstream" => upstreams.contains(value),
            "instance" => instances.contains(value),
            "name" => caches.contains(value),
            "route" => routes.contains(value),
            "limit" => limits.contains(value),
            "listener" | "certificate" => listeners.contains(value),
            _ => true,
        });
    }

    fn over(registry: Arc<Shown>, families: Arc<Families>, plan: &Plan) -> Arc<Self> {
        let metrics = Self {
            routes: plan.routes.iter().map(|route| families.route_of(route)).collect(),
            unrouted: families.route(NO_ROUTE, &[404], &[CacheResult::None]),
            caches: plan
                .caches
                .iter()
                .map(|c| (c.name.clone(), families.cache(&c.name, c.memory.0)))
                .collect(),
            upstreams: plan.upstreams.iter().map(|u| (u.name.clone(), families.upstream_of(u))).collect(),
            limits: plan.limits.iter().map(|l| (l.name.clone(), families.limit(&l.name))).collect(),
            redis: OnceLock::new(),
            refused: REFUSALS.map(|why| families.refused.series(&[why])),
            in_flight: families.in_flight.series(&[]),
            compressions: Words::new(&families.compressions, &[], &[["br"], ["gzip"], ["zstd"]]),
            access_log_dropped: families.access_log_dropped.series(&[]),
            registry,
            families,
        };
        metrics.families.tls.of(plan);
        if plan.redis.is_some() {
            metrics.redis();
        }
        let told = if plan.redis.is_some() { "fleet" } else { "process" };
        for kind in PURGES {
            metrics.families.purges.series(&[kind, "hard", told]);
        }
        Arc::new(metrics)
    }

    /// A finished request. `route` is `None` when none matched.
    #[allow(clippy::too_many_arguments)]
    pub fn request(
        &self,
        route: Option<RouteId>,
        method: &Method,
        status: u16,
        cache: CacheResult,
        took: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        let series = route.and_then(|id| self.routes.get(id)).unwrap_or(&self.unrouted);
        series.codes(&self.families, method).of(status).inc();
        series.duration(&self.families, cache).observe(took.as_secs_f64());
        if cache != CacheResult::None {
            series.cache(&self.families, cache).inc();
        }
        series.request_bytes.inc_by(request_bytes);
        series.response_bytes.inc_by(response_bytes);
    }

    /// An answer of a route in shadow mode was compared with the stored one; `result` is of [`SHADOWS`]. How many were so compared.
    pub fn shadow(&self, route: &str, result: &'static str) -> u64 {
        let series = self.families.shadow.series(&[route, result]);
        series.inc();
        series.get()
    }

    /// A request was refused by the guard.
    pub fn refused(&self, why: Refusal) {
        self.refused[refusal_index(why)].inc();
    }

    /// A route did not let a request pass; `why` is a word of `ward::Denial`.
    pub fn denied(&self, route: RouteId, why: &'static str) {
        if let Some(series) = self.routes.get(route) {
            series.denied.with([why], IntCounter::inc);
        }
    }

    /// The handles of one limit. One that is not in the plan gets its own too.
    pub fn limit(&self, name: &LimitName) -> LimitMetrics {
        let known = self.limits.iter().find(|(n, _)| n == name);
        known.map_or_else(|| self.families.limit(name), |(_, series)| series.clone())
    }

    /// Counts one request in flight; give back with [`Metrics::request_left`].
    pub fn request_entered(&self) {
        self.in_flight.inc();
    }

    /// Gives back what [`Metrics::request_entered`] counted.
    pub fn request_left(&self) {
        self.in_flight.dec();
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// The handles of one cache. One that is not in the plan gets its own too.
    pub fn cache(&self, name: &CacheName) -> CacheMetrics {
        let known = self.caches.iter().find(|(n, _)| n == name);
        known.map_or_else(|| self.families.cache(name, 0), |(_, series)| series.clone())
    }

    /// The handles of Redis. Its series are shown from the first call on, or from the start when the plan has a Redis.
    pub fn redis(&self) -> RedisMetrics {
        self.redis.get_or_init(|| self.families.redis()).clone()
    }

    /// The handles of one upstream. One that is not in the plan gets handles without instances.
    pub fn upstream(&self, name: &UpstreamName) -> UpstreamMetrics {
        let known = self.upstreams.iter().find(|(n, _)| n == name);
        known.map_or_else(|| self.families.upstream(name, &[]), |(_, series)| series.clone())
    }

    /// Some content was compressed (`br`, `gzip`, `zstd`).
    pub fn compressed(&self, coding: &'static str) {
        self.compressions.with([coding], IntCounter::inc);
    }

    /// The handles of a secured listener.
    pub fn tls(&self, listener: &ListenerName) -> TlsMetrics {
        self.families.tls.listener(listener.as_str())
    }

    /// An access log line was dropped, because its writer was behind.
    pub fn access_log_dropped(&self) {
        self.access_log_dropped.inc();
    }

    /// So many things of a kind (`tag`, `url`, `prefix`, `all`, `group`) were purged here, `hard` or `soft`; who was told of it (`process`, `fleet`,
    /// `later`).
    pub fn purged(&self, kind: &'static str, force: &'static str, told: &'static str, count: u64) {
        if count > 0 {
            self.families.purges.series(&[kind, force, told]).inc_by(count);
        }
    }

    /// A configuration was put in force at this time, in seconds since the Unix epoch, the first or a later one.
    pub fn configured(&self, at: u64, reload: bool) {
        if reload {
            self.families.reloads.series(&[RELOADS[0]]).inc();
        }
        self.families.reload_ok.series(&[]).set(1);
        self.families.reload_time.series(&[]).set(as_gauge(at));
    }

    /// A reload changed nothing, because something was wrong.
    pub fn reload_failed(&self) {
        self.families.reloads.series(&[RELOADS[1]]).inc();
        self.families.reload_ok.series(&[]).set(0);
    }

    /// An upgrade in place failed.
    pub fn upgrade_failed(&self) {
        self.families.upgrade_failures.series(&[]).inc();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut page = String::with_capacity(64 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut page) {
            // What follows the broken family is missing; a scrape that says so can be told from one that counted nothing.
            page.push_str(&format!("# incomplete: {error}\n"));
        }
        page
    }
}

/// What a cache has counted since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Look-ups that found an answer in memory, fresh or stale.
    pub memory_hits: u64,
    /// Look-ups that found none there.
    pub memory_misses: u64,
    /// Look-ups that found an answer in Redis.
    pub redis_hits: u64,
    /// Look-ups that found none there.
    pub redis_misses: u64,
    /// Look-ups that Redis did not answer.
    pub redis_errors: u64,
    /// Requests that shared another's fetch.
    pub collapsed: u64,
    /// Answers stored.
    pub stored: u64,
    /// Answers that left memory to make room.
    pub evicted: u64,
}

impl CacheMetrics {
    /// What was counted since the start.
    pub fn totals(&self) -> Totals {
        let lookups = |tier, result| {
            let mut count = 0;
            self.0.lookups.with([tier, result], |series| count = series.get());
            count
        };
        let mut stored = 0;
        self.0.stores.with(["stored"], |series| stored = series.get());
        Totals {
            memory_hits: lookups("memory", "hit"),
            memory_misses: lookups("memory", "miss"),
            redis_hits: lookups("redis", "hit"),
            redis_misses: lookups("redis", "miss"),
            redis_errors: lookups("redis", "error"),
            collapsed: self.0.collapsed.get(),
            stored,
            evicted: self.0.evictions.get(),
        }
    }

    /// A look-up in `tier` (`memory`, `redis`) ended with `result` (`hit`, `miss`, `error`).
    pub fn lookup(&self, tier: &'static str, result: &'static str, took: Duration) {
        self.0.lookups.with([tier, result], IntCounter::inc);
        self.0.lookup_duration.with([tier], |series| series.observe(took.as_secs_f64()));
    }

    /// A request shared another's fetch.
    pub fn collapsed(&self) {
        self.0.collapsed.inc();
    }

    /// The fleet was asked who fetches (`taken`, `shared`, `followed`, `unfit`, `not-shared`, `nothing`, `late`, `deserted`, `unknown`), or took the right to fetch
    /// away (`lost`).
    pub fn lease(&self, result: &'static str) {
        self.0.leases.with([result], IntCounter::inc);
    }

    /// An answer was stored, or why not (`stored`, or a word of `cache::policy::Refuse`, or `too-large`, `truncated`, `redis` (it was too large
    /// for memory, and Redis did not take it)).
    pub fn store(&self, result: &'static str) {
        self.0.stores.with([result], IntCounter::inc);
    }

    /// An entry left the memory tier to make room.
    pub fn evicted(&self) {
        self.0.evictions.inc();
    }

    /// What the memory tier holds now.
    pub fn memory(&self, entries: u64, bytes: u64, capacity: u64) {
        self.0.entries.set(as_gauge(entries));
        self.0.bytes.set(as_gauge(bytes));
        self.0.capacity.set(as_gauge(capacity));
    }
}

impl RedisMetrics {
    /// A command (`get`, `set`, `del`, `limit`) ended, well or not.
    pub fn command(&self, command: &'static str, took: Duration) {
        self.0.commands.with([command], |series| series.observe(took.as_secs_f64()));
    }

    /// A failure: `timeout`, `connection`, `tls`, `sign-in`, `loading`, `moved`, `full`, `read-only`, `forbidden`, `response` (any other error),
    /// `damaged`, `missing` (a piece of a large body), `circuit-open`,
    /// `dropped` (a write given up because Redis was too far behind).
    pub fn error(&self, kind: &'static str) {
        self.0.errors.with([kind], IntCounter::inc);
    }

    /// A purge was read from the log of the fleet, so long after it was written there.
    pub fn purge_received(&self, lag: Duration) {
        self.0.purges_received.inc();
        self.0.purge_lag.observe(lag.as_secs_f64());
    }

    /// Whether the last operation succeeded.
    pub fn up(&self, up: bool) {
        self.0.up.set(i64::from(up));
    }

    /// Whether the breaker is open.
    pub fn circuit_open(&self, open: bool) {
        self.0.circuit_open.set(i64::from(open));
    }
}

impl LimitMetrics {
    /// It refused a request: `rate`, `in-flight`, `uncounted`.
    pub fn refused(&self, why: &'static str) {
        self.0.refused.with([why], IntCounter::inc);
    }

    /// Redis could not count a request.
    pub fn uncounted(&self) {
        self.0.uncounted.inc();
    }

    /// A client was forgotten before its time.
    pub fn forgot(&self) {
        self.0.forgotten.inc();
    }
}

impl UpstreamMetrics {
    /// An exchange with endpoint `index` ended with a status.
    pub fn answered(&self, index: usize, status: u16, first_byte: Duration) {
        if let Some(instance) = self.0.instances.get(index) {
            instance.codes.of(status).inc();
        }
        self.0.first_byte.observe(first_byte.as_secs_f64());
    }

    /// An exchange with endpoint `index` failed.
    pub fn failed(&self, index: usize, at: FailedAt) {
        if let Some(instance) = self.0.instances.get(index) {
            instance.failures[failure_index(at)].inc();
        }
    }

    /// A connection was used, kept (`reused`) or new. The time counts for new ones alone: taking a kept one from the pool costs nothing, and
    /// would hide how long connecting takes.
    pub fn connected(&self, reused: bool, took: Duration) {
        if reused {
            self.0.reused.inc();
        } else {
            self.0.opened.inc();
            self.0.connect.observe(took.as_secs_f64());
        }
    }

    /// A request is tried again, and why.
    pub fn retried(&self, why: &'static str) {
        self.0.retries.with([why], IntCounter::inc);
    }

    /// A request that might have been tried again was not, because so many were already.
    pub fn retry_denied(&self) {
        self.0.retries_denied.inc();
    }

    /// Endpoint `index` was taken out for what happened to requests.
    pub fn ejected(&self, index: usize) {
        if let Some(instance) = self.0.instances.get(index) {
            instance.ejections.inc();
        }
    }

    /// So many requests wait for a place on an instance.
    pub fn waiting(&self, count: usize) {
        self.0.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A request waited this long for a place, in vain or not.
    pub fn waited(&self, took: Duration) {
        self.0.wait.observe(took.as_secs_f64());
    }

    /// A request got no place: the queue was `full`, or its time was up (`timeout`), or the upstream is not asked (`circuit-open`).
    pub fn rejected(&self, why: &'static str) {
        self.0.rejected.with([why], IntCounter::inc);
    }

    /// Requests in flight at endpoint `index`, changed by `by`.
    pub fn in_flight(&self, index: usize, by: i64) {
        if let Some(instance) = self.0.instances.get(index) {
            instance.in_flight.add(by);
        }
    }

    /// Whether endpoint `index` is up.
    pub fn up(&self, index: usize, up: bool) {
        if let Some(instance) = self.0.instances.get(index) {
            instance.up.set(i64::from(up));
        }
    }

    /// All instances are used because too few are up, or no longer.
    pub fn panics(&self, panics: bool) {
        self.0.panic.set(i64::from(panics));
    }

    /// The upstream is not asked because its exchanges failed, or asked again.
    pub fn circuit(&self, open: bool) {
        self.0.circuit_open.set(i64::from(open));
        if open {
            self.0.circuit_opened.inc();
        }
    }

    /// Endpoint `index` has been in `state` (a word of `upstream::state::Condition`) for this long.
    pub fn state(&self, index: usize, state: &'static str, lasted: Duration) {
        if let Some(instance) = self.0.instances.get(index) {
            for (word, series) in STATES.iter().zip(&instance.states) {
                series.set(i64::from(*word == state));
            }
            instance.lasted.set(as_gauge(lasted.as_secs()));
        }
    }

    /// A health check of endpoint `index` ended.
    pub fn checked(&self, index: usize, ok: bool) {
        if let Some(instance) = self.0.instances.get(index) {
            if ok { &instance.healthy } else { &instance.unhealthy }.inc();
        }
    }
}

/// Every family of [`names::ALL`].
struct Families {
    requests: Family<IntCounter>,
    request_duration: Family<Histogram>,
    in_flight: Family<IntGauge>,
    request_bytes: Family<IntCounter>,
    response_bytes: Family<IntCounter>,
    refused: Family<IntCounter>,
    denied: Family<IntCounter>,
    limit_refused: Family<IntCounter>,
    limit_uncounted: Family<IntCounter>,
    limit_forgotten: Family<IntCounter>,
    cache_requests: Family<IntCounter>,
    cache_lookups: Family<IntCounter>,
    cache_lookup_duration: Family<Histogram>,
    cache_collapsed: Family<IntCounter>,
    cache_leases: Family<IntCounter>,
    purges: Family<IntCounter>,
    purges_received: Family<IntCounter>,
    purge_lag: Family<Histogram>,
    cache_stores: Family<IntCounter>,
    cache_entries: Family<IntGauge>,
    cache_bytes: Family<IntGauge>,
    cache_capacity: Family<IntGauge>,
    cache_evictions: Family<IntCounter>,
    shadow: Family<IntCounter>,
    redis_up: Family<IntGauge>,
    redis_command_duration: Family<Histogram>,
    redis_errors: Family<IntCounter>,
    redis_circuit_open: Family<IntGauge>,
    upstream_requests: Family<IntCounter>,
    upstream_failures: Family<IntCounter>,
    upstream_duration: Family<Histogram>,
    upstream_connections: Family<IntCounter>,
    upstream_retries: Family<IntCounter>,
    upstream_retries_denied: Family<IntCounter>,
    upstream_in_flight: Family<IntGauge>,
    upstream_ejections: Family<IntCounter>,
    upstream_waiting: Family<IntGauge>,
    upstream_wait_duration: Family<Histogram>,
    upstream_rejected: Family<IntCounter>,
    upstream_up: Family<IntGauge>,
    upstream_panic: Family<IntGauge>,
    upstream_circuit_open: Family<IntGauge>,
    upstream_circuit_opened: Family<IntCounter>,
    upstream_state: Family<IntGauge>,
    upstream_state_duration: Family<IntGauge>,
    health_checks: Family<IntCounter>,
    compressions: Family<IntCounter>,
    access_log_dropped: Family<IntCounter>,
    reloads: Family<IntCounter>,
    reload_ok: Family<IntGauge>,
    reload_time: Family<IntGauge>,
    upgrade_failures: Family<IntCounter>,
    build_info: Family<IntGauge>,
    tls: tls::Families,
}

/// How an answer compares with the stored one: alike, or differing first in its status, Content-Type or content.
pub const SHADOWS: [&str; 4] = ["same", "status", "type", "content"];

/// The series of one route. Rows of statuses and the results a route's cache can have are made when first needed.
struct RouteSeries {
    name: String,
    methods: [OnceLock<Codes>; METHODS.len()],
    durations: [OnceLock<Histogram>; CacheResult::ALL.len()],
    cache: [OnceLock<IntCounter>; CacheResult::ALL.len()],
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    denied: Words<IntCounter, 1>,
}

struct LimitSeries {
    refused: Words<IntCounter, 1>,
    uncounted: IntCounter,
    forgotten: IntCounter,
}

struct CacheSeries {
    lookups: Words<IntCounter, 2>,
    lookup_duration: Words<Histogram, 1>,
    collapsed: IntCounter,
    leases: Words<IntCounter, 1>,
    stores: Words<IntCounter, 1>,
    evictions: IntCounter,
    entries: IntGauge,
    bytes: IntGauge,
    capacity: IntGauge,
}

struct RedisSeries {
    commands: Words<Histogram, 1>,
    errors: Words<IntCounter, 1>,
    purges_received: IntCounter,
    purge_lag: Histogram,
    up: IntGauge,
    circuit_open: IntGauge,
}

struct UpstreamSeries {
    instances: Vec<InstanceSeries>,
    connect: Histogram,
    first_byte: Histogram,
    opened: IntCounter,
    reused: IntCounter,
    retries: Words<IntCounter, 1>,
    retries_denied: IntCounter,
    waiting: IntGauge,
    wait: Histogram,
    rejected: Words<IntCounter, 1>,
    panic: IntGauge,
    circuit_open: IntGauge,
    circuit_opened: IntCounter,
}

struct InstanceSeries {
    codes: Codes,
    failures: [IntCounter; FAILURES.len()],
    in_flight: IntGauge,
    up: IntGauge,
    states: [IntGauge; STATES.len()],
    lasted: IntGauge,
    healthy: IntCounter,
    unhealthy: IntCounter,
    ejections: IntCounter,
}

/// What a forwarded request may be answered with that needs no instance to say it: the alerts on errors stand on these.
const FORWARDED: [u16; 4] = [200, 502, 503, 504];

/// The label of requests that no route matched.
const NO_ROUTE: &str = "_none";

impl Families {
    fn new(registry: &impl Shows) -> Self {
        Self {
            requests: Family::new(registry, &names::REQUESTS),
            request_duration: Family::new(registry, &names::REQUEST_DURATION),
            in_flight: Family::new(registry, &names::REQUESTS_IN_FLIGHT),
            request_bytes: Family::new(registry, &names::REQUEST_BYTES),
            response_bytes: Family::new(registry, &names::RESPONSE_BYTES),
            refused: Family::new(registry, &names::REFUSED),
            denied: Family::new(registry, &names::DENIED),
            limit_refused: Family::new(registry, &names::LIMIT_REFUSED),
            limit_uncounted: Family::new(registry, &names::LIMIT_UNCOUNTED),
            limit_forgotten: Family::new(registry, &names::LIMIT_FORGOTTEN),
            cache_requests: Family::new(registry, &names::CACHE_REQUESTS),
            cache_lookups: Family::new(registry, &names::CACHE_LOOKUPS),
            cache_lookup_duration: Family::new(registry, &names::CACHE_LOOKUP_DURATION),
            cache_collapsed: Family::new(registry, &names::CACHE_COLLAPSED),
            cache_leases: Family::new(registry, &names::CACHE_LEASES),
            purges: Family::new(registry, &names::PURGES),
            purges_received: Family::new(registry, &names::PURGES_RECEIVED),
            purge_lag: Family::new(registry, &names::PURGE_LAG),
            cache_stores: Family::new(registry, &names::CACHE_STORES),
            cache_entries: Family::new(registry, &names::CACHE_ENTRIES),
            cache_bytes: Family::new(registry, &names::CACHE_BYTES),
            cache_capacity: Family::new(registry, &names::CACHE_CAPACITY),
            cache_evictions: Family::new(registry, &names::CACHE_EVICTIONS),
            shadow: Family::new(registry, &names::SHADOW),
            redis_up: Family::new(registry, &names::REDIS_UP),
            redis_command_duration: Family::new(registry, &names::REDIS_COMMAND_DURATION),
            redis_errors: Family::new(registry, &names::REDIS_ERRORS),
            redis_circuit_open: Family::new(registry, &names::REDIS_CIRCUIT_OPEN),
            upstream_requests: Family::new(registry, &names::UPSTREAM_REQUESTS),
            upstream_failures: Family::new(registry, &names::UPSTREAM_FAILURES),
            upstream_duration: Family::new(registry, &names::UPSTREAM_DURATION),
            upstream_connections: Family::new(registry, &names::UPSTREAM_CONNECTIONS),
            upstream_retries: Family::new(registry, &names::UPSTREAM_RETRIES),
            upstream_retries_denied: Family::new(registry, &names::UPSTREAM_RETRIES_DENIED),
            upstream_in_flight: Family::new(registry, &names::UPSTREAM_IN_FLIGHT),
            upstream_ejections: Family::new(registry, &names::UPSTREAM_EJECTIONS),
            upstream_waiting: Family::new(registry, &names::UPSTREAM_WAITING),
            upstream_wait_duration: Family::new(registry, &names::UPSTREAM_WAIT_DURATION),
            upstream_rejected: Family::new(registry, &names::UPSTREAM_REJECTED),
            upstream_up: Family::new(registry, &names::UPSTREAM_UP),
            upstream_panic: Family::new(registry, &names::UPSTREAM_PANIC),
            upstream_circuit_open: Family::new(registry, &names::UPSTREAM_CIRCUIT_OPEN),
            upstream_circuit_opened: Family::new(registry, &names::UPSTREAM_CIRCUIT_OPENED),
            upstream_state: Family::new(registry, &names::UPSTREAM_STATE),
            upstream_state_duration: Family::new(registry, &names::UPSTREAM_STATE_DURATION),
            health_checks: Family::new(registry, &names::HEALTH_CHECKS),
            compressions: Family::new(registry, &names::COMPRESSIONS),
            access_log_dropped: Family::new(registry, &names::ACCESS_LOG_DROPPED),
            reloads: Family::new(registry, &names::RELOADS),
            reload_ok: Family::new(registry, &names::RELOAD_OK),
            reload_time: Family::new(registry, &names::RELOAD_TIME),
            upgrade_failures: Family::new(registry, &names::UPGRADE_FAILURES),
            build_info: Family::new(registry, &names::BUILD_INFO),
            tls: tls::Families::new(registry),
        }
    }

    fn route_of(&self, plan: &Route) -> RouteSeries {
        let name = plan.name.as_str();
        for result in SHADOWS.iter().filter(|_| plan.shadow) {
            self.shadow.series(&[name, result]);
        }
        let denials: &[_] = if plan.ward.is_some() { &DENIALS } else { &[] };
        let series =
            |statuses: &[u16], results: &[CacheResult]| self.guarded_route(name, statuses, results, denials);
        match &plan.action {
            Action::Forward { cache: Some(_), .. } => series(&FORWARDED, &CacheResult::ALL),
            Action::Forward { cache: None, .. } => series(&FORWARDED, &[CacheResult::None]),
            Action::Files(_) => series(&[200, 304, 404], &[CacheResult::None]),
            Action::Respond { status, .. } => series(&[status.as_u16()], &[CacheResult::None]),
        }
    }

    /// The series of a route, with those of a GET answered with `statuses` and of `results` at 0.
    fn route(&self, name: &str, statuses: &[u16], results: &[CacheResult]) -> RouteSeries {
        self.guarded_route(name, statuses, results, &[])
    }

    /// The same with those of requests that it does not let pass.
    fn guarded_route(
        &self,
        name: &str,
        statuses: &[u16],
        results: &[CacheResult],
        denials: &[[&'static str; 1]],
    ) -> RouteSeries {
        let series = RouteSeries {
            name: name.to_owned(),
            methods: Default::default(),
            durations: Default::default(),
            cache: Default::default(),
            request_bytes: self.request_bytes.series(&[name]),
            response_bytes: self.response_bytes.series(&[name]),
            denied: Words::new(&self.denied, &[name], denials),
        };
        for &status in statuses {
            series.codes(self, &Method::GET).of(status);
        }
        for &result in results {
            series.duration(self, result);
            if result != CacheResult::None {
                series.cache(self, result);
            }
        }
        series
    }

    fn cache(&self, name: &CacheName, capacity: u64) -> CacheMetrics {
        let name = name.as_str();
        let series = CacheSeries {
            lookups: Words::new(&self.cache_lookups, &[name], &LOOKUPS),
            lookup_duration: Words::new(&self.cache_lookup_duration, &[name], &TIERS),
            collapsed: self.cache_collapsed.series(&[name]),
            leases: Words::new(&self.cache_leases, &[name], &LEASES),
            stores: Words::new(&self.cache_stores, &[name], &STORES),
            evictions: self.cache_evictions.series(&[name, "memory"]),
            entries: self.cache_entries.series(&[name, "memory"]),
            bytes: self.cache_bytes.series(&[name, "memory"]),
            capacity: self.cache_capacity.series(&[name, "memory"]),
        };
        series.capacity.set(as_gauge(capacity));
        CacheMetrics(Arc::new(series))
    }

    fn limit(&self, name: &LimitName) -> LimitMetrics {
        let name = name.as_str();
        LimitMetrics(Arc::new(LimitSeries {
            refused: Words::new(&self.limit_refused, &[name], &LIMIT_REFUSALS),
            uncounted: self.limit_uncounted.series(&[name]),
            forgotten: self.limit_forgotten.series(&[name]),
        }))
    }

    fn redis(&self) -> RedisMetrics {
        RedisMetrics(Arc::new(RedisSeries {
            commands: Words::new(&self.redis_command_duration, &[], &COMMANDS),
            errors: Words::new(&self.redis_errors, &[], &REDIS_ERRORS),
            purges_received: self.purges_received.series(&[]),
            purge_lag: self.purge_lag.series(&[]),
            up: self.redis_up.series(&[]),
            circuit_open: self.redis_circuit_open.series(&[]),
        }))
    }

    fn upstream_of(&self, plan: &Upstream) -> UpstreamMetrics {
        let instances: Vec<&str> = plan.servers.iter().map(|server| server.addr.as_str()).collect();
        self.upstream(&plan.name, &instances)
    }

    fn upstream(&self, name: &UpstreamName, instances: &[&str]) -> UpstreamMetrics {
        let name = name.as_str();
        UpstreamMetrics(Arc::new(UpstreamSeries {
            instances: instances.iter().map(|instance| self.instance(name, instance)).collect(),
            connect: self.upstream_duration.series(&[name, "connect"]),
            first_byte: self.upstream_duration.series(&[name, "first_byte"]),
            opened: self.upstream_connections.series(&[name, "false"]),
            reused: self.upstream_connections.series(&[name, "true"]),
            retries: Words::new(&self.upstream_retries, &[name], &RETRIES),
            retries_denied: self.upstream_retries_denied.series(&[name]),
            waiting: self.upstream_waiting.series(&[name]),
            wait: self.upstream_wait_duration.series(&[name]),
            rejected: Words::new(&self.upstream_rejected, &[name], &REJECTIONS),
            panic: self.upstream_panic.series(&[name]),
            circuit_open: self.upstream_circuit_open.series(&[name]),
            circuit_opened: self.upstream_circuit_opened.series(&[name]),
        }))
    }

    /// The series of one instance. It begins up, as every endpoint does.
    fn instance(&self, upstream: &str, instance: &str) -> InstanceSeries {
        let series = InstanceSeries {
            codes: Codes::new(&self.upstream_requests, &[upstream, instance]),
            failures: FAILURES.map(|at| self.upstream_failures.series(&[upstream, instance, at])),
            in_flight: self.upstream_in_flight.series(&[upstream, instance]),
            up: self.upstream_up.series_begun(&[upstream, instance], |up| up.set(1)),
            states: STATES.map(|state| {
                let begin = |series: &IntGauge| series.set(i64::from(state == STATES[0]));
                self.upstream_state.series_begun(&[upstream, instance, state], begin)
            }),
            lasted: self.upstream_state_duration.series(&[upstream, instance]),
            healthy: self.health_checks.series(&[upstream, instance, "success"]),
            unhealthy: self.health_checks.series(&[upstream, instance, "failure"]),
            ejections: self.upstream_ejections.series(&[upstream, instance]),
        };
        series.codes.of(200);
        series
    }
}

impl RouteSeries {
    fn codes(&self, families: &Families, method: &Method) -> &Codes {
        let index = method_index(method);
        self.methods[index].get_or_init(|| Codes::new(&families.requests, &[&self.name, METHODS[index]]))
    }

    fn duration(&self, families: &Families, cache: CacheResult) -> &Histogram {
        self.durations[cache as usize]
            .get_or_init(|| families.request_duration.series(&[&self.name, cache.as_str()]))
    }

    fn cache(&self, families: &Families, cache: CacheResult) -> &IntCounter {
        self.cache[cache as usize].get_or_init(|| {
            let (tier, result) = cache.tier_and_result();
            families.cache_requests.series(&[&self.name, tier, result])
        })
    }
}

const METHODS: [&str; 11] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "OTHER"];

/// A method that is none of the known ones is `OTHER`: a client may invent as many as it likes.
fn method_index(method: &Method) -> usize {
    let known = &METHODS[..METHODS.len() - 1];
    known.iter().position(|&name| name == method.as_str()).unwrap_or(known.len())
}

const REFUSALS: [&str; 10] = [
    "host",
    "authority",
    "target",
    "framing",
    "method",
    "head-too-large",
    "body-too-large",
    "expectation",
    "too-many-connections",
    "flood",
];

fn refusal_index(why: Refusal) -> usize {
    match why {
        Refusal::Host => 0,
        Refusal::Authority => 1,
        Refusal::Target => 2,
        Refusal::Framing => 3,
        Refusal::Method => 4,
        Refusal::HeadTooLarge => 5,
        Refusal::BodyTooLarge => 6,
        Refusal::Expectation => 7,
        Refusal::Crowd => 8,
        Refusal::Flood => 9,
    }
}

const FAILURES: [&str; 5] = ["connect", "reused-connection", "before-answer", "timeout", "during-answer"];

fn failure_index(at: FailedAt) -> usize {
    match at {
        FailedAt::Connect => 0,
        FailedAt::ReusedConnection => 1,
        FailedAt::BeforeAnswer => 2,
        FailedAt::Timeout => 3,
        FailedAt::DuringAnswer => 4,
    }
}

const DENIALS: [[&str; 1]; 6] = [
    ["address-denied"],
    ["unauthorized"],
    ["sign-in-busy"],
    ["rate-limited"],
    ["too-many-in-flight"],
    ["limit-unknown"],
];
const LIMIT_REFUSALS: [[&str; 1]; 3] = [["rate"], ["in-flight"], ["uncounted"]];
const LOOKUPS: [[&str; 2]; 6] = [
    ["memory", "hit"],
    ["memory", "miss"],
    ["redis", "hit"],
    ["redis", "miss"],
    ["redis", "error"],
    ["memory", "error"],
];
const TIERS: [[&str; 1]; 2] = [["memory"], ["redis"]];
const PURGES: [&str; 5] = ["tag", "url", "prefix", "all", "group"];
const LEASES: [[&str; 1]; 10] = [
    ["taken"],
    ["shared"],
    ["followed"],
    ["unfit"],
    ["not-shared"],
    ["nothing"],
    ["late"],
    ["deserted"],
    ["unknown"],
    ["lost"],
];
const STORES: [[&str; 1]; 4] = [["stored"], ["too-large"], ["truncated"], ["redis"]];
const COMMANDS: [[&str; 1]; 5] = [["get"], ["set"], ["del"], ["lease"], ["limit"]];
const REDIS_ERRORS: [[&str; 1]; 14] = [
    ["timeout"],
    ["connection"],
    ["tls"],
    ["sign-in"],
    ["loading"],
    ["moved"],
    ["response"],
    ["full"],
    ["read-only"],
    ["forbidden"],
    ["damaged"],
    ["missing"],
    ["circuit-open"],
    ["dropped"],
];
const RETRIES: [[&str; 1]; 5] =
    [["connect"], ["reused-connection"], ["before-answer"], ["timeout"], ["status"]];

const RELOADS: [&str; 2] = ["success", "failure"];
/// The words of `upstream::state::Condition`, which a test compares.
pub(crate) const STATES: [&str; 10] =
    ["up", "warming", "on-trial", "ejected", "resting", "down", "draining", "drained", "idle", "unresolved"];

const REJECTIONS: [[&str; 1]; 3] = [["full"], ["timeout"], ["circuit-open"]];

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(target_os = "linux")]
fn register_process(registry: &Shown) {
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process)).expect("its names are its own");
}

/// Only Linux tells a process about itself in a way the collector reads.
#[cfg(not(target_os = "linux"))]
fn register_process(_registry: &Shown) {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::name::RouteName;
    use crate::base::unit::ByteSize;
    use crate::plan::{self, AccessLog, Instance, LogFormat};
    use std::collections::BTreeSet;

    fn upstream(name: &str, servers: &[&str]) -> plan::Upstream {
        let time = Duration::from_secs(1);
        plan::Upstream {
            name: name.into(),
            servers: servers
                .iter()
                .map(|addr| Instance { addr: (*addr).to_owned(), weight: 1, backup: false })
                .collect(),
            balance: Default::default(),
            health: None,
            timeouts: plan::UpstreamTimeouts { connect: time, read: time, write: time, idle: time },
            eject: None,
            panic: 0,
            breaker: None,
            pool: None,
            sticky: None,
            trying: plan::Trying::default(),
            retry_budget: None,
            host: Default::default(),
            tls: None,
            http: Default::default(),
        }
    }

    fn route(name: &str, action: Action) -> plan::Route {
        plan::Route {
            name: RouteName::from(name),
            action,
            split: None,
            trying: plan::Trying::default(),
            rewrite: Default::default(),
            max_body_size: None,
            priority: Default::default(),
            content_key: None,
            store_when: Default::default(),
            browser: None,
            compress: None,
            ward: Some(Default::default()),
            lifetimes: Default::default(),
            shadow: true,
        }
    }

    fn secured() -> plan::Listener {
        let zero = Duration::ZERO;
        plan::Listener {
            name: "web".into(),
            addr: ([127, 0, 0, 1], 0).into(),
            limits: plan::ClientLimits {
                header_timeout: zero,
                idle_timeout: zero,
                read_timeout: zero,
                write_timeout: zero,
                keepalive_requests: 1,
                max_header_size: ByteSize::kib(1),
                max_header_fields: 1,
                max_body_size: ByteSize::kib(1),
                room: crate::guard::crowd::Room { all: 0, each: 0 },
                min_rate: ByteSize::kib(1),
            },
            purgers: None,
            tls: Some(plan::listen::Tls {
                certificates: vec![plan::listen::Certificate {
                    cert: "a.pem".into(),
                    key: "a.key".into(),
                    ocsp: None,
                }],
                profile: plan::listen::Profile::Modern,
                clients: plan::listen::Clients::Anyone,
                unknown_names: plan::listen::UnknownNames::First,
                tickets: true,
                handshake_timeout: zero,
                reload: zero,
                hsts: None,
            }),
            http: plan::listen::Versions::Either,
            http2: plan::listen::Http2 {
                max_streams: 1,
                max_control_frames: 1,
                stream_window: ByteSize::kib(64),
                connection_window: ByteSize::kib(64),
                send_buffer: ByteSize::kib(64),
                header_table: ByteSize::kib(4),
            },
            https_port: None,
        }
    }

    /// Routes `cached` and `plain` to upstream `api` of two instances, and `fixed`, which answers 418; a cache `pages` of 1 MiB; a Redis.
    pub(in crate::observe) fn plan() -> Plan {
        Plan {
            server: plan::Server {
                threads: 1,
                drain_delay: Duration::ZERO,
                drain_timeout: Duration::ZERO,
                trusted_proxies: Default::default(),
                name: "vanne".into(),
            },
            listeners: vec![secured()],
            admin: plan::Admin { addr: None, token: None },
            log: plan::Log { level: "info".into(), format: LogFormat::Text, access: AccessLog::Off },
            redis: Some(plan::Redis {
                url: "redis://127.0.0.1".into(),
                timeout: Duration::from_millis(50),
                prefix: String::new(),
                trust: Duration::from_secs(10),
                password_file: None,
                tls: plan::RedisTls::default(),
            }),
            upstreams: vec![upstream("api", &["127.0.0.1:8001", "127.0.0.1:8002"])],
            caches: vec![plan::Cache {
                name: "pages".into(),
                rules: Default::default(),
                memory: ByteSize::mib(1),
                max_object: ByteSize::kib(1),
                memory_max_object: None,
                coalesce: Default::default(),
                relay: Default::default(),
                lease: Duration::from_secs(3),
                wait_timeout: Duration::from_secs(1),
            }],
            limits: vec![plan::ward::Limit {
                name: "each".into(),
                key: crate::guard::rate::KeyBy::Address,
                rate: None,
                in_flight: Some(1),
                fleet: false,
                without_redis: plan::ward::WithoutRedis::Local,
                hits: true,
                status: http::StatusCode::TOO_MANY_REQUESTS,
                tell: plan::ward::Tell::Always,
                most_keys: 0,
            }],
            realms: Vec::new(),
            routes: vec![
                route("cached", Action::Forward { upstream: 0, cache: Some(0) }),
                route("plain", Action::Forward { upstream: 0, cache: None }),
                route(
                    "fixed",
                    Action::Respond { status: http::StatusCode::IM_A_TEAPOT, body: String::new() },
                ),
            ],
            table: Default::default(),
        }
    }

    /// The value of a series, written as the text format does: labels in the order of their names.
    pub(in crate::observe) fn value(page: &str, series: &str) -> Option<f64> {
        let mut lines = page.lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(name, _)| *name == series).and_then(|(_, value)| value.parse().ok())
    }

    #[track_caller]
    fn assert_values(page: &str, wanted: &[(&str, f64)]) {
        for (series, wanted) in wanted {
            assert_eq!(value(page, series), Some(*wanted), "{series} in\n{page}");
        }
    }

    #[test]
    fn what_the_plan_knows_is_there_at_zero_from_the_start() {
        let page = Metrics::new(&plan()).render();
        for series in [
            r#"vanne_requests_total{code="200",method="GET",route="cached"}"#,
            r#"vanne_requests_total{code="502",method="GET",route="cached"}"#,
            r#"vanne_requests_total{code="200",method="GET",route="plain"}"#,
            r#"vanne_requests_total{code="418",method="GET",route="fixed"}"#,
            r#"vanne_requests_total{code="404",method="GET",route="_none"}"#,
            r#"vanne_request_duration_seconds_count{cache="none",route="plain"}"#,
            r#"vanne_request_duration_seconds_count{cache="hit-memory",route="cached"}"#,
            r#"vanne_request_duration_seconds_bucket{cache="miss",route="cached",le="0.0005"}"#,
            r#"vanne_request_duration_seconds_bucket{cache="miss",route="cached",le="120"}"#,
            r#"vanne_request_bytes_total{route="_none"}"#,
            r#"vanne_response_bytes_total{route="fixed"}"#,
            "vanne_requests_in_flight",
            r#"vanne_refused_total{reason="framing"}"#,
            r#"vanne_cache_requests_total{result="hit",route="cached",tier="memory"}"#,
            r#"vanne_cache_requests_total{result="hit",route="cached",tier="redis"}"#,
            r#"vanne_cache_requests_total{result="stale",route="cached",tier="none"}"#,
            r#"vanne_cache_requests_total{result="miss",route="cached",tier="none"}"#,
            r#"vanne_cache_requests_total{result="collapsed",route="cached",tier="none"}"#,
            r#"vanne_cache_requests_total{result="revalidated",route="cached",tier="none"}"#,
            r#"vanne_cache_requests_total{result="bypass",route="cached",tier="none"}"#,
            r#"vanne_cache_lookups_total{name="pages",result="error",tier="redis"}"#,
            r#"vanne_cache_lookup_duration_seconds_count{name="pages",tier="memory"}"#,
            r#"vanne_cache_collapsed_total{name="pages"}"#,
            r#"vanne_cache_stores_total{name="pages",result="stored"}"#,
            r#"vanne_cache_evictions_total{name="pages",tier="memory"}"#,
            "vanne_redis_up",
            "vanne_redis_circuit_open",
            r#"vanne_redis_errors_total{kind="timeout"}"#,
            r#"vanne_redis_command_duration_seconds_count{command="get"}"#,
            r#"vanne_upstream_requests_total{code="200",instance="127.0.0.1:8002",upstream="api"}"#,
            r#"vanne_upstream_failures_total{at="timeout",instance="127.0.0.1:8001",upstream="api"}"#,
            r#"vanne_upstream_connections_total{reused="true",upstream="api"}"#,
            r#"vanne_upstream_duration_seconds_count{phase="first_byte",upstream="api"}"#,
            r#"vanne_upstream_retries_total{reason="connect",upstream="api"}"#,
            r#"vanne_upstream_in_flight{instance="127.0.0.1:8001",upstream="api"}"#,
            r#"vanne_health_checks_total{instance="127.0.0.1:8001",result="failure",upstream="api"}"#,
            "vanne_access_log_dropped_total",
        ] {
            assert_values(&page, &[(series, 0.0)]);
        }
        assert_values(
            &page,
            &[
                (r#"vanne_upstream_up{instance="127.0.0.1:8001",upstream="api"}"#, 1.0),
                (r#"vanne_cache_capacity_bytes{name="pages",tier="memory"}"#, 1_048_576.0),
                (concat!(r#"vanne_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#), 1.0),
            ],
        );
    }

    #[test]
    fn every_metric_of_the_list_is_shown_with_its_type_and_no_other() {
        let page = Metrics::new(&plan()).render();
        let shown: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let ours = names::ALL.iter().map(|metric| (metric.name, metric.kind));
        let process =
            names::PROCESS.iter().map(|(name, kind, _)| (*name, *kind)).filter(|_| cfg!(target_os = "linux"));
        let listed: BTreeSet<String> =
            ours.chain(process).map(|(name, kind)| format!("{name} {}", kind.as_str())).collect();
        assert_eq!(shown, listed.iter().map(String::as_str).collect());
        assert!(!page.contains("# incomplete"));
    }

    #[test]
    fn a_request_is_counted_under_its_route_method_status_and_cache_result() {
        let metrics = Metrics::new(&plan());
        let took = Duration::from_millis(2);
        metrics.request(Some(0), &Method::GET, 200, CacheResult::HitRedis, took, 0, 1000);
        metrics.request(Some(0), &Method::QUERY, 201, CacheResult::Bypass, took, 7, 30);
        metrics.request(Some(2), &Method::from_bytes(b"BREW").unwrap(), 418, CacheResult::None, took, 5, 0);
        metrics.request(None, &Method::POST, 404, CacheResult::None, took, 0, 9);
        metrics.request(Some(1), &Method::GET, 0, CacheResult::None, Duration::from_secs(300), 0, 0);
        assert_values(
            &metrics.render(),
            &[
                (r#"vanne_requests_total{code="200",method="GET",route="cached"}"#, 1.0),
                (r#"vanne_requests_total{code="201",method="QUERY",route="cached"}"#, 1.0),
                (r#"vanne_requests_total{code="418",method="OTHER",route="fixed"}"#, 1.0),
                (r#"vanne_requests_total{code="404",method="POST",route="_none"}"#, 1.0),
                (r#"vanne_requests_total{code="none",method="GET",route="plain"}"#, 1.0),
                (r#"vanne_cache_requests_total{result="hit",route="cached",tier="redis"}"#, 1.0),
                (r#"vanne_cache_requests_total{result="bypass",route="cached",tier="none"}"#, 1.0),
                (r#"vanne_request_bytes_total{route="cached"}"#, 7.0),
                (r#"vanne_response_bytes_total{route="cached"}"#, 1030.0),
                (r#"vanne_response_bytes_total{route="_none"}"#, 9.0),
                (r#"vanne_request_duration_seconds_sum{cache="hit-redis",route="cached"}"#, 0.002),
                (
                    r#"vanne_request_duration_seconds_bucket{cache="hit-redis",route="cached",le="0.001"}"#,
                    0.0,
                ),
                (
                    r#"vanne_request_duration_seconds_bucket{cache="hit-redis",route="cached",le="0.0025"}"#,
                    1.0,
                ),
                (r#"vanne_request_duration_seconds_bucket{cache="none",route="plain",le="120"}"#, 0.0),
                (r#"vanne_request_duration_seconds_bucket{cache="none",route="plain",le="+Inf"}"#, 1.0),
            ],
        );
    }

    #[test]
    fn a_route_without_a_cache_counts_no_cache_request() {
        let metrics = Metrics::new(&plan());
        metrics.request(Some(1), &Method::GET, 200, CacheResult::None, Duration::ZERO, 0, 0);
        let page = metrics.render();
        assert!(!page.contains(r#"vanne_cache_requests_total{result="none""#));
        assert!(!page.lines().any(|l| l.starts_with("vanne_cache_requests_total") && l.contains("plain")));
    }

    #[test]
    fn methods_a_client_invents_share_one_series() {
        let metrics = Metrics::new(&plan());
        for number in 0..50 {
            let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
            metrics.request(None, &method, 404, CacheResult::None, Duration::ZERO, 0, 0);
        }
        let page = metrics.render();
        assert_values(&page, &[(r#"vanne_requests_total{code="404",method="OTHER",route="_none"}"#, 50.0)]);
        assert!(!page.contains("M1"));
    }

    #[test]
    fn every_known_method_has_its_own_label() {
        for (index, name) in METHODS[..METHODS.len() - 1].iter().enumerate() {
            assert_eq!(method_index(&Method::from_bytes(name.as_bytes()).unwrap()), index);
        }
        assert_eq!(METHODS[method_index(&Method::from_bytes(b"OTHER").unwrap())], "OTHER");
        assert_eq!(METHODS[method_index(&Method::from_bytes(b"get").unwrap())], "OTHER");
    }

    #[test]
    fn every_refusal_has_its_word() {
        let metrics = Metrics::new(&plan());
        for (why, word) in [
            (Refusal::Host, "host"),
            (Refusal::Authority, "authority"),
            (Refusal::Target, "target"),
            (Refusal::Framing, "framing"),
            (Refusal::Method, "method"),
            (Refusal::HeadTooLarge, "head-too-large"),
            (Refusal::BodyTooLarge, "body-too-large"),
            (Refusal::Expectation, "expectation"),
            (Refusal::Crowd, "too-many-connections"),
        ] {
            metrics.refused(why);
            assert_values(&metrics.render(), &[(&format!(r#"vanne_refused_total{{reason="{word}"}}"#), 1.0)]);
        }
    }

    #[test]
    fn cache_results_stand_in_the_order_of_their_positions() {
        for (index, result) in CacheResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, index);
        }
    }

    #[test]
    fn requests_in_flight_are_given_back() {
        let metrics = Metrics::new(&plan());
        metrics.request_entered();
        metrics.request_entered();
        metrics.request_left();
        assert_eq!(metrics.in_flight(), 1);
        assert_values(&metrics.render(), &[("vanne_requests_in_flight", 1.0)]);
    }

    #[test]
    fn a_cache_counts_under_its_name() {
        let metrics = Metrics::new(&plan());
        let cache = metrics.cache(&"pages".into());
        cache.lookup("memory", "hit", Duration::from_micros(3));
        cache.clone().lookup("redis", "miss", Duration::from_millis(1));
        cache.collapsed();
        cache.lease("shared");
        cache.store("stored");
        cache.store("private");
        cache.evicted();
        cache.memory(2, 300, 1000);
        assert_values(
            &metrics.render(),
            &[
                (r#"vanne_cache_lookups_total{name="pages",result="hit",tier="memory"}"#, 1.0),
                (r#"vanne_cache_lookups_total{name="pages",result="miss",tier="redis"}"#, 1.0),
                (
                    r#"vanne_cache_lookup_duration_seconds_bucket{name="pages",tier="memory",le="0.00001"}"#,
                    1.0,
                ),
                (r#"vanne_cache_lookup_duration_seconds_sum{name="pages",tier="redis"}"#, 0.001),
                (r#"vanne_cache_collapsed_total{name="pages"}"#, 1.0),
                (r#"vanne_cache_leases_total{name="pages",result="shared"}"#, 1.0),
                (r#"vanne_cache_stores_total{name="pages",result="stored"}"#, 1.0),
                (r#"vanne_cache_stores_total{name="pages",result="private"}"#, 1.0),
                (r#"vanne_cache_evictions_total{name="pages",tier="memory"}"#, 1.0),
                (r#"vanne_cache_entries{name="pages",tier="memory"}"#, 2.0),
                (r#"vanne_cache_bytes{name="pages",tier="memory"}"#, 300.0),
                (r#"vanne_cache_capacity_bytes{name="pages",tier="memory"}"#, 1000.0),
            ],
        );
    }

    #[test]
    fn redis_counts_once_for_everyone_who_holds_its_handles() {
        let metrics = Metrics::new(&plan());
        let (one, other) = (metrics.redis(), metrics.redis());
        one.command("get", Duration::from_millis(3));
        other.command("get", Duration::from_millis(1));
        one.error("timeout");
        one.up(true);
        other.circuit_open(true);
        assert_values(
            &metrics.render(),
            &[
                (r#"vanne_redis_command_duration_seconds_count{command="get"}"#, 2.0),
                (r#"vanne_redis_command_duration_seconds_sum{command="get"}"#, 0.004),
                (r#"vanne_redis_errors_total{kind="timeout"}"#, 1.0),
                ("vanne_redis_up", 1.0),
                ("vanne_redis_circuit_open", 1.0),
            ],
        );
        one.up(false);
        one.circuit_open(false);
        assert_values(&metrics.render(), &[("vanne_redis_up", 0.0), ("vanne_redis_circuit_open", 0.0)]);
    }

    #[test]
    fn without_a_redis_none_is_shown_as_down() {
        let page = Metrics::new(&Plan { redis: None, ..plan() }).render();
        assert!(!page.contains("vanne_redis"));
    }

    #[test]
    fn an_upstream_counts_by_instance() {
        let metrics = Metrics::new(&plan());
        let api = metrics.upstream(&"api".into());
        api.answered(1, 503, Duration::from_millis(250));
        api.failed(0, FailedAt::Timeout);
        api.connected(false, Duration::from_millis(1));
        api.connected(true, Duration::from_millis(9));
        api.retried("connect");
        api.in_flight(0, 3);
        api.in_flight(0, -1);
        api.up(1, false);
        api.checked(0, true);
        api.checked(1, false);
        assert_values(
            &metrics.render(),
            &[
                (
                    r#"vanne_upstream_requests_total{code="503",instance="127.0.0.1:8002",upstream="api"}"#,
                    1.0,
                ),
                (
                    r#"vanne_upstream_failures_total{at="timeout",instance="127.0.0.1:8001",upstream="api"}"#,
                    1.0,
                ),
                (r#"vanne_upstream_duration_seconds_sum{phase="first_byte",upstream="api"}"#, 0.25),
                (r#"vanne_upstream_duration_seconds_sum{phase="connect",upstream="api"}"#, 0.001),
                (r#"vanne_upstream_connections_total{reused="false",upstream="api"}"#, 1.0),
                (r#"vanne_upstream_connections_total{reused="true",upstream="api"}"#, 1.0),
                (r#"vanne_upstream_retries_total{reason="connect",upstream="api"}"#, 1.0),
                (r#"vanne_upstream_in_flight{instance="127.0.0.1:8001",upstream="api"}"#, 2.0),
                (r#"vanne_upstream_up{instance="127.0.0.1:8001",upstream="api"}"#, 1.0),
                (r#"vanne_upstream_up{instance="127.0.0.1:8002",upstream="api"}"#, 0.0),
                (
                    r#"vanne_health_checks_total{instance="127.0.0.1:8001",result="success",upstream="api"}"#,
                    1.0,
                ),
                (
                    r#"vanne_health_checks_total{instance="127.0.0.1:8002",result="failure",upstream="api"}"#,
                    1.0,
                ),
            ],
        );
    }

    #[test]
    fn every_way_to_fail_has_its_word() {
        let metrics = Metrics::new(&plan());
        let api = metrics.upstream(&"api".into());
        for (at, word) in [
            (FailedAt::Connect, "connect"),
            (FailedAt::ReusedConnection, "reused-connection"),
            (FailedAt::BeforeAnswer, "before-answer"),
            (FailedAt::Timeout, "timeout"),
            (FailedAt::DuringAnswer, "during-answer"),
        ] {
            api.failed(0, at);
            let series = format!(
                r#"vanne_upstream_failures_total{{at="{word}",instance="127.0.0.1:8001",upstream="api"}}"#
            );
            assert_values(&metrics.render(), &[(&series, 1.0)]);
        }
    }

    #[test]
    fn two_gateways_in_one_process_count_apart() {
        let (one, other) = (Metrics::new(&plan()), Metrics::new(&plan()));
        one.access_log_dropped();
        assert_values(&one.render(), &[("vanne_access_log_dropped_total", 1.0)]);
        assert_values(&other.render(), &[("vanne_access_log_dropped_total", 0.0)]);
    }

    #[test]
    fn positions_and_names_the_plan_does_not_know_harm_nobody() {
        let metrics = Metrics::new(&plan());
        metrics.request(Some(99), &Method::GET, 200, CacheResult::None, Duration::ZERO, 0, 0);
        let stranger = metrics.upstream(&"stranger".into());
        stranger.answered(0, 200, Duration::ZERO);
        stranger.up(5, true);
        metrics.cache(&"stranger".into()).evicted();
        assert_values(
            &metrics.render(),
            &[
                (r#"vanne_requests_total{code="200",method="GET",route="_none"}"#, 1.0),
                (r#"vanne_cache_evictions_total{name="stranger",tier="memory"}"#, 1.0),
            ],
        );
    }

    #[test]
    fn names_with_quotes_and_line_breaks_stay_within_their_label() {
        let mut plan = plan();
        plan.routes[0].name = "a\"b\\c\nd".into();
        let page = Metrics::new(&plan).render();
        assert!(page.contains(r#"vanne_request_bytes_total{route="a\"b\\c\nd"} 0"#), "{page}");
    }
}
