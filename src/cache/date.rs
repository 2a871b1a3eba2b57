//! HTTP dates (RFC 9110 §5.6.7): IMF-fixdate, RFC 850 and asctime.

use crate::base::clock::WallTime;

/// Reads a date in any of the three forms. Names and `GMT` in any case; the weekday is not checked against the date; everything else exact.
///
/// A moment before 1970 reads as the epoch: all such dates are equally long ago for a cache. The two-digit years of RFC 850 are 1970 to
/// 2069: the "50 years ahead" of RFC 9110 §5.6.7 would turn `01-Jan-70`, the customary way to say "expired", into 2070.
pub fn parse(text: &[u8]) -> Option<WallTime> {
    let moment = match text.iter().position(|&byte| byte == b',') {
        Some(3) => imf_fixdate(text)?,
        Some(comma) => rfc_850(text, comma)?,
        None => asctime(text)?,
    };
    moment.to_wall()
}

/// Writes a date as IMF-fixdate. Moments after the year 9999, which it cannot spell, are written as its end.
pub fn format(at: WallTime) -> String {
    let seconds = at.as_secs().min(LAST_SECOND);
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        // The epoch was a Thursday.
        SHORT_DAYS[((days + 3) % 7) as usize],
        MONTHS[month as usize - 1],
        clock / 3600,
        clock / 60 % 60,
        clock % 60,
    )
}

const SHORT_DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// 31 Dec 9999 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// A date taken apart, not yet checked.
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Moment {
    fn to_wall(&self) -> Option<WallTime> {
        let in_range = (1..=days_in_month(self.year, self.month)).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            // A leap second is spelled 60.
            && self.second <= 60;
        if !in_range {
            return None;
        }
        if self.year < 1970 {
            return Some(WallTime::default());
        }
        let days = days_from_civil(self.year, self.month, self.day);
        Some(WallTime::from_secs(days * 86_400 + self.hour * 3600 + self.minute * 60 + self.second))
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<Moment> {
    let (weekday, rest) = text.split_at_checked(3)?;
    index_of(&SHORT_DAYS, weekday)?;
    let [
        b',',
        b' ',
        day @ ..,
        b' ',
        _,
        _,
        _,
        b' ',
        _,
        _,
        _,
        _,
        b' ',
        _,
        _,
        b':',
        _,
        _,
        b':',
        _,
        _,
        b' ',
        _,
        _,
        _,
    ] = rest
    else {
        return None;
    };
    gmt(&rest[23..])?;
    let (hour, minute, second) = time(&rest[14..22])?;
    Some(Moment {
        year: number(&rest[9..13])?,
        month: index_of(&MONTHS, &rest[5..8])? + 1,
        day: two_digits(day)?,
        hour,
        minute,
        second,
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc_850(text: &[u8], comma: usize) -> Option<Moment> {
    let (weekday, rest) = text.split_at_checked(comma)?;
    index_of(&LONG_DAYS, weekday)?;
    let [b',', b' ', day @ .., b'-', _, _, _, b'-', _, _, b' ', _, _, b':', _, _, b':', _, _, b' ', _, _, _] =
        rest
    else {
        return None;
    };
    gmt(&rest[21..])?;
    let (hour, minute, second) = time(&rest[12..20])?;
    let short_year = number(&rest[9..11])?;
    Some(Moment {
        year: if short_year < 70 { 2000 + short_year } else { 1900 + short_year },
        month: index_of(&MONTHS, &rest[5..8])? + 1,
        day: two_digits(day)?,
        hour,
        minute,
        second,
    })
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<Moment> {
    if text.len() != 24 || [3, 7, 10, 19].iter().any(|&at| text[at] != b' ') {
        return None;
    }
    index_of(&SHORT_DAYS, &text[..3])?;
    let (hour, minute, second) = time(&text[11..19])?;
    Some(Moment {
        year: number(&text[20..])?,
        month: index_of(&MONTHS, &text[4..7])? + 1,
        day: if text[8] == b' ' { number(&text[9..10])? } else { number(&text[8..10])? },
        hour,
        minute,
        second,
    })
}

fn index_of(names: &[&str], name: &[u8]) -> Option<u64> {
    names.iter().position(|n| n.as_bytes().eq_ignore_ascii_case(name)).map(|index| index as u64)
}

fn gmt(zone: &[u8]) -> Option<()> {
    zone.eq_ignore_ascii_case(b"GMT").then_some(())
}

/// `08:49:37`
fn time(text: &[u8]) -> Option<(u64, u64, u64)> {
    match text {
        [h1, h2, b':', m1, m2, b':', s1, s2] => {
            Some((number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?))
        }
        _ => None,
    }
}

fn two_digits(text: &[u8]) -> Option<u64> {
    if text.len() == 2 { number(text) } else { None }
}

/// A short run of digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days from the epoch to a date not before it. Years are counted from March, so that the leap day is the last of its year.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_month = (153 * month + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + before_month + day - 1 - EPOCH_DAYS
}

/// Days from 1 March of the year 0 to the epoch.
const EPOCH_DAYS: u64 = 719_468;

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_from_civil(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 12;
    while days_from_civil(year, month, 1) > days {
        month -= 1;
    }
    (year, month, days - days_from_civil(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RFC_EXAMPLE: u64 = 784_111_777;

    #[test]
    fn the_three_forms_of_rfc_9110_5_6_7_name_the_same_moment() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sun, 06 nov 1994 08:49:37 gmt",
            "SUNDAY, 06-NOV-94 08:49:37 Gmt",
            "sun nov  6 08:49:37 1994",
            // A wrong weekday costs nothing.
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(WallTime::from_secs(RFC_EXAMPLE)), "{text}");
        }
    }

    #[test]
    fn dates_at_the_edges_of_the_calendar_read_right() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Sat, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            ("Fri, 31 Dec 9999 23:59:59 GMT", LAST_SECOND),
            ("Saturday, 01-Jan-50 00:00:00 GMT", 2_524_608_000),
            ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
            ("Mon, 01 Jan 1900 00:00:00 GMT", 0),
            ("Mon, 01 Jan 0000 00:00:00 GMT", 0),
            ("Wed Nov 16 08:49:37 1994", 784_975_777),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(WallTime::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            ",",
            "Sun,",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov  1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_date_is_written_as_imf_fixdate() {
        assert_eq!(format(WallTime::from_secs(RFC_EXAMPLE)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(WallTime::default()), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(WallTime::from_millis(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn every_second_reads_as_it_was_written(seconds in 0..=LAST_SECOND) {
            let at = WallTime::from_secs(seconds);
            prop_assert_eq!(parse(format(at).as_bytes()), Some(at));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_broken_date_is_none_or_a_date_that_was_meant(at in 0usize..29, byte in any::<u8>()) {
            let mut text = b"Sun, 06 Nov 1994 08:49:37 GMT".to_vec();
            text[at] = byte;
            if let Some(read) = parse(&text) {
                // Only digits and letters of the weekday and month may change and still read.
                let again = format(read);
                prop_assert!(again.as_bytes()[5..].eq_ignore_ascii_case(&text[5..]) || read == WallTime::default());
            }
        }
    }
}
