//! HTTP/1.1 messages as bytes: a reader that keeps them and tolerates nothing RFC 9112 does not.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Name and value pairs in the order of the message, names as they were written.
pub type Fields = Vec<(String, String)>;

/// The largest head the kit reads, in bytes: a peer that never ends its head must not hang a test.
const LONGEST_HEAD: usize = 1 << 20;

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq)]
pub enum Broken {
    /// The peer ended the connection before the first byte of a message.
    Ended,
    /// The peer ended or reset the connection within a message.
    Cut(String),
    /// The message breaks the grammar.
    Malformed(String),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => f.write_str("the connection ended before a message began"),
            Self::Cut(why) => write!(f, "the message was cut: {why}"),
            Self::Malformed(why) => write!(f, "malformed message: {why}"),
        }
    }
}

/// The start line and the fields of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The start line without its CRLF.
    pub start: String,
    /// The fields.
    pub fields: Fields,
}

/// How long the content of a message is (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// No content.
    None,
    /// This many bytes.
    Exactly(u64),
    /// Chunked.
    Chunked,
    /// As long as the connection lasts; answers only.
    UntilClose,
}

/// What was read of a message's content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// The content, without chunk framing.
    pub bytes: Vec<u8>,
    /// The sizes of the chunks, in order; empty when the content was not chunked.
    pub chunks: Vec<usize>,
    /// The trailer fields.
    pub trailers: Fields,
}

/// Reads messages off a connection and keeps what was read beyond them.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    taken: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader at the start of a message.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), taken: Vec::new() }
    }

    /// The connection itself, to write to.
    pub fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// What has arrived and belongs to no message read so far.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads more bytes into the buffer; false at the end of the stream.
    pub async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.source.read_buf(&mut self.buffer).await? > 0)
    }

    /// Takes `count` buffered bytes.
    pub fn consume(&mut self, count: usize) -> Vec<u8> {
        let bytes: Vec<u8> = self.buffer.drain(..count).collect();
        self.taken.extend_from_slice(&bytes);
        bytes
    }

    /// Every byte taken since the last call, as it came over the wire.
    pub fn take_raw(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.taken)
    }

    /// Reads a head: the raw bytes with the empty line, and the same bytes parsed.
    pub async fn head(&mut self) -> Result<(Vec<u8>, Head), Broken> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(Broken::Malformed(format!("a head of more than {LONGEST_HEAD} bytes")));
            }
            self.more("the head").await?;
        };
        let raw = self.consume(end);
        let head = parse_head(&raw)?;
        Ok((raw, head))
    }

    /// Reads content of the given length into `content`, which keeps what arrived when the rest never does.
    pub async fn content(&mut self, length: Length, content: &mut Content) -> Result<(), Broken> {
        match length {
            Length::None => Ok(()),
            Length::Exactly(bytes) => self.counted(bytes, content).await,
            Length::Chunked => self.chunked(content).await,
            Length::UntilClose => self.rest(content).await,
        }
    }

    async fn counted(&mut self, mut left: u64, content: &mut Content) -> Result<(), Broken> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.more(&format!("{left} more bytes of content")).await?;
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            content.bytes.extend(self.consume(now));
            left -= now as u64;
        }
        Ok(())
    }

    async fn chunked(&mut self, content: &mut Content) -> Result<(), Broken> {
        loop {
            let size = chunk_size(&self.line().await?)?;
            if size == 0 {
                return self.trailers(content).await;
            }
            content.chunks.push(size as usize);
            self.counted(size, content).await?;
            let end = self.line().await?;
            if !end.is_empty() {
                return Err(Broken::Malformed(format!("{:?} after a chunk's data", show(&end))));
            }
        }
    }

    async fn trailers(&mut self, content: &mut Content) -> Result<(), Broken> {
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(());
            }
            content.trailers.push(parse_field(&line)?);
        }
    }

    async fn rest(&mut self, content: &mut Content) -> Result<(), Broken> {
        loop {
            let all = self.buffer.len();
            content.bytes.extend(self.consume(all));
            if !self.fill().await.map_err(|e| Broken::Cut(e.to_string()))? {
                return Ok(());
            }
        }
    }

    /// One line without its CRLF.
    async fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let mut line = self.consume(at + 2);
                line.truncate(at);
                return match line.iter().find(|b| matches!(b, b'\r' | b'\n' | 0)) {
                    Some(_) => {
                        Err(Broken::Malformed(format!("a control byte in the line {:?}", show(&line))))
                    }
                    None => Ok(line),
                };
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(Broken::Malformed("a line without an end".into()));
            }
            self.more("a line").await?;
        }
    }

    async fn more(&mut self, what: &str) -> Result<(), Broken> {
        match self.fill().await {
            Ok(true) => Ok(()),
            Ok(false) if self.buffer.is_empty() && self.taken.is_empty() => Err(Broken::Ended),
            Ok(false) => Err(Broken::Cut(format!("the connection was closed before {what}"))),
            Err(error) => Err(Broken::Cut(format!("{error} before {what}"))),
        }
    }
}

/// The first value of a field, by name without regard to case.
pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Every value of a field, in order.
pub fn all<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Bytes for a message to a person.
pub fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The content length that the fields announce (RFC 9112, section 6.3), `None` when they announce nothing.
///
/// A field that says two things, or says it twice, is refused even where a recipient may mend it: a sender never may.
pub fn announced(fields: &Fields, version_minor: u8) -> Result<Option<Length>, Broken> {
    let encodings = all(fields, "transfer-encoding");
    let lengths = all(fields, "content-length");
    match (&encodings[..], &lengths[..]) {
        ([], []) => Ok(None),
        ([], [length]) => decimal(length).map(|bytes| Some(Length::Exactly(bytes))),
        ([], _) => Err(Broken::Malformed("more than one Content-Length".into())),
        ([_, ..], [_, ..]) => Err(Broken::Malformed("both Content-Length and Transfer-Encoding".into())),
        ([_], []) if version_minor == 0 => Err(Broken::Malformed("Transfer-Encoding in HTTP/1.0".into())),
        ([encoding], []) if encoding.eq_ignore_ascii_case("chunked") => Ok(Some(Length::Chunked)),
        (_, []) => Err(Broken::Malformed(format!("Transfer-Encoding {encodings:?}"))),
    }
}

/// The minor version in `HTTP/1.0` or `HTTP/1.1`.
pub fn minor_version(text: &str) -> Result<u8, Broken> {
    match text {
        "HTTP/1.1" => Ok(1),
        "HTTP/1.0" => Ok(0),
        other => Err(Broken::Malformed(format!("the version {other:?}"))),
    }
}

/// Whether `text` is a token (RFC 9110, section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn parse_head(raw: &[u8]) -> Result<Head, Broken> {
    let text = raw.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let mut lines = split_lines(text).into_iter();
    let start = lines.next().unwrap_or_default();
    if start.iter().any(|b| b.is_ascii_control()) {
        return Err(Broken::Malformed(format!("a control byte in the start line {:?}", show(start))));
    }
    let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
    Ok(Head { start: String::from_utf8_lossy(start).into_owned(), fields })
}

fn split_lines(mut text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(at) = find(text, b"\r\n") {
        lines.push(&text[..at]);
        text = &text[at + 2..];
    }
    lines.push(text);
    lines
}

/// `field-name ":" OWS field-value OWS` (RFC 9112, section 5): no space before the colon, no folded line.
fn parse_field(line: &[u8]) -> Result<(String, String), Broken> {
    let malformed = || Broken::Malformed(format!("the field line {:?}", show(line)));
    let colon = line.iter().position(|b| *b == b':').ok_or_else(malformed)?;
    let (name, value) = (&line[..colon], optional_whitespace_off(&line[colon + 1..]));
    if !is_token(name) || value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(malformed());
    }
    Ok((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()))
}

/// `chunk-size [ chunk-ext ]` (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Broken> {
    let malformed = || Broken::Malformed(format!("the chunk size {:?}", show(line)));
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    let extended = optional_whitespace_off(extension).first() == Some(&b';');
    if !extension.is_empty() && !extended {
        return Err(malformed());
    }
    let text = std::str::from_utf8(size).map_err(|_| malformed())?;
    u64::from_str_radix(text, 16).map_err(|_| malformed())
}

/// `OWS` is spaces and tabs, nothing else (RFC 9110, section 5.6.3).
fn optional_whitespace_off(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn decimal(text: &str) -> Result<u64, Broken> {
    let malformed = || Broken::Malformed(format!("Content-Length {text:?}"));
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    text.parse().map_err(|_| malformed())
}
