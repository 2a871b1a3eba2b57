//! What the operator's rules change.

use super::Bench;

const HOUR: &str = "cache-control: max-age=3600";

#[tokio::test]
async fn requests_with_a_named_field_or_cookie_pass_the_cache_by() {
    let bench = Bench::with("bypass = { headers = [\"X-Preview\"], cookies = [\"session\"] }").await;
    let target = bench.target();
    bench.answer(&target, 200, HOUR, "draft");
    for line in ["x-preview: 1", "cookie: a=b; session=1"] {
        bench.get(&target, line).await.expect(200).body("draft").cache("fwd=bypass");
    }
    bench.answer(&target, 200, HOUR, "public");
    bench.get(&target, "cookie: a=session").await.expect(200).body("public").cache("fwd=uri-miss; stored");
    bench.answer(&target, 200, HOUR, "draft");
    for line in ["x-preview: 1", "cookie: a=b; session=1"] {
        bench.get(&target, line).await.expect(200).body("draft").cache("fwd=bypass");
    }
    bench.get(&target, "").await.expect(200).body("public").cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn what_is_asked_for_too_seldom_takes_no_room() {
    let bench = Bench::with("min_uses = 3").await;
    let target = bench.target();
    bench.answer(&target, 200, HOUR, "v1");
    for _ in 0..2 {
        bench.get(&target, "").await.expect(200).cache("fwd=uri-miss; detail=few-uses");
    }
    bench.get(&target, "").await.expect(200).cache("fwd=uri-miss; stored");
    bench.get(&target, "").await.expect(200).cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn hosts_of_one_site_share_their_answers_and_no_other_host_does() {
    let bench = Bench::with("key = { hosts = [\"Example.com\", \"www.example.com\"] }").await;
    let target = bench.target();
    bench.answer(&target, 200, HOUR, "v1");
    let ask = |host: &'static str| bench.edge.client.get(&target).host(host).send();
    ask("www.example.com").await.expect(200).cache("stored");
    ask("example.com").await.expect(200).cache("hit");
    ask("other.example.com").await.expect(200).cache("stored");
    bench.edge.client.request("PUT", &target).host("example.com").send().await.expect(200);
    ask("www.example.com").await.expect(200).cache("stored");
    ask("other.example.com").await.expect(200).cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn the_operator_names_the_targeted_fields() {
    let lines = "surrogate-control: max-age=100\ncdn-cache-control: max-age=200\ncache-control: no-store";
    for (setting, expected) in [
        ("targeted = [\"Surrogate-Control\", \"CDN-Cache-Control\"]", "hit; ttl=100"),
        ("", "hit; ttl=200"),
        ("targeted = []", "fwd=uri-miss; detail=no-store"),
    ] {
        let bench = Bench::with(setting).await;
        let target = bench.target();
        bench.answer(&target, 200, lines, "v1");
        bench.get(&target, "").await.expect(200);
        bench.get(&target, "").await.expect(200).cache(expected);
        bench.finish().await;
    }
}

#[tokio::test]
async fn a_popular_answer_is_fetched_anew_before_its_end_unless_switched_off() {
    for (setting, refreshed) in [("", true), ("early_refresh = false", false)] {
        let bench = Bench::with(setting).await;
        let target = bench.target();
        bench.answer(&target, 200, HOUR, "v1");
        bench.get(&target, "").await.expect(200);
        bench.later(3595);
        // Each hit has more than nine chances in ten: that none of so many takes it does not happen.
        for _ in 0..100 {
            bench.get(&target, "").await.expect(200).cache("hit");
        }
        if refreshed {
            bench.origin.wait_for_hits(&target, 2).await;
        } else {
            assert_eq!(bench.origin.hits(&target), 1);
        }
        bench.finish().await;
    }
}

#[tokio::test]
async fn questions_with_a_named_field_pass_the_cache_by_too() {
    use crate::edge::Edge;
    use crate::support::origin::{Origin, reply};
    let origin = Origin::new().on("/query", reply(200).body("answer")).start().await;
    let edge = Edge::serving(&origin)
        .cache("ttl = \"10m\"\nbypass = { headers = [\"X-Preview\"] }")
        .routes(
            "[[routes]]\nmatch = { path = \"/*\" }\nupstream = \"api\"\ncache = { use = \"api\", key = { body = \"json\" } }\n",
        )
        .start()
        .await;
    let ask = |preview: bool| {
        let ask = edge.request("POST", "/query").header("content-type", "application/json").body("{}");
        if preview { ask.header("x-preview", "1").send() } else { ask.send() }
    };
    ask(false).await.expect(200).cache("stored");
    ask(false).await.expect(200).cache("hit");
    ask(true).await.expect(200).cache("fwd=bypass");
    assert_eq!(origin.hits("/query"), 2);
    edge.finish().await;
}
