//! Each in turn, smoothly by weight.

use std::sync::atomic::{AtomicU64, Ordering};

use super::field::Field;

/// The longest precomputed cycle. Past it a cycle would take longer to come round than its exactness is worth, and its memory would grow
/// with the weights' digits: the point sequence (see [`nth_point`]) serves such weights without a table.
const LONGEST_CYCLE: u64 = 4096;

/// 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Smooth weighted round robin: the order is worked out once, a shared cursor walks it.
#[derive(Debug)]
pub(super) struct Cycle {
    /// The weights the order was made for.
    weights: Box<[u32]>,
    /// The order of one cycle; empty when no cycle is short enough.
    order: Box<[u32]>,
    cursor: AtomicU64,
    /// Counts the turns that the order could not serve.
    spare: AtomicU64,
}

impl Cycle {
    pub(super) fn new(weights: Box<[u32]>) -> Self {
        let order = smooth_order(&weights);
        Self { weights, order, cursor: AtomicU64::new(0), spare: AtomicU64::new(0) }
    }

    /// The endpoint whose turn it is. The turn of one that may not be used is shared out among the rest by weight; given to the next in
    /// the order it would double that one's load. A second attempt takes a spare turn as well: were it to move the cursor, then of two
    /// endpoints the failing one would meet every first attempt.
    pub(super) fn next(&self, field: &Field<'_>) -> Option<usize> {
        if field.tried.is_empty() && self.fits(field) {
            let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % self.order.len() as u64;
            let position = self.order[turn as usize] as usize;
            if field.holds(position) {
                return Some(position);
            }
        }
        field.at(nth_point(self.spare.fetch_add(1, Ordering::Relaxed), field.weight))
    }

    /// Whether the order still stands for the candidates' weights. One that is withdrawn (weight 0) keeps its turns, to be shared out.
    fn fits(&self, field: &Field<'_>) -> bool {
        !self.order.is_empty()
            && self.weights.len() == field.candidates.len()
            && field
                .candidates
                .iter()
                .zip(&self.weights)
                .all(|(now, planned)| now.weight == 0 || now.weight == *planned)
    }
}

/// The order of one cycle, in which every endpoint has its weight's share and is never a whole turn ahead of it: at each turn all gain their
/// weight, the richest is chosen and pays the sum of all. Empty when all weights are 0 or the cycle is longer than [`LONGEST_CYCLE`].
fn smooth_order(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let weights: Box<[i64]> = weights.iter().map(|w| i64::from(w / divisor)).collect();
    let total: i64 = weights.iter().sum();
    if total.unsigned_abs() > LONGEST_CYCLE {
        return Box::default();
    }
    let mut purse = vec![0; weights.len()];
    let mut turn = || {
        let mut richest = 0;
        for (position, weight) in weights.iter().enumerate() {
            purse[position] += weight;
            if purse[position] > purse[richest] {
                richest = position;
            }
        }
        purse[richest] -= total;
        richest as u32
    };
    (0..total).map(|_| turn()).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The `n`th of a sequence of points in `0..below` that fills the range evenly however far it has come: multiples of the golden ratio,
/// modulo 1. Every part of the range gets its share within a few points of exact, and so it does in every second, third… point of the
/// sequence, so that requests with different fields may share one counter.
fn nth_point(n: u64, below: u64) -> u64 {
    scale(n.wrapping_mul(GOLDEN_STEP), below)
}

/// `fraction` of 2⁶⁴, of `below`.
pub(super) fn scale(fraction: u64, below: u64) -> u64 {
    ((u128::from(fraction) * u128::from(below)) >> 64) as u64
}
