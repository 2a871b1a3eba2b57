//! The access log: one JSON object per request, written by one thread, never in a request's way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::metrics::Metrics;
use crate::base::clock::WallTime;
use crate::plan::AccessLog;

/// One request, as the log tells it.
#[derive(Debug)]
pub struct Line<'a> {
    /// When it came.
    pub at: WallTime,
    /// The request id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path and query asked for.
    pub target: &'a str,
    /// `HTTP/1.1` and so on.
    pub protocol: &'static str,
    /// The status sent; 0 when the client left before any.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the request's head to the answer's end.
    pub took: Duration,
    /// The route's name, if one matched.
    pub route: Option<&'a str>,
    /// The upstream's name, if one was asked.
    pub upstream: Option<&'a str>,
    /// The instance that answered.
    pub instance: Option<&'a str>,
    /// Attempts made.
    pub tries: u32,
    /// The `Cache-Status` member, if a cache was asked.
    pub cache: Option<&'a str>,
    /// What went wrong, if anything.
    pub error: Option<&'a str>,
    /// The client's User-Agent.
    pub user_agent: Option<&'a str>,
    /// The client's Referer.
    pub referer: Option<&'a str>,
}

/// Takes lines and never waits: when its writer is behind, lines are dropped and counted.
pub struct Log {}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(_to: &AccessLog, _metrics: Arc<Metrics>) -> std::io::Result<Self> {
        unimplemented!()
    }

    /// Whether lines go anywhere, so that a caller need not make them.
    pub fn is_on(&self) -> bool {
        unimplemented!()
    }

    /// Hands a line to the writer.
    pub fn write(&self, _line: &Line<'_>) {
        unimplemented!()
    }

    /// Waits until everything handed over is written.
    pub fn flush(&self) {
        unimplemented!()
    }
}
