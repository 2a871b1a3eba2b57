//! Routes: what they match, who answers, and whether any request can reach them.

use std::collections::HashSet;
use std::sync::Arc;

use http::StatusCode;

use super::caches::is_without_ttl;
use super::ward::{Shared, ward};
use super::{CACHES, UPSTREAMS, content, resolve, split, trying};
use crate::base::name::RouteName;
use crate::cache::content::{ContentKey, Form, Pointer, StoreWhen};
use crate::cache::{Lifetimes, TtlMode};
use crate::config::file::{CacheUseTable, ContentKeyTable, File, MatchTable, RouteTable};
use crate::config::kind::{BodyForm, JsonPointer, List, Text};
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Reader, Set};
use crate::plan::{Action, Route};
use crate::route::{Match, Rewrite, RouteError, Table};

/// All routes and the table that finds them.
pub fn all(file: &File, shared: &Shared, reader: &mut Reader<'_>) -> Option<(Vec<Route>, Table)> {
    let routes = file.routes.value()?;
    if routes.items.is_empty() && routes.complete {
        reader.report(
            Problem::at(&file.routes.spot, "there is no route, so every request would be answered with 404")
                .help("add a table [[routes]] with a line `upstream = \"NAME\"`"),
        );
        return None;
    }
    let matches: Vec<Option<Match>> = routes
        .items
        .iter()
        .map(|(_, route)| route.r#match.value().and_then(|m| pattern(m, reader)))
        .collect();
    let names = names(&routes.items, reader);
    let mut built = Vec::with_capacity(routes.items.len());
    for ((spot, table), name) in routes.items.iter().zip(names) {
        built.push(route(file, shared, table, spot, name, reader));
    }
    let table = table(&routes.items, matches, reader);
    let built: Option<Vec<Route>> = built.into_iter().collect();
    Some((built.filter(|_| routes.complete)?, table?))
}

/// The table of the rules that could be read; `None` when one could not, or a rule is never reached.
fn table(
    routes: &[(Spot, RouteTable)],
    matches: Vec<Option<Match>>,
    reader: &mut Reader<'_>,
) -> Option<Table> {
    let complete = matches.iter().all(Option::is_some);
    let (positions, rules): (Vec<usize>, Vec<Match>) =
        matches.into_iter().enumerate().filter_map(|(position, rule)| Some((position, rule?))).unzip();
    let spot_of =
        |rule: usize| positions.get(rule).and_then(|position| routes.get(*position)).map(|(spot, _)| spot);
    let errors = match Table::new(rules) {
        Ok(table) => return complete.then_some(table),
        Err(errors) => errors,
    };
    for error in errors {
        match (&error, routes.first()) {
            (RouteError::Unreachable { rule, by }, _) => {
                if let (Some(spot), Some(other)) = (spot_of(*rule), spot_of(*by)) {
                    reader.report(unreachable_route(spot, other));
                }
            }
            (_, Some((spot, _))) => reader.report(Problem::of(spot, error)),
            (_, None) => {}
        }
    }
    None
}

fn unreachable_route(spot: &Spot, other: &Spot) -> Problem {
    Problem::of(spot, format!("no request can reach this route: {} takes all of them", other.path))
        .also(other, "this one takes them")
        .help("remove one of the two, or tell them apart by host, path or method")
}

/// Reads the match part by part, so that each mistake is shown where it is written.
fn pattern(table: &MatchTable, reader: &mut Reader<'_>) -> Option<Match> {
    let hosts = &table.host.value()?.0;
    let methods = &table.method.value()?.0;
    let path = table.path.value()?;
    let mut right = hosts.complete && methods.complete;
    let mut try_part = |spot: &Spot, result: Result<Match, Vec<RouteError>>| {
        for error in result.err().into_iter().flatten() {
            right = false;
            reader.report(Problem::of(spot, error));
        }
    };
    for (spot, host) in &hosts.items {
        try_part(spot, Match::parse(std::slice::from_ref(&host.0), "/*", &[]));
    }
    try_part(&table.path.spot, Match::parse(&[], &path.0, &[]));
    for (spot, method) in &methods.items {
        try_part(spot, Match::parse(&[], "/*", std::slice::from_ref(&method.0)));
    }
    if !right {
        return None;
    }
    Match::parse(&texts(hosts), &path.0, &texts(methods)).ok()
}

fn texts(list: &List<Text>) -> Vec<String> {
    list.items.iter().map(|(_, text)| text.0.clone()).collect()
}

/// A name for each route: the written one, or one made from its match. Names are labels of metrics and must differ.
fn names(routes: &[(Spot, RouteTable)], reader: &mut Reader<'_>) -> Vec<RouteName> {
    let mut used: HashSet<String> = HashSet::new();
    for (_, route) in routes {
        let Some(name) = route.name.value() else { continue };
        if !used.insert(name.0.clone()) {
            reader.report(
                Problem::of(&route.name.spot, format!("another route is named \"{}\", too", name.0))
                    .help("names are labels of metrics: give each route its own"),
            );
        }
    }
    routes.iter().map(|(spot, route)| RouteName::from(name(route, spot, &mut used).as_str())).collect()
}

fn name(route: &RouteTable, spot: &Spot, used: &mut HashSet<String>) -> String {
    if let Some(name) = route.name.value() {
        return name.0.clone();
    }
    let plain = route.r#match.value().map_or_else(|| spot.path.clone(), describe);
    let mut candidate = plain.clone();
    let mut count = 1;
    while !used.insert(candidate.clone()) {
        count += 1;
        candidate = format!("{plain} #{count}");
    }
    candidate
}

/// `GET,HEAD api.example.com/query`
fn describe(table: &MatchTable) -> String {
    let join = |set: Option<&List<Text>>| set.map(|list| texts(list).join(",")).unwrap_or_default();
    let methods = join(table.method.value().map(|m| &m.0));
    let hosts = join(table.host.value().map(|h| &h.0));
    let path = table.path.value().map_or("", |path| path.0.as_str());
    let space = if methods.is_empty() { "" } else { " " };
    format!("{methods}{space}{hosts}{path}")
}

fn route(
    file: &File,
    shared: &Shared,
    table: &RouteTable,
    spot: &Spot,
    name: RouteName,
    reader: &mut Reader<'_>,
) -> Option<Route> {
    let action = action(file, table, spot, reader);
    let split = split::of(file, table, reader);
    let trying = trying::of_route(table, reader);
    let rewrite = rewrite(table, reader);
    let cache = table.cache.optional().map(|cache| cache.map(|cache| &cache.0));
    let content_key = cache.and_then(|cache| content_key(cache, reader));
    let (browser, compress) = (content::browser(table, reader), content::compress(table, reader));
    let ward = ward(file, shared, table, reader);
    Some(Route {
        name,
        action: action?,
        split: split?,
        rewrite: rewrite?,
        max_body_size: table.max_body_size.optional()?.map(|size| size.0),
        trying: trying?,
        priority: *table.priority.value()?,
        content_key: content_key?,
        store_when: Arc::new(store_when(cache?)?),
        browser: browser?,
        compress: compress?,
        ward: ward?,
        lifetimes: lifetimes(file, cache?, reader)?,
        shadow: cache?.map_or(Some(false), |cache| cache.shadow.value().copied())?,
    })
}

/// `Some(None)`: no content is asked for.
fn content_key(cache: Option<&CacheUseTable>, reader: &mut Reader<'_>) -> Option<Option<Arc<ContentKey>>> {
    let Some(table) = cache.map_or(Some(None), |cache| cache.key.optional())? else { return Some(None) };
    let (ignore, only, fold) = (pointers(&table.ignore)?, pointers(&table.only)?, pointers(&table.fold)?);
    let body = table.body.value()?;
    let form = match body {
        BodyForm::Json | BodyForm::GraphQl => Form::Json { ignore, only, fold },
        BodyForm::Raw => {
            members_of_raw_content(table, reader)?;
            Form::Raw
        }
    };
    let headers = table.headers.value()?.all()?.cloned().collect();
    let (graphql, most) = (*body == BodyForm::GraphQl, table.max_body.value()?.0.0);
    Some(Some(Arc::new(ContentKey { form, graphql, most, headers })))
}

/// Bytes have no members: what is said about them would be ignored.
fn members_of_raw_content(table: &ContentKeyTable, reader: &mut Reader<'_>) -> Option<()> {
    let written = [("ignore", &table.ignore), ("only", &table.only), ("fold", &table.fold)];
    let mut right = Some(());
    for (name, set) in written.into_iter().filter(|(_, set)| set.written) {
        reader.report(
            Problem::of(&set.spot, "content that counts by its bytes has no members")
                .help(format!("write body = \"json\", or remove `{name}`")),
        );
        right = None;
    }
    right
}

fn pointers(set: &Set<List<JsonPointer>>) -> Option<Vec<Pointer>> {
    Some(set.value()?.all()?.map(|pointer| pointer.0.clone()).collect())
}

fn lifetimes(file: &File, cache: Option<&CacheUseTable>, reader: &mut Reader<'_>) -> Option<Lifetimes> {
    let Some(table) = cache else { return Some(Lifetimes::default()) };
    let lifetimes = Lifetimes {
        ttl: table.ttl.optional()?.map(|ttl| ttl.0),
        ttl_mode: table.ttl_mode.optional()?.copied(),
        stale_while_revalidate: table.stale_while_revalidate.optional()?.map(|time| time.0),
        stale_if_error: table.stale_if_error.optional()?.map(|time| time.0),
        stale_mode: table.stale_mode.optional()?.copied(),
    };
    let caches = file.caches.value()?;
    let used = caches.position(&table.r#use.value()?.0).and_then(|position| caches.items.get(position));
    let applies = lifetimes.ttl.is_some() || used.is_none_or(|(_, _, cache)| !is_without_ttl(cache));
    if lifetimes.ttl_mode.is_some_and(|mode| mode != TtlMode::Default) && !applies {
        reader.report(
            Problem::of(&table.ttl_mode.spot, "there is no ttl that it could apply to")
                .help("add ttl = \"1h\" or another duration beside it, or remove ttl_mode"),
        );
    }
    Some(lifetimes)
}

fn store_when(cache: Option<&CacheUseTable>) -> Option<StoreWhen> {
    let Some(cache) = cache else { return Some(StoreWhen::default()) };
    let table = cache.store_when.value()?;
    let mut absent = pointers(&table.absent)?;
    let key = cache.key.optional()?.and_then(|key| key.body.value());
    if key == Some(&BodyForm::GraphQl) {
        // An answer of status 200 may hold errors in place of what was asked for.
        absent.extend(Pointer::parse("errors"));
    }
    Some(StoreWhen {
        status: table.status.value()?.0.all()?.map(|statuses| (statuses.0, statuses.1)).collect(),
        present: pointers(&table.present)?,
        absent,
        least: table.min_size.value()?.0.0,
        ends_with: table.ends_with.optional()?.map(|text| text.0.clone()),
    })
}

fn action(file: &File, table: &RouteTable, spot: &Spot, reader: &mut Reader<'_>) -> Option<Action> {
    if let Some(files) = table.files.optional()? {
        return content::action(table, files, reader);
    }
    let cache = cache(file, table, reader);
    match (table.upstream.optional(), table.respond.optional()) {
        (Some(None), Some(None)) => {
            reader.report(Problem::of(spot, "nobody answers").help(
                "add upstream = \"NAME\", files = { root = \"FOLDER\" }, or respond = { status = 404 }",
            ));
            None
        }
        (Some(Some(name)), Some(None)) => {
            let upstreams = file.upstreams.value()?;
            let upstream = resolve(&name.0, &table.upstream.spot, upstreams, &UPSTREAMS, reader);
            Some(Action::Forward { upstream: upstream?, cache: cache? })
        }
        (Some(None), Some(Some(respond))) => {
            ignored_by_respond(table, reader);
            let status = StatusCode::from_u16(respond.status.value()?.as_u16()).ok()?;
            Some(Action::Respond { status, body: respond.body.value()?.0.clone() })
        }
        (_, None) | (None, _) => None,
        (Some(Some(_)), Some(Some(_))) => {
            reader.report(
                Problem::of(&table.respond.spot, "an upstream and respond cannot both answer")
                    .also(&table.upstream.spot, "the upstream")
                    .help("remove one of the two"),
            );
            None
        }
    }
}

/// `Some(None)`: no cache was asked for.
fn cache(file: &File, table: &RouteTable, reader: &mut Reader<'_>) -> Option<Option<usize>> {
    let Some(cache) = table.cache.optional()? else { return Some(None) };
    let caches = file.caches.value()?;
    let name = &cache.0.r#use;
    let position = resolve(&name.value()?.0, &name.spot, caches, &CACHES, reader);
    let methods = table.r#match.value().and_then(|m| m.method.value());
    let known: &[&str] =
        if cache.0.key.is_absent() { &["GET", "HEAD"] } else { &["GET", "HEAD", "POST", "QUERY"] };
    let cacheable = |method: &Text| known.iter().any(|known| method.0.eq_ignore_ascii_case(known));
    let questions =
        |method: &Text| ["POST", "QUERY"].iter().any(|known| method.0.eq_ignore_ascii_case(known));
    if methods.is_some_and(|m| {
        m.0.complete && !m.0.items.is_empty() && !m.0.items.iter().any(|(_, m)| cacheable(m))
    }) {
        let asks = methods.is_some_and(|m| m.0.items.iter().any(|(_, m)| questions(m)));
        reader.report(match asks {
            true => Problem::of(
                &table.cache.spot,
                "this route takes no GET; a POST or QUERY is cached only with its content in the key, \
                 else every question would get the first one's answer",
            )
            .help("write cache = { use = \"NAME\", key = { body = \"json\" } }, or remove `cache`"),
            false => {
                Problem::of(&table.cache.spot, "this route never takes a GET, and no other answer is cached")
                    .help("remove `cache`, or add GET to the methods")
            }
        });
        return None;
    }
    position.map(Some)
}

/// What only an upstream would see is a mistake beside `respond`: it would be ignored.
fn ignored_by_respond(table: &RouteTable, reader: &mut Reader<'_>) {
    let settings = [
        ("cache", table.cache.written, &table.cache.spot),
        ("split", table.split.written, &table.split.spot),
        ("timeout", table.timeout.written, &table.timeout.spot),
        ("try_timeout", table.try_timeout.written, &table.try_timeout.spot),
        ("tries", table.tries.written, &table.tries.spot),
        ("retry_on", table.retry_on.written, &table.retry_on.spot),
        ("priority", table.priority.written, &table.priority.spot),
        ("cache_control", table.cache_control.written, &table.cache_control.spot),
        ("compress", table.compress.written, &table.compress.spot),
        ("request_headers", table.request_headers.written, &table.request_headers.spot),
        ("strip_prefix", table.strip_prefix.written, &table.strip_prefix.spot),
        ("replace_prefix", table.replace_prefix.written, &table.replace_prefix.spot),
    ];
    for (name, _, spot) in settings.into_iter().filter(|(_, written, _)| *written) {
        reader.report(
            Problem::of(spot, "it has no effect on a route that answers with respond")
                .help(format!("remove `{name}`")),
        );
    }
}

fn rewrite(table: &RouteTable, reader: &mut Reader<'_>) -> Option<Rewrite> {
    match (table.strip_prefix.optional()?, table.replace_prefix.optional()?) {
        (None, None) => Some(Rewrite::Keep),
        (Some(prefix), None) => {
            prefix_can_match(table, &table.strip_prefix.spot, &prefix.0, reader)?;
            Some(Rewrite::Strip(prefix.0.clone()))
        }
        (None, Some(replace)) => {
            let from: &Set<_> = &replace.from;
            prefix_can_match(table, &from.spot, &from.value()?.0, reader)?;
            Some(Rewrite::Replace { from: from.value()?.0.clone(), to: replace.to.value()?.0.clone() })
        }
        (Some(_), Some(_)) => {
            reader.report(
                Problem::of(&table.replace_prefix.spot, "strip_prefix and replace_prefix cannot both apply")
                    .also(&table.strip_prefix.spot, "the other")
                    .help("remove one of the two"),
            );
            None
        }
    }
}

/// A prefix that no path of the route begins with would never be removed.
fn prefix_can_match(table: &RouteTable, spot: &Spot, prefix: &str, reader: &mut Reader<'_>) -> Option<()> {
    let pattern = &table.r#match.value()?.path.value()?.0;
    let fixed = pattern.split(['*', '{']).next().unwrap_or(pattern);
    let whole = fixed.len() == pattern.len();
    let bare = prefix.trim_end_matches('/');
    let possible = fixed.starts_with(bare) || (!whole && bare.starts_with(fixed));
    if !possible {
        reader.report(
            Problem::of(spot, format!("no path of this route begins with \"{prefix}\""))
                .help(format!("the route takes paths like \"{pattern}\"")),
        );
    }
    possible.then_some(())
}
