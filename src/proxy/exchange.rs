//! One request to an upstream, tried until an instance answers or trying makes no sense: what the cache fetches goes this way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use smallvec::SmallVec;

use super::again;
use super::compress::Coder;
use super::live::{Live, Upstream};
use super::onward::{self, Onward};
use super::peer;
use super::place;
use super::reply::Failure;
use crate::balance::retry::{Attempt, Ended, FailedAt};
use crate::base::clock::WallTime;
use crate::cache::date;
use crate::forward::coding::Coding;
use crate::observe::metrics::Metrics;
use crate::plan::{RouteId, UpstreamId};
use crate::upstream::{Group, NoPlace, Picked, Wanted};

/// An answer whose head has come and whose content is still to be read.
pub struct Answer {
    /// The head, hop-by-hop fields included.
    pub head: Box<ResponseHeader>,
    /// When the request was sent.
    pub sent: WallTime,
    /// When the head came.
    pub received: WallTime,
    /// The instance that answered.
    pub instance: String,
    /// Attempts made.
    pub tries: u32,
    live: Arc<Live>,
    session: HttpSession,
    peer: HttpPeer,
    idle: Duration,
    /// Compresses the content while it is read.
    coder: Option<Coder>,
    /// Its content is compressed here.
    coded: bool,
    /// Held until the content is read: the instance is busy that long.
    _picked: Picked,
}

/// A failed exchange.
#[derive(Debug, Clone)]
pub struct Failed {
    /// What to tell the client.
    pub failure: Failure,
    /// The instance tried last.
    pub instance: Option<String>,
    /// Attempts made.
    pub tries: u32,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The route it came by.
    pub route: RouteId,
    /// The upstream to ask.
    pub upstream: UpstreamId,
}

/// Sends a request, with its content if that was read into the key, and reads the head of its answer. Interim answers are given to `interim` as they come.
///
/// # Errors
/// When no instance answered; the last failure counts. [`Failure::ClientGone`] when `deserted` came to pass while it waited for a place: once
/// sent, a request is seen through, since its answer may be stored.
pub async fn ask(
    live: &Arc<Live>,
    to: Destination,
    onward: &Onward,
    mut interim: impl FnMut(&ResponseHeader),
    deserted: impl Future<Output = ()>,
) -> Result<Answer, Failed> {
    let upstream = live.upstream(to.upstream);
    let mut tried: SmallVec<[usize; 4]> = SmallVec::new();
    let mut last = Failed { failure: Failure::NoInstance, instance: None, tries: 0 };
    let mut deserted = std::pin::pin!(deserted);
    let mut first = None;
    let key = upstream.group.key(&onward.hash_facts());
    let trying = again::trying(live.route(to.route), upstream.group.plan());
    upstream.retries.request();
    let mut silences = 0;
    loop {
        let wanted = Wanted { tried: tried.clone(), key, bound: None };
        let placed = tokio::select! {
            biased;
            placed = upstream.group.enter(wanted, live.route(to.route).priority) => placed,
            () = &mut deserted => return Err(Failed { failure: Failure::ClientGone, ..last }),
        };
        let picked = match placed {
            Ok(picked) => picked,
            Err(NoPlace::NoInstance) => return Err(last),
            Err(NoPlace::CircuitOpen(_)) if last.tries > 0 => return Err(last),
            Err(why) => return Err(Failed { failure: place::failure(why), ..last }),
        };
        tried.push(picked.index);
        last.tries += 1;
        let index = picked.index;
        last.instance = Some(picked.endpoint.name().to_owned());
        let now = live.clock.mono();
        let first = *first.get_or_insert(now);
        let left = again::time_left(&trying, Some(first), now);
        let peer = peer::within(upstream, &picked, again::patience(&trying, left), left);
        let ended = attempt(live, to, onward, picked, peer, trying.attempt, &mut interim).await;
        silences += u32::from(matches!(ended, Err((FailedAt::Timeout, _))));
        let after = |ended| Attempt {
            method: &onward.method,
            body_replayable: true,
            ended,
            made: last.tries,
            silences,
            left: again::time_left(&trying, Some(first), live.clock.mono()),
            others: upstream.group.has_others(&tried),
            trying,
        };
        match ended {
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                if status < 400 || !again::goes_on(live, upstream, &after(Ended::Answered(status))) {
                    return Ok(Answer { tries: last.tries, ..answer });
                }
            }
            Err((at, failure)) => {
                upstream.metrics.failed(index, at);
                if at == FailedAt::Timeout {
                    upstream.group.took(index, live.clock.mono().since(now));
                }
                let another = again::goes_on(live, upstream, &after(Ended::Failed(at)));
                last.failure = failure;
                if !another {
                    return Err(last);
                }
            }
        }
    }
}

async fn attempt(
    live: &Arc<Live>,
    to: Destination,
    onward: &Onward,
    mut picked: Picked,
    peer: HttpPeer,
    whole: Duration,
    interim: &mut impl FnMut(&ResponseHeader),
) -> Result<Answer, (FailedAt, Failure)> {
    let patience = peer.options.read_timeout.unwrap_or(whole);
    match asked(live, to, onward, &mut picked, peer, interim).await {
        Ok(asked) => Ok(Answer {
            head: asked.head,
            sent: asked.sent,
            received: asked.received,
            instance: picked.endpoint.name().to_owned(),
            tries: 1,
            live: live.clone(),
            session: asked.session,
            peer: asked.peer,
            idle: live.upstream(to.upstream).group.plan().timeouts.idle,
            coder: None,
            coded: false,
            _picked: picked,
        }),
        Err((at, failure)) => {
            if at != FailedAt::Timeout || peer::is_silent(whole, patience) {
                picked.failed(at);
            }
            Err((at, failure))
        }
    }
}

/// What one instance answered.
struct Asked {
    head: Box<ResponseHeader>,
    sent: WallTime,
    received: WallTime,
    session: HttpSession,
    peer: HttpPeer,
}

async fn asked(
    live: &Arc<Live>,
    to: Destination,
    onward: &Onward,
    picked: &mut Picked,
    peer: HttpPeer,
    interim: &mut impl FnMut(&ResponseHeader),
) -> Result<Asked, (FailedAt, Failure)> {
    let upstream = live.upstream(to.upstream);
    let plan = upstream.group.plan();
    let mut head = onward
        .head(&live.route(to.route).rewrite, &plan.host, &picked.endpoint, &live.plan.server.name)
        .map_err(|_| (FailedAt::DuringAnswer, Failure::Internal))?;

    let begun = live.clock.mono();
    let (mut session, reused) = connect(live, upstream, &peer).await.inspect_err(|_| {
        picked.endpoint.connect_failed(picked.addr);
    })?;
    if session.as_http1().is_none() {
        onward::over_http2(&mut head, peer.is_tls())
            .map_err(|_| (FailedAt::DuringAnswer, Failure::Internal))?;
    } else if peer::is_worn(session.digest(), &upstream.group, live.clock.wall()) {
        let _ = head.insert_header(http::header::CONNECTION, "close");
    }
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(Some(plan.timeouts.write));
    let sent = live.clock.wall();
    let mut head = head_of_answer(&mut session, head, onward.content.clone(), interim)
        .await
        .map_err(|e| classify(&e, reused))?;
    let received = live.clock.wall();
    session.set_read_timeout(Some(plan.timeouts.read));
    let took = live.clock.mono().since(begun);
    upstream.metrics.answered(picked.index, head.status.as_u16(), took);
    upstream.group.took(picked.index, took);
    take_capacity(&upstream.group, picked.index, &mut head);
    picked.answered(head.status.as_u16(), retry_after(&head.headers, received));
    Ok(Asked { head, sent, received, session, peer })
}

/// Takes out of an answer how many requests its instance can hold, where instances may say so.
pub fn take_capacity(group: &Arc<Group>, index: usize, answer: &mut ResponseHeader) {
    let Some(capacity) = group.plan().pool.as_ref().and_then(|pool| pool.capacity.as_ref()) else { return };
    let said = answer.remove_header(&capacity.header);
    if let Some(size) = said.and_then(|value| value.to_str().ok()?.trim().parse().ok()) {
        group.told_size(index, size);
    }
}

/// What Retry-After says, in seconds or as a date (RFC 9110 §10.2.3).
pub fn retry_after(fields: &HeaderMap, now: WallTime) -> Option<Duration> {
    let value = fields.get(http::header::RETRY_AFTER)?.as_bytes().trim_ascii();
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_secs);
    }
    date::parse(value).map(|at| at.since(now))
}

async fn connect(
    live: &Live,
    upstream: &Upstream,
    peer: &HttpPeer,
) -> Result<(HttpSession, bool), (FailedAt, Failure)> {
    let begun = live.clock.mono();
    let (session, reused) =
        live.connector.get_http_session(peer).await.map_err(|e| (FailedAt::Connect, connect_failure(&e)))?;
    upstream.metrics.connected(reused, live.clock.mono().since(begun));
    Ok((session, reused))
}

/// What a failed connection attempt means for the client.
pub fn connect_failure(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::Timeout,
        _ => Failure::Connect,
    }
}

async fn head_of_answer(
    session: &mut HttpSession,
    head: pingora::http::RequestHeader,
    content: Option<Bytes>,
    interim: &mut impl FnMut(&ResponseHeader),
) -> pingora::Result<Box<ResponseHeader>> {
    session.write_request_header(Box::new(head)).await?;
    if let Some(content) = content {
        session.write_request_body(content, true).await?;
    }
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let Some(head) = session.response_header() else {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "an answer without a head");
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Error::e_explain(
                ErrorType::InvalidHTTPHeader,
                "a switch of protocols that nobody asked for",
            );
        }
        if !head.status.is_informational() {
            check_framing(head)?;
            if says_two_ends(session) {
                return Error::e_explain(
                    ErrorType::InvalidHTTPHeader,
                    "an answer with a length and in chunks",
                );
            }
            return Ok(Box::new(head.clone()));
        }
        interim(head);
    }
}

/// An answer that two readers could end at different bytes is not passed on (RFC 9112 §6).
///
/// RFC 9112 §6.3 lets a recipient take equal lengths for one; whoever reads behind us may not, so those are refused as well.
///
/// # Errors
/// When its Transfer-Encoding is anything but `chunked`, once; when it has several Content-Lengths or one that is not plain digits; when it has both.
pub fn check_framing(head: &ResponseHeader) -> pingora::Result<()> {
    let only = |name| {
        let mut lines = head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
        (lines.next(), lines.next().is_some())
    };
    let plain = |length: &[u8]| (1..=19).contains(&length.len()) && length.iter().all(u8::is_ascii_digit);
    match (only(http::header::TRANSFER_ENCODING), only(http::header::CONTENT_LENGTH)) {
        ((None, _), (None, _)) => Ok(()),
        ((None, _), (Some(length), false)) if plain(length) => Ok(()),
        ((Some(coding), false), (None, _)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Error::e_explain(ErrorType::InvalidHTTPHeader, "an answer whose end is not clear"),
    }
}

/// Whether an answer came in chunks and with a Content-Length, which pingora removes from the head it shows. RFC 9112 §6.3 lets the chunks
/// decide; but what may be two answers to some other reader is not stored.
fn says_two_ends(session: &HttpSession) -> bool {
    let Some(session) = session.as_http1() else { return false };
    let chunked =
        session.resp_header().is_some_and(|head| head.headers.contains_key(http::header::TRANSFER_ENCODING));
    let named = |line: &[u8]| {
        const NAME: &[u8] = b"content-length";
        line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    };
    chunked && session.get_headers_raw_bytes().split(|b| *b == b'\n').any(named)
}

/// How far an attempt had come when it failed, and what to tell the client.
pub fn classify(error: &Error, reused: bool) -> (FailedAt, Failure) {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => (FailedAt::Timeout, Failure::Timeout),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error => {
            (if reused { FailedAt::ReusedConnection } else { FailedAt::BeforeAnswer }, Failure::Closed)
        }
        _ => (FailedAt::DuringAnswer, Failure::BadAnswer),
    }
}

/// Whether the fault lies with the instance rather than with the client or ourselves.
pub fn blames_upstream(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
}

impl Answer {
    /// The next piece of content; `None` at its clean end.
    ///
    /// # Errors
    /// When the end never came: truncated, timed out, or malformed.
    pub async fn chunk(&mut self) -> pingora::Result<Option<Bytes>> {
        loop {
            let piece = match self.session.read_response_body().await? {
                // Its end is still to be told.
                None if self.coder.is_none() => return Ok(None),
                piece => piece,
            };
            let Some(coder) = self.coder.take() else { return Ok(piece) };
            let (coded, coder) = coder.take(piece).await?;
            let ended = coder.is_none();
            self.coder = coder;
            if !coded.is_empty() || ended {
                return Ok(Some(coded));
            }
        }
    }

    /// Compresses the content from now on, and says so in the head. Only what is delimited: else a truncated content could no longer be told from a whole one.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn code(&mut self, coding: Coding, metrics: &Metrics) -> pingora::Result<()> {
        self.coder = Coder::begin(&mut self.head, coding, metrics)?;
        self.coded = self.coder.is_some();
        Ok(())
    }

    /// Whether a truncated content can be told from a whole one.
    pub fn is_delimited(&self, method: &http::Method) -> bool {
        let fields: &HeaderMap = &self.head.headers;
        self.coded
            || self.session.as_http2().is_some()
            || method == http::Method::HEAD
            || matches!(self.head.status.as_u16(), 204 | 304)
            || fields.contains_key(http::header::CONTENT_LENGTH)
            || fields.contains_key(http::header::TRANSFER_ENCODING)
    }

    /// Gives the connection back for the next request; to be called once the content has been read to its end. Dropped instead, it is closed.
    pub async fn release(self) {
        self.live.connector.release_http_session(self.session, &self.peer, Some(self.idle)).await;
    }
}
