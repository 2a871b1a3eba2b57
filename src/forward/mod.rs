//! What changes on the way: header fields of requests going up and responses coming down.
//!
//! Not here: bodies, framing, sockets. Neither function touches `Content-Length`; both remove `Transfer-Encoding`, which describes one hop, so
//! that whoever writes the message frames it anew.

pub mod browser;
pub mod coding;

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_KEY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::base::fields::Fields;

pub mod edit;
pub mod security;

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
/// `TE` but HTTP/2's `trailers`, `Upgrade` but a WebSocket's; `X-Forwarded-For/-Proto/-Host/-Port` and `X-Real-IP` are overwritten, where a
/// trusted chain of `X-Forwarded-For` and `Forwarded` is extended by the peer; other fields that claim another address, host, path or method
/// (`X-Original-URL`, `X-Rewrite-URL`, `X-HTTP-Method-Override` and their kin) are removed unless trusted: no cache key holds them, so that an
/// answer shaped by one would be served to everybody. `Via` and `X-Request-ID` are set.
///
/// Always removed: names with `_`, which some servers read as `-` and so as a field removed here; `Proxy`, which CGI programs take for a
/// setting of theirs. Several `Cookie` lines become one, joined by `; ` (RFC 9113 §8.2.3).
///
/// `Host` is left to the caller.
pub fn request(fields: &mut HeaderMap, facts: &RequestFacts<'_>) {
    let trailers = facts.version == "2" && fields.get_all(TE).iter().any(|value| says(value, "trailers"));
    remove_all(fields, &hop_by_hop(fields));
    remove_all(fields, &claims(fields, facts.behind_trusted));
    join_cookies(fields);
    forwarding(fields, facts);
    let via = via(fields, facts.version, facts.via);
    fields.insert(VIA, via);
    set(fields, X_REQUEST_ID, facts.request_id);
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    if facts.websocket {
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Removes what an answer may not carry past one hop: hop-by-hop fields and those named by `Connection` (RFC 9110 §7.6.1), an upgrade's
/// excepted: with `upgrade` (a 101) `Upgrade` stays and `Connection` names it alone.
pub fn response(fields: &mut HeaderMap, upgrade: bool) {
    let protocol = fields.get(UPGRADE).filter(|_| upgrade).cloned();
    remove_all(fields, &hop_by_hop(fields));
    if let Some(protocol) = protocol {
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(UPGRADE, protocol);
    }
}

/// The names of all fields that `Connection` and the protocol make hop-by-hop in these fields.
pub fn hop_by_hop(fields: &HeaderMap) -> Vec<HeaderName> {
    let mut names = nominated(fields);
    for name in fields.keys() {
        if HOP_BY_HOP.contains(name) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The names of all fields here that `Connection` names (RFC 9110 §7.6.1), each once.
///
/// An instance never sees them. So nothing that is asked of the request as the instance got it, such as a cache key made of a field or `Vary`,
/// may see them either; else a client stores the answer to one request under the key of another.
///
/// Never named: `Host`, framing and what the gateway itself relies on; a client that lists them would otherwise have them removed.
pub fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for option in connection_options(fields) {
        let Ok(name) = HeaderName::from_bytes(option) else { continue };
        if fields.contains_key(&name) && !kept(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The value of `Via` with ourselves added to what came (RFC 9110 §7.6.3). `version` is the protocol version the message came by.
pub fn via(fields: &HeaderMap, version: &str, name: &str) -> HeaderValue {
    let own = [version, " ", name].concat();
    let own = HeaderValue::try_from(own).ok();
    if !fields.contains_key(VIA) {
        return own.unwrap_or_else(|| HeaderValue::from_static("1.1 vanne"));
    }
    let whole = joined(fields.get_all(VIA).iter().chain(own.as_ref()), b", ");
    whole.unwrap_or_else(|| HeaderValue::from_static("1.1 vanne"))
}

/// The client's request id when its sender is trusted and it is 1 to 64 characters of `[A-Za-z0-9._~-]`.
pub fn trusted_request_id(fields: &dyn Fields, trusted: bool) -> Option<&str> {
    let mut lines = 0;
    let mut last = None;
    if trusted {
        fields.each(X_REQUEST_ID.as_str(), &mut |line| {
            lines += 1;
            last = Some(line);
        });
    }
    let safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
    let id = last.filter(|id| lines == 1 && (1..=64).contains(&id.len()) && id.iter().all(safe))?;
    std::str::from_utf8(id).ok()
}

/// Whether a request asks for a WebSocket and for nothing else (RFC 6455 §4.2.1): GET over HTTP/1.1, `Upgrade: websocket` alone, named by
/// `Connection`, with a key and without a body. Other protocols, `h2c` above all, would carry requests past every rule of the gateway.
pub fn is_websocket(fields: &HeaderMap, method: &Method, http11: bool) -> bool {
    let mut upgrades = fields.get_all(UPGRADE).iter();
    let alone = upgrades.next().is_some_and(|value| says(value, "websocket")) && upgrades.next().is_none();
    let body = fields.contains_key(TRANSFER_ENCODING)
        || fields.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    http11
        && method == Method::GET
        && alone
        && !body
        && connection_options(fields).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && fields.contains_key(SEC_WEBSOCKET_KEY)
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What describes one hop whether `Connection` names it or not (RFC 9110 §7.6.1 and §11.7, RFC 9113 §8.2.2).
static HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields by which a proxy or framework is told another address, host, path, method or scheme than the request's own; beside them all that
/// begin with `x-forwarded`, `x-original-` or one of the names that tell of a client's certificate.
const CLAIMS: [&str; 24] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "true-client-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-originating-ip",
    "x-override-url",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// The names of the fields that no client may send, or none that is not trusted.
fn claims(fields: &HeaderMap, trusted: bool) -> Vec<HeaderName> {
    let claim = |name: &str| {
        name.starts_with("x-forwarded")
            || name.starts_with("x-original-")
            || name.starts_with("client-cert")
            || name.starts_with("x-client-cert")
            || name.starts_with("x-ssl-")
            || CLAIMS.binary_search(&name).is_ok()
    };
    let unwanted = |name: &str| name.contains('_') || name == "proxy" || (!trusted && claim(name));
    fields.keys().filter(|name| unwanted(name.as_str())).cloned().collect()
}

/// Whether a field stays although `Connection` names it: no honest sender does (RFC 9110 §7.6.1), and without it the message would be framed,
/// routed or attributed differently from what was judged.
fn kept(name: &HeaderName) -> bool {
    let name = name.as_str();
    [HOST, CONTENT_LENGTH, FORWARDED, VIA, X_REAL_IP, X_REQUEST_ID].iter().any(|kept| kept == name)
        || name == "cache-control"
        || name.starts_with("x-forwarded-")
}

/// Says who asked, how and for what.
fn forwarding(fields: &mut HeaderMap, facts: &RequestFacts<'_>) {
    let client = facts.client.to_canonical();
    let peer = facts.peer.to_canonical();
    let last = if facts.behind_trusted { peer } else { client };
    if let Ok(last) = HeaderValue::from_str(&last.to_string()) {
        let chain = joined(fields.get_all(X_FORWARDED_FOR).iter().chain([&last]), b", ");
        fields.insert(X_FORWARDED_FOR, chain.unwrap_or(last));
    }
    let node = if peer.is_ipv6() { format!("for=\"[{peer}]\"") } else { format!("for={peer}") };
    if let (true, Ok(node)) = (fields.contains_key(FORWARDED), HeaderValue::from_str(&node)) {
        fields.append(FORWARDED, node);
    }
    set(fields, X_REAL_IP, &client.to_string());
    set(fields, X_FORWARDED_PROTO, if facts.https { "https" } else { "http" });
    set(fields, X_FORWARDED_HOST, facts.host);
    set(fields, X_FORWARDED_PORT, &asked_port(facts).to_string());
}

/// The port the client spoke to. Behind a trusted proxy that is not our listener's, but the one it asked for or its scheme's own.
fn asked_port(facts: &RequestFacts<'_>) -> u16 {
    if !facts.behind_trusted {
        return facts.port;
    }
    let written = facts.host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    written.unwrap_or(if facts.https { 443 } else { 80 })
}

fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(COOKIE).iter().nth(1).is_some()
        && let Some(whole) = joined(fields.get_all(COOKIE).iter(), b"; ")
    {
        fields.insert(COOKIE, whole);
    }
}

/// The values that are not empty, as one; `None` when none is left.
fn joined<'a>(values: impl Iterator<Item = &'a HeaderValue>, by: &[u8]) -> Option<HeaderValue> {
    let parts: Vec<&[u8]> = values.map(HeaderValue::as_bytes).filter(|value| !value.is_empty()).collect();
    if parts.is_empty() { None } else { HeaderValue::from_bytes(&parts.join(by)).ok() }
}

/// Sets a field to a value of ours; one that is empty or cannot stand in a field leaves none, never the client's.
fn set(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) if !value.is_empty() => fields.insert(name, value),
        _ => fields.remove(name),
    };
}

fn remove_all(fields: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        fields.remove(name);
    }
}

/// The options in all lines of `Connection`.
fn connection_options(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = fields.get_all(CONNECTION).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii)
}

fn says(value: &HeaderValue, word: &str) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(word.as_bytes())
}

#[cfg(test)]
mod tests;
