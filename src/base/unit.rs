//! Durations and sizes as the operator writes them: `"50ms"`, `"1h 30m"`, `"256MiB"`.

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` times 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n * 1024)
    }

    /// `n` times 1024² bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }

    /// The number of bytes as an index, at most `usize::MAX`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = SIZES
            .iter()
            .find(|(_, s)| self.0 >= *s && self.0.is_multiple_of(*s))
            .copied()
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// Why a duration or a size could not be read. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Reads a size: a whole number and a unit (`B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TiB`), case ignored.
///
/// # Errors
/// When there is no number, no unit, an unknown unit, or the size exceeds 2⁶⁴ bytes.
pub fn parse_size(text: &str) -> Result<ByteSize, UnitError> {
    let wrong = || {
        UnitError(format!(
            "\"{text}\" is not a size; write a number and a unit, like \"512KiB\" or \"256MiB\""
        ))
    };
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = (&text[..split], text[split..].trim());
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let scale = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1;
    number.checked_mul(scale).map(ByteSize).ok_or_else(wrong)
}

const DURATIONS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1), ("min", 60_000)];

/// Reads a duration: one or more numbers with units (`ms`, `s`, `m` or `min`, `h`, `d`), with or without spaces between them.
///
/// # Errors
/// When there is no number, no unit, an unknown unit, or the sum exceeds 2⁶⁴ milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || {
        UnitError(format!(
            "\"{text}\" is not a duration; write numbers and units, like \"50ms\", \"30s\" or \"1h 30m\""
        ))
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = rest[digits..].trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let scale = DURATIONS.iter().find(|(name, _)| *name == &after[..end]).ok_or_else(wrong)?.1;
        total = number.checked_mul(scale).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        rest = after[end..].trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration the way [`parse_duration`] reads it, in its largest whole units.
pub fn show_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, scale) in &DURATIONS[..5] {
        if ms >= *scale {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(&format!("{}{unit}", ms / scale));
            ms %= scale;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("512KiB", 524_288),
            ("256MiB", 268_435_456),
            ("2 GB", 2_000_000_000),
            ("1mib", 1 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "12", "MiB", "1.5MiB", "-1B", "1XB", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(ByteSize::mib(256).to_string(), "256MiB");
        assert_eq!(ByteSize(1500).to_string(), "1500B");
    }

    #[test]
    fn durations_read_as_written() {
        for (text, ms) in [
            ("50ms", 50),
            ("0s", 0),
            ("30s", 30_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("5min", 300_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "5 mins and a bit", "-1s", "1.5s", "1S"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["50ms", "1h 30m", "1d", "0s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }
}
