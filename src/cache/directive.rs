//! What Cache-Control and its kin say: text to values.

use http::HeaderName;

use crate::base::fields::Fields;

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

/// The directives of an answer that count for a shared cache: those of a valid `CDN-Cache-Control` (RFC 9213) when there is one, else of
/// Cache-Control (RFC 9111 §5.2.2). Lifetimes are in seconds.
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
pub fn request(_fields: &dyn Fields) -> RequestDirectives {
    unimplemented!()
}

/// Reads an answer's directives.
pub fn response(_fields: &dyn Fields) -> ResponseDirectives {
    unimplemented!()
}
