//! The addresses a gateway listens on: bound here, kept over a change of the plan, handed to pingora's accept loops.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use pingora::apps::ServerApp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::upgrade::Inheritance;
use super::{Running, StartError};
use crate::plan::{self, Plan};

/// Large enough that the head and the content of a small answer leave in one write; larger content is written past it. Every open connection holds
/// one, at rest as well: of 16 KiB it was two thirds of an idle connection's memory. Reads are buffered where they are parsed.
const WRITE_BUFFER: usize = 4 * 1024;
const READ_BUFFER: usize = 0;

/// What the system's refusal to listen means, and what helps.
pub(super) fn hint(source: &std::io::Error, addr: &SocketAddr) -> String {
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

/// Sockets that a plan needs beside those that are open already.
pub(super) struct Sockets {
    /// In the plan's order; `None`: it is open already.
    pub(super) web: Vec<Option<Socket>>,
    /// `None`: it is open already, or off.
    pub(super) admin: Option<Socket>,
}

/// One socket, twice.
pub(super) struct Socket {
    /// For the accept loop.
    accepting: TcpListener,
    /// For the next process.
    kept: TcpListener,
}

impl Sockets {
    /// What `plan` needs and `running` has not: left by the process before, or bound.
    pub(super) fn bind(
        plan: &Plan,
        running: Option<&Running>,
        inherited: &Inheritance,
    ) -> Result<Self, StartError> {
        let is_open = |listener: &plan::Listener| {
            running.is_some_and(|running| running.web.iter().any(|web| web.listening.is_of(listener)))
        };
        let web = plan.listeners.iter();
        let web = web.map(|l| {
            if is_open(l) { Ok(None) } else { bind(Some(l.name.as_str()), l.addr, inherited).map(Some) }
        });
        let operator = running.and_then(|running| running.operator.as_ref());
        let wanted = plan.admin.addr.filter(|addr| operator.is_none_or(|open| open.wanted != *addr));
        Ok(Self {
            web: web.collect::<Result<_, _>>()?,
            admin: wanted.map(|addr| bind(None, addr, inherited)).transpose()?,
        })
    }
}

/// Binds here rather than in pingora, so that a taken port is an error with a hint and not a panic in a task.
fn bind(listener: Option<&str>, addr: SocketAddr, inherited: &Inheritance) -> Result<Socket, StartError> {
    let wrong = |source| StartError::Listen { addr, source };
    let socket =
        inherited.socket(listener, addr).unwrap_or_else(|| TcpListener::bind(addr)).map_err(wrong)?;
    socket.set_nonblocking(true).map_err(wrong)?;
    Ok(Socket { kept: socket.try_clone().map_err(wrong)?, accepting: socket })
}

/// An address that is listened on.
pub(super) struct Listening {
    name: String,
    /// As the plan says it: its port may be 0.
    pub(super) wanted: SocketAddr,
    /// As it is.
    pub(super) address: SocketAddr,
    /// For the next process.
    pub(super) socket: TcpListener,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Listening {
    /// Accepts connections on `socket` for `app`.
    pub(super) fn on<A>(name: &str, wanted: SocketAddr, socket: Socket, app: A) -> Self
    where
        A: ServerApp + Send + Sync + 'static,
    {
        let Socket { accepting, kept } = socket;
        let address = kept.local_addr().unwrap_or(wanted);
        let (stop, stopped) = watch::channel(false);
        let mut service = Service::new(name.to_owned(), app);
        let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
        service.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffers));
        let mut fds = Fds::new();
        fds.add(address.to_string(), accepting.into_raw_fd());
        let fds: ListenFds = Arc::new(parking_lot::Mutex::new(fds));
        let accepting = tokio::spawn(async move { service.start_service(Some(fds), stopped, 1).await });
        Self { name: name.to_owned(), wanted, address, socket: kept, stop, accepting }
    }

    /// Its name; the operator's listener has one too.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is this listener of a plan. Its name counts because of port 0, which is another port for each.
    pub(super) fn is_of(&self, plan: &plan::Listener) -> bool {
        self.wanted == plan.addr && self.name == plan.name.as_str()
    }

    /// Accepts nothing more; connections end after the request in hand. What is left of the accept loop.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.stop.send_replace(true);
        self.accepting
    }
}
