//! What would become of a request, asked before anybody sends it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::edge::{Configuration, Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::Program;
use crate::support::redis::Redis;

const FILE: &str = r#"
[upstreams.api]
servers = ["127.0.0.1:8001", "127.0.0.1:8002"]
[upstreams.pages]
servers = ["127.0.0.1:8003"]

[caches.api]
ttl = "1h"
ttl_by_status = { "404" = "10s" }
stale_while_revalidate = "5m"
bypass = { cookies = ["session"] }
key = { headers = ["X-Tenant"], query = { except = ["utm_source"] } }

[[routes]]
name = "admin"
match = { host = "admin.example.com" }
upstream = "pages"

[[routes]]
name = "questions"
match = { path = "/v1/query", method = ["POST"] }
upstream = "api"
cache = { use = "api", key = { body = "json" } }

[limits.each]
rate = "10/s"

[access.office]
allow = ["192.0.2.0/24"]

[auth.staff]
users = ["alice:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"]

[[routes]]
name = "staff"
match = { path = "/v1/staff/*" }
upstream = "api"
cache = "api"
access = "office"
limits = ["each"]
auth = "staff"
request_headers = { set = { X-Tenant = "ours" } }

[[routes]]
name = "health"
match = { path = "/health" }
respond = { status = 200, body = "ok" }

[[routes]]
name = "trial"
match = { path = "/trial" }
upstream = "api"
cache = "api"
split = { to = [{ upstream = "pages", cookie = "canary=yes" }, { upstream = "pages", share = 5 }] }

[[routes]]
name = "v1"
match = { path = "/v1/*" }
upstream = "api"
cache = "api"
strip_prefix = "/v1"
"#;

#[tokio::test]
async fn what_stands_before_a_route_is_told_and_its_edits_are_made_before_the_key() {
    let ask =
        ["GET", "http://a.test/v1/staff/1", "-H", "X-Tenant: theirs", "-H", "Authorization: Basic YTpi"];
    let (told, code) = explained(&ask).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("judged by its address, limit each, a password of staff\n"), "{told}");
    assert!(told.contains("ours") && !told.contains("theirs"), "{told}");
    assert!(!told.contains("$2a$") && !told.contains("YTpi"), "{told}");
    assert!(
        told.contains("stored, fresh for 3600 s"),
        "stripped of its credentials it may be shared: {told}"
    );
}

/// What the program says, and its exit code.
async fn explained(arguments: &[&str]) -> (String, Option<i32>) {
    explained_by(FILE, arguments).await
}

async fn explained_by(file: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let program = Program::new(env!("CARGO_BIN_EXE_vanne"));
    let file = program.file("vanne.toml", file);
    let program = program.arg("explain").arg("-c").arg(&file);
    let mut process = arguments.iter().fold(program, |program, argument| program.arg(argument)).start().await;
    let code = process.wait().await.code();
    if code == Some(0) {
        process.wait_for_stdout("\n").await;
    } else {
        process.wait_for_stderr("\n").await;
    }
    // The pipe is read beside us; its end has come when no more does.
    crate::support::poll_until("all of the output", || async {
        let before = process.stdout().len() + process.stderr().len();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        before == process.stdout().len() + process.stderr().len()
    })
    .await;
    (process.stdout() + &process.stderr(), code)
}

fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|said| said.trim() == *line), "not {line:?} in\n{text}");
    }
}

#[tokio::test]
async fn a_request_is_explained_from_the_file_alone() {
    let (text, code) =
        explained(&["GET", "http://Example.com/v1/a?x=1&utm_source=mail", "-H", "X-Tenant: t1"]).await;
    assert_eq!(code, Some(0), "{text}");
    says(
        &text,
        &[
            "route     v1 (/v1/*)",
            "not     admin (admin.example.com/*): another host",
            "not     questions (POST /v1/query): another path",
            "not     health (/health): another path",
            "upstream  api (127.0.0.1:8001, 127.0.0.1:8002)",
            "as      GET /a?x=1&utm_source=mail",
            "cache     api: looked up, and fetched once for all who ask",
            "key       http example.com:80 /v1/a ?x=1 header x-tenant=t1",
            "an answer 200",
            "stored, fresh for 3600 s (the operator's ttl); served stale while fetched anew for 300 s more; served stale when the instances fail for 600 s more",
            "an answer 200, cache-control: max-age=60",
            "not stored: private",
            "not stored: set-cookie",
            "an answer 404",
            "stored, fresh for 10 s (the operator's ttl); served stale while fetched anew for 300 s more; served stale when the instances fail for 600 s more",
            "not stored: status",
        ],
    );
}

#[tokio::test]
async fn who_else_may_answer_is_told() {
    let (text, _) = explained(&["GET", "http://a.test/trial"]).await;
    let both = ["split     with cookie canary=yes to pages", "split     5 in a hundred to pages"];
    says(&text, &both);
    says(
        &text,
        &[
            "upstream  api (127.0.0.1:8001, 127.0.0.1:8002)",
            "key       http a.test:80 /trial header x-tenant",
        ],
    );
    let (text, _) = explained(&["GET", "http://a.test/trial", "-H", "Cookie: canary=yes"]).await;
    says(&text, &["split     with cookie canary=yes to pages: this one", both[1]]);
    says(&text, &["upstream  pages (127.0.0.1:8003)"]);
    says(&text, &["key       http a.test:80 /trial header x-tenant version pages"]);
}

#[tokio::test]
async fn one_answer_can_be_judged() {
    let answer = |field: &'static str| async move {
        explained(&["GET", "http://a.test/v1/a", "-H", "Authorization: Bearer x", "--answer", field]).await.0
    };
    says(&answer("Cache-Control: max-age=60").await, &["not stored: authorization"]);
    says(&answer("Cache-Control: s-maxage=60").await, &["stored, fresh for 60 s (s-maxage)"]);
}

#[tokio::test]
async fn what_passes_the_cache_by_or_never_reaches_it_is_told() {
    for (arguments, line) in [
        (
            &["GET", "http://a.test/v1/a", "-H", "Cookie: session=1"][..],
            "cache     api, passed by: it has a field or cookie of the cache's bypass",
        ),
        (&["PUT", "http://a.test/v1/a"], "cache     api, passed by: its method is not cached on this route"),
        (&["GET", "http://admin.example.com/x"], "cache     none on this route"),
        (&["GET", "http://a.test/health"], "answer    200 OK from the gateway itself, 2 bytes"),
        (&["GET", "http://a.test/none"], "route     none, so the answer is 404"),
        (&["GET", "http://a.test/%zz"], "refused   target, with 400 Bad Request"),
        (&["GET", "http://a.test/v1/query"], "not     questions (POST /v1/query): another method"),
        (&["POST", "http://a.test/v1/query", "-d", "{}"], "not     v1 (/v1/*): it matches, but less exactly"),
        (
            &["POST", "http://a.test/v1/query", "-d", "{}"],
            "cache     api: looked up, and fetched once for all who ask",
        ),
    ] {
        let (text, code) = explained(arguments).await;
        assert_eq!(code, Some(0), "{text}");
        says(&text, &[line]);
    }
}

#[tokio::test]
async fn a_question_that_does_not_read_is_told_so_with_code_2() {
    for (arguments, line) in [
        (
            &["GET", "example.com"][..],
            "vanne: \"example.com\" is not a URL; write it like http://example.com/path?query",
        ),
        (&["G T", "http://a.test/"], "vanne: \"G T\" is not a method; write one like GET"),
        (
            &["GET", "http://a.test/", "-H", "no field"],
            "vanne: \"no field\" is not a header field; write it like \"Accept: text/html\"",
        ),
        (
            &["GET", "http://a.test/", "--status", "99"],
            "vanne: 99 is not a status; write one from 200 to 599",
        ),
    ] {
        let (text, code) = explained(arguments).await;
        assert_eq!(code, Some(2), "{text}");
        says(&text, &[line]);
    }
}

const TOKEN: &str = "a-token-of-some-length";

fn with_token(edge: Configuration) -> Configuration {
    edge.admin(&format!("token = \"{TOKEN}\""))
}

/// What a running gateway explains.
async fn live(edge: &Edge, ask: Value) -> Value {
    let answer = edge
        .admin()
        .post("/api/v1/explain", ask.to_string())
        .header("authorization", &format!("Bearer {TOKEN}"))
        .send()
        .await
        .expect(200);
    serde_json::from_str(&answer.text()).expect("JSON")
}

#[tokio::test]
async fn a_running_gateway_tells_what_it_holds_and_what_it_would_do() {
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").header("etag", "\"1\"").header("vary", "Foo").body("v1"))
        .start()
        .await;
    let edge = with_token(Edge::serving(&origin)).start().await;
    let ask = |foo: &str| {
        let headers = [format!("Foo: {foo}")];
        json!({ "url": "http://edge.test/a", "headers": headers })
    };
    let told = live(&edge, ask("1")).await;
    assert_eq!(told["now"]["does"], "an instance is asked: nothing");
    assert_eq!(told["now"]["memory"]["nothing"], "nothing");
    assert_eq!(told["now"]["redis"], Value::Null);
    assert_eq!(told["now"]["instances"][0]["state"], "up");
    assert_eq!(told["now"]["instances"][0]["name"], origin.address().to_string());

    edge.request("GET", "/a").header("foo", "1").send().await.expect(200);
    edge.grow_older(secs(10));
    let before = edge.metrics();
    let told = live(&edge, ask("1")).await;
    assert_eq!(told["now"]["does"], "a hit from memory");
    let stored = &told["now"]["memory"]["answer"];
    assert_eq!(
        (&stored["status"], &stored["bytes"], &stored["fresh_for"]),
        (&json!(200), &json!(2), &json!(60))
    );
    let (age, left) = (stored["age"].as_i64().unwrap(), stored["ttl"].as_i64().unwrap());
    assert!((10..15).contains(&age) && age + left == 60, "{stored}");
    assert_eq!((&stored["because_of"], &stored["etag"]), (&json!("max-age"), &json!("\"1\"")));
    assert_eq!(stored["varies_by"], json!(["foo=1"]));
    assert_eq!(told["route"]["takes"], "/*");
    assert_eq!(told["cache"]["key"], "http edge.test:80 /a");

    let told = live(&edge, ask("2")).await;
    assert_eq!(
        told["now"]["does"],
        "an instance is asked: nothing for these request fields, something for others"
    );
    edge.grow_older(secs(60));
    let told = live(&edge, ask("1")).await;
    assert_eq!(told["now"]["does"], "an instance is asked first: what is stored is stale");
    let left = told["now"]["memory"]["answer"]["ttl"].as_i64().unwrap();
    assert!((-15..=-10).contains(&left), "{left}");
    let mut no_store = ask("3");
    no_store["headers"] = json!(["Cache-Control: only-if-cached"]);
    let told = live(&edge, no_store).await;
    assert_eq!(told["now"]["does"], "504, since the client asks for stored answers only");

    assert_eq!(origin.hits("/a"), 1, "asking asks no instance");
    let lookups = |text: &str| {
        text.lines().filter(|line| line.starts_with("vanne_cache_lookups")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lookups(&before), lookups(&edge.metrics()), "and is no use of the cache");
    edge.finish().await;
}

#[tokio::test]
async fn purges_and_what_is_not_for_sharing_are_told() {
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").body("v1"))
        .on("/mine", reply(200).cache("private").body("v1"))
        .start()
        .await;
    let edge = with_token(Edge::serving(&origin)).start().await;
    let ask = |path: &str| json!({ "url": format!("http://edge.test{path}") });
    let purge = |soft: bool| {
        let order = json!({ "urls": ["http://edge.test/a"], "soft": soft }).to_string();
        let ask = edge.admin().post("/api/v1/purge", order);
        ask.header("authorization", &format!("Bearer {TOKEN}")).send()
    };
    edge.get("/a").await.expect(200);
    purge(true).await.expect(200);
    let told = live(&edge, ask("/a")).await;
    assert_eq!(told["now"]["memory"]["answer"]["purged"], "stale");
    assert_eq!(told["now"]["does"], "an instance is asked first: what is stored is stale");
    purge(false).await.expect(200);
    let told = live(&edge, ask("/a")).await;
    assert_eq!(told["now"]["memory"]["nothing"], "an answer that was purged");
    edge.get("/mine").await.expect(200);
    let told = live(&edge, ask("/mine")).await;
    let expected = "an instance is asked: nothing: answers to this were not for sharing when last seen";
    assert_eq!(told["now"]["does"], expected);
    edge.finish().await;
}

#[tokio::test]
async fn each_tier_and_each_instance_is_told_and_nothing_moves() {
    let redis = Redis::start().await;
    let gate = Gate::new("a busy instance");
    let origin = Origin::new()
        .on("/a", reply(200).cache("max-age=60").body("v1"))
        .on("/slow", reply(200).gate(&gate))
        .start()
        .await;
    let start = || with_token(Edge::serving(&origin)).redis(&redis.url()).start_with_redis();
    let (one, two) = (start().await, start().await);
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    let slow = tokio::spawn(two.client.get("/slow").send());
    gate.arrived(1).await;
    for _ in 0..2 {
        let told = live(&two, json!({ "method": "GET", "url": "http://edge.test/a" })).await;
        assert_eq!(told["now"]["does"], "a hit from redis");
        assert_eq!(told["now"]["memory"]["nothing"], "nothing", "looking does not fetch it");
        assert_eq!(told["now"]["redis"]["answer"]["bytes"], 2);
        assert_eq!(told["now"]["instances"][0]["in_flight"], 1);
    }
    gate.release();
    slow.await.expect("asked").expect(200);
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn the_program_asks_a_running_gateway() {
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = with_token(Edge::serving(&origin)).start().await;
    edge.get("/a").await.expect(200);
    let admin: SocketAddr = edge.admin_address();
    let file = format!(
        "[admin]\naddr = \"{admin}\"\ntoken = \"{TOKEN}\"\n[upstreams.x]\nservers = [\"127.0.0.1:1\"]\n[[routes]]\nupstream = \"x\""
    );
    let (text, code) = explained_by(&file, &["GET", "http://edge.test/a", "--live"]).await;
    assert_eq!(code, Some(0), "{text}");
    let instance = format!("at      {}: up, 0 in flight", origin.address());
    says(&text, &["now       a hit from memory", &instance]);
    assert!(text.contains("in      memory: 200, 2 bytes, age "), "{text}");

    let address = admin.to_string();
    let (text, code) =
        explained_by(&file, &["GET", "http://edge.test/a", "--admin", &address, "--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((code, &told["now"]["does"]), (Some(0), &json!("a hit from memory")));

    let (text, code) = explained(&["GET", "http://a.test/v1/a", "--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((code, &told["route"]["name"], &told["now"]), (Some(0), &json!("v1"), &Value::Null));

    let (text, code) = explained_by(&file, &["GET", "no-url", "--live"]).await;
    assert_eq!(code, Some(2), "{text}");
    let (text, code) = explained(&["GET", "http://a.test/", "--live"]).await;
    assert_eq!(code, Some(78), "no token is set: {text}");
    edge.finish().await;
}

#[tokio::test]
async fn only_who_knows_the_token_is_told() {
    let origin = Origin::new().start().await;
    let edge = with_token(Edge::serving(&origin)).start().await;
    let admin = edge.admin();
    admin.post("/api/v1/explain", "{}").send().await.expect(401);
    admin.get("/api/v1/explain").send().await.expect(405);
    let order = |body: &str| {
        admin.post("/api/v1/explain", body).header("authorization", &format!("Bearer {TOKEN}")).send()
    };
    for body in
        ["", "{", "{\"uri\": \"x\"}", "{\"url\": \"x\"}", "{\"url\": \"http://a/\", \"headers\": [\"x\"]}"]
    {
        order(body).await.expect(400);
    }
    edge.finish().await;
    let edge = Edge::serving(&origin).start().await;
    edge.admin().post("/api/v1/explain", "{}").send().await.expect(403);
    edge.finish().await;
}
