//! Health checks that ask something, and nothing they could not ask.

use std::path::PathBuf;

use crate::balance::check::{Expected, Member};
use crate::config::file::{CheckJsonTable, CheckTlsTable, HealthTable, time};
use crate::config::kind::{CheckType, OneOrMany, OrOff, Statuses};
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Reader, Set};
use crate::plan::{CheckTls, Health, HealthCheck};

/// The checks of one upstream.
pub fn health(table: &HealthTable, spot: &Spot, reader: &mut Reader<'_>) -> Option<Health> {
    let check = check(table, spot, reader);
    let every = time(&table.every)?;
    Some(Health {
        check: check?,
        port: table.port.optional()?.map(|port| port.as_u16()),
        tls: match table.tls.value()? {
            OrOff::On(table) => Some(tls(table)?),
            OrOff::Off => None,
        },
        every,
        every_down: table.every_down.optional()?.map_or(every, |every| every.0),
        timeout: time(&table.timeout)?,
        fall: table.fall.value()?.as_u32(),
        rise: table.rise.value()?.as_u32(),
        start: *table.start.value()?,
        slow_start: time(&table.slow_start)?,
    })
}

/// A check is asked for nothing that its type does not send or read: it would be ignored, and is a mistake.
fn check(table: &HealthTable, spot: &Spot, reader: &mut Reader<'_>) -> Option<HealthCheck> {
    let kind = *table.r#type.value()?;
    let foreign = match kind {
        CheckType::Http => vec![written(&table.service)],
        CheckType::Tcp => [of_http(table), vec![written(&table.host), written(&table.service)]].concat(),
        CheckType::Grpc => of_http(table),
    };
    let (name, why, help) = match kind {
        CheckType::Http => ("http", "asks about no service", "grpc"),
        CheckType::Tcp => ("tcp", "sends no request", "http"),
        CheckType::Grpc => ("grpc", "asks in its own way", "http"),
    };
    let mut right = true;
    for spot in foreign.into_iter().flatten() {
        right = false;
        reader.report(
            Problem::of(spot, format!("a check of type \"{name}\" {why}"))
                .help(format!("remove it, or write type = \"{help}\"")),
        );
    }
    let asked = match kind {
        CheckType::Http => http(table, spot, reader),
        CheckType::Tcp => Some(HealthCheck::Tcp),
        CheckType::Grpc => grpc(table),
    };
    asked.filter(|_| right)
}

/// Where a key is written, if it is.
fn written<T>(set: &Set<T>) -> Option<&Spot> {
    set.written.then_some(&set.spot)
}

/// The keys that describe an HTTP check alone, but for the Host.
fn of_http(table: &HealthTable) -> Vec<Option<&Spot>> {
    vec![
        written(&table.path),
        written(&table.expect),
        written(&table.withdraw),
        written(&table.contains),
        written(&table.matches),
        written(&table.json),
    ]
}

fn http(table: &HealthTable, spot: &Spot, reader: &mut Reader<'_>) -> Option<HealthCheck> {
    if table.path.is_absent() {
        reader.report(
            Problem::of(spot, "`path` is missing")
                .help("write what to ask for, like path = \"/ready\", or type = \"tcp\" to ask for nothing"),
        );
    }
    let expected = Expected {
        status: statuses(table.expect.value()?)?,
        withdraw: statuses(table.withdraw.value()?)?,
        contains: table.contains.optional()?.map(|text| text.0.clone()),
        matches: table.matches.optional()?.map(|pattern| pattern.0.clone()),
        member: match table.json.optional()? {
            Some(table) => Some(member(table)?),
            None => None,
        },
    };
    Some(HealthCheck::Http {
        path: table.path.value()?.0.clone(),
        host: table.host.optional()?.map(|host| host.0.clone()),
        expected,
    })
}

fn grpc(table: &HealthTable) -> Option<HealthCheck> {
    Some(HealthCheck::Grpc {
        service: table.service.optional()?.map_or_else(String::new, |service| service.0.clone()),
        host: table.host.optional()?.map(|host| host.0.clone()),
    })
}

/// Statuses as inclusive ranges.
pub fn statuses<const MIN: u16>(list: &OneOrMany<Statuses<MIN, 599>>) -> Option<Vec<(u16, u16)>> {
    Some(list.0.all()?.map(|statuses| (statuses.0, statuses.1)).collect())
}

fn member(table: &CheckJsonTable) -> Option<Member> {
    Some(Member { at: table.at.value()?.0.clone(), is: table.is.value()?.0.clone() })
}

fn tls(table: &CheckTlsTable) -> Option<CheckTls> {
    Some(CheckTls {
        sni: table.sni.optional()?.map(|name| name.0.clone()),
        ca: table.ca.optional()?.map(|path| PathBuf::from(&path.0)),
        verify: *table.verify.value()?,
    })
}
