//! The client's own conditions, answered from a stored answer (RFC 9110 §13, RFC 9111 §4.3.2).

use http::{HeaderMap, StatusCode};

use crate::base::fields::Fields;

/// Whether a 304 answers a GET or HEAD: If-None-Match by weak comparison, else If-Modified-Since, against a stored 200.
pub fn not_modified(_request: &dyn Fields, _status: StatusCode, _stored: &HeaderMap) -> bool {
    unimplemented!()
}

/// The fields of a 304 made from a stored answer (RFC 9110 §15.4.5): Cache-Control, Content-Location, Date, ETag, Expires, Vary, and those the caller adds.
pub fn fields_of_304(_stored: &HeaderMap) -> HeaderMap {
    unimplemented!()
}
