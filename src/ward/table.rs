//! Moments by client, in memory that never grows: a table of many small groups, each of which forgets whom it loses least by.

use parking_lot::Mutex;

use crate::guard::rate::Key;

/// Places in a group; a client may stand in any of those of its own.
const GROUP: usize = 8;
/// Groups under one lock, at least.
const LEAST: usize = 16;
/// Locks, at most.
const LOCKS: usize = 64;

/// A client's moment: when its bucket is full again, in nanoseconds. Zero is a place that is free.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    key: [u8; 16],
    full_at: u64,
}

/// The moments of at most so many clients.
#[derive(Debug)]
pub struct Table {
    parts: Vec<Mutex<Vec<[Place; GROUP]>>>,
    groups: usize,
}

/// What became of a client's moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Another client, whose bucket was not full again yet, was forgotten for it.
    pub forgot: bool,
}

impl Table {
    /// A table for `most` clients, rounded up. Its memory is taken from the system as it is used.
    pub fn new(most: usize) -> Self {
        let groups = most.div_ceil(GROUP).next_power_of_two().max(LEAST);
        let parts = (groups / LEAST).clamp(1, LOCKS);
        let groups = groups / parts;
        let part = || Mutex::new(vec![[Place::default(); GROUP]; groups]);
        Self { parts: (0..parts).map(|_| part()).collect(), groups }
    }

    /// Asks `judge` about a client's moment, and keeps the one it answers with.
    pub fn judge<J>(&self, key: Key, judge: impl FnOnce(u64) -> (Option<u64>, J)) -> (J, Kept) {
        let (part, group) = self.place(key);
        let mut part = self.parts[part].lock();
        let group = &mut part[group];
        let known = group.iter().position(|place| place.key == key.0);
        let (later, judged) = judge(known.map_or(0, |at| group[at].full_at));
        let mut kept = Kept { forgot: false };
        if let Some(full_at) = later {
            let at = known.unwrap_or_else(|| least(group));
            // Whoever is full again is as good as never seen. `judge` has just read the time, so that `full_at` is later than that.
            kept.forgot = known.is_none() && group[at].full_at > 0 && group[at].full_at >= full_at;
            group[at] = Place { key: key.0, full_at };
        }
        (judged, kept)
    }

    /// Gives back what a request took that another limit refused.
    pub fn give_back(&self, key: Key, interval: u64) {
        let (part, group) = self.place(key);
        let mut part = self.parts[part].lock();
        if let Some(place) = part[group].iter_mut().find(|place| place.key == key.0) {
            place.full_at = place.full_at.saturating_sub(interval);
        }
    }

    fn place(&self, key: Key) -> (usize, usize) {
        let bits = u128::from_le_bytes(key.0);
        let part = (bits % self.parts.len() as u128) as usize;
        let group = ((bits >> 64) % self.groups as u128) as usize;
        (part, group)
    }
}

/// The place that is full again first.
fn least(group: &[Place; GROUP]) -> usize {
    group.iter().enumerate().min_by_key(|(_, place)| place.full_at).map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        let hash = blake3::hash(&number.to_le_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_bytes()[..16]);
        Key(key)
    }

    fn put(table: &Table, number: u64, full_at: u64) -> Kept {
        table.judge(key(number), |_| (Some(full_at), ())).1
    }

    fn get(table: &Table, number: u64) -> u64 {
        table.judge(key(number), |full_at| (None, full_at)).0
    }

    #[test]
    fn each_client_has_its_own_moment() {
        let table = Table::new(10_000);
        for number in 0..1000 {
            put(&table, number, 1_000 + number);
        }
        assert!((0..1000).all(|number| get(&table, number) == 1_000 + number));
        assert_eq!(get(&table, 5000), 0, "never seen");
        table.give_back(key(7), 500);
        assert_eq!(get(&table, 7), 507);
    }

    #[test]
    fn a_full_table_forgets_those_first_that_lose_least() {
        let table = Table::new(1024);
        put(&table, 0, u64::MAX);
        for number in 1..200_000 {
            put(&table, number, number);
        }
        let places: usize = table.parts.iter().map(|part| part.lock().len() * GROUP).sum();
        assert!(places <= 2048, "{places}");
        assert_eq!(get(&table, 0), u64::MAX, "who asked most is remembered");
        let held = (1..200_000).filter(|number| get(&table, *number) > 0).count();
        assert!(held < places && held > places / 2, "{held} of {places}");
    }

    #[test]
    fn what_is_refused_is_not_written() {
        let table = Table::new(1024);
        put(&table, 1, 100);
        table.judge(key(1), |_| (None, ()));
        assert_eq!(get(&table, 1), 100);
    }
}
