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

    /// Goes on from what another has measured of the same instance.
    pub(super) fn take_over(&self, known: &Self) {
        self.nanos.store(known.nanos.load(Ordering::Relaxed), Ordering::Relaxed);
        self.at.store(known.at.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn note(&self, now: MonoTime, took: Duration, decay: Duration) {
        let (nanos, at) = self.meter().with(now, took, decay).parts();
        self.nanos.store(nanos, Ordering::Relaxed);
        self.at.store(at.as_nanos(), Ordering::Relaxed);
    }
}
