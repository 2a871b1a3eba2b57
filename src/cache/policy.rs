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
use super::{Rules, SetCookie, TtlMode, date};
use crate::base::clock::WallTime;
use crate::base::fields::Fields;

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
    /// A GET or HEAD with content, whose meaning is undefined (RFC 9110 §9.3.1).
    Body,
    /// It states a precondition on the origin's state (`If-Match`, `If-Unmodified-Since`) that only the origin can judge.
    Precondition,
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
pub fn request_use(method: &Method, fields: &dyn Fields) -> RequestUse {
    let bypass = if !matches!(*method, Method::GET | Method::HEAD) {
        Bypass::Method
    } else if fields.has(UPGRADE.as_str()) && has_member(fields, CONNECTION.as_str(), b"upgrade") {
        Bypass::Upgrade
    } else if has_content(fields) {
        Bypass::Body
    } else if fields.has(IF_MATCH.as_str()) || fields.has(IF_UNMODIFIED_SINCE.as_str()) {
        Bypass::Precondition
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
    let directives = directive::response(exchange.response);
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
        (Refuse::Authorization, exchange.request.has(AUTHORIZATION.as_str()) && !allows_sharing(directives)),
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
        authorised: exchange.request.has(AUTHORIZATION.as_str()),
    };
    let window = |stated: Option<u64>, of_operator: Duration| match stated {
        _ if reuse.never_stale || reuse.always_validate => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds),
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
