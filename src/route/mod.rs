//! Whose request is it?
//!
//! A [`Table`] compares a request's host, path and method with every rule and answers with the position of the one that wins. The
//! order is stated once and holds everywhere:
//!
//! 1. host: an exact name beats a wildcard (`*.example.com`, the longest suffix first), which beats any host;
//! 2. path: an exact path beats a pattern with parameters (`/users/{id}`), which beats a prefix (`/assets/*`, the deepest first); of two
//!    patterns alike in this, the one that has a literal segment where the other has a parameter;
//! 3. method: a rule that names methods beats one that does not;
//! 4. else the rule written first.
//!
//! Only rules that match in all three compete: a request for a host that has rules of its own, none of which takes the path and method,
//! is still offered to the wildcards and then to the rules for any host.
//!
//! A rule that no request can ever reach is a mistake, found when the table is built.
//!
//! Not here: I/O, logging, what happens to the request next.

mod host;
mod path;
mod rewrite;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use http::Method;

use host::{Host, suffixes};
use path::Path;

pub use rewrite::Rewrite;

/// Finds the route of a request.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rules: Vec<Match>,
    exact: HashMap<String, Paths>,
    below: HashMap<String, Paths>,
    any: Paths,
}

/// The rules of one host: positions in [`Table::rules`], the winner first.
#[derive(Debug, Clone, Default)]
struct Paths {
    exact: HashMap<String, Vec<usize>>,
    patterns: Vec<usize>,
}

/// What a request must look like. Built from text by [`Match::parse`], so that a mistake is reported where it was written.
///
/// Its `Display` is the rule as a person would say it: `GET,POST api.example.com/users/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Empty: any host. Sorted, each once.
    hosts: Vec<Host>,
    path: Path,
    /// Empty: any method. Each once, as written; `GET` stands for `HEAD` too.
    methods: Vec<Method>,
}

/// Why a match or a table could not be built. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A host pattern that can match nothing.
    #[error("{0}")]
    Host(String),
    /// A path pattern that can match nothing.
    #[error("{0}")]
    Path(String),
    /// A method name that is not a token.
    #[error("{0}")]
    Method(String),
    /// Two rules match exactly the same requests, or an earlier rule takes every request of a later one.
    #[error("no request can reach it: rule {by} takes all of them")]
    Unreachable {
        /// The position of the rule nobody reaches.
        rule: usize,
        /// The position of the rule that takes its requests.
        by: usize,
    },
}

/// The first part of a rule that a request does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is for other hosts.
    Host,
    /// It is for other paths.
    Path,
    /// It is for other methods.
    Method,
}

impl Match {
    /// Reads the `match` of a route: hosts, path and methods as written.
    ///
    /// Hosts are names (`api.example.com`), wildcards of one or more labels (`*.example.com`, which is not `example.com` itself) or IP
    /// addresses, without a port and in any case; none means any. The path is exact (`/query`), a prefix (`/assets/*`: `/assets/` and what
    /// lies below it, not `/assets`; `/*` is every path) or has parameters (`/users/{id}/posts`, `/users/{id}/*`), each standing for one
    /// segment that is not empty. Methods are case-sensitive (RFC 9110 §9.1); none means any, and `GET` takes `HEAD` too.
    ///
    /// # Errors
    /// Every part that can match nothing, all at once.
    pub fn parse(hosts: &[String], path: &str, methods: &[String]) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut keep = |error| errors.push(error);
        let mut hosts: Vec<Host> =
            hosts.iter().filter_map(|text| Host::parse(text).map_err(&mut keep).ok()).collect();
        let path = Path::parse(path).map_err(&mut keep).ok();
        let mut named: Vec<Method> = Vec::new();
        for text in methods {
            match method(text) {
                Ok(method) if named.contains(&method) => {}
                Ok(method) => named.push(method),
                Err(error) => keep(error),
            }
        }
        hosts.sort();
        hosts.dedup();
        match path {
            Some(path) if errors.is_empty() => Ok(Self { hosts, path, methods: named }),
            _ => Err(errors),
        }
    }

    /// What keeps it from matching a request; `None` when it matches. `host` and `path` are as [`Table::find`] takes them.
    pub fn mismatch(&self, host: &str, path: &str, method: &Method) -> Option<Mismatch> {
        let same = |named: &Host| match named {
            Host::Exact(name) => name == host,
            Host::Below(below) => suffixes(host).any(|suffix| suffix == below),
        };
        if !self.hosts.is_empty() && !self.hosts.iter().any(same) {
            Some(Mismatch::Host)
        } else if !self.path.matches(path) {
            Some(Mismatch::Path)
        } else {
            (!self.takes(method)).then_some(Mismatch::Method)
        }
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    /// Which of two rules for the same host wins a request that both match; equal when the one written first does.
    fn order(&self, other: &Self) -> Ordering {
        self.path.order(&other.path).then(self.methods.is_empty().cmp(&other.methods.is_empty()))
    }

    /// Whether every request that `later` matches and would win by host and path is this rule's already, because it stands first.
    fn hides(&self, later: &Self) -> bool {
        let hosts = if later.hosts.is_empty() {
            self.hosts.is_empty()
        } else {
            later.hosts.iter().all(|host| self.hosts.contains(host))
        };
        // A rule that names no method yields to one that does, so it hides only another such rule.
        let methods = if later.methods.is_empty() {
            self.methods.is_empty()
        } else {
            !self.methods.is_empty() && later.methods.iter().all(|method| self.takes(method))
        };
        hosts && methods && self.path.same_as(&later.path)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.methods)?;
        if !self.methods.is_empty() {
            f.write_str(" ")?;
        }
        write_list(f, &self.hosts)?;
        self.path.fmt(f)
    }
}

impl Table {
    /// Builds the table; positions in `rules` are what [`Table::find`] answers with.
    ///
    /// # Errors
    /// Every rule that no request can reach because one other rule takes all of its requests, all at once.
    pub fn new(rules: Vec<Match>) -> Result<Self, Vec<RouteError>> {
        let hidden: Vec<RouteError> = (0..rules.len())
            .filter_map(|rule| {
                let by = (0..rule).find(|&by| rules[by].hides(&rules[rule]))?;
                Some(RouteError::Unreachable { rule, by })
            })
            .collect();
        if hidden.is_empty() { Ok(Self::indexed(rules)) } else { Err(hidden) }
    }

    /// The rule that wins for a request. `host` is the normalised name without port, `path` the normalised path without query.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Option<usize> {
        let exact = self.exact.get(host);
        let suffixes = (!self.below.is_empty()).then(|| suffixes(host)).into_iter().flatten();
        let below = suffixes.filter_map(|suffix| self.below.get(suffix));
        exact.into_iter().chain(below).chain([&self.any]).find_map(|paths| self.among(paths, path, method))
    }

    /// The rules, in the order they were given: what [`Table::find`] answers with is a position here.
    pub fn rules(&self) -> &[Match] {
        &self.rules
    }

    fn among(&self, paths: &Paths, path: &str, method: &Method) -> Option<usize> {
        let exact = paths.exact.get(path).into_iter().flatten();
        exact
            .chain(paths.patterns.iter().filter(|&&rule| self.rules[rule].path.matches(path)))
            .find(|&&rule| self.rules[rule].takes(method))
            .copied()
    }

    fn indexed(rules: Vec<Match>) -> Self {
        let mut order: Vec<usize> = (0..rules.len()).collect();
        order.sort_by(|&a, &b| rules[a].order(&rules[b]));
        let mut table = Self::default();
        for position in order {
            let rule = &rules[position];
            if rule.hosts.is_empty() {
                table.any.add(position, &rule.path);
            }
            for host in &rule.hosts {
                let paths = match host {
                    Host::Exact(name) => table.exact.entry(name.clone()),
                    Host::Below(suffix) => table.below.entry(suffix.clone()),
                };
                paths.or_default().add(position, &rule.path);
            }
        }
        table.rules = rules;
        table
    }
}

impl Paths {
    fn add(&mut self, position: usize, path: &Path) {
        match path.exact() {
            Some(exact) => self.exact.entry(exact.into()).or_default().push(position),
            None => self.patterns.push(position),
        }
    }
}

const KNOWN_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH];

/// Reads a method's name; `get` is refused because methods are case-sensitive (RFC 9110 §9.1) and it would silently match nothing.
fn method(text: &str) -> Result<Method, RouteError> {
    let wrong = |hint: String| RouteError::Method(format!("\"{text}\" is not a method: {hint}"));
    let upper = text.to_ascii_uppercase();
    if upper == "CONNECT" || upper == "TRACE" {
        return Err(wrong("it is refused before any route is asked".into()));
    }
    if text != upper && KNOWN_METHODS.iter().any(|known| known.as_str() == upper) {
        return Err(wrong(format!("methods are case-sensitive; write \"{upper}\"")));
    }
    Method::from_bytes(text.as_bytes())
        .map_err(|_| wrong("write a name like \"GET\" or \"QUERY\", or leave the methods out for any".into()))
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            f.write_str(",")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
