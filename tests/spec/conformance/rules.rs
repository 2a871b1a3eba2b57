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

#[tokio::test]
async fn the_origin_states_one_answers_lifetime_in_a_field_that_the_operator_names() {
    let bench = Bench::with("ttl = \"1h\"\nttl_mode = \"override\"\nttl_header = \"X-Cache-TTL\"").await;
    for (lines, expected) in [
        ("x-cache-ttl: 30\ncache-control: max-age=600", "hit; ttl=30"),
        ("x-cache-ttl: 90000\ncache-control: no-cache=\"x\"", "hit; ttl=90000"),
        ("cache-control: max-age=600", "hit; ttl=3600"),
        ("x-cache-ttl: soon", "hit; ttl=3600"),
        ("x-cache-ttl: 1\nx-cache-ttl: 2", "hit; ttl=3600"),
        ("x-cache-ttl: 30\ncache-control: private", "detail=private"),
        ("x-cache-ttl: 30\ncache-control: no-store", "detail=no-store"),
        ("x-cache-ttl: 30\nset-cookie: a=b", "detail=set-cookie"),
        ("x-cache-ttl: 0", "detail=no-freshness"),
    ] {
        let target = bench.target();
        bench.answer(&target, 200, lines, "v1");
        bench.get(&target, "").await.expect(200);
        bench.get(&target, "").await.expect(200).cache(expected);
    }
    let target = bench.target();
    bench.answer(&target, 418, "x-cache-ttl: 30", "v1");
    bench.get(&target, "").await.expect(418);
    bench.get(&target, "").await.expect(418).cache("hit").with("x-cache-ttl", "30");
    bench.later(31);
    bench.get(&target, "").await.expect(418).cache("fwd=stale");
    bench.finish().await;

    let bench = Bench::with("ttl = \"10s\"\nttl_mode = \"cap\"\nttl_header = \"X-Cache-TTL\"").await;
    let target = bench.target();
    bench.answer(&target, 200, "x-cache-ttl: 30", "v1");
    bench.get(&target, "").await.expect(200);
    bench.get(&target, "").await.expect(200).cache("hit; ttl=10");
    bench.finish().await;
}

#[tokio::test]
async fn the_operators_windows_for_stale_answers_may_go_before_the_origins() {
    for (mode, lines, stale_after) in [
        // Seconds after storing, and whether the old answer is still served.
        ("default", "cache-control: max-age=10, stale-while-revalidate=5", [(14, true), (16, false)]),
        ("override", "cache-control: max-age=10, stale-while-revalidate=5", [(16, true), (71, false)]),
        ("default", "cache-control: s-maxage=10, stale-while-revalidate=5", [(14, false), (16, false)]),
        ("override", "cache-control: s-maxage=10", [(14, true), (71, false)]),
        ("override", "cache-control: max-age=10, must-revalidate", [(14, false), (16, false)]),
        ("override", "cache-control: no-cache, max-age=10", [(1, false), (14, false)]),
    ] {
        for (seconds, served) in stale_after {
            let rules = format!("stale_mode = \"{mode}\"\nstale_while_revalidate = \"1m\"");
            let bench = Bench::with(&rules).await;
            let target = bench.target();
            bench.answer(&target, 200, &format!("{lines}\netag: \"1\""), "old");
            bench.get(&target, "").await.expect(200).body("old");
            bench.answer(&target, 200, lines, "new");
            bench.later(seconds);
            let found = bench.get(&target, "").await.expect(200);
            assert_eq!(found.text() == "old", served, "{mode} {lines:?} after {seconds} s");
            bench.finish().await;
        }
    }
}

#[tokio::test]
async fn a_route_has_lifetimes_of_its_own() {
    use crate::edge::Edge;
    use crate::support::origin::{Origin, hang_up, reply};

    let origin = Origin::new().on("*", reply(200).body("v1")).start().await;
    let edge = Edge::serving(&origin)
        .upstream("tries = 1")
        .cache("ttl = \"1h\"\nstale_if_error = \"0s\"")
        .routes(
            "[[routes]]\nupstream = \"api\"\ncache = \"api\"\n\
             [[routes]]\nmatch = { path = \"/news/*\" }\nupstream = \"api\"\n\
             cache = { use = \"api\", ttl = \"10s\", stale_while_revalidate = \"20s\", stale_if_error = \"1d\" }\n\
             [[routes]]\nmatch = { path = \"/short/*\" }\nupstream = \"api\"\n\
             cache = { use = \"api\", ttl_mode = \"override\", stale_mode = \"override\" }\n",
        )
        .start()
        .await;
    edge.get("/a").await.expect(200).cache("stored; ttl=3600");
    edge.get("/news/a").await.expect(200).cache("stored; ttl=10");
    origin.set("/short/a", reply(200).cache("max-age=5, stale-if-error=60").body("v1"));
    edge.get("/short/a").await.expect(200).cache("stored; ttl=3600");
    origin.set("/news/a", reply(200).body("v2"));
    edge.grow_older(std::time::Duration::from_secs(15));
    edge.get("/news/a").await.expect(200).body("v1").cache("hit");
    origin.wait_for_hits("/news/a", 2).await;
    for path in ["/a", "/news/a", "/short/a"] {
        origin.set(path, hang_up());
    }
    edge.grow_older(std::time::Duration::from_secs(4000));
    edge.get("/a").await.expect(502);
    edge.get("/news/a").await.expect(200).cache("detail=upstream-closed");
    edge.get("/short/a").await.expect(502);
    edge.finish().await;
}
