//! What HTTP/2 adds to a request's judgement, and how many frames that bring nothing a connection may send.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::request::Refusal;
use crate::base::clock::MonoTime;

/// Judges what no HTTP/2 library does.
///
/// # Errors
/// A scheme other than ours is a request for somebody else, and one that holds a whole address is meant to confuse whoever builds a URL of it (RFC
/// 9113 §8.3.1). White space around a value is not part of it to an HTTP/1 reader, so that two would read two values (§8.2.1).
pub fn judge(scheme: Option<&str>, fields: &HeaderMap) -> Result<(), Refusal> {
    if scheme.is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(Refusal::Target);
    }
    let blank = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    let padded = |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if fields.values().any(padded) { Err(Refusal::Framing) } else { Ok(()) }
}

/// Makes one field of a cookie that came in crumbs (RFC 9113 §8.2.3), before anything reads cookies.
pub fn join_cookies(fields: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        fields.insert(COOKIE, whole);
    }
}

/// The bytes a head takes: names, values and what stands between them, as HTTP/1 would write it.
pub fn size(method: &str, target: &str, authority: &str, fields: &HeaderMap) -> usize {
    let lines: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    method.len() + target.len() + authority.len() + lines
}

/// A client sent more frames than it may that carry neither a request nor content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

/// Reads the heads of the frames a client sends.
///
/// Each of PING, SETTINGS, RST_STREAM, PRIORITY, CONTINUATION, unknown ones and DATA without content costs work and brings nothing (RFC 9113 §10.5).
/// A client has a purse of them; it fills with time, and with what is really moved, so that a client which measures the way while it takes a large
/// answer is not cut off.
#[derive(Debug)]
pub struct Frames {
    preface: usize,
    head: [u8; HEAD],
    read: usize,
    payload: usize,
    /// Content is being sent: its pace is the stream's matter.
    in_data: bool,
    /// A request's head has begun and not ended.
    in_block: bool,
    most: u64,
    /// In thousandths.
    left: u64,
    moved: u64,
    filled: MonoTime,
}

const PREFACE: usize = 24;
const HEAD: usize = 9;
const MOVED_PER_FRAME: u64 = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Frames {
    /// A connection that begins now, whose client may send `most` such frames at once and a tenth of it per second.
    pub fn new(most: u32, now: MonoTime) -> Self {
        let most = u64::from(most) * 1000;
        Self {
            preface: PREFACE,
            head: [0; HEAD],
            read: 0,
            payload: 0,
            in_data: false,
            in_block: false,
            most,
            left: most,
            moved: 0,
            filled: now,
        }
    }

    /// So many bytes went one way or the other.
    pub fn moved(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        self.left = (self.left + self.moved / MOVED_PER_FRAME * 1000).min(self.most);
        self.moved %= MOVED_PER_FRAME;
    }

    /// Whether the client owes us the rest of a frame, its content excepted, or of a request's head.
    pub fn is_owing(&self) -> bool {
        self.in_block || self.preface > 0 || self.read > 0 || (self.payload > 0 && !self.in_data)
    }

    /// Reads what came.
    ///
    /// # Errors
    /// When there were too many.
    pub fn read(&mut self, mut bytes: &[u8], now: MonoTime) -> Result<(), Flood> {
        self.moved(bytes.len());
        while !bytes.is_empty() {
            let skipped = self.preface.max(self.payload).min(bytes.len());
            if skipped > 0 {
                bytes = &bytes[skipped..];
                self.preface = self.preface.saturating_sub(skipped);
                self.payload = self.payload.saturating_sub(skipped);
                continue;
            }
            let count = (HEAD - self.read).min(bytes.len());
            self.head[self.read..self.read + count].copy_from_slice(&bytes[..count]);
            self.read += count;
            bytes = &bytes[count..];
            if self.read == HEAD {
                self.read = 0;
                self.begun(now)?;
            }
        }
        Ok(())
    }

    fn begun(&mut self, now: MonoTime) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.in_data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
        let free = match kind {
            DATA => self.payload > 0 || flags & END_STREAM != 0,
            HEADERS | WINDOW_UPDATE => true,
            _ => false,
        };
        if free { Ok(()) } else { self.pay(now) }
    }

    fn pay(&mut self, now: MonoTime) -> Result<(), Flood> {
        let passed = now.since(self.filled).as_micros() as u64;
        // A tenth of the purse per second: most / 10 / 1,000,000 for each microsecond.
        let filled = self.most.saturating_mul(passed) / 10_000_000;
        if filled > 0 {
            self.left = self.left.saturating_add(filled).min(self.most);
            self.filled = now;
        }
        self.left = self.left.checked_sub(1000).ok_or(Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Clock;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn a_scheme_is_ours_or_none() {
        for (scheme, expected) in [
            (Some("http"), Ok(())),
            (Some("https"), Ok(())),
            (None, Ok(())),
            (Some("ftp"), Err(Refusal::Target)),
            (Some("HTTPS"), Err(Refusal::Target)),
            (Some(""), Err(Refusal::Target)),
        ] {
            assert_eq!(judge(scheme, &HeaderMap::new()), expected, "{scheme:?}");
        }
    }

    #[test]
    fn values_have_no_white_space_around_them() {
        for (value, right) in [
            ("a", true),
            ("", true),
            ("a b", true),
            (" a", false),
            ("a ", false),
            ("\ta", false),
            (" ", false),
        ] {
            assert_eq!(judge(None, &fields(&[("x", value)])).is_ok(), right, "{value:?}");
        }
    }

    #[test]
    fn crumbs_are_one_cookie_again() {
        let mut crumbs = fields(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut crumbs);
        assert_eq!(crumbs.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![0; payload]].concat()
    }

    /// Frames of a connection whose preface has come.
    fn connected(most: u32, clock: &Clock) -> Frames {
        let mut frames = Frames::new(most, clock.mono());
        frames.read(&[0; PREFACE], clock.mono()).unwrap();
        frames
    }

    #[test]
    fn frames_that_bring_nothing_are_counted() {
        let clock = Clock::start();
        for (kind, flags, payload, counted) in [
            (DATA, 0, 0, true),
            (DATA, END_STREAM, 0, false),
            (DATA, 0, 1, false),
            (HEADERS, END_HEADERS, 10, false),
            (2, 0, 5, true),
            (3, 0, 4, true),
            (4, 0, 6, true),
            (6, 0, 8, true),
            (WINDOW_UPDATE, 0, 4, false),
            (CONTINUATION, END_HEADERS, 1, true),
            (99, 0, 0, true),
        ] {
            let mut frames = connected(5, &clock);
            let sent =
                (0..50).take_while(|_| frames.read(&frame(kind, flags, payload), clock.mono()).is_ok());
            let sent = sent.count();
            assert_eq!(sent < 50, counted, "kind {kind}: {sent}");
            assert!(!counted || sent == 5, "kind {kind}: {sent}");
        }
    }

    #[test]
    fn bytes_that_come_one_by_one_are_read_all_the_same() {
        let clock = Clock::start();
        let mut frames = connected(5, &clock);
        let all: Vec<u8> = (0..6).flat_map(|_| frame(6, 0, 8)).collect();
        let taken = all.iter().take_while(|byte| frames.read(&[**byte], clock.mono()).is_ok()).count();
        assert_eq!(taken, 5 * 17 + 8, "the head of the sixth");
    }

    #[test]
    fn the_purse_fills_with_time_and_with_what_is_moved() {
        let ping = frame(6, 0, 8);
        for (seconds, moved, more) in
            [(0, 0, 0), (3, 0, 3), (0, 5 * 1024, 5), (3, 5 * 1024, 8), (1000, 0, 10)]
        {
            let clock = Clock::start();
            let mut frames = connected(10, &clock);
            for _ in 0..10 {
                frames.read(&ping, clock.mono()).unwrap();
            }
            let later = clock.mono().plus(Duration::from_secs(seconds));
            frames.moved(moved);
            let taken = (0..100).take_while(|_| frames.read(&ping, later).is_ok()).count();
            assert_eq!(taken, more, "after {seconds} s and {moved} bytes");
        }
    }

    #[test]
    fn a_head_in_pieces_is_owed_until_its_end_and_content_is_not() {
        let clock = Clock::start();
        let mut frames = connected(100, &clock);
        let steps = [
            (frame(HEADERS, 0, 3), true),
            (frame(CONTINUATION, 0, 3), true),
            (frame(CONTINUATION, END_HEADERS, 3), false),
            (frame(DATA, 0, 10)[..12].to_vec(), false),
            (vec![0; 7], false),
            (frame(6, 0, 8)[..3].to_vec(), true),
            (frame(6, 0, 8)[3..12].to_vec(), true),
            (vec![0; 5], false),
        ];
        for (at, (bytes, owing)) in steps.into_iter().enumerate() {
            frames.read(&bytes, clock.mono()).unwrap();
            assert_eq!(frames.is_owing(), owing, "step {at}");
        }
    }
}
