//! From a plan to running parts, from one plan to the next, and back to rest: wiring only.
//!
//! pingora's own `Server` is not used: it sleeps through its whole grace period even when nothing is left to wait for, and dies of SIGHUP. Its
//! services run here on one tokio runtime, under a shutdown of our own that ends as soon as the last connection does.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::protocols::tls::CaType;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::name::UpstreamName;
use crate::files::NoRoot;
use crate::plan::changes::{self, Change};
use crate::plan::{self, Plan};
use crate::proxy::Gateway;
use crate::proxy::admin::AdminApp;
use crate::proxy::connection::{Connections, Door, Open};
use crate::proxy::live::Live;
use crate::proxy::orders::{AdminDoor, Orders};
use crate::proxy::probe::{self as probing, Prober};
use crate::proxy::tls::{self, files::Wrong};
use crate::upstream::probe;

mod parts;
mod sockets;
pub mod upgrade;

use self::sockets::{Listening, Socket, Sockets};
use self::upgrade::Inheritance;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {addr}: {}", sockets::hint(.source, .addr))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log for appending: {0}")]
    AccessLog(std::io::Error),
    /// A folder that is to be served cannot be opened.
    #[error("{0}")]
    Files(NoRoot),
    /// A certificate, a key or what belongs to them cannot be used.
    #[error("listen.{listener}.tls: {wrong}")]
    Tls {
        /// The listener.
        listener: String,
        /// What is wrong.
        wrong: Wrong,
    },
    /// A certificate, a key or roots for the instances of an upstream cannot be used.
    #[error("upstreams.{upstream}.tls: {wrong}")]
    UpstreamTls {
        /// The upstream.
        upstream: String,
        /// What is wrong.
        wrong: Wrong,
    },
    /// The certificates that vouch for the instances of an upstream could not be read.
    #[error("upstreams.{upstream}.health.tls.ca: {source}")]
    CheckCertificates {
        /// The upstream.
        upstream: UpstreamName,
        /// What the system said.
        source: std::io::Error,
    },
    /// The secret of sticky cookies could not be read.
    #[error("upstreams.{upstream}.sticky: cannot read the secret: {source}")]
    StickyKey {
        /// The name of the upstream.
        upstream: String,
        /// What was wrong.
        source: std::io::Error,
    },
    /// The Redis URL does not read, or a file that it needs.
    #[error("redis.{0}")]
    Redis(String),
}

/// How long who gave an order may take to read its answer, once there is nothing else to wait for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running gateway.
pub struct Running {
    /// The parts that requests meet now.
    pub live: Arc<Live>,
    /// Where the public listeners are bound, in the plan's order.
    pub addresses: Vec<SocketAddr>,
    /// Where the operator's listener is bound.
    pub admin: Option<SocketAddr>,
    web: Vec<Web>,
    operator: Option<Listening>,
    operators_door: Arc<AdminDoor>,
    probes: Probes,
    open: Arc<Open>,
    /// Accept loops of listeners that a later plan does not have: they end with their last connection.
    leaving: Vec<JoinHandle<()>>,
}

/// A public listener and who serves behind it.
struct Web {
    listening: Listening,
    door: Arc<Door>,
}

/// The checks of all upstreams of one plan.
struct Probes {
    stop: watch::Sender<bool>,
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
/// When an address, the access log or a file of certificates cannot be opened, or the Redis URL does not read; nothing is left running.
pub fn start(plan: Plan) -> Result<Running, StartError> {
    start_with(plan, &Inheritance::default())
}

/// The same with sockets that the process before has left.
///
/// # Errors
/// As [`start`].
pub fn start_with(plan: Plan, inherited: &Inheritance) -> Result<Running, StartError> {
    let sockets = Sockets::bind(&plan, None, inherited)?;
    let trusted = trusted(&plan)?;
    let live = Arc::new(parts::live(plan, None)?);
    let proxy = proxy(&live);
    let open = Arc::new(Open::default());
    let mut running = Running {
        addresses: Vec::new(),
        admin: None,
        web: Vec::new(),
        operator: None,
        operators_door: AdminDoor::new(AdminApp::new(live.clone())),
        probes: Probes::start(&live, trusted),
        open,
        leaving: Vec::new(),
        live,
    };
    running.take(sockets, &proxy);
    running.live.ready.store(true, Ordering::Release);
    Ok(running)
}

/// What is wrong with the files of a listener, the calendar included; `None`: nothing.
pub fn wrong_with(listener: &plan::Listener) -> Option<String> {
    let settings = listener.tls.as_ref()?;
    let name = listener.name.as_str();
    match tls::check(settings, listener.http) {
        Err(wrong) => Some(format!("listen.{name}.tls: {wrong}")),
        Ok(pairs) => settings.certificates.iter().zip(pairs).find_map(|(files, pair)| {
            let why = pair.untimely?.as_str();
            Some(format!("listen.{name}.tls: {}: the certificate {why}", files.cert.display()))
        }),
    }
}

/// What is wrong with the files of an upstream; `None`: nothing.
pub fn wrong_with_upstream(upstream: &plan::Upstream) -> Option<String> {
    let wrong = tls::client::Client::of(upstream).err()?;
    Some(format!("upstreams.{}.tls: {wrong}", upstream.name))
}

fn proxy(live: &Arc<Live>) -> Arc<HttpProxy<Gateway>> {
    let conf = Arc::new(ServerConf {
        upstream_keepalive_pool_size: 1024,
        // Our own rules say how often; pingora's limit would be met first, unsaid.
        max_retries: 100,
        ..ServerConf::default()
    });
    Arc::new(http_proxy(&conf, Gateway::new(live.clone())))
}

/// What the checks of each upstream trust, when it says so.
fn trusted(plan: &Plan) -> Result<Vec<Option<Arc<CaType>>>, StartError> {
    let of = |upstream: &plan::Upstream| {
        probing::trusted(upstream)
            .map_err(|source| StartError::CheckCertificates { upstream: upstream.name.clone(), source })
    };
    plan.upstreams.iter().map(of).collect()
}

impl Probes {
    fn start(live: &Arc<Live>, trusted: Vec<Option<Arc<CaType>>>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let each = live.upstreams.iter().enumerate().zip(trusted);
        let tasks = each
            .map(|((id, upstream), trusted)| {
                let prober = Arc::new(Prober::new(live.clone(), id, trusted));
                tokio::spawn(probe::run(upstream.group.clone(), prober, stopped.clone()))
            })
            .collect();
        Self { stop, tasks }
    }
}

impl Running {
    /// How many client connections are open.
    pub fn open_connections(&self) -> usize {
        self.open.count()
    }

    /// What the operator asks of this process from now on; whoever takes them carries them out.
    pub fn orders(&self) -> Orders {
        self.operators_door.orders()
    }

    /// Every listening socket, with the name of its listener (`None`: the operator's) and its address as planned.
    fn sockets(&self) -> impl Iterator<Item = (Option<&str>, SocketAddr, &TcpListener)> {
        let web = self.web.iter().map(|web| (Some(web.listening.name()), &web.listening));
        let all = web.chain(self.operator.iter().map(|operator| (None, operator)));
        all.map(|(name, listening)| (name, listening.wanted, &listening.socket))
    }

    /// Goes on by another plan, wholly or not at all; what changed. Requests under way are served to their end by the plan they began with; what is stored,
    /// counted and known of instances' health stays, as far as it means the same under both. Listeners that stay keep their sockets, so
    /// nobody who is connecting is turned away.
    ///
    /// # Errors
    /// As [`start`]; then everything goes on as before.
    pub fn reload(&mut self, plan: Plan) -> Result<Vec<Change>, StartError> {
        let sockets = Sockets::bind(&plan, Some(self), &Inheritance::default())?;
        let changes = changes::between(&self.live.plan, &plan);
        let trusted = trusted(&plan)?;
        let live = parts::live(plan, Some(&self.live));
        let live = Arc::new(live.inspect_err(|_| self.live.metrics.forget_what_is_not_in(&self.live.plan))?);
        let proxy = proxy(&live);
        let probes = std::mem::replace(&mut self.probes, Probes::start(&live, trusted));
        probes.stop.send_replace(true);
        self.live = live;
        self.operators_door.change(AdminApp::new(self.live.clone()));
        self.take(sockets, &proxy);
        Ok(changes)
    }

    /// Serves on these sockets, and on no others, by the configuration in force.
    fn take(&mut self, sockets: Sockets, proxy: &Arc<HttpProxy<Gateway>>) {
        let mut before: Vec<Option<Web>> = self.web.drain(..).map(Some).collect();
        for (position, socket) in sockets.web.into_iter().enumerate() {
            let plan = &self.live.plan.listeners[position];
            let kept = match &socket {
                None => before.iter_mut().find(|w| w.as_ref().is_some_and(|w| w.listening.is_of(plan))),
                Some(_) => None,
            };
            self.web.push(match (kept.and_then(Option::take), socket) {
                (Some(web), _) => {
                    web.door.change(|now| now.by(self.live.clone(), proxy.clone(), position));
                    web
                }
                (None, Some(socket)) => self.open_door(plan, socket, position, proxy),
                (None, None) => continue,
            });
        }
        let gone = before.into_iter().flatten().map(|web| web.listening);
        self.leaving.retain(|task| !task.is_finished());
        self.leaving.extend(gone.map(Listening::close));
        self.addresses = self.web.iter().map(|web| web.listening.address).collect();
        self.take_admin(sockets.admin);
    }

    fn open_door(
        &self,
        plan: &plan::Listener,
        socket: Socket,
        position: usize,
        proxy: &Arc<HttpProxy<Gateway>>,
    ) -> Web {
        let door = Door::new(Connections::new(self.live.clone(), proxy.clone(), position, self.open.clone()));
        Web { listening: Listening::on(plan.name.as_str(), plan.addr, socket, door.clone().app()), door }
    }

    fn take_admin(&mut self, socket: Option<Socket>) {
        let wanted = self.live.plan.admin.addr;
        let stays = self.operator.as_ref().is_some_and(|operator| Some(operator.wanted) == wanted);
        if !stays && let Some(gone) = self.operator.take() {
            self.leaving.push(gone.close());
        }
        if let (Some(socket), Some(addr)) = (socket, wanted) {
            self.operator = Some(Listening::on("admin", addr, socket, self.operators_door.clone().app()));
        }
        self.admin = self.operator.as_ref().map(|operator| operator.address);
    }

    /// Leaves in good order: `/readyz` says so first, for `drain_delay`; then the listeners close and what is in flight may finish, for
    /// `drain_timeout` at most. Returns as soon as the last connection is gone.
    pub async fn drain(self) -> Drained {
        self.live.ready.store(false, Ordering::Release);
        tokio::time::sleep(self.live.plan.server.drain_delay).await;
        self.finish().await
    }

    /// Leaves without a word to those who watch `/readyz`: somebody else is serving here already.
    pub async fn finish(mut self) -> Drained {
        let server = &self.live.plan.server;
        self.probes.stop.send_replace(true);
        for web in self.web.drain(..) {
            self.leaving.push(web.listening.close());
        }
        let in_time = tokio::time::timeout(server.drain_timeout, self.open.none_left()).await;
        let cut = if in_time.is_ok() { 0 } else { self.open.count() };
        if let Some(redis) = &self.live.redis {
            // What was fetched last is worth a moment, not a hang.
            let most = server.drain_timeout.min(Duration::from_secs(1));
            let _ = tokio::time::timeout(most, redis.flush()).await;
        }
        let _ = tokio::time::timeout(LAST_WORDS, self.operators_door.all_answered()).await;
        // `/readyz` answers 503 until here.
        self.leaving.extend(self.operator.take().map(Listening::close));
        for task in self.leaving.into_iter().chain(self.probes.tasks) {
            task.abort();
        }
        self.live.log.flush();
        Drained { cut }
    }
}
