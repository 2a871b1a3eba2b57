//! How often something was asked for, roughly and in little room.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The number of counters; a power of two.
const COUNTERS: usize = 1 << 16;
/// After so many uses, all counts are halved, so that what was asked for long ago counts less.
const HALVED_EVERY: usize = COUNTERS * 8;

/// Counts uses by hash. Two hashes may share a counter, though hardly both of their two: a count is never too small, and seldom too large.
pub struct Uses {
    counts: Box<[AtomicU8]>,
    noted: AtomicUsize,
}

impl Default for Uses {
    fn default() -> Self {
        Self { counts: (0..COUNTERS).map(|_| AtomicU8::new(0)).collect(), noted: AtomicUsize::new(0) }
    }
}

impl Uses {
    /// Notes a use and tells the count with it, at most 255.
    pub fn note(&self, hash: [u8; 16]) -> u8 {
        if self.noted.fetch_add(1, Ordering::Relaxed) % HALVED_EVERY == HALVED_EVERY - 1 {
            self.halve();
        }
        let places = [[hash[0], hash[1]], [hash[2], hash[3]]].map(|two| usize::from(u16::from_le_bytes(two)));
        let [first, second] = places.map(|place| place % COUNTERS);
        let count = add_one(&self.counts[first]);
        if first == second { count } else { count.min(add_one(&self.counts[second])) }
    }

    fn halve(&self) {
        for count in &self.counts {
            // A use that is noted meanwhile may be lost: this is a rough count.
            count.store(count.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }
}

fn add_one(count: &AtomicU8) -> u8 {
    let before = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
    before.map_or(u8::MAX, |before| before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_apart_and_fade() {
        let uses = Uses::default();
        let (one, other) = ([1; 16], [2; 16]);
        assert_eq!((uses.note(one), uses.note(other)), (1, 1), "both places of these hashes are one");
        let hash = |n: u16| {
            let mut hash = [0; 16];
            hash[..2].copy_from_slice(&n.to_le_bytes());
            hash[2..4].copy_from_slice(&(n + 1).to_le_bytes());
            hash
        };
        let uses = Uses::default();
        assert_eq!([uses.note(hash(10)), uses.note(hash(20)), uses.note(hash(10))], [1, 1, 2]);
        (0..300).for_each(|_| assert!(uses.note(hash(30)) > 0));
        assert_eq!(uses.note(hash(30)), 255, "no count begins again");
        uses.halve();
        assert_eq!(uses.note(hash(10)), 2);
    }
}
