//! A Redis shared by a fleet: it serves what another gateway fetched, and is never why a request fails.

use std::time::Duration;

use crate::edge::{Edge, secs};
use crate::support::fake_redis::{FakeRedis, Mode};
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;
use crate::support::redis::Redis;

async fn page() -> Origin {
    Origin::new().on("*", reply(200).cache("max-age=600").body("v1")).start().await
}

#[tokio::test]
async fn the_second_gateways_first_answer_comes_from_redis() {
    let redis = Redis::start().await;
    let origin = page().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200).cache("fwd=uri-miss; stored");
    one.flush_redis().await;
    two.get("/a").await.expect(200).body("v1").cache("vanne-redis; hit");
    two.get("/a").await.expect(200).body("v1").cache("vanne-mem; hit");
    assert_eq!(origin.hits("/a"), 1);
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn what_redis_holds_survives_the_gateway() {
    let redis = Redis::start().await;
    let origin = page().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.finish().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    two.get("/a").await.expect(200).cache("vanne-redis; hit");
    two.finish().await;
}

#[tokio::test]
async fn variants_and_hosts_stay_apart_in_redis_too() {
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on_request("/a", |r| {
            let body =
                format!("{} {}", r.header("host").unwrap(), r.header("accept-language").unwrap_or("-"));
            reply(200).cache("max-age=600").header("vary", "Accept-Language").body(body)
        })
        .start()
        .await;
    let ask = |edge: &Edge, host: &str, language: &str| {
        edge.request("GET", "/a").host(host).header("accept-language", language).send()
    };
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    for edge in [&one, &two] {
        for host in ["one.example", "two.example"] {
            for language in ["de", "fr"] {
                ask(edge, host, language).await.expect(200).body(format!("{host} {language}"));
            }
        }
        edge.flush_redis().await;
    }
    assert_eq!(origin.hits("/a"), 4, "the second gateway found all of them in Redis");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn every_key_in_redis_expires() {
    let redis = Redis::start().await;
    let origin = page().await;
    let edge = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    edge.get("/a").await.expect(200);
    edge.flush_redis().await;
    let keys = redis.keys("*").await;
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key.starts_with("vanne:v1:{"), "{key}");
        assert!(redis.ttl_ms(&key).await > 0, "{key} never expires");
    }
    edge.finish().await;
}

#[tokio::test]
async fn answers_go_on_while_redis_is_dead_and_it_is_used_again_when_it_is_back() {
    let mut redis = Redis::start().await;
    let origin = page().await;
    let edge = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    edge.get("/a").await.expect(200);
    redis.kill();
    edge.get("/a").await.expect(200).cache("vanne-mem; hit");
    for i in 0..30 {
        edge.get(&format!("/b{i}")).await.expect(200).body("v1");
    }
    assert_eq!(edge.metric("vanne_redis_up"), Some(0.0));
    redis.start_again().await;
    let n = std::cell::Cell::new(0);
    poll_until("Redis to be used again", || async {
        n.set(n.get() + 1);
        edge.get(&format!("/c{}", n.get())).await.expect(200);
        edge.metric("vanne_redis_up") == Some(1.0)
    })
    .await;
    edge.finish().await;
}

#[tokio::test]
async fn a_redis_that_hangs_lies_or_breaks_costs_a_moment_and_no_answer() {
    let origin = page().await;
    for mode in [
        Mode::Hang,
        Mode::Reset,
        Mode::Garbage,
        Mode::HalfReply,
        Mode::Loading,
        Mode::ReadOnly,
        Mode::Lie(b"not ours".to_vec()),
    ] {
        let shown = format!("{mode:?}").chars().filter(char::is_ascii_alphabetic).collect::<String>();
        let redis = FakeRedis::start().await;
        redis.set(mode);
        let edge = Edge::serving(&origin).redis_within(&redis.url(), "50ms").start().await;
        for i in 0..20 {
            let target = format!("/{i}?{shown}");
            let before = tokio::time::Instant::now();
            edge.get(&target).await.expect(200).body("v1");
            assert!(before.elapsed() < Duration::from_secs(2), "{shown}");
            edge.get(&target).await.expect(200).cache("vanne-mem; hit");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_dead_redis_at_the_start_delays_nothing() {
    let origin = page().await;
    let nobody = crate::support::free_address();
    let edge = Edge::serving(&origin).redis(&format!("redis://{nobody}")).start().await;
    edge.get("/a").await.expect(200);
    edge.get("/a").await.expect(200).cache("vanne-mem; hit");
    edge.finish().await;
}

#[tokio::test]
async fn damaged_bytes_in_redis_are_a_miss_and_are_told() {
    let redis = Redis::start().await;
    let origin = page().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    for key in
        redis.keys("*").await.into_iter().filter(|key| !key.contains("{fleet}") && !key.ends_with(":lease"))
    {
        let mut bytes = redis.get(&key).await.expect("a value");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        redis.overwrite(&key, &bytes).await;
    }
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    two.get("/a").await.expect(200).body("v1").cache("fwd=uri-miss; detail=redis-damaged");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_change_made_through_one_gateway_removes_it_from_redis() {
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on_request("/a", |r| {
            if r.method == "GET" { reply(200).cache("max-age=600").body("v") } else { reply(204) }
        })
        .start()
        .await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.request("DELETE", "/a").send().await.expect(204);
    one.flush_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    two.get("/a").await.expect(200).cache("fwd=uri-miss");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn an_answer_that_expired_is_validated_by_whichever_gateway_is_asked() {
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on_request("/a", |r| match r.header("if-none-match") {
            Some(_) => reply(304).cache("max-age=60").header("etag", "\"1\""),
            None => reply(200).cache("max-age=60").header("etag", "\"1\"").body("v1"),
        })
        .start()
        .await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    two.grow_older(secs(61));
    two.get("/a").await.expect(200).body("v1").cache("fwd=stale; fwd-status=304");
    one.finish().await;
    two.finish().await;
}
