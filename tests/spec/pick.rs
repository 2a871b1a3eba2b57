//! Which instance is asked: the ways to balance that go by the request, or by how long answers take.

use std::collections::{HashMap, HashSet};

use crate::edge::{Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("no-store").body(name)).start().await
}

async fn balanced(instances: &[&Origin], cached: bool, balance: &str) -> Edge {
    let addresses: Vec<_> = instances.iter().map(|origin| origin.address()).collect();
    let edge = Edge::before(&addresses).upstream(&format!("balance = {balance}"));
    if cached { edge } else { edge.without_cache() }.start().await
}

/// A request of user `n` as each way to hash sees it.
fn asked_by(n: usize, on: &str) -> (String, Vec<(&'static str, String)>) {
    match on {
        "path" => (format!("/{n}"), vec![]),
        "query user" => (format!("/?x=1&user={n}"), vec![]),
        "header X-User" => ("/".into(), vec![("x-user", n.to_string())]),
        "cookie user" => ("/".into(), vec![("cookie", format!("a=b; user={n}"))]),
        _ => unreachable!("{on}"),
    }
}

#[tokio::test]
async fn the_same_part_of_a_request_meets_the_same_instance() {
    let (a, b, c) = (instance("a").await, instance("b").await, instance("c").await);
    for cached in [false, true] {
        for on in ["path", "query user", "header X-User", "cookie user"] {
            let balance = format!("{{ by = \"consistent_hash\", on = \"{on}\" }}");
            let edge = balanced(&[&a, &b, &c], cached, &balance).await;
            let mut seen: HashMap<usize, String> = HashMap::new();
            for _ in 0..2 {
                for user in 0..60 {
                    let (target, fields) = asked_by(user, on);
                    let mut ask = edge.request("GET", &target);
                    for (name, value) in &fields {
                        ask = ask.header(name, value);
                    }
                    let answer = ask.send().await.expect(200).text();
                    let first = seen.entry(user).or_insert_with(|| answer.clone());
                    assert_eq!(*first, answer, "user {user} by {on}, cached: {cached}");
                }
            }
            let used: HashSet<_> = seen.values().collect();
            assert_eq!(used.len(), 3, "all are used by {on}: {seen:?}");
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn who_has_none_of_what_decides_is_shared_out() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = balanced(&[&a, &b], false, "{ by = \"consistent_hash\", on = \"cookie user\" }").await;
    let mut seen = HashSet::new();
    for _ in 0..40 {
        seen.insert(edge.get("/").await.expect(200).text());
    }
    assert_eq!(seen.len(), 2);
    edge.finish().await;
}

#[tokio::test]
async fn when_its_instance_is_gone_a_client_meets_one_other_and_comes_back() {
    let (a, b, c) = (instance("a").await, instance("b").await, instance("c").await);
    let edge = balanced(&[&a, &b, &c], false, "{ by = \"consistent_hash\", on = \"path\" }").await;
    let mut before = HashMap::new();
    for n in 0..60 {
        before.insert(n, edge.get(&format!("/{n}")).await.expect(200).text());
    }
    b.stop().await;
    for n in 0..60 {
        let now = edge.get(&format!("/{n}")).await.expect(200).text();
        match before[&n].as_str() {
            "b" => assert_ne!(now, "b"),
            whose => assert_eq!(now, whose, "client {n} had no reason to move"),
        }
    }
    b.restart().await;
    edge.let_time_pass(secs(60));
    for n in 0..60 {
        let now = edge.get(&format!("/{n}")).await.expect(200).text();
        assert_eq!(now, before[&n], "client {n} is back");
    }
    edge.finish().await;
}

#[tokio::test]
async fn a_key_that_everybody_asks_for_does_not_drown_its_instance_when_its_load_is_bounded() {
    for (load, most) in [(0, 12), (100, 4)] {
        let gate = Gate::new("the answers");
        let (a, b, c) = (instance("a").await, instance("b").await, instance("c").await);
        for origin in [&a, &b, &c] {
            origin.set("/hot", reply(200).gate(&gate));
        }
        let balance = format!("{{ by = \"consistent_hash\", on = \"path\", load = {load} }}");
        let edge = balanced(&[&a, &b, &c], false, &balance).await;
        let mut asking = Vec::new();
        for asked in 1..=12 {
            asking.push(tokio::spawn(edge.client.get("/hot").send()));
            gate.arrived(asked).await;
        }
        assert_eq!(edge.in_flight().into_iter().max(), Some(most), "{:?}", edge.in_flight());
        gate.release();
        for asked in asking {
            asked.await.expect("asked").expect(200);
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_instance_whose_answers_take_long_is_spared_until_that_is_forgotten() {
    for cached in [false, true] {
        let gate = Gate::new("a slow answer");
        let (a, b) = (instance("a").await, instance("b").await);
        a.set("/slow", reply(200).cache("no-store").body("a").gate(&gate));
        b.set("/slow", reply(200).cache("no-store").body("b").gate(&gate));
        let edge = balanced(&[&a, &b], cached, "{ by = \"p2c\", decay = \"1m\" }").await;
        let slow = tokio::spawn(edge.client.get("/slow").send());
        gate.arrived(1).await;
        // The gateway's own clock says that it took five seconds.
        edge.let_time_pass(secs(5));
        gate.release();
        let slow = slow.await.expect("asked").expect(200).text();
        for n in 0..20 {
            let answer = edge.get(&format!("/{n}")).await.expect(200).text();
            assert_ne!(answer, slow, "request {n}, cached: {cached}");
        }
        edge.let_time_pass(secs(3600));
        let mut seen = HashSet::new();
        for n in 20..24 {
            seen.insert(edge.get(&format!("/{n}")).await.expect(200).text());
        }
        assert!(seen.contains(&slow), "what it took an hour ago is forgotten, cached: {cached}");
        edge.finish().await;
    }
}
