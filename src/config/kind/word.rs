//! Choices of a word.

use std::path::PathBuf;

use http::HeaderName;
use serde_json::{Value as Json, json};
use toml::de::{DeTable, DeValue};

use super::group::List;
use super::text::{CookieName, Label};
use crate::balance::HashOn;
use crate::balance::sticky::{SameSite, Secure};
use crate::cache::{ClientDirectives, Coalesce, QueryRule, Relay, SetCookie, TtlMode};
use crate::config::problem::Problem;
use crate::config::read::{Node, Reader};
use crate::config::setting::{FromText, Setting};
use crate::config::suggest::nearest;
use crate::config::table::words;
use crate::plan::{AccessLog, HealthStart, LogFormat, Priority};

/// How an instance is chosen, without what is particular to one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The fewest in flight.
    LeastConn,
    /// The client's network decides.
    IpHash,
    /// A part of the request decides.
    ConsistentHash,
    /// The soonest of two.
    P2c,
    /// By chance.
    Random,
}

words! { Balance, "a way to balance",
    "round_robin" => Self::RoundRobin,
    "least_conn" => Self::LeastConn,
    "ip_hash" => Self::IpHash,
    "consistent_hash" => Self::ConsistentHash,
    "p2c" => Self::P2c,
    "random" => Self::Random,
}

impl FromText for HashOn {
    fn what() -> String {
        "a part of a request".to_owned()
    }

    const EXAMPLE: &'static str = "header X-Tenant";
    const PATTERN: &'static str = r"^(client|path|(header|cookie|query) \S+)$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["client"] => Ok(Self::Client),
            ["path"] => Ok(Self::Path),
            ["header", name] => HeaderName::from_text(name).map(Self::Header),
            ["cookie", name] => CookieName::from_text(name).map(|name| Self::Cookie(name.0)),
            ["query", name] => Ok(Self::Query((*name).to_owned())),
            _ => Err(Some(
                "write \"client\", \"path\", \"header NAME\", \"cookie NAME\" or \"query NAME\"".to_owned(),
            )),
        }
    }
}

words! { Secure, "a choice of when a cookie is for https alone",
    "auto" => Self::Auto,
    "always" => Self::Always,
    "never" => Self::Never,
}

words! { SameSite, "a choice of which sites a cookie is sent from",
    "lax" => Self::Lax,
    "strict" => Self::Strict,
    "none" => Self::None,
}

words! { Priority, "a priority",
    "normal" => Self::Normal,
    "high" => Self::High,
}

words! { Coalesce, "a way to share fetches",
    "fleet" => Self::Fleet,
    "process" => Self::Process,
    "off" => Self::Off,
}

words! { Relay, "a choice of what is relayed",
    "streams" => Self::Streams,
    "all" => Self::All,
    "off" => Self::Off,
}

words! { TtlMode, "a ttl_mode",
    "default" => Self::Default,
    "override" => Self::Override,
    "cap" => Self::Cap,
}

words! { SetCookie, "a way to treat Set-Cookie",
    "refuse" => Self::Refuse,
    "strip" => Self::Strip,
    "store" => Self::Store,
}

words! { ClientDirectives, "a way to treat the client's directives",
    "honour" => Self::Honour,
    "ignore" => Self::Ignore,
}

words! { LogFormat, "a log format",
    "text" => Self::Text,
    "json" => Self::Json,
}

/// What a health check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckType {
    /// A GET is answered as expected.
    Http,
    /// A connection is accepted.
    Tcp,
    /// gRPC's health protocol says that it serves.
    Grpc,
}

words! { CheckType, "a type of health check",
    "http" => Self::Http,
    "tcp" => Self::Tcp,
    "grpc" => Self::Grpc,
}

words! { HealthStart, "a state to begin with",
    "up" => Self::Up,
    "down" => Self::Down,
}

/// Whether answers of several upstreams are stored apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// Each under a key of its own.
    Apart,
    /// Under one.
    Together,
}

words! { Versions, "a way to store several versions",
    "apart" => Self::Apart,
    "together" => Self::Together,
}

/// How a request's content enters its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// By its bytes.
    Raw,
    /// By its meaning as JSON.
    Json,
}

words! { BodyForm, "a way to read content into a key",
    "raw" => Self::Raw,
    "json" => Self::Json,
}

/// Which messages are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(pub String);

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl FromText for Level {
    fn what() -> String {
        "a log level".to_owned()
    }

    const EXAMPLE: &'static str = "info";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        for part in text.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                let known = LEVELS.join(", ");
                return Err(Some(match nearest(level, LEVELS) {
                    Some(near) => format!("did you mean \"{near}\"? known: {known}"),
                    None => format!("known: {known}; by part of the program: \"warn,vanne=debug\""),
                }));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromText for AccessLog {
    fn what() -> String {
        "a place for the access log".to_owned()
    }

    const EXAMPLE: &'static str = "stdout";
    const PATTERN: &'static str = r"^(stdout|off|.*/.*)$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            // A word without a slash is more likely a slip than a file in the working directory.
            path if path.contains('/') => Ok(Self::File(PathBuf::from(path))),
            _ => Err(Some(
                "write \"stdout\", \"off\" or a path, like \"/var/log/vanne/access.log\"".to_owned(),
            )),
        }
    }
}

/// A query rule that is one word.
enum QueryWord {
    /// All parameters count.
    All,
    /// None does.
    None,
}

words! { QueryWord, "a rule for the query",
    "all" => Self::All,
    "none" => Self::None,
}

impl Setting for QueryRule {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            DeValue::String(_) => Some(match QueryWord::read(node, reader)? {
                QueryWord::All => Self::All,
                QueryWord::None => Self::None,
            }),
            DeValue::Table(table) => query_names(node, table, reader),
            _ => {
                reader.mismatch(node, "a rule for the query", QUERY_EXAMPLE);
                None
            }
        }
    }

    fn schema() -> Json {
        let only_key = |word: &str| {
            let mut names = List::<Label>::schema();
            names["examples"] = json!([["page"]]);
            json!({
                "type": "object",
                "properties": { word: names },
                "required": [word],
                "additionalProperties": false,
            })
        };
        json!({ "anyOf": [{ "enum": ["all", "none"] }, only_key("only"), only_key("except")] })
    }
}

const QUERY_EXAMPLE: &str = "\"all\", \"none\", { only = [\"page\"] } or { except = [\"utm_source\"] }";

/// `{ only = […] }` or `{ except = […] }`
fn query_names(node: &Node<'_>, table: &DeTable<'_>, reader: &mut Reader<'_>) -> Option<QueryRule> {
    let known = ["only", "except"];
    reader.unknown_keys(node, table, &known);
    if table.keys().any(|key| !known.contains(&&**key.get_ref())) {
        return None;
    }
    let mut members = node.members(table).into_iter();
    let (Some((_, word, member)), None) = (members.next(), members.next()) else {
        reader.report(
            Problem::of(&node.spot, "expected either `only` or `except`")
                .help(format!("write it like {QUERY_EXAMPLE}")),
        );
        return None;
    };
    let names = List::<Label>::read(&member, reader)?.all()?.map(|name| name.0.clone()).collect();
    Some(if word == "only" { QueryRule::Only(names) } else { QueryRule::Except(names) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_is_a_word_or_words_by_part_of_the_program() {
        for right in ["info", "WARN", "warn,vanne=debug", "vanne::proxy=trace,off", "vanne[request]=info"] {
            assert!(Level::from_text(right).is_ok(), "{right}");
        }
        for wrong in ["", "inof", "vanne=loud", "info,", "vanne"] {
            assert!(Level::from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_access_log_is_a_word_or_a_path() {
        assert_eq!(AccessLog::from_text("off"), Ok(AccessLog::Off));
        assert_eq!(AccessLog::from_text("./access.log"), Ok(AccessLog::File("./access.log".into())));
        assert!(AccessLog::from_text("of").is_err());
    }
}
