//! One fetch for many who want the same, and no waiting for what is not shared.

use crate::edge::{Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};

async fn ask_many(
    edge: &Edge,
    target: &str,
    n: usize,
) -> Vec<tokio::task::JoinHandle<crate::support::client::Answer>> {
    (0..n).map(|_| tokio::spawn(edge.client.get(target).send())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_requests_for_one_missing_answer_are_one_at_the_origin() {
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1").gate(&gate)).start().await;
    let edge = Edge::serving(&origin).start().await;
    let asked = ask_many(&edge, "/a", 500).await;
    gate.arrived(1).await;
    crate::support::poll_until("all to be in flight", || async {
        edge.metric("vanne_requests_in_flight") == Some(500.0)
    })
    .await;
    gate.release();
    let mut collapsed = 0;
    for answer in asked {
        let answer = answer.await.expect("asked").expect(200).body("v1");
        collapsed += usize::from(answer.cache_status().contains("collapsed"));
    }
    assert_eq!(origin.hits("/a"), 1);
    assert_eq!(collapsed, 499);
    edge.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_answers_are_fetched_by_each_for_itself_without_waiting_in_line() {
    let first = Gate::new("the first private answer");
    let rest = Gate::new("the others, all at once");
    let private = || reply(200).cache("private").body("mine");
    let origin =
        Origin::new().on_each("/me", vec![private().gate(&first), private().gate(&rest)]).start().await;
    let edge = Edge::serving(&origin).start().await;
    let asked = ask_many(&edge, "/me", 500).await;
    first.arrived(1).await;
    crate::support::poll_until("all to be in flight", || async {
        edge.metric("vanne_requests_in_flight") == Some(500.0)
    })
    .await;
    first.release();
    // All the others reach the origin before any of them is answered: none waits for another.
    rest.arrived(499).await;
    rest.release();
    for answer in asked {
        answer.await.expect("asked").expect(200).body("mine");
    }
    assert_eq!(origin.hits("/me"), 500);
    edge.finish().await;
}

#[tokio::test]
async fn content_reaches_those_who_wait_while_it_still_comes() {
    let gate = Gate::new("the second half");
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").chunk("one ").then_wait(&gate).chunk("two"))
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let mut leader = edge.client.connect().await;
    leader.write("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    leader.read_until("one ").await;
    let mut follower = edge.client.connect().await;
    follower.write("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    follower.read_until("one ").await;
    gate.release();
    leader.read_until("two").await;
    follower.read_until("two").await;
    assert_eq!(origin.hits("/a"), 1);
    drop((leader, follower));
    edge.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_end_what_others_wait_for() {
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1").gate(&gate)).start().await;
    let edge = Edge::serving(&origin).start().await;
    let mut leader = edge.client.connect().await;
    leader.write("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    gate.arrived(1).await;
    let follower = tokio::spawn(edge.client.get("/a").host("x").send());
    leader.reset();
    gate.release();
    follower.await.expect("asked").expect(200).body("v1");
    assert_eq!(origin.hits("/a"), 1);
    edge.finish().await;
}

#[tokio::test]
async fn who_asks_after_a_change_does_not_share_a_fetch_that_began_before_it() {
    let gate = Gate::new("what was before the change");
    let origin = Origin::new()
        .on_each(
            "/a",
            vec![
                reply(200).cache("max-age=60").body("old").gate(&gate),
                reply(204),
                reply(200).cache("max-age=60").body("new"),
            ],
        )
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let before = tokio::spawn(edge.client.get("/a").send());
    gate.arrived(1).await;
    edge.request("PUT", "/a").body("new").send().await.expect(204);
    edge.get("/a").await.expect(200).body("new");
    gate.release();
    before.await.expect("asked").expect(200).body("old");
    edge.get("/a").await.expect(200).body("new").cache("hit");
    edge.finish().await;
}

#[tokio::test]
async fn requests_for_different_variants_do_not_share_one_fetch() {
    let gate = Gate::new("german");
    let inner = gate.clone();
    let origin = Origin::new()
        .on_request("/a", move |r| {
            let language = r.header("accept-language").unwrap_or_default().to_owned();
            let page =
                reply(200).cache("max-age=60").header("vary", "Accept-Language").body(language.clone());
            if language == "de" { page.gate(&inner) } else { page }
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let german = tokio::spawn(edge.request("GET", "/a").header("accept-language", "de").send());
    gate.arrived(1).await;
    let french = tokio::spawn(edge.request("GET", "/a").header("accept-language", "fr").send());
    gate.release();
    german.await.expect("asked").expect(200).body("de");
    french.await.expect("asked").expect(200).body("fr");
    edge.finish().await;
}

#[tokio::test]
async fn who_waited_too_long_fetches_for_itself() {
    let gate = Gate::new("a hanging fetch");
    let origin = Origin::new()
        .on_each(
            "/a",
            vec![
                reply(200).cache("max-age=60").body("slow").gate(&gate),
                reply(200).cache("max-age=60").body("fast"),
            ],
        )
        .start()
        .await;
    let edge = Edge::serving(&origin).cache("wait_timeout = \"50ms\"").start().await;
    let leader = tokio::spawn(edge.client.get("/a").send());
    gate.arrived(1).await;
    edge.get("/a").await.expect(200).body("fast");
    gate.release();
    leader.await.expect("asked").expect(200).body("slow");
    edge.finish().await;
}

#[tokio::test]
async fn a_failed_fetch_is_told_to_all_who_waited_and_not_repeated_by_each() {
    let gate = Gate::new("the failure");
    let origin = Origin::new().on("/a", crate::support::origin::hang_up().gate(&gate)).start().await;
    let edge = Edge::serving(&origin).upstream("tries = 1").start().await;
    let asked = ask_many(&edge, "/a", 20).await;
    gate.arrived(1).await;
    crate::support::poll_until("all to be in flight", || async {
        edge.metric("vanne_requests_in_flight") == Some(20.0)
    })
    .await;
    gate.release();
    for answer in asked {
        answer.await.expect("asked").expect(502);
    }
    assert_eq!(origin.hits("/a"), 1);
    edge.finish().await;
}

#[tokio::test]
async fn nothing_stays_in_flight() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=1").body("v1")).start().await;
    let edge = Edge::serving(&origin).start().await;
    for _ in 0..3 {
        edge.get("/a").await.expect(200);
        edge.grow_older(secs(2));
    }
    crate::support::poll_until("instances to be idle", || async { edge.in_flight() == [0] }).await;
    crate::support::poll_until("requests to be over", || async {
        edge.metric("vanne_requests_in_flight") == Some(0.0)
    })
    .await;
    edge.finish().await;
}
