//! What is stored, as an operator sees it: one answer, those below a URL, and figures.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::live::{Cache, Live};
use super::purge::keys;
use crate::cache::key;
use crate::cache::purge;
use crate::cache::status::ttl_seconds;
use crate::observe::metrics::Totals;
use crate::store::inspect::Seen;
use crate::store::redis::figures::Figures;

/// The most answers listed at once.
pub const MOST: usize = 10_000;

/// What is asked of `POST /api/v1/cache/get`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Look {
    /// An absolute URL, with its query.
    pub url: String,
    /// Fields of the request that would be made: they choose the variant.
    pub headers: BTreeMap<String, String>,
}

/// What is asked of `POST /api/v1/cache/ls`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// What their URLs begin with, with or without the scheme. Empty: all.
    pub prefix: String,
    /// How many at most.
    pub limit: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { prefix: String::new(), limit: 100 }
    }
}

/// A stored answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Its URL, and of a question what tells it from others.
    pub url: String,
    /// The cache it is in.
    pub cache: String,
    /// `memory` or `redis`.
    pub tier: String,
    /// Its status.
    pub status: u16,
    /// `fresh`, `stale`, `purged`, or `unconfirmed`.
    pub state: String,
    /// Its age in seconds.
    pub age: u64,
    /// How long it stays fresh, in seconds; negative past that.
    pub ttl: i64,
    /// The length of its content, in bytes.
    pub size: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// The request fields that chose it, with their values in the request that fetched it.
    pub variant: BTreeMap<String, Option<String>>,
    /// Its fields.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub fields: BTreeMap<String, Vec<String>>,
}

/// What lies under a URL.
#[derive(Debug, Serialize, Deserialize)]
pub struct Looked {
    /// In each cache and tier.
    pub entries: Vec<Shown>,
    /// The fields that choose among several.
    pub vary: Vec<String>,
    /// Answers there were not for sharing when last seen.
    pub not_shared: bool,
    /// Why Redis did not say.
    pub redis_trouble: Option<String>,
}

/// Some of what memory holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Where they lie: the memory of this gateway. Redis would have to search all its keys.
    pub tier: String,
    /// The answers.
    pub entries: Vec<Shown>,
    /// Whether there are more.
    pub more: bool,
}

/// Figures since the start of this gateway, and of what is held now.
#[derive(Debug, Serialize)]
pub struct Stats {
    caches: Vec<CacheStats>,
    redis: Option<Figures>,
}

#[derive(Debug, Serialize)]
struct CacheStats {
    name: String,
    entries: u64,
    bytes: u64,
    capacity: u64,
    #[serde(flatten)]
    totals: Totals,
}

impl Look {
    /// Looks. `None` when the URL does not read.
    pub async fn look(&self, live: &Live) -> Option<Looked> {
        let fields = self.fields()?;
        let mut looked =
            Looked { entries: Vec::new(), vary: Vec::new(), not_shared: false, redis_trouble: None };
        let keys = keys(&self.url, live, &fields)?;
        let now = live.clock.wall();
        for (cache, key) in live.caches.iter().zip(keys) {
            let found = cache.store.inspect(&key, &fields).await;
            for (tier, seen) in [("memory", found.memory), ("redis", found.redis)] {
                looked.entries.extend(seen.map(|seen| Shown::of(&seen, cache, tier, now).with_fields(&seen)));
            }
            for name in found.vary {
                if !looked.vary.iter().any(|known| known == name.as_str()) {
                    looked.vary.push(name.to_string());
                }
            }
            looked.not_shared |= found.not_shared;
            looked.redis_trouble = looked.redis_trouble.or(found.trouble.map(str::to_owned));
        }
        // Caches share the Redis: it holds an answer once, whoever asks.
        let mut seen = Vec::new();
        looked.entries.retain(|entry| {
            let known = entry.tier == "redis" && seen.contains(&entry.url);
            if entry.tier == "redis" {
                seen.push(entry.url.clone());
            }
            !known
        });
        Some(looked)
    }

    fn fields(&self) -> Option<HeaderMap> {
        let mut fields = HeaderMap::new();
        for (name, value) in &self.headers {
            fields.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
        }
        Some(fields)
    }
}

impl List {
    /// Lists what memory holds.
    pub fn list(&self, live: &Live) -> Listed {
        let now = live.clock.wall();
        let mut listed = Listed { tier: "memory".to_owned(), entries: Vec::new(), more: false };
        let wanted = |text: &[u8]| {
            let url = key::url(text);
            let bare = url.split_once("://").map_or("", |(_, bare)| bare);
            url.starts_with(&self.prefix) || bare.starts_with(&self.prefix)
        };
        for cache in &live.caches {
            let room = self.limit.min(MOST) - listed.entries.len();
            let (seen, more) = cache.store.list(room, wanted);
            listed.entries.extend(seen.iter().map(|seen| Shown::of(seen, cache, "memory", now)));
            listed.more |= more;
        }
        listed.entries.sort_by(|one, other| one.url.cmp(&other.url));
        listed
    }
}

impl Stats {
    /// The figures.
    pub async fn of(live: &Live) -> Self {
        let caches = live.caches.iter().map(|cache| {
            let (entries, bytes, capacity) = cache.store.usage();
            let totals = cache.metrics.totals();
            CacheStats { name: cache.name.clone(), entries, bytes, capacity, totals }
        });
        let redis = match &live.redis {
            Some(redis) => Some(redis.figures().await),
            None => None,
        };
        Self { caches: caches.collect(), redis }
    }
}

impl Shown {
    fn of(seen: &Seen, cache: &Cache, tier: &str, now: crate::base::clock::WallTime) -> Self {
        let record = &seen.record;
        let values = record.variant.0.iter();
        let variant = record.vary.iter().zip(values).map(|(name, value)| {
            (name.to_string(), value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned()))
        });
        Self {
            url: key::url(&record.key),
            cache: cache.name.clone(),
            tier: tier.to_owned(),
            status: record.status.as_u16(),
            state: seen.state.to_owned(),
            age: record.age(now).as_secs(),
            ttl: ttl_seconds(record.lifetime, record.age(now)),
            size: seen.size,
            tags: purge::tags(&record.fields),
            variant: variant.collect(),
            fields: BTreeMap::new(),
        }
    }

    fn with_fields(mut self, seen: &Seen) -> Self {
        for (name, value) in &seen.record.fields {
            let lines = self.fields.entry(name.to_string()).or_default();
            lines.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        self
    }
}
