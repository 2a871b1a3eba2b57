//! The paths a rule answers for.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use super::RouteError;

/// A path pattern, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// As written.
    text: String,
    segments: Vec<Segment>,
    /// Ends in `/*`: anything may follow.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// Exactly one segment that is not empty.
    Parameter,
}

impl Path {
    /// Reads `/query`, `/assets/*` or `/users/{id}/posts`.
    pub(super) fn parse(text: &str) -> Result<Self, RouteError> {
        let wrong = |hint: String| RouteError::Path(format!("\"{text}\" is not a path: {hint}"));
        let below = text.strip_prefix('/').ok_or_else(|| wrong("it begins with \"/\"".into()))?;
        let mut written: Vec<&str> = below.split('/').collect();
        let open = written.last() == Some(&"*");
        if open {
            written.pop();
        }
        let mut names: Vec<&str> = Vec::new();
        let mut segments = Vec::with_capacity(written.len());
        for segment in written {
            match parameter(segment).map_err(&wrong)? {
                Some(name) if names.contains(&name) => {
                    return Err(wrong(format!(
                        "\"{{{name}}}\" stands there twice; give each parameter a name of its own"
                    )));
                }
                Some(name) => {
                    names.push(name);
                    segments.push(Segment::Parameter);
                }
                None => {
                    literal(segment).map_err(&wrong)?;
                    segments.push(Segment::Literal(segment.into()));
                }
            }
        }
        Ok(Self { text: text.into(), segments, open })
    }

    /// The path itself, when it stands for no other.
    pub(super) fn exact(&self) -> Option<&str> {
        let constant = !self.open && !self.segments.contains(&Segment::Parameter);
        constant.then_some(&self.text)
    }

    /// Whether `path` is one of those it stands for. `/*` stands for every path, `*` (of `OPTIONS *`) included.
    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(below) = path.strip_prefix('/') else {
            return self.open && self.segments.is_empty();
        };
        let mut rest = below.split('/');
        let fits = self.segments.iter().all(|segment| match (segment, rest.next()) {
            (Segment::Literal(literal), Some(given)) => literal == given,
            (Segment::Parameter, Some(given)) => !given.is_empty(),
            (_, None) => false,
        });
        fits && rest.next().is_some() == self.open
    }

    /// Whether both stand for the same paths, whatever their parameters are called.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.open == other.open && self.segments == other.segments
    }

    /// Which of two that match the same path comes first: an exact path, then parameters, then prefixes, the deepest first; then, from
    /// left to right, a literal segment before a parameter.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    fn rank(&self) -> (bool, bool, Reverse<usize>, Vec<bool>) {
        let parameters: Vec<bool> = self.segments.iter().map(|s| *s == Segment::Parameter).collect();
        (self.open, self.exact().is_none(), Reverse(self.segments.len()), parameters)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks that a path written by the operator is one a request can have: it is compared with the normalised path (RFC 3986 §6.2.2), so
/// that any other spelling would silently match nothing.
pub(super) fn literal(text: &str) -> Result<(), String> {
    if text == "." || text == ".." {
        return Err(
            "\".\" and \"..\" are resolved before paths are compared; write the path they lead to".into()
        );
    }
    if text.contains('*') {
        return Err("\"*\" stands at the end, after a \"/\", like \"/assets/*\"".into());
    }
    if text.contains(['{', '}']) {
        return Err("a parameter is a whole segment, like \"/users/{id}/posts\"".into());
    }
    if text.contains(['?', '#']) {
        return Err("only the path is compared; leave out the query".into());
    }
    if !text.is_ascii() {
        return Err("write characters outside ASCII percent-encoded, like \"/caf%C3%A9\"".into());
    }
    if let Some(odd) = text.chars().find(|&c| !allowed(c)) {
        return Err(format!(
            "{odd:?} cannot stand in a path; percent-encode it as \"%{:02X}\"",
            u32::from(odd)
        ));
    }
    escapes(text)
}

/// The characters a normalised path may hold, `%` and `/` among them (RFC 3986 §3.3).
fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@%/".contains(c)
}

fn escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            return Err("after \"%\" come two hex digits; a percent sign itself is \"%25\"".into());
        };
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        if byte == 0 {
            return Err("\"%00\" is refused in every request".into());
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return Err(format!("write \"%{digits}\" as \"{}\", as requests are compared", char::from(byte)));
        }
        if digits.bytes().any(|b| b.is_ascii_lowercase()) {
            let upper = digits.to_ascii_uppercase();
            return Err(format!("write \"%{digits}\" as \"%{upper}\", as requests are compared"));
        }
    }
    Ok(())
}

/// The name of a parameter, when the segment is one.
fn parameter(segment: &str) -> Result<Option<&str>, String> {
    let Some(name) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) else {
        return Ok(None);
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(word) {
        return Err("a parameter's name is made of letters, digits and \"_\", like \"{user_id}\"".into());
    }
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_these_paths_and_not_for_those() {
        for (pattern, these, those) in [
            ("/", &["/"][..], &["", "*", "//", "/a"][..]),
            ("/query", &["/query"], &["/", "/query/", "/Query", "/queryx", "/query/x", "//query"]),
            ("/users/", &["/users/"], &["/users", "/users/x"]),
            (
                "/assets/*",
                &["/assets/", "/assets/a.js", "/assets/a/b", "/assets//"],
                &["/assets", "/assetsx", "/Assets/a", "/"],
            ),
            ("/*", &["/", "/a", "/a/b", "//", "*"], &[]),
            (
                "/users/{id}",
                &["/users/7", "/users/%2F"],
                &["/users", "/users/", "/users/7/", "/users/7/posts"],
            ),
            (
                "/users/{id}/posts",
                &["/users/7/posts"],
                &["/users//posts", "/users/7/posts/", "/users/7/8/posts"],
            ),
            ("/users/{id}/*", &["/users/7/", "/users/7/a/b"], &["/users/7", "/users//a", "/users/"]),
            ("/{a}/{b}", &["/x/y"], &["/x", "/x/", "//y", "/x/y/z"]),
            ("/caf%C3%A9", &["/caf%C3%A9"], &["/cafe"]),
        ] {
            let path = Path::parse(pattern).unwrap();
            for given in these {
                assert!(path.matches(given), "{pattern} should match {given}");
            }
            for given in those {
                assert!(!path.matches(given), "{pattern} should not match {given}");
            }
        }
    }

    #[test]
    fn a_path_that_no_request_can_have_is_refused_with_what_would_be_right() {
        for (text, hint) in [
            ("", "begins with \"/\""),
            ("query", "begins with \"/\""),
            ("/assets*", "at the end, after a \"/\""),
            ("/*/a", "at the end, after a \"/\""),
            ("/a/**", "at the end, after a \"/\""),
            ("/{id}.json", "whole segment"),
            ("/{a}{b}", "letters, digits"),
            ("/{", "whole segment"),
            ("/{}", "letters, digits"),
            ("/{1}", "letters, digits"),
            ("/{a-b}", "letters, digits"),
            ("/{id}/x/{id}", "twice"),
            ("/a?b=c", "query"),
            ("/a#b", "query"),
            ("/a/../b", "resolved"),
            ("/./b", "resolved"),
            ("/café", "%C3%A9"),
            ("/a b", "%20"),
            ("/a\\b", "%5C"),
            ("/a\u{7f}", "%7F"),
            ("/a%2", "two hex digits"),
            ("/a%zz", "two hex digits"),
            ("/a%+1", "two hex digits"),
            ("/%41", "as \"A\""),
            ("/%2e", "as \".\""),
            ("/%2f", "as \"%2F\""),
            ("/%00", "refused"),
        ] {
            let error = Path::parse(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn the_narrower_pattern_comes_first() {
        let order = [
            "/users/me",
            "/users/{id}",
            "/{kind}/me",
            "/{kind}/{id}",
            "/users/me/*",
            "/users/{id}/*",
            "/{kind}/me/*",
            "/users/*",
            "/{kind}/*",
            "/*",
        ];
        let mut sorted: Vec<Path> = order.iter().rev().map(|p| Path::parse(p).unwrap()).collect();
        sorted.sort_by(Path::order);
        assert_eq!(sorted.iter().map(Path::to_string).collect::<Vec<_>>(), order);
    }

    #[test]
    fn parameter_names_make_no_difference() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("/users/{id}").same_as(&path("/users/{name}")));
        assert!(!path("/users/{id}").same_as(&path("/users/id")));
        assert!(!path("/users/{id}").same_as(&path("/users/{id}/*")));
    }
}
