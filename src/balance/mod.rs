//! Which endpoint gets the next request?
//!
//! Selectors and state machines over facts: weights, requests in flight, health, the time. Not here: sockets, counters, tasks.

use crate::base::clock::MonoTime;
use crate::base::dice::Dice;

pub mod check;
pub mod eject;
pub mod health;
pub mod pick;
pub mod retry;

pub use pick::Picker;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Each in turn; with weights, smoothly (nginx's: a a b a c a a rather than a a a a a b c), shares exact over a cycle while all are up
    /// and the weights, divided by their common divisor, add up to at most 4096; else within a few requests of exact.
    #[default]
    RoundRobin,
    /// The fewest requests in flight per weight; ties broken at random.
    LeastConn,
    /// The client's address decides (/24 of IPv4, /64 of IPv6), by rendezvous hashing: when an instance leaves only its share moves, and
    /// it is spread over all others; a ring would give most of it to a neighbour.
    IpHash,
    /// By chance, weighted.
    Random,
}

/// One endpoint as a selector sees it at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its share; 0 takes nothing.
    pub weight: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Health says it may be used.
    pub up: bool,
    /// Whether it can take one more.
    pub room: Room,
    /// It is used only while no other endpoint is up.
    pub backup: bool,
}

/// Whether an endpoint can take one more request, by the limits of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// It can, or has no limit.
    #[default]
    Free,
    /// It can, at a pinch: taken only when no other endpoint is free.
    Overflow,
    /// It cannot.
    Full,
}

impl Room {
    /// The room of an endpoint with `in_flight` requests of `size` and `overflow` more.
    pub fn of(in_flight: u32, size: u32, overflow: u32) -> Self {
        match in_flight {
            n if n < size => Self::Free,
            n if n < size.saturating_add(overflow) => Self::Overflow,
            _ => Self::Full,
        }
    }
}

/// What a choice is made from.
pub struct Choice<'a> {
    /// All endpoints of the upstream, in the plan's order.
    pub candidates: &'a [Candidate],
    /// Positions already tried for this request: taken only when nothing else is left… and not even then, see [`Picker::pick`].
    pub tried: &'a [usize],
    /// The hash key of the client: see [`pick::client_key`].
    pub client: u64,
    /// Chance.
    pub dice: &'a mut Dice,
}

/// A moment as the state machines take it.
pub type Now = MonoTime;
