//! Requests made to be stored under another's key, or to have something stored that does not belong there.

use crate::edge::Edge;
use crate::support::origin::{Origin, Request, reply};

/// An origin whose answers say what it was asked, and may all be stored.
async fn telling() -> Origin {
    let own = |request: &Request| {
        let host = request.header("host").unwrap_or("none");
        reply(200).cache("max-age=600").body(format!("{} {host}{}", request.method, request.target))
    };
    Origin::new().on_request("*", own).start().await
}

/// What an instance is asked for a target, when nothing is cached.
async fn plainly(plain: &Edge, target: &str) -> Option<String> {
    let answer = plain.get(target).await;
    (answer.status == 200).then(|| answer.text())
}

#[tokio::test]
async fn no_spelling_of_a_target_gets_what_another_one_means() {
    let targets = [
        "/a",
        "//a",
        "/a/",
        "/a//",
        "/./a",
        "/b/../a",
        "/%61",
        "/a?",
        "/a?x",
        "/a?x=",
        "/a?x=1",
        "/a?X=1",
        "/a?x=1&y=2",
        "/a?y=2&x=1",
        "/a?x=1&x=2",
        "/a?x=2&x=1",
        "/a?x=1&",
        "/a?&x=1",
        "/a?x=1;y=2",
        "/a?x=1%26y=2",
        "/a?x=%31",
        "/a?x=1%00",
        "/a?x+1",
        "/a?x%20=1",
        "/a?x[]=1",
        "/a?utm_source=1",
        "/a?utm_source=2",
        "/a;x",
        "/a;x=1",
        "/a;x=1?x=1",
        "/a%3bx",
        "/a%3Bx",
        "/a%3fx=1",
        "/a%3Fx=1",
        "/a%23",
        "/a%2f",
        "/a%2F",
        "/a%2fb",
        "/a/b",
        "/a%5c",
        "/a%5C",
        "/a%20",
        "/a%09",
        "/a%0a",
        "/a%0d%0a",
        "/a%25",
        "/a%2500",
        "/a.css",
        "/a/x.css",
        "/a/;x.css",
        "/a;x.css",
        "/a%3b.css",
        "/a%0ax.css",
        "/a%2e",
        "/a.",
        "/A",
        "/%41",
        "/a%c3%a4",
        "/a%C3%A4",
        "/a%e4",
        "/a~",
        "/a%7e",
        "/a%7E",
        "/a!",
        "/a%21",
        "/a'",
        "/a%27",
        "/a(b)",
        "/a%28b%29",
        "/a*",
        "/a%2a",
        "/a:",
        "/a%3a",
        "/a@",
        "/a%40",
        "/a=b",
        "/a%3db",
        "/a,b",
        "/a%2cb",
        "/a+b",
        "/a%2bb",
        "/a$b",
        "/a%24b",
        "/a&b",
        "/a%26b",
        "/static/../a",
        "/static/..%2fa",
        "/a/..%2fb",
        "/a%2f..%2fb",
        "/a/%2e%2e/b",
        "/b",
    ];
    let origin = telling().await;
    let plain = Edge::serving(&origin).without_cache().start().await;
    for long_way in [false, true] {
        let edge = Edge::serving(&origin).start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        // All are stored first; then each must still get its own.
        for target in targets {
            edge.get(target).await;
        }
        for target in targets {
            let answer = edge.get(target).await;
            let got = (answer.status == 200).then(|| answer.text());
            assert_eq!(got, plainly(&plain, target).await, "{target}, long way: {long_way}");
        }
        edge.finish().await;
    }
    plain.finish().await;
}

#[tokio::test]
async fn no_host_gets_what_another_one_was_told() {
    let hosts = [
        "a.test",
        "A.test",
        "a.test.",
        "a.test:80",
        "a.test:8080",
        "b.test",
        "a.test:443",
        "a-test",
        "aa.test",
        "127.0.0.1",
        "127.1",
        "[::1]",
        "[::1]:80",
        "[0:0:0:0:0:0:0:1]",
        "xn--a.test",
        "a.test:08080",
    ];
    let origin = telling().await;
    let plain = Edge::serving(&origin).without_cache().start().await;
    for long_way in [false, true] {
        let edge = Edge::serving(&origin).start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        for _ in 0..2 {
            for host in hosts {
                let (got, own) = (
                    edge.request("GET", "/").host(host).send().await,
                    plain.request("GET", "/").host(host).send().await,
                );
                assert_eq!(got.status, own.status, "{host}");
                if own.status != 200 {
                    continue;
                }
                let same_site =
                    |text: String| text.replace(":80/", "/").replace("a.test./", "a.test/").to_lowercase();
                assert_eq!(same_site(got.text()), same_site(own.text()), "{host}, long way: {long_way}");
            }
        }
        edge.finish().await;
    }
    plain.finish().await;
}

#[tokio::test]
async fn an_absolute_target_is_stored_under_the_host_it_names() {
    let origin = telling().await;
    let edge = Edge::serving(&origin).start().await;
    for (line, host) in [
        ("GET http://a.test/x HTTP/1.1", "a.test"),
        ("GET HTTP://A.TEST/x HTTP/1.1", "a.test"),
        ("GET /x HTTP/1.1", "a.test"),
        ("GET http://b.test/x HTTP/1.1", "b.test"),
    ] {
        let said = edge.client.raw(format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.ends_with(&format!("GET {host}/x")), "{line}: {said}");
    }
    let said =
        edge.client.raw("GET http://b.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert!(said.starts_with(b"HTTP/1.1 400 "));
    edge.finish().await;
}

/// Fields by which a client may try to have something stored that others then get.
const ODD: [(&str, &str); 30] = [
    ("Range", "bytes=0-0"),
    ("Range", "bytes=-1"),
    ("Range", "bytes=9-"),
    ("Range", "bytes=0-0,2-2"),
    ("If-Range", "\"x\""),
    ("If-None-Match", "*"),
    ("If-None-Match", "\"v\""),
    ("If-Match", "\"other\""),
    ("If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT"),
    ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:01 GMT"),
    ("Expect", "100-continue"),
    ("X-HTTP-Method-Override", "HEAD"),
    ("X-Method-Override", "DELETE"),
    ("X-HTTP-Method", "POST"),
    ("Upgrade", "h2c"),
    ("Connection", "Host"),
    ("Connection", "X-Mark"),
    ("Connection", "Cache-Control, Age"),
    ("Cache-Control", "no-store"),
    ("Cache-Control", "max-age=0, no-transform"),
    ("Pragma", "no-cache"),
    ("Age", "99999999"),
    ("Vary", "*"),
    ("Set-Cookie", "a=b"),
    ("Content-Type", "text/evil"),
    ("Accept", "text/evil"),
    ("X-Forwarded-Host", "evil.test"),
    ("Forwarded", "host=evil.test"),
    ("Max-Forwards", "0"),
    ("X-Long", "y"),
];

#[tokio::test]
async fn whatever_the_first_to_ask_sends_the_next_gets_the_whole_of_his_own() {
    let own = |request: &Request| {
        // An instance that obeys what reaches it, as far as it may.
        if request.headers("range").len() == 1 {
            return reply(206).header("Content-Range", "bytes 0-0/5").cache("max-age=600").body("w");
        }
        if request.header("if-none-match") == Some("*") || request.header("if-modified-since").is_some() {
            return reply(304).header("ETag", "\"v\"").cache("max-age=600");
        }
        if request.header("if-match").is_some() || request.header("if-unmodified-since").is_some() {
            return reply(412).cache("max-age=600").body("precondition");
        }
        if request.header("x-long").is_some_and(|value| value.len() > 8000) {
            return reply(431).body("too long");
        }
        reply(200).header("ETag", "\"v\"").cache("max-age=600").body("whole")
    };
    let origin = Origin::new().on_request("*", own).start().await;
    for long_way in [false, true] {
        let edge = Edge::serving(&origin).cache("ttl = \"1h\"").start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        let long = "y".repeat(20_000);
        for (number, (name, value)) in ODD.iter().enumerate() {
            for method in ["GET", "HEAD", "OPTIONS", "POST"] {
                let target = format!("/{long_way}-{number}-{method}");
                let value = if *name == "X-Long" { long.as_str() } else { value };
                let first = edge.request(method, &target).header(name, value).send().await;
                assert!(first.status < 500, "{method} {name}: {value}: {}", first.status);
                for _ in 0..2 {
                    let next = edge.get(&target).await.expect(200).body("whole");
                    assert!(next.header("content-range").is_none(), "{method} {name}: {value}");
                }
            }
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_error_that_one_request_provoked_is_not_everybodys() {
    // With a ttl for what says nothing: statuses that tell of the one request are not stored for all.
    for status in
        [400, 401, 403, 406, 408, 409, 411, 412, 413, 415, 416, 417, 422, 428, 429, 431, 500, 502, 503, 504]
    {
        let own = move |request: &Request| match request.header("x-provoke") {
            Some(_) => reply(status).body("provoked"),
            None => reply(200).body("well"),
        };
        let origin = Origin::new().on_request("*", own).start().await;
        let edge = Edge::serving(&origin).cache("ttl = \"1h\"").start().await;
        edge.request("GET", "/").header("X-Provoke", "1").send().await;
        edge.get("/").await.expect(200).body("well");
        edge.finish().await;
        origin.finish().await;
    }
}

#[tokio::test]
async fn a_private_page_under_a_public_looking_name_stays_private() {
    let own = |request: &Request| {
        let user = request.header("cookie").or(request.header("authorization")).unwrap_or("nobody");
        reply(200).cache("private").header("Set-Cookie", "seen=1").body(format!("page of {user}"))
    };
    let origin = Origin::new().on_request("*", own).start().await;
    let edge = Edge::serving(&origin).cache("ttl = \"1h\"").start().await;
    for target in [
        "/account",
        "/account/x.css",
        "/account;x.css",
        "/account%3bx.js",
        "/account%2fx.png",
        "/account?x.css",
        "/account.css",
        "/static/..%2faccount",
        "/account%0ax.css",
        "/account%23x.css",
    ] {
        for (name, value) in [("Cookie", "session=alice"), ("Authorization", "Bearer alice")] {
            edge.request("GET", target).header(name, value).send().await;
            let other = edge.request("GET", target).header(name, "session=bob").send().await;
            assert!(!other.text().contains("alice"), "{target}: {}", other.text());
            assert!(!edge.get(target).await.text().contains("alice"), "{target}");
        }
    }
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_cannot_put_a_line_of_its_own_into_anothers_answer() {
    use crate::support::origin::raw;
    for (what, head) in [
        (
            "a second answer in the content",
            "Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        ),
        (
            "a second answer after none",
            "Content-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        ),
        ("after a 304", "ETag: \"1\"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"),
        ("a return within a value", "X: a\rSet-Cookie: smuggled=1\r\nContent-Length: 3\r\n\r\nabc"),
        ("a zero byte", "X: a\0b\r\nContent-Length: 3\r\n\r\nabc"),
        (
            "chunks after a length",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 smuggled\r\n\r\n",
        ),
    ] {
        let status = if what == "after a 304" { "304 Not Modified" } else { "200 OK" };
        let message = format!("HTTP/1.1 {status}\r\nCache-Control: max-age=600\r\n{head}");
        for cached in [false, true] {
            let origin = Origin::new()
                .on("/hostile", raw(message.clone()))
                .on_request("*", |request: &Request| reply(200).body(request.target.clone()))
                .start()
                .await;
            let edge = Edge::serving(&origin);
            let edge = if cached { edge } else { edge.without_cache() }.start().await;
            let mut connection = edge.client.connect().await;
            let first = connection.get("/hostile").try_send().await;
            if let Ok(first) = &first {
                let raw = String::from_utf8_lossy(&first.raw).into_owned();
                assert!(
                    !raw.contains("\r\nset-cookie: smuggled") && !first.text().contains("smuggled"),
                    "{what}: {raw}"
                );
            }
            for number in 0..5 {
                let target = format!("/own-{number}");
                edge.get(&target).await.expect(200).body(&target);
            }
            edge.finish().await;
            origin.finish().await;
        }
    }
}
