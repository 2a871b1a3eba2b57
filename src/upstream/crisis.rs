//! Whether so few instances are up that all are used.

use std::sync::atomic::Ordering;

use super::{Endpoint, Group, Standing};
use crate::balance::Candidate;
use crate::balance::panic::{Census, Mode, judge};
use crate::base::clock::MonoTime;

impl Group {
    /// Whether all instances are used because too few are up.
    pub fn panics(&self) -> bool {
        self.panics.load(Ordering::Relaxed)
    }

    /// Lets more candidates count as up than are, when too few are.
    pub(super) fn rescue(&self, candidates: &mut [Candidate], now: MonoTime) {
        let mode = judge(self.census(now), self.plan.panic);
        for candidate in candidates {
            match mode {
                Mode::Normal => break,
                Mode::WithBackups => candidate.backup = candidate.backup && !candidate.up,
                Mode::Everyone => candidate.up = true,
            }
        }
        let panics = mode == Mode::Everyone;
        if self.panics.load(Ordering::Relaxed) != panics
            && self.panics.swap(panics, Ordering::Relaxed) != panics
        {
            self.tell_panic(panics);
        }
    }

    fn tell_panic(&self, panics: bool) {
        self.report.panics(panics);
        let (upstream, least) = (self.name(), self.plan.panic);
        if panics {
            tracing::warn!(%upstream, least, "too few endpoints are up: all are used");
        } else {
            tracing::info!(%upstream, least, "enough endpoints are up again: the others are left alone");
        }
    }

    fn census(&self, now: MonoTime) -> Census {
        let mut census = Census::default();
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.is_usable() && endpoint.weight() > 0)
        {
            let up = usize::from(endpoint.is_up() && endpoint.standing(now) != Standing::Out);
            if endpoint.backup {
                census.backups_up += up;
            } else {
                census.primaries += 1;
                census.primaries_up += up;
            }
        }
        census
    }
}

impl Endpoint {
    /// Whether it has an address and no operator took it out.
    pub(super) fn is_usable(&self) -> bool {
        self.resolved.load(Ordering::Acquire) && !self.drained.load(Ordering::Relaxed)
    }
}
