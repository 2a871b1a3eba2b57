//! The least busy, by what is in flight, or by that and how long answers take.

use std::cmp::Ordering as Busier;
use std::time::Duration;

use super::cycle::scale;
use super::field::Field;
use super::{Candidate, Now};
use crate::base::dice::Dice;

/// From so many endpoints on, two drawn by chance are compared rather than all: the better of two is within a constant of the best
/// (Mitzenmacher, "The Power of Two Choices", 2001), and comparing all would cost more than it gains.
const LARGE: usize = 128;

/// What an endpoint that never answered is reckoned to take while requests are under way there. Reckoned as nothing, all requests would go
/// to a newcomer until its first answer came.
const UNPROVEN: Duration = Duration::from_secs(60);

/// The member with the fewest requests in flight per weight, compared exactly; among equals chance decides, by weight, so that an idle
/// group is shared out by weight too and a burst does not meet the first endpoint alone.
pub(super) fn least_busy(field: &Field<'_>, dice: &mut Dice) -> Option<usize> {
    if field.candidates.len() >= LARGE {
        return better_of_two(field, dice, busier);
    }
    let mut best: Option<(usize, &Candidate)> = None;
    let mut equals = 0;
    for (position, candidate) in field.members() {
        let weight = u64::from(candidate.weight);
        let wins = match best.map_or(Busier::Less, |(_, best)| busier(candidate, best)) {
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

/// The better of two drawn by chance: the one whose next answer is expected sooner.
pub(super) fn soonest_of_two(field: &Field<'_>, decay: Duration, now: Now, dice: &mut Dice) -> Option<usize> {
    let cost = |candidate: &Candidate| {
        let weight = f64::from(candidate.weight);
        let took = match candidate.meter.estimate(now, decay) {
            Some(took) => took,
            None if candidate.in_flight == 0 => Duration::ZERO,
            None => UNPROVEN,
        };
        took.as_secs_f64() * (1.0 + f64::from(candidate.in_flight) / weight)
    };
    better_of_two(field, dice, |one, other| cost(one).total_cmp(&cost(other)))
}

/// How busy two are, per weight, compared exactly.
fn busier(one: &Candidate, other: &Candidate) -> Busier {
    let busy = u64::from(one.in_flight) * u64::from(other.weight);
    busy.cmp(&(u64::from(other.in_flight) * u64::from(one.weight)))
}

/// Two members are drawn by weight; the second wins only where it is better, so that equals share by weight.
fn better_of_two(
    field: &Field<'_>,
    dice: &mut Dice,
    compare: impl Fn(&Candidate, &Candidate) -> Busier,
) -> Option<usize> {
    let first = field.at(scale(dice.any_u64(), field.weight))?;
    let rest = field.weight - u64::from(field.candidates[first].weight);
    let second = field.at_without(scale(dice.any_u64(), rest), Some(first)).filter(|_| rest > 0);
    match second {
        Some(second) if compare(&field.candidates[second], &field.candidates[first]).is_lt() => Some(second),
        _ => Some(first),
    }
}
