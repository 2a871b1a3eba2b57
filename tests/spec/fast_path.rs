//! Plain hits take a shorter way through the gateway. Nobody can tell, but by the time they take.

use crate::edge::{Configuration, Edge, secs};
use crate::support::client::Answer;
use crate::support::origin::{Origin, reply};
use vanne::base::clock::Clock;
use vanne::cache::date;

/// A moment some minutes ago, as a Date tells it.
fn a_while_ago() -> String {
    date::format(Clock::start().wall().minus(secs(100)))
}

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An origin with an answer of every kind that a cache keeps, made `then`.
async fn origin(then: &str) -> Origin {
    let then = then.to_owned();
    let answer = move |status| {
        reply(status)
            .cache("max-age=600")
            .header("date", &then)
            .header("etag", "\"1\"")
            .header("last-modified", MODIFIED)
    };
    Origin::new()
        .on("/plain", answer(200).header("content-type", "text/plain").body("v1"))
        .on("/large", answer(200).body("x".repeat(300_000)))
        .on("/chunked", answer(200).chunk("one ").chunk("two"))
        .on("/empty", answer(200))
        .on("/missing", answer(404).body("no such thing"))
        .on("/moved", answer(301).header("location", "/plain"))
        .on(
            "/told",
            answer(200)
                .header("via", "1.1 inner")
                .header("cache-status", "inner; hit")
                .header("x-request-id", "theirs")
                .header("set-cookie2", "a=b")
                .header("link", "</a>; rel=preload")
                .header("link", "</b>; rel=preload")
                .header("age", "3")
                .body("told"),
        )
        .on_request("/vary", move |request| {
            let language = request.header("accept-language").unwrap_or("none").to_owned();
            answer(200).header("vary", "accept-language").body(language)
        })
        .on("/private", reply(200).cache("private").body("mine"))
        .start()
        .await
}

/// Two gateways before one origin that differ in nothing but the way plain hits take.
struct Two {
    short: Edge,
    long: Edge,
    folder: tempfile::TempDir,
}

impl Two {
    async fn before(origin: &Origin) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |name: &str| {
            let file = folder.path().join(name);
            Self::configuration(origin).also(&format!("[log]\naccess = \"{}\"", file.display())).start()
        };
        let (short, long) = (start("short").await, start("long").await);
        long.send_hits_the_long_way();
        Self { short, long, folder }
    }

    fn configuration(origin: &Origin) -> Configuration {
        Edge::serving(origin).also("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
    }

    /// Sends the same bytes to both and demands the same answer.
    async fn ask(&self, method: &str, bytes: &str) {
        let (mut short, mut long) = (self.short.client.connect().await, self.long.client.connect().await);
        short.write(bytes).await;
        long.write(bytes).await;
        let (one, other) = (short.read_answer(method).await, long.read_answer(method).await);
        assert_eq!(Shown::of(&one), Shown::of(&other), "{bytes:?}");
        if one.header("connection") == Some("close") {
            short.expect_close().await;
            long.expect_close().await;
            return;
        }
        let (one, other) = (short.get("/empty").send().await, long.get("/empty").send().await);
        assert_eq!(Shown::of(&one), Shown::of(&other), "after {bytes:?}");
    }

    /// What both told of all requests, without what differs from run to run.
    async fn end(self) -> [(Vec<String>, Vec<serde_json::Value>); 2] {
        let counts = [counts(&self.short), counts(&self.long)];
        self.short.finish().await;
        self.long.finish().await;
        let lines = ["short", "long"].map(|name| {
            let text = std::fs::read_to_string(self.folder.path().join(name)).expect("the log");
            text.lines().map(line).collect()
        });
        let [short, long] = counts;
        let [short_lines, long_lines] = lines;
        [(short, short_lines), (long, long_lines)]
    }
}

fn counts(edge: &Edge) -> Vec<String> {
    let told = [
        "vanne_requests_total",
        "vanne_requests_in_flight",
        "vanne_request_bytes",
        "vanne_response_bytes",
        "vanne_cache_requests_total",
        "vanne_cache_lookups_total",
        "vanne_request_duration_seconds_count",
        "vanne_cache_lookup_duration_seconds_count",
    ];
    let metrics = edge.metrics();
    metrics.lines().filter(|line| told.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

fn line(text: &str) -> serde_json::Value {
    let mut line: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let fields = line.as_object_mut().expect("an object");
    for name in ["ts", "request_id", "duration"] {
        assert!(fields.remove(name).is_some(), "no {name} in {text}");
    }
    if let Some(cache) = fields.get_mut("cache") {
        *cache = without_ttl(cache.as_str().expect("text")).into();
    }
    line
}

fn without_ttl(status: &str) -> String {
    let keep = |part: &&str| !part.trim_start().starts_with("ttl=");
    status.split(';').filter(keep).collect::<Vec<_>>().join(";")
}

/// An answer as far as two gateways must agree: all but the moment, and the id.
#[derive(Debug, PartialEq)]
struct Shown {
    status: u16,
    version_minor: u8,
    fields: Vec<(String, String)>,
    /// Of an answer from storage: its lifetime, as told by its age and what is left.
    lifetime: Option<i64>,
    length: crate::support::wire::Length,
    body: String,
    truncated: Option<String>,
}

impl Shown {
    fn of(answer: &Answer) -> Self {
        let mut fields: Vec<(String, String)> = Vec::new();
        for (name, value) in &answer.fields {
            let name = name.to_ascii_lowercase();
            let value = match name.as_str() {
                "age" => continue,
                // Of what the gateway makes itself: the present, which may be two seconds.
                "date" if answer.header("age").is_none() => "now".into(),
                "x-request-id" if value.len() == 24 => "one of ours".into(),
                "cache-status" => without_ttl(value),
                _ => value.clone(),
            };
            fields.push((name, value));
        }
        // The order of lines with different names means nothing (RFC 9110 §5.3).
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let age = answer.header("age").map(|age| age.parse::<i64>().expect("seconds"));
        let status = answer.cache_status();
        let ttl = status.split("ttl=").nth(1).map(|ttl| ttl.parse::<i64>().expect("seconds"));
        // The two are told at two moments that may lie in two seconds.
        let lifetime = age.zip(ttl).map(|(age, ttl)| (age + ttl + 5) / 10 * 10);
        Self {
            status: answer.status,
            version_minor: answer.version_minor,
            fields,
            lifetime,
            length: answer.length,
            body: answer.text().replace(answer.header("x-request-id").unwrap_or("-"), "(id)"),
            truncated: answer.truncated.clone(),
        }
    }
}

const TARGETS: [&str; 9] =
    ["/plain", "/large", "/chunked", "/empty", "/missing", "/moved", "/told", "/vary", "/private"];

/// What clients add to a request. Several lines are joined by `|`.
const SHAPES: [&str; 50] = [
    "",
    "Accept: */*|User-Agent: someone|Referer: https://elsewhere.example/",
    "User-Agent: s\u{f6}meone",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Keep-Alive",
    "Connection: keep-alive|Keep-Alive: timeout=5, max=10",
    "Connection: close, keep-alive",
    "Connection: accept-language|Accept-Language: de",
    "Connection: upgrade|Upgrade: websocket",
    "Upgrade: h2c",
    "Connection: ",
    "If-None-Match: \"1\"",
    "If-None-Match: W/\"1\"",
    "If-None-Match: \"2\", \"1\"",
    "If-None-Match: \"2\"",
    "If-None-Match: *",
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT",
    "If-Modified-Since: yesterday",
    "If-Match: \"1\"",
    "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "Range: bytes=0-1",
    "Range: bytes=-1",
    "Range: bytes=900000-",
    "Range: lines=1-2",
    "Range: bytes=0-1|If-Range: \"1\"",
    "Range: bytes=0-1|If-Range: \"2\"",
    "Range: bytes=0-1|If-None-Match: \"1\"",
    "Cache-Control: no-store",
    "Cache-Control: max-age=100",
    "Cache-Control: max-age=0",
    "Cache-Control: min-fresh=60",
    "Cache-Control: min-fresh=6000",
    "Cache-Control: max-stale",
    "Cache-Control: only-if-cached",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "Pragma: no-cache|Cache-Control: max-age=100",
    "Authorization: Basic eA==",
    "Cookie: session=1",
    "Content-Length: 0",
    "Expect: 100-continue",
    "Accept-Language: de",
    "Accept-Language: de|Accept-Language: en",
    "TE: trailers|Accept-Encoding: gzip",
    "X-Request-ID: from-outside",
    "X-Request-ID: not an id",
    "X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: https",
    "X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: http",
];

fn request(method: &str, target: &str, version: &str, shape: &str) -> String {
    let lines: String = shape.split('|').filter(|l| !l.is_empty()).map(|l| format!("{l}\r\n")).collect();
    format!("{method} {target} HTTP/{version}\r\nHost: edge.test\r\n{lines}\r\n")
}

#[tokio::test]
async fn both_ways_give_the_same_answers_and_tell_the_same_of_them() {
    let origin = origin(&a_while_ago()).await;
    let both = Two::before(&origin).await;
    for target in TARGETS {
        both.ask("GET", &request("GET", target, "1.1", "")).await;
    }
    for target in TARGETS {
        // Twice, since what the first round stored is there to be mistaken for another's in the second.
        for shape in SHAPES.iter().chain(&SHAPES) {
            both.ask("GET", &request("GET", target, "1.1", shape)).await;
        }
        for shape in ["", "Connection: close", "If-None-Match: \"1\"", "Range: bytes=0-0"] {
            both.ask("HEAD", &request("HEAD", target, "1.1", shape)).await;
        }
        for shape in ["", "Connection: keep-alive", "Connection: close", "If-None-Match: \"1\""] {
            both.ask("GET", &request("GET", target, "1.0", shape)).await;
            both.ask("HEAD", &request("HEAD", target, "1.0", shape)).await;
        }
    }
    for target in
        ["/plain?a=1", "/%70lain", "/x/../plain", "http://edge.test/plain", "//plain", "/plain#f", "*"]
    {
        both.ask("GET", &request("GET", target, "1.1", "")).await;
        both.ask("GET", &request("GET", target, "1.1", "")).await;
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "GET"] {
        both.ask(method, &request(method, "/plain", "1.1", "Content-Length: 0")).await;
        both.ask("GET", &request("GET", "/plain", "1.1", "")).await;
    }
    let [short, long] = both.end().await;
    assert_eq!(short.0, long.0, "what was counted");
    assert_eq!(short.1.len(), long.1.len(), "lines of the log");
    for (short, long) in short.1.iter().zip(&long.1) {
        assert_eq!(short, long, "lines of the log");
    }
}

#[tokio::test]
async fn a_hit_tells_when_the_origin_made_the_answer() {
    let made = a_while_ago();
    let origin = origin(&made).await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/plain").await.expect(200).cache("stored");
    edge.get("/plain").await.expect(200).cache("hit").with("date", &made);
    edge.request("GET", "/plain")
        .header("if-none-match", "\"1\"")
        .send()
        .await
        .expect(304)
        .with("date", &made);
    edge.finish().await;
}

#[tokio::test]
async fn hits_and_misses_asked_for_in_one_breath_are_answered_in_order() {
    let origin = Origin::new()
        .on_request("*", |request| reply(200).cache("max-age=60").body(request.path().to_owned()))
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    let ask = |target: &str| request("GET", target, "1.1", "");
    let mut connection = edge.client.connect().await;
    connection.write(format!("{}{}{}{}", ask("/a"), ask("/b"), ask("/a"), ask("/b"))).await;
    for (target, status) in [("/a", "hit"), ("/b", "stored"), ("/a", "hit"), ("/b", "hit")] {
        connection.read_answer("GET").await.expect(200).body(target).cache(status);
    }
    edge.finish().await;
}

#[tokio::test]
async fn hits_count_towards_the_requests_of_a_connection() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin).listen("keepalive_requests = 3").start().await;
    let mut connection = edge.client.connect().await;
    for status in ["stored", "hit"] {
        connection.get("/a").send().await.cache(status).with("connection", "keep-alive");
    }
    connection.get("/a").send().await.cache("hit").with("connection", "close");
    connection.expect_close().await;
    edge.finish().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_hit_is_cut_off_after_write_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let size = 30_000_000;
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("x".repeat(size))).start().await;
    let edge = Edge::serving(&origin)
        .cache("max_object = \"40MB\"\nmemory = \"1GB\"")
        .listen("write_timeout = \"1s\"")
        .also(&format!("[log]\naccess = \"{}\"", file.display()))
        .start()
        .await;
    edge.get("/a").await.expect(200).cache("stored");
    let mut connection = edge.client.connect().await;
    connection.write(request("GET", "/a", "1.1", "")).await;
    crate::support::poll_until("the hit to be counted", || async {
        edge.metric("vanne_cache_requests_total{cache=\"api\",result=\"hit\",route=\"/*\",tier=\"memory\"}")
            .or_else(|| {
                edge.metric("vanne_cache_requests_total{result=\"hit\",route=\"/*\",tier=\"memory\"}")
            })
            == Some(1.0)
    })
    .await;
    assert!(connection.read_to_close().await.len() < size);
    edge.finish().await;
    let text = std::fs::read_to_string(&file).expect("the log");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["error"], "client-gone");
    assert!(last["bytes_out"].as_u64().is_some_and(|sent| sent < size as u64), "{last}");
}

#[tokio::test]
async fn an_answer_near_its_end_still_reaches_those_who_refresh_it() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=100").body("v1")).start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    edge.grow_older(secs(99));
    // One in so many hits at random fetches anew; all are hits.
    while origin.hits("/a") < 2 {
        edge.get("/a").await.expect(200).cache("hit");
    }
    edge.finish().await;
}
