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

    /// Whether it may be used.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Takes the result of one check.
    pub fn record(&mut self, _ok: bool) -> Change {
        unimplemented!()
    }
}
