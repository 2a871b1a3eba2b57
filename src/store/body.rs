//! The content of a stored answer: at hand in memory, or apart in Redis, to be read piece by piece while it is sent.

use std::sync::Arc;

use bytes::Bytes;

use super::redis::pieces::{Pieces, Reading};

/// Content, shared without copying.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Body {
    chunks: Arc<[Bytes]>,
    length: u64,
    apart: Option<Arc<Pieces>>,
}

impl Body {
    /// Content made of these pieces, in order.
    pub fn from_chunks(chunks: Vec<Bytes>) -> Self {
        let length = chunks.iter().map(|c| c.len() as u64).sum();
        Self { chunks: chunks.into(), length, apart: None }
    }

    /// Content that lies in Redis.
    pub fn lying_apart(pieces: Arc<Pieces>) -> Self {
        Self { chunks: Arc::default(), length: pieces.place().length, apart: Some(pieces) }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Where it lies when it is not at hand: then [`Body::chunks`] and [`Body::slice`] give nothing.
    pub fn apart(&self) -> Option<&Arc<Pieces>> {
        self.apart.as_ref()
    }

    /// Begins to read the bytes from `first` to `last`, both included, of content that is not at hand.
    pub fn read(&self, first: u64, last: u64) -> Option<Reading> {
        self.apart.as_ref().map(|pieces| Reading::new(pieces.clone(), first, last))
    }

    /// Its pieces, in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The bytes from `first` to `last`, both included, in pieces that share this body's memory.
    pub fn slice(&self, first: u64, last: u64) -> Vec<Bytes> {
        let mut out = Vec::new();
        let mut start = 0u64;
        for chunk in self.chunks.iter() {
            let end = start + chunk.len() as u64;
            if end > first && start <= last {
                let from = first.saturating_sub(start) as usize;
                let to = last.saturating_add(1).min(end) - start;
                out.push(chunk.slice(from..to as usize));
            }
            start = end;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_body_is_the_same_whatever_its_pieces() {
        let whole = b"0123456789";
        for pieces in [&[10][..], &[3, 7], &[1, 0, 4, 5], &[0, 10, 0]] {
            let mut rest = Bytes::from_static(whole);
            let body = Body::from_chunks(pieces.iter().map(|length| rest.split_to(*length)).collect());
            assert_eq!((body.len(), body.is_empty()), (10, false));
            for (first, last) in [(0, 9), (0, 0), (9, 9), (2, 3), (3, 5), (4, u64::MAX)] {
                let part = body.slice(first, last).concat();
                let end = usize::try_from(last).unwrap().min(9);
                assert_eq!(part, whole[usize::try_from(first).unwrap()..=end], "{pieces:?} {first}-{last}");
            }
            assert!(body.slice(10, 20).is_empty());
        }
    }

    #[test]
    fn a_part_shares_the_body_s_memory() {
        let whole = Bytes::from_static(b"0123456789");
        let part = Body::from_chunks(vec![whole.clone()]).slice(2, 4);
        assert_eq!(part[0].as_ptr(), whole[2..].as_ptr());
    }
}
