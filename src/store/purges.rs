//! What this process knows of purges, and whether it can still know.
//!
//! The marks lie in this process, so that a hit costs no question to Redis; `store::redis::log` keeps them in step with the fleet. When it cannot, an
//! answer is served for a bounded time after it was last known to be right, and then validated: a purge made elsewhere may not have arrived.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::redis::Told;
use crate::base::clock::WallTime;
use crate::cache::purge::{self, Epoch, Force, Label, Marks, Verdict};
use crate::cache::record::Record;

/// What an answer is judged by: when its making began, and what it is about.
#[derive(Debug)]
pub struct Seal {
    /// The last purge known when its making began.
    pub epoch: Epoch,
    labels: Box<[Label]>,
    /// The version of the marks by which it was last found untouched: most hits compare two numbers.
    checked: AtomicU64,
}

impl Seal {
    /// The seal of an answer whose making began at an epoch.
    pub fn of(record: &Record, epoch: Epoch) -> Self {
        Self { epoch, labels: purge::labels(&record.key, &record.fields), checked: AtomicU64::new(0) }
    }

    /// Its size in memory, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.labels.len() * size_of::<Label>()
    }
}

/// What may be done with an answer that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// What its own rules allow.
    Good,
    /// It is stale: purged softly.
    Stale,
    /// It is to be validated: a purge may have been missed.
    Doubtful,
    /// Nothing: purged.
    Gone,
}

/// The purges this process knows.
pub struct Purges {
    marks: RwLock<Marks>,
    version: AtomicU64,
    last: AtomicU64,
    /// Since when, in milliseconds of wall time, nothing is heard from the fleet; [`HEARING`]: it is.
    deaf_since: AtomicU64,
    trust: Duration,
}

const HEARING: u64 = u64::MAX;

impl Purges {
    /// The purges of a process that is alone.
    pub fn alone() -> Self {
        Self::new(HEARING, Duration::MAX)
    }

    /// The purges of a fleet that is not heard yet. An answer that was made is trusted for `trust` while it is not.
    pub fn of_a_fleet(trust: Duration, now: WallTime) -> Self {
        Self::new(now.as_millis(), trust)
    }

    fn new(deaf_since: u64, trust: Duration) -> Self {
        Self {
            marks: RwLock::default(),
            version: AtomicU64::new(1),
            last: AtomicU64::new(0),
            deaf_since: AtomicU64::new(deaf_since),
            trust,
        }
    }

    /// The last purge known.
    pub fn last(&self) -> Epoch {
        self.last.load(Ordering::Acquire)
    }

    /// Judges an answer.
    pub fn judge(&self, seal: &Seal, record: &Record, now: WallTime) -> Standing {
        let version = self.version.load(Ordering::Acquire);
        if seal.checked.load(Ordering::Relaxed) != version {
            match self.read().judge(&seal.labels, seal.epoch) {
                Verdict::Untouched => seal.checked.store(version, Ordering::Relaxed),
                Verdict::Stale => return Standing::Stale,
                Verdict::Gone => return Standing::Gone,
            }
        }
        if self.trusts(record, now) { Standing::Good } else { Standing::Doubtful }
    }

    fn trusts(&self, record: &Record, now: WallTime) -> bool {
        let deaf_since = self.deaf_since.load(Ordering::Relaxed);
        deaf_since == HEARING
            || now.since(WallTime::from_millis(deaf_since).max(record.received)) <= self.trust
    }

    /// Makes a purge known to this process.
    pub fn purge(&self, labels: &[Label], force: Force) {
        self.change(|marks| {
            marks.purge(labels, force);
        });
    }

    /// A purge with the number the fleet gave it.
    pub fn note(&self, labels: &[Label], epoch: Epoch, force: Force) {
        self.change(|marks| marks.note(labels, epoch, force));
    }

    /// The fleet knows nothing of purges before this one.
    pub fn known_since(&self, epoch: Epoch) {
        self.change(|marks| marks.known_since(epoch));
    }

    /// From now on every purge arrives.
    pub fn hears(&self) {
        self.deaf_since.store(HEARING, Ordering::Relaxed);
    }

    /// Since then purges may have been missed.
    pub fn is_deaf_since(&self, then: WallTime) {
        // Deaf already: the earlier moment counts.
        let _ =
            self.deaf_since.compare_exchange(HEARING, then.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut Marks)) {
        let mut marks = self.write();
        change(&mut marks);
        self.last.store(marks.last(), Ordering::Release);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Marks> {
        self.marks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Marks> {
        self.marks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which tiers know of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This process alone: there is no Redis.
    Process,
    /// This process, and the fleet as Redis was told.
    Fleet(Told),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::LifetimeSource;
    use crate::cache::record::ReuseRule;
    use crate::cache::vary::Variant;
    use http::{HeaderMap, StatusCode};

    fn record(received: u64) -> Record {
        Record {
            key: std::sync::Arc::from(&b""[..]),
            status: StatusCode::OK,
            fields: HeaderMap::new(),
            received: WallTime::from_secs(received),
            initial_age: Duration::ZERO,
            lifetime: Duration::MAX,
            source: LifetimeSource::MaxAge,
            reuse: ReuseRule::default(),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::ZERO,
            vary: Vec::new(),
            variant: Variant::default(),
        }
    }

    fn all() -> [Label; 1] {
        [purge::Target::All.label()]
    }

    #[test]
    fn an_answer_found_untouched_is_judged_again_after_the_next_purge() {
        let purges = Purges::alone();
        let (record, now) = (record(0), WallTime::from_secs(1));
        let seal = Seal::of(&record, purges.last());
        assert_eq!(purges.judge(&seal, &record, now), Standing::Good);
        assert_eq!(purges.judge(&seal, &record, now), Standing::Good);
        purges.purge(&all(), Force::Soft);
        assert_eq!(purges.judge(&seal, &record, now), Standing::Stale);
        purges.purge(&all(), Force::Hard);
        assert_eq!(purges.judge(&seal, &record, now), Standing::Gone);
        let later = Seal::of(&record, purges.last());
        assert_eq!(purges.judge(&later, &record, now), Standing::Good);
    }

    #[test]
    fn while_the_fleet_is_not_heard_an_answer_is_trusted_for_a_time_since_it_was_known_right() {
        let purges = Purges::of_a_fleet(Duration::from_secs(10), WallTime::from_secs(0));
        purges.hears();
        let at = |received: u64, now: u64| {
            let record = record(received);
            purges.judge(&Seal::of(&record, 0), &record, WallTime::from_secs(now))
        };
        assert_eq!(at(0, 1000), Standing::Good);
        purges.is_deaf_since(WallTime::from_secs(100));
        purges.is_deaf_since(WallTime::from_secs(105));
        for (received, now, standing) in [
            (0, 110, Standing::Good),
            (0, 111, Standing::Doubtful),
            (105, 111, Standing::Good),
            (105, 116, Standing::Doubtful),
        ] {
            assert_eq!(at(received, now), standing, "received {received}, now {now}");
        }
        purges.hears();
        assert_eq!(at(0, 1000), Standing::Good);
    }
}
