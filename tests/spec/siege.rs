//! Clients that take what they can: connections that rest, trickle or do not read, garbage, and descriptors that run out.
//!
//! The large ones are ignored in an ordinary run; `benches/hostile` runs them and prints their figures.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::origin::{Origin, reply};
use crate::support::process::{Process, Program};
use crate::support::{free_address, within};

struct Siege {
    web: SocketAddr,
    process: Process,
    _origin: Origin,
}

/// What a large answer holds: more than sockets buffer.
const LARGE: usize = 8 * 1024 * 1024;

impl Siege {
    /// A gateway in a process of its own, started by this shell line, before an origin with small and large answers.
    async fn begin(before: &str, listen: &str) -> Self {
        let origin = Origin::new()
            .on("/large/stored", reply(200).cache("max-age=600").body(vec![b'x'; LARGE / 2]))
            .on("/large/*", reply(200).cache("no-store").body(vec![b'x'; LARGE]))
            .on("/stored", reply(200).cache("max-age=600").body("stored"))
            .on("*", reply(200).cache("no-store").body("small"))
            .start()
            .await;
        let (web, admin) = (free_address(), free_address());
        let file = format!(
            "[server]\nthreads = 2\n[listen.web]\naddr = \"{web}\"\n{listen}\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n\
             [upstreams.api]\nservers = [\"{}\"]\n[caches.api]\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n",
            origin.address()
        );
        let program = Program::new("/bin/sh");
        let file = program.file("vanne.toml", &file);
        let line = format!("{before} exec {} run -c {file}", env!("CARGO_BIN_EXE_vanne"));
        let process = program.arg("-c").arg(&line).ready_at(admin).start().await;
        Self { web, process, _origin: origin }
    }

    fn client(&self) -> Client {
        Client::new(self.web)
    }

    /// What it holds in memory, in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The longest of so many requests for small answers, stored and not.
    async fn slowest(&self, count: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for number in 0..count {
            let begun = Instant::now();
            let target = if number % 2 == 0 { "/stored" } else { "/small" };
            self.client().get(target).send().await.expect(200);
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    }

    async fn connect(&self) -> TcpStream {
        within("a connection", TcpStream::connect(self.web)).await.expect("somebody listens")
    }
}

/// A connection that has made a request and rests.
async fn resting(siege: &Siege) -> TcpStream {
    let mut stream = siege.connect().await;
    stream.write_all(b"GET /stored HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 4096];
    let count = within("an answer", stream.read(&mut answer)).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "thousands of connections; benches/hostile runs it"]
async fn those_who_rest_trickle_or_do_not_read_cost_little_and_hurt_nobody() {
    let siege = Siege::begin("", "").await;
    siege.client().get("/large/stored").send().await.expect(200);
    siege.slowest(300).await;
    let before = siege.resident();

    let mut held = Vec::new();
    for _ in 0..2000 {
        held.push(resting(&siege).await);
    }
    let idle = siege.resident();
    eprintln!("2,000 at rest: {} KiB, {:.1} KiB each", idle - before, (idle - before) as f64 / 2000.0);

    let mut trickling = Vec::new();
    for _ in 0..800 {
        let mut stream = siege.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.unwrap();
        trickling.push(stream);
    }
    for number in 0..300 {
        let mut stream = siege.connect().await;
        let target = if number % 2 == 0 { "/large/stored" } else { "/large/passed" };
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        // The answer has begun; no more of it is read.
        within("the answer to begin", stream.readable()).await.unwrap();
        held.push(stream);
    }
    let mut slowest = Duration::ZERO;
    let mut most = 0;
    for _ in 0..20 {
        for stream in &mut trickling {
            // One whose time was up is gone.
            let _ = stream.write_all(b"y").await;
        }
        slowest = slowest.max(siege.slowest(10).await);
        most = most.max(siege.resident());
    }
    eprintln!(
        "2,000 at rest, 800 that trickle, 300 that do not read: {} KiB in all",
        most.saturating_sub(before)
    );
    eprintln!("others were served within {slowest:?}");
    // Without optimisation every request in progress holds twice as much.
    let may = if cfg!(debug_assertions) { 128 * 1024 } else { 64 * 1024 };
    assert!(most.saturating_sub(before) <= may, "{} KiB", most - before);
    assert!(slowest <= Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten thousand connections; benches/hostile runs it"]
async fn ten_thousand_requests_of_garbage_change_nothing() {
    let siege = Siege::begin("", "").await;
    siege.slowest(300).await;
    let before = siege.resident();
    let mut dice = fastrand::Rng::with_seed(9);
    let begun = Instant::now();
    for _ in 0..100 {
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let bytes = garbage(&mut dice);
            let web = siege.web;
            asking.spawn(async move {
                let Ok(mut stream) = TcpStream::connect(web).await else { return };
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
                assert!(!String::from_utf8_lossy(&answer).contains(" 500 "), "{}", bytes.escape_ascii());
            });
        }
        while let Some(done) = asking.join_next().await {
            done.expect("none is a fault of ours");
        }
    }
    let took = begun.elapsed();
    let slowest = siege.slowest(50).await;
    let grown = siege.resident().saturating_sub(before);
    eprintln!("10,000 of garbage in {took:?}: {grown} KiB more, then served within {slowest:?}");
    assert!(grown <= 64 * 1024, "{grown} KiB");
    assert!(slowest <= Duration::from_secs(1), "{slowest:?}");
}

/// Bytes that are almost a request, or nothing like one.
fn garbage(dice: &mut fastrand::Rng) -> Vec<u8> {
    const LIKE: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut bytes = match dice.bool() {
        true => LIKE[dice.usize(..LIKE.len())].to_vec(),
        false => (0..dice.usize(1..2000)).map(|_| dice.u8(..)).collect(),
    };
    for _ in 0..dice.usize(..8) {
        let at = dice.usize(..bytes.len());
        bytes[at] = dice.u8(..);
    }
    bytes
}

#[tokio::test]
async fn a_gateway_out_of_descriptors_lives_and_serves_again_at_once() {
    let siege = Siege::begin("ulimit -n 100;", "header_timeout = \"1m\"").await;
    siege.client().get("/small").send().await.expect(200);
    // The kernel takes connections that the gateway cannot: so more are opened than it has descriptors for.
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = siege.connect().await;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
        held.push(stream);
    }
    // Its descriptors are all in use when the last of them gets none for its own request either.
    let mut last = siege.connect().await;
    last.write_all(b"GET /stored HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let unanswered = tokio::time::timeout(Duration::from_millis(300), last.read_u8()).await;
    assert!(unanswered.is_err(), "descriptors were not exhausted: {unanswered:?}");
    drop(held);
    let begun = Instant::now();
    siege.client().get("/small").send().await.expect(200);
    let recovered = begun.elapsed();
    assert!(recovered <= Duration::from_secs(2), "{recovered:?}");
}
