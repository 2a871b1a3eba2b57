//! Durations, sizes, numbers, statuses.

use std::time::Duration;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::base::unit::{ByteSize, parse_duration, parse_size, show_duration};
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Node, Reader};
use crate::config::setting::{FromText, Setting};

/// A duration of at least `MIN` milliseconds. At most ten years, so that adding it to a moment never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN: u64>(pub Duration);

/// A duration that may be zero.
pub type AnyTime = Time<0>;
/// A duration of at least a millisecond: a zero would fail every request.
pub type Timeout = Time<1>;
/// The time of a lease: a shorter one ends when a packet is lost.
pub type LeaseTime = Time<100>;

const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

impl<const MIN: u64> FromText for Time<MIN> {
    fn what() -> String {
        match MIN {
            0 => "a duration".to_owned(),
            1 => "a duration above zero".to_owned(),
            _ => format!("a duration of at least {}", show_duration(Duration::from_millis(MIN))),
        }
    }

    const EXAMPLE: &'static str = "30s";
    const PATTERN: &'static str = r"^\s*([0-9]+\s*(ms|s|min|m|h|d)\s*)+$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = "write numbers and units (ms, s, m, h, d), like \"50ms\", \"30s\" or \"1h 30m\"";
        let duration = parse_duration(text).map_err(|_| Some(help.to_owned()))?;
        if duration < Duration::from_millis(MIN) {
            return Err(None);
        }
        if duration > LONGEST {
            return Err(Some(format!("write at most \"{}\"", show_duration(LONGEST))));
        }
        Ok(Self(duration))
    }
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub ByteSize);

/// A number of bytes that may be zero.
pub type AnySize = Size<0, { u64::MAX }>;

impl<const MIN: u64, const MAX: u64> FromText for Size<MIN, MAX> {
    fn what() -> String {
        match (MIN, MAX) {
            (0, u64::MAX) => "a size".to_owned(),
            (_, u64::MAX) => format!("a size of at least {}", ByteSize(MIN)),
            _ => format!("a size from {} to {}", ByteSize(MIN), ByteSize(MAX)),
        }
    }

    const EXAMPLE: &'static str = "64KiB";
    const PATTERN: &'static str = r"^\s*[0-9]+\s*([kKmMgG][iI]?|[tT][iI])?[bB]\s*$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let help = "write a number and a unit (B, KiB, MiB, GiB), like \"64KiB\" or \"256MiB\"";
        let size = parse_size(text).map_err(|_| Some(help.to_owned()))?;
        if (MIN..=MAX).contains(&size.0) { Ok(Self(size)) } else { Err(Some(help.to_owned())) }
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number as the plan has it; `MAX` must fit.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as an index.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number as a status.
    pub fn as_u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Setting for Count<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.number(node, MIN, MAX).map(Self)
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": MIN, "maximum": MAX },
            { "type": "string", "pattern": "\\$\\{" },
        ] })
    }
}

impl Setting for bool {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.truth(node)
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": "\\$\\{" }] })
    }
}

/// How many worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// As many as there are cores.
    Auto,
    /// So many.
    Fixed(usize),
}

impl Setting for Threads {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::String(_) = node.value else {
            return Count::<1, 1024>::read(node, reader).map(|count| Self::Fixed(count.as_usize()));
        };
        let written = reader.text(node, "a whole number or \"auto\"", "auto")?;
        match written.text.trim().parse() {
            _ if written.text == "auto" => Some(Self::Auto),
            Ok(count @ 1..=1024) if written.has_variable => Some(Self::Fixed(count)),
            _ => {
                let found =
                    if written.has_variable { node.shown(&written, false) } else { "text".to_owned() };
                reader.report(
                    Problem::of(&node.spot, format!("expected a whole number from 1 to 1024, found {found}"))
                        .help("write a number without quotes, or \"auto\" for as many as there are cores"),
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "auto" }, Count::<1, 1024>::schema()] })
    }
}

/// A status or an inclusive range of them, from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses<const MIN: u16, const MAX: u16>(pub u16, pub u16);

impl<const MIN: u16, const MAX: u16> Statuses<MIN, MAX> {
    fn parse(text: &str) -> Option<Self> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (MIN <= low && low <= high && high <= MAX).then_some(Self(low, high))
    }

    /// What is wrong with a text that is none.
    pub fn problem(spot: &Spot, shown: &str) -> Problem {
        Problem::of(spot, format!("{shown} is not a status or a range of statuses from {MIN} to {MAX}"))
            .help("write it like \"200\" or \"200-399\"")
    }

    /// Reads a key of a table.
    pub fn from_key(key: &str, spot: &Spot, reader: &mut Reader<'_>) -> Option<Self> {
        let statuses = Self::parse(key);
        if statuses.is_none() {
            reader.report(Self::problem(spot, &format!("`{key}`")));
        }
        statuses
    }
}

impl<const MIN: u16, const MAX: u16> Setting for Statuses<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.value.is_integer() {
            let status = reader.number(node, MIN.into(), MAX.into())?;
            return u16::try_from(status).ok().map(|status| Self(status, status));
        }
        let written = reader.text(node, "a status or a range of statuses", "200 or \"200-399\"")?;
        let statuses = Self::parse(&written.text);
        if statuses.is_none() {
            reader.report(Self::problem(&node.spot, &node.shown(&written, false)));
        }
        statuses
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "integer", "minimum": MIN, "maximum": MAX },
            { "type": "string", "pattern": "^[1-9][0-9]{2}(-[1-9][0-9]{2})?$|\\$\\{" },
        ] })
    }
}
