//! Looking without touching: what each tier holds for a request, for whoever asks why.

use std::sync::Arc;

use super::changes::Changes;
use super::memory::Held;
use super::purges::Standing;
use super::{Absent, Chosen, Entry, Found, Question, Store};
use crate::base::fields::Fields;
use crate::cache::key::Key;
use crate::cache::vary;

/// What the tiers hold for a request. Nothing is counted, and nothing moves from one tier to another.
pub struct Sight {
    /// What memory holds, with what purges leave of it.
    pub memory: Option<(Arc<Entry>, Standing)>,
    /// What Redis holds; none without Redis.
    pub redis: Option<Found>,
    /// What serving it would begin from.
    pub found: Found,
}

/// Never the count of a stripe: what is found by it is not kept.
const KEEP_NOTHING: Changes = Changes { all: u64::MAX, removals: u64::MAX };

impl Store {
    /// What both tiers hold for a request, and what serving it would begin from.
    pub async fn sight(&self, key: &Key, request: &(dyn Fields + Sync)) -> Sight {
        let memory = self.in_memory(key, request);
        let near = self.nearest(key, request);
        let mut found = near.found;
        let mut in_redis = None;
        if let Some(redis) = &self.redis {
            let question = Question { key, request, seen: KEEP_NOTHING };
            let far = self.farthest(redis, question, near.chosen).await;
            in_redis = Some(far.clone());
            if near.ask_redis {
                found = super::fresher(found, far);
            }
        }
        Sight { memory, redis: in_redis, found }
    }

    fn in_memory(&self, key: &Key, request: &dyn Fields) -> Option<(Arc<Entry>, Standing)> {
        let held = match self.held(&key.hash())? {
            Held::Variants { marker, shared } => {
                let by_language = vary::by_language(&marker.names, request, key.vary());
                let own = Chosen::of(key, request, marker.clone(), shared);
                let best = by_language.map(|request| Chosen::of(key, &request, marker, shared));
                self.held(&own.name).or_else(|| self.held(&best?.name))?
            }
            answer @ Held::Answer { .. } => answer,
        };
        let Held::Answer { entry, seal, .. } = held else { return None };
        let standing = self.purges.judge(&seal, &entry.record, self.clock.wall());
        (*entry.record.key == *key.text()).then_some((entry, standing))
    }
}

impl Absent {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::OtherVariant => "nothing for these request fields, something for others",
            Self::NotShared => "nothing: answers to this were not for sharing when last seen",
        }
    }
}
