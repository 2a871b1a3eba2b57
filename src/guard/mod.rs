//! May it pass? Who the client is, and whether the request is one we take.
//!
//! Not here: sending responses.

pub mod client;
pub mod request;
