//! Parts of a stored answer (RFC 9110 §14).

use http::HeaderMap;
use http::header::{DATE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};

use super::conditional::strongly_equal;
use super::date;
use super::directive::trim;
use super::policy::date_of;
use crate::base::fields::Fields;

/// A part: first and last byte, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub first: u64,
    /// The last byte.
    pub last: u64,
}

/// What a request's Range makes of a stored 200 of known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The whole: no Range, one that is malformed or to be ignored (If-Range differs, other unit, too many or overlapping parts).
    Whole,
    /// 206 with one part.
    One(Part),
    /// 206 with several, as multipart/byteranges.
    Several(Vec<Part>),
    /// 416: no part lies within it.
    Unsatisfiable,
}

/// Judges the Range and If-Range of a GET against a stored 200 of `length` bytes. If-Range holds only with a strong ETag equal to the stored one, or a
/// date equal to its Last-Modified.
///
/// More than sixteen parts, or parts that overlap or go backwards, get the whole (RFC 9110 §14.2): they cost more than they save.
pub fn select(request: &dyn Fields, stored: &HeaderMap, length: u64) -> Selection {
    let Some(specs) = requested(request) else { return Selection::Whole };
    if !same_object(request, stored) {
        return Selection::Whole;
    }
    let mut parts: Vec<Part> = specs.into_iter().filter_map(|spec| spec.within(length)).collect();
    let ascending = parts.windows(2).all(|pair| pair[0].last < pair[1].first);
    match parts.len() {
        0 => Selection::Unsatisfiable,
        1 => Selection::One(parts.remove(0)),
        _ if ascending => Selection::Several(parts),
        _ => Selection::Whole,
    }
}

/// `bytes 0-4/10`.
pub fn content_range(part: Part, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.first, part.last)
}

/// The head of each part and the closing line of a multipart/byteranges body, and the whole length of the body.
pub struct Multipart {
    /// What stands before each part's bytes.
    pub heads: Vec<Vec<u8>>,
    /// What stands after the last.
    pub tail: Vec<u8>,
    /// The length of everything.
    pub length: u64,
    /// The Content-Type of the answer.
    pub content_type: String,
}

/// Lays out a multipart/byteranges body (RFC 9110 §14.6).
///
/// `boundary` must not occur in the content, and be 1 to 70 letters and digits (RFC 2046 §5.1.1).
pub fn multipart(parts: &[Part], length: u64, content_type: Option<&[u8]>, boundary: &str) -> Multipart {
    let heads: Vec<Vec<u8>> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let line_end = if index == 0 { "" } else { "\r\n" };
            let mut head = format!("{line_end}--{boundary}\r\n").into_bytes();
            if let Some(content_type) = content_type {
                head.extend_from_slice(b"Content-Type: ");
                head.extend_from_slice(content_type);
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(
                format!("Content-Range: {}\r\n\r\n", content_range(*part, length)).as_bytes(),
            );
            head
        })
        .collect();
    let tail = format!("\r\n--{boundary}--\r\n").into_bytes();
    let around = heads.iter().map(Vec::len).sum::<usize>() + tail.len();
    let inside = parts.iter().map(|part| part.last.saturating_sub(part.first).saturating_add(1));
    Multipart {
        length: inside.fold(around as u64, u64::saturating_add),
        heads,
        tail,
        content_type: format!("multipart/byteranges; boundary={boundary}"),
    }
}

/// The most parts of one answer.
const MOST_PARTS: usize = 16;

/// A range as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// `0-4`, or `5-` to the end.
    From(u64, Option<u64>),
    /// `-5`: the last bytes.
    Last(u64),
}

impl Spec {
    fn read(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        match (first.is_empty(), last.is_empty()) {
            (true, _) => Some(Spec::Last(position(last)?)),
            (false, true) => Some(Spec::From(position(first)?, None)),
            (false, false) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Spec::From(first, Some(last)))
            }
        }
    }

    /// What of it lies within `length` bytes.
    fn within(self, length: u64) -> Option<Part> {
        let end = length.checked_sub(1)?;
        match self {
            Spec::From(first, last) => {
                (first <= end).then(|| Part { first, last: last.unwrap_or(end).min(end) })
            }
            Spec::Last(0) => None,
            Spec::Last(count) => Some(Part { first: length.saturating_sub(count), last: end }),
        }
    }
}

/// A position: digits, with no upper limit (RFC 9110 §14.1.1).
fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

/// The byte ranges asked for; `None` when there are none, or the field is to be ignored.
fn requested(request: &dyn Fields) -> Option<Vec<Spec>> {
    let mut lines = 0;
    let mut value: &[u8] = b"";
    request.each(RANGE.as_str(), &mut |line| {
        lines += 1;
        value = line;
    });
    let (unit, set) = trim(value).split_at_checked(6)?;
    if lines != 1 || !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let members = set.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty());
    let specs: Vec<Spec> = members.take(MOST_PARTS + 1).map(Spec::read).collect::<Option<_>>()?;
    (1..=MOST_PARTS).contains(&specs.len()).then_some(specs)
}

/// Whether If-Range lets the Range count (RFC 9110 §13.1.5). A date does only when it is strong: the stored one, from at least a second before the
/// answer's Date (§8.8.2.2), for within that second the content may have changed again.
fn same_object(request: &dyn Fields, stored: &HeaderMap) -> bool {
    let mut lines = 0;
    let mut condition: &[u8] = b"";
    request.each(IF_RANGE.as_str(), &mut |line| {
        lines += 1;
        condition = trim(line);
    });
    match lines {
        0 => true,
        1 if condition.contains(&b'"') => {
            stored.first(ETAG.as_str()).is_some_and(|tag| strongly_equal(tag, condition))
        }
        1 => {
            let (date, modified) = (date_of(stored, DATE.as_str()), date_of(stored, LAST_MODIFIED.as_str()));
            modified.is_some() && date::parse(condition) == modified && date > modified
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn stored() -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("etag", "\"a\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("date", "Sun, 06 Nov 1994 08:49:38 GMT"),
        ] {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn of(range: &str, length: u64) -> Selection {
        select(&Pairs(&[("range", range.as_bytes())]), &stored(), length)
    }

    fn one(first: u64, last: u64) -> Selection {
        Selection::One(Part { first, last })
    }

    fn several(parts: &[(u64, u64)]) -> Selection {
        Selection::Several(parts.iter().map(|&(first, last)| Part { first, last }).collect())
    }

    #[test]
    fn ranges_select_as_rfc_9110_14_1_2_says() {
        for (range, expected) in [
            ("bytes=0-4", one(0, 4)),
            ("bytes=5-", one(5, 9)),
            ("bytes=-3", one(7, 9)),
            ("bytes=-99", one(0, 9)),
            ("bytes=0-99", one(0, 9)),
            ("bytes=9-9", one(9, 9)),
            ("bytes=0-99999999999999999999999999", one(0, 9)),
            ("Bytes=0-4", one(0, 4)),
            ("bytes= 0-4 , ,", one(0, 4)),
            ("bytes=0-1,20-30", one(0, 1)),
            ("bytes=0-1,-0", one(0, 1)),
            ("bytes=0-1, 4-5", several(&[(0, 1), (4, 5)])),
            ("bytes=0-1,2-3,-1", several(&[(0, 1), (2, 3), (9, 9)])),
            // Nothing of it is there.
            ("bytes=10-", Selection::Unsatisfiable),
            ("bytes=10-20,99-", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=99999999999999999999999999-", Selection::Unsatisfiable),
            // Malformed, or not ours: ignored.
            ("", Selection::Whole),
            ("bytes", Selection::Whole),
            ("bytes=", Selection::Whole),
            ("bytes=,", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("bytes=4-2", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=0-1,x", Selection::Whole),
            ("bytes=+0-1", Selection::Whole),
            ("bytes=0 - 1", Selection::Whole),
            ("bytes=0--1", Selection::Whole),
            ("lines=0-1", Selection::Whole),
            ("bytes 0-1", Selection::Whole),
            // Overlapping or backwards.
            ("bytes=0-5,3-8", Selection::Whole),
            ("bytes=0-,0-", Selection::Whole),
            ("bytes=5-6,0-1", Selection::Whole),
        ] {
            assert_eq!(of(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn nothing_of_an_empty_answer_can_be_selected() {
        for range in ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-0"] {
            assert_eq!(of(range, 0), Selection::Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn more_than_sixteen_parts_get_the_whole() {
        let parts = |count: usize| {
            (0..count).map(|at| format!("{}-{}", at * 2, at * 2)).collect::<Vec<_>>().join(",")
        };
        assert!(
            matches!(of(&format!("bytes={}", parts(16)), 99), Selection::Several(all) if all.len() == 16)
        );
        assert_eq!(of(&format!("bytes={}", parts(17)), 99), Selection::Whole);
    }

    #[test]
    fn no_range_or_several_are_none() {
        assert_eq!(select(&Pairs(&[]), &stored(), 10), Selection::Whole);
        let twice = Pairs(&[("range", b"bytes=0-1"), ("range", b"bytes=2-3")]);
        assert_eq!(select(&twice, &stored(), 10), Selection::Whole);
    }

    #[test]
    fn if_range_holds_only_for_the_same_strong_validator_rfc_9110_13_1_5() {
        for (condition, holds) in [
            ("\"a\"", true),
            (" \"a\" ", true),
            ("W/\"a\"", false),
            ("\"b\"", false),
            ("a", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("Sun, 06 Nov 1994 08:49:36 GMT", false),
            ("today", false),
            ("", false),
        ] {
            let request = Pairs(&[("range", b"bytes=0-1"), ("if-range", condition.as_bytes())]);
            let expected = if holds { one(0, 1) } else { Selection::Whole };
            assert_eq!(select(&request, &stored(), 10), expected, "{condition}");
        }
    }

    #[test]
    fn a_weak_stored_validator_never_satisfies_if_range() {
        let mut weak = stored();
        weak.insert(ETAG, HeaderValue::from_static("W/\"a\""));
        weak.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        for condition in ["W/\"a\"", "\"a\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            let request = Pairs(&[("range", b"bytes=0-1"), ("if-range", condition.as_bytes())]);
            assert_eq!(select(&request, &weak, 10), Selection::Whole, "{condition}");
            assert_eq!(
                select(&request, &HeaderMap::new(), 10),
                Selection::Whole,
                "nothing stored: {condition}"
            );
        }
    }

    #[test]
    fn a_multipart_body_is_laid_out_as_rfc_9110_14_6_shows() {
        let parts = [Part { first: 0, last: 1 }, Part { first: 8, last: 9 }];
        let laid = multipart(&parts, 10, Some(b"text/plain"), "BB");
        let body = [&laid.heads[0][..], b"01", &laid.heads[1], b"89", &laid.tail].concat();
        let expected = "--BB\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
            \r\n--BB\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--BB--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        assert_eq!(laid.length, expected.len() as u64);
        assert_eq!(laid.content_type, "multipart/byteranges; boundary=BB");
        let untyped = multipart(&parts[..1], 10, None, "BB");
        assert_eq!(untyped.heads[0], b"--BB\r\nContent-Range: bytes 0-1/10\r\n\r\n");
    }

    proptest! {
        #[test]
        fn what_is_selected_lies_within_and_in_order(range in "bytes=[0-9,-]{0,20}", length in 0u64..40) {
            let parts = match of(&range, length) {
                Selection::One(part) => vec![part],
                Selection::Several(parts) => parts,
                Selection::Whole | Selection::Unsatisfiable => vec![],
            };
            prop_assert!(parts.iter().all(|part| part.first <= part.last && part.last < length));
            prop_assert!(parts.windows(2).all(|pair| pair[0].last < pair[1].first));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(range in proptest::collection::vec(any::<u8>(), 0..40), length in any::<u64>()) {
            let _ = select(&Pairs(&[("range", &range), ("if-range", &range)]), &stored(), length);
        }
    }
}
