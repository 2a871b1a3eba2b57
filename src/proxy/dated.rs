//! A client's connection on which an answer keeps the Date of its origin.
//!
//! pingora writes the present into `Date` of every answer on HTTP/1, and lets nobody keep it from doing so. A stored answer would then look younger to every
//! cache behind us than its `Age` says, and one that passes through would lose what its origin said (RFC 9110 §6.6.1 lets a recipient add a
//! Date where there is none, not change one). So the connection is told the Date of the head that comes next, and puts it where pingora
//! wrote its own.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, header};
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::content::ContentStream;

/// A connection that writes the Date it was told.
#[derive(Debug)]
pub struct Dated {
    stream: Stream,
    next: Mutex<Option<HeaderValue>>,
    head: Option<Head>,
}

/// A head that is being written in place of another.
#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    sent: usize,
    /// The length of the bytes that it takes the place of.
    instead_of: usize,
}

impl Dated {
    /// A connection over this one.
    pub fn over(stream: Stream) -> Stream {
        Box::new(Self { stream, next: Mutex::new(None), head: None })
    }

    /// The final head in `buf` with the Date it was told, once.
    fn changed(&self, buf: &[u8]) -> Option<Head> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // The interim heads before it have none.
        if next.is_none() || buf.starts_with(b"HTTP/1.1 1") {
            return None;
        }
        let bytes = with_date(buf, next.take()?.as_bytes())?;
        Some(Head { bytes, sent: 0, instead_of: buf.len() })
    }
}

/// Says that the head which is written next on this connection keeps its Date.
pub fn keep(session: &Session, head: &ResponseHeader) {
    let Some(date) = head.headers.get(header::DATE) else { return };
    // pingora holds one request's content, which lies over the connection.
    let content =
        session.as_downstream().stream().and_then(|s| (**s).as_any().downcast_ref::<ContentStream>());
    let dated = content.and_then(|content| (**content.inner()).as_any().downcast_ref::<Dated>());
    if let Some(dated) = dated {
        *dated.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(date.clone());
    }
}

/// A head with another Date; `None` when it has none.
fn with_date(head: &[u8], date: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"\r\ndate: ";
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    let at = head[..end].windows(NAME.len()).position(|name| name.eq_ignore_ascii_case(NAME))? + NAME.len();
    let rest = at + head[at..].windows(2).position(|two| two == b"\r\n")?;
    Some([&head[..at], date, &head[rest..]].concat())
}

impl AsyncRead for Dated {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dated {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.head.is_none() {
            this.head = this.changed(buf);
        }
        let Some(head) = &mut this.head else { return Pin::new(&mut this.stream).poll_write(cx, buf) };
        while head.sent < head.bytes.len() {
            match ready!(Pin::new(&mut this.stream).poll_write(cx, &head.bytes[head.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => head.sent += written,
            }
        }
        let instead_of = head.instead_of;
        this.head = None;
        Poll::Ready(Ok(instead_of))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let waits = self.head.is_some() || self.next.lock().is_ok_and(|next| next.is_some());
        if waits {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Dated {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

impl UniqueID for Dated {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Dated {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Dated {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Dated {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.stream.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Dated {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for Dated {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buf).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const OURS: &str = "HTTP/1.1 200 OK\r\nA: b\r\nDate: now\r\nC: d\r\n\r\nDate: in the content\r\n";

    fn told(stream: Stream, date: &'static str) -> Dated {
        Dated { stream, next: Mutex::new(Some(HeaderValue::from_static(date))), head: None }
    }

    /// What arrives of `writes`, through a pipe that takes `room` bytes at a time.
    async fn arrived(room: usize, date: Option<&'static str>, writes: &[&str]) -> String {
        let (near, mut far) = tokio::io::duplex(room);
        let mut dated = told(Box::new(near), date.unwrap_or_default());
        if date.is_none() {
            dated.next = Mutex::new(None);
        }
        let reading = tokio::spawn(async move {
            let mut text = String::new();
            far.read_to_string(&mut text).await.map(|_| text)
        });
        for write in writes {
            dated.write_all(write.as_bytes()).await.unwrap();
        }
        drop(dated);
        reading.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_next_head_carries_the_date_it_was_told_and_nothing_else_changes() {
        let expected = OURS.replacen("now", "yesterday, at noon", 1);
        for room in [1, 7, 4096] {
            let found = arrived(room, Some("yesterday, at noon"), &[OURS, "more", OURS]).await;
            assert_eq!(found, format!("{expected}more{OURS}"), "{room}");
            assert_eq!(arrived(room, None, &[OURS]).await, OURS);
        }
    }

    #[tokio::test]
    async fn interim_heads_pass_and_the_final_one_is_changed() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let found = arrived(4096, Some("then"), &[interim, OURS]).await;
        assert_eq!(found, format!("{interim}{}", OURS.replacen("now", "then", 1)));
    }

    #[test]
    fn a_head_without_a_date_stays_as_it_is() {
        assert_eq!(with_date(b"HTTP/1.1 200 OK\r\n\r\ndate: x\r\n\r\n", b"then"), None);
        assert_eq!(with_date(b"no head at all", b"then"), None);
        let short = with_date(b"HTTP/1.1 200 OK\r\nDATE: \r\n\r\n", b"then").unwrap();
        assert_eq!(short, b"HTTP/1.1 200 OK\r\nDATE: then\r\n\r\n");
    }
}
