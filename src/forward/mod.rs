//! What changes on the way: header fields of requests going up and responses coming down.
//!
//! Not here: bodies, framing, sockets.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// What the instances see as `Host`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostRule {
    /// The host the client asked for.
    #[default]
    Client,
    /// The instance's own address.
    Instance,
    /// Always this.
    Fixed(String),
}

/// What a request's forwarding fields are made of.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The address of the client, as far as it is known.
    pub client: IpAddr,
    /// The address of the connection's peer.
    pub peer: IpAddr,
    /// Whether the peer is a trusted proxy, so that its chain is kept and extended instead of replaced.
    pub behind_trusted: bool,
    /// Whether the client used https.
    pub https: bool,
    /// The host and port the client asked for.
    pub host: &'a str,
    /// The port of the listener the request came in by.
    pub port: u16,
    /// `1.0`, `1.1` or `2`: the protocol version the request came by.
    pub version: &'a str,
    /// The request id to send on.
    pub request_id: &'a str,
    /// The gateway's own name in `Via`.
    pub via: &'a str,
    /// The request asks for a WebSocket and the route may pass it on: `Connection: upgrade` and `Upgrade: websocket` stay.
    pub websocket: bool,
}

/// Turns the client's fields into those an instance gets.
///
/// Hop-by-hop fields and those named by `Connection` leave (RFC 9110 §7.6.1), also `Keep-Alive`, `Proxy-Connection`, `Proxy-Authorization`,
/// `TE` but `trailers`, `Upgrade` but a WebSocket's; `X-Forwarded-For/-Proto/-Host/-Port`, `X-Real-IP` and `Forwarded` are overwritten, a trusted chain
/// extended; `X-Original-URL`, `X-Rewrite-URL`, `X-HTTP-Method-Override` and their kin are removed unless trusted; `Via` and `X-Request-ID` are set.
/// `Host` is left to the caller.
pub fn request(_fields: &mut HeaderMap, _facts: &RequestFacts<'_>) {
    unimplemented!()
}

/// Removes what an answer may not carry past one hop: hop-by-hop fields and those named by `Connection` (RFC 9110 §7.6.1), an upgrade's excepted.
pub fn response(_fields: &mut HeaderMap, _upgrade: bool) {
    unimplemented!()
}

/// The names of all fields that `Connection` and the protocol make hop-by-hop in these fields.
pub fn hop_by_hop(_fields: &HeaderMap) -> Vec<HeaderName> {
    unimplemented!()
}

/// The value of `Via` with ourselves added to what came (RFC 9110 §7.6.3).
pub fn via(_fields: &HeaderMap, _version: &str, _name: &str) -> HeaderValue {
    unimplemented!()
}

/// The client's request id when its sender is trusted and it is 1 to 64 characters of `[A-Za-z0-9._~-]`.
pub fn trusted_request_id(_fields: &HeaderMap, _trusted: bool) -> Option<&str> {
    unimplemented!()
}

/// Whether a request asks for a WebSocket.
pub fn is_websocket(_fields: &HeaderMap, _method: &http::Method, _http11: bool) -> bool {
    unimplemented!()
}
