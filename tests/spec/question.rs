//! Questions asked by POST or QUERY: whose answer comes, and when it is the stored one.

use crate::edge::{Configuration, Edge, secs};
use crate::support::client::Answer;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};

/// An origin that answers with what it was asked.
async fn oracle() -> Origin {
    Origin::new()
        .on_question("/query", |r| {
            let tenant = r.header("x-tenant").unwrap_or("nobody").to_owned();
            let mut answer = format!("{} asked by {tenant}: ", r.method).into_bytes();
            answer.extend_from_slice(&r.body);
            reply(200).header("content-type", "application/json").body(answer)
        })
        .start()
        .await
}

fn keyed(origin: &Origin, key: &str, more: &str) -> Configuration {
    Edge::serving(origin).cache("ttl = \"10m\"").routes(&format!(
        "[[routes]]\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\ncache = {{ use = \"api\", key = {{ {key} }} {more} }}\n"
    ))
}

async fn ask(edge: &Edge, question: &str) -> Answer {
    edge.request("POST", "/query")
        .header("content-type", "application/json")
        .body(question)
        .send()
        .await
        .expect(200)
}

#[tokio::test]
async fn the_same_question_is_answered_once_however_it_is_spelled() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\", ignore = [\"request_id\"]", "").start().await;
    let first = ask(&edge, r#"{"question":"why?","top_k":5,"request_id":"a"}"#).await.cache("stored");
    let again = ask(&edge, "{ \"request_id\": \"b\",\n \"top_k\": 5.0, \"question\": \"why\\u003f\" }")
        .await
        .cache("hit");
    assert_eq!(first.body, again.body);
    ask(&edge, r#"{"question":"why not?","top_k":5}"#).await.cache("fwd=uri-miss");
    assert_eq!(origin.hits("/query"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn content_reaches_the_instance_as_it_was_sent() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\"", "").start().await;
    let question = "{ \"b\" : 1.50 , \"a\" : \"\\u0041\" }";
    ask(&edge, question).await.body(format!("POST asked by nobody: {question}"));
    let got = origin.last("/query");
    assert_eq!(got.header("content-length"), Some(question.len().to_string().as_str()));
    assert_eq!(origin.violations(), Vec::<String>::new());
    edge.request("POST", "/query")
        .chunks(["{\"c\":", "1}"])
        .send()
        .await
        .expect(200)
        .body("POST asked by nobody: {\"c\":1}");
    edge.finish().await;
}

#[tokio::test]
async fn two_large_questions_that_begin_alike_are_never_mixed() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\"", "").start().await;
    let question = |end: &str| format!("{{\"text\":\"{}{end}\"}}", "x".repeat(200_000));
    for _ in 0..2 {
        for end in ["one", "two"] {
            ask(&edge, &question(end)).await.body(format!("POST asked by nobody: {}", question(end)));
        }
    }
    assert_eq!(origin.hits("/query"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn what_is_too_large_for_a_key_is_passed_on_and_never_stored() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"raw\", max_body = \"1KiB\"", "").start().await;
    for end in ["one", "two"] {
        let question = "y".repeat(2000) + end;
        let whole = ask(&edge, &question).await.body(format!("POST asked by nobody: {question}"));
        assert!(
            whole.cache_status().contains("fwd=bypass; detail=content-too-large"),
            "{}",
            whole.cache_status()
        );
        let pieces: Vec<_> = question.as_bytes().chunks(300).map(<[u8]>::to_vec).collect();
        let chunked = edge.request("POST", "/query").chunks(pieces).send().await.expect(200);
        chunked.body(format!("POST asked by nobody: {question}"));
    }
    assert_eq!(origin.hits("/query"), 4);
    edge.finish().await;
}

#[tokio::test]
async fn one_tenants_answer_is_never_anothers() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\", headers = [\"X-Tenant\"]", "").start().await;
    for _ in 0..2 {
        for tenant in ["a", "b"] {
            let asked =
                edge.request("POST", "/query").header("x-tenant", tenant).body("{\"q\":1}").send().await;
            asked.expect(200).body(format!("POST asked by {tenant}: {{\"q\":1}}"));
        }
    }
    assert_eq!(origin.hits("/query"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn one_users_token_gets_an_answer_of_its_own_when_it_is_in_the_key() {
    let origin = Origin::new()
        .on_request("/query", |r| reply(200).body(r.header("authorization").unwrap_or("nobody").to_owned()))
        .start()
        .await;
    let by_token = |user: &'static str, edge: &Edge| {
        edge.request("POST", "/query").header("authorization", user).body("{}").send()
    };
    let edge = keyed(&origin, "body = \"json\"", "").start().await;
    for user in ["Bearer a", "Bearer b", "Bearer a"] {
        by_token(user, &edge).await.expect(200).body(user);
    }
    assert_eq!(origin.hits("/query"), 3, "not stored: nothing in the key tells the users apart");
    edge.finish().await;
    let edge = keyed(&origin, "body = \"json\", headers = [\"Authorization\"]", "").start().await;
    for user in ["Bearer a", "Bearer b", "Bearer a", "Bearer b"] {
        by_token(user, &edge).await.expect(200).body(user);
    }
    assert_eq!(origin.hits("/query"), 5, "each asked once more");
    edge.finish().await;
}

#[tokio::test]
async fn query_is_keyed_by_its_content_too_and_other_methods_pass() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\"", "").start().await;
    for expected in ["stored", "hit"] {
        let answer = edge.request("QUERY", "/query").body("{\"q\":1}").send().await.expect(200);
        answer.body("QUERY asked by nobody: {\"q\":1}").cache(expected);
    }
    ask(&edge, "{\"q\":1}").await.body("POST asked by nobody: {\"q\":1}").cache("stored");
    edge.request("PUT", "/query").body("{\"q\":1}").send().await.expect(200).cache("fwd=method");
    edge.finish().await;
}

#[tokio::test]
async fn twenty_who_ask_the_same_at_once_are_one_at_the_origin() {
    let gate = Gate::new("the answer");
    let origin = Origin::new().on("/query", reply(200).body("v1").gate(&gate)).start().await;
    let edge = keyed(&origin, "body = \"json\"", "").start().await;
    let asked: Vec<_> = (0..20)
        .map(|i| {
            let question = format!("{{{}\"q\":1}}", " ".repeat(i));
            tokio::spawn(edge.request("POST", "/query").body(question).send())
        })
        .collect();
    gate.arrived(1).await;
    crate::support::poll_until("all to be in flight", || async {
        edge.metric("vanne_requests_in_flight") == Some(20.0)
    })
    .await;
    gate.release();
    for answer in asked {
        answer.await.expect("asked").expect(200).body("v1");
    }
    assert_eq!(origin.hits("/query"), 1);
    edge.finish().await;
}

#[tokio::test]
async fn a_stream_reaches_two_who_ask_while_it_runs_and_is_replayed_after() {
    let gate = Gate::new("the second token");
    let origin = Origin::new()
        .on(
            "/query",
            reply(200)
                .header("content-type", "text/event-stream")
                .chunk("data: one\n\n")
                .then_wait(&gate)
                .chunk("data: [DONE]\n\n"),
        )
        .start()
        .await;
    let edge =
        keyed(&origin, "body = \"json\"", ", store_when = { ends_with = \"data: [DONE]\" }").start().await;
    let question = "POST /query HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 7\r\n\r\n{\"q\":1}";
    let mut first = edge.client.connect().await;
    first.write(question).await;
    first.read_until("data: one\n\n").await;
    let mut second = edge.client.connect().await;
    second.write(question).await;
    second.read_until("data: one\n\n").await;
    gate.release();
    for client in [&mut first, &mut second] {
        client.read_until("data: [DONE]\n\n").await;
    }
    let replayed = edge.request("POST", "/query").body("{\"q\":1}").send().await.expect(200);
    replayed.body("data: one\n\ndata: [DONE]\n\n").cache("hit").with("content-type", "text/event-stream");
    assert_eq!(origin.hits("/query"), 1);
    drop((first, second));
    edge.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_not_what_the_operator_asks_for_is_not_stored() {
    let origin = Origin::new()
        .on("/error", reply(200).body("{\"error\":\"no context\"}"))
        .on("/short", reply(200).body("{}"))
        .on("/created", reply(201).cache("max-age=60").body("{\"answer\":\"x\"}"))
        .on("/cut", reply(200).body("data: one\n\n"))
        .on("/good", reply(200).body("{\"answer\":\"x\",\"error\":null}"))
        .start()
        .await;
    let when = ", store_when = { status = [200], absent = [\"error\"], min_size = \"5B\" }";
    let edge = keyed(&origin, "body = \"json\"", when).start().await;
    for (target, stored) in [("/error", false), ("/short", false), ("/created", false), ("/good", true)] {
        for _ in 0..2 {
            edge.request("POST", target).body("{}").send().await;
        }
        assert_eq!(origin.hits(target), if stored { 1 } else { 2 }, "{target}");
    }
    edge.finish().await;
    let edge =
        keyed(&origin, "body = \"json\"", ", store_when = { ends_with = \"data: [DONE]\" }").start().await;
    for _ in 0..2 {
        edge.request("POST", "/cut").body("{}").send().await.expect(200);
    }
    assert_eq!(origin.hits("/cut"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn a_question_expires_like_any_answer_and_is_not_an_invalidation() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\"", "").start().await;
    edge.get("/query").await.expect(200).cache("stored");
    ask(&edge, "{\"q\":1}").await.cache("stored");
    edge.get("/query").await.expect(200).cache("hit");
    edge.grow_older(secs(601));
    ask(&edge, "{\"q\":1}").await.cache("fwd=stale");
    edge.finish().await;
}

#[tokio::test]
async fn a_question_whose_end_never_comes_is_never_asked() {
    let origin = oracle().await;
    let edge = keyed(&origin, "body = \"json\"", "").listen("read_timeout = \"100ms\"").start().await;
    let mut client = edge.client.connect().await;
    client.write("POST /query HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"q\":").await;
    client.read_answer("POST").await.expect(408);
    assert_eq!(origin.requests().len(), 0);
    edge.finish().await;
}

#[tokio::test]
async fn graphql_queries_are_answered_from_storage_and_changes_never() {
    let origin = Origin::new()
        .on_question("/graphql", |r| {
            let body = String::from_utf8_lossy(&r.body).into_owned();
            let answer = if body.contains("broken") {
                "{\"data\": null, \"errors\": [{\"message\": \"no\"}]}".to_owned()
            } else {
                format!("{{\"data\": {}}}", r.body.len())
            };
            let page =
                reply(200).header("content-type", "application/json").header("cache-groups", "\"users\"");
            let page = if body.contains("mutation") {
                page.header("cache-group-invalidation", "\"users\"")
            } else {
                page
            };
            page.body(answer)
        })
        .start()
        .await;
    let edge = keyed(&origin, "body = \"graphql\"", "").start().await;
    let ask = |body: &str| {
        let body = body.to_owned();
        edge.request("POST", "/graphql").header("content-type", "application/json").body(body).send()
    };
    const QUERY: &str = r#"{"query": "query Q($id: ID) { user(id: $id) { name } }", "variables": {"id": 1}}"#;
    ask(QUERY).await.expect(200).cache("fwd=uri-miss; stored");
    let spelled_otherwise =
        r#"{"variables":{"id":1.0},"query":"query Q($id: ID) { user(id: $id) { name } }"}"#;
    ask(spelled_otherwise).await.expect(200).cache("hit");
    ask(&QUERY.replace("1}", "2}")).await.expect(200).cache("fwd=uri-miss; stored");
    ask(r#"{"query": "{ broken }"}"#).await.expect(200);
    ask(r#"{"query": "{ broken }"}"#).await.expect(200).cache("fwd=uri-miss");
    for change in [
        r#"{"query": "mutation { rename(id: 1) { name } }"}"#,
        r#"{"query": "query A { a } mutation B { b }", "operationName": "A"}"#,
        r#"{"query": "subscription { changes }"}"#,
        r#"{"id": "a-stored-document"}"#,
        r#"[{"query": "{ a }"}]"#,
        "query { a }",
    ] {
        for _ in 0..2 {
            ask(change).await.expect(200).cache("fwd=bypass; detail=graphql-no-query");
        }
    }
    // The change named the group that the first answer belongs to.
    ask(QUERY).await.expect(200).cache("fwd=uri-miss; stored");
    edge.finish().await;
}

#[tokio::test]
async fn a_query_is_tried_again_on_another_instance_and_a_post_never() {
    for (method, answered) in [("QUERY", true), ("POST", false)] {
        let broken = Origin::new().on("/query", crate::support::origin::hang_up()).start().await;
        let well = Origin::new().on("/query", reply(200).body("an answer")).start().await;
        let edge = Edge::before(&[broken.address(), well.address()])
            .cache("ttl = \"10m\"")
            .routes("[[routes]]\nupstream = \"api\"\ncache = { use = \"api\", key = { body = \"json\" } }\n")
            .start()
            .await;
        let mut failed = 0;
        for question in 0..4 {
            let body = format!("{{\"q\": {question}}}");
            let answer = edge.request(method, "/query").body(body).send().await;
            failed += usize::from(answer.status != 200);
        }
        assert_eq!(failed == 0, answered, "{method}: {failed} failed");
        assert!(!broken.requests().is_empty());
        edge.finish().await;
    }
}
