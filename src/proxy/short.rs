//! The socket's side of the short way: what [`fast_path`] answers is sent, counted and logged here.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use pingora::protocols::Stream;
use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;

use super::journey::InFlight;
use super::live::Live;
use super::reply::Failure;
use crate::fast_path::{self, Answer, Cache, Parts, Request, Sent};
use crate::plan::CacheId;

/// The address of a connection's peer.
pub(super) fn peer(stream: &Stream) -> IpAddr {
    stream
        .get_socket_digest()
        .and_then(|digest| digest.peer_addr().and_then(|addr| addr.as_inet().map(|inet| inet.ip())))
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The answer to a request that is a plain hit; `None`: it goes the long way.
pub(super) fn answer(live: &Live, request: &Request<'_>) -> Option<Answer> {
    if !live.short_way.load(Ordering::Relaxed) {
        return None;
    }
    fast_path::answer(parts(live, &|id| cache(live, id)), request)
}

fn cache(live: &Live, id: CacheId) -> Cache<'_> {
    let cache = live.cache(id);
    Cache { store: &cache.store, uses: cache.uses.as_deref() }
}

fn parts<'a>(live: &'a Live, cache: &'a dyn Fn(CacheId) -> Cache<'a>) -> Parts<'a> {
    Parts {
        plan: &live.plan,
        clock: &live.clock,
        cache,
        new_id: super::new_request_id,
        logged: live.log.is_on(),
    }
}

/// Sends an answer, counts it and writes its line. Whether the connection may be used again; if not, it is closed.
pub(super) async fn send(live: &Live, patience: Duration, stream: &mut Stream, answer: Answer) -> bool {
    let in_flight = InFlight::enter(&live.metrics);
    let (written, result) = write(stream, patience, &answer.head, answer.content()).await;
    let sent = Sent {
        bytes: written.saturating_sub(answer.head.len()) as u64,
        error: result.is_err().then_some(Failure::ClientGone.as_str()),
    };
    let keep = answer.keep && result.is_ok();
    answer.finish(parts(live, &|id| cache(live, id)), &live.metrics, &live.log, sent);
    drop(in_flight);
    if !keep && result.is_ok() {
        // The client may be gone already; then there is nobody to tell.
        let _ = tokio::time::timeout(patience, stream.shutdown()).await;
    }
    keep
}

/// Writes head and content, as one where the system takes them as one; how many bytes were taken, and why not all. `patience` is for each
/// write, so that a slow client that goes on reading is served to its end.
async fn write(
    stream: &mut Stream,
    patience: Duration,
    head: &[u8],
    content: &[bytes::Bytes],
) -> (usize, io::Result<()>) {
    let mut slices: SmallVec<[IoSlice<'_>; 8]> = SmallVec::with_capacity(1 + content.len());
    slices.push(IoSlice::new(head));
    slices.extend(content.iter().map(|piece| IoSlice::new(piece)));
    let mut rest = slices.as_mut_slice();
    let mut written = 0;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match in_time(patience, stream.write_vectored(rest)).await {
            Some(Ok(count)) if count > 0 => {
                written += count;
                IoSlice::advance_slices(&mut rest, count);
            }
            Some(Ok(_)) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Some(Err(error)) => return (written, Err(error)),
            None => return (written, Err(io::ErrorKind::TimedOut.into())),
        }
    }
    let flushed = in_time(patience, stream.flush()).await;
    (written, flushed.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())))
}

/// Waits for `event` for this long; `None` when it does not come. Only what has to wait sets a timer: most reads and writes find their bytes, and room
/// for them, and making a timer costs as much as parsing a head.
pub(super) async fn in_time<F: Future>(patience: Duration, event: F) -> Option<F::Output> {
    let mut event = pin!(event);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(event.as_mut().poll(context))).await {
        return Some(done);
    }
    tokio::time::timeout(patience, event).await.ok()
}
