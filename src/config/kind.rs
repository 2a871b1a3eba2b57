//! The types of keys: durations, sizes, addresses, words, lists, tables by name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::problem::{Problem, Spot};
use super::read::{FromText, Node, Reader, Setting, Shape, words};
use super::suggest::nearest;
use crate::balance::Method as Balance;
use crate::base::unit::{ByteSize, parse_duration, parse_size, show_duration};
use crate::cache::{ClientDirectives, QueryRule, SetCookie, TtlMode};
use crate::forward::HostRule;
use crate::plan::{AccessLog, LogFormat};

/// A duration of at least `MIN` milliseconds. At most ten years, so that adding it to a moment never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN: u64>(pub Duration);

/// A duration that may be zero.
pub type AnyTime = Time<0>;
/// A duration of at least a millisecond: a zero would fail every request.
pub type Timeout = Time<1>;

const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

impl<const MIN: u64> FromText for Time<MIN> {
    fn what() -> String {
        "a duration".to_owned()
    }

    const EXAMPLE: &'static str = "30s";
    const PATTERN: &'static str = r"^\s*([0-9]+\s*(ms|s|min|m|h|d)\s*)+$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = "write numbers and units (ms, s, m, h, d), like \"50ms\", \"30s\" or \"1h 30m\"";
        let duration = parse_duration(text).map_err(|_| Some(help.to_owned()))?;
        let least = Duration::from_millis(MIN);
        if duration < least {
            return Err(Some(format!("write at least \"{}\"", show_duration(least))));
        }
        if duration > LONGEST {
            return Err(Some(format!("write at most \"{}\"", show_duration(LONGEST))));
        }
        Ok(Self(duration))
    }
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub ByteSize);

/// A number of bytes that may be zero.
pub type AnySize = Size<0, { u64::MAX }>;

impl<const MIN: u64, const MAX: u64> FromText for Size<MIN, MAX> {
    fn what() -> String {
        match (MIN, MAX) {
            (0, u64::MAX) => "a size".to_owned(),
            (_, u64::MAX) => format!("a size of at least {}", ByteSize(MIN)),
            _ => format!("a size from {} to {}", ByteSize(MIN), ByteSize(MAX)),
        }
    }

    const EXAMPLE: &'static str = "64KiB";
    const PATTERN: &'static str = r"^\s*[0-9]+\s*([kKmMgG][iI]?|[tT][iI])?[bB]\s*$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = "write a number and a unit (B, KiB, MiB, GiB), like \"64KiB\" or \"256MiB\"";
        let size = parse_size(text).map_err(|_| Some(help.to_owned()))?;
        if (MIN..=MAX).contains(&size.0) { Ok(Self(size)) } else { Err(Some(help.to_owned())) }
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number as the plan has it; `MAX` must fit.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as an index.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number as a status.
    pub fn as_u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Setting for Count<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.number(node, MIN, MAX).map(Self)
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": MIN, "maximum": MAX },
            { "type": "string", "pattern": "\\$\\{" },
        ] })
    }
}

impl Setting for bool {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.truth(node)
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": "\\$\\{" }] })
    }
}

/// How many worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// As many as there are cores.
    Auto,
    /// So many.
    Fixed(usize),
}

impl Setting for Threads {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(word) if word == "auto" => Some(Self::Auto),
            DeValue::String(text) if !text.contains("${") => {
                reader.report(
                    Problem::of(&node.spot, "expected a whole number from 1 to 1024, found text")
                        .help("write a number without quotes, or \"auto\" for as many as there are cores"),
                );
                None
            }
            _ => Count::<1, 1024>::read(node, reader).map(|count| Self::Fixed(count.as_usize())),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "auto" }, Count::<1, 1024>::schema()] })
    }
}

words! { Balance, "a way to balance",
    "round_robin" => Self::RoundRobin,
    "least_conn" => Self::LeastConn,
    "ip_hash" => Self::IpHash,
    "random" => Self::Random,
}

words! { TtlMode, "a meaning of ttl",
    "default" => Self::Default,
    "override" => Self::Override,
    "cap" => Self::Cap,
}

words! { SetCookie, "a way to treat Set-Cookie",
    "refuse" => Self::Refuse,
    "strip" => Self::Strip,
    "store" => Self::Store,
}

words! { ClientDirectives, "a way to treat the client's directives",
    "honour" => Self::Honour,
    "ignore" => Self::Ignore,
}

words! { LogFormat, "a log format",
    "text" => Self::Text,
    "json" => Self::Json,
}

/// What a health check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckType {
    /// A GET is answered as expected.
    Http,
    /// A connection is accepted.
    Tcp,
}

words! { CheckType, "a type of health check",
    "http" => Self::Http,
    "tcp" => Self::Tcp,
}

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

/// A name that may stand in `Via` and `Cache-Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym(pub String);

impl FromText for Pseudonym {
    fn what() -> String {
        "a name for `Via`".to_owned()
    }

    const EXAMPLE: &'static str = "vanne";
    const PATTERN: &'static str = r"^[A-Za-z][A-Za-z0-9._-]*$";

    /// Both a token of `Via` (RFC 9110 §7.6.3) and one of structured fields (RFC 8941 §3.3.4).
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(is_name_byte);
        right.then(|| Self(text.to_owned())).ok_or_else(|| {
            Some("use letters, digits, `.`, `-` and `_`, a letter first, like \"vanne\"".to_owned())
        })
    }
}

/// Which messages are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(pub String);

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl FromText for Level {
    fn what() -> String {
        "a log level".to_owned()
    }

    const EXAMPLE: &'static str = "info";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        for part in text.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                let known = LEVELS.join(", ");
                return Err(Some(match nearest(level, LEVELS) {
                    Some(near) => format!("did you mean \"{near}\"? known: {known}"),
                    None => format!("known: {known}; by part of the program: \"warn,vanne=debug\""),
                }));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromText for AccessLog {
    fn what() -> String {
        "a place for the access log".to_owned()
    }

    const EXAMPLE: &'static str = "stdout";
    const PATTERN: &'static str = r"^(stdout|off|.*/.*)$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            // A word without a slash is more likely a slip than a file in the working directory.
            path if path.contains('/') => Ok(Self::File(PathBuf::from(path))),
            _ => Err(Some("write \"stdout\", \"off\" or a path, like \"/var/log/vanne/access.log\"".to_owned())),
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
        let right = match text.split_once("://") {
            _ if text.is_empty() => return Ok(Self(None)),
            Some(("redis", rest)) => is_redis_authority(rest),
            Some(("redis+unix", path)) => path.starts_with('/'),
            Some(("rediss", _)) => {
                return Err(Some("TLS to Redis is not supported; use redis:// on a private network".to_owned()));
            }
            _ => false,
        };
        let help = "write redis://[user[:password]@]host[:port][/database] or redis+unix:///path/to/socket; \
                    a password's `@`, `/` and `:` as %40, %2F and %3A";
        right.then(|| Self(Some(text.to_owned()))).ok_or_else(|| Some(help.to_owned()))
    }
}

/// `[user[:password]@]host[:port][/database]`
fn is_redis_authority(rest: &str) -> bool {
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let database_right = database.is_empty() || database.bytes().all(|b| b.is_ascii_digit());
    database_right && split_port(host).is_ok_and(|(host, _)| is_host(host))
}

/// What the keys in Redis begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(pub String);

impl FromText for Prefix {
    fn what() -> String {
        "a prefix for keys".to_owned()
    }

    const EXAMPLE: &'static str = "vanne";
    const PATTERN: &'static str = r"^[A-Za-z0-9._:-]+$";

    /// Without braces: Redis Cluster would take them for a hash tag and put every key on one node.
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = !text.is_empty() && text.bytes().all(|b| is_name_byte(b) || b == b':');
        right
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| Some("use letters, digits, `.`, `-`, `_` and `:`, like \"vanne\"".to_owned()))
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
        if let Some((_, rest)) = text.split_once("://") {
            let bare = rest.split('/').next().unwrap_or(rest);
            return Err(Some(format!("write a host and a port alone: \"{bare}\"")));
        }
        match split_port(text) {
            Ok((host, Some(_))) if is_host(host) => Ok(Self(text.to_owned())),
            Ok((host, None)) if is_host(host) => Err(Some(format!("add the port: \"{text}:8000\""))),
            _ => Err(Some("write a host and a port, like \"127.0.0.1:8001\", \"api-1:8000\" or \"[::1]:8001\"".into())),
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
            _ => Err(Some("write \"client\", \"instance\" or a host name, like \"api.example.com\"".to_owned())),
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

/// A path and perhaps a query: it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub String);

impl FromText for Path {
    fn what() -> String {
        "a path".to_owned()
    }

    const EXAMPLE: &'static str = "/ready";
    const PATTERN: &'static str = "^/";

    /// Printable ASCII alone: anything else could not be sent in a request line (RFC 9112 §3.2).
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if !text.starts_with('/') {
            return Err(Some(format!("a path begins with `/`: \"/{text}\"")));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(Some("write spaces and other characters percent-encoded, like \"/a%20b\"".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromText for HeaderName {
    fn what() -> String {
        "the name of a header field".to_owned()
    }

    const EXAMPLE: &'static str = "X-Tenant";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|_| None)
    }
}

/// The name of a cookie: a token (RFC 6265 §4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(pub String);

impl FromText for CookieName {
    fn what() -> String {
        "the name of a cookie".to_owned()
    }

    const EXAMPLE: &'static str = "session";

    /// A field name is a token, too.
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        HeaderName::try_from(text).map(|_| Self(text.to_owned())).map_err(|_| None)
    }
}

/// A name for metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(pub String);

impl FromText for Label {
    fn what() -> String {
        "a name".to_owned()
    }

    const EXAMPLE: &'static str = "search";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = !text.trim().is_empty() && !text.chars().any(char::is_control);
        right.then(|| Self(text.to_owned())).ok_or(None)
    }
}

/// Any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl FromText for Text {
    fn what() -> String {
        "text".to_owned()
    }

    const EXAMPLE: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        Ok(Self(text.to_owned()))
    }

    fn text_schema() -> Json {
        json!({ "type": "string" })
    }
}

/// A status or an inclusive range of them, from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses<const MIN: u16, const MAX: u16>(pub u16, pub u16);

impl<const MIN: u16, const MAX: u16> Statuses<MIN, MAX> {
    fn parse(text: &str) -> Option<Self> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (MIN <= low && low <= high && high <= MAX).then_some(Self(low, high))
    }

    /// What is wrong with a text that is none.
    pub fn problem(spot: &Spot, shown: &str) -> Problem {
        Problem::of(spot, format!("{shown} is not a status or a range of statuses from {MIN} to {MAX}"))
            .help("write it like \"200\" or \"200-399\"")
    }

    /// Reads a key of a table.
    pub fn from_key(key: &str, spot: &Spot, reader: &mut Reader<'_>) -> Option<Self> {
        let statuses = Self::parse(key);
        if statuses.is_none() {
            reader.report(Self::problem(spot, &format!("`{key}`")));
        }
        statuses
    }
}

impl<const MIN: u16, const MAX: u16> Setting for Statuses<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.value.is_integer() {
            let status = reader.number(node, MIN.into(), MAX.into())?;
            return u16::try_from(status).ok().map(|status| Self(status, status));
        }
        let written = reader.text(node, "a status or a range of statuses", "200 or \"200-399\"")?;
        let statuses = Self::parse(&written.text);
        if statuses.is_none() {
            reader.report(Self::problem(&node.spot, "this"));
        }
        statuses
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": MIN, "maximum": MAX },
            { "type": "string", "pattern": "^[1-9][0-9]{2}(-[1-9][0-9]{2})?$|\\$\\{" },
        ] })
    }
}

/// Values in a list; wrong ones have been reported and left out.
#[derive(Debug, Clone, Default)]
pub struct List<T> {
    /// The right ones, each with its spot.
    pub items: Vec<(Spot, T)>,
    /// Whether none was left out.
    pub complete: bool,
}

impl<T> List<T> {
    /// The values without their spots; `None` when one was wrong.
    pub fn all(&self) -> Option<impl Iterator<Item = &T>> {
        self.complete.then(|| self.items.iter().map(|(_, item)| item))
    }
}

impl<T: Setting> Setting for List<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(elements) = node.value else {
            let example = match T::shape() {
                Shape::Table(_) => format!("[[{}]]", node.spot.path),
                _ => "[ … ], in brackets".to_owned(),
            };
            reader.mismatch(node, "a list", &example);
            return None;
        };
        let mut list = Self { items: Vec::new(), complete: true };
        for (index, element) in elements.iter().enumerate() {
            let node = node.element(index, element);
            match T::read(&node, reader) {
                Some(item) => list.items.push((node.spot, item)),
                None => list.complete = false,
            }
        }
        Some(list)
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(section) => Shape::Each(section),
            _ => Shape::Value,
        }
    }
}

/// One value, or several in a list.
#[derive(Debug, Clone, Default)]
pub struct OneOrMany<T>(pub List<T>);

impl<T: Setting> Setting for OneOrMany<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.value.is_array() {
            return List::read(node, reader).map(Self);
        }
        let one = T::read(node, reader)?;
        Some(Self(List { items: vec![(node.spot.clone(), one)], complete: true }))
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// Tables by name, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Named<T> {
    /// Each name with its spot and its table.
    pub items: Vec<(Spot, String, T)>,
    /// Whether none was left out.
    pub complete: bool,
}

impl<T> Named<T> {
    /// The position of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.items.iter().position(|(_, known, _)| known == name)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|(_, name, _)| name.as_str())
    }
}

impl<T: Setting> Setting for Named<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = node.value else {
            reader.mismatch(node, "tables by name", &format!("[{}.NAME]", node.spot.path));
            return None;
        };
        let mut named = Self { items: Vec::new(), complete: true };
        for (spot, name, member) in node.members(table) {
            if !is_table_name(name) {
                reader.report(
                    Problem::at(&spot, format!("\"{}\" is not a name for a table", name.escape_debug()))
                        .help("use letters, digits, `-`, `_` and `.`: names become labels of metrics"),
                );
            }
            match T::read(&member, reader) {
                Some(item) => named.items.push((spot, name.to_owned(), item)),
                None => named.complete = false,
            }
        }
        Some(named)
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(section) => Shape::Named(section),
            _ => Shape::Value,
        }
    }
}

/// A table, or the word `off`.
#[derive(Debug, Clone)]
pub enum OrOff<T> {
    /// Off.
    Off,
    /// On, so.
    On(T),
}

impl<T: Setting> Setting for OrOff<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(word) if word == "off" => Some(Self::Off),
            DeValue::Table(_) => T::read(node, reader).map(Self::On),
            _ => {
                reader.mismatch(node, "a table or \"off\"", "{ path = \"/ready\" }");
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "off" }, T::schema()] })
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// Values by status.
#[derive(Debug, Clone, Default)]
pub struct ByStatus<T>(pub List<((u16, u16), T)>);

impl<T: Setting> Setting for ByStatus<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = node.value else {
            reader.mismatch(node, "a table of statuses", "{ \"404\" = \"10s\", \"500-599\" = \"1s\" }");
            return None;
        };
        let mut list = List { items: Vec::new(), complete: true };
        for (spot, key, member) in node.members(table) {
            let statuses = Statuses::<200, 599>::from_key(key, &spot, reader);
            let value = T::read(&member, reader);
            match (statuses, value) {
                (Some(Statuses(low, high)), Some(value)) => list.items.push((spot, ((low, high), value))),
                _ => list.complete = false,
            }
        }
        Some(Self(list))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "additionalProperties": false,
            "patternProperties": { "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$": T::schema() },
        })
    }
}

impl Setting for QueryRule {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let expected = "\"all\", \"none\", { only = [ … ] } or { except = [ … ] }";
        let wrong = |reader: &mut Reader<'_>| {
            reader.report(Problem::of(&node.spot, format!("expected {expected}")));
            None
        };
        match node.value {
            DeValue::String(word) if word == "all" => Some(Self::All),
            DeValue::String(word) if word == "none" => Some(Self::None),
            DeValue::Table(table) => {
                reader.unknown_keys(node, table, &["only", "except"]);
                let mut members = node.members(table).into_iter().filter(|m| m.1 == "only" || m.1 == "except");
                match (members.next(), members.next()) {
                    (Some((_, word, member)), None) => {
                        let names = List::<Label>::read(&member, reader)?;
                        let names = names.all()?.map(|name| name.0.clone()).collect();
                        Some(if word == "only" { Self::Only(names) } else { Self::Except(names) })
                    }
                    _ => wrong(reader),
                }
            }
            _ => wrong(reader),
        }
    }

    fn schema() -> Json {
        let names = |word: &str| {
            json!({
                "type": "object",
                "properties": { word: List::<Label>::schema() },
                "required": [word],
                "additionalProperties": false,
            })
        };
        json!({ "anyOf": [{ "enum": ["all", "none"] }, names("only"), names("except")] })
    }
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

fn is_table_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_name_byte)
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
