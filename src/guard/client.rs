//! Who the client is: the address that a trusted chain of proxies vouches for.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::base::fields::Fields;

/// The networks whose `X-Forwarded-*` fields are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<IpNet>);

/// The client as it will be logged, hashed and forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The right-most untrusted address of the chain, or the peer's own.
    pub addr: IpAddr,
    /// Whether the connection's peer is a trusted proxy, so that its `X-Forwarded-*` and `X-Request-ID` are believed.
    pub behind_trusted: bool,
    /// The scheme the client used: a trusted proxy's `X-Forwarded-Proto`, else that of the connection.
    pub https: bool,
}

impl TrustedProxies {
    /// Whether `addr` (an IPv4-mapped IPv6 address counts as IPv4) is one of them.
    pub fn contains(&self, _addr: IpAddr) -> bool {
        unimplemented!()
    }

    /// Who sent a request that came from `peer` over a connection that is (`tls`) or is not encrypted.
    pub fn client(&self, _peer: IpAddr, _tls: bool, _fields: &dyn Fields) -> Client {
        unimplemented!()
    }
}
