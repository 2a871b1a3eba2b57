//! In what coding a client gets an answer: what it accepts, and what may be coded at all (RFC 9110 §8.4 and §12.5.3).
//!
//! Compression gives away how much of an answer repeats itself. Where an answer holds a secret beside what an attacker chose, its length tells the secret
//! byte by byte (the attack is called BREACH). So an answer that is one user's own is left as it is, unless the operator says otherwise: see
//! [`Rules::private`].

use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, ETAG, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::browser::wild;
use crate::base::fields::Fields;

/// A coding of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
    /// None.
    Identity,
}

impl Coding {
    /// Those that code, the one that makes text smallest first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    /// What a file's name ends with when its content is coded so.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::Identity => "",
        }
    }

    /// The coding with this name; `x-gzip` is the old one of gzip (RFC 9110 §8.4.1.3).
    pub fn named(name: &[u8]) -> Option<Self> {
        let known = [Self::Brotli, Self::Zstd, Self::Gzip, Self::Identity];
        let same = |coding: &Self| name.eq_ignore_ascii_case(coding.as_str().as_bytes());
        known.into_iter().find(same).or(name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }

    fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// Which answers are coded, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What may be used, the preferred first.
    pub codings: Vec<Coding>,
    /// Media types, in lower case, in which `*` stands for any characters: `text/html`, `application/*+json`.
    pub types: Vec<String>,
    /// Shorter content is left as it is, in bytes.
    pub min_size: u64,
    /// Answers that are one user's own are coded, too.
    pub private: bool,
}

/// Why an answer is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refuse {
    /// Only what GET and HEAD ask for is coded.
    Method,
    /// A part, or an answer without content.
    Status,
    /// Its content has a coding already.
    Coded,
    /// It says `no-transform` (RFC 9111 §5.2.2.6).
    NoTransform,
    /// It is not of a type that compresses well.
    Type,
    /// It is too short to gain by it.
    Small,
    /// It is one user's own.
    Private,
}

impl Rules {
    /// The coding of an answer in one of the codings in use: the one that the client likes best, of those it likes alike the first of ours.
    pub fn negotiate(&self, request: &dyn Fields) -> Coding {
        negotiate(request, &self.codings)
    }

    /// Whether content of this type is coded.
    pub fn covers(&self, content_type: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(content_type) else { return false };
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.types.iter().any(|pattern| wild(pattern.as_bytes(), essence.as_bytes()))
    }

    /// Whether the answer to a request may be coded, whatever the client accepts. What of this does not hang on the request makes the answer one that varies by
    /// `Accept-Encoding`.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn judge(
        &self,
        method: &Method,
        request: &dyn Fields,
        status: StatusCode,
        answer: &HeaderMap,
    ) -> Result<(), Refuse> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refuse::Method);
        }
        if matches!(status.as_u16(), 100..=199 | 204..=206 | 300..=399) || answer.contains_key(CONTENT_RANGE)
        {
            return Err(Refuse::Status);
        }
        if answer.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity") {
            return Err(Refuse::Coded);
        }
        if says(answer, "no-transform") {
            return Err(Refuse::NoTransform);
        }
        if !answer.get(CONTENT_TYPE).is_some_and(|value| self.covers(value.as_bytes())) {
            return Err(Refuse::Type);
        }
        if length(answer).is_some_and(|length| length < self.min_size.max(1)) {
            return Err(Refuse::Small);
        }
        if !self.private && is_private(request, answer) {
            return Err(Refuse::Private);
        }
        Ok(())
    }
}

/// The best of the `offered` codings for a client, or none at all (RFC 9110 §12.5.3). A client that refuses whatever there is gets the content as it is: that serves
/// it better than a 406.
pub fn negotiate(request: &dyn Fields, offered: &[Coding]) -> Coding {
    let Some(accepts) = request.joined("accept-encoding") else { return Coding::Identity };
    let weights = Weights::read(&accepts);
    let best = offered.iter().map(|coding| (*coding, weights.of(*coding)));
    let (best, weight) =
        best.fold((Coding::Identity, 0), |best, next| if next.1 > best.1 { next } else { best });
    if weight > 0 && weight >= weights.of_identity() { best } else { Coding::Identity }
}

/// What a client accepts, in thousandths.
struct Weights {
    named: Vec<(Coding, u16)>,
    rest: Option<u16>,
}

impl Weights {
    /// Codings that nobody here knows do not count; a weight that does not read refuses its coding.
    fn read(list: &[u8]) -> Self {
        let mut weights = Self { named: Vec::new(), rest: None };
        for member in list.split(|byte| *byte == b',') {
            let mut parts = member.splitn(2, |byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let weight = parts.next().map_or(1000, |text| thousandths(text.trim_ascii()).unwrap_or(0));
            if name == b"*" {
                weights.rest = Some(weight);
            } else if let Some(coding) = Coding::named(name) {
                weights.named.push((coding, weight));
            }
        }
        weights
    }

    fn of(&self, coding: Coding) -> u16 {
        let named = self.named.iter().find(|(name, _)| *name == coding).map(|(_, weight)| *weight);
        named.or(self.rest).unwrap_or(0)
    }

    /// Identity is accepted without mention, but whatever is mentioned is liked better.
    fn of_identity(&self) -> u16 {
        self.named.iter().find(|(name, _)| *name == Coding::Identity).map_or(0, |(_, weight)| *weight)
    }
}

/// `q=0.5` as 500 (RFC 9110 §12.4.2).
fn thousandths(text: &[u8]) -> Option<u16> {
    let (name, value) = text.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let digits = match value {
        [b'0' | b'1'] => &b""[..],
        [b'0' | b'1', b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut weight = u16::from(value[0] - b'0');
    for at in 0..3 {
        let digit = digits.get(at).copied().unwrap_or(b'0');
        weight = weight * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (weight <= 1000).then_some(weight)
}

/// Whether an answer is for one user: it says so, it sets a cookie, or its request shows who asks and it does not say that all may have it.
fn is_private(request: &dyn Fields, answer: &HeaderMap) -> bool {
    let names_user = request.has(COOKIE.as_str()) || request.has(AUTHORIZATION.as_str());
    let for_all = says(answer, "public") || says(answer, "s-maxage");
    answer.contains_key(SET_COOKIE)
        || says(answer, "private")
        || says(answer, "no-store")
        || (names_user && !for_all)
}

/// Whether a directive stands in Cache-Control, with a value or without.
fn says(answer: &HeaderMap, directive: &str) -> bool {
    let mut said = false;
    answer.each(CACHE_CONTROL.as_str(), &mut |line| {
        said |= line.split(|byte| *byte == b',').any(|member| {
            let name = member.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            name.eq_ignore_ascii_case(directive.as_bytes())
        });
    });
    said
}

fn length(answer: &HeaderMap) -> Option<u64> {
    answer.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Digests of content that is no longer sent (RFC 9530, RFC 3230, RFC 2616).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// Says in an answer's fields that its content is coded now; `Coding::Identity` says that it could have been.
pub fn apply(answer: &mut HeaderMap, coding: Coding) {
    vary(answer);
    if coding == Coding::Identity {
        return;
    }
    answer.insert(CONTENT_ENCODING, coding.value());
    answer.remove(CONTENT_LENGTH);
    answer.remove(ACCEPT_RANGES);
    for name in DIGESTS {
        answer.remove(name);
    }
    if let Some(tag) = answer.get(ETAG).and_then(|tag| tagged(tag, coding)) {
        answer.insert(ETAG, tag);
    }
}

/// Adds `Accept-Encoding` to what an answer varies by.
pub fn vary(answer: &mut HeaderMap) {
    let mut there = false;
    answer.each(VARY.as_str(), &mut |line| {
        there |= line.split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding")
        });
    });
    if !there {
        answer.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// An entity tag of the same content in a coding: bytes that differ must not share a strong tag (RFC 9110 §8.8.3.3).
pub fn tagged(tag: &HeaderValue, coding: Coding) -> Option<HeaderValue> {
    let plain = tag.as_bytes().strip_suffix(b"\"")?;
    HeaderValue::from_bytes(&[plain, b";", coding.as_str().as_bytes(), b"\""].concat()).ok()
}

/// The tag of an answer before we coded it; `None` when it is not one of ours.
fn untagged(tag: &[u8]) -> Option<(Vec<u8>, Coding)> {
    Coding::ALL.into_iter().find_map(|coding| {
        let end = format!(";{}\"", coding.as_str());
        let plain = tag.strip_suffix(end.as_bytes())?;
        Some(([plain, b"\""].concat(), coding))
    })
}

/// Makes conditions about what we coded conditions about what the origin has. `If-Range` is left: a part of the one must never be joined to the other, so it must not
/// hold.
pub fn plain_conditions(request: &mut HeaderMap) {
    for name in [http::header::IF_NONE_MATCH, http::header::IF_MATCH] {
        if !request.contains_key(&name) {
            continue;
        }
        let lines: Vec<HeaderValue> = request.get_all(&name).iter().map(plain_tags).collect();
        set_all(request, &name, lines);
    }
}

fn set_all(fields: &mut HeaderMap, name: &HeaderName, lines: Vec<HeaderValue>) {
    fields.remove(name);
    for line in lines {
        fields.append(name, line);
    }
}

fn plain_tags(line: &HeaderValue) -> HeaderValue {
    let tags: Vec<Vec<u8>> = line
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(|tag| untagged(tag.trim_ascii()).map_or_else(|| tag.trim_ascii().to_vec(), |(plain, _)| plain))
        .collect();
    HeaderValue::from_bytes(&tags.join(&b", "[..])).unwrap_or_else(|_| line.clone())
}

/// Gives a 304 the tag by which the client, or the cache, knows what we coded: `known` holds the tags it named.
pub fn retag(not_modified: &mut HeaderMap, known: &dyn Fields, name: &str) {
    let Some(tag) = not_modified.get(ETAG).cloned() else { return };
    let mut ours = None;
    known.each(name, &mut |line| {
        for member in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if untagged(member).is_some_and(|(plain, _)| plain == tag.as_bytes()) {
                ours = HeaderValue::from_bytes(member).ok();
            }
        }
    });
    if let Some(ours) = ours {
        not_modified.insert(ETAG, ours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    fn rules() -> Rules {
        Rules {
            codings: Coding::ALL.to_vec(),
            types: vec!["text/*".into(), "application/json".into()],
            min_size: 100,
            private: false,
        }
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn the_client_s_weights_choose_then_our_order() {
        use Coding::{Brotli, Gzip, Identity, Zstd};
        for (accepts, chosen) in [
            ("gzip, deflate, br, zstd", Brotli),
            ("gzip, deflate, br", Brotli),
            ("gzip, zstd", Zstd),
            ("gzip", Gzip),
            ("x-gzip", Gzip),
            ("GZIP", Gzip),
            ("gzip;q=1.0, br;q=0.5", Gzip),
            ("gzip; q=0.5, br;q=0.500", Brotli),
            ("*", Brotli),
            ("br;q=0, *", Zstd),
            ("br;q=0, zstd;q=0.0, *;q=0.1", Gzip),
            ("identity;q=0, gzip;q=0.001", Gzip),
            ("identity, gzip;q=0.5", Identity),
            ("identity;q=0.5, gzip;q=0.5", Gzip),
            ("gzip;q=0", Identity),
            ("*;q=0", Identity),
            ("identity;q=0", Identity),
            ("deflate", Identity),
            ("compress, unknown", Identity),
            ("", Identity),
            // A weight that does not read is no leave.
            ("gzip;q=2", Identity),
            ("gzip;q=1.001", Identity),
            ("gzip;q=0.0001", Identity),
            ("gzip;q=-1", Identity),
            ("gzip;q=", Identity),
            ("gzip;level=9", Identity),
            ("gzip;q=2, br", Brotli),
        ] {
            let fields = [("accept-encoding", accepts.as_bytes())];
            assert_eq!(rules().negotiate(&Pairs(&fields)), chosen, "{accepts:?}");
        }
        assert_eq!(rules().negotiate(&Pairs(&[])), Identity, "who says nothing may not know any");
        let two = Pairs(&[("accept-encoding", b"br;q=0.1"), ("accept-encoding", b"gzip")]);
        assert_eq!(rules().negotiate(&two), Gzip, "lines are one list");
    }

    #[test]
    fn what_may_be_coded() {
        let html = ("content-type", "text/html; charset=utf-8");
        let ask = |method: Method, request: &[(&'static str, &'static str)], status: u16, answer: &[_]| {
            let status = StatusCode::from_u16(status).expect("a status");
            rules().judge(&method, &map(request), status, &map(answer))
        };
        let get = |answer: &[(&'static str, &'static str)]| ask(Method::GET, &[], 200, answer);
        assert_eq!(get(&[html]), Ok(()));
        assert_eq!(get(&[("content-type", "Application/JSON")]), Ok(()));
        assert_eq!(get(&[html, ("content-encoding", "identity")]), Ok(()));
        assert_eq!(ask(Method::HEAD, &[], 404, &[html]), Ok(()));
        for (answer, why) in [
            (&[][..], Refuse::Type),
            (&[("content-type", "image/png")], Refuse::Type),
            (&[("content-type", "application/json-seq")], Refuse::Type),
            (&[html, ("content-length", "99")], Refuse::Small),
            (&[html, ("content-encoding", "br")], Refuse::Coded),
            (&[html, ("content-range", "bytes 0-1/5")], Refuse::Status),
            (&[html, ("cache-control", "max-age=5, No-Transform")], Refuse::NoTransform),
            (&[html, ("cache-control", "private")], Refuse::Private),
            (&[html, ("cache-control", "private=\"x\"")], Refuse::Private),
            (&[html, ("cache-control", "no-store")], Refuse::Private),
            (&[html, ("set-cookie", "a=b")], Refuse::Private),
        ] {
            assert_eq!(get(answer), Err(why), "{answer:?}");
        }
        for status in [204, 205, 206, 301, 304] {
            assert_eq!(ask(Method::GET, &[], status, &[html]), Err(Refuse::Status), "{status}");
        }
        assert_eq!(ask(Method::POST, &[], 200, &[html]), Err(Refuse::Method));
        for asker in [("cookie", "a=b"), ("authorization", "Bearer x")] {
            assert_eq!(ask(Method::GET, &[asker], 200, &[html]), Err(Refuse::Private));
            let public = [html, ("cache-control", "public, max-age=5")];
            assert_eq!(ask(Method::GET, &[asker], 200, &public), Ok(()));
        }
        let open = Rules { private: true, ..rules() };
        let own = map(&[html, ("cache-control", "private")]);
        assert_eq!(open.judge(&Method::GET, &map(&[]), StatusCode::OK, &own), Ok(()));
    }

    #[test]
    fn coded_content_has_its_own_tag_and_loses_what_no_longer_holds() {
        let mut fields = map(&[
            ("etag", "\"a\""),
            ("content-length", "5"),
            ("accept-ranges", "bytes"),
            ("content-digest", "sha-256=:x:"),
            ("vary", "Origin"),
        ]);
        apply(&mut fields, Coding::Brotli);
        let expected = map(&[
            ("etag", "\"a;br\""),
            ("vary", "Origin"),
            ("vary", "Accept-Encoding"),
            ("content-encoding", "br"),
        ]);
        assert_eq!(fields, expected);
        let mut weak = map(&[("etag", "W/\"a\""), ("vary", "accept-encoding")]);
        apply(&mut weak, Coding::Gzip);
        assert_eq!(weak["etag"], "W/\"a;gzip\"");
        assert_eq!(weak.get_all("vary").iter().count(), 1);
    }

    #[test]
    fn conditions_reach_the_origin_in_its_own_words_and_come_back_in_ours() {
        let mut request = map(&[
            ("if-none-match", "\"a;br\", W/\"b;gzip\", \"c\""),
            ("if-match", "*"),
            ("if-range", "\"a;br\""),
        ]);
        let asked = request.clone();
        plain_conditions(&mut request);
        assert_eq!(request["if-none-match"], "\"a\", W/\"b\", \"c\"");
        assert_eq!(request["if-match"], "*");
        assert_eq!(request["if-range"], "\"a;br\"", "a part of the plain content does not fit the coded");
        for (tag, told) in [("\"a\"", "\"a;br\""), ("W/\"b\"", "W/\"b;gzip\""), ("\"c\"", "\"c\"")] {
            let mut answer = map(&[("etag", tag)]);
            retag(&mut answer, &asked, "if-none-match");
            assert_eq!(answer["etag"], told);
        }
    }
}
