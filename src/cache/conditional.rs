//! The client's own conditions, answered from a stored answer (RFC 9110 §13, RFC 9111 §4.3.2).

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, StatusCode};

use super::date;
use super::directive::trim;
use super::policy::date_of;
use crate::base::fields::Fields;

/// Whether a 304 answers a GET or HEAD: If-None-Match by weak comparison, else If-Modified-Since, against a stored 200.
pub fn not_modified(request: &dyn Fields, status: StatusCode, stored: &HeaderMap) -> bool {
    if status != StatusCode::OK {
        return false;
    }
    if request.has(IF_NONE_MATCH.as_str()) {
        names_stored(request, stored)
    } else {
        unchanged_since(request, stored)
    }
}

/// Whether If-Match, or in its absence If-Unmodified-Since, does not hold, so that 412 answers a GET or HEAD (RFC 9110 §13.1.1 and §13.1.4): tags compare
/// strongly. For what is ours to judge, like a file; what an origin has is judged there.
pub fn precondition_fails(request: &dyn Fields, current: &HeaderMap) -> bool {
    if !request.has(IF_MATCH.as_str()) {
        let since = request.first(IF_UNMODIFIED_SINCE.as_str()).and_then(|date| date::parse(trim(date)));
        let modified = date_of(current, LAST_MODIFIED.as_str());
        return since.zip(modified).is_some_and(|(since, modified)| modified > since);
    }
    let tag = current.first(ETAG.as_str());
    let mut holds = false;
    request.each(IF_MATCH.as_str(), &mut |line| {
        let mut rest = line;
        holds |= trim(line) == b"*";
        while !rest.is_empty() {
            let (member, after) = split_tag(rest);
            holds |= tag.is_some_and(|tag| strongly_equal(tag, member));
            rest = after;
        }
    });
    !holds
}

/// The fields of a 304 made from a stored answer (RFC 9110 §15.4.5): Cache-Control, Content-Location, Date, ETag, Expires, Vary, and those the caller adds;
/// Last-Modified only when there is no ETag, so that the client still has a validator.
pub fn fields_of_304(stored: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let last_modified = (!stored.contains_key(ETAG)).then_some(LAST_MODIFIED);
    for name in [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY].into_iter().chain(last_modified)
    {
        for value in stored.get_all(&name) {
            fields.append(&name, value.clone());
        }
    }
    fields
}

/// Weak comparison of entity tags: whether their opaque parts are equal (RFC 9110 §8.8.3.2).
pub(super) fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    opaque(a) == opaque(b)
}

/// Strong comparison of entity tags: equal and neither weak (RFC 9110 §8.8.3.2).
pub(super) fn strongly_equal(a: &[u8], b: &[u8]) -> bool {
    is_strong(a) && is_strong(b) && weakly_equal(a, b)
}

/// Whether an entity tag is not marked weak.
pub(super) fn is_strong(tag: &[u8]) -> bool {
    !trim(tag).starts_with(b"W/")
}

/// An entity tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = trim(tag);
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether If-None-Match names the stored answer, or any (`*`).
fn names_stored(request: &dyn Fields, stored: &HeaderMap) -> bool {
    let tag = stored.first(ETAG.as_str());
    let mut found = false;
    request.each(IF_NONE_MATCH.as_str(), &mut |line| {
        let any = trim(line) == b"*";
        found |= any || tag.is_some_and(|tag| has_tag(line, tag));
    });
    found
}

/// Whether a list of entity tags has one weakly equal to `tag`. A comma within a tag parts nothing.
fn has_tag(list: &[u8], tag: &[u8]) -> bool {
    let mut rest = list;
    while !rest.is_empty() {
        let (member, after) = split_tag(rest);
        if weakly_equal(member, tag) {
            return true;
        }
        rest = after;
    }
    false
}

/// The bytes up to the next comma outside quotes, and those after it.
fn split_tag(list: &[u8]) -> (&[u8], &[u8]) {
    let mut quoted = false;
    let comma = list.iter().position(|&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    });
    match comma {
        Some(comma) => (&list[..comma], &list[comma + 1..]),
        None => (list, &[]),
    }
}

/// Whether the stored answer has not changed since If-Modified-Since: by its Last-Modified, else its Date (RFC 9111 §4.3.2). Several lines, or one that is no
/// date, count as none (RFC 9110 §13.1.3).
fn unchanged_since(request: &dyn Fields, stored: &HeaderMap) -> bool {
    let mut lines = 0;
    let mut since = None;
    request.each(IF_MODIFIED_SINCE.as_str(), &mut |line| {
        lines += 1;
        since = date::parse(trim(line));
    });
    // Most requests have no condition; they are not to pay for reading a stored date.
    let Some(since) = since.filter(|_| lines == 1) else { return false };
    let changed = match stored.contains_key(LAST_MODIFIED) {
        true => date_of(stored, LAST_MODIFIED.as_str()),
        false => date_of(stored, DATE.as_str()),
    };
    changed.is_some_and(|changed| changed <= since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_supposes_holds_or_not_rfc_9110_13_1() {
        let mut current = HeaderMap::new();
        current.insert(ETAG, HeaderValue::from_static("\"a\""));
        current.insert(LAST_MODIFIED, HeaderValue::from_static(MOMENT));
        for (name, value, fails) in [
            ("if-match", "\"a\"", false),
            ("if-match", "\"b\", \"a\"", false),
            ("if-match", "*", false),
            ("if-match", "\"b\"", true),
            ("if-match", "W/\"a\"", true),
            ("if-unmodified-since", EARLIER, true),
            ("if-unmodified-since", MOMENT, false),
            ("if-unmodified-since", LATER, false),
            ("if-unmodified-since", "today", false),
            ("if-none-match", "\"a\"", false),
        ] {
            let request = [(name, value.as_bytes())];
            assert_eq!(precondition_fails(&Pairs(&request), &current), fails, "{name}: {value}");
        }
        let both = Pairs(&[("if-match", b"\"a\""), ("if-unmodified-since", EARLIER.as_bytes())]);
        assert!(!precondition_fails(&both, &current), "the tag says more than the date");
    }
    use crate::base::fields::Pairs;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MOMENT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn if_none_match_compares_weakly_with_any_member_of_any_line_rfc_9110_13_1_2() {
        for (stored, asked, expected) in [
            ("\"a\"", &["\"a\""][..], true),
            ("\"a\"", &["W/\"a\""], true),
            ("W/\"a\"", &["\"a\""], true),
            ("W/\"a\"", &["W/\"a\""], true),
            ("\"a\"", &["\"b\""], false),
            ("\"a\"", &["\"A\""], false),
            ("\"a\"", &["\"b\", \"a\""], true),
            ("\"a\"", &["\"b\" ,W/\"a\" "], true),
            ("\"a\"", &["\"b\"", "\"a\""], true),
            ("\"a,b\"", &["\"x\", \"a,b\""], true),
            ("\"a\"", &["\"x,\"a\",y\""], false),
            ("\"b\"", &["\"a, \"b\", c\""], false),
            ("\"a\"", &["*"], true),
            ("\"a\"", &[" * "], true),
            ("\"*\"", &["\"b\""], false),
            ("\"a\"", &["\"*\""], false),
            ("\"a\"", &[""], false),
            ("\"\"", &["\"\""], true),
            ("a", &["a"], true),
            ("\"a\"", &["a"], false),
            ("\"a\"", &["w/\"a\""], false),
        ] {
            let pairs: Vec<_> = asked.iter().map(|line| ("if-none-match", line.as_bytes())).collect();
            let found = not_modified(&Pairs(&pairs), StatusCode::OK, &map(&[("etag", stored)]));
            assert_eq!(found, expected, "{stored} {asked:?}");
        }
        let any = Pairs(&[("if-none-match", b"*")]);
        assert!(not_modified(&any, StatusCode::OK, &map(&[])), "any stored answer is one");
        let some = Pairs(&[("if-none-match", b"\"a\"")]);
        assert!(!not_modified(&some, StatusCode::OK, &map(&[])));
    }

    #[test]
    fn if_modified_since_holds_when_nothing_changed_after_it_in_all_three_forms() {
        let stored = map(&[("last-modified", MOMENT), ("date", LATER)]);
        for (asked, expected) in [
            (MOMENT, true),
            (LATER, true),
            (EARLIER, false),
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("Sun Nov  6 08:49:37 1994", true),
            ("Sun Nov  6 08:49:36 1994", false),
            ("today", false),
            ("", false),
        ] {
            let request = Pairs(&[("if-modified-since", asked.as_bytes())]);
            assert_eq!(not_modified(&request, StatusCode::OK, &stored), expected, "{asked}");
        }
        let twice =
            Pairs(&[("if-modified-since", LATER.as_bytes()), ("if-modified-since", LATER.as_bytes())]);
        assert!(!not_modified(&twice, StatusCode::OK, &stored));
    }

    #[test]
    fn without_last_modified_its_date_stands_in_rfc_9111_4_3_2() {
        for (stored, expected) in [
            (&[("date", MOMENT)][..], true),
            (&[("date", LATER)], false),
            (&[("last-modified", "never"), ("date", EARLIER)], false),
            (&[], false),
        ] {
            let request = Pairs(&[("if-modified-since", MOMENT.as_bytes())]);
            assert_eq!(not_modified(&request, StatusCode::OK, &map(stored)), expected, "{stored:?}");
        }
    }

    #[test]
    fn if_modified_since_is_not_looked_at_next_to_if_none_match_rfc_9110_13_1_3() {
        let stored = map(&[("etag", "\"a\""), ("last-modified", MOMENT)]);
        for (tag, since, expected) in [("\"b\"", LATER, false), ("\"a\"", EARLIER, true)] {
            let request =
                Pairs(&[("if-modified-since", since.as_bytes()), ("if-none-match", tag.as_bytes())]);
            assert_eq!(not_modified(&request, StatusCode::OK, &stored), expected, "{tag}");
        }
    }

    #[test]
    fn only_a_stored_200_answers_conditions_and_only_when_there_are_any() {
        let stored = map(&[("etag", "\"a\""), ("last-modified", MOMENT)]);
        let request = Pairs(&[("if-none-match", b"\"a\"")]);
        for status in [404, 301, 203, 204] {
            assert!(!not_modified(&request, StatusCode::from_u16(status).unwrap(), &stored), "{status}");
        }
        assert!(!not_modified(&Pairs(&[]), StatusCode::OK, &stored));
    }

    #[test]
    fn a_304_carries_what_rfc_9110_15_4_5_lists() {
        let stored = map(&[
            ("cache-control", "max-age=1"),
            ("cache-control", "public"),
            ("content-location", "/x"),
            ("date", MOMENT),
            ("etag", "\"a\""),
            ("expires", LATER),
            ("vary", "x"),
            ("last-modified", MOMENT),
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("set-cookie", "a=b"),
        ]);
        let fields = fields_of_304(&stored);
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-location", "date", "etag", "expires", "vary"]);
        assert_eq!(fields.get_all(CACHE_CONTROL).iter().count(), 2);
        let untagged = fields_of_304(&map(&[("last-modified", MOMENT), ("content-type", "a/b")]));
        assert_eq!(untagged, map(&[("last-modified", MOMENT)]));
    }

    #[test]
    fn tags_compare_as_in_the_table_of_rfc_9110_8_8_3_2() {
        for (a, b, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let (x, y) = (a.as_bytes(), b.as_bytes());
            assert_eq!((strongly_equal(x, y), weakly_equal(x, y)), (strong, weak), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_is_found_at_any_place_of_a_list(before in proptest::collection::vec("[a-c,]{0,3}", 0..4), tag in "[a-d,]{0,3}", space in "[ \t]{0,2}") {
            let mut list: Vec<_> = before.iter().map(|tag| format!("\"{tag}\"")).collect();
            let stored = format!("\"{tag}\"");
            let known = list.contains(&stored);
            let comma = format!("{space},{space}");
            prop_assert_eq!(has_tag(list.join(&comma).as_bytes(), stored.as_bytes()), known);
            list.push(format!("W/{stored}{space}"));
            prop_assert!(has_tag(list.join(&comma).as_bytes(), stored.as_bytes()));
        }
    }
}
