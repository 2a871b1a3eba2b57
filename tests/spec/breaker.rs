//! An upstream whose exchanges fail, whatever instance they go to, is not asked for a while, and then a little at a time.

use tokio::task::JoinSet;

use crate::edge::{Configuration, Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, reply};
use crate::support::poll_until;

async fn instance() -> Origin {
    Origin::new().on("*", reply(200).cache("no-store").body("well")).start().await
}

/// Nothing is ejected, so that only the breaker decides.
fn broken(instances: &[&Origin], breaker: &str) -> Configuration {
    let addresses: Vec<_> = instances.iter().map(|origin| origin.address()).collect();
    Edge::before(&addresses).upstream(&format!("eject = \"off\"\ntries = 1\nbreaker = {{ {breaker} }}"))
}

fn circuit(edge: &Edge) -> (Option<f64>, Option<f64>) {
    (
        edge.metric("vanne_upstream_circuit_open{upstream=\"api\"}"),
        edge.metric("vanne_upstream_rejected_total{reason=\"circuit-open\",upstream=\"api\"}"),
    )
}

const FOR_AN_HOUR: &str = "volume = 4, window = \"1h\", time = \"1h\", max_time = \"1h\"";

#[tokio::test]
async fn an_upstream_that_fails_is_not_asked_and_the_answer_says_when_to_come_back() {
    for cached in [false, true] {
        let (a, b) = (instance().await, instance().await);
        let edge = broken(&[&a, &b], FOR_AN_HOUR);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        a.set("*", origin::hang_up());
        b.set("*", origin::hang_up());
        for _ in 0..4 {
            edge.get("/").await.expect(502);
        }
        let refused = edge.get("/").await.expect(503);
        let refused =
            refused.with("proxy-status", "vanne; error=destination_unavailable; details=\"circuit-open\"");
        let seconds: u32 = refused.header("retry-after").expect("it says so").parse().expect("seconds");
        assert!((3590..=3600).contains(&seconds), "{seconds}");
        assert!(refused.text().contains("\"code\":\"circuit-open\""));
        edge.request("POST", "/").body("x").send().await.expect(503);
        assert_eq!(a.requests().len() + b.requests().len(), 4, "cached: {cached}");
        assert_eq!(circuit(&edge), (Some(1.0), Some(2.0)));
        assert_eq!(edge.metric("vanne_upstream_circuit_opened_total{upstream=\"api\"}"), Some(1.0));
        let overview = edge.admin().get("/api/v1/upstreams").send().await.expect(200).text();
        assert!(overview.contains("\"circuit\":\"open\""), "{overview}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn half_open_a_few_requests_decide() {
    let a = instance().await;
    let breaker = "volume = 2, window = \"1h\", time = \"100ms\", max_time = \"100ms\", probes = 2";
    let edge = broken(&[&a], breaker).without_cache().start().await;
    a.set("*", origin::hang_up());
    for _ in 0..2 {
        edge.get("/").await.expect(502);
    }
    let gate = Gate::new("on probation");
    a.set("/slow", reply(200).cache("no-store").gate(&gate));
    let mut probes = JoinSet::new();
    for wanted in 1..=2 {
        // Before its time is over it is refused, and asks again.
        while a.hits("/slow") < wanted {
            let probe = tokio::spawn(edge.client.get("/slow").send());
            poll_until("it to be sent or refused", || async {
                a.hits("/slow") == wanted || probe.is_finished()
            })
            .await;
            if !probe.is_finished() {
                probes.spawn(probe);
            }
        }
    }
    gate.arrived(2).await;
    edge.get("/third").await.expect(503);
    assert_eq!(a.hits("/third"), 0, "two are enough");
    gate.release();
    while let Some(answer) = probes.join_next().await {
        answer.expect("asked").expect("asked").expect(200);
    }
    a.set("*", reply(200).cache("no-store"));
    for _ in 0..10 {
        edge.get("/").await.expect(200);
    }
    assert_eq!(circuit(&edge).0, Some(0.0));
    edge.finish().await;
}

#[tokio::test]
async fn a_failure_on_probation_opens_it_again() {
    let a = instance().await;
    a.set("*", origin::hang_up());
    let breaker = "volume = 2, window = \"1h\", time = \"50ms\", max_time = \"1h\", probes = 2";
    let edge = broken(&[&a], breaker).without_cache().start().await;
    poll_until("it to be opened three times", || async {
        edge.get("/").await;
        edge.metric("vanne_upstream_circuit_opened_total{upstream=\"api\"}") == Some(3.0)
    })
    .await;
    assert_eq!(a.hits("/"), 4, "two that opened it, and one for each time it was tried again");
    edge.finish().await;
}

#[tokio::test]
async fn a_stale_answer_stands_in_while_it_is_open() {
    let a = instance().await;
    a.set("/page", reply(200).cache("max-age=1, stale-if-error=600").body("stored"));
    let edge = broken(&[&a], FOR_AN_HOUR).start().await;
    edge.get("/page").await.expect(200);
    a.set("*", origin::hang_up());
    a.set("/page", origin::hang_up());
    for i in 0..4 {
        edge.get(&format!("/{i}")).await;
    }
    edge.get("/other").await.expect(503);
    edge.grow_older(secs(5));
    let before = a.requests().len();
    edge.get("/page").await.expect(200).body("stored");
    assert_eq!(a.requests().len(), before);
    edge.finish().await;
}

#[tokio::test]
async fn statuses_open_it_only_where_the_operator_says_so_and_clients_never_do() {
    for (statuses, opens) in [("", false), (", statuses = [500]", true)] {
        let a = instance().await;
        a.set("/broken", reply(500).cache("no-store"));
        let edge = broken(&[&a], &format!("{FOR_AN_HOUR}{statuses}")).without_cache().start().await;
        for i in 0..8 {
            let mut connection = edge.client.connect().await;
            connection.write("POST /cut HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 9\r\n\r\nhalf").await;
            a.wait_for_hits("/cut", i + 1).await;
            connection.reset();
        }
        poll_until("all places to be given back", || async { edge.in_flight() == [0] }).await;
        assert_eq!(circuit(&edge), (Some(0.0), Some(0.0)), "what clients cause never counts");
        for _ in 0..8 {
            edge.get("/broken").await;
        }
        assert_eq!(circuit(&edge).0, Some(f64::from(u8::from(opens))), "{statuses}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn without_a_breaker_a_failing_upstream_is_asked_for_ever() {
    let a = instance().await;
    a.set("*", origin::hang_up());
    let edge = Edge::before(&[a.address()]).without_cache().start().await;
    for _ in 0..30 {
        edge.get("/").await.expect(502);
    }
    assert_eq!(a.hits("/"), 30);
    edge.finish().await;
}
