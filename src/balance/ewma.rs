//! How long an endpoint's answers take of late: a moving average that rises at once and forgets slowly.
//!
//! A peak is believed straight away and fades over the decay time (Finagle's "peak EWMA"): an endpoint that has just become slow gets fewer
//! requests from the next one on, and what is not asked any more is slowly forgiven.

use std::time::Duration;

use super::Now;

/// The times of one endpoint's answers, averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meter {
    /// The average when it was last changed, in nanoseconds; 0: there was no answer yet.
    nanos: u64,
    /// When that was.
    at: Now,
}

impl Meter {
    /// A meter as [`Meter::parts`] took it apart.
    pub fn from_parts(nanos: u64, at: Now) -> Self {
        Self { nanos, at }
    }

    /// Its average in nanoseconds, and when that was true.
    pub fn parts(self) -> (u64, Now) {
        (self.nanos, self.at)
    }

    /// An answer took this long. After `decay` without a peak, an old average counts for e⁻¹ (0.37) of the new one.
    #[must_use]
    pub fn with(self, now: Now, took: Duration, decay: Duration) -> Self {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let nanos = match self.estimate(now, decay).map(|old| old.as_nanos() as u64) {
            Some(old) if took < old => {
                let kept = kept(now.since(self.at), decay);
                // What is left of the average has faded already in `old`.
                (old as f64 + took as f64 * (1.0 - kept)) as u64
            }
            _ => took,
        };
        Self { nanos: nanos.max(1), at: now }
    }

    /// How long the next answer is expected to take; `None`: nobody knows.
    pub fn estimate(self, now: Now, decay: Duration) -> Option<Duration> {
        let faded = (self.nanos as f64 * kept(now.since(self.at), decay)) as u64;
        (self.nanos > 0).then(|| Duration::from_nanos(faded.max(1)))
    }
}

/// The part of an average that is left after `passed`.
fn kept(passed: Duration, decay: Duration) -> f64 {
    (-passed.as_secs_f64() / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Now {
        Now::from_millis(seconds * 1000)
    }

    fn millis(meter: Meter, seconds: u64) -> u64 {
        meter.estimate(at(seconds), DECAY).map_or(0, |took| took.as_millis() as u64)
    }

    fn took(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        assert_eq!(Meter::default().estimate(at(5), DECAY), None);
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let meter = Meter::default().with(at(0), took(100), DECAY);
        assert_eq!(millis(meter, 0), 100);
        let meter = meter.with(at(0), took(1000), DECAY);
        assert_eq!(millis(meter, 0), 1000);
        assert_eq!(millis(meter, 10), 367, "e⁻¹ of it is left after the decay time");
        assert_eq!(millis(meter, 20), 135);
    }

    #[test]
    fn quick_answers_bring_it_down_as_slowly_as_the_decay_says() {
        let mut meter = Meter::default().with(at(0), took(1000), DECAY);
        meter = meter.with(at(0), took(10), DECAY);
        assert_eq!(millis(meter, 0), 1000, "no time has passed");
        for second in 1..=10 {
            meter = meter.with(at(second), took(10), DECAY);
        }
        assert!((370..380).contains(&millis(meter, 10)), "{}", millis(meter, 10));
        for second in 11..=100 {
            meter = meter.with(at(second), took(10), DECAY);
        }
        assert_eq!(millis(meter, 100), 10);
    }

    #[test]
    fn what_answered_once_is_never_unknown_again() {
        let meter = Meter::default().with(at(0), took(1), DECAY);
        assert_eq!(meter.estimate(at(1_000_000), DECAY), Some(Duration::from_nanos(1)));
    }
}
