//! What an operator sees of the instances and says about them while the gateway runs: through the admin API and the command line.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::edge::{Configuration, Edge};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, reply};
use crate::support::process::{Process, Program};
use crate::support::{free_address, poll_until};

const TOKEN: &str = "0123456789abcdef";

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("no-store").body(name)).start().await
}

fn operated(instances: &[SocketAddr], upstream: &str) -> Configuration {
    Edge::before(instances).without_cache().upstream(upstream).admin(&format!("token = \"{TOKEN}\""))
}

async fn order(edge: &Edge, instance: SocketAddr, order: Value) -> Value {
    let told = json!({ "upstream": "api", "instance": instance.to_string(), "order": order });
    let answer = post(edge, &told.to_string()).await.expect(200).text();
    serde_json::from_str(&answer).expect("JSON")
}

async fn post(edge: &Edge, body: &str) -> Answer {
    let authorization = format!("Bearer {TOKEN}");
    let request = edge.admin().request("POST", "/api/v1/upstreams").header("authorization", &authorization);
    request.body(body).send().await
}

/// The instances of the first upstream.
async fn instances(edge: &Edge) -> Vec<Value> {
    let text = edge.admin().get("/api/v1/upstreams").send().await.expect(200).text();
    let overview: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(overview["upstreams"][0]["name"], "api");
    overview["upstreams"][0]["instances"].as_array().expect("a list").clone()
}

async fn states(edge: &Edge) -> Vec<String> {
    instances(edge).await.iter().map(|i| i["state"].as_str().expect("a word").to_owned()).collect()
}

async fn shares(edge: &Edge, n: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..n {
        *shares.entry(edge.get("/").await.expect(200).text()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn a_drained_instance_finishes_what_it_has_and_takes_nothing_new() {
    let gate = Gate::new("a slow answer");
    let (a, b) = (instance("a").await, instance("b").await);
    b.set("/slow", reply(200).body("slow").gate(&gate));
    let edge = operated(&[a.address(), b.address()], "").start().await;
    let mut slow = Vec::new();
    while b.hits("/slow") == 0 {
        slow.push(tokio::spawn(edge.client.get("/slow").send()));
        poll_until("it to be sent", || async { a.hits("/slow") + b.hits("/slow") == slow.len() }).await;
    }
    let shown = order(&edge, b.address(), json!("drain")).await;
    assert_eq!((&shown["state"], &shown["in_flight"]), (&json!("draining"), &json!(1)), "{shown}");
    assert_eq!(shares(&edge, 10).await, HashMap::from([("a".into(), 10)]));
    gate.release();
    for answer in slow {
        answer.await.expect("asked").expect(200);
    }
    poll_until("it to be empty", || async { states(&edge).await == ["up", "drained"] }).await;
    let shown = order(&edge, b.address(), json!("ready")).await;
    assert_eq!(shown["state"], "up");
    assert_eq!(shares(&edge, 10).await.len(), 2);
    edge.finish().await;
}

/// Who waits for a place is served as soon as an instance is ready again.
#[tokio::test]
async fn without_any_ready_instance_the_answer_says_when_to_come_back() {
    let a = instance("a").await;
    let edge = operated(&[a.address()], "pool = { size = 1 }").start().await;
    order(&edge, a.address(), json!("drain")).await;
    edge.get("/").await.expect(503).with("retry-after", "1");
    order(&edge, a.address(), json!("ready")).await;
    edge.get("/").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn a_weight_holds_from_the_next_request_on() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = operated(&[a.address(), b.address()], "").start().await;
    assert_eq!(order(&edge, a.address(), json!({ "weight": 3 })).await["weight"], 3);
    assert_eq!(shares(&edge, 40).await, HashMap::from([("a".into(), 30), ("b".into(), 10)]));
    assert_eq!(order(&edge, a.address(), json!({ "weight": 0 })).await["state"], "idle");
    assert_eq!(shares(&edge, 10).await, HashMap::from([("b".into(), 10)]));
    edge.finish().await;
}

#[tokio::test]
async fn only_who_knows_the_token_gives_orders_and_only_orders_that_make_sense() {
    let a = instance("a").await;
    let edge = operated(&[a.address()], "").start().await;
    let drain =
        json!({ "upstream": "api", "instance": a.address().to_string(), "order": "drain" }).to_string();
    let asked = edge.admin().request("POST", "/api/v1/upstreams").body(&*drain).send().await;
    asked.expect(401).with("www-authenticate", "Bearer");
    edge.admin().request("PUT", "/api/v1/upstreams").body(&*drain).send().await.expect(405);
    for (body, status, said) in [
        (drain.replace("\"api\"", "\"apu\""), 404, "there is no upstream \\\"apu\\\"; there are: api"),
        (drain.replace("127.0.0.1", "127.0.0.2"), 404, "there is no instance"),
        (drain.replace("drain", "stop"), 400, "unknown variant `stop`"),
        (drain.replace("\"drain\"", "{\"weight\":1001}"), 400, "a weight is at most 1000"),
        (drain.replace("\"drain\"", "{\"weight\":-1}"), 400, "the order does not read"),
        (drain.replace("upstream", "upstreams"), 400, "unknown field"),
        ("{".to_owned(), 400, "the order does not read"),
    ] {
        let text = post(&edge, &body).await.expect(status).text();
        assert!(text.contains(said), "{body}: {text}");
    }
    assert_eq!(states(&edge).await, ["up"]);
    edge.finish().await;
    let without = Edge::before(&[a.address()]).without_cache().start().await;
    post(&without, &drain).await.expect(403);
    without.admin().get("/api/v1/upstreams").send().await.expect(200);
    without.finish().await;
}

#[tokio::test]
async fn an_operator_sees_how_each_instance_stands_why_and_since_when() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = operated(
        &[a.address(), b.address()],
        "health = { path = \"/ready\", every = \"20ms\", timeout = \"5s\", fall = 2, rise = 1, slow_start = \"1h\" }\n\
         eject = { after = 2, time = \"1h\", max_time = \"1h\" }",
    )
    .start()
    .await;
    assert_eq!(states(&edge).await, ["up", "up"]);
    b.set("/ready", reply(500));
    poll_until("b to be down", || async { states(&edge).await == ["up", "down"] }).await;
    let down = &instances(&edge).await[1];
    assert_eq!(down["reason"], "it answered 500");
    assert_eq!(down["name"], b.address().to_string());
    let since = down["since"].as_str().expect("a moment");
    assert!(since.len() == 24 && since.ends_with('Z'), "{since}");
    assert!(down["for_seconds"].as_f64().expect("a number") < 60.0);
    let page = edge.admin().get("/metrics").send().await.expect(200).text();
    let series =
        format!("vanne_upstream_state{{instance=\"{}\",state=\"down\",upstream=\"api\"}} 1", b.address());
    assert!(page.contains(&series), "{series}");
    b.set("/ready", reply(200));
    poll_until("b to be back", || async { states(&edge).await == ["up", "warming"] }).await;
    assert_eq!(instances(&edge).await[1]["reason"], "it gets 1 % of its share");
    a.set("/cut", origin::hang_up());
    b.set("/cut", origin::hang_up());
    poll_until("one to be ejected", || async {
        edge.get("/cut").await.expect(502);
        states(&edge).await.contains(&"ejected".to_owned())
    })
    .await;
    let all = instances(&edge).await;
    let ejected = all.iter().find(|i| i["state"] == "ejected").expect("one");
    let reason = ejected["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("exchanges with it failed, the last one: before-answer; tried again in "),
        "{reason}"
    );
    edge.finish().await;
}

async fn vanne(process: &Process, arguments: &[&str]) -> (bool, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vanne"));
    command.args(arguments).arg("-c").arg(process.folder().join("vanne.toml"));
    for name in ["REDIS_URL", "CACHE_TTL", "LISTEN"] {
        command.env_remove(name);
    }
    let ended =
        tokio::task::spawn_blocking(move || command.output()).await.expect("asked").expect("a program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (ended.status.success(), text(ended.stdout), text(ended.stderr))
}

#[tokio::test]
async fn the_command_line_shows_drains_readies_and_weighs() {
    let gate = Gate::new("a slow answer");
    let a = Origin::new().on("*", reply(200).body("a").gate(&gate)).start().await;
    let (address, admin) = (free_address(), free_address());
    let configuration = format!(
        "[listen.web]\naddr = \"{address}\"\n[admin]\naddr = \"{admin}\"\ntoken = \"{TOKEN}\"\n[log]\naccess = \"off\"\n\
         [upstreams.api]\nservers = [\"{}\"]\n[[routes]]\nupstream = \"api\"\n",
        a.address()
    );
    let process = Program::gateway(&configuration).ready_at(admin).start().await;
    let name = a.address().to_string();
    let (well, out, _) = vanne(&process, &["upstreams"]).await;
    assert!(well && out.lines().count() == 2, "{out}");
    let words: Vec<_> = out.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(words[..3], ["api", &name, "up"], "{out}");
    let (well, out, _) = vanne(&process, &["upstreams", "api", "--json"]).await;
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert!(well && shown["upstreams"][0]["instances"][0]["weight"] == 1, "{out}");
    let (well, out, _) = vanne(&process, &["weight", "api", &name, "7", "--json"]).await;
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert!(well && shown["weight"] == 7, "{out}");

    let held = tokio::spawn(crate::support::client::Client::new(address).get("/slow").send());
    gate.arrived(1).await;
    let (well, _, err) = vanne(&process, &["drain", "api", &name, "--wait", "200ms"]).await;
    assert!(!well && err.contains("1 requests are still in flight"), "{err}");
    gate.release();
    held.await.expect("asked").expect(200);
    let (well, out, err) = vanne(&process, &["drain", "api", &name, "--wait", "10s"]).await;
    assert!(well && out.contains("drained"), "{out}{err}");
    let (well, out, _) = vanne(&process, &["ready", "api", &name]).await;
    assert!(well && out.contains(" up "), "{out}");
    let (well, _, err) = vanne(&process, &["ready", "api", "nobody:1"]).await;
    assert!(!well && err.contains("there is no instance"), "{err}");
    let (well, _, err) = vanne(&process, &["upstreams", "nothing"]).await;
    assert!(!well && err.contains("there are: api"), "{err}");
}
