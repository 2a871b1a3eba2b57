//! Where the content of an answer stays while it comes: at hand as long as it fits into memory, in Redis once it does not, nowhere when neither takes it.

use bytes::Bytes;

use super::live::Cache;
use crate::cache::key::Key;
use crate::cache::record::Record;
use crate::store::{Body, Writing};

/// Content being kept.
pub struct Keeping {
    state: State,
    /// What has come so far.
    size: u64,
    /// How much may be at hand.
    at_hand: u64,
    /// How it is told apart while it is written to Redis.
    slot: [u8; 16],
    /// It must be at hand as a whole before anybody can say whether it is stored.
    whole: bool,
}

enum State {
    AtHand(Vec<Bytes>),
    Apart(Writing),
    No,
}

impl Keeping {
    /// Nothing has come yet; `announced` is the length the answer states.
    pub fn begin(cache: &Cache, key: &Key, record: &Record, announced: Option<u64>, whole: bool) -> Self {
        let slot = if record.vary.is_empty() { key.hash() } else { key.variant(&record.variant) };
        let at_hand = cache.store.largest_at_hand();
        let mut keeping = Self { state: State::AtHand(Vec::new()), size: 0, at_hand, slot, whole };
        if let Some(length) = announced.filter(|length| *length > at_hand) {
            keeping.state = keeping.apart(cache, key, length);
        }
        keeping
    }

    /// Whether whoever comes later can be given what has come so far.
    pub fn is_at_hand(&self) -> bool {
        matches!(self.state, State::AtHand(_))
    }

    /// Whether it is kept anywhere.
    pub fn is_any(&self) -> bool {
        !matches!(self.state, State::No)
    }

    /// Whether the content goes to Redis while it comes.
    pub fn is_apart(&self) -> bool {
        matches!(self.state, State::Apart(_))
    }

    /// Adds what came.
    pub async fn add(&mut self, cache: &Cache, key: &Key, chunk: &Bytes) {
        self.size += chunk.len() as u64;
        match &mut self.state {
            State::AtHand(chunks) => {
                chunks.push(chunk.clone());
                if self.size > self.at_hand {
                    self.move_apart(cache, key).await;
                }
            }
            State::Apart(writing) => {
                if let Err(why) = writing.push(chunk).await {
                    cache.metrics.store(why.as_str());
                    self.state = State::No;
                }
            }
            State::No => {}
        }
    }

    async fn move_apart(&mut self, cache: &Cache, key: &Key) {
        let apart = self.apart(cache, key, self.size);
        let State::AtHand(chunks) = std::mem::replace(&mut self.state, apart) else { return };
        for chunk in chunks {
            let State::Apart(writing) = &mut self.state else { return };
            if let Err(why) = writing.push(&chunk).await {
                cache.metrics.store(why.as_str());
                self.state = State::No;
            }
        }
    }

    fn apart(&self, cache: &Cache, key: &Key, least: u64) -> State {
        let writing = if self.whole { None } else { cache.store.upload(key, self.slot, least) };
        match writing {
            Some(writing) => State::Apart(writing),
            None => {
                cache.metrics.store("too-large");
                State::No
            }
        }
    }

    /// The content at hand, if it is.
    pub fn at_hand(&self) -> Option<&[Bytes]> {
        if let State::AtHand(chunks) = &self.state { Some(chunks) } else { None }
    }

    /// All of it came: the body to store.
    pub async fn finish(self, cache: &Cache) -> Option<Body> {
        match self.state {
            State::AtHand(chunks) => Some(Body::from_chunks(compact(chunks, self.size))),
            State::Apart(writing) => {
                let body = writing.finish().await;
                if body.is_none() {
                    cache.metrics.store("redis");
                }
                body
            }
            State::No => None,
        }
    }
}

/// Content that came in many small pieces is joined: each piece pins the whole buffer it was read into.
fn compact(chunks: Vec<Bytes>, size: u64) -> Vec<Bytes> {
    const PIECE: usize = 64 * 1024;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut out = Vec::with_capacity(size / PIECE + 1);
    let mut left = size;
    let mut piece: Vec<u8> = Vec::with_capacity(left.min(PIECE));
    for mut chunk in chunks {
        while !chunk.is_empty() {
            let take = chunk.len().min(PIECE - piece.len());
            piece.extend_from_slice(&chunk.split_to(take));
            if piece.len() == PIECE {
                left -= PIECE;
                out.push(Bytes::from(std::mem::replace(&mut piece, Vec::with_capacity(left.min(PIECE)))));
            }
        }
    }
    if !piece.is_empty() {
        out.push(Bytes::from(piece));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_keeps_its_bytes_when_joined() {
        let chunks: Vec<Bytes> = (0..50u8).map(|i| Bytes::from(vec![i; 3000])).collect();
        let whole: Vec<u8> = chunks.concat();
        let joined = compact(chunks, 150_000);
        assert_eq!(joined.len(), 3);
        assert_eq!(joined.concat(), whole);
        assert!(compact(Vec::new(), 0).is_empty());
    }
}
