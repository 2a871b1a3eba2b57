//! A real Redis for one test: an own process on a free port, nothing kept on disk.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{free_address, poll_until, process, within};

/// A running `redis-server`, killed when dropped.
pub struct Redis {
    address: SocketAddr,
    server: Option<Child>,
    options: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If `redis-server` is not installed; `tests/run` installs it.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with these options: `["--maxmemory", "10mb"]`.
    pub async fn with(options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut redis = Self { address: free_address(), server: None, options, folder };
        redis.start_again().await;
        redis
    }

    /// Starts the server again, empty, on the port it had.
    pub async fn start_again(&mut self) {
        self.kill();
        let port = self.address.port().to_string();
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir"])
            .arg(self.folder.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server does not start ({error}); tests/run installs it"));
        self.server = Some(server);
        let address = self.address;
        poll_until("redis-server to answer", || async move { pings(address).await }).await;
    }

    /// Kills the server (SIGKILL): the port refuses.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself; `wait` collects it either way.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Stops the server from running (SIGSTOP): connections open and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused server run on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Whether it was neither killed nor never started.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.server.as_ref().expect("a running redis-server").id()
    }

    /// The URL for a configuration.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Sends one command and gives its answer.
    pub async fn command<T: AsRef<[u8]>>(&self, words: &[T]) -> Value {
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(&array_of(&words)).await?;
            Resp::new(stream).value().await
        };
        within("Redis to answer", exchange)
            .await
            .unwrap_or_else(|error| panic!("Redis does not answer: {error}"))
    }

    /// The keys that match a pattern, sorted.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let Value::Array(Some(keys)) = self.command(&["KEYS", pattern]).await else {
            panic!("KEYS gives an array")
        };
        let mut keys: Vec<String> =
            keys.iter().map(|key| String::from_utf8_lossy(&key.bytes()).into_owned()).collect();
        keys.sort();
        keys
    }

    /// The milliseconds a key has left: -1 when it never expires, -2 when it does not exist.
    pub async fn ttl_ms(&self, key: &str) -> i64 {
        match self.command(&["PTTL", key]).await {
            Value::Integer(left) => left,
            other => panic!("PTTL gives {other:?}"),
        }
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.command(&["GET", key]).await {
            Value::Bulk(value) => value,
            other => panic!("GET gives {other:?}"),
        }
    }

    /// Replaces the value of a key and keeps its time to live: for damaging what was stored.
    pub async fn overwrite(&self, key: &str, value: &[u8]) {
        let answer = self.command(&[b"SET", key.as_bytes(), value, b"KEEPTTL"]).await;
        assert_eq!(answer, Value::Simple("OK".into()));
    }

    /// Forgets everything.
    pub async fn flush(&self) {
        assert_eq!(self.command(&["FLUSHALL"]).await, Value::Simple("OK".into()));
    }

    fn signal(&self, name: &str) {
        process::signal(self.id(), name);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The answer to a command sent to whatever listens there, if any.
pub async fn ask(address: SocketAddr, words: &[&str]) -> Option<Value> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    stream.write_all(&array_of(&words)).await.ok()?;
    Resp::new(stream).value().await.ok()
}

/// It answers; that it asks for a password first is an answer.
async fn pings(address: SocketAddr) -> bool {
    match ask(address, &["PING"]).await {
        Some(Value::Simple(word)) => word == "PONG",
        Some(Value::Error(text)) => text.starts_with("NOAUTH"),
        _ => false,
    }
}

/// A value of the Redis protocol, version 2.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$…`; `None` is nil.
    Bulk(Option<Vec<u8>>),
    /// `*…`; `None` is nil.
    Array(Option<Vec<Value>>),
}

impl Value {
    /// The bytes of a bulk or simple string.
    ///
    /// # Panics
    /// For any other value.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bulk(Some(bytes)) => bytes.clone(),
            Self::Simple(text) => text.clone().into_bytes(),
            other => panic!("{other:?} is no string"),
        }
    }

    /// The value on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Simple(text) => format!("+{text}\r\n").into_bytes(),
            Self::Error(text) => format!("-{text}\r\n").into_bytes(),
            Self::Integer(number) => format!(":{number}\r\n").into_bytes(),
            Self::Bulk(None) => b"$-1\r\n".to_vec(),
            Self::Bulk(Some(bytes)) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
            Self::Array(None) => b"*-1\r\n".to_vec(),
            Self::Array(Some(values)) => {
                let mut bytes = format!("*{}\r\n", values.len()).into_bytes();
                values.iter().for_each(|value| bytes.extend(value.to_bytes()));
                bytes
            }
        }
    }
}

fn array_of(words: &[&[u8]]) -> Vec<u8> {
    Value::Array(Some(words.iter().map(|word| Value::Bulk(Some(word.to_vec()))).collect())).to_bytes()
}

/// Reads values of the Redis protocol, version 2.
pub struct Resp<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Resp<R> {
    /// A reader at the start of a value.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new() }
    }

    /// The connection itself, to write to.
    pub fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next value.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer ends the connection, `InvalidData` when it does not speak the protocol.
    pub async fn value(&mut self) -> std::io::Result<Value> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| not_resp(&line))?;
        Ok(match kind {
            "+" => Value::Simple(rest.into()),
            "-" => Value::Error(rest.into()),
            ":" => Value::Integer(number(rest)?),
            "$" => Value::Bulk(self.bulk(number(rest)?).await?),
            "*" => Value::Array(self.array(number(rest)?).await?),
            _ => return Err(not_resp(&line)),
        })
    }

    async fn bulk(&mut self, length: i64) -> std::io::Result<Option<Vec<u8>>> {
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        while self.buffer.len() < length + 2 {
            self.fill().await?;
        }
        let bytes: Vec<u8> = self.buffer.drain(..length + 2).collect();
        match bytes.strip_suffix(b"\r\n") {
            Some(bytes) => Ok(Some(bytes.to_vec())),
            None => Err(not_resp("a bulk string without its end")),
        }
    }

    async fn array(&mut self, length: i64) -> std::io::Result<Option<Vec<Value>>> {
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let mut values = Vec::new();
        for _ in 0..length {
            values.push(Box::pin(self.value()).await?);
        }
        Ok(Some(values))
    }

    async fn line(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(at) = super::wire::find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        match self.source.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn number(text: &str) -> std::io::Result<i64> {
    text.parse().map_err(|_| not_resp(text))
}

fn not_resp(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not the Redis protocol: {what:?}"))
}
