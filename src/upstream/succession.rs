//! An upstream that takes another's place when the configuration changes.
//!
//! Instances that both have keep what is known of them: whether they are up and since when, what requests hold against them, their addresses,
//! and their requests in flight, so that an instance limited to twenty requests is not given forty for being written about anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Endpoint, Group};
use crate::observe::metrics::UpstreamMetrics;
use crate::plan;

/// Upstreams that share instances with this one, before it and after it.
#[derive(Default)]
pub(super) struct Kin {
    /// Read at every request's end, where the lock would be felt.
    any: AtomicBool,
    /// The oldest first. One that nobody uses any longer is gone.
    elders: Mutex<Vec<Weak<Group>>>,
    heir: Mutex<Weak<Group>>,
}

impl Group {
    /// The upstream as planned anew, with what is known of the instances that stay. Requests that wait in this one's queue go on waiting
    /// there, and go first: they came first.
    pub fn succeeded_by(self: &Arc<Self>, plan: &plan::Upstream, metrics: UpstreamMetrics) -> Arc<Self> {
        // A circuit by other rules begins anew.
        let breaker = self.breaker.clone().filter(|_| plan.breaker == self.plan.breaker);
        let next = Self::made(plan, self.clock.clone(), Arc::new(metrics), breaker, &|endpoint| {
            if let Some(known) = self.endpoints.iter().find(|known| known.name == endpoint.name) {
                endpoint.take_over(known, self.plan.servers[known.index].weight);
            }
        });
        // By the weights as they are, which an operator may have changed.
        next.picker.store(Arc::new(next.new_picker()));
        let mut elders = self.elders();
        elders.push(Arc::downgrade(self));
        *next.kin.elders.lock().unwrap_or_else(PoisonError::into_inner) = elders;
        *self.kin.heir.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&next);
        for group in [self, &next] {
            group.kin.any.store(true, Ordering::Release);
        }
        next
    }

    /// Hands free places to those who wait, here and in upstreams that share instances with this one; whoever came first goes first.
    pub(super) fn serve_kin(self: &Arc<Self>) {
        if !self.kin.any.load(Ordering::Acquire) {
            return self.serve_waiting();
        }
        for elder in self.elders() {
            if let Some(elder) = elder.upgrade() {
                elder.serve_waiting();
            }
        }
        let mut next = Some(Arc::clone(self));
        while let Some(group) = next {
            group.serve_waiting();
            next = group.kin.heir.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        }
    }

    fn elders(&self) -> Vec<Weak<Group>> {
        let mut elders = self.kin.elders.lock().unwrap_or_else(PoisonError::into_inner);
        elders.retain(|elder| elder.strong_count() > 0);
        elders.clone()
    }
}

impl Endpoint {
    /// Goes on from what is known of the same instance, and what an operator said of it while the gateway ran; a weight only as long as the
    /// file goes on to say what it said before, `planned`.
    fn take_over(&mut self, known: &Endpoint, planned: u32) {
        self.drained.store(known.drained.load(Ordering::Relaxed), Ordering::Relaxed);
        if self.weight.load(Ordering::Relaxed) == planned {
            self.weight.store(known.weight.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.rests_until.store(known.rests_until.load(Ordering::Relaxed), Ordering::Relaxed);
        self.told_size.store(known.told_size.load(Ordering::Relaxed), Ordering::Relaxed);
        self.changed.store(known.changed.load(Ordering::Relaxed), Ordering::Relaxed);
        *self.notes.get_mut().unwrap_or_else(PoisonError::into_inner) =
            known.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.in_flight = Arc::clone(&known.in_flight);
        let strikes = *known.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        self.change_strikes(|own| *own = strikes);
        if let (Some(own), Some(known)) = (&mut self.tally, &known.tally) {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            own.get_mut().unwrap_or_else(PoisonError::into_inner).resume(&known);
        }
        // Without checks nobody would ever bring it back.
        self.up.store(known.is_up() || self.tally.is_none(), Ordering::Relaxed);
        self.since.store(known.since.load(Ordering::Relaxed), Ordering::Relaxed);
        self.returned.store(known.returned.load(Ordering::Relaxed), Ordering::Relaxed);
        self.prefer_v6.store(known.prefer_v6.load(Ordering::Relaxed), Ordering::Relaxed);
        self.latency.resume(&known.latency);
        self.addrs.store(known.addrs.load_full());
        self.resolved.store(known.resolved.load(Ordering::Acquire), Ordering::Release);
        self.report_up();
    }
}
