//! One GET over a connection of its own, read to its end.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The largest head of an answer.
const HEAD: usize = 64 * 1024;

/// An answer.
#[derive(Debug)]
pub struct Fetched {
    /// Its status.
    pub status: u16,
    /// Its Cache-Status.
    pub cache_status: String,
    /// How many bytes of content came, framing included.
    pub bytes: u64,
    /// The content, when it was to be kept.
    pub content: Vec<u8>,
}

/// Sends a request whose head is `request`, and reads its answer. Content is kept up to `keep` bytes.
///
/// # Errors
/// When no whole answer came within `patience`; the text says why.
pub async fn fetch(
    addr: SocketAddr,
    request: &str,
    keep: usize,
    patience: Duration,
) -> Result<Fetched, String> {
    timeout(patience, exchange(addr, request, keep))
        .await
        .unwrap_or_else(|_| Err(format!("no whole answer within {} s", patience.as_secs())))
}

async fn exchange(addr: SocketAddr, request: &str, keep: usize) -> Result<Fetched, String> {
    let broken = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(addr).await.map_err(broken)?;
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut held = Vec::new();
    let end = loop {
        if stream.read_buf(&mut held).await.map_err(broken)? == 0 {
            return Err("the connection was closed before an answer".to_owned());
        }
        match held.windows(4).position(|part| part == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if held.len() > HEAD => return Err("the head of the answer is too large".to_owned()),
            None => {}
        }
    };
    let mut content = held.split_off(end);
    let head = Head::read(&held).ok_or("the answer is not HTTP")?;
    let (mut bytes, mut tail) = (content.len() as u64, content.clone());
    content.truncate(keep);
    let mut buffer = vec![0; 64 * 1024];
    while !head.is_whole(bytes, &tail) {
        let count = stream.read(&mut buffer).await.map_err(broken)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        let piece = &buffer[..count];
        content.extend_from_slice(&piece[..count.min(keep - content.len())]);
        tail.extend_from_slice(piece);
        tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
    }
    if !head.may_end(bytes, &tail) {
        return Err("the answer was cut".to_owned());
    }
    let content = if head.chunked { joined(&content).unwrap_or_default() } else { content };
    Ok(Fetched { status: head.status, cache_status: head.cache_status, bytes, content })
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

struct Head {
    status: u16,
    cache_status: String,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut answer = httparse::Response::new(&mut fields);
        answer.parse(bytes).ok()?;
        let status = answer.code?;
        let field = |name: &str| {
            let found = answer.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            found.filter_map(|field| std::str::from_utf8(field.value).ok()).next_back()
        };
        let bodyless = matches!(status, 204 | 304);
        let length = if bodyless { Some(0) } else { field("content-length").and_then(|n| n.parse().ok()) };
        let chunked = field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        Some(Self {
            status,
            cache_status: field("cache-status").unwrap_or_default().to_owned(),
            length,
            chunked,
        })
    }

    /// Whether nothing more is to come.
    fn is_whole(&self, bytes: u64, tail: &[u8]) -> bool {
        match self.length {
            Some(length) => bytes >= length,
            None => self.chunked && tail.ends_with(LAST_CHUNK),
        }
    }

    /// Whether the end of the connection may be the end of the content (RFC 9112 §6.3).
    fn may_end(&self, bytes: u64, tail: &[u8]) -> bool {
        self.is_whole(bytes, tail) || (self.length.is_none() && !self.chunked)
    }
}

/// The content in chunks; `None` when they do not read.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = chunks.windows(2).position(|part| part == b"\r\n")?;
        let size = std::str::from_utf8(&chunks[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(content);
        }
        let start = line + 2;
        content.extend_from_slice(chunks.get(start..start.checked_add(size)?)?);
        chunks = chunks.get(start + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_what_is_none_is_not() {
        assert_eq!(joined(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").unwrap(), b"abcde");
        for wrong in [&b"3\r\nab"[..], b"x\r\n", b"ffffffffffffffff\r\na\r\n", b""] {
            assert_eq!(joined(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_cut_answer_is_told_from_a_whole_one() {
        let head = |lines: &str| Head::read(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes()).unwrap();
        for (lines, content, whole) in [
            ("Content-Length: 3\r\n", "abc", true),
            ("Content-Length: 3\r\n", "ab", false),
            ("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n", true),
            ("Transfer-Encoding: chunked\r\n", "1\r\na\r\n", false),
            ("", "whatever", true),
        ] {
            assert_eq!(
                head(lines).may_end(content.len() as u64, content.as_bytes()),
                whole,
                "{lines} {content}"
            );
        }
    }
}
