//! One Redis, or many as one: a Cluster, a master behind Sentinels, TLS, users, sockets.

use std::cell::Cell;

use crate::edge::Edge;
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;
use crate::support::redis::{Redis, Value};
use crate::support::redis_fleet::{Certificates, Cluster, Sentinels, path};

/// Small answers, and under `/large/*` some that lie in pieces.
async fn pages() -> Origin {
    Origin::new()
        .on("/large/*", reply(200).cache("max-age=600").body(vec![b'x'; 700_000]))
        .on("*", reply(200).cache("max-age=600").header("cache-tag", "page").body("v1"))
        .start()
        .await
}

/// Asks for what was never asked for before until every server takes it: until `two` finds all that `one` fetched.
async fn until_used(one: &Edge, two: &Edge, what: &str) {
    let n = Cell::new(0);
    poll_until(what, || async {
        n.set(n.get() + 1);
        let targets: Vec<String> =
            (0..20).map(|i| format!("/{what}/{}/{i}", n.get()).replace(' ', "-")).collect();
        for target in &targets {
            one.get(target).await.expect(200).body("v1");
        }
        one.flush_redis().await;
        let mut all = true;
        for target in &targets {
            all &= two.get(target).await.expect(200).body("v1").cache_status().contains("vanne-redis; hit");
        }
        all
    })
    .await;
}

#[tokio::test]
async fn a_cluster_holds_answers_on_all_its_masters_and_every_gateway_finds_them() {
    let (cluster, origin) = (Cluster::start().await, pages().await);
    let one = Edge::serving(&origin).redis(&cluster.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&cluster.url()).start_with_redis().await;
    for i in 0..30 {
        one.get(&format!("/{i}")).await.expect(200).cache("fwd=uri-miss; stored");
        one.get(&format!("/large/{i}")).await.expect(200).cache("fwd=uri-miss; stored");
    }
    one.flush_redis().await;
    for i in 0..30 {
        two.get(&format!("/{i}")).await.expect(200).body("v1").cache("vanne-redis; hit");
        let large = two.get(&format!("/large/{i}")).await.expect(200).cache("vanne-redis; hit");
        assert_eq!(large.body.len(), 700_000);
    }
    for master in &cluster.servers[..3] {
        assert!(
            master.keys("vanne:v1:{????????????????????????????????}").await.len() > 5,
            "spread over all"
        );
    }
    assert_eq!(
        one.metric("vanne_redis_errors_total{kind=\"moved\"}"),
        Some(0.0),
        "all were asked of the right master"
    );
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_purge_reaches_every_gateway_through_a_cluster() {
    let (cluster, origin) = (Cluster::start().await, pages().await);
    let token = "token = \"0123456789abcdef0123456789abcdef\"";
    let one = Edge::serving(&origin).redis(&cluster.url()).admin(token).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&cluster.url()).start_with_redis().await;
    until_used(&one, &two, "the Cluster is used").await;
    two.get("/a").await.expect(200);
    let purge = one.admin().post("/api/v1/purge", r#"{"tags":["page"]}"#);
    let purge = purge.header("authorization", "Bearer 0123456789abcdef0123456789abcdef");
    assert!(
        purge
            .header("content-type", "application/json")
            .send()
            .await
            .expect(200)
            .text()
            .contains("\"redis\":\"purged\"")
    );
    poll_until("the purge to arrive", || async {
        two.get("/a").await.expect(200).cache_status().contains("fwd=uri-miss")
    })
    .await;
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_master_of_a_cluster_dies_and_its_replica_takes_over_without_a_failed_request() {
    let (mut cluster, origin) = (Cluster::start().await, pages().await);
    let one = Edge::serving(&origin).redis_within(&cluster.url(), "500ms").start_with_redis().await;
    let two = Edge::serving(&origin).redis_within(&cluster.url(), "500ms").start_with_redis().await;
    for i in 0..30 {
        one.get(&format!("/{i}")).await.expect(200);
    }
    one.flush_redis().await;
    // The one with the log: what else it holds matters less.
    let lost = cluster.master_of("vanne:v1:{fleet}:purges").await;
    cluster.servers[lost].kill();
    for i in 0..30 {
        two.get(&format!("/{i}")).await.expect(200).body("v1");
    }
    until_used(&one, &two, "the replica is used").await;
    assert_eq!((one.metric("vanne_redis_up"), two.metric("vanne_redis_up")), (Some(1.0), Some(1.0)));
    let now = cluster.master_of("vanne:v1:{fleet}:purges").await;
    assert_eq!(now, lost + 3, "its replica took over");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn when_slots_move_within_a_cluster_the_gateway_follows() {
    let (cluster, origin) = (Cluster::start().await, pages().await);
    let one = Edge::serving(&origin).redis(&cluster.url()).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&cluster.url()).start_with_redis().await;
    let id = async |i: usize| {
        String::from_utf8(cluster.servers[i].command(&["CLUSTER", "MYID"]).await.bytes()).unwrap()
    };
    let (from, to) = (id(0).await, id(1).await);
    // Nothing lies there yet: only the map changes.
    for slot in 0..2000 {
        let slot = slot.to_string();
        for server in [1, 0, 2] {
            cluster.servers[server].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await;
        }
    }
    assert_ne!(from, to);
    for i in 0..60 {
        one.get(&format!("/{i}")).await.expect(200).body("v1");
    }
    until_used(&one, &two, "the new map is used").await;
    for i in 100..160 {
        one.get(&format!("/{i}")).await.expect(200);
    }
    one.flush_redis().await;
    for i in 100..160 {
        two.get(&format!("/{i}")).await.expect(200).cache("vanne-redis; hit");
    }
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn behind_sentinels_the_master_is_found_and_followed() {
    let (mut fleet, origin) = (Sentinels::start().await, pages().await);
    let one = Edge::serving(&origin).redis_within(&fleet.url(), "500ms").start_with_redis().await;
    let two = Edge::serving(&origin).redis_within(&fleet.url(), "500ms").start_with_redis().await;
    until_used(&one, &two, "the master is used").await;
    assert!(!fleet.servers[0].keys("vanne:v1:{*}").await.is_empty());
    fleet.servers[0].kill();
    for i in 0..20 {
        one.get(&format!("/{i}")).await.expect(200).body("v1");
    }
    until_used(&one, &two, "the new master is used").await;
    one.get("/large/1").await.expect(200);
    one.flush_redis().await;
    two.get("/large/1").await.expect(200).cache("vanne-redis; hit");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_master_that_sentinels_hand_over_in_good_order_is_left_at_once() {
    let (fleet, origin) = (Sentinels::start().await, pages().await);
    let one = Edge::serving(&origin).redis_within(&fleet.url(), "500ms").start_with_redis().await;
    let two = Edge::serving(&origin).redis_within(&fleet.url(), "500ms").start_with_redis().await;
    until_used(&one, &two, "the master is used").await;
    let sentinel = fleet.a_sentinel();
    let ordered = crate::support::redis::ask(sentinel, &["SENTINEL", "FAILOVER", "main"]).await;
    assert_eq!(ordered, Some(Value::Simple("OK".into())));
    let n = Cell::new(0);
    poll_until("what is fetched now to lie on the new master", || async {
        n.set(n.get() + 1);
        one.get(&format!("/after/{}", n.get())).await.expect(200).body("v1");
        one.flush_redis().await;
        let role = fleet.servers[1].command(&["ROLE"]).await.to_bytes();
        let master = String::from_utf8_lossy(&role).contains("master");
        let found = two.get(&format!("/after/{}", n.get())).await.expect(200);
        master && found.cache_status().contains("vanne-redis; hit")
    })
    .await;
    one.finish().await;
    two.finish().await;
}

/// A server that speaks TLS alone.
async fn tls(certificates: &Certificates, ask_clients: &str) -> (Redis, u16) {
    let port = crate::support::free_address().port();
    let (ca, pem, key) = (certificates.pem("ca"), certificates.pem("server"), certificates.key("server"));
    let redis = Redis::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path(&pem),
        "--tls-key-file",
        &path(&key),
        "--tls-ca-cert-file",
        &path(&ca),
        "--tls-auth-clients",
        ask_clients,
    ])
    .await;
    (redis, port)
}

fn with_tls(origin: &Origin, url: &str, lines: &str) -> crate::edge::Configuration {
    Edge::serving(origin).also(&format!("[redis]\nurl = \"{url}\"\ntimeout = \"5s\"\n[redis.tls]\n{lines}\n"))
}

#[tokio::test]
async fn over_tls_a_redis_is_used_when_its_certificate_is_right_and_ours_is() {
    let (certificates, origin) = (Certificates::make(), pages().await);
    let (_redis, port) = tls(&certificates, "yes").await;
    let ca = format!("ca = \"{}\"", path(&certificates.pem("ca")));
    let own = format!(
        "cert = \"{}\"\nkey = \"{}\"",
        path(&certificates.pem("client")),
        path(&certificates.key("client"))
    );
    let url = format!("rediss://127.0.0.1:{port}");
    let one = with_tls(&origin, &url, &format!("{ca}\n{own}")).start_with_redis().await;
    let name = format!("rediss://localhost:{port}");
    let two = with_tls(&origin, &name, &format!("{ca}\n{own}")).start_with_redis().await;
    let three =
        with_tls(&origin, &url, &format!("{ca}\n{own}\nname = \"localhost\"")).start_with_redis().await;
    one.get("/large/a").await.expect(200);
    one.flush_redis().await;
    two.get("/large/a").await.expect(200).cache("vanne-redis; hit");
    three.get("/large/a").await.expect(200).cache("vanne-redis; hit");
    let insecure = with_tls(&origin, &url, &format!("{own}\ninsecure = true")).start_with_redis().await;
    insecure.get("/large/a").await.expect(200).cache("vanne-redis; hit");
    for edge in [one, two, three, insecure] {
        edge.finish().await;
    }
}

#[tokio::test]
async fn over_tls_a_redis_that_cannot_be_believed_is_not_used_and_costs_no_answer() {
    let (certificates, origin) = (Certificates::make(), pages().await);
    let (_redis, port) = tls(&certificates, "no").await;
    let (ca, other) = (path(&certificates.pem("ca")), path(&certificates.pem("other")));
    for (lines, why) in [
        (String::new(), "nobody vouches for it"),
        (format!("ca = \"{other}\""), "another vouches for it"),
        (format!("ca = \"{ca}\"\nname = \"elsewhere.test\""), "it is another's"),
    ] {
        let edge = with_tls(&origin, &format!("rediss://127.0.0.1:{port}"), &lines).start().await;
        poll_until(why, || async {
            edge.get("/a").await.expect(200).body("v1");
            edge.metric("vanne_redis_errors_total{kind=\"tls\"}").is_some_and(|count| count > 1.0)
        })
        .await;
        assert_eq!(edge.metric("vanne_redis_up"), Some(0.0), "{why}");
        edge.finish().await;
    }
    // Without TLS nothing but TLS is understood.
    let edge = with_tls(&origin, &format!("rediss://127.0.0.1:{port}"), &format!("ca = \"{ca}\""))
        .start_with_redis()
        .await;
    edge.finish().await;
}

/// The line of the guide that makes a user for the gateway, in words.
fn documented_user(password: &str) -> Vec<String> {
    let guide = include_str!("../../docs/REDIS_SETUP.md");
    let line =
        guide.lines().find(|line| line.starts_with("ACL SETUSER gateway ")).expect("the guide names a user");
    line.replace(">secret", &format!(">{password}")).split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn the_user_of_the_guide_may_do_all_that_the_gateway_does() {
    let (redis, origin) = (Redis::start().await, pages().await);
    assert_eq!(redis.command(&documented_user("s3cret")).await, Value::Simple("OK".into()));
    let url = format!("redis://gateway:s3cret@{}", redis.address());
    let token = "token = \"0123456789abcdef0123456789abcdef\"";
    let one = Edge::serving(&origin).redis(&url).admin(token).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&url).start_with_redis().await;
    for target in ["/a", "/large/a"] {
        one.get(target).await.expect(200);
        one.flush_redis().await;
        two.get(target).await.expect(200).cache("vanne-redis; hit");
    }
    one.request("DELETE", "/large/a").send().await.expect(200);
    one.flush_redis().await;
    let purge =
        one.admin().post("/api/v1/purge", r#"{"tags":["page"]}"#).header("content-type", "application/json");
    let purge =
        purge.header("authorization", "Bearer 0123456789abcdef0123456789abcdef").send().await.expect(200);
    assert!(purge.text().contains("\"redis\":\"purged\""), "{}", purge.text());
    for edge in [&one, &two] {
        for kind in ["forbidden", "response", "connection"] {
            assert_eq!(
                edge.metric(&format!("vanne_redis_errors_total{{kind=\"{kind}\"}}")),
                Some(0.0),
                "{kind}"
            );
        }
    }
    let log = redis.command(&["ACL", "LOG"]).await;
    assert_eq!(log, Value::Array(Some(Vec::new())), "what was refused");
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_password_in_a_file_is_read_again_when_it_is_changed() {
    let (redis, origin) = (Redis::start().await, pages().await);
    let file = redis.folder().join("password");
    let set = async |password: &str| {
        std::fs::write(&file, format!("{password}\n")).unwrap();
        assert_eq!(redis.command(&documented_user(password)).await, Value::Simple("OK".into()));
    };
    set("first").await;
    let lines = format!(
        "[redis]\nurl = \"redis://gateway@{}\"\ntimeout = \"5s\"\npassword_file = \"{}\"\n",
        redis.address(),
        path(&file)
    );
    let edge = Edge::serving(&origin).also(&lines).start_with_redis().await;
    assert_eq!(redis.command(&["ACL", "DELUSER", "gateway"]).await, Value::Integer(1));
    poll_until("the old password to be refused", || async {
        edge.get("/a").await.expect(200);
        edge.metric("vanne_redis_errors_total{kind=\"sign-in\"}").is_some_and(|count| count > 0.0)
    })
    .await;
    set("second").await;
    poll_until("the new password to be used", || async { edge.metric("vanne_redis_up") == Some(1.0) }).await;
    edge.finish().await;
}

#[tokio::test]
async fn a_redis_is_reached_by_its_socket_and_a_database_by_its_number() {
    let redis = Redis::with(&["--unixsocket", "redis.sock"]).await;
    let origin = pages().await;
    let socket = redis.folder().join("redis.sock");
    let by_socket = format!("redis+unix://{}?db=3", path(&socket));
    let by_port = format!("redis://{}/3", redis.address());
    let one = Edge::serving(&origin).redis(&by_socket).start_with_redis().await;
    let two = Edge::serving(&origin).redis(&by_port).start_with_redis().await;
    let elsewhere = Edge::serving(&origin).redis(&redis.url()).start_with_redis().await;
    one.get("/a").await.expect(200);
    one.flush_redis().await;
    two.get("/a").await.expect(200).cache("vanne-redis; hit");
    elsewhere.get("/a").await.expect(200).cache("fwd=uri-miss");
    for edge in [one, two, elsewhere] {
        edge.finish().await;
    }
}
