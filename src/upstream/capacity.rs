//! How many requests an instance says it can hold, and how many a connection to it has carried.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Endpoint, Group};
use crate::plan;

/// Connections that were closed leave their counts behind; beyond so many, all counts begin anew.
const MOST: usize = 65_536;

/// How many requests each connection has carried, by its two ends. What was established later between the same ends is another connection.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<(SocketAddr, SocketAddr), (Duration, u32)>>);

impl Uses {
    /// One more request; says how many that makes.
    fn count(&self, ends: (SocketAddr, SocketAddr), established: Duration) -> u32 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MOST {
            counts.clear();
        }
        let count = counts.entry(ends).or_insert((established, 0));
        if count.0 != established {
            *count = (established, 0);
        }
        count.1 = count.1.saturating_add(1);
        count.1
    }
}

impl Group {
    /// A connection is taken for one more request. Says whether that is its last.
    pub fn uses_up(&self, ends: (SocketAddr, SocketAddr), established: Duration) -> bool {
        let Some(pool) = self.pool.as_ref().filter(|pool| pool.limits().recycle_count > 0) else {
            return false;
        };
        pool.uses.count(ends, established) >= pool.limits().recycle_count
    }

    /// Endpoint `index` says how many requests it can hold: so many it gets from now on, within what is believed.
    pub fn told_size(self: &Arc<Self>, index: usize, size: u32) {
        let capacity = self.plan.pool.as_ref().and_then(|pool| pool.capacity.as_ref());
        let (Some(capacity), Some(endpoint)) = (capacity, self.endpoints.get(index)) else { return };
        let size = size.clamp(1, capacity.max);
        let before = endpoint.told_size.swap(size, Ordering::SeqCst);
        if before == size {
            return;
        }
        tracing::info!(upstream = %self.name(), endpoint = endpoint.name(), size, "endpoint says how many requests it can hold");
        self.serve_waiting();
    }
}

impl Endpoint {
    /// How many requests it may have at once, not counting the overflow: what it said last, else what is planned.
    pub fn size(&self, pool: &plan::Pool) -> u32 {
        match self.told_size.load(Ordering::SeqCst) {
            told if told > 0 && pool.capacity.is_some() => told,
            _ => pool.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_connection() {
        let uses = Uses::default();
        let end = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(2));
        let counts = [
            uses.count((end(1), end(2)), early),
            uses.count((end(1), end(2)), early),
            uses.count((end(3), end(2)), early),
            uses.count((end(1), end(2)), late),
            uses.count((end(1), end(2)), late),
        ];
        assert_eq!(counts, [1, 2, 1, 1, 2]);
    }
}
