//! May a failed request be tried again, on another endpoint?

use std::time::Duration;

use http::Method;

/// How far an attempt had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedAt {
    /// No connection stood: nothing was sent.
    Connect,
    /// A kept connection turned out closed before any byte of an answer.
    ReusedConnection,
    /// A fresh connection broke before any byte of an answer.
    BeforeAnswer,
    /// No answer came in time.
    Timeout,
    /// Part of an answer came.
    DuringAnswer,
}

impl FailedAt {
    /// The word for it in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ReusedConnection => "reused-connection",
            Self::BeforeAnswer => "before-answer",
            Self::Timeout => "timeout",
            Self::DuringAnswer => "during-answer",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It failed.
    Failed(FailedAt),
    /// It was answered with this status, and nothing of the answer has been passed on.
    Answered(u16),
}

/// Which attempts are followed by another one, beside those for which no connection stood: these always are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Those whose connection broke before the answer.
    pub closed: bool,
    /// Those that met silence, once, within the time for all.
    pub timeout: bool,
    /// Those that were answered with one of these statuses, as inclusive ranges.
    pub statuses: Vec<(u16, u16)>,
}

impl Conditions {
    /// Whether an answer with this status is one.
    pub fn takes(&self, status: u16) -> bool {
        self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }
}

/// How a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Trying<'a> {
    /// Attempts allowed.
    pub tries: u32,
    /// The time for all of them until the head of an answer, when one was set.
    pub total: Option<Duration>,
    /// How long one of them waits for the head of its answer.
    pub attempt: Duration,
    /// Which are followed by another one; `None`: those for which no connection stood.
    pub on: Option<&'a Conditions>,
}

/// The facts of an attempt that ended without an answer to pass on, or with one that is better not.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether the request's body, if any, can be sent again from the start.
    pub body_replayable: bool,
    /// How it ended.
    pub ended: Ended,
    /// Attempts made so far, this one included.
    pub made: u32,
    /// How many of them met silence, this one included.
    pub silences: u32,
    /// What is left of the time for all; `None` when none was set.
    pub left: Option<Duration>,
    /// Whether there is an instance that was not tried and may be used.
    pub others: bool,
    /// What was asked for.
    pub trying: Trying<'a>,
}

/// Whether another attempt may be made, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Try another endpoint.
    Again(&'static str),
    /// Give up.
    GiveUp(&'static str),
}

/// Judges an attempt. A request that may have been acted on is never sent twice unless its method is idempotent (RFC 9110 §9.2.2). One
/// that met silence is tried once more, and only within a total that the operator set: were every instance tried, a hanging route
/// would make its clients wait once per instance, and hang them all. An answer is given up only while somebody else could give a better one.
///
/// When several rules forbid another attempt, the reason given is the one that more attempts would not have changed.
pub fn judge(attempt: &Attempt<'_>) -> Verdict {
    let time_left = attempt.left.is_some_and(|left| !left.is_zero());
    let asked = |of: fn(&Conditions) -> bool| attempt.trying.on.is_some_and(of);
    let (why, sent, wanted) = match attempt.ended {
        Ended::Failed(FailedAt::Connect) => ("connect", false, true),
        Ended::Failed(FailedAt::ReusedConnection) => ("reused-connection", true, asked(|on| on.closed)),
        Ended::Failed(FailedAt::BeforeAnswer) => ("before-answer", true, asked(|on| on.closed)),
        Ended::Failed(FailedAt::Timeout) if !time_left || attempt.silences > 1 => {
            return Verdict::GiveUp("timeout");
        }
        Ended::Failed(FailedAt::Timeout) => ("timeout", true, asked(|on| on.timeout)),
        Ended::Failed(FailedAt::DuringAnswer) => return Verdict::GiveUp("answer-begun"),
        Ended::Answered(status) => {
            ("status", true, attempt.others && attempt.trying.on.is_some_and(|on| on.takes(status)))
        }
    };
    if !wanted {
        return Verdict::GiveUp("not-asked");
    }
    if sent && !is_idempotent(attempt.method) {
        return Verdict::GiveUp("not-idempotent");
    }
    if !attempt.body_replayable {
        return Verdict::GiveUp("body-spent");
    }
    if attempt.left.is_some() && !time_left {
        return Verdict::GiveUp("time-spent");
    }
    if attempt.made >= attempt.trying.tries {
        return Verdict::GiveUp("tries-spent");
    }
    Verdict::Again(why)
}

/// The methods RFC 9110 defines as idempotent (§9.2.1, §9.2.2), and QUERY, which RFC 10008 defines as safe, by name: of a method nobody here knows the harm of sending it twice is
/// not known either.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    ) || method.as_str() == "QUERY"
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailedAt::{BeforeAnswer, Connect, DuringAnswer, ReusedConnection, Timeout};
    use Verdict::{Again, GiveUp};

    static USUAL: Conditions = Conditions { closed: true, timeout: true, statuses: Vec::new() };
    static NOTHING: Conditions = Conditions { closed: false, timeout: false, statuses: Vec::new() };
    const LEFT: Option<Duration> = Some(Duration::from_secs(1));

    fn ended(method: &Method, ended: Ended) -> Attempt<'_> {
        let attempt = Duration::from_secs(1);
        let trying = Trying { tries: 3, total: None, attempt, on: Some(&USUAL) };
        Attempt {
            method,
            body_replayable: true,
            ended,
            made: 1,
            silences: 1,
            left: None,
            others: true,
            trying,
        }
    }

    fn failed(method: &Method, at: FailedAt) -> Attempt<'_> {
        ended(method, Ended::Failed(at))
    }

    #[test]
    fn what_was_not_sent_may_be_sent_elsewhere_whatever_the_method() {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::CONNECT, Method::PUT] {
            assert_eq!(judge(&failed(&method, Connect)), Again("connect"), "{method}");
        }
    }

    #[test]
    fn an_idempotent_method_may_be_repeated_after_a_failure_before_the_answer() {
        // RFC 9110 §9.2.2: PUT, DELETE and the safe methods (§9.2.1: GET, HEAD, OPTIONS, TRACE) are idempotent.
        // RFC 10008: QUERY is safe.
        let query = Method::from_bytes(b"QUERY").unwrap();
        for method in
            [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE, query]
        {
            assert_eq!(judge(&failed(&method, ReusedConnection)), Again("reused-connection"), "{method}");
            assert_eq!(judge(&failed(&method, BeforeAnswer)), Again("before-answer"), "{method}");
        }
    }

    #[test]
    fn any_other_method_is_never_sent_twice() {
        // RFC 9110 §9.2.2: "A proxy MUST NOT automatically retry non-idempotent requests."
        let unknown = Method::from_bytes(b"MOVE").unwrap();
        for method in [Method::POST, Method::PATCH, Method::CONNECT, unknown] {
            for at in [ReusedConnection, BeforeAnswer] {
                assert_eq!(judge(&failed(&method, at)), GiveUp("not-idempotent"), "{method} {at:?}");
            }
        }
    }

    #[test]
    fn a_timeout_and_a_begun_answer_end_it_for_every_method() {
        for method in [Method::GET, Method::PUT, Method::POST] {
            assert_eq!(judge(&failed(&method, Timeout)), GiveUp("timeout"), "{method}");
            assert_eq!(judge(&failed(&method, DuringAnswer)), GiveUp("answer-begun"), "{method}");
        }
    }

    #[test]
    fn silence_is_met_once_more_within_the_time_that_was_set() {
        for (method, made, silences, left, verdict) in [
            (&Method::GET, 1, 1, LEFT, Again("timeout")),
            (&Method::GET, 1, 1, None, GiveUp("timeout")),
            (&Method::GET, 1, 1, Some(Duration::ZERO), GiveUp("timeout")),
            (&Method::GET, 2, 2, LEFT, GiveUp("timeout")),
            // The attempt before it met no silence, but a connection that never stood.
            (&Method::GET, 2, 1, LEFT, Again("timeout")),
            (&Method::POST, 1, 1, LEFT, GiveUp("not-idempotent")),
        ] {
            let attempt = Attempt { made, silences, left, ..failed(method, Timeout) };
            assert_eq!(judge(&attempt), verdict, "{method}, attempt {made}, time left: {left:?}");
        }
    }

    #[test]
    fn a_body_that_is_gone_cannot_be_sent_again() {
        for at in [Connect, ReusedConnection, BeforeAnswer] {
            let attempt = Attempt { body_replayable: false, ..failed(&Method::PUT, at) };
            assert_eq!(judge(&attempt), GiveUp("body-spent"), "{at:?}");
        }
    }

    #[test]
    fn attempts_end_at_the_number_allowed() {
        for (made, allowed, verdict) in [
            (1, 1, GiveUp("tries-spent")),
            (1, 2, Again("connect")),
            (2, 2, GiveUp("tries-spent")),
            (2, 3, Again("connect")),
            (4, 3, GiveUp("tries-spent")),
        ] {
            let mut attempt = Attempt { made, ..failed(&Method::GET, Connect) };
            attempt.trying.tries = allowed;
            assert_eq!(judge(&attempt), verdict, "{made} of {allowed}");
        }
    }

    #[test]
    fn no_attempt_begins_after_the_time_for_all() {
        for at in [Connect, BeforeAnswer, ReusedConnection] {
            let attempt = Attempt { left: Some(Duration::ZERO), ..failed(&Method::GET, at) };
            assert_eq!(judge(&attempt), GiveUp("time-spent"), "{at:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_tried_again_beside_what_was_never_sent() {
        for (at, verdict) in [
            (Connect, Again("connect")),
            (ReusedConnection, GiveUp("not-asked")),
            (BeforeAnswer, GiveUp("not-asked")),
            (Timeout, GiveUp("not-asked")),
        ] {
            let mut attempt = Attempt { left: LEFT, ..failed(&Method::GET, at) };
            attempt.trying.on = Some(&NOTHING);
            assert_eq!(judge(&attempt), verdict, "{at:?}");
        }
    }

    #[test]
    fn an_answer_is_given_up_for_its_status_where_that_was_asked_and_somebody_else_may_do_better() {
        let on = Conditions { statuses: vec![(502, 504)], ..USUAL.clone() };
        for (method, status, others, made, verdict) in [
            (&Method::GET, 503, true, 1, Again("status")),
            (&Method::PUT, 502, true, 1, Again("status")),
            (&Method::GET, 500, true, 1, GiveUp("not-asked")),
            (&Method::GET, 200, true, 1, GiveUp("not-asked")),
            (&Method::GET, 503, false, 1, GiveUp("not-asked")),
            (&Method::GET, 503, true, 3, GiveUp("tries-spent")),
            (&Method::POST, 503, true, 1, GiveUp("not-idempotent")),
        ] {
            let mut attempt = Attempt { others, made, ..ended(method, Ended::Answered(status)) };
            attempt.trying.on = Some(&on);
            assert_eq!(judge(&attempt), verdict, "{method} {status}, others: {others}, attempt {made}");
        }
    }

    #[test]
    fn the_reason_is_the_one_that_more_attempts_would_not_have_changed() {
        let spent = |method, at| Attempt { made: 3, body_replayable: false, ..failed(method, at) };
        assert_eq!(judge(&spent(&Method::GET, Timeout)), GiveUp("timeout"));
        assert_eq!(judge(&spent(&Method::POST, BeforeAnswer)), GiveUp("not-idempotent"));
        assert_eq!(judge(&spent(&Method::POST, Connect)), GiveUp("body-spent"));
    }
}
