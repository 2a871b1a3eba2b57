//! Every key of the reference does something.

use toml::{Table, Value};

use super::load_text;

/// A file in which every table stands, for a key to be changed in.
const BASE: &str = r#"
[server]
[listen.web]
[listen.web.tls]
certificates = [{ cert = "base.pem", key = "base.key" }]
client_ca = "base-ca.pem"
[listen.web.tls.hsts]
[listen.web.http2]
[listen.web.purge]
allow = ["192.0.2.1"]
[admin]
[log]
[redis]
[upstreams.api]
servers = ["127.0.0.1:8009"]
[upstreams.api.health]
path = "/base"
[upstreams.api.pool]
[upstreams.api.pool.capacity]
[upstreams.api.tls]
sni = "base.internal"
cert = "base.pem"
key = "base.key"
[upstreams.api.sticky]
[upstreams.api.eject]
[upstreams.api.retry_budget]
[upstreams.api.breaker]
[caches.api]
ttl = "5m"
[caches.api.key]
[caches.api.bypass]
[limits.api]
rate = "1/s"
[access.api]
allow = ["10.0.0.0/8"]
[auth.api]
users = ["bob:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"]
[cors.api]
origins = ["https://one.test"]
[caches.api.vary]
[[routes]]
upstream = "other"
access = "api"
cors = "api"
[routes.security_headers]
[routes.request_headers]
[routes.response_headers]
[routes.match]
path = "/*"
"#;

/// A key of the schema: the path of its table, its name, and another right value.
struct Key {
    path: Vec<String>,
    name: String,
    example: Value,
}

fn keys_of_the_schema() -> Vec<Key> {
    let schema: serde_json::Value = serde_json::from_str(&vanne::config::schema()).unwrap();
    let mut keys = Vec::new();
    walk(&schema, &mut Vec::new(), &mut keys);
    keys
}

fn walk(schema: &serde_json::Value, path: &mut Vec<String>, keys: &mut Vec<Key>) {
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    for schema in std::iter::once(schema).chain(alternatives) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let example = Value::try_from(&inner["examples"][0]);
            let example = example.unwrap_or_else(|_| panic!("{}.{name} has no example", path.join(".")));
            let example = with_real_files(name, example);
            keys.push(Key { path: path.clone(), name: name.clone(), example });
            path.push(name.clone());
            walk(inner, path, keys);
            path.pop();
        }
        for inner in [&schema["additionalProperties"], &schema["items"]] {
            if inner.is_object() {
                walk(inner, path, keys);
            }
        }
    }
}

/// The example of a key that names files, with one that is there.
fn with_real_files(name: &str, example: Value) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    match name {
        "users_file" => Value::String(format!("{folder}/users.txt")),
        "allow_files" | "deny_files" => Value::Array(vec![Value::String(format!("{folder}/addresses.txt"))]),
        _ => example,
    }
}

/// What must make way for a key.
fn in_the_way_of(path: &[String], name: &str) -> &'static [&'static str] {
    match (path.join(".").as_str(), name) {
        ("upstreams.health", "type") => &["path"],
        ("listen", "https_port") => &["tls"],
        ("routes", "respond") => &["upstream", "request_headers"],
        ("routes", "files") => &["upstream"],
        ("routes.split.to", "header" | "cookie") => &["share"],
        ("caches.key.query", "only") => &["except"],
        _ => &[],
    }
}

/// The base with the tables in it that some keys stand in.
fn base_for(path: &[String], name: &str) -> Table {
    let mut base: Table = toml::from_str(BASE).unwrap();
    let second: Table = toml::from_str("ttl = \"5m\"").unwrap();
    let other: Table = toml::from_str("servers = [\"127.0.0.1:8010\"]").unwrap();
    let canary = other.clone();
    base["upstreams"].as_table_mut().unwrap().insert("other".into(), other.into());
    base["upstreams"].as_table_mut().unwrap().insert("canary".into(), canary.into());
    base["caches"].as_table_mut().unwrap().insert("second".into(), second.into());
    for (kind, other, text) in [
        ("limits", "each", "rate = \"2/s\""),
        ("limits", "all", "in_flight = 9"),
        ("access", "office", "allow = [\"192.0.2.0/24\"]"),
        ("auth", "staff", "users = [\"eve:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\"]"),
        ("cors", "web", "origins = \"https://two.test\""),
    ] {
        let table: Table = toml::from_str(text).unwrap();
        base[kind].as_table_mut().unwrap().insert(other.into(), table.into());
    }
    let route = base["routes"][0].as_table_mut().unwrap();
    match path.join(".").as_str() {
        "routes.respond" => {
            route.remove("upstream");
            route.remove("request_headers");
            route.insert("respond".into(), Table::new().into());
        }
        "routes.files" => {
            route.remove("upstream");
            route.insert("files".into(), toml::from_str::<Table>("root = \"site\"").unwrap().into());
        }
        "routes.cache_control" | "routes.compress" => {
            route.insert(path[1].clone(), Table::new().into());
        }
        "routes.cache_control.rules" => {
            let rules = "rules = [{ path = \"*.txt\", value = \"no-cache\" }]";
            route.insert("cache_control".into(), toml::from_str::<Table>(rules).unwrap().into());
        }
        // The lists of browsers take no name without those below it.
        "listen.tls.hsts" if name == "preload" => {
            let hsts = base["listen"]["web"]["tls"]["hsts"].as_table_mut().unwrap();
            hsts.insert("subdomains".into(), true.into());
        }
        "routes.replace_prefix" => {
            let replace: Table = toml::from_str("from = \"/api\"\nto = \"/v2\"").unwrap();
            route.insert("replace_prefix".into(), replace.into());
        }
        "upstreams.health" if name == "service" => {
            let grpc: Table = toml::from_str("type = \"grpc\"").unwrap();
            base["upstreams"]["api"].as_table_mut().unwrap().insert("health".into(), grpc.into());
        }
        "upstreams.health.tls" => {
            upstream_part(&mut base, "health").insert("tls".into(), Table::new().into());
        }
        "upstreams.health.json" => {
            let json: Table = toml::from_str("at = \"/up\"\nis = \"yes\"").unwrap();
            upstream_part(&mut base, "health").insert("json".into(), json.into());
        }
        "upstreams.balance" => {
            let way = if name == "decay" { "by = \"p2c\"" } else { "by = \"consistent_hash\"" };
            let way = if name == "by" { "by = \"random\"" } else { way };
            let balance: Table = toml::from_str(way).unwrap();
            base["upstreams"]["api"].as_table_mut().unwrap().insert("balance".into(), balance.into());
        }
        "upstreams.servers" => {
            let servers: Table = toml::from_str("servers = [{ addr = \"y:1\" }, \"x:1\"]").unwrap();
            base["upstreams"]["api"]["servers"] = servers["servers"].clone();
        }
        "routes.split" | "routes.split.to" => {
            let split: Table = toml::from_str("to = [{ upstream = \"api\", share = 10 }]").unwrap();
            route.insert("split".into(), split.into());
            route.insert("cache".into(), "second".into());
        }
        "routes.cache" | "routes.cache.key" | "routes.cache.store_when" => {
            let body = if name == "body" { "raw" } else { "json" };
            let text = match path.len() {
                2 => "use = \"second\"".to_owned(),
                _ => format!("use = \"second\"\nkey = {{ body = \"{body}\" }}\nstore_when = {{}}"),
            };
            let cache: Table = toml::from_str(&text).unwrap();
            route.insert("cache".into(), cache.into());
        }
        // Without an address, the other settings of Redis mean nothing yet.
        "redis.tls" => {
            let redis: Table =
                toml::from_str("url = \"rediss://h\"\ntls = { cert = \"/c.pem\", key = \"/c.key\" }")
                    .unwrap();
            base.insert("redis".into(), redis.into());
        }
        "redis" if name == "tls" => {
            base["redis"].as_table_mut().unwrap().insert("url".into(), "rediss://h".into());
        }
        "redis" if name != "url" => {
            base["redis"].as_table_mut().unwrap().insert("url".into(), "redis+unix:///redis.sock".into());
        }
        "limits" if name == "without_redis" => {
            base["redis"].as_table_mut().unwrap().insert("url".into(), "redis+unix:///redis.sock".into());
            base["limits"]["api"].as_table_mut().unwrap().insert("scope".into(), "fleet".into());
        }
        "limits" if name == "scope" => {
            base["redis"].as_table_mut().unwrap().insert("url".into(), "redis+unix:///redis.sock".into());
        }
        "caches.key.query" => {
            let key = base["caches"]["api"]["key"].as_table_mut().unwrap();
            let query: Table = toml::from_str("except = [\"utm_medium\"]").unwrap();
            key.insert("query".into(), query.into());
        }
        _ => {}
    }
    base
}

fn upstream_part<'t>(base: &'t mut Table, name: &str) -> &'t mut Table {
    base["upstreams"]["api"][name].as_table_mut().unwrap()
}

/// The table that a path leads to; names and positions on the way are those of the base.
fn table_at<'t>(root: &'t mut Table, path: &[String]) -> &'t mut Table {
    let mut here = root;
    for key in path {
        let mut value = &mut here[key.as_str()];
        if let Value::Array(list) = value {
            value = &mut list[0];
        }
        here = value.as_table_mut().unwrap();
        for name in if key == "listen" { ["web", "api"] } else { ["api", "web"] } {
            if matches!(
                key.as_str(),
                "listen" | "upstreams" | "caches" | "limits" | "access" | "auth" | "cors"
            ) && here.contains_key(name)
            {
                here = here[name].as_table_mut().unwrap();
                break;
            }
        }
    }
    here
}

fn shown(table: &Table) -> String {
    let text = toml::to_string(table).unwrap();
    match load_text(&text) {
        Ok(plan) => format!("{plan:?}"),
        Err(problems) => panic!("{problems}\nin\n{text}"),
    }
}

#[test]
fn every_key_changes_the_plan() {
    let keys = keys_of_the_schema();
    assert!(keys.len() > 60, "only {} keys", keys.len());
    // The tables of the whole file are changed by their own keys.
    for Key { path, name, example } in keys.iter().filter(|key| !key.path.is_empty()) {
        let before = base_for(path, name);
        let mut changed = before.clone();
        let table = table_at(&mut changed, path);
        for other in in_the_way_of(path, name) {
            table.remove(*other);
        }
        table.insert(name.clone(), example.clone());
        assert_ne!(shown(&before), shown(&changed), "{}.{name} = {example} changes nothing", path.join("."));
    }
}

#[test]
fn every_default_of_the_schema_is_the_default() {
    let schema: serde_json::Value = serde_json::from_str(&vanne::config::schema()).unwrap();
    let defaults = [
        ("/properties/server/properties/drain_timeout/default", "30s"),
        ("/properties/listen/additionalProperties/properties/idle_timeout/default", "75s"),
        ("/properties/upstreams/additionalProperties/properties/idle_timeout/default", "4s"),
        ("/properties/caches/additionalProperties/properties/memory/default", "256MiB"),
    ];
    for (pointer, expected) in defaults {
        assert_eq!(schema.pointer(pointer).and_then(|d| d.as_str()), Some(expected), "{pointer}");
    }
}

/// What is written in the reference and what is not written are the same: its defaults are the defaults.
#[test]
fn the_reference_says_what_an_unwritten_key_means() {
    let full: Table = toml::from_str(&vanne::config::reference()).unwrap();
    let mut sparse: Table =
        toml::from_str("[listen.web]\n[caches.api]\n[[routes]]\nupstream = \"api\"\n[upstreams.api]\n")
            .unwrap();
    let servers = full["upstreams"]["api"]["servers"].clone();
    sparse["upstreams"]["api"].as_table_mut().unwrap().insert("servers".into(), servers);
    assert_eq!(shown(&full), shown(&sparse));
}

/// Lines of the reference that are examples load, too, each on its own.
#[test]
fn every_example_of_the_reference_is_a_key_of_its_table() {
    let reference = vanne::config::reference();
    let examples = reference
        .lines()
        .filter(|line| line.starts_with('#') && !line.starts_with("# ") && !line.starts_with("#:"));
    let mut count = 0;
    for example in examples {
        count += 1;
        let text = &example[1..];
        assert!(text.parse::<Table>().is_ok(), "{text} is not TOML");
    }
    assert!(count > 10, "only {count} examples");
}
