//! From a plan to running parts, and back to rest: wiring only.
//!
//! pingora's own `Server` is not used: it sleeps through its whole grace period even when nothing is left to wait for, and dies of SIGHUP. Its
//! services run here on one tokio runtime, under a shutdown of our own that ends as soon as the last connection does.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pingora::apps::ServerApp;
use pingora::apps::http_app::HttpServer;
use pingora::connectors::http::Connector;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::clock::Clock;
use crate::observe::access::Log;
use crate::observe::admin::Admin;
use crate::observe::metrics::Metrics;
use crate::plan::{self, Plan};
use crate::proxy::Gateway;
use crate::proxy::admin::AdminApp;
use crate::proxy::connection::{Connections, Open};
use crate::proxy::live::{Cache, Live, Upstream};
use crate::proxy::probe::Prober;
use crate::store::flight::Flights;
use crate::store::redis::RedisTier;
use crate::store::uses::Uses;
use crate::store::{Sizes, Store};
use crate::upstream::{Group, probe};

/// Large enough that the head and the content of a small answer leave in one write; larger content is written past it. Every open connection holds
/// one, at rest as well: of 16 KiB it was two thirds of an idle connection's memory. Reads are buffered where they are parsed.
const WRITE_BUFFER: usize = 4 * 1024;
const READ_BUFFER: usize = 0;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {addr}: {}", listen_hint(.source, .addr))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log for appending: {0}")]
    AccessLog(std::io::Error),
    /// The Redis URL does not read, or a file that it needs.
    #[error("redis.{0}")]
    Redis(String),
}

fn listen_hint(source: &std::io::Error, addr: &SocketAddr) -> String {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied if addr.port() < 1024 => {
            "permission denied; ports below 1024 need a privilege: run as root, or `setcap cap_net_bind_service=+ep` the binary, or use port 8080".into()
        }
        std::io::ErrorKind::AddrInUse => {
            format!(
                "the address is in use; another server listens there (`ss -ltnp sport = :{}` shows which)",
                addr.port()
            )
        }
        _ => source.to_string(),
    }
}

/// A running gateway.
pub struct Running {
    /// The parts that requests meet.
    pub live: Arc<Live>,
    /// Where the public listeners are bound, in the plan's order.
    pub addresses: Vec<SocketAddr>,
    /// Where the operator's listener is bound.
    pub admin: Option<SocketAddr>,
    shutdown: watch::Sender<bool>,
    /// Never sent: `/readyz` answers 503 until the very end of a drain.
    _admin_stop: watch::Sender<bool>,
    open: Arc<Open>,
    tasks: Vec<JoinHandle<()>>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the time was up, and were cut.
    pub cut: usize,
}

/// Starts a gateway; it serves when this returns. Must be called within a tokio runtime.
///
/// # Errors
/// When an address or the access log cannot be opened, or the Redis URL does not read; nothing is left running.
pub fn start(plan: Plan) -> Result<Running, StartError> {
    let sockets: Vec<TcpListener> = plan.listeners.iter().map(|l| bind(l.addr)).collect::<Result<_, _>>()?;
    let admin_socket = plan.admin.addr.map(bind).transpose()?;
    let live = Arc::new(live(plan)?);

    let (shutdown, stop) = watch::channel(false);
    let open = Arc::new(Open::default());
    let mut tasks = Vec::new();
    let mut addresses = Vec::new();

    let conf = Arc::new(ServerConf { upstream_keepalive_pool_size: 1024, ..ServerConf::default() });
    let proxy = Arc::new(http_proxy(&conf, Gateway::new(live.clone())));
    for (position, socket) in sockets.into_iter().enumerate() {
        let app = Connections::new(live.clone(), proxy.clone(), position, open.clone());
        let (address, task) = serve(live.plan.listeners[position].name.as_str(), app, socket, stop.clone());
        addresses.push(address);
        tasks.push(task);
    }
    for (id, upstream) in live.upstreams.iter().enumerate() {
        let prober = Arc::new(Prober::new(live.clone(), id));
        tasks.push(tokio::spawn(probe::run(upstream.group.clone(), prober, stop.clone())));
    }
    live.ready.store(true, Ordering::Release);
    let (admin_stop, never) = watch::channel(false);
    let admin = admin_socket.map(|socket| {
        let token = live.plan.admin.token.clone();
        let admin = Admin { metrics: live.metrics.clone(), ready: live.ready.clone(), token };
        let admin = AdminApp { admin, live: live.clone() };
        let (address, task) = serve("admin", HttpServer::new_app(admin), socket, never);
        tasks.push(task);
        address
    });
    Ok(Running { live, addresses, admin, shutdown, _admin_stop: admin_stop, open, tasks })
}

fn live(plan: Plan) -> Result<Live, StartError> {
    let clock = Arc::new(Clock::start());
    let metrics = Metrics::new(&plan);
    let log = Log::open(&plan.log.access, metrics.clone()).map_err(StartError::AccessLog)?;
    let redis = match &plan.redis {
        Some(redis) => {
            Some(RedisTier::new(redis, clock.clone(), metrics.redis()).map_err(StartError::Redis)?)
        }
        None => None,
    };
    let upstreams = plan.upstreams.iter().map(|u| upstream(u, &clock, &metrics)).collect();
    let caches = plan.caches.iter().map(|c| Arc::new(cache(c, redis.clone(), &clock, &metrics))).collect();
    Ok(Live {
        plan,
        clock,
        metrics,
        log,
        upstreams,
        caches,
        redis,
        connector: Connector::new(None),
        ready: Arc::new(AtomicBool::new(false)),
        short_way: AtomicBool::new(true),
    })
}

fn upstream(plan: &plan::Upstream, clock: &Arc<Clock>, metrics: &Metrics) -> Upstream {
    let numbers = metrics.upstream(&plan.name);
    Upstream { group: Group::new(plan, clock.clone(), numbers.clone()), metrics: numbers }
}

fn cache(plan: &plan::Cache, redis: Option<Arc<RedisTier>>, clock: &Arc<Clock>, metrics: &Metrics) -> Cache {
    let numbers = metrics.cache(&plan.name);
    Cache {
        name: plan.name.to_string(),
        rules: plan.rules.clone(),
        store: Store::new(plan.memory, sizes(plan, redis.is_some()), redis, clock.clone(), numbers.clone()),
        uses: (plan.rules.min_uses > 1).then(Uses::default),
        flights: Arc::new(Flights::default()),
        wait_timeout: plan.wait_timeout,
        metrics: numbers,
    }
}

/// What is too large for memory is kept in Redis alone; without one all that is stored lies in memory.
fn sizes(plan: &plan::Cache, redis: bool) -> Sizes {
    let stored = plan.max_object;
    let unsaid = if redis { plan::MEMORY_OBJECT } else { stored };
    Sizes {
        memory: plan.memory_max_object.unwrap_or(unsaid).min(stored),
        stored: if redis { stored } else { plan.memory_max_object.unwrap_or(stored) },
    }
}

/// Binds here rather than in pingora, so that a taken port is an error with a hint and not a panic in a task.
fn bind(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let wrong = |source| StartError::Listen { addr, source };
    let socket = TcpListener::bind(addr).map_err(wrong)?;
    socket.set_nonblocking(true).map_err(wrong)?;
    Ok(socket)
}

fn serve<A: ServerApp + Send + Sync + 'static>(
    name: &str,
    app: A,
    socket: TcpListener,
    stop: watch::Receiver<bool>,
) -> (SocketAddr, JoinHandle<()>) {
    let address = socket.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut service = Service::new(name.to_owned(), app);
    let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
    service.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffers));
    let mut fds = Fds::new();
    fds.add(address.to_string(), socket.into_raw_fd());
    let fds: ListenFds = Arc::new(parking_lot::Mutex::new(fds));
    (address, tokio::spawn(async move { service.start_service(Some(fds), stop, 1).await }))
}

impl Running {
    /// How many client connections are open.
    pub fn open_connections(&self) -> usize {
        self.open.count()
    }

    /// Leaves in good order: `/readyz` says so first, for `drain_delay`; then the listeners close and what is in flight may finish, for
    /// `drain_timeout` at most. Returns as soon as the last connection is gone.
    pub async fn drain(self) -> Drained {
        let server = &self.live.plan.server;
        self.live.ready.store(false, Ordering::Release);
        tokio::time::sleep(server.drain_delay).await;
        self.shutdown.send_replace(true);
        let in_time = tokio::time::timeout(server.drain_timeout, self.open.none_left()).await;
        let cut = if in_time.is_ok() { 0 } else { self.open.count() };
        if let Some(redis) = &self.live.redis {
            // What was fetched last is worth a moment, not a hang.
            let _ = tokio::time::timeout(
                server.drain_timeout.min(std::time::Duration::from_secs(1)),
                redis.flush(),
            )
            .await;
        }
        for task in self.tasks {
            task.abort();
        }
        self.live.log.flush();
        Drained { cut }
    }
}
