//! Telling what the cache did: `Cache-Status` (RFC 9211).

use std::time::Duration;

/// Where a stored answer lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// This process's memory.
    Memory,
    /// Redis.
    Redis,
}

/// Why a request went to the origin (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Passed by: the cache was not to be used.
    Bypass,
    /// The method's semantics.
    Method,
    /// Nothing under this key.
    UriMiss,
    /// Something under this key, but not for these request fields.
    VaryMiss,
    /// The client's directives.
    Request,
    /// What was stored is stale.
    Stale,
    /// Only a part was asked for and stored.
    Partial,
}

/// What the cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Served from storage.
    Hit {
        /// From where.
        tier: Tier,
        /// Remaining freshness in seconds; negative when stale.
        ttl: i64,
    },
    /// Sent to the origin.
    Forwarded {
        /// Why.
        why: Forward,
        /// The origin's status, where it differs from the one sent or is worth telling.
        status: Option<u16>,
        /// The answer was stored.
        stored: bool,
        /// It waited for another request's fetch and shared its answer.
        collapsed: bool,
        /// The freshness of what was stored, in seconds.
        ttl: Option<i64>,
    },
}

/// Writes one member of `Cache-Status`. `name` is the gateway's: a hit is told under `name-mem` or `name-redis`, the rest under `name`. `detail` is a token or
/// is quoted.
pub fn member(_name: &str, _outcome: &Outcome, _detail: Option<&str>) -> String {
    unimplemented!()
}

/// Whole seconds of a lifetime for `ttl`, negative past freshness.
pub fn ttl_seconds(ttl: Duration, staleness: Duration) -> i64 {
    let fresh = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    if fresh > 0 || staleness.is_zero() {
        fresh
    } else {
        -i64::try_from(staleness.as_secs()).unwrap_or(i64::MAX)
    }
}
