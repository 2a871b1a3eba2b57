//! Chance as an argument: a seeded generator makes a run of choices repeatable.

/// A small, fast source of random numbers. Not for secrets.
#[derive(Debug, Clone)]
pub struct Dice(fastrand::Rng);

impl Dice {
    /// Seeded from the system: different in every process.
    pub fn from_entropy() -> Self {
        Self(fastrand::Rng::new())
    }

    /// The same sequence for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.usize(..bound) }
    }

    /// Any 64-bit number.
    pub fn any_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }
}
