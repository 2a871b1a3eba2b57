//! The operator's endpoints: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::metrics::Metrics;

/// What the operator's listener answers from.
pub struct Admin {
    /// The metrics to show.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway takes requests: false while draining.
    pub ready: Arc<AtomicBool>,
}

/// An answer of the operator's listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Its Content-Type.
    pub content_type: &'static str,
    /// The content.
    pub body: String,
}

impl Admin {
    /// Answers a request for `path`.
    pub fn answer(&self, _method: &str, _path: &str) -> Answer {
        unimplemented!()
    }
}
