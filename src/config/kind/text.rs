//! Names and paths.

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::is_name_byte;
use crate::balance::check::Pattern;
use crate::cache::content::Pointer;
use crate::config::setting::FromText;

/// A name that may stand in `Via` and `Cache-Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym(pub String);

impl FromText for Pseudonym {
    fn what() -> String {
        "a name for `Via`".to_owned()
    }

    const EXAMPLE: &'static str = "vanne";
    const PATTERN: &'static str = r"^[A-Za-z][A-Za-z0-9._-]*$";

    /// Both a token of `Via` (RFC 9110 §7.6.3) and one of structured fields (RFC 8941 §3.3.4).
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(is_name_byte);
        right.then(|| Self(text.to_owned())).ok_or_else(|| {
            Some("use letters, digits, `.`, `-` and `_`, a letter first, like \"vanne\"".to_owned())
        })
    }
}

/// What the keys in Redis begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(pub String);

impl FromText for Prefix {
    fn what() -> String {
        "a prefix for keys".to_owned()
    }

    const EXAMPLE: &'static str = "vanne";
    const PATTERN: &'static str = r"^[A-Za-z0-9._:-]+$";

    /// Without braces: Redis Cluster would take them for a hash tag and put every key on one node.
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = !text.is_empty() && text.bytes().all(|b| is_name_byte(b) || b == b':');
        right
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| Some("use letters, digits, `.`, `-`, `_` and `:`, like \"vanne\"".to_owned()))
    }
}

/// A secret that whoever asks must know; `None`: nobody may.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub Option<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Token(***)" } else { "Token(none)" })
    }
}

impl FromText for Token {
    fn what() -> String {
        "a token".to_owned()
    }

    const EXAMPLE: &'static str = "${VANNE_ADMIN_TOKEN}";
    const SECRET: bool = true;

    /// Long enough that guessing it over the network is hopeless, of characters that a header field takes.
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        match text {
            "" => Ok(Self(None)),
            text if text.len() >= 16 && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self(Some(text.to_owned())))
            }
            _ => Err(Some(
                "use at least 16 visible ASCII characters, as `openssl rand -hex 16` makes them".to_owned(),
            )),
        }
    }
}

/// A path and perhaps a query: it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub String);

impl FromText for Path {
    fn what() -> String {
        "a path".to_owned()
    }

    const EXAMPLE: &'static str = "/ready";
    const PATTERN: &'static str = "^/";

    /// Printable ASCII alone: anything else could not be sent in a request line (RFC 9112 §3.2).
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if !text.starts_with('/') {
            return Err(Some(format!("a path begins with `/`: \"/{text}\"")));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(Some(
                "write spaces and other characters percent-encoded, like \"/a%20b\"".to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromText for HeaderName {
    fn what() -> String {
        "the name of a header field".to_owned()
    }

    const EXAMPLE: &'static str = "X-Tenant";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|_| None)
    }
}

/// The name of a cookie: a token (RFC 6265 §4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(pub String);

impl FromText for CookieName {
    fn what() -> String {
        "the name of a cookie".to_owned()
    }

    const EXAMPLE: &'static str = "session";

    /// A field name is a token, too.
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        HeaderName::try_from(text).map(|_| Self(text.to_owned())).map_err(|_| None)
    }
}

/// A field or cookie, and the value it must have, if it must have one: "NAME", "NAME: VALUE" or "NAME=VALUE".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name, a token.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

impl FromText for Asked {
    fn what() -> String {
        "a name, or a name and a value".to_owned()
    }

    const EXAMPLE: &'static str = "X-Canary: yes";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let (name, value) = match text.split_once([':', '=']) {
            Some((name, value)) => (name.trim(), Some(value.trim().to_owned())),
            None => (text.trim(), None),
        };
        HeaderName::try_from(name).map_err(|_| None)?;
        Ok(Self { name: name.to_owned(), value })
    }
}

/// A place in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPointer(pub Pointer);

impl FromText for JsonPointer {
    fn what() -> String {
        "the name of a member of JSON, or a pointer to one".to_owned()
    }

    const EXAMPLE: &'static str = "/client/version";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        Pointer::parse(text).map(Self).ok_or(None)
    }
}

/// A place in JSON, as a pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPlace(pub String);

impl FromText for JsonPlace {
    fn what() -> String {
        JsonPointer::what()
    }

    const EXAMPLE: &'static str = "/checks/database";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        JsonPointer::from_text(text)?;
        Ok(Self(if text.starts_with('/') { text.to_owned() } else { format!("/{text}") }))
    }
}

/// A regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regexp(pub Pattern);

impl FromText for Regexp {
    fn what() -> String {
        "a regular expression of a reasonable size".to_owned()
    }

    const EXAMPLE: &'static str = "^ok$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help =
            "the syntax is that of Rust's regex crate; in TOML, 'single quotes' keep backslashes as they are";
        Pattern::parse(text).map(Self).ok_or_else(|| Some(help.to_owned()))
    }
}

/// A name for metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(pub String);

impl FromText for Label {
    fn what() -> String {
        "a name".to_owned()
    }

    const EXAMPLE: &'static str = "search";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = !text.trim().is_empty() && !text.chars().any(char::is_control);
        right.then(|| Self(text.to_owned())).ok_or(None)
    }
}

/// Any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl FromText for Text {
    fn what() -> String {
        "text".to_owned()
    }

    const EXAMPLE: &'static str = "…";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        Ok(Self(text.to_owned()))
    }

    fn text_schema() -> Json {
        json!({ "type": "string" })
    }
}
