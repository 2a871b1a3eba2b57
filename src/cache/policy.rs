//! May an answer be stored, and how long is it fresh? (RFC 9111 §3, §4.2)

use std::time::Duration;

use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, DATE, ETAG, EXPIRES, IF_MATCH, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::directive::{self, Lifetime, MAX_SECONDS, ResponseDirectives, delta_seconds, trim};
use super::key::Key;
use super::record::{Record, ReuseRule};
use super::vary::{self, Vary};
use super::{BypassRules, Rules, SetCookie, TtlMode, date};
use crate::base::clock::WallTime;
use crate::base::fields::{Fields, each_cookie};

/// What the cache may do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestUse {
    /// Look up, and store the answer.
    LookUp,
    /// Pass it by.
    Bypass(Bypass),
}

/// Why a request passes the cache by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The method is not GET or HEAD.
    Method,
    /// It asks for a protocol upgrade.
    Upgrade,
    /// Its content is in no key: that of a GET or HEAD, whose meaning is undefined (RFC 9110 §9.3.1), or a question too large for one.
    Body,
    /// It states a precondition on the origin's state (`If-Match`, `If-Unmodified-Since`) that only the origin can judge.
    Precondition,
    /// The operator wants it so: it has a field or cookie that passes by.
    Operator,
}

/// The facts of an exchange, as far as storing depends on them.
pub struct Exchange<'a> {
    /// The request's method as sent to the origin.
    pub method: &'a Method,
    /// The request's fields, as the client sent them.
    pub request: &'a dyn Fields,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's fields.
    pub response: &'a HeaderMap,
    /// Whether the end of the answer can be told from its truncation: Content-Length, chunked, HTTP/2, or no content.
    pub delimited: bool,
    /// When the request was sent.
    pub sent: WallTime,
    /// When the answer's head was received.
    pub received: WallTime,
}

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refuse {
    /// The method's answers are not stored.
    Method,
    /// The status is not final, is partial, is not understood where it must be, or has neither explicit freshness nor a heuristic.
    Status,
    /// `no-store` in the answer.
    NoStore,
    /// `no-store` in the request.
    RequestNoStore,
    /// `private`.
    Private,
    /// The request was authorised and the answer does not allow sharing (RFC 9111 §3.5).
    Authorization,
    /// Set-Cookie, by the operator's choice.
    SetCookie,
    /// `Vary: *`.
    VaryAny,
    /// Neither freshness nor a validator: it could never be reused.
    NoUse,
    /// Its end cannot be told from its truncation.
    Undelimited,
    /// It is not what the operator's `store_when` asks for.
    Condition,
    /// It has not been asked for often enough, by the operator's choice.
    FewUses,
}

impl Refuse {
    /// The word for metrics and `Cache-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary-any",
            Self::NoUse => "no-freshness",
            Self::Undelimited => "undelimited",
            Self::FewUses => "few-uses",
            Self::Condition => "condition",
        }
    }
}

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LifetimeSource {
    /// `s-maxage`.
    SMaxAge,
    /// `max-age`.
    MaxAge,
    /// Expires.
    Expires,
    /// `CDN-Cache-Control`.
    Targeted,
    /// Last-Modified.
    Heuristic,
    /// The operator's `ttl`.
    Operator,
    /// None: it is stale from the start, and kept for its validator.
    None,
}

/// What the cache may do for a request.
pub fn request_use(method: &Method, fields: &dyn Fields, rules: &Rules) -> RequestUse {
    let bypass = if !matches!(*method, Method::GET | Method::HEAD) {
        Bypass::Method
    } else if fields.has(UPGRADE.as_str()) && has_member(fields, CONNECTION.as_str(), b"upgrade") {
        Bypass::Upgrade
    } else if has_content(fields) {
        Bypass::Body
    } else if fields.has(IF_MATCH.as_str()) || fields.has(IF_UNMODIFIED_SINCE.as_str()) {
        Bypass::Precondition
    } else if passes_by(fields, &rules.bypass) {
        Bypass::Operator
    } else {
        return RequestUse::LookUp;
    };
    RequestUse::Bypass(bypass)
}

/// Judges an answer and makes the record to store.
///
/// # Errors
/// The first reason why it is not stored.
pub fn store(exchange: &Exchange<'_>, key: &Key, rules: &Rules) -> Result<Record, Refuse> {
    if *exchange.method != Method::GET {
        return Err(Refuse::Method);
    }
    let directives = directive::response(exchange.response, &rules.targeted);
    match refusal(exchange, &directives, rules) {
        Some(refuse) => Err(refuse),
        None => useful(record(exchange, &directives, key.shared_text(), rules)),
    }
}

/// The age of an answer on arrival: corrected_initial_age of RFC 9111 §4.2.3.
///
/// Of Age counts the first member of the first line, without parameters; what is not digits then counts as no Age, more than 2³¹ s as 2³¹ s. Date
/// has whole seconds, so the apparent age is counted in whole seconds too: else an answer generated this instant would arrive up to a
/// second old. A Date that is absent or unreadable makes no age.
pub fn initial_age(response: &dyn Fields, sent: WallTime, received: WallTime) -> Duration {
    let apparent = date_of(response, DATE.as_str())
        .map_or(Duration::ZERO, |date| WallTime::from_secs(received.as_secs()).since(date));
    let corrected = age_value(response).saturating_add(received.since(sent));
    apparent.max(corrected)
}

/// Whether a status's lifetime may be made up when nothing states one (RFC 9110 §15.1; 206 is not here, since we store no parts).
pub(super) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether a field stays on this hop whatever the message says (RFC 9110 §7.6.1, and those that were never registered as such).
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]
        .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "proxy-authentication-info")
}

/// The names that `Connection` makes hop-by-hop.
pub(super) fn connection_names(fields: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    fields.each(CONNECTION.as_str(), &mut |line| {
        let members = line.split(|&byte| byte == b',').map(trim);
        names.extend(members.filter_map(|member| HeaderName::from_bytes(member).ok()));
    });
    names
}

/// Why an answer to a GET must not be stored, in the order of RFC 9111 §3; [`useful`] is the last question.
pub(super) fn refusal(
    exchange: &Exchange<'_>,
    directives: &ResponseDirectives,
    rules: &Rules,
) -> Option<Refuse> {
    let status = exchange.status;
    let must_understand = directives.must_understand;
    let refused = [
        (Refuse::Status, !is_whole_and_final(status) || (must_understand && !is_understood(status))),
        (Refuse::NoStore, directives.no_store && !must_understand),
        (Refuse::RequestNoStore, directive::request(exchange.request).no_store),
        (Refuse::Private, directives.private),
        (Refuse::Authorization, personal(exchange.request) && !allows_sharing(directives)),
        (Refuse::Status, !may_be_fresh(exchange, directives, rules)),
        (Refuse::SetCookie, refuses_cookie(exchange.response, directives, rules)),
        (Refuse::VaryAny, vary::of_response(exchange.response) == Vary::Any),
        (Refuse::Undelimited, !exchange.delimited),
    ];
    refused.into_iter().find(|(_, applies)| *applies).map(|(refuse, _)| refuse)
}

/// The record of an answer that may be stored.
pub(super) fn record(
    exchange: &Exchange<'_>,
    directives: &ResponseDirectives,
    key: std::sync::Arc<[u8]>,
    rules: &Rules,
) -> Record {
    let response = exchange.response;
    let initial_age = initial_age(response, exchange.sent, exchange.received);
    let (lifetime, source) = lifetime(exchange, directives, rules);
    let vary = match vary::of_response(response) {
        Vary::Fields(names) => names,
        Vary::None | Vary::Any => Vec::new(),
    };
    let reuse = ReuseRule {
        always_validate: directives.no_cache,
        never_stale: directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage != Lifetime::Absent,
        authorised: personal(exchange.request),
    };
    let window = |stated: Option<u64>, of_operator: Duration| match stated {
        _ if reuse.never_stale || reuse.always_validate => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds),
        // An answer that was never fresh was never meant to be shared unasked.
        None if lifetime.is_zero() => Duration::ZERO,
        None => of_operator.min(LONGEST),
    };
    // What arrives stale is kept as long as what becomes stale here: its validator is as good.
    let already_stale = initial_age.saturating_sub(lifetime);
    Record {
        key,
        status: exchange.status,
        fields: stored_fields(exchange, directives, rules),
        received: exchange.received,
        initial_age,
        lifetime,
        source,
        reuse,
        stale_while_revalidate: window(directives.stale_while_revalidate, rules.stale_while_revalidate),
        stale_if_error: window(directives.stale_if_error, rules.stale_if_error),
        keep: if has_validator(response) {
            rules.keep.saturating_add(already_stale).min(LONGEST)
        } else {
            Duration::ZERO
        },
        variant: vary::of_request(&vary, exchange.request),
        vary,
    }
}

/// The longest of all times kept: 2³¹ s (RFC 9111 §1.2.2).
const LONGEST: Duration = Duration::from_secs(MAX_SECONDS);

/// A record that can never serve anybody only takes room.
fn useful(record: Record) -> Result<Record, Refuse> {
    let never_served = record.reuse.always_validate && !has_validator(&record.fields);
    if never_served || record.worth(record.received).is_zero() { Err(Refuse::NoUse) } else { Ok(record) }
}

/// Not interim, and the whole of a representation: 206 is a part of one, 304 refers to another answer, 416 speaks about the request's range.
fn is_whole_and_final(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status.as_u16(), 206 | 304 | 416)
}

/// Whether a status is one whose caching we know: the registered ones (RFC 9111 §5.2.2.3).
fn is_understood(status: StatusCode) -> bool {
    is_whole_and_final(status) && status.canonical_reason().is_some()
}

/// RFC 9111 §3.5.
fn allows_sharing(directives: &ResponseDirectives) -> bool {
    directives.public || directives.must_revalidate || matches!(directives.s_maxage, Lifetime::Seconds(_))
}

/// The last condition of RFC 9111 §3: something says, or lets us guess, how long it is fresh.
fn may_be_fresh(exchange: &Exchange<'_>, directives: &ResponseDirectives, rules: &Rules) -> bool {
    is_heuristically_cacheable(exchange.status)
        || directives.public
        || stated_lifetime(exchange, directives).is_some()
        || ttl_by_status(exchange.status, rules).is_some()
}

/// Whether Set-Cookie keeps it out. An origin that excepts the field (`private="set-cookie"`) has told how to store the rest.
fn refuses_cookie(response: &HeaderMap, directives: &ResponseDirectives, rules: &Rules) -> bool {
    rules.set_cookie == SetCookie::Refuse
        && response.contains_key(SET_COOKIE)
        && !directives.private_fields.contains(&SET_COOKIE)
        && !directives.no_cache_fields.contains(&SET_COOKIE)
}

fn has_validator(fields: &HeaderMap) -> bool {
    fields.contains_key(ETAG) || date_of(fields, LAST_MODIFIED.as_str()).is_some()
}

/// The lifetime and where it comes from: the origin's word, a guess, or the operator's, in the order that `ttl_mode` sets.
fn lifetime(
    exchange: &Exchange<'_>,
    directives: &ResponseDirectives,
    rules: &Rules,
) -> (Duration, LifetimeSource) {
    let by_operator = operators_lifetime(exchange.status, rules).map(|ttl| (ttl, LifetimeSource::Operator));
    let by_origin = stated_lifetime(exchange, directives);
    let by_guess = || heuristic_lifetime(exchange, directives, rules);
    let chosen = match rules.ttl_mode {
        TtlMode::Override => by_operator.or(by_origin).or_else(by_guess),
        TtlMode::Default => by_origin.or(by_operator).or_else(by_guess),
        TtlMode::Cap => by_origin.or_else(by_guess).map(|stated| match cap(exchange.status, rules) {
            Some(cap) if cap < stated.0 => (cap, LifetimeSource::Operator),
            _ => stated,
        }),
    };
    let (lifetime, source) = chosen.unwrap_or((Duration::ZERO, LifetimeSource::None));
    (lifetime.min(LONGEST), source)
}

/// The lifetime the origin states, zero when it cannot be trusted (RFC 9111 §4.2.1): s-maxage, max-age, then Expires, which a targeted field hides.
fn stated_lifetime(
    exchange: &Exchange<'_>,
    directives: &ResponseDirectives,
) -> Option<(Duration, LifetimeSource)> {
    let seconds = |lifetime: Lifetime| match lifetime {
        Lifetime::Absent => None,
        Lifetime::Invalid => Some(Duration::ZERO),
        Lifetime::Seconds(seconds) => Some(Duration::from_secs(seconds)),
    };
    let told = |source: LifetimeSource| if directives.targeted { LifetimeSource::Targeted } else { source };
    let by_s_maxage = seconds(directives.s_maxage).map(|lifetime| (lifetime, told(LifetimeSource::SMaxAge)));
    let by_max_age = || seconds(directives.max_age).map(|lifetime| (lifetime, told(LifetimeSource::MaxAge)));
    let by_expires = || {
        let until_expiry = if directives.targeted { None } else { time_to_expiry(exchange) };
        until_expiry.map(|lifetime| (lifetime, LifetimeSource::Expires))
    };
    by_s_maxage.or_else(by_max_age).or_else(by_expires)
}

/// Expires less Date, or less the time of arrival when there is no Date. Several Expires, or one that is no date, mean it is stale (RFC 9111
/// §5.3).
fn time_to_expiry(exchange: &Exchange<'_>) -> Option<Duration> {
    if !exchange.response.contains_key(EXPIRES) {
        return None;
    }
    let from = date_of(exchange.response, DATE.as_str()).unwrap_or(exchange.received);
    let several = exchange.response.get_all(EXPIRES).iter().nth(1).is_some();
    let expires = date_of(exchange.response, EXPIRES.as_str()).filter(|_| !several);
    Some(expires.map_or(Duration::ZERO, |expires| expires.since(from)))
}

/// A tenth of the time it had not changed for when it was sent (RFC 9111 §4.2.2).
fn heuristic_lifetime(
    exchange: &Exchange<'_>,
    directives: &ResponseDirectives,
    rules: &Rules,
) -> Option<(Duration, LifetimeSource)> {
    if !rules.heuristic || !(is_heuristically_cacheable(exchange.status) || directives.public) {
        return None;
    }
    let modified = date_of(exchange.response, LAST_MODIFIED.as_str())?;
    let sent = date_of(exchange.response, DATE.as_str()).unwrap_or(exchange.received);
    Some((sent.since(modified) / 10, LifetimeSource::Heuristic))
}

/// What the operator gives an answer of this status that says nothing itself. The general `ttl` is for answers worth sharing: an error stays
/// out unless its status is named.
fn operators_lifetime(status: StatusCode, rules: &Rules) -> Option<Duration> {
    ttl_by_status(status, rules).or(rules.ttl.filter(|_| is_heuristically_cacheable(status)))
}

/// The most that is allowed, whatever the status.
fn cap(status: StatusCode, rules: &Rules) -> Option<Duration> {
    ttl_by_status(status, rules).or(rules.ttl)
}

fn ttl_by_status(status: StatusCode, rules: &Rules) -> Option<Duration> {
    let covers = |(first, last): (u16, u16)| (first..=last).contains(&status.as_u16());
    rules.ttl_by_status.iter().find(|(range, _)| covers(*range)).map(|(_, ttl)| *ttl)
}

/// The fields to send from storage: all but those of this hop, Age, and those that must not be replayed (RFC 9111 §3.1, §5.2.2.4, §5.2.2.7).
fn stored_fields(exchange: &Exchange<'_>, directives: &ResponseDirectives, rules: &Rules) -> HeaderMap {
    let named = connection_names(exchange.response);
    let left_out = |name: &HeaderName| {
        is_hop_by_hop(name)
            || *name == AGE
            || named.contains(name)
            || directives.private_fields.contains(name)
            || directives.no_cache_fields.contains(name)
            || (*name == SET_COOKIE && rules.set_cookie == SetCookie::Strip)
    };
    let mut fields = HeaderMap::with_capacity(exchange.response.len());
    for (name, value) in exchange.response {
        if !left_out(name) {
            fields.append(name, value.clone());
        }
    }
    // RFC 9110 §6.6.1: without a Date, those behind us could not tell its age.
    if !fields.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(date::format(exchange.received))
    {
        fields.insert(DATE, now);
    }
    fields
}

/// The value of Age in seconds, zero when there is none to believe.
fn age_value(response: &dyn Fields) -> Duration {
    let seconds = response.first(AGE.as_str()).and_then(|line| {
        let member = line.split(|&byte| matches!(byte, b',' | b';')).next()?;
        delta_seconds(trim(member))
    });
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The date in the first line of a field.
pub(super) fn date_of(fields: &dyn Fields, name: &str) -> Option<WallTime> {
    date::parse(trim(fields.first(name)?))
}

/// Whether a request has a field or a cookie by which the operator lets it pass the cache by.
pub fn passes_by(fields: &dyn Fields, bypass: &BypassRules) -> bool {
    let has_cookie = |name: &String| {
        let mut found = false;
        each_cookie(fields, name, |_| found = true);
        found
    };
    bypass.headers.iter().any(|name| fields.has(name.as_str())) || bypass.cookies.iter().any(has_cookie)
}

/// Whether a list has a member, in any case.
fn has_member(fields: &dyn Fields, name: &str, member: &[u8]) -> bool {
    let mut found = false;
    fields.each(name, &mut |line| {
        found |= line.split(|&byte| byte == b',').any(|other| trim(other).eq_ignore_ascii_case(member));
    });
    found
}

/// Whether a request announces content. A length that does not read counts as some.
fn has_content(fields: &dyn Fields) -> bool {
    let mut announced = fields.has(TRANSFER_ENCODING.as_str());
    fields.each(CONTENT_LENGTH.as_str(), &mut |length| {
        announced |= trim(length).is_empty() || trim(length).iter().any(|&digit| digit != b'0');
    });
    announced
}

/// Whether a request shows who sends it: by a token (RFC 9111 §3.5), or by a certificate (RFC 9440 §2.4), to which the same reason applies.
fn personal(request: &dyn Fields) -> bool {
    request.has(AUTHORIZATION.as_str()) || request.has("client-cert")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;
    use crate::cache::KeyRules;
    use crate::cache::key::KeyFacts;
    use proptest::prelude::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT: when answers arrive here unless told otherwise.
    const NOW: WallTime = WallTime::from_secs(784_111_777);
    const NOW_TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const IN_AN_HOUR: &str = "Sun, 06 Nov 1994 09:49:37 GMT";
    const AN_HOUR_AGO: &str = "Sun, 06 Nov 1994 07:49:37 GMT";
    /// A thousand seconds ago.
    const A_WHILE_AGO: &str = "Sun, 06 Nov 1994 08:32:57 GMT";

    type Lines<'a> = &'a [(&'static str, &'a str)];

    fn map(lines: Lines<'_>) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        lines.iter().map(line).fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    }

    fn key() -> Key {
        let facts =
            KeyFacts { https: true, host: "a", port: None, path: "/", query: None, fields: &Pairs(&[]) };
        Key::of(&facts, &KeyRules::default())
    }

    fn judge(status: u16, request: Lines<'_>, response: Lines<'_>, rules: &Rules) -> Result<Record, Refuse> {
        let (request, response) = (map(request), map(response));
        let exchange = Exchange {
            method: &Method::GET,
            request: &request,
            status: StatusCode::from_u16(status).unwrap(),
            response: &response,
            delimited: true,
            sent: NOW,
            received: NOW,
        };
        store(&exchange, &key(), rules)
    }

    fn answer(response: Lines<'_>) -> Result<Record, Refuse> {
        judge(200, &[], response, &Rules::default())
    }

    fn with(cache_control: &str) -> Result<Record, Refuse> {
        answer(&[("cache-control", cache_control)])
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_a_plain_get_or_head_is_looked_up() {
        let get = Method::GET;
        let unknown = Method::from_bytes(b"FOO").unwrap();
        for (method, fields, expected) in [
            (&get, &[][..], None),
            (&Method::HEAD, &[], None),
            (&get, &[("range", "bytes=0-1"), ("if-none-match", "\"a\""), ("if-range", "\"a\"")], None),
            (&get, &[("content-length", "0")], None),
            (&get, &[("upgrade", "h2c")], None),
            (&get, &[("authorization", "Bearer x"), ("cookie", "a=b")], None),
            (&Method::POST, &[], Some(Bypass::Method)),
            (&Method::OPTIONS, &[], Some(Bypass::Method)),
            (&unknown, &[], Some(Bypass::Method)),
            (&get, &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], Some(Bypass::Upgrade)),
            (&get, &[("content-length", "1")], Some(Bypass::Body)),
            (&get, &[("content-length", "x")], Some(Bypass::Body)),
            (&get, &[("content-length", "")], Some(Bypass::Body)),
            (&get, &[("transfer-encoding", "chunked")], Some(Bypass::Body)),
            (&get, &[("if-match", "\"a\"")], Some(Bypass::Precondition)),
            (&get, &[("if-unmodified-since", NOW_TEXT)], Some(Bypass::Precondition)),
        ] {
            let expected = expected.map_or(RequestUse::LookUp, RequestUse::Bypass);
            assert_eq!(request_use(method, &map(fields), &Rules::default()), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn requests_pass_the_cache_by_where_the_operator_says_so() {
        let bypass = BypassRules {
            headers: vec![HeaderName::from_static("x-preview")],
            cookies: vec!["session".to_owned()],
        };
        let rules = Rules { bypass, ..Rules::default() };
        for (fields, expected) in [
            (&[][..], false),
            (&[("x-preview", "")], true),
            (&[("cookie", "a=session; b=1")], false),
            (&[("cookie", "a=1; session=2")], true),
            (&[("cookie", "sessions=2")], false),
        ] {
            let found = request_use(&Method::GET, &map(fields), &rules);
            assert_eq!(found == RequestUse::Bypass(Bypass::Operator), expected, "{fields:?}");
        }
    }

    #[test]
    fn nothing_is_stored_that_rfc_9111_3_forbids() {
        let fresh = "max-age=60";
        for (status, request, response, expected) in [
            (103, &[][..], &[("cache-control", fresh)][..], Refuse::Status),
            (206, &[], &[("cache-control", fresh)], Refuse::Status),
            (304, &[], &[("cache-control", fresh)], Refuse::Status),
            (416, &[], &[("cache-control", fresh)], Refuse::Status),
            (200, &[], &[("cache-control", "max-age=60, no-store")], Refuse::NoStore),
            (200, &[("cache-control", "no-store")], &[("cache-control", fresh)], Refuse::RequestNoStore),
            (200, &[], &[("cache-control", "private, max-age=60")], Refuse::Private),
            (200, &[], &[("cache-control", "private, s-maxage=60")], Refuse::Private),
            (200, &[("authorization", "x")], &[("cache-control", fresh)], Refuse::Authorization),
            (
                200,
                &[("authorization", "x")],
                &[("expires", IN_AN_HOUR), ("etag", "\"a\"")],
                Refuse::Authorization,
            ),
            (
                200,
                &[("authorization", "x")],
                &[("cache-control", "proxy-revalidate, max-age=60")],
                Refuse::Authorization,
            ),
            (200, &[], &[("cache-control", fresh), ("set-cookie", "a=b")], Refuse::SetCookie),
            (200, &[], &[("cache-control", fresh), ("vary", "a, *")], Refuse::VaryAny),
            (200, &[], &[], Refuse::NoUse),
            (200, &[], &[("cache-control", "max-age=0")], Refuse::NoUse),
            (200, &[], &[("cache-control", "max-age=60"), ("age", "60")], Refuse::NoUse),
            (200, &[], &[("cache-control", "no-cache, max-age=60")], Refuse::NoUse),
            (200, &[], &[("expires", "0")], Refuse::NoUse),
            (302, &[], &[("etag", "\"a\"")], Refuse::Status),
            (500, &[], &[("last-modified", AN_HOUR_AGO)], Refuse::Status),
        ] {
            let found = judge(status, request, response, &Rules::default());
            assert_eq!(found, Err(expected), "{status} {request:?} {response:?}");
        }
    }

    #[test]
    fn only_answers_to_get_whose_end_is_certain_are_stored() {
        let response = map(&[("cache-control", "max-age=60")]);
        let nothing = HeaderMap::new();
        let base = |method: &'static Method, delimited| Exchange {
            method,
            request: &nothing,
            status: StatusCode::OK,
            response: &response,
            delimited,
            sent: NOW,
            received: NOW,
        };
        assert!(store(&base(&Method::GET, true), &key(), &Rules::default()).is_ok());
        for (method, delimited, expected) in [
            (&Method::HEAD, true, Refuse::Method),
            (&Method::POST, true, Refuse::Method),
            (&Method::GET, false, Refuse::Undelimited),
        ] {
            let found = store(&base(method, delimited), &key(), &Rules::default());
            assert_eq!(found, Err(expected), "{method} {delimited}");
        }
    }

    #[test]
    fn any_final_status_with_explicit_freshness_is_stored() {
        for status in [200, 201, 202, 203, 204, 299, 302, 307, 400, 403, 404, 499, 500, 502, 503, 504, 599] {
            for line in
                [("cache-control", "max-age=60"), ("cache-control", "s-maxage=60"), ("expires", IN_AN_HOUR)]
            {
                assert!(judge(status, &[], &[line], &Rules::default()).is_ok(), "{status} {line:?}");
            }
        }
    }

    #[test]
    fn must_understand_overrides_no_store_for_a_known_status_and_forbids_an_unknown_one() {
        let lines: Lines<'_> = &[("cache-control", "max-age=60, must-understand, no-store")];
        assert!(judge(200, &[], lines, &Rules::default()).is_ok());
        assert_eq!(judge(599, &[], lines, &Rules::default()), Err(Refuse::Status));
        let without: Lines<'_> = &[("cache-control", "max-age=60, must-understand")];
        assert_eq!(judge(599, &[], without, &Rules::default()), Err(Refuse::Status));
    }

    #[test]
    fn an_authorised_answer_is_stored_only_when_it_says_so_rfc_9111_3_5() {
        for cache_control in
            ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60", "public, max-age=60"]
        {
            let found =
                judge(200, &[("authorization", "x")], &[("cache-control", cache_control)], &Rules::default());
            assert!(found.unwrap().reuse.authorised, "{cache_control}");
        }
        for (targeted, stored) in [("public, max-age=60", true), ("max-age=60", false), ("s-maxage=60", true)]
        {
            let response = [("cdn-cache-control", targeted), ("cache-control", "public, max-age=60")];
            let found = judge(200, &[("authorization", "x")], &response, &Rules::default());
            assert_eq!(found.is_ok(), stored, "{targeted}");
        }
        let operator = Rules { ttl: Some(secs(60)), ttl_mode: TtlMode::Override, ..Rules::default() };
        let found = judge(200, &[("authorization", "x")], &[], &operator);
        assert_eq!(found, Err(Refuse::Authorization), "no lifetime of the operator's opens it");
        assert!(!with("max-age=60").unwrap().reuse.authorised);
    }

    #[test]
    fn the_lifetime_is_the_first_of_s_maxage_max_age_and_expires_less_date() {
        use LifetimeSource::{Expires, MaxAge, SMaxAge, Targeted};
        for (response, lifetime, source) in [
            (&[("cache-control", "max-age=60")][..], 60, MaxAge),
            (&[("cache-control", "max-age=60, s-maxage=30")], 30, SMaxAge),
            (&[("cache-control", "s-maxage=90"), ("expires", IN_AN_HOUR)], 90, SMaxAge),
            (&[("cache-control", "max-age=60"), ("expires", AN_HOUR_AGO)], 60, MaxAge),
            (&[("expires", IN_AN_HOUR)], 3600, Expires),
            (&[("expires", IN_AN_HOUR), ("date", NOW_TEXT)], 3600, Expires),
            (&[("expires", IN_AN_HOUR), ("date", A_WHILE_AGO)], 4600, Expires),
            (&[("expires", IN_AN_HOUR), ("date", "yesterday")], 3600, Expires),
            (&[("cache-control", "max-age=99999999999")], 1 << 31, MaxAge),
            (&[("cdn-cache-control", "max-age=10"), ("cache-control", "no-store, max-age=60")], 10, Targeted),
            (&[("cdn-cache-control", "&&"), ("cache-control", "max-age=60")], 60, MaxAge),
        ] {
            let record = answer(response).unwrap();
            assert_eq!((record.lifetime, record.source), (secs(lifetime), source), "{response:?}");
        }
    }

    #[test]
    fn freshness_that_cannot_be_trusted_is_none_rfc_9111_4_2_1() {
        for response in [
            &[("cache-control", "max-age=x"), ("expires", IN_AN_HOUR), ("etag", "\"a\"")][..],
            &[("cache-control", "max-age=60, max-age=30"), ("etag", "\"a\"")],
            &[("cache-control", "s-maxage=-1, max-age=60"), ("etag", "\"a\"")],
            &[("expires", "0"), ("etag", "\"a\"")],
            &[("expires", ""), ("etag", "\"a\"")],
            &[("expires", IN_AN_HOUR), ("expires", IN_AN_HOUR), ("etag", "\"a\"")],
            &[("expires", AN_HOUR_AGO), ("etag", "\"a\"")],
            &[("expires", "0"), ("last-modified", AN_HOUR_AGO)],
        ] {
            let record = answer(response).unwrap();
            assert_eq!(record.lifetime, Duration::ZERO, "{response:?}");
            assert!(!record.worth(NOW).is_zero(), "kept for its validator: {response:?}");
        }
    }

    #[test]
    fn a_targeted_field_hides_expires_rfc_9213_2_2() {
        let lines: Lines<'_> = &[("cdn-cache-control", "public"), ("expires", IN_AN_HOUR), ("etag", "\"a\"")];
        let record = answer(lines).unwrap();
        assert_eq!((record.lifetime, record.source), (Duration::ZERO, LifetimeSource::None));
    }

    #[test]
    fn a_tenth_of_its_age_is_guessed_for_some_statuses_only_rfc_9111_4_2_2() {
        let modified: Lines<'_> = &[("last-modified", A_WHILE_AGO), ("date", NOW_TEXT)];
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            let record = judge(status, &[], modified, &Rules::default()).unwrap();
            assert_eq!((record.lifetime, record.source), (secs(100), LifetimeSource::Heuristic), "{status}");
        }
        for status in [201, 202, 302, 403, 502, 503, 504, 599] {
            assert_eq!(judge(status, &[], modified, &Rules::default()), Err(Refuse::Status), "{status}");
            let public = [modified, &[("cache-control", "public")]].concat();
            assert!(judge(status, &[], &public, &Rules::default()).is_ok(), "{status} public");
        }
        let off = Rules { heuristic: false, ..Rules::default() };
        assert_eq!(judge(200, &[], modified, &off).unwrap().source, LifetimeSource::None);
        let future = answer(&[("last-modified", IN_AN_HOUR)]).unwrap();
        assert_eq!(future.lifetime, Duration::ZERO);
    }

    #[test]
    fn the_operators_ttl_stands_where_its_mode_says() {
        use LifetimeSource::{Heuristic, MaxAge, None as Nothing, Operator};
        let tag = ("etag", "\"a\"");
        let stated: Lines<'_> = &[("cache-control", "max-age=100"), tag];
        let guessed: Lines<'_> = &[("last-modified", A_WHILE_AGO), ("date", NOW_TEXT)];
        let silent: Lines<'_> = &[tag];
        for (mode, ttl, response, lifetime, source) in [
            (TtlMode::Default, 60, stated, 100, MaxAge),
            (TtlMode::Default, 60, guessed, 60, Operator),
            (TtlMode::Default, 60, silent, 60, Operator),
            (TtlMode::Default, 60, &[("cache-control", "max-age=x"), tag], 0, MaxAge),
            (TtlMode::Override, 60, stated, 60, Operator),
            (TtlMode::Override, 600, &[("expires", "0")], 600, Operator),
            (TtlMode::Override, 60, silent, 60, Operator),
            (TtlMode::Cap, 60, stated, 60, Operator),
            (TtlMode::Cap, 600, stated, 100, MaxAge),
            (TtlMode::Cap, 600, guessed, 100, Heuristic),
            (TtlMode::Cap, 60, guessed, 60, Operator),
            (TtlMode::Cap, 60, silent, 0, Nothing),
        ] {
            let rules = Rules { ttl: Some(secs(ttl)), ttl_mode: mode, ..Rules::default() };
            let record = judge(200, &[], response, &rules).unwrap();
            assert_eq!((record.lifetime, record.source), (secs(lifetime), source), "{mode:?} {response:?}");
        }
    }

    #[test]
    fn no_ttl_of_the_operators_stores_what_must_not_be() {
        let rules = Rules {
            ttl: Some(secs(60)),
            ttl_mode: TtlMode::Override,
            ttl_by_status: vec![((100, 599), secs(60))],
            ..Rules::default()
        };
        for (status, response, expected) in [
            (200, ("cache-control", "no-store"), Refuse::NoStore),
            (200, ("cache-control", "private"), Refuse::Private),
            (200, ("set-cookie", "a=b"), Refuse::SetCookie),
            (200, ("vary", "*"), Refuse::VaryAny),
            (206, ("etag", "\"a\""), Refuse::Status),
            (304, ("etag", "\"a\""), Refuse::Status),
            (416, ("etag", "\"a\""), Refuse::Status),
        ] {
            assert_eq!(judge(status, &[], &[response], &rules), Err(expected), "{status} {response:?}");
        }
        let record = judge(200, &[], &[("cache-control", "no-cache"), ("etag", "\"a\"")], &rules).unwrap();
        assert!(record.reuse.always_validate, "no-cache is no lifetime, so nothing overrides it");
    }

    #[test]
    fn the_general_ttl_is_not_for_errors_but_a_status_can_have_its_own() {
        let rules = Rules {
            ttl: Some(secs(60)),
            ttl_by_status: vec![((404, 404), secs(5)), ((500, 504), secs(1)), ((404, 410), secs(7))],
            ..Rules::default()
        };
        for (status, expected) in [
            (200, Ok(60)),
            (301, Ok(60)),
            (404, Ok(5)),
            (410, Ok(7)),
            (500, Ok(1)),
            (504, Ok(1)),
            (505, Err(Refuse::Status)),
            (302, Err(Refuse::Status)),
            (201, Err(Refuse::Status)),
        ] {
            let found = judge(status, &[], &[], &rules).map(|record| record.lifetime.as_secs());
            assert_eq!(found, expected, "{status}");
        }
    }

    #[test]
    fn what_must_not_be_replayed_is_not_stored() {
        let record = answer(&[
            ("cache-control", "max-age=9999, private=\"x-p\", no-cache=\"x-n\""),
            ("connection", "close, X-Named"),
            ("x-named", "1"),
            ("keep-alive", "1"),
            ("proxy-authentication-info", "1"),
            ("transfer-encoding", "chunked"),
            ("age", "5"),
            ("x-p", "1"),
            ("x-n", "1"),
            ("x-kept", "1"),
            ("x-kept", "2"),
            ("cache-status", "Up; hit"),
            ("content-range", "bytes 0-1/2"),
            ("date", AN_HOUR_AGO),
        ])
        .unwrap();
        let mut names: Vec<_> = record.fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "cache-status", "content-range", "date", "x-kept"]);
        assert_eq!(record.fields.get_all("x-kept").iter().count(), 2);
        assert_eq!(record.fields["date"], AN_HOUR_AGO);
        assert!(!record.reuse.always_validate, "a no-cache of some fields is not one of the whole");
    }

    #[test]
    fn hop_by_hop_fields_are_known_by_name() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_hop_by_hop(&HeaderName::from_static("content-length")));
    }

    #[test]
    fn a_missing_date_is_the_time_of_arrival_rfc_9110_6_6_1() {
        assert_eq!(with("max-age=60").unwrap().fields["date"], NOW_TEXT);
    }

    #[test]
    fn set_cookie_is_refused_stripped_or_stored_as_the_operator_says() {
        let lines: Lines<'_> =
            &[("cache-control", "max-age=60"), ("set-cookie", "a=b"), ("set-cookie", "c=d")];
        for (rule, expected) in [
            (SetCookie::Refuse, Err(Refuse::SetCookie)),
            (SetCookie::Strip, Ok(0)),
            (SetCookie::Store, Ok(2)),
        ] {
            let rules = Rules { set_cookie: rule, ..Rules::default() };
            let found = judge(200, &[], lines, &rules);
            let cookies = found.map(|record| record.fields.get_all(SET_COOKIE).iter().count());
            assert_eq!(cookies, expected, "{rule:?}");
        }
        for excepted in ["max-age=60, private=\"set-cookie\"", "max-age=60, no-cache=Set-Cookie"] {
            let record = answer(&[("cache-control", excepted), ("set-cookie", "a=b")]).unwrap();
            assert!(!record.fields.contains_key(SET_COOKIE), "{excepted}");
        }
    }

    #[test]
    fn stale_is_forbidden_by_the_origin_else_allowed_by_it_else_by_the_operator() {
        let rules = Rules { stale_while_revalidate: secs(10), stale_if_error: secs(20), ..Rules::default() };
        for (cache_control, expected) in [
            ("max-age=60", (false, false, 10, 20)),
            ("max-age=60, stale-while-revalidate=1", (false, false, 1, 20)),
            ("max-age=60, stale-if-error=0", (false, false, 10, 0)),
            ("max-age=60, stale-if-error=99999999999", (false, false, 10, 1 << 31)),
            ("max-age=60, must-revalidate", (false, true, 0, 0)),
            ("max-age=60, proxy-revalidate, stale-if-error=5", (false, true, 0, 0)),
            ("s-maxage=60, stale-while-revalidate=5", (false, true, 0, 0)),
            ("max-age=60, no-cache", (true, false, 0, 0)),
        ] {
            let lines = [("cache-control", cache_control), ("etag", "\"a\"")];
            let record = judge(200, &[], &lines, &rules).unwrap();
            let found = (
                record.reuse.always_validate,
                record.reuse.never_stale,
                record.stale_while_revalidate.as_secs(),
                record.stale_if_error.as_secs(),
            );
            assert_eq!(found, expected, "{cache_control}");
        }
    }

    #[test]
    fn stale_has_a_use_without_a_validator_when_it_may_be_served() {
        assert!(with("max-age=0, stale-while-revalidate=60").is_ok());
        assert!(with("max-age=0, stale-if-error=60").is_ok());
        assert_eq!(with("max-age=0, must-revalidate, stale-if-error=60"), Err(Refuse::NoUse));
    }

    #[test]
    fn what_has_a_validator_is_kept_past_freshness_even_when_it_arrives_stale() {
        let keep = Rules::default().keep;
        let worth = |lines: Lines<'_>| answer(lines).unwrap().worth(NOW);
        assert_eq!(worth(&[("cache-control", "max-age=60")]), secs(60));
        assert_eq!(worth(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]), secs(60) + keep);
        assert_eq!(worth(&[("cache-control", "max-age=60"), ("etag", "\"a\""), ("age", "99999")]), keep);
        assert_eq!(worth(&[("etag", "W/\"a\""), ("date", AN_HOUR_AGO)]), keep);
    }

    #[test]
    fn the_varying_fields_of_the_request_are_kept() {
        let response = [("cache-control", "max-age=60"), ("vary", "X-B, x-a"), ("vary", "x-c")];
        let record = judge(200, &[("x-a", "1 , 2"), ("x-c", "")], &response, &Rules::default()).unwrap();
        assert_eq!(record.vary, ["x-a", "x-b", "x-c"]);
        assert_eq!(record.variant.0, [Some(Box::from(&b"1,2"[..])), None, Some(Box::from(&b""[..]))]);
    }

    #[test]
    fn the_age_on_arrival_is_the_greater_of_what_date_and_age_tell_rfc_9111_4_2_3() {
        for (lines, delay_ms, expected_ms) in [
            (&[][..], 0, 0),
            (&[], 300, 300),
            (&[("age", "10")], 300, 10_300),
            (&[("date", NOW_TEXT)], 0, 0),
            (&[("date", A_WHILE_AGO)], 300, 1_000_000),
            (&[("date", A_WHILE_AGO), ("age", "10")], 0, 1_000_000),
            (&[("date", A_WHILE_AGO), ("age", "2000")], 300, 2_000_300),
            (&[("date", IN_AN_HOUR), ("age", "10")], 0, 10_000),
            (&[("date", "yesterday")], 0, 0),
            (&[("age", " 007 ")], 0, 7_000),
            // The first member of the first line, without its parameters.
            (&[("age", "7, 0")], 0, 7_000),
            (&[("age", "0, 7")], 0, 0),
            (&[("age", "7"), ("age", "9")], 0, 7_000),
            (&[("age", "7;foo=bar")], 0, 7_000),
            // Not digits: ignored.
            (&[("age", "")], 0, 0),
            (&[("age", "abc")], 0, 0),
            (&[("age", "-7")], 0, 0),
            (&[("age", "7.0")], 0, 0),
            (&[("age", "\"7\"")], 0, 0),
            // Overflow.
            (&[("age", "2147483648")], 0, (1 << 31) * 1000),
            (&[("age", "99999999999999999999999")], 0, (1 << 31) * 1000),
        ] {
            let sent = NOW.minus(Duration::from_millis(delay_ms));
            let found = initial_age(&map(lines), sent, NOW);
            assert_eq!(found, Duration::from_millis(expected_ms), "{lines:?} {delay_ms}");
        }
    }

    #[test]
    fn an_answer_of_this_second_has_no_age_whatever_the_millisecond() {
        let arrival = WallTime::from_millis(NOW.as_millis() + 999);
        assert_eq!(initial_age(&map(&[("date", NOW_TEXT)]), arrival, arrival), Duration::ZERO);
    }

    fn any_line() -> impl Strategy<Value = (&'static str, String)> {
        let directive = prop_oneof![
            "(max-age|s-maxage|stale-if-error)=[0-9]{1,12}",
            "(no-store|no-cache|private|public|must-revalidate|must-understand)(=\"x-a\")?",
        ];
        prop_oneof![
            proptest::collection::vec(directive, 0..4).prop_map(|list| ("cache-control", list.join(", "))),
            "[0-9]{1,12}".prop_map(|age| ("age", age)),
            Just(("etag", "\"a\"".to_owned())),
            Just(("set-cookie", "a=b".to_owned())),
            Just(("x-a", "1".to_owned())),
            Just(("connection", "x-a".to_owned())),
            "[ -~]{0,12}".prop_map(|text| ("expires", text)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_stored_never_breaks_a_prohibition(
            status in 200u16..600,
            authorised in any::<bool>(),
            lines in proptest::collection::vec(any_line(), 0..5),
            ttl in proptest::option::of(0u64..100),
            mode in prop_oneof![Just(TtlMode::Default), Just(TtlMode::Override), Just(TtlMode::Cap)],
        ) {
            let rules = Rules { ttl: ttl.map(secs), ttl_mode: mode, ..Rules::default() };
            let request: Lines<'_> = if authorised { &[("authorization", "x")] } else { &[] };
            let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
            if let Ok(record) = judge(status, request, &lines, &rules) {
                let said = directive::response(&map(&lines), &[]);
                prop_assert!(!said.private && (!said.no_store || said.must_understand));
                prop_assert!(!authorised || allows_sharing(&said));
                prop_assert!(!record.fields.contains_key(SET_COOKIE) && !record.fields.contains_key(AGE));
                prop_assert!(!record.fields.contains_key(CONNECTION));
                prop_assert_eq!(record.reuse.always_validate, said.no_cache);
                prop_assert!(record.lifetime <= LONGEST && !record.worth(NOW).is_zero());
                prop_assert!(!matches!(status, 206 | 304 | 416));
            }
        }
    }
}
