//! Counters, gauges and histograms with their label handles resolved when the plan is loaded: a request never looks one up by name.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::balance::retry::FailedAt;
use crate::base::name::{CacheName, UpstreamName};
use crate::guard::request::Refusal;
use crate::plan::{Plan, RouteId};

/// All metrics of one running gateway, in a registry of its own.
pub struct Metrics {}

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

/// The metrics of one cache's store.
#[derive(Clone)]
pub struct CacheMetrics {}

/// The metrics of the connection to Redis.
#[derive(Clone)]
pub struct RedisMetrics {}

/// The metrics of one upstream.
#[derive(Clone)]
pub struct UpstreamMetrics {}

impl Metrics {
    /// Registers everything for a plan; every series that is known from the plan exists at 0 from the start.
    pub fn new(_plan: &Plan) -> Arc<Self> {
        unimplemented!()
    }

    /// A finished request. `route` is `None` when none matched.
    #[allow(clippy::too_many_arguments)]
    pub fn request(
        &self,
        _route: Option<RouteId>,
        _method: &Method,
        _status: u16,
        _cache: CacheResult,
        _took: Duration,
        _request_bytes: u64,
        _response_bytes: u64,
    ) {
        unimplemented!()
    }

    /// A request was refused by the guard.
    pub fn refused(&self, _why: Refusal) {
        unimplemented!()
    }

    /// Counts one request in flight; give back with [`Metrics::request_left`].
    pub fn request_entered(&self) {
        unimplemented!()
    }

    /// Gives back what [`Metrics::request_entered`] counted.
    pub fn request_left(&self) {
        unimplemented!()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> i64 {
        unimplemented!()
    }

    /// The handles of one cache.
    pub fn cache(&self, _name: &CacheName) -> CacheMetrics {
        unimplemented!()
    }

    /// The handles of Redis.
    pub fn redis(&self) -> RedisMetrics {
        unimplemented!()
    }

    /// The handles of one upstream.
    pub fn upstream(&self, _name: &UpstreamName) -> UpstreamMetrics {
        unimplemented!()
    }

    /// An access log line was dropped, because its writer was behind.
    pub fn access_log_dropped(&self) {
        unimplemented!()
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        unimplemented!()
    }
}

impl CacheMetrics {
    /// A look-up in `tier` (`memory`, `redis`) ended with `result` (`hit`, `miss`, `error`).
    pub fn lookup(&self, _tier: &'static str, _result: &'static str, _took: Duration) {
        unimplemented!()
    }

    /// A request shared another's fetch.
    pub fn collapsed(&self) {
        unimplemented!()
    }

    /// An answer was stored, or why not (`stored`, or a word of `cache::policy::Refuse`, or `too-large`, `truncated`).
    pub fn store(&self, _result: &'static str) {
        unimplemented!()
    }

    /// An entry left the memory tier to make room.
    pub fn evicted(&self) {
        unimplemented!()
    }

    /// What the memory tier holds now.
    pub fn memory(&self, _entries: u64, _bytes: u64, _capacity: u64) {
        unimplemented!()
    }
}

impl RedisMetrics {
    /// A command (`get`, `set`, `del`) ended, well or not.
    pub fn command(&self, _command: &'static str, _took: Duration) {
        unimplemented!()
    }

    /// A failure: `timeout`, `connection`, `response`, `damaged`, `circuit-open`, `dropped` (a write given up because the queue was full).
    pub fn error(&self, _kind: &'static str) {
        unimplemented!()
    }

    /// Whether the last operation succeeded.
    pub fn up(&self, _up: bool) {
        unimplemented!()
    }

    /// Whether the breaker is open.
    pub fn circuit_open(&self, _open: bool) {
        unimplemented!()
    }
}

impl UpstreamMetrics {
    /// An exchange with endpoint `index` ended with a status.
    pub fn answered(&self, _index: usize, _status: u16, _first_byte: Duration) {
        unimplemented!()
    }

    /// An exchange with endpoint `index` failed.
    pub fn failed(&self, _index: usize, _at: FailedAt) {
        unimplemented!()
    }

    /// A connection was used, kept (`reused`) or new.
    pub fn connected(&self, _reused: bool, _took: Duration) {
        unimplemented!()
    }

    /// A request is tried again, and why.
    pub fn retried(&self, _why: &'static str) {
        unimplemented!()
    }

    /// Requests in flight at endpoint `index`, changed by `by`.
    pub fn in_flight(&self, _index: usize, _by: i64) {
        unimplemented!()
    }

    /// Whether endpoint `index` is up.
    pub fn up(&self, _index: usize, _up: bool) {
        unimplemented!()
    }

    /// A health check of endpoint `index` ended.
    pub fn checked(&self, _index: usize, _ok: bool) {
        unimplemented!()
    }
}
