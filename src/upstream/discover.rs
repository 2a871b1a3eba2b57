//! Names to addresses: looked up at the start and again on a timer. A name that does not resolve leaves its endpoint unusable and never keeps
//! the gateway from starting.
//!
//! A name is one endpoint, however many addresses it has: they are used in rotation, and share its weight, counters and health. When a later
//! look-up fails, the addresses of the last good one stay in use.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Endpoint, Group};

/// The time between two look-ups of a name.
pub const EVERY: Duration = Duration::from_secs(10);

/// The time between two look-ups of a name that has not resolved yet: containers started together learn of each other within a second or
/// two, and the endpoint serves nobody until then.
pub const UNRESOLVED_EVERY: Duration = Duration::from_secs(1);

/// How long one look-up may take. The system's resolver may try for half a minute, and the first health check waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The address written in the plan, when it is one and not a name.
pub(super) fn literal(name: &str) -> Option<SocketAddr> {
    name.parse().ok()
}

/// Answers what a name stands for.
#[async_trait]
pub(super) trait Resolve: Send + Sync + 'static {
    /// The addresses of `name` (`host:port`).
    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver: the hosts file, then DNS, as the machine is set up.
pub(super) struct System;

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(name).await?.collect())
    }
}

/// Keeps the addresses of one endpoint up to date.
pub(super) struct Lookup {
    group: Arc<Group>,
    endpoint: Arc<Endpoint>,
    resolver: Arc<dyn Resolve>,
    /// The last look-up failed: told once, not every ten seconds.
    failing: bool,
}

impl Lookup {
    /// `None` when the endpoint is given by its address: there is nothing to look up.
    pub(super) fn of(
        group: &Arc<Group>,
        endpoint: &Arc<Endpoint>,
        resolver: &Arc<dyn Resolve>,
    ) -> Option<Self> {
        literal(endpoint.name()).is_none().then(|| Self {
            group: Arc::clone(group),
            endpoint: Arc::clone(endpoint),
            resolver: Arc::clone(resolver),
            failing: false,
        })
    }

    /// Looks the name up once.
    pub(super) async fn once(&mut self) {
        let answer = match timeout(PATIENCE, self.resolver.resolve(self.endpoint.name())).await {
            Ok(Ok(addrs)) if addrs.is_empty() => Err("it has no address".to_owned()),
            Ok(Ok(addrs)) => Ok(addrs),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        match answer {
            Ok(addrs) => self.found(&addrs),
            Err(why) => self.failed(&why),
        }
    }

    /// Looks the name up again and again.
    pub(super) async fn forever(&mut self) {
        loop {
            sleep(if self.endpoint.addr().is_some() { EVERY } else { UNRESOLVED_EVERY }).await;
            self.once().await;
        }
    }

    fn found(&mut self, addrs: &[SocketAddr]) {
        self.failing = false;
        if self.group.set_addrs(self.endpoint.index(), addrs) {
            info!(upstream = %self.group.name(), endpoint = self.endpoint.name(), ?addrs, "endpoint resolved");
        }
    }

    fn failed(&mut self, why: &str) {
        self.endpoint.note(|notes| notes.name = why.to_owned());
        if !std::mem::replace(&mut self.failing, true) {
            let still_used = self.endpoint.addr();
            warn!(
                upstream = %self.group.name(), endpoint = self.endpoint.name(), why, ?still_used,
                "endpoint's name does not resolve"
            );
        }
    }
}
