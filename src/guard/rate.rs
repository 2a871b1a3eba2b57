//! How often may a client ask? The generic cell rate algorithm: a bucket that fills steadily, kept as one moment.
//!
//! Of each key only the moment is kept at which its bucket is full again. A key whose moment has passed is as good as one never seen, so that it can be
//! forgotten without anybody gaining by it.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use http::HeaderName;

use crate::base::fields::Fields;

/// So many requests in such a time, and how many of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests; at least 1.
    pub count: u32,
    /// The time they are for; above zero.
    pub period: Duration,
    /// How many may come at once; at least 1.
    pub burst: u32,
}

/// What a rate says about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// When the bucket is full again once this request has been taken from it, on the clock that `now` was read from; `None`: it is refused, and takes nothing.
    pub full_at: Option<u64>,
    /// How many more may come at once now.
    pub left: u32,
    /// How long until the bucket is full, in nanoseconds.
    pub full_in: u64,
    /// How long until the next request may come, in nanoseconds; 0 when it may at once.
    pub wait: u64,
}

impl Rate {
    /// The time one request takes to come back, in nanoseconds; at least 1.
    pub fn interval(&self) -> u64 {
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        (period / u64::from(self.count.max(1))).max(1)
    }

    /// The time in which an empty bucket fills.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.whole())
    }

    fn whole(&self) -> u64 {
        self.interval().saturating_mul(u64::from(self.burst.max(1)))
    }

    /// Judges a request at `now`, of a key whose bucket is full again at `full_at`; both in nanoseconds of one clock.
    pub fn judge(&self, full_at: u64, now: u64) -> Judged {
        let (interval, whole) = (self.interval(), self.whole());
        // No bucket is emptier than empty: what was counted under a slower rate is not held against a client.
        let before = full_at.clamp(now, now.saturating_add(whole));
        let after = before.saturating_add(interval);
        let earliest = after.saturating_sub(whole);
        if earliest > now {
            return Judged { full_at: None, left: 0, full_in: before - now, wait: earliest - now };
        }
        let full_in = after - now;
        let left = u32::try_from((whole - full_in.min(whole)) / interval).unwrap_or(u32::MAX);
        let wait = if left > 0 {
            0
        } else {
            after.saturating_add(interval).saturating_sub(whole).saturating_sub(now)
        };
        Judged { full_at: Some(after), left, full_in, wait }
    }
}

/// What tells one client from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyBy {
    /// The address; of IPv6 the /64 network, which is what one customer gets.
    Address,
    /// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
    Token,
    /// A field.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// Nothing: all count together.
    All,
}

/// A client, as limits know it: a hash, so that no table and no store ever holds a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl KeyBy {
    /// Whose a request is. One that lacks what it is told by counts by its address: else leaving it out would lift the limit.
    pub fn key(&self, client: IpAddr, fields: &dyn Fields) -> Key {
        let told = match self {
            Self::Address => None,
            Self::All => return hashed("all", b""),
            Self::Token => fields.first("authorization").and_then(token).map(|value| hashed("token", value)),
            Self::Header(name) => fields.joined(name.as_str()).map(|value| hashed("header", &value)),
            Self::Cookie(name) => cookie(fields, name).map(|value| hashed("cookie", value)),
        };
        told.unwrap_or_else(|| by_address(client))
    }
}

fn by_address(client: IpAddr) -> Key {
    match client.to_canonical() {
        IpAddr::V4(addr) => hashed("v4", &addr.octets()),
        IpAddr::V6(addr) => hashed("v6", &Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64).octets()),
    }
}

fn hashed(kind: &str, value: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(b"\0").update(value);
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    Key(key)
}

fn token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// The value of the first cookie of this name (RFC 6265 §4.2.1).
fn cookie<'f>(fields: &'f dyn Fields, name: &str) -> Option<&'f [u8]> {
    let mut found = None;
    fields.each("cookie", &mut |line| {
        for pair in line.split(|byte| *byte == b';') {
            let mut parts = pair.trim_ascii().splitn(2, |byte| *byte == b'=');
            if let (Some(key), Some(value), None) = (parts.next(), parts.next(), found)
                && key == name.as_bytes()
            {
                found = Some(value);
            }
        }
    });
    found
}

/// The members that tell a client of a rate (draft-ietf-httpapi-ratelimit-headers-10): the value of `RateLimit-Policy`, a quota and the seconds of
/// its window, and of `RateLimit`, what is left and the seconds until all of it is back.
pub fn told(name: &str, rate: &Rate, judged: &Judged) -> (String, String) {
    let policy = format!("\"{name}\";q={};w={}", rate.burst, seconds_up(rate.whole()));
    let now = format!("\"{name}\";r={};t={}", judged.left, seconds_up(judged.full_in));
    (policy, now)
}

/// Nanoseconds as whole seconds, rounded up: a client that waits so long has waited long enough.
pub fn seconds_up(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate { count, period: Duration::from_secs(seconds), burst }
    }

    /// How many of requests at these moments are taken.
    fn taken(rate: &Rate, moments: impl IntoIterator<Item = u64>) -> usize {
        let mut full_at = 0;
        let mut count = 0;
        for now in moments {
            if let Some(later) = rate.judge(full_at, now).full_at {
                full_at = later;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        for (count, period, burst, moments, passed) in [
            (1, 1, 1, vec![0, 0, 0], 1),
            (1, 1, 3, vec![0, 0, 0, 0], 3),
            (1, 1, 1, vec![0, SECOND - 1, SECOND], 2),
            (2, 1, 2, vec![0, 0, SECOND / 2, SECOND / 2, SECOND], 4),
            (10, 60, 10, vec![0; 20], 10),
            (10, 60, 1, (0..60).map(|s| s * SECOND).collect(), 10),
            (u32::MAX, 1, u32::MAX, vec![0; 100], 100),
        ] {
            let rate = rate(count, period, burst);
            assert_eq!(taken(&rate, moments.clone()), passed, "{rate:?} {moments:?}");
        }
    }

    #[test]
    fn over_a_long_time_no_more_passes_than_the_rate_and_one_burst() {
        let rate = rate(5, 1, 7);
        let every_ms = (0..10_000).map(|ms| ms * 1_000_000);
        assert_eq!(taken(&rate, every_ms), 7 + 49);
    }

    #[test]
    fn what_is_refused_is_told_when_to_come_again_and_then_passes() {
        let rate = rate(1, 10, 2);
        let mut full_at = 0;
        for left in [1, 0] {
            let judged = rate.judge(full_at, SECOND);
            full_at = judged.full_at.unwrap();
            assert_eq!(judged.left, left);
        }
        let refused = rate.judge(full_at, 3 * SECOND);
        assert_eq!((refused.full_at, refused.left, refused.wait), (None, 0, 8 * SECOND));
        assert!(rate.judge(full_at, 3 * SECOND + refused.wait - 1).full_at.is_none());
        assert!(rate.judge(full_at, 3 * SECOND + refused.wait).full_at.is_some());
    }

    #[test]
    fn a_clock_far_from_its_start_and_huge_rates_do_not_overflow() {
        let slow = Rate { count: 1, period: Duration::from_secs(86_400 * 3650), burst: u32::MAX };
        for now in [0, u64::MAX / 2, u64::MAX] {
            for full_at in [0, u64::MAX] {
                let _ = slow.judge(full_at, now);
                let _ = rate(u32::MAX, 1, 1).judge(full_at, now);
            }
        }
    }

    #[test]
    fn clients_are_told_apart_by_what_the_limit_names_and_else_by_address() {
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let two: IpAddr = "192.0.2.2".parse().unwrap();
        let fields = Pairs(&[
            ("Authorization", b"bearer abc"),
            ("X-Api-Key", b"k1"),
            ("Cookie", b"a=1; session=s1"),
            ("Cookie", b"session=s2"),
        ]);
        let none = Pairs(&[]);
        let by =
            |by: KeyBy| (by.key(one, &fields), by.key(two, &fields), by.key(one, &none), by.key(two, &none));
        for what in [
            KeyBy::Token,
            KeyBy::Header(HeaderName::from_static("x-api-key")),
            KeyBy::Cookie("session".into()),
        ] {
            let (with_one, with_two, without_one, without_two) = by(what.clone());
            assert_eq!(with_one, with_two, "{what:?}");
            assert_ne!(with_one, without_one, "{what:?}");
            assert_ne!(without_one, without_two, "{what:?}");
            assert_eq!(without_one, KeyBy::Address.key(one, &none));
        }
        let (a, b, c, d) = by(KeyBy::All);
        assert!(a == b && b == c && c == d);
        let basic = Pairs(&[("authorization", b"Basic abc")]);
        assert_eq!(KeyBy::Token.key(one, &basic), KeyBy::Address.key(one, &none));
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client_and_a_mapped_address_is_its_ipv4() {
        let key = |text: &str| KeyBy::Address.key(text.parse().unwrap(), &Pairs(&[]));
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:1:ffff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn the_fields_tell_the_quota_and_what_is_left() {
        let rate = rate(10, 60, 5);
        let judged = rate.judge(0, SECOND);
        let (policy, now) = told("each", &rate, &judged);
        assert_eq!(policy, "\"each\";q=5;w=30");
        assert_eq!(now, "\"each\";r=4;t=6");
    }
}
