//! Cookies that nobody would ever be given.

use crate::config::file::{File, RouteTable};
use crate::config::kind::OrOff;
use crate::config::problem::Problem;
use crate::config::read::Reader;
use crate::plan::{Action, Cache, Route};

/// What a cache fetches is for everybody and carries no cookie: an upstream that only caches ask binds no client.
pub fn judge(file: &File, routes: &[Route], caches: &[Cache], reader: &mut Reader<'_>) -> Option<()> {
    let (upstreams, tables) = (file.upstreams.value()?, &file.routes.value()?.items);
    let mut right = Some(());
    for (position, (_, name, table)) in upstreams.items.iter().enumerate() {
        if !matches!(table.sticky.value(), Some(OrOff::On(_))) {
            continue;
        }
        let mut leading = routes.iter().zip(tables).filter(|(route, _)| leads_to(route, position)).peekable();
        let asked = leading.peek().is_some();
        if asked && leading.all(|(route, (_, table))| is_for_a_cache_alone(route, table, caches)) {
            reader.report(
                Problem::of(&table.sticky.spot, "no client would ever be given this cookie")
                    .help(format!("every route to `{name}` takes only what its cache fetches, for everybody: remove `sticky`, or the `cache`")),
            );
            right = None;
        }
    }
    right
}

fn leads_to(route: &Route, position: usize) -> bool {
    let split = route.split.iter().flat_map(|split| split.upstreams()).any(|upstream| upstream == position);
    split || matches!(route.action, Action::Forward { upstream, .. } if upstream == position)
}

fn is_for_a_cache_alone(route: &Route, table: &RouteTable, caches: &[Cache]) -> bool {
    let Action::Forward { cache: Some(cache), .. } = route.action else { return false };
    let Some(methods) = table.r#match.value().and_then(|m| m.method.value()) else { return false };
    let bypass = &caches[cache].rules.bypass;
    let passes_none = bypass.headers.is_empty() && bypass.cookies.is_empty();
    let cached = |method: &str| ["GET", "HEAD"].iter().any(|known| known.eq_ignore_ascii_case(method));
    passes_none && !methods.0.items.is_empty() && methods.0.items.iter().all(|(_, method)| cached(&method.0))
}
