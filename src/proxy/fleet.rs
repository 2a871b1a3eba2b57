//! One fetch for the whole fleet: before it asks the origin, a fill asks Redis whether another gateway does already, and waits for that.
//!
//! It waits a little shorter than the requests that wait for it (`wait_timeout`), so that they are still there when it gives up and asks for itself.
//! Whenever Redis cannot say, it asks for itself at once.

use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::time::Sleep;

use super::fill::{Fill, NOT_SHARED_FOR, Word, deserted};
use crate::base::clock::WallTime;
use crate::cache::directive;
use crate::cache::lookup::{self, Reuse};
use crate::store::Entry;
use crate::store::flight::Writer;
use crate::store::redis::lease::{Lease, Outcome, Queue, Taken, Woken};

/// The part of `wait_timeout` that a fill waits for another gateway.
const PART: f64 = 0.9;
/// So often what another gateway is said to have stored is looked for in vain before everybody fetches for himself.
const LOOKS: usize = 3;

/// What becomes of a fill.
pub(super) enum Turn {
    /// It asks the origin.
    Fetch,
    /// Another gateway fetched this.
    Have(Arc<Entry>),
    /// Nobody waits for it any more.
    Deserted,
}

/// What asking the fleet came to.
enum Ended {
    /// This gateway fetches for all.
    Taken(Lease, Option<Arc<Entry>>),
    /// Another gateway fetched what serves.
    Shared(Arc<Entry>),
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
                Taken::Done => Woken::Told(Outcome::Stored),
                Taken::Theirs => match self.wait(&mut queue, writer, patience.as_mut()).await {
                    Ok(woken) => woken,
                    Err(ended) => return ended,
                },
            };
            waited = true;
            match woken {
                Woken::Silence => {}
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

    /// Gives the lease back, if there is one.
    pub(super) fn give_back(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(outcome);
        }
    }
}
