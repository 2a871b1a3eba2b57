//! What lies in `deploy/` fits together: every file that is mounted is there, every configuration passes, every metric shown exists.

#![cfg(feature = "server")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml::{Mapping, Value};
use vanne::observe::names;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &Path) -> Value {
    let mut value: Value =
        serde_yaml::from_str(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    value.apply_merge().expect("merges of mappings");
    value
}

fn compose() -> Value {
    yaml(&folder().join("compose.yaml"))
}

fn services(compose: &Value) -> &Mapping {
    compose["services"].as_mapping().expect("services")
}

fn named<'c>(compose: &'c Value, prefix: &str) -> Vec<(&'c str, &'c Value)> {
    let all = services(compose).iter().filter_map(|(name, service)| Some((name.as_str()?, service)));
    all.filter(|(name, _)| name.starts_with(prefix)).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_sequence().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a service mounts from here: the file and where it is seen.
fn mounts(service: &Value) -> Vec<(PathBuf, String)> {
    let bound = texts(&service["volumes"]).into_iter().filter(|volume| volume.starts_with("./"));
    bound
        .map(|volume| {
            let mut parts = volume.split(':');
            let (from, to) = (parts.next().unwrap(), parts.next().expect("a place in the container"));
            assert_eq!(parts.next(), Some("ro"), "{volume} could be changed from within");
            (folder().join(from), to.to_owned())
        })
        .collect()
}

#[test]
fn everything_that_is_mounted_is_there() {
    let compose = compose();
    let mut count = 0;
    for (name, service) in named(&compose, "") {
        for (from, _) in mounts(service) {
            assert!(from.exists(), "{name} mounts {}, which is not there", from.display());
            count += 1;
        }
        for network in texts(&service["networks"]) {
            assert!(compose["networks"].get(network).is_some(), "{name} is in no network {network}");
        }
        for volume in texts(&service["volumes"]).into_iter().filter(|volume| !volume.starts_with("./")) {
            let volume = volume.split(':').next().unwrap();
            assert!(compose["volumes"].get(volume).is_some(), "{name} mounts no volume {volume}");
        }
    }
    assert!(count >= 8, "only {count} files are mounted");
}

#[test]
fn each_gateway_s_configuration_passes_and_names_what_is_there() {
    let compose = compose();
    let gateways = named(&compose, "gateway-");
    assert_eq!(gateways.len(), 2);
    let instances: BTreeSet<String> =
        named(&compose, "instance-").iter().map(|(name, _)| format!("{name}:8000")).collect();
    assert_eq!(instances.len(), 3);
    for (name, service) in gateways {
        let (file, _) = mounts(service)
            .into_iter()
            .find(|(_, to)| to == "/etc/vanne/vanne.toml")
            .unwrap_or_else(|| panic!("{name} has no configuration"));
        let mut check = Command::new(env!("CARGO_BIN_EXE_vanne"));
        check.args(["check", "-c"]).arg(&file);
        for (variable, value) in service["environment"].as_mapping().expect("an environment") {
            let value = value.as_str().unwrap_or_default();
            let value = if value.starts_with("${") { "" } else { value };
            check.env(variable.as_str().unwrap(), value);
        }
        let told = check.output().expect("vanne runs");
        assert!(told.status.success(), "{name}: {}", String::from_utf8_lossy(&told.stderr));
        let plan: toml::Table = read(&file).parse().unwrap();
        let servers = plan["upstreams"]["api"]["servers"].as_array().unwrap();
        let servers: BTreeSet<String> = servers.iter().map(|s| s.as_str().unwrap().to_owned()).collect();
        assert_eq!(servers, instances);
        assert!(
            read(&file).contains("redis://redis:6379")
                && service["environment"]["REDIS_URL"] == "redis://redis:6379"
        );
    }
}

#[test]
fn redis_is_kept_private_bounded_and_over_a_restart() {
    let compose = compose();
    let redis = &compose["services"]["redis"];
    let command = texts(&redis["command"]).join(" ");
    for setting in ["--appendonly yes", "--maxmemory 512mb", "--maxmemory-policy volatile-lfu"] {
        assert!(command.contains(setting), "{setting} in {command}");
    }
    assert!(redis.get("ports").is_none(), "it is published");
    assert_eq!(texts(&redis["networks"]), ["backend"]);
    assert_eq!(compose["networks"]["backend"]["internal"], true);
    assert!(redis["healthcheck"]["test"].is_sequence());
    assert!(texts(&redis["volumes"]).iter().any(|volume| volume.ends_with(":/data")));
    for (name, gateway) in named(&compose, "gateway-") {
        assert!(texts(&gateway["ports"]).iter().all(|port| port.ends_with(":8080")), "{name} publishes more");
    }
}

#[test]
fn prometheus_asks_every_gateway_and_grafana_shows_what_there_is() {
    let compose = compose();
    let scraped = yaml(&folder().join("compose/prometheus.yml"));
    let targets = texts(&scraped["scrape_configs"][0]["static_configs"][0]["targets"]);
    let gateways: Vec<String> =
        named(&compose, "gateway-").iter().map(|(name, _)| format!("{name}:9180")).collect();
    assert_eq!(targets, gateways);
    let source = yaml(&folder().join("compose/grafana/provisioning/datasources/prometheus.yaml"));
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let dashboard = read(&folder().join("compose/grafana/dashboards/vanne.json"));
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).expect("a dashboard in JSON");
    let uid = source["datasources"][0]["uid"].as_str().unwrap();
    let mut shown = BTreeSet::new();
    for panel in parsed["panels"].as_array().expect("panels") {
        assert_eq!(panel["datasource"]["uid"], uid);
        for target in panel["targets"].as_array().expect("targets") {
            let words =
                target["expr"].as_str().unwrap().split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            shown.extend(words.filter(|word| word.starts_with("vanne_")).map(str::to_owned));
        }
    }
    assert!(shown.len() > 10, "{shown:?}");
    for metric in shown {
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
        let known = |name: &str| names::ALL.iter().any(|metric| metric.name == name);
        assert!(known(&metric) || bare.is_some_and(known), "no metric {metric}");
    }
}
