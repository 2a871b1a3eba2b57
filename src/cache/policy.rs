//! May an answer be stored, and how long is it fresh? (RFC 9111 §3, §4.2)

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::Rules;
use super::key::Key;
use super::record::Record;
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
pub fn request_use(_method: &Method, _fields: &dyn Fields) -> RequestUse {
    unimplemented!()
}

/// Judges an answer and makes the record to store.
///
/// # Errors
/// The first reason why it is not stored.
pub fn store(_exchange: &Exchange<'_>, _key: &Key, _rules: &Rules) -> Result<Record, Refuse> {
    unimplemented!()
}

/// The age of an answer on arrival: corrected_initial_age of RFC 9111 §4.2.3.
pub fn initial_age(_response: &dyn Fields, _sent: WallTime, _received: WallTime) -> Duration {
    unimplemented!()
}
