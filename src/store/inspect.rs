//! What is stored, for an operator who asks: looked at, never promoted, counted or changed.

use std::sync::Arc;

use http::HeaderName;

use super::memory::Held;
use super::purges::Standing;
use super::redis::Trouble;
use super::{Chosen, Seal, Store};
use crate::base::fields::Fields;
use crate::cache::key::Key;
use crate::cache::record::{self, Record, Stored, Variants};

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
            seen.push(self.seen(&entry.record, entry.body.len(), &seal));
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
        let primary = key.hash();
        inspected.not_shared = self.local.memory.is_unshared(&primary, self.clock.mono());
        let name = match self.local.memory.get(&primary) {
            Some(Held::Variants { marker, .. }) => {
                let name = self.chosen(key, request, &marker, inspected);
                self.local.memory.get(&name)
            }
            other => other,
        };
        if let Some(Held::Answer { entry, seal, .. }) = name
            && *entry.record.key == *key.text()
        {
            inspected.memory = Some(self.seen(&entry.record, entry.body.len(), &seal));
        }
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
        let read = async |name: String| -> Result<Option<Stored>, Trouble> {
            let value = reader.read(&[name]).await?.pop().flatten();
            value.map(record::decode).transpose().map_err(|_| Trouble::Damaged)
        };
        let mut stored = read(redis.key(&primary)).await?;
        if let Some(Stored::Variants(marker)) = &stored {
            let name = self.chosen(key, request, &Arc::new(marker.clone()), inspected);
            stored = read(redis.variant_key(&primary, marker.generation, &name)).await?;
        }
        Ok(match stored {
            Some(Stored::Answer(record, epoch, body)) if *record.key == *key.text() => {
                let seal = Seal::of(&record, epoch);
                Some(self.seen(&record, body.len() as u64, &seal))
            }
            _ => None,
        })
    }

    fn chosen(
        &self,
        key: &Key,
        request: &dyn Fields,
        marker: &Arc<Variants>,
        into: &mut Inspected,
    ) -> [u8; 16] {
        into.vary.clone_from(&marker.names);
        Chosen::of(key, request, marker.clone(), true).name
    }

    fn seen(&self, record: &Record, size: u64, seal: &Seal) -> Seen {
        let now = self.clock.wall();
        let state = match self.purges.judge(seal, record, now) {
            Standing::Gone => "purged",
            Standing::Stale => "stale",
            Standing::Doubtful => "unconfirmed",
            Standing::Good if record.ttl(now).is_zero() => "stale",
            Standing::Good => "fresh",
        };
        Seen { record: record.clone(), size, state }
    }
}
