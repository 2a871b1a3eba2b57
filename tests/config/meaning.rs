//! What right files mean.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use vanne::balance::check::Expected;
use vanne::config::{Overrides, Source, load};
use vanne::plan::{AccessLog, Action, HealthCheck, LogFormat, Plan};

const UPSTREAM: &str = "[upstreams.api]\nservers = [\"127.0.0.1:8001\"]\n";
const ROUTE: &str = "[[routes]]\nupstream = \"api\"\n";

fn plan(text: &str, env: &[(&str, &str)], flags: &Overrides) -> Plan {
    let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    match load(&Source { name: "vanne.toml".into(), text: text.to_owned() }, &env, flags) {
        Ok(plan) => plan,
        Err(problems) => panic!("{problems}"),
    }
}

fn small(more: &str, env: &[(&str, &str)]) -> Plan {
    plan(&format!("{more}\n{UPSTREAM}{ROUTE}"), env, &Overrides::default())
}

#[test]
fn without_a_listener_one_named_web_listens_on_8080() {
    let plan = small("", &[]);
    assert_eq!(plan.listeners.len(), 1);
    assert_eq!(plan.listeners[0].name.as_str(), "web");
    assert_eq!(plan.listeners[0].addr, "0.0.0.0:8080".parse::<SocketAddr>().unwrap());
    assert!(plan.redis.is_none());
    assert!(plan.server.threads >= 1);
}

#[test]
fn a_flag_comes_before_the_environment_before_the_file_before_the_default() {
    let file = "[listen.web]\naddr = \":1\"\n[redis]\nurl = \"redis://file\"\n[log]\nlevel = \"error\"\nformat = \"text\"\n\
                [caches.a]\nttl = \"1s\"\n[caches.b]\n";
    let env = [
        ("LISTEN", ":2"),
        ("REDIS_URL", "redis://env"),
        ("CACHE_TTL", "2s"),
        ("LOG_LEVEL", "warn"),
        ("RUST_LOG", "trace"),
        ("LOG_FORMAT", "json"),
    ];
    let flags = Overrides {
        listen: Some(":3".into()),
        redis_url: Some("redis://flag".into()),
        cache_ttl: Some("3s".into()),
        log_level: Some("debug".into()),
        log_format: Some("text".into()),
    };
    let none = Overrides::default();
    let text = format!("{file}{UPSTREAM}{ROUTE}");
    let facts = |plan: Plan| {
        let ttls: Vec<_> = plan.caches.iter().map(|c| c.rules.ttl.map(|ttl| ttl.as_secs())).collect();
        let url = plan.redis.map(|redis| redis.url);
        (plan.listeners[0].addr.port(), url, ttls, plan.log.level, plan.log.format)
    };
    let url = |name: &str| Some(format!("redis://{name}"));
    let from_file = (1, url("file"), vec![Some(1), None], "error".into(), LogFormat::Text);
    assert_eq!(facts(plan(&text, &[], &none)), from_file);
    let from_env = (2, url("env"), vec![Some(2), Some(2)], "warn".into(), LogFormat::Json);
    assert_eq!(facts(plan(&text, &env, &none)), from_env);
    let from_flags = (3, url("flag"), vec![Some(3), Some(3)], "debug".into(), LogFormat::Text);
    assert_eq!(facts(plan(&text, &env, &flags)), from_flags);
    let empty = env.map(|(name, _)| (name, ""));
    assert_eq!(facts(plan(&text, &empty, &none)), from_file, "an empty variable counts as not set");
    assert_eq!(small("", &[("RUST_LOG", "trace")]).log.level, "trace");
}

#[test]
fn listen_means_the_only_listener_or_the_one_named_web() {
    let ports = |plan: Plan| plan.listeners.iter().map(|l| l.addr.port()).collect::<Vec<_>>();
    assert_eq!(ports(small("[listen.public]\naddr = \":1\"", &[("LISTEN", ":9")])), [9]);
    let two = "[listen.other]\naddr = \":1\"\n[listen.web]\naddr = \":2\"";
    assert_eq!(ports(small(two, &[("LISTEN", ":9")])), [1, 9]);
    assert_eq!(ports(small("", &[("LISTEN", ":9")])), [9]);
}

#[test]
fn variables_stand_in_texts_lists_and_for_numbers() {
    let plan = plan(
        "[server]\nthreads = \"${N}\"\ntrusted_proxies = [\"${NET:-10.0.0.0/8}\"]\n[log]\naccess = \"${DIR}/$$a.log\"\n\
         [upstreams.api]\nservers = [\"${HOST}:8001\"]\ntries = \"${TRIES:-4}\"\n[caches.c]\nheuristic = \"${H:-false}\"\n\
         [[routes]]\nupstream = \"${WHO:-api}\"\n",
        &[("N", "6"), ("DIR", "/logs"), ("HOST", "api-1")],
        &Overrides::default(),
    );
    assert_eq!(plan.server.threads, 6);
    assert_eq!(plan.server.trusted_proxies.networks[0].to_string(), "10.0.0.0/8");
    assert_eq!(plan.log.access, AccessLog::File("/logs/$a.log".into()));
    assert_eq!(plan.upstreams[0].servers[0].addr, "api-1:8001");
    assert_eq!(plan.upstreams[0].trying.tries, Some(4));
    assert!(!plan.caches[0].rules.heuristic);
}

#[test]
fn a_variable_cannot_add_a_key() {
    let plan = small("[server]\nname = \"${NAME}\"", &[("NAME", "edge"), ("LISTEN", "")]);
    assert_eq!(plan.server.name, "edge");
    let text = format!("[server]\nname = \"${{NAME}}\"\n{UPSTREAM}{ROUTE}");
    let env: HashMap<String, String> = [("NAME".into(), "x\"\nthreads = 3 #".into())].into();
    let loaded = load(&Source { name: "f".into(), text }, &env, &Overrides::default());
    assert!(loaded.is_err_and(|problems| problems.list().len() == 1));
}

#[test]
fn tables_keep_the_order_of_the_file_and_names_become_positions() {
    let plan = plan(
        "[upstreams.z]\nservers = [\"z:1\"]\n[upstreams.a]\nservers = [\"a:1\"]\n[caches.y]\n[caches.b]\n\
         [[routes]]\nupstream = \"a\"\ncache = \"b\"\n[[routes]]\nmatch = { path = \"/z\" }\nupstream = \"z\"\n",
        &[],
        &Overrides::default(),
    );
    assert_eq!(plan.upstreams.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert!(matches!(plan.routes[0].action, Action::Forward { upstream: 1, cache: Some(1) }));
    assert!(matches!(plan.routes[1].action, Action::Forward { upstream: 0, cache: None }));
    assert_eq!(plan.table.find("h", "/z", &http::Method::GET), Some(1));
    assert_eq!(plan.table.find("h", "/y", &http::Method::GET), Some(0));
}

#[test]
fn a_route_without_a_name_gets_one_from_its_match() {
    let plan = plan(
        &format!(
            "{UPSTREAM}\
             [[routes]]\nmatch = {{ host = \"api.example.com\", path = \"/query\", method = \"GET\" }}\nupstream = \"api\"\n\
             [[routes]]\nmatch = {{ path = \"/a\", method = [\"POST\", \"PUT\"] }}\nupstream = \"api\"\n\
             [[routes]]\nname = \"/b\"\nmatch = {{ path = \"/c\" }}\nupstream = \"api\"\n\
             [[routes]]\nmatch = {{ path = \"/b\" }}\nupstream = \"api\"\n\
             {ROUTE}"
        ),
        &[],
        &Overrides::default(),
    );
    let names: Vec<_> = plan.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["GET api.example.com/query", "POST,PUT /a", "/b", "/b #2", "/*"]);
}

#[test]
fn the_narrowest_range_of_statuses_comes_first() {
    let plan = small(
        "[caches.c]\nttl_by_status = { \"400-499\" = \"5s\", 404 = \"10s\", \"500-503\" = \"1s\" }",
        &[],
    );
    let ranges: Vec<_> = plan.caches[0].rules.ttl_by_status.iter().map(|(range, _)| *range).collect();
    assert_eq!(ranges, [(404, 404), (500, 503), (400, 499)]);
}

#[test]
fn health_checks_ask_what_is_written() {
    let health = |written: &str| {
        let text = format!("{UPSTREAM}health = {written}\n{ROUTE}");
        plan(&text, &[], &Overrides::default()).upstreams[0].health.clone()
    };
    assert_eq!(health("\"off\""), None);
    let tcp = health("{ type = \"tcp\", every = \"9s\" }").unwrap();
    assert_eq!((tcp.check, tcp.every, tcp.fall, tcp.rise), (HealthCheck::Tcp, Duration::from_secs(9), 3, 2));
    let http = health("{ path = \"/ready\", expect = [200, \"300-301\"] }").unwrap();
    let expected =
        Expected { status: vec![(200, 200), (300, 301)], withdraw: vec![(503, 503)], ..Expected::default() };
    assert_eq!(http.check, HealthCheck::Http { path: "/ready".into(), host: None, expected });
    assert_eq!(http.every_down, http.every, "not written, it is `every`");
    let grpc = health("{ type = \"grpc\", service = \"api.v1\", every_down = \"1s\" }").unwrap();
    assert_eq!(grpc.check, HealthCheck::Grpc { service: "api.v1".into(), host: None });
    assert_eq!(grpc.every_down, Duration::from_secs(1));
    let json = health("{ path = \"/\", json = { at = \"status\", is = \"ok\" } }").unwrap();
    let HealthCheck::Http { expected, .. } = json.check else { panic!("{json:?}") };
    let member = expected.member.unwrap();
    assert_eq!(
        (member.at.as_str(), member.is.as_str()),
        ("/status", "ok"),
        "a name is a pointer to a member"
    );
}
