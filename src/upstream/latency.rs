//! How long an endpoint's answers take, shared between workers without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::ewma::Meter;
use crate::base::clock::MonoTime;

/// A [`Meter`] in two words. Two answers noted in the same instant may lose one of them, and a reader may see the average of one with the
/// time of the other: either shifts an estimate by one answer.
#[derive(Debug, Default)]
pub(super) struct Latency {
    nanos: AtomicU64,
    at: AtomicU64,
}

impl Latency {
    pub(super) fn meter(&self) -> Meter {
        let at = MonoTime::from_nanos(self.at.load(Ordering::Relaxed));
        Meter::from_parts(self.nanos.load(Ordering::Relaxed), at)
    }

    pub(super) fn note(&self, now: MonoTime, took: Duration, decay: Duration) {
        self.store(self.meter().with(now, took, decay));
    }

    /// Goes on from what is known of the same endpoint.
    pub(super) fn resume(&self, known: &Self) {
        self.store(known.meter());
    }

    fn store(&self, meter: Meter) {
        let (nanos, at) = meter.parts();
        self.nanos.store(nanos, Ordering::Relaxed);
        self.at.store(at.as_nanos(), Ordering::Relaxed);
    }
}
