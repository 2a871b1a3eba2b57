//! What no single value shows: names that nobody defined, addresses that collide, routes that no request can reach.
//!
//! Every function answers `None` when a part is wrong, after its problem has been reported, and goes on with the others.

mod caches;
mod content;
mod failures;
mod health;
mod listeners;
mod onward;
mod routes;
mod shared;
mod split;
mod sticky;
mod tls;
mod trying;
mod upstreams;
mod ward;

use ipnet::IpNet;

use super::file::{File, LogTable, ServerTable, time};
use super::kind::{Named, Network, Threads};
use super::problem::{Problem, Spot};
use super::read::Reader;
use super::setting::FromText;
use super::suggest::nearest;
use crate::guard::client::TrustedProxies;
use crate::plan::{Log, Plan, Server};

/// The plan of a file; `None` when something in it is wrong.
pub fn plan(file: &File, reader: &mut Reader<'_>) -> Option<Plan> {
    let server = file.server.value().and_then(|table| server(table, reader));
    let listeners = listeners::public(file, reader);
    let admin = listeners::admin(file, reader);
    let log = file.log.value().and_then(log);
    let redis = file.redis.value().and_then(|table| shared::redis(table, reader));
    let upstreams = upstreams::all(file, reader);
    let caches = caches::all(file, reader);
    let limits = ward::limits(file, reader);
    let realms = ward::realms(file, reader);
    let routes = ward::shared(file, reader).and_then(|shared| routes::all(file, &shared, reader));
    let (routes, table) = routes?;
    let caches = caches?;
    sticky::judge(file, &routes, &caches, reader)?;
    Some(Plan {
        server: server?,
        listeners: listeners?,
        admin: admin?,
        log: log?,
        redis: redis?,
        upstreams: upstreams?,
        caches,
        limits: limits?,
        realms: realms?,
        routes,
        table,
    })
}

fn server(table: &ServerTable, reader: &mut Reader<'_>) -> Option<Server> {
    let threads = match *table.threads.value()? {
        Threads::Fixed(count) => count,
        // Where the number of cores cannot be told, one thread serves.
        Threads::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut networks: Vec<_> = table.trusted_proxies.value()?.all()?.map(|network| network.0).collect();
    networks.extend(networks_in_file(table, reader)?);
    let field = table.client_address.optional()?.cloned();
    Some(Server {
        threads,
        drain_delay: time(&table.drain_delay)?,
        drain_timeout: time(&table.drain_timeout)?,
        trusted_proxies: TrustedProxies { networks, field },
        name: table.name.value()?.0.clone(),
    })
}

/// The networks of `trusted_proxies_file`; none without it.
fn networks_in_file(table: &ServerTable, reader: &mut Reader<'_>) -> Option<Vec<IpNet>> {
    let Some(path) = table.trusted_proxies_file.optional()? else { return Some(Vec::new()) };
    let spot = &table.trusted_proxies_file.spot;
    let text = match std::fs::read_to_string(&path.0) {
        Ok(text) => text,
        Err(error) => {
            let problem = Problem::of(spot, format!("cannot read {}: {error}", path.0.display()));
            reader.report(problem.help("a relative path is looked for where the program was started"));
            return None;
        }
    };
    let mut networks = Some(Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match Network::from_text(line) {
            _ if line.is_empty() => {}
            Ok(network) => networks.iter_mut().for_each(|networks| networks.push(network.0)),
            Err(help) => {
                let (file, number) = (path.0.display(), number + 1);
                let problem = Problem::of(
                    spot,
                    format!("{file}, line {number}: \"{}\" is not {}", line.escape_debug(), Network::what()),
                );
                reader.report(problem.help(help.unwrap_or_default()));
                networks = None;
            }
        }
    }
    networks
}

fn log(table: &LogTable) -> Option<Log> {
    Some(Log {
        level: table.level.value()?.0.clone(),
        format: *table.format.value()?,
        access: table.access.value()?.clone(),
    })
}

/// What a name may stand for.
struct Kind {
    /// The table they stand in.
    table: &'static str,
    /// One of them, with its article.
    one: &'static str,
}

const UPSTREAMS: Kind = Kind { table: "upstreams", one: "an upstream" };
const CACHES: Kind = Kind { table: "caches", one: "a cache" };

/// The position of a name among the tables of its kind.
fn resolve<T>(
    name: &str,
    spot: &Spot,
    among: &Named<T>,
    kind: &Kind,
    reader: &mut Reader<'_>,
) -> Option<usize> {
    if let Some(position) = among.position(name) {
        return Some(position);
    }
    if !among.complete {
        // It may be one of those that could not be read.
        return None;
    }
    let table = kind.table;
    let defined: Vec<_> = among.names().collect();
    let help = match nearest(name, defined.iter().copied()) {
        _ if defined.is_empty() => format!("add a table [{table}.{name}]"),
        Some(near) => format!("did you mean \"{near}\"? defined {table}: {}", defined.join(", ")),
        None => format!("defined {table}: {}", defined.join(", ")),
    };
    reader.report(
        Problem::of(spot, format!("names {} that does not exist", kind.one))
            .label(format!("no [{table}.{name}] in this file"))
            .help(help),
    );
    None
}
