//! Flags and environment variables that stand above the file.

use super::file::{File, ListenTable};
use super::kind::{Address, Named};
use super::problem::{Place, Problem, Spot};
use super::read::{Reader, Set, State};
use super::setting::Setting;
use super::variable::Env;

/// What the command line says; each comes before the environment variable, which comes before the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`, before `LISTEN`: the address of the only listener, or of the one named `web`.
    pub listen: Option<String>,
    /// `--redis-url`, before `REDIS_URL`.
    pub redis_url: Option<String>,
    /// `--cache-ttl`, before `CACHE_TTL`: the `ttl` of every cache.
    pub cache_ttl: Option<String>,
    /// `--log-level`, before `LOG_LEVEL`, before `RUST_LOG`.
    pub log_level: Option<String>,
    /// `--log-format`, before `LOG_FORMAT`.
    pub log_format: Option<String>,
}

/// Lays flags and environment over the file. An empty variable counts as not set: containers are often started with one.
pub fn apply(file: &mut File, env: &dyn Env, flags: &Overrides, reader: &mut Reader<'_>) {
    let variable = |name: &'static str| env.get(name).filter(|v| !v.is_empty()).map(|value| (name, value));
    let first = |flag: &'static str, given: &Option<String>, names: &[&'static str]| {
        let given = given.clone().map(|value| (flag, value));
        given.or_else(|| names.iter().find_map(|name| variable(name)))
    };
    if let Some((name, value)) = first("--listen", &flags.listen, &["LISTEN"]) {
        listen(file, name, value, reader);
    }
    if let (Some((name, value)), State::Is(redis)) =
        (first("--redis-url", &flags.redis_url, &["REDIS_URL"]), &mut file.redis.state)
    {
        replace(&mut redis.url, name, value, reader);
    }
    if let Some((name, value)) = first("--cache-ttl", &flags.cache_ttl, &["CACHE_TTL"]) {
        cache_ttl(file, name, value, reader);
    }
    if let State::Is(log) = &mut file.log.state {
        if let Some((name, value)) = first("--log-level", &flags.log_level, &["LOG_LEVEL", "RUST_LOG"]) {
            replace(&mut log.level, name, value, reader);
        }
        if let Some((name, value)) = first("--log-format", &flags.log_format, &["LOG_FORMAT"]) {
            replace(&mut log.format, name, value, reader);
        }
    }
}

fn replace<T: Setting>(set: &mut Set<T>, name: &'static str, value: String, reader: &mut Reader<'_>) {
    *set = Set::outside(name, value, reader);
}

/// Read once, so that a wrong value is one mistake however many caches there are.
fn cache_ttl(file: &mut File, name: &'static str, value: String, reader: &mut Reader<'_>) {
    let ttl = Set::outside(name, value, reader);
    if let State::Is(caches) = &mut file.caches.state {
        for (_, _, cache) in &mut caches.items {
            cache.ttl = ttl.clone();
        }
    }
}

fn listen(file: &mut File, name: &'static str, value: String, reader: &mut Reader<'_>) {
    let address: Set<Address> = Set::outside(name, value, reader);
    let State::Is(listeners) = &mut file.listen.state else { return };
    let names = listeners.names().collect::<Vec<_>>().join(", ");
    if let Some(listener) = only_or_web(listeners) {
        listener.addr = address;
    } else if listeners.complete && !names.is_empty() {
        let spot = Spot { path: name.to_owned(), place: Place::Outside(name) };
        reader.report(
            Problem::of(&spot, format!("it is not clear which listener is meant: {names}"))
                .help("name one of them `web`, or give the addresses in the file"),
        );
    }
}

fn only_or_web(listeners: &mut Named<ListenTable>) -> Option<&mut ListenTable> {
    let only = listeners.items.len() == 1;
    listeners.items.iter_mut().find(|(_, name, _)| only || name == "web").map(|(_, _, listener)| listener)
}
