//! Messages that are well formed each, and meant to be taken for others: upgrades that are none, answers that come early, content where there is none.

use crate::edge::Edge;
use crate::support::origin::{Origin, Request, raw, reply};

async fn telling() -> Origin {
    let own = |request: &Request| {
        reply(200).cache("no-store").body(format!("{} {}", request.method, request.target))
    };
    Origin::new().on_request("*", own).start().await
}

/// Nothing smuggled reached the instance as a request, and another user gets his own.
async fn unharmed(edge: &Edge, origin: &Origin, what: &str) {
    assert!(
        origin.requests().iter().all(|request| !request.target.contains("smuggled")),
        "{what}: smuggled: {:?}",
        origin.requests().iter().map(|request| request.target.clone()).collect::<Vec<_>>()
    );
    for number in 0..3 {
        let target = format!("/own-{number}");
        edge.get(&target).await.expect(200).body(format!("GET {target}"));
    }
}

#[tokio::test]
async fn an_upgrade_that_is_none_opens_no_tunnel() {
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len();
    let upgrade = format!("Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}");
    let heads = [
        (format!("GET /ws HTTP/1.1\r\n{upgrade}\r\nContent-Length: {length}\r\n\r\n"), ""),
        (format!("POST /ws HTTP/1.1\r\n{upgrade}\r\nContent-Length: {length}\r\n\r\n"), ""),
        (
            format!("GET /ws HTTP/1.1\r\n{upgrade}\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n"),
            "\r\n0\r\n\r\n",
        ),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}\r\n\r\n"), ""),
        (
            format!(
                "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {length}\r\n\r\n"
            ),
            "",
        ),
    ];
    for cached in [false, true] {
        for (head, rest) in &heads {
            // The instance does not switch: it answers like any other server.
            let origin = telling().await;
            let edge = Edge::serving(&origin);
            let edge = if cached { edge } else { edge.without_cache() }.start().await;
            let mut connection = edge.client.connect().await;
            connection.write(format!("{head}{smuggled}{rest}")).await;
            let _ = connection.try_read_answer("GET").await;
            // What comes after it is content, or the connection is over; or it is a request of its own, and judged as one.
            let _ = connection.try_write(b"\r\n\x00\xff not HTTP at all\r\n\r\n").await;
            drop(connection);
            let reached =
                origin.requests().into_iter().filter(|request| request.target == "/smuggled").count();
            let pipelined = head.ends_with("==\r\n\r\n");
            assert!(reached == 0 || pipelined, "cached: {cached}: {head}");
            edge.get("/own").await.expect(200).body("GET /own");
            edge.finish().await;
            origin.finish().await;
        }
    }
}

#[tokio::test]
async fn what_is_left_of_an_upload_that_was_answered_early_is_never_a_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for cached in [false, true] {
        for (head, rest) in [
            (format!("Content-Length: {}", smuggled.len()), smuggled.to_owned()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
            ),
            (format!("Expect: 100-continue\r\nContent-Length: {}", smuggled.len()), smuggled.to_owned()),
        ] {
            let own = |request: &Request| match request.target.as_str() {
                "/early" => reply(403).cache("no-store").body("no").early(),
                _ => reply(200).cache("no-store").body(format!("{} {}", request.method, request.target)),
            };
            let origin = Origin::new().on_request("*", own).start().await;
            let edge = Edge::serving(&origin);
            let edge = if cached { edge } else { edge.without_cache() }.start().await;
            let mut connection = edge.client.connect().await;
            connection.write(format!("POST /early HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).await;
            let _ = connection.try_read_answer("POST").await;
            let _ = connection.try_write(rest.as_bytes()).await;
            let _ = connection.try_write(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let _ = connection.try_read_answer("GET").await;
            unharmed(&edge, &origin, &head).await;
            edge.finish().await;
            origin.finish().await;
        }
    }
}

#[tokio::test]
async fn content_where_none_may_be_answers_nobody_else() {
    let inner = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for (method, head) in [
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        (
            "HEAD",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
                inner.len()
            ),
        ),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{inner}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        ("GET", format!("HTTP/1.1 100 Continue\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        ("GET", format!("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n{inner}")),
        ("OPTIONS", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{inner}")),
        ("GET", format!("HTTP/1.1 205 Reset Content\r\n\r\n{inner}")),
    ] {
        for cached in [false, true] {
            let origin = Origin::new()
                .on("/hostile", raw(head.clone()))
                .on_request("/*", |request: &Request| {
                    reply(200).cache("no-store").body(format!("{} {}", request.method, request.target))
                })
                .start()
                .await;
            let edge = Edge::serving(&origin);
            let edge = if cached { edge } else { edge.without_cache() };
            let edge = edge.upstream("read_timeout = \"500ms\"").start().await;
            let mut connection = edge.client.connect().await;
            let _ = connection.request(method, "/hostile").try_send().await;
            for number in 0..4 {
                let target = format!("/own-{number}");
                let answer = edge.get(&target).await;
                assert!(
                    answer.text() == format!("GET {target}") || answer.status >= 500,
                    "{method} {head:?}, cached: {cached}: {}",
                    answer.text()
                );
                assert!(!answer.text().contains("smuggled"), "{method} {head:?}, cached: {cached}");
            }
            edge.finish().await;
            origin.finish().await;
        }
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_ends_and_is_not_taken_for_the_answer() {
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(2000);
    for cached in [false, true] {
        let origin = Origin::new()
            .on("/flood", raw(format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")))
            .on("*", reply(200).cache("no-store").body("own"))
            .start()
            .await;
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let answer = edge.get("/flood").await;
        assert!(
            answer.status == 502 || (answer.status == 200 && answer.text() == "well"),
            "{}",
            answer.status
        );
        edge.get("/own").await.expect(200).body("own");
        edge.finish().await;
        origin.finish().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_told_to_close_serves_nothing_more() {
    let origin = telling().await;
    for cached in [false, true] {
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for close in [
            "Connection: close",
            "Connection: CLOSE",
            "Connection: keep-alive, close",
            "Connection: x\r\nConnection: close",
            "Connection: close, keep-alive",
        ] {
            let said = edge
                .client
                .raw(format!("GET /first HTTP/1.1\r\nHost: a\r\n{close}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let said = String::from_utf8_lossy(&said).into_owned();
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{close}: {said}");
        }
        unharmed(&edge, &origin, "after a close").await;
        edge.finish().await;
    }
}

#[tokio::test]
async fn after_a_refusal_nothing_on_its_connection_is_read_as_a_request() {
    let origin = telling().await;
    let edge = Edge::serving(&origin).start().await;
    for refused in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 3\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let said = edge.client.raw(format!("{refused}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{refused}: {said}");
    }
    unharmed(&edge, &origin, "after refusals").await;
    edge.finish().await;
}

#[tokio::test]
async fn methods_are_read_as_they_are_written() {
    let origin = Origin::new()
        .on_request("*", |request: &Request| reply(200).cache("max-age=600").body(request.method.clone()))
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    // A method in another case is another method (RFC 9110 §9.1): it is never answered from what GET stored.
    for method in
        ["GET", "get", "Get", "GETS", "GE", "HEADER", "QUERY", "PROPFIND", "PURGE", "BAN", "OPTIONS"]
    {
        let answer = edge.request(method, "/a").send().await.expect(200);
        assert_eq!(answer.text(), method);
    }
    edge.get("/a").await.expect(200).body("GET");
    edge.finish().await;
}
