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
//! A large body lies apart (`redis/pieces.rs`). Beside them lies the log of the fleet: purges and changes (`redis/log.rs`).
//!
//! One task keeps the connections: it connects, and after a failure connects anew rather than trust a connection on which answers are
//! outstanding. Another makes the queued writes (`store::behind`). Requests only ever read, within their budget.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, Value};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::behind::{Ahead, Batch, Behind, Job, Limits, Ticket, Variant};
use super::breaker::Breaker;
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

mod log;
pub mod pieces;

use self::log::Standing;
pub use self::log::{Listener, Told};
use self::pieces::{INLINE, Pieces, Upload};

/// Failures in a row after which Redis is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone before it is probed. Together with [`CONNECT`] it bounds how long a Redis that is back goes unused.
const PAUSE: Duration = Duration::from_millis(500);
/// The budget for connecting and signing in; a probe's PING has the operation's own.
const CONNECT: Duration = Duration::from_secs(1);
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

/// The connection to Redis that all caches of the process share.
pub struct RedisTier {
    shared: Arc<Shared>,
}

/// What kept Redis from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The budget passed.
    Timeout,
    /// No connection, or an error for an answer.
    Error,
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
            Self::Error => "redis-error",
            Self::CircuitOpen => "redis-circuit-open",
            Self::Damaged => "redis-damaged",
            Self::Missing => "redis-missing",
        }
    }
}

impl RedisTier {
    /// Prepares the tier; connects in the background, so that an absent Redis never delays the start. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the URL cannot be read; the text does not contain it, since it may hold a password.
    pub fn new(plan: &plan::Redis, clock: Arc<Clock>, metrics: RedisMetrics) -> Result<Arc<Self>, String> {
        let purges = Arc::new(Purges::of_a_fleet(plan.trust, clock.wall()));
        let shared = Arc::new(Shared {
            id: Dice::from_entropy().any_u64(),
            purges,
            standing: Mutex::default(),
            listeners: Mutex::default(),
            prefix: plan.prefix.clone(),
            budget: plan.timeout,
            client: client(&plan.url)?,
            clock,
            metrics,
            breaker: Mutex::new(Breaker::new(FAILURES, PAUSE)),
            up: AtomicBool::new(false),
            told_down: AtomicBool::new(false),
            told_refused: AtomicBool::new(false),
            link: watch::Sender::new(Link::Connecting),
            attention: Notify::new(),
            behind: Mutex::new(Behind::new(WAITING)),
            work: Notify::new(),
            done: watch::Sender::new(0),
            closing: AtomicBool::new(false),
        });
        tokio::spawn(shared.clone().keep_connected());
        tokio::spawn(shared.clone().write_behind());
        tokio::spawn(shared.clone().follow());
        Ok(Arc::new(Self { shared }))
    }

    /// Whether the last operation succeeded.
    pub fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Waits until every write queued so far has been made or given up: for an orderly shutdown and for tests.
    pub async fn flush(&self) {
        let last = lock(&self.shared.behind).last();
        let mut done = self.shared.done.subscribe();
        // It only fails when the writer is gone, and then nothing is written any more.
        let _ = done.wait_for(|done| *done >= last).await;
    }

    /// What will be in Redis under a name once all writes are made.
    pub(super) fn ahead(&self, name: &Hash) -> Ahead {
        lock(&self.shared.behind).ahead(name)
    }

    /// Queues a write.
    pub(super) fn put(&self, job: Job) {
        if !lock(&self.shared.breaker).is_closed() {
            self.shared.metrics.error("circuit-open");
        } else {
            self.shared.push(job);
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
        Reader { shared: &self.shared, side: usize::from(primary[0] & 1), deadline }
    }

    /// Begins to write a body that is too large to be held until all of it is there.
    pub(super) fn upload(&self, primary: Hash) -> Upload {
        Upload::begin(self.shared.clone(), primary)
    }

    /// A body whose place was read from the value of this name.
    pub(super) fn body(&self, primary: Hash, name: &str, place: Apart) -> Body {
        Body::lying_apart(Arc::new(Pieces::new(self.shared.clone(), primary, Some(name.to_owned()), place)))
    }

    /// Whether Redis is asked at all.
    pub(super) fn is_asked(&self) -> bool {
        lock(&self.shared.breaker).is_closed()
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
        self.shared.attention.notify_one();
        self.shared.work.notify_one();
    }
}

/// One look-up's reads.
pub(super) struct Reader<'t> {
    shared: &'t Shared,
    side: usize,
    deadline: MonoTime,
}

impl Reader<'_> {
    /// Reads values in one round trip; the names must lie in one slot. As many values as names.
    pub(super) async fn read(&self, names: &[String]) -> Result<Vec<Option<Bytes>>, Trouble> {
        let shared = self.shared;
        if !lock(&shared.breaker).is_closed() {
            shared.metrics.error("circuit-open");
            return Err(Trouble::CircuitOpen);
        }
        let started = shared.clock.mono();
        let ended = timeout(self.deadline.since(started), shared.read(self.side, names)).await;
        shared.metrics.command("get", shared.clock.mono().since(started));
        match ended {
            Ok(Ok(values)) => {
                shared.succeeded();
                Ok(values)
            }
            Ok(Err(failure)) => {
                shared.failed(failure);
                Err(Trouble::Error)
            }
            Err(_) => {
                shared.failed(Failure::Timeout);
                Err(Trouble::Timeout)
            }
        }
    }
}

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The budget passed.
    Timeout,
    /// No connection, it broke, or what came over it was not Redis' protocol.
    Connection,
    /// Redis answered with an error.
    Response,
}

impl Failure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Response => "response",
        }
    }

    /// Only an error Redis itself sent leaves the connection fit for use: after any other, answers and questions may be out of step.
    fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Response,
            _ => Self::Connection,
        }
    }
}

#[derive(Clone)]
enum Link {
    /// Not yet, or anew after a break: whoever has a budget waits.
    Connecting,
    Up(Arc<Connections>),
    /// The last attempt failed: nobody waits.
    Down,
}

/// Reads and writes apart, and large values apart from small ones, so that a request's read never stands behind something large.
struct Connections {
    reads: [MultiplexedConnection; 2],
    write: MultiplexedConnection,
    pieces_in: MultiplexedConnection,
    pieces_out: MultiplexedConnection,
}

struct Shared {
    /// Names this process among those that write to the log.
    id: u64,
    purges: Arc<Purges>,
    standing: Mutex<Standing>,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    prefix: String,
    budget: Duration,
    client: Client,
    clock: Arc<Clock>,
    metrics: RedisMetrics,
    breaker: Mutex<Breaker>,
    up: AtomicBool,
    told_down: AtomicBool,
    told_refused: AtomicBool,
    link: watch::Sender<Link>,
    attention: Notify,
    behind: Mutex<Behind>,
    work: Notify,
    done: watch::Sender<Ticket>,
    closing: AtomicBool,
}

/// Outcomes.
impl Shared {
    fn succeeded(&self) {
        lock(&self.breaker).succeeded();
        self.set_up(true);
    }

    fn failed(&self, failure: Failure) {
        self.metrics.error(failure.as_str());
        self.set_up(false);
        let opened = lock(&self.breaker).failed(self.clock.mono());
        if opened {
            self.metrics.circuit_open(true);
            self.say_down(failure);
            self.link.send_replace(Link::Down);
            self.attention.notify_one();
            self.work.notify_one();
        }
    }

    /// Takes a broken connection out of use, once however many operations it took with it.
    fn broken(&self, connections: &Arc<Connections>) {
        let taken = self.link.send_if_modified(|link| match link {
            Link::Up(current) if Arc::ptr_eq(current, connections) => {
                *link = Link::Connecting;
                true
            }
            _ => false,
        });
        if taken {
            self.attention.notify_one();
        }
    }

    fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            self.metrics.up(up);
        }
    }

    fn say_down(&self, failure: Failure) {
        if !self.told_down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason = failure.as_str(),
                "Redis does not answer: going on without it, trying again every {PAUSE:?}"
            );
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// Connecting.
impl Shared {
    async fn keep_connected(self: Arc<Self>) {
        loop {
            let wait = lock(&self.breaker).next_probe(self.clock.mono());
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
                lock(&self.breaker).probe_begins();
            }
            match self.connect().await {
                Ok(connections) => {
                    self.connected(connections);
                    self.until_attention().await;
                }
                Err(failure) => self.not_connected(failure).await,
            }
            // Last, so that a tier dropped before it was ever used still writes what was queued.
            if self.is_closing() {
                return;
            }
        }
    }

    fn connected(&self, connections: Connections) {
        lock(&self.breaker).probe_ended(true, self.clock.mono());
        self.metrics.circuit_open(false);
        self.set_up(true);
        if self.told_down.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis answers again");
        }
        self.link.send_replace(Link::Up(Arc::new(connections)));
        self.work.notify_one();
    }

    async fn not_connected(&self, failure: Failure) {
        self.link.send_replace(Link::Down);
        self.say_down(failure);
        self.failed(failure);
        lock(&self.breaker).probe_ended(false, self.clock.mono());
        // While the breaker is still closed nothing else keeps attempts apart.
        if lock(&self.breaker).is_closed() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the connections are of no use any more.
    async fn until_attention(&self) {
        while !self.is_closing() && matches!(*self.link.borrow(), Link::Up(_)) {
            self.attention.notified().await;
        }
    }

    /// Connects, signs in, and asks for a sign of life within the budget an operation has: a Redis too slow to serve is not up.
    async fn connect(&self) -> Result<Connections, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(CHANNEL);
        let open = || self.client.get_multiplexed_async_connection_with_config(&config);
        let opened = timeout(CONNECT.max(self.budget), async {
            tokio::try_join!(open(), open(), open(), open(), open())
        });
        let opened = opened.await.map_err(|_| Failure::Timeout)?.map_err(|e| Failure::of(&e))?;
        let (one, two, write, pieces_in, pieces_out) = opened;
        let connections = Connections { reads: [one, two], write, pieces_in, pieces_out };
        let mut probe = connections.reads[0].clone();
        let ping = ::redis::cmd("PING");
        let answer = timeout(self.budget, ping.query_async::<Value>(&mut probe)).await;
        match answer.map_err(|_| Failure::Timeout)?.map_err(|e| Failure::of(&e))? {
            Value::SimpleString(word) if word == "PONG" => {}
            _ => return Err(Failure::Connection),
        }
        // What is read before the purges are known could not be judged. A Redis that refuses to tell them is used nevertheless: see `log`.
        match self.catch_up(&mut probe).await {
            Ok(()) | Err(Failure::Response) => Ok(connections),
            Err(failure) => Err(failure),
        }
    }

    async fn connections(&self) -> Result<Arc<Connections>, Failure> {
        let mut link = self.link.subscribe();
        loop {
            match &*link.borrow_and_update() {
                Link::Up(connections) => return Ok(connections.clone()),
                Link::Down => return Err(Failure::Connection),
                Link::Connecting => {}
            }
            link.changed().await.map_err(|_| Failure::Connection)?;
        }
    }
}

/// Reading.
impl Shared {
    async fn read(&self, side: usize, names: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
        let connections = self.connections().await?;
        let mut connection = connections.reads[side].clone();
        let mut command = ::redis::cmd(if names.len() == 1 { "GET" } else { "MGET" });
        command.arg(names);
        let answer = command.query_async::<Value>(&mut connection).await;
        let values = answer.map_err(|e| Failure::of(&e)).and_then(|value| values(value, names.len()));
        if values.as_ref().is_err_and(|failure| *failure == Failure::Connection) {
            self.broken(&connections);
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

    /// `None`: nothing is to be written now. While the breaker is open everything is given up but the removals, which wait for it to close.
    fn next_batch(&self, again_at: MonoTime) -> Option<Batch> {
        let closed = lock(&self.breaker).is_closed();
        let mut behind = lock(&self.behind);
        if !closed {
            let batch = behind.take_all();
            self.give_up(&mut behind, &batch);
        }
        let due = closed && self.clock.mono() >= again_at;
        let batch = behind.take(BATCH_JOBS, BATCH_BYTES, due);
        if batch.is_empty() {
            self.done_until(behind.last());
            return None;
        }
        Some(batch)
    }

    fn give_up(&self, behind: &mut Behind, batch: &Batch) {
        for (ticket, job) in batch {
            match job {
                Job::Remove { name } => behind.failed_removal(*ticket, *name),
                _ => {
                    behind.over(*ticket, job);
                    self.metrics.error("circuit-open");
                }
            }
        }
    }

    async fn until_work(&self, again_at: MonoTime) {
        let again = lock(&self.behind).has_failed() && lock(&self.breaker).is_closed();
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

    /// Makes writes in two round trips at most: everything but variants, whose names depend on the marker that is there, then those.
    /// Answers whether every removal was made.
    async fn write(&self, batch: Batch) -> bool {
        let now = self.clock.wall();
        let replaced = self.bodies_of(batch.iter().filter_map(|(_, job)| self.replaces(job)).collect()).await;
        let mut pipe = Pipe::default();
        let mut sent = Batch::with_capacity(batch.len());
        for (ticket, job) in batch {
            if self.add(&mut pipe, &job, now).await {
                sent.push((ticket, job));
            } else {
                lock(&self.behind).over(ticket, &job);
            }
        }
        match self.send(pipe).await {
            Ok(replies) => {
                self.let_go(replaced.into_iter().filter(|(_, place)| !is_named(&sent, place)).collect())
                    .await;
                self.conclude(sent, replies, now).await
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
            Job::Remove { name } => pipe.delete(&self.key(name)),
            Job::Discard { key } => pipe.delete(key),
        }
    }

    /// Sends a pipeline within the budget its size gives it. One reply per command.
    async fn send(&self, pipe: Pipe) -> Result<Vec<RedisResult<Value>>, Failure> {
        self.send_on(pipe, |connections| &connections.write).await
    }

    async fn send_on(
        &self,
        pipe: Pipe,
        which: impl Fn(&Connections) -> &MultiplexedConnection,
    ) -> Result<Vec<RedisResult<Value>>, Failure> {
        if pipe.labels.is_empty() {
            return Ok(Vec::new());
        }
        let started = self.clock.mono();
        let ended = timeout(self.time_to_write(pipe.bytes), async {
            let connections = self.connections().await?;
            let mut connection = which(&connections).clone();
            let replies = pipe.commands.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
            let replies = replies.map_err(|e| Failure::of(&e)).and_then(|replies| {
                if replies.len() == pipe.labels.len() { Ok(replies) } else { Err(Failure::Connection) }
            });
            if replies.as_ref().is_err_and(|failure| *failure == Failure::Connection) {
                self.broken(&connections);
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
                self.succeeded();
                self.tell_refusals(replies);
            }
            Err(failure) => self.failed(*failure),
        }
        ended
    }

    async fn conclude(&self, sent: Batch, replies: Vec<RedisResult<Value>>, now: WallTime) -> bool {
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
        self.write_variants(variants, now).await;
        self.tell_removals(removed).await && all_removed
    }

    /// Tells the other gateways, whose memory may hold what was removed here. A removal is only made when they were told.
    async fn tell_removals(&self, removed: Vec<(Ticket, Hash)>) -> bool {
        let mut pipe = Pipe::default();
        self.announce(&mut pipe, removed.iter().map(|(_, name)| *name));
        let told = match self.send(pipe).await {
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

    async fn write_variants(&self, variants: Vec<(Ticket, Variant, Option<Arc<Variants>>)>, now: WallTime) {
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
        let _ = self.send(pipe).await;
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

    fn tell_refusals(&self, replies: &[RedisResult<Value>]) {
        let mut first = None;
        for error in replies.iter().filter_map(|reply| reply.as_ref().err()) {
            self.metrics.error(Failure::Response.as_str());
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

    fn delete(&mut self, key: &str) -> bool {
        self.command("del", "DEL").arg(key);
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

fn client(url: &str) -> Result<Client, String> {
    let wrong = |_: RedisError| {
        "the Redis URL cannot be used; write redis://[user[:password]@]host[:port][/db] or redis+unix:///path"
            .to_owned()
    };
    // A multiplexed connection writes many small commands: held back until the last is acknowledged, each would wait up to 40 ms.
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = url.into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
    Client::open(info).map_err(wrong)
}

fn hex(hash: &Hash) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
