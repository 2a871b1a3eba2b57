//! Is the request one we take? Its authority, target and framing, judged before anything else reads them.

use std::borrow::Cow;

use http::{Method, StatusCode};

use crate::base::fields::Fields;

use super::authority::Authority;
use super::framing;
use super::target::Target;

/// The facts of a request head, as the parser left them.
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as received: origin-form, absolute-form or `*`.
    pub target: &'a [u8],
    /// HTTP/2 or later: the authority is `:authority`, there is no Transfer-Encoding.
    pub http2: bool,
    /// HTTP/1.0.
    pub http10: bool,
    /// `:authority` of HTTP/2, or that of an absolute-form target.
    pub authority: Option<&'a str>,
    /// The header fields.
    pub fields: &'a dyn Fields,
    /// How many field lines there are.
    pub field_count: usize,
    /// The size of the head in bytes: request line and fields.
    pub size: usize,
}

/// What may be taken, from the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most header fields.
    pub max_fields: usize,
    /// The largest head in bytes.
    pub max_head: usize,
    /// The largest declared body in bytes; 0 is no limit.
    pub max_body: u64,
}

/// A request that was taken, in the one form that routing, the cache key and forwarding share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The host: lower case, no port, no trailing dot, IPv6 in brackets. Empty only in HTTP/1.0 without Host.
    pub host: Cow<'a, str>,
    /// The port, when one was given.
    pub port: Option<u16>,
    /// The path: begins with `/`, percent-encoding of unreserved characters undone and hex digits in upper case (RFC 3986 §6.2.2),
    /// dot segments removed, characters outside the grammar escaped. `*` when OPTIONS asks about the server as a whole.
    pub path: Cow<'a, str>,
    /// The query without its `?`, as received but for `"`, `<` and `>`, which are escaped; `None` when there is no `?`.
    pub query: Option<Cow<'a, str>>,
}

/// Why a request was not taken: metric label, log field and error page at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No Host, several, or an empty one (RFC 9112 §3.2).
    Host,
    /// The Host differs from the target's authority, or is not a valid host and port.
    Authority,
    /// The target has none of the known forms, or holds what readers disagree on (controls, spaces, `#`, bytes outside ASCII; in the path
    /// also `\`, NUL, a broken escape, dots above the root or hidden behind an escaped slash).
    Target,
    /// Content-Length with Transfer-Encoding, several or malformed lengths, an unknown coding (RFC 9112 §6); in HTTP/2 any field about the
    /// connection (RFC 9113 §8.2.2). Close the connection: where the next request begins is not known.
    Framing,
    /// A method we do not serve: CONNECT would make us a tunnel, TRACE sends back the fields a script may not read (RFC 9110 §9.3.8).
    Method,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// The declared body is larger than allowed.
    BodyTooLarge,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
    /// Too many connections, in all or from this address.
    Crowd,
    /// Too many HTTP/2 frames that bring neither a request nor content, or a head that does not end (RFC 9113 §10.5).
    Flood,
}

impl Refusal {
    /// Every reason, so that metrics can be created before the first refusal.
    pub const ALL: [Self; 10] = [
        Self::Host,
        Self::Authority,
        Self::Target,
        Self::Framing,
        Self::Method,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::Expectation,
        Self::Crowd,
        Self::Flood,
    ];

    /// The status that says it. 405 needs an `Allow` field beside it (RFC 9110 §15.5.6).
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Authority | Self::Target | Self::Framing => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Crowd => StatusCode::SERVICE_UNAVAILABLE,
            // Never sent: the connection ends with ENHANCE_YOUR_CALM.
            Self::Flood => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Authority => "authority",
            Self::Target => "target",
            Self::Framing => "framing",
            Self::Method => "method",
            Self::HeadTooLarge => "head-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::Expectation => "expectation",
            Self::Crowd => "too-many-connections",
            Self::Flood => "flood",
        }
    }
}

/// Judges a request head: its size, framing, method, target, host, expectation and declared body, in this order.
///
/// Framing comes before all that could be answered on a connection that stays open. Field names with `_` pass here and are dropped when the
/// request is forwarded.
///
/// # Errors
/// The first reason why it is not taken.
pub fn accept<'a>(head: &Head<'a>, limits: &Limits) -> Result<Accepted<'a>, Refusal> {
    if head.size > limits.max_head || head.field_count > limits.max_fields {
        return Err(Refusal::HeadTooLarge);
    }
    let length = framing::judge(head)?;
    if *head.method == Method::CONNECT || *head.method == Method::TRACE {
        return Err(Refusal::Method);
    }
    let target = Target::parse(head.target, head.method)?;
    let (host, port) = match authority(head, &target)? {
        Some(authority) => (authority.host, authority.port),
        None => (Cow::Borrowed(""), None),
    };
    expectation(head.fields)?;
    if limits.max_body != 0 && length.is_some_and(|length| length > limits.max_body) {
        return Err(Refusal::BodyTooLarge);
    }
    Ok(Accepted { host, port, path: target.path, query: target.query })
}

/// The one authority: that of the target when it has one, which the Host must equal; else the Host. `None` in HTTP/1.0 without either.
///
/// RFC 9112 §3.2.2 lets the target win over a Host that differs; but somebody behind us may read the other one.
fn authority<'a>(head: &Head<'a>, target: &Target<'a>) -> Result<Option<Authority<'a>>, Refusal> {
    if head.http2 && target.authority.is_some() {
        return Err(Refusal::Target);
    }
    let port = target.authority.map(|(_, port)| port);
    let host = host(head)?;
    let mut agreed: Option<Authority<'a>> = None;
    for text in [target.authority.map(|(text, _)| text), head.authority, host].into_iter().flatten() {
        if text.is_empty() {
            return Err(Refusal::Host);
        }
        let authority = Authority::parse(text).ok_or(Refusal::Authority)?;
        match &agreed {
            None => agreed = Some(authority),
            Some(first) if first.same_as(&authority, port) => {}
            Some(_) => return Err(Refusal::Authority),
        }
    }
    if agreed.is_none() && !head.http10 { Err(Refusal::Host) } else { Ok(agreed) }
}

/// The Host field: exactly one in HTTP/1.1, at most one elsewhere (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host<'a>(head: &Head<'a>) -> Result<Option<&'a str>, Refusal> {
    let mut lines = 0_usize;
    let mut found: Option<&'a [u8]> = None;
    head.fields.each("host", &mut |line| {
        lines += 1;
        found = Some(line);
    });
    match found {
        None if head.http2 || head.http10 => Ok(None),
        Some(line) if lines == 1 => std::str::from_utf8(line).map(Some).map_err(|_| Refusal::Authority),
        _ => Err(Refusal::Host),
    }
}

/// `100-continue` is the one expectation there is (RFC 9110 §10.1.1).
fn expectation(fields: &dyn Fields) -> Result<(), Refusal> {
    let mut known = true;
    fields.each("expect", &mut |line| known &= line.eq_ignore_ascii_case(b"100-continue"));
    if known { Ok(()) } else { Err(Refusal::Expectation) }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::base::fields::Pairs;

    const LIMITS: Limits = Limits { max_fields: 10, max_head: 1000, max_body: 100 };

    /// A request whose parts are changed one at a time.
    struct Request<'a> {
        method: Method,
        target: &'a str,
        version: &'a str,
        authority: Option<&'a str>,
        lines: Vec<(&'a str, &'a [u8])>,
        field_count: usize,
        size: usize,
    }

    fn get<'a>(target: &'a str, hosts: &[&'a str]) -> Request<'a> {
        Request {
            method: Method::GET,
            target,
            version: "1.1",
            authority: None,
            lines: hosts.iter().map(|host| ("Host", host.as_bytes())).collect(),
            field_count: 1,
            size: 100,
        }
    }

    impl<'a> Request<'a> {
        fn with(mut self, name: &'a str, value: &'a str) -> Self {
            self.lines.push((name, value.as_bytes()));
            self
        }

        fn version(self, version: &'a str) -> Self {
            Self { version, ..self }
        }

        fn authority(self, authority: &'a str) -> Self {
            Self { authority: Some(authority), ..self }
        }

        fn judged(&self) -> Result<(String, Option<u16>, String), Refusal> {
            let fields = Pairs(&self.lines);
            let head = Head {
                method: &self.method,
                target: self.target.as_bytes(),
                http2: self.version == "2",
                http10: self.version == "1.0",
                authority: self.authority,
                fields: &fields,
                field_count: self.field_count,
                size: self.size,
            };
            accept(&head, &LIMITS).map(|taken| (taken.host.into(), taken.port, taken.path.into()))
        }
    }

    #[test]
    fn the_host_is_taken_from_the_one_place_or_from_all_that_agree() {
        for (request, host, port) in [
            (get("/", &["Example.com."]), "example.com", None),
            (get("/", &["example.com:8080"]), "example.com", Some(8080)),
            (get("http://example.com/", &["example.com"]), "example.com", None),
            (get("http://example.com/", &["EXAMPLE.com.:80"]), "example.com", None),
            (get("https://example.com:443/", &["example.com"]), "example.com", Some(443)),
            (get("/", &["example.com"]).authority("example.com"), "example.com", None),
            (get("http://example.com/", &[]).version("1.0"), "example.com", None),
            (get("/", &["example.com"]).version("1.0"), "example.com", None),
            (get("/", &[]).version("1.0"), "", None),
            (get("/", &[]).version("2").authority("example.com:444"), "example.com", Some(444)),
            (get("/", &["example.com"]).version("2").authority("example.com"), "example.com", None),
            (get("/", &["example.com"]).version("2"), "example.com", None),
        ] {
            let expected = (host.to_owned(), port, "/".to_owned());
            assert_eq!(request.judged(), Ok(expected), "{} {:?}", request.target, request.lines);
        }
    }

    #[test]
    fn a_host_that_is_missing_or_doubled_is_refused() {
        for request in [
            // RFC 9112 §3.2: 400 to any HTTP/1.1 request that lacks a Host, has several, or an invalid one.
            get("/", &[]),
            get("/", &[""]),
            get("/", &["example.com", "example.com"]),
            get("/", &["example.com", "other"]),
            get("http://example.com/", &[]),
            get("http://example.com/", &[""]),
            get("http:///", &["example.com"]),
            get("/", &["a", "b"]).version("1.0"),
            get("/", &[""]).version("1.0"),
            // RFC 9113 §8.3.1.
            get("/", &[]).version("2"),
            get("/", &[]).version("2").authority(""),
            get("/", &["a", "a"]).version("2").authority("a"),
        ] {
            assert_eq!(request.judged(), Err(Refusal::Host), "{} {:?}", request.target, request.lines);
        }
    }

    #[test]
    fn a_host_that_is_invalid_or_another_than_the_targets_is_refused() {
        for request in [
            get("/", &["user@example.com"]),
            get("/", &["a,b"]),
            get("/", &["example.com:0"]),
            get("http://example.com/", &["other"]),
            get("http://example.com:81/", &["example.com"]),
            get("http://user@example.com/", &["example.com"]),
            get("http://example.com\\@evil/", &["example.com"]),
            get("/", &["other"]).authority("example.com"),
            get("/", &["other"]).version("2").authority("example.com"),
            get("/", &[]).version("2").authority("user@example.com"),
        ] {
            assert_eq!(request.judged(), Err(Refusal::Authority), "{} {:?}", request.target, request.lines);
        }
        let mut latin = get("/", &[]);
        latin.lines.push(("host", b"ex\xe4mple.com"));
        assert_eq!(latin.judged(), Err(Refusal::Authority));
    }

    #[test]
    fn http2_has_no_absolute_form() {
        // RFC 9113 §8.3.1: `:path` begins with "/" or is "*".
        let request = get("http://example.com/", &[]).version("2").authority("example.com");
        assert_eq!(request.judged(), Err(Refusal::Target));
    }

    #[test]
    fn tunnels_and_echoes_are_not_served() {
        for method in [Method::CONNECT, Method::TRACE] {
            let request = Request { method, ..get("/", &["a"]) };
            assert_eq!(request.judged(), Err(Refusal::Method));
        }
        let connect = Request { method: Method::CONNECT, ..get("a:443", &["a:443"]) };
        assert_eq!(connect.judged(), Err(Refusal::Method));
        for method in ["DELETE", "QUERY", "PURGE", "get"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert!(Request { method, ..get("/", &["a"]) }.judged().is_ok());
        }
    }

    #[test]
    fn only_100_continue_may_be_expected() {
        for (value, taken) in [
            ("100-continue", true),
            ("100-Continue", true),
            ("", false),
            ("200-ok", false),
            ("100-continue, x", false),
            ("100-continue;a", false),
        ] {
            let judged = get("/", &["a"]).with("expect", value).judged();
            assert_eq!(judged.err(), (!taken).then_some(Refusal::Expectation), "{value}");
        }
    }

    #[test]
    fn limits_hold_to_the_last_byte() {
        let sized = |size| Request { size, ..get("/", &["a"]) }.judged().err();
        assert_eq!((sized(1000), sized(1001)), (None, Some(Refusal::HeadTooLarge)));
        let counted = |field_count| Request { field_count, ..get("/", &["a"]) }.judged().err();
        assert_eq!((counted(10), counted(11)), (None, Some(Refusal::HeadTooLarge)));
        let declared = |length| get("/", &["a"]).with("content-length", length).judged().err();
        assert_eq!((declared("100"), declared("101")), (None, Some(Refusal::BodyTooLarge)));
    }

    #[test]
    fn a_body_limit_of_zero_is_none() {
        let fields = Pairs(&[("host", b"a"), ("content-length", b"9999999999999999999")]);
        let head = Head {
            method: &Method::POST,
            target: b"/",
            http2: false,
            http10: false,
            authority: None,
            fields: &fields,
            field_count: 2,
            size: 10,
        };
        assert!(accept(&head, &Limits { max_body: 0, ..LIMITS }).is_ok());
    }

    #[test]
    fn framing_is_judged_before_what_leaves_the_connection_open() {
        let request = Request { method: Method::TRACE, ..get("/", &["a"]) };
        let request = request.with("expect", "x").with("content-length", "1, 1");
        assert_eq!(request.judged(), Err(Refusal::Framing));
    }

    #[test]
    fn each_refusal_has_its_status_and_a_word_of_its_own() {
        let said: Vec<(u16, &str)> =
            Refusal::ALL.iter().map(|refusal| (refusal.status().as_u16(), refusal.as_str())).collect();
        assert_eq!(
            said,
            [
                (400, "host"),
                (400, "authority"),
                (400, "target"),
                (400, "framing"),
                (405, "method"),
                (431, "head-too-large"),
                (413, "body-too-large"),
                (417, "expectation"),
                (503, "too-many-connections"),
                (429, "flood"),
            ]
        );
    }

    #[test]
    fn a_plain_request_borrows_everything() {
        let mut fields = HeaderMap::new();
        fields.insert("host", http::HeaderValue::from_static("example.com:80"));
        let head = Head {
            method: &Method::GET,
            target: b"/a/b?c",
            http2: false,
            http10: false,
            authority: None,
            fields: &fields,
            field_count: 1,
            size: 50,
        };
        let taken = accept(&head, &LIMITS).unwrap();
        assert!(matches!(taken.host, Cow::Borrowed("example.com")));
        assert!(matches!(taken.path, Cow::Borrowed("/a/b")));
        assert_eq!((taken.port, taken.query.as_deref()), (Some(80), Some("c")));
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(
            target in proptest::collection::vec(any::<u8>(), 0..40),
            host in proptest::collection::vec(any::<u8>(), 0..40),
            other in proptest::collection::vec(any::<u8>(), 0..20),
            authority in proptest::option::of("\\PC{0,20}"),
            name in proptest::sample::select(&["host", "content-length", "transfer-encoding", "expect", "te"][..]),
            (http2, http10) in any::<(bool, bool)>(),
        ) {
            let lines: [(&str, &[u8]); 2] = [("host", &host), (name, &other)];
            let fields = Pairs(&lines);
            let head = Head {
                method: &Method::OPTIONS,
                target: &target,
                http2,
                http10,
                authority: authority.as_deref(),
                fields: &fields,
                field_count: 2,
                size: 100,
            };
            let _ = accept(&head, &LIMITS);
        }

        #[test]
        fn a_host_that_was_taken_is_taken_again_unchanged(host in "[a-zA-Z0-9_.:\\[\\]-]{1,20}") {
            if let Ok((once, port, _)) = get("/", &[&host]).judged() {
                prop_assert_eq!(get("/", &[&once]).judged(), Ok((once.clone(), None, "/".to_owned())));
                prop_assert!(port != Some(0));
            }
        }
    }
}
