//! How long a browser may keep an answer: `Cache-Control` by rule.
//!
//! A name that holds a fingerprint of its content never stands for other content, so whoever has it need never ask again; a page must be asked for again and
//! again, for it names the fingerprints of the day (RFC 9111 §5.2.2, RFC 8246).

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

/// What is said about which answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// By name, before all else; the first that matches.
    pub patterns: Vec<(Pattern, Option<HeaderValue>)>,
    /// Of what has a fingerprint in its name.
    pub fingerprinted: Option<HeaderValue>,
    /// Of pages: `text/html`.
    pub html: Option<HeaderValue>,
    /// Of all others.
    pub others: Option<HeaderValue>,
    /// Whether it counts where the answer has a `Cache-Control` of its own.
    pub replace: bool,
}

/// A pattern of names, in which `*` stands for any characters. One with a slash is compared with the whole path, one without with the name after the last slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether a path is meant.
    pub fn matches(&self, path: &str) -> bool {
        let of = if self.0.contains('/') { path } else { name_of(path) };
        wild(self.0.as_bytes(), of.as_bytes())
    }
}

/// Compares without going back further than to the last `*`: no pattern takes long.
pub(super) fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == text[from] => (at, from) = (at + 1, from + 1),
            _ => {
                let Some((last, tried)) = star else { return false };
                star = Some((last, tried + 1));
                (at, from) = (last + 1, tried + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Rules {
    /// What is said to the browser about the answer to a request for `path`; `None`: what the answer says itself. Failures are never kept for their name: the file
    /// that is missing now may come with the next release.
    pub fn value(&self, path: &str, status: StatusCode, answer: &HeaderMap) -> Option<&HeaderValue> {
        if !matches!(status.as_u16(), 200 | 203 | 206 | 304)
            || (!self.replace && answer.contains_key(CACHE_CONTROL))
        {
            return None;
        }
        let html = answer.get(CONTENT_TYPE).is_some_and(|value| is_html(value.as_bytes()));
        let pattern = self.patterns.iter().find(|(pattern, _)| pattern.matches(path));
        match pattern {
            Some((_, value)) => value.as_ref(),
            None if html => self.html.as_ref(),
            None if is_fingerprinted(path) => self.fingerprinted.as_ref(),
            None => self.others.as_ref(),
        }
    }
}

fn is_html(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/html")
}

/// Folders into which build tools put nothing without a fingerprint.
const BUILT: [&str; 6] = ["/assets/", "/static/", "/_next/static/", "/_nuxt/", "/_app/immutable/", "/build/"];

/// Whether the name of a file holds a fingerprint of its content: `app.3f9a1c2b.js`, `index-BxYz12_Q.css`.
///
/// Being wrong costs: what is taken for a fingerprint and is none is kept for a year. So a word of a name counts when it has at least eight hexadecimal digits, a letter
/// and a figure among them; or exactly eight characters of base 64 as bundlers write them, with a capital letter after the first place and a figure; in a folder
/// that only a bundler fills, the figure may be missing.
pub fn is_fingerprinted(path: &str) -> bool {
    let name = name_of(path);
    let Some((stem, _)) = name.split_once('.').filter(|(stem, _)| !stem.is_empty()) else { return false };
    let built = BUILT.iter().any(|folder| path.contains(folder));
    let between = name[stem.len() + 1..].rsplit_once('.').map_or("", |(between, _)| between);
    let words = between.split('.').chain(stem.split('.')).flat_map(|word| word.split(['-', '_', '~']));
    words.clone().any(is_hexadecimal)
        || [stem].into_iter().chain(between.split('.')).any(|part| ends_in_base64(part, built))
}

fn is_hexadecimal(word: &str) -> bool {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (8..=64).contains(&word.len())
        && digits
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The last eight characters, after a hyphen or a dot: they may hold hyphens themselves.
fn ends_in_base64(part: &str, built: bool) -> bool {
    let Some(at) = part.len().checked_sub(8) else { return false };
    let Some((before, word)) = part.split_at_checked(at) else { return false };
    let bytes = word.as_bytes();
    let figure = bytes.iter().any(u8::is_ascii_digit);
    let capital = bytes[1..].iter().any(u8::is_ascii_uppercase);
    let base64 = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    // A whole name of eight characters must show more than one that stands behind another.
    let parted = if before.is_empty() { figure } else { before.ends_with(['-', '.']) };
    parted && base64 && capital && (figure || built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_told_from_a_name() {
        for path in [
            "/app.3f9a1c2b.js",
            "/js/app.3f9a1c2b.chunk.js",
            "/main-3f9a1c2b4d5e6f70.css",
            "/3f9a1c2b4d5e6f708192a3b4c5d6e7f8.woff2",
            "/assets/index-BxYz12_Q.js",
            "/assets/index-DiwrgTda.js",
            "/index-5YG6JKQI.js",
            "/logo-Dk3a-x9Q.svg",
            "/static/js/2.3f9a1c2b.chunk.js.map",
        ] {
            assert!(is_fingerprinted(path), "{path}");
        }
        for path in [
            "/",
            "/index.html",
            "/app.js",
            "/jquery-3.5.1.min.js",
            "/bootstrap.bundle.min.js",
            "/report-20260101.pdf",
            "/facade.js",
            "/deadbeef.js",
            "/my-component2.js",
            "/widget-MyModule.js",
            "/JavaScript.js",
            "/assets/javascript.js",
            "/assets/favicon-32x32.png",
            "/3f9a1c2b",
            "/.3f9a1c2b",
            "/a.b",
        ] {
            assert!(!is_fingerprinted(path), "{path}");
        }
    }

    #[test]
    fn patterns_match_names_or_whole_paths() {
        for (pattern, path, expected) in [
            ("*.pdf", "/a/b.pdf", true),
            ("*.pdf", "/a.pdf/b", false),
            ("logo.*", "/x/logo.svg", true),
            ("/reports/*", "/reports/a/b", true),
            ("/reports/*", "/x/reports/a", false),
            ("*/reports/*", "/x/reports/a", true),
            ("*a*b*c", "/xaxbxc", true),
            ("*a*b*c", "/xaxbx", false),
            ("", "/a", false),
            ("*", "/a", true),
        ] {
            assert_eq!(Pattern(pattern.into()).matches(path), expected, "{pattern} {path}");
        }
    }

    fn rules(replace: bool) -> Rules {
        let value = |text| Some(HeaderValue::from_static(text));
        Rules {
            patterns: vec![(Pattern("*.pdf".into()), Some(HeaderValue::from_static("pattern")))],
            fingerprinted: value("forever"),
            html: value("page"),
            others: None,
            replace,
        }
    }

    #[test]
    fn a_pattern_counts_before_the_type_and_the_type_before_the_name() {
        let of = |path: &str, status: u16, kind: &'static str| {
            let mut answer = HeaderMap::new();
            answer.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let status = StatusCode::from_u16(status).expect("a status");
            rules(false).value(path, status, &answer).map(|value| value.to_str().expect("text").to_owned())
        };
        for (path, status, kind, expected) in [
            ("/a.pdf", 200, "application/pdf", Some("pattern")),
            ("/app.3f9a1c2b.js", 200, "text/javascript", Some("forever")),
            ("/app.3f9a1c2b.js", 206, "text/javascript", Some("forever")),
            ("/app.3f9a1c2b.js", 304, "text/javascript", Some("forever")),
            ("/app.3f9a1c2b.js", 404, "text/javascript", None),
            // A page in the place of a missing file must not stay.
            ("/app.3f9a1c2b.js", 200, "text/html; charset=utf-8", Some("page")),
            ("/", 200, "Text/HTML", Some("page")),
            ("/logo.svg", 200, "image/svg+xml", None),
        ] {
            assert_eq!(of(path, status, kind).as_deref(), expected, "{path} {status} {kind}");
        }
    }

    #[test]
    fn what_an_answer_says_itself_stands_unless_it_is_to_be_replaced() {
        let mut answer = HeaderMap::new();
        answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let path = "/app.3f9a1c2b.js";
        assert_eq!(rules(false).value(path, StatusCode::OK, &answer), None);
        assert!(rules(true).value(path, StatusCode::OK, &answer).is_some());
    }
}
