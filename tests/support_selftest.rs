//! The test kit does what it says: a specification is worth as much as the tools it is written with.
#![cfg(feature = "server")]

mod support;

mod wire {
    use crate::support::wire::*;

    async fn read(bytes: &[u8], length: Option<Length>) -> Result<(Head, Content), Broken> {
        let mut reader = Reader::new(bytes);
        let (_, head) = reader.head().await?;
        let length = length.or(announced(&head.fields, 1)?).unwrap_or(Length::None);
        let mut content = Content::default();
        reader.content(length, &mut content).await?;
        Ok((head, content))
    }

    #[tokio::test]
    async fn well_formed_messages_are_read_as_they_are() {
        let (head, content) =
            read(b"GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nx-two:  a  b \r\n\r\n", None).await.unwrap();
        assert_eq!(head.start, "GET / HTTP/1.1");
        assert_eq!(head.fields[1..], [("X-Empty".into(), String::new()), ("x-two".into(), "a  b".into())]);
        assert_eq!(content, Content::default());

        let chunked = b"X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;a=b\r\nde\r\n0\r\nt: 1\r\n\r\n";
        let (_, content) = read(chunked, None).await.unwrap();
        assert_eq!(content.bytes, b"abcde");
        assert_eq!(content.chunks, [3, 2]);
        assert_eq!(content.trailers, [("t".to_string(), "1".to_string())]);
    }

    #[tokio::test]
    async fn what_breaks_the_grammar_is_refused() {
        let table: &[&[u8]] = &[
            b"X\nHost: a\r\n\r\n",
            b"X\r\nHost : a\r\n\r\n",
            b"X\r\n folded: a\r\n\r\n",
            b"X\r\nno colon\r\n\r\n",
            b"X\r\n: no name\r\n\r\n",
            b"X\r\na: b\0c\r\n\r\n",
            b"X\r\na: b\nc: d\r\n\r\n",
            b"X\r\na: b\rc\r\n\r\n",
            b"X\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            b"X\r\nContent-Length: 1, 1\r\n\r\na",
            b"X\r\nContent-Length: +1\r\n\r\na",
            b"X\r\nContent-Length:\r\n\r\n",
            b"X\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nbad trailer\r\n\r\n",
        ];
        for bytes in table {
            let read = read(bytes, None).await;
            assert!(matches!(read, Err(Broken::Malformed(_))), "{}: {read:?}", show(bytes));
        }
    }

    #[tokio::test]
    async fn an_end_within_a_message_is_told_from_an_end_before_it() {
        assert_eq!(read(b"", None).await, Err(Broken::Ended));
        for cut in [
            &b"GET / HT"[..],
            b"X\r\nContent-Length: 5\r\n\r\nabc",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
            b"X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n",
        ] {
            let read = read(cut, None).await;
            assert!(matches!(read, Err(Broken::Cut(_))), "{}: {read:?}", show(cut));
        }
    }
}

mod gate {
    use crate::support::gate::Gate;

    #[tokio::test]
    async fn whoever_waits_is_seen_and_goes_on_when_the_gate_opens() {
        let gate = Gate::new("g");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.wait().await }
        });
        gate.arrived(1).await;
        assert!(!waiting.is_finished());
        gate.release();
        waiting.await.unwrap();
        gate.wait().await;
        gate.arrived(2).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain for gate 'never' to be opened")]
    async fn a_gate_nobody_opens_fails_the_test_and_says_which() {
        Gate::new("never").wait().await;
    }
}

mod origin {
    use crate::support::client::Client;
    use crate::support::gate::Gate;
    use crate::support::origin::*;
    use crate::support::wire::Length;

    async fn serving(reply: Reply) -> (Origin, Client) {
        let origin = Origin::new().on("/a", reply).start().await;
        let client = Client::new(origin.address());
        (origin, client)
    }

    #[tokio::test]
    async fn a_scripted_answer_is_given_and_the_request_recorded() {
        let (origin, client) = serving(reply(200).cache("max-age=1").header("X-B", "2").body("v1")).await;
        let answer = client.get("/a").header("X-A", "1").await.expect(200).body("v1").with("x-b", "2");
        assert_eq!(
            answer.fields,
            [
                ("cache-control".to_string(), "max-age=1".to_string()),
                ("X-B".into(), "2".into()),
                ("content-length".into(), "2".into()),
            ]
        );

        let request = origin.last("/a");
        let host = origin.address().to_string();
        assert_eq!(
            request.raw_head,
            format!("GET /a HTTP/1.1\r\nHost: {host}\r\nX-A: 1\r\n\r\n").into_bytes()
        );
        assert_eq!(request.fields, [("Host".to_string(), host), ("X-A".into(), "1".into())]);
        assert_eq!((&*request.method, &*request.target, request.complete), ("GET", "/a", true));
        origin.finish().await;
    }

    #[tokio::test]
    async fn the_most_exact_script_wins_and_scripts_change_while_it_runs() {
        let origin = Origin::new()
            .on("*", reply(200).body("any"))
            .on("/a/*", reply(200).body("prefix"))
            .on("/a/b", reply(200).body("path"))
            .on("/a/b?q=1", reply(200).body("target"))
            .on_request("/who", |request| reply(200).body(request.header("x-user").unwrap_or("nobody")))
            .on_each("/turns", vec![reply(503), reply(200).body("then")])
            .start()
            .await;
        let client = Client::new(origin.address());
        for (target, body) in
            [("/", "any"), ("/a/c", "prefix"), ("/a/b", "path"), ("/a/b?q=2", "path"), ("/a/b?q=1", "target")]
        {
            client.get(target).await.expect(200).body(body);
        }
        client.get("/who").header("X-User", "ann").await.body("ann");
        client.get("/turns").await.expect(503);
        client.get("/turns").await.expect(200).body("then");
        client.get("/turns").await.expect(200).body("then");
        origin.set("/a/b", reply(204));
        client.get("/a/b").await.expect(204);
        assert_eq!((origin.hits("/a/b"), origin.hits("/a/b?q=1"), origin.hits("/never")), (4, 1, 0));
        client.get("/unknown").await.body("any");
        origin.finish().await;

        let empty = Origin::new().start().await;
        Client::new(empty.address()).get("/a").await.expect(404).body("");
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_its_number_recorded() {
        let (origin, client) = serving(reply(200).body("x")).await;
        let mut kept = client.connect().await;
        kept.get("/a").await.expect(200);
        kept.get("/a").await.expect(200);
        client.get("/a").await.expect(200);
        let numbers: Vec<usize> = origin.requests().iter().map(|request| request.connection).collect();
        assert_eq!(numbers, [0, 0, 1]);
        assert_eq!(origin.connections(), 2);
        kept.get("/a").header("Connection", "close").await.expect(200);
        kept.expect_close().await;
    }

    #[tokio::test]
    async fn bodies_reach_it_under_a_length_or_in_chunks() {
        let (origin, client) = serving(reply(200)).await;
        client.request("POST", "/a").body("hello").await.expect(200);
        assert_eq!(origin.last("/a").body, b"hello");
        client.request("POST", "/a").chunks(["he", "llo"]).await.expect(200);
        let request = origin.last("/a");
        assert_eq!((&*request.body, &*request.chunks, request.complete), (&b"hello"[..], &[2, 3][..], true));
    }

    #[tokio::test]
    async fn an_unfinished_body_stays_incomplete_on_record_and_is_no_violation() {
        let (origin, client) = serving(reply(200)).await;
        let mut connection = client.connect().await;
        connection.write("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
        connection.finish_writing().await;
        connection.expect_close().await;
        let request = origin.last("/a");
        assert_eq!((&*request.body, request.complete), (&b"abc"[..], false));
        origin.finish().await;
    }

    #[tokio::test]
    async fn malformed_requests_are_refused_and_fail_the_test_at_the_end() {
        for bytes in [
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "G@T /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\nrest of something",
        ] {
            let (origin, client) = serving(reply(200)).await;
            let mut connection = client.connect().await;
            connection.write(bytes).await;
            connection.finish_writing().await;
            let said = String::from_utf8(connection.read_to_close().await).unwrap();
            assert!(said.contains("HTTP/1.1 400"), "{bytes:?}: {said:?}");
            assert_eq!(origin.violations().len(), 1, "{bytes:?}");
            let finished = tokio::spawn(origin.finish()).await;
            assert!(finished.is_err(), "{bytes:?} is let pass");
        }
    }

    #[tokio::test]
    async fn chunks_are_sent_as_scripted_and_wait_for_their_gates() {
        let gate = Gate::new("second chunk");
        let script =
            reply(200).chunk("data: 1\n\n").then_wait(&gate).chunk("data: 2\n\n").trailer("x-end", "1");
        let (origin, client) = serving(script).await;
        let mut connection = client.connect().await;
        connection.write(client.get("/a").to_bytes()).await;
        connection.read_until("data: 1\n\n").await;
        gate.arrived(1).await;
        gate.release();
        let rest = connection.read_until("0\r\nx-end: 1\r\n\r\n").await;
        assert!(rest.ends_with(b"\r\n9\r\ndata: 2\n\n\r\n0\r\nx-end: 1\r\n\r\n"), "{rest:?}");

        let answer = client.get("/a").await.expect(200).body("data: 1\n\ndata: 2\n\n");
        assert_eq!(answer.chunks, [9, 9]);
        assert_eq!(answer.trailers, [("x-end".to_string(), "1".to_string())]);
        origin.finish().await;
    }

    #[tokio::test]
    async fn a_gated_answer_is_held_while_its_request_is_already_on_record() {
        let gate = Gate::new("answer");
        let (origin, client) = serving(reply(200).gate(&gate).body("x")).await;
        let asked = tokio::spawn(client.get("/a").send());
        origin.wait_for_hits("/a", 1).await;
        gate.arrived(1).await;
        assert!(!asked.is_finished());
        gate.release();
        asked.await.unwrap().expect(200);
    }

    #[tokio::test]
    async fn every_way_an_answer_can_end_badly_is_seen_by_the_client() {
        let table = [
            ("Content-Length with less", reply(200).body("abc").truncated(5)),
            ("chunks without a last one", reply(200).chunk("abc").truncated(0)),
            ("reset within chunks", reply(200).chunk("abc").then_reset()),
        ];
        for (name, script) in table {
            let (_origin, client) = serving(script).await;
            let answer = client.get("/a").await;
            assert!(answer.truncated.is_some(), "{name}: {answer:?}");
        }
        for (name, script) in
            [("reset", reset()), ("hang up", hang_up()), ("not HTTP", raw("SSH-2.0-x\r\n\r\n"))]
        {
            let (origin, client) = serving(script).await;
            assert!(client.get("/a").try_send().await.is_err(), "{name}");
            assert_eq!(origin.hits("/a"), 1, "{name}");
        }
    }

    #[tokio::test]
    async fn a_reset_is_a_reset_and_not_an_end() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (origin, _) = serving(reset()).await;
        let mut stream = tokio::net::TcpStream::connect(origin.address()).await.unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let ended = stream.read(&mut [0; 1]).await.map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_hanging_origin_says_nothing_and_keeps_the_connection() {
        let (origin, client) = serving(hang()).await;
        let mut connection = client.connect().await;
        connection.write(client.get("/a").to_bytes()).await;
        origin.wait_for_requests(1).await;
        origin.stop().await;
        connection.expect_close().await;
    }

    #[tokio::test]
    async fn content_can_end_with_the_connection() {
        let (_origin, client) = serving(reply(200).body("abc").until_close()).await;
        let answer = client.get("/a").await.expect(200).body("abc").without("content-length");
        assert_eq!(answer.length, Length::UntilClose);
    }

    #[tokio::test]
    async fn raw_bytes_are_sent_verbatim() {
        let odd = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc";
        let (_origin, client) = serving(raw(odd)).await;
        assert_eq!(client.raw(client.get("/a").to_bytes()).await, odd.as_bytes());
        assert!(client.get("/a").try_send().await.is_err());
    }

    #[tokio::test]
    async fn informational_answers_come_first() {
        let script = reply(200).after_informational(103, &[("link", "</a.css>")]).body("x");
        let (_origin, client) = serving(script).await;
        let answer = client.get("/a").await.expect(200);
        assert_eq!(answer.informational, [(103, vec![("link".to_string(), "</a.css>".to_string())])]);

        let answer =
            client.request("POST", "/a").header("Expect", "100-continue").body("b").await.expect(200);
        assert_eq!(answer.informational.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [100, 103]);
    }

    #[tokio::test]
    async fn no_content_follows_a_head_request_or_a_304() {
        let (_origin, client) = serving(reply(200).body("abc")).await;
        let mut connection = client.connect().await;
        connection.request("HEAD", "/a").await.expect(200).body("").with("content-length", "3");
        connection.get("/a").await.expect(200).body("abc");

        let (_origin, client) = serving(reply(304).header("etag", "\"1\"").body("abc")).await;
        client.get("/a").await.expect(304).body("").without("content-length");
    }

    #[tokio::test]
    async fn an_early_answer_does_not_wait_for_the_body() {
        let (origin, client) = serving(reply(413).early()).await;
        let mut connection = client.connect().await;
        connection.write("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
        connection.read_answer("POST").await.expect(413);
        assert!(!origin.last("/a").complete);
    }

    #[tokio::test]
    async fn echo_gives_the_request_back() {
        let (origin, client) = serving(echo()).await;
        let answer = client.request("POST", "/a").body("xyz").await.expect(200);
        assert_eq!(answer.body, [&origin.last("/a").raw_head[..], b"xyz"].concat());
    }

    #[tokio::test]
    async fn an_upgraded_connection_gives_every_byte_back() {
        let (origin, client) = serving(upgrade()).await;
        let mut connection = client.connect().await;
        let ask = client.get("/a").header("Connection", "Upgrade").header("Upgrade", "websocket");
        connection.write(ask.to_bytes()).await;
        connection
            .read_answer("GET")
            .await
            .expect(101)
            .with("upgrade", "websocket")
            .with("connection", "Upgrade");
        connection.write(b"\x81\x05hello").await;
        assert_eq!(connection.read_until("hello").await, b"\x81\x05hello");
        connection.finish_writing().await;
        connection.expect_close().await;
        assert_eq!(origin.last("/a").body, b"\x81\x05hello");
        origin.finish().await;
    }

    #[tokio::test]
    async fn a_stopped_origin_refuses_and_cuts_and_comes_back_on_its_port() {
        let (origin, client) = serving(reply(200).body("x")).await;
        let mut kept = client.connect().await;
        kept.get("/a").await.expect(200);
        origin.stop().await;
        kept.expect_close().await;
        assert!(client.try_connect().await.is_err());
        origin.restart().await;
        client.get("/a").await.expect(200).body("x");
        origin.restart().await;
        client.get("/a").await.expect(200);
        assert_eq!(origin.hits("/a"), 3);
    }

    #[tokio::test]
    async fn a_panic_within_a_script_fails_the_test_at_the_end() {
        let origin = Origin::new().on_request("/a", |_| panic!("script")).start().await;
        assert!(Client::new(origin.address()).get("/a").try_send().await.is_err());
        assert!(tokio::spawn(origin.finish()).await.unwrap_err().is_panic());
    }
}

mod client {
    use crate::support::client::Client;
    use crate::support::free_address;
    use crate::support::origin::*;

    #[tokio::test]
    async fn hosts_and_fields_are_sent_as_told() {
        let client = Client::new(free_address()).with_host("a.example");
        let ask = client.request("PURGE", "*").header("X", "1").header("x", "2");
        assert_eq!(ask.to_bytes(), b"PURGE * HTTP/1.1\r\nHost: a.example\r\nX: 1\r\nx: 2\r\n\r\n");
        assert_eq!(client.get("/").host("b").to_bytes(), b"GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!(client.get("/").without_host().to_bytes(), b"GET / HTTP/1.1\r\n\r\n");
    }

    #[tokio::test]
    async fn an_absent_server_is_an_error_and_no_panic_when_asked_so() {
        let client = Client::new(free_address());
        assert!(client.get("/").try_send().await.is_err());
        assert!(tokio::spawn(client.get("/").send()).await.is_err());
    }

    #[tokio::test]
    async fn the_raw_answer_is_kept() {
        let origin = Origin::new().on("/a", reply(200).chunk("abc").close()).start().await;
        let client = Client::new(origin.address());
        let answer = client.get("/a").await.expect(200).body("abc");
        assert_eq!(answer.raw, client.raw(client.get("/a").to_bytes()).await);
        assert!(answer.raw.ends_with(b"3\r\nabc\r\n0\r\n\r\n"));
    }

    #[tokio::test]
    async fn expectations_fail_when_they_are_not_met() {
        let status = "vanne; hit; ttl=30, origin; fwd=miss";
        let script = reply(200).header("Cache-Status", status).body("abc");
        let origin =
            Origin::new().on("/a", script).on("/cut", reply(200).body("abc").truncated(1)).start().await;
        let client = Client::new(origin.address());
        let answer = client
            .get("/a")
            .await
            .expect(200)
            .body("abc")
            .cache("hit")
            .cache("vanne; ttl; fwd=miss")
            .without("age");
        assert_eq!(answer.cache_status(), status);

        type Expectation = fn(crate::support::client::Answer) -> crate::support::client::Answer;
        let unmet: [Expectation; 7] = [
            |answer| answer.expect(404),
            |answer| answer.body("ab"),
            |answer| answer.cache("stale"),
            |answer| answer.cache("hit; ttl=3"),
            |answer| answer.cache("miss"),
            |answer| answer.with("cache-status", "vanne"),
            |answer| answer.without("cache-status"),
        ];
        for (index, expectation) in unmet.into_iter().enumerate() {
            let answer = answer.clone();
            let checked = tokio::spawn(async move { expectation(answer) }).await;
            assert!(checked.is_err(), "expectation {index} is met");
        }
        let cut = client.get("/cut").await;
        assert!(
            tokio::spawn(async move { cut.expect(200) }).await.is_err(),
            "a cut answer is as good as a whole one"
        );
    }
}

mod real_redis {
    use crate::support::redis::{Redis, Value};

    #[tokio::test]
    async fn a_real_server_serves_dies_and_comes_back_empty_on_its_port() {
        let mut redis = Redis::start().await;
        let url = redis.url();
        assert_eq!(redis.command(&["SET", "k", "v", "PX", "60000"]).await, Value::Simple("OK".into()));
        assert_eq!(redis.get("k").await, Some(b"v".to_vec()));
        assert_eq!(redis.keys("*").await, ["k"]);
        assert!((1..=60_000).contains(&redis.ttl_ms("k").await));
        redis.overwrite("k", b"other\0\r\n").await;
        assert_eq!(redis.get("k").await, Some(b"other\0\r\n".to_vec()));
        assert!(redis.ttl_ms("k").await > 0, "overwriting keeps the time to live");
        assert_eq!(redis.ttl_ms("none").await, -2);
        assert!(matches!(redis.command(&["GET"]).await, Value::Error(_)));

        redis.kill();
        assert!(tokio::net::TcpStream::connect(redis.address()).await.is_err());
        redis.start_again().await;
        assert_eq!(redis.url(), url);
        assert_eq!(redis.get("k").await, None);
        redis.command(&["SET", "k", "v"]).await;
        redis.flush().await;
        assert_eq!(redis.keys("*").await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_paused_server_answers_late() {
        let redis = Redis::start().await;
        redis.pause();
        let asked = redis.get("k");
        tokio::pin!(asked);
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut asked).await;
        assert!(early.is_err(), "a stopped process answered");
        redis.resume();
        assert_eq!(asked.await, None);
    }

    #[tokio::test]
    async fn it_is_gone_when_dropped() {
        let redis = Redis::start().await;
        let address = redis.address();
        drop(redis);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}

mod fake_redis {
    use std::time::Duration;

    use redis::aio::MultiplexedConnection;
    use redis::{AsyncCommands, ProtocolVersion, RedisError};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use crate::support::fake_redis::{FakeRedis, Mode};

    /// The client that the gateway uses.
    async fn client(fake: &FakeRedis, version: ProtocolVersion) -> Result<MultiplexedConnection, RedisError> {
        let info: redis::ConnectionInfo = redis::IntoConnectionInfo::into_connection_info(fake.url())?;
        let settings = info.redis_settings().clone().set_protocol(version);
        redis::Client::open(info.set_redis_settings(settings))?.get_multiplexed_async_connection().await
    }

    async fn connected(fake: &FakeRedis) -> MultiplexedConnection {
        client(fake, ProtocolVersion::RESP2).await.expect("a connection to the fake")
    }

    #[tokio::test]
    async fn it_serves_the_gateways_own_client_in_both_versions_of_the_protocol() {
        for version in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
            let fake = FakeRedis::start().await;
            let mut redis = client(&fake, version).await.unwrap();
            let _: () = redis.pset_ex("k", b"v\0\r\n".as_slice(), 5000).await.unwrap();
            let got: Option<Vec<u8>> = redis.get("k").await.unwrap();
            assert_eq!(got.as_deref(), Some(&b"v\0\r\n"[..]));
            let none: Option<Vec<u8>> = redis.get("other").await.unwrap();
            assert_eq!(none, None);
            let left: i64 = redis.pttl("k").await.unwrap();
            assert_eq!(left, 5000);
            let pair: (i64, Option<String>) = redis::pipe()
                .atomic()
                .cmd("DEL")
                .arg("k")
                .cmd("GET")
                .arg("k")
                .query_async(&mut redis)
                .await
                .unwrap();
            assert_eq!(pair, (1, None));
            assert!(fake.count("CLIENT") >= 2, "the client introduces itself: {:?}", fake.commands());
        }
    }

    #[tokio::test]
    async fn set_obeys_its_options() {
        let fake = FakeRedis::start().await;
        let mut redis = connected(&fake).await;
        for (command, answer, value) in [
            ("SET k 1 NX PX 10", Some("OK"), Some("1")),
            ("SET k 2 NX", None, Some("1")),
            ("SET k 3 XX EX 2", Some("OK"), Some("3")),
            ("SET none 4 XX", None, None),
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            let said: Option<String> =
                redis::cmd("SET").arg(&words[1..]).query_async(&mut redis).await.unwrap();
            assert_eq!(said.as_deref(), answer, "{command}");
            assert_eq!(fake.value(words[1]).as_deref(), value.map(str::as_bytes), "{command}");
        }
        for wrong in ["SET k 1 PX", "SET k 1 PX 0", "SET k 1 WHAT", "LPUSH k 1"] {
            let words: Vec<&str> = wrong.split(' ').collect();
            let said: Result<(), _> = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut redis).await;
            assert!(said.is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn refusing_modes_refuse_what_the_real_server_would() {
        let fake = FakeRedis::start().await;
        fake.put("k", b"v");
        let mut redis = connected(&fake).await;
        for (mode, code, reads) in
            [(Mode::Loading, "LOADING", false), (Mode::ReadOnly, "READONLY", true), (Mode::Full, "OOM", true)]
        {
            fake.set(mode.clone());
            let wrote: Result<(), RedisError> = redis.set("k", "w").await;
            let error = wrote.unwrap_err();
            assert!(format!("{error:?}").to_ascii_uppercase().contains(code), "{mode:?}: {error:?}");
            assert_eq!(redis.get::<_, String>("k").await.is_ok(), reads, "{mode:?}");
            assert!(client(&fake, ProtocolVersion::RESP2).await.is_ok(), "{mode:?} greets");
        }
        fake.set(Mode::Serve);
        assert_eq!(redis.get::<_, String>("k").await.unwrap(), "v", "no refused write took place");
    }

    #[tokio::test]
    async fn a_lie_is_served_to_readers_and_changes_nothing() {
        let fake = FakeRedis::start().await;
        fake.put("k", b"truth");
        let mut redis = connected(&fake).await;
        fake.set(Mode::Lie(b"lie".to_vec()));
        assert_eq!(redis.get::<_, String>("k").await.unwrap(), "lie");
        assert_eq!(redis.get::<_, String>("never set").await.unwrap(), "lie");
        fake.set(Mode::Serve);
        assert_eq!(redis.get::<_, String>("k").await.unwrap(), "truth");
    }

    #[tokio::test]
    async fn a_hung_server_answers_in_order_once_it_goes_on() {
        let fake = FakeRedis::start().await;
        fake.put("a", b"1");
        fake.put("b", b"2");
        let redis = connected(&fake).await;
        fake.set(Mode::Hang);
        let ask = |key: &'static str| {
            let mut redis = redis.clone();
            tokio::spawn(async move {
                let asked = redis.get::<_, String>(key);
                tokio::time::timeout(Duration::from_secs(10), asked).await.expect("an answer in the end").ok()
            })
        };
        let (a, b) = (ask("a"), ask("b"));
        fake.wait_for("GET", 1).await;
        assert!(!a.is_finished() && !b.is_finished());
        fake.set(Mode::Serve);
        // The client's own limit may strike first on a slow machine; a wrong answer it never is.
        assert!(matches!(a.await.unwrap().as_deref(), None | Some("1")));
        assert!(matches!(b.await.unwrap().as_deref(), None | Some("2")));
    }

    #[tokio::test]
    async fn broken_answers_are_broken_on_the_wire() {
        let fake = FakeRedis::start().await;
        fake.put("k", b"0123456789");
        let ask = async || {
            let mut stream = TcpStream::connect(fake.address()).await.unwrap();
            let asked = stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").await;
            asked.map_err(|error| error.kind())?;
            let mut said = [0; 1024];
            let count = stream.read(&mut said).await.map_err(|error| error.kind())?;
            let end = if count > 0 && said[0] == b'$' { stream.read(&mut [0; 1]).await.ok() } else { None };
            Ok::<_, std::io::ErrorKind>((said[..count].to_vec(), end))
        };
        fake.set(Mode::HalfReply);
        assert_eq!(ask().await, Ok((b"$10\r\n012".to_vec(), Some(0))));
        fake.set(Mode::Garbage);
        let (said, _) = ask().await.unwrap();
        assert!(said.starts_with(b"\x16\x03\x01"), "{said:?}");
        fake.set(Mode::Reset);
        assert_eq!(ask().await, Err(std::io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_reset_strikes_open_connections_at_once() {
        let fake = FakeRedis::start().await;
        let mut stream = TcpStream::connect(fake.address()).await.unwrap();
        stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 7);
        fake.set(Mode::Reset);
        let ended = stream.read(&mut [0; 1]).await.map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_stopped_fake_refuses_and_comes_back_with_its_data() {
        let fake = FakeRedis::start().await;
        fake.put("k", b"v");
        let mut redis = connected(&fake).await;
        fake.stop().await;
        assert!(redis.get::<_, String>("k").await.is_err());
        assert!(TcpStream::connect(fake.address()).await.is_err());
        fake.restart().await;
        assert_eq!(connected(&fake).await.get::<_, String>("k").await.unwrap(), "v");
        assert_eq!(fake.keys(), ["k"]);
    }
}

mod process {
    use crate::support::free_address;
    use crate::support::origin::{Origin, reply};
    use crate::support::process::Program;

    fn shell(script: &str) -> Program {
        Program::new("sh").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn its_end_and_its_words_are_seen() {
        let mut process = shell("echo out; echo err >&2; exit 3").start().await;
        assert_eq!(process.wait().await.code(), Some(3));
        process.wait_for_stderr("err\n").await;
        process.wait_for_stdout("out\n").await;
        assert!(process.has_ended());
    }

    #[tokio::test]
    async fn it_gets_its_arguments_its_environment_and_its_files() {
        let program = shell("cat \"$0\"; echo $SAID; echo ${REDIS_URL:-none}; pwd");
        let file = program.file("a.toml", "text = 1\n");
        let mut process = program.arg(&file).env("SAID", "yes").start().await;
        assert!(process.wait().await.success());
        let folder = process.folder().canonicalize().unwrap();
        process.wait_for_stdout(&format!("text = 1\nyes\nnone\n{}\n", folder.display())).await;
    }

    #[tokio::test]
    async fn signals_reach_it() {
        let waiting = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        let mut process = shell(waiting).start().await;
        process.wait_for_stdout("ready").await;
        assert!(!process.has_ended());
        process.signal("TERM");
        assert_eq!(process.wait().await.code(), Some(7));
        process.wait_for_stdout("told").await;
    }

    #[tokio::test]
    async fn it_is_killed_when_dropped() {
        let process = shell("echo ready; exec sleep 60").start().await;
        process.wait_for_stdout("ready").await;
        let id = process.id();
        drop(process);
        let alive =
            std::process::Command::new("sh").args(["-c", &format!("kill -0 {id} 2>/dev/null")]).status();
        assert!(!alive.unwrap().success());
    }

    #[tokio::test]
    async fn it_is_started_when_its_admin_listener_says_so() {
        let origin = Origin::new().on_each("/readyz", vec![reply(503), reply(503), reply(200)]).start().await;
        let process = shell("exec sleep 60").ready_at(origin.address()).start().await;
        assert_eq!(origin.hits("/readyz"), 3);
        drop(process);
    }

    #[tokio::test]
    async fn an_end_before_it_is_ready_fails_the_test_with_its_words() {
        let started = tokio::spawn(shell("echo why >&2; exit 78").ready_at(free_address()).start());
        assert!(started.await.is_err_and(|error| error.is_panic()));
    }
}
