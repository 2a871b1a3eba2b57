//! How many requests may be tried again: a share of those that come.
//!
//! Trying again helps while a few fail. Where all do, it multiplies the load on instances that are down because of their load; the budget is what
//! keeps one from becoming the other (Google SRE book, "Handling Overload", per-client retry budget).

use std::time::Duration;

use super::Now;

/// The time over which requests and retries are compared.
const WINDOW: Duration = Duration::from_secs(10);

/// What may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// So many retries for a hundred requests.
    pub share: u32,
    /// So many a second in any case, so that a few clients can be helped, too.
    pub least: u32,
}

/// The retries of one upstream. Fades over the window: what happened longer ago does not count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// When it was last reckoned.
    at: Now,
    /// All requests until then.
    seen: u64,
    /// Requests within the window.
    requests: f64,
    /// Retries within the window.
    retries: f64,
}

impl Budget {
    /// Takes one retry, when there is one left. `seen`: all requests there ever were.
    pub fn spend(&mut self, now: Now, seen: u64, rules: &Rules) -> bool {
        let passed = now.since(self.at).as_secs_f64() / WINDOW.as_secs_f64();
        let kept = (1.0 - passed).max(0.0);
        let new = seen.saturating_sub(self.seen) as f64;
        // Those that came while nobody reckoned came evenly, for all that is known.
        self.requests = self.requests * kept + new / passed.max(1.0);
        self.retries *= kept;
        (self.at, self.seen) = (now, seen);
        let least = f64::from(rules.least) * WINDOW.as_secs_f64();
        let allowed = self.requests * f64::from(rules.share) / 100.0 + least;
        let left = self.retries + 1.0 <= allowed + 1e-9;
        if left {
            self.retries += 1.0;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { share: 20, least: 2 };

    fn at(millis: u64) -> Now {
        Now::from_millis(millis)
    }

    /// How many of `wanted` retries are allowed at one moment.
    fn spent(budget: &mut Budget, now: u64, seen: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| budget.spend(at(now), seen, &RULES)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_a_few_more_may_be_tried_again() {
        for (seen, allowed) in [(0, 20), (100, 40), (1000, 220)] {
            assert_eq!(spent(&mut Budget::default(), 0, seen, 1000), allowed, "after {seen} requests");
        }
    }

    #[test]
    fn what_was_spent_comes_back_over_the_window() {
        let mut budget = Budget::default();
        assert_eq!(spent(&mut budget, 0, 0, 100), 20);
        assert_eq!(spent(&mut budget, 0, 0, 100), 0);
        assert_eq!(spent(&mut budget, 1000, 0, 100), 2);
        assert_eq!(spent(&mut budget, 11_000, 0, 100), 20);
    }

    #[test]
    fn when_everything_fails_retries_stay_a_share_of_the_load() {
        let mut budget = Budget::default();
        let mut retries = 0;
        // A thousand requests a second for a minute, each of which would be tried again.
        for request in 1..=60_000u64 {
            retries += usize::from(budget.spend(at(request), request, &RULES));
        }
        assert!((11_000..13_000).contains(&retries), "{retries} retries of 60,000 requests");
    }

    #[test]
    fn requests_of_long_ago_earn_nothing() {
        let mut budget = Budget::default();
        spent(&mut budget, 0, 100_000, 1);
        assert_eq!(spent(&mut budget, 60_000, 100_000, 1000), 20);
        // Six hundred in a minute are a hundred in the window.
        assert_eq!(spent(&mut budget, 120_000, 100_600, 1000), 40);
    }
}
