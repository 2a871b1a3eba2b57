//! Whose request is it?

use crate::edge::Edge;
use crate::support::origin::{Origin, reply};

async fn named(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |r| reply(200).body(format!("{name} {}", r.target))).start().await
}

#[tokio::test]
async fn host_path_and_method_choose_in_the_stated_order() {
    let (one, two) = (named("one").await, named("two").await);
    let routes = format!(
        r#"
[[routes]]
upstream = "api"

[[routes]]
match = {{ host = "*.example.com", path = "/*" }}
upstream = "two"

[[routes]]
match = {{ host = "www.example.com", path = "/*" }}
respond = {{ status = 200, body = "exact host" }}

[[routes]]
match = {{ path = "/users/{{id}}", method = "GET" }}
respond = {{ status = 200, body = "a user" }}

[[routes]]
match = {{ path = "/teapot" }}
respond = {{ status = 418, body = "short and stout" }}

[upstreams.two]
servers = ["{}"]
"#,
        two.address()
    );
    let edge = Edge::serving(&one).without_cache().routes(&routes).start().await;
    let ask = |host: &'static str, method: &'static str, target: &'static str| {
        edge.request(method, target).host(host).send()
    };
    ask("other", "GET", "/x").await.expect(200).body("one /x");
    ask("a.b.example.com", "GET", "/x").await.expect(200).body("two /x");
    ask("WWW.Example.com:80", "GET", "/x").await.expect(200).body("exact host");
    ask("example.com", "GET", "/x").await.expect(200).body("one /x");
    ask("other", "GET", "/users/7").await.expect(200).body("a user");
    ask("other", "DELETE", "/users/7").await.expect(200).body("one /users/7");
    ask("other", "GET", "/users/7/posts").await.expect(200).body("one /users/7/posts");
    ask("other", "GET", "/teapot").await.expect(418).body("short and stout");
    edge.finish().await;
}

#[tokio::test]
async fn what_no_route_matches_is_404() {
    let origin = named("one").await;
    let edge = Edge::serving(&origin)
        .without_cache()
        .routes("[[routes]]\nmatch = { path = \"/api/*\" }\nupstream = \"api\"")
        .start()
        .await;
    let answer = edge.get("/other").await.expect(404).with("content-type", "application/problem+json");
    assert!(answer.text().contains("no-route"), "{}", answer.text());
    assert_eq!(origin.requests().len(), 0);
    edge.finish().await;
}

#[tokio::test]
async fn a_prefix_is_stripped_or_replaced_on_the_way() {
    let origin = named("one").await;
    let edge = Edge::serving(&origin)
        .without_cache()
        .routes(
            "[[routes]]\nmatch = { path = \"/api/*\" }\nupstream = \"api\"\nstrip_prefix = \"/api\"\n\
             [[routes]]\nmatch = { path = \"/v1/*\" }\nupstream = \"api\"\nreplace_prefix = { from = \"/v1\", to = \"/internal/v2\" }",
        )
        .start()
        .await;
    edge.get("/api/users?x=1").await.expect(200).body("one /users?x=1");
    edge.get("/v1/users").await.expect(200).body("one /internal/v2/users");
    edge.finish().await;
}

#[tokio::test]
async fn routing_key_and_instance_read_the_same_path() {
    let origin = named("one").await;
    let edge = Edge::serving(&origin)
        .without_cache()
        .routes(
            "[[routes]]\nmatch = { path = \"/secret/*\" }\nrespond = { status = 403, body = \"no\" }\n[[routes]]\nupstream = \"api\"",
        )
        .start()
        .await;
    for sly in ["/secret/x", "/%73ecret/x", "/a/../secret/x", "/./secret/x", "/a/%2e%2e/secret/x"] {
        edge.get(sly).await.expect(403);
    }
    edge.get("/%61b%c3%bc").await.expect(200).body("one /ab%C3%BC");
    edge.finish().await;
}
