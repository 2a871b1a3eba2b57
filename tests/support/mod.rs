//! The kit the specifications are written with: a scripted origin, a raw client, a real Redis and a lying one, the
//! gateway as a process, and gates that order what happens.
//!
//! The origin and the client speak HTTP/1.1 on bare sockets. A library at either end would repair what the gateway
//! sent before a test could see it; here every byte is kept, and what breaks the grammar of RFC 9112 is reported.
//!
//! Nothing sleeps to let something else happen first. A test waits for an event ([`gate::Gate`], `wait_for_…`), and
//! every wait ends after [`PATIENCE`] with a panic that says what never came.

// Each test binary compiles the whole kit and uses its own part of it.
#![allow(dead_code)]

pub mod client;
pub mod fake_redis;
pub mod gate;
pub mod http2;
pub mod line;
pub mod origin;
pub mod process;
pub mod redis;
pub mod redis_fleet;
#[cfg(feature = "server")]
pub mod secured;
pub mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How long any wait of the kit lasts before it fails the test.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for `event`.
///
/// # Panics
/// After [`PATIENCE`], naming `what` never came.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks `check` again and again until it holds: for what another process does, which tells nobody when it is done.
///
/// # Panics
/// After [`PATIENCE`], naming `what` never came.
pub async fn poll_until<F>(what: &str, mut check: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    within(what, async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// An address on the loopback interface where nobody listens at this moment.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on 127.0.0.1");
    listener.local_addr().expect("the address of a bound socket")
}
