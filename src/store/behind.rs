//! What Redis does not have yet: the queue of writes, and what a look-up must know of it.
//!
//! Writes are made in the order they were asked for, some time later. Until then a look-up that asked Redis would be told the past: an
//! invalidated answer, or none where one was just stored. So whoever looks up asks here first ([`Behind::ahead`]).
//!
//! Writes may be given up, since a cache may forget; removals may not, since a cache must not serve what was invalidated: one that
//! fails is kept and made again, and until it is made Redis is not asked for that key.
//!
//! Not here: sockets. This is a plain structure under somebody's lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Entry;
use super::memory::{Hash, Held};
use super::purges::Seal;
use crate::cache::record::Variants;

/// The number of a write, in the order they were asked for.
pub type Ticket = u64;

/// Told when it is known under which generation a variant lies in Redis.
pub trait Settle: Send + Sync {
    /// A variant that was put in memory under one marker belongs to `marker` from now on; `shared` as in [`Held::Variants`].
    fn settle(&self, variant: &Variant, marker: Arc<Variants>, shared: bool);
}

/// A variant on its way to Redis.
#[derive(Clone)]
pub struct Variant {
    /// The key's hash.
    pub primary: Hash,
    /// The variant's hash.
    pub name: Hash,
    /// The answer.
    pub entry: Arc<Entry>,
    /// What purges judge it by.
    pub seal: Arc<Seal>,
    /// The marker it has in memory.
    pub marker: Arc<Variants>,
    /// The marker to write when Redis has none that names the same fields.
    pub candidate: Arc<Variants>,
    /// Who is told.
    pub settle: Arc<dyn Settle>,
}

/// One write.
#[derive(Clone)]
pub enum Job {
    /// An answer that serves all.
    Answer {
        /// The key's hash.
        name: Hash,
        /// The answer.
        entry: Arc<Entry>,
        /// What purges judge it by.
        seal: Arc<Seal>,
    },
    /// A variant and its marker.
    Variant(Variant),
    /// The removal of all answers under a key.
    Remove {
        /// The key's hash.
        name: Hash,
    },
    /// The removal of a value that cannot be read, by its name in Redis. May be given up.
    Discard {
        /// The name in Redis.
        key: String,
    },
}

/// What will be in Redis under a name once all writes are made.
#[derive(Debug)]
pub enum Ahead {
    /// What Redis says.
    Unchanged,
    /// This.
    Written(Held),
    /// Nothing.
    Removed,
}

/// The queue.
pub struct Behind {
    queue: VecDeque<(Ticket, Job)>,
    bytes: u64,
    limits: Limits,
    last: Ticket,
    writing: HashMap<Hash, (Ticket, Held)>,
    removing: HashMap<Hash, Ticket>,
    again: HashMap<Hash, Ticket>,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Writes.
    pub jobs: usize,
    /// Bytes of content; a single larger write may wait alone.
    pub bytes: u64,
}

/// Writes taken to be made together, in order.
pub type Batch = Vec<(Ticket, Job)>;

impl Behind {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            limits,
            last: 0,
            writing: HashMap::new(),
            removing: HashMap::new(),
            again: HashMap::new(),
        }
    }

    /// What will be in Redis under the name of a key or of a variant.
    pub fn ahead(&self, name: &Hash) -> Ahead {
        if let Some((_, held)) = self.writing.get(name) {
            Ahead::Written(held.clone())
        } else if self.removing.contains_key(name) {
            Ahead::Removed
        } else {
            Ahead::Unchanged
        }
    }

    /// Whether a removal under this key is not made yet.
    pub fn is_removing(&self, name: &Hash) -> bool {
        self.removing.contains_key(name)
    }

    /// Queues a write. Answers whether there was room; a removal always finds it.
    pub fn push(&mut self, job: Job) -> bool {
        let cost = cost(&job);
        let full = self.queue.len() >= self.limits.jobs
            || (self.bytes > 0 && self.bytes.saturating_add(cost) > self.limits.bytes);
        if full && !matches!(job, Job::Remove { .. }) {
            return false;
        }
        self.last += 1;
        self.note(&job);
        self.bytes += cost;
        self.queue.push_back((self.last, job));
        true
    }

    fn note(&mut self, job: &Job) {
        let ticket = self.last;
        match job {
            Job::Answer { name, entry, seal } => {
                self.writing.insert(*name, (ticket, Held::answer(entry.clone(), 0, seal.clone())));
            }
            Job::Variant(v) => {
                let shared = v.marker.generation != v.candidate.generation;
                let marker = Held::Variants { marker: v.marker.clone(), shared };
                let answer = Held::answer(v.entry.clone(), v.marker.generation, v.seal.clone());
                self.writing.insert(v.primary, (ticket, marker));
                self.writing.insert(v.name, (ticket, answer));
            }
            Job::Remove { name } => {
                self.writing.remove(name);
                self.removing.insert(*name, ticket);
            }
            Job::Discard { .. } => {}
        }
    }

    /// The ticket of the last write asked for.
    pub fn last(&self) -> Ticket {
        self.last
    }

    /// Whether a removal failed and is to be made again.
    pub fn has_failed(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes the next writes, up to `jobs` and about `bytes`; failed removals come first when they are `due`. They stay known to
    /// [`Behind::ahead`] until they are told made or given up.
    pub fn take(&mut self, jobs: usize, bytes: u64, due: bool) -> Batch {
        let mut batch = Batch::new();
        if due {
            let names: Vec<Hash> = self.again.keys().take(jobs).copied().collect();
            for name in names {
                let ticket = self.again.remove(&name);
                batch.extend(ticket.map(|ticket| (ticket, Job::Remove { name })));
            }
        }
        let mut taken = 0u64;
        while batch.len() < jobs
            && let Some((ticket, job)) = self.queue.pop_front()
        {
            let cost = cost(&job);
            self.bytes -= cost;
            batch.push((ticket, job));
            taken += cost;
            if taken >= bytes {
                break;
            }
        }
        batch
    }

    /// A write was made, or will not be: Redis is asked again for what it named. Only a removal that was made may be told so.
    pub fn over(&mut self, ticket: Ticket, job: &Job) {
        match job {
            Job::Answer { name, .. } => self.forget_write(ticket, name),
            Job::Variant(v) => {
                self.forget_write(ticket, &v.primary);
                self.forget_write(ticket, &v.name);
            }
            Job::Remove { name } => {
                if self.removing.get(name) == Some(&ticket) {
                    self.removing.remove(name);
                }
            }
            Job::Discard { .. } => {}
        }
    }

    /// A removal failed: it is made again later, unless one asked for later will be made anyway.
    pub fn failed_removal(&mut self, ticket: Ticket, name: Hash) {
        if self.removing.get(&name) == Some(&ticket) {
            self.again.insert(name, ticket);
        }
    }

    fn forget_write(&mut self, ticket: Ticket, name: &Hash) {
        if self.writing.get(name).is_some_and(|(held, _)| *held == ticket) {
            self.writing.remove(name);
        }
    }
}

fn cost(job: &Job) -> u64 {
    match job {
        Job::Answer { entry, .. } | Job::Variant(Variant { entry, .. }) => {
            entry.body.len().saturating_add(1024)
        }
        Job::Remove { .. } | Job::Discard { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::tests::entry;

    struct Nobody;

    impl Settle for Nobody {
        fn settle(&self, _: &Variant, _: Arc<Variants>, _: bool) {}
    }

    fn behind() -> Behind {
        Behind::new(Limits { jobs: 4, bytes: 10_000 })
    }

    fn answer(name: u8, length: usize) -> Job {
        let entry = entry(length);
        let seal = Arc::new(Seal::of(&entry.record, 0));
        Job::Answer { name: [name; 16], entry, seal }
    }

    fn remove(name: u8) -> Job {
        Job::Remove { name: [name; 16] }
    }

    fn variant(primary: u8, name: u8, held: u64, offered: u64) -> Job {
        let marker =
            |generation| Arc::new(Variants { key: Arc::from(&b"key"[..]), names: Vec::new(), generation });
        Job::Variant(Variant {
            primary: [primary; 16],
            name: [name; 16],
            entry: entry(1),
            seal: Arc::new(Seal::of(&entry(1).record, 0)),
            marker: marker(held),
            candidate: marker(offered),
            settle: Arc::new(Nobody),
        })
    }

    fn tickets(batch: &Batch) -> Vec<Ticket> {
        batch.iter().map(|(ticket, _)| *ticket).collect()
    }

    fn is_written(behind: &Behind, name: u8) -> bool {
        matches!(behind.ahead(&[name; 16]), Ahead::Written(_))
    }

    fn is_removed(behind: &Behind, name: u8) -> bool {
        matches!(behind.ahead(&[name; 16]), Ahead::Removed)
    }

    fn all(behind: &mut Behind) -> Batch {
        behind.take(usize::MAX, u64::MAX, false)
    }

    fn over(behind: &mut Behind, batch: &Batch) {
        for (ticket, job) in batch {
            behind.over(*ticket, job);
        }
    }

    #[test]
    fn writes_are_taken_in_order_and_known_until_they_are_over() {
        let mut behind = behind();
        assert!(behind.push(answer(1, 1)) && behind.push(answer(2, 1)));
        let batch = behind.take(9, 9_999, true);
        assert_eq!(tickets(&batch), [1, 2]);
        assert!(is_written(&behind, 1) && is_written(&behind, 2));
        over(&mut behind, &batch);
        assert!(!is_written(&behind, 1) && !is_written(&behind, 2));
    }

    #[test]
    fn a_batch_ends_at_its_count_or_when_its_bytes_are_reached() {
        let mut behind = behind();
        (0..4).for_each(|name| assert!(behind.push(answer(name, 1))));
        assert_eq!(tickets(&behind.take(1, 9_999, true)), [1]);
        assert_eq!(tickets(&behind.take(9, 1_500, true)), [2, 3]);
        assert_eq!(tickets(&behind.take(9, 0, true)), [4]);
        assert!(behind.take(9, 9_999, true).is_empty());
    }

    #[test]
    fn past_the_count_writes_are_refused_and_unknown_but_removals_are_taken() {
        let mut behind = behind();
        (0..4).for_each(|name| assert!(behind.push(answer(name, 1))));
        assert!(!behind.push(answer(9, 1)));
        assert!(!is_written(&behind, 9));
        assert!(!behind.push(Job::Discard { key: "k".into() }));
        assert!(behind.push(remove(9)));
        assert_eq!(behind.last(), 5);
    }

    #[test]
    fn past_the_bytes_writes_are_refused_until_some_are_taken() {
        let mut behind = behind();
        assert!(behind.push(answer(1, 8_000)));
        assert!(!behind.push(answer(2, 8_000)));
        behind.take(1, 1, true);
        assert!(behind.push(answer(2, 8_000)));
    }

    #[test]
    fn a_write_larger_than_all_room_waits_alone() {
        let mut behind = behind();
        assert!(behind.push(answer(1, 50_000)));
        assert!(!behind.push(answer(2, 1)));
        assert_eq!(all(&mut behind).len(), 1);
        assert!(behind.push(answer(2, 1)));
    }

    #[test]
    fn a_removal_hides_the_write_before_it() {
        let mut behind = behind();
        behind.push(answer(1, 1));
        behind.push(remove(1));
        assert!(is_removed(&behind, 1));
        let batch = behind.take(1, 0, true);
        over(&mut behind, &batch);
        assert!(is_removed(&behind, 1));
    }

    #[test]
    fn a_write_after_a_removal_shows_and_the_removal_is_not_forgotten() {
        let mut behind = behind();
        behind.push(remove(1));
        behind.push(answer(1, 1));
        assert!(is_written(&behind, 1) && behind.is_removing(&[1; 16]));
        let batch = all(&mut behind);
        // The write is given up, the removal fails.
        behind.over(batch[1].0, &batch[1].1);
        behind.failed_removal(batch[0].0, [1; 16]);
        assert!(is_removed(&behind, 1) && behind.has_failed());
    }

    #[test]
    fn a_failed_removal_comes_first_when_due_until_it_is_made() {
        let mut behind = behind();
        behind.push(remove(1));
        let batch = behind.take(9, 0, true);
        behind.failed_removal(batch[0].0, [1; 16]);
        behind.push(answer(2, 1));
        assert_eq!(tickets(&behind.take(9, 0, false)), [2]);
        behind.push(answer(3, 1));
        let batch = behind.take(9, 0, true);
        assert_eq!(tickets(&batch), [1, 3]);
        assert!(is_removed(&behind, 1) && !behind.has_failed());
        over(&mut behind, &batch);
        assert!(matches!(behind.ahead(&[1; 16]), Ahead::Unchanged));
    }

    #[test]
    fn of_many_failed_removals_of_one_key_the_last_is_kept() {
        let mut behind = behind();
        (0..9).for_each(|_| assert!(behind.push(remove(1))));
        for (ticket, _) in all(&mut behind) {
            behind.failed_removal(ticket, [1; 16]);
        }
        assert_eq!(tickets(&behind.take(9, 0, true)), [9]);
    }

    #[test]
    fn an_earlier_write_that_ends_leaves_a_later_one_known() {
        let mut behind = behind();
        behind.push(answer(1, 1));
        behind.push(answer(1, 2));
        let batch = behind.take(1, 0, true);
        over(&mut behind, &batch);
        assert!(
            matches!(behind.ahead(&[1; 16]), Ahead::Written(Held::Answer { entry, .. }) if entry.body.len() == 2)
        );
    }

    #[test]
    fn a_variant_is_known_with_its_marker() {
        let mut behind = behind();
        behind.push(variant(1, 2, 7, 7));
        let Ahead::Written(Held::Variants { marker, shared }) = behind.ahead(&[1; 16]) else { panic!() };
        assert_eq!((marker.generation, shared), (7, false));
        let Ahead::Written(Held::Answer { generation, .. }) = behind.ahead(&[2; 16]) else { panic!() };
        assert_eq!(generation, 7);
        behind.push(variant(1, 2, 7, 8));
        assert!(matches!(behind.ahead(&[1; 16]), Ahead::Written(Held::Variants { shared: true, .. })));
        let batch = all(&mut behind);
        over(&mut behind, &batch);
        assert!(!is_written(&behind, 1) && !is_written(&behind, 2));
    }
}
