//! Passive health: what happens to requests takes an instance out for a while.
//!
//! Only what the instance did to the exchange itself counts: no connection, a connection broken before the answer, no answer in time. What a client
//! causes never does. A status says nothing about the instance (one route that answers 503 would take all instances out), unless the
//! operator says that it counts; and then only of an instance that clearly does worse than the others, since what one route answers, it
//! answers on all of them.

use std::time::Duration;

use super::Now;
use super::retry::FailedAt;

/// When an instance is taken out, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// So many failures in a row take it out; at least 1.
    pub after: u32,
    /// For how long the first time; each further time in a row twice as long.
    pub time: Duration,
    /// But never longer than this.
    pub most: Duration,
    /// At most this share of the instances is out at once, in percent.
    pub share: u32,
    /// This share of failures takes an instance out as well, in percent; 0 does not.
    pub rate: u32,
    /// Of at least so many exchanges.
    pub volume: u32,
    /// In the last while.
    pub window: Duration,
    /// Statuses that are failures, too, as inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
    /// For how long at most an instance is left alone that answers 429 or 503 with Retry-After; zero: not at all.
    pub retry_after: Duration,
}

impl Rules {
    /// Whether an answer with this status is a failure.
    pub fn counts_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }

    /// For how long an instance is left alone that answers so.
    pub fn rest(&self, status: u16, retry_after: Option<Duration>) -> Option<Duration> {
        let asked = retry_after.filter(|_| matches!(status, 429 | 503))?.min(self.retry_after);
        Some(asked).filter(|rest| !rest.is_zero())
    }
}

/// What is held against one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strikes {
    /// Failures in a row.
    run: u32,
    /// Times in a row that it was taken out.
    times: u32,
    /// It is out until then; the end of the last time, once that is past.
    until: Option<Now>,
}

/// How an instance stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is held against it.
    Good,
    /// It is out.
    Out,
    /// Its time is over, and it has answered nothing since: it gets one request at a time.
    OnTrial,
}

/// Whether one more may be out, of `total` instances of which `others_out` are.
pub fn within_share(others_out: usize, total: usize, rules: &Rules) -> bool {
    (others_out + 1) * 100 <= total * rules.share as usize
}

/// Whether a failure is the instance's own. A kept connection that turned out closed is not: its idle time was over. Neither is a broken
/// answer, which may be one route's.
pub fn counts(at: FailedAt) -> bool {
    matches!(at, FailedAt::Connect | FailedAt::BeforeAnswer | FailedAt::Timeout)
}

impl Strikes {
    /// An exchange was answered, with whatever status.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// An exchange failed, and it [`counts`]. `others_out`: how many of the `total` instances are out beside this one. Says for how long it
    /// is taken out now, if it is.
    pub fn failed(&mut self, now: Now, others_out: usize, total: usize, rules: &Rules) -> Option<Duration> {
        let standing = self.standing(now);
        if standing == Standing::Out {
            // The last of those that were under way when it was taken out.
            return None;
        }
        self.run = self.run.saturating_add(1);
        let enough = standing == Standing::OnTrial || self.run >= rules.after;
        if enough { self.take_out(now, others_out, total, rules) } else { None }
    }

    /// So large a share of its exchanges fails that it is taken out, whatever their order was. Says for how long, if it is.
    pub fn take_out(&mut self, now: Now, others_out: usize, total: usize, rules: &Rules) -> Option<Duration> {
        if self.standing(now) == Standing::Out || !within_share(others_out, total, rules) {
            return None;
        }
        let time = rules.time.saturating_mul(1 << self.times.min(16)).min(rules.most);
        self.times += 1;
        self.until = Some(now.plus(time));
        Some(time)
    }

    /// How it stands.
    pub fn standing(&self, now: Now) -> Standing {
        match self.until {
            None => Standing::Good,
            Some(until) if now < until => Standing::Out,
            Some(_) => Standing::OnTrial,
        }
    }

    /// Whether anything is held against it.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// When its time is over, or was.
    pub fn until(&self) -> Option<Now> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        after: 3,
        time: Duration::from_secs(1),
        most: Duration::from_secs(5),
        share: 50,
        rate: 50,
        volume: 20,
        window: Duration::from_secs(10),
        statuses: Vec::new(),
        retry_after: Duration::from_secs(5),
    };

    fn at(seconds: u64) -> Now {
        Now::from_millis(seconds * 1000)
    }

    fn failures(strikes: &mut Strikes, count: u32, now: Now) -> Option<Duration> {
        (0..count).map(|_| strikes.failed(now, 0, 3, &RULES)).last().flatten()
    }

    #[test]
    fn failures_in_a_row_take_it_out() {
        let mut strikes = Strikes::default();
        assert_eq!(failures(&mut strikes, 2, at(0)), None);
        strikes.answered();
        assert_eq!(failures(&mut strikes, 2, at(0)), None, "an answer between starts the count anew");
        assert_eq!(failures(&mut strikes, 1, at(0)), Some(Duration::from_secs(1)));
        assert_eq!(strikes.standing(at(0)), Standing::Out);
        assert_eq!(strikes.standing(at(1)), Standing::OnTrial);
    }

    #[test]
    fn on_trial_one_failure_takes_it_out_for_longer_and_one_answer_acquits_it() {
        let mut strikes = Strikes::default();
        failures(&mut strikes, 3, at(0));
        let mut times = Vec::new();
        for now in [10, 20, 30, 40] {
            times.extend(failures(&mut strikes, 1, at(now)).map(|time| time.as_secs()));
        }
        assert_eq!(times, [2, 4, 5, 5], "each time twice as long, up to the most");
        strikes.answered();
        assert_eq!(strikes.standing(at(50)), Standing::Good);
        assert_eq!(failures(&mut strikes, 2, at(50)), None, "and it has its full count again");
        assert_eq!(failures(&mut strikes, 1, at(50)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_was_under_way_when_it_was_taken_out_changes_nothing() {
        let mut strikes = Strikes::default();
        failures(&mut strikes, 3, at(0));
        let before = strikes;
        assert_eq!(failures(&mut strikes, 60, at(0)), None);
        assert_eq!(strikes, before);
    }

    #[test]
    fn a_share_of_failures_takes_it_out_as_many_in_a_row_do() {
        let mut strikes = Strikes::default();
        let taken = |strikes: &mut Strikes, now, others| strikes.take_out(at(now), others, 3, &RULES);
        assert_eq!(taken(&mut strikes, 0, 1), None, "not beyond the share");
        assert_eq!(taken(&mut strikes, 0, 0), Some(Duration::from_secs(1)));
        assert_eq!(taken(&mut strikes, 0, 0), None, "it is out");
        assert_eq!(taken(&mut strikes, 1, 0), Some(Duration::from_secs(2)), "each time in a row for longer");
    }

    #[test]
    fn who_asks_to_be_left_alone_is_so_within_limits() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (status, asked, rests) in [
            (503, seconds(2), seconds(2)),
            (429, seconds(2), seconds(2)),
            (503, seconds(60), seconds(5)),
            (503, seconds(0), None),
            (503, None, None),
            (500, seconds(2), None),
            (200, seconds(2), None),
        ] {
            assert_eq!(RULES.rest(status, asked), rests, "{status}, {asked:?}");
        }
        let never = Rules { retry_after: Duration::ZERO, ..RULES };
        assert_eq!(never.rest(503, seconds(2)), None);
    }

    #[test]
    fn no_more_than_a_share_is_out() {
        for (others_out, total, share, out) in [
            (0, 1, 50, false),
            (0, 2, 50, true),
            (1, 2, 50, false),
            (0, 3, 50, true),
            (1, 3, 50, false),
            (1, 4, 50, true),
            (2, 3, 100, true),
            (0, 3, 10, false),
        ] {
            let mut strikes = Strikes::default();
            let rules = Rules { share, after: 1, ..RULES };
            let taken = strikes.failed(at(0), others_out, total, &rules);
            assert_eq!(taken.is_some(), out, "{others_out} others of {total} are out, {share} % may be");
        }
    }

    #[test]
    fn only_the_instances_own_failures_count() {
        use FailedAt::{BeforeAnswer, Connect, DuringAnswer, ReusedConnection, Timeout};
        for (failed, held_against) in [
            (Connect, true),
            (BeforeAnswer, true),
            (Timeout, true),
            (ReusedConnection, false),
            (DuringAnswer, false),
        ] {
            assert_eq!(counts(failed), held_against, "{failed:?}");
        }
    }
}
