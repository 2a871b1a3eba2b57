//! A Redis that misbehaves when told: it hangs, resets, lies, or says it is loading, read-only or full.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::redis::{Resp, Value};
use super::within;

/// What the fake does with the commands that reach it.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// Serves a map. A time to live is remembered (PTTL tells it) and never runs out.
    Serve,
    /// Answers nothing. What was asked meanwhile is answered, in order, once the mode changes, as a stalled server does.
    Hang,
    /// Resets every connection (RST), at once and at every new one.
    Reset,
    /// Answers with bytes that are not the Redis protocol.
    Garbage,
    /// Sends the first half of the right answer and closes.
    HalfReply,
    /// `-LOADING`, as a server that reads its data after a start.
    Loading,
    /// `-READONLY` to writes, as a replica after a failover.
    ReadOnly,
    /// `-OOM` to writes, as a server at its `maxmemory`.
    Full,
    /// Serves, but every GET gives these bytes.
    Lie(Vec<u8>),
}

/// A fake Redis on a port of its own.
pub struct FakeRedis {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    mode: watch::Sender<Mode>,
    commands: watch::Sender<Vec<Vec<Vec<u8>>>>,
    data: Mutex<Map>,
}

/// Value, and time to live in milliseconds (-1: none), by key.
type Map = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

impl FakeRedis {
    /// Starts one that serves.
    pub async fn start() -> Self {
        let shared = Shared {
            mode: watch::Sender::new(Mode::Serve),
            commands: watch::Sender::new(Vec::new()),
            data: Mutex::default(),
        };
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().expect("the address of a bound socket");
        let shared = Arc::new(shared);
        let task = Mutex::new(Some(tokio::spawn(accept(listener, shared.clone()))));
        Self { shared, address, task }
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Stops listening and cuts every connection: the port refuses. The data stays.
    pub async fn stop(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            // Cancelled is what it should be; a panic of the fake itself is not.
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// Listens again on the port it had.
    pub async fn restart(&self) {
        self.stop().await;
        let task = tokio::spawn(accept(listen(self.address), self.shared.clone()));
        *self.task.lock().unwrap() = Some(task);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for a configuration.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Every command that reached it, with its arguments, in order.
    pub fn commands(&self) -> Vec<Vec<Vec<u8>>> {
        self.shared.commands.borrow().clone()
    }

    /// How often a command reached it.
    pub fn count(&self, name: &str) -> usize {
        count(&self.shared.commands.borrow(), name)
    }

    /// Waits until a command has reached it `times` times.
    pub async fn wait_for(&self, name: &str, times: usize) {
        let mut commands = self.shared.commands.subscribe();
        let reached = commands.wait_for(|commands| count(commands, name) >= times);
        within(&format!("{times} × {name} to reach Redis"), reached)
            .await
            .expect("the fake outlives its waiters");
    }

    /// The keys it holds, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.shared.data.lock().unwrap().keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.shared.data.lock().unwrap().get(key.as_bytes()).map(|(value, _)| value.clone())
    }

    /// Puts a value in place, without a time to live.
    pub fn put(&self, key: &str, value: &[u8]) {
        self.shared.data.lock().unwrap().insert(key.into(), (value.into(), -1));
    }
}

impl Drop for FakeRedis {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Connections of the life before may still linger on this port in TIME_WAIT.
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    socket.bind(address).unwrap_or_else(|error| panic!("the fake Redis cannot listen on {address}: {error}"));
    socket.listen(1024).expect("a listening socket")
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(Connection::new(stream, shared.clone()).serve());
        }
    }
}

fn count(commands: &[Vec<Vec<u8>>], name: &str) -> usize {
    commands.iter().filter(|words| words[0].eq_ignore_ascii_case(name.as_bytes())).count()
}

struct Connection {
    resp: Resp<TcpStream>,
    mode: watch::Receiver<Mode>,
    shared: Arc<Shared>,
    version: u8,
    /// What EXEC will run, between MULTI and EXEC.
    queue: Option<Vec<Vec<Vec<u8>>>>,
}

impl Connection {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        Self { resp: Resp::new(stream), mode: shared.mode.subscribe(), shared, version: 2, queue: None }
    }

    async fn serve(mut self) {
        loop {
            let mut mode = self.mode.clone();
            tokio::select! {
                // In this order: a command that is already there must not be served once resets were asked for.
                biased;
                _ = mode.wait_for(|mode| *mode == Mode::Reset) => return self.reset(),
                going_on = self.command() => if going_on.is_err() { return },
            }
        }
    }

    fn reset(mut self) {
        // With a linger time of zero, closing sends RST.
        self.resp.source().set_zero_linger().expect("SO_LINGER");
    }

    /// Reads one command and does with it what the mode says; an error ends the connection.
    async fn command(&mut self) -> std::io::Result<()> {
        let words = words(self.resp.value().await?)?;
        self.shared.commands.send_modify(|commands| commands.push(words.clone()));
        let mut mode = self.mode.clone();
        // Fails only when the fake is gone, and this task with it.
        let Ok(mode) = mode.wait_for(|mode| *mode != Mode::Hang).await.map(|mode| mode.clone()) else {
            return Ok(());
        };
        if mode == Mode::Garbage {
            return self.resp.source().write_all(b"\x16\x03\x01 this is not Redis\r\n").await;
        }
        let answer = self.answer(&words, &mode);
        if mode == Mode::HalfReply {
            self.resp.source().write_all(&answer[..answer.len() / 2]).await?;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        self.resp.source().write_all(&answer).await
    }

    fn answer(&mut self, words: &[Vec<u8>], mode: &Mode) -> Vec<u8> {
        let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
        // A server that loads its data still greets (the command flag `loading`).
        let greets = ["HELLO", "AUTH", "CLIENT", "SELECT", "MULTI", "EXEC"].contains(&&*name);
        if *mode == Mode::Loading && !greets {
            return b"-LOADING Redis is loading the dataset in memory\r\n".to_vec();
        }
        match &*name {
            "HELLO" => self.hello(words),
            "MULTI" => {
                self.queue = Some(Vec::new());
                b"+OK\r\n".to_vec()
            }
            "EXEC" => self.execute(mode),
            _ => match &mut self.queue {
                Some(queue) => {
                    queue.push(words.to_vec());
                    b"+QUEUED\r\n".to_vec()
                }
                None => self.encode(&self.run(words, mode)),
            },
        }
    }

    fn hello(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        if words.get(1).is_some_and(|version| version == b"3") {
            self.version = 3;
        }
        let opening = if self.version == 3 { "%4" } else { "*8" };
        let version = self.version;
        format!(
            "{opening}\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n+proto\r\n:{version}\r\n+id\r\n:1\r\n"
        )
        .into_bytes()
    }

    fn execute(&mut self, mode: &Mode) -> Vec<u8> {
        let Some(queue) = self.queue.take() else { return b"-ERR EXEC without MULTI\r\n".to_vec() };
        let mut answer = format!("*{}\r\n", queue.len()).into_bytes();
        for words in &queue {
            answer.extend(self.encode(&self.run(words, mode)));
        }
        answer
    }

    fn run(&self, words: &[Vec<u8>], mode: &Mode) -> Value {
        let (name, arguments) = (String::from_utf8_lossy(&words[0]).to_ascii_uppercase(), &words[1..]);
        let writes = ["SET", "PSETEX", "DEL", "UNLINK", "FLUSHALL"].contains(&&*name);
        let mut data = self.shared.data.lock().unwrap();
        match (&*name, arguments) {
            _ if writes && *mode == Mode::ReadOnly => {
                error("READONLY You can't write against a read only replica.")
            }
            _ if writes && *mode == Mode::Full => {
                error("OOM command not allowed when used memory > 'maxmemory'.")
            }
            ("PING", []) => Value::Simple("PONG".into()),
            ("PING" | "ECHO", [text]) => Value::Bulk(Some(text.clone())),
            ("AUTH" | "CLIENT" | "SELECT", _) => ok(),
            ("GET", [_]) if matches!(mode, Mode::Lie(_)) => {
                Value::Bulk(if let Mode::Lie(bytes) = mode { Some(bytes.clone()) } else { None })
            }
            ("GET", [key]) => Value::Bulk(data.get(key).map(|(value, _)| value.clone())),
            ("SET", [key, value, options @ ..]) => set(&mut data, key, value, options),
            ("PSETEX", [key, left, value]) => set(&mut data, key, value, &[b"PX".to_vec(), left.clone()]),
            ("DEL" | "UNLINK", keys) => removed(&mut data, keys),
            ("EXISTS", keys) => {
                Value::Integer(keys.iter().filter(|key| data.contains_key(*key)).count() as i64)
            }
            ("PTTL", [key]) => Value::Integer(data.get(key).map_or(-2, |(_, left)| *left)),
            ("FLUSHALL", _) => {
                data.clear();
                ok()
            }
            _ => error(&format!("ERR unknown command '{name}'")),
        }
    }

    fn encode(&self, value: &Value) -> Vec<u8> {
        match value {
            // The third version of the protocol has one nil for all.
            Value::Bulk(None) | Value::Array(None) if self.version == 3 => b"_\r\n".to_vec(),
            other => other.to_bytes(),
        }
    }
}

fn set(data: &mut Map, key: &[u8], value: &[u8], options: &[Vec<u8>]) -> Value {
    let (mut left, mut only_new, mut only_old) = (-1, false, false);
    let mut options = options.iter().map(|word| String::from_utf8_lossy(word).to_ascii_uppercase());
    while let Some(option) = options.next() {
        let factor = match &*option {
            "PX" => 1,
            "EX" => 1000,
            "NX" | "XX" => {
                (only_new, only_old) = (only_new || option == "NX", only_old || option == "XX");
                continue;
            }
            _ => return error("ERR syntax error"),
        };
        match options.next().and_then(|number| number.parse::<i64>().ok()).filter(|number| *number > 0) {
            Some(number) => left = number * factor,
            None => return error("ERR invalid expire time in 'set' command"),
        }
    }
    let exists = data.contains_key(key);
    if (only_new && exists) || (only_old && !exists) {
        return Value::Bulk(None);
    }
    data.insert(key.into(), (value.into(), left));
    ok()
}

fn removed(data: &mut Map, keys: &[Vec<u8>]) -> Value {
    Value::Integer(keys.iter().filter(|key| data.remove(*key).is_some()).count() as i64)
}

fn words(command: Value) -> std::io::Result<Vec<Vec<u8>>> {
    let malformed =
        || std::io::Error::new(std::io::ErrorKind::InvalidData, "a command is an array of bulk strings");
    let Value::Array(Some(values)) = command else { return Err(malformed()) };
    let words = values
        .into_iter()
        .map(|value| if let Value::Bulk(Some(word)) = value { Ok(word) } else { Err(malformed()) });
    words
        .collect::<Result<Vec<_>, _>>()
        .and_then(|words| if words.is_empty() { Err(malformed()) } else { Ok(words) })
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

fn error(text: &str) -> Value {
    Value::Error(text.into())
}
