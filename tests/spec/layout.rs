//! What lies in Redis over time: it all expires, other versions' bytes are not read, and a full Redis makes room.

use std::time::Duration;

use vanne::base::dice::Dice;

use crate::edge::{Edge, secs};
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;
use crate::support::redis::Redis;

/// An hour in steps of 12 seconds.
const STEPS: u64 = 300;

/// Answers of every kind, by the path: lifetimes, sizes, variants, private ones, and some that break off.
async fn all_kinds() -> Origin {
    Origin::new()
        .on_request("*", |r| {
            let number: usize = r.path().rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if r.method != "GET" {
                return reply(204).header("cache-group-invalidation", "\"some\"");
            }
            let body = vec![b'x'; [10, 2_000, 200_000, 700_000][number % 4]];
            let lifetime = ["max-age=5", "max-age=600", "max-age=60, stale-while-revalidate=30", "no-store"];
            let answer =
                reply(200).cache(lifetime[number / 4 % 4]).header("cache-tag", &format!("t{}", number % 3));
            match number % 5 {
                0 => answer.header("vary", "accept-language").body(body),
                1 => answer.header("etag", "\"1\"").body(body),
                2 => answer.header("cache-groups", "\"some\"").body(body),
                3 => answer.body(body).truncated(5),
                _ => body.chunks(60_000).fold(answer, |answer, part| answer.chunk(part)),
            }
        })
        .start()
        .await
}

#[tokio::test]
async fn after_an_hour_of_everything_there_is_no_key_that_never_expires() {
    let (redis, origin) = (Redis::start().await, all_kinds().await);
    let token = "token = \"0123456789abcdef0123456789abcdef\"";
    let limits = "memory = \"64KiB\"\nmax_object = \"10MiB\"\nmemory_max_object = \"300KiB\"";
    let edge = Edge::serving(&origin).cache(limits).redis(&redis.url()).admin(token).start_with_redis().await;
    let mut dice = Dice::seeded(7);
    for step in 0..STEPS {
        for _ in 0..3 {
            let target = format!("/{}", dice.below(60));
            let method = if dice.below(12) == 0 { "DELETE" } else { "GET" };
            let language = ["de", "fr", "it"][dice.below(3)];
            // Some break off, and are meant to.
            edge.request(method, &target).header("accept-language", language).send().await;
        }
        if step % 20 == 0 {
            let tag = format!("{{\"tags\":[\"t{}\"]}}", dice.below(3));
            let purge = edge.admin().post("/api/v1/purge", tag).header("content-type", "application/json");
            purge.header("authorization", "Bearer 0123456789abcdef0123456789abcdef").send().await.expect(200);
        }
        edge.grow_older(secs(3600 / STEPS));
    }
    edge.flush_redis().await;
    let keys = redis.keys("*").await;
    assert!(keys.len() > 30, "only {} keys", keys.len());
    for kind in ["*{fleet}:purges", "*{fleet}:changes", "*:p[0-9]*"] {
        assert!(!redis.keys(kind).await.is_empty(), "no {kind}");
    }
    for key in keys {
        // -2: it has expired since.
        assert_ne!(redis.ttl_ms(&key).await, -1, "{key} never expires");
    }
    edge.finish().await;
}

#[tokio::test]
async fn what_another_version_wrote_is_never_read() {
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on("/small", reply(200).cache("max-age=600").body("ours"))
        .on("/large", reply(200).cache("max-age=600").body(vec![b'o'; 600_000]))
        .start()
        .await;
    let limits = "memory_max_object = \"300KiB\"";
    for (target, pattern) in [("/small", "vanne:v1:{*}"), ("/large", "vanne:v1:{*}"), ("/large", "*:p0")] {
        for key in redis.keys("*").await.into_iter().filter(|key| !key.contains("{fleet}")) {
            redis.command(&["DEL", &key]).await;
        }
        let one = Edge::serving(&origin).cache(limits).redis(&redis.url()).start_with_redis().await;
        one.get(target).await.expect(200);
        one.flush_redis().await;
        for key in redis.keys(pattern).await.into_iter().filter(|key| !key.contains("{fleet}")) {
            let mut value = redis.get(&key).await.expect("a value");
            assert_eq!(value[..5], *b"VNNE\x01", "a word and a version");
            value[4] = 2;
            redis.overwrite(&key, &value).await;
        }
        let two = Edge::serving(&origin).cache(limits).redis(&redis.url()).start_with_redis().await;
        let answer = two.get(target).await.expect(200).cache("fwd=uri-miss; detail=redis-damaged");
        assert!(answer.body == b"ours" || answer.body == vec![b'o'; 600_000]);
        one.finish().await;
        two.finish().await;
    }
}

#[tokio::test]
async fn names_of_another_version_are_left_alone() {
    let redis = Redis::start().await;
    let origin = Origin::new().on("/a", reply(200).cache("max-age=600").body("ours")).start().await;
    let one = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let mut names = redis.keys("vanne:v1:{*}").await;
    names.retain(|name| !name.contains("{fleet}"));
    let later = names[0].replace(":v1:", ":v2:");
    redis.command(&["SET", &later, "a later version's"]).await;
    redis.command(&["DEL", &names[0]]).await;
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    two.get("/a").await.expect(200).body("ours").cache("fwd=uri-miss");
    two.flush_redis().await;
    assert_eq!(redis.get(&later).await, Some(b"a later version's".to_vec()));
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_full_redis_that_may_evict_makes_room_and_keeps_what_is_asked_for() {
    let policy = ["--maxmemory", "12mb", "--maxmemory-policy", "volatile-lfu"];
    let redis = Redis::with(&policy).await;
    let origin = Origin::new()
        .on_request("*", |r| reply(200).cache("max-age=600").body(r.target.repeat(3_000)))
        .start()
        .await;
    let one = Edge::serving(&origin)
        .cache("memory_max_object = \"1KiB\"")
        .redis(&redis.url())
        .start_with_redis()
        .await;
    for i in 0..800 {
        for target in [format!("/seldom/{i}"), "/often".to_owned()] {
            let answer = one.get(&target).await.expect(200);
            assert!(answer.body == target.repeat(3_000).as_bytes());
        }
        if i % 50 == 0 {
            one.flush_redis().await;
        }
    }
    one.flush_redis().await;
    let stats = redis.command(&["INFO", "stats"]).await.bytes();
    let stats = String::from_utf8(stats).unwrap();
    let evicted = stats.lines().find_map(|line| line.strip_prefix("evicted_keys:")).unwrap().trim();
    assert!(evicted.parse::<u32>().unwrap() > 100, "{evicted} evicted");
    assert_eq!(one.metric("vanne_redis_errors_total{kind=\"full\"}"), Some(0.0), "there was always room");
    assert!(!redis.keys("*{fleet}:purges").await.is_empty(), "what is read all the time stays");
    let two = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    two.get("/often").await.expect(200).cache("vanne-redis; hit");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_large_value_on_its_way_keeps_no_small_hit_waiting() {
    // At this pace a piece of 256 KiB takes an eighth of a second.
    const PACE: usize = 2 * 1024 * 1024;
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on("/large", reply(200).cache("max-age=600").body(vec![b'x'; 2 * 1024 * 1024]))
        .on("*", reply(200).cache("max-age=600").body("small"))
        .start()
        .await;
    let limits = "memory_max_object = \"300KiB\"";
    let one = Edge::serving(&origin).cache(limits).redis(&redis.url()).start_with_redis().await;
    one.get("/large").await.expect(200);
    for i in 0..20 {
        one.get(&format!("/small/{i}")).await.expect(200);
    }
    one.flush_redis().await;
    let narrow = crate::support::line::narrow(redis.address(), PACE).await;
    let two =
        Edge::serving(&origin).cache(limits).redis(&format!("redis://{narrow}")).start_with_redis().await;
    let large: Vec<_> = (0..2).map(|_| tokio::spawn(two.request("GET", "/large").send())).collect();
    let before = two.metric("vanne_redis_command_duration_seconds_count{command=\"get\"}");
    poll_until("pieces to be on their way", || async {
        two.metric("vanne_redis_command_duration_seconds_count{command=\"get\"}")
            > before.map(|count| count + 3.0)
    })
    .await;
    let mut took = Vec::new();
    for i in 0..20 {
        let before = tokio::time::Instant::now();
        two.get(&format!("/small/{i}")).await.expect(200).body("small").cache("vanne-redis; hit");
        took.push(before.elapsed());
    }
    took.sort();
    assert!(large.iter().all(|answer| !answer.is_finished()), "they were still on their way");
    assert!(took[10] < Duration::from_millis(60), "half of the small hits took {:?} or more", took[10]);
    for answer in large {
        assert_eq!(answer.await.unwrap().expect(200).cache("vanne-redis; hit").body.len(), 2 * 1024 * 1024);
    }
    one.finish().await;
    two.finish().await;
}
