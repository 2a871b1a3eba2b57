//! Shadow mode: the instances answer, and what the cache would have answered is compared with it. After a while of that, an operator knows whether
//! a route may be cached.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::exchange::Answer;
use super::live::Live;
use crate::plan::RouteId;
use crate::store::Entry;

/// A stored answer that was not served, beside the one that is.
pub struct Beside {
    stored: Arc<Entry>,
    status: StatusCode,
    content_type: Option<HeaderValue>,
    content: blake3::Hasher,
    bytes: u64,
}

/// How the two compare: a word of [`crate::observe::metrics::SHADOWS`].
fn compared(same_status: bool, same_type: bool, same_content: bool) -> &'static str {
    match (same_status, same_type, same_content) {
        (false, ..) => "status",
        (_, false, _) => "type",
        (.., false) => "content",
        _ => "same",
    }
}

impl Beside {
    /// A stored answer beside one whose content is still to come.
    pub fn of(stored: Arc<Entry>, answer: &Answer) -> Self {
        Self {
            stored,
            status: answer.head.status,
            content_type: answer.head.headers.get(header::CONTENT_TYPE).cloned(),
            content: blake3::Hasher::new(),
            bytes: 0,
        }
    }

    /// A piece of the content.
    pub fn take(&mut self, piece: &Bytes) {
        self.content.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// All of it came. Differences are logged the more seldom the more there are: the 1st, 2nd, 4th, 8th…
    pub fn tell(self, live: &Live, route: RouteId, target: &str) {
        let record = &self.stored.record;
        let mut content = blake3::Hasher::new();
        for piece in self.stored.body.chunks() {
            content.update(piece);
        }
        let result = compared(
            record.status == self.status,
            record.fields.get(header::CONTENT_TYPE) == self.content_type.as_ref(),
            content.finalize() == self.content.finalize(),
        );
        let route = &live.route(route).name;
        let count = live.metrics.shadow(route.as_str(), result);
        if result != "same" && count.is_power_of_two() {
            tracing::warn!(
                route = route.as_str(),
                target,
                differs_in = result,
                stored_status = record.status.as_u16(),
                status = self.status.as_u16(),
                stored_bytes = self.stored.body.len(),
                bytes = self.bytes,
                stored_age = record.age(live.clock.wall()).as_secs(),
                count,
                "shadow: the cache would have answered otherwise"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::SHADOWS;

    #[test]
    fn the_first_difference_is_told() {
        for (status, content_type, content, expected) in [
            (true, true, true, "same"),
            (true, true, false, "content"),
            (true, false, false, "type"),
            (false, false, false, "status"),
            (false, true, true, "status"),
        ] {
            assert_eq!(compared(status, content_type, content), expected);
            assert!(SHADOWS.contains(&expected));
        }
    }
}
