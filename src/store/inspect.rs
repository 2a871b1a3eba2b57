//! What is stored, for an operator who asks: looked at, never promoted; what cannot be read is removed as by a request.

use std::sync::Arc;

use http::HeaderName;

use super::memory::Held;
use super::purges::Standing;
use super::redis::Trouble;
use super::sight::Nearby;
use super::{Chosen, Read, Seal, Store, read};
use crate::base::fields::Fields;
use crate::cache::key::Key;
use crate::cache::record::Record;

/// A stored answer, but for its content.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its head.
    pub record: Record,
    /// The length of its content, in bytes.
    pub size: u64,
    /// What a request would find: `fresh`, `stale`, `purged`, or `unconfirmed` (a purge may have been missed).
    pub state: &'static str,
}

/// What lies under a key for a request.
#[derive(Debug, Default)]
pub struct Inspected {
    /// In memory.
    pub memory: Option<Seen>,
    /// In Redis.
    pub redis: Option<Seen>,
    /// Why Redis did not say.
    pub trouble: Option<&'static str>,
    /// The fields that choose among several.
    pub vary: Vec<HeaderName>,
    /// Answers under this key were not for sharing when last seen.
    pub not_shared: bool,
}

impl Store {
    /// Answers that memory holds under keys whose text is `wanted`, at most `limit`; and whether there are more. Reads the whole index, a part at a time.
    pub fn list(&self, limit: usize, wanted: impl Fn(&[u8]) -> bool) -> (Vec<Seen>, bool) {
        let mut seen = Vec::new();
        for held in self.local.memory.all() {
            let Held::Answer { entry, seal, .. } = held else { continue };
            if !wanted(&entry.record.key) {
                continue;
            }
            if seen.len() == limit {
                return (seen, true);
            }
            let standing = self.standing(&seal, &entry.record);
            seen.push(self.seen(&entry.record, entry.body.len(), standing));
        }
        (seen, false)
    }

    /// Answers held in memory, their bytes, and how many there is room for.
    pub fn usage(&self) -> (u64, u64, u64) {
        self.local.memory.usage()
    }

    /// Looks at what both tiers hold for a request.
    pub async fn inspect(&self, key: &Key, request: &(dyn Fields + Sync)) -> Inspected {
        let mut inspected = Inspected::default();
        self.inspect_memory(key, request, &mut inspected);
        match self.inspect_redis(key, request, &mut inspected).await {
            Ok(seen) => inspected.redis = seen,
            Err(trouble) => inspected.trouble = Some(trouble.as_str()),
        }
        inspected
    }

    fn inspect_memory(&self, key: &Key, request: &dyn Fields, inspected: &mut Inspected) {
        inspected.not_shared = self.local.memory.is_unshared(&key.hash(), self.clock.mono());
        let Nearby { entry, vary } = self.in_memory(key, request);
        inspected.vary = vary;
        inspected.memory =
            entry.map(|(entry, standing)| self.seen(&entry.record, entry.body.len(), standing));
    }

    async fn inspect_redis(
        &self,
        key: &Key,
        request: &(dyn Fields + Sync),
        inspected: &mut Inspected,
    ) -> Result<Option<Seen>, Trouble> {
        let Some(redis) = &self.redis else { return Ok(None) };
        let primary = key.hash();
        let reader = redis.reader(&primary);
        let look = async |name: String| {
            let value = reader.read(std::slice::from_ref(&name)).await?.pop().flatten();
            read(redis, primary, &name, value)
        };
        let mut stored = look(redis.key(&primary)).await?;
        if let Some(Read::Variants(marker)) = &stored {
            inspected.vary.clone_from(&marker.names);
            let chosen = Chosen::of(key, request, Arc::new(marker.clone()), true);
            stored = look(redis.variant_key(&primary, marker.generation, &chosen.name)).await?;
        }
        Ok(match stored {
            Some(Read::Answer(entry, epoch)) if *entry.record.key == *key.text() => {
                let standing = self.standing(&Seal::of(&entry.record, epoch), &entry.record);
                Some(self.seen(&entry.record, entry.body.len(), standing))
            }
            _ => None,
        })
    }

    fn seen(&self, record: &Record, size: u64, standing: Standing) -> Seen {
        let now = self.clock.wall();
        let state = match standing {
            Standing::Gone => "purged",
            Standing::Stale => "stale",
            Standing::Doubtful => "unconfirmed",
            Standing::Good if record.ttl(now).is_zero() => "stale",
            Standing::Good => "fresh",
        };
        Seen { record: record.clone(), size, state }
    }
}
