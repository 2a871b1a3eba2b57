//! What routes say about content: files of a folder, what browsers may keep, what is compressed.

use std::sync::Arc;

use http::HeaderValue;

use crate::config::file::{CacheControlTable, CompressTable, FilesTable, RouteTable};
use crate::config::kind::{Directives, OrOff};
use crate::config::problem::Problem;
use crate::config::read::{Reader, Set};
use crate::config::setting::Fallback;
use crate::forward::{browser, coding};
use crate::plan::{Action, Files};

/// A table that is not written, for it has its defaults.
const DEFAULTS: Fallback = Fallback::Value("{}");
/// What is said of files where nothing else is: they may be kept, and are asked for whether they are still the same.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// The action of a route with `files`; `None` when it has none, or a wrong one.
pub fn action(table: &RouteTable, files: &FilesTable, reader: &mut Reader<'_>) -> Option<Action> {
    let others = [
        ("upstream", table.upstream.written, &table.upstream.spot),
        ("respond", table.respond.written, &table.respond.spot),
    ];
    let mut right = Some(());
    for (name, _, spot) in others.into_iter().filter(|(_, written, _)| *written) {
        reader.report(
            Problem::of(spot, format!("files and {name} cannot both answer"))
                .also(&table.files.spot, "the files")
                .help("remove one of the two, or make it a route of its own"),
        );
        right = None;
    }
    let ignored = [
        ("cache", table.cache.written, &table.cache.spot),
        ("split", table.split.written, &table.split.spot),
        ("priority", table.priority.written, &table.priority.spot),
    ];
    for (name, _, spot) in ignored.into_iter().filter(|(_, written, _)| *written) {
        reader.report(
            Problem::of(spot, "it has no effect on a route that answers with files")
                .help(format!("remove `{name}`")),
        );
    }
    let index = files.index.value()?.all()?.map(|name| name.0.clone()).collect();
    right?;
    Some(Action::Files(Arc::new(Files {
        root: files.root.value()?.0.clone(),
        index,
        clean_urls: *files.clean_urls.value()?,
        fallback: files.fallback.optional()?.map(|file| file.0.clone()),
        not_found: files.not_found.optional()?.map(|file| file.0.clone()),
        listing: *files.listing.value()?,
        memory: files.memory.value()?.0,
    })))
}

/// What browsers may keep: `Some(None)`: what the answers say. Files say nothing, so something is said for them.
pub fn browser(table: &RouteTable, reader: &mut Reader<'_>) -> Option<Option<Arc<browser::Rules>>> {
    let files = table.files.written;
    let unwritten;
    let written = match table.cache_control.optional()? {
        Some(written) => written,
        None if files => {
            unwritten =
                Set::<CacheControlTable>::unwritten("cache_control", DEFAULTS, &table.files.spot, reader);
            unwritten.value()?
        }
        None => return Some(None),
    };
    if files && written.replace.written {
        reader.report(
            Problem::of(&written.replace.spot, "it has no effect on a route that answers with files")
                .help("remove `replace`: files say nothing themselves"),
        );
    }
    let patterns = written.rules.value()?.all()?;
    let patterns = patterns.map(|rule| Some((rule.path.value()?.clone(), said(&rule.value)?)));
    let others = match written.others.optional()? {
        Some(value) => value.0.clone(),
        None => files.then_some(NO_CACHE),
    };
    Some(Some(Arc::new(browser::Rules {
        patterns: patterns.collect::<Option<_>>()?,
        fingerprinted: said(&written.fingerprinted)?,
        html: said(&written.html)?,
        others,
        replace: *written.replace.value()?,
    })))
}

fn said(set: &Set<Directives>) -> Option<Option<HeaderValue>> {
    set.value().map(|value| value.0.clone())
}

/// What is compressed: `Some(None)`: nothing.
pub fn compress(table: &RouteTable, reader: &mut Reader<'_>) -> Option<Option<Arc<coding::Rules>>> {
    let unwritten;
    let written = match table.compress.optional()? {
        Some(OrOff::On(written)) => written,
        Some(OrOff::Off) => return Some(None),
        None if table.files.written => {
            unwritten = Set::<CompressTable>::unwritten("compress", DEFAULTS, &table.files.spot, reader);
            unwritten.value()?
        }
        None => return Some(None),
    };
    let codings = written.codings.value()?;
    if codings.items.is_empty() && codings.complete {
        reader.report(
            Problem::of(&written.codings.spot, "without a coding nothing is compressed")
                .help("write compress = \"off\""),
        );
        return None;
    }
    if table.files.written && written.private.written {
        reader.report(
            Problem::of(&written.private.spot, "it has no effect on a route that answers with files")
                .help("remove `private`: files are the same for all"),
        );
    }
    Some(Some(Arc::new(coding::Rules {
        codings: codings.all()?.copied().collect(),
        types: written.types.value()?.all()?.map(|kind| kind.0.clone()).collect(),
        min_size: written.min_size.value()?.0.0,
        private: *written.private.value()?,
    })))
}
