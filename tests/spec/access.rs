//! Who may ask: by address, and by name and password.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::edge::{Configuration, Edge};
use crate::support::origin::{Origin, Request, reply};

const CACHED: &str = "[[routes]]\nname = \"all\"\nupstream = \"api\"\ncache = \"api\"\n";
const PASSED: &str = "[[routes]]\nname = \"all\"\nupstream = \"api\"\n";

async fn origin() -> Origin {
    let own = |request: &Request| {
        let seen = request.header("authorization").unwrap_or("none").to_owned();
        let user = request.header("x-user").unwrap_or("none");
        reply(200).cache("max-age=1000").body(format!("authorization {seen}, user {user}"))
    };
    Origin::new().on_request("*", own).start().await
}

fn users() -> String {
    let hash = bcrypt::hash("wonderland", 4).unwrap();
    let other = bcrypt::hash("looking glass", 4).unwrap();
    format!("users = [\"alice:{hash}\", \"bob:{other}\"]")
}

fn behind_auth(origin: &Origin, route: &str, settings: &str) -> Configuration {
    let tables = format!("[auth.staff]\nrealm = \"Staff only\"\n{}\n{settings}", users());
    Edge::serving(origin).routes(&format!("{route}auth = \"staff\"\n")).also(&tables)
}

/// `alice:wonderland` and others as Basic has them.
const RIGHT: &str = "Basic YWxpY2U6d29uZGVybGFuZA==";
const BOB: &str = "Basic Ym9iOmxvb2tpbmcgZ2xhc3M=";
const WRONG: &str = "Basic YWxpY2U6d3Jvbmc=";
const NOBODY: &str = "Basic bm9ib2R5OndvbmRlcmxhbmQ=";

#[tokio::test]
async fn an_address_that_may_not_ask_is_refused_before_anything_else() {
    let origin = origin().await;
    let lists = [
        ("allow = [\"127.0.0.0/8\"]", 200),
        ("deny = [\"192.0.2.0/24\"]", 200),
        ("allow = [\"192.0.2.0/24\"]", 403),
        ("deny = [\"127.0.0.1\"]", 403),
        ("deny = [\"0.0.0.0/0\"]\nallow = [\"127.0.0.1\"]", 200),
        ("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1\"]", 403),
    ];
    for (list, status) in lists {
        for route in [PASSED, CACHED] {
            let edge = Edge::serving(&origin)
                .routes(&format!("{route}access = \"office\""))
                .also(&format!("[access.office]\n{list}"))
                .start()
                .await;
            for _ in 0..2 {
                let answer = edge.get("/").await.expect(status);
                if status == 403 {
                    assert!(answer.text().contains("\"code\":\"address-denied\""));
                }
            }
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn what_one_client_may_have_from_memory_another_may_not() {
    let origin = origin().await;
    let edge = Edge::serving(&origin)
        .routes(&format!("{CACHED}access = \"office\""))
        .also("[access.office]\nallow = [\"192.0.2.0/24\"]\n[server]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let ask = |client: &str| edge.request("GET", "/").header("X-Forwarded-For", client);
    ask("192.0.2.1").send().await.expect(200);
    ask("192.0.2.2").send().await.expect(200).cache("hit");
    ask("198.51.100.1").send().await.expect(403);
    ask("198.51.100.1, 192.0.2.9").send().await.expect(200);
    ask("192.0.2.9, 198.51.100.1").send().await.expect(403);
    assert_eq!(origin.requests().len(), 1);
    edge.finish().await;
}

#[tokio::test]
async fn lists_of_addresses_may_lie_in_files() {
    let origin = origin().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deny.txt");
    std::fs::write(&file, "# the noisy ones\n127.0.0.0/8\n").unwrap();
    let edge = Edge::serving(&origin)
        .routes(&format!("{PASSED}access = \"office\""))
        .also(&format!("[access.office]\ndeny_files = [\"{}\"]", file.display()))
        .start()
        .await;
    edge.get("/").await.expect(403);
    edge.finish().await;
}

#[tokio::test]
async fn without_the_right_name_and_password_there_is_no_answer() {
    let origin = origin().await;
    for route in [PASSED, CACHED] {
        let edge = behind_auth(&origin, route, "").start().await;
        let ask = |value: &str| edge.request("GET", "/").header("Authorization", value);
        for wrong in [WRONG, NOBODY, "Basic", "Basic x", "Bearer YWxpY2U6d29uZGVybGFuZA=="] {
            let refused = ask(wrong).send().await.expect(401);
            assert_eq!(
                refused.headers("www-authenticate"),
                ["Basic realm=\"Staff only\", charset=\"UTF-8\""]
            );
            assert!(refused.text().contains("\"code\":\"unauthorized\""));
        }
        edge.get("/").await.expect(401);
        let before = origin.requests().len();
        ask(RIGHT).send().await.expect(200).body("authorization none, user none");
        ask(BOB).send().await.expect(200);
        edge.request("GET", "/")
            .header("Authorization", RIGHT)
            .header("Authorization", RIGHT)
            .send()
            .await
            .expect(401);
        assert!(origin.requests().len() > before);
        assert_eq!(edge.metric("vanne_denied_total{reason=\"unauthorized\",route=\"all\"}"), Some(7.0));
        edge.finish().await;
    }
}

#[tokio::test]
async fn an_answer_from_storage_is_behind_the_password_too() {
    let origin = origin().await;
    for long_way in [false, true] {
        let before = origin.requests().len();
        let edge = behind_auth(&origin, CACHED, "").start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        let ask = |value: &str| edge.request("GET", "/").header("Authorization", value);
        ask(RIGHT).send().await.expect(200).cache("fwd=uri-miss");
        ask(RIGHT).send().await.expect(200).cache("hit");
        ask(BOB).send().await.expect(200).cache("hit");
        ask(BOB).send().await.expect(200).cache("hit");
        ask(WRONG).send().await.expect(401);
        ask(WRONG).send().await.expect(401);
        edge.get("/").await.expect(401);
        assert_eq!(origin.requests().len() - before, 1);
        edge.finish().await;
    }
}

#[tokio::test]
async fn credentials_that_are_passed_on_keep_answers_apart() {
    let origin = origin().await;
    let edge = behind_auth(&origin, CACHED, "authorization = \"pass\"").start().await;
    let ask = |value: &str| edge.request("GET", "/").header("Authorization", value);
    for _ in 0..2 {
        ask(RIGHT).send().await.expect(200).body(format!("authorization {RIGHT}, user none"));
        ask(BOB).send().await.expect(200).body(format!("authorization {BOB}, user none"));
    }
    assert_eq!(origin.requests().len(), 4, "RFC 9111 §3.5: what was said to one user is not stored");
    edge.finish().await;
}

#[tokio::test]
async fn the_users_name_may_be_told_to_the_instances_and_a_client_cannot_claim_one() {
    let origin = origin().await;
    let named = "request_headers = { set = { X-User = \"{user}\" } }\n";
    let edge = behind_auth(&origin, &format!("{PASSED}{named}"), "").start().await;
    let ask = |value: &str| edge.request("GET", "/").header("Authorization", value).header("X-User", "root");
    ask(RIGHT).send().await.expect(200).body("authorization none, user alice");
    ask(BOB).header("Connection", "X-User").send().await.expect(200).body("authorization none, user bob");
    edge.finish().await;
}

#[tokio::test]
async fn answers_that_are_told_apart_by_user_are_never_anothers() {
    let origin = origin().await;
    let named = "request_headers = { set = { X-User = \"{user}\" } }\n";
    for long_way in [false, true] {
        let edge = behind_auth(&origin, &format!("{CACHED}{named}"), "")
            .cache("key = { headers = [\"X-User\"] }")
            .start()
            .await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        let ask = |value: &str| edge.request("GET", "/").header("Authorization", value);
        for _ in 0..3 {
            for (value, name) in [(RIGHT, "alice"), (BOB, "bob")] {
                let body = format!("authorization none, user {name}");
                ask(value).send().await.expect(200).body(&body);
                ask(value).header("X-User", "root").send().await.expect(200).body(&body);
                ask(value).header("Connection", "X-User").send().await.expect(200).body(&body);
            }
        }
        edge.finish().await;
    }
    assert_eq!(origin.requests().len(), 4);
}

#[tokio::test]
async fn users_may_lie_in_a_file_and_hashes_of_several_families_are_taken() {
    let origin = origin().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let bcrypt = bcrypt::hash("b", 4).unwrap();
    // `openssl passwd -6 -salt saltstring 'Hello world!'`
    let sha = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
    std::fs::write(&file, format!("# staff\n\nb:{bcrypt}\r\ns:{sha}\n")).unwrap();
    let edge = Edge::serving(&origin)
        .routes(&format!("{PASSED}auth = \"staff\""))
        .also(&format!("[auth.staff]\nusers_file = \"{}\"", file.display()))
        .start()
        .await;
    let ask = |value: &str| edge.request("GET", "/").header("Authorization", value);
    ask("Basic Yjpi").send().await.expect(200);
    ask("Basic czpIZWxsbyB3b3JsZCE=").send().await.expect(200);
    ask("Basic czpi").send().await.expect(401);
    edge.finish().await;
}

#[tokio::test]
async fn passwords_cannot_be_tried_faster_than_a_limit_lets() {
    let origin = origin().await;
    let edge = behind_auth(&origin, &format!("{PASSED}limits = [\"each\"]\n"), "")
        .also("[limits.each]\nrate = \"3/h\"")
        .start()
        .await;
    for status in [401, 401, 401, 429, 429] {
        edge.request("GET", "/").header("Authorization", WRONG).send().await.expect(status);
    }
    edge.request("GET", "/").header("Authorization", RIGHT).send().await.expect(429);
    edge.finish().await;
}

#[tokio::test]
async fn what_is_hashed_on_the_command_line_signs_in_and_is_shown_nowhere() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vanne"))
        .args(["hash-password", "--user", "alice"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"wonderland\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.starts_with("alice:$argon2id$") && line.ends_with('\n'), "{line}");

    let origin = origin().await;
    let configuration = Edge::serving(&origin)
        .routes(&format!("{PASSED}auth = \"staff\""))
        .also(&format!("[auth.staff]\nusers = [\"{}\"]", line.trim()));
    let edge = configuration.start().await;
    edge.request("GET", "/").header("Authorization", RIGHT).send().await.expect(200);
    edge.request("GET", "/").header("Authorization", WRONG).send().await.expect(401);
    let metrics = edge.metrics();
    assert!(!metrics.contains("argon2") && !metrics.contains("alice"), "no name and no hash in metrics");
    edge.finish().await;
}

#[tokio::test]
async fn a_password_that_is_empty_is_not_hashed() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vanne"))
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}
