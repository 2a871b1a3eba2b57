//! When the origin fails, and when old is good enough (RFC 5861, RFC 9111 §4.2.4).

use super::Bench;
use crate::support::origin::{Reply, hang, hang_up, raw, reply, reset};

async fn stale_then(bench: &Bench, directives: &str, later: u64, failure: Reply) -> u16 {
    let target = bench.target();
    bench.answer(&target, 200, &format!("cache-control: {directives}"), "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(later);
    bench.origin.set(&target, failure);
    let found = bench.get(&target, "").await;
    if found.status == 200 {
        assert_eq!(found.text(), "v1");
    }
    found.status
}

#[tokio::test]
async fn a_failing_origin_is_covered_by_default_for_a_while() {
    let bench = Bench::new().await;
    for failure in
        [hang_up(), reset(), raw("garbage\r\n\r\n"), reply(500), reply(502), reply(503), reply(504)]
    {
        assert_eq!(stale_then(&bench, "max-age=10", 20, failure.clone()).await, 200, "{failure:?}");
    }
    for status in [400, 403, 404, 410, 429, 501, 505, 599] {
        assert_eq!(stale_then(&bench, "max-age=10", 20, reply(status)).await, status, "that is an answer");
    }
    assert_eq!(stale_then(&bench, "max-age=10", 5_000, reply(503)).await, 503, "not for ever");
    bench.finish().await;
}

#[tokio::test]
async fn stale_is_never_served_where_the_origin_forbids_it() {
    let bench = Bench::new().await;
    for directives in [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "max-age=10, stale-if-error=0",
        "max-age=10, must-revalidate, stale-if-error=60",
    ] {
        assert_eq!(stale_then(&bench, directives, 20, hang_up()).await, 502, "{directives}");
        assert_eq!(stale_then(&bench, directives, 20, reply(503)).await, 503, "{directives}");
    }
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: no-cache\netag: \"a\"", "v1");
    bench.get(&target, "").await.expect(200);
    bench.origin.set(&target, hang_up());
    bench.get(&target, "").await.expect(502);
    bench.finish().await;
}

#[tokio::test]
async fn what_was_never_fresh_is_not_served_when_the_origin_fails() {
    let bench = Bench::new().await;
    for lines in ["", "cache-control: max-age=0", "expires: 0", "etag: \"a\""] {
        let target = bench.target();
        bench.answer(&target, 200, lines, "v1");
        bench.get(&target, "").await.expect(200);
        bench.origin.set(&target, reply(503));
        bench.get(&target, "").await.expect(503);
    }
    bench.finish().await;
}

#[tokio::test]
async fn stale_if_error_is_as_long_as_the_origin_says() {
    let bench = Bench::new().await;
    for (later, status) in [(50, 200), (109, 200), (120, 503)] {
        assert_eq!(
            stale_then(&bench, "max-age=10, stale-if-error=100", later, reply(503)).await,
            status,
            "{later}"
        );
    }
    bench.finish().await;
}

#[tokio::test]
async fn an_origin_that_hangs_is_covered_after_its_time_out() {
    use crate::edge::Edge;
    use crate::support::origin::Origin;
    let origin = Origin::new().on("/a", reply(200).cache("max-age=10").body("v1")).start().await;
    let edge = Edge::serving(&origin).upstream("read_timeout = \"100ms\"").start().await;
    edge.get("/a").await.expect(200);
    edge.grow_older(std::time::Duration::from_secs(20));
    origin.set("/a", hang());
    edge.get("/a").await.expect(200).body("v1").cache("fwd=stale; detail=upstream-timeout");
    edge.finish().await;
}

#[tokio::test]
async fn stale_while_revalidate_serves_at_once_within_its_window() {
    let bench = Bench::new().await;
    let target = bench.target();
    let lines = "cache-control: max-age=10, stale-while-revalidate=100";
    bench.answer(&target, 200, lines, "v1");
    bench.get(&target, "").await.expect(200);
    bench.later(20);
    bench.answer(&target, 200, lines, "v2");
    bench.get(&target, "").await.expect(200).body("v1").cache("hit");
    bench.origin.wait_for_hits(&target, 2).await;
    crate::support::poll_until("the successor to be served", || async {
        bench.get(&target, "").await.text() == "v2"
    })
    .await;
    bench.later(200);
    bench.answer(&target, 200, lines, "v3");
    bench.get(&target, "").await.expect(200).body("v3").cache("fwd=stale");
    bench.finish().await;
}

#[tokio::test]
async fn stale_while_revalidate_yields_to_what_forbids_stale() {
    let bench = Bench::new().await;
    for directives in [
        "max-age=10, stale-while-revalidate=100, must-revalidate",
        "max-age=10, stale-while-revalidate=100, proxy-revalidate",
        "s-maxage=10, stale-while-revalidate=100",
    ] {
        let target = bench.target();
        bench.answer(&target, 200, &format!("cache-control: {directives}"), "v1");
        bench.get(&target, "").await.expect(200);
        bench.later(20);
        bench.answer(&target, 200, "cache-control: max-age=10", "v2");
        bench.get(&target, "").await.expect(200).body("v2").cache("stored");
    }
    bench.finish().await;
}
