//! Validating a stored answer and freshening it (RFC 9111 §4.3).

use http::HeaderMap;

use super::Rules;
use super::policy::Exchange;
use super::record::Record;

/// Puts the stored validators into a request to the origin: If-None-Match and If-Modified-Since (RFC 9111 §4.3.1). The client's own conditions and ranges
/// are removed.
pub fn add_validators(_request: &mut HeaderMap, _record: &Record) {
    unimplemented!()
}

/// Removes the client's conditions and ranges from a request whose whole answer is to be stored.
pub fn remove_conditions(_request: &mut HeaderMap) {
    unimplemented!()
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
pub fn apply_304(_record: &Record, _exchange: &Exchange<'_>, _rules: &Rules) -> Freshened {
    unimplemented!()
}
