//! Vary: which request fields chose this answer, and their values in a form that compares (RFC 9111 §4.1).

use http::HeaderName;

use crate::base::fields::Fields;

/// What an answer's Vary says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// Nothing: one answer for all.
    None,
    /// `*`: never reuse.
    Any,
    /// These request fields, in lower case, sorted, without repeats.
    Fields(Vec<HeaderName>),
}

/// The normalised values of the varying fields of one request: absent differs from empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Variant(pub Vec<Option<Box<[u8]>>>);

/// Reads all Vary lines of an answer.
pub fn of_response(_fields: &dyn Fields) -> Vary {
    unimplemented!()
}

/// The variant a request asks for, in the order of `names`.
pub fn of_request(_names: &[HeaderName], _fields: &dyn Fields) -> Variant {
    unimplemented!()
}
