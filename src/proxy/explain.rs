//! Explaining a request from a running gateway: what its configuration alone tells, and what it holds and would do at this moment.

use http::header;
use serde::{Deserialize, Serialize};

use super::live::Live;
use crate::cache::directive;
use crate::cache::lookup::{self, Reuse, Why};
use crate::cache::status;
use crate::explain::told::{Answer, Explained, Held, Instance, Now};
use crate::explain::{self, Lookup, Question, Unclear};
use crate::plan::UpstreamId;
use crate::store::sight::Sight;
use crate::store::{Entry, Found, Standing};

/// What is asked of `POST /api/v1/explain`.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// The method; empty is GET.
    pub method: String,
    /// The URL as a client would ask for it.
    pub url: String,
    /// Fields of the request: `Accept: text/html`.
    pub headers: Vec<String>,
    /// Its content.
    pub data: String,
    /// The status of an answer to judge.
    pub status: Option<u16>,
    /// Fields of an answer to judge.
    pub answer: Vec<String>,
}

impl Ask {
    /// The question it states.
    ///
    /// # Errors
    /// The first part of it that does not read.
    pub fn question(self) -> Result<Question, Unclear> {
        let method = if self.method.is_empty() { "GET" } else { &self.method };
        Question::read(method, self.url, &self.headers, self.data, self.status, &self.answer)
    }
}

impl Live {
    /// Explains a request. Nothing changes by it.
    ///
    /// # Errors
    /// When the question does not read.
    pub async fn explain(&self, question: &Question) -> Result<Explained, Unclear> {
        let mut explained = explain::explain(&self.plan, question, self.clock.wall())?;
        let Some(upstream) = explained.upstream else { return Ok(explained.told) };
        let mut now = match &explained.lookup {
            Some(lookup) => self.stored(lookup).await,
            None => Now { does: "an instance is asked; nothing is stored".to_owned(), ..Now::default() },
        };
        now.instances = self.instances(upstream);
        explained.told.now = Some(now);
        Ok(explained.told)
    }

    async fn stored(&self, asked: &Lookup) -> Now {
        let cache = self.cache(asked.cache);
        let Sight { memory, redis, found } = cache.store.sight(&asked.key, &asked.fields).await;
        let memory = match memory {
            Some((_, Standing::Gone)) => Held::Nothing("an answer that was purged".to_owned()),
            Some((entry, standing)) => Held::Answer(Box::new(self.held(&entry, purged(standing)))),
            None => Held::Nothing("nothing".to_owned()),
        };
        let redis = redis.map(|found| match (&found.entry, found.trouble) {
            (Some(entry), _) => Held::Answer(Box::new(self.held(entry, None))),
            (None, Some(trouble)) => Held::Nothing(format!("unknown: {trouble}")),
            (None, None) => Held::Nothing(found.absent.as_str().to_owned()),
        });
        Now { does: self.would_do(asked, &found), memory: Some(memory), redis, instances: Vec::new() }
    }

    fn would_do(&self, asked: &Lookup, found: &Found) -> String {
        let cache = self.cache(asked.cache);
        let directives = directive::request(&asked.fields);
        let judge =
            |entry: &Entry| lookup::judge(&entry.record, &directives, &cache.rules, self.clock.wall());
        match found.entry.as_deref().map(judge) {
            Some(Reuse::Fresh) => format!("a hit from {}", tier(found)),
            Some(Reuse::Stale) => {
                format!("a stale answer from {}, since the client accepts it (max-stale)", tier(found))
            }
            Some(Reuse::StaleWhileRevalidate) => {
                format!("a stale answer from {}, which is fetched anew meanwhile", tier(found))
            }
            _ if directives.only_if_cached => "504, since the client asks for stored answers only".to_owned(),
            Some(Reuse::Validate(why)) => format!("an instance is asked first: {}", why_validated(why)),
            None => format!("an instance is asked: {}", found.absent.as_str()),
        }
    }

    fn held(&self, entry: &Entry, purged: Option<&str>) -> Answer {
        let (record, now) = (&entry.record, self.clock.wall());
        let values = record.vary.iter().zip(&record.variant.0);
        Answer {
            status: record.status.as_u16(),
            bytes: entry.body.len(),
            age: lookup::age_field(record, now),
            ttl: status::ttl_seconds(record.lifetime, record.age(now)),
            fresh_for: record.lifetime.as_secs(),
            because_of: explain::source_word(record.source).to_owned(),
            purged: purged.map(str::to_owned),
            varies_by: values.map(|(name, value)| varying(name.as_str(), value.as_deref())).collect(),
            etag: record
                .fields
                .get(header::ETAG)
                .map(|tag| String::from_utf8_lossy(tag.as_bytes()).into_owned()),
        }
    }

    fn instances(&self, upstream: UpstreamId) -> Vec<Instance> {
        let group = &self.upstream(upstream).group;
        let standing = group.endpoints().iter().zip(group.states());
        standing
            .map(|(endpoint, state)| Instance {
                name: endpoint.name().to_owned(),
                state: state.condition.as_str().to_owned(),
                in_flight: endpoint.in_flight(),
            })
            .collect()
    }
}

fn tier(found: &Found) -> &'static str {
    match found.tier {
        status::Tier::Memory => "memory",
        status::Tier::Redis => "redis",
    }
}

fn why_validated(why: Why) -> &'static str {
    match why {
        Why::Stale => "what is stored is stale",
        Why::NoCache => "what is stored says no-cache",
        Why::Request => "the client asks for it",
    }
}

fn purged(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Good | Standing::Gone => None,
        Standing::Stale => Some("stale"),
        Standing::Doubtful => Some("doubtful"),
    }
}

/// A field that chose an answer, with its value.
fn varying(name: &str, value: Option<&[u8]>) -> String {
    match value {
        None => format!("{name} absent"),
        // What stands for a language begins with a byte that no field holds.
        Some([0, language @ ..]) => format!("{name} best {}", String::from_utf8_lossy(language)),
        Some(value) => format!("{name}={}", String::from_utf8_lossy(value)),
    }
}
