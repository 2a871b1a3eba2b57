//! What is not a request we take never reaches an instance.

use std::time::Duration;

use crate::edge::Edge;
use crate::support::origin::{Origin, reply};
use crate::support::{poll_until, within};

async fn quiet_origin() -> Origin {
    Origin::new().on("*", reply(200).body("reached")).start().await
}

#[tokio::test]
async fn ambiguous_and_malformed_requests_are_refused_before_any_instance_sees_them() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    let hostile: &[(&str, &str, u16)] = &[
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("a host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("another authority", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            400,
        ),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("an odd coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (
            "chunks in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("bare line feeds", "GET / HTTP/1.1\nHost: a\n\n", 400),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
        ("an escaped zero byte", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("dots above the root", "GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        (
            "an unknown expectation",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: magic\r\n\r\n",
            417,
        ),
        ("not HTTP", "\x16\x03\x01\x02\r\n\r\n", 400),
    ];
    for (what, bytes, status) in hostile {
        let answer = String::from_utf8_lossy(&edge.client.raw(bytes).await).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{what}");
        assert!(!answer.contains("Pingora"), "{what}: {answer}");
    }
    assert_eq!(origin.requests().len(), 0);
    edge.get("/").await.expect(200).body("reached");
    edge.finish().await;
}

#[tokio::test]
async fn a_head_must_come_within_its_deadline_however_steadily_it_trickles() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin).listen("header_timeout = \"300ms\"").start().await;
    let mut slow = edge.client.connect().await;
    slow.write("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let trickle = async {
        // A byte every 20 ms never lets a time-out per read strike.
        while slow.try_write("X").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the connection to be cut", trickle).await;
    assert_eq!(origin.requests().len(), 0);
    edge.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin).listen("idle_timeout = \"100ms\"").start().await;
    let mut connection = edge.client.connect().await;
    connection.get("/").send().await.expect(200);
    connection.expect_close().await;
    edge.finish().await;
}

#[tokio::test]
async fn a_connection_serves_as_many_requests_as_allowed_and_says_when_it_is_the_last() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin).listen("keepalive_requests = 2").start().await;
    let mut connection = edge.client.connect().await;
    connection.get("/").send().await.expect(200).with("connection", "keep-alive");
    connection.get("/").send().await.expect(200).with("connection", "close");
    connection.expect_close().await;
    edge.finish().await;
}

#[tokio::test]
async fn heads_and_contents_have_a_largest_size() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin)
        .without_cache()
        .listen("max_header_size = \"2KiB\"\nmax_header_fields = 10\nmax_body_size = \"1KiB\"")
        .start()
        .await;
    edge.request("GET", "/").header("x", &"y".repeat(3000)).send().await.expect(431);
    let many = (0..20).fold(edge.request("GET", "/"), |ask, i| ask.header(&format!("x-{i}"), "y"));
    many.send().await.expect(431);
    edge.request("POST", "/").body(vec![b'x'; 1024]).send().await.expect(200);
    edge.request("POST", "/").body(vec![b'x'; 1025]).send().await.expect(413);
    let chunks = (0..20).map(|_| vec![b'x'; 100]);
    edge.request("POST", "/").chunks(chunks).send().await.expect(413);
    assert!(
        origin.requests().iter().all(|r| r.body.len() <= 1024),
        "no more than allowed ever reached the instance"
    );
    edge.finish().await;
}

#[tokio::test]
async fn a_route_may_take_more_than_its_listener() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin)
        .listen("max_body_size = \"1KiB\"")
        .without_cache()
        .routes(
            "[[routes]]\nmatch = { path = \"/upload\" }\nupstream = \"api\"\nmax_body_size = \"1MiB\"\n[[routes]]\nupstream = \"api\"",
        )
        .start()
        .await;
    edge.request("POST", "/upload").body(vec![b'x'; 100_000]).send().await.expect(200);
    edge.request("POST", "/other").body(vec![b'x'; 100_000]).send().await.expect(413);
    edge.finish().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let origin =
        Origin::new().on_request("/*", |r| reply(200).cache("no-store").body(r.target.clone())).start().await;
    let edge = Edge::serving(&origin).start().await;
    let mut connection = edge.client.connect().await;
    connection
        .write("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    for target in ["/1", "/2", "/3"] {
        connection.read_answer("GET").await.expect(200).body(target);
    }
    edge.finish().await;
}

#[tokio::test]
async fn what_a_client_does_badly_is_never_held_against_an_instance() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    for _ in 0..10 {
        let mut connection = edge.client.connect().await;
        connection.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly a part").await;
        connection.reset();
    }
    poll_until("all to be over", || async { edge.metric("vanne_requests_in_flight") == Some(0.0) }).await;
    assert_eq!(edge.up(), [true]);
    assert_eq!(edge.in_flight(), [0]);
    assert!(
        origin.requests().iter().all(|r| !r.complete),
        "an unfinished upload is never finished for the client"
    );
    edge.get("/").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn there_is_room_for_so_many_connections_in_all_and_from_one_address() {
    let origin = quiet_origin().await;
    for limit in ["max_connections_per_address = 2", "max_connections = 2"] {
        let edge = Edge::serving(&origin).listen(limit).start().await;
        let mut first = edge.client.connect().await;
        first.get("/").send().await.expect(200);
        let mut second = edge.client.connect().await;
        second.get("/").send().await.expect(200);
        let answer = edge.client.connect().await.read_answer("GET").await.expect(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(edge.metric("vanne_refused_total{reason=\"too-many-connections\"}"), Some(1.0));
        first.get("/").send().await.expect(200);
        drop(first);
        poll_until("room for another", || async {
            edge.client.get("/").try_send().await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        drop(second);
        edge.finish().await;
    }
}

#[tokio::test]
async fn trusted_proxies_may_bring_more_connections_than_other_addresses() {
    let origin = quiet_origin().await;
    let edge = Edge::serving(&origin)
        .listen("max_connections_per_address = 1")
        .also("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let mut first = edge.client.connect().await;
    first.get("/").send().await.expect(200);
    edge.get("/").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn content_must_come_at_a_least_rate_however_steadily_it_trickles() {
    let origin = quiet_origin().await;
    for (rate, status) in [("1KiB", 408), ("0B", 200)] {
        let edge = Edge::serving(&origin)
            .without_cache()
            .listen(&format!("read_timeout = \"400ms\"\nmin_rate = \"{rate}\""))
            .start()
            .await;
        let mut slow = edge.client.connect().await;
        slow.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n").await;
        for _ in 0..40 {
            // A byte every 20 ms never lets a time-out per read strike.
            if slow.try_write("x").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slow.read_answer("POST").await.expect(status);
        assert_eq!(edge.up(), [true]);
        edge.finish().await;
    }
}
