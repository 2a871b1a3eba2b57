//! A client whose event stream broke off says which event it has seen last, and gets the rest: of what is stored, of what is running, or from the
//! instance.

use crate::edge::Edge;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};

const ONE: &str = "id: 1\ndata: one\n\n";
const TWO: &str = "id: 2\ndata: two\n\n";
const THREE: &str = "id: 3\ndata: three\n\n";

fn questions(origin: &Origin) -> crate::edge::Configuration {
    Edge::serving(origin)
        .cache("ttl = \"10m\"")
        .routes("[[routes]]\nupstream = \"api\"\ncache = { use = \"api\", key = { body = \"json\" } }\n")
}

fn stream() -> crate::support::origin::Reply {
    reply(200).header("content-type", "text/event-stream").header("etag", "\"1\"")
}

#[tokio::test]
async fn of_a_stored_stream() {
    let origin = Origin::new().on("/query", stream().body([ONE, TWO, THREE].concat())).start().await;
    let edge = questions(&origin).start().await;
    let ask = |seen: &str| {
        let ask = edge.request("POST", "/query").header("last-event-id", seen);
        ask.body("{\"q\": 1}").send()
    };
    edge.request("POST", "/query").body("{\"q\": 1}").send().await.expect(200).cache("stored");
    for (seen, rest) in [
        ("1", [TWO, THREE].concat()),
        ("2", THREE.to_owned()),
        ("3", String::new()),
        // What was never sent tells nothing about what was seen.
        ("9", [ONE, TWO, THREE].concat()),
        ("", [ONE, TWO, THREE].concat()),
    ] {
        let answer = ask(seen).await.expect(200).body(&rest).cache("hit");
        let length = rest.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()), "{seen}");
        let whole = rest.len() == [ONE, TWO, THREE].concat().len();
        assert_eq!(answer.header("cache-control"), (!whole).then_some("no-store"), "{seen}");
        assert_eq!(answer.header("etag").is_some(), whole, "a part is not the whole: {seen}");
    }
    assert_eq!(origin.hits("/query"), 1);
    edge.finish().await;
}

#[tokio::test]
async fn of_a_stream_that_is_running() {
    let gate = Gate::new("the rest");
    let origin = Origin::new()
        .on("/query", stream().chunk([ONE, TWO].concat()).then_wait(&gate).chunk(THREE))
        .start()
        .await;
    let edge = questions(&origin).start().await;
    let request =
        |seen: &str| format!("POST /query HTTP/1.1\r\nHost: x\r\n{seen}Content-Length: 7\r\n\r\n{{\"q\":1}}");
    let mut first = edge.client.connect().await;
    first.write(request("")).await;
    first.read_until(TWO).await;
    first.reset();
    let mut again = edge.client.connect().await;
    again.write(request("Last-Event-ID: 1\r\n")).await;
    let rest = again.read_until(TWO).await;
    assert!(!String::from_utf8_lossy(&rest).contains("one"), "it has seen that");
    gate.release();
    again.read_until(THREE).await;
    assert_eq!(origin.hits("/query"), 1, "the stream went on while its client was gone");
    drop(again);
    edge.finish().await;
}

#[tokio::test]
async fn from_the_instance_when_nothing_is_at_hand_and_for_nobody_else() {
    let origin = Origin::new()
        .on_request("/events", |request| match request.header("last-event-id") {
            Some("1") => stream().cache("max-age=60").body([TWO, THREE].concat()),
            _ => stream().cache("max-age=60").body([ONE, TWO, THREE].concat()),
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    let resumed = edge.request("GET", "/events").header("last-event-id", "1").send().await.expect(200);
    resumed.body([TWO, THREE].concat()).cache("fwd=bypass; detail=resumed");
    edge.get("/events").await.expect(200).body([ONE, TWO, THREE].concat()).cache("stored");
    assert_eq!(origin.last("/events").header("last-event-id"), None);
    // Now it is stored, and the instance is not asked again.
    let resumed = edge.request("GET", "/events").header("last-event-id", "2").send().await.expect(200);
    resumed.body(THREE).cache("hit");
    assert_eq!(origin.hits("/events"), 2);
    edge.finish().await;
}

#[tokio::test]
async fn only_of_event_streams() {
    let origin =
        Origin::new().on("/a", reply(200).cache("max-age=60").body([ONE, TWO].concat())).start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.get("/a").await.expect(200);
    let ask = edge.request("GET", "/a").header("last-event-id", "1");
    ask.send().await.expect(200).body([ONE, TWO].concat()).cache("hit");
    edge.finish().await;
}
