//! Is an endpoint up? Consecutive results of checks turn it off and on again.

/// Counts results of active checks of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    up: bool,
    run: u32,
    fall: u32,
    rise: u32,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is taken out.
    Down,
    /// It is back.
    Up,
}

impl Tally {
    /// Up, until `fall` failures in a row; back after `rise` successes in a row. Both at least 1.
    pub fn new(fall: u32, rise: u32) -> Self {
        Self { up: true, run: 0, fall: fall.max(1), rise: rise.max(1) }
    }

    /// Goes on from where another tally is, by its own `fall` and `rise`.
    pub fn resume(&mut self, other: &Self) {
        (self.up, self.run) = (other.up, other.run);
    }

    /// The same, but down until its first success: nothing is known against it, and nothing for it.
    pub fn unproven(fall: u32, rise: u32) -> Self {
        let rise = rise.max(1);
        Self { up: false, run: rise - 1, ..Self::new(fall, rise) }
    }

    /// Whether it may be used.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// The endpoint said itself that it takes nothing: that is no matter of counting failures.
    pub fn withdraw(&mut self) -> Change {
        self.run = 0;
        match std::mem::replace(&mut self.up, false) {
            true => Change::Down,
            false => Change::None,
        }
    }

    /// Takes the result of one check.
    pub fn record(&mut self, ok: bool) -> Change {
        if ok == self.up {
            self.run = 0;
            return Change::None;
        }
        self.run += 1;
        if self.run < if self.up { self.fall } else { self.rise } {
            return Change::None;
        }
        self.run = 0;
        self.up = ok;
        if ok { Change::Up } else { Change::Down }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results as they come (`+` a success, `-` a failure), and what each changes (`.` nothing, `D` down, `U` up).
    fn changes(fall: u32, rise: u32, results: &str) -> String {
        let mut tally = Tally::new(fall, rise);
        results
            .chars()
            .map(|result| {
                let before = tally.is_up();
                let change = tally.record(result == '+');
                assert_eq!(
                    tally.is_up() != before,
                    change != Change::None,
                    "a change is told exactly when there is one"
                );
                match change {
                    Change::None => '.',
                    Change::Down => 'D',
                    Change::Up => 'U',
                }
            })
            .collect()
    }

    #[test]
    fn only_results_in_a_row_change_anything() {
        for (fall, rise, results, expected, fact) in [
            (3, 2, "++++", "....", "successes leave it up"),
            (3, 2, "---", "..D", "`fall` failures in a row take it out"),
            (3, 2, "--+--+--", "........", "a success between starts the count of failures anew"),
            (3, 2, "--+---", ".....D", "and the full count is needed after it"),
            (3, 2, "---++", "..D.U", "`rise` successes in a row bring it back"),
            (3, 2, "---+-+-++", "..D.....U", "a failure between starts the count of successes anew"),
            (3, 2, "------", "..D...", "it goes down once"),
            (3, 2, "---++--", "..D.U..", "back, it takes `fall` failures again"),
            (1, 1, "-+-+", "DUDU", "with 1 and 1 every turn counts"),
            (0, 0, "-+", "DU", "0 counts as 1"),
        ] {
            assert_eq!(changes(fall, rise, results), expected, "{fact}");
        }
    }

    #[test]
    fn an_endpoint_begins_up_unless_it_must_prove_itself() {
        assert!(Tally::new(1, 1).is_up());
        let mut unproven = Tally::unproven(2, 3);
        assert!(!unproven.is_up());
        assert_eq!(unproven.record(true), Change::Up, "one success is proof");
        unproven.record(false);
        assert_eq!(unproven.record(false), Change::Down);
        assert_eq!(unproven.record(true), Change::None, "and later ones count as ever");
        let mut failing = Tally::unproven(2, 2);
        failing.record(false);
        assert_eq!(failing.record(true), Change::None, "a failure is nothing in its favour");
    }

    #[test]
    fn who_withdraws_is_out_at_once_and_back_after_as_many_successes_as_ever() {
        let mut tally = Tally::new(3, 2);
        assert_eq!(tally.withdraw(), Change::Down);
        assert_eq!(tally.withdraw(), Change::None);
        assert_eq!(tally.record(true), Change::None);
        assert_eq!(tally.withdraw(), Change::None, "and a withdrawal between starts the count anew");
        assert_eq!(tally.record(true), Change::None);
        assert_eq!(tally.record(true), Change::Up);
    }
}
