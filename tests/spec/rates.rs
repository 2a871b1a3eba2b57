//! How often a client may ask, by itself and as one of a fleet.

use crate::edge::{Configuration, Edge};
use crate::support::client::{Answer, Client};
use crate::support::fake_redis::{FakeRedis, Mode};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::Program;
use crate::support::redis::Redis;
use crate::support::{free_address, poll_until};

const CACHED: &str = "[[routes]]\nname = \"all\"\nupstream = \"api\"\ncache = \"api\"\n";
const PASSED: &str = "[[routes]]\nname = \"all\"\nupstream = \"api\"\n";

async fn origin() -> Origin {
    Origin::new()
        .on("/private/*", reply(200).cache("no-store").body("private"))
        .on("*", reply(200).cache("max-age=1000").body("shared"))
        .start()
        .await
}

/// A gateway whose one route has these limits.
fn limited(origin: &Origin, route: &str, names: &str, tables: &str) -> Configuration {
    Edge::serving(origin).routes(&format!("{route}limits = [{names}]")).also(tables)
}

/// Statuses of as many requests, one after another.
async fn statuses(edge: &Edge, target: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(edge.get(target).await.status);
    }
    statuses
}

fn seconds(answer: &Answer, name: &str) -> u64 {
    answer.header(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let origin = origin().await;
    let edge = limited(&origin, PASSED, "\"each\"", "[limits.each]\nrate = \"3/h\"").start().await;
    for left in ["2", "1", "0"] {
        let answer = edge.get("/").await.expect(200).with("ratelimit-policy", "\"each\";q=3;w=3600");
        let told = answer.header("ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"each\";r={left};t=")), "{told}");
    }
    let refused = edge.get("/").await.expect(429);
    assert!((1100..=1200).contains(&seconds(&refused, "retry-after")), "{:?}", refused.header("retry-after"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"each\";r=0;t="));
    assert!(refused.text().contains("\"code\":\"rate-limited\""), "{}", refused.text());
    assert_eq!(origin.requests().len(), 3, "what is refused reaches no instance");
    assert_eq!(edge.metric("vanne_limit_refused_total{limit=\"each\",reason=\"rate\"}"), Some(1.0));
    assert_eq!(edge.metric("vanne_denied_total{reason=\"rate-limited\",route=\"all\"}"), Some(1.0));
    edge.finish().await;
}

#[tokio::test]
async fn answers_from_memory_count_as_well() {
    let origin = origin().await;
    for long_way in [false, true] {
        let edge = limited(&origin, CACHED, "\"each\"", "[limits.each]\nrate = \"4/h\"").start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        assert_eq!(statuses(&edge, "/a", 6).await, [200, 200, 200, 200, 429, 429], "long way: {long_way}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn answers_from_storage_are_free_where_the_operator_says_so_and_what_must_be_fetched_is_not() {
    let origin = origin().await;
    for long_way in [false, true] {
        let tables = "[limits.fetches]\nrate = \"2/h\"\nhits = \"free\"";
        let edge = limited(&origin, CACHED, "\"fetches\"", tables).start().await;
        if long_way {
            edge.send_hits_the_long_way();
        }
        assert_eq!(statuses(&edge, "/a", 5).await, [200; 5], "long way: {long_way}");
        assert_eq!(statuses(&edge, "/private/b", 3).await, [200, 429, 429]);
        assert_eq!(statuses(&edge, "/a", 2).await, [200; 2]);
        edge.request("POST", "/c").body("x").send().await.expect(429);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_burst_is_let_through_and_the_rate_holds_afterwards() {
    let origin = origin().await;
    let tables = "[limits.each]\nrate = \"1/h\"\nburst = 3";
    let edge = limited(&origin, PASSED, "\"each\"", tables).start().await;
    assert_eq!(statuses(&edge, "/", 4).await, [200, 200, 200, 429]);
    edge.finish().await;
}

#[tokio::test]
async fn a_rate_lets_again_through_when_its_time_has_passed() {
    let origin = origin().await;
    let tables = "[limits.each]\nrate = \"5/s\"\nburst = 1";
    let edge = limited(&origin, PASSED, "\"each\"", tables).start().await;
    edge.get("/").await.expect(200);
    poll_until("the next to be let through", || async { edge.get("/").await.status == 200 }).await;
    edge.finish().await;
}

#[tokio::test]
async fn clients_are_told_apart_by_field_cookie_token_or_not_at_all() {
    let origin = origin().await;
    for (key, name, first, second, apart) in [
        ("header:X-Api-Key", "X-Api-Key", "one", "two", true),
        ("cookie:session", "Cookie", "a=1; session=one", "a=1; session=two", true),
        ("cookie:session", "Cookie", "a=1; session=one", "a=2; session=one", false),
        ("token", "Authorization", "Bearer one", "Bearer two", true),
        ("all", "X-Api-Key", "one", "two", false),
        ("address", "X-Api-Key", "one", "two", false),
        ("address", "X-Forwarded-For", "192.0.2.1", "192.0.2.2", false),
    ] {
        let tables = format!("[limits.each]\nrate = \"1/h\"\nkey = \"{key}\"");
        let edge = limited(&origin, PASSED, "\"each\"", &tables).start().await;
        edge.request("GET", "/").header(name, first).send().await.expect(200);
        edge.request("GET", "/").header(name, first).send().await.expect(429);
        let other = edge.request("GET", "/").header(name, second).send().await.status;
        assert_eq!(other, if apart { 200 } else { 429 }, "{key} {second}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_its_clients_are_told_apart() {
    let origin = origin().await;
    let edge = limited(&origin, PASSED, "\"each\"", "[limits.each]\nrate = \"1/h\"")
        .also("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .start()
        .await;
    let ask = |client: &str| edge.request("GET", "/").header("X-Forwarded-For", client);
    ask("192.0.2.1").send().await.expect(200);
    ask("192.0.2.1").send().await.expect(429);
    ask("192.0.2.2").send().await.expect(200);
    ask("2001:db8::1").send().await.expect(200);
    ask("2001:db8::ffff:2").send().await.expect(429);
    ask("2001:db8:0:1::1").send().await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn what_one_limit_refuses_takes_nothing_from_the_others() {
    let origin = origin().await;
    let tables =
        "[limits.each]\nrate = \"1/h\"\nkey = \"header:X-Key\"\n[limits.all]\nrate = \"3/h\"\nkey = \"all\"";
    for names in ["\"each\", \"all\"", "\"all\", \"each\""] {
        for route in [PASSED, CACHED] {
            let edge = limited(&origin, route, names, tables).start().await;
            let ask = |key: &'static str| edge.request("GET", "/a").header("X-Key", key);
            ask("one").send().await.expect(200);
            for _ in 0..5 {
                ask("one").send().await.expect(429);
            }
            let both = ask("two").send().await.expect(200);
            assert_eq!(both.headers("ratelimit").len(), 2, "{names}");
            ask("three").send().await.expect(200);
            ask("four").send().await.expect(429);
            edge.finish().await;
        }
    }
}

#[tokio::test]
async fn a_client_has_so_many_requests_in_flight_and_its_place_back_when_one_ends() {
    let gate = Gate::new("the slow answer");
    let origin = Origin::new()
        .on("/slow", reply(200).gate(&gate).body("slow"))
        .on("*", reply(200).body("fast"))
        .start()
        .await;
    let tables = "[limits.each]\nin_flight = 1\nkey = \"header:X-Key\"\nstatus = 503";
    let edge = limited(&origin, PASSED, "\"each\"", tables).start().await;
    let slow = tokio::spawn(edge.request("GET", "/slow").header("X-Key", "one").send());
    gate.arrived(1).await;
    let refused = edge.request("GET", "/").header("X-Key", "one").send().await.expect(503);
    assert!(refused.text().contains("too-many-in-flight"));
    assert_eq!(seconds(&refused, "retry-after"), 1);
    edge.request("GET", "/").header("X-Key", "two").send().await.expect(200);
    gate.release();
    slow.await.unwrap().expect(200).body("slow");
    poll_until("the place to be free", || async {
        edge.request("GET", "/").header("X-Key", "one").send().await.status == 200
    })
    .await;
    edge.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let gate = Gate::new("the slow answer");
    let origin =
        Origin::new().on("/slow", reply(200).gate(&gate).body("slow")).on("*", reply(200)).start().await;
    let edge = limited(&origin, PASSED, "\"each\"", "[limits.each]\nin_flight = 1").start().await;
    let mut leaving = edge.client.connect().await;
    leaving.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gate.arrived(1).await;
    edge.get("/").await.expect(429);
    leaving.reset();
    poll_until("the place to be free", || async { edge.get("/").await.status == 200 }).await;
    gate.release();
    edge.finish().await;
}

#[tokio::test]
async fn what_is_told_of_a_limit_is_the_operators_choice() {
    let origin = origin().await;
    for (tell, passing, refusing) in
        [("always", true, true), ("refused", false, true), ("never", false, false)]
    {
        let tables = format!("[limits.each]\nrate = \"1/h\"\ntell = \"{tell}\"");
        let edge = limited(&origin, PASSED, "\"each\"", &tables).start().await;
        let told = |answer: Answer| answer.header("ratelimit").is_some();
        assert_eq!(told(edge.get("/").await.expect(200)), passing, "{tell}");
        let refused = edge.get("/").await.expect(429);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(told(refused), refusing, "{tell}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn what_is_stored_never_tells_another_clients_limit() {
    let origin = Origin::new()
        .on("*", reply(200).cache("max-age=1000").header("RateLimit", "\"theirs\";r=1;t=1").body("x"))
        .start()
        .await;
    let edge = limited(&origin, CACHED, "\"each\"", "[limits.each]\nrate = \"9/h\"").start().await;
    for left in [8, 7, 6] {
        let answer = edge.get("/").await.expect(200);
        assert_eq!(answer.headers("ratelimit").len(), 1);
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"each\";r={left};")));
    }
    edge.finish().await;
}

const FLEET: &str = "[limits.each]\nrate = \"3/h\"\nscope = \"fleet\"\n";

#[tokio::test]
async fn gateways_that_share_a_redis_count_together() {
    let redis = Redis::start().await;
    let origin = origin().await;
    for route in [PASSED, CACHED] {
        redis.flush().await;
        let start = || limited(&origin, route, "\"each\"", FLEET).redis(&redis.url()).start_with_redis();
        let (one, two) = (start().await, start().await);
        one.get("/").await.expect(200);
        let second = two.get("/").await.expect(200);
        assert!(
            second.header("ratelimit").unwrap().starts_with("\"each\";r=1;"),
            "{:?}",
            second.header("ratelimit")
        );
        one.get("/").await.expect(200);
        let refused = two.get("/").await.expect(429);
        assert!((1100..=1200).contains(&seconds(&refused, "retry-after")), "{route}");
        one.get("/").await.expect(429);
        let keys = redis.keys("*:limit:*").await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        let ttl = redis.ttl_ms(&keys[0]).await;
        assert!((1..=3_600_000).contains(&ttl), "it is forgotten when it is full again: {ttl}");
        assert!(!keys[0].contains("127.0.0.1"), "a client's key is a hash: {keys:?}");
        one.finish().await;
        two.finish().await;
    }
}

#[tokio::test]
async fn without_redis_the_operator_chooses_who_counts() {
    let origin = origin().await;
    for (choice, statuses_then) in
        [("local", vec![200, 200, 200, 429]), ("allow", vec![200; 4]), ("refuse", vec![503; 4])]
    {
        let redis = FakeRedis::start().await;
        let tables = format!("{FLEET}without_redis = \"{choice}\"");
        let edge = limited(&origin, PASSED, "\"each\"", &tables).redis(&redis.url()).start_with_redis().await;
        redis.stop().await;
        assert_eq!(statuses(&edge, "/", 4).await, statuses_then, "{choice}");
        assert_eq!(edge.metric("vanne_limit_uncounted_total{limit=\"each\"}"), Some(4.0), "{choice}");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_redis_that_hangs_or_answers_nonsense_costs_no_more_than_its_budget() {
    let origin = origin().await;
    let redis = FakeRedis::start().await;
    let edge = limited(&origin, PASSED, "\"each\"", FLEET)
        .redis_within(&redis.url(), "100ms")
        .start_with_redis()
        .await;
    redis.set(Mode::Hang);
    assert_eq!(statuses(&edge, "/", 4).await, [200, 200, 200, 429], "each gateway counts for itself");
    edge.finish().await;
}

#[tokio::test]
async fn a_limit_of_no_route_limits_nothing_and_other_routes_are_free() {
    let origin = origin().await;
    let edge = Edge::serving(&origin)
        .routes(
            "[[routes]]\nmatch = { path = \"/a\" }\nupstream = \"api\"\nlimits = [\"each\"]\n\
             [[routes]]\nupstream = \"api\"",
        )
        .also("[limits.each]\nrate = \"1/h\"\n[limits.unused]\nrate = \"1/d\"")
        .start()
        .await;
    assert_eq!(statuses(&edge, "/a", 2).await, [200, 429]);
    assert_eq!(statuses(&edge, "/b", 3).await, [200; 3]);
    edge.finish().await;
}

#[tokio::test]
async fn a_reload_goes_on_counting() {
    let origin = origin().await;
    let (web, admin) = (free_address(), free_address());
    let file = |rate: &str, secret: &str| {
        format!(
            "[listen.web]\naddr = \"{web}\"\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n\
             [upstreams.api]\nservers = [\"{}\"]\n[limits.each]\nrate = \"{rate}\"\n\
             [[routes]]\nupstream = \"api\"\nlimits = [\"each\"]\n\
             request_headers = {{ set = {{ X-Token = \"{secret}\" }} }}\n",
            origin.address()
        )
    };
    let process = Program::gateway(&file("3/h", "one")).ready_at(admin).start().await;
    let client = Client::new(web);
    client.get("/").send().await.expect(200);
    client.get("/").send().await.expect(200);
    for (secret, changes) in [("one", 1), ("two", 1)] {
        std::fs::write(process.folder().join("vanne.toml"), file("4/h", secret)).unwrap();
        process.signal("HUP");
        let what = if secret == "one" { "limit each: changed" } else { "route /*: changed" };
        process.wait_for_stderr(what).await;
        process.wait_for_stderr(&format!("reloaded changes={changes}")).await;
    }
    client.get("/").send().await.expect(200);
    assert_eq!(origin.last("/").header("x-token"), Some("two"));
    client.get("/").send().await.expect(429);
    assert!(!process.stderr().contains("two\""), "a secret that changed is not told");
}
