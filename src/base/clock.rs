//! The only place that reads a clock.
//!
//! Rules take the time as an argument; the layer that speaks to sockets holds one [`Clock`] and asks it. Two kinds of time are kept
//! apart by type: [`WallTime`] is compared with dates in messages and survives a restart in stored records; [`MonoTime`] measures
//! durations within this process and never jumps.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of civil time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// The moment `ms` milliseconds after the Unix epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// The moment `secs` seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: WallTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` later, at most the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The moment `by` earlier, at least the Unix epoch.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A moment on this process's own steady clock, in nanoseconds since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The moment `ns` nanoseconds after the clock's start.
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// The moment `ms` milliseconds after the clock's start.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: MonoTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` later, at most the end of time.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The process's clock. Tests move it forward instead of sleeping.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    skew_ms: AtomicI64,
    lead_ns: AtomicU64,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn start() -> Self {
        Self { started: Instant::now(), skew_ms: AtomicI64::new(0), lead_ns: AtomicU64::new(0) }
    }

    /// Civil time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn wall(&self) -> WallTime {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let real = i64::try_from(real.as_millis()).unwrap_or(i64::MAX);
        WallTime(u64::try_from(real.saturating_add(self.skew_ms.load(Ordering::Relaxed))).unwrap_or(0))
    }

    /// Steady time now.
    pub fn mono(&self) -> MonoTime {
        let real = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        MonoTime(real.saturating_add(self.lead_ns.load(Ordering::Relaxed)))
    }

    /// Moves civil time forward, so that what is stored grows older without anybody waiting.
    pub fn advance(&self, by: Duration) {
        self.skew_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Moves steady time forward, so that what lasts a while is over without anybody waiting. Timers that run already keep their hour.
    pub fn advance_steady(&self, by: Duration) {
        self.lead_ns.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_below_its_start() {
        let early = WallTime::from_secs(1);
        let late = WallTime::from_secs(3);
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.minus(Duration::from_secs(9)), WallTime::default());
    }

    #[test]
    fn steady_time_is_moved_on_its_own() {
        let clock = Clock::start();
        let (wall, mono) = (clock.wall(), clock.mono());
        clock.advance_steady(Duration::from_secs(3600));
        assert!(clock.mono().since(mono) >= Duration::from_secs(3600));
        assert!(clock.wall().since(wall) < Duration::from_secs(3600));
    }

    #[test]
    fn a_clock_moved_forward_shows_later_civil_time() {
        let clock = Clock::start();
        let before = clock.wall();
        clock.advance(Duration::from_secs(3600));
        assert!(clock.wall().since(before) >= Duration::from_secs(3600));
    }
}
