//! Whose request is it?
//!
//! A [`Table`] compares a request's host, path and method with every rule and answers with the position of the one that wins. The
//! order is stated once and holds everywhere:
//!
//! 1. host: an exact name beats a wildcard (`*.example.com`, the longest suffix first), which beats any host;
//! 2. path: an exact path beats a pattern with parameters (`/users/{id}`), which beats a prefix (`/assets/*`, the longest first);
//! 3. method: a rule that names methods beats one that does not;
//! 4. else the rule written first.
//!
//! A rule that no request can ever reach is a mistake, found when the table is built.
//!
//! Not here: I/O, logging, what happens to the request next.

use http::Method;

/// Finds the route of a request.
#[derive(Debug, Clone, Default)]
pub struct Table {}

/// What a request must look like. Built from text by [`Match::parse`], so that a mistake is reported where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {}

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

/// How a path is changed before it is sent on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// Sent on as it came.
    #[default]
    Keep,
    /// The prefix is removed: `/api/users` → `/users`.
    Strip(String),
    /// The prefix is replaced by another: `/v1/users` → `/api/v2/users`.
    Replace {
        /// What is removed.
        from: String,
        /// What comes in its place.
        to: String,
    },
}

impl Match {
    /// Reads the `match` of a route: hosts, path and methods as written.
    ///
    /// # Errors
    /// Every part that can match nothing, all at once.
    pub fn parse(_hosts: &[String], _path: &str, _methods: &[String]) -> Result<Self, Vec<RouteError>> {
        unimplemented!()
    }
}

impl Table {
    /// Builds the table; positions in `rules` are what [`Table::find`] answers with.
    ///
    /// # Errors
    /// Every rule that no request can reach, all at once.
    pub fn new(_rules: Vec<Match>) -> Result<Self, Vec<RouteError>> {
        unimplemented!()
    }

    /// The rule that wins for a request. `host` is the normalised name without port, `path` the normalised path without query.
    pub fn find(&self, _host: &str, _path: &str, _method: &Method) -> Option<usize> {
        unimplemented!()
    }
}

impl Rewrite {
    /// The path to send on; borrowed when nothing changes.
    pub fn apply<'a>(&self, _path: &'a str) -> std::borrow::Cow<'a, str> {
        unimplemented!()
    }
}
