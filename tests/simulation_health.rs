//! One upstream in virtual time: instances that break, answer badly, flap in their checks and heal, a database behind all of them that goes away
//! and comes back, clients that leave. Whatever happens, ejection, checks, breaker and panic keep their promises together.
//!
//! Each run is made from a seed, which a failure tells; `SEED=n` runs that one alone.

use std::time::Duration;

use vanne::balance::breaker::{self, Admission, Breaker, Circuit, End, Ticket};
use vanne::balance::eject::{Rules, Standing, Strikes};
use vanne::balance::health::Tally;
use vanne::balance::panic::{Census, Mode, judge};
use vanne::balance::window::{Count, Window};
use vanne::base::clock::MonoTime;
use vanne::base::dice::Dice;

const RUNS: u64 = 40;
/// Virtual milliseconds of one run.
const LENGTH: u64 = 60_000;
const WINDOW: Duration = Duration::from_secs(2);
const PROBES: u32 = 3;

struct Instance {
    broken: bool,
    tally: Tally,
    strikes: Strikes,
    window: Window,
    answers: u64,
}

/// A request under way: when it ends, where, how it was let through.
struct Exchange(u64, usize, Ticket);

struct World {
    seed: u64,
    now: u64,
    dice: Dice,
    rules: Rules,
    share: u32,
    instances: Vec<Instance>,
    database_gone: bool,
    breaker: Breaker,
    under_way: Vec<Exchange>,
    passed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::seeded(seed);
        let instance = |_| Instance {
            broken: false,
            tally: Tally::new(2, 2),
            strikes: Strikes::default(),
            window: Window::new(WINDOW),
            answers: 0,
        };
        let rules = Rules {
            after: 2 + dice.below(4) as u32,
            time: Duration::from_millis(500),
            most: Duration::from_secs(2),
            share: [34, 50, 100][dice.below(3)],
            rate: [0, 30, 60][dice.below(3)],
            volume: 10,
            window: WINDOW,
            statuses: Vec::new(),
            retry_after: Duration::ZERO,
        };
        let circuit = breaker::Rules {
            share: 60,
            least: 20,
            window: WINDOW,
            pause: Duration::from_millis(400),
            most: Duration::from_secs(2),
            probes: PROBES,
            statuses: Vec::new(),
        };
        Self {
            seed,
            now: 0,
            rules,
            share: [0, 30, 60][dice.below(3)],
            instances: (0..2 + dice.below(6)).map(instance).collect(),
            database_gone: false,
            breaker: Breaker::new(circuit),
            under_way: Vec::new(),
            passed: 0,
            dice,
        }
    }

    fn time(&self) -> MonoTime {
        MonoTime::from_millis(self.now)
    }

    fn step(&mut self, troubled: bool) {
        self.now += 1;
        if self.now.is_multiple_of(100) {
            self.check();
            if troubled {
                self.change();
            }
        }
        let now = self.now;
        while let Some(at) = self.under_way.iter().position(|exchange| exchange.0 <= now) {
            let exchange = self.under_way.swap_remove(at);
            self.end(exchange);
        }
        for _ in 0..self.dice.below(3) {
            self.request();
        }
        self.holds();
    }

    fn change(&mut self) {
        let at = self.dice.below(self.instances.len());
        self.instances[at].broken = self.dice.below(3) == 0;
        match self.dice.below(40) {
            0 => self.database_gone = true,
            1..=4 => self.database_gone = false,
            _ => {}
        }
    }

    fn check(&mut self) {
        for at in 0..self.instances.len() {
            // A check of a broken instance gets through now and then.
            let well = !self.instances[at].broken || self.dice.below(4) == 0;
            match self.dice.below(50) {
                0 => self.instances[at].tally.withdraw(),
                _ => self.instances[at].tally.record(well),
            };
        }
    }

    fn request(&mut self) {
        let before = self.breaker.circuit(self.time());
        let ticket = match self.breaker.admit(self.time()) {
            Admission::Passes(ticket) => ticket,
            Admission::Refused(wait) => {
                self.expect(before != Circuit::Closed, "a closed circuit refuses");
                self.expect(!wait.is_zero(), "who is refused is told to come back at once");
                return;
            }
        };
        self.expect(before != Circuit::Open, "an open circuit lets a request through");
        let Some(at) = self.choose() else {
            self.told(ticket, End::Nothing);
            return;
        };
        self.passed += 1;
        let takes = 1 + self.dice.below(20) as u64;
        self.under_way.push(Exchange(self.now + takes, at, ticket));
    }

    /// As the gateway does: those that are up and not out, or all when too few are.
    fn choose(&mut self) -> Option<usize> {
        let now = self.time();
        let up: Vec<bool> = self
            .instances
            .iter()
            .map(|i| i.tally.is_up() && i.strikes.standing(now) != Standing::Out)
            .collect();
        let count = up.iter().filter(|up| **up).count();
        let census = Census { primaries: up.len(), primaries_up: count, backups_up: 0 };
        let mode = judge(census, self.share);
        let enough = count > 0 && count * 100 >= up.len() * self.share as usize;
        self.expect((mode == Mode::Everyone) != enough, "all are used exactly when too few are up");
        let usable: Vec<usize> = (0..up.len()).filter(|at| up[*at] || mode == Mode::Everyone).collect();
        self.expect(!usable.is_empty(), "there is always somebody to ask");
        usable.get(self.dice.below(usable.len())).copied()
    }

    fn end(&mut self, Exchange(_, at, ticket): Exchange) {
        let now = self.time();
        if self.dice.below(20) == 0 {
            // Its client left.
            return self.told(ticket, End::Nothing);
        }
        let well = !self.instances[at].broken && !self.database_gone;
        self.instances[at].window.record(now, well);
        if well {
            self.instances[at].answers += 1;
            self.instances[at].strikes.answered();
            return self.told(ticket, End::Well);
        }
        self.strike(at);
        self.told(ticket, End::Failed);
    }

    fn strike(&mut self, at: usize) {
        let now = self.time();
        let others = || self.instances.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, i)| i);
        let out = others().filter(|i| i.strikes.standing(now) == Standing::Out).count();
        let better: Count = others().map(|i| i.window.count(now)).sum();
        let (total, own) = (self.instances.len(), self.instances[at].window.count(now));
        let by_rate = self.rules.rate > 0
            && own.fails(self.rules.rate, self.rules.volume)
            && better.is_clearly_better_than(&own);
        let instance = &mut self.instances[at];
        let mut taken = instance.strikes.failed(now, out, total, &self.rules);
        if taken.is_none() && by_rate {
            taken = instance.strikes.take_out(now, out, total, &self.rules);
        }
        if let Some(time) = taken {
            instance.window.clear();
            self.expect(time <= self.rules.most, "one is out for longer than the most");
        }
    }

    fn told(&mut self, ticket: Ticket, end: End) {
        let now = self.time();
        match self.breaker.ended(now, ticket, end) {
            Some(Circuit::Closed) => self.expect(end == End::Well, "a failure closes the circuit"),
            Some(_) => self.expect(end == End::Failed, "what is no failure opens the circuit"),
            None => {}
        }
    }

    fn holds(&self) {
        let now = self.time();
        let out = self.instances.iter().filter(|i| i.strikes.standing(now) == Standing::Out).count();
        let most = self.instances.len() * self.rules.share as usize;
        self.expect(out * 100 <= most, "more than their share are out");
    }

    fn expect(&self, holds: bool, what: &str) {
        assert!(holds, "seed {}, {} ms: {what}", self.seed, self.now);
    }

    /// All heals: before long every request is let through, and every instance answers.
    fn recover(&mut self) {
        self.database_gone = false;
        self.instances.iter_mut().for_each(|instance| instance.broken = false);
        for _ in 0..6000 {
            self.step(false);
        }
        self.expect(self.breaker.circuit(self.time()) == Circuit::Closed, "the circuit stays open");
        let before: Vec<u64> = self.instances.iter().map(|i| i.answers).collect();
        let passed = self.passed;
        for _ in 0..3000 {
            self.step(false);
        }
        self.expect(self.passed > passed, "nothing is let through");
        for (at, before) in before.into_iter().enumerate() {
            self.expect(self.instances[at].answers > before, &format!("{at} is well and gets nothing"));
        }
    }
}

#[test]
fn whatever_fails_the_rules_of_health_keep_their_promises() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in one.map_or(0..RUNS, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        while world.now < LENGTH {
            world.step(true);
        }
        world.recover();
    }
}
