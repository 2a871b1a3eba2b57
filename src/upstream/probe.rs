//! When endpoints are checked: one loop per endpoint, each wait jittered. What a check asks is the plan's to say and the caller's to do.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::discover::{Lookup, Resolve, System};
use super::{Endpoint, Group};
use crate::balance::check::Unwell;
use crate::balance::health::Change;
use crate::base::dice::Dice;
use crate::base::unit::show_duration;
use crate::plan::Health;

/// Makes one health check. Implemented where sockets are spoken.
#[async_trait]
pub trait Check: Send + Sync + 'static {
    /// Asks the endpoint once, at `addr`. The caller bounds the whole by the plan's timeout.
    ///
    /// # Errors
    /// Why it counts as a failure.
    async fn check(&self, addr: SocketAddr, name: &str, health: &Health) -> Result<(), Unwell>;
}

/// Checks and resolves all endpoints of a group until `stop` is true, or can never become it because its sender is gone. A check or look-up
/// under way is dropped then, not waited for.
///
/// Must be running for every group with names among its endpoints, health checks or not: it is what resolves them.
pub async fn run(group: Arc<Group>, check: Arc<dyn Check>, stop: watch::Receiver<bool>) {
    run_with(group, check, Arc::new(System), stop).await;
}

async fn run_with(
    group: Arc<Group>,
    check: Arc<dyn Check>,
    resolver: Arc<dyn Resolve>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    for endpoint in group.endpoints() {
        let lookup = Lookup::of(&group, endpoint, &resolver);
        tasks.spawn(tend(Arc::clone(&group), Arc::clone(endpoint), lookup, Arc::clone(&check)));
    }
    // An error says that the sender is gone: reason enough to stop.
    let _ = stop.wait_for(|stop| *stop).await;
    tasks.shutdown().await;
}

/// Looks after one endpoint. The first check waits for the first look-up: an endpoint must not start with a failure for having a name.
async fn tend(group: Arc<Group>, endpoint: Arc<Endpoint>, mut lookup: Option<Lookup>, check: Arc<dyn Check>) {
    if let Some(lookup) = &mut lookup {
        lookup.once().await;
    }
    let lookups = async {
        if let Some(lookup) = &mut lookup {
            lookup.forever().await;
        }
    };
    let checks = async {
        if let Some(health) = &group.plan().health {
            check_forever(&group, &endpoint, health, &*check).await;
        }
    };
    tokio::join!(lookups, checks);
}

async fn check_forever(group: &Arc<Group>, endpoint: &Endpoint, health: &Health, check: &dyn Check) {
    let mut dice = Dice::from_entropy();
    loop {
        let result = match timeout(health.timeout, ask(endpoint, health, check)).await {
            Ok(result) => result,
            Err(_) => Err(Unwell::Timeout(show_duration(health.timeout))),
        };
        record(group, endpoint, result);
        let every = if endpoint.is_up() { health.every } else { health.every_down };
        sleep(jittered(every, &mut dice)).await;
    }
}

/// Asks the endpoint once; when it fails and the name has an address of the other family, asks there too: the instance may listen on one
/// family only.
async fn ask(endpoint: &Endpoint, health: &Health, check: &dyn Check) -> Result<(), Unwell> {
    let addr = endpoint.next_addr().ok_or(Unwell::Unresolved)?;
    let failure = match ask_at(addr, endpoint, health, check).await {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    let other = endpoint.other_family(addr).ok_or_else(|| failure.clone())?;
    ask_at(other, endpoint, health, check).await.map_err(|_| failure)?;
    endpoint.connect_failed(addr);
    Ok(())
}

/// A check that panics has failed. If it ended the loop, an endpoint that is down at that moment would stay down for good.
async fn ask_at(
    mut addr: SocketAddr,
    endpoint: &Endpoint,
    health: &Health,
    check: &dyn Check,
) -> Result<(), Unwell> {
    if let Some(port) = health.port {
        addr.set_port(port);
    }
    let asked = AssertUnwindSafe(check.check(addr, endpoint.name(), health)).catch_unwind();
    asked.await.unwrap_or(Err(Unwell::Broken))
}

fn record(group: &Arc<Group>, endpoint: &Endpoint, result: Result<(), Unwell>) {
    let since = endpoint.since();
    let change = group.record_check(endpoint.index(), &result);
    let lasted = show_duration(endpoint.since().since(since));
    let (upstream, endpoint, why) =
        (group.name(), endpoint.name(), result.err().map_or_else(String::new, |why| why.to_string()));
    match change {
        Change::Down => warn!(%upstream, endpoint, why, was_up_for = lasted, "endpoint is down"),
        Change::Up => info!(%upstream, endpoint, was_down_for = lasted, "endpoint is up again"),
        Change::None if !why.is_empty() => debug!(%upstream, endpoint, why, "health check failed"),
        Change::None => {}
    }
}

/// `every`, give or take a tenth: endpoints and gateways that started together do not go on checking together.
fn jittered(every: Duration, dice: &mut Dice) -> Duration {
    every.mul_f64(0.9 + 0.2 * dice.unit())
}
