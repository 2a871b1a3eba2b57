//! The running parts that requests meet: made from a plan by `app`, shared by all workers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pingora::connectors::http::Connector;

use super::fill::Word;
use super::sticky::Sticky;
use super::tls;
use crate::base::clock::Clock;
use crate::cache::{Coalesce, Relay, Rules};
use crate::files::Site;
use crate::observe::access::Log;
use crate::observe::metrics::{CacheMetrics, Metrics, UpstreamMetrics};
use crate::plan::{CacheId, Plan, Route, RouteId, UpstreamId};
use crate::store::Store;
use crate::store::flight::Flights;
use crate::store::redis::RedisTier;
use crate::store::uses::Uses;
use crate::upstream::Group;
use crate::upstream::retries::Retries;
use crate::ward::Ward;

/// Everything a request may need.
pub struct Live {
    /// What was asked for.
    pub plan: Plan,
    /// The time.
    pub clock: Arc<Clock>,
    /// What happened, as numbers.
    pub metrics: Arc<Metrics>,
    /// What happened, as lines.
    pub log: Arc<Log>,
    /// The upstreams, in the plan's order.
    pub upstreams: Vec<Upstream>,
    /// The secured sides of the listeners, in the plan's order.
    pub secured: Vec<Option<Arc<tls::Server>>>,
    /// The caches, in the plan's order.
    pub caches: Vec<Arc<Cache>>,
    /// The folders that are served, by route.
    pub sites: Vec<Option<Arc<Site>>>,
    /// Who has asked how often, and whose password is known.
    pub ward: Ward,
    /// The connection to Redis, when there is one.
    pub redis: Option<Arc<RedisTier>>,
    /// Connections for what the cache fetches, and for health checks.
    pub connector: Arc<Connector>,
    /// False while draining.
    pub ready: Arc<AtomicBool>,
    /// Whether plain hits are answered by the short way. Always, but for a test that compares both.
    pub short_way: AtomicBool,
}

/// One running upstream.
pub struct Upstream {
    /// Its endpoints and how one is chosen.
    pub group: Arc<Group>,
    /// How many requests came, and may be tried again.
    pub retries: Retries,
    /// What binds clients to its instances, when anything does.
    pub sticky: Option<Sticky>,
    /// How they are connected to.
    pub client: tls::client::Client,
    /// Its numbers.
    pub metrics: UpstreamMetrics,
}

/// One running cache.
pub struct Cache {
    /// Its name.
    pub name: String,
    /// The operator's rules.
    pub rules: Arc<Rules>,
    /// What it holds.
    pub store: Arc<Store>,
    /// How often what was asked for, when that decides what is stored.
    pub uses: Option<Arc<Uses>>,
    /// What it is fetching.
    pub flights: Arc<Flights<Word>>,
    /// Among whom one fetch serves all who ask.
    pub coalesce: Coalesce,
    /// How long this gateway may fetch for the fleet without a sign of life.
    pub lease: Duration,
    /// Which answers other gateways may follow while they are fetched here.
    pub relay: Relay,
    /// How long a request waits for another's fetch.
    pub wait_timeout: Duration,
    /// Its numbers.
    pub metrics: CacheMetrics,
}

impl Live {
    /// A route of the plan.
    pub fn route(&self, id: RouteId) -> &Route {
        &self.plan.routes[id]
    }

    /// A running upstream.
    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        &self.upstreams[id]
    }

    /// A running cache.
    pub fn cache(&self, id: CacheId) -> &Arc<Cache> {
        &self.caches[id]
    }
}
