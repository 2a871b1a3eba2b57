//! What was asked for, checked: plain data made of the pure modules' own types.
//!
//! A [`Plan`] is right by construction: names are resolved to indexes, units are read, defaults are filled in. It holds no handle, opens
//! nothing and knows neither the file it came from nor the server that will run it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::balance::Method as Balance;
use crate::balance::breaker::Rules as Breaker;
use crate::balance::budget::Rules as RetryBudget;
use crate::balance::check::Expected;
use crate::balance::eject::Rules as Eject;
use crate::balance::retry::Conditions;
use crate::balance::split::Split;
use crate::balance::sticky::Cookie;
use crate::base::name::{CacheName, ListenerName, RouteName, UpstreamName};
use crate::base::unit::ByteSize;
use crate::cache::content::{ContentKey, StoreWhen};
use crate::cache::{Coalesce, Lifetimes, Relay, Rules as CacheRules};
use crate::forward::{HostRule, browser, coding};
use crate::guard::client::TrustedProxies;
use crate::guard::crowd::Room;
use crate::guard::purger::Purgers;
use crate::route::{Rewrite, Table};

pub mod changes;
pub mod listen;
pub mod onward;
pub mod ward;

/// The position of an upstream in [`Plan::upstreams`].
pub type UpstreamId = usize;
/// The position of a cache in [`Plan::caches`].
pub type CacheId = usize;
/// The position of a route in [`Plan::routes`].
pub type RouteId = usize;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Process-wide settings.
    pub server: Server,
    /// Public listeners, at least one.
    pub listeners: Vec<Listener>,
    /// The operator's own listener.
    pub admin: Admin,
    /// Log settings.
    pub log: Log,
    /// The shared store; `None`: the memory tier alone.
    pub redis: Option<Redis>,
    /// Groups of API instances.
    pub upstreams: Vec<Upstream>,
    /// Cache policies.
    pub caches: Vec<Cache>,
    /// Limits that routes name.
    pub limits: Vec<ward::Limit>,
    /// Users that routes ask for.
    pub realms: Vec<ward::Realm>,
    /// What happens to a matched request; positions are those the [`Table`] answers with.
    pub routes: Vec<Route>,
    /// Finds the route of a request.
    pub table: Table,
}

/// Process-wide settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Worker threads of the proxy service; at least 1.
    pub threads: usize,
    /// After SIGTERM: how long to go on accepting while `/readyz` already answers 503.
    pub drain_delay: Duration,
    /// After `drain_delay`: how long requests in flight may take before they are cut.
    pub drain_timeout: Duration,
    /// Whose `X-Forwarded-*` fields are believed.
    pub trusted_proxies: TrustedProxies,
    /// The name in `Via` and `Cache-Status`.
    pub name: String,
}

/// A public address and what its clients may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in metrics and logs.
    pub name: ListenerName,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The limits of its clients.
    pub limits: ClientLimits,
    /// How its connections are secured; `None`: not at all.
    pub tls: Option<listen::Tls>,
    /// Which HTTP its clients may speak.
    pub http: listen::Versions,
    /// What a client of HTTP/2 may take.
    pub http2: listen::Http2,
    /// Every request that did not come over TLS is sent to this port for HTTPS.
    pub https_port: Option<u16>,
    /// Who may purge here; `None`: PURGE and BAN are methods like any other.
    pub purgers: Option<Purgers>,
}

/// What a client may take: time and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// The whole request head must have come within this time of its first byte: a total, not per read.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a read of the request body may wait.
    pub read_timeout: Duration,
    /// How long a write of the response may wait.
    pub write_timeout: Duration,
    /// Requests served on one connection before it is closed; at least 1.
    pub keepalive_requests: u32,
    /// The largest request head, request line and all fields together.
    pub max_header_size: ByteSize,
    /// The most header fields a request may have.
    pub max_header_fields: usize,
    /// The largest request body, unless the route says otherwise; 0 is no limit.
    pub max_body_size: ByteSize,
    /// The most open connections.
    pub room: Room,
    /// The least bytes a second at which a client may send content and take answers, once `read_timeout` or `write_timeout` have been spent waiting
    /// for it; 0 is no limit.
    pub min_rate: ByteSize,
}

/// The operator's own listener: `/metrics`, `/healthz`, `/readyz`, and the purge API.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; `None` turns it off.
    pub addr: Option<SocketAddr>,
    /// What a request that changes something must show; `None`: there are none. A secret: `Debug` hides it.
    pub token: Option<String>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "***");
        f.debug_struct("Admin").field("addr", &self.addr).field("token", &token).finish()
    }
}

/// Log settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least severity written, as `tracing` filters read it: `info`, `warn,vanne=debug`.
    pub level: String,
    /// How the program's own messages look.
    pub format: LogFormat,
    /// Where the access log goes.
    pub access: AccessLog,
}

/// How the program's own messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes: one JSON object per request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// The shared store.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// As [`crate::base::redis_url::RedisUrl`] reads it. Holds a secret: its `Debug` hides it.
    pub url: String,
    /// The budget of one operation; past it the answer counts as a miss.
    pub timeout: Duration,
    /// What every key begins with.
    pub prefix: String,
    /// While purges made elsewhere do not arrive: how long an answer is trusted after it was last known to be right.
    pub trust: Duration,
    /// The file that holds the password; read again for every connection. `None`: that of `url`, if any.
    pub password_file: Option<PathBuf>,
    /// TLS, when `url` asks for it.
    pub tls: RedisTls,
}

/// How the other side of TLS is known, and we to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// The file of the certificates that are trusted (PEM); `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The file of our own certificate and those that vouch for it (PEM); given with `key`.
    pub certificate: Option<PathBuf>,
    /// The file of its key (PEM).
    pub key: Option<PathBuf>,
    /// The name its certificate must hold; `None`: the host.
    pub name: Option<String>,
    /// Take any certificate.
    pub insecure: bool,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("url", &"***")
            .field("timeout", &self.timeout)
            .field("prefix", &self.prefix)
            .field("trust", &self.trust)
            .field("password_file", &self.password_file)
            .field("tls", &self.tls)
            .finish()
    }
}

/// A group of interchangeable API instances.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in routes, metrics and logs.
    pub name: UpstreamName,
    /// The instances, at least one; addresses are unique within the group.
    pub servers: Vec<Instance>,
    /// How one is chosen.
    pub balance: Balance,
    /// How their health is known; `None`: only by what happens to requests.
    pub health: Option<Health>,
    /// How long each step of an exchange may take.
    pub timeouts: UpstreamTimeouts,
    /// How often and how long a request is tried, unless its route says otherwise; nothing is left open.
    pub trying: Trying,
    /// How many requests may be tried again; `None`: all.
    pub retry_budget: Option<RetryBudget>,
    /// When what happens to requests takes an instance out; `None`: never.
    pub eject: Option<Eject>,
    /// While less than this share of the instances is up, in percent, all are used; 0: while none is.
    pub panic: u32,
    /// When the upstream as a whole is not asked for a while; `None`: never.
    pub breaker: Option<Breaker>,
    /// How many requests each instance may have at once; `None`: no limit.
    pub pool: Option<Pool>,
    /// Whether clients stay with their instance; `None`: they do not.
    pub sticky: Option<Sticky>,
    /// What the instances see as `Host`.
    pub host: HostRule,
    /// TLS to the instances; `None`: in the clear.
    pub tls: Option<onward::Tls>,
    /// Which HTTP they speak.
    pub http: onward::Http,
}

/// One API instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `host:port` as written: its identity in metrics, and what is resolved.
    pub addr: String,
    /// Its share; 0 takes no new requests.
    pub weight: u32,
    /// It is used only while no other instance is up.
    pub backup: bool,
}

/// How many requests an instance may have at once, in the terms of its database pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Requests in flight at one instance; at least 1.
    pub size: u32,
    /// So many more, while no instance has room within `size`.
    pub overflow: u32,
    /// How long a request waits for a place; zero: not at all.
    pub timeout: Duration,
    /// How many requests may wait at once for one of the instances.
    pub queue: usize,
    /// A connection this old is closed after the request in hand; `None`: never for its age.
    pub recycle: Option<Duration>,
    /// A connection is closed after so many requests; 0: never for their number.
    pub recycle_count: u32,
    /// How an instance may tell its size; `None`: it may not.
    pub capacity: Option<Capacity>,
}

/// How often and how long a request is tried; what is `None` is said elsewhere, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trying {
    /// How often, the first time included; at least 1.
    pub tries: Option<u32>,
    /// Until the head of an answer has come, all attempts together. Nowhere: the first silence ends it.
    pub total: Option<Duration>,
    /// The same for one attempt. Nowhere: the time for one read.
    pub attempt: Option<Duration>,
    /// Which attempts are followed by another one.
    pub on: Option<Conditions>,
}

/// Clients stay with their instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// What the cookie is like.
    pub cookie: Cookie,
    /// What it is made with.
    pub key: StickyKey,
}

/// Where the secret of cookies comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum StickyKey {
    /// The configuration. `Debug` hides it.
    Secret(String),
    /// A file, read at the start.
    File(PathBuf),
    /// Chance: each process has its own.
    Random,
}

impl std::fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Random => f.write_str("Random"),
        }
    }
}

/// How an instance tells how many requests it can hold at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// The field of its answers that says so; it is not passed on.
    pub header: HeaderName,
    /// The member of its health answer that says so: a pointer (RFC 6901); `None`: none does.
    pub json: Option<String>,
    /// The most that is believed; at least 1.
    pub max: u32,
}

/// Who goes first when requests wait for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// After those.
    #[default]
    Normal,
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub check: HealthCheck,
    /// The port that is asked; `None`: the instance's own.
    pub port: Option<u16>,
    /// The check goes over TLS so; `None`: in the clear.
    pub tls: Option<CheckTls>,
    /// The time between two checks of one instance; each wait is jittered by ±10 %.
    pub every: Duration,
    /// The same while the instance is down.
    pub every_down: Duration,
    /// The budget of a whole check: connect, request, answer.
    pub timeout: Duration,
    /// Failures in a row that take an instance out; at least 1.
    pub fall: u32,
    /// Successes in a row that bring it back; at least 1.
    pub rise: u32,
    /// What an instance is before its first check.
    pub start: HealthStart,
    /// Brought back, its share grows from little to all of it over this time; zero: at once.
    pub slow_start: Duration,
}

/// What an instance is before its first check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStart {
    /// Up, until checks fail.
    Up,
    /// Down, until a check succeeds.
    Down,
}

/// How a check goes over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckTls {
    /// The name asked for, and verified; `None`: the instance's host.
    pub sni: Option<String>,
    /// A file with the certificates (PEM) that vouch for the instances; `None`: those the system trusts.
    pub ca: Option<PathBuf>,
    /// Whether the instance's certificate must be valid and for that name.
    pub verify: bool,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheck {
    /// A TCP connection is accepted; with TLS, its handshake ends well.
    Tcp,
    /// A GET is answered as expected.
    Http {
        /// The path and query asked for.
        path: String,
        /// The `Host` sent; `None`: the instance's address.
        host: Option<String>,
        /// What the answer must be like.
        expected: Expected,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2 is answered with SERVING.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service: String,
        /// The `:authority` sent; `None`: the instance's address.
        host: Option<String>,
    },
}

/// How long each step of an exchange with an instance may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// Until the TCP connection stands.
    pub connect: Duration,
    /// Between two reads of an answer.
    pub read: Duration,
    /// Between two writes of a request.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// A named cache policy.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Its name in routes.
    pub name: CacheName,
    /// May it be stored, may it be reused: the rules.
    pub rules: Arc<CacheRules>,
    /// The share of the memory tier this cache may fill; the tier's size is the sum over all caches.
    pub memory: ByteSize,
    /// Larger answers are passed on and not stored.
    pub max_object: ByteSize,
    /// Larger answers are kept in Redis alone; at most `max_object`. `None`: `max_object`, but no more than [`MEMORY_OBJECT`] where there is a Redis.
    pub memory_max_object: Option<ByteSize>,
    /// Among whom one fetch serves all who ask.
    pub coalesce: Coalesce,
    /// How long a gateway may fetch for the fleet without a sign of life.
    pub lease: Duration,
    /// Which answers other gateways may follow while they are fetched here.
    pub relay: Relay,
    /// How long a request waits for another's fetch of the same answer before it fetches for itself.
    pub wait_timeout: Duration,
}

/// The largest answer kept in memory over a Redis when nothing else is said.
pub const MEMORY_OBJECT: ByteSize = ByteSize::mib(8);

impl Cache {
    /// Whether `next` finds what this one stored, and means the same by it.
    pub fn keeps_what_is_stored(&self, next: &Self) -> bool {
        self.name == next.name
            && self.memory == next.memory
            && self.max_object == next.max_object
            && self.memory_max_object == next.memory_max_object
            && self.rules.key == next.rules.key
    }
}

/// What happens to a matched request.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name in metrics and logs.
    pub name: RouteName,
    /// Who answers.
    pub action: Action,
    /// How the path is changed before it is sent on.
    pub rewrite: Rewrite,
    /// Who else answers, and which requests; `None`: nobody.
    pub split: Option<Arc<Split>>,
    /// The largest request body; `None`: the listener's.
    pub max_body_size: Option<ByteSize>,
    /// How often and how long its requests are tried, where that differs from what the upstream says.
    pub trying: Trying,
    /// Who goes first when requests wait for an instance.
    pub priority: Priority,
    /// What of a request's content tells two answers apart; `None`: only GET and HEAD are cached.
    pub content_key: Option<Arc<ContentKey>>,
    /// What an answer must be like to be stored, beside what its fields say.
    pub store_when: Arc<StoreWhen>,
    /// How long browsers may keep what; `None`: what the answers say.
    pub browser: Option<Arc<browser::Rules>>,
    /// Which answers are compressed; `None`: none.
    pub compress: Option<Arc<coding::Rules>>,
    /// What its requests must pass, and what changes in its messages' fields; `None`: nothing.
    pub ward: Option<Arc<ward::Ward>>,
    /// What it says instead of its cache about the answers it stores.
    pub lifetimes: Lifetimes,
    /// Its requests are answered by instances all the same, and compared with what is stored.
    pub shadow: bool,
}

/// A folder whose files are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The folder; one that is relative is looked for where the program was started.
    pub root: PathBuf,
    /// What answers for a folder, the first that is there.
    pub index: Vec<String>,
    /// Whether `about.html` answers for `/about`.
    pub clean_urls: bool,
    /// The page of an application that finds its own way, beneath the root: it answers where there is no file and the name has no ending.
    pub fallback: Option<String>,
    /// The page that says there is nothing, beneath the root.
    pub not_found: Option<String>,
    /// Whether a folder without an index shows what is in it.
    pub listing: bool,
    /// The memory for content that was compressed here.
    pub memory: ByteSize,
}

/// Who answers a matched request.
#[derive(Debug, Clone)]
pub enum Action {
    /// An upstream, perhaps through a cache.
    Forward {
        /// Who is asked.
        upstream: UpstreamId,
        /// Which cache stands before it.
        cache: Option<CacheId>,
    },
    /// Files of a folder.
    Files(Arc<Files>),
    /// The gateway itself, always the same.
    Respond {
        /// The status.
        status: http::StatusCode,
        /// The content, sent as `text/plain; charset=utf-8`.
        body: String,
    },
}
