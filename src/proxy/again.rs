//! Trying again: how long one attempt and all of them may take, and whether there is another one.

use std::time::Duration;

use pingora::proxy::Session;

use super::Gateway;
use super::journey::Journey;
use super::live::{Live, Upstream};
use super::peer::{is_silent, shortened};
use crate::balance::retry::{self, Attempt, Ended, FailedAt, Trying, Verdict};
use crate::base::clock::MonoTime;
use crate::plan::{self, Route};

/// What holds for a route's requests to an upstream: what the route says, else what the upstream says.
pub(super) fn trying<'p>(route: &'p Route, upstream: &'p plan::Upstream) -> Trying<'p> {
    let (own, general) = (&route.trying, &upstream.trying);
    let attempt = own.attempt.or(general.attempt);
    Trying {
        tries: own.tries.or(general.tries).unwrap_or(1),
        total: own.total.or(general.total),
        attempt: attempt.map_or(upstream.timeouts.read, |attempt| attempt.min(upstream.timeouts.read)),
        on: own.on.as_ref().or(general.on.as_ref()),
    }
}

/// What is left of the time for all attempts, the first of which began at `first`; `None` when none is set.
pub(super) fn time_left(trying: &Trying<'_>, first: Option<MonoTime>, now: MonoTime) -> Option<Duration> {
    Some(trying.total?.saturating_sub(first.map_or(Duration::ZERO, |first| now.since(first))))
}

/// How long this attempt may wait for the head of its answer.
pub(super) fn patience(trying: &Trying<'_>, left: Option<Duration>) -> Duration {
    left.map_or(trying.attempt, |left| shortened(trying.attempt, left))
}

/// Whether another attempt is made; counts it, and takes it from the budget. What was never sent costs no instance anything, and is free.
pub(super) fn goes_on(live: &Live, upstream: &Upstream, attempt: &Attempt<'_>) -> bool {
    let Verdict::Again(why) = retry::judge(attempt) else { return false };
    let free = attempt.ended == Ended::Failed(FailedAt::Connect);
    if !free && !upstream.retries.spend(live.clock.mono()) {
        upstream.metrics.retry_denied();
        return false;
    }
    upstream.metrics.retried(why);
    true
}

impl Gateway {
    /// After an attempt of what passes through: another one, or not.
    pub(super) fn again(&self, session: &mut Session, journey: &mut Journey, ended: Ended) -> bool {
        let sent_all = session.as_downstream_mut().is_body_done();
        let Ok(upstream) = self.upstream_of(journey) else { return false };
        let (upstream, route) =
            (self.live.upstream(upstream), self.live.route(journey.route.unwrap_or_default()));
        let now = self.live.clock.mono();
        if let Ended::Failed(at) = ended
            && let Some(picked) = journey.picked.take()
        {
            upstream.metrics.failed(picked.index, at);
            // Silence while the client still sends may be the client's, and so is what is left of it when the client has just ended.
            let heard = journey.body_at.map_or(journey.attempt, |at| at.max(journey.attempt));
            let whole = trying(route, upstream.group.plan()).attempt;
            if at != FailedAt::Timeout || (sent_all && is_silent(whole, now.since(heard))) {
                if at == FailedAt::Timeout {
                    upstream.group.took(picked.index, now.since(journey.attempt));
                }
                picked.failed(at);
            }
        }
        journey.silences += u32::from(ended == Ended::Failed(FailedAt::Timeout));
        let trying = trying(route, upstream.group.plan());
        let attempt = Attempt {
            method: &session.req_header().method,
            body_replayable: !session.as_ref().retry_buffer_truncated(),
            ended,
            made: u32::try_from(journey.tried.len()).unwrap_or(u32::MAX),
            silences: journey.silences,
            left: time_left(&trying, journey.first_attempt, now),
            others: upstream.group.has_others(&journey.tried),
            trying,
        };
        goes_on(&self.live, upstream, &attempt)
    }
}
