//! Everything goes wrong at once, and no client notices; and what all this costs while nothing does.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vanne::base::clock::Clock;

use crate::edge::{Edge, secs};
use crate::support::client::Client;
use crate::support::free_address;
use crate::support::origin::{Origin, reply};
use crate::support::process::{Process, Program};

/// An instance that is a process of its own, and can be killed and stopped.
struct Instance {
    address: SocketAddr,
    process: Process,
}

impl Instance {
    async fn start(address: SocketAddr) -> Self {
        let admin = free_address();
        let configuration = format!(
            "[listen.web]\naddr = \"{address}\"\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n\
             [[routes]]\nrespond = {{ status = 200, body = \"{address}\" }}\n"
        );
        Self { address, process: Program::gateway(&configuration).ready_at(admin).start().await }
    }
}

fn elapsed(clock: &Clock) -> Duration {
    Duration::from_nanos(clock.mono().as_nanos())
}

/// The slowest of the GETs that 64 connections send; every one of them is answered with 200.
async fn slowest_of_64(edge: &Edge) -> Duration {
    let mut clients = JoinSet::new();
    for client in 0..64 {
        let mut connection = edge.client.connect().await;
        clients.spawn(async move {
            let mut slowest = Duration::ZERO;
            for n in 0..20 {
                let begun = Clock::start();
                connection.get(&format!("/{client}/{n}")).send().await.expect(200);
                slowest = slowest.max(elapsed(&begun));
            }
            slowest
        });
    }
    let mut slowest = Duration::ZERO;
    while let Some(client) = clients.join_next().await {
        slowest = slowest.max(client.expect("every GET is answered"));
    }
    slowest
}

/// One instance is killed, one is stopped, one answers 500 to everything, one is well: no GET of 64 connections fails, none takes longer than one
/// silence and what it takes in peace, and all are back within five seconds of their recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_stopped_and_failing_instances_at_once_cost_no_get() {
    const SILENCE: Duration = Duration::from_secs(1);
    let well = Instance::start(free_address()).await;
    let mut killed = Instance::start(free_address()).await;
    let stopped = Instance::start(free_address()).await;
    let failing = Origin::new().on_request("*", |_| reply(200).body("failing")).start().await;
    let edge = Edge::before(&[well.address, killed.address, stopped.address, failing.address()])
        .without_cache()
        .upstream(
            "tries = 4\ntry_timeout = \"1s\"\ntimeout = \"5s\"\nretry_on = [\"closed\", \"timeout\", 500]\n\
             health = { path = \"/ready\", every = \"200ms\", timeout = \"2s\", fall = 2, rise = 1 }",
        )
        .start()
        .await;
    let in_peace = slowest_of_64(&edge).await;
    killed.process.kill();
    stopped.process.signal("STOP");
    failing.set("*", reply(500).body("failing"));
    let in_the_storm = slowest_of_64(&edge).await;
    let most = SILENCE + Duration::from_millis(600) + in_peace;
    assert!(in_the_storm >= SILENCE && in_the_storm < most, "{in_the_storm:?}, in peace {in_peace:?}");

    stopped.process.signal("CONT");
    failing.set("*", reply(200).body("failing"));
    let address = killed.address;
    drop(killed);
    let again = Instance::start(address).await;
    let begun = Clock::start();
    let mut seen = HashSet::new();
    while seen.len() < 4 {
        seen.insert(edge.get("/").await.expect(200).text());
        assert!(elapsed(&begun) < secs(5), "back in rotation: {seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(seen.contains(&again.address.to_string()));
    edge.finish().await;
}

/// How long one request takes an instance.
const WORK: Duration = Duration::from_millis(100);
/// How many an instance works on at once.
const PLACES: usize = 4;
const CLIENTS: usize = 24;
const REQUESTS: usize = 15;

/// An instance with so many places, as a database pool gives them; what is beyond waits inside.
async fn instance_with_places() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let places = Arc::new(Semaphore::new(PLACES));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, places.clone()));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, places: Arc<Semaphore>) {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
                continue;
            }
            return;
        }
        head.clear();
        let place = places.acquire().await;
        tokio::time::sleep(WORK).await;
        drop(place);
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// Requests a second that clients get, each of whom has one of these to ask.
async fn served(asked: Vec<Client>) -> f64 {
    let mut clients = JoinSet::new();
    let begun = Clock::start();
    for client in asked {
        let mut connection = client.connect().await;
        clients.spawn(async move {
            for n in 0..REQUESTS {
                connection.get(&format!("/{n}")).send().await.expect(200);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every GET is answered");
    }
    (CLIENTS * REQUESTS) as f64 / elapsed(&begun).as_secs_f64()
}

/// Three instances that hold four requests each serve through the gateway what the same clients get from them when they are shared out by hand, with
/// no gateway: once with the queue inside the instances, once with it in the gateway but for two each, which are there when a place becomes free. A
/// measurement, for a quiet machine:
/// `cargo test --test spec storm:: -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn three_instances_serve_as_much_as_with_no_gateway() {
    let addresses =
        [instance_with_places().await, instance_with_places().await, instance_with_places().await];
    for (pool, name) in [
        ("\"off\"".to_owned(), "queue in the instances"),
        (format!("{{ size = {PLACES}, overflow = 2 }}"), "queue in the gateway, two at each instance's door"),
    ] {
        let edge = Edge::before(&addresses)
            .without_cache()
            .upstream(&format!("balance = \"least_conn\"\npool = {pool}"))
            .start()
            .await;
        let mut best = 0.0_f64;
        for _ in 0..3 {
            let by_hand = served((0..CLIENTS).map(|n| Client::new(addresses[n % 3])).collect()).await;
            let through = served((0..CLIENTS).map(|_| edge.client.clone()).collect()).await;
            eprintln!("{name}: {through:.1} requests/s, shared out by hand {by_hand:.1}");
            best = best.max(through / by_hand);
        }
        eprintln!("{name}: {:.1} %", best * 100.0);
        assert!(best >= 0.98, "{name}: {best}");
        edge.finish().await;
    }
}
