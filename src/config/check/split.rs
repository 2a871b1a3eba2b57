//! How a route's requests are divided among upstreams.

use std::sync::Arc;

use http::HeaderName;

use super::{UPSTREAMS, resolve};
use crate::balance::split::{Part, Split, When};
use crate::config::file::{File, PartTable, RouteTable, SplitTable};
use crate::config::kind::Versions;
use crate::config::problem::{Problem, Spot};
use crate::config::read::Reader;

/// `Some(None)`: they are not.
pub fn of(file: &File, route: &RouteTable, reader: &mut Reader<'_>) -> Option<Option<Arc<Split>>> {
    let Some(table) = route.split.optional()? else { return Some(None) };
    let parts = table.to.value()?;
    let read: Vec<Option<Part>> =
        parts.items.iter().map(|(spot, entry)| part(file, entry, spot, reader)).collect();
    let read: Option<Vec<Part>> = read.into_iter().collect();
    let parts = read.filter(|_| parts.complete)?;
    judge(route, table, &parts, reader)?;
    let apart = *table.cache.value()? == Versions::Apart;
    Some(Some(Arc::new(Split { by: table.by.optional()?.cloned(), parts, apart })))
}

fn part(file: &File, table: &PartTable, spot: &Spot, reader: &mut Reader<'_>) -> Option<Part> {
    let name = table.upstream.value()?;
    let upstream = resolve(&name.0, &table.upstream.spot, file.upstreams.value()?, &UPSTREAMS, reader);
    let (share, header, cookie) =
        (table.share.optional()?, table.header.optional()?, table.cookie.optional()?);
    let when = match (share, header, cookie) {
        (Some(share), None, None) => When::Share(share.as_u32()),
        (None, Some(asked), None) => {
            When::Header(HeaderName::try_from(asked.name.as_str()).ok()?, asked.value.clone())
        }
        (None, None, Some(asked)) => When::Cookie(asked.name.clone(), asked.value.clone()),
        _ => {
            reader.report(
                Problem::of(spot, "one of `share`, `header` and `cookie` says which requests it gets")
                    .help("write one of them, and another entry for each further one"),
            );
            return None;
        }
    };
    Some(Part { upstream: upstream?, when })
}

fn judge(route: &RouteTable, table: &SplitTable, parts: &[Part], reader: &mut Reader<'_>) -> Option<()> {
    let mut right = Some(());
    let mut wrong = |problem: Problem| {
        reader.report(problem);
        right = None;
    };
    if parts.is_empty() {
        wrong(
            Problem::of(&table.to.spot, "nobody else gets a request")
                .help("name an upstream, or remove `split`"),
        );
    }
    let shares = || {
        parts.iter().filter_map(|part| if let When::Share(share) = part.when { Some(share) } else { None })
    };
    let all: u32 = shares().sum();
    if all > 100 {
        wrong(
            Problem::of(&table.to.spot, format!("the shares add up to {all} in a hundred"))
                .help("write smaller ones"),
        );
    }
    if table.by.written && shares().next().is_none() {
        wrong(
            Problem::of(&table.by.spot, "there is no share for it to keep clients in")
                .help("remove `by`, or write a `share`"),
        );
    }
    if table.cache.written && route.cache.is_absent() {
        wrong(Problem::of(&table.cache.spot, "this route has no cache").help("remove it, or name a `cache`"));
    }
    right
}
