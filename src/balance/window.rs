//! How many exchanges of the last while went well and how many did not.

use std::time::Duration;

use super::Now;

/// The last while is kept in so many slices: the oldest is forgotten as a whole.
const SLICES: usize = 10;

/// Counts over the last while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    slice: u64,
    slices: [Slice; SLICES],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slice {
    /// Which slice of time it holds, counted from the clock's start.
    number: u64,
    count: Count,
}

/// How many went well and how many did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Well.
    pub good: u64,
    /// Not.
    pub bad: u64,
}

impl Window {
    /// Nothing yet, over the last `length`.
    pub fn new(length: Duration) -> Self {
        let slice = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) / SLICES as u64;
        Self { slice: slice.max(1), slices: Default::default() }
    }

    /// One more, now.
    pub fn record(&mut self, now: Now, well: bool) {
        let number = now.as_nanos() / self.slice;
        let slice = &mut self.slices[(number % SLICES as u64) as usize];
        if slice.number != number {
            *slice = Slice { number, count: Count::default() };
        }
        if well {
            slice.count.good += 1;
        } else {
            slice.count.bad += 1;
        }
    }

    /// All of the last while.
    pub fn count(&self, now: Now) -> Count {
        let number = now.as_nanos() / self.slice;
        let lasting = |slice: &&Slice| slice.number <= number && number - slice.number < SLICES as u64;
        self.slices.iter().filter(lasting).map(|slice| slice.count).sum()
    }

    /// Nothing, again.
    pub fn clear(&mut self) {
        self.slices = Default::default();
    }
}

impl Count {
    /// How many in all.
    pub fn total(&self) -> u64 {
        self.good + self.bad
    }

    /// Whether at least `share` percent of at least `least` did not go well.
    pub fn fails(&self, share: u32, least: u32) -> bool {
        self.total() >= u64::from(least) && self.bad > 0 && self.bad * 100 >= self.total() * u64::from(share)
    }

    /// Whether less than half as large a share went wrong as with `other`. Of nothing, nothing went wrong.
    pub fn is_clearly_better_than(&self, other: &Count) -> bool {
        2 * self.bad * other.total() < other.bad * self.total().max(1)
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, one| Self { good: sum.good + one.good, bad: sum.bad + one.bad })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::from_millis(ms)
    }

    fn count(good: u64, bad: u64) -> Count {
        Count { good, bad }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::new(Duration::from_secs(1));
        window.record(at(0), false);
        window.record(at(500), true);
        window.record(at(950), true);
        assert_eq!(window.count(at(999)), count(2, 1));
        assert_eq!(window.count(at(1000)), count(2, 0));
        assert_eq!(window.count(at(1499)), count(2, 0));
        assert_eq!(window.count(at(1500)), count(1, 0));
        assert_eq!(window.count(at(60_000)), count(0, 0));
        window.record(at(60_000), false);
        assert_eq!(window.count(at(60_000)), count(0, 1), "a slice is used anew");
        window.clear();
        assert_eq!(window.count(at(60_000)), count(0, 0));
    }

    #[test]
    fn shares_are_judged_of_enough() {
        for (good, bad, share, least, fails) in [
            (5, 5, 50, 10, true),
            (6, 5, 50, 10, false),
            (4, 5, 50, 10, false),
            (0, 10, 100, 10, true),
            (1, 10, 100, 10, false),
            (10, 0, 1, 10, false),
            (0, 0, 50, 0, false),
        ] {
            assert_eq!(count(good, bad).fails(share, least), fails, "{bad} of {}, {share} %", good + bad);
        }
    }

    #[test]
    fn clearly_better_is_less_than_half_as_bad() {
        for (one, other, better) in [
            (count(0, 0), count(5, 5), true),
            (count(10, 0), count(5, 5), true),
            (count(8, 2), count(5, 5), true),
            (count(75, 25), count(5, 5), false),
            (count(5, 5), count(5, 5), false),
            (count(0, 3), count(0, 9), false),
            (count(10, 0), count(10, 0), false),
        ] {
            assert_eq!(one.is_clearly_better_than(&other), better, "{one:?} than {other:?}");
        }
    }
}
