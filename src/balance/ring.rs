//! The same endpoint for the same key, on a ring: a key belongs to the endpoint with the next point.
//!
//! Every endpoint's points are made from its own name alone, so that one that joins or leaves moves the keys of its own points and no
//! others, to their neighbours on the ring: as in ketama (<https://www.metabrew.com/article/libketama-consistent-hashing-algo-memcached-clients>).

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::field::Field;
use super::rendezvous::open_unit;

/// Points of an endpoint for each unit of its weight: shares are within some 6 % of the weights (one standard deviation, 1/√256).
const POINTS: u32 = 256;

/// Weights beyond this have no more points, so that a ring stays small; the others then let keys pass, see [`Ring::takes`].
const MOST_UNITS: u32 = 64;

/// A ring of points.
#[derive(Debug)]
pub(super) struct Ring {
    /// Where each point is, and whose; in the ring's order.
    points: Box<[(u64, u32)]>,
    /// How many points each endpoint has.
    counts: Box<[u32]>,
    /// The most an endpoint may have in flight, in percent of its fair share; 0: no bound.
    load: u32,
}

/// What a walk along the ring asks of each endpoint it meets.
struct Walk<'a> {
    field: &'a Field<'a>,
    key: u64,
    /// The most weight per point that a member has; `None`: all have the same.
    densest: Option<f64>,
    /// Requests in flight at all members, the one in hand included.
    in_flight: u64,
}

impl Ring {
    /// A ring for endpoints with these names and weights.
    pub(super) fn new(endpoints: &[(String, u32)], load: u32) -> Self {
        let endpoints: Vec<(u64, u32)> = endpoints
            .iter()
            .map(|(name, weight)| (xxh3_64(name.as_bytes()), POINTS * (*weight).clamp(1, MOST_UNITS)))
            .collect();
        let mut points: Vec<(u64, u32)> = Vec::new();
        for (position, (name, count)) in endpoints.iter().enumerate() {
            let of_this = (0..*count).map(|n| (xxh3_64_with_seed(&n.to_le_bytes(), *name), position as u32));
            points.extend(of_this);
        }
        // By name where two points meet, so that the plan's order does not matter.
        points.sort_unstable_by_key(|(at, whose)| (*at, endpoints[*whose as usize].0));
        Self { points: points.into(), counts: endpoints.iter().map(|endpoint| endpoint.1).collect(), load }
    }

    /// The endpoint that a key belongs to, among those that may be chosen.
    pub(super) fn closest(&self, field: &Field<'_>, key: u64) -> Option<usize> {
        let walk = self.walk(field, key);
        // Of a request's hash only some bits may differ from another's: mixed once more, they are spread over the whole ring.
        let begin = self.points.partition_point(|(at, _)| *at < xxh3_64(&key.to_le_bytes()));
        let (before, after) = self.points.split_at(begin);
        let along = || {
            let points = after.iter().chain(before).map(|(at, whose)| (*at, *whose as usize));
            points.filter(|(_, whose)| field.holds(*whose))
        };
        let mut willing =
            along().filter(|(at, whose)| self.takes(&walk, *at, *whose) && self.has_room(&walk, *whose));
        willing.next().or_else(|| along().next()).map(|(_, whose)| whose)
    }

    fn walk<'a>(&self, field: &'a Field<'a>, key: u64) -> Walk<'a> {
        let mut walk = Walk { field, key, densest: None, in_flight: 1 };
        let mut least = f64::INFINITY;
        let mut most: f64 = 0.0;
        for (position, candidate) in field.members() {
            walk.in_flight += u64::from(candidate.in_flight);
            let density = self.density(field, position);
            (least, most) = (least.min(density), most.max(density));
        }
        walk.densest = (least < most).then_some(most);
        walk
    }

    /// Weight per point.
    fn density(&self, field: &Field<'_>, position: usize) -> f64 {
        let points = self.counts.get(position).copied().unwrap_or(1);
        f64::from(field.candidates[position].weight) / f64::from(points)
    }

    /// An endpoint that has less weight than its points stand for, as one that is warming up has, takes that part of the keys that come to
    /// each of them: always the same ones, and more of them as its weight grows.
    fn takes(&self, walk: &Walk<'_>, at: u64, whose: usize) -> bool {
        let Some(densest) = walk.densest else { return true };
        let lot = open_unit(xxh3_64_with_seed(&walk.key.to_le_bytes(), !at));
        lot < self.density(walk.field, whose) / densest
    }

    /// Whether it has less in flight than its bound ("Consistent Hashing with Bounded Loads", Mirrokni, Thorup, Zadimoghaddam, 2018). The
    /// bounds of all add up to more than is in flight, so that somebody always has room.
    fn has_room(&self, walk: &Walk<'_>, position: usize) -> bool {
        if self.load == 0 {
            return true;
        }
        let candidate = &walk.field.candidates[position];
        let all = u128::from(walk.in_flight) * u128::from(self.load) * u128::from(candidate.weight);
        u128::from(candidate.in_flight) < all.div_ceil(u128::from(walk.field.weight) * 100)
    }
}
