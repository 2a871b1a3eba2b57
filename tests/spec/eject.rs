//! What happens to requests takes an instance out, for a while; what clients cause and what instances answer never does.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinSet;
use vanne::base::clock::Clock;

use crate::edge::{Configuration, Edge, secs};
use crate::support::origin::{self, Origin, reply};
use crate::support::process::{Process, Program};
use crate::support::{free_address, poll_until};

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("no-store").body(name)).start().await
}

fn ejecting(instances: &[&Origin], eject: &str, more: &str) -> Configuration {
    let addresses: Vec<_> = instances.iter().map(|origin| origin.address()).collect();
    Edge::before(&addresses).upstream(&format!("eject = {{ {eject} }}\n{more}"))
}

fn ejections(edge: &Edge, instance: &Origin) -> f64 {
    let series =
        format!("vanne_upstream_ejections_total{{instance=\"{}\",upstream=\"api\"}}", instance.address());
    edge.metric(&series).expect("a number")
}

/// How long this clock has run.
fn elapsed(clock: &Clock) -> Duration {
    Duration::from_nanos(clock.mono().as_nanos())
}

const FOR_AN_HOUR: &str = "after = 3, time = \"1h\", max_time = \"2h\"";

#[tokio::test]
async fn an_instance_whose_exchanges_fail_is_taken_out() {
    for cached in [false, true] {
        let (a, b) = (instance("a").await, instance("b").await);
        let edge = ejecting(&[&a, &b], FOR_AN_HOUR, "");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        b.set("*", origin::hang_up());
        for _ in 0..20 {
            edge.get("/").await.expect(200).body("a");
        }
        assert_eq!(
            (b.hits("/"), ejections(&edge, &b), ejections(&edge, &a)),
            (3, 1.0, 0.0),
            "cached: {cached}"
        );
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_instance_that_was_taken_out_is_tried_again_and_acquitted_by_one_answer() {
    let (a, b) = (instance("a").await, instance("b").await);
    b.set("*", origin::hang_up());
    let edge = ejecting(&[&a, &b], "after = 3, time = \"40ms\", max_time = \"80ms\"", "").without_cache();
    let edge = edge.start().await;
    poll_until("it to be tried again, twice", || async {
        edge.get("/").await.expect(200).body("a");
        b.hits("/") >= 5
    })
    .await;
    assert_eq!(ejections(&edge, &b), (b.hits("/") - 2) as f64, "on trial, one failure is enough");
    b.set("*", reply(200).cache("no-store").body("b"));
    poll_until("it to be back", || async { edge.get("/").await.expect(200).text() == "b" }).await;
    let mut seen = HashSet::new();
    for _ in 0..4 {
        seen.insert(edge.get("/").await.expect(200).text());
    }
    assert_eq!(seen.len(), 2, "it has its share again");
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_that_refuses_connections_is_asked_no_more() {
    let a = instance("a").await;
    let edge = Edge::before(&[a.address(), free_address()])
        .without_cache()
        .upstream(&format!("eject = {{ {FOR_AN_HOUR} }}"))
        .start()
        .await;
    for _ in 0..20 {
        edge.request("POST", "/").body("x").send().await.expect(200).body("a");
    }
    assert_eq!(edge.metric("vanne_upstream_retries_total{reason=\"connect\",upstream=\"api\"}"), Some(3.0));
    edge.finish().await;
}

#[tokio::test]
async fn without_it_a_failing_instance_is_asked_for_ever() {
    let (a, b) = (instance("a").await, instance("b").await);
    b.set("*", origin::hang_up());
    let edge =
        Edge::before(&[a.address(), b.address()]).without_cache().upstream("eject = \"off\"").start().await;
    for _ in 0..20 {
        edge.get("/").await.expect(200).body("a");
    }
    assert!(b.hits("/") >= 9, "{}", b.hits("/"));
    edge.finish().await;
}

#[tokio::test]
async fn no_status_says_anything_about_an_instance() {
    for cached in [false, true] {
        let (a, b) = (instance("a").await, instance("b").await);
        a.set("/broken", reply(503).body("a"));
        b.set("/broken", reply(500).body("b"));
        let edge = ejecting(&[&a, &b], "after = 1", "");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for _ in 0..10 {
            edge.get("/broken").await;
        }
        assert_eq!((ejections(&edge, &a), ejections(&edge, &b)), (0.0, 0.0));
        assert_eq!((a.hits("/broken"), b.hits("/broken")), (5, 5), "cached: {cached}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn what_clients_cause_is_held_against_no_instance() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = ejecting(&[&a, &b], "after = 1", "read_timeout = \"100ms\"").without_cache().start().await;
    let mut clients = JoinSet::new();
    for i in 0..20 {
        let client = edge.client.clone();
        clients.spawn(async move {
            let mut connection = client.connect().await;
            let head = "POST /slow HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 100\r\n\r\nhalf";
            connection.write(head).await;
            if i % 2 == 0 {
                connection.reset();
            } else {
                connection.read_answer("POST").await.expect(504);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("the client did as it was told");
    }
    assert_eq!((ejections(&edge, &a), ejections(&edge, &b)), (0.0, 0.0));
    edge.finish().await;
}

/// Every other exchange with it fails, so that never two in a row do: the share of failures tells.
#[tokio::test]
async fn an_instance_that_fails_half_the_time_is_taken_out() {
    for (rate, out) in [(40, true), (60, false)] {
        let (a, b) = (instance("a").await, instance("b").await);
        let turn = std::sync::atomic::AtomicUsize::new(0);
        b.set_script("/", move |_| match turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 {
            0 => origin::hang_up(),
            // On a kept connection a hang-up would say nothing about the instance.
            _ => reply(200).cache("no-store").body("b").close(),
        });
        let eject = format!(
            "after = 2, time = \"1h\", max_time = \"1h\", rate = {rate}, volume = 10, window = \"1h\""
        );
        let edge = ejecting(&[&a, &b], &eject, "").without_cache().start().await;
        for _ in 0..60 {
            edge.get("/").await.expect(200);
        }
        assert_eq!(ejections(&edge, &b), if out { 1.0 } else { 0.0 }, "{rate} %");
        assert_eq!(b.hits("/") < 15, out, "{}", b.hits("/"));
        edge.finish().await;
    }
}

/// One instance answers 500 to everything, the others do not: where the operator says that this counts, it is taken out.
#[tokio::test]
async fn statuses_that_count_take_out_who_does_worse_than_the_others() {
    for cached in [false, true] {
        let (a, b, c) = (instance("a").await, instance("b").await, instance("c").await);
        let eject = format!("{FOR_AN_HOUR}, statuses = [500, \"502-504\"], window = \"1h\"");
        let edge = ejecting(&[&a, &b, &c], &eject, "");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        for origin in [&a, &b, &c] {
            origin.set("/broken", reply(503).cache("no-store"));
        }
        for _ in 0..30 {
            edge.get("/broken").await.expect(503);
        }
        let all = ejections(&edge, &a) + ejections(&edge, &b) + ejections(&edge, &c);
        assert_eq!(all, 0.0, "a route that all answer so says nothing about any; cached: {cached}");
        edge.finish().await;

        let edge = ejecting(&[&a, &b, &c], &eject, "");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        b.set("*", reply(500).cache("no-store"));
        let before = b.requests().len();
        for i in 0..30 {
            edge.get(&format!("/{i}")).await;
        }
        assert_eq!(b.requests().len() - before, 3, "cached: {cached}");
        assert_eq!((ejections(&edge, &a), ejections(&edge, &b)), (0.0, 1.0));
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_instance_that_says_when_to_come_back_is_left_alone_until_then() {
    for (setting, asked, left_alone) in [
        ("retry_after = \"1h\"", "3600", true),
        ("retry_after = \"1h\"", "Tue, 23 Nov 2999 00:00:00 GMT", true),
        ("retry_after = \"1h\"", "soon", false),
        ("", "3600", false),
    ] {
        let (a, b) = (instance("a").await, instance("b").await);
        b.set("*", reply(503).cache("no-store").header("retry-after", asked));
        let edge = ejecting(&[&a, &b], setting, "").without_cache().start().await;
        for _ in 0..10 {
            edge.get("/").await;
        }
        let expected = if left_alone { 1 } else { 5 };
        assert_eq!(b.hits("/"), expected, "{setting}, Retry-After: {asked}");
        if left_alone {
            let overview = edge.admin().get("/api/v1/upstreams").send().await.expect(200).text();
            assert!(overview.contains("\"state\":\"resting\""), "{overview}");
        }
        assert_eq!(ejections(&edge, &b), 0.0, "it is not held against it");
        edge.finish().await;
    }
}

#[tokio::test]
async fn who_asked_to_be_left_alone_for_a_while_is_asked_again_after_it() {
    let (a, b) = (instance("a").await, instance("b").await);
    b.set("*", reply(429).cache("no-store").header("retry-after", "3600"));
    let edge = ejecting(&[&a, &b], "retry_after = \"50ms\"", "").without_cache().start().await;
    poll_until("it to be asked again and again", || async {
        edge.get("/").await;
        b.hits("/") >= 3
    })
    .await;
    edge.finish().await;
}

/// 800 clients send bodies slowly: some leave, some end just before an instance's time to answer is over, some just when it is, some after. One
/// failure would be enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hundred_slow_clients_take_out_no_instance() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge =
        ejecting(&[&a, &b], "after = 1, volume = 1, rate = 1", "read_timeout = \"2s\"").without_cache();
    let edge = edge.start().await;
    let mut clients = JoinSet::new();
    for i in 0..800 {
        let client = edge.client.clone();
        clients.spawn(async move {
            let mut connection = client.connect().await;
            connection.write("POST /slow HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nsl").await;
            tokio::time::sleep(Duration::from_millis(1700 + i % 5 * 150)).await;
            match i % 4 {
                0 => connection.reset(),
                1 => drop(connection),
                // Who is too late was answered already.
                _ => drop((connection.try_write("ow").await, connection.try_read_answer("POST").await)),
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("the client did as it was told");
    }
    assert_eq!((ejections(&edge, &a), ejections(&edge, &b)), (0.0, 0.0));
    poll_until("all places to be given back", || async { edge.in_flight() == [0, 0] }).await;
    edge.get("/").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn no_more_than_a_share_of_the_instances_is_out() {
    let origins = [instance("a").await, instance("b").await, instance("c").await];
    for share in [50, 70] {
        origins.iter().for_each(|origin| origin.set("/broken", origin::hang_up()));
        let all: Vec<&Origin> = origins.iter().collect();
        let eject = format!("after = 1, time = \"1h\", max_time = \"1h\", share = {share}");
        let edge = ejecting(&all, &eject, "").without_cache().start().await;
        for _ in 0..5 {
            edge.get("/broken").await.expect(502);
        }
        let out: f64 = origins.iter().map(|origin| ejections(&edge, origin)).sum();
        assert_eq!(out, if share == 50 { 1.0 } else { 2.0 }, "{share} % of three");
        edge.get("/").await.expect(200);
        edge.finish().await;
    }
}

#[tokio::test]
async fn silence_is_met_once_more_elsewhere_within_the_time_for_all_attempts() {
    for cached in [false, true] {
        let origins = [instance("a").await, instance("b").await, instance("c").await];
        let all: Vec<&Origin> = origins.iter().collect();
        let edge = ejecting(&all, "after = 1000", "read_timeout = \"150ms\"\ntimeout = \"10s\"");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let hits = |target: &str| origins.iter().map(|origin| origin.hits(target)).sum::<usize>();
        origins[0].set("*", origin::hang());
        for i in 0..3 {
            edge.get(&format!("/{i}")).await.expect(200);
        }
        assert_eq!(origins[0].requests().len(), 1, "its turn came, and another instance answered");
        origins.iter().for_each(|origin| origin.set("/hang", origin::hang()));
        edge.get("/hang")
            .await
            .expect(504)
            .with("proxy-status", "vanne; error=connection_read_timeout; details=\"upstream-timeout\"");
        assert_eq!(hits("/hang"), 2, "a hanging route hangs no third instance; cached: {cached}");
        let before = hits("/hang");
        edge.request("POST", "/hang").body("once").send().await.expect(504);
        assert_eq!(hits("/hang") - before, 1, "a POST is never sent twice");
        edge.finish().await;
    }
}

#[tokio::test]
async fn the_time_for_all_attempts_is_kept() {
    let (a, b) = (instance("a").await, instance("b").await);
    a.set("/hang", origin::hang());
    b.set("/hang", origin::hang());
    for cached in [false, true] {
        let edge = ejecting(&[&a, &b], "", "read_timeout = \"1500ms\"\ntimeout = \"1600ms\"");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let begun = Clock::start();
        edge.get("/hang").await.expect(504);
        let took = elapsed(&begun);
        assert!(
            took >= Duration::from_millis(1550) && took < Duration::from_millis(2800),
            "{took:?}, cached: {cached}"
        );
        edge.finish().await;
    }
}

/// An instance that is a process of its own and can be stopped.
async fn process(name: &str) -> (Process, std::net::SocketAddr) {
    let (address, admin) = (free_address(), free_address());
    let configuration = format!(
        "[listen.web]\naddr = \"{address}\"\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n\
         [[routes]]\nrespond = {{ status = 200, body = \"{name}\" }}\n"
    );
    (Program::gateway(&configuration).ready_at(admin).start().await, address)
}

/// One of three instances is stopped (SIGSTOP) under load: it accepts connections and says nothing. No GET fails, none takes longer than
/// one silence and the answer of another instance; continued, the instance is back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_instance_costs_no_get_and_one_silence_at_most() {
    const SILENCE: Duration = Duration::from_secs(1);
    let instances = [process("a").await, process("b").await, process("c").await];
    let addresses: Vec<_> = instances.iter().map(|(_, address)| *address).collect();
    let edge = Edge::before(&addresses)
        .without_cache()
        .upstream("read_timeout = \"1s\"\ntimeout = \"3s\"")
        .start()
        .await;
    instances[1].0.signal("STOP");
    let mut clients = JoinSet::new();
    for client in 0..64 {
        let mut connection = edge.client.connect().await;
        clients.spawn(async move {
            let mut slowest = Duration::ZERO;
            for i in 0..20 {
                let begun = Clock::start();
                connection.get(&format!("/{client}/{i}")).send().await.expect(200);
                slowest = slowest.max(elapsed(&begun));
            }
            slowest
        });
    }
    let mut slowest = Duration::ZERO;
    while let Some(client) = clients.join_next().await {
        slowest = slowest.max(client.expect("every GET is answered"));
    }
    assert!(slowest >= SILENCE && slowest < SILENCE + Duration::from_millis(600), "{slowest:?}");
    instances[1].0.signal("CONT");
    let begun = Clock::start();
    while edge.get("/").await.expect(200).text() != "b" {
        assert!(elapsed(&begun) < secs(6), "back in rotation");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge.finish().await;
}
