//! Rates, users, files, and the words of what stands before the routes.

use std::time::Duration;

use http::HeaderName;

use crate::config::setting::FromText;
use crate::config::suggest::nearest;
use crate::config::table::words;
use crate::forward::edit::{NotAValue, Template, VARIABLES};
use crate::forward::security::Frame;
use crate::guard::auth::{Hash, NotAUser, Users};
use crate::guard::rate::KeyBy;
use crate::plan::ward::{Tell, WithoutRedis};

/// A number of requests in a time: `100/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerTime {
    /// The requests; at least 1.
    pub count: u32,
    /// The time.
    pub period: Duration,
}

/// The most requests a rate may name.
const MOST: u32 = 10_000_000;

impl FromText for PerTime {
    fn what() -> String {
        "a rate".to_owned()
    }

    const EXAMPLE: &'static str = "100/s";
    const PATTERN: &'static str = r"^[0-9]+ */ *(s|m|min|h|d)$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = || {
            Some(format!(
                "write a number from 1 to {MOST} and a time: \"100/s\", \"600/min\", \"1000/h\" or \"10000/d\""
            ))
        };
        let (count, unit) = text.split_once('/').ok_or_else(help)?;
        let count = count.trim();
        let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        let count =
            count.parse().ok().filter(|count| digits && (1..=MOST).contains(count)).ok_or_else(help)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(help()),
        };
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

impl FromText for KeyBy {
    fn what() -> String {
        "what tells clients apart".to_owned()
    }

    const EXAMPLE: &'static str = "header:X-Api-Key";
    const PATTERN: &'static str = r"^(address|token|all|header:.+|cookie:.+)$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let token = |name: &str| HeaderName::try_from(name).map_err(|_| None);
        match text.split_once(':') {
            Some(("header", name)) => token(name).map(Self::Header),
            // The name of a cookie is a token, too (RFC 6265 §4.1.1), but its case counts.
            Some(("cookie", name)) => token(name).map(|_| Self::Cookie(name.to_owned())),
            _ => match text {
                "address" => Ok(Self::Address),
                "token" => Ok(Self::Token),
                "all" => Ok(Self::All),
                _ => Err(Some(
                    "write \"address\", \"token\", \"header:NAME\", \"cookie:NAME\" or \"all\"".to_owned(),
                )),
            },
        }
    }
}

/// Who counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each gateway for itself.
    Gateway,
    /// All that share the Redis.
    Fleet,
}

words! { Scope, "who counts together",
    "gateway" => Self::Gateway,
    "fleet" => Self::Fleet,
}

words! { WithoutRedis, "what to do without Redis",
    "local" => Self::Local,
    "allow" => Self::Allow,
    "refuse" => Self::Refuse,
}

/// Whether answers from storage count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// They do.
    Count,
    /// They do not.
    Free,
}

words! { Hits, "a way to count hits",
    "count" => Self::Count,
    "free" => Self::Free,
}

words! { Tell, "which answers tell",
    "always" => Self::Always,
    "refused" => Self::Refused,
    "never" => Self::Never,
}

/// Whether instances get `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// No.
    Strip,
    /// Yes.
    Pass,
}

words! { Authorization, "a way to treat Authorization",
    "strip" => Self::Strip,
    "pass" => Self::Pass,
}

/// Who may show an answer in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameWord(pub Option<Frame>);

words! { FrameWord, "a rule for frames",
    "sameorigin" => Self(Some(Frame::SameOrigin)),
    "deny" => Self(Some(Frame::Deny)),
    "off" => Self(None),
}

/// What a browser shows when it asks for a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealmText(pub String);

impl FromText for RealmText {
    fn what() -> String {
        "the name of a realm".to_owned()
    }

    const EXAMPLE: &'static str = "Staff only";
    const PATTERN: &'static str = r#"^[ !#-\[\]-~]+$"#;

    /// What stands in a quoted string as it is (RFC 9110 §5.6.4).
    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let plain = |b: u8| matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
        let right = !text.is_empty() && text.len() <= 200 && text.bytes().all(plain);
        right.then(|| Self(text.to_owned())).ok_or_else(|| {
            Some(
                "use up to 200 letters, digits, spaces and signs but `\"` and `\\`, like \"Staff only\""
                    .to_owned(),
            )
        })
    }
}

/// A user and the hash of a password, as one text.
#[derive(Clone, PartialEq, Eq)]
pub struct UserLine(pub String);

impl std::fmt::Debug for UserLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserLine(***)")
    }
}

impl FromText for UserLine {
    fn what() -> String {
        "a user".to_owned()
    }

    const EXAMPLE: &'static str = "alice:$argon2id$v=19$…";
    const SECRET: bool = true;
    const HIDDEN: bool = true;

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        match Users::of_lines([text]) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err((_, why)) => Err(Some(user_help(why, text))),
        }
    }
}

/// What would be right in place of a line that is no user.
pub fn user_help(why: NotAUser, line: &str) -> String {
    match why {
        NotAUser::Form if Hash::parse(line).is_ok() => {
            "write the user's name and a colon before the hash".to_owned()
        }
        NotAUser::Form | NotAUser::Hash => {
            "write name:hash, as `vanne hash-password --user NAME` or `htpasswd -nB NAME` print it".to_owned()
        }
        NotAUser::Twice => "give each user one line".to_owned(),
    }
}

/// A field's value, with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(pub Template);

impl FromText for FieldValue {
    fn what() -> String {
        "the value of a header field".to_owned()
    }

    const EXAMPLE: &'static str = "{client_ip}";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        Template::parse(text).map(Self).map_err(|why| {
            Some(match why {
                NotAValue::Characters => {
                    "a value has at least one character, and no line ends or other controls".to_owned()
                }
                NotAValue::Variable(name) => {
                    let known = VARIABLES.map(|(known, _)| known);
                    match nearest(&name, known) {
                        Some(near) => format!("there is no variable {{{name}}}; did you mean {{{near}}}?"),
                        None => format!("there is no variable {{{name}}}; known: {}", known.join(", ")),
                    }
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        let rate = |text: &str| PerTime::from_text(text).ok().map(|rate| (rate.count, rate.period.as_secs()));
        for (text, expected) in [
            ("100/s", (100, 1)),
            ("600/min", (600, 60)),
            ("5 / m", (5, 60)),
            ("1/h", (1, 3600)),
            ("9/d", (9, 86_400)),
        ] {
            assert_eq!(rate(text), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "100",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "10000001/s",
            "1/week",
            "1/s/s",
            "99999999999/s",
        ] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn clients_are_told_apart_by_a_word_or_by_a_named_field_or_cookie() {
        let key = |text: &str| KeyBy::from_text(text).ok();
        assert_eq!(key("address"), Some(KeyBy::Address));
        assert_eq!(key("header:X-Api-Key"), Some(KeyBy::Header(HeaderName::from_static("x-api-key"))));
        assert_eq!(key("cookie:Session"), Some(KeyBy::Cookie("Session".into())));
        for wrong in ["", "header", "header:", "header:a b", "cookie:", "ip", "Address"] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_realm_needs_no_escaping() {
        assert!(RealmText::from_text("Staff only").is_ok());
        for wrong in ["", "a\"b", "a\\b", "a\r\nb", "ä"] {
            assert!(RealmText::from_text(wrong).is_err(), "{wrong}");
        }
    }
}
