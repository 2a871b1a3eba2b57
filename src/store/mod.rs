//! Where answers lie: memory over Redis.
//!
//! A [`Store`] belongs to one cache. A look-up asks memory, then Redis, and fills memory back; a write is visible in this process at once and
//! reaches Redis behind it, in order. A Redis that is absent, slow or broken is a miss with a reason, never an error: the rule that a
//! shared store is never why a request fails lives here.
//!
//! Not here: HTTP rules. Whether an answer may be stored or reused is `cache`'s to say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Clock;
use crate::base::fields::Fields;
use crate::base::unit::ByteSize;
use crate::cache::key::Key;
use crate::cache::record::Record;
use crate::cache::status::Tier;
use crate::observe::metrics::CacheMetrics;

pub mod flight;
pub mod memory;
pub mod redis;

use self::redis::RedisTier;

/// A stored answer with its body, shared by everyone who serves it.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Everything but the body.
    pub record: Record,
    /// The content.
    pub body: Body,
}

/// Content in pieces, shared without copying.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Body {
    chunks: Arc<[Bytes]>,
    length: u64,
}

impl Body {
    /// Content made of these pieces, in order.
    pub fn from_chunks(chunks: Vec<Bytes>) -> Self {
        let length = chunks.iter().map(|c| c.len() as u64).sum();
        Self { chunks: chunks.into(), length }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its pieces, in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The bytes from `first` to `last`, both included, in pieces that share this body's memory.
    pub fn slice(&self, first: u64, last: u64) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut start = 0u64;
        for chunk in self.chunks.iter() {
            let end = start + chunk.len() as u64;
            if end > first && start <= last {
                let from = first.saturating_sub(start) as usize;
                let to = (last + 1).min(end) - start;
                out.push(chunk.slice(from..to as usize));
            }
            start = end;
        }
        out
    }
}

/// What a look-up found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The answer, fresh or stale, whose variant matches.
    pub entry: Option<Arc<Entry>>,
    /// Where it lay; that of the last tier asked when there is none.
    pub tier: Tier,
    /// Why there is none.
    pub absent: Absent,
    /// Names the answer looked for among all of this cache: what coalescing goes by.
    pub slot: [u8; 16],
    /// What kept Redis from answering, for `Cache-Status` and the log: `redis-timeout`, `redis-error`, `redis-circuit-open`, `redis-damaged`.
    pub trouble: Option<&'static str>,
}

/// Why there is no stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absent {
    /// Nothing under this key.
    Nothing,
    /// Something under this key, for other values of the varying fields.
    OtherVariant,
    /// Answers under this key were not for sharing when last seen: do not wait for one another.
    NotShared,
}

/// The answers of one cache, in memory and in Redis.
pub struct Store {}

impl Store {
    /// A store of `memory` bytes over an optional Redis. Answers larger than `max_object` are not kept.
    pub fn new(
        _memory: ByteSize,
        _max_object: ByteSize,
        _redis: Option<Arc<RedisTier>>,
        _clock: Arc<Clock>,
        _metrics: CacheMetrics,
    ) -> Self {
        unimplemented!()
    }

    /// Asks memory alone; never waits.
    pub fn peek(&self, _key: &Key, _request: &dyn Fields) -> Found {
        unimplemented!()
    }

    /// Asks memory, then Redis within its budget; what Redis holds is put in memory.
    pub async fn lookup(&self, _key: &Key, _request: &dyn Fields) -> Found {
        unimplemented!()
    }

    /// Stores an answer: visible to this process on return, in Redis soon after.
    pub fn put(&self, _key: &Key, _entry: Arc<Entry>) {
        unimplemented!()
    }

    /// Remembers for `time` that answers under this key are not for sharing.
    pub fn not_shared(&self, _key: &Key, _time: Duration) {
        unimplemented!()
    }

    /// Drops all variants under a key: for this process on return, in Redis in order after every write made before.
    pub fn invalidate(&self, _key: &Key) {
        unimplemented!()
    }
}
