//! What changed while somebody fetched or looked: counted by stripe, since a counter for every key would never end, and remembered key by key for the
//! last removals of a stripe, so that a change to one key does not keep the answers of others from being stored or shared.

use std::collections::VecDeque;

use super::memory::Hash;

/// How many removals a stripe remembers by key. One that is forgotten counts as a removal of every key of its stripe, which costs a fetch
/// and is never wrong.
const REMEMBERED: usize = 64;

/// How often the keys of a stripe have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes of any kind.
    pub all: u64,
    /// Removals among them.
    pub removals: u64,
}

/// The changes to the keys of one stripe.
#[derive(Debug, Default)]
pub struct Stripe {
    changes: Changes,
    /// The last removals, the latest at the end: the key, and the how manieth removal it was.
    removed: VecDeque<(Hash, u64)>,
    /// The last removal that is no longer remembered by its key.
    forgotten: u64,
}

impl Stripe {
    /// The counts as they stand.
    pub fn changes(&self) -> Changes {
        self.changes
    }

    /// Counts a write.
    pub fn written(&mut self) {
        self.changes.all += 1;
    }

    /// Counts the removal of a key.
    pub fn removed(&mut self, key: &Hash) {
        self.changes.all += 1;
        self.changes.removals += 1;
        self.removed.retain(|(earlier, _)| earlier != key);
        self.removed.push_back((*key, self.changes.removals));
        if self.removed.len() > REMEMBERED
            && let Some((_, last)) = self.removed.pop_front()
        {
            self.forgotten = last;
        }
    }

    /// Whether a key may have been removed after so many removals.
    pub fn removed_since(&self, key: &Hash, removals: u64) -> bool {
        if self.changes.removals == removals {
            return false;
        }
        self.forgotten > removals || self.removed.iter().any(|(removed, at)| removed == key && *at > removals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(number: u8) -> Hash {
        [number; 16]
    }

    #[test]
    fn a_removal_concerns_its_key_and_those_who_began_before_it() {
        let mut stripe = Stripe::default();
        stripe.removed(&key(1));
        let began = stripe.changes().removals;
        assert!(!stripe.removed_since(&key(1), began), "it was removed before");
        assert!(stripe.removed_since(&key(1), 0));
        stripe.removed(&key(2));
        assert!(!stripe.removed_since(&key(1), began), "another key's removal");
        assert!(stripe.removed_since(&key(2), began));
        stripe.written();
        stripe.removed(&key(1));
        assert!(stripe.removed_since(&key(1), began));
        assert_eq!(stripe.changes(), Changes { all: 4, removals: 3 });
    }

    #[test]
    fn what_is_no_longer_remembered_counts_for_every_key() {
        let mut stripe = Stripe::default();
        let began = stripe.changes().removals;
        for number in 0..=u8::try_from(REMEMBERED).unwrap() {
            assert!(!stripe.removed_since(&key(200), began), "{number} removals are remembered");
            stripe.removed(&key(number));
        }
        assert!(stripe.removed_since(&key(200), began));
        assert!(!stripe.removed_since(&key(200), stripe.changes().removals));
    }

    #[test]
    fn one_key_removed_often_takes_no_room() {
        let mut stripe = Stripe::default();
        for _ in 0..10 * REMEMBERED {
            stripe.removed(&key(1));
        }
        assert!(!stripe.removed_since(&key(2), 0));
    }
}
