//! A new version on trial: a part of a route's requests goes to another upstream.

use std::collections::HashMap;

use crate::edge::Edge;
use crate::support::client::Answer;
use crate::support::origin::{Origin, reply};

async fn version(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("max-age=60").body(name)).start().await
}

/// A gateway before an old version and a new one, with these lines for the split.
async fn dividing(old: &Origin, new: &Origin, cached: bool, split: &str) -> Edge {
    let edge = Edge::before(&[old.address()])
        .also(&format!("[upstreams.new]\nservers = [\"{}\"]", new.address()))
        .also("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]");
    let cache = if cached { "cache = \"api\"\n" } else { "" };
    let edge = edge.routes(&format!("[[routes]]\nupstream = \"api\"\n{cache}[routes.split]\n{split}"));
    if cached { edge } else { edge.without_cache() }.start().await
}

async fn asked(edge: &Edge, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut ask = edge.request("GET", target);
    for (name, value) in fields {
        ask = ask.header(name, value);
    }
    ask.send().await.expect(200)
}

#[tokio::test]
async fn who_asks_for_the_new_version_gets_it_and_nobody_else() {
    let (old, new) = (version("old").await, version("new").await);
    let split = "to = [{ upstream = \"new\", header = \"X-Canary: yes\" }, { upstream = \"new\", cookie = \"canary\" }]";
    for cached in [false, true] {
        let edge = dividing(&old, &new, cached, split).await;
        for _ in 0..2 {
            asked(&edge, "/", &[]).await.body("old");
            asked(&edge, "/", &[("x-canary", "yes")]).await.body("new");
            asked(&edge, "/", &[("x-canary", "no")]).await.body("old");
            asked(&edge, "/", &[("cookie", "a=b; canary=1")]).await.body("new");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_share_of_the_requests_goes_to_the_new_version_and_is_counted_there() {
    let (old, new) = (version("old").await, version("new").await);
    for (share, least, most) in [(0, 0, 0), (20, 20, 100), (100, 300, 300)] {
        let split = format!("to = [{{ upstream = \"new\", share = {share} }}]");
        let edge = dividing(&old, &new, false, &split).await;
        let mut got = 0;
        for _ in 0..300 {
            got += usize::from(asked(&edge, "/", &[]).await.text() == "new");
        }
        assert!((least..=most).contains(&got), "{got} of 300 with a share of {share} in a hundred");
        let instance = new.address();
        let series =
            format!("vanne_upstream_requests_total{{code=\"200\",instance=\"{instance}\",upstream=\"new\"}}");
        assert_eq!(edge.metric(&series).unwrap_or_default(), got as f64);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_client_keeps_its_version() {
    let (old, new) = (version("old").await, version("new").await);
    for (by, field) in [("client", "x-forwarded-for"), ("cookie user", "cookie"), ("header X-User", "x-user")]
    {
        let split = format!("by = \"{by}\"\nto = [{{ upstream = \"new\", share = 50 }}]");
        let edge = dividing(&old, &new, false, &split).await;
        let mut met: HashMap<usize, String> = HashMap::new();
        for _ in 0..3 {
            for client in 0..40 {
                let value = match by {
                    "client" => format!("203.0.{client}.7"),
                    "cookie user" => format!("user={client}"),
                    _ => client.to_string(),
                };
                let answer = asked(&edge, "/", &[(field, &value)]).await.text();
                let first = met.entry(client).or_insert_with(|| answer.clone());
                assert_eq!(*first, answer, "client {client} by {by}");
            }
        }
        assert!(met.values().any(|v| v == "old") && met.values().any(|v| v == "new"), "{by}: {met:?}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn answers_of_two_versions_are_stored_apart_unless_they_are_the_same() {
    let canary = [("x-canary", "1")];
    for (cache, second) in [("", "new"), ("cache = \"apart\"\n", "new"), ("cache = \"together\"\n", "old")] {
        let (old, new) = (version("old").await, version("new").await);
        let split = format!("{cache}to = [{{ upstream = \"new\", header = \"X-Canary\" }}]");
        let edge = dividing(&old, &new, true, &split).await;
        asked(&edge, "/", &[]).await.body("old");
        for _ in 0..2 {
            asked(&edge, "/", &canary).await.body(second);
            asked(&edge, "/", &[]).await.body("old").cache("hit");
        }
        assert_eq!(old.hits("/"), 1);
        assert_eq!(new.hits("/"), usize::from(second == "new"), "with {cache:?}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_change_makes_what_is_stored_of_every_version_invalid() {
    let canary = [("x-canary", "1")];
    let (old, new) = (version("old").await, version("new").await);
    let edge = dividing(&old, &new, true, "to = [{ upstream = \"new\", header = \"X-Canary\" }]").await;
    for _ in 0..2 {
        asked(&edge, "/a", &[]).await.body("old");
        asked(&edge, "/a", &canary).await.body("new");
    }
    assert_eq!((old.hits("/a"), new.hits("/a")), (1, 1));
    edge.request("DELETE", "/a").send().await.expect(200);
    asked(&edge, "/a", &[]).await.body("old");
    asked(&edge, "/a", &canary).await.body("new");
    assert_eq!((old.hits("/a"), new.hits("/a")), (3, 2), "the DELETE, and each version's answer anew");
    edge.finish().await;
}

#[tokio::test]
async fn questions_of_two_versions_are_stored_apart_too() {
    let (old, new) = (version("old").await, version("new").await);
    let edge = Edge::before(&[old.address()])
        .also(&format!("[upstreams.new]\nservers = [\"{}\"]", new.address()))
        .cache("ttl = \"1h\"")
        .routes(
            "[[routes]]\nupstream = \"api\"\ncache = { use = \"api\", key = { body = \"json\" } }\n\
             [routes.split]\nto = [{ upstream = \"new\", header = \"X-Canary\" }]",
        )
        .start()
        .await;
    for _ in 0..2 {
        let question =
            || edge.request("POST", "/q").header("content-type", "application/json").body("{\"q\": 1}");
        question().send().await.expect(200).body("old");
        question().header("x-canary", "1").send().await.expect(200).body("new");
    }
    assert_eq!((old.hits("/q"), new.hits("/q")), (1, 1));
    edge.finish().await;
}
