//! What Cache-Control and its kin say: text to values.

use http::HeaderName;

use crate::base::fields::Fields;
pub(super) use crate::base::fields::trim;

/// The directives of a request (RFC 9111 §5.2.1). Ages are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// The client wants it validated (also `Pragma: no-cache` when there is no Cache-Control, RFC 9111 §5.4).
    pub no_cache: bool,
    /// The client wants nothing of this exchange stored.
    pub no_store: bool,
    /// The client wants a stored answer or 504.
    pub only_if_cached: bool,
    /// The greatest age accepted.
    pub max_age: Option<u64>,
    /// The least remaining freshness accepted.
    pub min_fresh: Option<u64>,
    /// The greatest staleness accepted; `Some(None)` is any.
    pub max_stale: Option<Option<u64>>,
}

/// The directives of an answer that count for a shared cache: those of a valid targeted field (RFC 9213) when there is one, else of Cache-Control (RFC 9111 §5.2.2). Lifetimes are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// Must not be stored.
    pub no_store: bool,
    /// Must be validated before every reuse.
    pub no_cache: bool,
    /// Fields that must not be sent from storage without validation: `no-cache="…"`.
    pub no_cache_fields: Vec<HeaderName>,
    /// Must not be stored by a shared cache.
    pub private: bool,
    /// Fields that must not be stored: `private="…"`.
    pub private_fields: Vec<HeaderName>,
    /// May be stored though the request was authorised, or the status is not heuristically cacheable.
    pub public: bool,
    /// Must not be served stale.
    pub must_revalidate: bool,
    /// Must not be served stale by a shared cache.
    pub proxy_revalidate: bool,
    /// Store only when the status is understood; overrides `no-store` then (RFC 9111 §5.2.2.3).
    pub must_understand: bool,
    /// Will not change while fresh (RFC 8246).
    pub immutable: bool,
    /// Must not be transformed.
    pub no_transform: bool,
    /// The lifetime.
    pub max_age: Lifetime,
    /// The lifetime in a shared cache.
    pub s_maxage: Lifetime,
    /// RFC 5861 §3.
    pub stale_while_revalidate: Option<u64>,
    /// RFC 5861 §4.
    pub stale_if_error: Option<u64>,
    /// They come from a targeted field, so that Cache-Control and Expires do not count (RFC 9213 §2.2).
    pub targeted: bool,
}

/// A lifetime as stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Not stated.
    #[default]
    Absent,
    /// Stated, but malformed or contradictory: the answer counts as stale (RFC 9111 §4.2.1).
    Invalid,
    /// Seconds, at most 2³¹.
    Seconds(u64),
}

/// Reads a request's directives.
///
/// A malformed age is as good as none, for a request's directives are wishes; of several, the strictest counts.
pub fn request(fields: &dyn Fields) -> RequestDirectives {
    let mut out = RequestDirectives::default();
    let mut has_cache_control = false;
    fields.each("cache-control", &mut |line| {
        has_cache_control = true;
        each_directive(line, |name, argument| out.take(name, argument));
    });
    if !has_cache_control {
        fields.each("pragma", &mut |line| {
            each_directive(line, |name, _| out.no_cache |= name.eq_ignore_ascii_case(b"no-cache"));
        });
    }
    out
}

/// Reads an answer's directives.
///
/// What forbids counts even with an argument it should not have; what permits counts only when well-formed: the harm of a needless fetch is
/// smaller than that of an answer nobody meant to share.
///
/// `targets` are the targeted fields this cache obeys, the first that is there and valid.
pub fn response(fields: &dyn Fields, targets: &[HeaderName]) -> ResponseDirectives {
    if let Some(targeted) = targets.iter().find_map(|name| targeted(fields, name)) {
        return targeted;
    }
    let mut out = ResponseDirectives::default();
    fields.each("cache-control", &mut |line| {
        each_directive(line, |name, argument| out.take(name, argument));
    });
    out
}

/// The longest lifetime and age told apart, in seconds (RFC 9111 §1.2.2).
pub(super) const MAX_SECONDS: u64 = 1 << 31;

/// Reads delta-seconds: digits only, more than 2³¹ as 2³¹ (RFC 9111 §1.2.2).
pub(super) fn delta_seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        text.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(value.min(MAX_SECONDS))
}

/// What follows a directive's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Argument<'a> {
    None,
    Token(&'a [u8]),
    /// What stands between the quotes; escapes are left in, since neither numbers nor field names need one.
    Quoted(&'a [u8]),
    /// Spaces around `=`, or something after the closing quote.
    Malformed,
}

impl Argument<'_> {
    fn seconds(self) -> Option<u64> {
        match self {
            Argument::Token(text) | Argument::Quoted(text) => delta_seconds(text),
            Argument::None | Argument::Malformed => None,
        }
    }

    /// The field names of `private="…"` or `no-cache="…"`; `None` when they are not all names, so that the whole answer is meant.
    fn field_names(self) -> Option<Vec<HeaderName>> {
        let (Argument::Token(text) | Argument::Quoted(text)) = self else { return None };
        let members = text.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty());
        let names: Vec<_> = members.map(HeaderName::from_bytes).collect::<Result<_, _>>().unwrap_or_default();
        (!names.is_empty()).then_some(names)
    }
}

impl RequestDirectives {
    fn take(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = smaller(self.max_age, argument.seconds());
        } else if is("min-fresh") {
            self.min_fresh = self.min_fresh.max(argument.seconds());
        } else if is("max-stale") {
            let accepted = match argument {
                Argument::None => Some(None),
                _ => argument.seconds().map(Some),
            };
            self.max_stale = match (self.max_stale, accepted) {
                (Some(first), Some(second)) => Some(smaller(first, second)),
                (first, second) => first.or(second),
            };
        }
    }
}

impl ResponseDirectives {
    fn take(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let plain = argument == Argument::None;
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            match argument.field_names() {
                Some(names) => self.no_cache_fields.extend(names),
                None => self.no_cache = true,
            }
        } else if is("private") {
            match argument.field_names() {
                Some(names) => self.private_fields.extend(names),
                None => self.private = true,
            }
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("public") {
            self.public |= plain;
        } else if is("must-understand") {
            self.must_understand |= plain;
        } else if is("immutable") {
            self.immutable |= plain;
        } else if is("max-age") {
            self.max_age.state(argument.seconds());
        } else if is("s-maxage") {
            self.s_maxage.state(argument.seconds());
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate = window(self.stale_while_revalidate, argument.seconds());
        } else if is("stale-if-error") {
            self.stale_if_error = window(self.stale_if_error, argument.seconds());
        }
    }
}

impl Lifetime {
    /// Adds one more statement: a malformed one, or one that contradicts another, leaves none to trust (RFC 9111 §4.2.1).
    fn state(&mut self, seconds: Option<u64>) {
        *self = match (*self, seconds) {
            (Lifetime::Absent, Some(seconds)) => Lifetime::Seconds(seconds),
            (Lifetime::Seconds(before), Some(now)) if before == now => Lifetime::Seconds(now),
            _ => Lifetime::Invalid,
        };
    }
}

/// A window in which stale may be served, once more stated: the smaller, none when malformed.
fn window(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    smaller(before, Some(now.unwrap_or(0)))
}

/// The smaller of those that are there.
fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Takes a line apart into directives (RFC 9111 §5.2). A comma within quotes parts nothing; a quote that is never closed is a byte like any
/// other, so that it cannot hide a `no-store` behind it.
fn each_directive<'a>(line: &'a [u8], mut visit: impl FnMut(&'a [u8], Argument<'a>)) {
    let mut rest = line;
    while !rest.is_empty() {
        let (directive, after) = split_directive(rest);
        rest = after;
        let directive = trim(directive);
        let (name, argument) = match directive.iter().position(|&byte| byte == b'=') {
            None => (directive, Argument::None),
            Some(equals) => (trim(&directive[..equals]), read_argument(directive, equals)),
        };
        if !name.is_empty() {
            visit(name, argument);
        }
    }
}

/// The bytes up to the next comma outside quotes, and those after it.
fn split_directive(text: &[u8]) -> (&[u8], &[u8]) {
    let comma_from = |from: usize| text[from..].iter().position(|&byte| byte == b',').map(|at| from + at);
    let mut end = comma_from(0);
    let equals = text[..end.unwrap_or(text.len())].iter().position(|&byte| byte == b'=');
    if let Some(equals) = equals {
        let value = &text[equals + 1..];
        let quote = text.len() - value.trim_ascii_start().len();
        if text.get(quote) == Some(&b'"')
            && let Some(close) = closing_quote(text, quote)
        {
            end = comma_from(close + 1);
        }
    }
    match end {
        Some(comma) => (&text[..comma], &text[comma + 1..]),
        None => (text, &[]),
    }
}

/// Where the string opened at `open` ends.
fn closing_quote(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn read_argument(directive: &[u8], equals: usize) -> Argument<'_> {
    let value = &directive[equals + 1..];
    let spaced = directive[..equals].last().is_some_and(u8::is_ascii_whitespace)
        || value.first().is_some_and(u8::is_ascii_whitespace);
    if spaced {
        return Argument::Malformed;
    }
    if value.first() != Some(&b'"') {
        return Argument::Token(value);
    }
    match closing_quote(value, 0) {
        Some(close) if close + 1 == value.len() => Argument::Quoted(&value[1..close]),
        _ => Argument::Malformed,
    }
}

/// The directives of a targeted field, when it is there, not empty, a valid dictionary, and its ages are integers (RFC 9213 §2.1).
fn targeted(fields: &dyn Fields, name: &HeaderName) -> Option<ResponseDirectives> {
    let text = fields.joined(name.as_str())?;
    let dictionary: sfv::Dictionary = sfv::Parser::new(&text).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut out = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    for (name, member) in &dictionary {
        out.take_targeted(name.as_str(), member)?;
    }
    Some(out)
}

impl ResponseDirectives {
    /// Adds a member of a targeted field; `None` when an age is of another type, which makes the field unreadable as a whole.
    fn take_targeted(&mut self, name: &str, member: &sfv::ListEntry) -> Option<()> {
        use sfv::BareItem;
        let item = match member {
            sfv::ListEntry::Item(item) => Some(&item.bare_item),
            sfv::ListEntry::InnerList(_) => None,
        };
        if matches!(name, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error") {
            let Some(BareItem::Integer(seconds)) = item else { return None };
            let digits = i64::from(*seconds).to_string();
            self.take(name.as_bytes(), Argument::Token(digits.as_bytes()));
            return Some(());
        }
        match item {
            Some(BareItem::Boolean(false)) => {}
            Some(BareItem::Boolean(true)) => self.take(name.as_bytes(), Argument::None),
            Some(BareItem::String(text)) => {
                self.take(name.as_bytes(), Argument::Quoted(text.as_str().as_bytes()));
            }
            Some(BareItem::Token(text)) => {
                self.take(name.as_bytes(), Argument::Token(text.as_str().as_bytes()));
            }
            _ => self.take(name.as_bytes(), Argument::Malformed),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;
    use crate::cache::CDN_CACHE_CONTROL;
    use proptest::prelude::*;

    fn of(cache_control: &str) -> ResponseDirectives {
        response(&Pairs(&[("Cache-Control", cache_control.as_bytes())]), &[CDN_CACHE_CONTROL])
    }

    fn both(cdn: &str, cache_control: &str) -> ResponseDirectives {
        response(
            &Pairs(&[("cdn-cache-control", cdn.as_bytes()), ("cache-control", cache_control.as_bytes())]),
            &[CDN_CACHE_CONTROL],
        )
    }

    fn asked(fields: &[(&str, &str)]) -> RequestDirectives {
        let pairs: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        request(&Pairs(&pairs))
    }

    #[test]
    fn a_lifetime_is_digits_with_optional_quotes_and_nothing_else() {
        use Lifetime::{Absent, Invalid, Seconds};
        for (text, expected) in [
            ("", Absent),
            ("max-age=3600", Seconds(3600)),
            ("MAX-AGE=3600", Seconds(3600)),
            ("mAx-AgE=0003600", Seconds(3600)),
            ("max-age=0", Seconds(0)),
            ("max-age=\"3600\"", Seconds(3600)),
            ("foo=bar,max-age=3600", Seconds(3600)),
            (" , ,max-age=3600 ,", Seconds(3600)),
            ("foo, \t max-age=3600\t,bar", Seconds(3600)),
            // RFC 9111 §1.2.2: overflow is 2³¹.
            ("max-age=2147483647", Seconds(2_147_483_647)),
            ("max-age=2147483649", Seconds(1 << 31)),
            ("max-age=99999999999999999999999999999999999", Seconds(1 << 31)),
            ("max-age='3600'", Invalid),
            ("max-age=-3600", Invalid),
            ("max-age=+3600", Invalid),
            ("max-age=3600.0", Invalid),
            ("max-age=3600a", Invalid),
            ("max-age=a3600", Invalid),
            ("max-age=", Invalid),
            ("max-age", Invalid),
            ("max-age=\"\"", Invalid),
            ("max-age=\"3600", Invalid),
            ("max-age=\"3600\"1", Invalid),
            ("max-age =3600", Invalid),
            ("max-age= 3600", Invalid),
            ("max-age=3600;foo=bar", Invalid),
            // RFC 9111 §4.2.1: conflicting values leave none.
            ("max-age=3600, max-age=3600", Seconds(3600)),
            ("max-age=3600, max-age=\"3600\"", Seconds(3600)),
            ("max-age=3600, max-age=1800", Invalid),
            ("max-age=1800, max-age=3600, max-age=3600", Invalid),
            ("max-age=3600, max-age=x", Invalid),
            ("max-age=x, max-age=3600", Invalid),
            // Another directive's name or text is not ours.
            ("x-max-age=3600", Absent),
            ("max-agee=3600", Absent),
            ("foo=\"max-age=3600\"", Absent),
            ("foo=\"a, max-age=3600\"", Absent),
            ("foo= \"a, max-age=3600, b\"", Absent),
            ("foo=\"a\\\", max-age=3600\"", Absent),
        ] {
            assert_eq!(of(text).max_age, expected, "{text}");
        }
    }

    #[test]
    fn directives_are_found_by_name_in_any_case_and_on_any_line() {
        let d = response(
            &Pairs(&[
                ("cache-control", b"Public, MUST-revalidate"),
                ("Cache-Control", b"proxy-Revalidate,must-understand , immutable"),
                ("cache-control", b"no-transform, s-maxage=5, stale-while-revalidate=6, stale-if-error=7"),
            ]),
            &[CDN_CACHE_CONTROL],
        );
        assert!(d.public && d.must_revalidate && d.proxy_revalidate && d.must_understand);
        assert!(d.immutable && d.no_transform);
        assert_eq!(d.s_maxage, Lifetime::Seconds(5));
        assert_eq!((d.stale_while_revalidate, d.stale_if_error), (Some(6), Some(7)));
        assert!(!d.no_store && !d.no_cache && !d.private && !d.targeted);
    }

    #[test]
    fn what_forbids_counts_even_when_malformed_and_quotes_hide_only_what_they_enclose() {
        for text in [
            "no-store",
            "No-Store",
            "no-store=foo",
            "no-store =foo",
            "foo=\"bar, no-store",
            "foo\"bar, no-store\"x, no-store",
            "foo=\"bar\", no-store",
            "foo=\"b\\\"ar\", no-store",
            "foo=bar\"x, no-store",
            "max-age=1,no-store",
        ] {
            assert!(of(text).no_store, "{text}");
        }
        for text in ["foo=\"no-store\"", "foo=\"a, no-store, b\"", "no-stored", "=no-store", "x=no-store"] {
            assert!(!of(text).no_store, "{text}");
        }
        let two_lines = Pairs(&[("cache-control", b"foo=\"bar"), ("cache-control", b"no-store, x=\"")]);
        assert!(response(&two_lines, &[CDN_CACHE_CONTROL]).no_store, "an open quote ends with its line");
    }

    #[test]
    fn what_permits_counts_only_when_well_formed() {
        for text in ["public=1", "public =1", "must-understand=x", "immutable=\"\""] {
            let d = of(text);
            assert!(!d.public && !d.must_understand && !d.immutable, "{text}");
        }
        assert_eq!(of("stale-if-error=x").stale_if_error, Some(0));
        assert_eq!(of("stale-if-error=9, stale-if-error=5").stale_if_error, Some(5));
    }

    #[test]
    fn no_cache_and_private_with_names_mean_those_fields_alone() {
        let d = of("no-cache=\"Set-Cookie, x-a\", private=\"X-B\"");
        assert_eq!(d.no_cache_fields, ["set-cookie", "x-a"]);
        assert_eq!(d.private_fields, ["x-b"]);
        assert!(!d.no_cache && !d.private);
        assert_eq!(of("private=x-b").private_fields, ["x-b"], "the token form of RFC 9111 §5.2.2.7");
        for text in
            ["private", "private=", "private=\"\"", "private=\"a b\"", "private=\"x-a, (\"", "private=\"x"]
        {
            let d = of(text);
            assert!(d.private && d.private_fields.is_empty(), "{text}");
        }
        let d = of("no-cache, no-cache=\"x-a\"");
        assert!(d.no_cache, "the stricter of two counts");
    }

    #[test]
    fn a_valid_targeted_field_replaces_cache_control_rfc_9213_2_2() {
        let d = both("max-age=60", "no-store, private, max-age=5");
        assert_eq!(d.max_age, Lifetime::Seconds(60));
        assert!(d.targeted && !d.no_store && !d.private);
        let d = both("no-store", "public, max-age=5");
        assert!(d.targeted && d.no_store && d.max_age == Lifetime::Absent);
        let d = both("s-maxage=7, must-revalidate, private=\"x-a\", foo=(1 2);x, no-cache=?0", "");
        assert_eq!((d.s_maxage, d.must_revalidate, d.no_cache), (Lifetime::Seconds(7), true, false));
        assert_eq!(d.private_fields, ["x-a"]);
        assert_eq!(both("max-age=99999999999", "").max_age, Lifetime::Seconds(1 << 31));
        assert_eq!(both("max-age=-1", "max-age=5").max_age, Lifetime::Invalid);
        assert_eq!(both("max-age=5;x=1", "").max_age, Lifetime::Seconds(5), "parameters are ignored");
        let lines = Pairs(&[("CDN-Cache-Control", b"max-age=60"), ("cdn-cache-control", b"private")]);
        assert!(response(&lines, &[CDN_CACHE_CONTROL]).private, "lines are one field");
    }

    #[test]
    fn an_unreadable_targeted_field_is_ignored_as_a_whole_rfc_9213_2_1() {
        for text in [
            "",
            "&&&&&",
            "max-age=\"60\"",
            "max-age=60.0",
            "max-age=x",
            "max-age",
            "max-age=(60)",
            "Max-Age=60",
            "max-age=60,",
            "max-age=60 no-store",
            "max-age=60, foo=",
            "s-maxage=\"60\", max-age=60",
        ] {
            let d = both(text, "max-age=5");
            assert_eq!((d.targeted, d.max_age), (false, Lifetime::Seconds(5)), "{text}");
        }
    }

    #[test]
    fn a_request_says_what_it_accepts() {
        let d = asked(&[("cache-control", "no-cache, No-Store, only-if-cached, max-age=3, min-fresh=\"4\"")]);
        assert!(d.no_cache && d.no_store && d.only_if_cached);
        assert_eq!((d.max_age, d.min_fresh, d.max_stale), (Some(3), Some(4), None));
        for (text, expected) in [
            ("max-stale", Some(None)),
            ("max-stale=5", Some(Some(5))),
            ("max-stale=x", None),
            ("max-stale, max-stale=5", Some(Some(5))),
            ("max-stale=5, max-stale=3", Some(Some(3))),
        ] {
            assert_eq!(asked(&[("cache-control", text)]).max_stale, expected, "{text}");
        }
        let strictest =
            asked(&[("cache-control", "max-age=9, max-age=5, min-fresh=1, min-fresh=2, max-age=x")]);
        assert_eq!((strictest.max_age, strictest.min_fresh), (Some(5), Some(2)));
    }

    #[test]
    fn pragma_counts_only_without_cache_control_rfc_9111_5_4() {
        for (fields, expected) in [
            (&[("pragma", "no-cache")][..], true),
            (&[("Pragma", "foo, No-Cache")], true),
            (&[("pragma", "x=\"no-cache\"")], false),
            (&[("pragma", "no-cache"), ("cache-control", "max-age=5")], false),
            (&[("pragma", "no-cache"), ("cache-control", "")], false),
        ] {
            assert_eq!(asked(fields).no_cache, expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = response(&Pairs(&[("cache-control", &line), ("cdn-cache-control", &line)]), &[CDN_CACHE_CONTROL]);
            let _ = request(&Pairs(&[("cache-control", &line)]));
        }

        #[test]
        fn nothing_before_it_hides_a_no_store(before in "[a-z=\" ]{0,20}") {
            let line = format!("{before},no-store");
            prop_assert!(of(&line).no_store, "{}", line);
        }
    }
}
