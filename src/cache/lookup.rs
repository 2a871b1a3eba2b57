//! May a stored answer be reused for this request, now? (RFC 9111 §4)

use std::time::Duration;

use super::directive::{MAX_SECONDS, RequestDirectives};
use super::record::Record;
use super::{ClientDirectives, Rules};
use crate::base::clock::WallTime;

/// What to do with a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Serve it.
    Fresh,
    /// Serve it, and tell why it is stale: the client accepts it (`max-stale`).
    Stale,
    /// Serve it and fetch anew in the background (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Validate it with the origin first.
    Validate(Why),
}

/// Why a stored answer is validated first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is stale.
    Stale,
    /// It says `no-cache`.
    NoCache,
    /// The client asks for it: `no-cache`, `max-age`, `min-fresh`.
    Request,
}

/// Judges a stored answer for a request.
pub fn judge(record: &Record, request: &RequestDirectives, rules: &Rules, now: WallTime) -> Reuse {
    let heard = match rules.client_directives {
        ClientDirectives::Honour => *request,
        ClientDirectives::Ignore => RequestDirectives::default(),
    };
    if heard.no_cache {
        return Reuse::Validate(Why::Request);
    }
    if record.reuse.always_validate {
        return Reuse::Validate(Why::NoCache);
    }
    if is_too_old(record, &heard, now) || is_too_near_its_end(record, &heard, now) {
        return Reuse::Validate(Why::Request);
    }
    if !record.ttl(now).is_zero() {
        return Reuse::Fresh;
    }
    judge_stale(record, &heard, now)
}

/// Whether a stored answer may be served because the origin failed: unreachable, timed out, or answered 500, 502, 503 or 504 (RFC 5861 §4, RFC 9111
/// §4.2.4).
///
/// Not when the answer says `no-cache`, nor when it is stale and says `must-revalidate` or its kin; and not to a client that asks for a
/// validated one (`no-cache`): an error tells it the truth. A client's `max-age` and `min-fresh` do not count, for the window holds
/// "regardless of other freshness information".
pub fn serve_on_error(record: &Record, request: &RequestDirectives, rules: &Rules, now: WallTime) -> bool {
    let asks_for_validation = request.no_cache && rules.client_directives == ClientDirectives::Honour;
    if record.reuse.always_validate || asks_for_validation {
        return false;
    }
    let fresh = !record.ttl(now).is_zero();
    let within_window = !record.stale_if_error.is_zero() && record.staleness(now) <= record.stale_if_error;
    fresh || (within_window && !record.reuse.never_stale)
}

/// The Age to send with it, in whole seconds (RFC 9111 §5.1).
pub fn age_field(record: &Record, now: WallTime) -> u64 {
    record.age(now).as_secs().min(MAX_SECONDS)
}

/// How long until it should be fetched anew in the background though it is still fresh, so that a popular entry does not expire for everybody at
/// once; `None` when it need not be.
///
/// That moment lies in the last tenth of its lifetime, at most its last minute, and is spread over it by `chance` in `[0, 1)`: asked with a
/// new chance on every hit, zero comes the more often the nearer the end is. Lifetimes under ten seconds are left alone, since the
/// fetch takes a good part of the tenth.
pub fn early_refresh(record: &Record, now: WallTime, chance: f64) -> Option<Duration> {
    let window = (record.lifetime / 10).min(Duration::from_secs(60));
    let left = record.ttl(now);
    if left.is_zero() || left > window || window < Duration::from_secs(1) || record.reuse.always_validate {
        return None;
    }
    Some(left.saturating_sub(window.mul_f64(chance.clamp(0.0, 1.0))))
}

/// `max-age` of a request. Zero asks for validation even of what arrived this instant.
fn is_too_old(record: &Record, request: &RequestDirectives, now: WallTime) -> bool {
    request.max_age.is_some_and(|most| most == 0 || record.age(now) > Duration::from_secs(most))
}

/// `min-fresh` of a request.
fn is_too_near_its_end(record: &Record, request: &RequestDirectives, now: WallTime) -> bool {
    request.min_fresh.is_some_and(|least| record.ttl(now) < Duration::from_secs(least))
}

/// A stale answer: who allows it to be served? (RFC 9111 §4.2.4)
fn judge_stale(record: &Record, request: &RequestDirectives, now: WallTime) -> Reuse {
    let staleness = record.staleness(now);
    let accepted =
        request.max_stale.is_some_and(|most| most.is_none_or(|most| staleness <= Duration::from_secs(most)));
    if record.reuse.never_stale {
        Reuse::Validate(Why::Stale)
    } else if accepted {
        Reuse::Stale
    } else if staleness < record.stale_while_revalidate {
        Reuse::StaleWhileRevalidate
    } else {
        Reuse::Validate(Why::Stale)
    }
}
