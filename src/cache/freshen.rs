//! Validating a stored answer and freshening it (RFC 9111 §4.3).

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::conditional::{is_strong, weakly_equal};
use super::policy::{self, Exchange};
use super::record::Record;
use super::{Rules, date, directive};
use crate::base::fields::Fields;

/// Puts the stored validators into a request to the origin: If-None-Match and If-Modified-Since (RFC 9111 §4.3.1). The client's own conditions and ranges
/// are removed.
pub fn add_validators(request: &mut HeaderMap, record: &Record) {
    remove_conditions(request);
    for (condition, validator) in [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)] {
        if let Some(value) = record.fields.get(validator) {
            request.insert(condition, value.clone());
        }
    }
}

/// Removes the client's conditions and ranges from a request whose whole answer is to be stored.
pub fn remove_conditions(request: &mut HeaderMap) {
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
        request.remove(name);
    }
}

/// What a 304 makes of a stored answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Freshened {
    /// The stored answer with the 304's fields, fresh again; whether it may stay stored is told by the flag.
    Updated {
        /// The updated record.
        record: Box<Record>,
        /// Whether it may be kept; else it serves this one request and is dropped (`no-store` in the 304).
        keep: bool,
    },
    /// The 304 names another object (a different strong ETag): the stored one must not be used.
    Mismatch,
}

/// Applies a 304 to the stored answer it validated (RFC 9111 §3.2, §4.3.4).
///
/// `exchange` is that of the 304. Its fields replace the stored ones of the same name, and the result is judged like a new answer. When it may
/// not be kept, it answers the one request that caused it and nobody who waited for the same.
pub fn apply_304(record: &Record, exchange: &Exchange<'_>, rules: &Rules) -> Freshened {
    if names_another(&record.fields, exchange.response) {
        return Freshened::Mismatch;
    }
    let merged = merge(&record.fields, exchange);
    let whole = Exchange {
        method: &Method::GET,
        status: record.status,
        response: &merged,
        // The stored body is whole already.
        delimited: true,
        ..*exchange
    };
    let directives = directive::response(&merged);
    let keep = policy::refusal(&whole, &directives, rules).is_none();
    let mut fresh = policy::record(&whole, &directives, record.key.clone(), rules);
    fresh.reuse.authorised |= record.reuse.authorised;
    Freshened::Updated { record: Box::new(fresh), keep }
}

/// Whether a 304 is about another object than the stored one: its entity tag differs, or the stored one has none and the 304's strong one
/// comes without the Last-Modified that would still identify it.
///
/// Tags are compared weakly: an intermediary that compresses makes strong tags weak, on the 200 or on the 304 alone.
fn names_another(stored: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(new) = response.first(ETAG.as_str()) else { return false };
    match stored.first(ETAG.as_str()) {
        Some(old) => !weakly_equal(old, new),
        None => is_strong(new) && stored.get(LAST_MODIFIED) != response.get(LAST_MODIFIED),
    }
}

/// The stored fields with those of a 304 in place of their namesakes.
fn merge(stored: &HeaderMap, exchange: &Exchange<'_>) -> HeaderMap {
    let response = exchange.response;
    let named = policy::connection_names(response);
    let updates = |name: &HeaderName| {
        let of_the_body = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name);
        let of_the_object = *name == ETAG && stored.contains_key(ETAG);
        !of_the_body && !of_the_object && !policy::is_hop_by_hop(name) && !named.contains(name)
    };
    let mut merged = stored.clone();
    for name in response.keys().filter(|name| updates(name)) {
        merged.remove(name);
        for value in response.get_all(name) {
            merged.append(name, value.clone());
        }
    }
    // The stored Date and Age are those of the old answer; this one was made now.
    if !response.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(date::format(exchange.received))
    {
        merged.insert(DATE, now);
    }
    merged
}
