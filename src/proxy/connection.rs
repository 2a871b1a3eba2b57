//! One client's connection: request heads are read here, under one total deadline each, judged, and handed over.
//!
//! pingora would read the head itself, but with a time-out per read only, so that a client that sends a byte a minute is never cut; it accepts bare
//! line feeds and up to a mebibyte. So the head is read here: whole, within the listener's limits, with strict line ends; what the
//! guard refuses never becomes a request. The head goes to pingora, its target in the guard's spelling, so that both read the same; content goes
//! through [`ContentStream`], and bytes that belong to the next request come back from it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use http::Method;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::Gateway;
use super::content::{self, ContentStream, Framing};
use super::dated::Dated;
use super::journey::{Admitted, InFlight};
use super::live::Live;
use super::reply::{Failure, PAGE_TYPE};
use super::short::{self, in_time};
use super::tls::{self, Identity};
use crate::base::fields::Pairs;
use crate::fast_path::{self, Answer};
use crate::guard::crowd::Crowd;
use crate::guard::request::{self, Head, Limits, Refusal};
use crate::observe::access::Line;
use crate::observe::metrics::CacheResult;
use crate::plan::ClientLimits;

/// How much is read at once while a head is awaited.
const READ: usize = 4096;
/// The most field lines a head is parsed for; a listener's own limit may be lower.
const MOST_FIELDS: usize = 256;

/// Beside a 405 (RFC 9110 §15.5.6): the methods it defines but CONNECT and TRACE, and PATCH (RFC 5789). Others are passed on as well.
const ALLOW: &str = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

/// Serves the connections of one listener, by the configuration in force: a request is served to its end by the one that was in force when its
/// head had come, the next request of the connection perhaps by another.
pub struct Door {
    current: ArcSwap<Connections>,
}

impl Door {
    /// A door behind which `connections` serve.
    pub fn new(connections: Connections) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(connections) })
    }

    /// For pingora, which wants an app of its own.
    pub fn app(self: Arc<Self>) -> impl ServerApp + Send + Sync + 'static {
        Doorway(self)
    }

    /// Further requests are served by `connections`. Who is connected stays counted.
    pub fn change(&self, connections: impl FnOnce(&Connections) -> Connections) {
        let next = connections(&self.current.load());
        self.current.store(Arc::new(next));
    }

    /// Makes `serving` what is in force now.
    fn keep_up(&self, serving: &mut Arc<Connections>) {
        let current = self.current.load();
        if !Arc::ptr_eq(&current, serving) {
            *serving = Arc::clone(&current);
        }
    }
}

/// Serves the connections of one listener by one configuration.
pub struct Connections {
    live: Arc<Live>,
    proxy: Arc<HttpProxy<Gateway>>,
    listener: usize,
    open: Arc<Open>,
    crowd: Arc<Mutex<Crowd>>,
}

/// Who is at the other end of a connection.
struct Visitor {
    peer: IpAddr,
    tls: bool,
    identity: Option<Arc<Identity>>,
}

/// Counts open connections, so that a drain knows when the last one is gone.
#[derive(Default)]
pub struct Open {
    count: AtomicUsize,
    changed: Notify,
}

/// One open connection.
pub(super) struct Opened(Arc<Open>);

/// A connection among those of its address.
struct Inside<'a> {
    crowd: &'a Mutex<Crowd>,
    addr: IpAddr,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.crowd.lock().leave(self.addr);
    }
}

impl Open {
    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until none is open.
    pub async fn none_left(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn enter(self: &Arc<Self>) -> Opened {
        self.count.fetch_add(1, Ordering::AcqRel);
        Opened(self.clone())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// What became of a complete head that the guard took.
enum Admission {
    /// It is a plain hit, and this is its answer.
    Hit(Box<Answer>),
    /// It goes on to pingora.
    Onward(Admitted, Framing),
}

/// What waiting for a request head came to.
enum Next {
    /// A head, this many bytes long.
    Head(usize),
    /// The client left, or was idle for too long, or we are shutting down: close without a word.
    Gone,
    /// The request is refused.
    Refused(Failure),
}

impl Connections {
    /// Serves the connections of the listener at position `listener` of the plan.
    pub fn new(live: Arc<Live>, proxy: Arc<HttpProxy<Gateway>>, listener: usize, open: Arc<Open>) -> Self {
        Self { live, proxy, listener, open, crowd: Arc::default() }
    }

    /// The same listener by another configuration, in whose plan it stands at position `listener`.
    pub fn by(&self, live: Arc<Live>, proxy: Arc<HttpProxy<Gateway>>, listener: usize) -> Self {
        Self { live, proxy, listener, open: self.open.clone(), crowd: self.crowd.clone() }
    }

    fn limits(&self) -> &ClientLimits {
        &self.live.plan.listeners[self.listener].limits
    }

    /// One more connection from `addr`, counted until what is answered is dropped; `None` when there is no room.
    fn let_in(&self, addr: IpAddr) -> Option<Inside<'_>> {
        let exempt = self.live.plan.server.trusted_proxies.contains(addr);
        let entered = self.crowd.lock().enter(addr, self.limits().room, exempt);
        entered.then_some(Inside { crowd: &self.crowd, addr })
    }

    /// Waits for the next request's head to be complete in `held`.
    async fn next_head(
        &self,
        stream: &mut Stream,
        held: &mut BytesMut,
        first: bool,
        shutdown: &mut ShutdownWatch,
    ) -> Next {
        let limits = self.limits();
        if held.is_empty() {
            // A fresh connection owes us a request; a kept one may rest.
            let patience = if first { limits.header_timeout } else { limits.idle_timeout };
            held.reserve(READ);
            let read = tokio::select! {
                biased;
                read = in_time(patience, stream.read_buf(held)) => read,
                () = stopped(shutdown) => return Next::Gone,
            };
            if !matches!(read, Some(Ok(n)) if n > 0) {
                return Next::Gone;
            }
        }
        let next = in_time(limits.header_timeout, self.rest_of_head(stream, held)).await;
        next.unwrap_or(Next::Refused(Failure::ClientTimeout))
    }

    async fn rest_of_head(&self, stream: &mut Stream, held: &mut BytesMut) -> Next {
        let most = self.limits().max_header_size.as_usize();
        let mut seen = 0;
        loop {
            skip_empty_lines(held);
            match scan(held, &mut seen) {
                Scan::End(length) if length <= most => return Next::Head(length),
                Scan::BareLineFeed => return Next::Refused(Failure::Refused(Refusal::Framing)),
                Scan::More if held.len() <= most => {}
                _ => return Next::Refused(Failure::Refused(Refusal::HeadTooLarge)),
            }
            held.reserve(READ);
            match stream.read_buf(held).await {
                Ok(n) if n > 0 => {}
                _ => return Next::Gone,
            }
        }
    }

    /// Judges a complete head; a plain hit is answered at once.
    fn admit(&self, head: &[u8], visitor: &Visitor, last: bool) -> Result<Admission, Refusal> {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut lines) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
            _ => return Err(Refusal::Target),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refusal::Target);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Method)?;
        let fields: Vec<(&str, &[u8])> = parsed.headers.iter().map(|h| (h.name, h.value)).collect();
        let fields = Pairs(&fields);
        let limits = self.limits();
        let accepted = request::accept(
            &Head {
                method: &method,
                target: target.as_bytes(),
                http2: false,
                http10: version == 0,
                authority: None,
                fields: &fields,
                field_count: parsed.headers.len(),
                size: head.len(),
            },
            // The largest body is the route's to say.
            &Limits {
                max_fields: limits.max_header_fields,
                max_head: limits.max_header_size.as_usize(),
                max_body: 0,
            },
        )?;
        let listener = &self.live.plan.listeners[self.listener];
        let request = fast_path::Request {
            method: &method,
            http10: version == 0,
            host: &accepted.host,
            port: accepted.port,
            path: &accepted.path,
            query: accepted.query.as_deref(),
            fields: &fields,
            peer: visitor.peer,
            tls: visitor.tls,
            hsts: listener.tls.as_ref().and_then(|tls| tls.hsts.as_ref()),
            last,
        };
        // Who the client is, and where it is sent instead, only the long way knows.
        let short = visitor.identity.is_none() && listener.https_port.is_none();
        if let Some(answer) = short.then(|| short::answer(&self.live, &request)).flatten() {
            return Ok(Admission::Hit(Box::new(answer)));
        }
        let admitted = Admitted {
            host: accepted.host.into_owned(),
            port: accepted.port,
            path: accepted.path.into_owned(),
            query: accepted.query.map(Cow::into_owned),
            last,
            listener: self.listener,
            tls: visitor.tls,
            identity: visitor.identity.clone(),
        };
        Ok(Admission::Onward(admitted, Framing::of(&fields)))
    }

    /// Answers a request that never became one, writes its line and counts it.
    async fn refuse(&self, stream: &mut Stream, failure: Failure) {
        let in_flight = InFlight::enter(&self.live.metrics);
        let request_id = super::new_request_id();
        let page = failure.page(&request_id);
        let status = failure.status();
        let more = match failure.retry_after() {
            Some(seconds) => format!("Retry-After: {seconds}\r\n"),
            None if status == http::StatusCode::METHOD_NOT_ALLOWED => ALLOW.to_owned(),
            None => String::new(),
        };
        let more = more + &self.hsts_line();
        let text = format!(
            "HTTP/1.1 {} {}\r\n{more}Content-Type: {PAGE_TYPE}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Request-ID: {request_id}\r\nConnection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or("Error"),
            page.len(),
        );
        let mut answer = text.into_bytes();
        answer.extend_from_slice(&page);
        let write = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        let sent = tokio::time::timeout(self.limits().write_timeout, write).await;
        if let Failure::Refused(refusal) = failure {
            self.live.metrics.refused(refusal);
        }
        let took = std::time::Duration::ZERO;
        let bytes = page.len() as u64;
        self.live.metrics.request(None, &Method::GET, status.as_u16(), CacheResult::None, took, 0, bytes);
        self.log_refusal(stream, failure, &request_id, matches!(sent, Ok(Ok(()))), bytes);
        drop(in_flight);
        // Whom there is no room for is not waited for.
        if failure != Failure::Refused(Refusal::Crowd) {
            content::part(stream).await;
        }
    }

    /// What browsers are to remember of HTTPS, as a line.
    fn hsts_line(&self) -> String {
        let tls = self.live.plan.listeners[self.listener].tls.as_ref();
        let value = tls.and_then(|tls| tls.hsts.as_ref()?.to_str().ok());
        value.map_or_else(String::new, |value| format!("Strict-Transport-Security: {value}\r\n"))
    }

    fn log_refusal(&self, stream: &Stream, failure: Failure, request_id: &str, sent: bool, bytes_out: u64) {
        let client = short::peer(stream);
        self.live.log.write(&Line {
            at: self.live.clock.wall(),
            request_id,
            client,
            method: "",
            host: "",
            target: "",
            protocol: "HTTP/1.1",
            status: if sent { failure.status().as_u16() } else { 0 },
            bytes_in: 0,
            bytes_out,
            took: std::time::Duration::ZERO,
            route: None,
            upstream: None,
            instance: None,
            tries: 0,
            cache: None,
            error: Some(failure.as_str()),
            user_agent: None,
            referer: None,
        });
    }

    /// Hands a request over with its head and takes the connection back when it may be used again, with what was read of the next request.
    async fn hand_over(
        &self,
        stream: ContentStream,
        head: BytesMut,
        admitted: Admitted,
        shutdown: &ShutdownWatch,
    ) -> Option<(Stream, BytesMut)> {
        let mut session = ServerSession::new_http1(Box::new(stream));
        session.set_pipelined_prefix(head);
        session.set_connection_user_context(Some(Box::new(admitted)));
        let reused = self.proxy.process_new_http(session, shutdown).await?;
        let stream = reused.consume().0.into_any().downcast::<ContentStream>().ok()?;
        stream.into_next()
    }
}

/// What [`Door`] hands to pingora, which wants an app of its own.
struct Doorway(Arc<Door>);

#[async_trait]
impl ServerApp for Doorway {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let serving = self.0.current.load_full();
        let _open = serving.open.enter();
        let mut stream = stream;
        let peer = short::peer(&stream);
        let Some(_inside) = serving.let_in(peer) else {
            // Under TLS nothing can be said without the handshake, which costs more than there is room for.
            if serving.tls().is_none() {
                serving.refuse(&mut stream, Failure::Refused(Refusal::Crowd)).await;
            }
            return None;
        };
        let (stream, visitor) = serving.secure(stream, peer, shutdown).await?;
        self.0.serve(serving.clone(), Dated::over(stream), &visitor, shutdown.clone()).await;
        None
    }
}

impl Connections {
    /// Makes the handshake, where there is one to make.
    async fn secure(
        &self,
        stream: Stream,
        peer: IpAddr,
        shutdown: &ShutdownWatch,
    ) -> Option<(Stream, Visitor)> {
        let Some(tls) = self.tls() else {
            return Some((stream, Visitor { peer, tls: false, identity: None }));
        };
        let mut shutdown = shutdown.clone();
        let secured = tokio::select! {
            secured = tls.accept(stream, &self.live.clock) => secured.ok()?,
            () = stopped(&mut shutdown) => return None,
        };
        Some((secured.stream, Visitor { peer, tls: true, identity: secured.identity }))
    }

    /// The secured side of the listener.
    fn tls(&self) -> Option<&Arc<tls::Server>> {
        self.live.secured.get(self.listener)?.as_ref()
    }
}

impl Door {
    /// Serves one HTTP/1 request after the other, each by the configuration in force.
    async fn serve(
        &self,
        mut serving: Arc<Connections>,
        mut stream: Stream,
        visitor: &Visitor,
        mut shutdown: ShutdownWatch,
    ) {
        let mut held = BytesMut::new();
        for served in 0.. {
            let next = serving.next_head(&mut stream, &mut held, served == 0, &mut shutdown).await;
            self.keep_up(&mut serving);
            let length = match next {
                Next::Head(length) => length,
                Next::Gone => break,
                Next::Refused(failure) => {
                    serving.refuse(&mut stream, failure).await;
                    break;
                }
            };
            let last = served + 1 >= serving.limits().keepalive_requests || *shutdown.borrow();
            let (admitted, framing) = match serving.admit(&held[..length], visitor, last) {
                Ok(Admission::Hit(answer)) => {
                    held.advance(length);
                    if short::send(&serving.live, serving.limits().write_timeout, &mut stream, *answer).await
                    {
                        continue;
                    }
                    break;
                }
                Ok(Admission::Onward(admitted, framing)) => (admitted, framing),
                Err(refusal) => {
                    serving.refuse(&mut stream, Failure::Refused(refusal)).await;
                    break;
                }
            };
            let head = with_target(held.split_to(length), &admitted.target());
            let content = ContentStream::new(stream, framing, std::mem::take(&mut held), serving.limits());
            match serving.hand_over(content, head, admitted, &shutdown).await {
                Some(kept) => (stream, held) = kept,
                None => break,
            }
        }
    }
}

/// Resolves when the gateway shuts down.
async fn stopped(shutdown: &mut ShutdownWatch) {
    // An error means that the sender is gone, which only happens at the very end.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The same request with its target spelled as the guard took it.
fn with_target(head: BytesMut, target: &str) -> BytesMut {
    let mut words = head.splitn(3, |b| *b == b' ');
    let (Some(method), Some(received), Some(rest)) = (words.next(), words.next(), words.next()) else {
        return head;
    };
    if received == target.as_bytes() {
        return head;
    }
    let mut out = BytesMut::with_capacity(head.len() + target.len());
    for part in [method, b" ", target.as_bytes(), b" ", rest] {
        out.extend_from_slice(part);
    }
    out
}

enum Scan {
    /// The head ends before this byte.
    End(usize),
    /// It does not end yet.
    More,
    /// A line feed without its carriage return: readers differ in what it means.
    BareLineFeed,
}

/// Looks for the end of the head, from where the last look ended.
fn scan(held: &[u8], seen: &mut usize) -> Scan {
    while let Some(at) = held[*seen..].iter().position(|b| *b == b'\n').map(|i| i + *seen) {
        if at == 0 || held[at - 1] != b'\r' {
            return Scan::BareLineFeed;
        }
        if at >= 3 && held[at - 2] == b'\n' {
            return Scan::End(at + 1);
        }
        *seen = at + 1;
    }
    Scan::More
}

/// Empty lines before a request line are ignored (RFC 9112 §2.2).
fn skip_empty_lines(held: &mut BytesMut) {
    while held.starts_with(b"\r\n") {
        held.advance(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Option<usize> {
        match scan(text.as_bytes(), &mut 0) {
            Scan::End(length) => Some(length),
            Scan::More => None,
            Scan::BareLineFeed => Some(0),
        }
    }

    #[test]
    fn a_head_ends_at_the_first_empty_line() {
        assert_eq!(end("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(27));
        assert_eq!(end("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /"), Some(27));
        assert_eq!(end("GET / HTTP/1.1\r\nHost: a\r\n"), None);
        assert_eq!(end("GET / HTTP/1.1\r\nHost: a\r"), None);
    }

    #[test]
    fn a_bare_line_feed_is_not_a_line_end() {
        assert_eq!(end("GET / HTTP/1.1\nHost: a\n\n"), Some(0));
        assert_eq!(end("GET / HTTP/1.1\r\nHost: a\n\r\n"), Some(0));
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_found_all_the_same() {
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut seen = 0;
        for length in 0..whole.len() {
            assert!(matches!(scan(&whole[..length], &mut seen), Scan::More), "{length}");
        }
        assert!(matches!(scan(whole, &mut seen), Scan::End(27)));
    }

    #[test]
    fn a_target_is_handed_over_in_the_guards_spelling() {
        let respelled =
            |head: &str, target: &str| String::from_utf8(with_target(head.into(), target).to_vec()).unwrap();
        let head = "GET /%61?q=\"1\" HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(respelled(head, "/a?q=%221%22"), "GET /a?q=%221%22 HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = "GET /a HTTP/1.1\r\nX: b c d\r\n\r\n";
        assert_eq!(respelled(head, "/a"), head);
    }
}
