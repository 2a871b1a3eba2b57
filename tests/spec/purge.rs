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

/// A gateway whose clients may purge.
async fn purgeable(origin: &Origin, more: &str) -> Edge {
    Edge::serving(origin).listen("purge = { allow = [\"127.0.0.0/8\"] }").also(more).start().await
}

#[tokio::test]
async fn purge_and_ban_requests_purge_what_nginx_and_varnish_would() {
    for (method, target, fields, gone) in [
        ("PURGE", "/a/2?q", &[][..], &["/a/2?q"][..]),
        ("PURGE", "/a/*", &[], &["/a/1", "/a/2?q"]),
        ("PURGE", "/nothing", &[], &[]),
        ("PURGE", "/", &[("surrogate-key", "a b")], &["/a/1", "/a/2?q", "/b/1"]),
        ("PURGE", "/", &[("xkey-purge", "b")], &["/b/1"]),
        ("BAN", "/a/", &[], &["/a/1", "/a/2?q"]),
        ("BAN", "/", &[("cache-tag", "all-of-it")], &["/a/1", "/a/2?q", "/b/1"]),
    ] {
        let origin = shop().await;
        let edge = purgeable(&origin, "").await;
        for target in ["/a/1", "/a/2?q", "/b/1"] {
            edge.get(target).await.expect(200);
        }
        let mut ask = edge.request(method, target);
        for (name, value) in fields {
            ask = ask.header(name, value);
        }
        let told = ask.send().await.expect(200).text();
        assert!(told.contains(r#""memory":"purged""#) && told.contains(r#""redis":"none""#), "{told}");
        for target in ["/a/1", "/a/2?q", "/b/1"] {
            let status = if gone.contains(&target) { "fwd=uri-miss; stored" } else { "vanne-mem; hit" };
            edge.get(target).await.expect(200).cache(status);
        }
        assert_eq!(origin.requests().iter().filter(|r| r.method == method).count(), 0);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_soft_purge_request_lets_answers_become_stale() {
    let origin = shop().await;
    let edge = purgeable(&origin, "").await;
    edge.get("/a/1").await.expect(200);
    let told = edge.request("PURGE", "/a/1").header("soft-purge", "1").send().await.expect(200).text();
    assert!(told.contains(r#""memory":"stale""#), "{told}");
    edge.get("/a/1").await.expect(200).cache("fwd=stale; fwd-status=304");
    assert_eq!(edge.metric(r#"vanne_purges_total{force="soft",kind="url",told="process"}"#), Some(1.0));
    edge.finish().await;
}

#[tokio::test]
async fn only_addresses_that_are_allowed_may_purge() {
    let origin = shop().await;
    let trusting = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let edge = purgeable(&origin, trusting).await;
    edge.get("/a/1").await.expect(200);
    // The proxy may, its clients may not.
    let refused = edge.request("PURGE", "/a/1").header("x-forwarded-for", "192.0.2.9").send().await;
    refused.expect(403);
    edge.get("/a/1").await.expect(200).cache("vanne-mem; hit");
    edge.request("PURGE", "/a/1").send().await.expect(200);
    edge.get("/a/1").await.expect(200).cache("fwd=uri-miss; stored");
    edge.request("BAN", "/a/1").send().await.expect(400);
    edge.finish().await;
}

#[tokio::test]
async fn where_nobody_may_purge_it_is_a_method_like_any_other() {
    let origin = Origin::new().on("/a", reply(405)).start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.request("PURGE", "/a").send().await.expect(405);
    assert_eq!(origin.last("/a").method, "PURGE");
    edge.finish().await;
}

/// How often Redis was asked for a command.
async fn calls(redis: &Redis, name: &str) -> u64 {
    let told = redis.command(&["INFO", "commandstats"]).await.bytes();
    let told = String::from_utf8_lossy(&told).into_owned();
    let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Commands that Redis was asked for, but those of connecting and listening.
async fn work(redis: &Redis) -> u64 {
    let told = redis.command(&["INFO", "commandstats"]).await.bytes();
    let told = String::from_utf8_lossy(&told).into_owned();
    let calls = told.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let idle = ["xread", "info", "ping", "hello", "client", "config"];
        let counts = !idle.iter().any(|idle| name.starts_with(idle));
        counts.then(|| rest.split(',').next()?.parse::<u64>().ok()).flatten()
    });
    calls.sum()
}

#[tokio::test]
async fn a_purge_costs_the_same_whatever_it_hits_and_is_counted_where_it_arrives() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let one = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).with_token().redis(&redis.url()).start_with_redis().await;
    for number in 0..300 {
        one.get(&format!("/many/{number}")).await.expect(200);
    }
    one.get("/few/1").await.expect(200);
    one.flush_redis().await;
    // The leases of what was fetched are given back meanwhile.
    poll_until("the leases to be given back", || async { calls(&redis, "eval").await == 602 }).await;
    let mut costs = Vec::new();
    for tag in ["few", "many"] {
        let before = work(&redis).await;
        purge(&one, &format!("{{\"tags\":[\"{tag}\"]}}")).await.expect(200);
        costs.push(work(&redis).await - before);
    }
    assert_eq!(costs, [2, 2], "one message, and its stream lives on");
    poll_until("both purges to arrive", || async {
        one.metric("vanne_purges_received_total") == Some(2.0)
            && two.metric("vanne_purges_received_total") == Some(2.0)
    })
    .await;
    assert_eq!(two.metric("vanne_purge_lag_seconds_count"), Some(2.0));
    assert_eq!(one.metric(r#"vanne_purges_total{force="hard",kind="tag",told="fleet"}"#), Some(2.0));
    assert_eq!(two.metric(r#"vanne_purges_total{force="hard",kind="tag",told="fleet"}"#), Some(0.0));
    one.finish().await;
    two.finish().await;
}
