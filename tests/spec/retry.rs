//! Trying again: when, how often, for how long, and when not.

use std::time::Duration;

use vanne::base::clock::Clock;

use crate::edge::{Configuration, Edge};
use crate::support::origin::{self, Origin, Reply, reply};
use crate::support::{free_address, poll_until};

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("no-store").body(name)).start().await
}

async fn answering(every: Reply) -> Origin {
    Origin::new().on("*", every).start().await
}

/// A gateway before these instances, with these lines for the upstream and the route.
fn trying(instances: &[&Origin], cached: bool, upstream: &str, route: &str) -> Configuration {
    let addresses: Vec<_> = instances.iter().map(|origin| origin.address()).collect();
    let cache = if cached { "cache = \"api\"\n" } else { "" };
    let edge = Edge::before(&addresses)
        .upstream(&format!("eject = \"off\"\n{upstream}"))
        .routes(&format!("[[routes]]\nupstream = \"api\"\n{cache}{route}"));
    if cached { edge } else { edge.without_cache() }
}

fn retries(edge: &Edge, reason: &str) -> f64 {
    let series = format!("vanne_upstream_retries_total{{reason=\"{reason}\",upstream=\"api\"}}");
    edge.metric(&series).expect("a number")
}

fn denied(edge: &Edge) -> f64 {
    edge.metric("vanne_upstream_retries_denied_total{upstream=\"api\"}").expect("a number")
}

/// How long this clock has run.
fn elapsed(clock: &Clock) -> Duration {
    Duration::from_nanos(clock.mono().as_nanos())
}

#[tokio::test]
async fn a_hanging_route_is_answered_with_504_at_its_own_limit() {
    for cached in [false, true] {
        let (a, b) = (answering(origin::hang()).await, answering(origin::hang()).await);
        let route = "timeout = \"300ms\"";
        let edge = trying(&[&a, &b], cached, "read_timeout = \"1h\"", route).start().await;
        for method in ["GET", "POST"] {
            let clock = Clock::start();
            edge.request(method, "/").send().await.expect(504);
            let took = elapsed(&clock);
            assert!((300..5000).contains(&took.as_millis()), "{method} took {took:?}, cached: {cached}");
        }
        assert_eq!(a.hits("/") + b.hits("/"), 2, "each was sent once: no time was left, cached: {cached}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_attempt_that_meets_silence_leaves_time_for_another_one() {
    for cached in [false, true] {
        for (upstream, route) in [
            ("timeout = \"1h\"\nread_timeout = \"1h\"\ntry_timeout = \"100ms\"", ""),
            ("read_timeout = \"1h\"", "timeout = \"1h\"\ntry_timeout = \"100ms\""),
        ] {
            let (a, b) = (answering(origin::hang()).await, instance("b").await);
            let edge = trying(&[&a, &b], cached, upstream, route).start().await;
            for n in 0..4 {
                edge.get(&format!("/{n}")).await.expect(200).body("b");
            }
            assert_eq!(
                (a.requests().len() as f64, retries(&edge, "timeout")),
                (2.0, 2.0),
                "cached: {cached}"
            );
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn a_request_is_tried_as_often_as_its_route_says() {
    for cached in [false, true] {
        for (tries, route) in [(1, "tries = 1"), (2, "tries = 2"), (3, "")] {
            let all = [
                answering(origin::hang_up()).await,
                answering(origin::hang_up()).await,
                answering(origin::hang_up()).await,
                answering(origin::hang_up()).await,
            ];
            let instances: Vec<_> = all.iter().collect();
            let edge = trying(&instances, cached, "", route).start().await;
            edge.get("/").await.expect(502);
            let asked: usize = all.iter().map(|origin| origin.hits("/")).sum();
            assert_eq!(asked, tries, "with {route:?}, cached: {cached}");
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn an_answer_is_given_up_for_its_status_where_that_is_asked() {
    for cached in [false, true] {
        for (upstream, route, asked) in [
            ("", "", false),
            ("retry_on = [\"502-504\"]", "", true),
            ("", "retry_on = [\"closed\", 503]", true),
            ("retry_on = [503]", "retry_on = []", false),
        ] {
            let (a, b) = (answering(reply(503).body("a")).await, instance("b").await);
            let edge = trying(&[&a, &b], cached, upstream, route).start().await;
            let mut unwell = 0;
            for n in 0..4 {
                unwell += usize::from(edge.get(&format!("/{n}")).await.status == 503);
            }
            let (expected, again) = if asked { (0, 2.0) } else { (2, 0.0) };
            assert_eq!(
                (unwell, retries(&edge, "status")),
                (expected, again),
                "{upstream} {route} cached: {cached}"
            );
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn when_nobody_does_better_the_last_answer_is_passed_on() {
    for cached in [false, true] {
        let (a, b) = (answering(reply(503).body("no")).await, answering(reply(503).body("no")).await);
        let edge = trying(&[&a, &b], cached, "retry_on = [503]", "").start().await;
        edge.get("/").await.expect(503).body("no");
        assert_eq!((a.hits("/"), b.hits("/")), (1, 1), "cached: {cached}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_post_is_never_sent_twice_for_the_status_of_its_answer() {
    let (a, b) = (answering(reply(503).body("no")).await, answering(reply(503).body("no")).await);
    let edge = trying(&[&a, &b], false, "retry_on = [503]", "").start().await;
    edge.request("POST", "/pay").body("once").send().await.expect(503).body("no");
    assert_eq!(a.hits("/pay") + b.hits("/pay"), 1);
    edge.request("PUT", "/put").body("again").send().await.expect(503).body("no");
    assert_eq!((a.last("/put").body, b.last("/put").body), (b"again".to_vec(), b"again".to_vec()));
    edge.finish().await;
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_tried_again_but_what_was_never_sent_is() {
    for cached in [false, true] {
        let (a, b) = (answering(origin::hang_up()).await, answering(origin::hang_up()).await);
        let edge = trying(&[&a, &b], cached, "retry_on = []", "").start().await;
        edge.get("/").await.expect(502);
        assert_eq!(a.hits("/") + b.hits("/"), 1, "cached: {cached}");
        edge.finish().await;

        let b = instance("b").await;
        let edge = Edge::before(&[free_address(), b.address()]).upstream("retry_on = []\neject = \"off\"");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for n in 0..4 {
            edge.get(&format!("/{n}")).await.expect(200).body("b");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn retries_are_a_share_of_the_load_and_those_of_what_was_never_sent_are_free() {
    for cached in [false, true] {
        for (budget, again) in [("{ share = 0, least = 0 }", 0.0), ("\"off\"", 5.0), ("{}", 5.0)] {
            let (a, b) = (answering(origin::hang_up()).await, answering(origin::hang_up()).await);
            let upstream = format!("retry_budget = {budget}\ntries = 2");
            let edge = trying(&[&a, &b], cached, &upstream, "").start().await;
            for n in 0..5 {
                edge.get(&format!("/{n}")).await.expect(502);
            }
            let asked = (a.requests().len() + b.requests().len()) as f64;
            assert_eq!((asked, denied(&edge)), (5.0 + again, 5.0 - again), "{budget}, cached: {cached}");
            edge.finish().await;
        }
        let b = instance("b").await;
        let edge = Edge::before(&[free_address(), b.address()])
            .upstream("retry_budget = { share = 0, least = 0 }\neject = \"off\"");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for n in 0..4 {
            edge.get(&format!("/{n}")).await.expect(200).body("b");
        }
        assert_eq!((retries(&edge, "connect"), denied(&edge)), (2.0, 0.0), "cached: {cached}");
        edge.finish().await;
    }
}

/// An instance that closes idle connections, as uvicorn does after five seconds, never closes one that a request is being sent into: the gateway has
/// closed it before.
#[tokio::test]
async fn an_idle_connection_is_closed_before_the_instance_does_it() {
    for cached in [false, true] {
        let a = instance("a").await;
        let edge = trying(&[&a], cached, "idle_timeout = \"50ms\"", "").start().await;
        for n in 0..3 {
            edge.get(&format!("/{n}")).await.expect(200);
            poll_until("the idle connection to be closed", || async { a.open_connections() == 0 }).await;
        }
        assert_eq!(a.connections(), 3, "cached: {cached}");
        edge.finish().await;
    }
}
