//! May a stored answer be reused for this request, now? (RFC 9111 §4)

use std::time::Duration;

use super::Rules;
use super::directive::RequestDirectives;
use super::record::Record;
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
pub fn judge(_record: &Record, _request: &RequestDirectives, _rules: &Rules, _now: WallTime) -> Reuse {
    unimplemented!()
}

/// Whether a stored answer may be served because the origin failed: unreachable, timed out, or answered 500, 502, 503 or 504 (RFC 5861 §4, RFC 9111
/// §4.2.4).
pub fn serve_on_error(
    _record: &Record,
    _request: &RequestDirectives,
    _rules: &Rules,
    _now: WallTime,
) -> bool {
    unimplemented!()
}

/// The Age to send with it, in whole seconds (RFC 9111 §5.1).
pub fn age_field(_record: &Record, _now: WallTime) -> u64 {
    unimplemented!()
}

/// How long until it should be fetched anew in the background though it is still fresh, so that a popular entry does not expire for everybody at
/// once; `None` when it need not be.
pub fn early_refresh(_record: &Record, _now: WallTime, _chance: f64) -> Option<Duration> {
    unimplemented!()
}
