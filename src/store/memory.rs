//! The memory tier: byte-budgeted, shared without copying.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::Entry;
use crate::base::clock::MonoTime;
use crate::base::unit::ByteSize;
use crate::cache::record::Variants;
use crate::observe::metrics::CacheMetrics;

/// The name of something stored: a key's hash, or a variant's.
pub type Hash = [u8; 16];

/// What is held under a name.
#[derive(Debug, Clone)]
pub enum Held {
    /// An answer; `generation` is that of the [`Variants`] it belongs to, 0 for an answer that serves all.
    Answer {
        /// The answer.
        entry: Arc<Entry>,
        /// Whose variant it is.
        generation: u64,
        /// What it takes in memory, in bytes, roughly: asked often while making room, so it is reckoned once.
        weight: u64,
    },
    /// The answers under this key vary.
    Variants {
        /// The fields that choose, and the generation.
        marker: Arc<Variants>,
        /// Whether Redis has told it. Then its generation may have been left behind by another gateway's invalidation meanwhile, and must not be
        /// written to Redis again.
        shared: bool,
    },
}

impl Held {
    /// An answer as it is held.
    pub fn answer(entry: Arc<Entry>, generation: u64) -> Self {
        let weight = weigh(&entry);
        Self::Answer { entry, generation, weight }
    }
}

/// How many marks of keys whose answers are not for sharing are kept, whatever the memory's size: a mark is some 64 bytes.
const MARKS: usize = 16 * 1024;
/// Beside what is counted field by field: the record itself, reference counts, the table's own slots.
const FIXED: usize = 512;
/// Beside its bytes, what a header line or a piece of content costs.
const PER_PART: usize = 64;
/// What an answer is taken to weigh on average, to size the tables at first; they grow as needed.
const TYPICAL: u64 = 16 * 1024;

/// Answers and markers within a budget of bytes, and the keys whose answers are not for sharing.
pub struct Memory {
    held: Option<Cache<Hash, Held, Weigh, DefaultHashBuilder, Left>>,
    unshared: Cache<Hash, MonoTime>,
    metrics: CacheMetrics,
}

impl Memory {
    /// Holds at most `size` bytes, none when it is zero. An answer of `max_object` bytes can be kept when `size` exceeds it by a tenth.
    pub fn new(size: ByteSize, max_object: ByteSize, metrics: CacheMetrics) -> Self {
        let held = (size.0 > 0).then(|| {
            // These are the options' defaults where not said; building them only fails when one of the two capacities is missing.
            let options = OptionsBuilder::new()
                .shards(shards(size.0, max_object.0))
                .estimated_items_capacity(
                    usize::try_from(size.0 / TYPICAL).unwrap_or(usize::MAX).clamp(1024, 1 << 20),
                )
                .weight_capacity(size.0)
                .build();
            options.map(|o| Cache::with_options(o, Weigh, DefaultHashBuilder::default(), Left))
        });
        Self { held: held.and_then(Result::ok), unshared: Cache::new(MARKS), metrics }
    }

    /// What is held under a name.
    pub fn get(&self, name: &Hash) -> Option<Held> {
        self.held.as_ref()?.get(name)
    }

    /// Holds something under a name, in place of what was; what has no use any more makes room for it.
    pub fn insert(&self, name: Hash, held: Held) {
        let Some(cache) = &self.held else { return };
        let mut gone = Gone::default();
        // Too large for its share of the budget: the table would tell it as one that left, though it never came.
        if Weigh.weight(&name, &held) > largest(cache.shard_capacity()) {
            cache.remove(&name);
        } else {
            cache.insert_with_lifecycle(name, held, &mut gone);
        }
        for _ in &gone.0 {
            self.metrics.evicted();
        }
        self.tell(cache);
    }

    /// Drops what is held under a name.
    pub fn remove(&self, name: &Hash) {
        let Some(cache) = &self.held else { return };
        if cache.remove(name).is_some() {
            self.tell(cache);
        }
    }

    /// Remembers that answers under a key are not for sharing, until then.
    pub fn mark_unshared(&self, key: Hash, until: MonoTime) {
        self.unshared.insert(key, until);
    }

    /// Forgets it: one was for sharing after all.
    pub fn mark_shared(&self, key: &Hash) {
        self.unshared.remove(key);
    }

    /// Whether answers under a key were not for sharing when last seen.
    pub fn is_unshared(&self, key: &Hash, now: MonoTime) -> bool {
        self.unshared.get(key).is_some_and(|until| now < until)
    }

    fn tell(&self, cache: &Cache<Hash, Held, Weigh, DefaultHashBuilder, Left>) {
        self.metrics.memory(cache.len() as u64, cache.weight(), cache.capacity());
    }
}

/// The budget is divided among shards, each with its own lock, and an answer must fit into one: as many as leave room for four of the largest
/// answers in each, at most 32.
fn shards(size: u64, max_object: u64) -> usize {
    let roomy = size / max_object.saturating_mul(4).max(1);
    match roomy {
        0 | 1 => 1,
        n if n >= 32 => 32,
        n => 1 << n.ilog2(),
    }
}

/// The largest weight a shard takes: the table keeps three hundredths of it for newcomers.
fn largest(shard: u64) -> u64 {
    shard - shard / 32 - 1
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Hash, Held> for Weigh {
    fn weight(&self, _: &Hash, held: &Held) -> u64 {
        match held {
            Held::Answer { weight, .. } => *weight,
            Held::Variants { marker, .. } => {
                (FIXED + marker.key.len() + marker.names.len() * PER_PART) as u64
            }
        }
    }
}

fn weigh(entry: &Entry) -> u64 {
    let record = &entry.record;
    let fields: usize =
        record.fields.iter().map(|(name, value)| PER_PART + name.as_str().len() + value.len()).sum();
    let variant: usize = record.variant.0.iter().map(|v| PER_PART + v.as_ref().map_or(0, |v| v.len())).sum();
    let parts = (record.vary.len() + entry.body.chunks().len()) * PER_PART;
    entry.body.len().saturating_add((FIXED + record.key.len() + fields + variant + parts) as u64)
}

/// What left to make room; dropped after the table's lock is given back, since freeing megabytes takes time.
#[derive(Default)]
struct Gone(Vec<Held>);

#[derive(Clone)]
struct Left;

impl Lifecycle<Hash, Held> for Left {
    type RequestState = Gone;

    fn on_evict(&self, gone: &mut Gone, _: Hash, held: Held) {
        gone.0.push(held);
    }
}
