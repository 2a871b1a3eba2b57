//! Where answers lie: memory over Redis.
//!
//! A [`Store`] belongs to one cache. A look-up asks memory, then Redis, and fills memory back; a write is visible in this process at once and
//! reaches Redis behind it, in order. A Redis that is absent, slow or broken is a miss with a reason, never an error: the rule that a
//! shared store is never why a request fails lives here.
//!
//! Not here: HTTP rules. Whether an answer may be stored or reused is `cache`'s to say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

use crate::base::clock::{Clock, WallTime};
use crate::base::dice::Dice;
use crate::base::fields::Fields;
use crate::base::unit::ByteSize;
use crate::cache::key::Key;
use crate::cache::purge::{Epoch, Force, Label};
use crate::cache::record::{self, Record, Stored, Variants};
use crate::cache::status::Tier;
use crate::cache::vary::{self, Variant};
use crate::observe::metrics::CacheMetrics;

mod behind;
mod body;
mod breaker;
mod changes;
pub mod flight;
pub mod inspect;
mod memory;
mod purges;
pub mod redis;
pub mod sight;
mod uploads;
pub mod uses;

use self::behind::{Ahead, Job, Settle};
pub use self::body::Body;
use self::changes::{Changes, Stripe};
use self::memory::{Hash, Held, Memory};
use self::purges::{Purges, Seal};
pub use self::purges::{Reach, Standing};
use self::redis::lease::Queue;
use self::redis::{Listener, RedisTier, Trouble};
pub use self::uploads::Writing;

/// A stored answer with its body, shared by everyone who serves it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Everything but the body.
    pub record: Record,
    /// The content.
    pub body: Body,
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
    /// What kept Redis from answering, for `Cache-Status` and the log: see [`redis::Trouble::as_str`].
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
pub struct Store {
    local: Arc<Local>,
    purges: Arc<Purges>,
    redis: Option<Arc<RedisTier>>,
    sizes: Sizes,
    clock: Arc<Clock>,
    metrics: CacheMetrics,
}

/// How large an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// To be held in memory.
    pub memory: ByteSize,
    /// To be stored at all: larger than in memory only where there is a Redis.
    pub stored: ByteSize,
}

impl Sizes {
    /// The same in memory as in Redis.
    pub fn of(both: ByteSize) -> Self {
        Self { memory: both, stored: both }
    }
}

/// The moment a fetch began, as far as invalidation goes: see [`Store::put_since`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Began {
    removals: u64,
    epoch: Epoch,
}

impl Began {
    /// The last purge known then.
    pub fn epoch(self) -> Epoch {
        self.epoch
    }
}

impl Store {
    /// A store of `memory` bytes over an optional Redis. Answers larger than `sizes` are not kept.
    pub fn new(
        memory: ByteSize,
        sizes: Sizes,
        redis: Option<Arc<RedisTier>>,
        clock: Arc<Clock>,
        metrics: CacheMetrics,
    ) -> Self {
        let local = Arc::new(Local {
            memory: Memory::new(memory, sizes.memory),
            metrics: metrics.clone(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            uploading: Arc::default(),
        });
        local.tell();
        let purges = redis.as_ref().map_or_else(|| Arc::new(Purges::alone()), |redis| redis.purges().clone());
        if let Some(redis) = &redis {
            let listener: Arc<dyn Listener> = local.clone();
            redis.listen(Arc::downgrade(&listener));
        }
        Self { local, purges, redis, sizes, clock, metrics }
    }

    /// Asks memory alone; never waits. Counts nothing: who serves what was found says so with [`Store::served`], who does not goes on to
    /// [`Store::lookup`], which counts.
    pub fn peek(&self, key: &Key, request: &dyn Fields) -> Found {
        let mut found = self.nearest(key, request).found;
        // What is on its way to Redis may lie there already, and be read from there alone.
        found.entry = found.entry.filter(|entry| entry.body.apart().is_none());
        found
    }

    /// What [`Store::peek`] found within `took` was served.
    pub fn served(&self, took: Duration) {
        self.metrics.lookup("memory", "hit", took);
    }

    /// Asks memory, then Redis within its budget; what Redis holds is put in memory.
    pub async fn lookup(&self, key: &Key, request: &(dyn Fields + Sync)) -> Found {
        let started = self.clock.mono();
        let seen = self.local.changes(&key.hash());
        let near = self.nearest(key, request);
        let memory = if near.found.entry.is_some() { "hit" } else { "miss" };
        self.metrics.lookup("memory", memory, self.clock.mono().since(started));
        if near.is_fresh {
            return near.found;
        }
        self.further(Question { key, request, seen }, near).await
    }

    /// Like [`Store::lookup`], but asks Redis also when memory holds a fresh answer: another gateway may have fetched a newer one.
    pub async fn lookup_again(&self, key: &Key, request: &(dyn Fields + Sync)) -> Found {
        let primary = key.hash();
        let seen = self.local.changes(&primary);
        let mut near = self.nearest(key, request);
        near.ask_redis |= near.is_fresh && self.is_settled(&primary);
        self.further(Question { key, request, seen }, near).await
    }

    /// Prepares to ask the fleet who fetches this slot of a key, each time for `time`; `None` when there is no fleet, or when it does not know of a
    /// change yet that was made here.
    pub fn queue(&self, key: &Key, slot: [u8; 16], time: Duration) -> Option<Queue> {
        let primary = key.hash();
        let redis = self.redis.as_ref().filter(|redis| !matches!(redis.ahead(&primary), Ahead::Removed))?;
        Some(redis.queue(&primary, slot, time))
    }

    /// Goes on to Redis with what memory said.
    async fn further(&self, question: Question<'_>, near: Near) -> Found {
        let Some(redis) = self.redis.as_ref().filter(|_| near.ask_redis) else { return near.found };
        let stale = near.found;

        let started = self.clock.mono();
        let found = self.farthest(redis, question, near.chosen).await;
        let result = match (&found.entry, found.trouble) {
            (Some(_), _) => "hit",
            (None, None) => "miss",
            (None, Some(_)) => "error",
        };
        self.metrics.lookup("redis", result, self.clock.mono().since(started));
        fresher(stale, found)
    }

    /// The moment before a fetch, for [`Store::put_since`].
    pub fn began(&self, key: &Key) -> Began {
        Began { removals: self.local.changes(&key.hash()).removals, epoch: self.purges.last() }
    }

    /// Whether what a fetch that began then brings may be shared with whoever asks now: nothing was purged since, and this key not removed.
    pub fn unchanged_since(&self, key: &Key, began: Began) -> bool {
        let primary = key.hash();
        began.epoch == self.purges.last()
            && !lock(self.local.stripe(&primary)).removed_since(&primary, began.removals)
    }

    /// Stores an answer: visible to this process on return, in Redis soon after.
    pub fn put(&self, key: &Key, entry: Arc<Entry>) {
        self.store(key, entry, None);
    }

    /// Like [`Store::put`], unless the key was invalidated after the fetch began: such an answer may show what was before the change.
    pub fn put_since(&self, key: &Key, entry: Arc<Entry>, began: Began) {
        self.store(key, entry, Some(began));
    }

    /// How large an answer may be to be put with [`Store::put_since`]; a larger one is written with [`Store::upload`].
    pub fn largest_at_hand(&self) -> u64 {
        // What lies with its head in Redis is written at once.
        self.sizes.memory.0.max(redis::pieces::INLINE).min(self.sizes.stored.0)
    }

    /// Begins to write the body of an answer of at least `least` bytes to Redis while it is fetched. `None`: it is too large, there is no Redis that
    /// takes it, or somebody is writing the same already.
    pub fn upload(&self, key: &Key, slot: [u8; 16], least: u64) -> Option<Writing> {
        let redis = self
            .redis
            .as_ref()
            .filter(|redis| redis.is_asked(&key.hash()) && least <= self.sizes.stored.0)?;
        let place = uploads::Place::take(&self.local.uploading, slot)?;
        Some(Writing::begin(redis.upload(key.hash()), self.sizes.stored.0, place))
    }

    /// Remembers for `time` that answers under this key are not for sharing.
    pub fn not_shared(&self, key: &Key, time: Duration) {
        self.local.memory.mark_unshared(key.hash(), self.clock.mono().plus(time));
    }

    /// Drops all variants under a key: for this process on return, in Redis in order after every write made before.
    pub fn invalidate(&self, key: &Key) {
        let primary = key.hash();
        let mut stripe = lock(self.local.stripe(&primary));
        stripe.removed(&primary);
        self.local.drop_held(&primary);
        // Queued under the lock, so that Redis sees writes to one key in the order in which memory saw them.
        if let Some(redis) = &self.redis {
            redis.remove(primary);
        }
    }

    /// Makes everything under these labels invalid: in this process on return, in the others of the fleet as the answer says. Without Redis the
    /// store's own answers alone.
    pub async fn purge(&self, labels: &[Label], force: Force) -> Reach {
        match &self.redis {
            Some(redis) => redis.purge(labels, force).await,
            None => {
                self.purges.purge(labels, force);
                Reach::Process
            }
        }
    }
}

/// A look-up that goes on to Redis.
#[derive(Clone, Copy)]
struct Question<'q> {
    key: &'q Key,
    request: &'q (dyn Fields + Sync),
    seen: Changes,
}

/// What this process knows by itself.
struct Near {
    found: Found,
    is_fresh: bool,
    /// Whether Redis may know more.
    ask_redis: bool,
    chosen: Option<Chosen>,
}

/// The variant a request asks for.
struct Chosen {
    marker: Arc<Variants>,
    shared: bool,
    variant: Variant,
    name: Hash,
}

impl Chosen {
    fn of(key: &Key, request: &dyn Fields, marker: Arc<Variants>, shared: bool) -> Self {
        let variant = vary::of_request(&marker.names, request, key.vary());
        let name = key.variant(&variant);
        Self { marker, shared, variant, name }
    }

    /// Whether an answer is the one asked for.
    fn is(&self, record: &Record) -> bool {
        record.vary == self.marker.names && record.variant == self.variant
    }

    fn absent(&self, tier: Tier) -> Found {
        Found { absent: Absent::OtherVariant, ..absent(self.name, tier) }
    }
}

/// Looking up.
impl Store {
    /// What memory holds for a request, or for whoever likes best the language that it likes best.
    fn nearest(&self, key: &Key, request: &dyn Fields) -> Near {
        let near = self.near(key, request);
        if near.is_fresh {
            return near;
        }
        let names = near.chosen.as_ref().map_or(&[][..], |chosen| &chosen.marker.names);
        let Some(request) = vary::by_language(names, request, key.vary()) else { return near };
        let by_language = self.near(key, &request).found;
        if self.is_fresh(&by_language) || near.found.entry.is_none() {
            let is_fresh = self.is_fresh(&by_language);
            let found = Found { slot: near.found.slot, ..by_language };
            return Near { found, is_fresh, ask_redis: near.ask_redis && !is_fresh, chosen: near.chosen };
        }
        near
    }

    /// The same for Redis.
    async fn farthest(&self, redis: &RedisTier, question: Question<'_>, chosen: Option<Chosen>) -> Found {
        let Question { key, request, seen } = question;
        let found = self.far(redis, question, chosen).await;
        if found.entry.is_some() || found.trouble.is_some() {
            return found;
        }
        // Where answers vary is known by now.
        let Some(Held::Variants { marker, shared }) = self.held(&key.hash()) else { return found };
        let Some(request) = vary::by_language(&marker.names, request, key.vary()) else { return found };
        let chosen = Chosen::of(key, &request, marker, shared);
        let by_language = self.far(redis, Question { key, request: &request, seen }, Some(chosen)).await;
        Found { slot: found.slot, ..by_language }
    }

    fn is_fresh(&self, found: &Found) -> bool {
        found.entry.as_ref().is_some_and(|entry| !entry.record.ttl(self.clock.wall()).is_zero())
    }

    fn near(&self, key: &Key, request: &dyn Fields) -> Near {
        let primary = key.hash();
        let (mut found, chosen) = match self.held(&primary) {
            Some(Held::Answer { entry, seal, .. }) if self.serves_all(key, &entry.record) => {
                let found = absent(primary, Tier::Memory);
                match self.admit(primary, 0, entry, &seal) {
                    Some(entry) => (Found { entry: Some(entry), ..found }, None),
                    None => (found, None),
                }
            }
            Some(Held::Variants { marker, shared }) if *marker.key == *key.text() => {
                let chosen = Chosen::of(key, request, marker, shared);
                match self.held_variant(key, &chosen) {
                    Some(entry) => (hit(entry, chosen.name, Tier::Memory), Some(chosen)),
                    None => (chosen.absent(Tier::Memory), Some(chosen)),
                }
            }
            _ => (absent(primary, Tier::Memory), None),
        };
        let now = self.clock.wall();
        let is_fresh = found.entry.as_ref().is_some_and(|entry| !entry.record.ttl(now).is_zero());
        let unshared = !is_fresh && self.local.memory.is_unshared(&primary, self.clock.mono());
        if unshared {
            found.absent = Absent::NotShared;
        }
        // While a write to this key is queued Redis only knows what was before it; and what is not for sharing is not there.
        let ask_redis = !is_fresh && !unshared && self.is_settled(&primary);
        Near { found, is_fresh, ask_redis, chosen }
    }

    /// Whether Redis knows of all that was done here to what lies under this name.
    fn is_settled(&self, name: &Hash) -> bool {
        self.redis.as_ref().is_some_and(|redis| matches!(redis.ahead(name), Ahead::Unchanged))
    }

    /// What memory holds, or what is on its way to Redis.
    fn held(&self, name: &Hash) -> Option<Held> {
        self.local.memory.get(name).or_else(|| match self.redis.as_ref()?.ahead(name) {
            Ahead::Written(held) => Some(held),
            Ahead::Removed | Ahead::Unchanged => None,
        })
    }

    fn held_variant(&self, key: &Key, chosen: &Chosen) -> Option<Arc<Entry>> {
        match self.held(&chosen.name) {
            Some(Held::Answer { entry, generation, seal, .. })
                if generation == chosen.marker.generation && self.serves(key, chosen, &entry.record) =>
            {
                self.admit(chosen.name, generation, entry, &seal)
            }
            _ => None,
        }
    }

    /// A hash may collide, so the key itself is compared before anything is served.
    fn serves_all(&self, key: &Key, record: &Record) -> bool {
        *record.key == *key.text() && record.vary.is_empty() && !record.worth(self.clock.wall()).is_zero()
    }

    fn serves(&self, key: &Key, chosen: &Chosen, record: &Record) -> bool {
        *record.key == *key.text() && chosen.is(record) && !record.worth(self.clock.wall()).is_zero()
    }

    /// Asks Redis: for the key and, where memory knows the varying fields, for the variant in the same round trip.
    async fn far(&self, redis: &RedisTier, question: Question<'_>, chosen: Option<Chosen>) -> Found {
        let key = question.key;
        let primary = key.hash();
        let reader = redis.reader(&primary);
        let mut names = vec![redis.key(&primary)];
        names.extend(chosen.as_ref().map(|c| redis.variant_key(&primary, c.marker.generation, &c.name)));
        let mut values = match reader.read(&names).await {
            Ok(values) => values,
            Err(trouble) => return unanswered(primary, chosen.as_ref(), trouble),
        };
        let variant = if chosen.is_some() { values.pop().flatten() } else { None };
        match read(redis, primary, &names[0], values.pop().flatten()) {
            Ok(Some(Read::Answer(entry, epoch))) if self.serves_all(key, &entry.record) => {
                match self.received(&question, primary, 0, (entry, epoch)) {
                    Some(entry) => hit(entry, primary, Tier::Redis),
                    None => absent(primary, Tier::Redis),
                }
            }
            Ok(Some(Read::Variants(marker))) if *marker.key == *key.text() => {
                let known = chosen.filter(|c| *c.marker == marker);
                if !known.as_ref().is_some_and(|c| c.shared) {
                    let marker = Arc::new(marker.clone());
                    self.keep(&question, primary, Held::Variants { marker, shared: true });
                }
                if let Some(chosen) = known {
                    return self.variant(redis, &question, chosen, variant);
                }
                let chosen = Chosen::of(key, question.request, Arc::new(marker), true);
                if let Some(entry) = self.held_variant(key, &chosen) {
                    return hit(entry, chosen.name, Tier::Memory);
                }
                let names = [redis.variant_key(&primary, chosen.marker.generation, &chosen.name)];
                match reader.read(&names).await {
                    Ok(mut values) => self.variant(redis, &question, chosen, values.pop().flatten()),
                    Err(trouble) => unanswered(primary, Some(&chosen), trouble),
                }
            }
            Ok(_) => self.nothing(&question, chosen),
            Err(trouble) => unanswered(primary, chosen.as_ref(), trouble),
        }
    }

    /// Reads a variant that Redis answered with.
    fn variant(
        &self,
        redis: &RedisTier,
        question: &Question<'_>,
        chosen: Chosen,
        value: Option<Bytes>,
    ) -> Found {
        let primary = question.key.hash();
        let generation = chosen.marker.generation;
        let name = redis.variant_key(&primary, generation, &chosen.name);
        match read(redis, primary, &name, value) {
            Ok(Some(Read::Answer(entry, epoch))) if self.serves(question.key, &chosen, &entry.record) => {
                match self.received(question, chosen.name, generation, (entry, epoch)) {
                    Some(entry) => hit(entry, chosen.name, Tier::Redis),
                    None => chosen.absent(Tier::Redis),
                }
            }
            Ok(_) => chosen.absent(Tier::Redis),
            Err(trouble) => unanswered(primary, Some(&chosen), trouble),
        }
    }

    /// Redis has nothing under the key. A marker it once had was removed there, and with it all its variants; one it never had, because
    /// it takes no writes, still counts here.
    fn nothing(&self, question: &Question<'_>, chosen: Option<Chosen>) -> Found {
        let primary = question.key.hash();
        match chosen {
            Some(chosen) if !chosen.shared => chosen.absent(Tier::Redis),
            Some(chosen) => {
                self.local.forget_marker(&primary, question.seen, chosen.marker.generation);
                absent(primary, Tier::Redis)
            }
            None => absent(primary, Tier::Redis),
        }
    }

    /// Takes an answer from Redis, and puts it in memory, unless it was purged.
    fn received(
        &self,
        question: &Question<'_>,
        name: Hash,
        generation: u64,
        (entry, epoch): (Entry, Epoch),
    ) -> Option<Arc<Entry>> {
        let seal = Arc::new(Seal::of(&entry.record, epoch));
        let entry = Arc::new(entry);
        let now = self.clock.wall();
        let standing = self.purges.judge(&seal, &entry.record, now);
        if standing == Standing::Gone {
            return None;
        }
        let kept = if standing == Standing::Stale { stale(&entry, now) } else { entry.clone() };
        self.keep(question, name, Held::answer(kept.clone(), generation, seal));
        Some(if standing == Standing::Doubtful { doubtful(&entry, now) } else { kept })
    }

    /// What purges leave of an answer that memory holds.
    fn admit(&self, name: Hash, generation: u64, entry: Arc<Entry>, seal: &Arc<Seal>) -> Option<Arc<Entry>> {
        let now = self.clock.wall();
        match self.purges.judge(seal, &entry.record, now) {
            Standing::Good => Some(entry),
            Standing::Stale if entry.record.ttl(now).is_zero() => Some(entry),
            Standing::Stale => {
                // It ages from now on, so it is held as what it became.
                let stale = stale(&entry, now);
                self.local.replace(name, &entry, Held::answer(stale.clone(), generation, seal.clone()));
                Some(stale)
            }
            Standing::Doubtful => Some(doubtful(&entry, now)),
            Standing::Gone => None,
        }
    }

    /// Puts in memory what Redis held, unless the key has changed since the look-up began: it may be what the change replaced.
    fn keep(&self, question: &Question<'_>, name: Hash, held: Held) {
        let (primary, seen) = (question.key.hash(), question.seen);
        match &held {
            Held::Answer { entry, .. } if entry.body.len() > self.sizes.memory.0 => {}
            Held::Answer { .. } if !self.local.memory.is_there() => {}
            Held::Answer { entry, generation, seal, .. } if entry.body.apart().is_some() => {
                uploads::bring_near(&self.local, (primary, seen), name, (entry, *generation, seal));
            }
            _ => self.local.keep(&primary, seen, name, held),
        }
    }
}

/// Storing.
impl Store {
    fn store(&self, key: &Key, entry: Arc<Entry>, began: Option<Began>) {
        if entry.body.len() > self.sizes.stored.0 {
            self.metrics.store("too-large");
            return;
        }
        if entry.record.worth(self.clock.wall()).is_zero() {
            return;
        }
        let primary = key.hash();
        let mut stripe = lock(self.local.stripe(&primary));
        if began.is_some_and(|began| stripe.removed_since(&primary, began.removals)) {
            return;
        }
        let epoch = began.map_or_else(|| self.purges.last(), |began| began.epoch);
        let seal = Arc::new(Seal::of(&entry.record, epoch));
        if self.purges.judge(&seal, &entry.record, self.clock.wall()) == Standing::Gone {
            return;
        }
        stripe.written();
        self.local.memory.mark_shared(&primary);
        let also = vary::also(&entry.record, key.vary()).map(|variant| {
            let record = Record { variant, ..entry.record.clone() };
            Arc::new(Entry { record, body: entry.body.clone() })
        });
        let job = if entry.record.vary.is_empty() {
            self.hold(primary, &entry, 0, &seal);
            Job::Answer { name: primary, entry, seal: seal.clone() }
        } else {
            self.hold_variant(key, entry, seal.clone())
        };
        let also = also.map(|entry| self.hold_variant(key, entry, seal));
        // Queued under the lock, so that Redis sees writes to one key in the order in which memory saw them.
        if let Some(redis) = &self.redis {
            [Some(job), also].into_iter().flatten().for_each(|job| redis.put(job));
        }
        drop(stripe);
        self.metrics.store("stored");
    }

    /// Holds an answer in memory in place of the one before, unless it is too large or lies elsewhere: then none.
    fn hold(&self, name: Hash, entry: &Arc<Entry>, generation: u64, seal: &Arc<Seal>) {
        if entry.body.apart().is_some() || entry.body.len() > self.sizes.memory.0 {
            self.local.drop_held(&name);
        } else {
            self.local.hold(name, Held::answer(entry.clone(), generation, seal.clone()));
        }
    }

    /// Puts a variant in memory, beside the others when the same fields choose.
    fn hold_variant(&self, key: &Key, entry: Arc<Entry>, seal: Arc<Seal>) -> Job {
        let primary = key.hash();
        let new = |names: &[HeaderName]| {
            let generation = Dice::from_entropy().any_u64();
            Arc::new(Variants { key: key.shared_text(), names: names.to_vec(), generation })
        };
        let names = &entry.record.vary;
        let (marker, shared) = match self.held(&primary) {
            Some(Held::Variants { marker, shared })
                if *marker.key == *key.text() && marker.names == *names =>
            {
                (marker, shared)
            }
            _ => (new(names), false),
        };
        // A generation that Redis has told may have been invalidated there since: written again, it would bring its variants back.
        let candidate = if shared { new(names) } else { marker.clone() };
        let name = key.variant(&entry.record.variant);
        self.local.hold(primary, Held::Variants { marker: marker.clone(), shared });
        self.hold(name, &entry, marker.generation, &seal);
        let settle = self.local.clone();
        Job::Variant(behind::Variant { primary, name, entry, seal, marker, candidate, settle })
    }
}

/// A look-up and a change to the same key exclude one another only by chance of sharing a stripe with others; more stripes, less chance.
const STRIPES: usize = 1024;

/// The process's own part of a store.
struct Local {
    memory: Memory,
    metrics: CacheMetrics,
    stripes: Box<[Mutex<Stripe>]>,
    /// Whose bodies are on their way to or from Redis.
    uploading: uploads::Places,
}

impl Local {
    /// Holds what Redis held, unless the key has changed since it was asked for.
    fn keep(&self, primary: &Hash, seen: Changes, name: Hash, held: Held) {
        let stripe = lock(self.stripe(primary));
        if stripe.changes() == seen && !self.holds_newer(&name, &held) {
            self.hold(name, held);
        }
    }

    fn stripe(&self, primary: &Hash) -> &Mutex<Stripe> {
        &self.stripes[usize::from(u16::from_le_bytes([primary[0], primary[1]])) % STRIPES]
    }

    fn changes(&self, primary: &Hash) -> Changes {
        lock(self.stripe(primary)).changes()
    }

    fn hold(&self, name: Hash, held: Held) {
        for _ in 0..self.memory.insert(name, held) {
            self.metrics.evicted();
        }
        self.tell();
    }

    /// Holds an answer in place of this very one.
    fn replace(&self, name: Hash, entry: &Arc<Entry>, held: Held) {
        if matches!(self.memory.get(&name), Some(Held::Answer { entry: now, .. }) if Arc::ptr_eq(&now, entry))
        {
            self.hold(name, held);
        }
    }

    /// Whether what is held under a name was received later than this.
    fn holds_newer(&self, name: &Hash, than: &Held) -> bool {
        match (self.memory.get(name), than) {
            (Some(Held::Answer { entry, .. }), Held::Answer { entry: than, .. }) => {
                entry.record.received > than.record.received
            }
            _ => false,
        }
    }

    fn drop_held(&self, name: &Hash) {
        self.memory.remove(name);
        self.tell();
    }

    fn tell(&self) {
        let (entries, bytes, capacity) = self.memory.usage();
        self.metrics.memory(entries, bytes, capacity);
    }

    fn forget_marker(&self, primary: &Hash, seen: Changes, generation: u64) {
        let stripe = lock(self.stripe(primary));
        if stripe.changes() == seen
            && let Some(Held::Variants { marker, .. }) = self.memory.get(primary)
            && marker.generation == generation
        {
            self.drop_held(primary);
        }
    }
}

impl Listener for Local {
    fn changed(&self, primary: &Hash) -> bool {
        let mut stripe = lock(self.stripe(primary));
        stripe.removed(primary);
        let held = self.memory.get(primary).is_some();
        self.drop_held(primary);
        held
    }
}

impl Settle for Local {
    fn settle(&self, variant: &behind::Variant, marker: Arc<Variants>, shared: bool) {
        let _stripe = lock(self.stripe(&variant.primary));
        let Some(Held::Variants { marker: current, .. }) = self.memory.get(&variant.primary) else { return };
        let generation = marker.generation;
        if current.generation == variant.marker.generation {
            self.hold(variant.primary, Held::Variants { marker, shared });
        } else if current.generation != generation {
            return;
        }
        // Still the same answer: it moves over to the generation it has in Redis.
        if let Some(Held::Answer { entry, generation: held, seal, .. }) = self.memory.get(&variant.name)
            && held != generation
            && Arc::ptr_eq(&entry, &variant.entry)
        {
            self.hold(variant.name, Held::answer(entry, generation, seal));
        }
    }
}

/// A value that was read.
#[expect(clippy::large_enum_variant, reason = "none is kept: each is taken apart where it was read")]
enum Read {
    Answer(Entry, Epoch),
    Variants(Variants),
}

/// Reads a value; one that cannot be read is removed.
fn read(redis: &RedisTier, primary: Hash, name: &str, value: Option<Bytes>) -> Result<Option<Read>, Trouble> {
    let read = value.map(|value| {
        let (record, epoch, body) = match record::decode(value).ok()? {
            Stored::Variants(marker) => return Some(Read::Variants(marker)),
            Stored::Answer(record, epoch, body) => (record, epoch, Body::from_chunks(vec![body])),
            Stored::Apart(record, epoch, place) => (record, epoch, redis.body(primary, name, place)),
            Stored::Packed(..) => return None,
        };
        Some(Read::Answer(Entry { record, body }, epoch))
    });
    if let Some(None) = read {
        redis.damaged(name.to_owned());
        return Err(Trouble::Damaged);
    }
    Ok(read.flatten())
}

/// An answer as if its freshness ended now.
fn stale(entry: &Entry, now: WallTime) -> Arc<Entry> {
    let mut entry = entry.clone();
    entry.record.lifetime = entry.record.lifetime.min(entry.record.age(now));
    Arc::new(entry)
}

/// An answer that may have been purged elsewhere: to be validated, and to be served unvalidated only when the origin fails.
fn doubtful(entry: &Entry, now: WallTime) -> Arc<Entry> {
    let mut entry = entry.clone();
    entry.record.lifetime = entry.record.lifetime.min(entry.record.age(now));
    entry.record.stale_while_revalidate = Duration::ZERO;
    Arc::new(entry)
}

/// Of a stale answer in memory and what Redis holds, the one received later: another gateway may have fetched anew meanwhile.
fn fresher(near: Found, far: Found) -> Found {
    let received = |found: &Found| found.entry.as_ref().map(|entry| entry.record.received);
    if near.entry.is_some() && received(&near) >= received(&far) {
        Found { trouble: far.trouble, ..near }
    } else {
        far
    }
}

fn hit(entry: Arc<Entry>, slot: Hash, tier: Tier) -> Found {
    Found { entry: Some(entry), tier, absent: Absent::Nothing, slot, trouble: None }
}

fn absent(slot: Hash, tier: Tier) -> Found {
    Found { entry: None, tier, absent: Absent::Nothing, slot, trouble: None }
}

fn unanswered(primary: Hash, chosen: Option<&Chosen>, trouble: Trouble) -> Found {
    let found = chosen.map_or_else(|| absent(primary, Tier::Redis), |chosen| chosen.absent(Tier::Redis));
    Found { trouble: Some(trouble.as_str()), ..found }
}

/// A panic while one of the locks here is held leaves nothing half-done that would matter to a cache, so a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
