//! The stored form of an answer, and of what is known about a key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use super::vary::Variant;
use crate::base::clock::WallTime;

/// A stored answer without its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key's text ([`super::key::Key::text`]).
    pub key: Arc<[u8]>,
    /// The status.
    pub status: StatusCode,
    /// The fields to send, hop-by-hop and refused ones already removed; Age is not among them.
    pub fields: HeaderMap,
    /// When the answer was received: the moment from which it resides here.
    pub received: WallTime,
    /// Its age at `received`: corrected_initial_age of RFC 9111 §4.2.3.
    pub initial_age: Duration,
    /// The freshness lifetime, from the moment its age was zero.
    pub lifetime: Duration,
    /// Where the lifetime comes from.
    pub source: super::policy::LifetimeSource,
    /// What must happen before reuse.
    pub reuse: ReuseRule,
    /// Serve stale while fetching anew, for this long past freshness.
    pub stale_while_revalidate: Duration,
    /// Serve stale when the origin fails, for this long past freshness.
    pub stale_if_error: Duration,
    /// How long past freshness the entry is worth keeping at all.
    pub keep: Duration,
    /// The varying request fields; empty when the answer serves all.
    pub vary: Vec<HeaderName>,
    /// The values of those fields in the request that fetched it.
    pub variant: Variant,
}

/// What must happen before a stored answer is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReuseRule {
    /// Validate before every reuse (`no-cache`).
    pub always_validate: bool,
    /// Never serve stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub never_stale: bool,
    /// The answer to an authorised request may be reused for others (RFC 9111 §3.5); it would not have been stored otherwise.
    pub authorised: bool,
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// An answer with its body.
    Answer(Record, Bytes),
    /// The answers under this key vary: the fields that choose, and the generation whose variants count.
    Variants(Variants),
}

/// The fields that choose among the answers under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variants {
    /// The key's text.
    pub key: Arc<[u8]>,
    /// The varying request fields.
    pub names: Vec<HeaderName>,
    /// Part of every variant's name: a new one leaves all old variants unreachable at once.
    pub generation: u64,
}

/// Why stored bytes cannot be used: they count as a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not ours, or of another version.
    #[error("unknown format")]
    Format,
    /// Shorter or longer than it says.
    #[error("wrong length")]
    Length,
    /// The checksum over key, head and body differs.
    #[error("checksum mismatch")]
    Checksum,
    /// A part does not read.
    #[error("malformed content")]
    Content,
}

impl Record {
    /// Its age now (RFC 9111 §4.2.3).
    pub fn age(&self, now: WallTime) -> Duration {
        self.initial_age.saturating_add(now.since(self.received))
    }

    /// How long it stays fresh; zero when it is stale.
    pub fn ttl(&self, now: WallTime) -> Duration {
        self.lifetime.saturating_sub(self.age(now))
    }

    /// How long past freshness it is; zero when it is fresh.
    pub fn staleness(&self, now: WallTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// How long from now it is worth keeping: freshness and the longest of the windows in which stale has a use.
    pub fn worth(&self, now: WallTime) -> Duration {
        let past = self.keep.max(self.stale_if_error).max(self.stale_while_revalidate);
        self.lifetime.saturating_add(past).saturating_sub(self.age(now))
    }
}

/// Writes the stored form: magic, version, checksum over everything that follows, then the content.
pub fn encode(_stored: &Stored) -> Vec<u8> {
    unimplemented!()
}

/// Reads the stored form. Never panics, whatever the bytes; the body shares them.
///
/// # Errors
/// When the bytes are not exactly what [`encode`] wrote.
pub fn decode(_bytes: Bytes) -> Result<Stored, Damage> {
    unimplemented!()
}
