//! Which endpoint gets the next request?
//!
//! Selectors and state machines over facts: weights, requests in flight, health, the time. Not here: sockets, counters, tasks.

use std::time::Duration;

use self::ewma::Meter;
use crate::base::clock::MonoTime;
use crate::base::dice::Dice;

pub mod breaker;
mod busy;
pub mod check;
mod cycle;
pub mod eject;
pub mod ewma;
mod field;
pub mod hash;
pub mod health;
pub mod panic;
pub mod pick;
mod rendezvous;
pub mod retry;
mod ring;
pub mod split;
pub mod sticky;
pub mod window;

pub use hash::HashOn;
pub use pick::Picker;

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Method {
    /// Each in turn; with weights, smoothly (nginx's: a a b a c a a rather than a a a a a b c), shares exact over a cycle while all are up
    /// and the weights, divided by their common divisor, add up to at most 4096; else within a few requests of exact.
    #[default]
    RoundRobin,
    /// The fewest requests in flight per weight; ties broken at random. From 128 endpoints on, the better of two drawn by weight.
    LeastConn,
    /// The client's address decides (/24 of IPv4, /64 of IPv6), by rendezvous hashing: when an instance leaves only its share moves, and
    /// it is spread over all others; a ring would give most of it to a neighbour.
    IpHash,
    /// A part of the request decides, by a ring of points.
    ConsistentHash {
        /// Which part.
        on: HashOn,
        /// The most an endpoint may have in flight, in percent of its fair share, before its keys go to the next one; 0: no bound.
        load: u32,
    },
    /// Of two drawn by weight, the one whose answer is expected sooner: by how long its answers take of late and what is in flight there.
    P2c {
        /// How long until a slow answer is forgotten, more or less.
        decay: Duration,
    },
    /// By chance, weighted.
    Random,
}

impl Method {
    /// What of a request decides, where anything does.
    pub fn hash_on(&self) -> Option<&HashOn> {
        match self {
            Self::IpHash => Some(&HashOn::Client),
            Self::ConsistentHash { on, .. } => Some(on),
            _ => None,
        }
    }
}

/// One endpoint as a selector sees it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// How long its answers take.
    pub meter: Meter,
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
    /// The position that this client is bound to, chosen before all others while it can take one more; `None`: it is bound to none.
    pub bound: Option<usize>,
    /// The hash of what decides; `None`: nothing does, or the request has none of it.
    pub key: Option<u64>,
    /// The time.
    pub now: Now,
    /// Chance.
    pub dice: &'a mut Dice,
}

/// A moment as the state machines take it.
pub type Now = MonoTime;
