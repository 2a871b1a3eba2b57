//! What the gateways of a fleet tell one another through Redis: purges, and keys that were changed.
//!
//! | name in Redis | what lies there |
//! |---|---|
//! | `{prefix}:v1:{fleet}:purges` | a stream of purges; a message's id is the purge's epoch |
//! | `{prefix}:v1:{fleet}:changes` | a stream of keys whose answers a change made invalid |
//! | `{prefix}:v1:{fleet}:landed` | a stream of fetches that ended while another gateway waited (`redis/lease.rs`) |
//!
//! Streams rather than publish and subscribe: who was away reads on where it stopped, and who cannot, because the rest is lost, knows it. Redis makes
//! the ids from its clock, always greater than the last, so that even a stream that was lost and begun anew repeats none. The oldest purge of
//! the stream is the oldest the fleet knows: what began before it is validated (see `cache::purge`), whether the stream was trimmed, evicted, flushed, or
//! forgotten by a failover.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Value};
use bytes::Bytes;
use tokio::time::timeout;

use super::{CONNECT, FLEET, Failure, Node, PAUSE, Pipe, Shared, lock, millis};
use crate::cache::purge::{Epoch, Force, Label, Target};
use crate::store::memory::Hash;

/// How long a read waits for the next message; past that and [`GRACE`] a Redis that says nothing is not heard.
const BLOCK: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(1);
/// The budget of telling the fleet about a purge: its caller waits, and wants to know.
const TELL: Duration = Duration::from_secs(1);
/// Messages kept in the streams, about. A gateway that was away for longer validates what it holds.
const PURGES_KEPT: usize = 32 * 1024;
const CHANGES_KEPT: usize = 32 * 1024;
/// Messages read at once.
const READ: usize = 4096;
/// How long a stream outlives its last message.
const LASTING: Duration = Duration::from_secs(90 * 24 * 3600);
/// Purges kept to be told when Redis is back; past it one purge of everything, softly, stands for all.
const PENDING: usize = 1024;

/// The form of a purge's message.
const FORM: u8 = 1;

/// The id of a message: milliseconds and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Id(u64, u64);

impl Id {
    fn parse(text: &[u8]) -> Option<Self> {
        let (millis, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self(millis.parse().ok()?, number.parse().ok()?))
    }

    /// Room is left after each for purges that a process makes by itself while Redis is away.
    fn epoch(self) -> Epoch {
        const NUMBER: u32 = 14;
        const OWN: u32 = 8;
        (self.0 << (NUMBER + OWN)) | (self.1.min((1 << NUMBER) - 1) << OWN)
    }

    pub(super) fn text(self) -> String {
        format!("{}-{}", self.0, self.1)
    }
}

/// Where this process stands in the streams, and what it has still to say.
#[derive(Default)]
pub(super) struct Standing {
    purges: Id,
    /// `None`: the streams were never read.
    changes: Option<Id>,
    landed: Id,
    pending: Vec<(Box<[Label]>, Force)>,
    told_deaf: bool,
}

/// Whether Redis, and through it the fleet, was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was.
    Now,
    /// It will be when it can be reached.
    Later,
}

/// Somebody who holds answers, and must know when one was changed elsewhere.
pub trait Listener: Send + Sync {
    /// The answers under a key were changed. Answers whether any was held.
    fn changed(&self, primary: &Hash) -> bool;
}

/// Telling.
impl Shared {
    pub(super) async fn tell_purge(&self, labels: &[Label], force: Force) -> Told {
        self.purges.purge(labels, force);
        match timeout(TELL, self.append_purge(labels, force)).await {
            Ok(Ok(())) => Told::Now,
            _ => {
                let mut standing = lock(&self.standing);
                if standing.pending.len() >= PENDING {
                    standing.pending = vec![(Box::new([Target::All.label()]), Force::Soft)];
                }
                standing.pending.push((labels.into(), force));
                Told::Later
            }
        }
    }

    async fn append_purge(&self, labels: &[Label], force: Force) -> Result<(), Failure> {
        let node = self.node(FLEET).ok_or(Failure::Connection)?;
        let connections = self.connections(&node).await?;
        let mut connection = connections.reads[0].clone();
        self.add_purge(&mut connection, labels, force).await
    }

    async fn add_purge(
        &self,
        connection: &mut MultiplexedConnection,
        labels: &[Label],
        force: Force,
    ) -> Result<(), Failure> {
        let before = lock(&self.standing).purges;
        let mut id = self.add_message(connection, "*", labels, force).await?;
        // After a failover the stream may end before what is known already: a number that was used would be overlooked.
        if id <= before {
            let next = Id(before.0, before.1.saturating_add(1)).text();
            id = self.add_message(connection, &next, labels, force).await?;
        }
        self.purges.note(labels, id.epoch(), force);
        Ok(())
    }

    async fn add_message(
        &self,
        connection: &mut MultiplexedConnection,
        id: &str,
        labels: &[Label],
        force: Force,
    ) -> Result<Id, Failure> {
        let name = self.purges_key();
        let mut add = ::redis::cmd("XADD");
        add.arg(&name).arg("MAXLEN").arg("~").arg(PURGES_KEPT).arg(id).arg("m").arg(form(labels, force));
        let answer = ask(connection, &add).await?;
        let mut expire = ::redis::cmd("PEXPIRE");
        expire.arg(&name).arg(millis(LASTING));
        ask(connection, &expire).await?;
        match answer {
            Value::BulkString(id) => Id::parse(&id).ok_or(Failure::Connection),
            _ => Err(Failure::Connection),
        }
    }

    /// Adds the messages that tell of changed keys.
    pub(super) fn announce(&self, pipe: &mut Pipe, names: impl Iterator<Item = Hash>) {
        let key = self.changes_key();
        for name in names {
            let message = [&self.id.to_le_bytes()[..], &name].concat();
            let command = pipe.command("xadd", "XADD");
            command.arg(&key).arg("MAXLEN").arg("~").arg(CHANGES_KEPT).arg("*").arg("m").arg(message);
        }
        if !pipe.labels.is_empty() {
            pipe.command("xadd", "PEXPIRE").arg(&key).arg(millis(LASTING));
        }
    }

    fn purges_key(&self) -> String {
        format!("{}:v1:{{fleet}}:purges", self.prefix)
    }

    fn changes_key(&self) -> String {
        format!("{}:v1:{{fleet}}:changes", self.prefix)
    }
}

/// Listening.
impl Shared {
    /// Follows the streams while Redis is up.
    pub(super) async fn follow(self: Arc<Self>) {
        while !self.is_closing() {
            let node = self.node(FLEET);
            let ended = match node.as_ref().filter(|node| node.is_connected()) {
                Some(node) => self.listen(node).await,
                None => Ok(()),
            };
            if let Err(Failure::Response) = ended
                && !std::mem::replace(&mut lock(&self.standing).told_deaf, true)
            {
                tracing::warn!(
                    "Redis refuses XADD, XREAD or XRANGE: purges made elsewhere do not arrive here, so stored answers are validated often"
                );
            }
            // Either way it is tried again: a link that is up when a connection failed does not change.
            match node {
                Some(node) => drop(timeout(PAUSE, node.changed()).await),
                None => tokio::time::sleep(PAUSE / 10).await,
            }
        }
    }

    async fn listen(&self, node: &Node) -> Result<(), Failure> {
        let mut connection = self.open_log(node).await?;
        self.catch_up(&mut connection).await?;
        let landed = self.edge(&mut connection, "XREVRANGE", &self.landed_key()).await?;
        lock(&self.standing).landed = landed.unwrap_or_default();
        // Whoever waited before asks again, now that messages arrive.
        self.leases.cut();
        self.purges.hears();
        let mut heard = self.clock.wall();
        loop {
            let next = timeout(BLOCK + GRACE, self.next(&mut connection));
            let ended = match next.await {
                Ok(Ok(())) if !self.is_closing() && self.still_holds_the_log(node) => {
                    heard = self.clock.wall();
                    continue;
                }
                Ok(ended) => ended,
                Err(_) => Err(Failure::Timeout),
            };
            self.purges.is_deaf_since(heard);
            self.leases.cut();
            return ended;
        }
    }

    /// A failover may leave the connection standing, and the log elsewhere.
    fn still_holds_the_log(&self, node: &Node) -> bool {
        self.node(FLEET).is_some_and(|now| std::ptr::eq(&*now, node)) && node.is_connected()
    }

    /// A connection of one's own to where the log lies.
    pub(super) async fn open_another_log(&self) -> Result<MultiplexedConnection, Failure> {
        match self.node(FLEET) {
            Some(node) => self.open_log(&node).await,
            None => Err(Failure::Connection),
        }
    }

    async fn open_log(&self, node: &Node) -> Result<MultiplexedConnection, Failure> {
        // Where the other connections lead: behind Sentinels that changes.
        let opened = timeout(CONNECT.max(self.budget), self.dialer.open(node.host().as_ref())).await;
        opened.map_err(|_| Failure::Timeout)?
    }

    /// Reads what was told since the last time, tells what is still to be told, and finds out what cannot be known any more.
    pub(super) async fn catch_up(&self, connection: &mut MultiplexedConnection) -> Result<(), Failure> {
        timeout(CONNECT, async {
            self.catch_up_with_purges(connection).await?;
            self.catch_up_with_changes(connection).await?;
            loop {
                let Some((labels, force)) = lock(&self.standing).pending.pop() else { return Ok(()) };
                if let Err(failure) = self.add_purge(connection, &labels, force).await {
                    lock(&self.standing).pending.push((labels, force));
                    return Err(failure);
                }
            }
        })
        .await
        .unwrap_or(Err(Failure::Timeout))
    }

    async fn catch_up_with_purges(&self, connection: &mut MultiplexedConnection) -> Result<(), Failure> {
        let oldest = match self.edge(connection, "XRANGE", &self.purges_key()).await? {
            Some(id) => id,
            None => self.add_message(connection, "*", &[], Force::Soft).await?,
        };
        self.purges.known_since(oldest.epoch());
        let name = self.purges_key();
        loop {
            let after = lock(&self.standing).purges;
            let mut command = ::redis::cmd("XREAD");
            command.arg("COUNT").arg(READ).arg("STREAMS").arg(&name).arg(after.text());
            let messages = messages_of(ask(connection, &command).await?, &name);
            if messages.is_empty() {
                return Ok(());
            }
            self.take_purges(messages);
        }
    }

    async fn catch_up_with_changes(&self, connection: &mut MultiplexedConnection) -> Result<(), Failure> {
        let name = self.changes_key();
        let newest = self.edge(connection, "XREVRANGE", &name).await?.unwrap_or_default();
        let oldest = self.edge(connection, "XRANGE", &name).await?.unwrap_or_default();
        let mut standing = lock(&self.standing);
        match standing.changes {
            None => standing.changes = Some(newest),
            // The message we stopped at is gone, and others may be gone with it.
            Some(at) if at != Id::default() && (oldest > at || newest < at) => {
                standing.changes = Some(newest);
                drop(standing);
                self.purges.purge(&[Target::All.label()], Force::Soft);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The first message in this direction.
    async fn edge(
        &self,
        connection: &mut MultiplexedConnection,
        direction: &str,
        name: &str,
    ) -> Result<Option<Id>, Failure> {
        let (from, to) = if direction == "XRANGE" { ("-", "+") } else { ("+", "-") };
        let mut command = ::redis::cmd(direction);
        command.arg(name).arg(from).arg(to).arg("COUNT").arg(1);
        let answer = ask(connection, &command).await?;
        Ok(messages(answer).into_iter().next().map(|(id, _)| id))
    }

    /// Waits for messages and takes them.
    async fn next(&self, connection: &mut MultiplexedConnection) -> Result<(), Failure> {
        let after = {
            let standing = lock(&self.standing);
            [standing.purges, standing.changes.unwrap_or_default(), standing.landed].map(Id::text)
        };
        let names = [self.purges_key(), self.changes_key(), self.landed_key()];
        let mut command = ::redis::cmd("XREAD");
        command.arg("COUNT").arg(READ).arg("BLOCK").arg(millis(BLOCK));
        command.arg("STREAMS").arg(&names[..]).arg(&after[..]);
        let answer = ask(connection, &command).await?;
        self.take_changes(messages_of(answer.clone(), &names[1]));
        let purges = messages_of(answer.clone(), &names[0]);
        let now = self.clock.wall();
        for (id, _) in &purges {
            self.metrics.purge_received(Duration::from_millis(now.as_millis().saturating_sub(id.0)));
        }
        self.take_purges(purges);
        // Last: who is told that an answer is there must know what was purged before.
        for (id, message) in messages_of(answer, &names[2]) {
            lock(&self.standing).landed = id;
            self.take_landed(&message);
        }
        Ok(())
    }

    fn take_purges(&self, messages: Vec<(Id, Bytes)>) {
        for (id, message) in messages {
            match read_form(&message) {
                Some((labels, force)) => self.purges.note(&labels, id.epoch(), force),
                // One of a later version: whatever it purges is in doubt.
                None => self.purges.note(&[Target::All.label()], id.epoch(), Force::Soft),
            }
            let mut standing = lock(&self.standing);
            standing.purges = standing.purges.max(id);
        }
    }

    fn take_changes(&self, messages: Vec<(Id, Bytes)>) {
        for (id, message) in messages {
            lock(&self.standing).changes = Some(id);
            let Some((sender, primary)) = message.split_first_chunk::<8>() else { continue };
            let Ok(primary) = Hash::try_from(primary) else { continue };
            if u64::from_le_bytes(*sender) != self.id {
                self.changed_elsewhere(&primary);
            }
        }
    }

    /// What we held we may have written to Redis after the change was made there: it is removed there once more.
    fn changed_elsewhere(&self, primary: &Hash) {
        let listeners = lock(&self.listeners).clone();
        let held =
            listeners.iter().filter_map(std::sync::Weak::upgrade).filter(|l| l.changed(primary)).count();
        if held > 0 {
            self.discard(self.key(primary));
        }
    }
}

pub(super) async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, Failure> {
    command.query_async::<Value>(connection).await.map_err(|e| Failure::of(&e))
}

fn form(labels: &[Label], force: Force) -> Vec<u8> {
    let mut form = vec![FORM, u8::from(force == Force::Soft)];
    form.extend(labels.iter().flatten());
    form
}

fn read_form(form: &[u8]) -> Option<(Vec<Label>, Force)> {
    let (head, labels) = form.split_first_chunk::<2>()?;
    let force = match head {
        [FORM, 0] => Force::Hard,
        [FORM, 1] => Force::Soft,
        _ => return None,
    };
    let (labels, rest) = labels.as_chunks::<16>();
    rest.is_empty().then(|| (labels.to_vec(), force))
}

/// The messages of one stream in the answer to XREAD.
pub(super) fn messages_of(answer: Value, name: &str) -> Vec<(Id, Bytes)> {
    let streams: Vec<(Value, Value)> = match answer {
        Value::Map(streams) => streams,
        Value::Array(streams) => streams.into_iter().filter_map(pair).collect(),
        _ => Vec::new(),
    };
    let named = |value: &Value| matches!(value, Value::BulkString(bytes) if bytes == name.as_bytes());
    streams.into_iter().filter(|(value, _)| named(value)).flat_map(|(_, list)| messages(list)).collect()
}

/// A list of messages. One that does not read is told as empty, which no form is.
fn messages(list: Value) -> Vec<(Id, Bytes)> {
    let Value::Array(list) = list else { return Vec::new() };
    let message = |value| {
        let (id, fields) = pair(value)?;
        let (Value::BulkString(id), Value::Array(fields)) = (id, fields) else { return None };
        let content = match fields.into_iter().nth(1) {
            Some(Value::BulkString(content)) => content.into(),
            _ => Bytes::new(),
        };
        Some((Id::parse(&id)?, content))
    };
    list.into_iter().filter_map(message).collect()
}

fn pair(value: Value) -> Option<(Value, Value)> {
    let Value::Array(values) = value else { return None };
    let [first, second] = <[Value; 2]>::try_from(values).ok()?;
    Some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_ids_is_that_of_their_epochs_with_room_between() {
        let ids = [Id(0, 1), Id(1, 0), Id(1, 1), Id(1_795_000_000_000, 0), Id(1_795_000_000_001, 16_000)];
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].epoch() + 200 < pair[1].epoch(), "{pair:?}");
        }
    }

    #[test]
    fn ids_read_as_they_are_written() {
        assert_eq!(Id::parse(b"1700-3"), Some(Id(1700, 3)));
        assert_eq!(Id::parse(Id(7, 9).text().as_bytes()), Some(Id(7, 9)));
        for wrong in ["", "1", "1-", "-1", "a-1", "1-2-3"] {
            assert_eq!(Id::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_purge_reads_as_it_was_written_and_nothing_else_does() {
        for (labels, force) in
            [(vec![], Force::Soft), (vec![[1; 16]], Force::Hard), (vec![[1; 16], [2; 16]], Force::Soft)]
        {
            assert_eq!(read_form(&form(&labels, force)), Some((labels, force)));
        }
        for wrong in [&b""[..], b"\x01", b"\x02\0", b"\x01\x02", b"\x01\0short"] {
            assert_eq!(read_form(wrong), None, "{wrong:?}");
        }
    }
}
