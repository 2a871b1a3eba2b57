//! A configuration that changes under load: all of it or nothing, and nobody notices.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::free_address;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::{Process, Program};

const TOKEN: &str = "sixteen-characters-at-least";

struct Place {
    web: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    fn new() -> Self {
        Self { web: free_address(), admin: free_address() }
    }

    /// A gateway before these instances; `cache` are lines of its cache, `more` further tables.
    fn before(&self, instances: &[&Origin], cache: &str, more: &str) -> String {
        let servers: Vec<String> = instances.iter().map(|o| format!("\"{}\"", o.address())).collect();
        format!(
            "[server]\ndrain_timeout = \"20s\"\n[listen.web]\naddr = \"{}\"\n[admin]\naddr = \"{}\"\ntoken = \"{TOKEN}\"\n\
             [upstreams.api]\nservers = [{}]\n[caches.api]\n{cache}\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n{more}",
            self.web,
            self.admin,
            servers.join(", ")
        )
    }

    async fn run(&self, text: &str) -> Process {
        Program::gateway(text).ready_at(self.admin).start().await
    }

    fn client(&self) -> Client {
        Client::new(self.web)
    }

    async fn metric(&self, series: &str) -> Option<f64> {
        let page = Client::new(self.admin).get("/metrics").send().await.expect(200).text();
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Writes the configuration that the process was started with anew.
fn rewrite(process: &Process, text: &str) {
    std::fs::write(process.folder().join("vanne.toml"), text).expect("its folder is ours");
}

async fn command(process: &Process, name: &str) -> Process {
    let file = process.folder().join("vanne.toml");
    let file = file.to_str().expect("a path of letters");
    Program::new(env!("CARGO_BIN_EXE_vanne")).arg(name).arg("-c").arg(file).start().await
}

fn named(name: &str) -> Origin {
    Origin::new()
        .on("/stored/*", reply(200).cache("max-age=600").body(name))
        .on("*", reply(200).cache("no-store").body(name))
}

#[tokio::test]
async fn an_instance_joins_at_a_reload_and_what_is_stored_and_counted_stays() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let place = Place::new();
    let process = place.run(&place.before(&[&one], "", "")).await;
    let client = place.client();
    client.get("/stored/a").send().await.expect(200).body("one");
    client.get("/x").send().await.expect(200).body("one");
    rewrite(&process, &place.before(&[&one, &two], "", ""));
    process.signal("HUP");
    process.wait_for_stderr(&format!("upstream api: instance {} joined", two.address())).await;
    process.wait_for_stderr("reloaded changes=1").await;
    client.get("/stored/a").send().await.expect(200).body("one").cache("vanne-mem; hit");
    assert_eq!(one.hits("/stored/a"), 1);
    for _ in 0..4 {
        client.get("/x").send().await.expect(200);
    }
    assert_eq!((one.hits("/x"), two.hits("/x")), (3, 2), "both take their turn");
    let requests = r#"vanne_requests_total{code="200",method="GET",route="/*"}"#;
    crate::support::poll_until("counters to go on", || async { place.metric(requests).await == Some(7.0) })
        .await;
    assert_eq!(place.metric(r#"vanne_reloads_total{result="success"}"#).await, Some(1.0));
    assert_eq!(place.metric("vanne_config_last_reload_successful").await, Some(1.0));
}

#[tokio::test]
async fn an_instance_that_left_serves_what_it_has_begun_and_nothing_more() {
    let gate = Gate::new("an answer under way");
    let one = Origin::new().on("/slow", reply(200).cache("no-store").body("one").gate(&gate)).start().await;
    let two = named("two").start().await;
    let place = Place::new();
    let process = place.run(&place.before(&[&one], "", "")).await;
    let slow = tokio::spawn(place.client().get("/slow").send());
    gate.arrived(1).await;
    rewrite(&process, &place.before(&[&two], "", ""));
    process.signal("HUP");
    process.wait_for_stderr(&format!("upstream api: instance {} left", one.address())).await;
    process.wait_for_stderr("reloaded changes=2").await;
    for _ in 0..4 {
        place.client().get("/x").send().await.expect(200).body("two");
    }
    gate.release();
    slow.await.expect("asked").expect(200).body("one");
    let gone = format!(r#"vanne_upstream_up{{instance="{}",upstream="api"}}"#, one.address());
    assert_eq!(place.metric(&gone).await, None, "an instance that is gone is not shown as up");
}

#[tokio::test]
async fn an_instance_s_places_are_not_given_out_twice_for_being_planned_anew() {
    let gate = Gate::new("a place taken");
    let one = Origin::new().on("*", reply(200).cache("no-store").body("one").gate(&gate)).start().await;
    let place = Place::new();
    let pool = |timeout: &str| {
        let text = place.before(&[&one], "", "");
        text.replace(
            "[caches.api]",
            &format!("pool = {{ size = 1, overflow = 0, timeout = \"{timeout}\" }}\n[caches.api]"),
        )
    };
    let process = place.run(&pool("20s")).await;
    let ask = |target: &str| tokio::spawn(place.client().get(target).send());
    let waiting = r#"vanne_upstream_waiting{upstream="api"}"#;
    let first = ask("/first");
    gate.arrived(1).await;
    let second = ask("/second");
    crate::support::poll_until("one waits", || async { place.metric(waiting).await == Some(1.0) }).await;
    rewrite(&process, &pool("19s"));
    process.signal("HUP");
    process.wait_for_stderr("upstream api: changed").await;
    process.wait_for_stderr("reloaded changes=1").await;
    let third = ask("/third");
    // It waits in the queue of the new plan, whose count is the gauge's now.
    let queued = r#"vanne_requests_in_flight"#;
    crate::support::poll_until("all three are in", || async { place.metric(queued).await == Some(3.0) })
        .await;
    assert_eq!(one.requests().len(), 1, "the only place is taken");
    gate.release();
    for (asked, target) in [(first, "/first"), (second, "/second"), (third, "/third")] {
        asked.await.expect("asked").expect(200);
        assert_eq!(one.hits(target), 1);
    }
    let order: Vec<String> = one.requests().iter().map(|r| r.path().to_owned()).collect();
    assert_eq!(order, ["/first", "/second", "/third"], "who came first goes first");
}

#[tokio::test]
async fn an_instance_known_to_be_down_stays_so_until_a_check_says_otherwise() {
    let health = "health = { path = \"/ready\", every = \"60s\", fall = 1, rise = 1 }\n[caches.api]";
    let (one, two) = (named("one").start().await, named("two").start().await);
    one.set("/ready", reply(503));
    let place = Place::new();
    let text = |cache: &str| place.before(&[&one, &two], cache, "").replace("[caches.api]", health);
    let process = place.run(&text("")).await;
    let up = format!(r#"vanne_upstream_up{{instance="{}",upstream="api"}}"#, one.address());
    crate::support::poll_until("it is down", || async { place.metric(&up).await == Some(0.0) }).await;
    // The check of the new configuration does not come back: what is known is what the old one said.
    let gate = Gate::new("a check that hangs");
    one.set("/ready", reply(503).gate(&gate));
    rewrite(&process, &text("ttl = \"5m\"").replace("fall = 1", "fall = 2"));
    process.signal("HUP");
    process.wait_for_stderr("reloaded changes=2").await;
    assert_eq!(place.metric(&up).await, Some(0.0));
    for _ in 0..4 {
        place.client().get("/x").send().await.expect(200).body("two");
    }
    gate.release();
}

#[tokio::test]
async fn a_kept_connection_meets_the_new_configuration_at_its_next_request() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let place = Place::new();
    let process = place.run(&place.before(&[&one], "", "")).await;
    let mut kept = place.client().connect().await;
    kept.get("/x").send().await.expect(200).body("one");
    rewrite(&process, &place.before(&[&two], "", ""));
    process.signal("HUP");
    process.wait_for_stderr("reloaded changes=2").await;
    kept.get("/x").send().await.expect(200).body("two");
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_said_in_log_metric_and_exit_code() {
    let one = named("one").start().await;
    let place = Place::new();
    let text = place.before(&[&one], "", "");
    let process = place.run(&text).await;
    let broken = text
        .replace("upstream = \"api\"", "upstream = \"apy\"")
        .replace("[caches.api]", "[caches.api]\nttl = \"soon\"");
    rewrite(&process, &broken);
    process.signal("HUP");
    process.wait_for_stderr("not reloaded").await;
    process.wait_for_stderr("2 errors").await;
    place.client().get("/x").send().await.expect(200).body("one");
    assert_eq!(place.metric(r#"vanne_reloads_total{result="failure"}"#).await, Some(1.0));
    assert_eq!(place.metric("vanne_config_last_reload_successful").await, Some(0.0));
    // The token is the one in force, not that of a file that does not read: so the command asks with a right copy.
    let asked = Client::new(place.admin)
        .post("/api/v1/reload", "")
        .header("Authorization", &format!("Bearer {TOKEN}"));
    let told = asked.send().await.expect(422).text();
    for part in ["did you mean", "api", "ttl", "soon"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let mut told = command(&process, "reload").await;
    assert_eq!(told.wait().await.code(), Some(78));
    told.wait_for_stderr("2 errors").await;
    rewrite(&process, &text);
    let mut told = command(&process, "reload").await;
    assert!(told.wait().await.success());
    told.wait_for_stdout("reloaded: nothing changed").await;
    assert_eq!(place.metric("vanne_config_last_reload_successful").await, Some(1.0));
}

#[tokio::test]
async fn a_file_that_cannot_be_put_in_force_changes_nothing_either() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let place = Place::new();
    let process = place.run(&place.before(&[&one], "", "")).await;
    // The second listener's address is the origin's.
    let taken = format!("[listen.more]\naddr = \"{}\"\n", two.address());
    rewrite(&process, &place.before(&[&two], "", &taken));
    process.signal("HUP");
    process.wait_for_stderr("not reloaded").await;
    process.wait_for_stderr("the address is in use").await;
    place.client().get("/x").send().await.expect(200).body("one");
}

#[tokio::test]
async fn reload_prints_what_changed() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let place = Place::new();
    let process = place.run(&place.before(&[&one], "", "")).await;
    let also = "[[routes]]\nname = \"hello\"\nmatch = { path = \"/hello\" }\nrespond = { status = 200, body = \"hi\" }\n";
    rewrite(&process, &place.before(&[&one, &two], "ttl = \"5m\"", also));
    let mut told = command(&process, "reload").await;
    assert!(told.wait().await.success());
    for line in ["reloaded", "instance", "joined", "cache api: changed", "route hello: added"] {
        told.wait_for_stdout(line).await;
    }
    place.client().get("/hello").send().await.expect(200).body("hi");
}

#[tokio::test]
async fn listeners_come_and_go_without_a_refused_connection_on_those_that_stay() {
    let one = named("one").start().await;
    let place = Place::new();
    let more = free_address();
    let with_more = place.before(&[&one], "", &format!("[listen.more]\naddr = \"{more}\"\n"));
    let process = place.run(&place.before(&[&one], "", "")).await;
    let mut kept = place.client().connect().await;
    kept.get("/x").send().await.expect(200);
    rewrite(&process, &with_more);
    process.signal("HUP");
    process.wait_for_stderr("listener more: added").await;
    process.wait_for_stderr("reloaded changes=1").await;
    let mut on_more = Client::new(more).connect().await;
    on_more.get("/x").send().await.expect(200).body("one");
    rewrite(&process, &place.before(&[&one], "", ""));
    process.signal("HUP");
    process.wait_for_stderr("listener more: removed").await;
    on_more.expect_close().await;
    crate::support::poll_until("nobody listens there", || async {
        Client::new(more).try_connect().await.is_err()
    })
    .await;
    kept.get("/x").send().await.expect(200).body("one");
}

#[tokio::test]
async fn a_watched_file_is_read_again_when_it_changes() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let place = Place::new();
    let text = place.before(&[&one], "", "");
    let process = Program::gateway(&text).arg("--watch").ready_at(place.admin).start().await;
    place.client().get("/x").send().await.expect(200).body("one");
    rewrite(&process, &place.before(&[&two], "", ""));
    process.wait_for_stderr("reloaded changes=2").await;
    place.client().get("/x").send().await.expect(200).body("two");
}

#[tokio::test]
async fn reload_needs_the_token_and_a_post() {
    let one = named("one").start().await;
    let place = Place::new();
    let _process = place.run(&place.before(&[&one], "", "")).await;
    let admin = Client::new(place.admin);
    for path in ["/api/v1/reload", "/api/v1/upgrade"] {
        admin.post(path, "").send().await.expect(401);
        admin.post(path, "").header("Authorization", "Bearer wrong").send().await.expect(401);
        admin.get(path).send().await.expect(405);
    }
    assert_eq!(place.metric(r#"vanne_reloads_total{result="success"}"#).await, Some(0.0));
}

#[tokio::test]
async fn twenty_reloads_under_load_fail_no_request_and_cut_no_stream() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let rest = Gate::new("the rest of a stream");
    for origin in [&one, &two] {
        origin.set("/stream", reply(200).cache("no-store").chunk("first ").then_wait(&rest).chunk("last"));
    }
    let place = Place::new();
    let process = place.run(&place.before(&[&one, &two], "", "")).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut connection = place.client().connect().await;
        connection.write("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
        connection.read_until("first ").await;
        streams.push(connection);
    }
    let going = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let load: Vec<_> = (0..16)
        .map(|i| {
            let (client, going) = (place.client(), going.clone());
            tokio::spawn(async move {
                let mut kept = client.connect().await;
                let mut served = 0u32;
                while going.load(std::sync::atomic::Ordering::Relaxed) {
                    let target =
                        if served.is_multiple_of(2) { format!("/stored/{i}") } else { "/x".to_owned() };
                    // Every other connection is new each time.
                    let answer = if i % 2 == 0 {
                        kept.get(&target).try_send().await
                    } else {
                        client.get(&target).try_send().await
                    };
                    answer.unwrap_or_else(|e| panic!("{target}: {e}")).expect(200);
                    served += 1;
                    if served.is_multiple_of(900) {
                        kept = client.connect().await;
                    }
                }
                served
            })
        })
        .collect();
    for round in 1..=20 {
        let text = match round % 3 {
            0 => place.before(&[&one], "", ""),
            1 => place.before(&[&two, &one], "ttl = \"1h\"", ""),
            _ => place.before(&[&one, &two], "", "[routes]\n"),
        };
        let broken = text.contains("[routes]\n");
        rewrite(&process, &text);
        process.signal("HUP");
        let wanted = (
            if broken { "failure" } else { "success" },
            (1..=round).filter(|r| (r % 3 == 2) == broken).count(),
        );
        let series = format!(r#"vanne_reloads_total{{result="{}"}}"#, wanted.0);
        crate::support::poll_until("the reload", || async {
            place.metric(&series).await == Some(wanted.1 as f64)
        })
        .await;
    }
    going.store(false, std::sync::atomic::Ordering::Relaxed);
    let mut served = 0;
    for task in load {
        served += task.await.expect("no request fails");
    }
    assert!(served > 500, "{served} requests are no load");
    rest.release();
    for mut stream in streams {
        stream.read_until("last").await;
    }
}

#[tokio::test]
async fn what_an_operator_said_of_an_instance_holds_over_a_reload() {
    let (one, two) = (named("one").start().await, named("two").start().await);
    let place = Place::new();
    let process = place.run(&place.before(&[&one, &two], "", "")).await;
    let file = process.folder().join("vanne.toml");
    let file = file.to_str().expect("a path of letters").to_owned();
    let instance = one.address().to_string();
    let drain =
        Program::new(env!("CARGO_BIN_EXE_vanne")).arg("drain").arg("api").arg(&instance).arg("-c").arg(&file);
    assert!(drain.start().await.wait().await.success());
    rewrite(
        &process,
        &place.before(&[&two, &one], "ttl = \"5m\"", "").replace("[caches.api]", "tries = 2\n[caches.api]"),
    );
    process.signal("HUP");
    process.wait_for_stderr("reloaded changes=2").await;
    for _ in 0..4 {
        place.client().get("/x").send().await.expect(200).body("two");
    }
    let ready =
        Program::new(env!("CARGO_BIN_EXE_vanne")).arg("ready").arg("api").arg(&instance).arg("-c").arg(&file);
    assert!(ready.start().await.wait().await.success());
    for _ in 0..4 {
        place.client().get("/x").send().await.expect(200);
    }
    assert_eq!(one.hits("/x"), 2, "it has its turn again");
}
