//! The memory tier: byte-budgeted, shared without copying.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::Entry;
use super::purges::Seal;
use crate::base::clock::MonoTime;
use crate::base::unit::ByteSize;
use crate::cache::record::Variants;

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
        /// What purges judge it by.
        seal: Arc<Seal>,
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
    pub fn answer(entry: Arc<Entry>, generation: u64, seal: Arc<Seal>) -> Self {
        let weight = weigh(&entry) + seal.weight() as u64;
        Self::Answer { entry, generation, seal, weight }
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
}

impl Memory {
    /// Holds at most `size` bytes, none when it is zero. An answer of `max_object` bytes can be kept when `size` exceeds it by a tenth.
    pub fn new(size: ByteSize, max_object: ByteSize) -> Self {
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
        Self { held: held.and_then(Result::ok), unshared: Cache::new(MARKS) }
    }

    /// Whether it holds anything at all.
    pub fn is_there(&self) -> bool {
        self.held.is_some()
    }

    /// What is held under a name.
    pub fn get(&self, name: &Hash) -> Option<Held> {
        self.held.as_ref()?.get(name)
    }

    /// Holds something under a name, in place of what was. Answers how many others left to make room for it.
    pub fn insert(&self, name: Hash, held: Held) -> usize {
        let Some(cache) = &self.held else { return 0 };
        // Too large for its share of the budget: the table would tell it as one that left, though it never came.
        if Weigh.weight(&name, &held) > largest(cache.shard_capacity()) {
            cache.remove(&name);
            return 0;
        }
        let mut gone = Gone::default();
        cache.insert_with_lifecycle(name, held, &mut gone);
        gone.0.len()
    }

    /// Drops what is held under a name.
    pub fn remove(&self, name: &Hash) {
        if let Some(cache) = &self.held {
            cache.remove(name);
        }
    }

    /// Everything held, one part of the table locked at a time.
    pub fn all(&self) -> impl Iterator<Item = Held> + '_ {
        self.held.iter().flat_map(|cache| cache.iter().map(|(_, held)| held))
    }

    /// Entries held, their bytes, and how many bytes there is room for.
    pub fn usage(&self) -> (u64, u64, u64) {
        self.held.as_ref().map_or((0, 0, 0), |cache| (cache.len() as u64, cache.weight(), cache.capacity()))
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

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::base::clock::WallTime;
    use crate::cache::policy::LifetimeSource;
    use crate::cache::record::{Record, ReuseRule};
    use crate::cache::vary::Variant;
    use crate::store::Body;

    /// An answer with so many bytes of content.
    pub fn entry(length: usize) -> Arc<Entry> {
        let record = Record {
            key: Arc::from(&b"key"[..]),
            status: StatusCode::OK,
            fields: HeaderMap::new(),
            received: WallTime::default(),
            initial_age: Duration::ZERO,
            lifetime: Duration::MAX,
            source: LifetimeSource::MaxAge,
            reuse: ReuseRule::default(),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::ZERO,
            vary: Vec::new(),
            variant: Variant::default(),
        };
        Arc::new(Entry { record, body: Body::from_chunks(vec![Bytes::from(vec![0; length])]) })
    }

    fn name(number: u64) -> Hash {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&number.to_le_bytes());
        name
    }

    fn put(memory: &Memory, number: u64, length: usize) -> usize {
        let entry = entry(length);
        let seal = Arc::new(Seal::of(&entry.record, 0));
        memory.insert(name(number), Held::answer(entry, 0, seal))
    }

    #[test]
    fn what_is_put_is_held_until_removed() {
        let memory = Memory::new(ByteSize::mib(1), ByteSize::kib(64));
        put(&memory, 1, 100);
        assert!(matches!(memory.get(&name(1)), Some(Held::Answer { entry, .. }) if entry.body.len() == 100));
        assert!(memory.get(&name(2)).is_none());
        memory.remove(&name(1));
        assert!(memory.get(&name(1)).is_none());
    }

    #[test]
    fn a_size_of_zero_holds_nothing() {
        let memory = Memory::new(ByteSize(0), ByteSize::mib(1));
        assert_eq!(put(&memory, 1, 1), 0);
        assert!(memory.get(&name(1)).is_none());
        assert_eq!(memory.usage(), (0, 0, 0));
    }

    #[test]
    fn the_budget_is_kept_and_who_leaves_is_counted() {
        let memory = Memory::new(ByteSize::kib(256), ByteSize::kib(16));
        let left: usize = (0..1000).map(|number| put(&memory, number, 4000)).sum();
        let (entries, bytes, capacity) = memory.usage();
        assert!(bytes <= capacity && capacity <= 256 * 1024 + 64, "{bytes} of {capacity}");
        assert!(entries > 30, "{entries}");
        assert_eq!(left as u64, 1000 - entries);
    }

    #[test]
    fn fields_and_variants_weigh_too() {
        let plain = entry(10);
        let mut record = plain.record.clone();
        record.fields.insert("x-long", "y".repeat(5000).parse().unwrap());
        record.variant = Variant(vec![Some(vec![0; 700].into())]);
        let heavy = Entry { record, body: plain.body.clone() };
        assert!(weigh(&heavy) >= weigh(&plain) + 5700);
    }

    #[test]
    fn the_largest_answer_can_be_kept_whatever_the_size() {
        let largest = ByteSize::mib(4);
        for mib in [5, 8, 16, 17, 64, 100, 256, 1024] {
            let memory = Memory::new(ByteSize::mib(mib), largest);
            for number in 0..3 {
                put(&memory, number, largest.as_usize());
                assert!(memory.get(&name(number)).is_some(), "{mib} MiB");
            }
        }
    }

    #[test]
    fn an_answer_too_large_is_refused_and_takes_what_it_replaces_with_it() {
        let memory = Memory::new(ByteSize::kib(64), ByteSize::mib(1));
        put(&memory, 1, 100);
        put(&memory, 2, 100);
        assert_eq!(put(&memory, 1, 70_000), 0);
        assert!(memory.get(&name(1)).is_none());
        assert!(memory.get(&name(2)).is_some());
    }

    #[test]
    fn shards_leave_room_for_large_answers() {
        for (size, object, expected) in [
            (1, 0, 1),
            (1 << 20, 4 << 20, 1),
            (64 << 20, 4 << 20, 4),
            (100 << 20, 4 << 20, 4),
            (1 << 40, 1, 32),
            (1 << 20, u64::MAX, 1),
        ] {
            assert_eq!(shards(size, object), expected, "{size} {object}");
        }
    }

    #[test]
    fn a_mark_lasts_its_time_or_until_something_is_shared() {
        let memory = Memory::new(ByteSize(0), ByteSize(0));
        let until = MonoTime::from_millis(100);
        memory.mark_unshared(name(1), until);
        assert!(memory.is_unshared(&name(1), MonoTime::from_millis(99)));
        assert!(!memory.is_unshared(&name(1), until));
        assert!(!memory.is_unshared(&name(2), MonoTime::from_millis(0)));
        memory.mark_shared(&name(1));
        assert!(!memory.is_unshared(&name(1), MonoTime::from_millis(0)));
    }
}
