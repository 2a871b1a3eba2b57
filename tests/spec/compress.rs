//! Compression: negotiated right, of the right answers, and once.

use std::io::Read;
use std::time::Duration;

use crate::edge::Edge;
use crate::files::{Folder, field, settled};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, Reply, reply};
use crate::support::redis::Redis;
use crate::support::{poll_until, wire};

/// What compresses well.
fn text() -> String {
    (0..400).map(|line| format!("line {line} of what compresses well\n")).collect()
}

fn plain(answer: &Answer) -> String {
    let mut text = String::new();
    let body = &answer.body[..];
    let read = match answer.header("content-encoding") {
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        Some("zstd") => zstd::stream::read::Decoder::new(body).expect("zstd").read_to_string(&mut text),
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_string(&mut text),
        None => Ok((&mut &*body).read_to_string(&mut text).expect("text")),
        other => panic!("an unknown coding {other:?}"),
    };
    read.expect("whole content");
    text
}

async fn ask(edge: &Edge, target: &str, accepts: &str) -> Answer {
    edge.request("GET", target).header("accept-encoding", accepts).send().await
}

fn compressions(edge: &Edge) -> f64 {
    ["br", "gzip", "zstd"]
        .iter()
        .filter_map(|coding| edge.metric(&format!("vanne_compressions_total{{coding=\"{coding}\"}}")))
        .sum()
}

fn page() -> Reply {
    reply(200)
        .header("content-type", "text/html")
        .header("etag", "\"v1\"")
        .cache("public, max-age=60")
        .body(text())
}

#[tokio::test]
async fn each_client_gets_the_coding_it_likes_best() {
    let folder = Folder::new().with("a.html", text()).with("a.png", text()).with("short.html", "short");
    let edge = settled(folder.start("").await).await;
    for (accepts, coding) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip, deflate", Some("gzip")),
        ("gzip;q=0.8, zstd", Some("zstd")),
        ("br;q=0, *", Some("zstd")),
        ("identity;q=0, gzip;q=0.1", Some("gzip")),
        ("identity, br;q=0.5", None),
        ("deflate", None),
        ("", None),
    ] {
        let answer = ask(&edge, "/a.html", accepts).await.expect(200).with("vary", "Accept-Encoding");
        assert_eq!(answer.header("content-encoding"), coding, "{accepts}");
        assert_eq!(plain(&answer), text(), "{accepts}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    edge.get("/a.html").await.expect(200).body(text()).with("vary", "Accept-Encoding");
    ask(&edge, "/a.png", "br").await.expect(200).body(text()).without("content-encoding").without("vary");
    ask(&edge, "/short.html", "br").await.expect(200).body("short").without("content-encoding");
    edge.finish().await;
}

#[tokio::test]
async fn what_the_build_compressed_is_served_as_it_is() {
    let folder = Folder::new().with("a.js", "plain").with("a.js.br", "from the build").with("a.js.gz", "gz");
    let edge = folder.start("").await;
    let br = ask(&edge, "/a.js", "br, gzip").await.expect(200).body("from the build");
    let br = br.with("content-encoding", "br").with("content-type", "text/javascript; charset=utf-8");
    let gz = ask(&edge, "/a.js", "gzip").await.expect(200).body("gz").with("content-encoding", "gzip");
    let id = edge.get("/a.js").await.expect(200).body("plain");
    let tags = [&br, &gz, &id].map(|answer| field(answer, "etag"));
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2], "{tags:?}");
    let ask = |accepts: &'static str, tag: &str| {
        edge.request("GET", "/a.js").header("accept-encoding", accepts).header("if-none-match", tag).send()
    };
    ask("br", &tags[0]).await.expect(304).with("vary", "Accept-Encoding");
    ask("br", &tags[2]).await.expect(200);
    assert_eq!(compressions(&edge), 0.0);
    edge.finish().await;
}

#[tokio::test]
async fn a_file_is_compressed_quickly_for_the_first_and_at_its_best_for_all_others() {
    let folder = Folder::new().with("a.html", text());
    let edge = settled(folder.start("").await).await;
    let first = ask(&edge, "/a.html", "br").await.expect(200);
    poll_until("the best form", || async { compressions(&edge) == 2.0 }).await;
    let size = || async { ask(&edge, "/a.html", "br").await.body.len() };
    poll_until("it to be served", || async { size().await < first.body.len() }).await;
    for _ in 0..20 {
        assert_eq!(plain(&ask(&edge, "/a.html", "gzip;q=0.1, br").await), text());
    }
    assert_eq!(compressions(&edge), 2.0, "what was compressed once is not compressed again");
    // Who has the first form has the content.
    let again = edge.request("GET", "/a.html").header("accept-encoding", "br");
    let tag = field(&first, "etag");
    again.header("if-none-match", &tag).send().await.expect(304).with("etag", &tag);
    edge.finish().await;
}

#[tokio::test]
async fn a_part_is_one_of_the_content_as_it_is() {
    let folder = Folder::new().with("a.html", text());
    let edge = settled(folder.start("").await).await;
    let part = edge.request("GET", "/a.html").header("accept-encoding", "br").header("range", "bytes=5-9");
    part.send().await.expect(206).body(&text()[5..10]).without("content-encoding");
    let coded = field(&ask(&edge, "/a.html", "br").await, "etag");
    let joined = edge.request("GET", "/a.html").header("range", "bytes=5-9").header("if-range", &coded);
    joined.send().await.expect(200).body(text());
    edge.finish().await;
}

#[tokio::test]
async fn compression_can_be_turned_off_and_told_what_to_do() {
    let folder = Folder::new().with("a.html", text()).with("a.js", text()).with("a.js.br", "never");
    let edge = folder.serving("", "compress = \"off\"").start().await;
    ask(&edge, "/a.js", "br").await.expect(200).body(text()).without("content-encoding").without("vary");
    edge.finish().await;
    let rules = "compress = { codings = [\"gzip\"], types = [\"text/h*\"], min_size = \"0B\" }";
    let edge = settled(folder.serving("", rules).start().await).await;
    ask(&edge, "/a.html", "br, gzip").await.expect(200).with("content-encoding", "gzip");
    ask(&edge, "/a.js", "br, gzip").await.expect(200).without("content-encoding");
    edge.finish().await;
}

const PASS: &str = "[[routes]]\nupstream = \"api\"\ncompress = {}";
const CACHED: &str = "[[routes]]\nupstream = \"api\"\ncache = \"api\"\ncompress = {}";

#[tokio::test]
async fn what_passes_through_is_compressed_on_its_way() {
    let origin = Origin::new().on("/a", page()).start().await;
    let edge = Edge::serving(&origin).without_cache().routes(PASS).start().await;
    for coding in ["br", "zstd", "gzip"] {
        let answer = ask(&edge, "/a", coding).await.expect(200).with("content-encoding", coding);
        let answer = answer.with("etag", &format!("\"v1;{coding}\"")).with("vary", "Accept-Encoding");
        assert_eq!(plain(&answer), text());
        assert!(answer.without("content-length").body.len() < text().len() / 4);
    }
    edge.get("/a").await.expect(200).body(text()).with("etag", "\"v1\"").with("vary", "Accept-Encoding");
    let head = edge.request("HEAD", "/a").header("accept-encoding", "br").send().await.expect(200);
    head.with("content-encoding", "br").without("content-length");
    edge.finish().await;
}

#[tokio::test]
async fn a_condition_about_compressed_content_reaches_the_origin_in_its_words() {
    let origin = Origin::new()
        .on_request("/a", |request| match request.header("if-none-match") {
            Some("\"v1\"") => reply(304).header("etag", "\"v1\""),
            _ => page(),
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).without_cache().routes(PASS).start().await;
    let tag = field(&ask(&edge, "/a", "br").await, "etag");
    let again = edge.request("GET", "/a").header("accept-encoding", "br").header("if-none-match", &tag);
    again.send().await.expect(304).with("etag", &tag);
    edge.finish().await;
}

#[tokio::test]
async fn what_must_not_be_compressed_is_left_as_it_is() {
    let html = || reply(200).header("content-type", "text/html").body(text());
    let origin = Origin::new()
        .on("/cookie", html().header("set-cookie", "a=b"))
        .on("/private", html().cache("private"))
        .on("/no-transform", html().cache("max-age=60, no-transform"))
        .on(
            "/part",
            reply(206)
                .header("content-type", "text/html")
                .header("content-range", "bytes 0-4/9")
                .body("12345"),
        )
        .on("/coded", html().header("content-encoding", "compress"))
        .on("/png", reply(200).header("content-type", "image/png").body(text()))
        .on("/short", reply(200).header("content-type", "text/html").body("short"))
        .on("/plain", html())
        .start()
        .await;
    for (routes, cached) in [(PASS, false), (CACHED, true)] {
        let edge = Edge::serving(&origin).cache("ttl = \"1h\"").routes(routes).start().await;
        for path in ["/cookie", "/private", "/no-transform", "/png", "/short", "/part"] {
            ask(&edge, path, "br").await.without("content-encoding");
        }
        ask(&edge, "/coded", "br").await.expect(200).with("content-encoding", "compress").body(text());
        let post = edge.request("POST", "/plain").header("accept-encoding", "br").body("x");
        post.send().await.expect(200).body(text()).without("content-encoding");
        for (name, value) in [("cookie", "session=1"), ("authorization", "Bearer x")] {
            // What is stored was fetched by somebody who said nothing of himself, and is anybody's.
            let own = if cached { "/plain?own" } else { "/plain" };
            let own = edge.request("GET", own).header("accept-encoding", "br").header(name, value);
            own.send().await.without("content-encoding");
        }
        ask(&edge, "/plain", "br").await.expect(200).with("content-encoding", "br");
        edge.finish().await;
    }
    let routes = "[[routes]]\nupstream = \"api\"\ncompress = { private = true }";
    let edge = Edge::serving(&origin).without_cache().routes(routes).start().await;
    ask(&edge, "/private", "br").await.expect(200).with("content-encoding", "br");
    edge.finish().await;
}

#[tokio::test]
async fn a_hit_never_compresses() {
    let origin = Origin::new().on("/a", page()).start().await;
    let edge = Edge::serving(&origin).routes(CACHED).start().await;
    let first = ask(&edge, "/a", "br, gzip").await.expect(200).cache("fwd=uri-miss; stored");
    assert_eq!(plain(&first), text());
    for accepts in ["br", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.5", "zstd;q=0.1,*"] {
        let hit = ask(&edge, "/a", accepts).await.expect(200).cache("hit").with("content-encoding", "br");
        assert_eq!(hit.body, first.body, "{accepts}");
        assert_eq!(hit.header("content-length"), Some(first.body.len().to_string().as_str()));
    }
    edge.send_hits_the_long_way();
    ask(&edge, "/a", "gzip, br")
        .await
        .expect(200)
        .cache("hit")
        .with("content-encoding", "br")
        .body(&first.body);
    assert_eq!(compressions(&edge), 1.0);
    // Others get theirs, each fetched and compressed once.
    assert_eq!(plain(&ask(&edge, "/a", "gzip").await.expect(200).cache("fwd=vary-miss")), text());
    ask(&edge, "/a", "gzip").await.cache("hit").with("content-encoding", "gzip");
    edge.get("/a").await.expect(200).body(text()).without("content-encoding");
    ask(&edge, "/a", "deflate").await.cache("hit").body(text());
    assert_eq!((compressions(&edge), origin.hits("/a")), (2.0, 3));
    // A part of what is stored compressed is a part of those bytes, under their own tag.
    let part = edge.request("GET", "/a").header("accept-encoding", "br").header("range", "bytes=0-9");
    part.send().await.expect(206).body(&first.body[..10]).with("content-encoding", "br");
    edge.finish().await;
}

#[tokio::test]
async fn gateways_that_share_a_redis_compress_once_for_all() {
    let redis = Redis::start().await;
    let origin = Origin::new().on("/a", page()).start().await;
    let one = Edge::serving(&origin).routes(CACHED).redis(&redis.url()).start_with_redis().await;
    let two = Edge::serving(&origin).routes(CACHED).redis(&redis.url()).start_with_redis().await;
    let first = ask(&one, "/a", "br").await.expect(200);
    one.flush_redis().await;
    let second = ask(&two, "/a", "gzip, br").await.expect(200).cache("hit").with("content-encoding", "br");
    assert_eq!(first.body, second.body);
    assert_eq!((compressions(&one), compressions(&two)), (1.0, 0.0));
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn what_is_stored_compressed_is_validated_and_not_fetched_anew() {
    let origin = Origin::new()
        .on_request("/a", |request| match request.header("if-none-match") {
            Some("\"v1\"") => {
                reply(304).header("etag", "\"v1\"").header("vary", "Origin").cache("max-age=60")
            }
            _ => page(),
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).routes(CACHED).start().await;
    let first = ask(&edge, "/a", "br").await.expect(200);
    edge.grow_older(Duration::from_secs(61));
    let again = ask(&edge, "/a", "br").await.expect(200).cache("fwd=stale; fwd-status=304");
    assert_eq!(again.body, first.body);
    assert_eq!(field(&again, "etag"), "\"v1;br\"");
    ask(&edge, "/a", "br").await.expect(200).cache("hit").body(&first.body);
    assert_eq!((compressions(&edge), origin.hits("/a")), (1.0, 2));
    edge.finish().await;
}

#[tokio::test]
async fn a_stream_is_not_held_back() {
    for routes in [PASS, CACHED] {
        let gate = Gate::new("the second event");
        let stream = reply(200)
            .header("content-type", "text/event-stream")
            .chunk("data: one\n\n")
            .then_wait(&gate)
            .chunk("data: two\n\n");
        let origin = Origin::new().on("/events", stream).start().await;
        let routes = routes.replace("{}", "{ types = [\"text/event-stream\"] }");
        let edge = Edge::serving(&origin).routes(&routes).start().await;
        let mut connection = edge.client.connect().await;
        connection.write("GET /events HTTP/1.1\r\nHost: edge.test\r\nAccept-Encoding: gzip\r\n\r\n").await;
        let head = connection.read_until("\r\n\r\n").await;
        assert!(wire::find(&head.to_ascii_lowercase(), b"content-encoding: gzip").is_some());
        // The first event can be read before the second is sent.
        let mut coded = Vec::new();
        let mut first = String::new();
        while !first.contains("data: one") {
            let size = connection.read_until("\r\n").await;
            let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).expect("a chunk");
            // A chunk ends with a line feed, and may hold others.
            let mut chunk = Vec::new();
            while chunk.len() < size + 2 {
                chunk.extend(connection.read_until("\r\n").await);
            }
            coded.extend_from_slice(&chunk[..size]);
            first.clear();
            let _ = flate2::read::GzDecoder::new(&coded[..]).read_to_string(&mut first);
        }
        gate.release();
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_cut_answer_is_seen_as_cut_and_not_stored() {
    let cut = page().truncated(100);
    let origin = Origin::new().on("/a", cut).start().await;
    for routes in [PASS, CACHED] {
        let edge = Edge::serving(&origin).routes(routes).start().await;
        for _ in 0..2 {
            let answer = ask(&edge, "/a", "br").await;
            assert!(answer.status == 502 || answer.truncated.is_some(), "{}", answer.status);
        }
        edge.finish().await;
    }
}
