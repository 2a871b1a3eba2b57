//! HTTP/2: the same judgement and the same answers as HTTP/1, and what only HTTP/2 can get wrong.

use bytes::Bytes;
use h2::Reason;

use crate::edge::{Configuration, Edge, secs};
use crate::support::client;
use crate::support::gate::Gate;
use crate::support::http2::{
    self, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, End, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    fields,
};
use crate::support::origin::{Origin, reply};
use crate::support::secured::{Authority, Files};
use crate::support::{poll_until, within};

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "edge.test"), (":path", "/")];

/// A gateway that speaks HTTP/2 without TLS on its first listener, and HTTP/1 on its second.
fn plain(origin: &Origin, lines: &str) -> Configuration {
    Edge::serving(origin)
        .listen(&format!("http = \"http2\"\n{lines}"))
        .also("[listen.one]\naddr = \"127.0.0.1:0\"")
}

fn http1(edge: &Edge) -> client::Client {
    client::Client::new(edge.address(1)).with_host("edge.test")
}

async fn connected(edge: &Edge) -> Client {
    within("a connection", Client::connect(edge.address(0))).await
}

/// Somebody else is still served.
async fn others_are_served(edge: &Edge) {
    connected(edge).await.get("/other").await.expect(200);
}

async fn echo() -> Origin {
    Origin::new().on("*", reply(200).cache("no-store").body("hello")).start().await
}

#[tokio::test]
async fn an_instance_of_http1_gets_a_request_of_http1() {
    let origin = echo().await;
    for cached in [false, true] {
        let edge = plain(&origin, "");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let client = connected(&edge).await;
        let request = client.request("GET", "/a/%7Eb?q=1").header("cookie", "a=1").header("cookie", "b=2");
        let answer = client.send(request.header("te", "trailers"), None).await.expect(200).body("hello");
        let got = origin.last("/a/~b?q=1");
        assert_eq!(got.headers("host"), ["edge.test"]);
        assert_eq!(got.headers("cookie"), ["a=1; b=2"]);
        assert_eq!(got.headers("via"), ["2 vanne"]);
        assert_eq!(got.headers("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(got.headers("x-forwarded-proto"), ["http"]);
        for name in ["transfer-encoding", "content-length", "connection", "upgrade"] {
            assert_eq!(got.header(name), None, "{name}");
        }
        assert!(answer.header("x-request-id").is_some() && answer.header("date").is_some());
        for name in ["connection", "transfer-encoding", "keep-alive"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn content_goes_up_under_its_length_or_in_chunks() {
    let origin = echo().await;
    let edge = plain(&origin, "").start().await;
    let client = connected(&edge).await;
    let large = vec![b'x'; 700_000];
    for (body, length) in
        [(&b"hello"[..], true), (b"hello", false), (&large, true), (&large, false), (b"", false)]
    {
        let mut request = client.request("POST", "/up");
        if length {
            request = request.header("content-length", body.len());
        }
        client.send(request, Some(body)).await.expect(200).body("hello");
        let got = origin.last("/up");
        assert!(got.body == body, "{} bytes of {}", got.body.len(), body.len());
        assert_eq!(got.header("content-length").is_some(), length, "{}", body.len());
    }
    edge.finish().await;
}

#[tokio::test]
async fn what_is_stored_is_served_to_both() {
    let origin = Origin::new().start().await;
    let edge = plain(&origin, "").start().await;
    let then = vanne::cache::date::format(edge.now().minus(secs(100)));
    let then = then.as_str();
    let stored = reply(200).header("date", then).header("etag", "\"1\"").cache("max-age=999999");
    origin.set("*", stored.body("stored"));
    let client = connected(&edge).await;
    let first = client.get("/a").await.expect(200).body("stored").cache("fwd=uri-miss");
    assert_eq!(first.header("date"), Some(then));
    let hit = client.get("/a").await.expect(200).body("stored").cache("hit");
    assert_eq!(hit.header("date"), Some(then));
    assert!(hit.header("age").is_some());
    http1(&edge).get("/a").await.expect(200).body("stored").cache("hit");
    http1(&edge).get("/b").await.expect(200);
    client.get("/b").await.expect(200).cache("hit");
    // Conditions, ranges and HEAD, as over HTTP/1.
    let asked = client.request("GET", "/a").header("if-none-match", "\"1\"");
    client.send(asked, None).await.expect(304).body("");
    let asked = client.request("GET", "/a").header("range", "bytes=1-2");
    client.send(asked, None).await.expect(206).body("to");
    let head = client.send(client.request("HEAD", "/a"), None).await.expect(200).body("");
    assert_eq!(head.header("content-length"), Some("6"));
    assert_eq!(origin.requests().len(), 2);
    edge.finish().await;
}

#[tokio::test]
async fn requests_of_both_for_one_missing_answer_are_one_fetch() {
    let gate = Gate::new("the gate");
    let origin = Origin::new().on("*", reply(200).cache("max-age=60").body("one").gate(&gate)).start().await;
    let edge = plain(&origin, "").start().await;
    let client = connected(&edge).await;
    let two: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("/a").await })
        })
        .collect();
    origin.wait_for_requests(1).await;
    let one = tokio::spawn({
        let client = http1(&edge);
        async move { client.get("/a").await }
    });
    poll_until("all to be in flight", || async { edge.metric("vanne_requests_in_flight") == Some(6.0) })
        .await;
    gate.release();
    for answer in two {
        answer.await.unwrap().expect(200).body("one");
    }
    one.await.unwrap().expect(200).body("one");
    assert_eq!(origin.requests().len(), 1);
    edge.finish().await;
}

#[tokio::test]
async fn an_answer_that_ends_too_early_ends_visibly() {
    let origin =
        Origin::new().on("*", reply(200).cache("max-age=60").body("0123456789").truncated(6)).start().await;
    for cached in [false, true] {
        let edge = plain(&origin, "");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let client = connected(&edge).await;
        let answer = client.get("/a").await;
        assert_eq!(answer.status, 200);
        assert!(answer.cut.is_some_and(|reason| reason != Reason::NO_ERROR), "{answer:?}");
        // The connection goes on.
        assert!(client.get("/a").await.cut.is_some());
        edge.finish().await;
    }
}

#[tokio::test]
async fn malformed_requests_end_alone_and_reach_no_instance() {
    let origin = echo().await;
    let edge = plain(&origin, "").start().await;
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let without = |name: &str| GET.iter().filter(|(n, _)| *n != name).copied().collect::<Vec<_>>();
    let instead = |name: &'static str, value: &'static str| {
        GET.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect::<Vec<_>>()
    };
    let after = |more: &[(&'static str, &'static str)]| [&GET[..3], more, &GET[3..]].concat();
    let mut cases = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no authority and no host", without(":authority")),
        ("two methods", with(&[(":method", "GET")])),
        ("two paths", with(&[(":path", "/admin")])),
        ("two authorities", after(&[(":authority", "other.test")])),
        ("an unknown pseudo-field", after(&[(":user", "x")])),
        ("a status", after(&[(":status", "200")])),
        ("a pseudo-field after a field", after(&[("x", "y")])),
        ("an empty path", instead(":path", "")),
        ("a path without its slash", instead(":path", "a")),
        ("an absolute path", instead(":path", "http://other.test/")),
        ("a space in the path", instead(":path", "/a b")),
        ("a line in the path", instead(":path", "/ HTTP/1.1\r\nX: y")),
        ("a backslash in the path", instead(":path", "/a\\b")),
        ("dots above the root", instead(":path", "/../a")),
        ("NUL in the path", instead(":path", "/%00")),
        ("a scheme of another kind", instead(":scheme", "ftp")),
        ("a scheme with an address", instead(":scheme", "https://other.test/?")),
        ("a method with a line", instead(":method", "GET / HTTP/1.1\r\nX: y")),
        ("a method with a space", instead(":method", "GET /admin")),
        ("an authority with a user", instead(":authority", "user@edge.test")),
        ("an authority with a line", instead(":authority", "edge.test\r\nX: y")),
        ("an authority with a path", instead(":authority", "edge.test/a")),
        ("an empty authority", instead(":authority", "")),
        ("another host", with(&[("host", "other.test")])),
        ("two hosts", with(&[("host", "edge.test"), ("host", "edge.test")])),
        ("an upper-case name", with(&[("X-Upper", "y")])),
        ("a name with a space", with(&[("x y", "z")])),
        ("a name with a colon", with(&[("x:y", "z")])),
        ("a name with a line", with(&[("x\r\ny", "z")])),
        ("an empty name", with(&[("", "z")])),
        ("a line in a value", with(&[("x", "y\r\nz: 1")])),
        ("a line feed in a value", with(&[("x", "y\nz")])),
        ("NUL in a value", with(&[("x", "y\0z")])),
        ("white space before a value", with(&[("x", " y")])),
        ("white space after a value", with(&[("x", "y ")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("te that is not trailers", with(&[("te", "gzip")])),
        ("a length that is none", with(&[("content-length", "x")])),
        ("a signed length", with(&[("content-length", "+0")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")])),
        ("a length without content", with(&[("content-length", "5")])),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "edge.test:443")]),
        ("TRACE", instead(":method", "TRACE")),
        ("an unknown expectation", with(&[("expect", "cake")])),
    ];
    cases.push(("the whole server by GET", instead(":path", "*")));
    for (what, list) in cases {
        let mut raw = Raw::connect(edge.address(0)).await;
        raw.frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&list)).await;
        let end = raw.end_of(1).await;
        let refused = match &end {
            End::Status(status) => status.starts_with('4'),
            End::Reset(code) => *code == u32::from(Reason::PROTOCOL_ERROR),
            End::GoAway(code) => {
                *code == u32::from(Reason::PROTOCOL_ERROR) || *code == u32::from(Reason::COMPRESSION_ERROR)
            }
            End::Closed => false,
        };
        assert!(refused, "{what}: {end:?}");
        let reached: Vec<_> =
            origin.requests().into_iter().filter(|request| request.target != "/after").collect();
        assert!(reached.is_empty(), "{what} reached the instance: {reached:?}");
        if matches!(end, End::Status(_) | End::Reset(_)) {
            raw.frame(HEADERS, END_STREAM | END_HEADERS, 3, &fields(&instead(":path", "/after"))).await;
            assert_eq!(raw.end_of(3).await, End::Status("200".into()), "after {what}");
        }
    }
    edge.finish().await;
}

#[tokio::test]
async fn a_length_that_lies_ends_the_request_and_nothing_is_finished() {
    let origin = echo().await;
    let edge = plain(&origin, "").without_cache().start().await;
    let post = |length: &'static str| {
        let list = [(":method", "POST"), (":scheme", "http"), (":authority", "edge.test"), (":path", "/")];
        fields(&[&list[..], &[("content-length", length)]].concat())
    };
    for (length, content) in [("3", &b"12345"[..]), ("10", b"12345")] {
        let mut raw = Raw::connect(edge.address(0)).await;
        raw.frame(HEADERS, END_HEADERS, 1, &post(length)).await;
        raw.frame(DATA, END_STREAM, 1, content).await;
        let end = raw.end_of(1).await;
        assert!(
            matches!(&end, End::Reset(1)) || matches!(&end, End::Status(s) if s == "400"),
            "{length}: {end:?}"
        );
        raw.frame(HEADERS, END_STREAM | END_HEADERS, 3, &fields(&GET)).await;
        assert_eq!(raw.end_of(3).await, End::Status("200".into()));
    }
    let whole = origin.requests().into_iter().filter(|request| request.method == "POST" && request.complete);
    assert_eq!(whole.count(), 0);
    edge.finish().await;
}

#[tokio::test]
async fn floods_of_frames_that_bring_nothing_end_the_connection() {
    let origin = echo().await;
    let edge = plain(&origin, "http2 = { max_control_frames = 50 }").start().await;
    let settings = http2::frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
    let floods: [(&str, Vec<u8>); 6] = [
        ("pings", http2::frame(PING, 0, 0, &[0; 8]).repeat(200)),
        ("settings", settings.repeat(200)),
        ("empty content", {
            let head = http2::frame(HEADERS, END_HEADERS, 1, &fields(&GET));
            [head, http2::frame(DATA, 0, 1, b"").repeat(200)].concat()
        }),
        ("priorities", http2::frame(2, 0, 1, &[0, 0, 0, 0, 9]).repeat(200)),
        ("unknown frames", http2::frame(0x77, 0, 0, b"").repeat(200)),
        ("resets", {
            let pair = |i: u32| {
                let head = http2::frame(HEADERS, END_STREAM | END_HEADERS, 2 * i + 1, &fields(&GET));
                [head, http2::frame(RST_STREAM, 0, 2 * i + 1, &[0, 0, 0, 8])].concat()
            };
            (0..200).flat_map(pair).collect()
        }),
    ];
    let mut count = 0.0;
    for (what, bytes) in floods {
        let mut raw = Raw::connect(edge.address(0)).await;
        raw.write(&bytes).await;
        let code = raw.goaway().await;
        let calm = u32::from(Reason::ENHANCE_YOUR_CALM);
        assert!(code.is_none() || code == Some(calm), "{what}: {code:?}");
        count += 1.0;
        others_are_served(&edge).await;
    }
    let refused = edge.metric("vanne_refused_total{reason=\"flood\"}").unwrap();
    assert!(refused >= count - 1.0, "{refused} of {count}");
    edge.finish().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection() {
    let origin = echo().await;
    let edge = plain(&origin, "header_timeout = \"200ms\"").start().await;
    // One that goes on for ever.
    let mut endless = Raw::connect(edge.address(0)).await;
    endless.frame(HEADERS, 0, 1, &fields(&GET)).await;
    for _ in 0..200 {
        endless.frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(1000))])).await;
    }
    assert!(endless.goaway().await.is_none_or(|code| code != 0));
    // One that stops.
    let mut halted = Raw::connect(edge.address(0)).await;
    halted.frame(HEADERS, 0, 1, &fields(&GET)).await;
    assert!(halted.goaway().await.is_none_or(|code| code == u32::from(Reason::ENHANCE_YOUR_CALM)));
    // One that stops within a frame, and one that says nothing at all.
    let mut halved = Raw::connect(edge.address(0)).await;
    halved.write(&[0, 0, 8, PING]).await;
    assert!(halved.goaway().await.is_none_or(|code| code != 0));
    let mut silent = Raw::silent(edge.address(0)).await;
    while silent.read().await.is_some() {}
    others_are_served(&edge).await;
    assert!(origin.requests().iter().all(|request| request.target == "/other"));
    edge.finish().await;
}

#[tokio::test]
async fn limits_of_the_listener_hold() {
    let origin = echo().await;
    let lines = "max_header_size = \"2KiB\"\nmax_header_fields = 10\nmax_body_size = \"1KiB\"";
    let edge = plain(&origin, lines).start().await;
    let client = connected(&edge).await;
    let long = client.request("GET", "/").header("x", "y".repeat(1800));
    client.send(long, None).await.expect(200);
    let longer = client.request("GET", "/").header("x", "y".repeat(2200));
    client.send(longer, None).await.expect(431);
    let many = |count: usize| {
        (0..count).fold(client.request("GET", "/"), |request, i| request.header(format!("x-{i}"), "y"))
    };
    client.send(many(10), None).await.expect(200);
    client.send(many(11), None).await.expect(431);
    client.send(client.request("POST", "/"), Some(&[b'x'; 1024])).await.expect(200);
    let measured = client.request("POST", "/").header("content-length", 1025);
    client.send(measured, Some(&[b'x'; 1025])).await.expect(413);
    let unmeasured = client.try_send(client.request("POST", "/"), Some(&[b'x'; 1025])).await;
    assert_eq!(unmeasured.expect("an answer").status, 413);
    assert!(edge.metric("vanne_refused_total{reason=\"head-too-large\"}").unwrap() >= 1.0);
    edge.finish().await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_may_be_tried_again() {
    let gate = Gate::new("the gate");
    let origin = Origin::new().on("/held", reply(200).cache("no-store").body("x").gate(&gate));
    let origin = origin.on("*", reply(200).body("x")).start().await;
    let edge = plain(&origin, "http2 = { max_streams = 2 }").without_cache().start().await;
    let mut raw = Raw::connect(edge.address(0)).await;
    let held: Vec<_> = GET.iter().map(|(n, v)| (*n, if *n == ":path" { "/held" } else { *v })).collect();
    for stream in [1, 3] {
        raw.frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(&held)).await;
    }
    origin.wait_for_requests(2).await;
    raw.frame(HEADERS, END_STREAM | END_HEADERS, 5, &fields(&GET)).await;
    assert_eq!(raw.end_of(5).await, End::Reset(u32::from(Reason::REFUSED_STREAM)));
    gate.release();
    assert_eq!(raw.end_of(3).await, End::Status("200".into()));
    edge.finish().await;
}

#[tokio::test]
async fn a_client_that_neither_sends_nor_takes_is_given_up_and_others_are_not() {
    let large = "x".repeat(400_000);
    let origin = Origin::new().on("/large", reply(200).cache("no-store").body(large.as_str()));
    let origin = origin.on("*", reply(200).cache("no-store").body("x")).start().await;
    let lines = "read_timeout = \"200ms\"\nwrite_timeout = \"200ms\"\nmin_rate = \"1KiB\"";
    let edge = plain(&origin, lines).without_cache().start().await;
    let client = connected(&edge).await;
    // Content that does not come.
    let (response, stream) = client.begin(client.request("POST", "/up"), false).await.unwrap();
    match within("an end", response).await {
        Ok(response) => assert_eq!(response.status(), 408),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    drop(stream);
    // An answer that is not taken: the window stays shut.
    let (response, _) = client.begin(client.request("GET", "/large"), true).await.unwrap();
    let (_, mut body) = within("a head", response).await.unwrap().into_parts();
    let mut taken = 0;
    let cut = within("the stream to be given up", async {
        loop {
            match body.data().await {
                Some(Ok(data)) => taken += data.len(),
                Some(Err(error)) => break error,
                None => panic!("{taken} bytes, and a clean end"),
            }
        }
    })
    .await;
    assert!(cut.is_reset() && taken < 400_000, "{cut} after {taken}");
    // What it holds of the connection's window is given back.
    let _ = body.flow_control().release_capacity(taken);
    drop(body);
    client.get("/other").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn content_that_nobody_takes_is_held_back() {
    let gate = Gate::new("the gate");
    let origin =
        Origin::new().on("*", reply(200).cache("no-store").body("x").early().gate(&gate)).start().await;
    let edge = plain(&origin, "http2 = { stream_window = \"64KiB\", connection_window = \"128KiB\" }")
        .upstream("write_timeout = \"500ms\"")
        .without_cache()
        .start()
        .await;
    let client = connected(&edge).await;
    let (response, mut stream) = client.begin(client.request("POST", "/up"), false).await.unwrap();
    const ALL: usize = 64 * 1024 * 1024;
    stream.reserve_capacity(ALL);
    let mut sent = 0;
    // What is sent fills buffers on the way, and no more.
    loop {
        let room = tokio::time::timeout(
            std::time::Duration::from_millis(300),
            std::future::poll_fn(|cx| stream.poll_capacity(cx)),
        );
        let Ok(Some(Ok(room))) = room.await else { break };
        stream.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
        sent += room;
        stream.reserve_capacity(ALL - sent);
        assert!(sent < ALL / 2, "nothing held it back");
    }
    gate.release();
    drop((stream, response));
    edge.finish().await;
}

#[tokio::test]
async fn a_connection_at_rest_is_told_to_go() {
    let origin = echo().await;
    let edge = plain(&origin, "idle_timeout = \"200ms\"").start().await;
    let mut raw = Raw::connect(edge.address(0)).await;
    raw.frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&GET)).await;
    assert_eq!(raw.end_of(1).await, End::Status("200".into()));
    assert_eq!(raw.goaway().await, Some(0));
    while raw.read().await.is_some() {}
    edge.finish().await;
}

#[tokio::test]
async fn after_its_last_request_a_connection_is_told_to_go() {
    let origin = echo().await;
    let edge = plain(&origin, "keepalive_requests = 2").start().await;
    let mut raw = Raw::connect(edge.address(0)).await;
    raw.frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&GET)).await;
    assert_eq!(raw.end_of(1).await, End::Status("200".into()));
    raw.frame(HEADERS, END_STREAM | END_HEADERS, 3, &fields(&GET)).await;
    assert_eq!(raw.goaway().await, Some(0));
    assert_eq!(raw.end_of(3).await, End::Status("200".into()));
    while raw.read().await.is_some() {}
    edge.finish().await;
}

#[tokio::test]
async fn a_drain_lets_streams_end() {
    let gate = Gate::new("the gate");
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("whole").gate(&gate)).start().await;
    let edge = plain(&origin, "").start().await;
    let client = connected(&edge).await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.get("/a").await }
    });
    origin.wait_for_requests(1).await;
    let drained = tokio::spawn(edge.finish());
    let later = client.clone();
    poll_until("no more to be taken", || async {
        later.begin(later.request("GET", "/late"), true).await.is_err() || origin.requests().len() > 1
    })
    .await;
    gate.release();
    asked.await.unwrap().expect(200).body("whole");
    within("the drain", drained).await.unwrap();
}

#[tokio::test]
async fn a_client_that_gives_up_frees_its_instance() {
    let gate = Gate::new("the gate");
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("x").gate(&gate)).start().await;
    let edge = plain(&origin, "").without_cache().start().await;
    let mut raw = Raw::connect(edge.address(0)).await;
    raw.frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&GET)).await;
    origin.wait_for_requests(1).await;
    assert_eq!(edge.in_flight(), [1]);
    raw.frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]).await;
    poll_until("the instance to be free", || async { edge.in_flight() == [0] }).await;
    gate.release();
    edge.finish().await;
}

#[tokio::test]
async fn pieces_arrive_as_they_are_made() {
    let gate = Gate::new("the gate");
    let events = reply(200).header("content-type", "text/event-stream").cache("no-store");
    let origin = Origin::new()
        .on("*", events.chunk("data: 1\n\n").then_wait(&gate).chunk("data: 2\n\n"))
        .start()
        .await;
    let edge = plain(&origin, "").start().await;
    let client = connected(&edge).await;
    let (response, _) = client.begin(client.request("GET", "/events"), true).await.unwrap();
    let (head, mut body) = within("a head", response).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(within("the first", body.data()).await.unwrap().unwrap(), "data: 1\n\n");
    gate.release();
    assert_eq!(within("the second", body.data()).await.unwrap().unwrap(), "data: 2\n\n");
    // The end may come as a frame of its own.
    while let Some(rest) = within("the end", body.data()).await {
        assert!(rest.unwrap().is_empty());
    }
    edge.finish().await;
}

#[tokio::test]
async fn http2_is_spoken_over_tls_with_whom_wants_it() {
    let (root, files) = (Authority::new("Test Root"), Files::new());
    files.pair("site", &root.issue(&["edge.test"]));
    let origin = echo().await;
    let tls = format!("tls = {{ certificates = [{}], hsts = {{}} }}", files.entry("site"));
    let edge = Edge::serving(&origin).listen(&tls).start().await;
    let both = root.trust(|context| context.set_alpn_protos(b"\x02h2\x08http/1.1").unwrap());
    let client = Client::connect_tls(edge.address(0), &both, "edge.test").await;
    let answer = client.get("/a").await.expect(200).body("hello");
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(origin.last("/a").header("x-forwarded-proto"), Some("https"));
    let refused = client.send(client.request("TRACE", "/"), None).await.expect(405);
    assert!(refused.header("allow").is_some());
    assert_eq!(refused.header("strict-transport-security"), Some("max-age=31536000"));
    // Who offers nothing, or HTTP/1 alone, speaks that.
    edge.client.over_tls(root.trust(|_| {}), "edge.test").get("/b").await.expect(200);
    edge.finish().await;

    let only = Edge::serving(&origin).listen(&format!("{tls}\nhttp = \"http1\"")).start().await;
    let client = only.client.over_tls(both.clone(), "edge.test");
    client.get("/c").await.expect(200);
    only.finish().await;
}

#[tokio::test]
async fn stored_answers_grow_old_over_http2_too() {
    let origin = Origin::new().on("*", reply(200).cache("max-age=60").body("x")).start().await;
    let edge = plain(&origin, "").start().await;
    let client = connected(&edge).await;
    client.get("/a").await.expect(200);
    edge.grow_older(secs(10));
    assert_eq!(client.get("/a").await.expect(200).cache("hit").header("age"), Some("10"));
    edge.grow_older(secs(100));
    client.get("/a").await.expect(200).cache("fwd=stale");
    edge.finish().await;
}
