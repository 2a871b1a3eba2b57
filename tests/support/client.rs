//! An HTTP/1.1 client on a bare socket: it sends what it is told and reads strictly what comes back.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::pin::Pin;

use openssl::ssl::SslContext;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::secured::{self, Wire};
use super::wire::{self, Broken, Content, Fields, Head, Length, Reader};
use super::within;

/// Asks one server, each request over a connection of its own; [`Client::connect`] gives one to keep.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    host: String,
    tls: Option<(SslContext, String)>,
}

impl Client {
    /// A client of the server at `address`, which is also its Host.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), tls: None }
    }

    /// The same, asking for another host.
    pub fn with_host(&self, host: &str) -> Self {
        Self { host: host.into(), ..self.clone() }
    }

    /// The same over TLS, asking for a server of this name; an empty one asks for none.
    pub fn over_tls(&self, context: SslContext, name: &str) -> Self {
        Self { tls: Some((context, name.into())), ..self.clone() }
    }

    /// A GET, sent when awaited.
    pub fn get(&self, target: &str) -> Ask<'static> {
        self.request("GET", target)
    }

    /// A POST, sent when awaited.
    pub fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> Ask<'static> {
        self.request("POST", target).body(body)
    }

    /// A request, sent when awaited.
    pub fn request(&self, method: &str, target: &str) -> Ask<'static> {
        Ask::new(Over::ItsOwn(self.clone()), &self.host, method, target)
    }

    /// Opens a connection to keep.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn connect(&self) -> Connection {
        self.try_connect().await.unwrap_or_else(|error| panic!("no connection to {}: {error}", self.address))
    }

    /// Opens a connection to keep.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn try_connect(&self) -> std::io::Result<Connection> {
        let stream = within("a connection", TcpStream::connect(self.address)).await?;
        stream.set_nodelay(true)?;
        let wire = match &self.tls {
            None => Wire::Plain(stream),
            Some((context, name)) => {
                let made = within("a handshake", secured::handshake(context, name, stream)).await;
                Wire::Secured(Box::new(made.map_err(std::io::Error::other)?))
            }
        };
        Ok(Connection { reader: Reader::new(wire), host: self.host.clone() })
    }

    /// Sends these bytes over a connection of their own and gives all that comes back until the server closes.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut connection = self.connect().await;
        connection.write(bytes).await;
        connection.read_to_close().await
    }
}

/// A request about to be sent.
#[must_use = "a request is sent when awaited"]
pub struct Ask<'a> {
    over: Over<'a>,
    host: Option<String>,
    method: String,
    target: String,
    fields: Fields,
    body: Body,
}

enum Over<'a> {
    ItsOwn(Client),
    Kept(&'a mut Connection),
}

enum Body {
    None,
    Whole(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
}

impl<'a> Ask<'a> {
    fn new(over: Over<'a>, host: &str, method: &str, target: &str) -> Self {
        Self {
            over,
            host: Some(host.into()),
            method: method.into(),
            target: target.into(),
            fields: Vec::new(),
            body: Body::None,
        }
    }

    /// Adds a field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Sends another Host.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sends no Host.
    pub fn without_host(mut self) -> Self {
        self.host = None;
        self
    }

    /// Sends content under a Content-Length.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(bytes.into());
        self
    }

    /// Sends content in these chunks.
    pub fn chunks<T: Into<Vec<u8>>>(mut self, chunks: impl IntoIterator<Item = T>) -> Self {
        self.body = Body::Chunks(chunks.into_iter().map(Into::into).collect());
        self
    }

    /// The bytes that will be sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut lines = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = &self.host {
            lines.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.fields {
            lines.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Body::None => format!("{lines}\r\n").into_bytes(),
            Body::Whole(bytes) => {
                [format!("{lines}Content-Length: {}\r\n\r\n", bytes.len()).as_bytes(), bytes].concat()
            }
            Body::Chunks(chunks) => {
                let mut message = format!("{lines}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in chunks {
                    message.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    message.extend_from_slice(chunk);
                    message.extend(b"\r\n");
                }
                message.extend(b"0\r\n\r\n");
                message
            }
        }
    }

    /// Sends the request and reads the answer.
    ///
    /// # Panics
    /// If there is no answer or it is malformed. One that was cut short is given as far as it came: see
    /// [`Answer::truncated`].
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().await.unwrap_or_else(|why| panic!("{what}: {why}"))
    }

    /// Sends the request and reads the answer.
    ///
    /// # Errors
    /// When there is no connection, no answer, or a malformed one.
    pub async fn try_send(self) -> Result<Answer, String> {
        let bytes = self.to_bytes();
        match self.over {
            Over::Kept(connection) => connection.exchange(&bytes, &self.method).await,
            Over::ItsOwn(client) => {
                let mut connection =
                    client.try_connect().await.map_err(|error| format!("no connection: {error}"))?;
                connection.exchange(&bytes, &self.method).await
            }
        }
    }
}

impl<'a> IntoFuture for Ask<'a> {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// One connection to the server, kept until dropped.
#[derive(Debug)]
pub struct Connection {
    reader: Reader<Wire>,
    host: String,
}

impl Connection {
    /// A GET over this connection, sent when awaited.
    pub fn get(&mut self, target: &str) -> Ask<'_> {
        self.request("GET", target)
    }

    /// A request over this connection, sent when awaited.
    pub fn request(&mut self, method: &str, target: &str) -> Ask<'_> {
        let host = self.host.clone();
        Ask::new(Over::Kept(self), &host, method, target)
    }

    /// Sends these bytes.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = within("the server to read", self.reader.source().write_all(bytes.as_ref())).await;
        sent.unwrap_or_else(|error| panic!("the server does not read: {error}"));
    }

    /// Sends these bytes, if the server still takes them.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("the server to read", self.reader.source().write_all(bytes.as_ref())).await
    }

    /// Ends the sending direction (FIN) and keeps reading.
    pub async fn finish_writing(&mut self) {
        self.reader.source().shutdown().await.expect("an open connection");
    }

    /// Throws the connection away with a reset (RST).
    pub fn reset(mut self) {
        self.reader.source().socket().set_zero_linger().expect("SO_LINGER");
    }

    /// Reads until `text` has arrived and gives what came up to its end, once: for answers that come in pieces.
    ///
    /// # Panics
    /// If the server ends the connection before.
    pub async fn read_until(&mut self, text: impl AsRef<[u8]>) -> Vec<u8> {
        let text = text.as_ref();
        let what = format!("{:?} from the server", wire::show(text));
        within(&what, async {
            loop {
                if let Some(at) = wire::find(self.reader.buffered(), text) {
                    return self.reader.consume(at + text.len());
                }
                let more = self.reader.fill().await;
                let so_far = wire::show(self.reader.buffered());
                assert!(matches!(more, Ok(true)), "the connection ended before {what}, after {so_far:?}");
            }
        })
        .await
    }

    /// Reads all that comes until the server ends the connection, also by a reset.
    pub async fn read_to_close(&mut self) -> Vec<u8> {
        within("the server to close the connection", async {
            while let Ok(true) = self.reader.fill().await {}
        })
        .await;
        let count = self.reader.buffered().len();
        self.reader.consume(count)
    }

    /// Waits for the server to end the connection.
    ///
    /// # Panics
    /// If it sends anything before.
    pub async fn expect_close(&mut self) {
        let rest = self.read_to_close().await;
        assert!(rest.is_empty(), "{:?} before the end of the connection", wire::show(&rest));
    }

    /// Reads the answer to a request with this method.
    ///
    /// # Panics
    /// If there is none or it is malformed.
    pub async fn read_answer(&mut self, method: &str) -> Answer {
        self.try_read_answer(method).await.unwrap_or_else(|why| panic!("the answer to {method}: {why}"))
    }

    /// Reads the answer to a request with this method.
    ///
    /// # Errors
    /// When there is none or it is malformed.
    pub async fn try_read_answer(&mut self, method: &str) -> Result<Answer, String> {
        within("an answer", self.answer(method)).await.map_err(|broken| broken.to_string())
    }

    async fn exchange(&mut self, bytes: &[u8], method: &str) -> Result<Answer, String> {
        // A server may answer before it has read everything, and close: what it said is still to be read.
        let sent = self.try_write(bytes).await;
        self.try_read_answer(method).await.map_err(|why| match sent {
            Ok(()) => why,
            Err(error) => format!("{why}; and it does not read: {error}"),
        })
    }

    async fn answer(&mut self, method: &str) -> Result<Answer, Broken> {
        self.reader.take_raw();
        let mut informational = Vec::new();
        let (status, head) = loop {
            let (_, head) = self.reader.head().await?;
            match status_line(&head.start)? {
                (_, status @ (100 | 102..=199)) => informational.push((status, head.fields)),
                (minor, status) => break ((minor, status), head),
            }
        };
        let length = answer_length(method, status, &head)?;
        let mut content = Content::default();
        let outcome = self.reader.content(length, &mut content).await;
        if let Err(Broken::Malformed(why)) = outcome {
            return Err(Broken::Malformed(why));
        }
        Ok(Answer {
            status: status.1,
            version_minor: status.0,
            fields: head.fields,
            body: content.bytes,
            chunks: content.chunks,
            trailers: content.trailers,
            informational,
            length,
            truncated: outcome.err().map(|broken| broken.to_string()),
            raw: self.reader.take_raw(),
        })
    }
}

/// An answer as it reached the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// 0 or 1, in HTTP/1.
    pub version_minor: u8,
    /// The fields, in order, names as they were written.
    pub fields: Fields,
    /// The content without chunk framing.
    pub body: Vec<u8>,
    /// The sizes of the chunks, when the content was chunked.
    pub chunks: Vec<usize>,
    /// The trailer fields.
    pub trailers: Fields,
    /// The 1xx answers before it: status and fields.
    pub informational: Vec<(u16, Fields)>,
    /// How the end of the content was told.
    pub length: Length,
    /// Why the content ended too early, if it did.
    pub truncated: Option<String>,
    /// Everything as it came over the wire, 1xx included.
    pub raw: Vec<u8>,
}

impl Answer {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::field(&self.fields, name)
    }

    /// Every value of a field, in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        wire::all(&self.fields, name)
    }

    /// What the caches on the way say they did (RFC 9211), the lines joined; empty when none says anything.
    pub fn cache_status(&self) -> String {
        self.headers("cache-status").join(", ")
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails the test unless this is a whole answer with this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.shown());
        assert_eq!(self.truncated, None, "{}", self.shown());
        self
    }

    /// Fails the test unless this is the content.
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        assert!(self.body == body, "not the body {:?}: {}", wire::show(body), self.shown());
        self
    }

    /// Fails the test unless a field with this name and value is there.
    pub fn with(self, name: &str, value: &str) -> Self {
        assert!(self.headers(name).contains(&value), "no field {name}: {value} in {}", self.shown());
        self
    }

    /// Fails the test if a field with this name is there.
    pub fn without(self, name: &str) -> Self {
        assert_eq!(self.header(name), None, "{}", self.shown());
        self
    }

    /// Fails the test unless Cache-Status says all of these, separated by `;`: `cache("hit; ttl")`. A bare name matches a
    /// parameter with any value.
    pub fn cache(self, expected: &str) -> Self {
        let status = self.cache_status();
        let said: Vec<&str> = status.split([';', ',']).map(str::trim).collect();
        for part in expected.split(';').map(str::trim) {
            let says = |said: &&str| {
                *said == part || said.strip_prefix(part).is_some_and(|rest| rest.starts_with('='))
            };
            assert!(said.iter().any(says), "Cache-Status {status:?} does not say {part:?}: {}", self.shown());
        }
        self
    }

    fn shown(&self) -> String {
        let raw = self.raw.get(..4000).unwrap_or(&self.raw);
        format!("{:?}, cut: {:?}", wire::show(raw), self.truncated)
    }
}

fn status_line(line: &str) -> Result<(u8, u16), Broken> {
    let malformed = || Broken::Malformed(format!("the status line {line:?}"));
    let (version, rest) = line.split_once(' ').ok_or_else(malformed)?;
    let (code, _reason) = rest.split_once(' ').ok_or_else(malformed)?;
    if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    Ok((wire::minor_version(version)?, code.parse().map_err(|_| malformed())?))
}

/// RFC 9112, section 6.3.
fn answer_length(method: &str, (minor, status): (u8, u16), head: &Head) -> Result<Length, Broken> {
    let announced = wire::announced(&head.fields, minor)?;
    Ok(match (method, status) {
        ("HEAD", _) | (_, 101 | 204 | 304) => Length::None,
        _ => announced.unwrap_or(Length::UntilClose),
    })
}
