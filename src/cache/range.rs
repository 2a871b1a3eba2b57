//! Parts of a stored answer (RFC 9110 §14).

use http::HeaderMap;

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
pub fn select(_request: &dyn Fields, _stored: &HeaderMap, _length: u64) -> Selection {
    unimplemented!()
}

/// `bytes 0-4/10`.
pub fn content_range(_part: Part, _length: u64) -> String {
    unimplemented!()
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
pub fn multipart(_parts: &[Part], _length: u64, _content_type: Option<&[u8]>, _boundary: &str) -> Multipart {
    unimplemented!()
}
