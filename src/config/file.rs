//! The file as it is written: every key with its meaning, its default and another right value.
//!
//! The comments below are the operator's manual: the reference, the schema and `vanne config reference` are made of them.

use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::kind::{
    Address, AdminAddress, AnySize, AnyTime, Asked, Authorization, Balance, BodyForm, ByStatus, CheckType,
    ClientAuth, CookieName, Count, Directives, FieldValue, FileBeneath, FileName, FilePath, Folder,
    FrameWord, Hits, HostName, HostPort, HttpVersions, JsonPlace, JsonPointer, Label, LeaseTime, Level, List,
    MediaType, Named, Network, OneOrMany, OrOff, Path, PerTime, Prefix, Pseudonym, RealmText, RedisUrl,
    Regexp, RetryOn, Scope, Size, Statuses, Text, Threads, Timeout, Token, UpstreamHttp, UserLine, Versions,
};
use super::read::{Node, Reader, Set, State};
use super::reference::section_schema;
use super::setting::{Fallback, Section, Setting, Shape};
use super::table::table;
use crate::balance::HashOn;
use crate::balance::sticky::{SameSite, Secure};
use crate::cache::{
    ClientDirectives, Coalesce, Encodings, Languages, QueryRule, Relay, SetCookie, StaleMode, TtlMode,
};
use crate::forward::HostRule;
use crate::forward::browser::Pattern;
use crate::forward::coding::Coding;
use crate::guard::rate::KeyBy;
use crate::plan::listen::{Profile, UnknownNames};
use crate::plan::ward::{Tell, WithoutRedis};
use crate::plan::{AccessLog, HealthStart, LogFormat, Priority};

table! {
    /// Durations and sizes are texts with units: "50ms", "30s", "1h 30m"; "64KiB", "256MiB".
    /// In every text, ${NAME} and ${NAME:-default} take an environment variable, ${file:/run/secrets/NAME} what a file holds, and $$ is a
    /// dollar sign.
    /// For the keys that flags and environment variables set, too, a flag comes first, then the variable, then this file.
    File {
        /// The process as a whole.
        server: ServerTable = {}, or { threads = 7 };
        /// Public listeners by name. Without any, one named `web` listens on 0.0.0.0:8080.
        listen: Named<ListenTable> = { web = {} }, or { public = { addr = ":8081" } };
        /// The operator's own listener: /metrics, /healthz, /readyz. Keep it away from the public.
        admin: AdminTable = {}, or { addr = "off" };
        /// Logs: the program's own messages and the access log.
        log: LogTable = {}, or { level = "debug" };
        /// The store that all gateways share.
        redis: RedisTable = {}, or { url = "redis://127.0.0.1:6379" };
        /// Groups of interchangeable API instances, by name.
        upstreams: Named<UpstreamTable> = {}, or { api = { servers = ["127.0.0.1:8001"] } };
        /// Cache policies by name; a route names the one it uses.
        caches: Named<CacheTable> = {}, or { api = {} };
        /// How often clients may ask, by name; a route names those that hold for it.
        limits: Named<LimitTable> = {}, or { each = { rate = "100/s" } };
        /// Addresses that may ask and addresses that may not, by name.
        access: Named<AccessTable> = {}, or { office = { allow = ["192.0.2.0/24"] } };
        /// Users and their passwords, by name.
        auth: Named<AuthTable> = {}, or { staff = { users_file = "/etc/vanne/users" } };
        /// Which other sites' pages may read answers, by name.
        cors: Named<CorsTable> = {}, or { web = { origins = ["https://app.example.com"] } };
        /// Which requests go where. The most particular match wins, whatever the order here: an exact host before a wildcard before
        /// any, an exact path before one with parameters before a prefix, a route with methods before one without.
        routes: List<RouteTable> = [], or [{ upstream = "api" }];
    }
}

table! {
    /// The process as a whole.
    ServerTable {
        /// Worker threads: a number from 1 to 1024, or "auto" for as many as there are cores.
        threads: Threads = "auto", or 7;
        /// After SIGTERM: how long to go on accepting while /readyz already answers 503, so that a balancer before us looks away first.
        drain_delay: AnyTime = "0s", or "5s";
        /// After that: how long requests in flight may take before they are cut.
        drain_timeout: AnyTime = "30s", or "1m";
        /// The networks or addresses of proxies before us whose X-Forwarded-* fields are believed.
        trusted_proxies: List<Network> = [], or ["10.0.0.0/8", "192.0.2.7"];
        /// A file with more of them: one a line, # begins a comment. Read at start and at every reload.
        trusted_proxies_file: FilePath = absent, or "config/proxies.txt";
        /// The field in which they name the client alone, like CF-Connecting-IP or CloudFront-Viewer-Address. Only where nobody reaches us past
        /// them; without it in a request, and when this is not written, X-Forwarded-For is read from the right.
        client_address: HeaderName = absent, or "CF-Connecting-IP";
        /// Our name in `Via` and `Cache-Status`.
        name: Pseudonym = "vanne", or "edge-1";
    }
}

table! {
    /// A public address and what its clients may do.
    ListenTable {
        /// Where to listen: an IP address and a port; ":8080" is all IPv4 addresses. LISTEN or --listen set it for the only listener,
        /// or for the one named `web`.
        addr: Address = "0.0.0.0:8080", or "127.0.0.1:8081";
        /// The whole request head must have come this long after its first byte.
        header_timeout: Timeout = "10s", or "5s";
        /// How long a kept-alive connection may wait for its next request.
        idle_timeout: Timeout = "75s", or "20s";
        /// How long a read of the request body may wait.
        read_timeout: Timeout = "30s", or "20s";
        /// How long a write of the response may wait.
        write_timeout: Timeout = "30s", or "20s";
        /// Requests served on one connection before it is closed.
        keepalive_requests: Count<1, 1_000_000_000> = 1000, or 100;
        /// The largest request head, request line and all fields together.
        max_header_size: Size<1024, 1_048_576> = "32KiB", or "16KiB";
        /// The most header fields a request may have.
        max_header_fields: Count<1, 256> = 100, or 50;
        /// The largest request body; "0B" is no limit. A route may say otherwise.
        max_body_size: AnySize = "10MiB", or "1MiB";
        /// Connections open at once; one more is answered 503 and closed. 0 is no limit.
        max_connections: Count<0, 10_000_000> = 50_000, or 1000;
        /// The same from one address (IPv6: from one /64 network). Trusted proxies are exempt. 0 is no limit.
        max_connections_per_address: Count<0, 10_000_000> = 10_000, or 100;
        /// The least a client must move per second: over a whole request body or answer, no more may be waited for it than `read_timeout` or
        /// `write_timeout` and the time this rate takes for what it moved. "0B" is no limit.
        min_rate: AnySize = "100B", or "1KiB";
        /// Which HTTP is spoken: "http1", "http2" or "auto". "auto" is both over TLS, as the client wishes, and "http1" without. Without TLS,
        /// "http2" is for clients that know beforehand (h2c).
        http: HttpVersions = "auto", or "http2";
        /// How HTTP/2 is spoken.
        http2: Http2Table = {}, or { max_streams = 50 };
        /// Answer every request that did not come over TLS with a redirect to https:// and this port, those for
        /// /.well-known/acme-challenge/ excepted.
        https_port: Count<1, 65_535> = absent, or 443;
        /// Secure the connections. "off": they are not.
        tls: OrOff<TlsTable> = "off", or { certificates = [{ cert = "/etc/vanne/example.com.pem", key = "/etc/vanne/example.com.key" }] };
        /// Who may purge here with PURGE and BAN requests. "off": nobody, and both are methods like any other.
        purge: OrOff<PurgeTable> = "off", or { allow = ["127.0.0.1"] };
    }
}

table! {
    /// What a client of HTTP/2 may take, beside what the listener's other limits say.
    Http2Table {
        /// Requests served at once on a connection; the client keeps others back, and one more is refused.
        max_streams: Count<1, 100_000> = 100, or 50;
        /// Frames that bring neither a request nor content (PING, SETTINGS, RST_STREAM, PRIORITY, CONTINUATION, empty DATA): so many at once, a tenth of
        /// it per second, and one for each KiB moved. A client that sends more is cut off.
        max_control_frames: Count<10, 1_000_000> = 1000, or 200;
        /// Content of one request that is taken ahead of whoever reads it.
        stream_window: Size<65_535, 16_777_216> = "256KiB", or "1MiB";
        /// The same of all requests of a connection.
        connection_window: Size<65_535, 268_435_456> = "1MiB", or "4MiB";
        /// Content of one answer that waits for the client to take it.
        send_buffer: Size<16_384, 16_777_216> = "64KiB", or "256KiB";
        /// What is remembered of fields sent before, to shorten those sent next (HPACK).
        header_table: Size<0, 65_536> = "4KiB", or "8KiB";
    }
}

table! {
    /// How the connections of a listener are secured. What it names are files; relative paths begin where the gateway was started.
    TlsTable {
        /// Certificates with their keys. Each client is shown the one for the name it asks for: an exact name comes before a wildcard. The first
        /// is shown to all others.
        certificates: List<CertificateTable> = required, or [{ cert = "/etc/vanne/example.com.pem", key = "/etc/vanne/example.com.key" }];
        /// "intermediate": TLS 1.2 and 1.3, with forward secrecy and authenticated encryption; "modern": TLS 1.3 alone.
        profile: Profile = "intermediate", or "modern";
        /// The roots, in PEM, that certificates of clients must lead to. Not written: clients are not asked for one. Who they are is passed on as
        /// Client-Cert (RFC 9440), X-Client-Cert-Subject and X-Client-Cert-Fingerprint, which no client can send itself.
        client_ca: FilePath = absent, or "/etc/vanne/clients-ca.pem";
        /// Whether a client must show a certificate or only may: "required" or "optional".
        client_auth: ClientAuth = "required", or "optional";
        /// What becomes of a client that asks for a name no certificate is for: it is shown the "first" one, or the gateway is to "refuse" it.
        unknown_names: UnknownNames = "first", or "refuse";
        /// Whether clients may resume a session by a ticket, which spares both sides most of the handshake.
        session_tickets: bool = true, or false;
        /// The whole handshake must be done in this time.
        handshake_timeout: Timeout = "10s", or "5s";
        /// How often the files are looked at for a change; "0s": never. Files that do not fit together are reported, and the ones before stay in
        /// use.
        reload: AnyTime = "10s", or "1m";
        /// Tell browsers to use HTTPS alone for these names from now on (Strict-Transport-Security).
        hsts: OrOff<HstsTable> = "off", or { max_age = "30d" };
    }
}

table! {
    /// A certificate, its key, and what is stapled to it.
    CertificateTable {
        /// The certificate, then those that lead to its root, in PEM.
        cert: FilePath = required, or "/etc/vanne/example.org.pem";
        /// Its private key, in PEM. Not for everybody to read: chmod 600.
        key: FilePath = required, or "/etc/vanne/example.org.key";
        /// What its issuer says of its revocation (an OCSP response in DER), stapled to handshakes.
        ocsp: FilePath = absent, or "/etc/vanne/example.org.ocsp";
    }
}

table! {
    /// What browsers are to remember of HTTPS.
    HstsTable {
        /// For how long.
        max_age: AnyTime = "365d", or "1d";
        /// Whether names below count, too.
        subdomains: bool = false, or true;
        /// Whether the name may be put on the lists that browsers are shipped with, which is hard to undo.
        preload: bool = false, or true;
    }
}

table! {
    /// Purging over a public listener, as nginx and Varnish have it. PURGE is about the URL it asks for, or about a directory if that ends with *; BAN
    /// about a directory; both about tags if they name some in Cache-Tag, Surrogate-Key or xkey. `Soft-Purge: 1` lets answers become stale instead.
    PurgeTable {
        /// The addresses and networks it is taken from. They are those of the clients: behind a proxy that `trusted_proxies` does not name,
        /// all clients have the proxy's.
        allow: List<Network> = required, or ["10.0.0.0/8", "127.0.0.1"];
    }
}

table! {
    /// The operator's own listener: /metrics, /healthz, /readyz, /api/v1. Keep it away from the public.
    AdminTable {
        /// Where to listen, or "off".
        addr: AdminAddress = "127.0.0.1:9180", or "off";
        /// What a request that changes something must show, as `Authorization: Bearer …`: at least 16 characters. Empty: nothing can
        /// be changed over the network.
        token: Token = "", or "${VANNE_ADMIN_TOKEN:-change-me-please-0123}";
    }
}

table! {
    /// Logs: the program's own messages and the access log.
    LogTable {
        /// The least severe messages written: error, warn, info, debug or trace; by part of the program: "warn,vanne=debug".
        /// LOG_LEVEL, RUST_LOG or --log-level set it, too.
        level: Level = "info", or "debug";
        /// How they look: "text" or "json". LOG_FORMAT or --log-format set it, too.
        format: LogFormat = "text", or "json";
        /// Where the access log goes, one JSON object per request: "stdout", "off", or a path.
        access: AccessLog = "stdout", or "off";
    }
}

table! {
    /// The store that all gateways share.
    RedisTable {
        /// redis://[user[:password]@]host[:port][/database]; rediss:// for TLS; redis+unix:///path;
        /// redis+sentinel://host,host/master; redis+cluster://host,host. Empty for none: the memory tier alone. REDIS_URL or --redis-url
        /// set it, too.
        url: RedisUrl = "", or "redis://127.0.0.1:6379";
        /// The budget of one operation; past it the answer counts as not stored and the instances are asked.
        timeout: Timeout = "50ms", or "80ms";
        /// What every key begins with. Gateways with the same prefix share their answers.
        prefix: Prefix = "vanne", or "staging";
        /// While Redis cannot tell what other gateways purge: how long an answer is served after it was last known to be right, before
        /// the instances are asked to confirm it.
        trust: AnyTime = "10s", or "1m";
        /// The file that holds the password, in place of one in the url. It is read again for every connection.
        password_file: Text = absent, or "/run/secrets/redis";
        /// TLS, for a url that begins with rediss.
        tls: RedisTlsTable = {}, or { ca = "/etc/vanne/ca.pem" };
    }
}

table! {
    /// TLS to Redis.
    RedisTlsTable {
        /// The file of the certificates that are trusted (PEM). Not written: those of the system.
        ca: Text = absent, or "/etc/vanne/ca.pem";
        /// The file of our own certificate (PEM), for a Redis that asks for one.
        cert: Text = absent, or "/etc/vanne/client.pem";
        /// The file of its key (PEM).
        key: Text = absent, or "/etc/vanne/client.key";
        /// The name its certificate must hold. Not written: the host of the url, or what a Sentinel or a Cluster tells.
        name: HostName = absent, or "redis.internal";
        /// Whether any certificate is taken: whoever stands between can then read and change everything.
        insecure: bool = false, or true;
    }
}

table! {
    /// A group of interchangeable API instances.
    UpstreamTable {
        /// The instances: "host:port", or { addr = "host:port", weight = 2 } for a larger share; weight 0 takes no new requests.
        servers: List<Server> = required, or ["127.0.0.1:8001", { addr = "127.0.0.1:8002", weight = 2 }];
        /// How one is chosen, always by weight: "round_robin", "least_conn", "p2c" (of two the one whose answer is expected sooner),
        /// "ip_hash", "consistent_hash" or "random"; or a table with what is particular to one way.
        balance: BalanceUse = "round_robin", or "least_conn";
        /// Ask the instances whether they are well. "off": only what happens to requests tells.
        health: OrOff<HealthTable> = "off", or { path = "/ready" };
        /// How long until a connection stands.
        connect_timeout: Timeout = "2s", or "1s";
        /// How long to wait between two reads of an answer.
        read_timeout: Timeout = "60s", or "5m";
        /// How long to wait between two writes of a request.
        write_timeout: Timeout = "30s", or "10s";
        /// How long an unused connection is kept. Keep it below the instances' own limit (uvicorn closes after 5 s), or a request may be
        /// sent into a connection that is just being closed.
        idle_timeout: Timeout = "4s", or "30s";
        /// How often a request may be tried, the first time included; each time on another instance while there is one.
        tries: Count<1, 100> = 3, or 2;
        /// How long a request may take until the head of its answer, all attempts together; then it is answered with 504. Within that time
        /// one that is safe to repeat and met silence for `read_timeout` is tried once more on another instance. Not written: silence ends it.
        timeout: Timeout = absent, or "2m";
        /// How long one attempt may wait for the head of its answer; not written: `read_timeout`. On what passes through it is also the most
        /// between two reads of the answer, so leave it out where answers are streamed with long pauses.
        try_timeout: Timeout = absent, or "5s";
        /// Which attempts of requests that are safe to repeat are followed by another one: "closed" (the connection broke before the answer),
        /// "timeout" (silence, once, within `timeout`), and statuses, while another instance may do better. Where no connection stood, the
        /// next instance is always tried.
        retry_on: List<RetryOn> = ["closed", "timeout"], or ["closed", "timeout", 502, 503, 504];
        /// How many requests may be tried again, so that retries do not multiply the load on instances that fail because of it. Those for which
        /// no connection stood do not count. "off": all.
        retry_budget: OrOff<BudgetTable> = {}, or { share = 10 };
        /// Take an instance out for a while when exchanges with it fail: no connection, broken before the answer, no answer in time. What an
        /// instance answers never counts, and neither does what a client causes. "off": never.
        eject: OrOff<EjectTable> = {}, or { after = 3 };
        /// While less than this share of the instances is up, in percent, all are used: those that are left could not hold what the others
        /// did. 0: while none is up.
        panic: Count<0, 100> = 0, or 50;
        /// Do not ask this upstream at all for a while when its exchanges fail, whatever instance they go to. "off": ask on.
        breaker: OrOff<BreakerTable> = "off", or { rate = 30 };
        /// How many requests each instance may have at once; those beyond wait in one queue for the first free place on any instance. The
        /// numbers are those of an instance's database pool, so that it is never exhausted. "off": no limit.
        pool: OrOff<PoolTable> = "off", or { size = 5, overflow = 10 };
        /// Clients stay with the instance that answered them first, by a cookie, while it is there and up. "off": each request is on its own.
        sticky: OrOff<StickyTable> = "off", or { key = "${STICKY_KEY:-change-me-please-0123}" };
        /// What the instances see as Host: "client" (what the client asked for), "instance" (the instance's address), or a name.
        host: HostRule = "client", or "api.internal";
        /// Which HTTP the instances speak: "http1", or "http2" (over TLS agreed on, else h2c), which gRPC needs.
        http: UpstreamHttp = "http1", or "http2";
        /// Speak to the instances under TLS. "off": in the clear.
        tls: OrOff<UpstreamTlsTable> = "off", or { sni = "api.internal" };
    }
}

table! {
    /// How an instance is chosen, with what is particular to one way.
    BalanceTable {
        /// The way.
        by: Balance = required, or "consistent_hash";
        /// For "consistent_hash": what of a request decides: "client" (its network), "path", "header NAME", "cookie NAME" or "query NAME".
        /// Requests without it are shared out by chance.
        on: HashOn = "client", or "header X-Tenant";
        /// For "consistent_hash": the most an instance may have in flight, in percent of its fair share of all; what would be beyond goes to
        /// the next instance. 0: no bound; otherwise from 100 on.
        load: Count<0, 1000> = 0, or 125;
        /// For "p2c": how long until a slow answer is forgotten, more or less.
        decay: Timeout = "10s", or "5s";
    }
}

table! {
    /// One instance and its share.
    ServerEntry {
        /// Its address: "host:port".
        addr: HostPort = required, or "127.0.0.1:8002";
        /// Its share; 0 takes no new requests.
        weight: Count<0, 1000> = 1, or 2;
        /// It is used only while no other instance is up.
        backup: bool = false, or true;
    }
}

table! {
    /// How many requests may be tried again, over the last ten seconds.
    BudgetTable {
        /// So many in a hundred requests.
        share: Count<0, 1000> = 20, or 10;
        /// And so many a second in any case.
        least: Count<0, 1_000_000> = 10, or 3;
    }
}

table! {
    /// When an instance is taken out for what happens to requests. Back, it gets one request at a time until it answers one.
    EjectTable {
        /// Failures in a row that take an instance out.
        after: Count<1, 1000> = 5, or 3;
        /// For how long the first time; each further time in a row twice as long.
        time: Timeout = "1s", or "2s";
        /// But never longer than this.
        max_time: Timeout = "4s", or "5m";
        /// At most this share of the instances is out at once, in percent.
        share: Count<1, 100> = 50, or 30;
        /// This share of failures takes an instance out as well, in percent, while the others do clearly better; 0: none does.
        rate: Count<0, 100> = 50, or 20;
        /// So many exchanges of an instance it takes to judge that share.
        volume: Count<1, 1_000_000> = 20, or 100;
        /// The share is judged over this time, up to now.
        window: Timeout = "10s", or "1m";
        /// Answers that count as failures, too. They take an instance out only while the others do clearly better: what one route
        /// answers, it answers on all of them.
        statuses: OneOrMany<Statuses<400, 599>> = [], or ["500", "502-504"];
        /// An instance that answers 429 or 503 with Retry-After is left alone for as long as that says, and no longer than this; "0s": not at
        /// all. Only for instances that say so of themselves, not of one client or one route.
        retry_after: AnyTime = "0s", or "10s";
    }
}

table! {
    /// When an upstream is not asked at all. Requests are answered with 503 and Retry-After then, or with a stale answer if a cache has one.
    BreakerTable {
        /// The share of exchanges that failed, in percent: no connection, broken before the answer, no answer in time.
        rate: Count<1, 100> = 50, or 30;
        /// So many exchanges it takes to judge that share.
        volume: Count<1, 1_000_000> = 20, or 100;
        /// The share is judged over this time, up to now.
        window: Timeout = "10s", or "1m";
        /// Answers that count as failures, too.
        statuses: OneOrMany<Statuses<400, 599>> = [], or ["500", "502-504"];
        /// For how long it is not asked the first time; each further time in a row twice as long.
        time: Timeout = "5s", or "1s";
        /// But never longer than this.
        max_time: Timeout = "1m", or "5m";
        /// After that so many requests at once are let through. As many must go well before all are; one that fails closes the way again.
        probes: Count<1, 1000> = 3, or 1;
    }
}

table! {
    /// A cookie that keeps a client with its instance. It names the instance by a keyed hash, which shows no address. What a cache fetches is
    /// for everybody: it goes to any instance and carries no cookie.
    StickyTable {
        /// The name of the cookie.
        cookie: CookieName = "vanne", or "server";
        /// What it is made with, the same on all gateways: at least 16 characters. Neither this nor `key_file`: a key of the process's own, so
        /// that clients are shared out anew when it restarts.
        key: Token = "", or "${STICKY_KEY:-change-me-please-0123}";
        /// A file that holds the key, read at the start.
        key_file: Path = absent, or "/run/secrets/sticky";
        /// How long a client keeps it. Not written: as long as the browser runs.
        max_age: Timeout = absent, or "1h";
        /// The path of the requests that carry it.
        path: Path = "/", or "/app";
        /// Whether it is for https alone: "auto" (when the client came by https), "always" or "never".
        secure: Secure = "auto", or "always";
        /// Whether scripts may not see it.
        http_only: bool = true, or false;
        /// Whether requests from other sites carry it: "lax" (those that lead to ours), "strict" (none) or "none" (all).
        same_site: SameSite = "lax", or "strict";
    }
}

table! {
    /// How many requests each instance may have at once. Every gateway counts for itself: with several, divide.
    PoolTable {
        /// Requests in flight at one instance.
        size: Count<1, 1_000_000> = 20, or 5;
        /// So many more, used only while no instance has room within `size`.
        overflow: Count<0, 1_000_000> = 40, or 10;
        /// How long a request waits for a place before it is answered with 503; "0s": not at all.
        timeout: AnyTime = "30s", or "5s";
        /// How many requests may wait at once; one more is answered with 503 straight away.
        queue: Count<0, 1_000_000> = 1000, or 100;
        /// A connection to an instance is closed when it is this old, give or take 10 %, and a new one made; "0s": never for its age.
        recycle: AnyTime = "1h", or "5m";
        /// A connection to an instance is closed after so many requests, and a new one made; 0: never for their number.
        recycle_count: Count<0, 1_000_000_000> = 0, or 1000;
        /// Let each instance say how many requests it can hold: that is its `size` from then on. "off": `size` alone.
        capacity: OrOff<CapacityTable> = "off", or { max = 50 };
    }
}

table! {
    /// How an instance says how many requests it can hold at once.
    CapacityTable {
        /// The field of its answers that says so, a whole number. Clients do not see it.
        header: HeaderName = "X-Capacity", or "X-Pool-Size";
        /// The member of its health answer that says so, the checks being of type "http" and the answer JSON of at most 64 KiB.
        json: JsonPlace = absent, or "/pool/size";
        /// The most that is believed; of less than 1, 1 is.
        max: Count<1, 1_000_000> = 1000, or 50;
    }
}

table! {
    /// How instances are spoken to under TLS.
    UpstreamTlsTable {
        /// The name that is asked for (SNI) and verified; not written: the instance's host.
        sni: HostName = absent, or "api.internal";
        /// A file with the roots (PEM) that the instances' certificates must lead to; not written: those the system trusts.
        ca: FilePath = absent, or "/etc/vanne/instances-ca.pem";
        /// Whether an instance's certificate must be valid and for that name.
        verify: bool = true, or false;
        /// The certificate that we show to instances which ask for one, then those that lead to its root, in PEM.
        cert: FilePath = absent, or "/etc/vanne/gateway.pem";
        /// Its private key, in PEM.
        key: FilePath = absent, or "/etc/vanne/gateway.key";
    }
}

table! {
    /// A check that every instance is asked regularly.
    HealthTable {
        /// "http": a GET of `path` is answered as expected; "tcp": a connection is accepted; "grpc": grpc.health.v1.Health/Check, over
        /// HTTP/2, is answered with SERVING.
        r#type: CheckType = "http", or "tcp";
        /// What an HTTP check asks for.
        path: Path = absent, or "/ready";
        /// The Host an HTTP or gRPC check sends; not written: the instance's address.
        host: HostName = absent, or "api.internal";
        /// The service a gRPC check asks about; not written: the server as a whole.
        service: Text = absent, or "api.v1.Search";
        /// The port that is asked; not written: the instance's own.
        port: Count<1, 65_535> = absent, or 8081;
        /// Ask over TLS. "off": in the clear.
        tls: OrOff<CheckTlsTable> = "off", or { verify = false };
        /// The time between two checks of an instance, give or take 10 %.
        every: Timeout = "2s", or "10s";
        /// The same while the instance is down; not written: `every`.
        every_down: Timeout = absent, or "500ms";
        /// The budget of a whole check.
        timeout: Timeout = "1s", or "500ms";
        /// Failures in a row that take an instance out.
        fall: Count<1, 1000> = 3, or 5;
        /// Successes in a row that bring it back.
        rise: Count<1, 1000> = 2, or 1;
        /// What an instance is before its first check: "up", or "down" until one succeeds. While no instance is up, all are used.
        start: HealthStart = "up", or "down";
        /// Brought back, an instance gets its share little by little over this time, so that it can warm up; "0s": at once.
        slow_start: AnyTime = "0s", or "20s";
        /// The statuses that count as success of an HTTP check: one, a range, or a list of both.
        expect: OneOrMany<Statuses<100, 599>> = "200-399", or [200, "204-299"];
        /// The statuses by which an instance says itself that it takes no requests now: they take it out at once, whatever `fall` says. So
        /// does NOT_SERVING of a gRPC check.
        withdraw: OneOrMany<Statuses<100, 599>> = 503, or [429, 503];
        /// A text that the answer's content must hold, in its first 64 KiB.
        contains: Text = absent, or "ready";
        /// A regular expression that must match somewhere in the answer's content, in its first 64 KiB.
        matches: Regexp = absent, or "^ok$";
        /// A member that the answer's content must have, being JSON of at most 64 KiB.
        json: CheckJsonTable = absent, or { at = "/status", is = "ok" };
    }
}

table! {
    /// How a check goes over TLS.
    CheckTlsTable {
        /// The name that is asked for (SNI) and verified; not written: the instance's host.
        sni: HostName = absent, or "api.internal";
        /// A file with the certificates (PEM) that vouch for the instances; not written: those the system trusts.
        ca: Text = absent, or "/etc/vanne/instances.pem";
        /// Whether the instance's certificate must be valid and for that name.
        verify: bool = true, or false;
    }
}

table! {
    /// A member of JSON and what it must be.
    CheckJsonTable {
        /// Where it is: its name, or a pointer like "/checks/database".
        at: JsonPlace = required, or "/status";
        /// What it must be: a text, or a number, true or false as JSON writes it.
        is: Text = required, or "ok";
    }
}

table! {
    /// A cache policy.
    CacheTable {
        /// How long an answer is fresh; `ttl_mode` says next to what. Not written: what the origin says. CACHE_TTL or --cache-ttl set it
        /// for every cache.
        ttl: AnyTime = absent, or "1h";
        /// What `ttl` means: "default" (when the origin says nothing), "override" (whatever the origin says), "cap" (at most).
        ttl_mode: TtlMode = "default", or "cap";
        /// The field by which the instances state how many seconds this one answer is fresh for this cache: before `ttl`, Cache-Control and all else,
        /// but no longer than `ttl` where `ttl_mode` is "cap". What is not to be stored is not stored by it.
        ttl_header: HeaderName = absent, or "X-Cache-TTL";
        /// Like `ttl` for some statuses, which may then be stored, too: { "404" = "10s", "500-599" = "1s" }. The narrowest range counts.
        ttl_by_status: ByStatus<AnyTime> = {}, or { "404" = "10s", "500-599" = "1s" };
        /// The share of the memory tier that this cache may fill.
        memory: Size<65_536, { u64::MAX }> = "256MiB", or "64MiB";
        /// Larger answers are passed on and not stored. Where there is a Redis it may be large ("1GiB"): large answers are written to it and read
        /// from it piece by piece, and never held as a whole.
        max_object: Size<1, { u64::MAX }> = "8MiB", or "1MiB";
        /// Larger answers are kept in Redis alone. Not written: "8MiB" at most; without a Redis whatever is stored is kept in memory.
        memory_max_object: Size<1, { u64::MAX }> = absent, or "512KiB";
        /// For this long past freshness, serve the old answer at once and fetch a new one meanwhile, unless the origin says otherwise.
        stale_while_revalidate: AnyTime = "0s", or "10m";
        /// For this long past freshness, serve the old answer when the instances fail (unreachable, too late, 500, 502, 503 or 504), unless
        /// the origin says otherwise. What was never fresh is never served so.
        stale_if_error: AnyTime = "10m", or "1d";
        /// What these two mean: "default" (when the origin says nothing), "override" (whatever the origin says, but for no-cache and
        /// must-revalidate; s-maxage, too, forbids to serve stale by default).
        stale_mode: StaleMode = "default", or "override";
        /// For this long past freshness, keep an answer that can be validated instead of fetched.
        keep: AnyTime = "1h", or "10m";
        /// What Set-Cookie in an answer means: "refuse" (not stored), "strip" (stored without), "store" (stored with, and so sent to others).
        set_cookie: SetCookie = "refuse", or "strip";
        /// Whether a client's no-cache, max-age and their like count: "honour" or "ignore".
        client_directives: ClientDirectives = "honour", or "ignore";
        /// Whether freshness may be guessed from Last-Modified when the origin says nothing.
        heuristic: bool = true, or false;
        /// Whether an answer that is asked for often is fetched anew, by chance, in the last tenth of its lifetime (at most its last minute),
        /// so that it does not expire for everybody at once.
        early_refresh: bool = true, or false;
        /// The targeted fields (RFC 9213) that count in place of Cache-Control and Expires: the first that is there and valid. Answers keep them.
        targeted: List<HeaderName> = ["CDN-Cache-Control"], or ["Surrogate-Control", "CDN-Cache-Control"];
        /// How often an answer must have been asked for before it is stored: with 2, what is asked for once takes no room.
        min_uses: Count<1, 255> = 1, or 2;
        /// Which requests pass the cache by.
        bypass: BypassTable = {}, or { cookies = ["session"] };
        /// Among whom one fetch serves all who ask for the same answer at the same time: "fleet" (all gateways that share a Redis), "process"
        /// (the requests of one gateway), or "off" (everybody fetches for himself).
        coalesce: Coalesce = "fleet", or "process";
        /// With "fleet": how long others wait for a gateway that died while it fetched. One that lives says so three times as often.
        lease: LeaseTime = "3s", or "1s";
        /// With "fleet": what the clients of another gateway get while it is still being fetched here: "streams" (text/event-stream), "all", or
        /// "off". The rest they get when it is stored; an event stream that is not relayed each gateway fetches for itself.
        relay: Relay = "streams", or "all";
        /// How long a request waits for another's fetch of the same answer before it fetches for itself.
        wait_timeout: AnyTime = "10s", or "2s";
        /// What tells two answers apart, beside scheme, host, port and path.
        key: KeyTable = {}, or { sort_query = true };
        /// What of the request fields that an answer's Vary names tells two answers apart.
        vary: VaryTable = {}, or { languages = "unordered" };
    }
}

table! {
    /// What of the request fields that an answer's Vary names tells two answers apart.
    VaryTable {
        /// What of Accept-Language: "as_sent" (all of it), "normalised" (not its case, spacing, form of weights, nor the order of languages
        /// liked differently), "unordered" (nor the order of those liked equally, which many instances take for a preference).
        languages: Languages = "normalised", or "unordered";
        /// Whether an answer that names its one language in Content-Language serves every request that likes this language best,
        /// whatever else it likes.
        content_language: bool = true, or false;
        /// What of Accept-Encoding: "as_sent" (all of it), "accepted" (the set of codings it accepts).
        encodings: Encodings = "accepted", or "as_sent";
    }
}

table! {
    /// Which requests pass the cache by: their answers come from an instance and are not stored.
    BypassTable {
        /// Those that have one of these fields.
        headers: List<HeaderName> = [], or ["X-Preview"];
        /// Those that have one of these cookies.
        cookies: List<CookieName> = [], or ["session"];
    }
}

table! {
    /// What tells two answers apart, beside scheme, host, port and path.
    KeyTable {
        /// Hosts that share their answers, as if all were the first. Only for names of one site: whoever may ask for one gets what was
        /// fetched for another.
        hosts: List<HostName> = [], or ["example.com", "www.example.com"];
        /// Which query parameters count: "all", "none", { only = ["page"] } or { except = ["utm_source"] }.
        query: QueryRule = "all", or { except = ["utm_source"] };
        /// Whether ?a=1&b=2 and ?b=2&a=1 are the same.
        sort_query: bool = false, or true;
        /// Request fields that count.
        headers: List<HeaderName> = [], or ["X-Tenant"];
        /// Cookies that count.
        cookies: List<CookieName> = [], or ["locale"];
    }
}

table! {
    /// Which requests go where: to an `upstream`, or answered with `files` or `respond`.
    RouteTable {
        /// Its name in metrics and logs; not written: made from the match.
        name: Label = absent, or "everything";
        /// Which requests it takes.
        r#match: MatchTable = {}, or { path = "/query" };
        /// The upstream that answers.
        upstream: Text = absent, or "api";
        /// Other upstreams that answer a part of the requests, such as a new version on trial.
        split: SplitTable = absent, or { to = [{ upstream = "canary", share = 5 }] };
        /// The cache before it: its name, or { use = NAME } with what is particular to this route.
        cache: CacheUse = absent, or "api";
        /// A prefix to remove from the path: with "/api", /api/users is sent on as /users.
        strip_prefix: Path = absent, or "/api";
        /// A prefix to replace in the path.
        replace_prefix: ReplaceTable = absent, or { from = "/v1", to = "/api/v1" };
        /// The largest request body; "0B" is no limit. Not written: the listener's.
        max_body_size: AnySize = absent, or "100MiB";
        /// How long a request of this route may take until the head of its answer, all attempts together. Not written: as its upstream says; so are
        /// the next three.
        timeout: Timeout = absent, or "10s";
        /// How long one attempt may wait for the head of its answer, at most the upstream's `read_timeout`.
        try_timeout: Timeout = absent, or "3s";
        /// How often a request may be tried, the first time included.
        tries: Count<1, 100> = absent, or 1;
        /// Which attempts are followed by another one: "closed", "timeout", statuses.
        retry_on: List<RetryOn> = absent, or ["closed", 503];
        /// Who goes first when requests wait for a place on an instance (see `pool`): "high" before "normal".
        priority: Priority = "normal", or "high";
        /// A folder whose files answer, in place of an upstream. A path names a file beneath it, as it is after `strip_prefix`.
        files: FilesTable = absent, or { root = "public" };
        /// How long browsers may keep what, by its name and type. Not written: for files its defaults, else what the answers say.
        cache_control: CacheControlTable = absent, or { html = "max-age=60" };
        /// What is compressed for clients that take it. Not written: files are by its defaults, the answers of an upstream are not. What a
        /// cache stores is compressed once, before it is stored.
        compress: OrOff<CompressTable> = absent, or { min_size = "2KiB" };
        /// An answer that the gateway gives itself, in place of an upstream.
        respond: RespondTable = absent, or { status = 404 };
        /// Who may ask, by address: a name of [access.NAME]. Others are answered with 403.
        access: Text = absent, or "office";
        /// How often clients may ask: names of [limits.NAME]. All of them hold.
        limits: OneOrMany<Text> = [], or ["each", "all"];
        /// Whose requests it takes: a name of [auth.NAME]. Others are answered with 401, from storage as from instances.
        auth: Text = absent, or "staff";
        /// Which other sites' pages may read its answers: a name of [cors.NAME]. Their preflights are answered by the gateway.
        cors: Text = absent, or "web";
        /// Fields that tell browsers to be careful, where the instance does not say so itself; `{}` is a good start.
        security_headers: OrOff<SecurityTable> = "off", or { frame = "deny" };
        /// What changes in the fields of its requests, before they make keys and are sent on.
        request_headers: EditTable = {}, or { set = { "X-Api-Version" = "2" } };
        /// What changes in the fields of its answers, from storage as from instances or the gateway itself.
        response_headers: EditTable = {}, or { remove = ["Server"] };
    }
}

table! {
    /// How often clients may ask. Several limits may hold for a route; a request that one of them refuses takes nothing from the others.
    LimitTable {
        /// What tells one client from another: "address" (IPv6: its /64 network), "token" (of Authorization: Bearer), "header:NAME",
        /// "cookie:NAME", or "all" for nothing. A request without the token, field or cookie counts by its address.
        key: KeyBy = "address", or "header:X-Api-Key";
        /// How often each may ask: a number per s, min, h or d.
        rate: PerTime = absent, or "100/s";
        /// How many may come at once before the rate holds. Not written: as many as `rate` says.
        burst: Count<1, 10_000_000> = absent, or 20;
        /// How many requests each may have in flight. Each gateway counts its own, whatever `scope` says.
        in_flight: Count<1, 1_000_000> = absent, or 10;
        /// Who counts together: each "gateway" for itself, or the "fleet" that shares the Redis.
        scope: Scope = "gateway", or "fleet";
        /// What happens while Redis cannot count for the fleet: "local" (each gateway counts for itself), "allow" (all pass), or "refuse" (none does: 503).
        without_redis: WithoutRedis = "local", or "refuse";
        /// Whether answers from storage count: "count", or "free".
        hits: Hits = "count", or "free";
        /// What is answered beyond the limit.
        status: Count<400, 599> = 429, or 503;
        /// Which answers tell what is left, in RateLimit and RateLimit-Policy: "always", "refused" or "never".
        tell: Tell = "always", or "refused";
        /// How many clients are remembered at most. Beyond it, those are forgotten first that have asked least.
        most_keys: Count<1024, 100_000_000> = 100_000, or 1_000_000;
    }
}

table! {
    /// Addresses that may ask and addresses that may not. The most specific network that holds an address decides, of equal ones the denial.
    AccessTable {
        /// Networks or addresses that may ask. With any, all that none of them holds may not.
        allow: List<Network> = [], or ["192.0.2.0/24", "2001:db8::/32"];
        /// Networks or addresses that may not.
        deny: List<Network> = [], or ["192.0.2.66"];
        /// Files with more to allow: one network a line, `#` begins a comment.
        allow_files: List<FilePath> = [], or ["/etc/vanne/allow.txt"];
        /// Files with more to deny.
        deny_files: List<FilePath> = [], or ["/etc/vanne/deny.txt"];
    }
}

table! {
    /// Users and their passwords: the Basic scheme. Use it over TLS alone.
    AuthTable {
        /// What a browser shows when it asks for the password.
        realm: RealmText = "restricted", or "Staff only";
        /// Users as `name:hash`; `vanne hash-password --user NAME` makes one. Hashes of argon2, bcrypt (`htpasswd -B`) and SHA-crypt are taken.
        users: List<UserLine> = [], or ["alice:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"];
        /// A file with more of them, one a line; `#` begins a comment.
        users_file: FilePath = absent, or "/etc/vanne/users";
        /// For how long a password is known once it was verified, so that its hash costs once; "0s": not at all.
        remember: AnyTime = "1m", or "10m";
        /// Whether instances get Authorization: "strip" (no: their answers then belong to no one user and may be shared), or "pass".
        authorization: Authorization = "strip", or "pass";
    }
}

table! {
    /// Which other sites' pages may read answers. What instances say about it gives way.
    CorsTable {
        /// The sites: "https://app.example.com", "https://*.example.com" for all its subdomains, or "*" for all.
        origins: OneOrMany<Text> = required, or ["https://app.example.com", "https://*.example.org"];
        /// The methods their pages may use.
        methods: List<Text> = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], or ["GET"];
        /// The fields their pages may send beside the plain ones, or "*" for any.
        headers: OneOrMany<Text> = ["Content-Type"], or "*";
        /// The fields of answers that their pages may read beside the plain ones.
        expose: List<HeaderName> = [], or ["X-Request-ID"];
        /// Whether their pages may use their users' cookies and credentials.
        credentials: bool = false, or true;
        /// For how long a browser may keep what it was told about these.
        max_age: AnyTime = "10m", or "1h";
    }
}

table! {
    /// Fields that tell browsers to be careful, where the instance does not say so itself.
    SecurityTable {
        /// Strict-Transport-Security: for how long browsers use TLS alone; "0s" says nothing. It is said over TLS only.
        hsts: AnyTime = "365d", or "30d";
        /// Whether that holds for subdomains, too.
        hsts_subdomains: bool = false, or true;
        /// Whether browsers may be shipped with it. Not easily undone.
        hsts_preload: bool = false, or true;
        /// X-Content-Type-Options: nosniff.
        nosniff: bool = true, or false;
        /// Referrer-Policy; empty says nothing.
        referrer_policy: Text = "strict-origin-when-cross-origin", or "no-referrer";
        /// X-Frame-Options: "sameorigin", "deny", or "off".
        frame: FrameWord = "sameorigin", or "deny";
        /// Content-Security-Policy; empty says nothing.
        content_security_policy: Text = "", or "default-src 'self'";
        /// Permissions-Policy; empty says nothing.
        permissions_policy: Text = "", or "geolocation=()";
        /// Cross-Origin-Opener-Policy; empty says nothing.
        opener_policy: Text = "", or "same-origin";
    }
}

table! {
    /// Changes of fields: removed first, then set, then added. In values, {client_ip}, {host}, {method}, {path}, {request_id}, {route}, {scheme} and
    /// {user} stand for what is known of the request.
    EditTable {
        /// Fields that are gone.
        remove: List<HeaderName> = [], or ["X-Debug"];
        /// Fields that stand alone under their name, whatever was sent.
        set: Named<FieldValue> = {}, or { "X-Real-Client" = "{client_ip}" };
        /// Lines that stand beside those that were sent.
        add: Named<FieldValue> = {}, or { "X-Served-By" = "edge" };
    }
}

table! {
    /// Other upstreams that answer a part of a route's requests; its own answers the rest.
    SplitTable {
        /// Who gets what; the first that takes a request has it.
        to: List<PartTable> = required, or [{ upstream = "canary", header = "X-Canary" }, { upstream = "canary", share = 5 }];
        /// What keeps a client in its share: "client" (its network), "path", "header NAME", "cookie NAME" or "query NAME". Not written, or a
        /// request without it: chance, each time.
        by: HashOn = absent, or "cookie session";
        /// Whether answers of the upstreams are stored apart: "together" if they are the same whoever gives them.
        cache: Versions = "apart", or "together";
    }
}

table! {
    /// What another upstream gets: by `share`, `header` or `cookie`.
    PartTable {
        /// Its name.
        upstream: Text = required, or "canary";
        /// So many requests in a hundred.
        share: Count<0, 100> = absent, or 5;
        /// Requests with this field, or with this value of it: "X-Canary" or "X-Canary: yes".
        header: Asked = absent, or "X-Canary: yes";
        /// Requests with this cookie, or with this value of it: "canary" or "canary=yes".
        cookie: Asked = absent, or "canary=yes";
    }
}

table! {
    /// The cache of a route, with what is particular to it.
    CacheUseTable {
        /// The name of the cache.
        r#use: Text = required, or "api";
        /// What of a request's content tells two answers apart: makes POST and QUERY requests of this route cacheable.
        key: ContentKeyTable = absent, or { body = "json" };
        /// What an answer must be like to be stored, beside what its fields say.
        store_when: StoreWhenTable = {}, or { absent = ["error"] };
        /// Shadow mode: the instances answer every request all the same, and what the cache would have answered is compared with it, counted in
        /// `vanne_shadow_answers_total` and, where it differs, logged. Remove it once you have seen enough.
        shadow: bool = false, or true;
        /// On this route, instead of the cache's `ttl`.
        ttl: AnyTime = absent, or "10s";
        /// On this route, instead of the cache's `ttl_mode`.
        ttl_mode: TtlMode = absent, or "override";
        /// On this route, instead of the cache's `stale_while_revalidate`.
        stale_while_revalidate: AnyTime = absent, or "1m";
        /// On this route, instead of the cache's `stale_if_error`.
        stale_if_error: AnyTime = absent, or "7d";
        /// On this route, instead of the cache's `stale_mode`.
        stale_mode: StaleMode = absent, or "override";
    }
}

table! {
    /// What of a request's content tells two answers apart.
    ContentKeyTable {
        /// "raw": its bytes; "json": its meaning as JSON, so that spacing and the order of members do not count; "graphql": the same for GraphQL,
        /// where only queries are answered from storage, and answers with `errors` not stored.
        body: BodyForm = required, or "json";
        /// Members of JSON that do not count: names, or pointers like "/client/version".
        ignore: List<JsonPointer> = [], or ["request_id"];
        /// The only members of JSON that count. Empty: all.
        only: List<JsonPointer> = [], or ["question"];
        /// Members of JSON in whose text case and spacing do not count.
        fold: List<JsonPointer> = [], or ["question"];
        /// Request fields that count, beside those of the cache.
        headers: List<HeaderName> = [], or ["X-Tenant"];
        /// Requests with larger content pass the cache by.
        max_body: Size<1, { 64 * 1024 * 1024 }> = "256KiB", or "64KiB";
    }
}

table! {
    /// What an answer must be like to be stored, beside what its fields say.
    StoreWhenTable {
        /// Its status, one or several. Empty: any that may be stored.
        status: OneOrMany<Statuses<200, 599>> = [], or [200, "300-308"];
        /// Members of JSON that must be there.
        present: List<JsonPointer> = [], or ["answer"];
        /// Members of JSON that must not be there, or be null or false.
        absent: List<JsonPointer> = [], or ["error"];
        /// Its least length.
        min_size: AnySize = "0B", or "16B";
        /// What its content must end with, white space aside: the marker of a whole stream.
        ends_with: Text = absent, or "data: [DONE]";
    }
}

table! {
    /// Which requests a route takes; all that is written must fit.
    MatchTable {
        /// Host names, one or several: "api.example.com", "*.example.com". Empty: any.
        host: OneOrMany<Text> = [], or ["api.example.com", "*.example.org"];
        /// A path: exact ("/query"), with parameters ("/users/{id}"), or a prefix ("/assets/*").
        path: Text = "/*", or "/api/*";
        /// Methods, one or several. Empty: any.
        method: OneOrMany<Text> = [], or ["GET", "POST"];
    }
}

table! {
    /// A prefix to replace in the path.
    ReplaceTable {
        /// What is removed.
        from: Path = required, or "/v1";
        /// What comes in its place.
        to: Path = required, or "/api/v1";
    }
}

table! {
    /// A folder whose files answer. Names that begin with a dot are hidden, but for /.well-known; no link leads out of the folder.
    FilesTable {
        /// The folder; a relative one is looked for where the program was started. It may be a link that is turned to the next release.
        root: Folder = required, or "public";
        /// What answers for a folder: the first that is there.
        index: List<FileName> = ["index.html"], or ["index.html", "index.htm"];
        /// Whether about.html answers for /about.
        clean_urls: bool = true, or false;
        /// The page of an application that finds its own way: it answers where there is no file and the last name has no ending.
        fallback: FileBeneath = absent, or "index.html";
        /// The page that says, with 404, that there is nothing. If it is not there, a short answer of our own does.
        not_found: FileBeneath = "404.html", or "errors/404.html";
        /// Whether a folder without an index shows what is in it.
        listing: bool = false, or true;
        /// The memory for what was compressed here, for want of a sibling that the build left (app.js.br, .zst or .gz).
        memory: Size<65_536, { u64::MAX }> = "64MiB", or "16MiB";
    }
}

table! {
    /// How long browsers may keep what: the first that fits of `rules`, `html`, `fingerprinted` and `others`. An empty text says nothing.
    /// Failures are left as they are.
    CacheControlTable {
        /// Of names that hold a fingerprint of their content, like app.3f9a1c2b.js.
        fingerprinted: Directives = "public, max-age=31536000, immutable", or "public, max-age=86400";
        /// Of pages: text/html.
        html: Directives = "no-cache", or "max-age=60";
        /// Of all others. Not written: "no-cache" for files, and nothing for the answers of an upstream.
        others: Directives = absent, or "public, max-age=3600";
        /// By name, before all else.
        rules: List<CacheControlRule> = [], or [{ path = "*.pdf", value = "public, max-age=3600" }];
        /// Whether they stand in place of what an upstream says itself.
        replace: bool = false, or true;
    }
}

table! {
    /// How long browsers may keep what has a name like this.
    CacheControlRule {
        /// A pattern in which * stands for any characters: of the name ("*.pdf"), or with a slash of the whole path ("/reports/*").
        path: Pattern = required, or "*.pdf";
        /// What is said; empty for nothing.
        value: Directives = required, or "public, max-age=3600";
    }
}

table! {
    /// What is compressed: answers to GET and HEAD of a type that gains by it, never parts, and never what says no-transform.
    CompressTable {
        /// What may be used; of those a client likes alike, the first.
        codings: List<Coding> = ["br", "zstd", "gzip"], or ["gzip"];
        /// The media types that are compressed.
        types: List<MediaType> = ["text/html", "text/css", "text/javascript", "text/plain", "text/xml", "text/csv", "text/markdown", "application/json", "application/*+json", "application/javascript", "application/xml", "application/*+xml", "application/wasm", "application/manifest+json", "image/svg+xml", "image/x-icon", "font/ttf", "font/otf"], or ["text/*"];
        /// Shorter content is left as it is.
        min_size: AnySize = "1KiB", or "256B";
        /// Whether answers that are one user's own are compressed, too: those with Set-Cookie, private or no-store, and those to requests with
        /// Cookie or Authorization that are not public. Their length may tell whoever watches what secret they hold.
        private: bool = false, or true;
    }
}

table! {
    /// An answer that the gateway gives itself.
    RespondTable {
        /// Its status.
        status: Count<200, 599> = 200, or 404;
        /// Its content, sent as plain text.
        body: Text = "", or "Nothing here.";
    }
}

/// The cache of a route: its name alone, or a table.
#[derive(Debug, Clone)]
pub struct CacheUse(pub CacheUseTable);

impl Setting for CacheUse {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(_) => {
                let name = Text::read(node, reader)?;
                let spot = node.spot.clone();
                Some(Self(CacheUseTable {
                    key: Set::absent(&spot),
                    shadow: Set::unwritten("shadow", Fallback::Value("false"), &spot, reader),
                    ttl: Set::absent(&spot),
                    ttl_mode: Set::absent(&spot),
                    stale_while_revalidate: Set::absent(&spot),
                    stale_if_error: Set::absent(&spot),
                    stale_mode: Set::absent(&spot),
                    store_when: Set::unwritten("store_when", Fallback::Value("{}"), &spot, reader),
                    r#use: Set { state: State::Is(name), spot, written: true },
                }))
            }
            DeValue::Table(_) => CacheUseTable::read(node, reader).map(Self),
            _ => {
                reader.mismatch(
                    node,
                    "the name of a cache",
                    "\"api\" or { use = \"api\", key = { body = \"json\" } }",
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [Text::schema(), section_schema(&CacheUseTable::section())] })
    }

    fn shape() -> Shape {
        CacheUseTable::shape()
    }
}

/// How an instance is chosen: a word, or a table.
#[derive(Debug, Clone)]
pub struct BalanceUse(pub BalanceTable);

impl Setting for BalanceUse {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(_) => {
                let by = Balance::read(node, reader)?;
                let spot = node.spot.clone();
                Some(Self(BalanceTable {
                    on: Set::unwritten("on", Fallback::Value("\"client\""), &spot, reader),
                    load: Set::unwritten("load", Fallback::Value("0"), &spot, reader),
                    decay: Set::unwritten("decay", Fallback::Value("\"10s\""), &spot, reader),
                    by: Set { state: State::Is(by), spot, written: true },
                }))
            }
            DeValue::Table(_) => BalanceTable::read(node, reader).map(Self),
            _ => {
                let example = "\"least_conn\" or { by = \"consistent_hash\", on = \"header X-Tenant\" }";
                reader.mismatch(node, "a way to balance", example);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [Balance::schema(), section_schema(&BalanceTable::section())] })
    }

    fn shape() -> Shape {
        BalanceTable::shape()
    }
}

/// An instance: its address alone, or a table.
#[derive(Debug, Clone)]
pub struct Server(pub ServerEntry);

impl Setting for Server {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(_) => {
                let addr = HostPort::read(node, reader)?;
                let spot = node.spot.clone();
                Some(Self(ServerEntry {
                    weight: Set::unwritten("weight", Fallback::Value("1"), &spot, reader),
                    backup: Set::unwritten("backup", Fallback::Value("false"), &spot, reader),
                    addr: Set { state: State::Is(addr), spot, written: true },
                }))
            }
            DeValue::Table(_) => ServerEntry::read(node, reader).map(Self),
            _ => {
                let example = "\"127.0.0.1:8001\" or { addr = \"127.0.0.1:8001\", weight = 2 }";
                reader.mismatch(node, "the address of an instance", example);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [HostPort::schema(), section_schema(&ServerEntry::section())] })
    }

    fn shape() -> Shape {
        Shape::Value
    }
}

/// The keys of the whole file.
pub fn root() -> Section {
    File::section()
}

/// The duration of a key.
pub fn time<const MIN: u64>(set: &Set<super::kind::Time<MIN>>) -> Option<Duration> {
    set.value().map(|time| time.0)
}
