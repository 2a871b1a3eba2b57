//! May it pass? Who the client is, and whether the request is one we take.
//!
//! Not here: sending responses.

mod authority;
pub mod chunks;
pub mod client;
pub mod crowd;
mod framing;
pub mod purger;
pub mod request;
mod target;
