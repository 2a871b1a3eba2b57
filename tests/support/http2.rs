//! HTTP/2 for tests: a well-behaved client, and one that writes frames by hand.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use openssl::ssl::SslContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::secured::{self, Wire};
use super::within;

/// A connection of a client that knows what it does.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    authority: String,
    scheme: &'static str,
}

/// An answer, whole or as far as it came.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: HeaderMap,
    /// The content.
    pub body: Vec<u8>,
    /// What came after it.
    pub trailers: Option<HeaderMap>,
    /// Why it ended early.
    pub cut: Option<Reason>,
}

impl Client {
    /// Connects without TLS.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("somebody listens");
        Self::over(Wire::Plain(socket), "http").await
    }

    /// Connects over TLS and agrees on HTTP/2.
    pub async fn connect_tls(address: SocketAddr, context: &SslContext, name: &str) -> Self {
        let socket = TcpStream::connect(address).await.expect("somebody listens");
        let made =
            within("a handshake", secured::handshake(context, name, socket)).await.expect("a handshake");
        assert_eq!(made.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
        Self::over(Wire::Secured(Box::new(made)), "https").await
    }

    async fn over(wire: Wire, scheme: &'static str) -> Self {
        let (send, connection) = within("a greeting", h2::client::handshake(wire)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { send, authority: "edge.test".into(), scheme }
    }

    /// A request in the making.
    pub fn request(&self, method: &str, target: &str) -> http::request::Builder {
        let uri = format!("{}://{}{target}", self.scheme, self.authority);
        Request::builder().method(method).uri(uri)
    }

    /// A GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.send(self.request("GET", target), None).await
    }

    /// Sends a request, whole, and reads its answer.
    pub async fn send(&self, request: http::request::Builder, body: Option<&[u8]>) -> Answer {
        self.try_send(request, body).await.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_send(
        &self,
        request: http::request::Builder,
        body: Option<&[u8]>,
    ) -> Result<Answer, h2::Error> {
        let (response, mut stream) = self.begin(request, body.is_none()).await?;
        if let Some(body) = body {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let response = within("an answer", response).await?;
        Ok(read(response).await)
    }

    /// Begins a request.
    ///
    /// # Errors
    /// When the connection takes no more.
    pub async fn begin(
        &self,
        request: http::request::Builder,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut send = within("room for a stream", self.send.clone().ready()).await?;
        send.send_request(request.body(()).expect("a request"), end)
    }
}

/// Reads what follows a head.
pub async fn read(response: Response<RecvStream>) -> Answer {
    let (head, mut stream) = response.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body: Vec::new(),
        trailers: None,
        cut: None,
    };
    while let Some(data) = within("content", stream.data()).await {
        match data {
            Ok(data) => {
                answer.body.extend_from_slice(&data);
                let _ = stream.flow_control().release_capacity(data.len());
            }
            Err(error) => {
                answer.cut = Some(error.reason().unwrap_or(Reason::NO_ERROR));
                return answer;
            }
        }
    }
    match within("trailers", stream.trailers()).await {
        Ok(trailers) => answer.trailers = trailers,
        Err(error) => answer.cut = error.reason(),
    }
    answer
}

impl Answer {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }

    /// Fails the test unless this is a whole answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!((self.status, self.cut), (status, None), "{self:?}");
        self
    }

    /// Fails the test unless this is the content.
    #[track_caller]
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        assert!(self.body == body.as_ref(), "{:?}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Fails the test unless Cache-Status says this.
    #[track_caller]
    pub fn cache(self, expected: &str) -> Self {
        let said = self.header("cache-status").unwrap_or_default();
        assert!(said.split(';').any(|part| part.trim().starts_with(expected)), "{expected}: {said:?}");
        self
    }
}

/// A frame as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection on which frames are written by hand.
pub struct Raw {
    wire: Wire,
}

/// How one stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Status(String),
    /// Reset, with this code.
    Reset(u32),
    /// The connection was told to go, with this code.
    GoAway(u32),
    /// The connection was closed.
    Closed,
}

impl Raw {
    /// Connects and says the first words.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut raw = Self::silent(address).await;
        raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.frame(SETTINGS, 0, 0, b"").await;
        raw
    }

    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("somebody listens");
        socket.set_nodelay(true).unwrap();
        Self { wire: Wire::Plain(socket) }
    }

    /// Writes bytes; a gateway that has closed the connection already is no failure.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = within("the gateway to read", self.wire.write_all(bytes)).await;
    }

    /// Writes a frame.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// Reads a frame; `None` at the end of the connection.
    pub async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within("a frame", self.wire.read_exact(&mut head)).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        within("a frame", self.wire.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until a stream has ended, or the connection.
    pub async fn end_of(&mut self, stream: u32) -> End {
        let mut status = None;
        loop {
            let Some(frame) = self.read().await else { return End::Closed };
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY if code(4) != 0 => return End::GoAway(code(4)),
                RST_STREAM if frame.stream == stream => return End::Reset(code(0)),
                HEADERS if frame.stream == stream => {
                    status = status_of(&frame.payload).or(status);
                    if frame.flags & END_STREAM != 0 {
                        return End::Status(status.unwrap_or_default());
                    }
                }
                DATA if frame.stream == stream && frame.flags & END_STREAM != 0 => {
                    return End::Status(status.unwrap_or_default());
                }
                SETTINGS if frame.flags == 0 => self.frame(SETTINGS, 1, 0, b"").await,
                _ => {}
            }
        }
    }

    /// Reads until the connection is told to go; its code. `None` when it is closed without.
    pub async fn goaway(&mut self) -> Option<u32> {
        loop {
            let frame = self.read().await?;
            if frame.kind == GOAWAY {
                return Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
    }
}

/// A frame in bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A list of fields in HPACK, each written out.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            let length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The status in a block: from the static table, or written out after its name.
fn status_of(block: &[u8]) -> Option<String> {
    match *block.first()? {
        indexed @ 0x88..=0x8e => {
            let known = ["200", "204", "206", "304", "400", "404", "500"];
            Some(known[usize::from(indexed - 0x88)].to_owned())
        }
        // A literal with the name ":status": three digits, in Huffman's code.
        0x08 | 0x48 | 0x18 => {
            let length = usize::from(block[1] & 0x7f);
            let text = block.get(2..2 + length)?;
            Some(if block[1] & 0x80 == 0 { String::from_utf8_lossy(text).into_owned() } else { digits(text) })
        }
        _ => None,
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): 0, 1 and 2 take five bits, the others six.
fn digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect();
    let (mut at, mut text) = (0, String::new());
    let value = |from: usize, count: usize| bits[from..from + count].iter().fold(0_u8, |v, bit| v << 1 | bit);
    while at + 5 <= bits.len() {
        let five = value(at, 5);
        if five <= 2 {
            text.push(char::from(b'0' + five));
            at += 5;
        } else if at + 6 <= bits.len() {
            let six = value(at, 6);
            if !(0x19..=0x1f).contains(&six) {
                break;
            }
            text.push(char::from(b'3' + six - 0x19));
            at += 6;
        } else {
            break;
        }
    }
    text
}

/// What an instance of HTTP/2 has received.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// `:scheme`, `:authority` and `:path`.
    pub uri: String,
    /// The fields.
    pub fields: HeaderMap,
    /// The content.
    pub body: Vec<u8>,
}

/// An instance that speaks HTTP/2 alone, and answers as gRPC does: each piece of content with the same piece, then a status among the trailers.
pub struct Instance {
    /// Where it listens.
    pub address: SocketAddr,
    received: std::sync::Arc<std::sync::Mutex<Vec<Received>>>,
    connections: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Instance {
    /// Starts one; under TLS with this context.
    pub async fn start(tls: Option<SslContext>) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let instance = Self {
            address: listener.local_addr().unwrap(),
            received: Default::default(),
            connections: Default::default(),
        };
        let (received, connections) = (instance.received.clone(), instance.connections.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::spawn(serve(socket, tls.clone(), received.clone()));
            }
        });
        instance
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::Relaxed)
    }
}

async fn serve(
    socket: TcpStream,
    tls: Option<SslContext>,
    received: std::sync::Arc<std::sync::Mutex<Vec<Received>>>,
) {
    let wire = match tls {
        None => Wire::Plain(socket),
        Some(context) => match secured::accept(&context, socket).await {
            Ok(stream) => Wire::Secured(Box::new(stream)),
            Err(_) => return,
        },
    };
    let Ok(mut connection) = h2::server::handshake(wire).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, received.clone()));
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    received: std::sync::Arc<std::sync::Mutex<Vec<Received>>>,
) {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let note = |body: Vec<u8>| {
        received.lock().unwrap().push(Received {
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            fields: head.headers.clone(),
            body,
        });
    };
    let grpc = |status: &str| {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", status.parse().unwrap());
        fields.insert("grpc-message", "told".parse().unwrap());
        fields
    };
    if path == "/fails" {
        note(Vec::new());
        let mut head = Response::new(());
        *head.headers_mut() = grpc("5");
        head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let _ = respond.send_response(head, true);
        return;
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let cache = if path == "/stored" { "max-age=60" } else { "no-store" };
    head.headers_mut().insert("cache-control", cache.parse().unwrap());
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    if path == "/stored" {
        note(Vec::new());
        let _ = stream.send_data(Bytes::from_static(b"stored"), true);
        return;
    }
    let mut whole = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
        let _ = stream.send_data(piece, false);
    }
    note(whole);
    if path == "/cut" {
        stream.send_reset(Reason::INTERNAL_ERROR);
    } else {
        let _ = stream.send_trailers(grpc("0"));
    }
}
