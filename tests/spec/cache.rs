//! What is stored is reused when that is right, and only then.

use crate::edge::{Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};

#[tokio::test]
async fn an_answer_is_fetched_once_and_then_served_from_memory() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin).start().await;

    edge.get("/a").await.expect(200).body("v1").cache("vanne; fwd=uri-miss; stored");
    edge.grow_older(secs(10));
    let hit = edge.get("/a").await.expect(200).body("v1").cache("vanne-mem; hit; ttl=50");
    assert_eq!(hit.header("age"), Some("10"));
    assert_eq!(hit.headers("content-length"), ["2"]);
    assert_eq!(origin.hits("/a"), 1);
    edge.finish().await;
    origin.finish().await;
}

#[tokio::test]
async fn who_has_the_last_byte_finds_the_answer_stored() {
    let origin =
        Origin::new().on("/a", reply(200).cache("max-age=60").body("x".repeat(100_000))).start().await;
    let edge = Edge::serving(&origin).start().await;
    for round in 0..20 {
        let target = format!("/a?{round}");
        edge.get(&target).await.expect(200).cache("stored");
        edge.get(&target).await.expect(200).cache("hit");
    }
    edge.finish().await;
}

#[tokio::test]
async fn an_expired_answer_is_validated_and_its_content_not_sent_again() {
    let origin = Origin::new()
        .on_request("/a", |request| match request.header("if-none-match") {
            Some("\"1\"") => reply(304).cache("max-age=60").header("etag", "\"1\"").header("x-new", "yes"),
            _ => reply(200).cache("max-age=60").header("etag", "\"1\"").body("v1"),
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    edge.grow_older(secs(61));
    edge.get("/a").await.expect(200).body("v1").with("x-new", "yes").cache("fwd=stale; fwd-status=304");
    edge.get("/a").await.expect(200).body("v1").cache("hit; ttl=60");
    assert_eq!(origin.hits("/a"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn a_client_that_has_the_answer_already_gets_304() {
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").header("etag", "\"1\"").body("v1"))
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    let answer =
        edge.request("GET", "/a").header("if-none-match", "W/\"1\"").send().await.expect(304).body("");
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(origin.hits("/a"), 1);
    assert_eq!(origin.last("/a").header("if-none-match"), None, "the client's condition is ours to answer");
    edge.finish().await;
}

#[tokio::test]
async fn a_part_of_a_stored_answer_is_cut_from_it() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("0123456789")).start().await;
    let edge = Edge::serving(&origin).start().await;
    let part = |range: &str| edge.request("GET", "/a").header("range", range).send();

    part("bytes=2-4").await.expect(206).body("234").with("content-range", "bytes 2-4/10");
    assert_eq!(origin.last("/a").header("range"), None, "the whole is fetched, so that it can be stored");
    part("bytes=-3").await.expect(206).body("789").cache("hit");
    part("bytes=20-").await.expect(416).with("content-range", "bytes */10");
    let several = part("bytes=0-0,9-9").await.expect(206);
    assert!(several.text().contains("Content-Range: bytes 9-9/10\r\n\r\n9\r\n"), "{}", several.text());
    assert_eq!(origin.hits("/a"), 1);
    edge.finish().await;
}

#[tokio::test]
async fn a_head_request_is_answered_from_what_a_get_stored() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    edge.request("HEAD", "/a").send().await.expect(200).body("").with("content-length", "2").cache("hit");
    assert_eq!(origin.hits("/a"), 1);
    edge.finish().await;
}

#[tokio::test]
async fn two_hosts_with_the_same_path_never_see_each_others_answers() {
    let origin = Origin::new()
        .on_request("/a", |r| {
            reply(200).cache("max-age=60").body(format!("of {}", r.header("host").unwrap()))
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    for _ in 0..2 {
        for host in ["one.example", "two.example"] {
            edge.client.get("/a").host(host).send().await.expect(200).body(format!("of {host}"));
        }
    }
    assert_eq!(origin.hits("/a"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn two_languages_of_one_page_are_held_side_by_side() {
    let origin = Origin::new()
        .on_request("/a", |r| {
            let language = r.header("accept-language").unwrap_or("none").to_owned();
            reply(200).cache("max-age=60").header("vary", "Accept-Language").body(language)
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let ask = |language: &'static str| edge.request("GET", "/a").header("accept-language", language).send();
    ask("de").await.expect(200).body("de").cache("stored");
    ask("fr").await.expect(200).body("fr").cache("fwd=vary-miss; stored");
    ask("de").await.expect(200).body("de").cache("hit");
    ask("fr").await.expect(200).body("fr").cache("hit");
    edge.get("/a").await.expect(200).body("none");
    assert_eq!(origin.hits("/a"), 3);
    edge.finish().await;
}

#[tokio::test]
async fn one_users_answer_is_never_anothers() {
    for directives in ["private, max-age=60", "no-store", "max-age=60"] {
        let origin = Origin::new()
            .on_request("/me", move |r| {
                reply(200).cache(directives).body(r.header("authorization").unwrap_or("nobody").to_owned())
            })
            .start()
            .await;
        let edge = Edge::serving(&origin).start().await;
        for user in ["Bearer a", "Bearer b", "Bearer a"] {
            edge.request("GET", "/me").header("authorization", user).send().await.expect(200).body(user);
        }
        assert_eq!(origin.hits("/me"), 3, "{directives}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_authorised_answer_is_shared_when_its_origin_says_so() {
    let origin = Origin::new().on("/a", reply(200).cache("public, max-age=60").body("for all")).start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.request("GET", "/a").header("authorization", "Bearer a").send().await.expect(200);
    edge.request("GET", "/a").header("authorization", "Bearer b").send().await.expect(200).cache("hit");
    edge.finish().await;
}

#[tokio::test]
async fn a_cookie_that_is_set_is_set_once() {
    let page = || reply(200).cache("max-age=60").header("set-cookie", "session=1").body("v1");
    let origin = Origin::new().on("/a", page()).start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200).cache("detail=set-cookie");
    edge.get("/a").await.expect(200).with("set-cookie", "session=1");
    assert_eq!(origin.hits("/a"), 2, "refused by default");
    edge.finish().await;

    let edge = Edge::serving(&origin).cache("set_cookie = \"strip\"").start().await;
    edge.get("/a").await.expect(200);
    edge.get("/a").await.expect(200).without("set-cookie").cache("hit");
    edge.finish().await;
}

#[tokio::test]
async fn a_change_made_through_the_gateway_is_seen_at_once() {
    let origin = Origin::new()
        .on_each(
            "/a",
            vec![
                reply(200).cache("max-age=60").body("v1"),
                reply(204),
                reply(200).cache("max-age=60").body("v2"),
            ],
        )
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200).body("v1");
    edge.request("PUT", "/a").body("v2").send().await.expect(204).cache("fwd=method");
    edge.get("/a").await.expect(200).body("v2");
    edge.finish().await;
}

#[tokio::test]
async fn a_change_that_failed_invalidates_nothing() {
    let origin = Origin::new()
        .on_each("/a", vec![reply(200).cache("max-age=60").body("v1"), reply(409)])
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    edge.request("POST", "/a").body("x").send().await.expect(409);
    edge.get("/a").await.expect(200).body("v1").cache("hit");
    edge.finish().await;
}

#[tokio::test]
async fn a_stale_answer_is_served_while_its_successor_is_fetched_once() {
    let gate = Gate::new("the successor");
    let stale = "max-age=10, stale-while-revalidate=60";
    let origin = Origin::new()
        .on_each(
            "/a",
            vec![reply(200).cache(stale).body("v1"), reply(200).cache(stale).body("v2").gate(&gate)],
        )
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200).body("v1");
    edge.grow_older(secs(11));
    for _ in 0..5 {
        edge.get("/a").await.expect(200).body("v1").cache("hit; ttl=-1");
    }
    gate.arrived(1).await;
    gate.release();
    crate::support::poll_until("the successor to be served", || async {
        edge.get("/a").await.text() == "v2"
    })
    .await;
    assert_eq!(origin.hits("/a"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn a_page_outlives_its_origin_for_as_long_as_the_operator_allows() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=1").body("v1")).start().await;
    let edge = Edge::serving(&origin).cache("stale_if_error = \"60s\"").start().await;
    edge.get("/a").await.expect(200).body("v1");
    origin.stop().await;
    edge.grow_older(secs(10));
    edge.get("/a").await.expect(200).body("v1").cache("fwd=stale; detail=connect-failed");
    edge.grow_older(secs(60));
    edge.get("/a").await.expect(502);
    edge.finish().await;
}

#[tokio::test]
async fn a_failing_origin_is_hidden_by_a_stale_answer_unless_it_forbids_that() {
    for (directives, expected) in
        [("max-age=1, stale-if-error=60", 200), ("max-age=1, must-revalidate, stale-if-error=60", 503)]
    {
        let origin = Origin::new()
            .on_each("/a", vec![reply(200).cache(directives).body("v1"), reply(503).body("down")])
            .start()
            .await;
        let edge = Edge::serving(&origin).start().await;
        edge.get("/a").await.expect(200);
        edge.grow_older(secs(5));
        edge.get("/a").await.expect(expected);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_truncated_answer_is_seen_as_such_and_never_stored() {
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").body("only a part").truncated(100))
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let answer = edge.get("/a").await;
    assert!(answer.truncated.is_some(), "the client sees that the end is missing");
    origin.set("/a", reply(200).cache("max-age=60").body("the whole"));
    edge.get("/a").await.expect(200).body("the whole").cache("fwd=uri-miss");
    edge.finish().await;
}

#[tokio::test]
async fn an_answer_larger_than_allowed_is_passed_on_whole_and_not_stored() {
    for chunked in [false, true] {
        let content = "y".repeat(300_000);
        let page = if chunked {
            content
                .as_bytes()
                .chunks(10_000)
                .fold(reply(200).cache("max-age=60"), |page, piece| page.chunk(piece))
        } else {
            reply(200).cache("max-age=60").body(content.clone())
        };
        let origin = Origin::new().on("/a", page).start().await;
        let edge = Edge::serving(&origin).cache("max_object = \"100KiB\"").start().await;
        edge.get("/a").await.expect(200).body(&content);
        edge.get("/a").await.expect(200).body(&content).cache("fwd=uri-miss");
        assert_eq!(origin.hits("/a"), 2);
        edge.finish().await;
    }
}

#[tokio::test]
async fn who_wants_a_stored_answer_only_gets_it_or_504() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin).start().await;
    let only = || edge.request("GET", "/a").header("cache-control", "only-if-cached").send();
    only().await.expect(504);
    assert_eq!(origin.hits("/a"), 0);
    edge.get("/a").await.expect(200);
    only().await.expect(200).cache("hit");
    edge.finish().await;
}

#[tokio::test]
async fn a_clients_no_cache_counts_unless_the_operator_ignores_it() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    for (setting, hits) in [("honour", 2), ("ignore", 1)] {
        let before = origin.hits("/a");
        let edge = Edge::serving(&origin).cache(&format!("client_directives = \"{setting}\"")).start().await;
        edge.get("/a").await.expect(200);
        edge.request("GET", "/a").header("cache-control", "no-cache").send().await.expect(200);
        assert_eq!(origin.hits("/a") - before, hits, "{setting}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn the_operators_ttl_counts_where_the_origin_says_nothing() {
    let origin = Origin::new()
        .on("/silent", reply(200).body("s"))
        .on("/short", reply(200).cache("max-age=5").body("f"))
        .on("/gone", reply(404).body("n"))
        .start()
        .await;
    let edge =
        Edge::serving(&origin).cache("ttl = \"1m\"\nttl_by_status = { \"404\" = \"10s\" }").start().await;
    for (target, status, ttl) in [("/silent", 200, 60), ("/short", 200, 5), ("/gone", 404, 10)] {
        edge.get(target).await.expect(status);
        edge.get(target).await.expect(status).cache(&format!("hit; ttl={ttl}"));
    }
    edge.finish().await;
}

#[tokio::test]
async fn what_the_key_leaves_out_makes_no_second_entry() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin)
        .cache("key = { query = { except = [\"utm_source\"] }, sort_query = true, headers = [\"X-Tenant\"] }")
        .start()
        .await;
    edge.get("/a?x=1&y=2&utm_source=mail").await.expect(200).cache("stored");
    edge.get("/a?y=2&x=1").await.expect(200).cache("hit");
    edge.request("GET", "/a?y=2&x=1").header("x-tenant", "b").send().await.expect(200).cache("stored");
    edge.finish().await;
}

#[tokio::test]
async fn early_hints_are_passed_on_and_not_stored() {
    let page = reply(200)
        .cache("max-age=60")
        .body("v1")
        .after_informational(103, &[("link", "</s.css>; rel=preload")]);
    let origin = Origin::new().on("/a", page).start().await;
    let edge = Edge::serving(&origin).start().await;
    let first = edge.get("/a").await.expect(200).without("link");
    assert_eq!(first.informational.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [103]);
    let second = edge.get("/a").await.expect(200).cache("hit").without("link");
    assert!(second.informational.is_empty());
    edge.finish().await;
}

#[tokio::test]
async fn many_requests_on_one_connection_mix_hits_misses_and_what_is_not_cached() {
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").body("v1"))
        .on("/b", reply(200).cache("no-store").body("b"))
        .on("/c", reply(200).body("posted"))
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let mut connection = edge.client.connect().await;
    for _ in 0..10 {
        connection.get("/a").send().await.expect(200).body("v1");
        connection.get("/b").send().await.expect(200).body("b");
        connection.request("POST", "/c").body("x").send().await.expect(200).body("posted");
    }
    assert_eq!((origin.hits("/a"), origin.hits("/b")), (1, 10));
    drop(connection);
    edge.finish().await;
}
