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
            Job::Answer { name, entry } => {
                self.writing.insert(*name, (ticket, Held::answer(entry.clone(), 0)));
            }
            Job::Variant(v) => {
                let shared = v.marker.generation != v.candidate.generation;
                let marker = Held::Variants { marker: v.marker.clone(), shared };
                let answer = Held::answer(v.entry.clone(), v.marker.generation);
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

    /// Takes everything that waits, to be given up.
    pub fn take_all(&mut self) -> Batch {
        self.bytes = 0;
        self.queue.drain(..).collect()
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
