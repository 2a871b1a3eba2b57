//! A host and perhaps a port, read so strictly that no later reader can see another host in it.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A host and perhaps a port: `uri-host [ ":" port ]` (RFC 9110 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// Lower case, no trailing dot, IPv6 in brackets and in its shortest form.
    pub(super) host: Cow<'a, str>,
    /// 1 to 65535; `None` when absent or empty (RFC 3986 §6.2.3).
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads a Host field or the authority of a target; `None` when it is neither a name, nor an IPv4, nor a bracketed IPv6 address.
    ///
    /// Narrower than RFC 3986 §3.2.2 on purpose: names are those of DNS (with `_`, which container networks use). Userinfo, escapes and the
    /// punctuation a registered name might hold have no use here, and in every one of them some reader sees the end of the host.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let (inner, rest) = bracketed.split_once(']')?;
            let port = if rest.is_empty() { None } else { port(rest.strip_prefix(':')?)? };
            return Some(Self { host: ipv6(&text[..inner.len() + 2], inner)?, port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, port(digits)?),
            None => (text, None),
        };
        Some(Self { host: name(host)?, port })
    }

    /// Whether both name the same place when `default` is the port of the scheme (RFC 3986 §6.2.3).
    pub(super) fn same_as(&self, other: &Self, default: Option<u16>) -> bool {
        self.host == other.host && self.port.or(default) == other.port.or(default)
    }
}

/// The port: `Some(None)` when empty, `None` when it is not one. Zero, a sign and leading zeros are refused: readers differ on them.
fn port(digits: &str) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten().map(Some)
}

fn ipv6<'a>(bracketed: &'a str, inner: &str) -> Option<Cow<'a, str>> {
    let address: Ipv6Addr = inner.parse().ok()?;
    let shortest = format!("[{address}]");
    Some(if shortest == bracketed { Cow::Borrowed(bracketed) } else { Cow::Owned(shortest) })
}

/// A name of letters, digits, `-`, `_` and dots, no label empty or longer than 63, 253 in all (RFC 1035 §2.3.4); one trailing dot is dropped.
fn name(text: &str) -> Option<Cow<'_, str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.len() > 253 || !text.bytes().all(good) {
        return None;
    }
    if text.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return None;
    }
    let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    Some(if lower { Cow::Borrowed(text) } else { Cow::Owned(text.to_ascii_lowercase()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_form() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("EXAMPLE.com", "example.com", None),
            ("example.com.", "example.com", None),
            ("example.com.:80", "example.com", Some(80)),
            ("example.com:", "example.com", None),
            ("example.com:8080", "example.com", Some(8080)),
            ("example.com:65535", "example.com", Some(65535)),
            ("my_service", "my_service", None),
            ("192.0.2.1:1", "192.0.2.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
            ("[::1]:", "[::1]", None),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
        ] {
            let expected = Authority { host: host.into(), port };
            assert_eq!(Authority::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_some_reader_takes_for_another_host_is_refused() {
        for text in [
            "",
            ".",
            ".example.com",
            "example..com",
            "example.com..",
            "user@example.com",
            "user:pass@example.com",
            "example.com@evil",
            "example.com:80@evil",
            "\"example.com\"",
            "'example.com'",
            "exam ple.com",
            " example.com",
            "example.com ",
            "example.com\t",
            "example.com?x",
            "example.com#x",
            "example.com/",
            "example.com/x",
            "example.com\\x",
            "example.com,evil",
            "example.com;x",
            "example.com%2e",
            "ex%61mple.com",
            "exämple.com",
            "example.com\u{0}",
            "example.com\r\n",
            "example.com\u{7f}",
            "http://example.com",
            "*.example.com",
            "example.com:0",
            "example.com:080",
            "example.com:65536",
            "example.com:99999999999",
            "example.com:-1",
            "example.com:+80",
            "example.com:80:80",
            "example.com:http",
            "example.com: 80",
            ":80",
            "::1",
            "2001:db8::1",
            "[::1",
            "::1]",
            "[]",
            "[example.com]",
            "[192.0.2.1]",
            "[::1]80",
            "[::1]:0",
            "[::1]x",
            "[[::1]]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "[::1].example.com",
        ] {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
        assert_eq!(Authority::parse(&"a".repeat(64)), None);
        assert_eq!(Authority::parse(&["a"; 128].join(".")), None);
    }

    #[test]
    fn the_default_port_of_the_scheme_may_be_left_out() {
        let of = |text| Authority::parse(text).unwrap();
        assert!(of("a").same_as(&of("A:80"), Some(80)));
        assert!(!of("a").same_as(&of("a:80"), Some(443)));
        assert!(!of("a").same_as(&of("a:80"), None));
        assert!(!of("a").same_as(&of("b"), Some(80)));
    }
}
