//! The running parts of a plan: made anew, or taken over from the plan before where they mean the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pingora::connectors::http::Connector;

use super::StartError;
use crate::base::clock::Clock;
use crate::files::{self, Site};
use crate::observe::access::Log;
use crate::observe::metrics::Metrics;
use crate::plan::{self, Plan};
use crate::proxy::live::{Cache, Live, Upstream};
use crate::proxy::sticky::Sticky;
use crate::proxy::tls;
use crate::store::flight::Flights;
use crate::store::redis::RedisTier;
use crate::store::{Sizes, Store};
use crate::upstream::Group;
use crate::upstream::retries::Retries;
use crate::ward::Ward;

/// The parts of `plan`, with what can be kept of those `before`.
///
/// # Errors
/// When the access log cannot be opened, the Redis URL does not read or the key of sticky cookies cannot be read; what is running goes on untouched.
pub(super) fn live(plan: Plan, before: Option<&Live>) -> Result<Live, StartError> {
    if let Some(missing) = files::missing_roots(&plan).into_iter().next() {
        return Err(StartError::Files(missing));
    }
    let clock = before.map_or_else(|| Arc::new(Clock::start()), |live| live.clock.clone());
    let metrics = before.map_or_else(|| Metrics::new(&plan), |live| live.metrics.succeeded_by(&plan));
    let log = log(&plan, before, &metrics)?;
    let redis = redis(&plan, before, &clock, &metrics)?;
    let secured =
        plan.listeners.iter().map(|l| secured(l, before, &metrics)).collect::<Result<Vec<_>, _>>()?;
    let upstreams = plan.upstreams.iter().map(|u| upstream(u, before, &clock, &metrics));
    let upstreams = upstreams.collect::<Result<_, _>>()?;
    let caches = plan.caches.iter().map(|c| Arc::new(cache(c, &redis, before, &clock, &metrics))).collect();
    let sites = plan.routes.iter().map(|route| site(route, before, &clock, &metrics)).collect();
    let ward = Ward::new(&plan, before.map(|live| &live.ward), &clock, &metrics, redis.clone());
    metrics.forget_what_is_not_in(&plan);
    Ok(Live {
        plan,
        clock,
        metrics,
        log,
        upstreams,
        secured,
        caches,
        sites,
        ward,
        redis,
        connector: before.map_or_else(|| Arc::new(Connector::new(None)), |live| live.connector.clone()),
        ready: before.map_or_else(Arc::default, |live| live.ready.clone()),
        short_way: AtomicBool::new(before.is_none_or(|live| live.short_way.load(Ordering::Relaxed))),
    })
}

/// What is known of files, and what was compressed, stays where the same is served as before.
fn site(
    route: &plan::Route,
    before: Option<&Live>,
    clock: &Arc<Clock>,
    metrics: &Arc<Metrics>,
) -> Option<Arc<Site>> {
    let known = before.and_then(|live| live.sites.iter().flatten().find(|site| site.serves(route)));
    known.cloned().or_else(|| Site::of(route, clock, metrics))
}

fn log(plan: &Plan, before: Option<&Live>, metrics: &Arc<Metrics>) -> Result<Arc<Log>, StartError> {
    match before.filter(|live| live.plan.log.access == plan.log.access) {
        Some(live) => Ok(live.log.clone()),
        None => Log::open(&plan.log.access, metrics.clone()).map(Arc::new).map_err(StartError::AccessLog),
    }
}

fn redis(
    plan: &Plan,
    before: Option<&Live>,
    clock: &Arc<Clock>,
    metrics: &Metrics,
) -> Result<Option<Arc<RedisTier>>, StartError> {
    let Some(redis) = &plan.redis else { return Ok(None) };
    match before.filter(|live| live.plan.redis.as_ref() == Some(redis)) {
        Some(live) => Ok(live.redis.clone()),
        None => RedisTier::new(redis, clock.clone(), metrics.redis()).map(Some).map_err(StartError::Redis),
    }
}

/// `None`: the listener is not secured. One whose settings are the same keeps its sessions, and reads its files anew.
fn secured(
    plan: &plan::Listener,
    before: Option<&Live>,
    metrics: &Metrics,
) -> Result<Option<Arc<tls::Server>>, StartError> {
    let Some(settings) = &plan.tls else { return Ok(None) };
    let failed = |wrong| StartError::Tls { listener: plan.name.to_string(), wrong };
    let known = before.and_then(|live| {
        let same = |l: &plan::Listener| l.name == plan.name && l.tls == plan.tls && l.http == plan.http;
        live.secured.get(live.plan.listeners.iter().position(same)?)?.clone()
    });
    if let Some(known) = known {
        known.reload().map_err(failed)?;
        return Ok(Some(known));
    }
    let server = Arc::new(tls::Server::new(settings, plan.http, metrics.tls(&plan.name)).map_err(failed)?);
    if !settings.reload.is_zero() {
        tokio::spawn(tls::watch::run(Arc::downgrade(&server), plan.name.to_string(), settings.reload));
    }
    Ok(Some(server))
}

fn upstream(
    plan: &plan::Upstream,
    before: Option<&Live>,
    clock: &Arc<Clock>,
    metrics: &Metrics,
) -> Result<Upstream, StartError> {
    let numbers = metrics.upstream(&plan.name);
    let known = before.and_then(|live| live.upstreams.iter().find(|u| *u.group.name() == plan.name));
    let group = match known {
        Some(known) if known.group.plan() == plan => known.group.clone(),
        Some(known) => known.group.succeeded_by(plan, numbers.clone()),
        None => Group::new(plan, clock.clone(), numbers.clone()),
    };
    let sticky = Sticky::of(plan)
        .map_err(|source| StartError::StickyKey { upstream: plan.name.to_string(), source })?;
    let client = tls::client::Client::of(plan)
        .map_err(|wrong| StartError::UpstreamTls { upstream: plan.name.to_string(), wrong })?;
    let retries = Retries::new(plan.retry_budget);
    Ok(Upstream { group, retries, sticky, client, metrics: numbers })
}

/// What is stored stays when the next plan would have stored it under the same keys and in the same place. Else memory begins empty: an answer
/// found under a key that was made by other rules may be another request's.
fn cache(
    plan: &plan::Cache,
    redis: &Option<Arc<RedisTier>>,
    before: Option<&Live>,
    clock: &Arc<Clock>,
    metrics: &Metrics,
) -> Cache {
    let numbers = metrics.cache(&plan.name);
    let known = before.and_then(|live| {
        let position = live.plan.caches.iter().position(|c| c.keeps_what_is_stored(plan))?;
        let cache = live.caches.get(position)?;
        let same_redis = match (&live.redis, redis) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_redis.then_some(cache)
    });
    let sizes = sizes(plan, redis.is_some());
    let store = || Store::new(plan.memory, sizes, redis.clone(), clock.clone(), numbers.clone());
    Cache {
        name: plan.name.to_string(),
        rules: plan.rules.clone(),
        store: known.map_or_else(|| Arc::new(store()), |cache| cache.store.clone()),
        uses: (plan.rules.min_uses > 1)
            .then(|| known.and_then(|cache| cache.uses.clone()).unwrap_or_default()),
        flights: known.map_or_else(|| Arc::new(Flights::default()), |cache| cache.flights.clone()),
        coalesce: plan.coalesce,
        lease: plan.lease,
        relay: plan.relay,
        wait_timeout: plan.wait_timeout,
        metrics: numbers,
    }
}

/// What is too large for memory is kept in Redis alone; without one all that is stored lies in memory.
fn sizes(plan: &plan::Cache, redis: bool) -> Sizes {
    let unsaid = if redis { plan::MEMORY_OBJECT } else { plan.max_object };
    let memory = plan.memory_max_object.unwrap_or(unsaid).min(plan.max_object);
    Sizes { memory, stored: if redis { plan.max_object } else { memory } }
}
