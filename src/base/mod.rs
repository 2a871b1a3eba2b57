//! What every layer stands on: time, chance, names, units, addresses of Redis, and a view of header fields.
//!
//! Nothing here imports anything of this crate.

pub mod clock;
pub mod dice;
pub mod fields;
pub mod name;
pub mod redis_url;
pub mod unit;
