//! When to stop asking Redis, and when to ask again: a state machine over (event, now).
//!
//! Closed, every operation is tried; after some failures in a row it opens and none is, so that a hung Redis costs a request its budget
//! a few times and not every time. While it is open somebody probes; a probe that succeeds closes it.

use std::time::Duration;

use crate::base::clock::MonoTime;

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    pause: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { probe_at: MonoTime },
    Probing,
}

impl Breaker {
    /// Closed; opens after `threshold` failures in a row, probes every `pause` from then on.
    pub fn new(threshold: u32, pause: Duration) -> Self {
        Self { threshold: threshold.max(1), pause, state: State::Closed { failures: 0 } }
    }

    /// Whether operations are tried.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// An operation succeeded. One that was begun before the breaker opened and ends well after tells nothing about now.
    pub fn succeeded(&mut self) {
        if let State::Closed { failures } = &mut self.state {
            *failures = 0;
        }
    }

    /// An operation failed. Answers whether this opened the breaker.
    pub fn failed(&mut self, now: MonoTime) -> bool {
        let State::Closed { failures } = &mut self.state else { return false };
        *failures += 1;
        if *failures < self.threshold {
            return false;
        }
        self.state = State::Open { probe_at: now.plus(self.pause) };
        true
    }

    /// How long to wait before the next probe: zero is now. `None` when none is needed: the breaker is closed, or one is under way.
    pub fn next_probe(&self, now: MonoTime) -> Option<Duration> {
        match self.state {
            State::Open { probe_at } => Some(probe_at.since(now)),
            State::Closed { .. } | State::Probing => None,
        }
    }

    /// A probe begins.
    pub fn probe_begins(&mut self) {
        if let State::Open { .. } = self.state {
            self.state = State::Probing;
        }
    }

    /// A probe ended. After a good one the breaker is closed, but on trust: until an operation succeeds one failure opens it again, so
    /// that a Redis which only answers probes costs one request per probe and not `threshold`.
    pub fn probe_ended(&mut self, well: bool, now: MonoTime) {
        if let State::Probing = self.state {
            self.state = if well {
                State::Closed { failures: self.threshold - 1 }
            } else {
                State::Open { probe_at: now.plus(self.pause) }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_millis(ms)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(3, PAUSE);
        assert_eq!(
            [breaker.failed(at(0)), breaker.failed(at(1)), breaker.failed(at(2))],
            [false, false, true]
        );
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row() {
        assert!(!opened().is_closed());
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let mut breaker = Breaker::new(2, PAUSE);
        for _ in 0..9 {
            assert!(!breaker.failed(at(0)));
            breaker.succeeded();
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_threshold_of_zero_is_one() {
        assert!(Breaker::new(0, PAUSE).failed(at(0)));
    }

    #[test]
    fn closed_it_needs_no_probe() {
        assert_eq!(Breaker::new(3, PAUSE).next_probe(at(9)), None);
    }

    #[test]
    fn open_it_is_probed_after_the_pause() {
        let breaker = opened();
        assert_eq!(breaker.next_probe(at(2)), Some(PAUSE));
        assert_eq!(breaker.next_probe(at(402)), Some(Duration::from_millis(100)));
        assert_eq!(breaker.next_probe(at(9_000)), Some(Duration::ZERO));
    }

    #[test]
    fn operations_that_end_late_neither_close_it_nor_put_off_the_probe() {
        let mut breaker = opened();
        breaker.succeeded();
        assert!(!breaker.failed(at(400)));
        assert!(!breaker.is_closed());
        assert_eq!(breaker.next_probe(at(502)), Some(Duration::ZERO));
    }

    #[test]
    fn one_probe_at_a_time_and_no_operation_beside_it() {
        let mut breaker = opened();
        breaker.probe_begins();
        assert_eq!(breaker.next_probe(at(9_000)), None);
        assert!(!breaker.is_closed());
    }

    #[test]
    fn a_bad_probe_keeps_it_open_for_another_pause() {
        let mut breaker = opened();
        breaker.probe_begins();
        breaker.probe_ended(false, at(600));
        assert_eq!(breaker.next_probe(at(600)), Some(PAUSE));
    }

    #[test]
    fn a_good_probe_closes_it_on_trust() {
        let mut breaker = opened();
        breaker.probe_begins();
        breaker.probe_ended(true, at(600));
        assert!(breaker.is_closed());
        assert!(breaker.failed(at(601)));
    }

    #[test]
    fn a_success_after_a_probe_earns_full_trust() {
        let mut breaker = opened();
        breaker.probe_begins();
        breaker.probe_ended(true, at(600));
        breaker.succeeded();
        assert!(!breaker.failed(at(601)));
    }

    #[test]
    fn a_probe_nobody_asked_for_changes_nothing() {
        let mut breaker = Breaker::new(1, PAUSE);
        breaker.probe_begins();
        breaker.probe_ended(false, at(0));
        assert!(breaker.is_closed());
    }
}
