//! A bounded load: a few clients that ask at a steady pace, over kept connections, and note what they got.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tally::{Answer, Second};
use crate::base::clock::Clock;
use crate::base::dice::Dice;

/// Clients, and how long each rests between two requests: at most some 3,000 requests a second in all.
const CLIENTS: usize = 16;
const REST: Duration = Duration::from_millis(5);
/// How many different items are asked for; the first few far more often than the rest.
const ITEMS: usize = 2000;
/// One request in so many is for something that may not be cached.
const PASSING: usize = 5;

/// A running load.
pub struct Load {
    now: Arc<Mutex<Second>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts asking the gateway at `addr`.
    pub fn start(addr: SocketAddr, clock: Arc<Clock>) -> Self {
        let now = Arc::new(Mutex::new(Second::default()));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for seed in 0..CLIENTS {
            let client =
                Client { addr, clock: clock.clone(), now: now.clone(), dice: Dice::seeded(seed as u64) };
            clients.spawn(client.run(stopped.clone()));
        }
        Self { now, stop, clients }
    }

    /// What was noted since the last call.
    pub fn take(&self) -> Second {
        std::mem::take(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the load; what was noted since the last [`Load::take`].
    pub async fn stop(mut self) -> Second {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.take()
    }
}

struct Client {
    addr: SocketAddr,
    clock: Arc<Clock>,
    now: Arc<Mutex<Second>>,
    dice: Dice,
}

impl Client {
    async fn run(mut self, stopped: watch::Receiver<bool>) {
        let mut connection = None;
        while !*stopped.borrow() {
            let path = self.path();
            let begun = self.clock.mono();
            let answer = ask(&mut connection, self.addr, &path).await;
            let took = self.clock.mono().since(begun);
            self.now.lock().unwrap_or_else(PoisonError::into_inner).note(answer, took);
            tokio::time::sleep(REST).await;
        }
    }

    fn path(&mut self) -> String {
        if self.dice.below(PASSING) == 0 {
            return "/api/time".into();
        }
        // Squaring makes the low numbers popular, as real content is.
        let popularity = self.dice.unit() * self.dice.unit() * self.dice.unit();
        format!("/api/items/{}", (popularity * ITEMS as f64) as usize)
    }
}

/// One request over the kept connection, or a new one; `None` when no whole answer came.
async fn ask(connection: &mut Option<TcpStream>, addr: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(addr).await.ok()?,
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: demo.example\r\n\r\n");
    let answer = tokio::time::timeout(Duration::from_secs(10), async {
        stream.write_all(request.as_bytes()).await.ok()?;
        read(&mut stream).await
    })
    .await
    .ok()??;
    if !answer.close {
        *connection = Some(stream);
    }
    Some(answer)
}

async fn read(stream: &mut TcpStream) -> Option<Answer> {
    let mut held = Vec::with_capacity(4096);
    let mut buffer = [0; 8192];
    loop {
        let n = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        held.extend_from_slice(&buffer[..n]);
        let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let (answer, framing) = Answer::parse(&held[..end + 4])?;
        let body = held.split_off(end + 4);
        return framing.read_rest(stream, body).await.then_some(answer);
    }
}

/// How an answer's content ends.
pub enum Framing {
    /// After so many bytes.
    Length(usize),
    /// With its last chunk.
    Chunked,
}

impl Framing {
    async fn read_rest(self, stream: &mut TcpStream, mut body: Vec<u8>) -> bool {
        let mut buffer = [0; 8192];
        loop {
            let whole = match self {
                Self::Length(length) => body.len() >= length,
                Self::Chunked => body.ends_with(b"0\r\n\r\n"),
            };
            if whole {
                return true;
            }
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => body.extend_from_slice(&buffer[..n]),
                _ => return false,
            }
        }
    }
}
