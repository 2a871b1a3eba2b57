//! When so few instances are up that leaving the others alone would only crush those: then all are used.
//!
//! Checks may fail for a reason of their own (a network between, a route that asks too much); a fleet that is taken out as a whole is worse than
//! one that is asked in vain now and then.

/// Who is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those that are up; backups while no other is.
    Normal,
    /// Those that are up, backups among them.
    WithBackups,
    /// All.
    Everyone,
}

/// How many instances there are, those that an operator took out not counted, and how many of them are up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Other than backups.
    pub primaries: usize,
    /// Of those, up.
    pub primaries_up: usize,
    /// Backups that are up.
    pub backups_up: usize,
}

/// Judges by the least `share`, in percent, of the instances that must be up: of those that are no backups, since backups stand in for them.
pub fn judge(census: Census, share: u32) -> Mode {
    let enough = |up: usize| up * 100 >= census.primaries * share as usize && up > 0;
    if enough(census.primaries_up) {
        Mode::Normal
    } else if enough(census.primaries_up + census.backups_up) {
        if census.primaries_up == 0 { Mode::Normal } else { Mode::WithBackups }
    } else {
        Mode::Everyone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_is_everyone() {
        use Mode::{Everyone, Normal, WithBackups};
        for (primaries, primaries_up, backups_up, share, mode) in [
            (4, 4, 0, 50, Normal),
            (4, 2, 0, 50, Normal),
            (4, 1, 0, 50, Everyone),
            (4, 0, 0, 50, Everyone),
            (4, 1, 0, 0, Normal),
            (4, 0, 0, 0, Everyone),
            (4, 1, 1, 50, WithBackups),
            (4, 1, 1, 0, Normal),
            (4, 0, 2, 50, Normal),
            (4, 0, 1, 50, Everyone),
            (4, 0, 1, 0, Normal),
            (3, 2, 0, 100, Everyone),
            (1, 1, 0, 100, Normal),
            (0, 0, 0, 50, Everyone),
        ] {
            let census = Census { primaries, primaries_up, backups_up };
            assert_eq!(judge(census, share), mode, "{census:?}, {share} %");
        }
    }
}
