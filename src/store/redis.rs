//! The Redis tier: one round trip per hit, a budget for every operation, a breaker, writes behind.
//!
//! | name in Redis | what lies there |
//! |---|---|
//! | `{prefix}:v1:{<key hash>}` | the answer, or the marker that says which request fields choose among several |
//! | `{prefix}:v1:{<key hash>}:<generation>:<variant hash>` | one of several |
//!
//! The inner braces are written as such: they make Redis Cluster keep everything under one key in one slot. A variant is only reachable
//! through the marker's generation, so removing the marker removes them all at once; what is unreachable expires, since every value is
//! written with a lifetime.
//!
//! A large body lies apart (`redis/pieces.rs`). Beside them lie the log of the fleet, purges and changes (`redis/log.rs`), the leases of those who
//! fetch (`redis/lease.rs`), and what one gateway fetches for the clients of another (`redis/relay.rs`).
//!
//! One task for each server keeps the connections to it (`redis/node.rs`): it connects, and after a failure connects anew rather than trust a connection
//! on which answers are outstanding. Another makes the queued writes (`store::behind`). Requests only ever read, within their budget.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::behind::{Ahead, Batch, Behind, Job, Limits, Ticket, Variant};
use super::lock;
use super::memory::Hash;
use super::purges::Purges;
use super::{Body, Entry, Reach};
use crate::base::clock::{Clock, MonoTime, WallTime};
use crate::base::dice::Dice;
use crate::cache::purge::{Force, Label};
use crate::cache::record::{self, Apart, Stored, VARIANTS_SUM, Variants};
use crate::observe::metrics::RedisMetrics;
use crate::plan;

mod dial;
pub mod figures;
pub mod lease;
pub mod limit;
mod log;
mod node;
pub mod pieces;
pub mod relay;
mod slots;

use self::dial::Dialer;
use self::lease::Leases;
use self::log::Standing;
pub use self::log::{Listener, Told};
use self::node::{Connections, FLEET, Node, Nodes};
use self::pieces::{INLINE, Pieces, Upload};
use self::relay::Relays;

/// Failures in a row after which Redis is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone before it is probed. Together with [`CONNECT`] it bounds how long a Redis that is back goes unused.
const PAUSE: Duration = Duration::from_millis(500);
/// The budget for connecting and signing in; a probe's PING has the operation's own.
const CONNECT: Duration = Duration::from_secs(1);
/// The budget of asking one Sentinel.
const SENTINEL: Duration = Duration::from_millis(300);
/// The least budget of a batch of writes: nobody waits for it, and giving up early only loses entries.
const WRITE: Duration = Duration::from_secs(1);
/// What a batch may take on top, by its size.
const WRITE_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;
/// How much may wait to be written.
const WAITING: Limits = Limits { jobs: 8192, bytes: 64 * 1024 * 1024 };
/// How much is written in one round trip, about.
const BATCH_JOBS: usize = 128;
const BATCH_BYTES: u64 = 1024 * 1024;
/// Commands that may wait in one connection's channel; past it requests wait for room, within their budget.
const CHANNEL: usize = 1024;
/// The longest lifetime written: Redis refuses one that overflows its clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Keeps the marker that is there when it names the same fields, and lets it live at least as long as the new variant; else writes
/// the given one. Answers with what is there now. One key, so that it may run on any cluster.
const KEEP_OR_WRITE: &str = "\
local new = ARGV[1]
if redis.call('STRLEN', KEYS[1]) == #new then
  local old = redis.call('GET', KEYS[1])
  local from, to = tonumber(ARGV[3]), tonumber(ARGV[4])
  if old:sub(1, from) == new:sub(1, from) and old:sub(to, -9) == new:sub(to, -9) then
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
      redis.call('PEXPIRE', KEYS[1], ARGV[2])
    end
    return old
  end
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return new
";

/// The connections to Redis that all caches of the process share.
pub struct RedisTier {
    shared: Arc<Shared>,
}

/// What kept Redis from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The budget passed.
    Timeout,
    /// No connection.
    Connection,
    /// An error for an answer.
    Error,
    /// It reads its data after a start.
    Loading,
    /// The key has moved to another server of the Cluster, or will when one has taken over.
    Moved,
    /// It failed so often that it was not asked.
    CircuitOpen,
    /// What it holds cannot be read.
    Damaged,
    /// A part of what it holds is gone.
    Missing,
}

impl Trouble {
    /// The word for `Cache-Status` and the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "redis-timeout",
            Self::Connection => "redis-connection",
            Self::Error => "redis-error",
            Self::Loading => "redis-loading",
            Self::Moved => "redis-moved",
            Self::CircuitOpen => "redis-circuit-open",
            Self::Damaged => "redis-damaged",
            Self::Missing => "redis-missing",
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout => Self::Timeout,
            Failure::Connection | Failure::Tls | Failure::SignIn => Self::Connection,
            Failure::Loading => Self::Loading,
            Failure::Moved => Self::Moved,
            Failure::Response => Self::Error,
        }
    }
}

impl RedisTier {
    /// Prepares the tier; connects in the background, so that an absent Redis never delays the start. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL or a file it needs cannot be read; the text contains neither, since they may hold a password.
    pub fn new(plan: &plan::Redis, clock: Arc<Clock>, metrics: RedisMetrics) -> Result<Arc<Self>, String> {
        let purges = Arc::new(Purges::of_a_fleet(plan.trust, clock.wall()));
        let dialer = Dialer::new(plan)?;
        let shared = Arc::new(Shared {
            id: Dice::from_entropy().any_u64(),
            purges,
            standing: Mutex::default(),
            listeners: Mutex::default(),
            leases: Leases::default(),
            relays: Relays::default(),
            prefix: plan.prefix.clone(),
            budget: plan.timeout,
            nodes: ArcSwap::from_pointee(Nodes::at_first(&dialer.url.place)),
            dialer,
            map_is_old: Notify::new(),
            map_read: watch::Sender::new(0),
            purges_known: watch::Sender::new(false),
            clock,
            metrics,
            told_refused: AtomicBool::new(false),
            behind: Mutex::new(Behind::new(WAITING)),
            work: Notify::new(),
            done: watch::Sender::new(0),
            closing: AtomicBool::new(false),
        });
        shared.begin();
        tokio::spawn(shared.clone().write_behind());
        tokio::spawn(shared.clone().follow());
        Ok(Arc::new(Self { shared }))
    }

    /// Whether the last operation succeeded, on every server.
    pub fn is_up(&self) -> bool {
        self.shared.is_up()
    }

    /// Waits until every write queued so far has been made or given up: for an orderly shutdown and for tests.
    pub async fn flush(&self) {
        self.shared.flush().await;
    }

    /// What will be in Redis under a name once all writes are made.
    pub(super) fn ahead(&self, name: &Hash) -> Ahead {
        lock(&self.shared.behind).ahead(name)
    }

    /// Queues a write.
    pub(super) fn put(&self, job: Job) {
        if self.shared.node_of_job(&job).is_some_and(|node| node.is_asked()) {
            self.shared.push(job);
        } else {
            self.shared.metrics.error("circuit-open");
        }
    }

    /// The purges this process knows.
    pub(super) fn purges(&self) -> &Arc<Purges> {
        &self.shared.purges
    }

    /// Who is told of changes made elsewhere.
    pub(super) fn listen(&self, listener: Weak<dyn Listener>) {
        lock(&self.shared.listeners).push(listener);
    }

    /// Purges everything under these labels: in this process on return, and in the fleet as the answer says.
    pub async fn purge(&self, labels: &[Label], force: Force) -> Reach {
        Reach::Fleet(self.shared.tell_purge(labels, force).await)
    }

    /// Queues the removal of everything under a key. It is made again until it succeeds, and until then look-ups leave Redis alone for this key.
    pub(super) fn remove(&self, name: Hash) {
        lock(&self.shared.behind).push(Job::Remove { name });
        self.shared.work.notify_one();
    }

    /// Counts a value that cannot be read, and has it removed.
    pub(super) fn damaged(&self, key: String) {
        self.shared.metrics.error("damaged");
        self.put(Job::Discard { key });
    }

    /// Begins a look-up; its reads share one budget.
    pub(super) fn reader(&self, primary: &Hash) -> Reader<'_> {
        let deadline = self.shared.clock.mono().plus(self.shared.budget);
        // Spread by key: a large answer then holds up only half of the others.
        Reader { shared: &self.shared, primary: *primary, side: usize::from(primary[0] & 1), deadline }
    }

    /// Begins to write a body that is too large to be held until all of it is there.
    pub(super) fn upload(&self, primary: Hash) -> Upload {
        Upload::begin(self.shared.clone(), primary)
    }

    /// A body whose place was read from the value of this name.
    pub(super) fn body(&self, primary: Hash, name: &str, place: Apart) -> Body {
        Body::lying_apart(Arc::new(Pieces::new(self.shared.clone(), primary, Some(name.to_owned()), place)))
    }

    /// Whether Redis is asked at all for what lies under a key.
    pub(super) fn is_asked(&self, primary: &Hash) -> bool {
        self.shared.node_of(primary).is_some_and(|node| node.is_asked())
    }

    /// The name in Redis of what lies under a key itself.
    pub(super) fn key(&self, primary: &Hash) -> String {
        self.shared.key(primary)
    }

    /// The name in Redis of a variant.
    pub(super) fn variant_key(&self, primary: &Hash, generation: u64, name: &Hash) -> String {
        self.shared.variant_key(primary, generation, name)
    }
}

impl Drop for RedisTier {
    /// What is queued is still written; then the tasks end.
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake_all();
    }
}

/// One look-up's reads.
pub(super) struct Reader<'t> {
    shared: &'t Shared,
    primary: Hash,
    side: usize,
    deadline: MonoTime,
}

impl Reader<'_> {
    /// Reads values in one round trip; the names must lie in one slot. As many values as names. When they have moved to another server of a Cluster,
    /// that is found out and asked.
    pub(super) async fn read(&self, names: &[String]) -> Result<Vec<Option<Bytes>>, Trouble> {
        let mut map = self.shared.map_read.subscribe();
        match self.read_once(names).await {
            Err(Trouble::Moved) => {
                let left = self.deadline.since(self.shared.clock.mono());
                match timeout(left, map.changed()).await {
                    Ok(Ok(())) => self.read_once(names).await,
                    _ => Err(Trouble::Moved),
                }
            }
            ended => ended,
        }
    }

    async fn read_once(&self, names: &[String]) -> Result<Vec<Option<Bytes>>, Trouble> {
        let shared = self.shared;
        let node = shared.node_of(&self.primary);
        let node = shared.asked(node.as_ref())?;
        let started = shared.clock.mono();
        let ended = timeout(self.deadline.since(started), shared.read(node, self.side, names)).await;
        shared.metrics.command("get", shared.clock.mono().since(started));
        let ended = ended.unwrap_or(Err(Failure::Timeout));
        match &ended {
            Ok(_) => shared.succeeded(node),
            Err(failure) => shared.failed(node, *failure),
        }
        ended.map_err(Trouble::from)
    }
}

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The budget passed.
    Timeout,
    /// No connection, it broke, or what came over it was not Redis' protocol.
    Connection,
    /// No connection that could be trusted: a certificate, or our own.
    Tls,
    /// It does not know us.
    SignIn,
    /// It reads its data after a start.
    Loading,
    /// Another server of the Cluster holds the key, or none does until one has taken over.
    Moved,
    /// Redis answered with another error.
    Response,
}

impl Failure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::SignIn => "sign-in",
            Self::Loading => "loading",
            Self::Moved => "moved",
            Self::Response => "response",
        }
    }

    /// Only an error Redis itself sent leaves the connection fit for use: after any other, answers and questions may be out of step.
    fn of(error: &RedisError) -> Self {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, TryAgain};
        match error.kind() {
            ErrorKind::Server(BusyLoading) => Self::Loading,
            ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown | MasterDown) => Self::Moved,
            ErrorKind::AuthenticationFailed => Self::SignIn,
            _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) => Self::SignIn,
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Response,
            _ => Self::Connection,
        }
    }

    /// Whether the connection is out of step.
    const fn breaks(self) -> bool {
        matches!(self, Self::Connection)
    }
}

/// What kind of refusal an error for a write is, for the metric.
fn refusal(error: &RedisError) -> &'static str {
    match error.code() {
        Some("OOM") => "full",
        Some("READONLY") => "read-only",
        Some("NOPERM") => "forbidden",
        _ => Failure::of(error).as_str(),
    }
}

struct Shared {
    /// Names this process among those that write to the log.
    id: u64,
    purges: Arc<Purges>,
    standing: Mutex<Standing>,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    leases: Leases,
    relays: Relays,
    prefix: String,
    budget: Duration,
    dialer: Dialer,
    nodes: ArcSwap<Nodes>,
    /// A server failed, or said that a key has moved.
    map_is_old: Notify,
    /// How often the map was read.
    map_read: watch::Sender<u64>,
    /// Whether the purges the fleet knows of were ever read.
    purges_known: watch::Sender<bool>,
    clock: Arc<Clock>,
    metrics: RedisMetrics,
    told_refused: AtomicBool,
    behind: Mutex<Behind>,
    work: Notify,
    done: watch::Sender<Ticket>,
    closing: AtomicBool,
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The server that holds what lies under a key.
    fn node_of(&self, primary: &Hash) -> Option<Arc<Node>> {
        self.node(hex(primary).as_bytes())
    }

    fn node_of_job(&self, job: &Job) -> Option<Arc<Node>> {
        match job {
            Job::Answer { name, .. } | Job::Remove { name } => self.node_of(name),
            Job::Variant(v) => self.node_of(&v.primary),
            Job::Discard { key } => self.node_of_name(key),
        }
    }

    /// All names are ours: the hash tag stands between braces.
    fn node_of_name(&self, name: &str) -> Option<Arc<Node>> {
        self.node(name.split(['{', '}']).nth(1)?.as_bytes())
    }

    /// The server to ask, unless it is left alone or nobody knows which one it is.
    fn asked<'n>(&self, node: Option<&'n Arc<Node>>) -> Result<&'n Arc<Node>, Trouble> {
        let trouble = match node {
            Some(node) if node.is_asked() => return Ok(node),
            Some(_) => Trouble::CircuitOpen,
            None => Trouble::Connection,
        };
        self.metrics.error(if node.is_some() { "circuit-open" } else { "connection" });
        Err(trouble)
    }
}

/// Reading.
impl Shared {
    async fn read(&self, node: &Node, side: usize, names: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
        let connections = self.connections(node).await?;
        let mut connection = connections.reads[side].clone();
        let mut command = ::redis::cmd(if names.len() == 1 { "GET" } else { "MGET" });
        command.arg(names);
        let answer = command.query_async::<Value>(&mut connection).await;
        let values = answer.map_err(|e| Failure::of(&e)).and_then(|value| values(value, names.len()));
        if values.as_ref().is_err_and(|failure| failure.breaks()) {
            self.broken(node, &connections);
        }
        values
    }

    fn discard(&self, key: String) {
        self.push(Job::Discard { key });
    }

    fn push(&self, job: Job) {
        if lock(&self.behind).push(job) {
            self.work.notify_one();
        } else {
            self.metrics.error("dropped");
        }
    }

    fn key(&self, primary: &Hash) -> String {
        format!("{}:v1:{{{}}}", self.prefix, hex(primary))
    }

    fn variant_key(&self, primary: &Hash, generation: u64, name: &Hash) -> String {
        format!("{}:{generation:016x}:{}", self.key(primary), hex(name))
    }
}

/// Writing.
impl Shared {
    /// Waits until every write queued so far has been made or given up.
    async fn flush(&self) {
        let last = lock(&self.behind).last();
        let mut done = self.done.subscribe();
        // It only fails when the writer is gone, and then nothing is written any more.
        let _ = done.wait_for(|done| *done >= last).await;
    }

    async fn write_behind(self: Arc<Self>) {
        let mut again_at = MonoTime::default();
        loop {
            let Some(batch) = self.next_batch(again_at) else {
                if self.is_closing() {
                    return;
                }
                self.until_work(again_at).await;
                continue;
            };
            let last = batch.iter().map(|(ticket, _)| *ticket).max().unwrap_or(0);
            if !self.write(batch).await {
                again_at = self.clock.mono().plus(PAUSE);
            }
            self.done_until(last);
        }
    }

    /// `None`: nothing is to be written now.
    fn next_batch(&self, again_at: MonoTime) -> Option<Batch> {
        let due = self.is_any_asked() && self.clock.mono() >= again_at;
        let mut behind = lock(&self.behind);
        let batch = behind.take(BATCH_JOBS, BATCH_BYTES, due);
        if batch.is_empty() {
            self.done_until(behind.last());
            return None;
        }
        Some(batch)
    }

    fn is_any_asked(&self) -> bool {
        self.all_nodes().iter().any(|node| node.is_asked())
    }

    /// A server that is left alone gets nothing. All is given up but the removals, which wait for it.
    fn give_up(&self, batch: &Batch) -> bool {
        let mut behind = lock(&self.behind);
        let mut all_removed = true;
        for (ticket, job) in batch {
            match job {
                Job::Remove { name } => {
                    all_removed = false;
                    behind.failed_removal(*ticket, *name);
                }
                _ => {
                    behind.over(*ticket, job);
                    self.metrics.error("circuit-open");
                }
            }
        }
        all_removed
    }

    async fn until_work(&self, again_at: MonoTime) {
        let again = lock(&self.behind).has_failed() && self.is_any_asked();
        if again {
            let _ = timeout(again_at.since(self.clock.mono()), self.work.notified()).await;
        } else {
            self.work.notified().await;
        }
    }

    fn done_until(&self, ticket: Ticket) {
        self.done.send_if_modified(|done| {
            let later = ticket > *done;
            *done = ticket.max(*done);
            later
        });
    }

    /// Makes writes, on every server at once. Answers whether every removal was made.
    async fn write(&self, batch: Batch) -> bool {
        let mut parts: Vec<(Option<Arc<Node>>, Batch)> = Vec::new();
        for (ticket, job) in batch {
            let node = self.node_of_job(&job).filter(|node| node.is_asked());
            let same =
                |other: &Option<Arc<Node>>| other.as_ref().map(Arc::as_ptr) == node.as_ref().map(Arc::as_ptr);
            match parts.iter_mut().find(|(other, _)| same(other)) {
                Some((_, part)) => part.push((ticket, job)),
                None => parts.push((node, vec![(ticket, job)])),
            }
        }
        let writes = parts.into_iter().map(async |(node, part)| match node {
            Some(node) => self.write_to(&node, part).await,
            None => self.give_up(&part),
        });
        join_all(writes).await.into_iter().all(|all_removed| all_removed)
    }

    /// Makes writes in two round trips at most: everything but variants, whose names depend on the marker that is there, then those.
    async fn write_to(&self, node: &Arc<Node>, batch: Batch) -> bool {
        let now = self.clock.wall();
        let replaced =
            self.bodies_of(node, batch.iter().filter_map(|(_, job)| self.replaces(job)).collect()).await;
        let mut pipe = Pipe::default();
        let mut sent = Batch::with_capacity(batch.len());
        for (ticket, job) in batch {
            if self.add(&mut pipe, &job, now).await {
                sent.push((ticket, job));
            } else {
                lock(&self.behind).over(ticket, &job);
            }
        }
        match self.send(node, pipe).await {
            Ok(replies) => {
                self.let_go(replaced.into_iter().filter(|(_, place)| !is_named(&sent, place)).collect())
                    .await;
                self.conclude(node, sent, replies, now).await
            }
            Err(_) => self.abandon(sent),
        }
    }

    /// The key and the name under which a write may leave a body without a name.
    fn replaces(&self, job: &Job) -> Option<(Hash, String)> {
        match job {
            Job::Remove { name } => Some((*name, self.key(name))),
            Job::Answer { name, entry, .. } if entry.body.len() > INLINE => Some((*name, self.key(name))),
            _ => None,
        }
    }

    /// Adds the command of a write; `false` when what it would write is past its use, or its body could not be written.
    async fn add(&self, pipe: &mut Pipe, job: &Job, now: WallTime) -> bool {
        match job {
            Job::Answer { name, entry, seal } => {
                let Some(form) = self.value(name, entry, seal, now).await else { return false };
                pipe.set(&self.key(name), form, entry, now)
            }
            Job::Variant(v) => {
                let Some(lifetime) = lifetime(&v.entry, now) else { return false };
                let form = record::encode(&Stored::Variants((*v.candidate).clone()));
                let command = pipe.command("set", "EVAL");
                command.arg(KEEP_OR_WRITE).arg(1).arg(self.key(&v.primary));
                command.arg(form).arg(lifetime).arg(VARIANTS_SUM.start).arg(VARIANTS_SUM.end + 1);
                true
            }
            // Whoever fetches it began before the change: nobody waits for that any more.
            Job::Remove { name } => pipe.delete(&[&self.key(name), &self.lease_key(name)]),
            Job::Discard { key } => pipe.delete(&[key]),
        }
    }

    /// Sends a pipeline within the budget its size gives it. One reply per command.
    async fn send(&self, node: &Arc<Node>, pipe: Pipe) -> Result<Vec<RedisResult<Value>>, Failure> {
        self.send_on(node, pipe, |connections| &connections.write).await
    }

    async fn send_on(
        &self,
        node: &Arc<Node>,
        pipe: Pipe,
        which: impl Fn(&Connections) -> &MultiplexedConnection,
    ) -> Result<Vec<RedisResult<Value>>, Failure> {
        if pipe.labels.is_empty() {
            return Ok(Vec::new());
        }
        let started = self.clock.mono();
        let ended = timeout(self.time_to_write(pipe.bytes), async {
            let connections = self.connections(node).await?;
            let mut connection = which(&connections).clone();
            let replies = pipe.commands.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
            let replies = replies.map_err(|e| Failure::of(&e)).and_then(|replies| {
                if replies.len() == pipe.labels.len() { Ok(replies) } else { Err(Failure::Connection) }
            });
            if replies.as_ref().is_err_and(|failure| failure.breaks()) {
                self.broken(node, &connections);
            }
            replies
        });
        let ended = ended.await.unwrap_or(Err(Failure::Timeout));
        let took = self.clock.mono().since(started);
        for label in pipe.labels {
            self.metrics.command(label, took);
        }
        match &ended {
            Ok(replies) => {
                self.succeeded(node);
                self.tell_refusals(node, replies);
            }
            Err(failure) => self.failed(node, *failure),
        }
        ended
    }

    async fn conclude(
        &self,
        node: &Arc<Node>,
        sent: Batch,
        replies: Vec<RedisResult<Value>>,
        now: WallTime,
    ) -> bool {
        let mut all_removed = true;
        let mut variants = Vec::new();
        let mut removed = Vec::new();
        for ((ticket, job), reply) in sent.into_iter().zip(replies) {
            match (job, reply) {
                (Job::Variant(variant), Ok(value)) => {
                    let marker = marker_of(value, &variant.candidate);
                    variants.push((ticket, variant, marker));
                }
                (Job::Remove { name }, Ok(_)) => removed.push((ticket, name)),
                (Job::Remove { name }, Err(_)) => {
                    all_removed = false;
                    lock(&self.behind).failed_removal(ticket, name);
                }
                (job, _) => lock(&self.behind).over(ticket, &job),
            }
        }
        self.write_variants(node, variants, now).await;
        self.tell_removals(removed).await && all_removed
    }

    /// Tells the other gateways, whose memory may hold what was removed here. A removal is only made when they were told.
    async fn tell_removals(&self, removed: Vec<(Ticket, Hash)>) -> bool {
        let mut pipe = Pipe::default();
        self.announce(&mut pipe, removed.iter().map(|(_, name)| *name));
        let told = match self.send_to_log(pipe).await {
            Ok(replies) => !replies.iter().any(|reply| reply.as_ref().is_err_and(passes)),
            Err(_) => false,
        };
        let mut behind = lock(&self.behind);
        for (ticket, name) in removed {
            if told {
                behind.over(ticket, &Job::Remove { name });
            } else {
                behind.failed_removal(ticket, name);
            }
        }
        told
    }

    async fn send_to_log(&self, pipe: Pipe) -> Result<Vec<RedisResult<Value>>, Failure> {
        match self.node(FLEET) {
            Some(node) => self.send(&node, pipe).await,
            None => Err(Failure::Connection),
        }
    }

    async fn write_variants(
        &self,
        node: &Arc<Node>,
        variants: Vec<(Ticket, Variant, Option<Arc<Variants>>)>,
        now: WallTime,
    ) {
        let mut pipe = Pipe::default();
        let mut told = Vec::with_capacity(variants.len());
        for (ticket, variant, marker) in variants {
            let marker = marker.unwrap_or_else(|| {
                self.metrics.error("damaged");
                self.replace_marker(&mut pipe, &variant, now);
                variant.candidate.clone()
            });
            if let Some(form) = self.value(&variant.primary, &variant.entry, &variant.seal, now).await {
                let name = self.variant_key(&variant.primary, marker.generation, &variant.name);
                pipe.set(&name, form, &variant.entry, now);
            }
            told.push((ticket, variant, marker));
        }
        let _ = self.send(node, pipe).await;
        for (ticket, variant, marker) in told {
            // A removal that is still to be made takes this marker with it.
            let removing = lock(&self.behind).is_removing(&variant.primary);
            if !removing {
                variant.settle.settle(&variant, marker, true);
            }
            lock(&self.behind).over(ticket, &Job::Variant(variant));
        }
    }

    /// What is there looks like a marker for the same fields, but cannot be read.
    fn replace_marker(&self, pipe: &mut Pipe, variant: &Variant, now: WallTime) {
        if let Some(lifetime) = lifetime(&variant.entry, now) {
            let form = record::encode(&Stored::Variants((*variant.candidate).clone()));
            pipe.command("set", "SET").arg(self.key(&variant.primary)).arg(form).arg("PX").arg(lifetime);
        }
    }

    /// Nobody knows which of these writes were made.
    fn abandon(&self, sent: Batch) -> bool {
        let mut all_removed = true;
        for (ticket, job) in sent {
            if let Job::Remove { name } = job {
                all_removed = false;
                lock(&self.behind).failed_removal(ticket, name);
                continue;
            }
            if let Job::Variant(variant) = &job
                && variant.marker.generation == variant.candidate.generation
            {
                // Redis may have it after all, and another gateway may build on it and invalidate it: it is not offered twice.
                let generation = Dice::from_entropy().any_u64();
                let marker = Variants { generation, ..(*variant.marker).clone() };
                variant.settle.settle(variant, Arc::new(marker), false);
            }
            lock(&self.behind).over(ticket, &job);
        }
        all_removed
    }

    fn tell_refusals(&self, node: &Node, replies: &[RedisResult<Value>]) {
        let mut first = None;
        for error in replies.iter().filter_map(|reply| reply.as_ref().err()) {
            self.metrics.error(refusal(error));
            match refusal(error) {
                "moved" => self.map_is_old.notify_one(),
                "read-only" => self.is_no_master(node),
                _ => {}
            }
            first.get_or_insert(error);
        }
        match first {
            Some(error) if !self.told_refused.swap(true, Ordering::Relaxed) => {
                tracing::warn!(code = error.code().unwrap_or("?"), "Redis refuses writes");
            }
            Some(_) => {}
            None => self.told_refused.store(false, Ordering::Relaxed),
        }
    }
}

/// Whether what an error says may pass: a Redis that is full or loading takes the command later, one that does not know it or forbids it never does.
fn passes(error: &RedisError) -> bool {
    !matches!(error.code(), Some("ERR" | "NOPERM"))
}

/// Commands to be sent together.
struct Pipe {
    commands: ::redis::Pipeline,
    labels: Vec<&'static str>,
    bytes: u64,
}

impl Default for Pipe {
    fn default() -> Self {
        let mut commands = ::redis::Pipeline::new();
        commands.ignore_errors();
        Self { commands, labels: Vec::new(), bytes: 0 }
    }
}

impl Pipe {
    fn command(&mut self, label: &'static str, name: &str) -> &mut ::redis::Pipeline {
        self.labels.push(label);
        self.commands.cmd(name)
    }

    fn set(&mut self, key: &str, form: Vec<u8>, entry: &Entry, now: WallTime) -> bool {
        let Some(lifetime) = lifetime(entry, now) else { return false };
        self.bytes += form.len() as u64;
        self.command("set", "SET").arg(key).arg(form).arg("PX").arg(lifetime);
        true
    }

    fn delete(&mut self, keys: &[&String]) -> bool {
        self.command("del", "DEL").arg(keys);
        true
    }
}

/// Whether one of these writes names this body anew.
fn is_named(batch: &Batch, place: &Apart) -> bool {
    batch.iter().any(|(_, job)| match job {
        Job::Answer { entry, .. } => {
            entry.body.apart().is_some_and(|pieces| pieces.place().generation == place.generation)
        }
        _ => false,
    })
}

/// How long an answer is worth keeping in Redis, in milliseconds; `None` when it is not.
fn lifetime(entry: &Entry, now: WallTime) -> Option<u64> {
    let worth = entry.record.worth(now).min(LONGEST).as_millis();
    u64::try_from(worth).ok().filter(|worth| *worth > 0)
}

/// The marker a script answered with; `None` when it cannot be read.
fn marker_of(value: Value, candidate: &Variants) -> Option<Arc<Variants>> {
    let Value::BulkString(bytes) = value else { return None };
    match record::decode(bytes.into()) {
        Ok(Stored::Variants(marker)) if marker.key == candidate.key && marker.names == candidate.names => {
            Some(Arc::new(marker))
        }
        _ => None,
    }
}

/// The values of a GET or MGET. Anything else is an answer to another question.
fn values(answer: Value, count: usize) -> Result<Vec<Option<Bytes>>, Failure> {
    let one = |value| match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        _ => Err(Failure::Connection),
    };
    match answer {
        Value::Array(values) if count > 1 && values.len() == count => values.into_iter().map(one).collect(),
        value if count == 1 => Ok(vec![one(value)?]),
        _ => Err(Failure::Connection),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn hex(hash: &Hash) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
