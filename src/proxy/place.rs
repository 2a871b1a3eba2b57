//! A place on an instance for a request that passes through: chosen at once, or waited for while the client is still there.

use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::Gateway;
use super::fill::content_length;
use super::journey::Journey;
use super::live::Upstream;
use super::reply::Failure;
use crate::balance::hash::Facts;
use crate::upstream::{Group, NoPlace, Picked, Wanted};

/// Content up to this length is read while the request waits; pingora keeps as much to send it again.
const READ_AHEAD: u64 = 64 * 1024;

impl Gateway {
    /// Takes a place, waiting for one if need be. Whoever leaves meanwhile leaves the queue.
    ///
    /// # Errors
    /// When there is none, or the client is gone; `journey.failure` says which.
    pub(super) async fn place(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        upstream: &Upstream,
    ) -> Result<Picked> {
        let group = &upstream.group;
        journey.bound = upstream.sticky.as_ref().and_then(|sticky| sticky.bound(session, group));
        let (tried, key) = (journey.tried.clone(), key_of_passing(session, journey, group));
        let wanted = Wanted { tried, key, bound: journey.bound };
        let priority = self.live.route(journey.route.unwrap_or_default()).priority;
        let placed = tokio::select! {
            biased;
            placed = group.enter(wanted, priority) => placed,
            gone = client_gone(session) => {
                journey.failure = Some(Failure::ClientGone);
                return Err(gone);
            }
        };
        placed.map_err(|why| {
            let failure = failure(why);
            // After a failed attempt that failure tells more than the lack of further instances.
            let says_less = matches!(why, NoPlace::NoInstance | NoPlace::CircuitOpen(_));
            if journey.failure.is_none() || !says_less {
                journey.failure = Some(failure);
            }
            Error::explain(ErrorType::InternalError, failure.as_str())
        })
    }
}

fn key_of_passing(session: &Session, journey: &Journey, group: &Group) -> Option<u64> {
    let admitted = journey.admitted.as_ref()?;
    group.key(&Facts {
        client: journey.client.addr,
        path: &admitted.path,
        query: admitted.query.as_deref(),
        fields: &session.req_header().headers,
    })
}

/// What the lack of a place means for the client.
pub(super) fn failure(why: NoPlace) -> Failure {
    match why {
        NoPlace::NoInstance => Failure::NoInstance,
        NoPlace::QueueFull => Failure::QueueFull,
        NoPlace::TimedOut => Failure::QueueTimeout,
        NoPlace::CircuitOpen(retry_in) => {
            let seconds = retry_in.as_secs() + u64::from(retry_in.subsec_nanos() > 0);
            Failure::CircuitOpen(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
        }
    }
}

/// Resolves when the client has closed the connection. Short content is read meanwhile and kept to be sent: behind it lies the end of the
/// connection. Longer content stays unread, and whether its client is still there shows when it is sent on.
///
/// A client that sends its next request meanwhile is there; what was read of that request is lost, so that the connection is closed after this
/// one, and the client sends it again (RFC 9112 §9.3.2).
pub(super) async fn client_gone(session: &mut Session) -> Box<Error> {
    let head = session.req_header();
    let chunked = head.headers.contains_key(http::header::TRANSFER_ENCODING);
    if chunked || content_length(&head.headers).is_some_and(|length| length > READ_AHEAD) {
        return std::future::pending().await;
    }
    let client = session.as_downstream_mut();
    client.enable_retry_buffering();
    loop {
        let done = client.is_body_done();
        match client.read_body_or_idle(done).await {
            Ok(_) => {}
            Err(error) if *error.etype() == ErrorType::ConnectError => {
                client.set_keepalive(None);
                return std::future::pending().await;
            }
            Err(error) => return error.into_down(),
        }
    }
}
