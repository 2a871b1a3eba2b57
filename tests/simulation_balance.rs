//! A fleet in virtual time: instances that are slow, silent, refuse, flap in their checks, join with a weight and leave with none; requests that
//! come, wait for nothing, and end. Whatever happens, the rules of `balance` keep their promises.
//!
//! Each run is made from a seed, which a failure tells; `SEED=n` runs that one alone.

use std::collections::BinaryHeap;
use std::time::Duration;

use vanne::balance::HashOn;
use vanne::balance::eject::{self, Rules, Standing, Strikes};
use vanne::balance::ewma::Meter;
use vanne::balance::health::Tally;
use vanne::balance::retry::FailedAt;
use vanne::balance::{Candidate, Choice, Method, Picker, Room};
use vanne::base::clock::MonoTime;
use vanne::base::dice::Dice;

const METHODS: [Method; 7] = [
    Method::RoundRobin,
    Method::LeastConn,
    Method::IpHash,
    Method::ConsistentHash { on: HashOn::Client, load: 0 },
    Method::ConsistentHash { on: HashOn::Client, load: 150 },
    Method::P2c { decay: Duration::from_secs(2) },
    Method::Random,
];
const RUNS: u64 = 24;
/// Virtual milliseconds of one run.
const LENGTH: u64 = 30_000;
const SIZE: u32 = 4;
const OVERFLOW: u32 = 3;
/// How long a silent instance is waited for, in milliseconds.
const SILENCE: u64 = 500;

/// How an instance behaves at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Slow,
    Refuses,
    Silent,
}

struct Instance {
    mood: Mood,
    weight: u32,
    in_flight: u32,
    tally: Tally,
    strikes: Strikes,
    meter: Meter,
    answers: u64,
}

/// The end of an exchange: when, with whom, how, and when it began. The earliest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ending(std::cmp::Reverse<u64>, usize, bool, u64);

struct Fleet {
    seed: u64,
    now: u64,
    dice: Dice,
    method: Method,
    picker: Picker,
    rules: Rules,
    instances: Vec<Instance>,
    endings: BinaryHeap<Ending>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::seeded(seed);
        let method = METHODS[dice.below(METHODS.len())].clone();
        let weights: Vec<u32> = (0..2 + dice.below(8)).map(|_| 1 + dice.below(5) as u32).collect();
        let endpoints: Vec<_> =
            weights.iter().enumerate().map(|(i, w)| (format!("10.0.0.{i}:80"), *w)).collect();
        let instance = |weight: &u32| Instance {
            mood: Mood::Well,
            weight: *weight,
            in_flight: 0,
            tally: Tally::new(2, 2),
            strikes: Strikes::default(),
            meter: Meter::default(),
            answers: 0,
        };
        Self {
            seed,
            now: 0,
            picker: Picker::new(&method, &endpoints),
            method,
            rules: Rules {
                after: 3,
                time: Duration::from_secs(1),
                most: Duration::from_secs(4),
                share: 50,
                rate: 0,
                volume: 20,
                window: Duration::from_secs(10),
                statuses: Vec::new(),
                retry_after: Duration::ZERO,
            },
            instances: weights.iter().map(instance).collect(),
            endings: BinaryHeap::new(),
            dice,
        }
    }

    fn time(&self) -> MonoTime {
        MonoTime::from_millis(self.now)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let now = self.time();
        let candidate = |i: &Instance| Candidate {
            weight: i.weight,
            in_flight: i.in_flight,
            up: i.tally.is_up()
                && match i.strikes.standing(now) {
                    Standing::Good => true,
                    Standing::OnTrial => i.in_flight == 0,
                    Standing::Out => false,
                },
            room: Room::of(i.in_flight, SIZE, OVERFLOW),
            backup: false,
            meter: i.meter,
        };
        self.instances.iter().map(candidate).collect()
    }

    fn step(&mut self) {
        self.now += 1;
        while self.endings.peek().is_some_and(|ending| ending.0.0 <= self.now) {
            self.end();
        }
        if self.now.is_multiple_of(250) {
            self.change_moods();
            self.check();
        }
        for _ in 0..self.dice.below(3) {
            self.request();
        }
        self.holds();
    }

    fn change_moods(&mut self) {
        let at = self.dice.below(self.instances.len());
        // At most half are unwell, so that somebody can answer.
        let unwell = self.instances.iter().filter(|i| i.mood != Mood::Well).count();
        let mood = if unwell * 2 >= self.instances.len() { 0 } else { self.dice.below(6) };
        let instance = &mut self.instances[at];
        instance.mood =
            [Mood::Well, Mood::Slow, Mood::Refuses, Mood::Silent].get(mood).copied().unwrap_or(Mood::Well);
        let others = self.instances.len() > 2 && at != 0;
        if others && self.dice.below(10) == 0 {
            self.instances[at].weight = self.dice.below(6) as u32;
        }
    }

    fn check(&mut self) {
        for instance in &mut self.instances {
            // A check of one that is silent fails, unless it happens to get through: that one flaps.
            let ok = match instance.mood {
                Mood::Well | Mood::Slow => true,
                Mood::Refuses => false,
                Mood::Silent => self.dice.below(2) == 0,
            };
            instance.tally.record(ok);
        }
    }

    fn request(&mut self) {
        let mut tried = Vec::new();
        let client = self.dice.any_u64();
        loop {
            let (candidates, now) = (self.candidates(), self.time());
            let chosen = self.picker.pick(&mut Choice {
                candidates: &candidates,
                tried: &tried,
                bound: None,
                key: Some(client),
                now,
                dice: &mut self.dice,
            });
            self.is_right(chosen, &candidates, &tried);
            let Some(chosen) = chosen else { return };
            tried.push(chosen);
            if self.instances[chosen].mood == Mood::Refuses {
                self.failed(chosen, FailedAt::Connect);
                continue;
            }
            let takes = match self.instances[chosen].mood {
                Mood::Silent => SILENCE,
                Mood::Slow => 50 + self.dice.below(200) as u64,
                _ => 1 + self.dice.below(8) as u64,
            };
            let answers = self.instances[chosen].mood != Mood::Silent;
            self.instances[chosen].in_flight += 1;
            self.endings.push(Ending(std::cmp::Reverse(self.now + takes), chosen, answers, self.now));
            return;
        }
    }

    fn end(&mut self) {
        let Some(Ending(_, at, answered, began)) = self.endings.pop() else { return };
        if let Method::P2c { decay } = self.method {
            let took = Duration::from_millis(self.now - began);
            self.instances[at].meter = self.instances[at].meter.with(self.time(), took, decay);
        }
        self.instances[at].in_flight -= 1;
        if answered {
            self.instances[at].answers += 1;
            self.instances[at].strikes.answered();
        } else {
            self.failed(at, FailedAt::Timeout);
        }
    }

    fn failed(&mut self, at: usize, how: FailedAt) {
        assert!(eject::counts(how));
        let now = self.time();
        let out =
            |(i, instance): &(usize, &Instance)| *i != at && instance.strikes.standing(now) == Standing::Out;
        let others = self.instances.iter().enumerate().filter(out).count();
        let total = self.instances.len();
        self.instances[at].strikes.failed(now, others, total, &self.rules);
    }

    /// What was chosen is one that may be, and nobody was chosen only when nobody may be.
    fn is_right(&self, chosen: Option<usize>, candidates: &[Candidate], tried: &[usize]) {
        let left = |i: &usize| candidates[*i].weight > 0 && !tried.contains(i);
        let some_up = (0..candidates.len()).filter(left).any(|i| candidates[i].up);
        let may = |i: &usize| left(i) && (candidates[*i].up || !some_up) && candidates[*i].room != Room::Full;
        let free = |i: &usize| may(i) && candidates[*i].room == Room::Free;
        let somebody_free = (0..candidates.len()).any(|i| free(&i));
        match chosen {
            Some(i) => {
                self.expect(may(&i), &format!("{i} may not be chosen among {candidates:?}, tried {tried:?}"));
                self.expect(
                    free(&i) || !somebody_free,
                    &format!("{i} is in its overflow while another is free"),
                );
            }
            None => {
                let somebody = (0..candidates.len()).any(|i| may(&i));
                self.expect(!somebody, &format!("nobody is chosen among {candidates:?}, tried {tried:?}"));
            }
        }
    }

    /// What holds at every moment.
    fn holds(&self) {
        let now = self.time();
        let out = self.instances.iter().filter(|i| i.strikes.standing(now) == Standing::Out).count();
        self.expect(out * 100 <= self.instances.len() * 50, "more than their share are out");
        self.expect(
            self.instances.iter().all(|i| i.in_flight <= SIZE + OVERFLOW),
            "an instance has too many",
        );
    }

    fn expect(&self, holds: bool, what: &str) {
        assert!(holds, "seed {} ({:?}), {} ms: {what}", self.seed, self.method, self.now);
    }

    /// All are well again: the places come back, and so do the instances.
    fn recover(&mut self) {
        for instance in &mut self.instances {
            instance.mood = Mood::Well;
            instance.weight = instance.weight.max(1);
        }
        for _ in 0..10_000 {
            self.now += 1;
            while self.endings.peek().is_some_and(|ending| ending.0.0 <= self.now) {
                self.end();
            }
            if self.now.is_multiple_of(250) {
                self.check();
            }
            self.request();
        }
        let before: Vec<u64> = self.instances.iter().map(|i| i.answers).collect();
        for _ in 0..3000 {
            self.now += 1;
            while self.endings.peek().is_some_and(|ending| ending.0.0 <= self.now) {
                self.end();
            }
            self.request();
        }
        for (i, before) in before.into_iter().enumerate() {
            self.expect(self.instances[i].answers > before, &format!("{i} is well and gets nothing"));
        }
        self.now += 10 * SILENCE;
        while !self.endings.is_empty() {
            self.end();
        }
        self.expect(self.instances.iter().all(|i| i.in_flight == 0), "a place was not given back");
    }
}

#[test]
fn whatever_happens_to_a_fleet_the_rules_keep_their_promises() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in one.map_or(0..RUNS, |seed| seed..seed + 1) {
        let mut fleet = Fleet::new(seed);
        while fleet.now < LENGTH {
            fleet.step();
        }
        fleet.recover();
    }
}
