//! One fetch for the whole fleet: before it asks the origin, a fill asks Redis whether another gateway does already, and waits for that.
//!
//! It waits a little shorter than the requests that wait for it (`wait_timeout`), so that they are still there when it gives up and asks for itself.
//! Whenever Redis cannot say, it asks for itself at once.

use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Sleep;

use super::fill::{Fill, NOT_SHARED_FOR, Source, Word, deserted};
use crate::base::clock::WallTime;
use crate::cache::lookup::{self, Reuse};
use crate::cache::record::Record;
use crate::cache::{directive, is_event_stream};
use crate::store::Entry;
use crate::store::flight::{End, Joiner, Reader, Writer};
use crate::store::redis::lease::{Followed, Lease, Outcome, Queue, Taken, Woken};
use crate::store::redis::relay::{Part, Relay, Relayed};

/// The part of `wait_timeout` that a fill waits for another gateway.
const PART: f64 = 0.9;
/// So often what another gateway is said to have stored is looked for in vain before everybody fetches for himself.
const LOOKS: usize = 3;
/// How many pieces of content are relayed at once.
const TOGETHER: usize = 64;

/// What becomes of a fill.
pub(super) enum Turn {
    /// It asks the origin.
    Fetch,
    /// Another gateway fetched this.
    Have(Arc<Entry>),
    /// Another gateway is fetching this, and it can be followed.
    Follow(Box<Record>, Relayed),
    /// Nobody waits for it any more.
    Deserted,
}

/// What asking the fleet came to.
enum Ended {
    /// This gateway fetches for all.
    Taken(Lease, Option<Arc<Entry>>),
    /// Another gateway fetched what serves.
    Shared(Arc<Entry>),
    /// Another gateway is fetching it, and it is followed.
    Followed(Box<Record>, Relayed),
    /// What another gateway fetched must be validated before it serves.
    Unfit(Arc<Entry>),
    /// What another gateway fetches is not for sharing.
    NotShared,
    /// The fetch of another gateway came to nothing.
    Nothing,
    /// The other gateway takes too long.
    Late,
    /// Nobody waits any more.
    Deserted,
    /// Redis cannot say.
    Unknown,
}

impl Ended {
    /// The word of the metric.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Taken(..) => "taken",
            Self::Shared(_) => "shared",
            Self::Followed(..) => "followed",
            Self::Unfit(_) => "unfit",
            Self::NotShared => "not-shared",
            Self::Nothing => "nothing",
            Self::Late => "late",
            Self::Deserted => "deserted",
            Self::Unknown => "unknown",
        }
    }
}

/// What a look at what another gateway stored came to.
enum Seen {
    /// It serves.
    Fits(Arc<Entry>),
    /// It must be validated first.
    Unfit(Arc<Entry>),
    /// It is not there; what was looked for has this slot.
    Nothing([u8; 16]),
}

impl Fill {
    /// Waits until it is this fill's turn to ask the origin, or until another gateway has done so.
    pub(super) async fn wait_for_fleet(&mut self, writer: &mut Writer<Word>) -> Turn {
        let Some(queue) = self.slot.and_then(|slot| self.queue(slot)) else { return Turn::Fetch };
        let ended = self.ask_fleet(queue, writer).await;
        self.cache.metrics.lease(ended.as_str());
        match ended {
            Ended::Taken(lease, newer) => {
                self.lease = Some(lease);
                self.stale = newer.or(self.stale.take());
            }
            Ended::Unfit(newer) => self.stale = Some(newer),
            Ended::Shared(entry) => return Turn::Have(entry),
            Ended::Followed(record, relayed) => return Turn::Follow(record, relayed),
            Ended::Deserted => return Turn::Deserted,
            Ended::NotShared => {
                self.cache.store.not_shared(&self.key, NOT_SHARED_FOR);
                writer.stop_keeping();
                writer.say(Word::NotShared);
            }
            Ended::Late => writer.say(Word::Late),
            Ended::Nothing | Ended::Unknown => {}
        }
        Turn::Fetch
    }

    fn queue(&self, slot: [u8; 16]) -> Option<Queue> {
        self.cache.store.queue(&self.key, slot, self.cache.lease)
    }

    async fn ask_fleet(&self, mut queue: Queue, writer: &Writer<Word>) -> Ended {
        let mut patience = pin!(tokio::time::sleep(self.cache.wait_timeout.mul_f64(PART)));
        let (mut slot, mut looks, mut waited) = (self.slot, 0, false);
        loop {
            let epoch = self.cache.store.began(&self.key).epoch();
            let woken = match queue.take(epoch, looks > 0).await {
                Taken::Unknown => return Ended::Unknown,
                Taken::Ours(lease) => return self.taken(lease, waited).await,
                Taken::Streams(fetch) => match queue.follow(fetch, self.key.text()).await {
                    Followed::Begun(record, relayed) => return Ended::Followed(record, relayed),
                    Followed::Landed => Woken::Told(Outcome::Stored),
                    Followed::Silent => return Ended::Nothing,
                },
                Taken::Done => Woken::Told(Outcome::Stored),
                Taken::Theirs => match self.wait(&mut queue, writer, patience.as_mut()).await {
                    Ok(woken) => woken,
                    Err(ended) => return ended,
                },
            };
            waited = true;
            match woken {
                // Asked again, it says by what name it can be followed.
                Woken::Silence | Woken::Told(Outcome::Streams) => {}
                Woken::Told(Outcome::NotShared) => return Ended::NotShared,
                Woken::Told(Outcome::Nothing) => return Ended::Nothing,
                Woken::Told(Outcome::Stored) => match self.look().await {
                    Seen::Fits(entry) => return Ended::Shared(entry),
                    Seen::Unfit(entry) => return Ended::Unfit(entry),
                    Seen::Nothing(_) if looks == LOOKS => return Ended::Nothing,
                    Seen::Nothing(now) => {
                        looks += 1;
                        // Only what was fetched tells by which fields it varies: this is another variant's turn.
                        if slot.replace(now) != Some(now) {
                            let Some(next) = self.queue(now) else { return Ended::Unknown };
                            queue = next;
                        }
                    }
                },
            }
        }
    }

    async fn wait(
        &self,
        queue: &mut Queue,
        writer: &Writer<Word>,
        patience: Pin<&mut Sleep>,
    ) -> Result<Woken, Ended> {
        tokio::select! {
            biased;
            woken = queue.wait() => Ok(woken),
            () = deserted(writer, self.background) => Err(Ended::Deserted),
            () = patience => Err(Ended::Late),
        }
    }

    /// The lease is ours. After a wait that may be so because the message that it was fetched did not arrive.
    async fn taken(&self, lease: Lease, waited: bool) -> Ended {
        let seen = if waited { self.look().await } else { return Ended::Taken(lease, None) };
        match seen {
            Seen::Fits(entry) => {
                lease.give_back(Outcome::Stored);
                Ended::Shared(entry)
            }
            Seen::Unfit(entry) => Ended::Taken(lease, Some(entry)),
            Seen::Nothing(_) => Ended::Taken(lease, None),
        }
    }

    /// Looks for an answer that came after the one this fill is to replace.
    async fn look(&self) -> Seen {
        let found = self.cache.store.lookup_again(&self.key, &self.asked).await;
        let old = self.stale.as_ref().map(|stale| stale.record.received);
        match found.entry.filter(|entry| old.is_none_or(|old| entry.record.received > old)) {
            None => Seen::Nothing(found.slot),
            Some(entry) => {
                let request = directive::request(&self.asked);
                let now = self.live.clock.wall();
                match lookup::judge(&entry.record, &request, &self.cache.rules, now) {
                    Reuse::Fresh => Seen::Fits(entry),
                    _ => Seen::Unfit(entry),
                }
            }
        }
    }

    /// Whether another gateway took the lease from us and stored what it fetched after we had asked: ours is the older answer then.
    pub(super) async fn is_superseded(&self, sent: WallTime) -> bool {
        if self.lease.as_ref().is_none_or(Lease::is_sure) {
            return false;
        }
        self.cache.metrics.lease("lost");
        let found = self.cache.store.lookup_again(&self.key, &self.asked).await;
        found.entry.is_some_and(|entry| entry.record.received > sent)
    }

    /// Tells those who wait elsewhere what they may have of an answer that begins to come.
    pub(super) fn offer(&mut self, record: &Arc<Record>, writer: &Writer<Word>) {
        let Some(lease) = &self.lease else { return };
        if self.cache.relay.takes(&record.fields) {
            tokio::spawn(relay(lease.open(), record.clone(), writer.joiner()));
        } else if is_event_stream(&record.fields) {
            // It may take minutes, and nobody elsewhere would see any of it until then.
            self.give_back(Outcome::Nothing);
        }
    }

    /// Passes on what another gateway fetches. It is that gateway's to store.
    pub(super) async fn follow_elsewhere(self, record: Record, mut relayed: Relayed, writer: Writer<Word>) {
        let status = Some(record.status.as_u16());
        let source = Source { instance: None, tries: 0, status, elsewhere: true };
        writer.say(Word::Coming(Arc::new(record), source));
        loop {
            let part = tokio::select! {
                part = relayed.next() => part,
                () = writer.deserted() => return,
            };
            match part {
                Part::Content(piece) => {
                    if writer.push(piece).await.is_err() {
                        return;
                    }
                }
                Part::End => return writer.finish(),
                // Dropped unfinished, it is seen to be cut.
                Part::Cut => return,
            }
        }
    }

    /// Gives the lease back, if there is one.
    pub(super) fn give_back(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(outcome);
        }
    }
}

/// Writes an answer for other gateways as it comes, once one of them wants it.
async fn relay(mut relay: Relay, record: Arc<Record>, joiner: Joiner<Word>) {
    tokio::select! {
        () = relay.wanted() => {}
        () = joiner.ended() => return,
    }
    let Some(mut reader) = joiner.join() else { return };
    if !relay.begin(&record).await {
        return;
    }
    loop {
        let first = tokio::select! {
            chunk = reader.chunk() => chunk,
            () = tokio::time::sleep(relay.pulse()) => {
                // Nothing to add, but it goes on.
                if !relay.go_on(Vec::new()).await {
                    return;
                }
                continue;
            }
        };
        let (pieces, end) = gather(first, &mut reader);
        if !pieces.is_empty() && !relay.go_on(pieces).await {
            return;
        }
        if let Some(end) = end {
            return relay.end(end == End::Complete).await;
        }
    }
}

/// This piece of content and what else is there already, and the end if that is.
fn gather(first: Result<Bytes, End>, reader: &mut Reader<Word>) -> (Vec<Bytes>, Option<End>) {
    let mut pieces = Vec::new();
    let mut next = Some(first);
    while let Some(chunk) = next {
        match chunk {
            Ok(piece) => pieces.push(piece),
            Err(end) => return (pieces, Some(end)),
        }
        next = if pieces.len() < TOGETHER { reader.chunk().now_or_never() } else { None };
    }
    (pieces, None)
}
