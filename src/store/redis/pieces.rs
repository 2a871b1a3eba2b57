//! Bodies too large for one value: written in pieces while they are fetched, read piece by piece while they are sent.
//!
//! | name in Redis | what lies there |
//! |---|---|
//! | `{prefix}:v1:{<key hash>}:<generation>:p<index>` | a piece of a body; the generation is drawn anew for every body |
//!
//! Nobody can find a piece but through the answer's own value, which is written last: it is there with all its pieces, or not at all. Until then
//! they live for a minute, renewed while more come, so that a fetch which breaks off, or a gateway that is killed, leaves nothing for long.
//!
//! Pieces travel on connections of their own: one of them takes longer than a small answer may.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Failure, Node, PAUSE, Pipe, Shared, Trouble, WRITE, lifetime, millis};
use crate::base::clock::{MonoTime, WallTime};
use crate::base::dice::Dice;
use crate::cache::record::{self, Apart, Coding, Packed};
use crate::store::memory::Hash;
use crate::store::purges::Seal;
use crate::store::{Body, Entry};

/// A body up to this length lies with its head, so that a hit costs one round trip. It bounds how long one answer keeps others waiting on a
/// connection: 1 ms at 1 Gbit/s.
pub(in crate::store) const INLINE: u64 = 128 * 1024;
/// The length of a piece: large enough that the time of a round trip is not felt, small enough that a few for every client do not weigh.
const PIECE: u32 = 256 * 1024;
/// Pieces asked for before the one in hand is sent.
const AHEAD: usize = 2;
/// Pieces on their way to Redis.
const UNDER_WAY: usize = 2;
/// How long pieces live that no answer names yet.
const UNPUBLISHED: Duration = Duration::from_secs(60);
/// How often that is renewed while more come.
const RENEW: Duration = Duration::from_secs(20);
/// How long the pieces of a body that was replaced or removed live on, for those who are reading it.
const GRACE: Duration = Duration::from_secs(600);
/// How long a body whose beginning was sent waits for a Redis that does not answer: breaking it off is the worse failure.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names in one command pipeline.
const NAMES: usize = 512;

/// A body that lies apart.
pub struct Pieces {
    shared: Arc<Shared>,
    primary: Hash,
    /// The name of the value that names it; `None`: it is not written yet.
    named_by: Option<String>,
    place: Apart,
}

impl Pieces {
    pub(super) fn new(shared: Arc<Shared>, primary: Hash, named_by: Option<String>, place: Apart) -> Self {
        Self { shared, primary, named_by, place }
    }

    /// Where it lies.
    pub fn place(&self) -> &Apart {
        &self.place
    }

    /// Reads one piece; a Redis that fails is asked again until `deadline`.
    async fn get(&self, index: u64, deadline: MonoTime) -> Result<Bytes, Trouble> {
        let name = self.shared.piece_key(&self.primary, self.place.generation, index);
        let form = loop {
            let left = deadline.since(self.shared.clock.mono());
            match self.shared.get_piece(&self.primary, &name, left).await {
                Ok(form) => break form,
                Err(trouble) if left <= PAUSE => return Err(trouble),
                Err(_) => tokio::time::sleep(PAUSE / 5).await,
            }
        };
        let read = match form {
            None => Err(Trouble::Missing),
            Some(form) => self.unpack(form, index).ok_or(Trouble::Damaged),
        };
        if let Err(trouble) = read {
            self.lost(trouble);
        }
        read
    }

    fn unpack(&self, form: Bytes, index: u64) -> Option<Bytes> {
        let packed = record::decode_piece(form, self.place.generation, index).ok()?;
        (packed.coding == Coding::Plain && packed.length == self.place.length_of(index))
            .then_some(packed.bytes)
    }

    /// What is not whole is removed, so that the next request fetches anew.
    fn lost(&self, trouble: Trouble) {
        self.shared.metrics.error(if trouble == Trouble::Missing { "missing" } else { "damaged" });
        if let Some(name) = &self.named_by {
            self.shared.discard(name.clone());
        }
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pieces").field(&self.place).finish()
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

/// A part of a body that lies apart, being read. Holds at most `AHEAD` pieces and the one in hand.
pub struct Reading {
    pieces: Arc<Pieces>,
    first: u64,
    last: u64,
    asked: u64,
    told: bool,
    ahead: VecDeque<(u64, Asking)>,
}

/// Ends with whoever wanted the piece.
struct Asking(JoinHandle<Result<Bytes, Trouble>>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reading {
    pub(in crate::store) fn new(pieces: Arc<Pieces>, first: u64, last: u64) -> Self {
        let last = last.min(pieces.place.length.saturating_sub(1));
        let asked = first / u64::from(pieces.place.piece);
        Self { pieces, first, last, asked, told: false, ahead: VecDeque::new() }
    }

    /// The next bytes; `None` at the end. The first are there within the budget of an operation or not at all; once they were given, more is
    /// waited for what follows.
    pub async fn next(&mut self) -> Option<Result<Bytes, Trouble>> {
        self.ask();
        let (index, mut asking) = self.ahead.pop_front()?;
        // The task ends by itself; that it panicked is its own failure.
        let read = (&mut asking.0).await.unwrap_or(Err(Trouble::Error));
        self.told = true;
        self.ask();
        Some(read.map(|bytes| self.cut(index, &bytes)))
    }

    fn ask(&mut self) {
        let piece = u64::from(self.pieces.place.piece);
        // Nothing but the first is asked for before it is known to be there.
        let ahead = if self.told { AHEAD } else { 1 };
        while self.ahead.len() < ahead
            && self.asked.saturating_mul(piece) <= self.last
            && self.pieces.place.length > 0
        {
            let (pieces, index) = (self.pieces.clone(), self.asked);
            let shared = &self.pieces.shared;
            let deadline = shared.clock.mono().plus(if self.told { PATIENCE } else { shared.budget });
            let asking = tokio::spawn(async move { pieces.get(index, deadline).await });
            self.ahead.push_back((index, Asking(asking)));
            self.asked += 1;
        }
    }

    fn cut(&self, index: u64, bytes: &Bytes) -> Bytes {
        let start = index * u64::from(self.pieces.place.piece);
        let from = self.first.saturating_sub(start) as usize;
        let to = (self.last - start).saturating_add(1).min(bytes.len() as u64) as usize;
        bytes.slice(from..to)
    }
}

/// A body on its way to Redis while it is fetched. Dropped without [`Upload::finish`], what was written is removed.
pub struct Upload {
    shared: Arc<Shared>,
    primary: Hash,
    generation: u64,
    gathered: BytesMut,
    length: u64,
    waited: Duration,
    steps: mpsc::Sender<Step>,
}

enum Step {
    Piece(Bytes),
    Finish(oneshot::Sender<()>),
}

impl Upload {
    pub(super) fn begin(shared: Arc<Shared>, primary: Hash) -> Self {
        let generation = Dice::from_entropy().any_u64();
        let (steps, taken) = mpsc::channel(UNDER_WAY);
        tokio::spawn(write_pieces(shared.clone(), primary, generation, taken));
        let (gathered, length, waited) = (BytesMut::new(), 0, Duration::ZERO);
        Self { shared, primary, generation, gathered, length, waited, steps }
    }

    /// Adds bytes. Waits while Redis is behind, in all no longer than writing them may take; answers `false` when that is over, or Redis failed:
    /// then nothing more need be added.
    pub async fn push(&mut self, bytes: &[u8]) -> bool {
        self.length += bytes.len() as u64;
        self.gathered.extend_from_slice(bytes);
        while self.gathered.len() >= PIECE as usize {
            let piece = self.gathered.split_to(PIECE as usize).freeze();
            if !self.hand_over(Step::Piece(piece)).await {
                return false;
            }
        }
        true
    }

    /// All bytes were added. The body when all of it is in Redis, for somebody to name.
    pub async fn finish(mut self) -> Option<Body> {
        let rest = self.gathered.split().freeze();
        if !rest.is_empty() && !self.hand_over(Step::Piece(rest)).await {
            return None;
        }
        let (done, is_done) = oneshot::channel();
        if !self.hand_over(Step::Finish(done)).await || self.within_patience(is_done).await?.is_err() {
            return None;
        }
        let place = Apart { generation: self.generation, length: self.length, piece: PIECE };
        Some(Body::lying_apart(Arc::new(Pieces::new(self.shared.clone(), self.primary, None, place))))
    }

    async fn hand_over(&mut self, step: Step) -> bool {
        let steps = self.steps.clone();
        matches!(self.within_patience(steps.send(step)).await, Some(Ok(())))
    }

    /// What waiting comes to; `None`: Redis is too far behind, which is counted.
    async fn within_patience<T>(&mut self, waiting: impl Future<Output = T>) -> Option<T> {
        let started = self.shared.clock.mono();
        let left = self.shared.time_to_write(self.length).saturating_sub(self.waited);
        let ended = timeout(left, waiting).await.ok();
        self.waited += self.shared.clock.mono().since(started);
        if ended.is_none() {
            self.shared.metrics.error("dropped");
        }
        ended
    }
}

/// Writes what comes, keeps it alive, and removes it when nobody finishes it.
async fn write_pieces(shared: Arc<Shared>, primary: Hash, generation: u64, mut steps: mpsc::Receiver<Step>) {
    let mut written = 0;
    let mut renewed = shared.clock.mono();
    loop {
        let step = timeout(RENEW, steps.recv()).await;
        if shared.clock.mono().since(renewed) >= RENEW {
            renewed = shared.clock.mono();
            if !shared.let_live(&primary, generation, written, UNPUBLISHED).await {
                break;
            }
        }
        match step {
            Err(_) => {}
            Ok(Some(Step::Piece(bytes))) => {
                written += 1;
                if !shared.put_pieces(&primary, generation, written - 1, &[bytes], UNPUBLISHED).await {
                    break;
                }
            }
            Ok(Some(Step::Finish(done))) => {
                // Whoever finished it may be gone: then it expires soon.
                let _ = done.send(());
                return;
            }
            Ok(None) => break,
        }
    }
    drop(steps);
    shared.remove_pieces(&primary, generation, written).await;
}

/// Pieces by name.
impl Shared {
    pub(super) fn piece_key(&self, primary: &Hash, generation: u64, index: u64) -> String {
        format!("{}:{generation:016x}:p{index}", self.key(primary))
    }

    async fn get_piece(
        &self,
        primary: &Hash,
        name: &str,
        budget: Duration,
    ) -> Result<Option<Bytes>, Trouble> {
        let node = self.node_of(primary);
        let node = self.asked(node.as_ref())?;
        let mut get = ::redis::cmd("GET");
        get.arg(name);
        let started = self.clock.mono();
        let ended = timeout(budget, async {
            let connections = self.connections(node).await?;
            let mut connection = connections.pieces_in.clone();
            let answer = get.query_async::<Value>(&mut connection).await.map_err(|e| Failure::of(&e));
            let value =
                answer.and_then(|value| super::values(value, 1)).map(|mut values| values.pop().flatten());
            if value.as_ref().is_err_and(|failure| failure.breaks()) {
                self.broken(node, &connections);
            }
            value
        });
        let ended = ended.await.unwrap_or(Err(Failure::Timeout));
        self.metrics.command("get", self.clock.mono().since(started));
        match &ended {
            Ok(_) => self.succeeded(node),
            Err(failure) => self.failed(node, *failure),
        }
        ended.map_err(Trouble::from)
    }

    /// Writes pieces that follow one another. Answers whether all were.
    async fn put_pieces(
        &self,
        primary: &Hash,
        generation: u64,
        first: u64,
        pieces: &[Bytes],
        live: Duration,
    ) -> bool {
        let mut pipe = Pipe::default();
        for (index, piece) in (first..).zip(pieces) {
            let packed = Packed { coding: Coding::Plain, length: piece.len() as u64, bytes: piece.clone() };
            let form = record::encode_piece(generation, index, &packed);
            pipe.bytes += form.len() as u64;
            let name = self.piece_key(primary, generation, index);
            pipe.command("set", "SET").arg(name).arg(form).arg("PX").arg(millis(live));
        }
        let replies = self.send_pieces(primary, pipe).await;
        replies.is_ok_and(|replies| replies.iter().all(Result::is_ok))
    }

    /// Gives pieces so long to live. Answers whether all were there.
    async fn let_live(&self, primary: &Hash, generation: u64, count: u64, live: Duration) -> bool {
        for first in (0..count).step_by(NAMES) {
            let mut pipe = Pipe::default();
            for index in first..count.min(first + NAMES as u64) {
                let name = self.piece_key(primary, generation, index);
                pipe.command("set", "PEXPIRE").arg(name).arg(millis(live));
            }
            match self.send_pieces(primary, pipe).await {
                Ok(replies) if replies.iter().all(|reply| matches!(reply, Ok(Value::Int(1)))) => {}
                _ => return false,
            }
        }
        true
    }

    async fn remove_pieces(&self, primary: &Hash, generation: u64, count: u64) {
        for first in (0..count).step_by(NAMES) {
            let mut pipe = Pipe::default();
            for index in first..count.min(first + NAMES as u64) {
                pipe.command("del", "UNLINK").arg(self.piece_key(primary, generation, index));
            }
            // What stays expires soon.
            if self.send_pieces(primary, pipe).await.is_err() {
                return;
            }
        }
    }

    async fn send_pieces(
        &self,
        primary: &Hash,
        pipe: Pipe,
    ) -> Result<Vec<::redis::RedisResult<Value>>, Failure> {
        let node = self.node_of(primary);
        let node = self.asked(node.as_ref()).map_err(|_| Failure::Connection)?;
        self.send_on(node, pipe, |connections| &connections.pieces_out).await
    }

    /// How long writing so many bytes may take.
    pub(super) fn time_to_write(&self, bytes: u64) -> Duration {
        WRITE.max(self.budget)
            + Duration::from_millis(bytes.saturating_mul(1000) / super::WRITE_BYTES_PER_SECOND)
    }
}

/// Answers with their bodies.
impl Shared {
    /// The value that stands for an answer, its body being in place; `None` when it cannot be, or is past its use.
    pub(super) async fn value(
        &self,
        primary: &Hash,
        entry: &Entry,
        seal: &Seal,
        now: WallTime,
    ) -> Option<Vec<u8>> {
        let live = Duration::from_millis(lifetime(entry, now)?);
        let place = match entry.body.apart() {
            None if entry.body.len() <= INLINE => {
                return Some(record::encode_answer(&entry.record, seal.epoch, entry.body.chunks()));
            }
            None => self.place(primary, &entry.body, live).await?,
            Some(pieces) => {
                let place = *pieces.place();
                if !self.let_live(primary, place.generation, place.count(), live).await {
                    self.metrics.error("missing");
                    return None;
                }
                place
            }
        };
        Some(record::encode_apart(&entry.record, seal.epoch, &place))
    }

    /// Writes a body at hand in pieces.
    async fn place(&self, primary: &Hash, body: &Body, live: Duration) -> Option<Apart> {
        let place = Apart { generation: Dice::from_entropy().any_u64(), length: body.len(), piece: PIECE };
        for index in 0..place.count() {
            let first = index * u64::from(PIECE);
            let piece = Bytes::from(body.slice(first, first + u64::from(PIECE) - 1).concat());
            if !self.put_pieces(primary, place.generation, index, &[piece], live).await {
                self.remove_pieces(primary, place.generation, index).await;
                return None;
            }
        }
        Some(place)
    }

    /// The bodies that lie apart under these keys, before what names them is replaced or removed.
    pub(super) async fn bodies_of(&self, node: &Arc<Node>, keys: Vec<(Hash, String)>) -> Vec<(Hash, Apart)> {
        let mut pipe = Pipe::default();
        for (_, name) in &keys {
            pipe.command("get", "GETRANGE").arg(name).arg(0).arg(record::APART_FRONT - 1);
        }
        let replies = self.send(node, pipe).await.unwrap_or_default();
        let places = keys.into_iter().zip(replies).filter_map(|((primary, _), reply)| match reply {
            Ok(Value::BulkString(front)) => Some((primary, record::apart_at_front(&front)?)),
            _ => None,
        });
        places.collect()
    }

    /// Lets go of bodies that nothing names any more.
    pub(super) async fn let_go(&self, bodies: Vec<(Hash, Apart)>) {
        for (primary, place) in bodies {
            // The front was read without its checksum: what it says may be anything.
            const MOST: u64 = 1 << 20;
            self.let_live(&primary, place.generation, place.count().min(MOST), GRACE).await;
        }
    }
}
