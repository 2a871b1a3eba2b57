//! What a 304 changes of a stored answer (RFC 9111 §3.2, §4.3.4).

use super::Bench;

#[tokio::test]
async fn every_field_is_updated_but_those_of_the_stored_content_and_of_one_hop() {
    let updated = [
        "Test-Header",
        "X-Test-Header",
        "Content-Foo",
        "X-Content-Foo",
        "Content-Type",
        "Content-Language",
        "Content-Location",
        "Content-MD5",
        "Content-Security-Policy",
        "Clear-Site-Data",
        "Link",
        "Public-Key-Pins",
        "Server",
        "Strict-Transport-Security",
        "X-Frame-Options",
        "X-XSS-Protection",
    ];
    let bench = Bench::new().await;
    let target = bench.target();
    let lines = |value: &str| updated.iter().map(|name| format!("{name}: {value}\n")).collect::<String>();
    let head = "cache-control: max-age=100\netag: \"a\"\n";
    bench.answer(&target, 200, &format!("{head}{}x-kept: 1\nx-twice: 1\nx-twice: 2", lines("old")), "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(150);
    let more = "x-added: 1\nx-twice: 3\nx-twice: 4\nkeep-alive: x\nconnection: x-hop\nx-hop: 1\ncontent-encoding: gzip\ncontent-range: bytes 0-1/2";
    bench.answer(&target, 304, &format!("{head}{}{more}", lines("new")), "");
    let served = bench.get(&target, "").await.expect(200).body("v1").cache("fwd=stale; fwd-status=304");
    let stored = bench.get(&target, "").await.expect(200).body("v1").cache("hit; ttl=100");
    for found in [served, stored] {
        for name in updated {
            assert_eq!(found.headers(name), ["new"], "{name}");
        }
        assert_eq!(found.headers("x-twice"), ["3", "4"]);
        assert_eq!(found.headers("content-length"), ["2"]);
        let found = found.with("x-kept", "1").with("x-added", "1").with("etag", "\"a\"");
        let found = found.without("x-hop").without("keep-alive").without("content-encoding");
        found.without("content-range");
    }
    bench.finish().await;
}

#[tokio::test]
async fn freshness_is_that_of_the_304() {
    let bench = Bench::new().await;
    for (second, later, hit) in [
        ("cache-control: max-age=1000", 900, true),
        ("cache-control: max-age=1000", 1100, false),
        ("cache-control: max-age=1", 50, false),
        ("", 90, true),
        ("", 150, false),
        ("age: 50", 60, false),
        ("age: 50", 40, true),
        ("date: {i-50}", 60, false),
        ("cache-control: no-cache", 0, false),
    ] {
        let target = bench.target();
        bench.answer(&target, 200, "cache-control: max-age=100\netag: \"a\"", "v1");
        bench.get(&target, "").await.expect(200);
        bench.later(150);
        bench.answer(&target, 304, second, "");
        bench.get(&target, "").await.expect(200).body("v1").cache("fwd-status=304");
        bench.later(later);
        let found = bench.get(&target, "").await.expect(200).body("v1");
        assert_eq!(found.cache_status().contains("hit"), hit, "{second:?} {later}: {}", found.cache_status());
    }
    bench.finish().await;
}

#[tokio::test]
async fn expires_and_date_of_a_304_replace_the_stored_ones() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "expires: {i+100}\ndate: {i+0}\nlast-modified: {i-1000}", "v1");
    let first = bench.get(&target, "").await.expect(200);
    bench.later(150);
    bench.answer(&target, 304, "expires: {i+100}\ndate: {i+0}\nlast-modified: {i-1150}", "");
    let second = bench.get(&target, "").await.expect(200).body("v1").cache("fwd-status=304");
    assert_ne!(first.header("expires"), second.header("expires"));
    assert_ne!(first.header("date"), second.header("date"));
    bench.get(&target, "").await.expect(200).cache("hit").with("expires", second.header("expires").unwrap());
    bench.finish().await;
}

#[tokio::test]
async fn a_304_that_forbids_storing_serves_its_client_and_is_dropped() {
    let bench = Bench::new().await;
    for line in ["cache-control: no-store", "cache-control: private"] {
        let target = bench.target();
        bench.answer(&target, 200, "cache-control: max-age=10\netag: \"a\"", "v1");
        bench.get(&target, "").await.expect(200);
        bench.later(20);
        bench.answer(&target, 304, line, "");
        bench.get(&target, "").await.expect(200).body("v1");
        bench.answer(&target, 200, "cache-control: max-age=10\netag: \"b\"", "v2");
        bench.get(&target, "").await.expect(200).body("v2");
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_304_may_change_what_the_answer_varies_by() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=10\netag: \"a\"", "v1");
    bench.get(&target, "foo: 1").await.expect(200);
    bench.later(20);
    bench.answer(&target, 304, "cache-control: max-age=1000\netag: \"a\"\nvary: Foo", "");
    bench.get(&target, "foo: 1").await.expect(200).body("v1");
    bench.get(&target, "foo: 1").await.expect(200).body("v1").cache("hit");
    bench.answer(&target, 200, "cache-control: max-age=1000\netag: \"b\"\nvary: Foo", "v2");
    bench.get(&target, "foo: 2").await.expect(200).body("v2");
    bench.finish().await;
}
