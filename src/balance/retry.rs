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
}

/// Whether another attempt may be made, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Try another endpoint.
    Again(&'static str),
    /// Give up.
    GiveUp(&'static str),
}

/// Judges a failed attempt. A request that may have been acted on is never sent twice unless its method is idempotent (RFC 9110 §9.2.2); a
/// timeout is never tried elsewhere, since the next instance would be hung the same way and the client wait twice.
pub fn judge(_attempt: &Attempt<'_>) -> Verdict {
    unimplemented!()
}
