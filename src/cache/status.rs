//! Telling what the cache did: `Cache-Status` (RFC 9211).

use std::time::Duration;

/// Where a stored answer lay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// This process's memory.
    Memory,
    /// Redis.
    Redis,
}

/// Why a request went to the origin (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Passed by: the cache was not to be used.
    Bypass,
    /// The method's semantics.
    Method,
    /// Nothing under this key.
    UriMiss,
    /// Something under this key, but not for these request fields.
    VaryMiss,
    /// The client's directives.
    Request,
    /// What was stored is stale.
    Stale,
    /// Only a part was asked for and stored.
    Partial,
}

/// What the cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Served from storage.
    Hit {
        /// From where.
        tier: Tier,
        /// Remaining freshness in seconds; negative when stale.
        ttl: i64,
    },
    /// Sent to the origin.
    Forwarded {
        /// Why.
        why: Forward,
        /// The origin's status, where it differs from the one sent or is worth telling.
        status: Option<u16>,
        /// The answer was stored.
        stored: bool,
        /// It waited for another request's fetch and shared its answer.
        collapsed: bool,
        /// The freshness of what was stored, in seconds.
        ttl: Option<i64>,
    },
}

impl Tier {
    fn suffix(self) -> &'static str {
        match self {
            Tier::Memory => "-mem",
            Tier::Redis => "-redis",
        }
    }
}

impl Forward {
    /// The token that RFC 9211 §2.2 gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "uri-miss",
            Forward::VaryMiss => "vary-miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
            Forward::Partial => "partial",
        }
    }
}

/// Writes one member of `Cache-Status`. `name` is the gateway's: a hit is told under `name-mem` or `name-redis`, the rest under `name`. `detail` is
/// written as a string.
pub fn member(name: &str, outcome: &Outcome, detail: Option<&str>) -> String {
    let mut out = String::with_capacity(64);
    match outcome {
        Outcome::Hit { tier, ttl } => {
            // Told of every hit: no formatting where there is nothing to format.
            push_item(&mut out, &[name, tier.suffix()].concat());
            out.push_str("; hit; ttl=");
            push_number(&mut out, in_range(*ttl));
        }
        Outcome::Forwarded { why, status, stored, collapsed, ttl } => {
            push_item(&mut out, name);
            out.push_str("; fwd=");
            out.push_str(why.as_str());
            if let Some(status) = status {
                out.push_str(&format!("; fwd-status={status}"));
            }
            for (is_so, parameter) in [(*stored, "; stored"), (*collapsed, "; collapsed")] {
                if is_so {
                    out.push_str(parameter);
                }
            }
            if let Some(ttl) = ttl {
                out.push_str(&format!("; ttl={}", in_range(*ttl)));
            }
        }
    }
    if let Some(detail) = detail {
        out.push_str("; detail=");
        push_item(&mut out, detail);
    }
    out
}

/// What remains of a lifetime, in whole seconds as Age counts them, so that the two add up; negative past freshness.
pub fn ttl_seconds(lifetime: Duration, age: Duration) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    whole(lifetime) - whole(age)
}

fn push_number(out: &mut String, number: i64) {
    if number < 0 {
        out.push('-');
    }
    let mut digits = [b'0'; 20];
    let mut rest = number.unsigned_abs();
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

/// Structured fields hold integers of fifteen digits (RFC 9651 §3.3.1).
fn in_range(seconds: i64) -> i64 {
    const MOST: i64 = 999_999_999_999_999;
    seconds.clamp(-MOST, MOST)
}

/// A name as a token when it is one (RFC 9651 §3.3.4), else as a string.
fn push_item(out: &mut String, name: &str) {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    if begins && name.bytes().all(is_token_byte) {
        out.push_str(name);
    } else {
        push_string(out, name);
    }
}

/// A string (RFC 9651 §3.3.3): what it cannot hold becomes a question mark.
fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(tier: Tier, ttl: i64) -> Outcome {
        Outcome::Hit { tier, ttl }
    }

    fn forwarded(why: Forward) -> Outcome {
        Outcome::Forwarded { why, status: None, stored: false, collapsed: false, ttl: None }
    }

    #[test]
    fn what_the_cache_did_is_told_as_rfc_9211_spells_it() {
        let everything = Outcome::Forwarded {
            why: Forward::Stale,
            status: Some(200),
            stored: true,
            collapsed: true,
            ttl: Some(60),
        };
        for (outcome, detail, expected) in [
            (hit(Tier::Memory, 42), None, "vanne-mem; hit; ttl=42"),
            (hit(Tier::Redis, -3), None, "vanne-redis; hit; ttl=-3"),
            (hit(Tier::Memory, i64::MAX), None, "vanne-mem; hit; ttl=999999999999999"),
            (forwarded(Forward::Bypass), None, "vanne; fwd=bypass"),
            (forwarded(Forward::UriMiss), Some("redis-timeout"), "vanne; fwd=uri-miss; detail=redis-timeout"),
            (everything, None, "vanne; fwd=stale; fwd-status=200; stored; collapsed; ttl=60"),
            (
                forwarded(Forward::Method),
                Some("a \"b\" \\ é"),
                "vanne; fwd=method; detail=\"a \\\"b\\\" \\\\ ?\"",
            ),
        ] {
            assert_eq!(member("vanne", &outcome, detail), expected);
        }
    }

    #[test]
    fn a_name_that_is_no_token_is_quoted() {
        for (name, expected) in [
            ("edge.example:1/x", "edge.example:1/x; fwd=request"),
            ("my edge", "\"my edge\"; fwd=request"),
            ("1st", "\"1st\"; fwd=request"),
            ("", "\"\"; fwd=request"),
        ] {
            assert_eq!(member(name, &forwarded(Forward::Request), None), expected);
        }
    }

    #[test]
    fn ttl_is_whole_seconds_and_negative_past_freshness() {
        let secs = Duration::from_secs;
        for (ttl, staleness, expected) in [
            (secs(5), secs(0), 5),
            (Duration::from_millis(900), secs(0), 0),
            (secs(0), secs(7), -7),
            (secs(0), secs(0), 0),
        ] {
            assert_eq!(ttl_seconds(ttl, staleness), expected);
        }
    }

    proptest! {
        #[test]
        fn every_member_is_a_structured_field(name in "\\PC{0,8}", detail in proptest::option::of("\\PC{0,12}"), ttl in any::<i64>(), status in proptest::option::of(100u16..600), is_hit in any::<bool>(), flag in any::<bool>()) {
            let outcome = if is_hit {
                hit(Tier::Redis, ttl)
            } else {
                Outcome::Forwarded { why: Forward::VaryMiss, status, stored: flag, collapsed: !flag, ttl: Some(ttl) }
            };
            let text = member(&name, &outcome, detail.as_deref());
            let list: sfv::List = sfv::Parser::new(&text).parse().map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
            prop_assert_eq!(list.len(), 1);
            let sfv::ListEntry::Item(item) = &list[0] else { return Err(TestCaseError::fail("an inner list")) };
            prop_assert_eq!(item.params.contains_key("hit"), is_hit);
            prop_assert_eq!(item.params.contains_key("stored"), !is_hit && flag);
            prop_assert_eq!(item.params.contains_key("fwd-status"), !is_hit && status.is_some());
        }
    }
}
