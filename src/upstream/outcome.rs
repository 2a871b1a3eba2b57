//! What became of exchanges, and what that means for the instance and for the upstream as a whole.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Endpoint, Group, NoPlace, Picked, Strikes, Wanted};
use crate::balance::breaker::{Admission, Breaker, Circuit, End, Ticket};
use crate::balance::eject::{self, Rules, Standing};
use crate::balance::retry::FailedAt;
use crate::balance::window::Count;
use crate::base::clock::MonoTime;
use crate::base::unit::show_duration;
use crate::plan::Priority;

impl Picked {
    /// The instance answered the exchange.
    pub fn answered(&mut self, status: u16, retry_after: Option<Duration>) {
        self.group.answered(self.index, status, retry_after);
        let failed = |breaker: &Arc<Mutex<Breaker>>| lock(breaker).counts(status);
        let end = if self.group.breaker.as_ref().is_some_and(failed) { End::Failed } else { End::Well };
        self.settle(end);
    }

    /// The exchange failed. Not to be told of what the client caused.
    pub fn failed(mut self, at: FailedAt) {
        self.group.failed(self.index, at);
        self.settle(if eject::counts(at) { End::Failed } else { End::Nothing });
    }

    /// Tells the breaker how it ended, once.
    pub(super) fn settle(&mut self, end: End) {
        if let Some(ticket) = self.ticket.take() {
            self.group.exchange_ended(ticket, end);
        }
    }
}

impl Group {
    /// Chooses an instance and counts the request as in flight there; waits for a place while all that may be used are full. Dropped while
    /// it waits, it leaves the queue.
    ///
    /// # Errors
    /// Why there is no place.
    pub async fn enter(self: &Arc<Self>, wanted: Wanted, priority: Priority) -> Result<Picked, NoPlace> {
        let Some(breaker) = &self.breaker else { return self.find_place(wanted, priority).await };
        let refused = lock(breaker).would_refuse(self.clock.mono());
        if let Some(retry_in) = refused {
            return Err(self.circuit_is_open(retry_in));
        }
        let mut picked = self.find_place(wanted, priority).await?;
        // It may have opened while the request waited.
        let admission = lock(breaker).admit(self.clock.mono());
        match admission {
            Admission::Passes(ticket) => {
                picked.ticket = Some(ticket);
                Ok(picked)
            }
            Admission::Refused(retry_in) => Err(self.circuit_is_open(retry_in)),
        }
    }

    fn circuit_is_open(&self, retry_in: Duration) -> NoPlace {
        self.report.rejected("circuit-open");
        NoPlace::CircuitOpen(retry_in)
    }

    /// How the circuit stands; `None` without a breaker.
    pub fn circuit(&self) -> Option<Circuit> {
        self.breaker.as_ref().map(|breaker| lock(breaker).circuit(self.clock.mono()))
    }

    fn exchange_ended(&self, ticket: Ticket, end: End) {
        let Some(breaker) = &self.breaker else { return };
        let now = self.clock.mono();
        let (changed, wait) = {
            let mut breaker = lock(breaker);
            (breaker.ended(now, ticket, end), breaker.would_refuse(now))
        };
        let upstream = self.name();
        match changed {
            Some(Circuit::Open) => {
                self.report.circuit(true);
                let open_for = show_duration(wait.unwrap_or_default());
                tracing::warn!(%upstream, open_for, "upstream is not asked: its exchanges fail");
            }
            Some(Circuit::Closed) => {
                self.report.circuit(false);
                tracing::info!(%upstream, "upstream is asked again: its exchanges go well");
            }
            _ => {}
        }
    }

    /// Endpoint `index` answered an exchange.
    fn answered(&self, index: usize, status: u16, retry_after: Option<Duration>) {
        let (Some(rules), Some(endpoint)) = (&self.plan.eject, self.endpoints.get(index)) else { return };
        let now = self.clock.mono();
        if let Some(time) = rules.rest(status, retry_after) {
            self.leave_alone(endpoint, rules, time, now);
        }
        let bad = rules.counts_status(status);
        endpoint.record(rules, now, !bad);
        if bad && self.does_clearly_worse(endpoint, now) {
            self.strike(endpoint, rules, now, &format!("status {status}"));
        } else if endpoint.struck.load(Ordering::Relaxed) {
            endpoint.change_strikes(Strikes::answered);
            endpoint.changed_at(now);
        }
    }

    /// An exchange with endpoint `index` failed. Enough of them take it out for a while.
    fn failed(&self, index: usize, at: FailedAt) {
        let (Some(rules), Some(endpoint)) = (&self.plan.eject, self.endpoints.get(index)) else { return };
        if eject::counts(at) {
            let now = self.clock.mono();
            endpoint.record(rules, now, false);
            self.strike(endpoint, rules, now, at.as_str());
        }
    }

    /// One more failure of this endpoint, which may take it out.
    fn strike(&self, endpoint: &Endpoint, rules: &Rules, now: MonoTime, last: &str) {
        let (others_out, total) = (self.others_out(endpoint, now), self.endpoints.len());
        let own = endpoint.window(Count::default(), |window| window.count(now));
        let fails = rules.rate > 0 && own.fails(rules.rate, rules.volume);
        let by_rate = fails && self.does_clearly_worse(endpoint, now);
        let taken_out = endpoint.change_strikes(|strikes| {
            let in_a_row = strikes.failed(now, others_out, total, rules);
            in_a_row.or_else(|| by_rate.then(|| strikes.take_out(now, others_out, total, rules)).flatten())
        });
        let Some(time) = taken_out else { return };
        endpoint.window((), |window| window.clear());
        self.report.ejected(endpoint.index);
        endpoint.changed_at(now);
        endpoint.note(|notes| notes.requests = format!("exchanges with it failed, the last one: {last}"));
        let (upstream, endpoint, out_for) = (self.name(), endpoint.name(), show_duration(time));
        tracing::warn!(%upstream, endpoint, out_for, last, "endpoint is taken out: exchanges with it fail");
    }

    /// Whether the others fail less than half as often as this one. What all do alike is not this one's fault.
    fn does_clearly_worse(&self, endpoint: &Endpoint, now: MonoTime) -> bool {
        let own = endpoint.window(Count::default(), |window| window.count(now));
        let others = self.endpoints.iter().filter(|other| other.index != endpoint.index);
        let others: Count = others.map(|other| other.window(Count::default(), |w| w.count(now))).sum();
        others.is_clearly_better_than(&own)
    }

    /// The endpoint asked to be left alone.
    fn leave_alone(&self, endpoint: &Endpoint, rules: &Rules, time: Duration, now: MonoTime) {
        let others_out = self.others_out(endpoint, now);
        if endpoint.rests(now) || !eject::within_share(others_out, self.endpoints.len(), rules) {
            return;
        }
        endpoint.rests_until.store(now.plus(time).as_nanos(), Ordering::Relaxed);
        endpoint.changed_at(now);
        let (upstream, endpoint, rests_for) = (self.name(), endpoint.name(), show_duration(time));
        tracing::info!(%upstream, endpoint, rests_for, "endpoint is left alone, as its Retry-After says");
    }

    fn others_out(&self, endpoint: &Endpoint, now: MonoTime) -> usize {
        let is_out = |e: &&Arc<Endpoint>| e.index != endpoint.index && e.standing(now) == Standing::Out;
        self.endpoints.iter().filter(is_out).count()
    }
}

impl Endpoint {
    fn record(&self, rules: &Rules, now: MonoTime, well: bool) {
        if rules.rate > 0 || !rules.statuses.is_empty() {
            self.window((), |window| window.record(now, well));
        }
    }

    fn window<T>(&self, without: T, look: impl FnOnce(&mut crate::balance::window::Window) -> T) -> T {
        match &self.window {
            Some(window) => look(&mut lock(window)),
            None => without,
        }
    }

    /// Whether it is left alone because it asked for that.
    pub(super) fn rests(&self, now: MonoTime) -> bool {
        now.as_nanos() < self.rests_until.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
