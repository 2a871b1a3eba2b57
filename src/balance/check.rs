//! What an instance's answer to a health check must be like, and what it is when it is not.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

/// So much of an answer's content is looked at, in bytes; what an answer says of itself fits.
pub const MOST: usize = 64 * 1024;

/// A compiled pattern may take so much memory, in bytes: it comes from the operator, who may have copied it.
const PATTERN_SIZE: usize = 1024 * 1024;

/// What an HTTP answer must be like; what is empty asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// The statuses that count as success, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// The statuses by which an instance says itself that it takes nothing now.
    pub withdraw: Vec<(u16, u16)>,
    /// A text that the content must hold.
    pub contains: Option<String>,
    /// A pattern that must match somewhere in the content.
    pub matches: Option<Pattern>,
    /// A member that the content must have, being JSON.
    pub member: Option<Member>,
}

/// A regular expression over bytes.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// A member of JSON and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is: a pointer (RFC 6901).
    pub at: String,
    /// What it must be: a text; or a number, `true`, `false` or `null` as JSON writes it.
    pub is: String,
}

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwell {
    /// The name stands for no address.
    Unresolved,
    /// No connection stood.
    Connect(String),
    /// No answer came in time.
    Timeout(String),
    /// What came is no answer in this protocol.
    Protocol(String),
    /// The answer has another status than expected.
    Status(u16),
    /// The instance says itself that it takes nothing now.
    Withdrawn(String),
    /// The content is not as expected.
    Content(&'static str),
    /// The member of the content is something else, or not there.
    Member(Option<String>),
    /// The check itself broke.
    Broken,
}

impl Pattern {
    /// Reads a pattern; `None` when it is none, or too large. Matching takes time linear in the content, whatever the pattern.
    pub fn parse(text: &str) -> Option<Self> {
        RegexBuilder::new(text).size_limit(PATTERN_SIZE).build().ok().map(Self)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Expected {
    /// Whether the content is to be read.
    pub fn asks_content(&self) -> bool {
        self.contains.is_some() || self.matches.is_some() || self.member.is_some()
    }

    /// Judges an answer by its status and the first [`MOST`] bytes of its content.
    ///
    /// # Errors
    /// Why it is not as expected. A status that is both expected and a withdrawal is expected.
    pub fn judge(&self, status: u16, content: &[u8]) -> Result<(), Unwell> {
        let within =
            |ranges: &[(u16, u16)]| ranges.iter().any(|(low, high)| (*low..=*high).contains(&status));
        if !within(&self.status) {
            return Err(match within(&self.withdraw) {
                true => Unwell::Withdrawn(format!("it answered {status}")),
                false => Unwell::Status(status),
            });
        }
        if self.contains.as_ref().is_some_and(|text| !holds(content, text.as_bytes())) {
            return Err(Unwell::Content("does not hold the text expected"));
        }
        if self.matches.as_ref().is_some_and(|pattern| !pattern.0.is_match(content)) {
            return Err(Unwell::Content("does not match the pattern expected"));
        }
        self.member.as_ref().map_or(Ok(()), |member| member.judge(content))
    }
}

impl Member {
    fn judge(&self, content: &[u8]) -> Result<(), Unwell> {
        let json: Value = serde_json::from_slice(content).map_err(|_| Unwell::Content("is not JSON"))?;
        let found = json.pointer(&self.at).map(plain);
        if found.as_ref() == Some(&self.is) { Ok(()) } else { Err(Unwell::Member(found)) }
    }
}

/// A member as it is compared: a text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn holds(content: &[u8], text: &[u8]) -> bool {
    text.is_empty() || content.windows(text.len()).any(|window| window == text)
}

impl Unwell {
    /// The word for it in the operator's API and the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Protocol(_) => "protocol",
            Self::Status(_) => "status",
            Self::Withdrawn(_) => "withdrawn",
            Self::Content(_) => "content",
            Self::Member(_) => "member",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("its name does not resolve"),
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Timeout(limit) => write!(f, "no answer within {limit}"),
            Self::Protocol(why) => write!(f, "no valid answer: {why}"),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Withdrawn(how) => write!(f, "it takes no requests: {how}"),
            Self::Content(how) => write!(f, "the content of its answer {how}"),
            Self::Member(Some(found)) => write!(f, "the member of its answer is {found:?}"),
            Self::Member(None) => f.write_str("its answer does not have the member expected"),
            Self::Broken => f.write_str("the check itself broke (panicked)"),
        }
    }
}

/// gRPC's health protocol, `grpc.health.v1.Health/Check`: one message each way, small enough to be written and read by hand.
pub mod grpc {
    use super::Unwell;

    /// The path of the call.
    pub const PATH: &str = "/grpc.health.v1.Health/Check";

    /// The request: a frame (a flag that says "not compressed", the length, the message) with the name of the service as field 1.
    pub fn request(service: &str) -> Vec<u8> {
        let mut message = Vec::with_capacity(service.len() + 4);
        if !service.is_empty() {
            message.push(1 << 3 | 2);
            write_varint(service.len(), &mut message);
            message.extend_from_slice(service.as_bytes());
        }
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(&message);
        frame
    }

    fn write_varint(mut value: usize, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// Judges the answer: the value of `grpc-status`, where it came, and the content.
    ///
    /// # Errors
    /// Why the service does not serve.
    pub fn judge(status: Option<&str>, content: &[u8]) -> Result<(), Unwell> {
        match status {
            Some("0") => {}
            Some(code) => return Err(Unwell::Protocol(format!("grpc-status {code}"))),
            None => return Err(Unwell::Protocol("an answer without grpc-status".to_owned())),
        }
        match serving(content) {
            Some(1) => Ok(()),
            Some(2) => Err(Unwell::Withdrawn("NOT_SERVING".to_owned())),
            Some(3) => Err(Unwell::Protocol("the service is not known there".to_owned())),
            Some(other) => Err(Unwell::Protocol(format!("serving status {other}"))),
            None => Err(Unwell::Protocol("not a HealthCheckResponse".to_owned())),
        }
    }

    /// Field 1 of the message in the first frame; 0 when it is not written, as ever in protocol buffers.
    fn serving(frame: &[u8]) -> Option<u64> {
        let (head, rest) = frame.split_at_checked(5)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut message = rest.get(..length).filter(|_| head[0] == 0)?;
        let mut serving = 0;
        while !message.is_empty() {
            let key = read_varint(&mut message)?;
            match key & 7 {
                0 if key >> 3 == 1 => serving = read_varint(&mut message)?,
                0 => {
                    read_varint(&mut message)?;
                }
                1 => message = message.get(8..)?,
                2 => {
                    let length = usize::try_from(read_varint(&mut message)?).ok()?;
                    message = message.get(length..)?;
                }
                5 => message = message.get(4..)?,
                _ => return None,
            }
        }
        Some(serving)
    }

    fn read_varint(from: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = from.split_first()?;
            *from = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_request_names_the_service() {
            assert_eq!(request(""), [0, 0, 0, 0, 0]);
            assert_eq!(request("api"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'p', b'i']);
            let long = "a".repeat(200);
            assert_eq!(request(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
        }

        #[test]
        fn only_serving_is_well() {
            let frame = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8], message].concat();
            for (status, content, word) in [
                (Some("0"), frame(&[8, 1]), "ok"),
                (Some("0"), frame(&[0x12, 2, b'x', b'y', 8, 1]), "ok"),
                (Some("0"), frame(&[8, 2]), "withdrawn"),
                (Some("0"), frame(&[8, 3]), "protocol"),
                (Some("0"), frame(&[]), "protocol"),
                (Some("0"), frame(&[8]), "protocol"),
                (Some("0"), frame(&[0x12, 9]), "protocol"),
                (Some("0"), frame(&[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), "protocol"),
                (Some("0"), vec![0, 0, 0, 0, 9, 8, 1], "protocol"),
                (Some("0"), vec![1, 0, 0, 0, 2, 8, 1], "protocol"),
                (Some("0"), vec![], "protocol"),
                (Some("12"), frame(&[8, 1]), "protocol"),
                (None, frame(&[8, 1]), "protocol"),
            ] {
                let judged = judge(status, &content).map_or_else(|why| why.as_str(), |()| "ok");
                assert_eq!(judged, word, "{status:?} {content:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected { status: vec![(200, 299), (404, 404)], withdraw: vec![(503, 503)], ..Expected::default() }
    }

    fn judged(expected: &Expected, status: u16, content: &str) -> &'static str {
        expected.judge(status, content.as_bytes()).map_or_else(|why| why.as_str(), |()| "ok")
    }

    #[test]
    fn a_status_is_expected_or_not_or_a_withdrawal() {
        for (status, word) in [
            (200, "ok"),
            (299, "ok"),
            (404, "ok"),
            (199, "status"),
            (300, "status"),
            (403, "status"),
            (500, "status"),
            (503, "withdrawn"),
        ] {
            assert_eq!(judged(&expected(), status, ""), word, "{status}");
        }
        let all = Expected { status: vec![(100, 599)], ..expected() };
        assert_eq!(judged(&all, 503, ""), "ok", "what is expected is no withdrawal");
    }

    #[test]
    fn content_holds_a_text_and_matches_a_pattern() {
        let contains = |text: &str| Expected { contains: Some(text.into()), ..expected() };
        for (text, content, word) in [
            ("ready", "all ready now", "ok"),
            ("ready", "ready", "ok"),
            ("ready", "Ready", "content"),
            ("ready", "read", "content"),
            ("ready", "", "content"),
            ("", "", "ok"),
        ] {
            assert_eq!(judged(&contains(text), 200, content), word, "{text:?} in {content:?}");
        }
        let matches = |text: &str| Expected { matches: Pattern::parse(text), ..expected() };
        for (pattern, content, word) in [
            ("^ok$", "ok", "ok"),
            ("^ok$", "ok then", "content"),
            ("v[0-9]+", "at v12 since noon", "ok"),
            ("(?i)READY", "ready", "ok"),
            ("(a+)+$", &"a".repeat(60_000), "ok"),
        ] {
            assert_eq!(judged(&matches(pattern), 200, content), word, "{pattern:?} in {content:.20?}");
        }
        assert_eq!(judged(&contains("ready"), 500, "ready"), "status", "the status comes first");
        assert!(expected().matches.is_none() && !expected().asks_content());
        assert!(contains("x").asks_content() && matches("x").asks_content());
    }

    #[test]
    fn a_pattern_that_is_none_or_too_large_is_refused() {
        assert_eq!(Pattern::parse("("), None);
        assert_eq!(Pattern::parse("(a{1000}){1000}"), None);
        assert_eq!(Pattern::parse("a"), Pattern::parse("a"));
        assert_ne!(Pattern::parse("a"), Pattern::parse("b"));
    }

    #[test]
    fn a_member_of_json_is_what_it_must_be() {
        let member = |at: &str, is: &str| Expected {
            member: Some(Member { at: at.into(), is: is.into() }),
            ..expected()
        };
        for (at, is, content, word) in [
            ("/status", "ok", r#"{"status":"ok"}"#, "ok"),
            ("/status", "ok", r#"{"status":"starting"}"#, "member"),
            ("/status", "ok", r#"{}"#, "member"),
            ("/status", "ok", "ok", "content"),
            ("/db/up", "true", r#"{"db":{"up":true}}"#, "ok"),
            ("/db/up", "true", r#"{"db":{"up":false}}"#, "member"),
            ("/checks/0/n", "3", r#"{"checks":[{"n":3}]}"#, "ok"),
            ("/checks/1/n", "3", r#"{"checks":[{"n":3}]}"#, "member"),
            ("/a", "null", r#"{"a":null}"#, "ok"),
        ] {
            assert_eq!(judged(&member(at, is), 200, content), word, "{at} = {is} in {content}");
        }
        assert!(member("/a", "b").asks_content());
    }
}
