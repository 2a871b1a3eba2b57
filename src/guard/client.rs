//! Who the client is: the address that a trusted chain of proxies vouches for.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderName;
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::base::fields::Fields;

/// Whose word about the client is believed, and in which field it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// The networks whose `X-Forwarded-*` fields are believed.
    pub networks: Vec<IpNet>,
    /// The field in which they name the client alone; `None`: `X-Forwarded-For`.
    pub field: Option<HeaderName>,
}

/// The field in which CloudFront names the client: address, colon, port, and no brackets around an IPv6 address.
const VIEWER_ADDRESS: &str = "cloudfront-viewer-address";

/// The client as it will be logged, hashed and forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The right-most untrusted address of the chain, or the peer's own. Never an IPv4-mapped IPv6 address.
    pub addr: IpAddr,
    /// Whether the connection's peer is a trusted proxy, so that its `X-Forwarded-*` and `X-Request-ID` are believed.
    pub behind_trusted: bool,
    /// The scheme the client used: a trusted proxy's `X-Forwarded-Proto`, else that of the connection.
    pub https: bool,
}

impl TrustedProxies {
    /// Whether `addr` (an IPv4-mapped IPv6 address counts as IPv4) is one of them.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.networks.iter().any(|net| net.contains(&addr))
    }

    /// Who sent a request that came from `peer` over a connection that is (`tls`) or is not encrypted.
    pub fn client(&self, peer: IpAddr, tls: bool, fields: &dyn Fields) -> Client {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return Client { addr: peer, behind_trusted: false, https: tls };
        }
        Client {
            addr: self.named(fields).unwrap_or_else(|| self.vouched(peer, fields)),
            behind_trusted: true,
            https: forwarded_https(fields).unwrap_or(tls),
        }
    }

    /// The client by a field that names it alone. Several lines, or what is no address, name nobody: the walk decides.
    fn named(&self, fields: &dyn Fields) -> Option<IpAddr> {
        let field = self.field.as_ref()?.as_str();
        let mut named = elements(fields, field);
        let (one, more) = (named.next()?, named.next());
        if more.is_some() {
            return None;
        }
        match field {
            VIEWER_ADDRESS => viewer(one),
            _ => address(one),
        }
    }

    /// Walks `X-Forwarded-For` from the right: each address was written by the one to its right, so that it is believed as long as those
    /// are trusted. What cannot be read ends the walk at the last address somebody trusted wrote.
    fn vouched(&self, peer: IpAddr, fields: &dyn Fields) -> IpAddr {
        let mut client = peer;
        for element in elements(fields, "x-forwarded-for").rev() {
            let Some(addr) = address(element) else { break };
            client = addr;
            if !self.contains(addr) {
                break;
            }
        }
        client
    }
}

/// What the nearest proxy says the client used: the right-most value, since what stands left of it may have come from outside.
fn forwarded_https(fields: &dyn Fields) -> Option<bool> {
    let said = elements(fields, "x-forwarded-proto").next_back()?;
    match said.to_ascii_lowercase().as_slice() {
        b"https" | b"wss" => Some(true),
        b"http" | b"ws" => Some(false),
        _ => None,
    }
}

/// The elements of a comma-separated field in the order they came, all its lines as one; empty ones left out (RFC 9110 §5.6.1.2).
fn elements<'a>(fields: &'a dyn Fields, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    let mut lines: SmallVec<[&[u8]; 4]> = SmallVec::new();
    fields.each(name, &mut |line| lines.push(line));
    lines
        .into_iter()
        .flat_map(|line| line.split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Reads `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let addr = if let Some(bracketed) = text.strip_prefix('[') {
        let (inner, port) = bracketed.split_once(']')?;
        if !port.is_empty() {
            port.strip_prefix(':').filter(|port| is_port(port))?;
        }
        IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?)
    } else if text.matches(':').count() == 1 {
        let (inner, port) = text.split_once(':')?;
        IpAddr::V4(inner.parse().ok().filter(|_| is_port(port))?)
    } else {
        text.parse().ok()?
    };
    Some(addr.to_canonical())
}

/// Reads `192.0.2.1:46532` and `2001:db8::1:46532`, whose last group is the port whatever else it may look like.
fn viewer(element: &[u8]) -> Option<IpAddr> {
    let (inner, port) = std::str::from_utf8(element).ok()?.rsplit_once(':')?;
    if !is_port(port) {
        return None;
    }
    let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
    inner.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::fields::Pairs;

    fn trusting(nets: &[&str]) -> TrustedProxies {
        TrustedProxies { networks: nets.iter().map(|net| net.parse().unwrap()).collect(), field: None }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seen(peer: &str, lines: &[&str]) -> IpAddr {
        let lines: Vec<(&str, &[u8])> =
            lines.iter().map(|line| ("X-Forwarded-For", line.as_bytes())).collect();
        trusting(&["10.0.0.0/8", "fd00::/8"]).client(ip(peer), false, &Pairs(&lines)).addr
    }

    #[test]
    fn a_field_that_names_the_client_alone_counts_before_the_walk() {
        for (field, lines, client) in [
            ("cf-connecting-ip", &[("CF-Connecting-IP", "192.0.2.1")][..], "192.0.2.1"),
            (
                "cf-connecting-ip",
                &[("CF-Connecting-IP", "2001:db8::1"), ("X-Forwarded-For", "192.0.2.9")],
                "2001:db8::1",
            ),
            // Without it, twice, or unreadable: the walk.
            ("cf-connecting-ip", &[("X-Forwarded-For", "192.0.2.9")], "192.0.2.9"),
            (
                "cf-connecting-ip",
                &[("CF-Connecting-IP", "192.0.2.1, 192.0.2.2"), ("X-Forwarded-For", "192.0.2.9")],
                "192.0.2.9",
            ),
            (
                "cf-connecting-ip",
                &[("CF-Connecting-IP", "192.0.2.1"), ("cf-connecting-ip", "192.0.2.2")],
                "10.0.0.1",
            ),
            ("cf-connecting-ip", &[("CF-Connecting-IP", "unknown")], "10.0.0.1"),
            ("cloudfront-viewer-address", &[("CloudFront-Viewer-Address", "192.0.2.1:46532")], "192.0.2.1"),
            ("cloudfront-viewer-address", &[("CloudFront-Viewer-Address", "2001:db8::1:443")], "2001:db8::1"),
            (
                "cloudfront-viewer-address",
                &[("CloudFront-Viewer-Address", "2001:db8:0:0:0:0:0:1:443")],
                "2001:db8::1",
            ),
            ("cloudfront-viewer-address", &[("CloudFront-Viewer-Address", "192.0.2.1")], "10.0.0.1"),
        ] {
            let trusted =
                TrustedProxies { field: Some(HeaderName::from_static(field)), ..trusting(&["10.0.0.0/8"]) };
            let pairs: Vec<(&str, &[u8])> =
                lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            assert_eq!(trusted.client(ip("10.0.0.1"), false, &Pairs(&pairs)).addr, ip(client), "{lines:?}");
            assert_eq!(
                trusted.client(ip("192.0.2.77"), false, &Pairs(&pairs)).addr,
                ip("192.0.2.77"),
                "from anybody"
            );
        }
    }

    #[test]
    fn the_client_is_the_right_most_untrusted_address() {
        for (peer, lines, client) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            // What stands left of it was said by the client itself.
            ("10.0.0.1", &["198.51.100.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            // All trusted: the farthest of them.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Several lines are one list (RFC 9110 §5.3).
            ("10.0.0.1", &["192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["10.0.0.2", "192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1,,10.0.0.2,", ""], "192.0.2.1"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
            // Untrusted peers are not asked.
            ("192.0.2.5", &["198.51.100.9"], "192.0.2.5"),
        ] {
            assert_eq!(seen(peer, lines), ip(client), "{peer} {lines:?}");
        }
    }

    #[test]
    fn addresses_may_carry_ports_and_brackets() {
        for (line, client) in [
            ("192.0.2.1:123", "192.0.2.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:5", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:9", "192.0.2.1"),
            ("\t192.0.2.1 ", "192.0.2.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[line]), ip(client), "{line}");
        }
    }

    #[test]
    fn junk_ends_the_walk_at_the_last_good_address() {
        for junk in [
            "unknown",
            "_hidden",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:+5",
            "192.0.2.1:65536",
            "[192.0.2.1]",
            "[2001:db8::1",
            "[2001:db8::1]5",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            "\"192.0.2.1\"",
            "010.0.0.1",
            "192.0.2.1 198.51.100.9",
        ] {
            let line = format!("192.0.2.1, {junk}, 10.0.0.2");
            assert_eq!(seen("10.0.0.1", &[&line]), ip("10.0.0.2"), "{junk}");
            assert_eq!(seen("10.0.0.1", &[junk]), ip("10.0.0.1"), "{junk}");
        }
        let fields = Pairs(&[("x-forwarded-for", b"192.0.2.1, \xff\xfe")]);
        assert_eq!(trusting(&["10.0.0.0/8"]).client(ip("10.0.0.1"), false, &fields).addr, ip("10.0.0.1"));
    }

    #[test]
    fn an_ipv4_mapped_address_counts_as_ipv4() {
        let trusted = trusting(&["10.0.0.0/8"]);
        assert!(trusted.contains(ip("::ffff:10.1.2.3")));
        assert!(!trusted.contains(ip("::ffff:11.1.2.3")));
        assert!(!trusting(&["::/0"]).contains(ip("::ffff:10.1.2.3")));
        assert_eq!(seen("::ffff:192.0.2.9", &[]), ip("192.0.2.9"));
        assert_eq!(seen("::ffff:10.0.0.1", &["192.0.2.1"]), ip("192.0.2.1"));
    }

    #[test]
    fn nobody_is_trusted_unless_named() {
        let fields = Pairs(&[("x-forwarded-for", b"192.0.2.1"), ("x-forwarded-proto", b"https")]);
        let client = TrustedProxies::default().client(ip("127.0.0.1"), false, &fields);
        assert_eq!(client, Client { addr: ip("127.0.0.1"), behind_trusted: false, https: false });
    }

    #[test]
    fn the_scheme_is_the_nearest_trusted_proxys_word() {
        let trusted = trusting(&["10.0.0.0/8"]);
        for (peer, tls, lines, https) in [
            ("10.0.0.1", false, &["https"][..], true),
            ("10.0.0.1", false, &["HTTPS"], true),
            ("10.0.0.1", true, &["http"], false),
            ("10.0.0.1", false, &["wss"], true),
            ("10.0.0.1", false, &["https, http"], false),
            ("10.0.0.1", false, &["http", "https"], true),
            ("10.0.0.1", true, &[], true),
            ("10.0.0.1", true, &["gopher"], true),
            ("10.0.0.1", false, &[""], false),
            ("192.0.2.1", false, &["https"], false),
            ("192.0.2.1", true, &["http"], true),
        ] {
            let lines: Vec<(&str, &[u8])> =
                lines.iter().map(|line| ("x-forwarded-proto", line.as_bytes())).collect();
            let client = trusted.client(ip(peer), tls, &Pairs(&lines));
            assert_eq!(client.https, https, "{peer} tls={tls} {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn an_untrusted_peer_is_always_the_client(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let fields = Pairs(&[("x-forwarded-for", &line), ("x-forwarded-proto", &line)]);
            let client = trusting(&["10.0.0.0/8"]).client(ip("192.0.2.1"), false, &fields);
            prop_assert_eq!(client, Client { addr: ip("192.0.2.1"), behind_trusted: false, https: false });
        }

        #[test]
        fn what_a_client_writes_left_of_its_own_address_changes_nothing(said in "[ -~]{0,60}") {
            let line = format!("{said}, 192.0.2.1, 10.0.0.2");
            prop_assert_eq!(seen("10.0.0.1", &[&line]), ip("192.0.2.1"));
        }
    }
}
