//! Choosing one endpoint among several.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::cycle::{Cycle, scale};
use super::field::Field;
use super::ring::Ring;
use super::{Choice, Method, busy, rendezvous};

/// A selector with its state. Shared by all workers; picking takes `&self`, takes no lock and allocates nothing.
#[derive(Debug)]
pub struct Picker(Selector);

#[derive(Debug)]
enum Selector {
    RoundRobin(Cycle),
    LeastConn,
    IpHash(Box<[u64]>),
    Ring(Ring),
    P2c(Duration),
    Random,
}

impl Picker {
    /// A selector for endpoints with these identities (`host:port`) and weights, in the plan's order.
    pub fn new(method: &Method, endpoints: &[(String, u32)]) -> Self {
        Self(match method {
            Method::RoundRobin => Selector::RoundRobin(Cycle::new(endpoints.iter().map(|e| e.1).collect())),
            Method::LeastConn => Selector::LeastConn,
            Method::IpHash => Selector::IpHash(endpoints.iter().map(|e| xxh3_64(e.0.as_bytes())).collect()),
            Method::ConsistentHash { on: _, load } => Selector::Ring(Ring::new(endpoints, *load)),
            Method::P2c { decay } => Selector::P2c(*decay),
            Method::Random => Selector::Random,
        })
    }

    /// The position of the chosen endpoint; `None` when every endpoint was tried, has weight 0 or is full. When none that is left is up, all
    /// that are left count as up: a gateway that refuses everything because its checks fail is worse than one that tries (fail open). An
    /// endpoint that is up and full is a reason to wait, not to use one that is down; one in its overflow is used when nobody is free.
    ///
    /// Weights are the candidates' at this moment, so that a share can be changed while requests flow. A request without the key that a
    /// hashing selector goes by is shared out by chance.
    pub fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let field = Field::of(choice)?;
        if let Some(bound) = choice.bound.filter(|bound| field.could_hold(*bound)) {
            return Some(bound);
        }
        match (&self.0, choice.key) {
            (Selector::RoundRobin(cycle), _) => cycle.next(&field),
            (Selector::LeastConn, _) => busy::least_busy(&field, choice.dice),
            (Selector::IpHash(identities), Some(key)) => rendezvous::closest(&field, identities, key),
            (Selector::Ring(ring), Some(key)) => ring.closest(&field, key),
            (Selector::P2c(decay), _) => busy::soonest_of_two(&field, *decay, choice.now, choice.dice),
            (Selector::Random | Selector::IpHash(_) | Selector::Ring(_), _) => {
                field.at(scale(choice.dice.any_u64(), field.weight))
            }
        }
    }
}
