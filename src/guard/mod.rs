//! May it pass? Who the client is, whether the request is one we take, and whether it may ask: from here, so often, by this name.
//!
//! Not here: sending responses.

pub mod access;
pub mod auth;
mod authority;
pub mod chunks;
pub mod client;
pub mod cors;
pub mod crowd;
mod framing;
pub mod purger;
pub mod rate;
pub mod request;
mod target;
