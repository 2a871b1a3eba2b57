//! A fetch that is under way on one gateway, followed from another.
//!
//! | name in Redis | what lies there |
//! |---|---|
//! | `{prefix}:v1:{fleet}:relay:<slot>:<token>` | a stream: the head of an answer, its content piece by piece, how it ended |
//!
//! Nothing is relayed before somebody asks for it: whoever finds the lease of a fetch marked as streaming says through the stream of landed fetches
//! that he wants it, and its holder then writes all there is, and what follows as it comes. The stream lives no longer than a lease unless its writer
//! says that it is still there; one that vanishes without an end was cut, and so is what its readers pass on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::log::{Id, ask, messages_of};
use super::{Failure, Pipe, Shared, WRITE, hex, lock, millis};
use crate::cache::record::{self, Record, Stored};
use crate::store::memory::Hash;

/// How long a reader waits for the head.
const HEAD: Duration = Duration::from_secs(2);
/// How long one waits for the next piece before it looks whether the stream is still there.
const BLOCK: Duration = Duration::from_millis(500);
/// How long a stream outlives its end, for readers that are behind.
const LASTING: Duration = Duration::from_secs(30);
/// The most content that is relayed, in bytes: it all lies in Redis at once.
const MOST: usize = 64 * 1024 * 1024;
/// How much content is read at once, in pieces.
const READ: usize = 256;

const BEGINS: u8 = b'h';
const GOES_ON: u8 = b'c';
const ENDS: u8 = b'e';
const WHOLE: &[u8] = b"whole";
const CUT: &[u8] = b"cut";

/// Names one fetch: the token of its lease.
pub(super) type Token = [u8; 16];

/// The fetches of this process that others may follow.
#[derive(Default)]
pub(super) struct Relays {
    offered: Mutex<HashMap<Token, Arc<Notify>>>,
}

impl Relays {
    /// Somebody wants it.
    pub(super) fn wanted(&self, token: &Token) {
        if let Some(wanted) = lock(&self.offered).get(token) {
            wanted.notify_one();
        }
    }
}

/// A fetch of ours that others may follow.
pub struct Relay {
    shared: Arc<Shared>,
    key: String,
    token: Token,
    lasts: Duration,
    wanted: Arc<Notify>,
    written: usize,
}

impl Relay {
    pub(super) fn offer(shared: Arc<Shared>, slot: &Hash, token: Token, lasts: Duration) -> Self {
        let wanted = Arc::new(Notify::new());
        lock(&shared.relays.offered).insert(token, wanted.clone());
        Self { key: shared.relay_key(slot, &token), shared, token, lasts, wanted, written: 0 }
    }

    /// Waits until somebody wants it.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// How often its readers must be told that it goes on.
    pub fn pulse(&self) -> Duration {
        self.lasts / 3
    }

    /// Writes the head. Answers whether to go on.
    pub async fn begin(&mut self, record: &Record) -> bool {
        let form = record::encode_answer(record, 0, &[]);
        self.write(vec![(BEGINS, form.into())], self.lasts).await
    }

    /// Writes content. Answers whether to go on.
    pub async fn go_on(&mut self, pieces: Vec<Bytes>) -> bool {
        self.written += pieces.iter().map(Bytes::len).sum::<usize>();
        if self.written > MOST {
            self.end(false).await;
            return false;
        }
        self.write(pieces.into_iter().map(|piece| (GOES_ON, piece)).collect(), self.lasts).await
    }

    /// Says how it ended. What was stored is in Redis before a reader sees the end.
    pub async fn end(&mut self, whole: bool) {
        if whole {
            self.shared.flush().await;
        }
        let how = if whole { WHOLE } else { CUT };
        self.write(vec![(ENDS, Bytes::from_static(how))], LASTING).await;
    }

    async fn write(&self, messages: Vec<(u8, Bytes)>, lasts: Duration) -> bool {
        let mut pipe = Pipe::default();
        for (kind, content) in messages {
            let message = [&[kind][..], &content].concat();
            pipe.command("xadd", "XADD").arg(&self.key).arg("*").arg("m").arg(message);
        }
        pipe.command("xadd", "PEXPIRE").arg(&self.key).arg(millis(lasts));
        self.shared.send_to_log(pipe).await.is_ok_and(|replies| replies.iter().all(Result::is_ok))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        lock(&self.shared.relays.offered).remove(&self.token);
    }
}

/// A fetch of another gateway, followed.
pub struct Relayed {
    connection: MultiplexedConnection,
    key: String,
    at: Id,
    read: std::vec::IntoIter<(Id, Bytes)>,
}

/// What comes next of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Content.
    Content(Bytes),
    /// Its end.
    End,
    /// Its end will never come.
    Cut,
}

impl Relayed {
    /// Asks its holder for it and reads the head; `None` when that does not come soon, or is that of another key.
    pub(super) async fn follow(
        shared: &Shared,
        slot: &Hash,
        token: Token,
        key: &[u8],
    ) -> Option<(Record, Self)> {
        // Its holder writes while we connect: what is read begins with the first message anyway.
        let (connection, ()) = tokio::join!(shared.open_another_log(), shared.tell_wanted(&token));
        let mut relayed = Self {
            connection: connection.ok()?,
            key: shared.relay_key(slot, &token),
            at: Id::default(),
            read: Vec::new().into_iter(),
        };
        let head = timeout(HEAD, relayed.message()).await.ok()?;
        let Some((BEGINS, form)) = head.ok()? else { return None };
        match record::decode(form) {
            Ok(Stored::Answer(record, _, _)) if *record.key == *key => Some((record, relayed)),
            _ => None,
        }
    }

    /// The next part.
    pub async fn next(&mut self) -> Part {
        loop {
            match self.message().await {
                Ok(Some((GOES_ON, content))) => return Part::Content(content),
                Ok(Some((ENDS, how))) if how == WHOLE => return Part::End,
                // Nothing came for a while: its writer may be thinking, or dead.
                Ok(None) if self.is_there().await => {}
                _ => return Part::Cut,
            }
        }
    }

    /// The next message; `None` when none comes for a while.
    async fn message(&mut self) -> Result<Option<(u8, Bytes)>, Failure> {
        if self.read.as_slice().is_empty() {
            let mut command = ::redis::cmd("XREAD");
            command.arg("COUNT").arg(READ).arg("BLOCK").arg(millis(BLOCK));
            command.arg("STREAMS").arg(&self.key).arg(self.at.text());
            let answer = timeout(BLOCK + WRITE, ask(&mut self.connection, &command));
            self.read = messages_of(answer.await.unwrap_or(Err(Failure::Timeout))?, &self.key).into_iter();
        }
        let Some((id, mut message)) = self.read.next() else { return Ok(None) };
        self.at = id;
        if message.is_empty() {
            return Err(Failure::Connection);
        }
        let kind = message.split_to(1)[0];
        Ok(Some((kind, message)))
    }

    async fn is_there(&mut self) -> bool {
        let mut command = ::redis::cmd("EXISTS");
        command.arg(&self.key);
        matches!(timeout(WRITE, ask(&mut self.connection, &command)).await, Ok(Ok(Value::Int(1))))
    }
}

impl Shared {
    fn relay_key(&self, slot: &Hash, token: &Token) -> String {
        format!("{}:v1:{{fleet}}:relay:{}:{}", self.prefix, hex(slot), String::from_utf8_lossy(token))
    }
}
