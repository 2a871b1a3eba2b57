//! What the tests of the shared store stand on: a real Redis, one that lies, and gateways that share them.

use std::io::BufRead;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use vanne::base::clock::Clock;
use vanne::base::name::CacheName;
use vanne::base::unit::ByteSize;
use vanne::cache::key::{Key, KeyFacts};
use vanne::cache::policy::LifetimeSource;
use vanne::cache::record::{Record, ReuseRule, Stored, encode};
use vanne::cache::vary;
use vanne::cache::{KeyRules, VaryRules};
use vanne::observe::metrics::Metrics;
use vanne::plan;
use vanne::route::Table;
use vanne::store::redis::RedisTier;
use vanne::store::{Body, Entry, Found, Sizes, Store};

/// The budget of an operation in these tests.
pub const BUDGET: Duration = Duration::from_millis(100);
/// How much longer an operation may take on a busy machine.
pub const SLACK: Duration = Duration::from_millis(250);

/// A `redis-server` of its own.
pub struct Redis {
    child: Child,
    addr: SocketAddr,
    options: Vec<String>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let addr = free_address();
        Self { child: spawn(addr, &options), addr, options }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = spawn(self.addr, &self.options);
    }

    /// Stops it in its tracks: connections stand, nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Runs a command beside the gateways.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&[u8]]) -> T {
        ask(&self.url(), words).await
    }

    /// The names of all that is stored; the fleet's log beside it is not.
    pub async fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.ask(&[b"KEYS", b"*"]).await;
        names.retain(|name| !name.contains("{fleet}"));
        names
    }
}

pub async fn ask<T: redis::FromRedisValue>(url: &str, words: &[&[u8]]) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::Cmd::new().arg(words).query_async(&mut connection).await.unwrap()
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(addr: SocketAddr, options: &[String]) -> Child {
    let mut child = Command::new("redis-server")
        .args(["--port", &addr.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed");
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("eady to accept connections"));
    assert!(ready, "redis-server did not start");
    // What it says later is read and dropped, so that it never blocks on a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    child
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One gateway's store, with a connection of its own.
pub struct Gateway {
    pub store: Arc<Store>,
    pub tier: Arc<RedisTier>,
    pub clock: Arc<Clock>,
}

impl Gateway {
    /// With memory.
    pub fn over(url: &str) -> Self {
        Self::sized(url, ByteSize::mib(16))
    }

    /// Without: what it finds lies in Redis, or is on its way there.
    pub fn bare(url: &str) -> Self {
        Self::sized(url, ByteSize(0))
    }

    fn sized(url: &str, memory: ByteSize) -> Self {
        let clock = Arc::new(Clock::start());
        let plan = plan(url);
        let metrics = Metrics::new(&plan);
        let tier = RedisTier::new(plan.redis.as_ref().unwrap(), clock.clone(), metrics.redis()).unwrap();
        let cache = metrics.cache(&CacheName::from("api"));
        let store = Store::new(memory, Sizes::of(ByteSize::mib(1)), Some(tier.clone()), clock.clone(), cache);
        Self { store: Arc::new(store), tier, clock }
    }

    pub fn put(&self, key: &Key, entry: &Entry) {
        let entry = Entry { record: entry.record.clone(), body: entry.body.clone() };
        self.store.put(key, Arc::new(entry));
    }

    pub async fn lookup(&self, key: &Key) -> Found {
        self.store.lookup(key, &HeaderMap::new()).await
    }

    pub async fn lookup_for(&self, key: &Key, language: &str) -> Found {
        self.store.lookup(key, &asking(language)).await
    }

    /// A lookup, and how long it took.
    pub async fn timed(&self, key: &Key) -> (Found, Duration) {
        let started = self.clock.mono();
        let found = self.lookup(key).await;
        (found, self.clock.mono().since(started))
    }

    /// Waits until Redis is in use.
    pub async fn until_up(&self) {
        until("Redis is in use", || self.tier.is_up()).await;
    }
}

/// Waits for something to become true that nothing announces.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !condition() {
        assert!(clock.mono().since(Default::default()) < Duration::from_secs(10), "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn plan(url: &str) -> plan::Plan {
    plan::Plan {
        server: plan::Server {
            threads: 1,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            trusted_proxies: Default::default(),
            name: "vanne".into(),
        },
        listeners: Vec::new(),
        admin: plan::Admin { addr: None, token: None },
        log: plan::Log { level: "info".into(), format: plan::LogFormat::Text, access: plan::AccessLog::Off },
        redis: Some(plan::Redis {
            url: url.into(),
            timeout: BUDGET,
            prefix: "vanne".into(),
            trust: Duration::from_secs(10),
            password_file: None,
            tls: plan::RedisTls::default(),
        }),
        upstreams: Vec::new(),
        limits: Vec::new(),
        realms: Vec::new(),
        caches: vec![plan::Cache {
            name: "api".into(),
            rules: Default::default(),
            memory: ByteSize::mib(16),
            max_object: ByteSize::mib(1),
            memory_max_object: None,
            coalesce: Default::default(),
            relay: Default::default(),
            lease: Duration::from_secs(3),
            wait_timeout: Duration::from_secs(1),
        }],
        routes: Vec::new(),
        table: Table::new(Vec::new()).unwrap(),
    }
}

pub fn key(path: &str) -> Key {
    let fields = HeaderMap::new();
    let facts =
        KeyFacts { https: false, host: "example.com", port: None, path, query: None, fields: &fields };
    Key::of(&facts, &KeyRules::default())
}

pub fn asking(language: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("accept-language", HeaderValue::from_str(language).unwrap());
    fields
}

/// An answer that serves all, fresh for a minute and of no use after.
pub fn answer(key: &Key, body: &str, clock: &Clock) -> Entry {
    let mut fields = HeaderMap::new();
    fields.insert("content-type", HeaderValue::from_static("text/plain"));
    let record = Record {
        key: key.shared_text(),
        status: StatusCode::OK,
        fields,
        received: clock.wall(),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(60),
        source: LifetimeSource::MaxAge,
        reuse: ReuseRule::default(),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        keep: Duration::ZERO,
        vary: Vec::new(),
        variant: Default::default(),
    };
    Entry { record, body: Body::from_chunks(vec![Bytes::copy_from_slice(body.as_bytes())]) }
}

/// An answer for one language, among others.
pub fn answer_for(key: &Key, language: &str, body: &str, clock: &Clock) -> Entry {
    let mut entry = answer(key, body, clock);
    entry.record.vary = vec![HeaderName::from_static("accept-language")];
    entry.record.variant = vary::of_request(&entry.record.vary, &asking(language), VaryRules::default());
    entry
}

pub fn stored(entry: &Entry) -> Vec<u8> {
    encode(&Stored::Answer(entry.record.clone(), 0, entry.body.chunks()[0].clone()))
}

/// What was found, as text.
pub fn text(found: &Found) -> Option<String> {
    let entry = found.entry.as_ref()?;
    let bytes: Vec<u8> = entry.body.chunks().iter().flat_map(|chunk| chunk.to_vec()).collect();
    Some(String::from_utf8(bytes).unwrap())
}

/// The name in Redis of what lies under a key itself.
pub fn name_of(key: &Key) -> String {
    let hex: String = key.hash().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("vanne:v1:{{{hex}}}")
}

/// What a lying Redis does with a command.
pub enum Reply {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Never answers this nor anything after it on the connection.
    Hang,
    /// Sends these bytes and closes the connection.
    Close(Vec<u8>),
    /// Waits for leave, then sends these bytes.
    Stall(Arc<tokio::sync::Notify>, Vec<u8>),
}

pub fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

pub fn nil() -> Reply {
    Reply::Bytes(b"$-1\r\n".to_vec())
}

/// A Redis without streams that signs clients in and answers PING like a good one, and everything else as told.
pub struct Fake {
    pub url: String,
}

impl Fake {
    pub async fn start(script: impl Fn(&[Vec<u8>]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                tokio::spawn(async move { serve(stream, &*script).await });
            }
        });
        Self { url }
    }
}

async fn serve(stream: TcpStream, script: &(dyn Fn(&[Vec<u8>]) -> Reply + Send + Sync)) {
    let mut stream = BufReader::new(stream);
    while let Some(words) = command(&mut stream).await {
        let reply = match words[0].as_slice() {
            b"CLIENT" => Reply::Bytes(b"+OK\r\n".to_vec()),
            b"PING" => Reply::Bytes(b"+PONG\r\n".to_vec()),
            b"XADD" | b"XREAD" | b"XRANGE" | b"XREVRANGE" | b"PEXPIRE" => {
                Reply::Bytes(b"-ERR unknown command\r\n".to_vec())
            }
            _ => script(&words),
        };
        let (bytes, go_on) = match reply {
            Reply::Bytes(bytes) => (bytes, true),
            Reply::Hang => std::future::pending().await,
            Reply::Close(bytes) => (bytes, false),
            Reply::Stall(leave, bytes) => {
                leave.notified().await;
                (bytes, true)
            }
        };
        if stream.write_all(&bytes).await.is_err() || !go_on {
            return;
        }
    }
}

async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<Vec<u8>>> {
    let count = number(stream, '*').await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(stream, '$').await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Some(words)
}

async fn number(stream: &mut BufReader<TcpStream>, sign: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}
