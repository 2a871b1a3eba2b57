//! An instance as pingora's connector wants it: address, time-outs, and what may share a connection.

use std::net::SocketAddr;

use pingora::upstreams::peer::HttpPeer;

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
