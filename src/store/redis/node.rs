//! The servers: which there are, the connections to each, and when one is left alone.
//!
//! Without a Cluster there is one. Behind Sentinels its address is asked for at every connection, and watched while one stands. Of a Cluster the masters
//! are found through any server that answers; the map is read again when a server fails or says that a key has moved, and now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::slots::{self, Range, SLOTS, slot_of};
use super::{CONNECT, FAILURES, Failure, PAUSE, Shared, lock};
use crate::base::redis_url::{Host, Place};
use crate::store::breaker::Breaker;

/// How often Sentinels are asked whether the master is still the master.
const WATCH: Duration = Duration::from_secs(1);
/// How often the map of a Cluster is read while nothing is amiss.
const CALM: Duration = Duration::from_secs(10);
/// The least time between two readings of it.
const HASTE: Duration = Duration::from_millis(50);

/// The hash tag of the fleet's log.
pub(super) const FLEET: &[u8] = b"fleet";

#[derive(Clone)]
enum Link {
    /// Not yet, or anew after a break: whoever has a budget waits.
    Connecting,
    Up(Arc<Connections>),
    /// The last attempt failed: nobody waits.
    Down,
}

/// Reads and writes apart, and large values apart from small ones, so that a request's read never stands behind something large.
pub(super) struct Connections {
    pub reads: [MultiplexedConnection; 2],
    pub write: MultiplexedConnection,
    pub pieces_in: MultiplexedConnection,
    pub pieces_out: MultiplexedConnection,
    /// Where they lead.
    pub host: Option<Host>,
}

/// One server.
pub(super) struct Node {
    /// `None`: it is found at every connection, by a socket or by Sentinels.
    host: Option<Host>,
    breaker: Mutex<Breaker>,
    up: AtomicBool,
    told_down: AtomicBool,
    link: watch::Sender<Link>,
    attention: Notify,
    /// No longer one of those that hold keys.
    retired: AtomicBool,
}

impl Node {
    fn new(host: Option<Host>) -> Arc<Self> {
        Arc::new(Self {
            host,
            breaker: Mutex::new(Breaker::new(FAILURES, PAUSE)),
            up: AtomicBool::new(false),
            told_down: AtomicBool::new(false),
            link: watch::Sender::new(Link::Connecting),
            attention: Notify::new(),
            retired: AtomicBool::new(false),
        })
    }

    /// Whether it is asked at all.
    pub fn is_asked(&self) -> bool {
        lock(&self.breaker).is_closed()
    }

    /// Whether connections stand.
    pub fn is_connected(&self) -> bool {
        matches!(*self.link.borrow(), Link::Up(_))
    }

    /// Where it is, once that is known.
    pub fn host(&self) -> Option<Host> {
        match &*self.link.borrow() {
            Link::Up(connections) => connections.host.clone(),
            _ => self.host.clone(),
        }
    }

    /// Waits until there are none.
    pub async fn lost(&self) {
        // It fails only when the node is gone.
        let _ = self.link.subscribe().wait_for(|link| !matches!(link, Link::Up(_))).await;
    }

    /// Waits until its connections change.
    pub async fn changed(&self) {
        // It fails only when the node is gone.
        let _ = self.link.subscribe().changed().await;
    }
}

/// The servers that hold keys.
pub(super) struct Nodes {
    all: Vec<Arc<Node>>,
    /// The position in `all` by slot; `None`: there is one server, and it holds all.
    slots: Option<Box<[Option<u16>]>>,
}

impl Nodes {
    /// What is known before any was asked.
    pub fn at_first(place: &Place) -> Self {
        match place {
            Place::Cluster(_) => Self { all: Vec::new(), slots: Some(vec![None; SLOTS].into()) },
            Place::Server(host) => Self { all: vec![Node::new(Some(host.clone()))], slots: None },
            Place::Socket(_) | Place::Sentinel { .. } => Self { all: vec![Node::new(None)], slots: None },
        }
    }

    fn of(&self, tag: &[u8]) -> Option<&Arc<Node>> {
        match &self.slots {
            None => self.all.first(),
            Some(slots) => self.all.get(usize::from(slots[slot_of(tag)]?)),
        }
    }

    /// The same servers where they still hold keys, new ones where others do.
    fn renewed(&self, ranges: &[Range]) -> Self {
        let mut renewed = Self { all: Vec::new(), slots: None };
        let mut slots = vec![None; SLOTS];
        for (first, last, host) in ranges {
            let known = renewed.all.iter().position(|node| node.host.as_ref() == Some(host));
            let position = known.unwrap_or_else(|| {
                let old = self.all.iter().find(|node| node.host.as_ref() == Some(host));
                renewed.all.push(old.cloned().unwrap_or_else(|| Node::new(Some(host.clone()))));
                renewed.all.len() - 1
            });
            slots[*first..=*last].fill(u16::try_from(position).ok());
        }
        renewed.slots = Some(slots.into());
        renewed
    }
}

/// Which server.
impl Shared {
    /// The server that holds what has this hash tag, as far as is known.
    pub(super) fn node(&self, tag: &[u8]) -> Option<Arc<Node>> {
        self.nodes.load().of(tag).cloned()
    }

    /// Every server.
    pub(super) fn all_nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.load().all.clone()
    }

    pub(super) fn is_clustered(&self) -> bool {
        matches!(self.dialer.url.place, Place::Cluster(_))
    }

    fn is_watched(&self) -> bool {
        matches!(self.dialer.url.place, Place::Sentinel { .. })
    }

    /// Begins to connect.
    pub(super) fn begin(self: &Arc<Self>) {
        for node in self.all_nodes() {
            tokio::spawn(self.clone().keep_connected(node));
        }
        if self.is_clustered() {
            tokio::spawn(self.clone().keep_map());
        }
    }

    /// Reads the map of the Cluster, again and again.
    async fn keep_map(self: Arc<Self>) {
        while !self.is_closing() {
            let ranges = self.read_map().await;
            if !ranges.is_empty() {
                self.use_map(&ranges);
            }
            let calm = !ranges.is_empty() && self.all_nodes().iter().all(|node| node.is_connected());
            let _ = timeout(if calm { CALM } else { PAUSE }, self.map_is_old.notified()).await;
            tokio::time::sleep(HASTE).await;
        }
    }

    async fn read_map(&self) -> Vec<Range> {
        let Place::Cluster(seeds) = &self.dialer.url.place else { return Vec::new() };
        let mut known = self.all_nodes();
        known.sort_by_key(|node| !node.is_connected());
        for host in known.iter().filter_map(|node| node.host.clone()).chain(seeds.iter().cloned()) {
            let asked = timeout(CONNECT, async {
                let standing = known.iter().find(|node| node.host.as_ref() == Some(&host));
                let mut connection = match standing.map(|node| node.link.borrow().clone()) {
                    Some(Link::Up(connections)) => connections.write.clone(),
                    _ => self.dialer.open(Some(&host)).await?,
                };
                let mut slots = ::redis::cmd("CLUSTER");
                slots.arg("SLOTS").query_async::<Value>(&mut connection).await.map_err(|e| Failure::of(&e))
            });
            match asked.await {
                Ok(Ok(answer)) => {
                    let ranges = slots::ranges_of(answer, &host);
                    if !ranges.is_empty() {
                        return ranges;
                    }
                }
                Ok(Err(failure)) => self.metrics.error(failure.as_str()),
                Err(_) => self.metrics.error(Failure::Timeout.as_str()),
            }
        }
        Vec::new()
    }

    fn use_map(self: &Arc<Self>, ranges: &[Range]) {
        let old = self.nodes.load_full();
        let new = Arc::new(old.renewed(ranges));
        self.nodes.store(new.clone());
        let among = |nodes: &Nodes, node: &Arc<Node>| nodes.all.iter().any(|other| Arc::ptr_eq(other, node));
        for node in new.all.iter().filter(|node| !among(&old, node)) {
            tokio::spawn(self.clone().keep_connected(node.clone()));
        }
        for node in old.all.iter().filter(|node| !among(&new, node)) {
            node.retired.store(true, Ordering::Release);
            node.attention.notify_one();
        }
        self.tell_state();
        self.map_read.send_modify(|readings| *readings += 1);
        self.work.notify_one();
    }
}

/// Outcomes.
impl Shared {
    pub(super) fn succeeded(&self, node: &Node) {
        lock(&node.breaker).succeeded();
        self.set_up(node, true);
    }

    pub(super) fn failed(&self, node: &Node, failure: Failure) {
        self.metrics.error(failure.as_str());
        if failure == Failure::Moved {
            // The server is well; it is another that holds the key, or soon will.
            self.map_is_old.notify_one();
            return;
        }
        self.set_up(node, false);
        let opened = lock(&node.breaker).failed(self.clock.mono());
        if opened {
            self.tell_state();
            self.say_down(node, failure);
            node.link.send_replace(Link::Down);
            node.attention.notify_one();
            self.map_is_old.notify_one();
            self.work.notify_one();
        }
    }

    /// Takes a broken connection out of use, once however many operations it took with it.
    pub(super) fn broken(&self, node: &Node, connections: &Arc<Connections>) {
        let taken = node.link.send_if_modified(|link| match link {
            Link::Up(current) if Arc::ptr_eq(current, connections) => {
                *link = Link::Connecting;
                true
            }
            _ => false,
        });
        if taken {
            node.attention.notify_one();
        }
    }

    /// A server took a command for a replica's: behind Sentinels another is the master now.
    pub(super) fn is_no_master(&self, node: &Node) {
        if self.is_watched() {
            let link = node.link.borrow().clone();
            if let Link::Up(connections) = link {
                self.broken(node, &connections);
            }
        }
        self.map_is_old.notify_one();
    }

    /// Whether every server answered last time.
    pub(super) fn is_up(&self) -> bool {
        let nodes = self.all_nodes();
        !nodes.is_empty() && nodes.iter().all(|node| node.up.load(Ordering::Relaxed))
    }

    fn set_up(&self, node: &Node, up: bool) {
        if node.up.swap(up, Ordering::Relaxed) != up {
            self.tell_state();
        }
    }

    fn tell_state(&self) {
        self.metrics.up(self.is_up());
        self.metrics.circuit_open(self.all_nodes().iter().any(|node| !node.is_asked()));
    }

    fn say_down(&self, node: &Node, failure: Failure) {
        if !node.told_down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason = failure.as_str(),
                server = node.host().map(tracing::field::display),
                "Redis does not answer: going on without it, trying again every {PAUSE:?}"
            );
        }
    }
}

/// Connecting.
impl Shared {
    async fn keep_connected(self: Arc<Self>, node: Arc<Node>) {
        loop {
            let wait = lock(&node.breaker).next_probe(self.clock.mono());
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
                lock(&node.breaker).probe_begins();
            }
            match self.connect(&node).await {
                Ok(connections) => {
                    self.connected(&node, connections);
                    self.until_attention(&node).await;
                }
                Err(failure) => self.not_connected(&node, failure).await,
            }
            // Last, so that a tier dropped before it was ever used still writes what was queued.
            if self.is_closing() || node.retired.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn connected(&self, node: &Node, connections: Connections) {
        lock(&node.breaker).probe_ended(true, self.clock.mono());
        node.link.send_replace(Link::Up(Arc::new(connections)));
        self.set_up(node, true);
        self.tell_state();
        if node.told_down.swap(false, Ordering::Relaxed) {
            tracing::info!(server = node.host().map(tracing::field::display), "Redis answers again");
        }
        self.work.notify_one();
    }

    async fn not_connected(&self, node: &Node, failure: Failure) {
        node.link.send_replace(Link::Down);
        self.say_down(node, failure);
        self.failed(node, failure);
        lock(&node.breaker).probe_ended(false, self.clock.mono());
        // While the breaker is still closed nothing else keeps attempts apart.
        if node.is_asked() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the connections are of no use any more.
    async fn until_attention(&self, node: &Node) {
        while !self.is_closing() && !node.retired.load(Ordering::Acquire) && node.is_connected() {
            if !self.is_watched() {
                node.attention.notified().await;
            } else if timeout(WATCH, node.attention.notified()).await.is_err()
                && let Ok(master) = self.dialer.master().await
                && node.host() != Some(master)
            {
                self.is_no_master(node);
            }
        }
    }

    /// Connects, signs in, and asks for a sign of life within the budget an operation has: a Redis too slow to serve is not up.
    async fn connect(&self, node: &Node) -> Result<Connections, Failure> {
        let host = match &node.host {
            None if self.is_watched() => Some(self.dialer.master().await?),
            host => host.clone(),
        };
        let open = || self.dialer.open(host.as_ref());
        let opened = timeout(CONNECT.max(self.budget), async {
            tokio::try_join!(open(), open(), open(), open(), open())
        });
        let (one, two, write, pieces_in, pieces_out) = opened.await.map_err(|_| Failure::Timeout)??;
        let connections = Connections { reads: [one, two], write, pieces_in, pieces_out, host };
        let mut probe = connections.reads[0].clone();
        let answer = timeout(self.budget, async {
            let pong = ::redis::cmd("PING").query_async::<Value>(&mut probe).await;
            if self.is_watched() { Ok((pong, Some(is_master(&mut probe).await?))) } else { Ok((pong, None)) }
        });
        match answer.await.map_err(|_| Failure::Timeout)?? {
            (Ok(Value::SimpleString(word)), None | Some(true)) if word == "PONG" => {}
            (Err(error), _) => return Err(Failure::of(&error)),
            _ => return Err(Failure::Connection),
        }
        self.know_the_purges(node, &mut probe).await.map(|()| connections)
    }

    /// What is read before the purges are known could not be judged. A Redis that refuses to tell them is used nevertheless: see `log`.
    async fn know_the_purges(
        &self,
        node: &Node,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Failure> {
        let holds_the_log = self.node(FLEET).is_none_or(|log| std::ptr::eq(&*log, node));
        if !holds_the_log {
            let mut known = self.purges_known.subscribe();
            let waited = timeout(CONNECT, known.wait_for(|known| *known)).await;
            return waited.map_err(|_| Failure::Timeout).map(|_| ());
        }
        match self.catch_up(connection).await {
            Ok(()) | Err(Failure::Response) => {
                self.purges_known.send_replace(true);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn connections(&self, node: &Node) -> Result<Arc<Connections>, Failure> {
        let mut link = node.link.subscribe();
        loop {
            match &*link.borrow_and_update() {
                Link::Up(connections) => return Ok(connections.clone()),
                Link::Down => return Err(Failure::Connection),
                Link::Connecting => {}
            }
            link.changed().await.map_err(|_| Failure::Connection)?;
        }
    }

    /// Everybody who waits looks whether there is still something to wait for.
    pub(super) fn wake_all(&self) {
        for node in self.all_nodes() {
            node.attention.notify_one();
        }
        self.map_is_old.notify_one();
        self.work.notify_one();
    }
}

/// Sentinels may tell of a master that is none yet, or no longer.
async fn is_master(connection: &mut MultiplexedConnection) -> Result<bool, Failure> {
    let role = ::redis::cmd("ROLE").query_async::<Value>(connection).await.map_err(|e| Failure::of(&e))?;
    let Value::Array(words) = role else { return Err(Failure::Connection) };
    Ok(matches!(words.first(), Some(Value::BulkString(word)) if word == b"master"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: u16) -> Host {
        Host { name: "h".into(), port }
    }

    #[test]
    fn a_new_map_keeps_the_servers_that_still_hold_keys() {
        let none = Nodes::at_first(&Place::Cluster(vec![host(1)]));
        assert!(none.of(FLEET).is_none() && none.all.is_empty());
        let first = none.renewed(&[(0, 9_999, host(1)), (10_000, SLOTS - 1, host(2))]);
        let second =
            first.renewed(&[(0, 4_999, host(3)), (5_000, 9_999, host(1)), (10_000, 16_000, host(3))]);
        assert_eq!(second.all.len(), 2);
        assert!(second.all.iter().any(|node| Arc::ptr_eq(node, &first.all[0])));
        // `foo` lies in slot 12182.
        assert_eq!(first.of(b"foo").and_then(|node| node.host()), Some(host(2)));
        assert_eq!(second.of(b"foo").and_then(|node| node.host()), Some(host(3)));
        let hole = first.renewed(&[(0, 12_181, host(1)), (12_183, SLOTS - 1, host(2))]);
        assert!(hole.of(b"foo").is_none());
    }

    #[test]
    fn one_server_holds_everything() {
        let one = Nodes::at_first(&Place::Server(host(1)));
        assert_eq!(one.of(b"anything").and_then(|node| node.host()), Some(host(1)));
    }
}
