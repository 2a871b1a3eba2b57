//! Vary: which request fields chose this answer, and their values in a form that compares (RFC 9111 §4.1).

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, VARY};
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::directive::trim;
use super::record::Record;
use super::{Encodings, Languages, VaryRules, language};
use crate::base::fields::Fields;

/// What an answer's Vary says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// Nothing: one answer for all.
    None,
    /// `*`: never reuse.
    Any,
    /// These request fields, in lower case, sorted, without repeats.
    Fields(Vec<HeaderName>),
}

/// The normalised values of the varying fields of one request: absent differs from empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Variant(pub Vec<Option<Box<[u8]>>>);

/// Reads all Vary lines of an answer. A member that is no field name counts as `*`: what cannot be compared cannot be reused.
pub fn of_response(fields: &dyn Fields) -> Vary {
    let mut names: Vec<HeaderName> = Vec::new();
    let mut any = false;
    fields.each(VARY.as_str(), &mut |line| {
        for member in line.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty()) {
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" => names.push(name),
                _ => any = true,
            }
        }
    });
    if any {
        return Vary::Any;
    }
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    if names.is_empty() { Vary::None } else { Vary::Fields(names) }
}

/// The variant a request asks for, in the order of `names`.
///
/// Values that mean the same compare equal (RFC 9111 §4.1): lines are joined, spaces around commas leave, Accept-Language becomes what is liked how
/// much, Accept-Encoding the set of codings it accepts, as far as the rules say.
pub fn of_request(names: &[HeaderName], fields: &dyn Fields, rules: VaryRules) -> Variant {
    Variant(names.iter().map(|name| value_of(name, fields, rules).map(Vec::into_boxed_slice)).collect())
}

/// The variant under which an answer is stored: that of its request, or, where it is in the one language this request likes best, that of all who
/// like it best.
pub fn of_answer(
    names: &[HeaderName],
    request: &dyn Fields,
    response: &HeaderMap,
    rules: VaryRules,
) -> Variant {
    let variant = of_request(names, request, rules);
    match rules.content_language.then(|| language::asked_and_given(request, response)).flatten() {
        Some(language) => with_language(names, variant, language),
        None => variant,
    }
}

/// The variant under which an answer is stored beside its own: that of all who like its language best.
pub fn also(record: &Record, rules: VaryRules) -> Option<Variant> {
    let position = record.vary.iter().position(|name| *name == ACCEPT_LANGUAGE)?;
    let value = record.variant.0.get(position)?.as_deref()?;
    let given = rules.content_language.then(|| language::also_given(value, &record.fields)).flatten()?;
    Some(with_language(&record.vary, record.variant.clone(), given))
}

/// Whether a stored answer is one of those that a request may be served with.
pub fn fits(record: &Record, request: &dyn Fields, rules: VaryRules) -> bool {
    of_request(&record.vary, request, rules) == record.variant
        || by_language(&record.vary, request, rules)
            .is_some_and(|request| of_request(&record.vary, &request, rules) == record.variant)
}

/// The request as one that asks for the language it likes best, where that may choose its answer.
pub fn by_language<'r>(
    names: &[HeaderName],
    request: &'r dyn Fields,
    rules: VaryRules,
) -> Option<language::ByLanguage<'r>> {
    let may = rules.content_language && names.contains(&ACCEPT_LANGUAGE);
    may.then(|| language::ByLanguage::of(request)).flatten()
}

fn with_language(names: &[HeaderName], mut variant: Variant, language: Vec<u8>) -> Variant {
    for (name, value) in names.iter().zip(&mut variant.0) {
        if *name == ACCEPT_LANGUAGE {
            *value = Some(language.clone().into_boxed_slice());
        }
    }
    variant
}

fn value_of(name: &HeaderName, fields: &dyn Fields, rules: VaryRules) -> Option<Vec<u8>> {
    if *name == COOKIE {
        return cookies(fields);
    }
    let joined = fields.joined(name.as_str())?;
    Some(match *name {
        ACCEPT_ENCODING if rules.encodings == Encodings::Accepted => {
            codings(&joined).unwrap_or_else(|| tighten(&joined))
        }
        // It stands for a language already.
        ACCEPT_LANGUAGE if joined.first() == Some(&language::MARK) => joined,
        ACCEPT_LANGUAGE if rules.languages != Languages::AsSent => {
            language::normalised(joined, rules.languages)
        }
        _ => tighten(&joined),
    })
}

/// Cookie is not a list of commas: HTTP/2 splits it at `"; "` (RFC 9113 §8.2.3).
fn cookies(fields: &dyn Fields) -> Option<Vec<u8>> {
    let mut whole: Option<Vec<u8>> = None;
    fields.each(COOKIE.as_str(), &mut |line| match &mut whole {
        None => whole = Some(line.to_vec()),
        Some(whole) => {
            whole.extend_from_slice(b"; ");
            whole.extend_from_slice(line);
        }
    });
    whole
}

/// Takes the spaces around commas away, but for those within a quoted string, where they are content.
fn tighten(value: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(value.len());
    let mut quoted = false;
    let mut escaped = false;
    for &byte in trim(value) {
        let is_space = matches!(byte, b' ' | b'\t');
        match byte {
            _ if quoted => {
                out.push(byte);
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            }
            b',' => {
                while matches!(out.last(), Some(b' ' | b'\t')) {
                    out.pop();
                }
                out.push(byte);
            }
            _ if is_space && out.last() == Some(&b',') => {}
            _ => {
                quoted = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

/// The set of codings that an Accept-Encoding accepts, sorted: which of them the client likes best is lost, for an answer in any of them is
/// acceptable to it. Refused codings are kept only where they matter: next to `*`, and `identity`, which needs no mention to be accepted.
/// `None` when it does not read.
fn codings(value: &[u8]) -> Option<Vec<u8>> {
    let mut accepted: SmallVec<[Coding<'_>; 8]> = SmallVec::new();
    let mut refused: SmallVec<[Coding<'_>; 4]> = SmallVec::new();
    for member in value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty()) {
        let mut parts = member.splitn(2, |&byte| byte == b';');
        let name = Coding::read(trim(parts.next()?))?;
        let accepts = parts.next().map_or(Some(1000), |written| weight(trim(written)))? > 0;
        if accepts { accepted.push(name) } else { refused.push(name) }
    }
    let star = Coding(b"*");
    if refused.contains(&star) && !accepted.contains(&Coding(b"identity")) {
        refused.push(Coding(b"identity"));
    }
    let open = accepted.contains(&star);
    refused.retain(|name| *name != star && (open || *name == Coding(b"identity")));
    Some(spell(accepted, refused))
}

fn spell(mut accepted: SmallVec<[Coding<'_>; 8]>, mut refused: SmallVec<[Coding<'_>; 4]>) -> Vec<u8> {
    accepted.sort_unstable();
    accepted.dedup();
    refused.sort_unstable();
    refused.dedup();
    let mut out = Vec::with_capacity(32);
    for (names, mark) in [(&accepted[..], &b""[..]), (&refused[..], b"!")] {
        for name in names {
            if !out.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(mark);
            out.extend(name.0.iter().map(u8::to_ascii_lowercase));
        }
    }
    out
}

/// A content coding, compared without regard to case.
#[derive(Clone, Copy)]
struct Coding<'a>(&'a [u8]);

impl<'a> Coding<'a> {
    /// A token; `x-gzip` and `x-compress` are their namesakes (RFC 9110 §8.4.1).
    fn read(name: &'a [u8]) -> Option<Self> {
        let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token_byte) {
            return None;
        }
        let alias = name.eq_ignore_ascii_case(b"x-gzip") || name.eq_ignore_ascii_case(b"x-compress");
        Some(Self(if alias { &name[2..] } else { name }))
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().map(u8::to_ascii_lowercase)
    }
}

impl PartialEq for Coding<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Coding<'_> {}

impl PartialOrd for Coding<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Coding<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded().cmp(other.folded())
    }
}

/// A weight in thousandths; `None` when it is no weight (RFC 9110 §12.4.2).
pub(super) fn weight(written: &[u8]) -> Option<u16> {
    let (b"q=" | b"Q=", value) = written.split_at_checked(2)? else { return None };
    let (whole, decimals) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    if !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |place: usize| decimals.get(place).map_or(0, |digit| u16::from(digit - b'0'));
    let thousandths = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;
    use proptest::prelude::*;

    fn one(name: &str, lines: &[&str]) -> Option<Vec<u8>> {
        let pairs: Vec<_> = lines.iter().map(|line| (name, line.as_bytes())).collect();
        let names = [HeaderName::from_bytes(name.as_bytes()).unwrap()];
        of_request(&names, &Pairs(&pairs), VaryRules::default()).0.remove(0).map(Vec::from)
    }

    #[test]
    fn vary_reads_all_lines_without_case_order_repeats_or_empty_members() {
        let read = |lines: &[&str]| {
            let pairs: Vec<_> = lines.iter().map(|line| ("vary", line.as_bytes())).collect();
            of_response(&Pairs(&pairs))
        };
        let fields = |names: &[&'static str]| {
            Vary::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect())
        };
        for (lines, expected) in [
            (&[][..], Vary::None),
            (&[""], Vary::None),
            (&[", ,"], Vary::None),
            (&["Foo"], fields(&["foo"])),
            (&["Foo, Bar", "foo"], fields(&["bar", "foo"])),
            (&[" ,b,\ta , "], fields(&["a", "b"])),
            (&["*"], Vary::Any),
            (&["foo, *"], Vary::Any),
            (&["foo", "*, bar"], Vary::Any),
            (&["*, *"], Vary::Any),
            (&["foo bar"], Vary::Any),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn absent_differs_from_empty() {
        assert_eq!(one("foo", &[]), None);
        assert_eq!(one("foo", &[""]), Some(vec![]));
        assert_ne!(one("accept-encoding", &[]), one("accept-encoding", &[""]));
        assert_ne!(one("accept-language", &[]), one("accept-language", &[""]));
    }

    #[test]
    fn requests_that_mean_the_same_ask_for_the_same_variant() {
        for (name, first, second) in [
            ("foo", &["1, 2"][..], &["1,2"][..]),
            ("foo", &["1", "2"], &["1 ,\t2"]),
            ("foo", &[" 1 "], &["1"]),
            ("foo", &["\"a , b\" , c"], &["\"a , b\",c"]),
            ("accept-language", &["EN, de-AT ; q=0.5"], &["en,de-at;q=0.5"]),
            ("accept-encoding", &["gzip, deflate, br"], &["br,  Deflate;q=0.3", "GZIP"]),
            ("accept-encoding", &["gzip"], &["x-gzip;q=1.000, br;q=0.0, gzip;q=0.001"]),
            ("accept-encoding", &["*;q=0, br"], &["br, identity;q=0"]),
            ("accept-encoding", &["gzip, *;q=0, identity"], &["identity, gzip"]),
            ("cookie", &["a=1", "b=2"], &["a=1; b=2"]),
        ] {
            assert_eq!(one(name, first), one(name, second), "{name}: {first:?} {second:?}");
        }
    }

    #[test]
    fn requests_that_differ_in_meaning_ask_for_different_variants() {
        for (name, first, second) in [
            ("foo", &["1"][..], &["2"][..]),
            ("foo", &["A"], &["a"]),
            ("foo", &["1, 2"], &["2, 1"]),
            ("foo", &["1 2"], &["12"]),
            ("foo", &["\"a , b\""], &["\"a,b\""]),
            ("foo", &["\"a\\\" , b\""], &["\"a\\\",b\""]),
            ("accept-language", &["en, de"], &["de, en"]),
            ("accept-encoding", &["gzip"], &["br"]),
            ("accept-encoding", &["gzip"], &["gzip, br"]),
            ("accept-encoding", &["gzip"], &["gzip;q=0"]),
            ("accept-encoding", &["gzip"], &["gzip, identity;q=0"]),
            ("accept-encoding", &["gzip"], &["gzip, *;q=0"]),
            ("accept-encoding", &["*"], &["*, br;q=0"]),
            ("accept-encoding", &["gzip"], &["*"]),
            ("accept-encoding", &["gzip;q=x"], &["gzip;q=y"]),
            ("accept-encoding", &["!gzip"], &["*, gzip;q=0"]),
            ("cookie", &["a=1 ,2"], &["a=1,2"]),
        ] {
            assert_ne!(one(name, first), one(name, second), "{name}: {first:?} {second:?}");
        }
    }

    #[test]
    fn a_weight_is_a_number_between_0_and_1_with_three_decimals_at_most() {
        for (weight, expected) in [
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("q=0.000", Some(0)),
            ("q=0.001", Some(1)),
            ("q=0.5", Some(500)),
            ("Q=1", Some(1000)),
            ("q=1.000", Some(1000)),
            ("q=1.001", None),
            ("q=0.0001", None),
            ("q=2", None),
            ("q=-1", None),
            ("q=", None),
            ("q", None),
            ("p=1", None),
        ] {
            assert_eq!(super::weight(weight.as_bytes()), expected, "{weight}");
        }
    }

    proptest! {
        #[test]
        fn the_order_and_spacing_of_codings_never_count(mut list in proptest::collection::vec("(gzip|br|zstd|\\*|identity)(;q=(0|1|0\\.5))?", 0..5)) {
            let before = one("accept-encoding", &[&list.join(",")]);
            list.reverse();
            prop_assert_eq!(before, one("accept-encoding", &[&list.join(" , ")]));
        }

        #[test]
        fn normalising_twice_changes_nothing(value in "[a-c \",\\\\]{0,16}") {
            let once = tighten(value.as_bytes());
            prop_assert_eq!(tighten(&once), once);
        }
    }
}
