//! Requests in flight by client. Only those who have one are remembered, so that there are never more than connections and streams.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::guard::rate::Key;

/// Locks.
const PARTS: usize = 16;

/// The requests in flight of one limit.
#[derive(Debug)]
pub struct Crowd {
    parts: [Mutex<HashMap<Key, u32>>; PARTS],
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    key: Key,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Crowd {
    /// Lets one more in; `None` when `most` are there.
    pub fn enter(self: &Arc<Self>, key: Key, most: u32) -> Option<Place> {
        let mut part = self.part(key).lock();
        let count = part.entry(key).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { crowd: self.clone(), key })
    }

    fn part(&self, key: Key) -> &Mutex<HashMap<Key, u32>> {
        &self.parts[usize::from(key.0[0]) % PARTS]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.crowd.part(self.key).lock().entry(self.key) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_for_each_client_and_come_back() {
        let crowd = Arc::new(Crowd::default());
        let (one, two) = (Key([1; 16]), Key([2; 16]));
        let first = crowd.enter(one, 2);
        let second = crowd.enter(one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(crowd.enter(one, 2).is_none());
        assert!(crowd.enter(two, 2).is_some());
        drop(first);
        assert!(crowd.enter(one, 2).is_some());
        drop(second);
        assert!(crowd.parts.iter().all(|part| part.lock().is_empty()), "nobody who left is remembered");
    }
}
