//! The live side of an upstream: its endpoints, their counters, health and addresses.
//!
//! Not here: choosing (that is `balance`), pingora.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::clock::Clock;
use crate::observe::metrics::UpstreamMetrics;
use crate::plan;

pub mod discover;
pub mod probe;

/// A running upstream.
pub struct Group {}

/// One running endpoint.
#[derive(Debug)]
pub struct Endpoint {}

/// A chosen endpoint. While it lives, the endpoint counts one request in flight: it is given back when dropped, on every way out.
#[derive(Debug)]
pub struct Picked {
    /// The position in the plan.
    pub index: usize,
    /// The address to connect to.
    pub addr: SocketAddr,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

impl Group {
    /// The upstream as planned; every endpoint begins up. Must be cheap: no DNS, no connections.
    pub fn new(_plan: &plan::Upstream, _clock: Arc<Clock>, _metrics: UpstreamMetrics) -> Arc<Self> {
        unimplemented!()
    }

    /// Chooses an endpoint that is not in `tried` for the client with this address.
    pub fn pick(&self, _tried: &[usize], _client: std::net::IpAddr) -> Option<Picked> {
        unimplemented!()
    }

    /// The endpoints, in the plan's order.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        unimplemented!()
    }

    /// Its numbers.
    pub fn metrics(&self) -> &UpstreamMetrics {
        unimplemented!()
    }

    /// The plan it was made from.
    pub fn plan(&self) -> &plan::Upstream {
        unimplemented!()
    }
}

impl Endpoint {
    /// `host:port` as written in the plan.
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// Whether health says it may be used.
    pub fn is_up(&self) -> bool {
        unimplemented!()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        unimplemented!()
    }

    /// The address to connect to; `None` while the name does not resolve.
    pub fn addr(&self) -> Option<SocketAddr> {
        unimplemented!()
    }
}

impl Drop for Picked {
    fn drop(&mut self) {}
}
