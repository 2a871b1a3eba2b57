//! When endpoints are checked: one loop per endpoint, each wait jittered. What a check asks is the plan's to say and the caller's to do.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::Group;
use crate::plan::HealthCheck;

/// Makes one health check. Implemented where sockets are spoken.
#[async_trait]
pub trait Check: Send + Sync + 'static {
    /// Asks the endpoint once. The caller bounds the whole by the plan's timeout.
    ///
    /// # Errors
    /// Why it counts as a failure, for the log.
    async fn check(&self, addr: SocketAddr, name: &str, check: &HealthCheck) -> Result<(), String>;
}

/// Checks and resolves all endpoints of a group until `stop` is true.
pub async fn run(_group: Arc<Group>, _check: Arc<dyn Check>, _stop: tokio::sync::watch::Receiver<bool>) {
    unimplemented!()
}
