//! Large answers: in Redis piece by piece, both ways, and never a part taken for the whole.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::{Configuration, Edge, secs};
use crate::support::client::{Answer, Client};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::{free_address, poll_until, within};

/// The length of a piece.
const PIECE: usize = 256 * 1024;

/// Content in which every place is told apart from its neighbours.
fn content(length: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Only small answers stay in memory.
fn gateway(origin: &Origin, redis: &Redis) -> Configuration {
    Edge::serving(origin).cache("max_object = \"1GiB\"\nmemory_max_object = \"300KiB\"").redis(&redis.url())
}

async fn big(length: usize) -> Origin {
    Origin::new().on("*", reply(200).cache("max-age=600").body(content(length))).start().await
}

fn same(answer: &Answer, expected: &[u8]) {
    assert!(answer.truncated.is_none(), "{:?}", answer.truncated);
    assert_eq!(answer.body.len(), expected.len());
    assert!(answer.body == expected, "the content differs");
}

/// The names of the pieces, in order.
async fn pieces(redis: &Redis) -> Vec<String> {
    let mut names = redis.keys("*:p[0-9]*").await;
    names.sort_by_key(|name| name.rsplit(":p").next().and_then(|index| index.parse::<usize>().ok()));
    names
}

/// The name of the value that names the pieces.
async fn heads(redis: &Redis) -> Vec<String> {
    let mut names = redis.keys("vanne:v1:{*}").await;
    names.retain(|name| !name.contains("{fleet}"));
    names
}

#[tokio::test]
async fn a_large_answer_is_fetched_once_and_read_from_redis_by_every_gateway() {
    let (redis, length) = (Redis::start().await, 5 * PIECE + 77);
    let origin = big(length).await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    let two = gateway(&origin, &redis).start_with_redis().await;
    same(&one.get("/a").await.expect(200).cache("fwd=uri-miss; stored"), &content(length));
    one.flush_redis().await;
    assert_eq!((heads(&redis).await.len(), pieces(&redis).await.len()), (1, 6));
    for edge in [&one, &two, &two] {
        let answer = edge.get("/a").await.expect(200).cache("vanne-redis; hit");
        assert_eq!(answer.header("content-length"), Some(&*length.to_string()));
        same(&answer, &content(length));
    }
    assert_eq!(origin.hits("/a"), 1);
    for key in redis.keys("*").await {
        assert!(redis.ttl_ms(&key).await > 0, "{key} never expires");
    }
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn parts_conditions_and_heads_of_a_large_answer_come_from_redis_too() {
    let (redis, whole) = (Redis::start().await, content(3 * PIECE + 5));
    let answer = reply(200).cache("max-age=600").header("etag", "\"1\"").body(whole.clone());
    let origin = Origin::new().on("/a", answer).start().await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let last = whole.len() - 1;
    for (first, end) in [(0, 0), (PIECE - 1, PIECE), (PIECE, 2 * PIECE - 1), (10, last), (last, last)] {
        let range = format!("bytes={first}-{end}");
        let part = one.request("GET", "/a").header("range", &range).send().await.expect(206);
        assert_eq!(part.header("content-range"), Some(&*format!("bytes {first}-{end}/{}", whole.len())));
        same(&part, &whole[first..=end]);
    }
    let several = one.request("GET", "/a").header("range", "bytes=0-1,5-6").send().await;
    same(&several.expect(200), &whole);
    one.request("GET", "/a").header("if-none-match", "\"1\"").send().await.expect(304);
    let head = one.request("HEAD", "/a").send().await.expect(200).cache("vanne-redis; hit");
    assert_eq!(head.header("content-length"), Some(&*whole.len().to_string()));
    assert_eq!(origin.hits("/a"), 1);
    one.finish().await;
}

#[tokio::test]
async fn of_several_variants_each_has_its_own_large_content() {
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on_request("/a", |request| {
            let extra = request.header("accept-language").map_or(0, |language| language.len());
            reply(200).cache("max-age=600").header("vary", "Accept-Language").body(content(2 * PIECE + extra))
        })
        .start()
        .await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    let two = gateway(&origin, &redis).start_with_redis().await;
    for edge in [&one, &two] {
        for language in ["de", "fr-CH"] {
            let answer = edge.request("GET", "/a").header("accept-language", language).send().await;
            same(&answer.expect(200), &content(2 * PIECE + language.len()));
            edge.flush_redis().await;
        }
    }
    assert_eq!(origin.hits("/a"), 2);
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn content_of_unknown_length_goes_to_redis_once_it_is_too_large_for_memory() {
    let (redis, whole) = (Redis::start().await, content(4 * PIECE));
    let answer =
        whole.chunks(100_000).fold(reply(200).cache("max-age=600"), |answer, part| answer.chunk(part));
    let origin = Origin::new().on("/a", answer).start().await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    same(&one.get("/a").await.expect(200), &whole);
    same(&one.get("/a").await.expect(200).cache("vanne-redis; hit"), &whole);
    assert_eq!(origin.hits("/a"), 1);
    one.finish().await;
}

#[tokio::test]
async fn a_source_that_breaks_off_leaves_nothing_to_be_found_and_no_pieces() {
    let redis = Redis::start().await;
    let answer = reply(200).cache("max-age=600").body(content(3 * PIECE)).truncated(100);
    let origin = Origin::new().on("/a", answer).start().await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    for _ in 0..2 {
        assert!(one.get("/a").await.cache("fwd=uri-miss").truncated.is_some());
    }
    one.flush_redis().await;
    assert_eq!(heads(&redis).await, [""; 0]);
    poll_until("the pieces to be removed", || async { pieces(&redis).await.is_empty() }).await;
    one.finish().await;
}

#[tokio::test]
async fn until_the_last_byte_came_nobody_finds_any_and_what_was_written_soon_expires() {
    let (redis, gate) = (Redis::start().await, Gate::new("the second half"));
    let whole = content(4 * PIECE);
    let answer = reply(200)
        .cache("max-age=600")
        .chunk(&whole[..2 * PIECE + 1])
        .then_wait(&gate)
        .chunk(&whole[2 * PIECE + 1..]);
    let origin = Origin::new().on("/a", answer).on("/b", reply(200).cache("no-store")).start().await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    let coming = tokio::spawn(one.request("GET", "/a").send());
    poll_until("two pieces to be written", || async { pieces(&redis).await.len() == 2 }).await;
    assert_eq!(heads(&redis).await, [""; 0]);
    for name in pieces(&redis).await {
        assert!((1..=60_000).contains(&redis.ttl_ms(&name).await), "{name}");
    }
    gate.release();
    same(&coming.await.unwrap(), &whole);
    one.flush_redis().await;
    for name in pieces(&redis).await {
        assert!(redis.ttl_ms(&name).await > 500_000, "{name} lives as long as its answer");
    }
    one.finish().await;
}

#[tokio::test]
async fn a_damaged_or_missing_beginning_is_a_miss_and_is_told() {
    let (redis, length) = (Redis::start().await, 3 * PIECE);
    let origin = big(length).await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    for (target, detail) in [("/damaged", "redis-damaged"), ("/missing", "redis-missing")] {
        redis.flush().await;
        one.get(target).await.expect(200);
        one.flush_redis().await;
        let first = &pieces(&redis).await[0];
        if detail == "redis-missing" {
            redis.command(&["DEL", first]).await;
        } else {
            let mut bytes = redis.get(first).await.expect("a piece");
            bytes[PIECE / 2] ^= 1;
            redis.overwrite(first, &bytes).await;
        }
        let answer = one
            .get(target)
            .await
            .expect(200)
            .cache(&format!("fwd=uri-miss; stored; ttl=600; detail={detail}"));
        same(&answer, &content(length));
        one.flush_redis().await;
        same(&one.get(target).await.expect(200).cache("vanne-redis; hit"), &content(length));
    }
    assert_eq!(one.metric("vanne_redis_errors_total{kind=\"missing\"}"), Some(1.0));
    assert_eq!(one.metric("vanne_redis_errors_total{kind=\"damaged\"}"), Some(1.0));
    one.finish().await;
}

#[tokio::test]
async fn a_piece_of_another_answer_is_damage_even_in_the_same_place() {
    let redis = Redis::start().await;
    let origin = big(2 * PIECE).await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let of_a = pieces(&redis).await;
    let foreign = redis.get(&of_a[0]).await.unwrap();
    redis.flush().await;
    one.get("/b").await.expect(200);
    one.flush_redis().await;
    redis.overwrite(&pieces(&redis).await[0], &foreign).await;
    one.get("/b").await.expect(200).cache("detail=redis-damaged");
    one.finish().await;
}

#[tokio::test]
async fn when_the_middle_is_lost_the_client_sees_a_broken_answer_and_the_next_is_whole() {
    let (redis, length) = (Redis::start().await, 6 * PIECE);
    let origin = big(length).await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    redis.command(&["DEL", &pieces(&redis).await[4]]).await;
    let broken = one.get("/a").await.cache("vanne-redis; hit");
    assert!(broken.truncated.is_some(), "the end is missing, and the client must see it");
    assert_eq!(broken.body, content(length)[..broken.body.len()]);
    one.flush_redis().await;
    same(&one.get("/a").await.expect(200).cache("fwd=uri-miss"), &content(length));
    one.finish().await;
}

#[tokio::test]
async fn what_fits_into_memory_is_brought_there_from_redis() {
    let (redis, length) = (Redis::start().await, 3 * PIECE);
    let origin = big(length).await;
    let roomy =
        |origin: &Origin| Edge::serving(origin).cache("memory_max_object = \"1MiB\"").redis(&redis.url());
    let one = roomy(&origin).start_with_redis().await;
    let two = roomy(&origin).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    assert_eq!(pieces(&redis).await.len(), 3, "in Redis it lies apart all the same");
    same(&one.get("/a").await.expect(200).cache("vanne-mem; hit"), &content(length));
    same(&two.get("/a").await.expect(200).cache("vanne-redis; hit"), &content(length));
    poll_until("the content to be in memory", || async {
        let answer = two.get("/a").await;
        same(&answer, &content(length));
        answer.cache_status().contains("vanne-mem; hit")
    })
    .await;
    assert_eq!(origin.hits("/a"), 1);
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn without_a_redis_what_is_too_large_for_memory_is_passed_on() {
    let origin = big(2 * PIECE).await;
    let limits = "max_object = \"1GiB\"\nmemory_max_object = \"300KiB\"";
    let edge = Edge::serving(&origin).cache(limits).start().await;
    for _ in 0..2 {
        same(&edge.get("/a").await.expect(200).cache("fwd=uri-miss"), &content(2 * PIECE));
    }
    assert_eq!(edge.metric("vanne_cache_stores_total{name=\"api\",result=\"too-large\"}"), Some(2.0));
    edge.finish().await;
    let edge = Edge::serving(&origin).cache("max_object = \"1GiB\"").start().await;
    edge.get("/a").await.expect(200);
    edge.get("/a").await.expect(200).cache("vanne-mem; hit");
    edge.finish().await;
}

#[tokio::test]
async fn an_answer_beyond_the_limit_of_redis_is_passed_on_and_leaves_nothing() {
    let redis = Redis::start().await;
    let whole = content(4 * PIECE);
    let chunked =
        whole.chunks(PIECE / 2).fold(reply(200).cache("max-age=600"), |answer, part| answer.chunk(part));
    let origin = Origin::new()
        .on("/told", reply(200).cache("max-age=600").body(whole.clone()))
        .on("/untold", chunked)
        .start()
        .await;
    let limits = "max_object = \"700KiB\"\nmemory_max_object = \"300KiB\"";
    let one = Edge::serving(&origin).cache(limits).redis(&redis.url()).start_with_redis().await;
    for target in ["/told", "/untold"] {
        same(&one.get(target).await.expect(200), &whole);
        one.flush_redis().await;
        assert_eq!(heads(&redis).await, [""; 0]);
    }
    poll_until("the pieces to be removed", || async { pieces(&redis).await.is_empty() }).await;
    assert_eq!(one.metric("vanne_cache_stores_total{name=\"api\",result=\"too-large\"}"), Some(2.0));
    one.finish().await;
}

#[tokio::test]
async fn a_stale_large_answer_is_confirmed_without_moving_its_content() {
    let (redis, whole) = (Redis::start().await, content(3 * PIECE));
    let fresh = reply(200).cache("max-age=60").header("etag", "\"1\"").body(whole.clone());
    let origin = Origin::new()
        .on_request("/a", move |request| match request.header("if-none-match") {
            Some(_) => reply(304).cache("max-age=60").header("etag", "\"1\""),
            None => fresh.clone(),
        })
        .start()
        .await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let before = pieces(&redis).await;
    one.grow_older(secs(61));
    same(&one.get("/a").await.expect(200).cache("fwd=stale; fwd-status=304"), &whole);
    one.flush_redis().await;
    assert_eq!(pieces(&redis).await, before);
    same(&one.get("/a").await.expect(200).cache("vanne-redis; hit"), &whole);
    one.finish().await;
}

#[tokio::test]
async fn content_that_was_replaced_or_removed_is_let_go() {
    let redis = Redis::start().await;
    let origin = Origin::new()
        .on_request("/a", |request| match &*request.method {
            "GET" => reply(200).cache("max-age=86400").body(content(3 * PIECE)),
            _ => reply(204),
        })
        .start()
        .await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let first = pieces(&redis).await;
    one.request("GET", "/a").header("cache-control", "no-cache").send().await.expect(200);
    one.flush_redis().await;
    for name in &first {
        assert!((1..=600_000).contains(&redis.ttl_ms(name).await), "{name} is named by nothing any more");
    }
    let second: Vec<String> = pieces(&redis).await.into_iter().filter(|name| !first.contains(name)).collect();
    assert_eq!(second.len(), 3);
    one.request("DELETE", "/a").send().await.expect(204);
    one.flush_redis().await;
    for name in &second {
        assert!((1..=600_000).contains(&redis.ttl_ms(name).await), "{name} is named by nothing any more");
    }
    one.finish().await;
}

#[tokio::test]
async fn a_redis_that_dies_while_it_is_written_to_costs_no_answer() {
    let (mut redis, gate) = (Redis::start().await, Gate::new("the second half"));
    let whole = content(6 * PIECE);
    let answer = reply(200)
        .cache("max-age=600")
        .chunk(&whole[..2 * PIECE + 1])
        .then_wait(&gate)
        .chunk(&whole[2 * PIECE + 1..]);
    let origin = Origin::new().on("/a", answer).start().await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    let coming = tokio::spawn(one.request("GET", "/a").send());
    poll_until("two pieces to be written", || async { pieces(&redis).await.len() == 2 }).await;
    redis.kill();
    gate.release();
    same(&coming.await.unwrap().expect(200), &whole);
    assert_eq!(one.metric("vanne_cache_stores_total{name=\"api\",result=\"redis\"}"), Some(1.0));
    one.finish().await;
}

#[tokio::test]
async fn a_redis_that_hangs_while_it_is_written_to_holds_the_client_up_for_a_bounded_time() {
    let (redis, gate) = (Redis::start().await, Gate::new("the second half"));
    let whole = content(12 * PIECE);
    let answer = reply(200)
        .cache("max-age=600")
        .chunk(&whole[..2 * PIECE + 1])
        .then_wait(&gate)
        .chunk(&whole[2 * PIECE + 1..]);
    let origin = Origin::new().on("/a", answer).start().await;
    let one = gateway(&origin, &redis).start_with_redis().await;
    let coming = tokio::spawn(one.request("GET", "/a").send());
    poll_until("two pieces to be written", || async { pieces(&redis).await.len() == 2 }).await;
    redis.pause();
    gate.release();
    same(&coming.await.unwrap().expect(200), &whole);
    redis.resume();
    one.finish().await;
}

#[tokio::test]
async fn a_redis_that_pauses_while_it_is_read_from_breaks_no_answer() {
    let (redis, length) = (Redis::start().await, 40 * PIECE);
    let origin = big(length).await;
    let one = Edge::serving(&origin)
        .cache("max_object = \"1GiB\"\nmemory_max_object = \"300KiB\"")
        .redis_within(&redis.url(), "200ms")
        .start_with_redis()
        .await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let whole = content(length);
    let download = Download::begin(one.address(0), "GET /a HTTP/1.1\r\nhost: edge.test\r\n\r\n").await;
    assert!(download.head.contains("vanne-redis; hit"), "{}", download.head);
    redis.pause();
    // So long that whatever was read ahead and every budget is used up.
    tokio::time::sleep(Duration::from_millis(700)).await;
    redis.resume();
    download.expect(&whole).await;
    one.finish().await;
}

/// An answer that is read as it comes, for those too large for the kit's client.
struct Download {
    stream: TcpStream,
    head: String,
    ahead: Vec<u8>,
}

impl Download {
    async fn begin(address: SocketAddr, request: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("a request sent");
        let mut ahead = Vec::new();
        let end = within("the head of an answer", async {
            loop {
                assert!(stream.read_buf(&mut ahead).await.expect("an answer") > 0, "cut within the head");
                if let Some(end) = ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                    return end + 4;
                }
            }
        });
        let end = end.await;
        let rest = ahead.split_off(end);
        Self { stream, head: String::from_utf8_lossy(&ahead).into_owned(), ahead: rest }
    }

    /// Reads the content and fails the test unless it is this.
    async fn expect(mut self, content: &[u8]) {
        let mut at = 0;
        let mut bytes = self.ahead;
        loop {
            assert!(
                content[at..].starts_with(&bytes),
                "the content differs within {} bytes of {at}",
                bytes.len()
            );
            at += bytes.len();
            if at == content.len() {
                return;
            }
            bytes.clear();
            bytes.reserve(PIECE);
            let read =
                within("more of an answer", self.stream.read_buf(&mut bytes)).await.expect("an answer");
            assert!(read > 0, "cut after {at} bytes of {}", content.len());
        }
    }
}

/// The resident memory of a process, in MiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak of memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[tokio::test]
async fn a_hundred_megabytes_flow_to_redis_and_from_it_without_being_held() {
    const LENGTH: usize = 120 * 1024 * 1024;
    let redis = Redis::start().await;
    let origin = big(LENGTH).await;
    let (web, admin) = (free_address(), free_address());
    let configuration = format!(
        "[listen.web]\naddr = \"{web}\"\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n[redis]\nurl = \"{}\"\ntimeout = \"5s\"\n\
         [upstreams.api]\nservers = [\"{}\"]\n[caches.api]\nmax_object = \"1GiB\"\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n",
        redis.url(),
        origin.address()
    );
    let process = Program::gateway(&configuration).ready_at(admin).start().await;
    let admin = Client::new(admin);
    poll_until("Redis to be in use", || async {
        admin.get("/metrics").send().await.text().contains("vanne_redis_up 1")
    })
    .await;
    let whole = content(LENGTH);
    let request = |fields: &str| format!("GET /a HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n");
    let before = resident(process.id());
    let fetched = Download::begin(web, &request("")).await;
    assert!(fetched.head.contains("fwd=uri-miss; stored"), "{}", fetched.head);
    fetched.expect(&whole).await;
    let written = resident(process.id());
    poll_until("the answer to be found in Redis", || async { heads(&redis).await.len() == 1 }).await;
    for _ in 0..3 {
        let found = Download::begin(web, &request("")).await;
        assert!(found.head.contains("vanne-redis; hit"), "{}", found.head);
        found.expect(&whole).await;
    }
    let part = Download::begin(web, &request("range: bytes=100000000-119999999\r\n")).await;
    assert!(part.head.starts_with("HTTP/1.1 206"), "{}", part.head);
    part.expect(&whole[100_000_000..120_000_000]).await;
    let read = resident(process.id());
    assert!(
        read < before + 48,
        "{before} MiB before, {written} after it was written, {read} after it was read"
    );
    assert_eq!(origin.hits("/a"), 1);
}
