//! The target of a request: its form, its bytes, and the one spelling of its path.

use std::borrow::Cow;

use http::Method;

use super::request::Refusal;

/// A target, taken apart (RFC 9112 §3.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// The authority of an absolute-form target, as received, and the default port of its scheme.
    pub(super) authority: Option<(&'a str, u16)>,
    /// The normalised path; `*` for a request about the server as a whole.
    pub(super) path: Cow<'a, str>,
    /// The query without its `?`, as received but for `"`, `<` and `>`, which no URI may hold and not every reader takes: they are escaped.
    pub(super) query: Option<Cow<'a, str>>,
}

impl<'a> Target<'a> {
    /// Reads a target in origin-form, in absolute-form of http or https, or `*` for OPTIONS. The fourth form is CONNECT's alone.
    pub(super) fn parse(target: &'a [u8], method: &Method) -> Result<Self, Refusal> {
        let target = visible(target)?;
        if target == "*" && method == Method::OPTIONS {
            return Ok(Self { authority: None, path: Cow::Borrowed("*"), query: None });
        }
        let (authority, local) = match absolute(target) {
            Some((authority, port, local)) => (Some((authority, port)), local),
            None => (None, target),
        };
        let (path, query) = match local.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (local, None),
        };
        let path = match path {
            // RFC 9112 §3.2.4: an OPTIONS request without path and query is about the server as a whole.
            "" if authority.is_some() && query.is_none() && method == Method::OPTIONS => Cow::Borrowed("*"),
            // RFC 9112 §3.2.1: an empty path is sent as "/".
            "" if authority.is_some() => Cow::Borrowed("/"),
            path => normalised(path)?,
        };
        Ok(Self { authority, path, query: query.map(valid_query) })
    }
}

/// A query as received, with the three visible characters that no URI may hold escaped.
fn valid_query(query: &str) -> Cow<'_, str> {
    if !query.contains(['"', '<', '>']) {
        return Cow::Borrowed(query);
    }
    Cow::Owned(query.replace('"', "%22").replace('<', "%3C").replace('>', "%3E"))
}

/// The target as text, when all of it is visible ASCII and it has no fragment, which no client may send (RFC 9110 §7.1). Spaces, controls
/// and bytes outside ASCII end the target for one reader and not for the next.
fn visible(target: &[u8]) -> Result<&str, Refusal> {
    if target.iter().any(|b| !matches!(b, 0x21..=0x7e) || *b == b'#') {
        return Err(Refusal::Target);
    }
    std::str::from_utf8(target).map_err(|_| Refusal::Target)
}

/// Takes `http://` or `https://` and an authority off the front: the authority, the scheme's port, and the rest.
fn absolute(target: &str) -> Option<(&str, u16, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let port = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => 80,
        _ if scheme.eq_ignore_ascii_case("https") => 443,
        _ => return None,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((&rest[..end], port, &rest[end..]))
}

/// The one spelling of a path; borrowed when it is spelled so already.
///
/// - Escaped unreserved characters are unescaped, the hex digits of other escapes are upper case (RFC 3986 §6.2.2.1 and §6.2.2.2).
/// - `.` and `..` are resolved (§5.2.4); above the root they are refused, since some reader would leave the tree there.
/// - Characters that no URI may hold but some clients send raw (`"<>[]^{|}` and the backquote) are escaped: what reaches an instance is
///   valid, and both spellings are one in routes and keys.
/// - `%2F` is no separator and stays; `//` stays. A `..` that becomes a segment only for readers who take `%2F` or `%5C` for a separator, or
///   cut a segment at `;`, is refused: it walks past the route that guards what it leads to.
/// - `%00`, broken escapes and `\` (a separator for some readers) are refused.
fn normalised(path: &str) -> Result<Cow<'_, str>, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::Target);
    }
    let mut spelled = respelled(path)?;
    if spelled.split('/').any(|segment| matches!(segment, "." | "..")) {
        spelled = Cow::Owned(resolved(&spelled)?);
    }
    if hides_a_parent(&spelled) { Err(Refusal::Target) } else { Ok(spelled) }
}

/// Every character and escape in its one spelling.
fn respelled(path: &str) -> Result<Cow<'_, str>, Refusal> {
    let plain = |b: u8| !matches!(b, b'%' | b'\\') && !stray(b);
    let Some(start) = path.bytes().position(|b| !plain(b)) else {
        return Ok(Cow::Borrowed(path));
    };
    let mut out = path[..start].to_owned();
    let mut rest = &path[start..];
    while let Some(&byte) = rest.as_bytes().first() {
        let (length, byte, as_is) = match byte {
            b'\\' => return Err(Refusal::Target),
            b'%' => escaped(rest).map(|byte| (3, byte, unreserved(byte)))?,
            byte => (1, byte, !stray(byte)),
        };
        if as_is {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(upper_hex));
        }
        rest = &rest[length..];
    }
    Ok(if out == path { Cow::Borrowed(path) } else { Cow::Owned(out) })
}

/// Visible characters that no URI may hold (RFC 3986 §3.3) but some clients send raw.
fn stray(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}')
}

fn upper_hex(nibble: u8) -> char {
    char::from(if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 })
}

/// The byte that the escape at the start of `text` stands for; NUL ends a path for readers written in C and is refused.
fn escaped(text: &str) -> Result<u8, Refusal> {
    let digits = text.get(1..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.filter(|&byte| byte != 0).ok_or(Refusal::Target)
}

/// RFC 3986 §2.3.
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Dot segments removed (RFC 3986 §5.2.4).
fn resolved(path: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = matches!(segment, "." | "..");
        if segment == ".." {
            out.truncate(out.rfind('/').ok_or(Refusal::Target)?);
        }
        if !dots {
            out.push('/');
            out.push_str(segment);
        } else if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

/// Whether some reader finds a `..` segment where we find none.
fn hides_a_parent(path: &str) -> bool {
    let opens = |before: &str| ["/", "%2F", "%5C"].iter().any(|border| before.ends_with(border));
    let closes = |after: &str| {
        after.is_empty() || ["/", ";", "%2F", "%5C"].iter().any(|border| after.starts_with(border))
    };
    path.match_indices("..").any(|(at, dots)| opens(&path[..at]) && closes(&path[at + dots.len()..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(target: &str) -> Result<String, Refusal> {
        Target::parse(target.as_bytes(), &Method::GET).map(|target| target.path.into_owned())
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (received, spelled) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            // RFC 3986 §6.2.2.2: escaped unreserved characters are unescaped.
            ("/%61%7E%2D%2e%5F%30", "/a~-._0"),
            // §6.2.2.1: hex digits are upper case.
            ("/%c3%a9", "/%C3%A9"),
            // §2.2: reserved characters mean something else when escaped.
            ("/a%2fb", "/a%2Fb"),
            ("/a%3Fb%23c%25d", "/a%3Fb%23c%25d"),
            ("/%2561", "/%2561"),
            ("/a:b@c!$&'()*+,;=d", "/a:b@c!$&'()*+,;=d"),
            // §5.2.4: dot segments.
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/../../c", "/c"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a//../b", "/a/b"),
            ("/.a/..b/c../d./...", "/.a/..b/c../d./..."),
            // Empty segments are segments.
            ("//", "//"),
            ("//a//b//", "//a//b//"),
            // What no URI may hold, but some clients send raw.
            ("/{a}|b^c`d\"e<f>[g]", "/%7Ba%7D%7Cb%5Ec%60d%22e%3Cf%3E%5Bg%5D"),
            ("/%7Ba%7d", "/%7Ba%7D"),
            ("/%0a%0D%01%7f", "/%0A%0D%01%7F"),
            ("/%5c", "/%5C"),
        ] {
            assert_eq!(path(received).as_deref(), Ok(spelled), "{received}");
        }
    }

    #[test]
    fn a_target_that_readers_disagree_on_is_refused() {
        for target in [
            "",
            "a",
            "a/b",
            "*",
            "?",
            "?a",
            "/a b",
            "/a\tb",
            "/a\rb",
            "/a\nb",
            "/a\0",
            "/a\u{7f}",
            "/\u{1}",
            "/é",
            "/a#b",
            "/a?b#c",
            "/a?b c",
            "/a?b\0",
            "/a?\u{7f}",
            "/a?é",
            "/a\\b",
            "/%00",
            "/a%00b",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%%41",
            "/%4%31",
            "/..",
            "/../",
            "/../a",
            "/a/../..",
            "/a/../../b",
            "/%2e%2e",
            "/./..",
            "//../..",
            "/a/..%2fb",
            "/a%2F..%2fb",
            "/a%2f..",
            "/a%5c..%5cb",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a/%2e%2e%2fb",
            "*/a",
            "*?a",
            "example.com:443",
            "example.com",
            "ftp://example.com/",
            "file:///etc",
            "://example.com/",
            "http:/example.com",
            "http:example.com",
            "http://example.com/../a",
            "http://example.com/%00",
            "http://example.com#a",
        ] {
            assert_eq!(path(target), Err(Refusal::Target), "{target:?}");
        }
        assert_eq!(Target::parse(b"/\xff", &Method::GET), Err(Refusal::Target));
    }

    #[test]
    fn a_path_in_its_spelling_is_borrowed() {
        for received in ["/", "/a/b", "/a%2Fb", "/.well-known/x..y", "//a"] {
            let target = Target::parse(received.as_bytes(), &Method::GET).unwrap();
            assert!(matches!(target.path, Cow::Borrowed(_)), "{received}");
        }
    }

    #[test]
    fn the_query_stays_as_received_but_for_what_no_uri_may_hold() {
        for (received, query) in [
            ("/a", None),
            ("/a?", Some("")),
            ("/a?b=c&d", Some("b=c&d")),
            ("/a?b?c", Some("b?c")),
            ("/a?%zz=100%&x=%00&y=../..", Some("%zz=100%&x=%00&y=../..")),
            ("/a?q={'a':[1]}|\\^`", Some("q={'a':[1]}|\\^`")),
            ("/a?q=\"<x>\"", Some("q=%22%3Cx%3E%22")),
            ("http://h?q", Some("q")),
            ("/a?http://h/x", Some("http://h/x")),
        ] {
            assert_eq!(
                Target::parse(received.as_bytes(), &Method::GET).unwrap().query.as_deref(),
                query,
                "{received}"
            );
        }
    }

    #[test]
    fn an_absolute_target_has_an_authority_and_a_local_part() {
        for (received, authority, path) in [
            ("http://example.com/a?b", Some(("example.com", 80)), "/a"),
            ("HTTPS://example.com:8443/a", Some(("example.com:8443", 443)), "/a"),
            ("http://example.com", Some(("example.com", 80)), "/"),
            ("http://example.com?q=/x", Some(("example.com", 80)), "/"),
            ("http://", Some(("", 80)), "/"),
            ("http:///a", Some(("", 80)), "/a"),
            ("http://u@h\\x/a", Some(("u@h\\x", 80)), "/a"),
            ("/http://example.com/", None, "/http://example.com/"),
        ] {
            let target = Target::parse(received.as_bytes(), &Method::GET).unwrap();
            assert_eq!((target.authority, &*target.path), (authority, path), "{received}");
        }
    }

    #[test]
    fn options_may_ask_about_the_server_as_a_whole() {
        let of = |target: &'static str| Target::parse(target.as_bytes(), &Method::OPTIONS).map(|t| t.path);
        assert_eq!(of("*").as_deref(), Ok("*"));
        assert_eq!(of("http://example.com").as_deref(), Ok("*"));
        assert_eq!(of("http://example.com/").as_deref(), Ok("/"));
        assert_eq!(of("http://example.com?q").as_deref(), Ok("/"));
        assert_eq!(of("/a").as_deref(), Ok("/a"));
        assert_eq!(of("*a"), Err(Refusal::Target));
    }

    /// What an origin might do with a path: unescape everything, take `\` for a separator, cut segments at `;`, walk the tree.
    fn climbs(path: &str) -> bool {
        let mut bytes = Vec::new();
        let mut rest = path.as_bytes();
        while let [first, tail @ ..] = rest {
            let hex = |b: &[u8]| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 16).unwrap();
            (bytes, rest) = match (first, tail) {
                (b'%', [a, b, tail @ ..]) => ([bytes, vec![hex(&[*a, *b])]].concat(), tail),
                (byte, tail) => ([bytes, vec![*byte]].concat(), tail),
            };
        }
        bytes
            .split(|b| matches!(b, b'/' | b'\\'))
            .any(|segment| segment.split(|&b| b == b';').next() == Some(b".."))
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(target in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Target::parse(&target, &Method::GET);
            let _ = Target::parse(&target, &Method::OPTIONS);
        }

        #[test]
        fn the_one_spelling_is_its_own(target in "/([./;a%]|%2[eEfF5]|%5[cC]|%41|[{\\[é]){0,12}") {
            if let Ok(once) = path(&target) {
                prop_assert_eq!(path(&once), Ok(once.clone()));
                let twice = Target::parse(once.as_bytes(), &Method::GET).unwrap();
                prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
            }
        }

        #[test]
        fn nothing_taken_leads_above_where_it_seems_to(target in "/([./;a]|\\.\\.|%2[eEfF]|%5[cC]){0,12}") {
            if let Ok(path) = path(&target) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(!climbs(&path), "{} of {}", path, target);
            }
        }

        #[test]
        fn what_is_sent_on_is_a_path_by_the_grammar(target in "/[!-~]{0,20}") {
            if let Ok(path) = path(&target) {
                let pchar = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
                prop_assert!(path.chars().all(pchar), "{}", path);
            }
        }
    }
}
