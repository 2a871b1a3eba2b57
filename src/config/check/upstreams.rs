//! Upstreams: instances that can be used, health checks that ask something.

use std::time::Duration;

use super::failures;
use super::health::health;
use crate::balance::Method;
use crate::balance::sticky::{Cookie, SameSite, Secure};
use crate::base::name::UpstreamName;
use crate::config::file::{BalanceTable, File, PoolTable, Server, StickyTable, UpstreamTable, time};
use crate::config::kind::{Balance, List, OrOff};
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Reader, Set};
use crate::plan::{Instance, Pool, Sticky, StickyKey, Upstream, UpstreamTimeouts};

/// All upstreams.
pub fn all(file: &File, reader: &mut Reader<'_>) -> Option<Vec<Upstream>> {
    let upstreams = file.upstreams.value()?;
    let all: Vec<Option<Upstream>> =
        upstreams.items.iter().map(|(_, name, table)| upstream(name, table, reader)).collect();
    if !upstreams.complete {
        return None;
    }
    all.into_iter().collect()
}

fn upstream(name: &str, table: &UpstreamTable, reader: &mut Reader<'_>) -> Option<Upstream> {
    let servers = servers(&table.servers, reader);
    let health = match table.health.value() {
        Some(OrOff::On(checks)) => health(checks, &table.health.spot, reader).map(Some),
        Some(OrOff::Off) => Some(None),
        None => None,
    };
    Some(Upstream {
        name: UpstreamName::from(name),
        servers: servers?,
        balance: balance(&table.balance.value()?.0, reader)?,
        health: health?,
        timeouts: UpstreamTimeouts {
            connect: time(&table.connect_timeout)?,
            read: time(&table.read_timeout)?,
            total: total(table, reader)?,
            write: time(&table.write_timeout)?,
            idle: time(&table.idle_timeout)?,
        },
        tries: table.tries.value()?.as_u32(),
        pool: match table.pool.value()? {
            OrOff::On(table) => Some(pool(table)?),
            OrOff::Off => None,
        },
        eject: match table.eject.value()? {
            OrOff::On(table) => Some(failures::eject(table, reader)?),
            OrOff::Off => None,
        },
        panic: table.panic.value()?.as_u32(),
        breaker: match table.breaker.value()? {
            OrOff::On(table) => Some(failures::breaker(table, reader)?),
            OrOff::Off => None,
        },
        sticky: match table.sticky.value()? {
            OrOff::On(table) => Some(sticky(table, reader)?),
            OrOff::Off => None,
        },
        host: table.host.value()?.clone(),
    })
}

fn balance(table: &BalanceTable, reader: &mut Reader<'_>) -> Option<Method> {
    let by = *table.by.value()?;
    let particular = [
        ("on", table.on.written, &table.on.spot, Balance::ConsistentHash),
        ("load", table.load.written, &table.load.spot, Balance::ConsistentHash),
        ("decay", table.decay.written, &table.decay.spot, Balance::P2c),
    ];
    let mut right = true;
    for (name, _, spot, of) in particular.into_iter().filter(|(_, written, _, of)| *written && *of != by) {
        let way = if of == Balance::P2c { "p2c" } else { "consistent_hash" };
        reader.report(
            Problem::of(spot, "it has no effect on this way to balance")
                .help(format!("remove `{name}`, or write by = \"{way}\"")),
        );
        right = false;
    }
    let load = table.load.value()?.as_u32();
    if (1..100).contains(&load) {
        reader.report(
            Problem::of(
                &table.load.spot,
                "less than a fair share for everybody leaves some requests nowhere to go",
            )
            .help("write at least 100, like 125, or 0 for no bound"),
        );
        right = false;
    }
    let method = match by {
        Balance::RoundRobin => Method::RoundRobin,
        Balance::LeastConn => Method::LeastConn,
        Balance::IpHash => Method::IpHash,
        Balance::ConsistentHash => Method::ConsistentHash { on: table.on.value()?.clone(), load },
        Balance::P2c => Method::P2c { decay: time(&table.decay)? },
        Balance::Random => Method::Random,
    };
    right.then_some(method)
}

fn sticky(table: &StickyTable, reader: &mut Reader<'_>) -> Option<Sticky> {
    let key = match (table.key.value()?.0.clone(), table.key_file.optional()?) {
        (Some(_), Some(_)) => {
            reader.report(
                Problem::of(&table.key_file.spot, "the key is written already")
                    .also(&table.key.spot, "here")
                    .help("remove one of the two"),
            );
            return None;
        }
        (Some(secret), None) => StickyKey::Secret(secret),
        (None, Some(path)) => StickyKey::File(path.0.clone().into()),
        (None, None) => StickyKey::Random,
    };
    let cookie = Cookie {
        name: table.cookie.value()?.0.clone(),
        path: table.path.value()?.0.clone(),
        max_age: table.max_age.optional()?.map(|age| age.0),
        secure: *table.secure.value()?,
        http_only: *table.http_only.value()?,
        same_site: *table.same_site.value()?,
    };
    if cookie.same_site == SameSite::None && cookie.secure == Secure::Never {
        reader.report(
            Problem::of(
                &table.same_site.spot,
                "browsers refuse a cookie for all sites that is not for https alone",
            )
            .also(&table.secure.spot, "here it is for http, too")
            .help("write secure = \"always\", or same_site = \"lax\""),
        );
        return None;
    }
    if cookie.path.contains(';') {
        reader.report(
            Problem::of(&table.path.spot, "a cookie's path has no `;`").help("write it like \"/app\""),
        );
        return None;
    }
    Some(Sticky { cookie, key })
}

/// `Some(None)`: none is set.
fn total(table: &UpstreamTable, reader: &mut Reader<'_>) -> Option<Option<Duration>> {
    let Some(total) = table.timeout.optional()?.map(|total| total.0) else { return Some(None) };
    if total < time(&table.read_timeout)? {
        reader.report(
            Problem::of(&table.timeout.spot, "the time for all attempts is less than that for one read")
                .also(&table.read_timeout.spot, "one read may take longer")
                .help("write a longer `timeout`, or a shorter `read_timeout`"),
        );
        return None;
    }
    Some(Some(total))
}

fn pool(table: &PoolTable) -> Option<Pool> {
    Some(Pool {
        size: table.size.value()?.as_u32(),
        overflow: table.overflow.value()?.as_u32(),
        timeout: time(&table.timeout)?,
        queue: usize::try_from(table.queue.value()?.as_u32()).ok()?,
        recycle: Some(time(&table.recycle)?).filter(|age| !age.is_zero()),
    })
}

fn servers(set: &Set<List<Server>>, reader: &mut Reader<'_>) -> Option<Vec<Instance>> {
    let list = set.value()?;
    if list.items.is_empty() && list.complete {
        reader.report(
            Problem::of(&set.spot, "there is no instance")
                .help("name at least one, like [\"127.0.0.1:8001\"]"),
        );
        return None;
    }
    duplicates(list, reader);
    let instances: Option<Vec<Instance>> = list.items.iter().map(|(_, server)| instance(server)).collect();
    let instances = instances.filter(|_| list.complete)?;
    if instances.iter().all(|instance| instance.weight == 0) {
        reader.report(
            Problem::of(&set.spot, "every weight is 0, so no instance takes a request")
                .help("give at least one instance a weight of 1 or more"),
        );
        return None;
    }
    if instances.iter().all(|instance| instance.backup) {
        reader.report(
            Problem::of(&set.spot, "every instance is a backup, so there is none that they stand in for")
                .help("write backup = true for those that are to be used only while no other is up"),
        );
        return None;
    }
    Some(instances)
}

fn instance(server: &Server) -> Option<Instance> {
    Some(Instance {
        addr: server.0.addr.value()?.0.clone(),
        weight: server.0.weight.value()?.as_u32(),
        backup: *server.0.backup.value()?,
    })
}

/// Host names are compared without regard to case (RFC 9110 §4.2.3).
fn duplicates(list: &List<Server>, reader: &mut Reader<'_>) {
    let mut seen: Vec<(String, &Spot)> = Vec::new();
    for (_, Server(entry)) in &list.items {
        let Some(addr) = entry.addr.value() else { continue };
        let key = addr.0.to_ascii_lowercase();
        match seen.iter().find(|(other, _)| *other == key) {
            Some((_, first)) => reader.report(
                Problem::of(&entry.addr.spot, format!("{} is named twice", addr.0))
                    .also(first, "first here")
                    .help("for a larger share write a weight: { addr = \"…\", weight = 2 }"),
            ),
            None => seen.push((key, &entry.addr.spot)),
        }
    }
}
