//! Requests that ask for a purge, as those who come from nginx or Varnish send them, and who may.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use ipnet::IpNet;

/// Who may purge over a public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purgers(pub Vec<IpNet>);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<'r> {
    /// Which answers.
    pub what: What<'r>,
    /// They become stale instead of going.
    pub soft: bool,
}

/// Which answers a purge is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What<'r> {
    /// Those with one of these tags.
    Tags(Vec<&'r str>),
    /// That of the request's own URL.
    Url,
    /// Those in this directory of the request's host.
    Directory(&'r str),
}

/// The fields that name tags: those in which an origin names them, and those that the usual configurations of Varnish read from a purge.
const TAGS: [&str; 5] = ["cache-tag", "surrogate-key", "xkey", "xkey-purge", "xkey-softpurge"];
/// The fields that ask for a soft purge when they are there and not `0`.
const SOFT: [&str; 3] = ["soft-purge", "fastly-soft-purge", "xkey-softpurge"];

impl Purgers {
    /// Whether a client of this address may; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn may(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|net| net.contains(&client))
    }
}

/// What a request asks to be purged; `None` when its method is neither PURGE nor BAN.
///
/// Either is about the tags it names, if it names any. Else PURGE is about its own URL, or about a directory if that ends with `*`, and BAN about the
/// directory it names.
pub fn asked<'r>(method: &Method, path: &'r str, fields: &'r HeaderMap) -> Option<Asked<'r>> {
    let bans = match method.as_str() {
        "PURGE" => false,
        "BAN" => true,
        _ => return None,
    };
    let tags: Vec<&str> = TAGS.iter().flat_map(|name| fields.get_all(*name)).flat_map(words).collect();
    let directory = path.strip_suffix('*').or_else(|| bans.then_some(path));
    let what = match directory {
        _ if !tags.is_empty() => What::Tags(tags),
        Some(directory) => What::Directory(directory),
        None => What::Url,
    };
    let soft = SOFT.iter().any(|name| fields.get(*name).is_some_and(|value| value.as_bytes() != b"0"));
    Some(Asked { what, soft })
}

fn words(value: &http::HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or_default();
    text.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, value.parse().unwrap());
        }
        fields
    }

    #[test]
    fn what_is_asked_is_told_by_method_path_and_fields() {
        for (method, path, lines, what, soft) in [
            ("PURGE", "/a", &[][..], What::Url, false),
            ("PURGE", "/a/", &[], What::Url, false),
            ("PURGE", "/a/*", &[], What::Directory("/a/"), false),
            ("PURGE", "/a", &[("soft-purge", "1")], What::Url, true),
            ("PURGE", "/a", &[("fastly-soft-purge", "1")], What::Url, true),
            ("PURGE", "/a", &[("soft-purge", "0")], What::Url, false),
            ("PURGE", "/", &[("surrogate-key", "a b")], What::Tags(vec!["a", "b"]), false),
            ("PURGE", "/", &[("cache-tag", "a, b")], What::Tags(vec!["a", "b"]), false),
            ("PURGE", "/", &[("xkey-purge", "a"), ("xkey", "b")], What::Tags(vec!["b", "a"]), false),
            ("PURGE", "/", &[("xkey-softpurge", "a")], What::Tags(vec!["a"]), true),
            ("PURGE", "/a", &[("xkey", " ,")], What::Url, false),
            ("BAN", "/a/", &[], What::Directory("/a/"), false),
            ("BAN", "/a/*", &[], What::Directory("/a/"), false),
            ("BAN", "/", &[("cache-tag", "x")], What::Tags(vec!["x"]), false),
        ] {
            let (fields, method) = (fields(lines), Method::from_bytes(method.as_bytes()).unwrap());
            assert_eq!(
                asked(&method, path, &fields),
                Some(Asked { what, soft }),
                "{method} {path} {lines:?}"
            );
        }
        for method in ["GET", "DELETE", "purge", "PURGEKEYS"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(asked(&method, "/a", &HeaderMap::new()), None, "{method}");
        }
    }

    #[test]
    fn only_named_addresses_may() {
        let purgers = Purgers(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for (client, may) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("::1", true),
            ("11.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(purgers.may(client.parse().unwrap()), may, "{client}");
        }
        assert!(!Purgers(Vec::new()).may("127.0.0.1".parse().unwrap()));
    }
}
