//! Choosing one endpoint among several.

use std::net::IpAddr;

use super::{Choice, Method};

/// A selector with its state: a position in a cycle, a ring. Shared by all workers; picking takes `&self`.
#[derive(Debug)]
pub struct Picker {}

impl Picker {
    /// A selector for endpoints with these identities (`host:port`) and weights, in the plan's order.
    pub fn new(_method: Method, _endpoints: &[(String, u32)]) -> Self {
        unimplemented!()
    }

    /// The position of the chosen endpoint; `None` when every endpoint was tried or has weight 0. When none that is left is up, all that are
    /// left count as up: a gateway that refuses everything because its checks fail is worse than one that tries (fail open).
    pub fn pick(&self, _choice: &mut Choice<'_>) -> Option<usize> {
        unimplemented!()
    }
}

/// The hash key of a client: its /24 (IPv4) or /64 (IPv6).
pub fn client_key(_addr: IpAddr) -> u64 {
    unimplemented!()
}
