//! One fetch per fleet: who may fetch what is missing, and how the others learn that it is there.
//!
//! | name in Redis | what lies there |
//! |---|---|
//! | `{prefix}:v1:{<key hash>}:lease` | a hash: who fetches which slot of this key (the answer itself, or one of its variants) |
//! | `{prefix}:v1:{fleet}:landed` | a stream of fetches that ended while somebody waited for them |
//!
//! A gateway takes the lease of a slot before it fetches, renews it while it fetches, and gives it back when what it fetched lies in Redis. Taking one
//! is one round trip and only misses pay it; nothing is told unless somebody waits. A lease that is not renewed ends by itself, by Redis' clock, so a
//! gateway that dies delays the others by no more than that.
//!
//! A lease carries the last purge its holder knew: whoever knows a later one does not wait for a fetch that may show what was before it, but takes
//! the lease over. A change removes the leases of its key together with the answers. A lease is given back or renewed only by the token it was
//! taken with; a holder that finds it gone looks before it stores ([`Lease::is_sure`]), so that it does not replace what was fetched later.
//!
//! Nothing here is needed for right answers: when Redis cannot say, everybody fetches for himself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::relay::{Relay, Relayed, Token};
use super::{FLEET, Failure, Pipe, RedisTier, Shared, WRITE, lock, millis, passes};
use crate::base::clock::MonoTime;
use crate::base::dice::Dice;
use crate::cache::purge::Epoch;
use crate::cache::record::Record;
use crate::store::memory::Hash;

/// How often who waits asks again: a message may be lost, and a holder may be gone.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long after a fetch ended well its lease tells those who looked before and ask after it to look once more.
const ECHO: Duration = Duration::from_secs(1);
/// Messages kept in the stream, about; who missed one asks again.
const KEPT: usize = 1024;
/// How long the stream outlives its last message.
const LASTING: Duration = Duration::from_secs(3600);
/// The form of a message.
const FORM: u8 = 1;

/// Takes a lease, or answers with that which is held: a letter (`f` somebody fetches, `w` and somebody waits, `s` and it can be
/// followed, `d` done), the token, the last purge
/// known to its holder, both as 16 hexadecimal digits, and the millisecond of Redis' clock at which it ends.
const TAKE: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and tonumber(held:sub(34)) > now and held:sub(18, 33) >= ARGV[3] and not (held:sub(1, 1) == 'd' and ARGV[5] == '1') then
  if held:sub(1, 1) == 'f' then
    redis.call('HSET', KEYS[1], ARGV[1], 'w' .. held:sub(2))
  end
  return held
end
redis.call('HSET', KEYS[1], ARGV[1], 'f' .. ARGV[2] .. ARGV[3] .. string.format('%.0f', now + ARGV[4]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return false
";

/// Lets a lease last on, if it is still that of the token.
const RENEW: &str = "\
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held or held:sub(2, 17) ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local ends = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], held:sub(1, 33) .. ends)
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
";

/// Gives a lease back, if it is still that of the token; with a time, it tells for so long that the fetch ended well. Answers with its letter.
const GIVE_BACK: &str = "\
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held or held:sub(2, 17) ~= ARGV[2] then
  return ''
end
if tonumber(ARGV[3]) > 0 then
  local time = redis.call('TIME')
  local ends = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
  redis.call('HSET', KEYS[1], ARGV[1], 'd' .. held:sub(2, 33) .. ends)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return held:sub(1, 1)
";

/// Marks the fetch of a lease as one that can be followed, if the lease is still that of the token. Answers with the letter it had.
const OPEN: &str = "\
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held or held:sub(2, 17) ~= ARGV[2] then
  return ''
end
redis.call('HSET', KEYS[1], ARGV[1], 's' .. held:sub(2))
return held:sub(1, 1)
";

/// How a fetch ended, for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer lies in Redis.
    Stored,
    /// The answer is not for sharing: the others need not wait for one another either.
    NotShared,
    /// There is nothing to be had from it.
    Nothing,
    /// It goes on, and can be followed.
    Streams,
}

/// In a message in place of an outcome: somebody wants to follow a fetch.
const WANTED: u8 = 0x10;

impl Outcome {
    const ALL: [Self; 4] = [Self::Stored, Self::NotShared, Self::Nothing, Self::Streams];

    fn byte(self) -> u8 {
        Self::ALL.iter().position(|outcome| *outcome == self).map_or(0, |at| at as u8)
    }
}

/// What became of the wish to fetch.
pub enum Taken {
    /// It is ours to fetch.
    Ours(Lease),
    /// Another gateway fetches it.
    Theirs,
    /// Another gateway fetches it, and it can be followed.
    Streams(Followable),
    /// Another gateway has just stored it.
    Done,
    /// Redis cannot say.
    Unknown,
}

/// Names a fetch that can be followed.
pub struct Followable(Token);

/// What the wish to follow came to.
pub enum Followed {
    /// This is its head.
    Begun(Box<Record>, Relayed),
    /// It has ended meanwhile.
    Landed,
    /// Its holder does not answer.
    Silent,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The fetch waited for ended.
    Told(Outcome),
    /// Nothing was heard: ask again.
    Silence,
}

/// Those of this process who wait for fetches of others.
#[derive(Default)]
pub(super) struct Leases {
    waiting: Mutex<HashMap<Hash, Waiting>>,
    /// Redis does not run what a lease needs.
    refused: AtomicBool,
}

struct Waiting {
    told: watch::Sender<Option<Outcome>>,
    queues: usize,
}

impl Leases {
    fn enter(&self, slot: Hash) -> watch::Receiver<Option<Outcome>> {
        let mut waiting = lock(&self.waiting);
        let entry =
            waiting.entry(slot).or_insert_with(|| Waiting { told: watch::Sender::new(None), queues: 0 });
        entry.queues += 1;
        entry.told.subscribe()
    }

    fn leave(&self, slot: &Hash) {
        let mut waiting = lock(&self.waiting);
        if let Some(entry) = waiting.get_mut(slot) {
            entry.queues -= 1;
            if entry.queues == 0 {
                waiting.remove(slot);
            }
        }
    }

    fn tell(&self, slot: &Hash, outcome: Outcome) {
        if let Some(entry) = lock(&self.waiting).get(slot) {
            entry.told.send_replace(Some(outcome));
        }
    }

    /// Messages may be missed from now on: whoever waits asks again.
    pub(super) fn cut(&self) {
        self.refused.store(false, Ordering::Relaxed);
        for entry in lock(&self.waiting).values() {
            entry.told.send_replace(None);
        }
    }

    fn take(&self, message: &[u8]) {
        let Some(([FORM, outcome], slot)) = message.split_first_chunk::<2>() else { return };
        if let (Some(outcome), Ok(slot)) = (Outcome::ALL.get(usize::from(*outcome)), Hash::try_from(slot)) {
            self.tell(&slot, *outcome);
        }
    }
}

/// A place among those who want a slot; messages about it are not missed from now on.
pub struct Queue {
    shared: Arc<Shared>,
    name: String,
    slot: Hash,
    time: Duration,
    told: watch::Receiver<Option<Outcome>>,
}

impl RedisTier {
    /// Prepares to take the lease of a slot under a key, for `time` at once.
    pub(in crate::store) fn queue(&self, primary: &Hash, slot: Hash, time: Duration) -> Queue {
        Queue {
            shared: self.shared.clone(),
            name: self.shared.lease_key(primary),
            slot,
            time,
            told: self.shared.leases.enter(slot),
        }
    }
}

/// Waits until a fetch is told to have ended.
async fn landed(told: &mut watch::Receiver<Option<Outcome>>) {
    while told.changed().await.is_ok() {
        if told.borrow_and_update().is_some_and(|outcome| outcome != Outcome::Streams) {
            return;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.leases.leave(&self.slot);
    }
}

impl Queue {
    /// Takes the lease, unless somebody holds it who knows the purge `epoch`. `insist`: also when it was just fetched.
    pub async fn take(&mut self, epoch: Epoch, insist: bool) -> Taken {
        let shared = &self.shared;
        if shared.leases.refused.load(Ordering::Relaxed)
            || !shared.node_of_name(&self.name).is_some_and(|node| node.is_asked())
        {
            return Taken::Unknown;
        }
        self.told.mark_unchanged();
        let token = format!("{:016x}", Dice::from_entropy().any_u64());
        let mut command = ::redis::cmd("EVAL");
        command.arg(TAKE).arg(1).arg(&self.name).arg(&self.slot).arg(&token).arg(format!("{epoch:016x}"));
        command.arg(millis(self.time)).arg(u8::from(insist));
        let asked = shared.clock.mono();
        match shared.lease_command(&self.name, &command, shared.budget).await {
            Some(Value::Nil) => Taken::Ours(Lease::hold(self, token, asked)),
            Some(Value::BulkString(held)) if held.first() == Some(&b'd') => Taken::Done,
            Some(Value::BulkString(held)) => match held.split_first_chunk::<17>() {
                Some(([b's', token @ ..], _)) => Taken::Streams(Followable(*token)),
                _ => Taken::Theirs,
            },
            _ => Taken::Unknown,
        }
    }

    /// Follows the fetch of another gateway; `key` is the text of what it must be about.
    pub async fn follow(&mut self, fetch: Followable, key: &[u8]) -> Followed {
        let following = Relayed::follow(&self.shared, &self.slot, fetch.0, key);
        tokio::select! {
            biased;
            begun = following => begun.map_or(Followed::Silent, |(record, relayed)| {
                Followed::Begun(Box::new(record), relayed)
            }),
            // It ended before its holder heard of us.
            () = landed(&mut self.told) => Followed::Landed,
        }
    }

    /// Waits until the fetch of another ends, or for a while.
    pub async fn wait(&mut self) -> Woken {
        let log = self.shared.node(FLEET);
        let lost = async {
            if let Some(log) = &log {
                log.lost().await;
            }
        };
        tokio::select! {
            biased;
            told = self.told.changed() => {
                let outcome = if told.is_ok() { *self.told.borrow_and_update() } else { None };
                outcome.map_or(Woken::Silence, Woken::Told)
            }
            () = lost => Woken::Silence,
            () = tokio::time::sleep(ASK_AGAIN) => Woken::Silence,
        }
    }
}

/// The right to fetch a slot, renewed until it is given back. Dropped, it is given back with [`Outcome::Nothing`].
pub struct Lease {
    held: Arc<Held>,
    renewing: JoinHandle<()>,
    given_back: bool,
}

struct Held {
    shared: Arc<Shared>,
    name: String,
    slot: Hash,
    token: String,
    time: Duration,
    /// Until when, in nanoseconds of this process's clock, nobody else can hold it; 0: somebody may.
    sure_until: AtomicU64,
}

impl Lease {
    fn hold(queue: &Queue, token: String, asked: MonoTime) -> Self {
        let held = Arc::new(Held {
            shared: queue.shared.clone(),
            name: queue.name.clone(),
            slot: queue.slot,
            token,
            time: queue.time,
            sure_until: AtomicU64::new(asked.plus(queue.time).as_nanos()),
        });
        Self { renewing: tokio::spawn(held.clone().renew()), held, given_back: false }
    }

    /// Whether nobody else can have taken it: its time is counted from before Redis was asked, by this process's clock.
    pub fn is_sure(&self) -> bool {
        self.held.shared.clock.mono().as_nanos() < self.held.sure_until.load(Ordering::Relaxed)
    }

    /// Lets others follow the fetch from now on.
    pub fn open(&self) -> Relay {
        let token = Token::try_from(self.held.token.as_bytes()).unwrap_or_default();
        let relay = Relay::offer(self.held.shared.clone(), &self.held.slot, token, self.held.time);
        tokio::spawn(self.held.clone().open());
        relay
    }

    /// Gives it back, and wakes those who wait. An answer that was stored is in Redis before they are told.
    pub fn give_back(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.given_back, true) {
            return;
        }
        self.renewing.abort();
        // Without a runtime the process is ending, and the lease ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.held.clone().give_back(outcome));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end(Outcome::Nothing);
    }
}

impl Held {
    fn command(&self, script: &str) -> Cmd {
        let mut command = ::redis::cmd("EVAL");
        command.arg(script).arg(1).arg(&self.name).arg(&self.slot).arg(&self.token);
        command
    }

    async fn renew(self: Arc<Self>) {
        let mut command = self.command(RENEW);
        command.arg(millis(self.time));
        loop {
            tokio::time::sleep(self.time / 3).await;
            let asked = self.shared.clock.mono();
            match self.shared.lease_command(&self.name, &command, self.time / 3).await {
                Some(Value::Int(1)) => {
                    self.sure_until.store(asked.plus(self.time).as_nanos(), Ordering::Relaxed);
                }
                Some(_) => {
                    self.sure_until.store(0, Ordering::Relaxed);
                    return;
                }
                // It is tried again while it may still be ours.
                None => {}
            }
        }
    }

    async fn open(self: Arc<Self>) {
        let command = self.command(OPEN);
        let answer = self.shared.lease_command(&self.name, &command, WRITE.max(self.shared.budget)).await;
        if matches!(answer, Some(Value::BulkString(letter)) if letter == b"w") {
            self.shared.tell_landed(Outcome::Streams.byte(), &self.slot).await;
        }
    }

    async fn give_back(self: Arc<Self>, outcome: Outcome) {
        let stored = outcome == Outcome::Stored;
        if stored {
            self.shared.flush().await;
        }
        let mut command = self.command(GIVE_BACK);
        command.arg(if stored { millis(ECHO) } else { 0 });
        let answer = self.shared.lease_command(&self.name, &command, WRITE.max(self.shared.budget)).await;
        if matches!(answer, Some(Value::BulkString(letter)) if letter == b"w" || letter == b"s") {
            // Those of this process as well: they read it where the others do.
            self.shared.tell_landed(outcome.byte(), &self.slot).await;
        }
    }
}

impl Shared {
    pub(super) fn lease_key(&self, primary: &Hash) -> String {
        format!("{}:lease", self.key(primary))
    }

    pub(super) fn landed_key(&self) -> String {
        format!("{}:v1:{{fleet}}:landed", self.prefix)
    }

    /// Takes a message of the stream. One that does not read is of a later version; who waits for it asks again.
    pub(super) fn take_landed(&self, message: &[u8]) {
        match message.split_first_chunk::<2>() {
            Some(([FORM, WANTED], token)) => {
                if let Ok(token) = Token::try_from(token) {
                    self.relays.wanted(&token);
                }
            }
            _ => self.leases.take(message),
        }
    }

    pub(super) async fn tell_wanted(&self, token: &Token) {
        self.tell_landed(WANTED, token).await;
    }

    async fn tell_landed(&self, what: u8, name: &[u8; 16]) {
        let key = self.landed_key();
        let message = [&[FORM, what][..], name].concat();
        let mut pipe = Pipe::default();
        pipe.command("xadd", "XADD")
            .arg(&key)
            .arg("MAXLEN")
            .arg("~")
            .arg(KEPT)
            .arg("*")
            .arg("m")
            .arg(message);
        pipe.command("xadd", "PEXPIRE").arg(&key).arg(millis(LASTING));
        // Who is not told asks again.
        let _ = self.send_to_log(pipe).await;
    }

    /// Runs a script within its budget; `None` when Redis does not.
    async fn lease_command(&self, name: &str, command: &Cmd, budget: Duration) -> Option<Value> {
        let node = self.node_of_name(name)?;
        let started = self.clock.mono();
        let ended = timeout(budget, async {
            let connections = self.connections(&node).await.map_err(Trouble::Failed)?;
            // Not that of the writes: a small question must not stand behind a large answer.
            let mut connection = connections.reads[0].clone();
            command.query_async::<Value>(&mut connection).await.map_err(|error| match Failure::of(&error) {
                Failure::Response => Trouble::Refused { for_good: !passes(&error) },
                failure => {
                    if failure.breaks() {
                        self.broken(&node, &connections);
                    }
                    Trouble::Failed(failure)
                }
            })
        });
        let ended = ended.await.unwrap_or(Err(Trouble::Failed(Failure::Timeout)));
        self.metrics.command("lease", self.clock.mono().since(started));
        match ended {
            Ok(value) => {
                self.succeeded(&node);
                Some(value)
            }
            Err(Trouble::Failed(failure)) => {
                self.failed(&node, failure);
                None
            }
            Err(Trouble::Refused { for_good }) => {
                self.metrics.error(Failure::Response.as_str());
                if for_good && !self.leases.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!("Redis refuses EVAL: each gateway fetches for itself what is missing");
                }
                None
            }
        }
    }
}

enum Trouble {
    Failed(Failure),
    Refused { for_good: bool },
}
