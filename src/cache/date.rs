//! HTTP dates (RFC 9110 §5.6.7): IMF-fixdate, RFC 850 and asctime.

use crate::base::clock::WallTime;

/// Reads a date in any of the three forms. Names and `GMT` in any case; the weekday is not checked against the date; everything else exact.
pub fn parse(_text: &[u8]) -> Option<WallTime> {
    unimplemented!()
}

/// Writes a date as IMF-fixdate.
pub fn format(_at: WallTime) -> String {
    unimplemented!()
}
