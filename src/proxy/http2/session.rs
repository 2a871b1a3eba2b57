//! One HTTP/2 stream as pingora_proxy sees it.
//!
//! pingora has a session of its own for HTTP/2. It writes the present into `Date` of every answer, drops interim ones, and waits for ever for a client
//! that sends content a byte at a time, so this one stands in its place.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};

use crate::cache::date;
use crate::plan::ClientLimits;
use crate::proxy::live::Live;
use crate::proxy::patience::Patience;

/// As much content is kept to be sent again as pingora keeps of HTTP/1.
const KEPT: usize = 64 * 1024;

/// One request and its answer.
pub struct Exchange {
    request: RequestHeader,
    content: RecvStream,
    respond: SendResponse<Bytes>,
    answer: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// The answer is whole, or given up.
    ended: bool,
    bytes_in: usize,
    bytes_out: usize,
    kept: Option<Kept>,
    digest: Arc<Digest>,
    live: Arc<Live>,
    /// With the client, while it sends content.
    sending: Patience,
    /// With the client, while it takes the answer.
    taking: Patience,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// Content kept to be sent again.
#[derive(Default)]
struct Kept {
    bytes: BytesMut,
    truncated: bool,
}

impl Exchange {
    /// A request that was admitted.
    pub fn new(
        request: RequestHeader,
        content: RecvStream,
        respond: SendResponse<Bytes>,
        digest: Arc<Digest>,
        live: Arc<Live>,
        limits: &ClientLimits,
    ) -> Self {
        Self {
            request,
            content,
            respond,
            answer: None,
            written: None,
            ended: false,
            bytes_in: 0,
            bytes_out: 0,
            kept: None,
            digest,
            live,
            sending: Patience::new(limits.read_timeout, limits.min_rate.0),
            taking: Patience::new(limits.write_timeout, limits.min_rate.0),
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let (content, sending) = (&mut self.content, &mut self.sending);
        let next = poll_fn(|cx| match content.poll_data(cx) {
            Poll::Pending => sending.poll_exhausted(cx).map(|()| Err(late())),
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Ok(Some(data))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(broken(error))),
        });
        let next = match self.read_timeout {
            Some(patience) => tokio::time::timeout(patience, next).await.unwrap_or_else(|_| Err(late())),
            None => next.await,
        };
        let next =
            next.or_err(ErrorType::ReadError, "reading a request's content").map_err(Error::into_down)?;
        let Some(data) = next else { return Ok(None) };
        self.bytes_in += data.len();
        self.sending.moved(data.len());
        if let Some(kept) = &mut self.kept {
            kept.add(&data);
        }
        // The window opens by what was taken, so that a client is as fast as whoever reads behind us.
        let _ = self.content.flow_control().release_capacity(data.len());
        Ok(Some(data))
    }

    async fn room(&mut self, wanted: usize) -> Result<usize> {
        let Some(answer) = &mut self.answer else {
            return Error::e_explain(ErrorType::InternalError, "content before a head");
        };
        answer.reserve_capacity(wanted);
        let taking = &mut self.taking;
        let room = poll_fn(|cx| match answer.poll_capacity(cx) {
            Poll::Pending => taking.poll_exhausted(cx).map(|()| Err(late())),
            Poll::Ready(Some(Ok(room))) => Poll::Ready(Ok(room)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(broken(error))),
            Poll::Ready(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        });
        let room = match self.write_timeout {
            Some(patience) => tokio::time::timeout(patience, room).await.unwrap_or_else(|_| Err(late())),
            None => room.await,
        };
        room.or_err(ErrorType::WriteError, "sending an answer's content").map_err(Error::into_down)
    }

    fn end(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        if let Some(answer) = &mut self.answer {
            answer.send_data(Bytes::new(), true).or_err(ErrorType::WriteError, "ending an answer")?;
            self.ended = true;
        }
        Ok(())
    }

    fn give_up(&mut self, why: Reason) {
        if !self.ended {
            self.ended = true;
            match &mut self.answer {
                Some(answer) => answer.send_reset(why),
                None => self.respond.send_reset(why),
            }
        }
    }

    /// The final head, without what belongs to HTTP/1 alone (RFC 9113 §8.2.2), and with a Date (RFC 9110 §6.6.1).
    fn head(&self, head: &ResponseHeader) -> Response<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = head.status;
        let fields = answer.headers_mut();
        *fields = head.headers.clone();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            fields.remove(name);
        }
        fields.remove("keep-alive");
        fields.remove("proxy-connection");
        if !head.status.is_informational() && !fields.contains_key(header::DATE) {
            let now = HeaderValue::try_from(date::format(self.live.clock.wall()));
            fields.extend(now.map(|now| (header::DATE, now)));
        }
        answer
    }

    /// Whether an answer with this head has no content.
    fn is_bodyless(&self, head: &ResponseHeader) -> bool {
        self.request.method == Method::HEAD
            || matches!(head.status.as_u16(), 204 | 304)
            || head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0")
    }
}

impl Kept {
    fn add(&mut self, data: &Bytes) {
        if self.bytes.len() + data.len() > KEPT {
            self.truncated = true;
            self.bytes = BytesMut::new();
        }
        if !self.truncated {
            self.bytes.extend_from_slice(data);
        }
    }
}

fn late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// What the client did wrong within a stream is malformed content; all else is a client that left.
fn broken(error: h2::Error) -> io::Error {
    let malformed = error.is_library() && error.reason() == Some(Reason::PROTOCOL_ERROR);
    let kind = if malformed { io::ErrorKind::InvalidData } else { io::ErrorKind::ConnectionReset };
    io::Error::new(kind, error)
}

#[async_trait]
impl Session for Exchange {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.next().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let patience = self.drain_timeout.unwrap_or(Duration::MAX);
        let drain = async {
            while self.next().await?.is_some() {}
            Ok(())
        };
        let drained = tokio::time::timeout(patience, drain).await;
        drained.unwrap_or_else(|_| Error::e_explain(ErrorType::ReadTimedout, "draining a request's content"))
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        let answer = self.head(&head);
        if head.status.is_informational() {
            return self
                .respond
                .send_informational(answer)
                .or_err(ErrorType::WriteError, "sending an interim answer")
                .map_err(Error::into_down);
        }
        let end = end || self.is_bodyless(&head);
        let sending = self.respond.send_response(answer, end);
        self.answer =
            Some(sending.or_err(ErrorType::WriteError, "sending an answer").map_err(Error::into_down)?);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        while !data.is_empty() {
            let room = self.room(data.len()).await?.min(data.len());
            let piece = data.split_to(room);
            let last = end && data.is_empty();
            if room == 0 {
                continue;
            }
            let Some(answer) = &mut self.answer else { break };
            let sent = answer.send_data(piece, last);
            sent.or_err(ErrorType::WriteError, "sending an answer's content").map_err(Error::into_down)?;
            self.bytes_out += room;
            self.taking.moved(room);
            self.ended = last;
        }
        if end { self.end().map_err(Error::into_down) } else { Ok(()) }
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        let Some(answer) = self.answer.as_mut().filter(|_| !self.ended) else { return Ok(()) };
        self.ended = true;
        let sent = answer.send_trailers(trailers);
        sent.or_err(ErrorType::WriteError, "sending trailers").map_err(Error::into_down)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end = false;
        for task in tasks {
            end |= match task {
                HttpTask::Header(head, end) => {
                    self.write_response_header(head, end).await?;
                    end
                }
                HttpTask::Body(data, end) => {
                    if let Some(data) = data.filter(|data| !data.is_empty()) {
                        self.write_body(data, end).await?;
                    }
                    end
                }
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "an upgrade within HTTP/2");
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_trailers(*trailers).await?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if end {
            self.end().map_err(Error::into_down)?;
        }
        Ok(end)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.give_up(Reason::INTERNAL_ERROR);
    }

    async fn abandon(&mut self, _why: &str) {
        self.give_up(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.content.is_end_stream()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        let none = || self.request.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
        self.bytes_in == 0 && (self.content.is_end_stream() || none())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.is_body_done() {
            return self.next().await;
        }
        let reason = poll_fn(|cx| match &mut self.answer {
            Some(answer) => answer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        let reason =
            reason.await.or_err(ErrorType::ConnectionClosed, "the client left").map_err(Error::into_down)?;
        let why = format!("the client gave the stream up: {reason}");
        Err(Error::explain(ErrorType::ConnectionClosed, why).into_down())
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_out
    }

    fn body_bytes_read(&self) -> usize {
        self.bytes_in
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        // Only what makes sub-requests asks for it, and nothing here does.
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.kept.get_or_insert_default();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        let kept = self.kept.as_ref().filter(|kept| !kept.truncated && !kept.bytes.is_empty())?;
        Some(kept.bytes.clone().freeze())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures_util::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn futures_util::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
