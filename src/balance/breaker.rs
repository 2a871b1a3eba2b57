//! A circuit breaker: an upstream whose exchanges fail is not asked at all for a while, and then by a few requests at a time.
//!
//! Instances are taken out one by one (`eject`); the breaker is for what they have behind them all: a database that is down lets every request
//! wait and fail, and asking goes on hurting it.

use std::time::Duration;

use super::Now;
use super::window::Window;

/// When the circuit opens, and how it closes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// It opens when this share of the exchanges failed, in percent…
    pub share: u32,
    /// …of at least so many…
    pub least: u32,
    /// …in the last while.
    pub window: Duration,
    /// For how long it stays open the first time; each further time in a row twice as long.
    pub pause: Duration,
    /// But never longer than this.
    pub most: Duration,
    /// So many requests at once are let through on probation, and so many must go well; at least 1.
    pub probes: u32,
    /// The statuses that count as failures, as inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
}

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    rules: Rules,
    window: Window,
    state: State,
    /// Counts the changes of state: what was let through in one state tells nothing in the next.
    turn: u64,
    /// Times in a row that it opened.
    times: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Now },
    HalfOpen { under_way: u32, good: u32 },
}

/// What became of a request that asks to be let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may go.
    Passes(Ticket),
    /// It may not; asking again makes sense after so long.
    Refused(Duration),
}

/// Says in which state a request was let through. To be given back with how it ended, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// How a request ended, as far as the breaker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was answered.
    Well,
    /// It failed.
    Failed,
    /// It says nothing: its client left, say.
    Nothing,
}

/// How the circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Requests go through.
    Closed,
    /// None does.
    Open,
    /// A few do.
    HalfOpen,
}

impl Circuit {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Breaker {
    /// A closed circuit.
    pub fn new(rules: Rules) -> Self {
        let window = Window::new(rules.window);
        Self { rules, window, state: State::Closed, turn: 0, times: 0 }
    }

    /// Whether a request that comes now would be let through. Takes no ticket.
    pub fn would_refuse(&self, now: Now) -> Option<Duration> {
        match self.state {
            State::Open { until } if now < until => Some(until.since(now)),
            State::HalfOpen { under_way, .. } if under_way >= self.rules.probes => Some(self.rules.pause),
            _ => None,
        }
    }

    /// A request asks to be let through.
    pub fn admit(&mut self, now: Now) -> Admission {
        if let Some(wait) = self.would_refuse(now) {
            return Admission::Refused(wait);
        }
        if let State::Open { .. } = self.state {
            self.enter(State::HalfOpen { under_way: 0, good: 0 });
        }
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            *under_way += 1;
        }
        Admission::Passes(Ticket(self.turn))
    }

    /// A request that was let through ended. Says how the circuit stands when that changed it.
    pub fn ended(&mut self, now: Now, ticket: Ticket, end: End) -> Option<Circuit> {
        if ticket.0 != self.turn {
            return None;
        }
        match &mut self.state {
            State::Closed => {
                if end == End::Nothing {
                    return None;
                }
                self.window.record(now, end == End::Well);
                let fails =
                    end == End::Failed && self.window.count(now).fails(self.rules.share, self.rules.least);
                fails.then(|| self.open(now))
            }
            State::HalfOpen { under_way, good } => {
                *under_way -= 1;
                match end {
                    End::Nothing => None,
                    End::Failed => Some(self.open(now)),
                    End::Well => {
                        *good += 1;
                        (*good >= self.rules.probes).then(|| self.close())
                    }
                }
            }
            State::Open { .. } => None,
        }
    }

    fn open(&mut self, now: Now) -> Circuit {
        let pause = self.rules.pause.saturating_mul(1 << self.times.min(16)).min(self.rules.most);
        self.times += 1;
        self.enter(State::Open { until: now.plus(pause) });
        Circuit::Open
    }

    fn close(&mut self) -> Circuit {
        self.times = 0;
        self.window.clear();
        self.enter(State::Closed);
        Circuit::Closed
    }

    fn enter(&mut self, state: State) {
        self.turn += 1;
        self.state = state;
    }

    /// Whether an answer with this status counts as a failure.
    pub fn counts(&self, status: u16) -> bool {
        self.rules.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }

    /// How the circuit stands.
    pub fn circuit(&self, now: Now) -> Circuit {
        match self.state {
            State::Closed => Circuit::Closed,
            State::Open { until } if now < until => Circuit::Open,
            State::Open { .. } | State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Rules {
            share: 50,
            least: 4,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(1),
            most: Duration::from_secs(3),
            probes: 2,
            statuses: vec![(502, 504)],
        })
    }

    fn at(ms: u64) -> Now {
        Now::from_millis(ms)
    }

    fn ticket(breaker: &mut Breaker, now: Now) -> Ticket {
        match breaker.admit(now) {
            Admission::Passes(ticket) => ticket,
            Admission::Refused(wait) => panic!("refused for {wait:?}"),
        }
    }

    /// One request after the other: `+` goes well, `-` fails, `.` tells nothing.
    fn run(breaker: &mut Breaker, now: Now, ends: &str) -> Option<Circuit> {
        let mut last = None;
        for end in ends.chars() {
            let ticket = ticket(breaker, now);
            last = breaker.ended(
                now,
                ticket,
                match end {
                    '+' => End::Well,
                    '-' => End::Failed,
                    _ => End::Nothing,
                },
            );
        }
        last
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        assert_eq!(run(&mut breaker, at(0), "----"), Some(Circuit::Open));
        breaker
    }

    #[test]
    fn it_opens_when_enough_exchanges_failed() {
        for (ends, opens) in [
            ("---", false),
            ("----", true),
            ("++--", true),
            ("+++--", false),
            ("+++---", true),
            ("....---", false),
            ("++++++", false),
        ] {
            assert_eq!(run(&mut breaker(), at(0), ends).is_some(), opens, "{ends}");
        }
        let mut slow = breaker();
        run(&mut slow, at(0), "---");
        assert_eq!(run(&mut slow, at(11_000), "-"), None, "those of long ago do not count");
    }

    #[test]
    fn open_it_lets_nothing_through_until_its_time_is_over() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(at(0)), Admission::Refused(Duration::from_secs(1)));
        assert_eq!(breaker.admit(at(999)), Admission::Refused(Duration::from_millis(1)));
        assert_eq!(breaker.circuit(at(999)), Circuit::Open);
        assert_eq!(breaker.circuit(at(1000)), Circuit::HalfOpen);
        assert_eq!(breaker.would_refuse(at(1000)), None);
    }

    #[test]
    fn on_probation_a_few_go_at_once_and_their_success_closes_it() {
        let mut breaker = opened();
        let now = at(1000);
        let (one, two) = (ticket(&mut breaker, now), ticket(&mut breaker, now));
        assert!(matches!(breaker.admit(now), Admission::Refused(_)), "two are under way");
        assert_eq!(breaker.ended(now, one, End::Nothing), None);
        let three = ticket(&mut breaker, now);
        assert_eq!(breaker.ended(now, two, End::Well), None);
        assert_eq!(breaker.ended(now, three, End::Well), Some(Circuit::Closed));
        assert_eq!(run(&mut breaker, now, "---"), None, "the old failures are forgotten");
    }

    #[test]
    fn one_failure_on_probation_opens_it_for_longer() {
        let mut breaker = opened();
        let mut now = at(0);
        for seconds in [1, 2, 3, 3] {
            let until = now.plus(Duration::from_secs(seconds));
            assert_eq!(breaker.would_refuse(now), Some(until.since(now)));
            now = until;
            assert_eq!(run(&mut breaker, now, "-"), Some(Circuit::Open));
        }
        now = now.plus(Duration::from_secs(3));
        assert_eq!(run(&mut breaker, now, "++"), Some(Circuit::Closed));
        run(&mut breaker, now, "----");
        assert_eq!(breaker.would_refuse(now), Some(Duration::from_secs(1)), "closed, it begins anew");
    }

    #[test]
    fn what_was_let_through_before_it_opened_tells_nothing_after() {
        let mut breaker = breaker();
        let late: Vec<_> = (0..9).map(|_| ticket(&mut breaker, at(0))).collect();
        for ticket in &late[..4] {
            breaker.ended(at(0), *ticket, End::Failed);
        }
        let probe = ticket(&mut breaker, at(1000));
        for ticket in &late[4..8] {
            assert_eq!(breaker.ended(at(1000), *ticket, End::Well), None);
        }
        assert_eq!(breaker.circuit(at(1000)), Circuit::HalfOpen);
        assert_eq!(breaker.ended(at(1000), late[8], End::Failed), None);
        assert_eq!(breaker.ended(at(1000), probe, End::Well), None);
    }

    #[test]
    fn only_the_statuses_named_are_failures() {
        for (status, counts) in [(200, false), (500, false), (502, true), (504, true), (505, false)] {
            assert_eq!(breaker().counts(status), counts, "{status}");
        }
    }
}
