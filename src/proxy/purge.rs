//! Purging on somebody's word: what is asked becomes labels, and the stores are told.

use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

use super::live::Live;
use crate::cache::key::{self, Key, KeyFacts};
use crate::cache::purge::{DEEPEST, Force, Label, Target};
use crate::guard::request::{self, Head, Limits};
use crate::store::Reach;
use crate::store::redis::Told;

/// What is asked of `POST /api/v1/purge`.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Answers with one of these tags.
    pub tags: Vec<String>,
    /// The answers of these URLs, with their query, by http and https.
    pub urls: Vec<String>,
    /// Answers in these directories: `https://host/directory/`.
    pub prefixes: Vec<String>,
    /// Everything.
    pub all: bool,
    /// They become stale instead of going: they may be served while, or because, they cannot be fetched anew, and can be validated.
    pub soft: bool,
}

/// Why an order cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It names nothing.
    #[error("nothing to purge; give tags, urls, prefixes, or all")]
    Nothing,
    /// A tag that no answer can have.
    #[error("\"{0}\" is no tag: a tag is not empty and holds neither commas nor spaces")]
    Tag(String),
    /// Not an absolute URL of http or https.
    #[error("\"{0}\" is no URL; write it like https://host/path?query")]
    Url(String),
    /// A prefix that is no directory.
    #[error(
        "\"{0}\" is no directory: a prefix ends with / and has no query, and at most {DEEPEST} directories count"
    )]
    Prefix(String),
}

/// What was done, on which tier.
#[derive(Debug, Serialize)]
pub struct Done {
    /// How many things were named.
    purged: usize,
    memory: &'static str,
    redis: &'static str,
}

impl Order {
    /// Carries it out: it holds in this process on return, and in the fleet as told.
    ///
    /// # Errors
    /// When a part of it makes no sense; then nothing is purged.
    pub async fn carry_out(&self, live: &Live) -> Result<Done, Wrong> {
        let labels = self.labels(live)?;
        let force = if self.soft { Force::Soft } else { Force::Hard };
        let memory = if self.soft { "stale" } else { "purged" };
        let reach = live.purge(&labels, force).await;
        let kinds = [
            ("tag", self.tags.len()),
            ("url", self.urls.len()),
            ("prefix", self.prefixes.len()),
            ("all", usize::from(self.all)),
        ];
        for (kind, count) in kinds {
            live.count_purge(kind, count, force, reach);
        }
        let redis = match reach {
            Reach::Process => "none",
            Reach::Fleet(Told::Now) => memory,
            Reach::Fleet(Told::Later) => "unreachable; it is told when it is back",
        };
        let named = kinds.iter().map(|(_, count)| count).sum();
        Ok(Done { purged: named, memory, redis })
    }

    fn labels(&self, live: &Live) -> Result<Vec<Label>, Wrong> {
        let mut labels = Vec::new();
        if self.all {
            labels.push(Target::All.label());
        }
        for tag in &self.tags {
            if tag.is_empty() || tag.contains([',', ' ', '\t']) {
                return Err(Wrong::Tag(tag.clone()));
            }
            labels.push(Target::Tag(tag.as_bytes()).label());
        }
        for url in &self.urls {
            let keys = keys(url, live, &HeaderMap::new()).ok_or_else(|| Wrong::Url(url.clone()))?;
            labels.extend(keys.iter().map(|key| Target::Url(key::place(key.text()).url).label()));
        }
        for prefix in &self.prefixes {
            labels.push(directory(prefix, live)?);
        }
        if labels.is_empty() { Err(Wrong::Nothing) } else { Ok(labels) }
    }
}

fn directory(prefix: &str, live: &Live) -> Result<Label, Wrong> {
    let keys = keys(prefix, live, &HeaderMap::new()).ok_or_else(|| Wrong::Url(prefix.to_owned()))?;
    let wrong = || Wrong::Prefix(prefix.to_owned());
    let place = key::place(keys.first().ok_or_else(wrong)?.text());
    let deep = place.path.iter().filter(|byte| **byte == b'/').count();
    if prefix.contains('?') || !place.path.ends_with(b"/") || deep > DEEPEST {
        return Err(wrong());
    }
    Ok(Target::Prefix { authority: place.authority, path: place.path }.label())
}

/// The keys of a URL, one for the rules of every cache; `None` when it does not read. It is read as a request for it with these fields would be.
pub(super) fn keys(url: &str, live: &Live, asked: &HeaderMap) -> Option<Vec<Key>> {
    let https = url.starts_with("https://");
    if !https && !url.starts_with("http://") {
        return None;
    }
    let authority = url.split("://").nth(1)?.split(['/', '?']).next()?;
    let mut fields = HeaderMap::new();
    fields.insert(http::header::HOST, authority.parse().ok()?);
    let head = Head {
        method: &Method::GET,
        target: url.as_bytes(),
        http2: false,
        http10: false,
        authority: None,
        fields: &fields,
        field_count: 1,
        size: url.len(),
    };
    let limits = Limits { max_fields: 1, max_head: usize::MAX, max_body: 0 };
    let accepted = request::accept(&head, &limits).ok()?;
    let facts = KeyFacts {
        https,
        host: &accepted.host,
        port: accepted.port,
        path: &accepted.path,
        query: accepted.query.as_deref(),
        fields: asked,
    };
    let mut keys: Vec<Key> = live.caches.iter().map(|cache| Key::of(&facts, &cache.rules.key)).collect();
    if keys.is_empty() {
        keys.push(Key::of(&facts, &Default::default()));
    }
    Some(keys)
}

impl Live {
    /// Counts what was purged.
    pub(super) fn count_purge(&self, kind: &'static str, count: usize, force: Force, reach: Reach) {
        let force = if force == Force::Soft { "soft" } else { "hard" };
        let told = match reach {
            Reach::Process => "process",
            Reach::Fleet(Told::Now) => "fleet",
            Reach::Fleet(Told::Later) => "later",
        };
        self.metrics.purged(kind, force, told, count as u64);
    }

    /// Makes everything under these labels invalid, in all caches.
    pub async fn purge(&self, labels: &[Label], force: Force) -> Reach {
        if let Some(redis) = &self.redis {
            return redis.purge(labels, force).await;
        }
        for cache in &self.caches {
            cache.store.purge(labels, force).await;
        }
        Reach::Process
    }
}
