//! The same endpoint for the same key, by rendezvous hashing.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::field::Field;

/// Weighted rendezvous: every member draws a number from the key and its own identity alone, exponentially distributed with its weight
/// as the rate, and the least number wins. Nobody else's coming, going or weight changes a draw, so that only the share of the one that
/// changed moves, and it is spread over all others.
pub(super) fn closest(field: &Field<'_>, identities: &[u64], key: u64) -> Option<usize> {
    let mut best = None;
    let mut least = f64::INFINITY;
    for (position, candidate) in field.members() {
        let Some(identity) = identities.get(position) else { break };
        let hash = xxh3_64_with_seed(&key.to_le_bytes(), *identity);
        let draw = -open_unit(hash).ln() / f64::from(candidate.weight);
        if draw < least {
            (best, least) = (Some(position), draw);
        }
    }
    best
}

/// A hash as a number strictly between 0 and 1, so that its logarithm is finite and not 0.
pub(super) fn open_unit(hash: u64) -> f64 {
    const STEPS: f64 = (1u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) / STEPS
}
