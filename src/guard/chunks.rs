//! Chunked content, read so strictly that no other reader can find another end in it, and written anew.

use bytes::{BufMut, BytesMut};

/// The longest line of a chunk's size and extensions, in bytes. Known extensions are signatures of some hundred bytes.
const LONGEST_LINE: usize = 1024;
/// The most bytes of trailer fields.
const MOST_TRAILERS: usize = 8 * 1024;
/// The most digits of a chunk's size: what fits a signed 64-bit number, so that no reader's counter overflows.
const MOST_DIGITS: usize = 15;

/// Reads chunked content (RFC 9112 §7.1) and writes it down again in the plainest form: no extensions, no trailers, no leading zeros.
///
/// RFC 9112 §7.1.1 lets a recipient ignore extensions it does not know. Their *grammar* is judged all the same: a line feed or NUL within one, or
/// a size without digits, is where readers have disagreed about the end of a request. Trailer fields are judged and dropped: an instance
/// that merged them into its header fields would take from a client what the guard refused (RFC 9110 §6.5.1).
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    line: Vec<u8>,
    trailers: usize,
}

/// Content that breaks the grammar of chunks: where the next request begins is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's chunked content is malformed")]
pub struct Malformed;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a line of size and extensions.
    #[default]
    Size,
    /// This many bytes of data are to come.
    Data(u64),
    /// The data's CRLF is to come, whole or its second half.
    End { carriage_return: bool },
    /// Within the trailer section.
    Trailers,
    /// The content has ended.
    Done,
}

impl Chunks {
    /// Whether the content has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads from `input` what belongs to the content and appends it to `out`, framed anew. Answers with how many bytes of `input` it read: all
    /// of them, unless the content ended before.
    ///
    /// # Errors
    /// At the first byte that cannot belong to well-formed chunks; nothing may be read afterwards.
    pub fn read(&mut self, input: &[u8], out: &mut BytesMut) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            at += match self.state {
                State::Data(left) => self.data(left, &input[at..], out),
                State::End { carriage_return } => self.end(carriage_return, input[at])?,
                _ => self.line_byte(input[at], out)?,
            };
        }
        Ok(at)
    }

    fn data(&mut self, left: u64, input: &[u8], out: &mut BytesMut) -> usize {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        out.put_slice(format!("{now:x}\r\n").as_bytes());
        out.put_slice(&input[..now]);
        out.put_slice(b"\r\n");
        let left = left - now as u64;
        self.state = if left == 0 { State::End { carriage_return: false } } else { State::Data(left) };
        now
    }

    fn end(&mut self, carriage_return: bool, byte: u8) -> Result<usize, Malformed> {
        self.state = match (carriage_return, byte) {
            (false, b'\r') => State::End { carriage_return: true },
            (true, b'\n') => State::Size,
            _ => return Err(Malformed),
        };
        Ok(1)
    }

    /// One byte of a line. Control bytes are refused as they come: a sender that never ends its line is not waited for.
    fn line_byte(&mut self, byte: u8, out: &mut BytesMut) -> Result<usize, Malformed> {
        match (self.line.last(), byte) {
            (Some(b'\r'), b'\n') => {
                let mut line = std::mem::take(&mut self.line);
                line.pop();
                self.line_done(&line, out)?;
                line.clear();
                self.line = line;
                return Ok(1);
            }
            (Some(b'\r'), _) => return Err(Malformed),
            (_, b'\r' | b'\t' | b' '..=b'~' | 0x80..) => {}
            _ => return Err(Malformed),
        }
        let in_trailers = self.state == State::Trailers;
        self.trailers += usize::from(in_trailers);
        let room = if in_trailers { self.trailers <= MOST_TRAILERS } else { self.line.len() < LONGEST_LINE };
        if !room {
            return Err(Malformed);
        }
        self.line.push(byte);
        Ok(1)
    }

    fn line_done(&mut self, line: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        self.state = match self.state {
            State::Trailers if line.is_empty() => {
                out.put_slice(b"0\r\n\r\n");
                State::Done
            }
            State::Trailers => {
                is_field(line).then_some(()).ok_or(Malformed)?;
                State::Trailers
            }
            _ => match size(line)? {
                0 => State::Trailers,
                size => State::Data(size),
            },
        };
        Ok(())
    }
}

/// `chunk-size [ chunk-ext ]` (RFC 9112 §7.1).
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    if digits > MOST_DIGITS || !are_extensions(extensions) {
        return Err(Malformed);
    }
    let size = std::str::from_utf8(size).map_err(|_| Malformed)?;
    u64::from_str_radix(size, 16).map_err(|_| Malformed)
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 §7.1.1), to the end of the line.
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = blank_off(rest).strip_prefix(b";").map(blank_off) else { return false };
        let Some(after) = token_off(after) else { return false };
        rest = match blank_off(after).strip_prefix(b"=").map(blank_off) {
            None => after,
            Some(value) if value.starts_with(b"\"") => match quoted_off(value) {
                Some(after) => after,
                None => return false,
            },
            Some(value) => match token_off(value) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    true
}

/// `field-name ":" OWS field-value OWS` (RFC 9112 §5); that no control byte is in it was seen as it came.
fn is_field(line: &[u8]) -> bool {
    token_off(line).is_some_and(|rest| rest.starts_with(b":"))
}

fn blank_off(text: &[u8]) -> &[u8] {
    let blank = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    &text[blank..]
}

/// What follows a token; `None` where none begins.
fn token_off(text: &[u8]) -> Option<&[u8]> {
    let length =
        text.iter().take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)).count();
    (length > 0).then(|| &text[length..])
}

/// What follows a quoted string; `None` where it does not end (RFC 9110 §5.6.4).
fn quoted_off(text: &[u8]) -> Option<&[u8]> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(&text[at + 1..]),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was written anew and what was left over, or that it is malformed.
    fn read(input: &[u8]) -> Result<(String, bool, usize), Malformed> {
        let (mut chunks, mut out) = (Chunks::default(), BytesMut::new());
        let read = chunks.read(input, &mut out)?;
        Ok((String::from_utf8_lossy(&out).into_owned(), chunks.is_done(), read))
    }

    #[test]
    fn well_formed_content_is_written_in_its_plainest_form() {
        for (input, out) in [
            ("0\r\n\r\n", "0\r\n\r\n"),
            ("3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            ("00A\r\n0123456789\r\n000\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n"),
            ("3;a\r\nabc\r\n0;b=c\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            ("3 ; a = \"x;\\\"\ty\"\t;c\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            ("3;a=\"\x7f\"", "malformed"),
            ("1\r\na\r\n0\r\nContent-Length: 5\r\nX:\r\n\r\n", "1\r\na\r\n0\r\n\r\n"),
            ("1\r\n\r\r\n0\r\n\r\n", "1\r\n\r\r\n0\r\n\r\n"),
        ] {
            match read(input.as_bytes()) {
                Ok(read) => assert_eq!(read, (out.into(), true, input.len()), "{input:?}"),
                Err(Malformed) => assert_eq!(out, "malformed", "{input:?}"),
            }
        }
    }

    #[test]
    fn what_some_reader_takes_for_another_end_is_refused() {
        for input in [
            "\r\n",
            "\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\r\n",
            "0\r\n\r\r\n",
            " 3\r\n",
            "3 \r\n",
            "3\t\r\n",
            "+3\r\n",
            "-1\r\n",
            "0x3\r\n",
            "3h\r\n",
            "3,\r\n",
            "3.0\r\n",
            "3;\r\n",
            "3;;a\r\n",
            "3;a=\r\n",
            "3;a b\r\n",
            "3;a=\"b\r\n",
            "3;a=\"b\"c\r\n",
            "3;a=\"b\\\"\r\n",
            "3;a\nb\r\n",
            "3;a\0\r\n",
            "3;a\x01\r\n",
            "3;a\x7f\r\n",
            "3;a\rb\r\n",
            ";a\r\n",
            "1000000000000000\r\n",
            "0000000000000000\r\n",
            "ffffffffffffffff1\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n",
            "3\r\nabc\n0\r\n",
            "3\r\nabc\r0\r\n",
            "3\r\nabc\r\n\r\n0\r\n",
            "3\nabc\r\n",
            "0\r\nX : y\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX: y\r\n z\r\n",
            "0\r\nX\r\n",
            "0\r\n: y\r\n",
            "0\r\nX: y\nZ: w\r\n",
            "0\r\nX: \0\r\n",
            "0\r\nGET / HTTP/1.1\r\n",
        ] {
            assert_eq!(read(input.as_bytes()), Err(Malformed), "{input:?}");
        }
    }

    #[test]
    fn lines_and_trailers_have_an_end() {
        let long = format!("1;{}", "a".repeat(2000));
        assert_eq!(read(long.as_bytes()), Err(Malformed));
        let many = format!("0\r\n{}", "X: y\r\n".repeat(3000));
        assert_eq!(read(many.as_bytes()), Err(Malformed));
        let fair = format!("1;{}\r\na\r\n0\r\n{}\r\n", "a".repeat(200), "X: y\r\n".repeat(50));
        assert!(read(fair.as_bytes()).is_ok());
    }

    #[test]
    fn what_follows_the_content_is_left() {
        assert_eq!(read(b"0\r\n\r\nGET / HTTP/1.1\r\n"), Ok(("0\r\n\r\n".into(), true, 5)));
        assert_eq!(read(b"3\r\nab"), Ok(("2\r\nab\r\n".into(), false, 5)));
    }

    proptest! {
        #[test]
        fn content_reads_the_same_however_it_is_cut(
            pieces in prop::collection::vec("[a-c\r\n0]{1,9}", 0..5),
            cut in 1..7_usize,
        ) {
            let mut input = String::new();
            for piece in &pieces {
                input.push_str(&format!("{:x};x\r\n{piece}\r\n", piece.len()));
            }
            input.push_str("0\r\nT: 1\r\n\r\nrest");
            let (mut chunks, mut out, mut taken) = (Chunks::default(), BytesMut::new(), 0);
            for part in input.as_bytes().chunks(cut) {
                taken += chunks.read(part, &mut out)?;
            }
            prop_assert!(chunks.is_done());
            prop_assert_eq!(taken, input.len() - 4);
            // Its own words mean the same to it.
            let (mut again, mut same) = (Chunks::default(), BytesMut::new());
            prop_assert_eq!(again.read(&out, &mut same), Ok(out.len()));
            prop_assert_eq!(same, out);
        }

        #[test]
        fn no_bytes_whatever_make_it_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&input);
        }
    }
}
