//! Looking without touching: what each tier holds for a request, for whoever asks why.

use std::sync::Arc;

use http::HeaderName;

use super::changes::Changes;
use super::memory::Held;
use super::purges::Standing;
use super::{Absent, Chosen, Entry, Found, Question, Seal, Store};
use crate::base::fields::Fields;
use crate::cache::key::Key;
use crate::cache::record::Record;
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

/// What memory holds for a request.
pub(super) struct Nearby {
    pub(super) entry: Option<(Arc<Entry>, Standing)>,
    /// The fields that choose among several.
    pub(super) vary: Vec<HeaderName>,
}

/// Never the count of a stripe: what is found by it is not kept.
const KEEP_NOTHING: Changes = Changes { all: u64::MAX, removals: u64::MAX };

impl Store {
    /// What both tiers hold for a request, and what serving it would begin from.
    pub async fn sight(&self, key: &Key, request: &(dyn Fields + Sync)) -> Sight {
        let memory = self.in_memory(key, request).entry;
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

    /// What memory holds for a request, or for whoever likes best the language that it likes best.
    pub(super) fn in_memory(&self, key: &Key, request: &dyn Fields) -> Nearby {
        let mut vary = Vec::new();
        let held = match self.held(&key.hash()) {
            Some(Held::Variants { marker, shared }) => {
                vary.clone_from(&marker.names);
                let by_language = vary::by_language(&marker.names, request, key.vary());
                let own = Chosen::of(key, request, marker.clone(), shared);
                let best = by_language.map(|request| Chosen::of(key, &request, marker, shared));
                self.held(&own.name).or_else(|| self.held(&best?.name))
            }
            other => other,
        };
        let entry = match held {
            Some(Held::Answer { entry, seal, .. }) if *entry.record.key == *key.text() => {
                let standing = self.standing(&seal, &entry.record);
                Some((entry, standing))
            }
            _ => None,
        };
        Nearby { entry, vary }
    }

    /// What purges leave of an answer now.
    pub(super) fn standing(&self, seal: &Seal, record: &Record) -> Standing {
        self.purges.judge(seal, record, self.clock.wall())
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
