//! The Redis tier: one round trip per hit, a budget for every operation, a breaker, writes behind.

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::observe::metrics::RedisMetrics;
use crate::plan;

/// The connection to Redis that all caches of the process share.
pub struct RedisTier {}

impl RedisTier {
    /// Prepares the tier; connects on first use, so that an absent Redis never delays the start. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL cannot be read; the text does not contain it, since it may hold a password.
    pub fn new(_plan: &plan::Redis, _clock: Arc<Clock>, _metrics: RedisMetrics) -> Result<Arc<Self>, String> {
        unimplemented!()
    }

    /// Whether the last operation succeeded.
    pub fn is_up(&self) -> bool {
        unimplemented!()
    }

    /// Waits until every write queued so far has been made or given up: for an orderly shutdown and for tests.
    pub async fn flush(&self) {
        unimplemented!()
    }
}
