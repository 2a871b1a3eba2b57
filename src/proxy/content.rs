//! The client's connection as pingora sees it while a request is served: that request's content, checked, and not a byte beyond.
//!
//! pingora's own reader takes a line feed within a chunk's extension, a chunk without a size and empty lines between chunks; and it takes a
//! pipelined request for content that should not be there. So content is judged here, between the socket and pingora: chunks are read strictly
//! and written anew ([`Chunks`]), a length is counted, and what comes after the content waits for its turn. At a malformed
//! chunk the read fails, so that neither we nor an instance finish the content.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::patience::Patience;
use crate::base::fields::Fields;
use crate::guard::chunks::Chunks;
use crate::plan::ClientLimits;

/// How much of chunked content, or of what comes after the content, is read at once.
const READ: usize = 16 * 1024;
/// The most bytes of later requests that wait while one is served; a client that sends more ahead waits in its socket.
const MOST_AHEAD: usize = 32 * 1024;
/// What is still read from a client that is told why it was cut off: closing over unread bytes sends a reset, which overtakes the answer and
/// destroys it (RFC 9112 §9.6).
const MOST_LINGERED: usize = 256 * 1024;
/// How long that may take.
const LINGER: Duration = Duration::from_secs(1);

/// How the content of a request is framed.
#[derive(Debug)]
pub enum Framing {
    /// So many bytes are to come; 0 also for a request without content.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// A connection that may become another protocol's: everything goes through as it comes.
    Raw,
}

impl Framing {
    /// What the fields of an accepted request say.
    pub fn of(fields: &dyn Fields) -> Self {
        if fields.has("transfer-encoding") {
            return Self::Chunked(Chunks::default());
        }
        match fields.first("content-length") {
            // The guard has refused every length that does not read.
            Some(length) => Self::Length(
                std::str::from_utf8(length).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            ),
            // The one upgrade that is ever passed on: see `forward::is_websocket`.
            None if fields.first("upgrade").is_some_and(|to| to.eq_ignore_ascii_case(b"websocket")) => {
                Self::Raw
            }
            None => Self::Length(0),
        }
    }

    /// Whether the request's content has come to its end.
    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::Raw => false,
        }
    }
}

/// A connection that yields one request's content.
pub struct ContentStream {
    inner: Stream,
    framing: Framing,
    /// What was read and not yet judged.
    ahead: BytesMut,
    /// What was judged and not yet taken.
    judged: BytesMut,
    /// With the client, while it sends content.
    sending: Patience,
    /// With the client, while it takes the answer.
    taking: Patience,
}

impl ContentStream {
    /// The connection `inner`, of which the bytes after a request's head in `ahead` were read already.
    pub fn new(inner: Stream, framing: Framing, ahead: BytesMut, limits: &ClientLimits) -> Self {
        let sending = Patience::new(limits.read_timeout, limits.min_rate.0);
        let taking = Patience::new(limits.write_timeout, limits.min_rate.0);
        Self { inner, framing, ahead, judged: BytesMut::new(), sending, taking }
    }

    /// The connection beneath.
    pub fn inner(&self) -> &Stream {
        &self.inner
    }

    /// The connection and what was read beyond the content; `None` when the content has not been read to its end, so that nobody knows where the
    /// next request begins.
    pub fn into_next(self) -> Option<(Stream, BytesMut)> {
        let whole = self.framing.is_done() || (matches!(self.framing, Framing::Raw) && self.ahead.is_empty());
        (whole && self.judged.is_empty()).then_some((self.inner, self.ahead))
    }

    /// Reads more into `ahead`; 0 at the end of the stream.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = self.ahead.len();
        self.ahead.resize(held + READ, 0);
        let mut free = ReadBuf::new(&mut self.ahead[held..]);
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut free);
        let count = free.filled().len();
        self.ahead.truncate(held + count);
        if held + count == 0 {
            // A connection at rest holds no buffer.
            self.ahead = BytesMut::new();
        }
        read.map_ok(|()| count)
    }

    /// Content under a length: straight from the socket, never past its end.
    fn poll_counted(
        &mut self,
        left: u64,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let count = if self.ahead.is_empty() {
            let mut free = ReadBuf::new(buf.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut free))?;
            let count = free.filled().len();
            buf.advance(count);
            count
        } else {
            give(&mut self.ahead, most, buf)
        };
        self.framing = Framing::Length(left - count as u64);
        Poll::Ready(Ok(()))
    }

    /// What reading content came to, unless it has kept us waiting for too long.
    fn with_patience(
        &mut self,
        read: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
        count: usize,
    ) -> Poll<io::Result<()>> {
        if read.is_ready() {
            self.sending.moved(count);
            return read;
        }
        self.sending.poll_exhausted(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What writing the answer came to, unless it has kept us waiting for too long.
    fn taken<T>(
        &mut self,
        wrote: Poll<io::Result<T>>,
        count: impl FnOnce(&T) -> usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match wrote {
            Poll::Ready(Ok(done)) => {
                self.taking.moved(count(&done));
                Poll::Ready(Ok(done))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
            Poll::Pending => self.taking.poll_exhausted(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Chunked content: judged and written anew.
    fn poll_chunked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.judged.is_empty() {
            if self.ahead.is_empty() && ready!(self.poll_ahead(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
            let Framing::Chunked(chunks) = &mut self.framing else { break };
            let read = chunks
                .read(&self.ahead, &mut self.judged)
                .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
            self.ahead.advance(read);
        }
        give(&mut self.judged, usize::MAX, buf);
        Poll::Ready(Ok(()))
    }

    /// After the content: nothing but the end of the stream, by which pingora learns that the client left.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < MOST_AHEAD {
            if ready!(self.poll_ahead(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        // Nobody need wake us: the request in hand ends by itself, and then the rest is read.
        Poll::Pending
    }
}

/// Moves at most `most` bytes; answers with how many.
fn give(from: &mut BytesMut, most: usize, to: &mut ReadBuf<'_>) -> usize {
    let count = most.min(from.len()).min(to.remaining());
    to.put_slice(&from[..count]);
    from.advance(count);
    count
}

/// Ends the connection after an answer that cuts the client off, so that the answer arrives.
pub async fn part(stream: &mut Stream) {
    stream.shutdown().await;
    let linger = async {
        let mut rest = vec![0; READ];
        let mut seen = 0;
        while seen < MOST_LINGERED {
            match stream.read(&mut rest).await {
                Ok(count) if count > 0 => seen += count,
                _ => break,
            }
        }
    };
    // What is not read by then is the client's loss.
    let _ = tokio::time::timeout(LINGER, linger).await;
}

/// What was wrong with a request's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its chunks are malformed.
    Malformed,
    /// It came more slowly than allowed.
    Slow,
}

/// The fault with a request's content by which a read of it failed, if that was why.
pub fn fault(error: &pingora::Error) -> Option<Fault> {
    if *error.esource() != pingora::ErrorSource::Downstream || *error.etype() != pingora::ErrorType::ReadError
    {
        return None;
    }
    match error.cause.as_ref()?.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::InvalidData => Some(Fault::Malformed),
        io::ErrorKind::TimedOut => Some(Fault::Slow),
        _ => None,
    }
}

impl AsyncRead for ContentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if !this.judged.is_empty() {
            give(&mut this.judged, usize::MAX, buf);
            return Poll::Ready(Ok(()));
        }
        match &this.framing {
            framing if framing.is_done() => this.poll_end(cx),
            Framing::Length(left) => {
                let read = this.poll_counted(*left, cx, buf);
                this.with_patience(read, cx, buf.filled().len() - before)
            }
            Framing::Chunked(_) => {
                let read = this.poll_chunked(cx, buf);
                this.with_patience(read, cx, buf.filled().len() - before)
            }
            Framing::Raw if this.ahead.is_empty() => Pin::new(&mut this.inner).poll_read(cx, buf),
            Framing::Raw => {
                give(&mut this.ahead, usize::MAX, buf);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for ContentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.taken(wrote, |count| *count, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = Pin::new(&mut self.inner).poll_flush(cx);
        self.taken(wrote, |()| 0, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.taken(wrote, |count| *count, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for ContentStream {
    async fn shutdown(&mut self) {
        // With the content read to its end there is nothing unread that could destroy the answer.
        if self.framing.is_done() && self.ahead.is_empty() {
            Shutdown::shutdown(self.inner.as_mut()).await;
        } else {
            part(&mut self.inner).await;
        }
    }
}

impl UniqueID for ContentStream {
    fn id(&self) -> pingora::protocols::UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for ContentStream {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for ContentStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for ContentStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for ContentStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

impl Peek for ContentStream {}

impl std::fmt::Debug for ContentStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentStream").field("framing", &self.framing).finish_non_exhaustive()
    }
}
