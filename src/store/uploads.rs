//! Bodies that lie apart in Redis: written there while they are fetched, and brought into memory when they fit.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::memory::{Hash, Held};
use super::purges::Seal;
use super::redis::pieces::Upload;
use super::{Body, Changes, Entry, Local, lock};

/// The names whose bodies are under way; each has one place, so that a body is not carried twice at once.
pub type Places = Arc<Mutex<HashSet<Hash>>>;

/// The place of one, given back when dropped.
pub struct Place {
    places: Places,
    name: Hash,
}

impl Place {
    /// `None`: it is taken.
    pub fn take(places: &Places, name: Hash) -> Option<Self> {
        let free = lock(places).insert(name);
        free.then(|| Self { places: places.clone(), name })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places).remove(&self.name);
    }
}

/// A body being written to Redis while it is fetched.
pub struct Writing {
    /// `None`: it failed.
    upload: Option<Upload>,
    left: u64,
    _place: Place,
}

/// Why a body is not written any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It is larger than allowed.
    TooLarge,
    /// Redis failed or is too far behind.
    Redis,
}

impl Stopped {
    /// The word for the metric of stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Redis => "redis",
        }
    }
}

impl Writing {
    pub(super) fn begin(upload: Upload, most: u64, place: Place) -> Self {
        Self { upload: Some(upload), left: most, _place: place }
    }

    /// Adds bytes; waits for Redis within bounds. After an error nothing is left of it.
    ///
    /// # Errors
    /// When it is too large, or Redis does not take it.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let length = bytes.len() as u64;
        let Some(upload) = self.upload.as_mut() else { return Err(Stopped::Redis) };
        let stopped = if length > self.left {
            Stopped::TooLarge
        } else if upload.push(bytes).await {
            self.left -= length;
            return Ok(());
        } else {
            Stopped::Redis
        };
        self.upload = None;
        Err(stopped)
    }

    /// All bytes were added: the body, to be stored with its answer, when all of it is in Redis.
    pub async fn finish(self) -> Option<Body> {
        self.upload?.finish().await
    }
}

/// Reads a body that lies apart into memory, in the background and once at a time.
pub(super) fn bring_near(
    local: &Arc<Local>,
    (primary, seen): (Hash, Changes),
    name: Hash,
    (entry, generation, seal): (&Arc<Entry>, u64, &Arc<Seal>),
) {
    let Some(place) = Place::take(&local.uploading, name) else { return };
    let (local, entry, seal) = (local.clone(), entry.clone(), seal.clone());
    tokio::spawn(async move {
        let _place = place;
        let Some(mut reading) = entry.body.read(0, u64::MAX) else { return };
        let mut chunks = Vec::new();
        while let Some(read) = reading.next().await {
            let Ok(bytes) = read else { return };
            chunks.push(bytes);
        }
        let entry = Entry { record: entry.record.clone(), body: Body::from_chunks(chunks) };
        local.keep(&primary, seen, name, Held::answer(Arc::new(entry), generation, seal));
    });
}
