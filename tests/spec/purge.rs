//! Purging: what is named is gone, or stale, on every gateway; the rest stays.

use std::time::Duration;

use crate::edge::{Configuration, Edge, secs};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;
use crate::support::process::Program;
use crate::support::redis::Redis;

const TOKEN: &str = "0123456789abcdef";

/// Answers every path with a tag, a group and a number that grows.
async fn shop() -> Origin {
    Origin::new()
        .on_request("*", |request| {
            let tag = request.target.split(['/', '?']).nth(1).unwrap_or_default().to_owned();
            if request.method != "GET" {
                return reply(204).header("cache-group-invalidation", "\"prices\"");
            }
            let validates = request.header("if-none-match").is_some();
            let answer = if validates { reply(304) } else { reply(200).body("v") };
            let answer = answer.cache("max-age=600").header("cache-tag", &format!("{tag}, all-of-it"));
            answer.header("etag", "\"1\"").header("cache-groups", "\"prices\"")
        })
        .start()
        .await
}

trait Purging {
    fn with_token(self) -> Self;
}

impl Purging for Configuration {
    fn with_token(self) -> Self {
        self.admin(&format!("token = \"{TOKEN}\""))
    }
}

async fn purge(edge: &Edge, order: &str) -> Answer {
    let authorization = format!("Bearer {TOKEN}");
    edge.admin()
        .request("POST", "/api/v1/purge")
        .header("authorization", &authorization)
        .body(order)
        .send()
        .await
}

#[tokio::test]
async fn each_way_to_name_answers_purges_them_and_no_other() {
    for (order, gone) in [
        (r#"{"tags":["a"]}"#, &["/a/1", "/a/2?q"][..]),
        (r#"{"tags":["a","b"]}"#, &["/a/1", "/a/2?q", "/b/1"]),
        (r#"{"urls":["http://edge.test/a/2?q"]}"#, &["/a/2?q"]),
        (r#"{"urls":["https://EDGE.test/%61/1"]}"#, &["/a/1"]),
        (r#"{"urls":["http://other.test/a/1"]}"#, &[]),
        (r#"{"urls":["http://edge.test/a/2"]}"#, &[]),
        (r#"{"prefixes":["http://edge.test/a/"]}"#, &["/a/1", "/a/2?q"]),
        (r#"{"prefixes":["http://edge.test/"]}"#, &["/a/1", "/a/2?q", "/b/1"]),
        (r#"{"prefixes":["http://other.test/"]}"#, &[]),
        (r#"{"all":true}"#, &["/a/1", "/a/2?q", "/b/1"]),
    ] {
        let origin = shop().await;
        let edge = Edge::serving(&origin).with_token().start().await;
        for target in ["/a/1", "/a/2?q", "/b/1"] {
            edge.get(target).await.expect(200);
        }
        purge(&edge, order).await.expect(200);
        for target in ["/a/1", "/a/2?q", "/b/1"] {
            let status = if gone.contains(&target) { "fwd=uri-miss; stored" } else { "vanne-mem; hit" };
            edge.get(target).await.expect(200).cache(status);
            edge.get(target).await.expect(200).cache("vanne-mem; hit");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn softly_purged_answers_are_validated_and_fresh_again() {
    let origin = shop().await;
    let edge = Edge::serving(&origin).with_token().start().await;
    edge.get("/a/1").await.expect(200);
    purge(&edge, r#"{"tags":["a"],"soft":true}"#).await.expect(200);
    edge.get("/a/1").await.expect(200).body("v").cache("fwd=stale; fwd-status=304");
    edge.get("/a/1").await.expect(200).cache("vanne-mem; hit");
    edge.finish().await;
}

#[tokio::test]
async fn a_softly_purged_answer_may_still_be_served_when_the_origin_fails() {
    let origin =
        Origin::new().on("*", reply(200).cache("max-age=600, stale-if-error=600").body("v")).start().await;
    let edge = Edge::serving(&origin).with_token().start().await;
    edge.get("/a").await.expect(200);
    origin.stop().await;
    purge(&edge, r#"{"all":true,"soft":true}"#).await.expect(200);
    edge.get("/a").await.expect(200).body("v");
    purge(&edge, r#"{"all":true}"#).await.expect(200);
    assert!(edge.get("/a").await.status >= 500);
    edge.finish().await;
}

#[tokio::test]
async fn an_answer_begun_before_a_purge_and_finished_after_it_is_not_kept() {
    let gate = Gate::new("the rest");
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=600").header("cache-tag", "x").gate(&gate).body("old"))
        .start()
        .await;
    let edge = Edge::serving(&origin).with_token().start().await;
    let first = tokio::spawn(edge.request("GET", "/a").send());
    origin.wait_for_hits("/a", 1).await;
    purge(&edge, r#"{"tags":["x"]}"#).await.expect(200);
    gate.release();
    first.await.unwrap().expect(200).body("old");
    edge.get("/a").await.expect(200).cache("fwd=uri-miss; stored");
    assert_eq!(origin.hits("/a"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn a_purge_reaches_the_other_gateways_and_redis() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    for target in ["/a/1", "/b/1"] {
        one.get(target).await.expect(200);
        one.flush_redis().await;
        two.get(target).await.expect(200).cache("vanne-redis; hit");
    }
    let answer = purge(&one, r#"{"tags":["a"]}"#).await.expect(200).text();
    assert!(answer.contains(r#""redis":"purged""#) && answer.contains(r#""memory":"purged""#), "{answer}");
    poll_until("the other gateway to know", || async {
        !two.get("/a/1").await.header("cache-status").unwrap_or_default().contains("vanne-mem; hit")
    })
    .await;
    assert_eq!(origin.hits("/a/1"), 2, "neither memory nor Redis serves it");
    two.get("/b/1").await.expect(200).cache("vanne-mem; hit");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_gateway_that_starts_later_does_not_serve_what_was_purged() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    one.get("/a/1").await.expect(200);
    one.get("/b/1").await.expect(200);
    one.flush_redis().await;
    purge(&one, r#"{"tags":["a"]}"#).await.expect(200);
    let two = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    two.get("/a/1").await.expect(200).cache("fwd=uri-miss; stored");
    two.get("/b/1").await.expect(200).cache("vanne-redis; hit");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn when_the_log_of_purges_is_lost_what_is_older_is_validated() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    one.get("/a/1").await.expect(200);
    one.flush_redis().await;
    redis.command(&["DEL", "vanne:v1:{fleet}:purges"]).await;
    let two = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    two.get("/a/1").await.expect(200).cache("fwd=stale; fwd-status=304");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_purge_made_while_redis_is_away_is_told_when_it_is_back() {
    let mut redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    one.get("/a/1").await.expect(200);
    redis.kill();
    let answer = purge(&one, r#"{"tags":["a"]}"#).await.expect(200).text();
    assert!(answer.contains("unreachable"), "{answer}");
    one.get("/a/1").await.expect(200).cache("fwd=uri-miss; stored");
    redis.start_again().await;
    poll_until("the purge to be told", || async {
        let told = redis.command(&["XLEN", "vanne:v1:{fleet}:purges"]).await;
        matches!(told, crate::support::redis::Value::Integer(n) if n >= 2)
    })
    .await;
    one.finish().await;
}

#[tokio::test]
async fn while_the_fleet_is_not_heard_memory_is_trusted_for_a_time_only() {
    for (trust, status) in [("5s", "fwd=stale"), ("10m", "vanne-mem; hit")] {
        let mut redis = Redis::start().await;
        let origin = shop().await;
        let tables = format!("[redis]\nurl = \"{}\"\ntrust = \"{trust}\"\n", redis.url());
        let edge = Edge::serving(&origin).also(&tables).start_with_redis().await;
        edge.get("/a/1").await.expect(200);
        redis.kill();
        edge.get("/a/1").await.expect(200).cache("vanne-mem; hit");
        poll_until("the loss to be noticed", || async {
            edge.get("/nothing").await.expect(200);
            edge.metric("vanne_redis_up") == Some(0.0)
        })
        .await;
        edge.grow_older(secs(20));
        edge.get("/a/1").await.expect(200).body("v").cache(status);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_change_purges_the_groups_it_names_on_every_gateway() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a/1").await.expect(200);
    one.flush_redis().await;
    two.get("/a/1").await.expect(200).cache("vanne-redis; hit");
    one.request("POST", "/elsewhere").body("x").send().await.expect(204);
    one.get("/a/1").await.expect(200).cache("fwd=uri-miss; stored");
    poll_until("the other gateway to know", || async {
        !two.get("/a/1").await.header("cache-status").unwrap_or_default().contains("vanne-mem; hit")
    })
    .await;
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_change_made_through_one_gateway_reaches_the_other_s_memory() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/c/1").await.expect(200);
    one.flush_redis().await;
    two.get("/c/1").await.expect(200).cache("vanne-redis; hit");
    two.get("/c/1").await.expect(200).cache("vanne-mem; hit");
    one.request("DELETE", "/c/1").send().await.expect(204);
    poll_until("the other gateway to know", || async {
        !two.get("/c/1").await.header("cache-status").unwrap_or_default().contains("vanne-mem; hit")
    })
    .await;
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_stale_answer_in_memory_gives_way_to_a_fresher_one_in_redis() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a/1").await.expect(200);
    one.flush_redis().await;
    two.get("/a/1").await.expect(200).cache("vanne-redis; hit");
    one.grow_older(secs(601));
    two.grow_older(secs(601));
    one.get("/a/1").await.expect(200).cache("fwd=stale; fwd-status=304");
    one.flush_redis().await;
    two.get("/a/1").await.expect(200).cache("vanne-redis; hit");
    assert_eq!(origin.hits("/a/1"), 2);
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_purge_costs_redis_the_same_with_one_answer_and_with_many() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let edge = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    let mut sizes = Vec::new();
    for count in [1, 200] {
        for i in 0..count {
            edge.get(&format!("/a/{i}")).await.expect(200);
        }
        edge.flush_redis().await;
        let before = redis.keys("*").await.len();
        redis.command(&["CONFIG", "RESETSTAT"]).await;
        purge(&edge, r#"{"tags":["a"]}"#).await.expect(200);
        let stats = String::from_utf8(redis.command(&["INFO", "commandstats"]).await.bytes()).unwrap();
        let mut writes: Vec<_> = stats
            .lines()
            .filter(|line| {
                ["cmdstat_xadd", "cmdstat_pexpire", "cmdstat_del", "cmdstat_keys", "cmdstat_scan"]
                    .iter()
                    .any(|c| line.starts_with(c))
            })
            .filter_map(|line| line.split(",usec").next())
            .map(str::to_owned)
            .collect();
        writes.sort();
        sizes.push(writes);
        assert_eq!(redis.keys("*").await.len(), before, "nothing is searched, nothing deleted");
    }
    assert_eq!(sizes[0], ["cmdstat_pexpire:calls=1", "cmdstat_xadd:calls=1"].map(str::to_owned), "{sizes:?}");
    assert_eq!(sizes[0], sizes[1]);
    edge.finish().await;
}

#[tokio::test]
async fn everything_the_fleet_writes_expires_its_log_too() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let edge = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    edge.get("/a/1").await.expect(200);
    edge.request("DELETE", "/a/1").send().await.expect(204);
    purge(&edge, r#"{"all":true}"#).await.expect(200);
    edge.flush_redis().await;
    let keys = redis.keys("*").await;
    assert!(keys.contains(&"vanne:v1:{fleet}:changes".to_owned()), "{keys:?}");
    for key in keys {
        assert!(redis.ttl_ms(&key).await > 0, "{key} never expires");
    }
    edge.finish().await;
}

#[tokio::test]
async fn only_who_knows_the_token_purges() {
    let origin = shop().await;
    let off = Edge::serving(&origin).start().await;
    purge(&off, r#"{"all":true}"#).await.expect(403);
    let edge = Edge::serving(&origin).with_token().start().await;
    edge.get("/a/1").await.expect(200);
    edge.admin().request("POST", "/api/v1/purge").body(r#"{"all":true}"#).send().await.expect(401);
    edge.get("/a/1").await.expect(200).cache("vanne-mem; hit");
    off.finish().await;
    edge.finish().await;
}

#[tokio::test]
async fn an_order_that_makes_no_sense_purges_nothing_and_says_why() {
    let origin = shop().await;
    let edge = Edge::serving(&origin).with_token().start().await;
    for (order, why) in [
        ("", "does not read"),
        ("{}", "nothing to purge"),
        (r#"{"tag":["a"]}"#, "unknown field"),
        (r#"{"tags":["a b"]}"#, "is no tag"),
        (r#"{"urls":["/a"]}"#, "is no URL"),
        (r#"{"prefixes":["http://edge.test/a"]}"#, "is no directory"),
    ] {
        let answer = purge(&edge, order).await.expect(400).text();
        assert!(answer.contains(why), "{order}: {answer}");
    }
    edge.admin().get("/api/v1/purge").send().await.expect(405);
    edge.finish().await;
}

#[tokio::test]
async fn the_command_line_purges() {
    let origin = shop().await;
    let admin = crate::support::free_address();
    let public = crate::support::free_address();
    let text = format!(
        "[listen.web]\naddr = \"{public}\"\n[admin]\naddr = \"{admin}\"\ntoken = \"{TOKEN}\"\n[log]\naccess = \"off\"\n\
         [upstreams.api]\nservers = [\"{}\"]\n[caches.api]\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n",
        origin.address()
    );
    let mut gateway = Program::gateway(&text).ready_at(admin).start().await;
    let client = crate::support::client::Client::new(public);
    client.get("/a/1").send().await.expect(200);
    let command = Program::new(env!("CARGO_BIN_EXE_vanne"));
    let file = command.file("vanne.toml", &text);
    let mut command =
        command.arg("cache").arg("purge").arg("-c").arg(&file).arg("--tag").arg("a").start().await;
    assert!(command.wait().await.success());
    client.get("/a/1").send().await.expect(200).cache("fwd=uri-miss; stored");
    gateway.kill();
}

/// How soon the other gateways know; printed, and bounded with room for a busy machine.
#[tokio::test]
async fn a_purge_reaches_the_other_gateway_in_well_under_a_second() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        two.get("/a/1").await.expect(200);
        two.get("/a/1").await.expect(200).cache("vanne-mem; hit");
        let before = origin.hits("/a/1");
        purge(&one, r#"{"tags":["a"]}"#).await.expect(200);
        let told = tokio::time::Instant::now();
        while origin.hits("/a/1") == before {
            two.get("/a/1").await.expect(200);
        }
        slowest = slowest.max(told.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    one.finish().await;
    two.finish().await;
}
