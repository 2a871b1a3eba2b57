//! The key of a request: whose answer may serve it.
//!
//! Every part is length-prefixed, so that no two different requests can be spelled alike; the host is always part of it.

use std::borrow::Cow;

use http::HeaderName;
use smallvec::SmallVec;

use super::{KeyRules, QueryRule};
use crate::base::fields::{Fields, each_cookie};

/// What a key is made from. Host and path come normalised from the request guard, so that routing, key and forwarding read the same.
#[derive(Clone, Copy)]
pub struct KeyFacts<'a> {
    /// The client used https.
    pub https: bool,
    /// The normalised host.
    pub host: &'a str,
    /// The port, when it is not the scheme's own.
    pub port: Option<u16>,
    /// The normalised path.
    pub path: &'a str,
    /// The query as received.
    pub query: Option<&'a str>,
    /// The request's fields, for the headers and cookies that count.
    pub fields: &'a dyn Fields,
}

/// A key: its parts spelled out, and their hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    text: std::sync::Arc<[u8]>,
    hash: [u8; 16],
}

/// What a part of a key's text is; its first byte.
mod part {
    pub const SCHEME: u8 = b's';
    pub const HOST: u8 = b'h';
    /// Present only when the port is not the scheme's own.
    pub const PORT: u8 = b'p';
    pub const PATH: u8 = b'/';
    pub const QUERY: u8 = b'?';
    pub const HEADER: u8 = b'f';
    pub const COOKIE: u8 = b'c';
    /// Present only when the content counts.
    pub const METHOD: u8 = b'm';
    /// The BLAKE3 hash of what counts of the content.
    pub const CONTENT: u8 = b'b';
    /// A value of the header or cookie before it; none when it is absent, which differs from empty.
    pub const VALUE: u8 = b'=';
    /// Present only when several versions answer: the one that did.
    pub const VERSION: u8 = b'u';
    /// Begins the text that names a variant, so that none is ever that of a key.
    pub const VARIANT: u8 = b'v';
}

impl Key {
    /// The key of a request under the operator's rules.
    pub fn of(facts: &KeyFacts<'_>, rules: &KeyRules) -> Self {
        let mut text = Text::default();
        let (scheme, own_port) = if facts.https { ("https", 443) } else { ("http", 80) };
        text.push(part::SCHEME, scheme.as_bytes());
        text.push(part::HOST, rules.host(facts.host).as_bytes());
        if let Some(port) = facts.port.filter(|&port| port != own_port) {
            text.push(part::PORT, port.to_string().as_bytes());
        }
        text.push(part::PATH, facts.path.as_bytes());
        if let Some(query) = facts.query.and_then(|query| counted_query(query, rules)) {
            text.push(part::QUERY, query.as_bytes());
        }
        push_headers(&mut text, &rules.headers, facts.fields);
        for name in &rules.cookies {
            text.push(part::COOKIE, name.as_bytes());
            each_cookie(facts.fields, name, |value| text.push(part::VALUE, value));
        }
        let hash = first_half(blake3::hash(&text.0));
        Self { text: text.0.as_slice().into(), hash }
    }

    /// The key of a request whose method and content count, too: `content` is what counts of it
    /// ([`super::content::ContentKey::canonical`]), `headers` are the fields that count beside those of the cache.
    pub fn with_content(
        &self,
        method: &str,
        content: &[u8],
        headers: &[HeaderName],
        fields: &dyn Fields,
    ) -> Self {
        let mut text = Text(SmallVec::from_slice(&self.text));
        text.push(part::METHOD, method.as_bytes());
        push_headers(&mut text, headers, fields);
        text.push(part::CONTENT, blake3::hash(content).as_bytes());
        let hash = first_half(blake3::hash(&text.0));
        Self { text: text.0.as_slice().into(), hash }
    }

    /// The key of the same request when another version answers it. To be made last of all.
    #[must_use]
    pub fn of_version(&self, version: &str) -> Self {
        let mut text = Text(SmallVec::from_slice(&self.text));
        text.push(part::VERSION, version.as_bytes());
        let hash = first_half(blake3::hash(&text.0));
        Self { text: text.0.as_slice().into(), hash }
    }

    /// The parts spelled out, length-prefixed: compared with the stored ones, so that a collision of hashes never serves another's answer.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The parts for keeping in a record.
    pub fn shared_text(&self) -> std::sync::Arc<[u8]> {
        self.text.clone()
    }

    /// The first 128 bits of the BLAKE3 hash of the text.
    pub fn hash(&self) -> [u8; 16] {
        self.hash
    }

    /// The hash of a variant of this key.
    pub fn variant(&self, variant: &super::vary::Variant) -> [u8; 16] {
        let mut text = Text::default();
        text.push(part::VARIANT, &self.hash);
        for value in &variant.0 {
            text.push(part::HEADER, b"");
            if let Some(value) = value {
                text.push(part::VALUE, value);
            }
        }
        first_half(blake3::hash(&text.0))
    }
}

/// An absent field differs from an empty one.
fn push_headers(text: &mut Text, names: &[HeaderName], fields: &dyn Fields) {
    for name in names {
        text.push(part::HEADER, name.as_str().as_bytes());
        if let Some(value) = fields.joined(name.as_str()) {
            text.push(part::VALUE, &value);
        }
    }
}

impl std::fmt::Debug for Key {
    /// Readable: `https example.com:443 /path ?query header x-tenant=a`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut own_port = "";
        let mut port_due = false;
        for (kind, value) in parts(&self.text) {
            if kind == part::PATH && port_due {
                write!(f, ":{own_port}")?;
            }
            let raw = value;
            let value = String::from_utf8_lossy(value);
            match kind {
                part::SCHEME => {
                    own_port = if value == "https" { "443" } else { "80" };
                    port_due = true;
                    write!(f, "{value}")?;
                }
                part::PORT => {
                    port_due = false;
                    write!(f, ":{value}")?;
                }
                part::HOST | part::PATH => write!(f, " {value}")?,
                part::QUERY => write!(f, " ?{value}")?,
                part::HEADER => write!(f, " header {value}")?,
                part::COOKIE => write!(f, " cookie {value}")?,
                part::METHOD => write!(f, " {value}")?,
                part::VERSION => write!(f, " version {value}")?,
                part::CONTENT => {
                    write!(f, " content ")?;
                    raw.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                }
                _ => write!(f, "={value}")?,
            }
        }
        Ok(())
    }
}

/// A text under construction: for each part its kind, its length in four bytes, and its bytes.
#[derive(Default)]
struct Text(SmallVec<[u8; 256]>);

impl Text {
    fn push(&mut self, kind: u8, value: &[u8]) {
        // A request head is limited to far less than 4 GiB; were it not, the bytes themselves would still be there.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.push(kind);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
    }
}

/// The parts of a text.
fn parts(mut text: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&kind, rest) = text.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        text = rest;
        Some((kind, value))
    })
}

fn first_half(hash: blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

/// The part of a query that counts; `None` when nothing does.
fn counted_query<'q>(query: &'q str, rules: &KeyRules) -> Option<Cow<'q, str>> {
    let all = rules.query == QueryRule::All;
    if rules.query == QueryRule::None {
        return None;
    }
    if all && !rules.sort_query {
        return Some(query.into());
    }
    let mut counted: SmallVec<[Parameter<'q>; 16]> = query
        .split('&')
        .filter(|text| !text.is_empty())
        .map(Parameter::read)
        .filter(|parameter| parameter.counts(&rules.query))
        .collect();
    if rules.sort_query {
        // Stable, and by what the origin reads: the order of values under one name is theirs to give meaning.
        counted.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let joined = counted.iter().map(|parameter| parameter.text).collect::<Vec<_>>().join("&");
    (all || !joined.is_empty()).then_some(joined.into())
}

/// One parameter of a query.
struct Parameter<'q> {
    text: &'q str,
    /// Its name as the origin will read it.
    name: Cow<'q, [u8]>,
}

impl<'q> Parameter<'q> {
    fn read(text: &'q str) -> Self {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        Self { text, name: decoded(name.as_bytes()) }
    }

    /// Whether it counts. One that holds a `;` always does: some origins part parameters there, so that a parameter that counts could hide
    /// behind one that does not, and poison the entry.
    fn counts(&self, rule: &QueryRule) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name.as_bytes() == &*self.name);
        self.text.contains(';')
            || match rule {
                QueryRule::All => true,
                QueryRule::None => false,
                QueryRule::Only(names) => named(names),
                QueryRule::Except(names) => !named(names),
            }
    }
}

/// Percent-encoding and `+` undone, as forms are read. A broken escape stays as it is.
fn decoded(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return name.into();
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    out.into()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Where the answer under a key is on the web.
pub struct Place<'t> {
    /// Scheme, host and port, as they stand in the text.
    pub origin: &'t [u8],
    /// Host and port, as they stand in the text.
    pub authority: &'t [u8],
    /// The path.
    pub path: &'t [u8],
    /// All but the scheme, and but the fields and cookies that count, as it stands in the text.
    pub url: &'t [u8],
}

/// Reads the place from a key's text. Of a text that is none, its parts are empty.
pub fn place(text: &[u8]) -> Place<'_> {
    const HEAD: usize = 5;
    let (mut scheme, mut authority, mut path, mut at) = (0, 0, &[][..], 0);
    for (kind, value) in parts(text) {
        if matches!(kind, part::HEADER | part::COOKIE | part::VALUE | part::VERSION) {
            break;
        }
        at += HEAD + value.len();
        match kind {
            part::SCHEME => (scheme, authority) = (at, at),
            part::HOST | part::PORT => authority = at,
            part::PATH => path = value,
            _ => {}
        }
    }
    Place {
        origin: &text[..authority],
        authority: &text[scheme.min(authority)..authority],
        path,
        url: &text[scheme.min(at)..at],
    }
}

/// The URL in a key's text, and behind it, of a question, its method and the beginning of its content's hash: `https://example.com/ask?q POST 0123456789abcdef`.
pub fn url(text: &[u8]) -> String {
    let mut url = String::new();
    for (kind, value) in parts(text) {
        let shown = String::from_utf8_lossy(value);
        match kind {
            part::SCHEME => url = format!("{shown}://"),
            part::HOST | part::PATH => url.push_str(&shown),
            part::PORT => url.extend([":", &shown]),
            part::QUERY => url.extend(["?", &shown]),
            part::METHOD => url.extend([" ", &shown]),
            part::CONTENT => {
                url.push(' ');
                url.extend(value.iter().take(8).map(|byte| format!("{byte:02x}")));
            }
            _ => {}
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;
    use crate::cache::vary::Variant;
    use http::HeaderName;
    use proptest::prelude::*;

    /// A request in owned form.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Ask {
        https: bool,
        host: String,
        port: Option<u16>,
        path: String,
        query: Option<String>,
        fields: Vec<(&'static str, String)>,
    }

    fn ask() -> Ask {
        Ask {
            https: true,
            host: "example.com".into(),
            port: None,
            path: "/path".into(),
            query: None,
            fields: Vec::new(),
        }
    }

    fn key(ask: &Ask, rules: &KeyRules) -> Key {
        let pairs: Vec<_> = ask.fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let facts = KeyFacts {
            https: ask.https,
            host: &ask.host,
            port: ask.port,
            path: &ask.path,
            query: ask.query.as_deref(),
            fields: &Pairs(&pairs),
        };
        Key::of(&facts, rules)
    }

    fn with_query(query: &str, rules: &KeyRules) -> Key {
        key(&Ask { query: Some(query.into()), ..ask() }, rules)
    }

    fn with_fields(fields: &[(&'static str, &str)], rules: &KeyRules) -> Key {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        key(&Ask { fields, ..ask() }, rules)
    }

    fn rules(query: QueryRule, sort_query: bool) -> KeyRules {
        KeyRules { query, sort_query, ..KeyRules::default() }
    }

    #[test]
    fn scheme_host_port_path_and_query_all_count() {
        let base = key(&ask(), &KeyRules::default());
        for other in [
            Ask { https: false, ..ask() },
            Ask { host: "example.org".into(), ..ask() },
            Ask { port: Some(8443), ..ask() },
            Ask { path: "/Path".into(), ..ask() },
            Ask { query: Some(String::new()), ..ask() },
            Ask { query: Some("a".into()), ..ask() },
        ] {
            let key = key(&other, &KeyRules::default());
            assert_ne!(key.text(), base.text(), "{other:?}");
            assert_ne!(key.hash(), base.hash(), "{other:?}");
        }
    }

    #[test]
    fn the_schemes_own_port_and_none_are_one() {
        for (https, port) in [(true, 443), (false, 80)] {
            let named = key(&Ask { https, port: Some(port), ..ask() }, &KeyRules::default());
            assert_eq!(named, key(&Ask { https, ..ask() }, &KeyRules::default()));
        }
        let swapped = key(&Ask { https: true, port: Some(80), ..ask() }, &KeyRules::default());
        assert_ne!(swapped, key(&ask(), &KeyRules::default()));
    }

    #[test]
    fn only_the_query_parameters_that_count_are_in_it() {
        let only = rules(QueryRule::Only(vec!["page".into()]), false);
        let except = rules(QueryRule::Except(vec!["utm_source".into()]), false);
        let none = rules(QueryRule::None, false);
        for (rule, first, second, same) in [
            (&none, "a=1", "b=2", true),
            (&only, "page=1&x=2", "y=3&page=1", true),
            (&only, "page=1", "page=2", false),
            (&only, "page=1&page=2", "page=2&page=1", false),
            (&only, "p%61ge=1", "x=1", false),
            (&only, "x=1", "&&", true),
            (&except, "a=1&utm_source=x", "a=1", true),
            (&except, "a=1&utm%5fsource=x", "a=1", true),
            (&except, "a=1&utm_source", "a=1", true),
            (&except, "a=1&UTM_SOURCE=x", "a=1", false),
            (&except, "a=1&utm_source=x;page=2", "a=1", false),
            (&only, "x=1;page=2", "x=1", false),
        ] {
            let (a, b) = (with_query(first, rule), with_query(second, rule));
            assert_eq!(a == b, same, "{first} {second}");
        }
        assert_eq!(with_query("x=1", &only), key(&ask(), &only), "nothing that counts is as no query");
    }

    #[test]
    fn a_sorted_query_forgets_the_order_of_names_but_not_of_one_names_values() {
        let sorted = rules(QueryRule::All, true);
        for (first, second, same) in [
            ("a=1&b=2", "b=2&a=1", true),
            ("a=1&b=2", "a=1&b=3", false),
            ("a=1&a=2", "a=2&a=1", false),
            ("a=1&%61=2", "%61=2&a=1", false),
            ("b=2&a=1&b=1", "a=1&b=2&b=1", true),
            ("a=1&&b=2", "b=2&a=1", true),
        ] {
            assert_eq!(with_query(first, &sorted) == with_query(second, &sorted), same, "{first} {second}");
        }
        assert_ne!(with_query("a=1&b=2", &KeyRules::default()), with_query("b=2&a=1", &KeyRules::default()));
    }

    #[test]
    fn chosen_headers_count_and_absent_differs_from_empty() {
        let rules = KeyRules {
            headers: vec![HeaderName::from_static("x-tenant"), HeaderName::from_static("x-b")],
            ..KeyRules::default()
        };
        let of = |fields: &[(&'static str, &str)]| with_fields(fields, &rules);
        assert_ne!(of(&[]), of(&[("x-tenant", "")]));
        assert_ne!(of(&[("x-tenant", "a")]), of(&[("x-tenant", "b")]));
        assert_ne!(of(&[("x-tenant", "a")]), of(&[("x-b", "a")]));
        assert_eq!(of(&[("X-Tenant", "a"), ("x-tenant", "b")]), of(&[("x-tenant", "a, b")]));
        assert_eq!(of(&[("x-other", "a")]), of(&[]));
    }

    #[test]
    fn chosen_cookies_count_wherever_they_stand() {
        let rules = KeyRules { cookies: vec!["lang".into()], ..KeyRules::default() };
        let of = |fields: &[(&'static str, &str)]| with_fields(fields, &rules);
        assert_eq!(of(&[("cookie", "sid=1; lang=de")]), of(&[("cookie", "lang=de"), ("cookie", "sid=2")]));
        assert_ne!(of(&[("cookie", "lang=de")]), of(&[("cookie", "lang=en")]));
        assert_ne!(of(&[("cookie", "lang=")]), of(&[]));
        assert_eq!(of(&[("cookie", "xlang=de; langx=de")]), of(&[]));
        assert_ne!(of(&[("cookie", "lang=de; lang=en")]), of(&[("cookie", "lang=en; lang=de")]));
    }

    #[test]
    fn a_key_reads_like_the_request() {
        let rules = KeyRules {
            headers: vec![HeaderName::from_static("x-tenant"), HeaderName::from_static("x-b")],
            cookies: vec!["lang".into()],
            ..KeyRules::default()
        };
        let asked = Ask {
            query: Some("q=1".into()),
            fields: vec![("x-tenant", "a".into()), ("cookie", "lang=de".into())],
            ..ask()
        };
        let shown = format!("{:?}", key(&asked, &rules));
        assert_eq!(shown, "https example.com:443 /path ?q=1 header x-tenant=a header x-b cookie lang=de");
        let plain = Ask { https: false, port: Some(8080), ..ask() };
        assert_eq!(format!("{:?}", key(&plain, &KeyRules::default())), "http example.com:8080 /path");
    }

    #[test]
    fn variants_of_a_key_have_names_of_their_own() {
        let base = key(&ask(), &KeyRules::default());
        let other = key(&Ask { path: "/x".into(), ..ask() }, &KeyRules::default());
        let value = |text: &str| Some(Box::from(text.as_bytes()));
        let hashes = [
            base.hash(),
            base.variant(&Variant(vec![])),
            base.variant(&Variant(vec![None])),
            base.variant(&Variant(vec![value("")])),
            base.variant(&Variant(vec![value("a")])),
            base.variant(&Variant(vec![None, value("a")])),
            base.variant(&Variant(vec![value("a"), None])),
            base.variant(&Variant(vec![value("ab"), value("c")])),
            base.variant(&Variant(vec![value("a"), value("bc")])),
            other.variant(&Variant(vec![value("a")])),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash), "{at}");
        }
    }

    fn any_ask() -> impl Strategy<Value = Ask> {
        let text = "[ab=&/:?\\x00-\\x03]{0,4}";
        let fields =
            proptest::collection::vec((prop_oneof![Just("x-a"), Just("x-b"), Just("x-c")], text), 0..3);
        (any::<bool>(), text, proptest::option::of(80u16..83), text, proptest::option::of(text), fields)
            .prop_map(|(https, host, port, path, query, fields)| Ask {
                https,
                host,
                port,
                path,
                query,
                fields,
            })
    }

    /// What must tell two requests apart under the rules of the property below.
    fn essence(ask: &Ask) -> impl PartialEq + std::fmt::Debug + use<> {
        let joined = |name: &str| {
            let lines: Vec<_> =
                ask.fields.iter().filter(|field| field.0 == name).map(|field| &*field.1).collect();
            (!lines.is_empty()).then(|| lines.join(", "))
        };
        let port = ask.port.filter(|&port| port != if ask.https { 443 } else { 80 });
        (ask.https, ask.host.clone(), port, ask.path.clone(), ask.query.clone(), joined("x-a"), joined("x-b"))
    }

    proptest! {
        #[test]
        fn two_different_requests_never_have_the_same_text(a in any_ask(), b in any_ask()) {
            let rules = KeyRules {
                headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
                ..KeyRules::default()
            };
            prop_assert_eq!(key(&a, &rules) == key(&b, &rules), essence(&a) == essence(&b));
        }

        #[test]
        fn moving_bytes_between_parts_changes_the_text(text in "[a-c/?=&]{2,12}", cut in 0usize..12, other in 0usize..12) {
            let at = |cut: usize| {
                let (host, path) = text.split_at(cut.min(text.len()));
                key(&Ask { host: host.into(), path: path.into(), ..ask() }, &KeyRules::default())
            };
            let same = cut.min(text.len()) == other.min(text.len());
            prop_assert_eq!(at(cut) == at(other), same);
        }

        #[test]
        fn the_parts_of_a_text_are_what_it_was_made_from(ask in any_ask()) {
            let key = key(&ask, &KeyRules::default());
            let read: usize = parts(key.text()).map(|(_, value)| value.len() + 5).sum();
            prop_assert_eq!(read, key.text().len());
        }
    }
}
