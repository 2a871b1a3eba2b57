//! The hosts a rule answers for.

use std::fmt;
use std::net::Ipv6Addr;

use super::RouteError;

/// A host as the operator names it, in the form in which a request's host is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Host {
    /// This name alone.
    Exact(String),
    /// Every name that ends with a dot and this: `*.example.com` holds `example.com`.
    Below(String),
}

impl Host {
    /// Reads `api.example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`.
    pub(super) fn parse(text: &str) -> Result<Self, RouteError> {
        let wrong = |hint: &str| RouteError::Host(format!("\"{text}\" is not a host: {hint}"));
        if text == "*" {
            return Err(wrong("for any host, leave the hosts out"));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(|| wrong(IPV6_HINT))?;
            let address: Ipv6Addr = inner.parse().map_err(|_| wrong(IPV6_HINT))?;
            return Ok(Self::Exact(format!("[{address}]")));
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(suffix) => (true, suffix),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(hint) = fault(&name) {
            return Err(wrong(hint));
        }
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// The parts of `host` that a wildcard may end with, the longest first: `b.example.com`, `example.com`, `com` of `a.b.example.com`.
pub(super) fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(dot, _)| &host[dot + 1..])
}

const IPV6_HINT: &str = "write an IPv6 address in brackets and without a port, like \"[2001:db8::1]\"";

/// What would make `name` right; `None` when it is.
fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("write a name like \"api.example.com\", or leave the hosts out for any host")
    } else if name.contains("://") {
        Some("write the name alone, without a scheme")
    } else if name.contains('/') {
        Some("write the name alone; what follows it belongs in the path")
    } else if name.contains('*') {
        Some("a wildcard stands for whole labels at the front, like \"*.example.com\"")
    } else if name.matches(':').count() > 1 {
        Some(IPV6_HINT)
    } else if name.contains(':') {
        Some("write it without a port; routes do not look at ports")
    } else if !name.is_ascii() {
        Some("write an international name in its ASCII form, like \"xn--bcher-kva.example\"")
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        Some("a name is made of letters, digits, \"-\", \"_\" and dots")
    } else if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        Some("between the dots stand 1 to 63 characters, 253 in all (RFC 1035 §2.3.4)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_kept_in_the_form_requests_are_compared_in() {
        for (text, kept) in [
            ("api.example.com", Host::Exact("api.example.com".into())),
            ("API.Example.COM", Host::Exact("api.example.com".into())),
            ("api.example.com.", Host::Exact("api.example.com".into())),
            ("*.Example.com", Host::Below("example.com".into())),
            ("localhost", Host::Exact("localhost".into())),
            ("my_service", Host::Exact("my_service".into())),
            ("192.0.2.1", Host::Exact("192.0.2.1".into())),
            ("[2001:DB8:0::1]", Host::Exact("[2001:db8::1]".into())),
        ] {
            assert_eq!(Host::parse(text), Ok(kept), "{text}");
        }
    }

    #[test]
    fn a_host_that_no_request_can_have_is_refused_with_what_would_be_right() {
        for (text, hint) in [
            ("", "write a name"),
            ("*", "leave the hosts out"),
            ("*.", "write a name"),
            ("https://example.com", "without a scheme"),
            ("example.com/api", "belongs in the path"),
            ("a.*.example.com", "\"*.example.com\""),
            ("*example.com", "\"*.example.com\""),
            ("example.com:8080", "without a port"),
            ("2001:db8::1", "in brackets"),
            ("[2001:db8::1]:80", "in brackets"),
            ("[example.com]", "in brackets"),
            ("bücher.example", "xn--"),
            ("exa mple.com", "letters, digits"),
            ("a..example.com", "1 to 63"),
            (".example.com", "1 to 63"),
        ] {
            let error = Host::parse(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn wildcard_suffixes_come_longest_first() {
        let of = |host| suffixes(host).collect::<Vec<_>>();
        assert_eq!(of("a.b.example.com"), ["b.example.com", "example.com", "com"]);
        assert!(of("localhost").is_empty());
        assert!(of("").is_empty());
    }
}
