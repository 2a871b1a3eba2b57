//! Shadow mode: whether a route may be cached is seen before anybody is served from the cache.

use crate::edge::{Edge, secs};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};

fn counted(edge: &Edge, result: &str) -> f64 {
    let series = format!("vanne_shadow_answers_total{{result=\"{result}\",route=\"shadowed\"}}");
    edge.metric(&series).unwrap_or_else(|| panic!("no {series} in\n{}", edge.metrics()))
}

async fn shadowing(origin: &Origin) -> Edge {
    Edge::serving(origin)
        .cache("ttl = \"1m\"")
        .routes(
            "[[routes]]\nname = \"shadowed\"\nupstream = \"api\"\n\
             cache = { use = \"api\", shadow = true, key = { body = \"json\" } }\n",
        )
        .start()
        .await
}

/// What was counted is told after the last byte: it is waited for.
async fn until_counted(edge: &Edge, result: &str, times: f64) {
    crate::support::poll_until("the comparison", || async { counted(edge, result) == times }).await;
}

#[tokio::test]
async fn instances_answer_and_what_the_cache_would_have_said_is_compared() {
    let origin = Origin::new().on("/a", reply(200).body("v1")).start().await;
    let edge = shadowing(&origin).await;
    assert_eq!(counted(&edge, "same"), 0.0);
    edge.get("/a").await.expect(200).body("v1").cache("fwd=uri-miss; stored");
    edge.get("/a").await.expect(200).body("v1").cache("fwd=bypass; detail=shadow");
    until_counted(&edge, "same", 1.0).await;
    origin.set("/a", reply(200).body("v2"));
    edge.get("/a").await.expect(200).body("v2").cache("detail=shadow");
    until_counted(&edge, "content", 1.0).await;
    origin.set("/a", reply(200).header("content-type", "text/html").body("v1"));
    edge.get("/a").await.expect(200).body("v1");
    until_counted(&edge, "type", 1.0).await;
    origin.set("/a", reply(404).body("gone"));
    edge.get("/a").await.expect(404).body("gone");
    until_counted(&edge, "status", 1.0).await;
    // What was stored stays until it would have been fetched anew, so that it is compared with all that comes in its time.
    edge.grow_older(secs(61));
    origin.set("/a", reply(200).body("v3"));
    edge.get("/a").await.expect(200).body("v3").cache("stored");
    edge.get("/a").await.expect(200).body("v3").cache("detail=shadow");
    until_counted(&edge, "same", 2.0).await;
    assert_eq!(origin.hits("/a"), 7, "every request reached an instance");
    edge.finish().await;
}

#[tokio::test]
async fn questions_are_compared_too_and_nobody_waits_for_anybody() {
    let gate = Gate::new("both at once");
    let origin = Origin::new().on("/query", reply(200).body("an answer").gate(&gate)).start().await;
    let edge = shadowing(&origin).await;
    let ask = || tokio::spawn(edge.request("POST", "/query").body("{\"q\": 1}").send());
    let asked = [ask(), ask()];
    gate.arrived(2).await;
    gate.release();
    for answer in asked {
        answer.await.expect("asked").expect(200).body("an answer");
    }
    edge.request("POST", "/query").body("{ \"q\":1 }").send().await.expect(200).cache("detail=shadow");
    until_counted(&edge, "same", 1.0).await;
    edge.finish().await;
}
