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
    let directives = directive::response(&merged, &rules.targeted);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::WallTime;
    use crate::base::fields::Pairs;
    use crate::cache::key::{Key, KeyFacts};
    use crate::cache::policy::LifetimeSource;
    use crate::cache::{KeyRules, SetCookie};
    use http::StatusCode;
    use std::time::Duration;

    /// Sun, 06 Nov 1994 08:49:37 GMT: when the stored answer came.
    const STORED: WallTime = WallTime::from_secs(784_111_777);
    const STORED_TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    /// An hour later: when the 304 comes.
    const NOW: WallTime = WallTime::from_secs(784_115_377);
    const NOW_TEXT: &str = "Sun, 06 Nov 1994 09:49:37 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 07:00:00 GMT";

    type Lines = &'static [(&'static str, &'static str)];

    fn map(lines: Lines) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn exchange<'a>(
        status: u16,
        request: &'a HeaderMap,
        response: &'a HeaderMap,
        at: WallTime,
    ) -> Exchange<'a> {
        Exchange {
            method: &Method::GET,
            request,
            status: StatusCode::from_u16(status).unwrap(),
            response,
            delimited: true,
            sent: at,
            received: at,
        }
    }

    fn stored_by(request: Lines, response: Lines) -> Record {
        let facts =
            KeyFacts { https: true, host: "a", port: None, path: "/", query: None, fields: &Pairs(&[]) };
        let key = Key::of(&facts, &KeyRules::default());
        let (request, response) = (map(request), map(response));
        policy::store(&exchange(200, &request, &response, STORED), &key, &Rules::default()).unwrap()
    }

    fn stored(response: Lines) -> Record {
        stored_by(&[], response)
    }

    fn freshen(record: &Record, request: Lines, response: Lines, rules: &Rules) -> Option<(Record, bool)> {
        let (request, response) = (map(request), map(response));
        match apply_304(record, &exchange(304, &request, &response, NOW), rules) {
            Freshened::Updated { record, keep } => Some((*record, keep)),
            Freshened::Mismatch => None,
        }
    }

    fn by(record: &Record, response: Lines) -> (Record, bool) {
        freshen(record, &[], response, &Rules::default()).unwrap()
    }

    #[test]
    fn validation_asks_with_every_stored_validator_and_none_of_the_clients_conditions() {
        let record = stored(&[("etag", "W/\"a\""), ("last-modified", MODIFIED)]);
        let mut request = map(&[
            ("if-none-match", "\"x\""),
            ("if-modified-since", STORED_TEXT),
            ("if-match", "\"x\""),
            ("if-unmodified-since", STORED_TEXT),
            ("if-range", "\"x\""),
            ("range", "bytes=0-1"),
            ("accept", "a/b"),
        ]);
        add_validators(&mut request, &record);
        let expected =
            map(&[("if-none-match", "W/\"a\""), ("if-modified-since", MODIFIED), ("accept", "a/b")]);
        assert_eq!(request, expected);
        let mut request = map(&[("if-modified-since", STORED_TEXT), ("range", "bytes=0-1")]);
        add_validators(&mut request, &stored(&[("etag", "\"a\"")]));
        assert_eq!(request, map(&[("if-none-match", "\"a\"")]));
        remove_conditions(&mut request);
        assert!(request.is_empty());
    }

    #[test]
    fn all_fields_are_updated_but_those_of_the_body_and_of_the_hop_rfc_9111_3_2() {
        let record = stored(&[
            ("cache-control", "max-age=60"),
            ("etag", "\"a\""),
            ("date", STORED_TEXT),
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("x-multi", "1"),
            ("x-multi", "2"),
            ("x-old", "1"),
        ]);
        let (fresh, keep) = by(
            &record,
            &[
                ("cache-control", "max-age=90"),
                ("etag", "\"a\""),
                ("date", NOW_TEXT),
                ("content-type", "text/html"),
                ("content-length", "0"),
                ("content-encoding", "br"),
                ("content-range", "bytes 0-1/2"),
                ("transfer-encoding", "chunked"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("age", "7"),
                ("x-multi", "3"),
                ("x-new", "4"),
                ("x-new", "5"),
            ],
        );
        let expected = map(&[
            ("cache-control", "max-age=90"),
            ("etag", "\"a\""),
            ("date", NOW_TEXT),
            ("content-type", "text/html"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("x-multi", "3"),
            ("x-old", "1"),
            ("x-new", "4"),
            ("x-new", "5"),
        ]);
        assert_eq!(fresh.fields, expected);
        assert!(keep);
        assert_eq!((fresh.status, &fresh.key), (StatusCode::OK, &record.key));
    }

    #[test]
    fn freshness_and_age_begin_anew() {
        let record = stored(&[("cache-control", "max-age=60"), ("etag", "\"a\""), ("date", STORED_TEXT)]);
        assert!(record.ttl(NOW).is_zero());
        for (response, age, lifetime, source) in [
            (&[][..], 0, 60, LifetimeSource::MaxAge),
            (&[("date", NOW_TEXT)], 0, 60, LifetimeSource::MaxAge),
            (&[("age", "7")], 7, 60, LifetimeSource::MaxAge),
            (&[("cache-control", "s-maxage=5")], 0, 5, LifetimeSource::SMaxAge),
            (&[("cdn-cache-control", "max-age=9")], 0, 9, LifetimeSource::Targeted),
        ] {
            let (fresh, _) = by(&record, response);
            let found = (fresh.age(NOW).as_secs(), fresh.lifetime.as_secs(), fresh.source);
            assert_eq!(found, (age, lifetime, source), "{response:?}");
            assert_eq!(fresh.received, NOW);
        }
        let (fresh, _) = by(&record, &[]);
        assert_eq!(fresh.fields["date"], NOW_TEXT, "a 304 without Date was made now");
    }

    #[test]
    fn a_304_of_another_object_updates_nothing_rfc_9111_4_3_4() {
        for (of_stored, of_304, matches) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], true),
            (&[("etag", "\"a\"")], &[], true),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"b\"")], false),
            (&[("last-modified", MODIFIED)], &[("last-modified", MODIFIED)], true),
            (&[("last-modified", MODIFIED)], &[], true),
            (&[("last-modified", MODIFIED)], &[("etag", "\"b\"")], false),
            (&[("last-modified", MODIFIED)], &[("etag", "\"b\""), ("last-modified", STORED_TEXT)], false),
            (&[("last-modified", MODIFIED)], &[("etag", "\"b\""), ("last-modified", MODIFIED)], true),
            (&[("last-modified", MODIFIED)], &[("etag", "W/\"b\"")], true),
        ] {
            let found = freshen(&stored(of_stored), &[], of_304, &Rules::default());
            assert_eq!(found.is_some(), matches, "{of_stored:?} {of_304:?}");
        }
    }

    #[test]
    fn the_stored_tag_stays_as_weak_as_it_was() {
        let (fresh, _) = by(&stored(&[("etag", "W/\"a\"")]), &[("etag", "\"a\"")]);
        assert_eq!(fresh.fields["etag"], "W/\"a\"");
        let (fresh, _) =
            by(&stored(&[("last-modified", MODIFIED)]), &[("etag", "\"b\""), ("last-modified", MODIFIED)]);
        assert_eq!(fresh.fields["etag"], "\"b\"");
    }

    #[test]
    fn what_may_no_longer_be_stored_is_not_kept() {
        let record = stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
        let ask: Lines = &[];
        for (request, response, keep) in [
            (ask, &[][..], true),
            (ask, &[("cache-control", "max-age=0")], true),
            (ask, &[("cache-control", "no-cache")], true),
            (ask, &[("cache-control", "no-store")], false),
            (ask, &[("cache-control", "private")], false),
            (ask, &[("vary", "*")], false),
            (ask, &[("set-cookie", "a=b")], false),
            (&[("cache-control", "no-store")], &[], false),
            (&[("authorization", "x")], &[], false),
            (&[("authorization", "x")], &[("cache-control", "public, max-age=60")], true),
        ] {
            let (_, kept) = freshen(&record, request, response, &Rules::default()).unwrap();
            assert_eq!(kept, keep, "{request:?} {response:?}");
        }
    }

    #[test]
    fn a_cookie_in_a_304_meets_the_operators_rule() {
        let record = stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
        for (rule, stored) in [(SetCookie::Strip, false), (SetCookie::Store, true)] {
            let rules = Rules { set_cookie: rule, ..Rules::default() };
            let (fresh, keep) = freshen(&record, &[], &[("set-cookie", "a=b")], &rules).unwrap();
            assert_eq!((fresh.fields.contains_key("set-cookie"), keep), (stored, true), "{rule:?}");
        }
    }

    #[test]
    fn what_was_authorised_stays_so_and_no_cache_comes_and_goes() {
        let record =
            stored_by(&[("authorization", "x")], &[("cache-control", "public, no-cache"), ("etag", "\"a\"")]);
        let (fresh, keep) = by(&record, &[("cache-control", "public, max-age=5")]);
        assert!(keep && fresh.reuse.authorised && !fresh.reuse.always_validate);
        let (again, _) = by(&fresh, &[("cache-control", "public, no-cache")]);
        assert!(again.reuse.always_validate);
    }

    #[test]
    fn the_variant_is_that_of_the_request_that_was_validated() {
        let record = stored_by(&[("x-a", "1")], &[("vary", "x-a"), ("etag", "\"a\"")]);
        let (fresh, _) = freshen(&record, &[("x-a", "1"), ("x-b", "2")], &[], &Rules::default()).unwrap();
        assert_eq!((&fresh.vary, &fresh.variant), (&record.vary, &record.variant));
        let (fresh, _) =
            freshen(&record, &[("x-a", "1"), ("x-b", "2")], &[("vary", "x-b")], &Rules::default()).unwrap();
        assert_eq!(fresh.vary, ["x-b"]);
        assert_eq!(fresh.variant.0, [Some(Box::from(&b"2"[..]))]);
    }

    #[test]
    fn the_lifetime_of_a_freshened_record_is_judged_by_its_own_rules() {
        let record = stored(&[("etag", "\"a\"")]);
        let rules = Rules { ttl: Some(Duration::from_secs(30)), ..Rules::default() };
        let (fresh, _) = freshen(&record, &[], &[], &rules).unwrap();
        assert_eq!((fresh.lifetime.as_secs(), fresh.source), (30, LifetimeSource::Operator));
    }
}
