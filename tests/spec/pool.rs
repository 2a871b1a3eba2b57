//! An instance is never asked for more than it can hold: who waits, for how long, and what the others are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::edge::{Configuration, Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;

/// An instance whose answers to `/slow…` wait at a gate.
async fn slow(gate: &Gate) -> Origin {
    let slow = reply(200).cache("no-store").body("slow").gate(gate);
    Origin::new().on("*", reply(200).cache("no-store").body("quick")).on("/slow/*", slow).start().await
}

fn pooled(instances: &[SocketAddr], pool: &str) -> Configuration {
    Edge::before(instances).without_cache().upstream(&format!("pool = {{ {pool} }}"))
}

fn ask(edge: &Edge, target: &str) -> JoinHandle<crate::support::client::Answer> {
    tokio::spawn(edge.client.get(target).send())
}

fn waiting(edge: &Edge) -> usize {
    edge.metric("vanne_upstream_waiting{upstream=\"api\"}").expect("a number") as usize
}

async fn until_waiting(edge: &Edge, count: usize) {
    poll_until(&format!("{count} to wait"), || async { waiting(edge) == count }).await;
}

#[tokio::test]
async fn a_request_beyond_the_limit_waits_for_the_first_free_place() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    let edge = pooled(&[a.address()], "size = 1, overflow = 1").start().await;
    let held = [ask(&edge, "/slow/1"), ask(&edge, "/slow/2")];
    gate.arrived(2).await;
    let waits = ask(&edge, "/waits");
    until_waiting(&edge, 1).await;
    assert_eq!(a.hits("/waits"), 0, "nothing of it has reached the instance");
    gate.release();
    for answer in held {
        answer.await.expect("asked").expect(200);
    }
    waits.await.expect("asked").expect(200).body("quick");
    let waited = edge.metric("vanne_upstream_wait_duration_seconds_count{upstream=\"api\"}");
    assert_eq!((waiting(&edge), waited), (0, Some(1.0)));
    poll_until("the places to be given back", || async { edge.in_flight() == [0] }).await;
    edge.finish().await;
}

#[tokio::test]
async fn a_waiter_is_bound_to_no_instance() {
    let (first, second) = (Gate::new("a"), Gate::new("b"));
    let (a, b) = (slow(&first).await, slow(&second).await);
    let edge = pooled(&[a.address(), b.address()], "size = 1, overflow = 0").start().await;
    let held = [ask(&edge, "/slow/1"), ask(&edge, "/slow/2")];
    first.arrived(1).await;
    second.arrived(1).await;
    let waits = ask(&edge, "/waits");
    until_waiting(&edge, 1).await;
    second.release();
    waits.await.expect("asked").expect(200);
    assert_eq!((a.hits("/waits"), b.hits("/waits")), (0, 1), "b was the first to be free");
    first.release();
    for answer in held {
        answer.await.expect("asked").expect(200);
    }
    edge.finish().await;
}

#[tokio::test]
async fn overflow_serves_while_no_instance_has_room_within_its_size() {
    let gates = [Gate::new("a"), Gate::new("b")];
    let (a, b) = (slow(&gates[0]).await, slow(&gates[1]).await);
    // By weight, a would get all of the first ten.
    let edge = Edge::before(&[])
        .without_cache()
        .without_first_upstream()
        .routes("[[routes]]\nupstream = \"api\"")
        .also(&format!(
            "[upstreams.api]\nservers = [{{ addr = \"{}\", weight = 100 }}, \"{}\"]\nbalance = \"least_conn\"\n\
             pool = {{ size = 1, overflow = 1 }}",
            a.address(),
            b.address()
        ))
        .start()
        .await;
    let mut held = Vec::new();
    for i in 0..3 {
        held.push(ask(&edge, &format!("/slow/{i}")));
        poll_until("it to be sent", || async { a.requests().len() + b.requests().len() == i + 1 }).await;
    }
    assert_eq!((a.requests().len(), b.requests().len()), (2, 1), "b's place before a's overflow");
    gates.iter().for_each(Gate::release);
    for answer in held {
        answer.await.expect("asked").expect(200);
    }
    edge.finish().await;
}

#[tokio::test]
async fn when_the_queue_is_full_the_answer_says_so_and_when_to_come_back() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    let edge = pooled(&[a.address()], "size = 1, overflow = 0, queue = 1").start().await;
    let held = ask(&edge, "/slow/1");
    gate.arrived(1).await;
    let waits = ask(&edge, "/waits");
    until_waiting(&edge, 1).await;
    let refused = edge.get("/refused").await.expect(503);
    let refused = refused
        .with("retry-after", "1")
        .with("proxy-status", "vanne; error=connection_limit_reached; details=\"queue-full\"");
    assert!(refused.text().contains("\"code\":\"queue-full\""), "{}", refused.text());
    let rejected = edge.metric("vanne_upstream_rejected_total{reason=\"full\",upstream=\"api\"}");
    assert_eq!((a.hits("/refused"), rejected), (0, Some(1.0)));
    gate.release();
    held.await.expect("asked").expect(200);
    waits.await.expect("asked").expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn who_waited_as_long_as_a_request_may_is_told_so() {
    for (timeout, code) in [("50ms", "queue-timeout"), ("0s", "queue-full")] {
        let gate = Gate::new("the database");
        let a = slow(&gate).await;
        let edge =
            pooled(&[a.address()], &format!("size = 1, overflow = 0, timeout = \"{timeout}\"")).start().await;
        let held = ask(&edge, "/slow/1");
        gate.arrived(1).await;
        let refused = edge.get("/late").await.expect(503).with("retry-after", "1");
        assert!(refused.text().contains(code), "{}", refused.text());
        assert_eq!((a.hits("/late"), waiting(&edge)), (0, 0));
        gate.release();
        held.await.expect("asked").expect(200);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_client_that_left_leaves_the_queue() {
    for (cached, body) in [(false, ""), (false, "a question"), (true, "")] {
        let gate = Gate::new("the database");
        let a = slow(&gate).await;
        let edge = Edge::before(&[a.address()]).upstream("pool = { size = 1, overflow = 0 }");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let held = ask(&edge, "/slow/1");
        gate.arrived(1).await;
        let mut leaves = edge.client.connect().await;
        let request = edge.request(if body.is_empty() { "GET" } else { "POST" }, "/leaves").body(body);
        let request = if body.is_empty() { edge.request("GET", "/leaves") } else { request };
        leaves.write(request.to_bytes()).await;
        until_waiting(&edge, 1).await;
        drop(leaves);
        until_waiting(&edge, 0).await;
        gate.release();
        held.await.expect("asked").expect(200);
        edge.get("/after").await.expect(200);
        assert_eq!(a.hits("/leaves"), 0, "cached: {cached}, body: {body:?}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn the_content_of_a_request_that_waited_arrives_whole() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    let edge = pooled(&[a.address()], "size = 1, overflow = 0").start().await;
    let held = ask(&edge, "/slow/1");
    gate.arrived(1).await;
    let bodies = [vec![b'a'; 10], vec![b'b'; 60_000], vec![b'c'; 300_000]];
    let mut answers = Vec::new();
    for (i, body) in bodies.iter().enumerate() {
        let post = edge.request("POST", &format!("/post/{i}")).body(body.clone());
        answers.push(tokio::spawn(post.send()));
    }
    let chunked = edge.request("POST", "/chunked").chunks(["one", "two"]);
    answers.push(tokio::spawn(chunked.send()));
    until_waiting(&edge, 4).await;
    gate.release();
    held.await.expect("asked").expect(200);
    for answer in answers {
        answer.await.expect("asked").expect(200);
    }
    for (i, body) in bodies.iter().enumerate() {
        assert!(a.last(&format!("/post/{i}")).body == *body, "content {i}");
    }
    assert_eq!(a.last("/chunked").body, b"onetwo");
    edge.finish().await;
    a.finish().await;
}

#[tokio::test]
async fn a_route_of_high_priority_is_served_before_those_that_came_first() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    let edge = pooled(&[a.address()], "size = 1, overflow = 0")
        .routes(
            "[[routes]]\nupstream = \"api\"\n[[routes]]\nmatch = { path = \"/urgent\" }\nupstream = \"api\"\n\
             priority = \"high\"",
        )
        .start()
        .await;
    let held = ask(&edge, "/slow/1");
    gate.arrived(1).await;
    let first = ask(&edge, "/first");
    until_waiting(&edge, 1).await;
    let urgent = ask(&edge, "/urgent");
    until_waiting(&edge, 2).await;
    gate.release();
    for answer in [held, first, urgent] {
        answer.await.expect("asked").expect(200);
    }
    let order: Vec<_> = a.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(order, ["/slow/1", "/urgent", "/first"]);
    edge.finish().await;
}

#[tokio::test]
async fn a_stored_answer_never_waits_for_an_instance() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    a.set("/page", reply(200).cache("max-age=60").body("stored"));
    let edge =
        Edge::before(&[a.address()]).upstream("pool = { size = 1, overflow = 0, queue = 0 }").start().await;
    edge.get("/page").await.expect(200);
    let held = ask(&edge, "/slow/1");
    gate.arrived(1).await;
    edge.get("/page").await.expect(200).body("stored");
    edge.get("/other").await.expect(503);
    gate.release();
    held.await.expect("asked").expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn a_stale_answer_stands_in_for_one_that_got_no_place() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    a.set("/page", reply(200).cache("max-age=1, stale-if-error=600").body("stored"));
    let edge =
        Edge::before(&[a.address()]).upstream("pool = { size = 1, overflow = 0, queue = 0 }").start().await;
    edge.get("/page").await.expect(200);
    edge.grow_older(secs(5));
    let held = ask(&edge, "/slow/1");
    gate.arrived(1).await;
    edge.get("/page").await.expect(200).body("stored");
    gate.release();
    held.await.expect("asked").expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn a_connection_is_recycled_by_its_age() {
    for cached in [false, true] {
        let a = slow(&Gate::new("unused")).await;
        let edge = Edge::before(&[a.address()]).upstream("pool = { recycle = \"1h\" }");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for _ in 0..3 {
            edge.get("/").await.expect(200);
        }
        assert_eq!(a.connections(), 1, "a young one is kept");
        edge.grow_older(secs(2 * 3600));
        edge.get("/last").await.expect(200);
        assert_eq!(a.last("/last").header("connection"), Some("close"));
        assert_eq!(a.connections(), 1, "an old one serves the request that finds it");
        edge.get("/").await.expect(200);
        assert_eq!(a.connections(), 2, "cached: {cached}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_connection_is_recycled_by_its_count() {
    for cached in [false, true] {
        let a = slow(&Gate::new("unused")).await;
        let edge = Edge::before(&[a.address()]).upstream("pool = { recycle_count = 3 }");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for i in 1..=7 {
            edge.get("/").await.expect(200);
            let last = a.last("/").header("connection") == Some("close");
            assert_eq!(last, i % 3 == 0, "request {i}, cached: {cached}");
        }
        assert_eq!(a.connections(), 3, "cached: {cached}");
        edge.finish().await;
    }
}

/// The instance says how many requests it can hold, in its answers or to its health checks; the pool follows, up and down, within what is
/// believed, and clients do not see it.
#[tokio::test]
async fn an_instance_says_how_many_requests_it_can_hold() {
    for (cached, by_check) in [(false, false), (true, false), (false, true)] {
        let gate = Gate::new("the database");
        let a = slow(&gate).await;
        let say = |size: &str| {
            let answer = reply(200).cache("no-store").header("x-pool", size).body("quick");
            if by_check {
                a.set("/ready", reply(200).body(format!("{{\"pool\":{{\"free\":{size}}}}}")));
            } else {
                a.set("/tell", answer);
            }
        };
        say("1");
        let checks = "health = { path = \"/ready\", every = \"20ms\", timeout = \"5s\" }\n";
        let (checks, json) = if by_check { (checks, ", json = \"/pool/free\"") } else { ("", "") };
        let edge = Edge::before(&[a.address()]).upstream(&format!(
            "{checks}pool = {{ size = 3, overflow = 0, capacity = {{ header = \"X-Pool\", max = 4{json} }} }}"
        ));
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let told = |size: u64| {
            let edge = &edge;
            async move {
                if !by_check {
                    assert_eq!(edge.get("/tell").await.expect(200).header("x-pool"), None);
                }
                let shown = || async {
                    let text = edge.admin().get("/api/v1/upstreams").send().await.expect(200).text();
                    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    json["upstreams"][0]["instances"][0]["size"] == size
                };
                poll_until(&format!("the size to be {size}"), shown).await;
            }
        };
        told(1).await;
        let held = ask(&edge, "/slow/1");
        gate.arrived(1).await;
        let waits = ask(&edge, "/slow/2");
        until_waiting(&edge, 1).await;
        if by_check {
            say("2");
            gate.arrived(2).await;
            told(2).await;
        }
        gate.release();
        for answer in [held, waits] {
            answer.await.expect("asked").expect(200);
        }
        say("1000");
        told(4).await;
        say("0");
        told(1).await;
        edge.finish().await;
    }
}

/// An API instance whose database pool counts what is asked of it at once.
#[derive(Clone)]
struct Counting {
    database: Gate,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Counting {
    fn new(database: &Gate) -> Self {
        Self { database: database.clone(), now: Arc::default(), most: Arc::default() }
    }

    async fn start(&self) -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("the address of a bound socket");
        let counting = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(counting.clone().serve(stream));
            }
        });
        address
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut head = Vec::new();
        loop {
            let mut bytes = [0; 2048];
            match stream.read(&mut bytes).await {
                Ok(n @ 1..) => head.extend_from_slice(&bytes[..n]),
                _ => return,
            }
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            head.clear();
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.database.wait().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                return;
            }
        }
    }
}

/// The promise: 200 clients before three instances that hold 20 and 5 more, and none ever has more, whatever the clients do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_never_exhaust_an_instance() {
    for balance in ["round_robin", "least_conn", "ip_hash", "random"] {
        let database = Gate::new("the database");
        let instances: [Counting; 3] = std::array::from_fn(|_| Counting::new(&database));
        let mut addresses = Vec::new();
        for instance in &instances {
            addresses.push(instance.start().await);
        }
        let edge = Edge::before(&addresses)
            .without_cache()
            .upstream(&format!("balance = \"{balance}\"\npool = {{ size = 20, overflow = 5 }}"))
            .start()
            .await;
        let mut clients = JoinSet::new();
        for _ in 0..200 {
            let client = edge.client.clone();
            clients.spawn(async move {
                let mut connection = client.connect().await;
                for i in 0..4 {
                    connection.get(&format!("/{i}")).send().await.expect(200);
                }
            });
        }
        until_waiting(&edge, 200 - 3 * 25).await;
        let now = || instances.each_ref().map(|i| i.now.load(Ordering::SeqCst));
        poll_until("every instance to be full", || async { now() == [25, 25, 25] }).await;
        database.release();
        while let Some(client) = clients.join_next().await {
            client.expect("every request is answered");
        }
        assert_eq!(instances.each_ref().map(|i| i.most.load(Ordering::SeqCst)), [25, 25, 25], "{balance}");
        poll_until("all places to be given back", || async { edge.in_flight() == [0, 0, 0] }).await;
        edge.finish().await;
    }
}

#[tokio::test]
async fn who_sends_the_next_request_while_the_first_waits_is_still_there() {
    let gate = Gate::new("the database");
    let a = slow(&gate).await;
    let edge = Edge::before(&[a.address()]).upstream("pool = { size = 1, overflow = 0 }").start().await;
    let held = ask(&edge, "/slow/1");
    gate.arrived(1).await;
    let mut client = edge.client.connect().await;
    client.write(edge.request("GET", "/first").to_bytes()).await;
    until_waiting(&edge, 1).await;
    client.write(edge.request("GET", "/second").to_bytes()).await;
    gate.release();
    held.await.expect("asked").expect(200);
    client.read_answer("GET").await.expect(200).body("quick");
    edge.finish().await;
}
