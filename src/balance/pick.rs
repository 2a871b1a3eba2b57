//! Choosing one endpoint among several.

use std::cmp::Ordering as Busier;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Candidate, Choice, Method, Room};
use crate::base::dice::Dice;

/// The longest precomputed cycle. Past it a cycle would take longer to come round than its exactness is worth, and its memory would grow
/// with the weights' digits: the point sequence (see [`nth_point`]) serves such weights without a table.
const LONGEST_CYCLE: u64 = 4096;

/// 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A selector with its state. Shared by all workers; picking takes `&self`, takes no lock and allocates nothing.
#[derive(Debug)]
pub struct Picker(Selector);

#[derive(Debug)]
enum Selector {
    RoundRobin(Cycle),
    LeastConn,
    IpHash(Box<[u64]>),
    Random,
}

impl Picker {
    /// A selector for endpoints with these identities (`host:port`) and weights, in the plan's order.
    pub fn new(method: Method, endpoints: &[(String, u32)]) -> Self {
        Self(match method {
            Method::RoundRobin => Selector::RoundRobin(Cycle::new(endpoints.iter().map(|e| e.1).collect())),
            Method::LeastConn => Selector::LeastConn,
            Method::IpHash => Selector::IpHash(endpoints.iter().map(|e| xxh3_64(e.0.as_bytes())).collect()),
            Method::Random => Selector::Random,
        })
    }

    /// The position of the chosen endpoint; `None` when every endpoint was tried, has weight 0 or is full. When none that is left is up, all
    /// that are left count as up: a gateway that refuses everything because its checks fail is worse than one that tries (fail open). An
    /// endpoint that is up and full is a reason to wait, not to use one that is down; one in its overflow is used when nobody is free.
    ///
    /// Weights are the candidates' at this moment, so that a share can be changed while requests flow.
    pub fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let field = Field::of(choice)?;
        match &self.0 {
            Selector::RoundRobin(cycle) => cycle.next(&field),
            Selector::LeastConn => least_busy(&field, choice.dice),
            Selector::IpHash(identities) => closest(&field, identities, choice.client),
            Selector::Random => field.at(scale(choice.dice.any_u64(), field.weight)),
        }
    }
}

/// The hash key of a client: its /24 (IPv4) or /64 (IPv6), the same in every process. An IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2)
/// counts as IPv4: whether a listener is dual-stack must not move its clients.
pub fn client_key(addr: IpAddr) -> u64 {
    match addr.to_canonical() {
        IpAddr::V4(v4) => xxh3_64(&v4.octets()[..3]),
        IpAddr::V6(v6) => xxh3_64(&v6.octets()[..8]),
    }
}

/// The candidates that may be chosen now.
struct Field<'a> {
    candidates: &'a [Candidate],
    tried: &'a [usize],
    /// Nobody left is up, so that all left count as up.
    fail_open: bool,
    /// The room that those chosen among have.
    room: Room,
    /// The sum of the weights of those that may be chosen; never 0.
    weight: u64,
}

impl<'a> Field<'a> {
    fn of(choice: &Choice<'a>) -> Option<Self> {
        let (candidates, tried) = (choice.candidates, choice.tried);
        let left = |(position, c): (usize, &Candidate)| c.weight > 0 && c.up && !tried.contains(&position);
        let fail_open = !candidates.iter().enumerate().any(left);
        let mut field = Self { candidates, tried, fail_open, room: Room::Free, weight: 0 };
        for room in [Room::Free, Room::Overflow] {
            field.room = room;
            field.weight = field.members().map(|(_, c)| u64::from(c.weight)).sum();
            if field.weight > 0 {
                return Some(field);
            }
        }
        None
    }

    fn holds(&self, position: usize, candidate: &Candidate) -> bool {
        candidate.weight > 0
            && (candidate.up || self.fail_open)
            && candidate.room == self.room
            && !self.tried.contains(&position)
    }

    fn members(&self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        self.candidates.iter().enumerate().filter(|(position, candidate)| self.holds(*position, candidate))
    }

    /// The member in whose share `point` falls, when the members' weights are laid end to end. `point` is below their sum.
    fn at(&self, mut point: u64) -> Option<usize> {
        for (position, candidate) in self.members() {
            match point.checked_sub(u64::from(candidate.weight)) {
                Some(beyond) => point = beyond,
                None => return Some(position),
            }
        }
        None
    }
}

/// Smooth weighted round robin: the order is worked out once, a shared cursor walks it.
#[derive(Debug)]
struct Cycle {
    /// The weights the order was made for.
    weights: Box<[u32]>,
    /// The order of one cycle; empty when no cycle is short enough.
    order: Box<[u32]>,
    cursor: AtomicU64,
    /// Counts the turns that the order could not serve.
    spare: AtomicU64,
}

impl Cycle {
    fn new(weights: Box<[u32]>) -> Self {
        let order = smooth_order(&weights);
        Self { weights, order, cursor: AtomicU64::new(0), spare: AtomicU64::new(0) }
    }

    /// The endpoint whose turn it is. The turn of one that may not be used is shared out among the rest by weight; given to the next in
    /// the order it would double that one's load. A second attempt takes a spare turn as well: were it to move the cursor, then of two
    /// endpoints the failing one would meet every first attempt.
    fn next(&self, field: &Field<'_>) -> Option<usize> {
        if field.tried.is_empty() && self.fits(field) {
            let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % self.order.len() as u64;
            let position = self.order[turn as usize] as usize;
            if field.holds(position, &field.candidates[position]) {
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
fn scale(fraction: u64, below: u64) -> u64 {
    ((u128::from(fraction) * u128::from(below)) >> 64) as u64
}

/// The member with the fewest requests in flight per weight, compared exactly; among equals chance decides, by weight, so that an idle
/// group is shared out by weight too and a burst does not meet the first endpoint alone.
fn least_busy(field: &Field<'_>, dice: &mut Dice) -> Option<usize> {
    let mut best: Option<(usize, &Candidate)> = None;
    let mut equals = 0;
    for (position, candidate) in field.members() {
        let weight = u64::from(candidate.weight);
        let order = best.map_or(Busier::Less, |(_, best)| {
            let busy = u64::from(candidate.in_flight) * u64::from(best.weight);
            busy.cmp(&(u64::from(best.in_flight) * weight))
        });
        let wins = match order {
            Busier::Less => {
                equals = weight;
                true
            }
            Busier::Equal => {
                equals += weight;
                scale(dice.any_u64(), equals) < weight
            }
            Busier::Greater => false,
        };
        if wins {
            best = Some((position, candidate));
        }
    }
    best.map(|(position, _)| position)
}

/// Weighted rendezvous: every member draws a number from the client and its own identity alone, exponentially distributed with its weight
/// as the rate, and the least number wins. Nobody else's coming, going or weight changes a draw, so that only the share of the one that
/// changed moves, and it is spread over all others.
fn closest(field: &Field<'_>, identities: &[u64], client: u64) -> Option<usize> {
    let mut best = None;
    let mut least = f64::INFINITY;
    for (position, candidate) in field.members() {
        let Some(identity) = identities.get(position) else { break };
        let hash = xxh3_64_with_seed(&client.to_le_bytes(), *identity);
        let draw = -open_unit(hash).ln() / f64::from(candidate.weight);
        if draw < least {
            (best, least) = (Some(position), draw);
        }
    }
    best
}

/// A hash as a number strictly between 0 and 1, so that its logarithm is finite and not 0.
fn open_unit(hash: u64) -> f64 {
    const STEPS: f64 = (1u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) / STEPS
}
