//! What a request says about what is stored (RFC 9111 §5.2.1, §5.4), HEAD, and ranges (RFC 9110 §14).

use super::Then::{Fetched, Reused, Validated};
use super::{Bench, Fact, fact};

const HOUR: &str = "cache-control: max-age=3600";

#[tokio::test]
async fn a_requests_directives_count() {
    const TAGGED: &str = "cache-control: max-age=3600\netag: \"a\"";
    const FACTS: &[Fact] = &[
        fact("no-cache", HOUR, Fetched).second("cache-control: no-cache"),
        fact("no-cache in capitals", HOUR, Fetched).second("cache-control: NO-CACHE"),
        fact("no-cache validates", TAGGED, Validated).second("cache-control: no-cache"),
        fact("max-age=0", HOUR, Fetched).second("cache-control: max-age=0"),
        fact("max-age=0 validates", TAGGED, Validated).second("cache-control: max-age=0"),
        fact("max-age, young enough", HOUR, Reused).second("cache-control: max-age=100").later(90),
        fact("max-age, too old", HOUR, Fetched).second("cache-control: max-age=100").later(102),
        fact("max-age with Age", "cache-control: max-age=3600\nage: 200", Fetched)
            .second("cache-control: max-age=100"),
        fact("max-age unreadable", HOUR, Reused).second("cache-control: max-age=x"),
        fact("min-fresh, enough left", HOUR, Reused).second("cache-control: min-fresh=100"),
        fact("min-fresh, too little left", HOUR, Fetched).second("cache-control: min-fresh=100").later(3550),
        fact("min-fresh with Age", "cache-control: max-age=3600\nage: 3550", Fetched)
            .second("cache-control: min-fresh=100"),
        fact("max-stale", HOUR, Reused).second("cache-control: max-stale=100").later(3650),
        fact("max-stale without a limit", HOUR, Reused).second("cache-control: max-stale").later(3650),
        fact("max-stale, too stale", HOUR, Fetched).second("cache-control: max-stale=10").later(3650),
        fact("max-stale against must-revalidate", "cache-control: max-age=3600, must-revalidate", Fetched)
            .second("cache-control: max-stale=100")
            .later(3650),
        fact("max-stale against s-maxage", "cache-control: s-maxage=3600", Fetched)
            .second("cache-control: max-stale=100")
            .later(3650),
        fact("no-store may still be served", HOUR, Reused).second("cache-control: no-store"),
        fact("Pragma: no-cache", HOUR, Fetched).second("pragma: no-cache"),
        fact("Pragma beside Cache-Control", HOUR, Reused)
            .second("pragma: no-cache\ncache-control: max-age=1000"),
        fact("Pragma: foo", HOUR, Reused).second("pragma: foo"),
        fact("only-if-cached", HOUR, Reused).second("cache-control: only-if-cached"),
        fact("an extension", HOUR, Reused).second("cache-control: foo=bar"),
        fact("unknown fields", HOUR, Reused).second("x-a: b\naccept: text/html\nuser-agent: x"),
        fact("another Accept without Vary", HOUR, Reused).first("accept: a/b").second("accept: c/d"),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn only_if_cached_is_504_unless_a_stored_answer_may_be_served() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, HOUR, "v1");
    bench.get(&target, "cache-control: only-if-cached").await.expect(504);
    assert_eq!(bench.origin.hits(&target), 0);
    bench.get(&target, "").await.expect(200);
    bench.later(3601);
    bench.get(&target, "cache-control: only-if-cached").await.expect(504);
    bench.get(&target, "cache-control: only-if-cached, max-stale").await.expect(200).cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn different_targets_are_different_answers() {
    let bench = Bench::new().await;
    let target = bench.target();
    for (query, hits) in [("?a=1", 1), ("?a=2", 1), ("?a=1&b=2", 1), ("?b=2&a=1", 1), ("", 5), ("?", 6)] {
        let whole = format!("{target}{query}");
        bench.answer(&whole, 200, HOUR, query);
        for _ in 0..2 {
            bench.get(&whole, "").await.expect(200).body(query);
        }
        assert!(bench.origin.hits(&whole) <= hits, "{query}");
    }
    bench.finish().await;
}

#[tokio::test]
async fn head_is_answered_from_what_get_stored_and_never_the_other_way_round() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=3600\netag: \"a\"\nx-a: 1", "0123456789");
    bench.get(&target, "").await.expect(200);
    let head = bench.ask("HEAD", &target, "").await.expect(200).body("").cache("hit");
    assert_eq!(head.header("content-length"), Some("10"));
    assert_eq!(head.header("x-a"), Some("1"));
    bench.ask("HEAD", &target, "if-none-match: \"a\"").await.expect(304);

    let target = bench.target();
    bench.answer(&target, 200, HOUR, "0123456789");
    bench.ask("HEAD", &target, "").await.expect(200).body("");
    bench.get(&target, "").await.expect(200).body("0123456789");
    bench.finish().await;
}

#[tokio::test]
async fn a_head_after_the_end_of_freshness_freshens_what_get_stored() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=100\netag: \"a\"\nx-a: 1", "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(150);
    bench.answer(&target, 200, "cache-control: max-age=100\netag: \"b\"\nx-a: 2", "v2");
    bench.ask("HEAD", &target, "").await.expect(200).with("x-a", "2");
    bench.get(&target, "").await.expect(200).body("v2").with("x-a", "2");
    bench.finish().await;
}

#[tokio::test]
async fn parts_are_cut_from_the_whole() {
    let bench = Bench::new().await;
    let chunked = crate::support::origin::reply(200)
        .cache("max-age=3600")
        .header("etag", "\"a\"")
        .chunk("01234")
        .chunk("56789");
    let target = bench.target();
    bench.origin.set(&target, chunked);
    bench.get(&target, "").await.expect(200);
    for (range, status, body, content_range) in [
        ("bytes=0-0", 206, "0", "bytes 0-0/10"),
        ("bytes=2-5", 206, "2345", "bytes 2-5/10"),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=-100", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=5-100", 206, "56789", "bytes 5-9/10"),
        ("BYTES=0-0", 206, "0", "bytes 0-0/10"),
        ("bytes=10-", 416, "", "bytes */10"),
        ("bytes=-0", 416, "", "bytes */10"),
        ("bytes=5-4", 200, "0123456789", ""),
        ("bytes=a-b", 200, "0123456789", ""),
        ("lines=0-1", 200, "0123456789", ""),
        ("bytes=", 200, "0123456789", ""),
    ] {
        let found = bench.get(&target, &format!("range: {range}")).await.expect(status).body(body);
        assert_eq!(found.header("content-range").unwrap_or_default(), content_range, "{range}");
    }
    for (condition, status) in
        [("\"a\"", 206), ("W/\"a\"", 200), ("\"b\"", 200), ("Thu, 18 Aug 2005 02:01:18 GMT", 200)]
    {
        bench.get(&target, &format!("range: bytes=0-1\nif-range: {condition}")).await.expect(status);
    }
    bench.get(&target, "range: bytes=0-1\nif-none-match: \"a\"").await.expect(304);
    bench.ask("HEAD", &target, "range: bytes=0-1").await.expect(200).with("content-length", "10");
    assert_eq!(bench.origin.hits(&target), 1);
    bench.finish().await;
}

#[tokio::test]
async fn a_part_of_an_answer_that_is_still_coming_is_cut_from_it_too() {
    let bench = Bench::new().await;
    for (range, status, body) in [
        ("bytes=2-5", 206, "2345"),
        ("bytes=-3", 206, "789"),
        ("bytes=10-", 416, ""),
        ("bytes=0-0,2-3", 200, "0123456789"),
    ] {
        let target = bench.target();
        bench.answer(&target, 200, HOUR, "0123456789");
        bench.get(&target, &format!("range: {range}")).await.expect(status).body(body);
        bench.get(&target, "").await.expect(200).body("0123456789").cache("hit");
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_request_for_validation_may_share_a_fetch_on_its_way() {
    use crate::support::gate::Gate;
    let bench = Bench::new().await;
    let target = bench.target();
    let gate = Gate::new("the second half");
    bench.origin.set(&target, bench.reply(200, HOUR).chunk("one ").then_wait(&gate).chunk("two"));
    let head = |lines: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    let mut first = bench.edge.client.connect().await;
    first.write(head("")).await;
    first.read_until("one ").await;
    let mut second = bench.edge.client.connect().await;
    second.write(head("Cache-Control: no-cache\r\n")).await;
    second.read_until("one ").await;
    gate.release();
    second.read_until("two").await;
    assert_eq!(bench.origin.hits(&target), 1);
    drop((first, second));
    bench.finish().await;
}
