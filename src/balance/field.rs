//! Who may be chosen now.

use super::{Candidate, Choice, Room};

/// Which endpoints are chosen among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Those that are up and no backups.
    Primaries,
    /// Backups that are up: no other endpoint is.
    Backups,
    /// All that are left: none is up.
    Everyone,
}

/// The candidates that may be chosen now.
pub(super) struct Field<'a> {
    pub(super) candidates: &'a [Candidate],
    pub(super) tried: &'a [usize],
    /// Who is chosen among.
    who: Who,
    /// The room that those chosen among have.
    room: Room,
    /// The sum of the weights of those that may be chosen; never 0.
    pub(super) weight: u64,
}

/// What the endpoints of one kind could take.
#[derive(Default)]
struct Sum {
    any: bool,
    free: u64,
    overflow: u64,
}

impl Sum {
    fn add(&mut self, candidate: &Candidate) {
        self.any = true;
        match candidate.room {
            Room::Free => self.free += u64::from(candidate.weight),
            Room::Overflow => self.overflow += u64::from(candidate.weight),
            Room::Full => {}
        }
    }
}

impl<'a> Field<'a> {
    /// `None` when every endpoint was tried, has weight 0 or is full.
    pub(super) fn of(choice: &Choice<'a>) -> Option<Self> {
        let (candidates, tried) = (choice.candidates, choice.tried);
        let (mut primaries, mut backups, mut everyone) = (Sum::default(), Sum::default(), Sum::default());
        for (position, candidate) in candidates.iter().enumerate() {
            if candidate.weight == 0 || tried.contains(&position) {
                continue;
            }
            everyone.add(candidate);
            match (candidate.up, candidate.backup) {
                (true, false) => primaries.add(candidate),
                (true, true) => backups.add(candidate),
                (false, _) => {}
            }
        }
        let (who, sum) = if primaries.any {
            (Who::Primaries, primaries)
        } else if backups.any {
            (Who::Backups, backups)
        } else {
            (Who::Everyone, everyone)
        };
        let (room, weight) = match (sum.free, sum.overflow) {
            (0, 0) => return None,
            (0, overflow) => (Room::Overflow, overflow),
            (free, _) => (Room::Free, free),
        };
        Some(Self { candidates, tried, who, room, weight })
    }

    /// Whether the candidate at `position` may be chosen.
    pub(super) fn holds(&self, position: usize) -> bool {
        self.candidates.get(position).is_some_and(|candidate| candidate.room == self.room)
            && self.belongs(position)
    }

    /// Whether the candidate at `position` is one of those that are chosen among and can take one more, be it at a pinch.
    pub(super) fn could_hold(&self, position: usize) -> bool {
        self.candidates.get(position).is_some_and(|candidate| candidate.room != Room::Full)
            && self.belongs(position)
    }

    fn belongs(&self, position: usize) -> bool {
        let candidate = &self.candidates[position];
        let right = match self.who {
            Who::Primaries => candidate.up && !candidate.backup,
            Who::Backups => candidate.up && candidate.backup,
            Who::Everyone => true,
        };
        right && candidate.weight > 0 && !self.tried.contains(&position)
    }

    /// Those that may be chosen, with their positions.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        self.candidates.iter().enumerate().filter(|(position, _)| self.holds(*position))
    }

    /// The member in whose share `point` falls, when the members' weights are laid end to end. `point` is below their sum.
    pub(super) fn at(&self, point: u64) -> Option<usize> {
        self.at_without(point, None)
    }

    /// The same without the member `left_out`.
    pub(super) fn at_without(&self, mut point: u64, left_out: Option<usize>) -> Option<usize> {
        for (position, candidate) in self.members().filter(|(position, _)| Some(*position) != left_out) {
            match point.checked_sub(u64::from(candidate.weight)) {
                Some(beyond) => point = beyond,
                None => return Some(position),
            }
        }
        None
    }
}
