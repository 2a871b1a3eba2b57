//! Addresses: to listen on, to connect to, to believe.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::is_name_byte;
use crate::base::redis_url::RedisUrl as Parsed;
use crate::config::setting::FromText;
use crate::forward::HostRule;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromText for Address {
    fn what() -> String {
        "an address to listen on".to_owned()
    }

    const EXAMPLE: &'static str = "0.0.0.0:8080";
    const PATTERN: &'static str = r"^.*:[0-9]+$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = "write an IP address and a port, like \"0.0.0.0:8080\" or \"[::1]:8080\", or \":8080\" for all addresses";
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Some(format!("for all IPv4 addresses write \":{text}\"")));
        }
        let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
        whole.parse().map(Self).map_err(|_| Some(help.to_owned()))
    }
}

/// An address to listen on, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

impl FromText for AdminAddress {
    fn what() -> String {
        "an address to listen on or \"off\"".to_owned()
    }

    const EXAMPLE: &'static str = "127.0.0.1:9180";
    const PATTERN: &'static str = r"^(off|.*:[0-9]+)$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if text == "off" {
            return Ok(Self(None));
        }
        Address::from_text(text).map(|address| Self(Some(address.0)))
    }
}

/// A network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromText for Network {
    fn what() -> String {
        "a network or an address".to_owned()
    }

    const EXAMPLE: &'static str = "10.0.0.0/8";
    const PATTERN: &'static str = r"^[0-9a-fA-F.:]+(/[0-9]+)?$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = || Some("write it like \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned());
        match text.parse::<std::net::IpAddr>() {
            Ok(address) => Ok(Self(address.into())),
            Err(_) => text.parse::<IpNet>().map(|net| Self(net.trunc())).map_err(|_| help()),
        }
    }
}

/// Where Redis is; `None`: nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(pub Option<String>);

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "RedisUrl(***)" } else { "RedisUrl(none)" })
    }
}

impl FromText for RedisUrl {
    fn what() -> String {
        "the address of a Redis".to_owned()
    }

    const EXAMPLE: &'static str = "redis://127.0.0.1:6379";
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        match Parsed::parse(text) {
            Ok(_) => Ok(Self(Some(text.to_owned()))),
            Err(wrong) => Err(Some(wrong.to_string())),
        }
    }
}

/// The address of an instance: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(pub String);

impl FromText for HostPort {
    fn what() -> String {
        "the address of an instance".to_owned()
    }

    const EXAMPLE: &'static str = "127.0.0.1:8001";
    const PATTERN: &'static str = r"^[^/]+:[0-9]+$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if text.contains("://") {
            return Err(Some("write the host and the port alone, without scheme and path".to_owned()));
        }
        match split_port(text) {
            Ok((host, Some(_))) if is_host(host) => Ok(Self(text.to_owned())),
            Ok((host, None)) if is_host(host) => Err(Some(format!("add the port: \"{text}:8000\""))),
            _ => Err(Some(
                "write a host and a port, like \"127.0.0.1:8001\", \"api-1:8000\" or \"[::1]:8001\"".into(),
            )),
        }
    }
}

impl FromText for HostRule {
    fn what() -> String {
        "a value for Host".to_owned()
    }

    const EXAMPLE: &'static str = "api.example.com";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        match text {
            "client" => Ok(Self::Client),
            "instance" => Ok(Self::Instance),
            _ if split_port(text).is_ok_and(|(host, _)| is_host(host)) => Ok(Self::Fixed(text.to_owned())),
            _ => Err(Some(
                "write \"client\", \"instance\" or a host name, like \"api.example.com\"".to_owned(),
            )),
        }
    }
}

/// A host with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromText for HostName {
    fn what() -> String {
        "a host name".to_owned()
    }

    const EXAMPLE: &'static str = "api.example.com";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        match split_port(text) {
            Ok((host, _)) if is_host(host) => Ok(Self(text.to_owned())),
            _ => Err(None),
        }
    }
}

/// Splits `host[:port]`; an IPv6 address stands in brackets, which are removed.
fn split_port(text: &str) -> Result<(&str, Option<u16>), ()> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(())?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| ())?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(())?) };
            (host, port)
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    // `parse` alone would take a sign: "+80".
    let digits = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let port = port.map(str::parse).transpose().map_err(|_| ())?;
    if digits && port != Some(0) { Ok((host, port)) } else { Err(()) }
}

fn is_host(host: &str) -> bool {
    host.parse::<std::net::Ipv6Addr>().is_ok()
        || (!host.is_empty() && host.bytes().all(is_name_byte) && !host.starts_with(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads<T: FromText>(text: &str) -> bool {
        T::from_text(text).is_ok()
    }

    #[test]
    fn an_instance_has_a_host_and_a_port() {
        for right in ["127.0.0.1:8001", "api-1:80", "api_1.svc.local:65535", "[::1]:8001"] {
            assert!(reads::<HostPort>(right), "{right}");
        }
        for wrong in [
            "",
            "api",
            ":80",
            "api:",
            "api:0",
            "api:+80",
            "api:65536",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[api]:80",
            "-a:80",
            "a b:80",
            "http://api:80",
            "api:80/",
        ] {
            assert!(!reads::<HostPort>(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_redis_is_named_by_scheme_host_and_database() {
        for right in [
            "",
            "redis://h",
            "redis://h:6379/3",
            "redis://:p@h",
            "redis://u:p%40@h:1",
            "redis://[::1]:6379",
            "redis://h?protocol=resp3",
            "redis+unix:///run/redis.sock",
            "rediss://h",
            "redis+sentinel://a,b/main",
            "rediss+cluster://a,b",
        ] {
            assert!(reads::<RedisUrl>(right), "{right}");
        }
        for wrong in [
            "h:6379",
            "redis:h",
            "redis://",
            "redis://:6379",
            "redis://h:x",
            "redis://h/x",
            "http://h",
            "redis+unix://run/redis.sock",
        ] {
            assert!(!reads::<RedisUrl>(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_listens_on_all_ipv4_addresses() {
        let address = |text| Address::from_text(text).map(|a| a.0.to_string());
        assert_eq!(address(":8080"), Ok("0.0.0.0:8080".to_owned()));
        assert_eq!(address("[::1]:1"), Ok("[::1]:1".to_owned()));
        for wrong in ["", ":", "8080", "localhost:80", "::1:80", ":65536"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_is_cut_to_its_prefix_and_an_address_is_a_network_of_one() {
        for (text, expected) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("2001:db8::1", "2001:db8::1/128")]
        {
            assert_eq!(Network::from_text(text).map(|n| n.0.to_string()), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn the_debug_text_of_a_redis_address_does_not_hold_it() {
        let shown = RedisUrl::from_text("redis://:s3cret@h").map(|url| format!("{url:?}"));
        assert_eq!(shown, Ok("RedisUrl(***)".to_owned()));
    }
}
