//! Where an event stream goes on for a client that has seen part of it (`Last-Event-ID`, HTML Standard §9.2).

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};

/// The last event that a client has seen.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whether an answer is an event stream whose events can be told apart: one that is compressed cannot be read here.
pub fn is_event_stream(status: StatusCode, fields: &HeaderMap) -> bool {
    let content_type = fields.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    status == StatusCode::OK
        && media_type.eq_ignore_ascii_case(b"text/event-stream")
        && !fields.contains_key(CONTENT_ENCODING)
}

/// The position behind the first event with this id, in the pieces of a stream; `None` when it is not among them.
///
/// The first, where several have it: a client may get an event twice, but never misses one.
pub fn position_after<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, id: &[u8]) -> Option<u64> {
    let mut scan = Scan { id, line: Vec::new(), position: 0, matches: false, after_return: false };
    let mut found = None;
    for byte in pieces.into_iter().flatten() {
        match found {
            // The other half of the line's end belongs to it.
            Some(position) if *byte == b'\n' && scan.after_return => return Some(position + 1),
            Some(position) => return Some(position),
            None => found = scan.take(*byte),
        }
    }
    found
}

struct Scan<'i> {
    id: &'i [u8],
    /// The line in hand, as much of it as could matter.
    line: Vec<u8>,
    position: u64,
    /// The event in hand has the id.
    matches: bool,
    after_return: bool,
}

impl Scan<'_> {
    /// Takes a byte; the position behind it when it ends the event.
    fn take(&mut self, byte: u8) -> Option<u64> {
        self.position += 1;
        let ends = match byte {
            b'\n' if self.after_return => {
                self.after_return = false;
                return None;
            }
            b'\r' | b'\n' => true,
            _ => false,
        };
        self.after_return = byte == b'\r';
        if !ends {
            if self.line.len() <= self.id.len() + b"id: ".len() {
                self.line.push(byte);
            }
            return None;
        }
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return std::mem::take(&mut self.matches).then_some(self.position);
        }
        if let Some(value) = line.strip_prefix(b"id:") {
            self.matches = value.strip_prefix(b" ").unwrap_or(value) == self.id;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const STREAM: &str = "id: 1\ndata: one\n\nevent: x\ndata: two\nid:2\n\n: comment\n\nid: 3\ndata: 3\n\n";

    fn rest(stream: &str, id: &str) -> Option<String> {
        let at = position_after([stream.as_bytes()], id.as_bytes())?;
        Some(stream[usize::try_from(at).unwrap()..].to_owned())
    }

    #[test]
    fn a_stream_goes_on_behind_the_event_that_was_seen() {
        for (stream, id, expected) in [
            (STREAM, "1", Some("event: x\ndata: two\nid:2\n\n: comment\n\nid: 3\ndata: 3\n\n")),
            (STREAM, "2", Some(": comment\n\nid: 3\ndata: 3\n\n")),
            (STREAM, "3", Some("")),
            (STREAM, "4", None),
            (STREAM, "one", None),
            ("id: 1\r\ndata: x\r\n\r\nid: 2\r\n\r\n", "1", Some("id: 2\r\n\r\n")),
            ("id: 1\rdata: x\r\rid: 2\r\r", "1", Some("id: 2\r\r")),
            // Its end has not come, so the client cannot have seen it.
            ("id: 1\ndata: x\n", "1", None),
            ("id: 1\nid: 2\n\nid: 3\n\n", "1", None),
            ("id: 1\nid: 2\n\nid: 3\n\n", "2", Some("id: 3\n\n")),
            ("id: 12\n\n", "1", None),
            ("id: 1\n\nid: 12\n\nrest", "12", Some("rest")),
            ("id:  1\n\nrest", " 1", Some("rest")),
            ("data: id: 1\n\n", "1", None),
            ("id: 1\n\nid: 1\n\nrest", "1", Some("id: 1\n\nrest")),
        ] {
            assert_eq!(rest(stream, id).as_deref(), expected, "{stream:?} {id}");
        }
    }

    #[test]
    fn the_pieces_it_comes_in_make_no_difference() {
        let stream = "id: 1\r\ndata: one\r\n\r\nid: 22\r\ndata: two\r\n\r\nid: 3\r\n\r\n";
        for size in 1..stream.len() {
            for id in ["1", "22", "3", "9"] {
                let pieces = stream.as_bytes().chunks(size);
                let whole = position_after([stream.as_bytes()], id.as_bytes());
                assert_eq!(position_after(pieces, id.as_bytes()), whole, "{size} {id}");
            }
        }
    }

    #[test]
    fn only_a_plain_event_stream_is_read() {
        for (status, content_type, coding, expected) in [
            (200, "text/event-stream", None, true),
            (200, "Text/Event-Stream; charset=utf-8", None, true),
            (200, "text/plain", None, false),
            (200, "text/event-streams", None, false),
            (404, "text/event-stream", None, false),
            (200, "text/event-stream", Some("gzip"), false),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            if let Some(coding) = coding {
                fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_event_stream(status, &fields), expected, "{status} {content_type} {coding:?}");
        }
    }
}
