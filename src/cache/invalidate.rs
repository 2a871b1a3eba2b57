//! What a change makes invalid (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};

use super::directive::trim;
use crate::base::fields::Fields;

/// A target to invalidate, beside the request's own: path and query on the same origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The normalised path.
    pub path: String,
    /// The query.
    pub query: Option<String>,
}

/// Whether an answer to this method invalidates the request's target: an unsafe or unknown method and a 2xx or 3xx.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    // RFC 9110 §9.2.1 and, for QUERY, RFC 10008.
    let safe = matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY");
    !safe && (status.is_success() || status.is_redirection())
}

/// The same-origin targets named by Location and Content-Location, which an answer that [`invalidates`] also makes invalid. `host` and `port` are the
/// request's; `path` is its path, against which relative references resolve.
pub fn also(response: &HeaderMap, https: bool, host: &str, port: Option<u16>, path: &str) -> Vec<Target> {
    let origin = Origin { https, host, port };
    let mut targets = Vec::new();
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = response.first(name.as_str()).and_then(|value| std::str::from_utf8(trim(value)).ok());
        let target = reference.and_then(|reference| origin.resolve(reference, path));
        targets.extend(target.filter(|target| !targets.contains(target)));
    }
    targets
}

/// The origin of the request: who may have which targets invalidated.
struct Origin<'a> {
    https: bool,
    host: &'a str,
    port: Option<u16>,
}

impl Origin<'_> {
    /// The target of a reference (RFC 3986 §5.2.2) on this origin; `None` when it is elsewhere, malformed, or names nothing beside the request's own.
    fn resolve(&self, reference: &str, base: &str) -> Option<Target> {
        // Nothing but visible ASCII is a reference, nor taken by the request guard; so nothing else can be stored.
        if !reference.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let relative = match split_scheme(reference) {
            // One of our scheme with no authority (`http:path`) is no reference to resolve (RFC 3986 §4.2).
            Some((scheme, rest)) if self.is_scheme(scheme) && rest.starts_with("//") => rest,
            Some(_) => return None,
            None => reference,
        };
        let (path_and_query, absolute) = match relative.strip_prefix("//") {
            Some(rest) => {
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                if !self.is_authority(authority) {
                    return None;
                }
                (rest, true)
            }
            None => (relative, false),
        };
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (path_and_query, None),
        };
        let path = match path {
            "" if absolute => "/".to_owned(),
            "" if query.is_none() => return None,
            "" => base.to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("{}/{path}", base.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        Some(Target { path: without_dots(&unescaped(&path)), query })
    }

    fn is_scheme(&self, scheme: &str) -> bool {
        scheme.eq_ignore_ascii_case(if self.https { "https" } else { "http" })
    }

    fn is_authority(&self, authority: &str) -> bool {
        let own = if self.https { 443 } else { 80 };
        // A colon within the brackets of an IPv6 address parts no port.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        let port = match port {
            "" => Some(own),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(self.host)
            && port == Some(self.port.unwrap_or(own))
    }
}

/// The scheme of a reference that has one, and the rest (RFC 3986 §3.1).
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let begins = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let reads = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (begins && reads).then_some((scheme, rest))
}

/// Percent-encoding of unreserved characters undone, other escapes in upper case (RFC 3986 §6.2.2), as in the path of every key.
fn unescaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape =
            rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte))
            }
            Some(byte) => out.push_str(&format!("%{byte:02X}")),
            None => out.push('%'),
        }
        rest = &rest[at + escape.map_or(1, |_| 3)..];
    }
    out.push_str(rest);
    out
}

/// A path without dot segments (RFC 3986 §5.2.4). It begins with `/`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn a_change_that_worked_invalidates_rfc_9111_4_4() {
        for (method, status, expected) in [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 200, true),
            ("PATCH", 302, true),
            ("FOO", 201, true),
            ("get", 200, true),
            ("POST", 304, true),
            ("POST", 400, false),
            ("POST", 500, false),
            ("DELETE", 404, false),
            ("POST", 103, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("TRACE", 200, false),
            ("QUERY", 200, false),
        ] {
            let method_value = Method::from_bytes(method.as_bytes()).unwrap();
            let found = invalidates(&method_value, StatusCode::from_u16(status).unwrap());
            assert_eq!(found, expected, "{method} {status}");
        }
    }

    fn location(value: &str) -> Vec<String> {
        on(value, true, "example.com", None)
    }

    fn on(value: &str, https: bool, host: &str, port: Option<u16>) -> Vec<String> {
        let mut map = HeaderMap::new();
        map.insert(LOCATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        let shown = |target: &Target| match &target.query {
            Some(query) => format!("{}?{query}", target.path),
            None => target.path.clone(),
        };
        also(&map, https, host, port, "/b/c/d;p").iter().map(shown).collect()
    }

    #[test]
    fn references_resolve_as_in_rfc_3986_5_4() {
        for (reference, expected) in [
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("g#s", "/b/c/g"),
            ("g?y#s", "/b/c/g?y"),
            (";x", "/b/c/;x"),
            ("g;x?y#s", "/b/c/g;x?y"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../", "/"),
            ("../../g", "/g"),
            ("../../../g", "/g"),
            ("../../../../g", "/g"),
            ("/./g", "/g"),
            ("/../g", "/g"),
            ("g.", "/b/c/g."),
            (".g", "/b/c/.g"),
            ("g..", "/b/c/g.."),
            ("..g", "/b/c/..g"),
            ("./../g", "/b/g"),
            ("./g/.", "/b/c/g/"),
            ("g/./h", "/b/c/g/h"),
            ("g/../h", "/b/c/h"),
            ("g;x=1/./y", "/b/c/g;x=1/y"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/./x", "/b/c/g?y/./x"),
            ("g?y/../x", "/b/c/g?y/../x"),
            ("/a//b", "/a//b"),
            ("//example.com/x", "/x"),
            ("https://example.com", "/"),
            ("https://example.com?q", "/?q"),
            ("g?", "/b/c/g?"),
        ] {
            assert_eq!(location(reference), [expected], "{reference}");
        }
    }

    #[test]
    fn targets_are_spelled_as_keys_are() {
        for (reference, expected) in [
            ("/%7euser/%41", "/~user/A"),
            ("/a%2fb", "/a%2Fb"),
            ("/a/%2e%2E/b", "/b"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/a?%41", "/a?%41"),
        ] {
            assert_eq!(location(reference), [expected], "{reference}");
        }
    }

    #[test]
    fn another_origin_is_left_alone() {
        for reference in [
            "https://example.org/x",
            "http://example.com/x",
            "//example.org/x",
            "https://example.com:8443/x",
            "https://example.com:x/x",
            "https://example.com:99999/x",
            "https://user@example.com/x",
            "https://example.com@evil.org/x",
            "ftp://example.com/x",
            "mailto:a@example.com",
            "javascript:x",
            "https:/x",
            "https:x",
            "",
            "#frag",
            "/a b",
            "/\u{e9}",
        ] {
            assert_eq!(location(reference), [""; 0], "{reference}");
        }
    }

    #[test]
    fn an_origin_is_the_same_whatever_the_spelling_of_host_and_port() {
        for (reference, https, host, port, same) in [
            ("HTTPS://EXAMPLE.com:443/x", true, "example.com", None, true),
            ("https://example.com:/x", true, "example.com", None, true),
            ("https://example.com./x", true, "example.com", None, true),
            ("https://example.com/x", true, "example.com", Some(443), true),
            ("http://example.com:8080/x", false, "example.com", Some(8080), true),
            ("http://example.com/x", false, "example.com", Some(8080), false),
            ("http://[::1]:8080/x", false, "[::1]", Some(8080), true),
            ("http://[::1]/x", false, "[::1]", None, true),
            ("http://[::2]/x", false, "[::1]", None, false),
        ] {
            assert_eq!(!on(reference, https, host, port).is_empty(), same, "{reference} {host} {port:?}");
        }
    }

    #[test]
    fn both_fields_count_and_the_same_target_once() {
        let mut map = HeaderMap::new();
        map.insert(LOCATION, HeaderValue::from_static("/a"));
        map.insert(CONTENT_LOCATION, HeaderValue::from_static("/b"));
        let paths =
            |map: &HeaderMap| also(map, true, "h", None, "/").into_iter().map(|t| t.path).collect::<Vec<_>>();
        assert_eq!(paths(&map), ["/a", "/b"]);
        map.insert(CONTENT_LOCATION, HeaderValue::from_static("https://h/x/../a"));
        assert_eq!(paths(&map), ["/a"]);
        assert!(paths(&HeaderMap::new()).is_empty());
    }

    proptest! {
        #[test]
        fn a_target_begins_with_a_slash_and_has_no_dot_segments(reference in "[a.%2e/?#:]{0,20}") {
            for target in location(&reference) {
                let path = target.split('?').next().unwrap_or_default();
                prop_assert!(path.starts_with('/'), "{}", path);
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{}", path);
            }
        }
    }
}
