//! Caches: lifetimes that mean something, keys put together.

use std::sync::Arc;
use std::time::Duration;

use crate::base::name::CacheName;
use crate::cache::{BypassRules, KeyRules, Rules, TtlMode, VaryRules};
use crate::config::file::{BypassTable, CacheTable, File, KeyTable, VaryTable, time};
use crate::config::problem::Problem;
use crate::config::read::Reader;
use crate::plan::Cache;

/// All caches.
pub fn all(file: &File, reader: &mut Reader<'_>) -> Option<Vec<Cache>> {
    let caches = file.caches.value()?;
    let all: Vec<Option<Cache>> =
        caches.items.iter().map(|(_, name, table)| cache(name, table, reader)).collect();
    if !caches.complete {
        return None;
    }
    all.into_iter().collect()
}

fn cache(name: &str, table: &CacheTable, reader: &mut Reader<'_>) -> Option<Cache> {
    mode_without_ttl(table, reader);
    host_alone(table, reader);
    more_in_memory(table, reader);
    Some(Cache {
        name: CacheName::from(name),
        rules: Arc::new(rules(table)?),
        memory: table.memory.value()?.0,
        max_object: table.max_object.value()?.0,
        memory_max_object: table.memory_max_object.optional()?.map(|size| size.0),
        coalesce: *table.coalesce.value()?,
        lease: time(&table.lease)?,
        relay: *table.relay.value()?,
        wait_timeout: time(&table.wait_timeout)?,
    })
}

/// Whether a cache gives no lifetimes that a `ttl_mode` could apply to.
pub fn is_without_ttl(table: &CacheTable) -> bool {
    let statuses = table.ttl_by_status.value().is_some_and(|by| by.0.items.is_empty() && by.0.complete);
    table.ttl.is_absent() && statuses
}

fn mode_without_ttl(table: &CacheTable, reader: &mut Reader<'_>) {
    if is_without_ttl(table) && table.ttl_mode.value().is_some_and(|mode| *mode != TtlMode::Default) {
        reader.report(
            Problem::of(&table.ttl_mode.spot, "there is no ttl that it could apply to")
                .help("add ttl = \"1h\" or another duration, or remove ttl_mode"),
        );
    }
}

fn more_in_memory(table: &CacheTable, reader: &mut Reader<'_>) {
    let memory = table.memory_max_object.optional().flatten().map(|size| size.0);
    if let (Some(memory), Some(stored)) = (memory, table.max_object.value())
        && memory > stored.0
    {
        reader.report(
            Problem::of(
                &table.memory_max_object.spot,
                "it is larger than max_object, so nothing of that size is ever stored",
            )
            .help("raise max_object, or lower memory_max_object"),
        );
    }
}

fn host_alone(table: &CacheTable, reader: &mut Reader<'_>) {
    let Some(hosts) = table.key.value().map(|key| &key.hosts) else { return };
    if hosts.value().is_some_and(|list| list.complete && list.items.len() == 1) {
        reader.report(
            Problem::of(&hosts.spot, "a host cannot share its answers with itself alone")
                .help("name two hosts or more, or remove hosts"),
        );
    }
}

fn rules(table: &CacheTable) -> Option<Rules> {
    Some(Rules {
        ttl: table.ttl.optional()?.map(|ttl| ttl.0),
        ttl_mode: *table.ttl_mode.value()?,
        ttl_header: table.ttl_header.optional()?.cloned(),
        ttl_by_status: ttl_by_status(table)?,
        stale_while_revalidate: time(&table.stale_while_revalidate)?,
        stale_if_error: time(&table.stale_if_error)?,
        stale_mode: *table.stale_mode.value()?,
        keep: time(&table.keep)?,
        set_cookie: *table.set_cookie.value()?,
        client_directives: *table.client_directives.value()?,
        heuristic: *table.heuristic.value()?,
        early_refresh: *table.early_refresh.value()?,
        targeted: table.targeted.value()?.all()?.cloned().collect(),
        bypass: bypass(table.bypass.value()?)?,
        min_uses: u8::try_from(table.min_uses.value()?.0).ok()?,
        key: key(table.key.value()?, table.vary.value()?)?,
    })
}

/// The narrowest range comes first, so that the first that fits is the most particular.
fn ttl_by_status(table: &CacheTable) -> Option<Vec<((u16, u16), Duration)>> {
    let entries = table.ttl_by_status.value()?.0.all()?;
    let mut entries: Vec<_> = entries.map(|(statuses, ttl)| (*statuses, ttl.0)).collect();
    entries.sort_by_key(|((low, high), _)| (high - low, *low));
    Some(entries)
}

fn bypass(table: &BypassTable) -> Option<BypassRules> {
    Some(BypassRules {
        headers: table.headers.value()?.all()?.cloned().collect(),
        cookies: table.cookies.value()?.all()?.map(|cookie| cookie.0.clone()).collect(),
    })
}

fn key(table: &KeyTable, by: &VaryTable) -> Option<KeyRules> {
    Some(KeyRules {
        hosts: table.hosts.value()?.all()?.map(|host| host.0.to_ascii_lowercase()).collect(),
        query: table.query.value()?.clone(),
        sort_query: *table.sort_query.value()?,
        headers: table.headers.value()?.all()?.cloned().collect(),
        cookies: table.cookies.value()?.all()?.map(|cookie| cookie.0.clone()).collect(),
        vary: vary(by)?,
    })
}

fn vary(table: &VaryTable) -> Option<VaryRules> {
    Some(VaryRules {
        languages: *table.languages.value()?,
        content_language: *table.content_language.value()?,
        encodings: *table.encodings.value()?,
    })
}
