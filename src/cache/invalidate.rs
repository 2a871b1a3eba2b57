//! What a change makes invalid (RFC 9111 §4.4).

use http::{HeaderMap, Method, StatusCode};

/// A target to invalidate, beside the request's own: path and query on the same origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The normalised path.
    pub path: String,
    /// The query.
    pub query: Option<String>,
}

/// Whether an answer to this method invalidates the request's target: an unsafe or unknown method and a 2xx or 3xx.
pub fn invalidates(_method: &Method, _status: StatusCode) -> bool {
    unimplemented!()
}

/// The same-origin targets named by Location and Content-Location, which an answer that [`invalidates`] also makes invalid. `host` and `port` are the
/// request's; `path` is its path, against which relative references resolve.
pub fn also(
    _response: &HeaderMap,
    _https: bool,
    _host: &str,
    _port: Option<u16>,
    _path: &str,
) -> Vec<Target> {
    unimplemented!()
}
