//! Several gateways before one Redis: one fetch for all of them, and never a reason to wait for long.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::edge::{Configuration, Edge};
use crate::support::client::{Answer, Client};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, Reply, hang_up, reply};
use crate::support::process::{Process, Program};
use crate::support::redis::{Redis, Value};
use crate::support::{free_address, poll_until};

/// So many gateways before one origin and one Redis, each of which hears the others.
async fn fleet(size: usize, configuration: impl Fn() -> Configuration, redis: &Redis) -> Vec<Edge> {
    let before = listening(redis).await;
    let mut edges = Vec::new();
    for _ in 0..size {
        edges.push(configuration().redis(&redis.url()).start_with_redis().await);
    }
    poll_until("the gateways to listen", || async { listening(redis).await >= before + size }).await;
    edges
}

/// How many gateways follow what the others tell.
async fn listening(redis: &Redis) -> usize {
    let clients = redis.command(&["CLIENT", "LIST"]).await.bytes();
    String::from_utf8_lossy(&clients).matches("cmd=xread").count()
}

async fn finish(edges: Vec<Edge>) {
    for edge in edges {
        edge.finish().await;
    }
}

fn ask(edge: &Edge, target: &str) -> JoinHandle<Answer> {
    tokio::spawn(edge.client.get(target).send())
}

async fn in_flight(edge: &Edge, count: usize) {
    poll_until("requests to be in flight", || async {
        edge.metric("vanne_requests_in_flight") == Some(count as f64)
    })
    .await;
}

/// Waits until somebody is known to wait for what another gateway fetches.
async fn somebody_waits(redis: &Redis) {
    poll_until("somebody to wait for another gateway", || async {
        let mut waits = false;
        for key in redis.keys("*:lease").await {
            let Value::Array(Some(values)) = redis.command(&["HVALS", &key]).await else { continue };
            waits |= values.iter().any(|value| value.bytes().first() == Some(&b'w'));
        }
        waits
    })
    .await;
}

fn leases(edge: &Edge, result: &str) -> f64 {
    edge.metric(&format!("vanne_cache_leases_total{{name=\"api\",result=\"{result}\"}}")).unwrap_or(0.0)
}

fn page(body: &str) -> Reply {
    reply(200).cache("max-age=600").body(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clients_of_three_gateways_cost_the_origin_one_request() {
    let redis = Redis::start().await;
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/a", page("v1").gate(&gate)).start().await;
    let edges = fleet(3, || Edge::serving(&origin), &redis).await;
    let asked: Vec<_> = (0..300).map(|i| ask(&edges[i % 3], "/a")).collect();
    for edge in &edges {
        in_flight(edge, 100).await;
    }
    gate.arrived(1).await;
    gate.release();
    let mut from_elsewhere = 0;
    for answer in asked {
        let answer = answer.await.expect("asked").expect(200).body("v1");
        from_elsewhere += usize::from(answer.cache_status().contains("collapsed"));
    }
    assert_eq!(origin.hits("/a"), 1);
    assert!(from_elsewhere >= 200, "{from_elsewhere}");
    finish(edges).await;
}

/// Nobody holds the origin back here, so some look just before the answer is stored and ask just after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_quick_the_origin_is_it_is_asked_once() {
    let redis = Redis::start().await;
    let origin = Origin::new().on_request("*", |_| page("v1")).start().await;
    let edges = fleet(3, || Edge::serving(&origin), &redis).await;
    for round in 0..20 {
        let target = format!("/{round}");
        let asked: Vec<_> = (0..15).map(|i| ask(&edges[i % 3], &target)).collect();
        for answer in asked {
            answer.await.expect("asked").expect(200).body("v1");
        }
        assert_eq!(origin.hits(&target), 1, "{target}");
    }
    finish(edges).await;
}

#[tokio::test]
async fn questions_keyed_by_their_content_are_asked_once_by_the_fleet() {
    let redis = Redis::start().await;
    let gate = Gate::new("the answer");
    let inner = gate.clone();
    let origin = Origin::new()
        .on_question("/query", move |r| {
            let answer = reply(200).header("content-type", "application/json").body(r.body.clone());
            if r.body.windows(4).any(|part| part == b"slow") { answer.gate(&inner) } else { answer }
        })
        .start()
        .await;
    let keyed = || {
        Edge::serving(&origin).cache("ttl = \"10m\"").routes(
            "[[routes]]\nmatch = { path = \"/*\" }\nupstream = \"api\"\ncache = { use = \"api\", key = { body = \"json\" } }\n",
        )
    };
    let edges = fleet(2, keyed, &redis).await;
    let question = |edge: &Edge, text: &str| {
        let asked = edge.request("POST", "/query").header("content-type", "application/json").body(text);
        tokio::spawn(asked.send())
    };
    let one = question(&edges[0], r#"{"q":"slow","k":1}"#);
    gate.arrived(1).await;
    let two = question(&edges[1], r#"{ "k": 1, "q": "slow" }"#);
    somebody_waits(&redis).await;
    question(&edges[1], r#"{"q":"other","k":1}"#).await.expect("asked").expect(200);
    gate.release();
    one.await.expect("asked").expect(200).body(r#"{"q":"slow","k":1}"#);
    two.await.expect("asked").expect(200).body(r#"{"q":"slow","k":1}"#).cache("collapsed");
    assert_eq!(origin.hits("/query"), 2);
    finish(edges).await;
}

struct Machine {
    process: Process,
    client: Client,
}

/// A gateway as a process of its own.
async fn machine(origin: SocketAddr, redis: &Redis, cache: &str) -> Machine {
    let (web, admin) = (free_address(), free_address());
    let file = format!(
        "[listen.web]\naddr = \"{web}\"\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n\
         [redis]\nurl = \"{}\"\ntimeout = \"5s\"\n[upstreams.api]\nservers = [\"{origin}\"]\n\
         [caches.api]\n{cache}\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n",
        redis.url()
    );
    let process = Program::gateway(&file).ready_at(admin).start().await;
    let operator = Client::new(admin);
    poll_until("Redis to be in use", || async {
        operator.get("/metrics").send().await.text().contains("vanne_redis_up 1")
    })
    .await;
    Machine { process, client: Client::new(web).with_host("edge.test") }
}

#[tokio::test]
async fn a_gateway_that_is_killed_while_it_fetches_delays_the_others_by_its_lease_at_most() {
    let redis = Redis::start().await;
    let gate = Gate::new("an answer that nobody will read");
    let origin = Origin::new().on_each("/a", vec![page("v1").gate(&gate), page("v2")]).start().await;
    let mut holder = machine(origin.address(), &redis, "lease = \"1s\"").await;
    let edges = fleet(1, || Edge::serving(&origin).cache("lease = \"1s\""), &redis).await;
    let lost = tokio::spawn(holder.client.get("/a").try_send());
    gate.arrived(1).await;
    let waiting = ask(&edges[0], "/a");
    somebody_waits(&redis).await;
    holder.process.kill();
    let killed = tokio::time::Instant::now();
    waiting.await.expect("asked").expect(200).body("v2");
    assert!(killed.elapsed() < Duration::from_millis(2500), "{:?}", killed.elapsed());
    assert_eq!(origin.hits("/a"), 2);
    assert_eq!(leases(&edges[0], "taken"), 1.0);
    gate.release();
    assert!(lost.await.expect("asked").is_err());
    finish(edges).await;
}

#[tokio::test]
async fn who_lost_the_lease_does_not_replace_what_was_fetched_later() {
    let redis = Redis::start().await;
    let gate = Gate::new("the older answer");
    let origin = Origin::new().on_each("/a", vec![page("older").gate(&gate), page("newer")]).start().await;
    let holder = machine(origin.address(), &redis, "lease = \"1s\"").await;
    let edges = fleet(1, || Edge::serving(&origin).cache("lease = \"1s\""), &redis).await;
    let first = tokio::spawn(holder.client.get("/a").send());
    gate.arrived(1).await;
    holder.process.signal("STOP");
    edges[0].get("/a").await.expect(200).body("newer");
    edges[0].flush_redis().await;
    gate.release();
    holder.process.signal("CONT");
    first.await.expect("asked").expect(200).body("older");
    holder.client.get("/a").send().await.expect(200).body("newer").cache("hit");
    let third = fleet(1, || Edge::serving(&origin), &redis).await;
    third[0].get("/a").await.expect(200).body("newer").cache("vanne-redis; hit");
    assert_eq!(origin.hits("/a"), 2);
    finish(edges).await;
    finish(third).await;
}

#[tokio::test]
async fn when_redis_dies_those_who_wait_fetch_for_themselves() {
    let mut redis = Redis::start().await;
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/a", page("v1").gate(&gate)).start().await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    let one = ask(&edges[0], "/a");
    gate.arrived(1).await;
    let others: Vec<_> = (0..20).map(|_| ask(&edges[1], "/a")).collect();
    somebody_waits(&redis).await;
    redis.kill();
    gate.arrived(2).await;
    gate.release();
    one.await.expect("asked").expect(200).body("v1");
    for answer in others {
        answer.await.expect("asked").expect(200).body("v1");
    }
    assert_eq!(origin.hits("/a"), 2, "one for each gateway");
    finish(edges).await;
}

#[tokio::test]
async fn when_redis_hangs_those_who_wait_fetch_for_themselves() {
    let redis = Redis::start().await;
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/a", page("v1").gate(&gate)).start().await;
    let mut edges = Vec::new();
    for _ in 0..2 {
        let edge = Edge::serving(&origin).redis_within(&redis.url(), "200ms").start_with_redis().await;
        edges.push(edge);
    }
    let one = ask(&edges[0], "/a");
    gate.arrived(1).await;
    let other = ask(&edges[1], "/a");
    somebody_waits(&redis).await;
    redis.pause();
    let hung = tokio::time::Instant::now();
    gate.arrived(2).await;
    assert!(hung.elapsed() < Duration::from_secs(3), "{:?}", hung.elapsed());
    gate.release();
    one.await.expect("asked").expect(200).body("v1");
    other.await.expect("asked").expect(200).body("v1");
    redis.resume();
    finish(edges).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_answer_lets_everybody_go_at_once() {
    let redis = Redis::start().await;
    let first = Gate::new("the first private answer");
    let rest = Gate::new("the others, all at once");
    let private = || reply(200).cache("private").body("mine");
    let origin =
        Origin::new().on_each("/me", vec![private().gate(&first), private().gate(&rest)]).start().await;
    let edges = fleet(3, || Edge::serving(&origin), &redis).await;
    let mut asked = vec![ask(&edges[0], "/me")];
    first.arrived(1).await;
    asked.extend((0..30).map(|i| ask(&edges[i % 3], "/me")));
    in_flight(&edges[0], 11).await;
    in_flight(&edges[1], 10).await;
    in_flight(&edges[2], 10).await;
    somebody_waits(&redis).await;
    first.release();
    // All the others reach the origin before any of them is answered: none waits for another.
    rest.arrived(30).await;
    rest.release();
    for answer in asked {
        answer.await.expect("asked").expect(200).body("mine");
    }
    assert_eq!(origin.hits("/me"), 31);
    // What is known as private is not asked of the fleet any more.
    let before = leases(&edges[1], "taken") + leases(&edges[1], "not-shared");
    edges[1].get("/me").await.expect(200);
    assert_eq!(leases(&edges[1], "taken") + leases(&edges[1], "not-shared"), before);
    finish(edges).await;
}

#[tokio::test]
async fn a_failed_fetch_lets_the_others_ask_for_themselves() {
    let redis = Redis::start().await;
    let gate = Gate::new("the failure");
    let origin = Origin::new().on_each("/a", vec![hang_up().gate(&gate), page("v1")]).start().await;
    let edges = fleet(2, || Edge::serving(&origin).upstream("tries = 1"), &redis).await;
    let one = ask(&edges[0], "/a");
    gate.arrived(1).await;
    let other = ask(&edges[1], "/a");
    somebody_waits(&redis).await;
    gate.release();
    one.await.expect("asked").expect(502);
    other.await.expect("asked").expect(200).body("v1");
    finish(edges).await;
}

#[tokio::test]
async fn who_waited_too_long_for_another_gateway_fetches_once_for_all_who_wait_here() {
    let redis = Redis::start().await;
    let slow = Gate::new("a hanging fetch");
    let quick = Gate::new("the fetch of the one who would not wait");
    let origin =
        Origin::new().on_each("/a", vec![page("slow").gate(&slow), page("own").gate(&quick)]).start().await;
    let edges = fleet(2, || Edge::serving(&origin).cache("wait_timeout = \"1s\""), &redis).await;
    let one = ask(&edges[0], "/a");
    slow.arrived(1).await;
    let others: Vec<_> = (0..10).map(|_| ask(&edges[1], "/a")).collect();
    in_flight(&edges[1], 10).await;
    quick.arrived(1).await;
    quick.release();
    for answer in others {
        answer.await.expect("asked").expect(200).body("own");
    }
    assert_eq!(origin.hits("/a"), 2);
    assert_eq!(leases(&edges[1], "late"), 1.0);
    slow.release();
    one.await.expect("asked").expect(200).body("slow");
    finish(edges).await;
}

#[tokio::test]
async fn who_asks_after_a_purge_does_not_wait_for_a_fetch_that_began_before_it() {
    let redis = Redis::start().await;
    let gate = Gate::new("what was before the purge");
    let origin = Origin::new()
        .on_each(
            "/a",
            vec![page("old").header("cache-tag", "x").gate(&gate), page("new").header("cache-tag", "x")],
        )
        .start()
        .await;
    let token = "0123456789abcdef";
    let with_token = || Edge::serving(&origin).admin(&format!("token = \"{token}\""));
    let edges = fleet(3, with_token, &redis).await;
    let before = ask(&edges[0], "/a");
    gate.arrived(1).await;
    let order =
        edges[2].admin().request("POST", "/api/v1/purge").header("authorization", &format!("Bearer {token}"));
    order.body(r#"{"tags":["x"]}"#).send().await.expect(200);
    edges[2].get("/a").await.expect(200).body("new").cache("stored");
    edges[2].flush_redis().await;
    edges[1].get("/a").await.expect(200).body("new");
    gate.release();
    before.await.expect("asked").expect(200).body("old");
    for edge in &edges {
        edge.get("/a").await.expect(200).body("new").cache("hit");
    }
    assert_eq!(origin.hits("/a"), 2);
    finish(edges).await;
}

#[tokio::test]
async fn who_asks_after_a_change_does_not_wait_for_a_fetch_that_began_before_it() {
    let redis = Redis::start().await;
    let gate = Gate::new("what was before the change");
    let origin =
        Origin::new().on_each("/a", vec![page("old").gate(&gate), reply(204), page("new")]).start().await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    let before = ask(&edges[0], "/a");
    gate.arrived(1).await;
    edges[1].request("PUT", "/a").body("new").send().await.expect(204);
    edges[1].get("/a").await.expect(200).body("new");
    edges[1].flush_redis().await;
    gate.release();
    before.await.expect("asked").expect(200).body("old");
    for edge in &edges {
        edge.get("/a").await.expect(200).body("new").cache("hit");
    }
    finish(edges).await;
}

#[tokio::test]
async fn another_variant_than_the_one_waited_for_is_fetched() {
    let redis = Redis::start().await;
    let gate = Gate::new("german");
    let inner = gate.clone();
    let origin = Origin::new()
        .on_request("/a", move |r| {
            let language = r.header("accept-language").unwrap_or_default().to_owned();
            let answer = page(&language).header("vary", "Accept-Language");
            if language == "de" { answer.gate(&inner) } else { answer }
        })
        .start()
        .await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    let ask = |edge: &Edge, language: &str| {
        tokio::spawn(edge.request("GET", "/a").header("accept-language", language).send())
    };
    let german = ask(&edges[0], "de");
    gate.arrived(1).await;
    let french = ask(&edges[1], "fr");
    somebody_waits(&redis).await;
    gate.release();
    german.await.expect("asked").expect(200).body("de");
    french.await.expect("asked").expect(200).body("fr");
    assert_eq!(origin.hits("/a"), 2);
    finish(edges).await;
}

#[tokio::test]
async fn a_stale_answer_is_validated_once_for_the_fleet() {
    let redis = Redis::start().await;
    let gate = Gate::new("the validation");
    let inner = gate.clone();
    let origin = Origin::new()
        .on_request("/a", move |r| match r.header("if-none-match") {
            Some(_) => reply(304).cache("max-age=60").header("etag", "\"1\"").gate(&inner),
            None => reply(200).cache("max-age=60").header("etag", "\"1\"").body("v1"),
        })
        .start()
        .await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    edges[0].get("/a").await.expect(200);
    edges[0].flush_redis().await;
    edges[1].get("/a").await.expect(200).cache("vanne-redis; hit");
    for edge in &edges {
        edge.grow_older(Duration::from_secs(61));
    }
    let one = ask(&edges[0], "/a");
    gate.arrived(1).await;
    let other = ask(&edges[1], "/a");
    somebody_waits(&redis).await;
    gate.release();
    one.await.expect("asked").expect(200).body("v1").cache("fwd=stale; fwd-status=304");
    other.await.expect("asked").expect(200).body("v1").cache("fwd=stale; collapsed");
    assert_eq!(origin.hits("/a"), 2);
    finish(edges).await;
}

#[tokio::test]
async fn sharing_can_be_kept_to_one_gateway_or_turned_off() {
    for (coalesce, hits) in [("fleet", 1), ("process", 2), ("off", 4)] {
        let redis = Redis::start().await;
        let gate = Gate::new(coalesce);
        let origin = Origin::new().on("/a", page("v1").gate(&gate)).start().await;
        let with = || Edge::serving(&origin).cache(&format!("coalesce = \"{coalesce}\""));
        let edges = fleet(2, with, &redis).await;
        let asked: Vec<_> = (0..4).map(|i| ask(&edges[i % 2], "/a")).collect();
        for edge in &edges {
            in_flight(edge, 2).await;
        }
        gate.arrived(hits).await;
        gate.release();
        for answer in asked {
            answer.await.expect("asked").expect(200).body("v1");
        }
        assert_eq!(origin.hits("/a"), hits, "{coalesce}");
        finish(edges).await;
    }
}

/// Commands that Redis was asked for by name.
async fn calls(redis: &Redis, name: &str) -> u64 {
    let told = redis.command(&["INFO", "commandstats"]).await.bytes();
    let told = String::from_utf8_lossy(&told).into_owned();
    let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_hit_costs_no_more_than_before_and_a_miss_one_question() {
    let redis = Redis::start().await;
    let origin = Origin::new().on_request("*", |_| page("v1")).start().await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    for i in 0..10 {
        edges[0].get(&format!("/{i}")).await.expect(200);
    }
    edges[0].flush_redis().await;
    poll_until("the leases to be given back", || async { calls(&redis, "eval").await == 20 }).await;
    assert_eq!(calls(&redis, "get").await, 10);
    for i in 0..10 {
        edges[1].get(&format!("/{i}")).await.expect(200).cache("vanne-redis; hit");
        edges[1].get(&format!("/{i}")).await.expect(200).cache("vanne-mem; hit");
    }
    assert_eq!(calls(&redis, "get").await, 20, "a hit in Redis is one round trip, one in memory none");
    assert_eq!(calls(&redis, "eval").await, 20);
    finish(edges).await;
}

#[tokio::test]
async fn every_key_of_a_lease_expires() {
    let redis = Redis::start().await;
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/a", page("v1").gate(&gate)).start().await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    let asked = [ask(&edges[0], "/a"), ask(&edges[1], "/a")];
    somebody_waits(&redis).await;
    for key in redis.keys("*:lease").await {
        assert!((1..=3000).contains(&redis.ttl_ms(&key).await), "{key}");
    }
    gate.release();
    for answer in asked {
        answer.await.expect("asked").expect(200);
    }
    for key in redis.keys("*").await {
        assert!(redis.ttl_ms(&key).await > 0, "{key} never expires");
    }
    finish(edges).await;
}

/// A stream of events with a gate after its first.
fn stream(gate: &Gate) -> Reply {
    let events = reply(200).header("content-type", "text/event-stream").cache("max-age=600");
    events.chunk("data: one\n\n").then_wait(gate).chunk("data: two\n\n").chunk("data: [DONE]\n\n")
}

const EVENTS: &str = "data: one\n\ndata: two\n\ndata: [DONE]\n\n";

#[tokio::test]
async fn a_stream_that_runs_on_one_gateway_is_joined_from_another() {
    let redis = Redis::start().await;
    let gate = Gate::new("the rest of the stream");
    let origin = Origin::new().on("/s", stream(&gate)).start().await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    let mut one = edges[0].client.connect().await;
    one.write("GET /s HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
    one.read_until("data: one").await;
    // Two on the other gateway share one relay.
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = edges[1].client.connect().await;
        other.write("GET /s HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
        let head = other.read_until("data: one").await;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(head.contains("text/event-stream") && head.contains("collapsed"), "{head}");
        others.push(other);
    }
    gate.release();
    one.read_until("[DONE]").await;
    for other in &mut others {
        other.read_until("[DONE]").await;
    }
    assert_eq!(origin.hits("/s"), 1);
    drop((one, others));
    for edge in &edges {
        edge.get("/s").await.expect(200).body(EVENTS).cache("hit");
    }
    for key in redis.keys("*").await {
        assert!(redis.ttl_ms(&key).await > 0, "{key} never expires");
    }
    finish(edges).await;
}

#[tokio::test]
async fn all_who_follow_a_stream_get_the_same_bytes_and_its_true_end() {
    let redis = Redis::start().await;
    let gate = Gate::new("the head of the stream");
    let rest = Gate::new("its rest");
    let origin = Origin::new().on("/s", stream(&rest).gate(&gate)).start().await;
    let edges = fleet(3, || Edge::serving(&origin), &redis).await;
    let asked: Vec<_> = edges.iter().map(|edge| ask(edge, "/s")).collect();
    gate.arrived(1).await;
    somebody_waits(&redis).await;
    gate.release();
    rest.arrived(1).await;
    rest.release();
    for answer in asked {
        answer.await.expect("asked").expect(200).body(EVENTS);
    }
    assert_eq!(origin.hits("/s"), 1);
    finish(edges).await;
}

#[tokio::test]
async fn a_stream_whose_source_breaks_is_broken_for_all_and_not_kept() {
    let redis = Redis::start().await;
    let gate = Gate::new("the break");
    let broken = reply(200).header("content-type", "text/event-stream").cache("max-age=600");
    let broken = broken.chunk("data: one\n\n").then_wait(&gate).then_hang_up();
    let origin = Origin::new().on("/s", broken).start().await;
    let edges = fleet(2, || Edge::serving(&origin), &redis).await;
    let mut clients = Vec::new();
    for edge in &edges {
        let mut client = edge.client.connect().await;
        client.write("GET /s HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
        client.read_until("data: one").await;
        clients.push(client);
    }
    assert_eq!(origin.hits("/s"), 1);
    gate.release();
    for client in &mut clients {
        let rest = client.read_to_close().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a false end");
    }
    assert!(!redis.keys("*").await.iter().any(|key| key.ends_with('}')), "it was stored");
    finish(edges).await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_while_others_follow_its_stream_breaks_it_visibly() {
    let redis = Redis::start().await;
    let gate = Gate::new("what never comes");
    let origin = Origin::new().on("/s", stream(&gate)).start().await;
    let mut holder = machine(origin.address(), &redis, "lease = \"1s\"").await;
    let edges = fleet(1, || Edge::serving(&origin).cache("lease = \"1s\""), &redis).await;
    let mut first = holder.client.connect().await;
    first.write("GET /s HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
    first.read_until("data: one").await;
    let mut other = edges[0].client.connect().await;
    other.write("GET /s HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
    other.read_until("data: one").await;
    holder.process.kill();
    let killed = tokio::time::Instant::now();
    let rest = other.read_to_close().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a false end");
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    gate.release();
    finish(edges).await;
}

#[tokio::test]
async fn what_is_relayed_is_the_operator_s_to_say() {
    let json = |gate: &Gate| reply(200).cache("max-age=600").chunk("[1,").then_wait(gate).chunk("2]");
    for (relay, events, hits) in [("streams", true, 1), ("all", true, 1), ("off", true, 2), ("all", false, 1)]
    {
        let redis = Redis::start().await;
        let gate = Gate::new(relay);
        let script = if events { stream(&gate) } else { json(&gate) };
        let origin = Origin::new().on("/s", script).start().await;
        let with = || Edge::serving(&origin).cache(&format!("relay = \"{relay}\""));
        let edges = fleet(2, with, &redis).await;
        let begins = if events { "data: one" } else { "[1," };
        let mut clients = Vec::new();
        for edge in &edges {
            let mut client = edge.client.connect().await;
            client.write("GET /s HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
            client.read_until(begins).await;
            clients.push(client);
        }
        assert_eq!(origin.hits("/s"), hits, "{relay}");
        gate.release();
        for client in &mut clients {
            client.read_until(if events { "[DONE]" } else { "2]" }).await;
        }
        drop(clients);
        finish(edges).await;
    }
}
