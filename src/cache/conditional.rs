//! The client's own conditions, answered from a stored answer (RFC 9110 §13, RFC 9111 §4.3.2).

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    VARY,
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
    let changed = match stored.contains_key(LAST_MODIFIED) {
        true => date_of(stored, LAST_MODIFIED.as_str()),
        false => date_of(stored, DATE.as_str()),
    };
    lines == 1 && matches!((changed, since), (Some(changed), Some(since)) if changed <= since)
}
