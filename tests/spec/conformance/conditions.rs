//! Conditional requests: the client's answered from storage, ours sent to the origin (RFC 9110 §13, RFC 9111 §4.3).

use super::Then::{Fetched, Validated};
use super::{Bench, Fact, fact};
use crate::support::origin::reply;

#[tokio::test]
async fn a_clients_condition_is_answered_from_storage() {
    let bench = Bench::new().await;
    let tagged = "cache-control: max-age=3600\netag: \"abc\"";
    let weak = "cache-control: max-age=3600\netag: W/\"abc\"";
    let dated = "cache-control: max-age=3600\nlast-modified: {i-1000}";
    let both = "cache-control: max-age=3600\netag: \"abc\"\nlast-modified: {i-1000}";
    let bare = "cache-control: max-age=3600\ndate: {i-100}";
    for (answer, request, status) in [
        (tagged, "if-none-match: \"abc\"", 304),
        (tagged, "if-none-match: W/\"abc\"", 304),
        (weak, "if-none-match: \"abc\"", 304),
        (weak, "if-none-match: W/\"abc\"", 304),
        (tagged, "if-none-match: \"a\", \"abc\"", 304),
        (tagged, "if-none-match: \"a\"\nif-none-match: \"abc\"", 304),
        (tagged, "if-none-match: \"a,b\", \"abc\"", 304),
        (tagged, "if-none-match: *", 304),
        (tagged, "if-none-match: \"other\"", 200),
        (tagged, "if-none-match: abc", 200),
        (tagged, "if-none-match: \"ABC\"", 200),
        (dated, "if-modified-since: {i-1000}", 304),
        (dated, "if-modified-since: {i-500}", 304),
        (dated, "if-modified-since: {i-1500}", 200),
        (dated, "if-modified-since: {r-1000}", 304),
        (dated, "if-modified-since: {a-1000}", 304),
        (dated, "if-modified-since: then", 200),
        (dated, "if-none-match: \"abc\"", 200),
        (both, "if-none-match: \"other\"\nif-modified-since: {i-1000}", 200),
        (both, "if-none-match: \"abc\"\nif-modified-since: {i-1500}", 304),
        (bare, "if-modified-since: {i-50}", 304),
        (bare, "if-modified-since: {i-1000}", 200),
    ] {
        for stored_before in [true, false] {
            let target = bench.target();
            bench.answer(&target, 200, answer, "v1");
            if stored_before {
                bench.get(&target, "").await.expect(200);
            }
            let found = bench.get(&target, request).await.expect(status);
            assert_eq!(found.text(), if status == 304 { "" } else { "v1" }, "{answer} {request}");
            assert_eq!(bench.origin.hits(&target), 1, "{answer} {request}");
            bench.get(&target, "").await.expect(200).body("v1").cache("hit");
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_304_carries_what_the_client_needs_to_update_its_copy() {
    let bench = Bench::new().await;
    let target = bench.target();
    let lines = "cache-control: max-age=3600\netag: \"a\"\ndate: {i-20}\nvary: Foo\nexpires: {i+100}\ncontent-location: /x\ncontent-type: a/b";
    bench.answer(&target, 200, lines, "v1");
    let whole = bench.get(&target, "").await.expect(200);
    let found = bench
        .get(&target, "if-none-match: \"a\"")
        .await
        .expect(304)
        .without("content-type")
        .without("content-length");
    for name in ["cache-control", "etag", "date", "vary", "expires", "content-location"] {
        assert_eq!(found.header(name), whole.header(name), "{name}");
    }
    assert!(found.header("age").is_some());
    bench.finish().await;
}

#[tokio::test]
async fn other_statuses_than_200_are_sent_whole_whatever_the_condition() {
    let bench = Bench::new().await;
    for status in [404, 301, 500] {
        let target = bench.target();
        bench.answer(&target, status, "cache-control: max-age=3600\netag: \"a\"", "v1");
        bench.get(&target, "").await.expect(status);
        bench.get(&target, "if-none-match: \"a\"").await.expect(status).body("v1").cache("hit");
    }
    bench.finish().await;
}

#[tokio::test]
async fn what_is_stale_is_validated_with_every_validator_it_has() {
    const FACTS: &[Fact] = &[
        fact("a tag", "cache-control: max-age=10\netag: \"a\"", Validated).later(20),
        fact("a weak tag", "cache-control: max-age=10\netag: W/\"a\"", Validated).later(20),
        fact("a date", "cache-control: max-age=10\nlast-modified: {i-1000}", Validated).later(20),
        fact("neither", "cache-control: max-age=10", Fetched).later(20),
        fact("the client's own condition is not sent", "cache-control: max-age=10", Fetched)
            .later(20)
            .second("if-none-match: \"z\""),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;

    let target = bench.target();
    bench.answer(
        &target,
        200,
        "cache-control: max-age=10\netag: W/\"a\"\nlast-modified: Thu, 18 Aug 2005 02:01:18 GMT",
        "v1",
    );
    bench.get(&target, "").await.expect(200);
    bench.later(20);
    bench.get(&target, "if-none-match: \"z\"").await.expect(200);
    let asked = bench.origin.last(&target);
    assert_eq!(asked.headers("if-none-match"), ["W/\"a\""]);
    assert_eq!(asked.headers("if-modified-since"), ["Thu, 18 Aug 2005 02:01:18 GMT"]);
    bench.finish().await;
}

#[tokio::test]
async fn a_whole_answer_to_a_validation_takes_the_place_of_the_stored_one() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=10\netag: \"a\"\nx-old: 1", "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(20);
    bench.answer(&target, 200, "cache-control: max-age=10\netag: \"b\"", "v2");
    bench.get(&target, "").await.expect(200).body("v2").without("x-old").cache("fwd=stale; stored");
    bench.get(&target, "").await.expect(200).body("v2").cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn a_client_with_its_own_validator_gets_304_from_a_validation_too() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=10\netag: \"a\"", "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(20);
    bench.answer(&target, 304, "cache-control: max-age=10\netag: \"a\"", "");
    bench.get(&target, "if-none-match: \"a\"").await.expect(304).body("");
    bench.get(&target, "").await.expect(200).body("v1").cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn preconditions_on_the_origins_state_are_passed_on() {
    let bench = Bench::new().await;
    for line in ["if-match: \"b\"", "if-unmodified-since: {i-1000}"] {
        let target = bench.target();
        bench.answer(&target, 200, "cache-control: max-age=3600\netag: \"a\"", "v1");
        bench.get(&target, "").await.expect(200);
        bench.answer(&target, 412, "", "no");
        bench.get(&target, line).await.expect(412).body("no");
        bench.get(&target, "").await.expect(200).body("v1").cache("hit");
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_304_about_another_object_is_not_used() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=10\netag: \"a\"", "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(20);
    bench.origin.set_script(&target, |request| match request.header("if-none-match") {
        Some(_) => reply(304).cache("max-age=10").header("etag", "\"b\""),
        None => reply(200).cache("max-age=10").header("etag", "\"b\"").body("v2"),
    });
    bench.get(&target, "").await.expect(200).body("v2");
    bench.get(&target, "").await.expect(200).body("v2").cache("hit");
    bench.finish().await;
}
