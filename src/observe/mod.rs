//! What happened: metrics, the access log, the operator's endpoints.
//!
//! Not here: deciding. Names of metrics are in [`names`], each once, with unit and help.

pub mod access;
pub mod admin;
pub mod metrics;
pub mod names;
mod series;
pub mod tls;
