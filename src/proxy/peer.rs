//! An instance as pingora's connector wants it: address, time-outs, and what may share a connection.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;

use crate::base::clock::{MonoTime, WallTime};
use crate::plan::{Upstream, UpstreamTimeouts};

/// Which connections may be shared: those of requests, or a health check's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Kept and shared between requests.
    Requests,
    /// Used once: a check that reuses a connection would not notice that no new ones are accepted.
    Check,
}

/// The peer for one exchange with `addr`.
pub fn of(upstream: &Upstream, addr: SocketAddr, purpose: Use) -> HttpPeer {
    let mut peer = HttpPeer::new(addr, false, String::new());
    set_timeouts(&mut peer, &upstream.timeouts);
    peer.group_key = u64::from(purpose == Use::Check);
    peer
}

/// pingora's own default for each of these is to wait for ever.
fn set_timeouts(peer: &mut HttpPeer, timeouts: &UpstreamTimeouts) {
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
}

/// What is left of the time for all attempts, the first of which began at `first`; `None` when none is set.
pub fn time_left(upstream: &Upstream, first: Option<MonoTime>, now: MonoTime) -> Option<Duration> {
    let total = upstream.timeouts.total?;
    Some(total.saturating_sub(first.map_or(Duration::ZERO, |first| now.since(first))))
}

/// Whether an instance has been silent for as long as one is waited for, so that it may be blamed: not when less time was left for it. A little less
/// will do, since timers and clocks are not one.
pub fn is_silent(upstream: &Upstream, silence: Duration) -> bool {
    silence >= upstream.timeouts.read.mul_f64(0.95)
}

/// The time for one read when so much is left; never zero, which would mean no limit to some.
pub fn shortened(read: Duration, left: Duration) -> Duration {
    read.min(left).max(Duration::from_millis(1))
}

/// Whether a connection is as old as it may become, so that it is to be closed after the request in hand. Its limit is the plan's, give or take
/// a tenth by the instant it was made: connections made together must not all be made anew together.
pub fn is_worn(digest: Option<&Digest>, upstream: &Upstream, now: WallTime) -> bool {
    let Some(limit) = upstream.pool.as_ref().and_then(|pool| pool.recycle) else { return false };
    let made =
        digest.and_then(|digest| digest.timing_digest.last()?.as_ref().map(|timing| timing.established_ts));
    let Some(made) = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok()) else { return false };
    now.since(WallTime::from_secs(0)).saturating_sub(made) >= spread(limit, made)
}

/// `limit`, give or take a tenth.
fn spread(limit: Duration, made: Duration) -> Duration {
    let lot = f64::from(made.subsec_micros() % 1000) / 1000.0;
    limit.mul_f64(0.9 + 0.2 * lot)
}
