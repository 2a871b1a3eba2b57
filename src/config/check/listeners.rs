//! Listeners: their limits, and addresses that cannot be had twice.

use std::net::SocketAddr;

use super::tls;
use crate::base::name::ListenerName;
use crate::config::file::{File, ListenTable, PurgeTable, time};
use crate::config::kind::{AdminAddress, OrOff};
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Reader, Set};
use crate::guard::crowd::Room;
use crate::guard::purger::Purgers;
use crate::plan::{Admin, ClientLimits, Listener};

/// The public listeners.
pub fn public(file: &File, reader: &mut Reader<'_>) -> Option<Vec<Listener>> {
    let listeners = file.listen.value()?;
    if listeners.items.is_empty() && listeners.complete {
        reader.report(
            Problem::of(&file.listen.spot, "there is no listener")
                .help("add a table [listen.web], or leave the whole of [listen] out"),
        );
        return None;
    }
    let all: Vec<Option<Listener>> =
        listeners.items.iter().map(|(_, name, table)| listener(name, table, reader)).collect();
    collisions(file, reader);
    if !listeners.complete {
        return None;
    }
    all.into_iter().collect()
}

/// The operator's own listener.
pub fn admin(file: &File, _reader: &mut Reader<'_>) -> Option<Admin> {
    let table = file.admin.value()?;
    Some(Admin { addr: table.addr.value()?.0, token: table.token.value()?.0.clone() })
}

fn listener(name: &str, table: &ListenTable, reader: &mut Reader<'_>) -> Option<Listener> {
    let tls = tls::of(table, reader);
    Some(Listener {
        name: ListenerName::from(name),
        addr: table.addr.value()?.0,
        limits: ClientLimits {
            header_timeout: time(&table.header_timeout)?,
            idle_timeout: time(&table.idle_timeout)?,
            read_timeout: time(&table.read_timeout)?,
            write_timeout: time(&table.write_timeout)?,
            keepalive_requests: table.keepalive_requests.value()?.as_u32(),
            max_header_size: table.max_header_size.value()?.0,
            max_header_fields: table.max_header_fields.value()?.as_usize(),
            max_body_size: table.max_body_size.value()?.0,
            room: Room {
                all: table.max_connections.value()?.as_usize(),
                each: table.max_connections_per_address.value()?.as_usize(),
            },
            min_rate: table.min_rate.value()?.0,
        },
        https_port: tls::https_port(table, reader)?,
        tls: tls?,
        purgers: match table.purge.value()? {
            OrOff::On(table) => Some(purgers(table, reader)?),
            OrOff::Off => None,
        },
    })
}

fn purgers(table: &PurgeTable, reader: &mut Reader<'_>) -> Option<Purgers> {
    let allowed = table.allow.value()?;
    if allowed.complete && allowed.items.is_empty() {
        reader.report(
            Problem::of(&table.allow.spot, "nobody may purge")
                .help("name an address or a network, like \"127.0.0.1\", or write purge = \"off\""),
        );
        return None;
    }
    Some(Purgers(allowed.all()?.map(|network| network.0).collect()))
}

/// Reports every listener, the operator's own included, whose address an earlier one has taken. An unwritten address of the operator's
/// comes first, so that the mistake is shown at the line that can be changed.
fn collisions(file: &File, reader: &mut Reader<'_>) {
    let admin = file.admin.value().map(|admin| &admin.addr);
    let (written, default): (Vec<_>, Vec<_>) = admin.into_iter().partition(|addr| addr.written);
    let admin = |set: Vec<&'_ Set<AdminAddress>>| {
        set.into_iter().filter_map(|set| Some((set.value()?.0?, set.spot.clone()))).collect::<Vec<_>>()
    };
    let public = file.listen.value().into_iter().flat_map(|listeners| &listeners.items);
    let public = public.filter_map(|(_, _, table)| Some((table.addr.value()?.0, table.addr.spot.clone())));
    let mut taken: Vec<(SocketAddr, Spot)> = Vec::new();
    for (addr, spot) in admin(default).into_iter().chain(public).chain(admin(written)) {
        match taken.iter().find(|(other, _)| collide(addr, *other)) {
            Some((other, other_spot)) => reader.report(
                Problem::of(&spot, format!("{addr} is already taken by {} ({other})", other_spot.path))
                    .also(other_spot, "taken here")
                    .help("give each listener a port of its own"),
            ),
            None => taken.push((addr, spot)),
        }
    }
}

/// Port 0 is any free port and collides with none. An unspecified address takes all addresses; `[::]` takes those of IPv4, too.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all =
        |one: SocketAddr, other: SocketAddr| one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || takes_all(a, b) || takes_all(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_collide_when_one_takes_what_the_other_needs() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (x, y) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(collide(x, y), expected, "{a} {b}");
            assert_eq!(collide(y, x), expected, "{b} {a}");
        }
    }
}
