//! An instance as pingora's connector wants it: address, time-outs, and what may share a connection.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;

use super::live;
use crate::base::clock::WallTime;
use crate::plan::UpstreamTimeouts;
use crate::upstream::{Group, Picked};

/// Which connections may be shared: those of requests, or a health check's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Kept and shared between requests.
    Requests,
    /// Used once: a check that reuses a connection would not notice that no new ones are accepted.
    Check,
}

/// The peer for one exchange with a chosen instance, whose answer is waited for so long; `left` of the time for all attempts, if any was set.
pub fn within(
    upstream: &live::Upstream,
    picked: &Picked,
    patience: Duration,
    left: Option<Duration>,
) -> HttpPeer {
    let mut peer = of(upstream, picked.addr, picked.endpoint.name(), Use::Requests);
    peer.options.read_timeout = Some(patience);
    if let Some(left) = left {
        let connect = Some(shortened(upstream.group.plan().timeouts.connect, left));
        peer.options.connection_timeout = connect;
        peer.options.total_connection_timeout = connect;
    }
    peer
}

/// The peer for one exchange with `addr`, the address of the instance called `name`.
pub fn of(upstream: &live::Upstream, addr: SocketAddr, name: &str, purpose: Use) -> HttpPeer {
    let mut peer = HttpPeer::new(addr, false, String::new());
    set_timeouts(&mut peer, &upstream.group.plan().timeouts);
    upstream.client.tell(&mut peer, name);
    peer.group_key |= u64::from(purpose == Use::Check);
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

/// Whether an instance has been silent for as long as one is waited for, so that it may be blamed: not when less time was left for it. A little less
/// will do, since timers and clocks are not one.
pub fn is_silent(patience: Duration, silence: Duration) -> bool {
    silence >= patience.mul_f64(0.95)
}

/// The time for one read when so much is left; never zero, which would mean no limit to some.
pub fn shortened(read: Duration, left: Duration) -> Duration {
    read.min(left).max(Duration::from_millis(1))
}

/// Whether a connection is to be closed after the request in hand, which it is taken for now: because it is as old as it may become, or this is its
/// last request. The age's limit is the plan's, give or take a tenth by the instant it was made: connections made together must not all be
/// made anew together.
pub fn is_worn(digest: Option<&Digest>, group: &Group, now: WallTime) -> bool {
    let (Some(digest), Some(pool)) = (digest, &group.plan().pool) else { return false };
    let Some(made) = established(digest) else { return false };
    let old = pool
        .recycle
        .is_some_and(|limit| now.since(WallTime::from_secs(0)).saturating_sub(made) >= spread(limit, made));
    let ends = digest.socket_digest.as_ref().and_then(|socket| {
        Some((socket.local_addr()?.as_inet().copied()?, socket.peer_addr()?.as_inet().copied()?))
    });
    // Counted even when it is old, so that the count is right whatever comes first.
    ends.is_some_and(|ends| group.uses_up(ends, made)) || old
}

fn established(digest: &Digest) -> Option<Duration> {
    digest.timing_digest.last()?.as_ref()?.established_ts.duration_since(UNIX_EPOCH).ok()
}

/// `limit`, give or take a tenth.
fn spread(limit: Duration, made: Duration) -> Duration {
    let lot = f64::from(made.subsec_micros() % 1000) / 1000.0;
    limit.mul_f64(0.9 + 0.2 * lot)
}
