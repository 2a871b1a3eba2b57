//! Pages of other sites: what they are told, in time and from storage, and what they are not told.

use crate::edge::{Configuration, Edge};
use crate::support::client::Ask;
use crate::support::origin::{Origin, Request, reply};

const CACHED: &str =
    "[[routes]]\nmatch = { method = [\"GET\", \"PUT\"] }\nupstream = \"api\"\ncache = \"api\"\n";
const WEB: &str = "[cors.web]\norigins = [\"https://app.test\", \"https://*.app.test\"]\n";

/// An origin that reflects whoever asks, as careless applications do.
async fn careless() -> Origin {
    let own = |request: &Request| {
        let from = request.header("origin").unwrap_or("*").to_owned();
        reply(200)
            .cache("max-age=1000")
            .header("Access-Control-Allow-Origin", &from)
            .header("Access-Control-Allow-Credentials", "true")
            .body("content")
    };
    Origin::new().on_request("*", own).start().await
}

fn sharing(origin: &Origin, route: &str, tables: &str) -> Configuration {
    Edge::serving(origin).routes(&format!("{route}cors = \"web\"\n")).also(tables)
}

fn preflight(edge: &Edge, from: &str, method: &str) -> Ask<'static> {
    edge.request("OPTIONS", "/a").header("Origin", from).header("Access-Control-Request-Method", method)
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_gateway() {
    let origin = careless().await;
    let tables = format!(
        "{WEB}methods = [\"GET\", \"PUT\"]\nheaders = [\"X-One\"]\ncredentials = true\nmax_age = \"1h\""
    );
    let edge = sharing(&origin, CACHED, &tables).start().await;
    let answer =
        preflight(&edge, "https://app.test", "PUT").header("Access-Control-Request-Headers", "x-one").send();
    answer
        .await
        .expect(204)
        .with("access-control-allow-origin", "https://app.test")
        .with("access-control-allow-credentials", "true")
        .with("access-control-allow-methods", "GET, PUT")
        .with("access-control-allow-headers", "x-one")
        .with("access-control-max-age", "3600")
        .without("access-control-expose-headers");
    for stranger in ["https://evil.test", "null", "https://app.test.evil.test", "http://app.test"] {
        let answer = preflight(&edge, stranger, "PUT").send().await.expect(204);
        assert!(answer.header("access-control-allow-origin").is_none(), "{stranger}");
        assert!(answer.headers("vary").iter().any(|vary| vary.eq_ignore_ascii_case("origin")));
    }
    assert_eq!(origin.requests().len(), 0);
    // No route takes a POST or a plain OPTIONS here.
    preflight(&edge, "https://app.test", "POST").send().await.expect(404);
    edge.request("OPTIONS", "/a").send().await.expect(404);
    edge.finish().await;
}

#[tokio::test]
async fn each_page_is_told_of_itself_alone_also_from_storage() {
    let origin = careless().await;
    for long_way in [false, true] {
        let before = origin.requests().len();
        let tables = format!("{WEB}expose = [\"X-Total\"]\ncredentials = true");
        let edge = sharing(&origin, CACHED, &tables).start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        // The first to ask is a stranger: what the origin reflects to it is stored, and told to nobody.
        for from in ["https://evil.test", "https://app.test", "https://a.app.test", "https://evil.test"] {
            for _ in 0..2 {
                let answer =
                    edge.request("GET", "/a").header("Origin", from).send().await.expect(200).body("content");
                let friend = from != "https://evil.test";
                assert_eq!(answer.header("access-control-allow-origin"), friend.then_some(from));
                assert_eq!(answer.header("access-control-allow-credentials"), friend.then_some("true"));
                assert_eq!(answer.header("access-control-expose-headers"), friend.then_some("x-total"));
                assert_eq!(answer.headers("vary"), ["origin"], "every answer differs by origin");
            }
        }
        let plain = edge.get("/a").await.expect(200).without("access-control-allow-origin");
        assert_eq!(plain.headers("vary"), ["origin"], "also one to no page: another cache may store it");
        assert_eq!(origin.requests().len() - before, 1, "one answer serves them all");
        edge.finish().await;
    }
}

#[tokio::test]
async fn all_sites_are_told_a_star_that_does_not_vary() {
    let origin = careless().await;
    let edge = sharing(&origin, CACHED, "[cors.web]\norigins = \"*\"\nheaders = \"*\"").start().await;
    let asked = preflight(&edge, "https://any.test", "GET")
        .header("Access-Control-Request-Headers", "X-A, authorization");
    asked
        .send()
        .await
        .expect(204)
        .with("access-control-allow-origin", "*")
        .with("access-control-allow-headers", "x-a, authorization")
        .without("access-control-allow-credentials");
    for _ in 0..2 {
        let answer = edge.request("GET", "/a").header("Origin", "https://any.test").send().await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert!(answer.header("access-control-allow-credentials").is_none());
        assert!(answer.headers("vary").is_empty());
    }
    edge.finish().await;
}

#[tokio::test]
async fn an_answer_that_varies_already_says_so_once() {
    let origin =
        Origin::new().on("*", reply(200).cache("max-age=9").header("Vary", "Accept, Origin")).start().await;
    let edge = sharing(&origin, CACHED, WEB).start().await;
    for _ in 0..2 {
        let answer = edge.request("GET", "/a").header("Origin", "https://app.test").send().await.expect(200);
        assert_eq!(answer.headers("vary"), ["Accept, Origin"]);
    }
    edge.finish().await;
}

#[tokio::test]
async fn a_page_can_read_why_it_was_refused_and_what_is_not_modified() {
    let origin =
        Origin::new().on("*", reply(200).cache("max-age=99").header("ETag", "\"1\"").body("x")).start().await;
    let route = format!("{CACHED}limits = [\"each\"]\n");
    let edge = sharing(&origin, &route, &format!("{WEB}[limits.each]\nrate = \"3/h\"")).start().await;
    let ask = || edge.request("GET", "/a").header("Origin", "https://app.test");
    ask().send().await.expect(200);
    ask()
        .header("If-None-Match", "\"1\"")
        .send()
        .await
        .expect(304)
        .with("access-control-allow-origin", "https://app.test");
    ask()
        .header("Range", "bytes=0-0")
        .send()
        .await
        .expect(206)
        .with("access-control-allow-origin", "https://app.test");
    ask().send().await.expect(429).with("access-control-allow-origin", "https://app.test");
    // A preflight counts as well: it is a request like any other.
    preflight(&edge, "https://app.test", "GET").send().await.expect(429);
    edge.finish().await;
}

#[tokio::test]
async fn a_preflight_needs_no_password() {
    let origin = careless().await;
    let hash = bcrypt::hash("b", 4).unwrap();
    let route = format!("{CACHED}auth = \"staff\"\n");
    let tables = format!("{WEB}[auth.staff]\nusers = [\"a:{hash}\"]");
    let edge = sharing(&origin, &route, &tables).start().await;
    preflight(&edge, "https://app.test", "PUT").send().await.expect(204);
    let refused =
        edge.request("PUT", "/a").header("Origin", "https://app.test").body("x").send().await.expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.test"));
    edge.finish().await;
}

#[tokio::test]
async fn without_cors_preflights_go_where_requests_go() {
    let origin = careless().await;
    let edge = Edge::serving(&origin).start().await;
    preflight(&edge, "https://app.test", "PUT").send().await.expect(200);
    assert_eq!(origin.last("/a").method, "OPTIONS");
    edge.finish().await;
}
