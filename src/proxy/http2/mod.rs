//! Connections that speak HTTP/2: each stream is judged by the guard that judges HTTP/1, and walks the same way.
//!
//! The `h2` crate reads frames and fields, keeps windows, and refuses what RFC 9113 calls malformed. What is added here: the listener's limits, the
//! guard, a purse for frames that bring nothing ([`watch`]), and an end in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, Uri, header};
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::{Digest, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;

use self::session::Exchange;
use self::watch::Watched;
use super::connection::{Connections, Door, Visitor, stopped};
use super::journey::{Admitted, InFlight};
use super::reply::{Failure, PAGE_TYPE};
use super::short::in_time;
use crate::guard::http2;
use crate::guard::request::{self, Head, Limits, Refusal};
use crate::observe::metrics::CacheResult;
use crate::plan::ClientLimits;

mod session;
mod watch;

/// How long a connection that is told to end may take for what is left to say.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Streams under way on a connection.
#[derive(Default)]
struct Streams {
    count: AtomicUsize,
    left: Notify,
}

/// One of them.
struct Under(Arc<Streams>);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_one();
    }
}

impl Streams {
    fn enter(self: &Arc<Self>) -> Under {
        self.count.fetch_add(1, Ordering::AcqRel);
        Under(self.clone())
    }

    fn none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Resolves once there has been none for this long.
    async fn idle(&self, patience: Duration) {
        while !self.none() {
            self.left.notified().await;
        }
        tokio::time::sleep(patience).await;
    }
}

impl Door {
    /// Serves the streams of a connection, each by the configuration in force.
    pub(super) async fn serve_http2(
        &self,
        mut serving: Arc<Connections>,
        stream: Stream,
        visitor: Visitor,
        mut shutdown: ShutdownWatch,
    ) {
        let digest = Arc::new(digest(&stream));
        let visitor = Arc::new(visitor);
        let Some((mut connection, flood)) = serving.greet(stream).await else { return };
        let limits = serving.limits().clone();
        let streams = Arc::new(Streams::default());
        let (mut served, mut leaving) = (0, false);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut shutdown), if !leaving => {
                    connection.graceful_shutdown();
                    leaving = true;
                    continue;
                }
                () = flood.notified() => return cut(connection, &serving).await,
                accepted = connection.accept() => accepted,
                () = streams.idle(limits.idle_timeout), if !leaving => {
                    connection.graceful_shutdown();
                    leaving = true;
                    continue;
                }
                // A client that was told to leave, has nothing under way and stays all the same is left behind.
                () = streams.idle(LAST_WORDS), if leaving => return,
            };
            let Some(Ok((request, respond))) = accepted else { return };
            served += 1;
            if served >= limits.keepalive_requests && !leaving {
                connection.graceful_shutdown();
                leaving = true;
            }
            self.keep_up(&mut serving);
            let (serving, visitor, digest) = (serving.clone(), visitor.clone(), digest.clone());
            let (under, shutdown) = (streams.enter(), shutdown.clone());
            tokio::spawn(async move {
                serving.serve_stream(request, respond, &visitor, digest, &shutdown).await;
                drop(under);
            });
        }
    }
}

/// Ends a connection that floods us.
async fn cut(mut connection: Connection<Watched, Bytes>, serving: &Connections) {
    serving.live.metrics.refused(Refusal::Flood);
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    farewell(connection).await;
}

/// Says what is left to say; further requests are not taken.
async fn farewell(mut connection: Connection<Watched, Bytes>) {
    let end = async { while let Some(Ok(_)) = connection.accept().await {} };
    // Whoever does not listen is left behind.
    let _ = tokio::time::timeout(LAST_WORDS, end).await;
}

fn digest(stream: &Stream) -> Digest {
    Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    }
}

impl Connections {
    /// Exchanges the first words with a client, within the time that a head may take.
    async fn greet(&self, stream: Stream) -> Option<(Connection<Watched, Bytes>, Arc<Notify>)> {
        let settings = &self.live.plan.listeners[self.listener].http2;
        let limits = self.limits();
        let (watched, flood) =
            Watched::over(stream, settings.max_control_frames, limits.header_timeout, self.live.clone());
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(settings.max_streams)
            .max_header_list_size(header_list(limits))
            .initial_window_size(window(settings.stream_window.0))
            .initial_connection_window_size(window(settings.connection_window.0))
            .max_send_buffer_size(settings.send_buffer.as_usize())
            .header_table_size(window(settings.header_table.0));
        let made = in_time(limits.header_timeout, builder.handshake(watched)).await?;
        made.ok().map(|connection| (connection, flood))
    }

    async fn serve_stream(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        visitor: &Visitor,
        digest: Arc<Digest>,
        shutdown: &ShutdownWatch,
    ) {
        let (mut parts, content) = request.into_parts();
        let admitted = match self.admit_http2(&mut parts, visitor) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse_http2(respond, &parts, visitor, refusal),
        };
        let Ok(target) = Uri::try_from(admitted.target()) else {
            return self.refuse_http2(respond, &parts, visitor, Refusal::Target);
        };
        parts.uri = target;
        parts.extensions.insert(Arc::new(admitted));
        let head = RequestHeader::from(parts);
        let exchange = Exchange::new(head, content, respond, digest, self.live.clone(), self.limits());
        self.proxy.process_new_http(ServerSession::new_custom(Box::new(exchange)), shutdown).await;
    }

    /// Judges a head as one of HTTP/1 is judged, and by what only HTTP/2 can get wrong.
    fn admit_http2(&self, parts: &mut http::request::Parts, visitor: &Visitor) -> Result<Admitted, Refusal> {
        http2::judge(parts.uri.scheme_str(), &parts.headers)?;
        http2::join_cookies(&mut parts.headers);
        let limits = self.limits();
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let size = http2::size(parts.method.as_str(), target, authority.unwrap_or_default(), &parts.headers);
        let accepted = request::accept(
            &Head {
                method: &parts.method,
                target: target.as_bytes(),
                http2: true,
                http10: false,
                authority,
                fields: &parts.headers,
                field_count: parts.headers.len(),
                size,
            },
            &Limits {
                max_fields: limits.max_header_fields,
                max_head: limits.max_header_size.as_usize(),
                max_body: 0,
            },
        )?;
        Ok(Admitted {
            host: accepted.host.into_owned(),
            port: accepted.port,
            path: accepted.path.into_owned(),
            query: accepted.query.map(std::borrow::Cow::into_owned),
            last: false,
            listener: self.listener,
            tls: visitor.tls,
            identity: visitor.identity.clone(),
        })
    }

    /// Answers a request that never became one, writes its line and counts it. Other streams are not touched.
    fn refuse_http2(
        &self,
        mut respond: SendResponse<Bytes>,
        parts: &http::request::Parts,
        visitor: &Visitor,
        refusal: Refusal,
    ) {
        let in_flight = InFlight::enter(&self.live.metrics);
        let failure = Failure::Refused(refusal);
        let request_id = super::new_request_id();
        let page = failure.page(&request_id);
        let bodyless = parts.method == http::Method::HEAD;
        let sent = self
            .page_head(failure, &request_id, page.len())
            .and_then(|head| {
                let mut answer = respond.send_response(head, bodyless).ok()?;
                if bodyless { Some(()) } else { answer.send_data(page.clone(), true).ok() }
            })
            .is_some();
        let bytes = page.len() as u64;
        let (status, took) = (failure.status().as_u16(), Duration::ZERO);
        self.live.metrics.refused(refusal);
        self.live.metrics.request(None, &parts.method, status, CacheResult::None, took, 0, bytes);
        self.log_refusal(visitor.peer, "HTTP/2", failure, &request_id, sent, bytes);
        drop(in_flight);
    }

    fn page_head(&self, failure: Failure, request_id: &str, length: usize) -> Option<Response<()>> {
        let mut head = Response::builder()
            .status(failure.status())
            .header(header::CONTENT_TYPE, PAGE_TYPE)
            .header(header::CONTENT_LENGTH, length)
            .header(header::CACHE_CONTROL, "no-store")
            .header("x-request-id", request_id)
            .header(header::DATE, crate::cache::date::format(self.live.clock.wall()));
        if failure.status() == StatusCode::METHOD_NOT_ALLOWED {
            head = head.header(header::ALLOW, super::connection::ALLOWED);
        }
        let tls = self.live.plan.listeners[self.listener].tls.as_ref();
        if let Some(hsts) = tls.and_then(|tls| tls.hsts.as_ref()) {
            head = head.header(header::STRICT_TRANSPORT_SECURITY, hsts);
        }
        head.body(()).ok()
    }
}

/// What a list of fields may take as HTTP/2 counts it: 32 bytes more for each (RFC 9113 §6.5.2), so that the guard's own count decides.
fn header_list(limits: &ClientLimits) -> u32 {
    let fields = limits.max_header_fields.saturating_mul(32);
    u32::try_from(limits.max_header_size.as_usize().saturating_add(fields)).unwrap_or(u32::MAX)
}

fn window(size: u64) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
