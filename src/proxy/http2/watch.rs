//! A connection on which the heads of frames are read along.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::guard::http2::Frames;
use crate::proxy::live::Live;

/// Reads along; past a limit it reads no more and says so, so that the client can be told why before it is cut off.
pub struct Watched {
    stream: Stream,
    frames: Frames,
    live: Arc<Live>,
    /// How long the client may owe the rest of a frame or of a head.
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    exceeded: bool,
    told: Arc<Notify>,
}

impl Watched {
    /// A connection on which `most` frames that bring nothing are taken. What is answered is told once a limit is passed.
    pub fn over(stream: Stream, most: u32, patience: Duration, live: Arc<Live>) -> (Self, Arc<Notify>) {
        let told = Arc::new(Notify::new());
        let frames = Frames::new(most, live.clock.mono());
        let watched =
            Self { stream, frames, live, patience, alarm: None, exceeded: false, told: told.clone() };
        (watched, told)
    }

    fn exceed(&mut self) {
        self.exceeded = true;
        self.told.notify_one();
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.exceeded {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let came = &buf.filled()[before..];
        if read.is_ready() && this.frames.read(came, this.live.clock.mono()).is_err() {
            // What came is not given on: nothing of a flood is worked off.
            buf.set_filled(before);
            this.exceed();
            return Poll::Pending;
        }
        if !this.frames.is_owing() {
            this.alarm = None;
        } else if this
            .alarm
            .get_or_insert_with(|| Box::pin(sleep(this.patience)))
            .as_mut()
            .poll(cx)
            .is_ready()
        {
            this.exceed();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &wrote {
            this.frames.moved(*count);
        }
        wrote
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(count)) = &wrote {
            this.frames.moved(*count);
        }
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
