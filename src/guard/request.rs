//! Is the request one we take? Its authority, target and framing, judged before anything else reads them.

use std::borrow::Cow;

use http::{Method, StatusCode};

use crate::base::fields::Fields;

/// The facts of a request head, as the parser left them.
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as received: origin-form, absolute-form or `*`.
    pub target: &'a [u8],
    /// HTTP/2 or later: the authority is `:authority`, there is no Transfer-Encoding.
    pub http2: bool,
    /// HTTP/1.0.
    pub http10: bool,
    /// `:authority` of HTTP/2, or that of an absolute-form target.
    pub authority: Option<&'a str>,
    /// The header fields.
    pub fields: &'a dyn Fields,
    /// How many field lines there are.
    pub field_count: usize,
    /// The size of the head in bytes: request line and fields.
    pub size: usize,
}

/// What may be taken, from the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most header fields.
    pub max_fields: usize,
    /// The largest head in bytes.
    pub max_head: usize,
    /// The largest declared body in bytes; 0 is no limit.
    pub max_body: u64,
}

/// A request that was taken, in the one form that routing, the cache key and forwarding share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The host: lower case, no port, no trailing dot, IPv6 in brackets.
    pub host: Cow<'a, str>,
    /// The port, when one was given.
    pub port: Option<u16>,
    /// The path: begins with `/`, percent-encoding of unreserved characters undone and hex digits in upper case (RFC 3986 §6.2.2),
    /// dot segments removed.
    pub path: Cow<'a, str>,
    /// The query without its `?`, as received; `None` when there is no `?`.
    pub query: Option<&'a str>,
}

/// Why a request was not taken: metric label, log field and error page at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No Host, several, or an empty one where one is needed (RFC 9112 §3.2).
    Host,
    /// The Host differs from the target's authority, or is not a valid host and port.
    Authority,
    /// The target holds a byte or an escape that no reader agrees on (controls, spaces, NUL, a broken escape, dots above the root).
    Target,
    /// Content-Length with Transfer-Encoding, several or malformed lengths, an unknown coding (RFC 9112 §6).
    Framing,
    /// A method we do not serve: CONNECT, or TRACE with content.
    Method,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// The declared body is larger than allowed.
    BodyTooLarge,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
}

impl Refusal {
    /// The status that says it.
    pub fn status(self) -> StatusCode {
        unimplemented!()
    }

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        unimplemented!()
    }
}

/// Judges a request head.
///
/// # Errors
/// The first reason why it is not taken.
pub fn accept<'a>(_head: &Head<'a>, _limits: &Limits) -> Result<Accepted<'a>, Refusal> {
    unimplemented!()
}
