//! How a path is changed before it is sent on.

use std::borrow::Cow;

use super::RouteError;
use super::path::literal;

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

impl Rewrite {
    /// The rewrite itself, when its prefixes can be found in a request's path.
    ///
    /// # Errors
    /// [`RouteError::Path`] when a prefix does not begin with `/` or is spelled as no normalised path is.
    pub fn checked(self) -> Result<Self, RouteError> {
        match &self {
            Self::Keep => {}
            Self::Strip(prefix) => check(prefix)?,
            Self::Replace { from, to } => {
                check(from)?;
                check(to)?;
            }
        }
        Ok(self)
    }

    /// The path to send on; borrowed when nothing changes. A prefix ends where a segment ends, so that `/api` is no prefix of `/apix`, and
    /// may be written with or without a last `/`. The result begins with `/`.
    pub fn apply<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match self {
            Self::Keep => Cow::Borrowed(path),
            Self::Strip(prefix) => match after(prefix, path) {
                Some("") => Cow::Borrowed("/"),
                Some(rest) => Cow::Borrowed(rest),
                None => Cow::Borrowed(path),
            },
            Self::Replace { from, to } => match after(from, path) {
                Some(rest) => joined(to, rest),
                None => Cow::Borrowed(path),
            },
        }
    }
}

fn check(prefix: &str) -> Result<(), RouteError> {
    let wrong = |hint: String| RouteError::Path(format!("\"{prefix}\" is not a prefix: {hint}"));
    let below = prefix.strip_prefix('/').ok_or_else(|| wrong("it begins with \"/\"".into()))?;
    below.split('/').try_for_each(|segment| literal(segment).map_err(wrong))
}

/// What follows `prefix` in `path`: nothing, or a `/` and more. `None` when `path` lies elsewhere.
fn after<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn joined<'a>(to: &str, rest: &'a str) -> Cow<'a, str> {
    let to = to.strip_suffix('/').unwrap_or(to);
    match (to, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (to, rest) => Cow::Owned(format!("{to}{rest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_removed_where_a_segment_ends() {
        for (prefix, path, sent) in [
            ("/api", "/api/users", "/users"),
            ("/api", "/api", "/"),
            ("/api", "/api/", "/"),
            ("/api/", "/api/users", "/users"),
            ("/api", "/apix", "/apix"),
            ("/api", "/x/api", "/x/api"),
            ("/api", "/api//a", "//a"),
            ("/", "/users", "/users"),
            ("/api", "*", "*"),
            ("/", "*", "*"),
        ] {
            assert_eq!(Rewrite::Strip(prefix.into()).apply(path), sent, "{prefix} off {path}");
        }
    }

    #[test]
    fn a_prefix_is_replaced_where_a_segment_ends() {
        for (from, to, path, sent) in [
            ("/v1", "/api/v2", "/v1/users", "/api/v2/users"),
            ("/v1", "/api/v2", "/v1", "/api/v2"),
            ("/v1", "/api/v2", "/v1/", "/api/v2/"),
            ("/v1/", "/api/v2/", "/v1/users", "/api/v2/users"),
            ("/v1", "/api/v2", "/v10", "/v10"),
            ("/v1", "/", "/v1", "/"),
            ("/v1", "/", "/v1/users", "/users"),
            ("/", "/api", "/users", "/api/users"),
            ("/", "/api", "/", "/api/"),
            ("/", "/api", "*", "*"),
        ] {
            let rewrite = Rewrite::Replace { from: from.into(), to: to.into() };
            assert_eq!(rewrite.apply(path), sent, "{from} by {to} in {path}");
        }
    }

    #[test]
    fn what_does_not_change_is_borrowed() {
        for rewrite in [Rewrite::Keep, Rewrite::Strip("/a".into())] {
            assert!(matches!(rewrite.apply("/b"), Cow::Borrowed("/b")));
        }
    }

    #[test]
    fn a_prefix_that_no_path_can_have_is_refused() {
        for prefix in ["", "api", "/a?b", "/a/*", "/a/../b", "/a b", "/%61", "/{id}"] {
            assert!(Rewrite::Strip(prefix.into()).checked().is_err(), "{prefix}");
            let replace = Rewrite::Replace { from: "/a".into(), to: prefix.into() };
            assert!(replace.checked().is_err(), "{prefix}");
        }
        for prefix in ["/", "/api", "/api/", "/caf%C3%A9/v2"] {
            assert!(Rewrite::Strip(prefix.into()).checked().is_ok(), "{prefix}");
        }
        assert_eq!(Rewrite::Keep.checked(), Ok(Rewrite::Keep));
    }
}
