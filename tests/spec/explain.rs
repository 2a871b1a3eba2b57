//! What would become of a request, asked before anybody sends it.

use crate::support::process::Program;

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

/// What the program says, and its exit code.
async fn explained(arguments: &[&str]) -> (String, Option<i32>) {
    let program = Program::new(env!("CARGO_BIN_EXE_vanne"));
    let file = program.file("vanne.toml", FILE);
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
