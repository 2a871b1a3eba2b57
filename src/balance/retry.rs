//! May a failed request be tried again, on another endpoint?

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

/// The facts of a failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether the request's body, if any, can be sent again from the start.
    pub body_replayable: bool,
    /// How far it had come.
    pub at: FailedAt,
    /// Attempts made so far, this one included.
    pub made: u32,
    /// Attempts allowed.
    pub allowed: u32,
    /// Whether time is left for another attempt, when a total was set for all of them; `false` when none was.
    pub time_left: bool,
}

/// Whether another attempt may be made, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Try another endpoint.
    Again(&'static str),
    /// Give up.
    GiveUp(&'static str),
}

/// Judges a failed attempt. A request that may have been acted on is never sent twice unless its method is idempotent (RFC 9110 §9.2.2). One
/// that met silence is tried once more, and only within a total that the operator set: were every instance tried, a hanging route
/// would make its clients wait once per instance, and hang them all.
///
/// When several rules forbid another attempt, the reason given is the one that more attempts would not have changed.
pub fn judge(attempt: &Attempt<'_>) -> Verdict {
    let (why, sent) = match attempt.at {
        FailedAt::Connect => ("connect", false),
        FailedAt::ReusedConnection => ("reused-connection", true),
        FailedAt::BeforeAnswer => ("before-answer", true),
        FailedAt::Timeout if !attempt.time_left || attempt.made > 1 => return Verdict::GiveUp("timeout"),
        FailedAt::Timeout => ("timeout", true),
        FailedAt::DuringAnswer => return Verdict::GiveUp("answer-begun"),
    };
    if sent && !is_idempotent(attempt.method) {
        return Verdict::GiveUp("not-idempotent");
    }
    if !attempt.body_replayable {
        return Verdict::GiveUp("body-spent");
    }
    if attempt.made >= attempt.allowed {
        return Verdict::GiveUp("tries-spent");
    }
    Verdict::Again(why)
}

/// The methods RFC 9110 defines as idempotent (§9.2.1, §9.2.2), by name: of a method nobody here knows the harm of sending it twice is
/// not known either.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailedAt::{BeforeAnswer, Connect, DuringAnswer, ReusedConnection, Timeout};
    use Verdict::{Again, GiveUp};

    fn failed(method: &Method, at: FailedAt) -> Attempt<'_> {
        Attempt { method, body_replayable: true, at, made: 1, allowed: 3, time_left: false }
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
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
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
        for (method, made, time_left, verdict) in [
            (&Method::GET, 1, true, Again("timeout")),
            (&Method::GET, 1, false, GiveUp("timeout")),
            (&Method::GET, 2, true, GiveUp("timeout")),
            (&Method::POST, 1, true, GiveUp("not-idempotent")),
        ] {
            let attempt = Attempt { made, time_left, ..failed(method, Timeout) };
            assert_eq!(judge(&attempt), verdict, "{method}, attempt {made}, time left: {time_left}");
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
            let attempt = Attempt { made, allowed, ..failed(&Method::GET, Connect) };
            assert_eq!(judge(&attempt), verdict, "{made} of {allowed}");
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
