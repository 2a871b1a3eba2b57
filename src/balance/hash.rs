//! What tells two requests apart where the same should meet the same endpoint.

use std::net::IpAddr;

use http::HeaderName;
use xxhash_rust::xxh3::xxh3_64;

use crate::base::fields::{Fields, each_cookie};

/// What of a request decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HashOn {
    /// Its client's network: see [`client_key`].
    #[default]
    Client,
    /// Its path.
    Path,
    /// A field.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A parameter of its query, as it is written.
    Query(String),
}

/// The facts of a request that may decide.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Its client's address.
    pub client: IpAddr,
    /// Its normalised path.
    pub path: &'a str,
    /// Its query.
    pub query: Option<&'a str>,
    /// Its fields.
    pub fields: &'a dyn Fields,
}

impl HashOn {
    /// The key of a request, the same in every process and release; `None` when it has none of what decides, so that chance does: were they
    /// all alike, all of them would meet one endpoint.
    pub fn key(&self, facts: &Facts<'_>) -> Option<u64> {
        match self {
            Self::Client => Some(client_key(facts.client)),
            Self::Path => Some(xxh3_64(facts.path.as_bytes())),
            Self::Header(name) => facts.fields.joined(name.as_str()).map(|value| xxh3_64(&value)),
            Self::Cookie(name) => {
                let mut key = None;
                each_cookie(facts.fields, name, |value| {
                    key.get_or_insert(xxh3_64(value));
                });
                key
            }
            Self::Query(name) => {
                let pairs = facts.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                pairs
                    .filter(|(key, _)| *key == name.as_str())
                    .map(|(_, value)| xxh3_64(value.as_bytes()))
                    .next()
            }
        }
    }
}

/// The hash key of a client: its /24 (IPv4) or /64 (IPv6), the same in every process. An IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2)
/// counts as IPv4: whether a listener is dual-stack must not move its clients.
pub fn client_key(addr: IpAddr) -> u64 {
    match addr.to_canonical() {
        IpAddr::V4(v4) => xxh3_64(&v4.octets()[..3]),
        IpAddr::V6(v6) => xxh3_64(&v6.octets()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    fn key(on: &HashOn, client: &str, target: &str, fields: &[(&str, &[u8])]) -> Option<u64> {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        on.key(&Facts { client: client.parse().unwrap(), path, query, fields: &Pairs(fields) })
    }

    #[test]
    fn a_request_is_told_by_what_decides_and_by_nothing_else() {
        let cookie = |name: &str| HashOn::Cookie(name.into());
        let query = |name: &str| HashOn::Query(name.into());
        let header = || HashOn::Header(HeaderName::from_static("x-user"));
        type Asked<'a> = (&'a str, &'a str, &'a [(&'a str, &'a [u8])]);
        let plain: Asked<'_> =
            ("192.0.2.1", "/a?user=1", &[("X-User", b"ann"), ("Cookie", b"a=1; user=ann")]);
        let cases: [(HashOn, Asked<'_>, bool, &str); 10] = [
            (HashOn::Path, ("192.0.2.1", "/a", &[]), true, "a path without its query"),
            (HashOn::Path, ("192.0.2.1", "/b?user=1", &[]), false, "another path"),
            (HashOn::Client, ("192.0.2.200", "/b", &[]), true, "a client's network"),
            (HashOn::Client, ("192.0.3.1", "/a", &[]), false, "another network"),
            (header(), ("192.0.9.1", "/b", &[("x-user", b"ann")]), true, "a field"),
            (header(), ("192.0.2.1", "/a", &[("x-user", b"bob")]), false, "its value"),
            (cookie("user"), ("192.0.2.1", "/b", &[("cookie", b"user=ann")]), true, "a cookie"),
            (cookie("user"), ("192.0.2.1", "/b", &[("cookie", b"user=bob")]), false, "its value"),
            (query("user"), ("192.0.2.1", "/b?x&user=1", &[]), true, "a parameter"),
            (query("user"), ("192.0.2.1", "/a?user=2", &[]), false, "its value"),
        ];
        for (on, other, same, fact) in cases {
            let (one, other) = (key(&on, plain.0, plain.1, plain.2), key(&on, other.0, other.1, other.2));
            assert!(one.is_some() && other.is_some(), "{fact}");
            assert_eq!(one == other, same, "{fact}: {on:?}");
        }
    }

    #[test]
    fn a_request_without_what_decides_has_no_key() {
        for on in [
            HashOn::Header(HeaderName::from_static("x")),
            HashOn::Cookie("x".into()),
            HashOn::Query("x".into()),
        ] {
            assert_eq!(key(&on, "192.0.2.1", "/x?y=x", &[("cookie", b"y=x")]), None, "{on:?}");
        }
    }
}
