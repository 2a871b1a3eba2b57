//! What is known about one request on its way: a field per stage, written by that stage alone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use smallvec::SmallVec;

use super::compress::Coder;
use super::fill::Source;
use super::reply::Failure;
use super::tls::Identity;
use crate::base::clock::{MonoTime, WallTime};
use crate::guard::client::Client;
use crate::observe::metrics::{CacheResult, Metrics};
use crate::plan::{RouteId, UpstreamId};
use crate::upstream::Picked;
use crate::ward::Pass;

/// The context of one request.
pub struct Journey {
    /// When its head was complete.
    pub arrived: MonoTime,
    /// The same by civil time.
    pub at: WallTime,
    /// The guard's reading of it; `None` until it was admitted.
    pub admitted: Option<Admitted>,
    /// Who sent it.
    pub client: Client,
    /// The address of the connection's peer.
    pub peer: IpAddr,
    /// The port it came in by.
    pub port: u16,
    /// Its id.
    pub request_id: String,
    /// The route that won.
    pub route: Option<RouteId>,
    /// The upstream it goes to.
    pub upstream: Option<UpstreamId>,
    /// The most bytes its content may have; 0 is no limit.
    pub max_body: u64,
    /// The bytes of content that came so far.
    pub body_seen: u64,
    /// When the last of it was sent on; `None` before the first.
    pub body_at: Option<MonoTime>,
    /// What the cache did.
    pub cache: CacheResult,
    /// The same, as told to the client.
    pub cache_status: Option<String>,
    /// Instances tried, where the request passed through.
    pub tried: SmallVec<[usize; 4]>,
    /// The instance that its client is bound to.
    pub bound: Option<usize>,
    /// Attempts made by the fetch that it followed.
    pub fetch_tries: u32,
    /// The instance in use; counts one request in flight there while it is held.
    pub picked: Option<Picked>,
    /// The instance that was used last, for the log.
    pub instance: Option<String>,
    /// The connection in use is to be closed after this request, for its age.
    pub retire: bool,
    /// Attempts that met silence.
    pub silences: u32,
    /// The answer in hand is given up for its status: another attempt follows.
    pub given_up: bool,
    /// When the first attempt began.
    pub first_attempt: Option<MonoTime>,
    /// When the attempt in hand began.
    pub attempt: MonoTime,
    /// Compresses the answer that passes through.
    pub coder: Option<Coder>,
    /// Why there is no answer to pass on.
    pub failure: Option<Failure>,
    /// What its route's ward made of it: changes of its fields and its answer's, and the places it holds.
    pub pass: Pass,
    /// The limits that hits are free of have been asked.
    pub counted: bool,
    /// Held while the request is in flight.
    pub in_flight: InFlight,
}

/// The guard's reading of a request: what routing, the key and forwarding share.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The normalised host.
    pub host: String,
    /// The port the client named.
    pub port: Option<u16>,
    /// The normalised path.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// The connection is closed after this request.
    pub last: bool,
    /// The position of its listener in the plan.
    pub listener: usize,
    /// It came over TLS.
    pub tls: bool,
    /// Who the client is by its certificate.
    pub identity: Option<Arc<Identity>>,
}

impl Admitted {
    /// The authority as the client named it.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Path and query, as logged.
    pub fn target(&self) -> String {
        join_query(&self.path, self.query.as_deref())
    }
}

/// A path and a query as one target.
pub fn join_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Counts a request in flight until it is dropped, on every way out: a panic skips the log but not this.
pub struct InFlight(Arc<Metrics>);

impl InFlight {
    /// Counts one in.
    pub fn enter(metrics: &Arc<Metrics>) -> Self {
        metrics.request_entered();
        Self(metrics.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_left();
    }
}

impl Journey {
    /// Who answered the fetch that it followed.
    pub fn note_source(&mut self, source: &Source) {
        self.instance = source.instance.as_deref().map(str::to_owned);
        self.fetch_tries = source.tries;
    }

    /// A request that begins now.
    pub fn begin(arrived: MonoTime, at: WallTime, metrics: &Arc<Metrics>) -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            arrived,
            at,
            admitted: None,
            client: Client { addr: nobody, behind_trusted: false, https: false },
            peer: nobody,
            port: 0,
            request_id: String::new(),
            route: None,
            upstream: None,
            max_body: 0,
            body_seen: 0,
            body_at: None,
            cache: CacheResult::None,
            cache_status: None,
            tried: SmallVec::new(),
            bound: None,
            fetch_tries: 0,
            picked: None,
            instance: None,
            retire: false,
            silences: 0,
            given_up: false,
            first_attempt: None,
            attempt: arrived,
            coder: None,
            failure: None,
            pass: Pass::default(),
            counted: false,
            in_flight: InFlight::enter(metrics),
        }
    }
}
