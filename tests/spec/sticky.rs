//! A client stays with the instance that answered it first.

use std::collections::HashSet;

use crate::edge::{Configuration, Edge};
use crate::support::client::Answer;
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;
use crate::support::process::Program;

const KEY: &str = "key = \"0123456789abcdef\"";

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("max-age=60").body(name)).start().await
}

fn sticky(instances: &[&Origin], sticky: &str, more: &str) -> Configuration {
    let addresses: Vec<_> = instances.iter().map(|origin| origin.address()).collect();
    Edge::before(&addresses).upstream(&format!("sticky = {{ {sticky} }}\n{more}")).without_cache()
}

/// The cookie that an answer sets, as a browser sends it back.
fn cookie(answer: &Answer) -> Option<String> {
    let set = answer.header("set-cookie")?;
    Some(set.split(';').next().unwrap_or_default().to_owned())
}

async fn with_cookie(edge: &Edge, cookie: &str) -> Answer {
    edge.request("GET", "/").header("cookie", cookie).send().await.expect(200)
}

#[tokio::test]
async fn a_client_stays_with_the_instance_that_answered_it_first() {
    let (a, b, c) = (instance("a").await, instance("b").await, instance("c").await);
    let edge = sticky(&[&a, &b, &c], KEY, "").start().await;
    let mut met = HashSet::new();
    for _ in 0..3 {
        let first = edge.get("/").await.expect(200);
        let cookie = cookie(&first).expect("a cookie");
        let ours = first.text();
        for _ in 0..4 {
            with_cookie(&edge, &format!("theme=dark; {cookie}")).await.without("set-cookie").body(&ours);
        }
        met.insert(ours);
    }
    assert_eq!(met.len(), 3, "newcomers are shared out");
    edge.finish().await;
}

#[tokio::test]
async fn the_cookie_shows_no_address_and_is_kept_by_no_cache_before_us() {
    let a = instance("a").await;
    let edge = sticky(&[&a], KEY, "").start().await;
    let answer = edge.get("/").await.expect(200);
    let set = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(set.starts_with("vanne=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    assert!(!set.contains("127.0.0.1") && !set.contains(&a.address().port().to_string()), "{set}");
    assert_eq!(answer.headers("cache-control"), ["max-age=60", "private"]);
    let bound = with_cookie(&edge, &cookie(&answer).expect("a cookie")).await;
    assert_eq!(
        bound.headers("cache-control"),
        ["max-age=60"],
        "without a cookie it is what the instance says"
    );
    edge.finish().await;
}

#[tokio::test]
async fn the_cookie_is_as_it_was_asked_for() {
    let a = instance("a").await;
    let attributes = "cookie = \"server\", path = \"/app\", max_age = \"1h\", secure = \"always\", http_only = false, same_site = \"none\"";
    let edge = sticky(&[&a], &format!("{KEY}, {attributes}"), "").start().await;
    let set = edge.get("/").await.expect(200).header("set-cookie").expect("a cookie").to_owned();
    assert!(set.starts_with("server="), "{set}");
    assert!(set.ends_with("; Path=/app; Max-Age=3600; Secure; SameSite=None"), "{set}");
    edge.finish().await;

    let edge = sticky(&[&a], KEY, "").also("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]").start().await;
    let ask =
        edge.request("GET", "/").header("x-forwarded-for", "192.0.2.1").header("x-forwarded-proto", "https");
    let set = ask.send().await.expect(200).header("set-cookie").expect("a cookie").to_owned();
    assert!(set.contains("; Secure"), "who came by https keeps it there: {set}");
    edge.finish().await;
}

#[tokio::test]
async fn when_its_instance_is_down_a_client_is_given_to_another_one_for_good() {
    let (a, b) = (instance("a").await, instance("b").await);
    let health = "health = { path = \"/ready\", every = \"20ms\", fall = 1, rise = 1 }";
    let edge = sticky(&[&a, &b], KEY, health).start().await;
    let first = edge.get("/").await.expect(200);
    let (old, whose) = (cookie(&first).expect("a cookie"), first.text());
    let (gone, other) = if whose == "a" { (&a, "b") } else { (&b, "a") };
    gone.set("/ready", reply(503));
    poll_until("it to be taken out", || async { edge.up().contains(&false) }).await;
    let moved = with_cookie(&edge, &old).await.body(other);
    let new = cookie(&moved).expect("a new cookie");
    assert_ne!(new, old);
    gone.set("/ready", reply(200));
    poll_until("it to be back", || async { !edge.up().contains(&false) }).await;
    with_cookie(&edge, &new).await.without("set-cookie").body(other);
    edge.finish().await;
}

#[tokio::test]
async fn a_client_whose_instance_refuses_connections_is_given_to_another_one_at_once() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = sticky(&[&a, &b], KEY, "eject = \"off\"").start().await;
    let first = edge.get("/").await.expect(200);
    let (gone, other) = if first.text() == "a" { (&a, "b") } else { (&b, "a") };
    gone.stop().await;
    let moved = with_cookie(&edge, &cookie(&first).expect("a cookie")).await.body(other);
    with_cookie(&edge, &cookie(&moved).expect("a new cookie")).await.without("set-cookie").body(other);
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_that_is_full_for_a_moment_keeps_its_clients() {
    let gate = crate::support::gate::Gate::new("the answer that fills it");
    let (a, b) = (instance("a").await, instance("b").await);
    for origin in [&a, &b] {
        origin.set("/slow", reply(200).gate(&gate));
    }
    let edge = sticky(&[&a, &b], KEY, "pool = { size = 1, overflow = 0 }").start().await;
    let first = edge.get("/").await.expect(200);
    let (cookie, whose) = (cookie(&first).expect("a cookie"), first.text());
    let slow = tokio::spawn(edge.request("GET", "/slow").header("cookie", &cookie).send());
    gate.arrived(1).await;
    let meanwhile = with_cookie(&edge, &cookie).await.without("set-cookie");
    assert_ne!(meanwhile.text(), whose, "another instance stands in");
    gate.release();
    slow.await.expect("asked").expect(200);
    with_cookie(&edge, &cookie).await.without("set-cookie").body(&whose);
    edge.finish().await;
}

#[tokio::test]
async fn what_a_cache_serves_carries_nobodys_cookie() {
    let a = instance("a").await;
    let edge = Edge::before(&[a.address()]).upstream(&format!("sticky = {{ {KEY} }}")).start().await;
    edge.get("/").await.expect(200).without("set-cookie");
    edge.get("/").await.expect(200).cache("hit").without("set-cookie");
    assert!(edge.request("POST", "/").body("x").send().await.expect(200).header("set-cookie").is_some());
    edge.get("/").await.expect(200).without("set-cookie");
    edge.finish().await;
}

#[tokio::test]
async fn gateways_with_one_key_know_each_others_cookies_and_others_do_not() {
    let (a, b) = (instance("a").await, instance("b").await);
    let one = sticky(&[&a, &b], KEY, "").start().await;
    let first = one.get("/").await.expect(200);
    let made = cookie(&first).expect("a cookie");
    let same = sticky(&[&b, &a], KEY, "").start().await;
    for _ in 0..3 {
        with_cookie(&same, &made).await.without("set-cookie").body(first.text());
    }
    let other = sticky(&[&a, &b], "key = \"another-key-of-16\"", "").start().await;
    assert!(with_cookie(&other, &made).await.header("set-cookie").is_some());
    for edge in [one, same, other] {
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_key_may_come_from_a_file_and_without_any_the_operator_is_told() {
    let a = instance("a").await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, "0123456789abcdef\n").expect("written");
    let by_file = sticky(&[&a], &format!("key_file = \"{}\"", path.display()), "").start().await;
    let by_text = sticky(&[&a], KEY, "").start().await;
    let made = cookie(&by_file.get("/").await.expect(200)).expect("a cookie");
    with_cookie(&by_text, &made).await.without("set-cookie");
    by_file.finish().await;
    by_text.finish().await;

    std::fs::write(&path, "short\n").expect("written");
    let text = sticky(&[&a], &format!("key_file = \"{}\"", path.display()), "").text();
    let mut refused = Program::gateway(&text).start().await;
    assert!(!refused.wait().await.success());
    assert!(refused.stderr().contains("fewer than 16 bytes"), "{}", refused.stderr());

    let told = Program::gateway(&sticky(&[&a], "", "").text()).start().await;
    told.wait_for_stderr("sticky.key is not set").await;
}
