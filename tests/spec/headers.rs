//! Fields that the operator sets, adds and removes, both ways.

use crate::edge::{Configuration, Edge};
use crate::support::origin::{Origin, Request, reply};

const CACHED: &str = "[[routes]]\nname = \"all\"\nupstream = \"api\"\ncache = \"api\"\n";
const PASSED: &str = "[[routes]]\nname = \"all\"\nupstream = \"api\"\n";

async fn origin() -> Origin {
    let own = |request: &Request| {
        let seen = ["x-tenant", "x-debug", "authorization", "x-forwarded-prefix", "x-more"]
            .map(|name| format!("{name}={}", request.headers(name).join("+")));
        reply(200)
            .cache("max-age=1000")
            .header("Server", "app/1.0")
            .header("X-Frame-Options", "DENY")
            .header("X-Own", "1")
            .body(seen.join(" "))
    };
    Origin::new().on_request("*", own).start().await
}

fn edited(origin: &Origin, route: &str, settings: &str) -> Configuration {
    Edge::serving(origin).routes(&format!("{route}{settings}\n"))
}

#[tokio::test]
async fn answers_are_edited_wherever_they_come_from() {
    let origin = origin().await;
    let edits = "response_headers = { remove = [\"Server\"], set = { X-Own = \"ours\", X-Where = \"{host}{path} by {route}\" }, add = { X-Own = \"more\" } }";
    for route in [PASSED, CACHED] {
        for long_way in [false, true] {
            let edge = edited(&origin, route, edits).start().await;
            if long_way {
                edge.send_hits_the_long_way();
            }
            for _ in 0..3 {
                let answer = edge.get("/a").await.expect(200);
                assert_eq!(answer.headers("x-own"), ["ours", "more"]);
                answer.with("x-where", "edge.test/a by all").without("server");
            }
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn what_the_gateway_answers_itself_is_edited_too() {
    let origin = origin().await;
    let edits = "response_headers = { set = { X-Id = \"{request_id}\" } }";
    let routes = format!(
        "[[routes]]\nmatch = {{ path = \"/here\" }}\nrespond = {{ body = \"ok\" }}\n{edits}\n[[routes]]\nupstream = \"api\"\n{edits}"
    );
    let edge = Edge::serving(&origin).without_cache().routes(&routes).start().await;
    let here = edge.get("/here").await.expect(200).body("ok");
    assert_eq!(here.header("x-id"), here.header("x-request-id"));
    origin.finish().await;
    let failed = edge.get("/gone").await.expect(502);
    assert_eq!(failed.header("x-id"), failed.header("x-request-id"));
    assert!(failed.header("x-id").is_some());
    edge.finish().await;
}

#[tokio::test]
async fn requests_are_edited_before_instances_see_them() {
    let origin = origin().await;
    let edits = "request_headers = { remove = [\"X-Debug\"], set = { X-Tenant = \"ours\", Authorization = \"Bearer ours\", X-Forwarded-Prefix = \"/api\" }, add = { X-More = \"2\" } }";
    let expected = "x-tenant=ours x-debug= authorization=Bearer ours x-forwarded-prefix=/api x-more=1+2";
    for route in [PASSED, CACHED] {
        let edge = edited(&origin, route, edits).start().await;
        for connection in ["keep-alive", "X-Tenant", "x-tenant, keep-alive, Authorization"] {
            let ask = edge.request("GET", "/a").header("X-Tenant", "theirs").header("X-Debug", "1");
            let ask = ask.header("Authorization", "Bearer theirs").header("X-More", "1");
            ask.header("Connection", connection).send().await.expect(200).body(expected);
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn credentials_of_the_operators_do_not_make_answers_private() {
    let origin = Origin::new().on("*", reply(200).cache("max-age=99").body("shared")).start().await;
    let edits = "request_headers = { set = { Authorization = \"Bearer ours\" } }";
    for long_way in [false, true] {
        let edge = edited(&origin, CACHED, edits).start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        edge.get("/a").await.expect(200).cache("fwd=uri-miss");
        edge.request("GET", "/a")
            .header("Authorization", "Bearer theirs")
            .send()
            .await
            .expect(200)
            .cache("hit");
        edge.finish().await;
    }
    assert!(origin.requests().iter().all(|request| request.headers("authorization") == ["Bearer ours"]));
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn what_a_client_sends_in_the_name_of_a_set_field_chooses_no_stored_answer() {
    let own = |request: &Request| {
        reply(200).cache("max-age=99").header("Vary", "X-Tenant").body(request.headers("x-tenant").join("+"))
    };
    let origin = Origin::new().on_request("*", own).start().await;
    for cache in ["", "key = { headers = [\"X-Tenant\"] }"] {
        for long_way in [false, true] {
            let before = origin.requests().len();
            let edits = "request_headers = { set = { X-Tenant = \"ours\" } }";
            let edge = edited(&origin, CACHED, edits).cache(cache).start().await;
            if long_way {
                edge.send_hits_the_long_way();
            }
            for tenant in ["a", "b", "ours", "a"] {
                edge.request("GET", "/a").header("X-Tenant", tenant).send().await.expect(200).body("ours");
            }
            assert_eq!(origin.requests().len() - before, 1, "{cache} {long_way}");
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn a_variable_never_ends_a_line() {
    let origin = origin().await;
    let edits = "response_headers = { set = { X-Where = \"{scheme} {method} {host} {path} {client_ip}\" } }";
    let edge = edited(&origin, PASSED, edits).start().await;
    for target in ["/a%0d%0aX-Injected:%201", "/a%0aSet-Cookie:%20a=b", "/%0d%0a%0d%0a<script>"] {
        let answer = edge.get(target).await;
        if answer.status == 200 {
            let told = answer.header("x-where").unwrap().to_owned();
            assert!(told.starts_with("http GET edge.test /") && told.ends_with(" 127.0.0.1"), "{told}");
        }
        answer.without("x-injected").without("set-cookie");
    }
    edge.finish().await;
}

#[tokio::test]
async fn security_fields_stand_where_the_instance_says_nothing() {
    let origin = origin().await;
    for route in [PASSED, CACHED] {
        let edge = edited(&origin, route, "security_headers = {}")
            .also("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
            .start()
            .await;
        for _ in 0..2 {
            let answer = edge.get("/a").await.expect(200);
            assert_eq!(answer.headers("x-frame-options"), ["DENY"], "the instance's own word stands");
            answer
                .with("x-content-type-options", "nosniff")
                .with("referrer-policy", "strict-origin-when-cross-origin")
                .without("strict-transport-security")
                .without("content-security-policy");
            let secure =
                edge.request("GET", "/a").header("X-Forwarded-Proto", "https").send().await.expect(200);
            secure.with("strict-transport-security", "max-age=31536000");
        }
        edge.finish().await;
    }
    let by_hand = "security_headers = { hsts = \"30d\", hsts_subdomains = true, hsts_preload = true, nosniff = false, \
                   referrer_policy = \"no-referrer\", frame = \"off\", content_security_policy = \"default-src 'self'\", \
                   permissions_policy = \"geolocation=()\", opener_policy = \"same-origin\" }";
    let edge =
        edited(&origin, PASSED, by_hand).also("[server]\ntrusted_proxies = [\"127.0.0.1\"]").start().await;
    edge.request("GET", "/a")
        .header("X-Forwarded-Proto", "https")
        .send()
        .await
        .expect(200)
        .with("strict-transport-security", "max-age=2592000; includeSubDomains; preload")
        .with("referrer-policy", "no-referrer")
        .with("content-security-policy", "default-src 'self'")
        .with("permissions-policy", "geolocation=()")
        .with("cross-origin-opener-policy", "same-origin")
        .without("x-content-type-options");
    edge.finish().await;
}

#[tokio::test]
async fn a_switch_of_protocols_and_interim_answers_are_left_alone() {
    let origin = Origin::new()
        .on("*", reply(200).after_informational(103, &[("Link", "</a>")]).body("x"))
        .start()
        .await;
    let edge = edited(&origin, PASSED, "security_headers = {}").start().await;
    let mut connection = edge.client.connect().await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let interim = String::from_utf8(connection.read_until("\r\n\r\n").await).unwrap();
    assert!(interim.starts_with("HTTP/1.1 103 "), "{interim}");
    assert!(!interim.to_lowercase().contains("nosniff"), "{interim}");
    let answer = String::from_utf8(connection.read_until("\r\n\r\n").await).unwrap();
    assert!(answer.to_lowercase().contains("nosniff"), "{answer}");
    edge.finish().await;
}

#[tokio::test]
async fn secrets_come_from_files() {
    let origin = origin().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret-token\n").unwrap();
    let edits = format!(
        "request_headers = {{ set = {{ Authorization = \"Bearer ${{file:{}}}\" }} }}",
        file.display()
    );
    let edge = edited(&origin, PASSED, &edits).start().await;
    edge.get("/a").await.expect(200);
    assert_eq!(origin.last("/a").header("authorization"), Some("Bearer s3cret-token"));
    assert!(!edge.metrics().contains("s3cret"));
    edge.finish().await;
}
