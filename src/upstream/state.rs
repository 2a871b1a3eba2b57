//! How each endpoint stands, why and since when, as an operator is told; and what an operator may say about it while the gateway runs.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Endpoint, Group};
use crate::balance::Picker;
use crate::balance::eject::Standing;
use crate::base::clock::MonoTime;
use crate::base::unit::show_duration;

/// How an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It has its share.
    Up,
    /// It is back, and its share grows.
    Warming,
    /// Its time out is over, and it gets one request at a time.
    OnTrial,
    /// What happened to requests took it out.
    Ejected,
    /// It asked to be left alone for a while (Retry-After).
    Resting,
    /// Its checks fail.
    Down,
    /// It takes no new requests, as an operator said, and some are in flight.
    Draining,
    /// The same, and none is in flight.
    Drained,
    /// Its weight is 0.
    Idle,
    /// Its name has never resolved.
    Unresolved,
}

/// What an operator is told about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How it stands.
    pub condition: Condition,
    /// Why, where there is more to say.
    pub reason: String,
    /// For how long.
    pub lasted: Duration,
}

/// What an operator says about an endpoint; it holds until the gateway ends, or the opposite is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It takes no new requests; what is in flight is finished.
    Drain,
    /// It takes requests again, and nothing that happened to requests is held against it.
    Ready,
    /// Its share.
    Weight(u32),
}

/// What is known against an endpoint, in words.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) check: String,
    pub(super) requests: String,
    pub(super) name: String,
}

impl Condition {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Up,
        Self::Warming,
        Self::OnTrial,
        Self::Ejected,
        Self::Resting,
        Self::Down,
        Self::Draining,
        Self::Drained,
        Self::Idle,
        Self::Unresolved,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Warming => "warming",
            Self::OnTrial => "on-trial",
            Self::Ejected => "ejected",
            Self::Resting => "resting",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Unresolved => "unresolved",
        }
    }
}

impl Group {
    /// How every endpoint stands, in the plan's order.
    pub fn states(&self) -> Vec<State> {
        let now = self.clock.mono();
        let slow_start = self.slow_start();
        self.endpoints.iter().map(|endpoint| endpoint.state(now, slow_start)).collect()
    }

    /// Shows in the metrics how every endpoint stands. Time alone changes that, so it is to be asked for when they are read.
    pub fn show_states(&self) {
        for (index, state) in self.states().into_iter().enumerate() {
            self.report.state(index, state.condition.as_str(), state.lasted);
        }
    }

    pub(super) fn slow_start(&self) -> Duration {
        self.plan.health.as_ref().map_or(Duration::ZERO, |health| health.slow_start)
    }

    /// Does what an operator says about endpoint `index`; `false` when there is none.
    pub fn obey(self: &std::sync::Arc<Self>, index: usize, order: Order) -> bool {
        let Some(endpoint) = self.endpoints.get(index) else { return false };
        endpoint.obey(order, self.clock.mono());
        if matches!(order, Order::Weight(_)) {
            self.picker.store(std::sync::Arc::new(self.new_picker()));
        }
        tracing::info!(upstream = %self.name(), endpoint = endpoint.name(), ?order, "an operator's order is obeyed");
        self.serve_waiting();
        true
    }

    /// A picker for the weights of now.
    pub(super) fn new_picker(&self) -> Picker {
        let identities: Vec<_> =
            self.endpoints.iter().map(|e| (e.name().to_owned(), e.weight.load(Ordering::Relaxed))).collect();
        Picker::new(&self.plan.balance, &identities)
    }
}

impl Endpoint {
    /// Its share, as it was last said.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Whether it is used only while no other is up.
    pub fn is_backup(&self) -> bool {
        self.backup
    }

    fn obey(&self, order: Order, now: MonoTime) {
        match order {
            Order::Drain => {
                if !self.drained.swap(true, Ordering::Relaxed) {
                    self.changed_at(now);
                }
            }
            Order::Ready => {
                self.change_strikes(super::Strikes::answered);
                self.rests_until.store(0, Ordering::Relaxed);
                if self.drained.swap(false, Ordering::Relaxed) {
                    self.returned.store(now.as_nanos(), Ordering::Relaxed);
                    self.changed_at(now);
                }
            }
            Order::Weight(weight) => {
                let before = self.weight.swap(weight, Ordering::Relaxed);
                if (before == 0) != (weight == 0) {
                    self.changed_at(now);
                }
            }
        }
    }

    /// Its condition may have changed by what happened now.
    pub(super) fn changed_at(&self, now: MonoTime) {
        self.changed.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self, now: MonoTime, slow_start: Duration) -> State {
        let changed = MonoTime::from_nanos(self.changed.load(Ordering::Relaxed));
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let until = MonoTime::from_nanos(self.out_until.load(Ordering::Relaxed));
        let warm_at = MonoTime::from_nanos(self.returned.load(Ordering::Relaxed)).plus(slow_start);
        let (condition, reason, since) = if !self.resolved.load(Ordering::Acquire) {
            (Condition::Unresolved, notes.name.clone(), changed)
        } else if self.drained.load(Ordering::Relaxed) {
            let left = self.in_flight();
            let condition = if left > 0 { Condition::Draining } else { Condition::Drained };
            (condition, "as an operator said".to_owned(), changed)
        } else if self.weight() == 0 {
            (Condition::Idle, "its weight is 0".to_owned(), changed)
        } else if !self.is_up() {
            (Condition::Down, notes.check.clone(), self.since())
        } else {
            match self.standing(now) {
                Standing::Out if self.rests(now) => {
                    let until = MonoTime::from_nanos(self.rests_until.load(Ordering::Relaxed));
                    let left = show_duration(until.since(now));
                    (Condition::Resting, format!("its Retry-After says so; asked again in {left}"), changed)
                }
                Standing::Out => {
                    let left = show_duration(until.since(now));
                    (Condition::Ejected, format!("{}; tried again in {left}", notes.requests), changed)
                }
                Standing::OnTrial => (Condition::OnTrial, notes.requests.clone(), until),
                Standing::Good if self.warmth(now, slow_start) < 100 => {
                    let share = self.warmth(now, slow_start);
                    (Condition::Warming, format!("it gets {share} % of its share"), changed)
                }
                Standing::Good if warm_at < now && warm_at > changed => {
                    (Condition::Up, String::new(), warm_at)
                }
                Standing::Good => (Condition::Up, String::new(), changed),
            }
        };
        State { condition, reason, lasted: now.since(since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::STATES;

    #[test]
    fn metrics_know_every_condition() {
        assert_eq!(Condition::ALL.map(Condition::as_str), STATES);
    }
}
