//! A sample API instance: a small HTTP/1.1 server that can be killed and revived on its port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A sample instance.
pub struct Instance {
    name: Arc<str>,
    delay: Duration,
    addr: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl Instance {
    /// Starts one on a free port; it takes `delay` for every answer but `/ready`.
    pub async fn start(name: &str, delay: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let mut instance = Self { name: name.into(), delay, addr, server: None };
        instance.serve(listener);
        Ok(instance)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Dies as a killed process does: its port and all its connections are closed at once.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Listens on the same port again.
    pub async fn revive(&mut self) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.addr)?;
        self.serve(socket.listen(1024)?);
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let (name, delay) = (self.name.clone(), self.delay);
        self.server = Some(tokio::spawn(async move {
            // Dropped with the task, the set takes all its connections along.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.spawn(converse(stream, name.clone(), delay));
            }
        }));
    }
}

/// Answers requests without content until the client leaves.
async fn converse(mut stream: TcpStream, name: Arc<str>, delay: Duration) {
    let _ = stream.set_nodelay(true);
    let mut held = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => held.extend_from_slice(&buffer[..n]),
                _ => return,
            }
            continue;
        };
        let head: Vec<u8> = held.drain(..end + 4).collect();
        let line =
            String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
        let path = line.split(' ').nth(1).unwrap_or("/");
        if path != "/ready" && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if stream.write_all(&answer(&name, path)).await.is_err() {
            return;
        }
    }
}

/// Items may be shared for two seconds; everything else is the moment's own.
fn answer(name: &str, path: &str) -> Vec<u8> {
    let (control, body) = if path.starts_with("/api/items/") {
        (
            "public, max-age=2",
            format!(
                "{{\"path\":\"{path}\",\"from\":\"{name}\",\"text\":\"{}\"}}\n",
                "lorem ipsum ".repeat(200)
            ),
        )
    } else {
        ("no-store", format!("{{\"path\":\"{path}\",\"from\":\"{name}\"}}\n"))
    };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: {control}\r\nX-Instance: {name}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
