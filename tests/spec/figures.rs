//! What a fleet's promises cost and take, measured: `cargo test --test spec figures -- --ignored --nocapture`.
//!
//! Not part of a usual run: figures are for people to read, and a busy machine has others.

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::Duration;

use tokio::time::Instant;

use crate::edge::Edge;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::redis::Redis;

const TOKEN: &str = "0123456789abcdef";

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{what}: median {:.2} ms, 90 % {:.2} ms, longest {:.2} ms", at(50), at(90), at(100));
}

async fn edges(count: usize, origin: &Origin, redis: &Redis, cache: &str) -> Vec<Edge> {
    let mut edges = Vec::new();
    for _ in 0..count {
        let edge = Edge::serving(origin).cache(cache).admin(&format!("token = \"{TOKEN}\""));
        edges.push(edge.redis(&redis.url()).start_with_redis().await);
    }
    edges
}

async fn purge(edge: &Edge, tag: &str) -> Duration {
    let ask = edge.admin().request("POST", "/api/v1/purge");
    let ask = ask.header("authorization", &format!("Bearer {TOKEN}"));
    let begun = Instant::now();
    ask.body(format!("{{\"tags\":[\"{tag}\"]}}")).send().await.expect(200);
    begun.elapsed()
}

async fn tagged() -> Origin {
    let script = |r: &crate::support::origin::Request| {
        let tag = r.target.split('/').nth(1).unwrap_or_default().to_owned();
        reply(200).cache("max-age=6000").header("cache-tag", &tag).body("v")
    };
    Origin::new().on_request("*", script).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_long_after_a_purge_the_other_gateways_serve_what_was_purged() {
    let redis = Redis::start().await;
    let origin = tagged().await;
    let edges = edges(3, &origin, &redis, "").await;
    let (mut answered, mut reached) = (Vec::new(), Vec::new());
    for round in 0..100 {
        let target = format!("/{round}/page");
        edges[0].get(&target).await.expect(200);
        edges[0].flush_redis().await;
        for edge in &edges {
            edge.get(&target).await.expect(200).cache("hit");
            edge.get("/other/page").await.expect(200);
        }
        answered.push(purge(&edges[0], &round.to_string()).await);
        let told = Instant::now();
        let mut last = Duration::ZERO;
        for edge in &edges {
            while edge.get(&target).await.expect(200).cache_status().contains("-mem; hit")
                && origin.hits(&target) == 1
            {}
            last = last.max(told.elapsed());
            edge.get("/other/page").await.expect(200).cache("vanne-mem; hit");
        }
        reached.push(last);
    }
    show("the call of a purge", answered);
    show("from its answer until the last of three gateways was seen to obey", reached);
    for edge in edges {
        edge.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_purge_costs_by_what_it_hits() {
    const MANY: usize = 100_000;
    let redis = Redis::start().await;
    let origin = tagged().await;
    let edges = edges(2, &origin, &redis, "memory = \"1GiB\"\ncoalesce = \"process\"").await;
    let edge = &edges[0];
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let client = edge.client.clone();
            tokio::spawn(async move {
                let mut connection = client.connect().await;
                for number in (worker..MANY).step_by(8) {
                    if number % 800 == worker {
                        connection = client.connect().await;
                    }
                    connection.get(&format!("/many/{number}")).send().await.expect(200);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("filled");
    }
    edge.get("/few/1").await.expect(200);
    edge.flush_redis().await;
    let entries = edge.metric("vanne_cache_entries{name=\"api\",tier=\"memory\"}").unwrap_or(0.0);
    println!("{entries} entries in memory, {} keys in Redis", redis.keys("*").await.len());
    for (tag, hits) in [("few", 1), ("many", MANY)] {
        let mut times = Vec::new();
        for _ in 0..50 {
            times.push(purge(edge, tag).await);
        }
        show(&format!("a purge of a tag with {hits}"), times);
    }
    for edge in edges {
        edge.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_soon_who_joins_a_stream_from_another_gateway_sees_its_beginning() {
    let redis = Redis::start().await;
    let gate = Gate::new("the rest");
    let inner = gate.clone();
    let script = move |_: &crate::support::origin::Request| {
        let events = reply(200).header("content-type", "text/event-stream").cache("max-age=600");
        events.chunk("data: one\n\n").then_wait(&inner).chunk("data: two\n\n")
    };
    let origin = Origin::new().on_request("*", script).start().await;
    let edges = edges(2, &origin, &redis, "").await;
    let mut times = Vec::new();
    let mut open = Vec::new();
    for round in 0..50 {
        let head = format!("GET /{round} HTTP/1.1\r\nHost: edge.test\r\n\r\n");
        let mut first = edges[0].client.connect().await;
        first.write(&head).await;
        first.read_until("data: one").await;
        let mut second = edges[1].client.connect().await;
        let begun = Instant::now();
        second.write(&head).await;
        second.read_until("data: one").await;
        times.push(begun.elapsed());
        assert_eq!(origin.hits(&format!("/{round}")), 1);
        open.push((first, second));
    }
    gate.release();
    drop(open);
    show("from joining to the first event", times);
    for edge in edges {
        edge.finish().await;
    }
}
