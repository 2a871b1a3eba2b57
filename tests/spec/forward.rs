//! What changes on the way up and down, and what does not.

use crate::edge::Edge;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, reply};

#[tokio::test]
async fn an_instance_learns_who_asked_and_nothing_a_client_made_up() {
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("x")).start().await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        edge.request("GET", "/a")
            .host("shop.example:8080")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "https")
            .header("forwarded", "for=6.6.6.6")
            .header("x-original-url", "/admin")
            .header("x-http-method-override", "DELETE")
            .header("connection", "x-drop, keep-alive")
            .header("x-drop", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("te", "trailers")
            .header("accept", "text/html")
            .send()
            .await
            .expect(200);
        let got = origin.last("/a");
        assert_eq!(got.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(got.header("x-forwarded-proto"), Some("http"));
        assert_eq!(got.header("x-forwarded-host"), Some("shop.example:8080"));
        assert_eq!(got.header("host"), Some("shop.example:8080"));
        assert_eq!(got.header("via"), Some("1.1 vanne"));
        assert_eq!(got.header("accept"), Some("text/html"));
        for name in [
            "forwarded",
            "x-original-url",
            "x-http-method-override",
            "x-drop",
            "keep-alive",
            "proxy-connection",
            "te",
        ] {
            assert_eq!(got.header(name), None, "{name}, cached: {cached}");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_trusted_proxys_chain_is_kept_and_extended() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = Edge::serving(&origin)
        .without_cache()
        .also("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let answer = edge
        .request("GET", "/a")
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "from-the-cdn-1")
        .send()
        .await
        .expect(200);
    let got = origin.last("/a");
    assert_eq!(got.header("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    assert_eq!(got.header("x-forwarded-proto"), Some("https"));
    assert_eq!(got.header("x-request-id"), Some("from-the-cdn-1"));
    assert_eq!(answer.header("x-request-id"), Some("from-the-cdn-1"));
    edge.finish().await;
}

#[tokio::test]
async fn every_request_has_an_id_of_its_own_from_client_to_instance() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    let one = edge.request("GET", "/a").header("x-request-id", "forged").send().await.expect(200);
    let two = edge.get("/b").await.expect(200);
    let id = one.header("x-request-id").expect("an id");
    assert_ne!(id, "forged");
    assert_ne!(Some(id), two.header("x-request-id"));
    assert_eq!(origin.last("/a").header("x-request-id"), Some(id));
    edge.finish().await;
}

#[tokio::test]
async fn the_host_an_instance_sees_is_the_operators_choice() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let own = origin.address().to_string();
    for (rule, expected) in
        [("client", "shop.example"), ("instance", own.as_str()), ("api.internal", "api.internal")]
    {
        let edge =
            Edge::serving(&origin).without_cache().upstream(&format!("host = \"{rule}\"")).start().await;
        edge.request("GET", "/a").host("shop.example").send().await.expect(200);
        assert_eq!(origin.last("/a").header("host"), Some(expected));
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_answers_hop_by_hop_fields_stay_here_and_the_rest_arrives() {
    let page = || {
        reply(200)
            .header("connection", "x-internal")
            .header("x-internal", "secret")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("x-kept", "yes")
            .header("server", "uvicorn")
            .body("v1")
    };
    let origin = Origin::new().on("/a", page()).start().await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let answer = edge
            .get("/a")
            .await
            .expect(200)
            .body("v1")
            .with("x-kept", "yes")
            .with("server", "uvicorn")
            .with("via", "1.1 vanne");
        assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2"], "cached: {cached}");
        for name in ["x-internal", "keep-alive", "proxy-connection"] {
            assert_eq!(answer.header(name), None, "{name}, cached: {cached}");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_stream_of_events_arrives_event_by_event() {
    let gate = Gate::new("the second event");
    let stream = || {
        reply(200)
            .header("content-type", "text/event-stream")
            .cache("no-store")
            .chunk("data: one\n\n")
            .then_wait(&gate)
            .chunk("data: two\n\n")
    };
    let origin = Origin::new().on("/events", stream()).start().await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let mut client = edge.client.connect().await;
        client.write("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until("data: one\n\n").await;
        gate.release();
        client.read_until("data: two\n\n").await;
        drop(client);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_websocket_passes_through_both_ways() {
    let origin = Origin::new().on("/ws", origin::upgrade()).start().await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let mut client = edge.client.connect().await;
        client
            .write(
                "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        let head = String::from_utf8(client.read_until("\r\n\r\n").await).expect("text");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client.write("ping").await;
        client.read_until("ping").await;
        drop(client);
        edge.finish().await;
    }
}

#[tokio::test]
async fn another_upgrade_than_a_websocket_never_reaches_an_instance() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    edge.request("GET", "/a").header("connection", "upgrade").header("upgrade", "h2c").send().await;
    assert!(origin.requests().iter().all(|r| r.header("upgrade").is_none()));
    edge.finish().await;
}

#[tokio::test]
async fn request_content_arrives_whole_in_either_framing() {
    let origin = Origin::new().on("*", origin::echo()).start().await;
    let edge = Edge::serving(&origin).start().await;
    let content = "z".repeat(200_000);
    edge.request("POST", "/a").body(content.clone()).send().await.expect(200);
    assert_eq!(origin.last("/a").body, content.as_bytes());
    let pieces: Vec<Vec<u8>> = content.as_bytes().chunks(7_001).map(<[u8]>::to_vec).collect();
    edge.request("POST", "/b").chunks(pieces).send().await.expect(200);
    assert_eq!(origin.last("/b").body, content.as_bytes());
    assert_eq!(origin.violations(), Vec::<String>::new());
    edge.finish().await;
}

#[tokio::test]
async fn an_http_1_0_client_is_answered_in_its_own_way() {
    let chunked = || reply(200).cache("no-store").chunk("one ").chunk("two");
    let origin = Origin::new().on("/a", chunked()).start().await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let answer =
            String::from_utf8(edge.client.raw("GET /a HTTP/1.0\r\nHost: a\r\n\r\n").await).expect("text");
        assert!(answer.ends_with("\r\n\r\none two"), "no chunks: {answer}");
        assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_broken_answer_is_502_and_a_cut_one_is_cut_for_the_client() {
    let origin = Origin::new()
        .on("/garbage", origin::raw("this is not HTTP\r\n\r\n"))
        .on("/lengths", origin::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"))
        .on("/coding", origin::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"))
        .on("/cut", reply(200).body("a part").truncated(100))
        .on("/cut-chunks", reply(200).chunk("a part").then_hang_up())
        .start()
        .await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for target in ["/garbage", "/lengths", "/coding"] {
            let answer = edge.get(target).await;
            assert_eq!(answer.status, 502, "{target}, cached: {cached}");
            assert_eq!(answer.header("server"), None);
        }
        for target in ["/cut", "/cut-chunks"] {
            let answer = edge.get(target).await;
            assert!(answer.truncated.is_some(), "{target}, cached: {cached}: {answer:?}");
        }
        edge.finish().await;
    }
}
