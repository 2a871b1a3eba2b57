//! What the operator sees.

use crate::edge::Edge;
use crate::support::origin::{Origin, reply};

#[tokio::test]
async fn metrics_tell_what_happened_and_begin_at_zero() {
    let origin = Origin::new().on("*", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin).start().await;
    let route = "route=\"/*\"";
    let requests = format!("vanne_requests_total{{code=\"200\",method=\"GET\",{route}}}");
    assert_eq!(edge.metric(&requests), Some(0.0));
    edge.get("/a").await.expect(200);
    edge.get("/a").await.expect(200);
    assert_eq!(edge.metric(&requests), Some(2.0));
    let page = edge.admin().get("/metrics").send().await.expect(200);
    assert!(page.header("content-type").is_some_and(|t| t.starts_with("text/plain")));
    let text = page.text();
    let instance = origin.address();
    for line in [
        format!("vanne_upstream_requests_total{{code=\"200\",instance=\"{instance}\",upstream=\"api\"}} 1"),
        format!("vanne_upstream_up{{instance=\"{instance}\",upstream=\"api\"}} 1"),
    ] {
        assert!(text.contains(&line), "no line {line} in:\n{text}");
    }
    for name in [
        "vanne_build_info",
        "process_cpu_seconds_total",
        "vanne_request_duration_seconds_bucket",
        "vanne_cache_requests_total",
    ] {
        assert!(text.contains(name), "no {name} in:\n{text}");
    }
    edge.finish().await;
}

#[tokio::test]
async fn what_is_refused_and_what_matches_no_route_is_counted_too() {
    let origin = Origin::new().start().await;
    let edge = Edge::serving(&origin)
        .without_cache()
        .routes("[[routes]]\nmatch = { path = \"/api\" }\nupstream = \"api\"")
        .start()
        .await;
    edge.get("/other").await.expect(404);
    edge.client.raw("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(edge.metric("vanne_requests_total{code=\"404\",method=\"GET\",route=\"_none\"}"), Some(1.0));
    assert_eq!(edge.metric("vanne_refused_total{reason=\"host\"}"), Some(1.0));
    edge.finish().await;
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let origin = Origin::new().start().await;
    let edge = Edge::serving(&origin).start().await;
    edge.admin().get("/healthz").send().await.expect(200);
    edge.admin().get("/readyz").send().await.expect(200);
    edge.admin().get("/other").send().await.expect(404);
    edge.get("/healthz").await.expect(404);
    edge.finish().await;
}

#[tokio::test]
async fn the_access_log_has_a_json_line_for_every_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let origin = Origin::new().on("/a", reply(200).cache("max-age=60").body("v1")).start().await;
    let edge = Edge::serving(&origin).also(&format!("[log]\naccess = \"{}\"", file.display())).start().await;
    edge.request("GET", "/a?q=\"x\"")
        .host("shop.example")
        .header("user-agent", "a \"quoted\" agent")
        .send()
        .await;
    edge.get("/a").await.expect(200);
    edge.get("/a").await.expect(200);
    edge.client.raw("GET / HTTP/1.1\r\n\r\n").await;
    let instance = origin.address().to_string();
    edge.finish().await;

    let text = std::fs::read_to_string(&file).expect("the log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0]["host"], "shop.example");
    assert_eq!(lines[0]["user_agent"], "a \"quoted\" agent");
    assert_eq!(lines[1]["status"], 200);
    assert_eq!(lines[1]["instance"], instance);
    assert_eq!(lines[1]["bytes_out"], 2);
    assert_eq!((&lines[1]["tries"], &lines[2]["tries"]), (&1.into(), &0.into()));
    assert!(lines[1]["cache"].as_str().is_some_and(|c| c.contains("fwd=uri-miss")));
    assert!(lines[2]["cache"].as_str().is_some_and(|c| c.contains("vanne-mem; hit")));
    assert_eq!(lines[2].get("instance"), None, "nobody was asked");
    assert_eq!(lines[3]["status"], 400);
    assert_eq!(lines[3]["error"], "host");
}
