//! Which instance is asked, and what happens when one is gone.

use std::collections::HashMap;

use crate::edge::Edge;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, reply};
use crate::support::{free_address, poll_until};

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("no-store").body(name)).start().await
}

async fn shares(edge: &Edge, n: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..n {
        *shares.entry(edge.get("/").await.expect(200).text()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn round_robin_gives_each_its_weight() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = Edge::before(&[]).without_cache();
    let edge = edge
        .routes("[[routes]]\nupstream = \"weighted\"")
        .also(&format!(
            "[upstreams.weighted]\nservers = [{{ addr = \"{}\", weight = 3 }}, \"{}\"]",
            a.address(),
            b.address()
        ))
        .without_first_upstream()
        .start()
        .await;
    assert_eq!(shares(&edge, 40).await, HashMap::from([("a".into(), 30), ("b".into(), 10)]));
    edge.finish().await;
}

#[tokio::test]
async fn least_conn_avoids_the_busy_instance() {
    let gate = Gate::new("a slow answer");
    let (a, b) = (instance("a").await, instance("b").await);
    a.set("/slow", reply(200).body("a").gate(&gate));
    b.set("/slow", reply(200).body("b").gate(&gate));
    let edge = Edge::before(&[a.address(), b.address()])
        .without_cache()
        .upstream("balance = \"least_conn\"")
        .start()
        .await;
    let slow = tokio::spawn(edge.client.get("/slow").send());
    gate.arrived(1).await;
    let busy = if a.hits("/slow") == 1 { "a" } else { "b" };
    let shares = shares(&edge, 20).await;
    assert_eq!(shares.get(busy), None, "{shares:?}");
    gate.release();
    slow.await.expect("asked").expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn ip_hash_keeps_a_client_with_its_instance_behind_trusted_proxies_too() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = Edge::before(&[a.address(), b.address()])
        .without_cache()
        .upstream("balance = \"ip_hash\"")
        .also("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .start()
        .await;
    let mut seen = HashMap::new();
    for round in 0..3 {
        for client in 0..40 {
            let address = format!("203.0.{client}.7");
            let answer =
                edge.request("GET", "/").header("x-forwarded-for", &address).send().await.expect(200).text();
            let first = seen.entry(client).or_insert_with(|| answer.clone());
            assert_eq!(*first, answer, "client {client}, round {round}");
        }
    }
    assert!(seen.values().any(|v| v == "a") && seen.values().any(|v| v == "b"), "both are used: {seen:?}");
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_that_refuses_connections_costs_nobody_an_answer() {
    let a = instance("a").await;
    let edge = Edge::before(&[a.address(), free_address()]).without_cache().start().await;
    for _ in 0..20 {
        edge.get("/").await.expect(200).body("a");
        edge.request("POST", "/").body("x").send().await.expect(200);
    }
    edge.finish().await;
}

#[tokio::test]
async fn a_get_is_tried_again_and_a_post_never_sent_twice() {
    let (a, b) = (instance("a").await, instance("b").await);
    a.set("*", origin::hang_up());
    b.set("*", origin::hang_up());
    let edge = Edge::before(&[a.address(), b.address()]).without_cache().start().await;
    edge.request("POST", "/pay").body("once").send().await.expect(502);
    assert_eq!(a.hits("/pay") + b.hits("/pay"), 1);
    edge.get("/read").await.expect(502);
    assert_eq!((a.hits("/read"), b.hits("/read")), (1, 1));
    edge.finish().await;
}

#[tokio::test]
async fn a_hanging_instance_costs_one_time_out_and_not_one_per_instance() {
    let (a, b) = (instance("a").await, instance("b").await);
    a.set("/hang", origin::hang());
    b.set("/hang", origin::hang());
    for cached in [false, true] {
        let edge = Edge::before(&[a.address(), b.address()]).upstream("read_timeout = \"200ms\"");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let before = a.hits("/hang") + b.hits("/hang");
        edge.get("/hang").await.expect(504);
        assert_eq!(a.hits("/hang") + b.hits("/hang") - before, 1, "cached: {cached}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_instance_closed_is_replaced_unnoticed() {
    let a = instance("a").await;
    let edge = Edge::before(&[a.address()]).without_cache().start().await;
    for _ in 0..5 {
        edge.get("/").await.expect(200);
        a.stop().await;
        a.restart().await;
    }
    edge.finish().await;
}

#[tokio::test]
async fn health_checks_take_an_instance_out_and_bring_it_back() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = Edge::before(&[a.address(), b.address()])
        .without_cache()
        .upstream("health = { path = \"/ready\", every = \"20ms\", timeout = \"1s\", fall = 2, rise = 2 }")
        .start()
        .await;
    b.set("/ready", reply(503));
    poll_until("b to be taken out", || async { edge.up() == [true, false] }).await;
    assert_eq!(shares(&edge, 10).await, HashMap::from([("a".into(), 10)]));
    b.set("/ready", reply(204));
    poll_until("b to be back", || async { edge.up() == [true, true] }).await;
    assert_eq!(shares(&edge, 10).await.len(), 2);
    let checked = b.last("/ready");
    assert!(checked.header("user-agent").is_some_and(|agent| agent.starts_with("vanne-health/")));
    edge.finish().await;
}

#[tokio::test]
async fn a_hanging_health_check_is_a_failed_one() {
    let a = instance("a").await;
    a.set("/ready", origin::hang());
    let edge = Edge::before(&[a.address()])
        .without_cache()
        .upstream("health = { path = \"/ready\", every = \"20ms\", timeout = \"30ms\", fall = 2, rise = 1 }")
        .start()
        .await;
    poll_until("it to be taken out", || async { edge.up() == [false] }).await;
    edge.get("/").await.expect(200).body("a");
    edge.finish().await;
}

#[tokio::test]
async fn tcp_checks_ask_for_no_more_than_a_connection() {
    let a = instance("a").await;
    let edge = Edge::before(&[a.address()])
        .without_cache()
        .upstream("health = { type = \"tcp\", every = \"20ms\", fall = 1, rise = 1 }")
        .start()
        .await;
    a.stop().await;
    poll_until("it to be taken out", || async { edge.up() == [false] }).await;
    a.restart().await;
    poll_until("it to be back", || async { edge.up() == [true] }).await;
    assert_eq!(a.requests().len(), 0);
    edge.finish().await;
}

#[tokio::test]
async fn without_any_instance_the_answer_says_so_and_when_to_come_back() {
    let edge = Edge::before(&[free_address(), free_address()]).without_cache().start().await;
    edge.get("/").await.expect(502);
    edge.finish().await;
}

/// Instances die under 64 connections of load, and no client notices: neither on what passes through nor on what the cache fetches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_one_of_three_instances_under_load_fails_no_get() {
    for cached in [false, true] {
        let instances = [instance("a").await, instance("b").await, instance("c").await];
        let addresses: Vec<_> = instances.iter().map(Origin::address).collect();
        let edge = Edge::before(&addresses)
            .upstream("health = { path = \"/ready\", every = \"50ms\", fall = 2, rise = 2 }");
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let mut clients = Vec::new();
        for client in 0..64 {
            let mut connection = edge.client.connect().await;
            clients.push(tokio::spawn(async move {
                for i in 0..30 {
                    connection.get(&format!("/{client}/{i}")).send().await.expect(200);
                }
            }));
        }
        instances[1].wait_for_requests(50).await;
        instances[1].stop().await;
        for client in clients {
            client.await.expect("every GET is answered");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_backup_stands_in_while_no_other_instance_is_up() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = Edge::before(&[])
        .without_cache()
        .without_first_upstream()
        .routes("[[routes]]\nupstream = \"api\"")
        .also(&format!(
            "[upstreams.api]\nservers = [\"{}\", {{ addr = \"{}\", backup = true }}]\n\
             health = {{ path = \"/ready\", every = \"20ms\", fall = 2, rise = 2 }}",
            a.address(),
            b.address()
        ))
        .start()
        .await;
    assert_eq!(shares(&edge, 10).await, HashMap::from([("a".into(), 10)]));
    a.set("/ready", reply(503));
    poll_until("a to be taken out", || async { edge.up() == [false, true] }).await;
    assert_eq!(shares(&edge, 10).await, HashMap::from([("b".into(), 10)]));
    a.set("/ready", reply(200));
    poll_until("a to be back", || async { edge.up() == [true, true] }).await;
    assert_eq!(shares(&edge, 10).await, HashMap::from([("a".into(), 10)]));
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_that_was_brought_back_gets_its_share_little_by_little() {
    for (slow_start, most) in [("1h", 2), ("0s", 50)] {
        let (a, b) = (instance("a").await, instance("b").await);
        let edge = Edge::before(&[a.address(), b.address()])
            .without_cache()
            .upstream(&format!(
                "health = {{ path = \"/ready\", every = \"20ms\", fall = 1, rise = 1, slow_start = \"{slow_start}\" }}"
            ))
            .start()
            .await;
        assert_eq!(shares(&edge, 10).await.len(), 2, "those that were never out have their whole share");
        b.set("/ready", reply(503));
        poll_until("b to be taken out", || async { edge.up() == [true, false] }).await;
        b.set("/ready", reply(200));
        poll_until("b to be back", || async { edge.up() == [true, true] }).await;
        let got = shares(&edge, 100).await.get("b").copied().unwrap_or_default();
        assert!(got <= most && got + 2 >= most, "b got {got} of 100 with slow_start {slow_start}");
        edge.finish().await;
    }
}
