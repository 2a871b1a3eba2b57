//! What the gateway answers by itself when it cannot pass an answer on: one failure, one status, one page.

use bytes::Bytes;
use http::StatusCode;

use crate::guard::request::Refusal;
use crate::ward::Denial;

/// Why there is no answer to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The request is not one we take.
    Refused(Refusal),
    /// No route matches.
    NoRoute,
    /// There is no such file.
    NoFile,
    /// Files are not changed by requests.
    ReadOnly,
    /// A condition of the request does not hold (RFC 9110 §13.1.1).
    Precondition,
    /// Its route does not let it pass.
    Denied(Denial),
    /// The body grew past the limit.
    BodyTooLarge,
    /// The request's head or body did not come in time.
    ClientTimeout,
    /// No instance may be used.
    NoInstance,
    /// All instances are as busy as they may be, and as many requests wait as may.
    QueueFull,
    /// All instances were as busy as they may be for as long as a request may wait.
    QueueTimeout,
    /// The upstream is not asked because its exchanges failed; trying again makes sense after so many seconds.
    CircuitOpen(u32),
    /// No connection to an instance came about.
    Connect,
    /// An instance did not answer in time.
    Timeout,
    /// An instance closed the connection before it had answered.
    Closed,
    /// An instance's answer is not valid HTTP, or its framing is ambiguous.
    BadAnswer,
    /// The client wants a stored answer only, and there is none (RFC 9111 §5.2.1.7).
    OnlyIfCached,
    /// The client is gone.
    ClientGone,
    /// A fault of our own.
    Internal,
}

impl Failure {
    /// The status that says it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::NoRoute | Self::NoFile => StatusCode::NOT_FOUND,
            Self::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
            Self::Denied(denial) => denial.status(),
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoInstance | Self::QueueFull | Self::QueueTimeout | Self::CircuitOpen(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Connect | Self::Closed | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::Timeout | Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            // Never sent, since nobody reads it; logs show it as other proxies do.
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for logs and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::NoRoute => "no-route",
            Self::NoFile => "no-file",
            Self::ReadOnly => "read-only",
            Self::Precondition => "precondition-failed",
            Self::Denied(denial) => denial.as_str(),
            Self::BodyTooLarge => "body-too-large",
            Self::ClientTimeout => "client-timeout",
            Self::NoInstance => "no-instance",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::CircuitOpen(_) => "circuit-open",
            Self::Connect => "connect-failed",
            Self::Timeout => "upstream-timeout",
            Self::Closed => "upstream-closed",
            Self::BadAnswer => "upstream-bad-answer",
            Self::OnlyIfCached => "only-if-cached",
            Self::ClientGone => "client-gone",
            Self::Internal => "internal-error",
        }
    }

    /// What a person who sees the page should know.
    fn explanation(self) -> &'static str {
        match self {
            Self::Refused(Refusal::Crowd) => "Too many connections are open; try again soon.",
            Self::Refused(_) => "The request is not valid HTTP, or larger than this gateway takes.",
            Self::Denied(Denial::Address) => "Requests from this address are not allowed.",
            Self::Denied(Denial::Rate(..)) => "Too many requests came in a short time; try again later.",
            Self::Denied(Denial::InFlight(_)) => {
                "Too many requests are in progress; try again when one has ended."
            }
            Self::Denied(Denial::Uncounted) => "Requests cannot be counted just now; try again soon.",
            Self::Denied(Denial::Credentials) => "A user name and a password are needed.",
            Self::Denied(Denial::Busy) => "Too many passwords are being verified; try again soon.",
            Self::NoRoute => "No route of this gateway matches the request.",
            Self::NoFile => "There is no such file.",
            Self::ReadOnly => "Files can only be read here.",
            Self::Precondition => "The file is not what the request supposes.",
            Self::BodyTooLarge => "The content of the request is larger than this gateway takes.",
            Self::ClientTimeout => "The request did not arrive in time.",
            Self::NoInstance => "No instance is available; try again soon.",
            Self::QueueFull => "All instances are busy and the queue is full; try again soon.",
            Self::QueueTimeout => "All instances stayed busy for too long; try again soon.",
            Self::CircuitOpen(_) => "The instances fail and are left alone for a while; try again soon.",
            Self::Connect => "No instance could be reached.",
            Self::Timeout => "The instance did not answer in time.",
            Self::Closed => "The instance closed the connection before it answered.",
            Self::BadAnswer => "The instance's answer is not valid HTTP.",
            Self::OnlyIfCached => "Only a stored answer was asked for, and there is none.",
            Self::ClientGone => "The client closed the connection.",
            Self::Internal => "The gateway failed; its log says more.",
        }
    }

    /// Seconds after which trying again makes sense, where it does (RFC 9110 §10.2.3).
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::Denied(denial) => denial.retry_after(),
            Self::CircuitOpen(seconds) => Some(seconds),
            Self::NoInstance | Self::QueueFull | Self::QueueTimeout | Self::Refused(Refusal::Crowd) => {
                Some(1)
            }
            _ => None,
        }
    }

    /// The methods that would do, beside a 405 (RFC 9110 §15.5.6).
    pub fn allow(self) -> Option<&'static str> {
        (self == Self::ReadOnly).then_some("GET, HEAD")
    }

    /// Why there is no answer of an instance, as the registered error type of Proxy-Status (RFC 9209 §2.3), where one fits.
    pub fn proxy_error(self) -> Option<&'static str> {
        Some(match self {
            Self::NoInstance | Self::CircuitOpen(_) => "destination_unavailable",
            Self::QueueFull | Self::QueueTimeout => "connection_limit_reached",
            Self::Connect => "connection_refused",
            Self::Timeout => "connection_read_timeout",
            Self::Closed => "connection_terminated",
            Self::BadAnswer => "http_protocol_error",
            _ => return None,
        })
    }

    /// Whether an instance is to blame, so that a stale answer may stand in (RFC 5861 §4).
    pub fn is_upstream(self) -> bool {
        matches!(
            self,
            Self::NoInstance
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::CircuitOpen(_)
                | Self::Connect
                | Self::Timeout
                | Self::Closed
                | Self::BadAnswer
        )
    }

    /// The content, as problem details (RFC 9457). `request_id` holds nothing that JSON must escape: see `forward::trusted_request_id`.
    pub fn page(self, request_id: &str) -> Bytes {
        let status = self.status();
        Bytes::from(format!(
            "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{},\"detail\":\"{}\",\"code\":\"{}\",\"request_id\":\"{request_id}\"}}\n",
            status.canonical_reason().unwrap_or("Error"),
            status.as_u16(),
            self.explanation(),
            self.as_str(),
        ))
    }
}

/// The Content-Type of [`Failure::page`].
pub const PAGE_TYPE: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_json_that_names_its_status() {
        for failure in [
            Failure::NoRoute,
            Failure::NoInstance,
            Failure::Timeout,
            Failure::Internal,
            Failure::OnlyIfCached,
        ] {
            let page: serde_json::Value = serde_json::from_slice(&failure.page("abc-1")).expect("valid JSON");
            assert_eq!(page["status"], failure.status().as_u16());
            assert_eq!(page["request_id"], "abc-1");
        }
    }

    #[test]
    fn only_an_instances_faults_let_a_stale_answer_stand_in() {
        assert!(Failure::Timeout.is_upstream());
        assert!(!Failure::NoRoute.is_upstream());
        assert!(!Failure::ClientGone.is_upstream());
    }
}
