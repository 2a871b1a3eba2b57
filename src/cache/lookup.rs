//! May a stored answer be reused for this request, now? (RFC 9111 §4)

use std::time::Duration;

use http::StatusCode;

use super::directive::{MAX_SECONDS, RequestDirectives};
use super::record::Record;
use super::{ClientDirectives, Rules};
use crate::base::clock::WallTime;

/// What to do with a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Serve it.
    Fresh,
    /// Serve it, and tell why it is stale: the client accepts it (`max-stale`).
    Stale,
    /// Serve it and fetch anew in the background (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Validate it with the origin first.
    Validate(Why),
}

/// Why a stored answer is validated first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is stale.
    Stale,
    /// It says `no-cache`.
    NoCache,
    /// The client asks for it: `no-cache`, `max-age`, `min-fresh`.
    Request,
}

/// Judges a stored answer for a request.
pub fn judge(record: &Record, request: &RequestDirectives, rules: &Rules, now: WallTime) -> Reuse {
    let heard = match rules.client_directives {
        ClientDirectives::Honour => *request,
        ClientDirectives::Ignore => RequestDirectives::default(),
    };
    if heard.no_cache {
        return Reuse::Validate(Why::Request);
    }
    if record.reuse.always_validate {
        return Reuse::Validate(Why::NoCache);
    }
    if is_too_old(record, &heard, now) || is_too_near_its_end(record, &heard, now) {
        return Reuse::Validate(Why::Request);
    }
    if !record.ttl(now).is_zero() {
        return Reuse::Fresh;
    }
    judge_stale(record, &heard, now)
}

/// Whether a stored answer may be served because the origin failed: unreachable, timed out, or answered 500, 502, 503 or 504 (RFC 5861 §4, RFC 9111
/// §4.2.4).
///
/// Not when the answer says `no-cache`, nor when it is stale and says `must-revalidate` or its kin; and not to a client that asks for a
/// validated one (`no-cache`): an error tells it the truth. An old failure is no better than a new one. A client's `max-age` and `min-fresh` do not count, for the window holds
/// "regardless of other freshness information".
pub fn serve_on_error(record: &Record, request: &RequestDirectives, rules: &Rules, now: WallTime) -> bool {
    let asks_for_validation = request.no_cache && rules.client_directives == ClientDirectives::Honour;
    if record.reuse.always_validate || asks_for_validation {
        return false;
    }
    let fresh = !record.ttl(now).is_zero();
    let within_window = !record.stale_if_error.is_zero() && record.staleness(now) <= record.stale_if_error;
    if !fresh && is_failure(record.status) {
        return false;
    }
    fresh || (within_window && !record.reuse.never_stale)
}

/// Whether an answer of this status says that the origin failed (RFC 5861 §4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The Age to send with it, in whole seconds (RFC 9111 §5.1).
pub fn age_field(record: &Record, now: WallTime) -> u64 {
    record.age(now).as_secs().min(MAX_SECONDS)
}

/// How long until it should be fetched anew in the background though it is still fresh, so that a popular entry does not expire for everybody at
/// once; `None` when it need not be.
///
/// That moment lies in the last tenth of its lifetime, at most its last minute, and is spread over it by `chance` in `[0, 1)`: asked with a
/// new chance on every hit, zero comes the more often the nearer the end is. Lifetimes under ten seconds are left alone, since the
/// fetch takes a good part of the tenth.
pub fn early_refresh(record: &Record, now: WallTime, chance: f64) -> Option<Duration> {
    let window = (record.lifetime / 10).min(Duration::from_secs(60));
    let left = record.ttl(now);
    if left.is_zero() || left > window || window < Duration::from_secs(1) || record.reuse.always_validate {
        return None;
    }
    Some(left.saturating_sub(window.mul_f64(chance.clamp(0.0, 1.0))))
}

/// `max-age` of a request. Zero asks for validation even of what arrived this instant.
fn is_too_old(record: &Record, request: &RequestDirectives, now: WallTime) -> bool {
    request.max_age.is_some_and(|most| most == 0 || record.age(now) > Duration::from_secs(most))
}

/// `min-fresh` of a request.
fn is_too_near_its_end(record: &Record, request: &RequestDirectives, now: WallTime) -> bool {
    request.min_fresh.is_some_and(|least| record.ttl(now) < Duration::from_secs(least))
}

/// A stale answer: who allows it to be served? (RFC 9111 §4.2.4)
fn judge_stale(record: &Record, request: &RequestDirectives, now: WallTime) -> Reuse {
    let staleness = record.staleness(now);
    let accepted =
        request.max_stale.is_some_and(|most| most.is_none_or(|most| staleness <= Duration::from_secs(most)));
    if record.reuse.never_stale {
        Reuse::Validate(Why::Stale)
    } else if accepted {
        Reuse::Stale
    } else if staleness < record.stale_while_revalidate {
        Reuse::StaleWhileRevalidate
    } else {
        Reuse::Validate(Why::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::LifetimeSource;
    use crate::cache::record::ReuseRule;
    use crate::cache::vary::Variant;
    use http::HeaderMap;
    use proptest::prelude::*;

    const RECEIVED: WallTime = WallTime::from_secs(1_000_000);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Fresh for 100 s, 10 s old on arrival.
    fn record() -> Record {
        Record {
            key: b"k"[..].into(),
            status: StatusCode::OK,
            fields: HeaderMap::new(),
            received: RECEIVED,
            initial_age: secs(10),
            lifetime: secs(100),
            source: LifetimeSource::MaxAge,
            reuse: ReuseRule::default(),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::ZERO,
            vary: Vec::new(),
            variant: Variant::default(),
        }
    }

    fn tolerant() -> Record {
        Record { stale_while_revalidate: secs(20), stale_if_error: secs(30), ..record() }
    }

    fn never_stale() -> Record {
        Record { reuse: ReuseRule { never_stale: true, ..ReuseRule::default() }, ..tolerant() }
    }

    fn always_validate() -> Record {
        Record { reuse: ReuseRule { always_validate: true, ..ReuseRule::default() }, ..tolerant() }
    }

    /// The moment at which [`record`] is `age` seconds old.
    fn at_age(age: u64) -> WallTime {
        RECEIVED.plus(secs(age - 10))
    }

    fn asks() -> RequestDirectives {
        RequestDirectives::default()
    }

    #[test]
    fn an_answer_is_fresh_while_its_lifetime_exceeds_its_age_rfc_9111_4_2() {
        for (record, age, expected) in [
            (record(), 10, Reuse::Fresh),
            (record(), 99, Reuse::Fresh),
            (record(), 100, Reuse::Validate(Why::Stale)),
            (record(), 101, Reuse::Validate(Why::Stale)),
            (never_stale(), 99, Reuse::Fresh),
            (always_validate(), 10, Reuse::Validate(Why::NoCache)),
            (always_validate(), 500, Reuse::Validate(Why::NoCache)),
            (tolerant(), 99, Reuse::Fresh),
            (tolerant(), 100, Reuse::StaleWhileRevalidate),
            (tolerant(), 119, Reuse::StaleWhileRevalidate),
            (tolerant(), 120, Reuse::Validate(Why::Stale)),
            (never_stale(), 100, Reuse::Validate(Why::Stale)),
        ] {
            let found = judge(&record, &asks(), &Rules::default(), at_age(age));
            assert_eq!(found, expected, "{age} {:?}", record.reuse);
        }
    }

    #[test]
    fn a_requests_directives_narrow_or_widen_what_is_reused_rfc_9111_5_2_1() {
        let validate = Reuse::Validate(Why::Request);
        for (request, record, age, expected) in [
            (RequestDirectives { no_cache: true, ..asks() }, record(), 10, validate),
            (RequestDirectives { no_cache: true, ..asks() }, always_validate(), 10, validate),
            (RequestDirectives { max_age: Some(50), ..asks() }, record(), 50, Reuse::Fresh),
            (RequestDirectives { max_age: Some(50), ..asks() }, record(), 51, validate),
            (RequestDirectives { max_age: Some(0), ..asks() }, record(), 10, validate),
            (RequestDirectives { min_fresh: Some(50), ..asks() }, record(), 50, Reuse::Fresh),
            (RequestDirectives { min_fresh: Some(50), ..asks() }, record(), 51, validate),
            (RequestDirectives { min_fresh: Some(50), ..asks() }, tolerant(), 110, validate),
            (RequestDirectives { max_stale: Some(None), ..asks() }, record(), 9999, Reuse::Stale),
            (RequestDirectives { max_stale: Some(Some(5)), ..asks() }, record(), 105, Reuse::Stale),
            (
                RequestDirectives { max_stale: Some(Some(5)), ..asks() },
                record(),
                106,
                Reuse::Validate(Why::Stale),
            ),
            (RequestDirectives { max_stale: Some(None), ..asks() }, record(), 50, Reuse::Fresh),
            (
                RequestDirectives { max_stale: Some(None), ..asks() },
                never_stale(),
                105,
                Reuse::Validate(Why::Stale),
            ),
            (
                RequestDirectives { max_stale: Some(None), ..asks() },
                always_validate(),
                105,
                Reuse::Validate(Why::NoCache),
            ),
            (
                RequestDirectives { no_store: true, only_if_cached: true, ..asks() },
                record(),
                50,
                Reuse::Fresh,
            ),
        ] {
            assert_eq!(
                judge(&record, &request, &Rules::default(), at_age(age)),
                expected,
                "{request:?} {age}"
            );
        }
    }

    #[test]
    fn max_age_zero_asks_for_validation_even_of_what_arrived_this_instant() {
        let newborn = Record { initial_age: Duration::ZERO, ..record() };
        let request = RequestDirectives { max_age: Some(0), ..asks() };
        assert_eq!(judge(&newborn, &request, &Rules::default(), RECEIVED), Reuse::Validate(Why::Request));
    }

    #[test]
    fn a_clients_wishes_do_not_count_where_the_operator_ignores_them() {
        let rules = Rules { client_directives: ClientDirectives::Ignore, ..Rules::default() };
        for request in [
            RequestDirectives { no_cache: true, ..asks() },
            RequestDirectives { max_age: Some(0), ..asks() },
            RequestDirectives { min_fresh: Some(1 << 31), ..asks() },
        ] {
            assert_eq!(judge(&record(), &request, &rules, at_age(50)), Reuse::Fresh, "{request:?}");
        }
        let request = RequestDirectives { max_stale: Some(None), ..asks() };
        assert_eq!(judge(&record(), &request, &rules, at_age(200)), Reuse::Validate(Why::Stale));
        let request = RequestDirectives { no_cache: true, ..asks() };
        assert!(serve_on_error(&tolerant(), &request, &rules, at_age(110)));
    }

    #[test]
    fn a_failing_origin_is_covered_within_the_window_unless_stale_is_forbidden_rfc_5861_4() {
        for (record, request, age, expected) in [
            (tolerant(), asks(), 110, true),
            (tolerant(), asks(), 130, true),
            (tolerant(), asks(), 131, false),
            (record(), asks(), 100, false),
            (record(), asks(), 99, true),
            (never_stale(), asks(), 110, false),
            (never_stale(), asks(), 99, true),
            (always_validate(), asks(), 50, false),
            (tolerant(), RequestDirectives { max_age: Some(0), ..asks() }, 110, true),
            (tolerant(), RequestDirectives { no_cache: true, ..asks() }, 110, false),
            (tolerant(), RequestDirectives { no_cache: true, ..asks() }, 50, false),
        ] {
            let found = serve_on_error(&record, &request, &Rules::default(), at_age(age));
            assert_eq!(found, expected, "{age} {request:?} {:?}", record.reuse);
        }
    }

    #[test]
    fn an_old_failure_never_stands_in_for_a_new_one() {
        for (status, expected) in
            [(200, true), (404, true), (501, true), (500, false), (502, false), (503, false), (504, false)]
        {
            let record = Record { status: StatusCode::from_u16(status).unwrap(), ..tolerant() };
            let found = serve_on_error(&record, &asks(), &Rules::default(), at_age(110));
            assert_eq!(found, expected, "{status}");
        }
    }

    #[test]
    fn age_counts_what_it_brought_and_how_long_it_lay_here_in_whole_seconds() {
        assert_eq!(age_field(&record(), RECEIVED), 10);
        assert_eq!(age_field(&record(), RECEIVED.plus(Duration::from_millis(2_999))), 12);
        assert_eq!(age_field(&record(), RECEIVED.minus(secs(5))), 10, "a clock set back makes it no younger");
        assert_eq!(age_field(&record(), WallTime::from_millis(u64::MAX)), 1 << 31);
    }

    #[test]
    fn a_fetch_before_the_end_is_spread_over_the_last_tenth() {
        for (age, chance, expected) in [
            (50, 0.999, None),
            (89, 0.999, None),
            (90, 0.0, Some(secs(10))),
            (95, 0.0, Some(secs(5))),
            (95, 0.25, Some(Duration::from_millis(2500))),
            (95, 0.5, Some(Duration::ZERO)),
            (95, 9.0, Some(Duration::ZERO)),
            (100, 0.9, None),
        ] {
            assert_eq!(early_refresh(&record(), at_age(age), chance), expected, "{age} {chance}");
        }
        let long = Record { lifetime: secs(86_400), ..record() };
        assert_eq!(early_refresh(&long, at_age(86_339), 0.9), None, "at most the last minute");
        assert!(early_refresh(&long, at_age(86_341), 0.9).is_some());
        let short = Record { lifetime: secs(19), ..record() };
        assert_eq!(early_refresh(&short, at_age(18), 0.9), Some(Duration::from_millis(0)));
        let shorter =
            Record { initial_age: Duration::ZERO, lifetime: Duration::from_millis(9_900), ..record() };
        assert_eq!(early_refresh(&shorter, RECEIVED.plus(Duration::from_millis(9_500)), 0.9), None);
        assert_eq!(early_refresh(&always_validate(), at_age(95), 0.9), None);
    }

    proptest! {
        #[test]
        fn stale_is_never_served_where_it_is_forbidden_nor_past_its_window(
            age in 10u64..400,
            never_stale in any::<bool>(),
            always_validate in any::<bool>(),
            window in 0u64..100,
            max_stale in proptest::option::of(proptest::option::of(0u64..100)),
            max_age in proptest::option::of(0u64..200),
        ) {
            let reuse = ReuseRule { never_stale, always_validate, authorised: false };
            let record = Record { reuse, stale_while_revalidate: secs(window), stale_if_error: secs(window), ..record() };
            let request = RequestDirectives { max_stale, max_age, ..asks() };
            let now = at_age(age);
            let served = !matches!(judge(&record, &request, &Rules::default(), now), Reuse::Validate(_));
            let staleness = record.staleness(now).as_secs();
            let accepted = max_stale.is_some_and(|most| most.is_none_or(|most| staleness <= most));
            prop_assert!(!(served && always_validate));
            prop_assert!(!(served && age >= 100 && never_stale));
            prop_assert!(!(served && age >= 100 && staleness >= window && !accepted));
            prop_assert!(!(served && max_age.is_some_and(|most| age > most)));
            let covered = serve_on_error(&record, &request, &Rules::default(), now);
            prop_assert!(!(covered && (always_validate || (age >= 100 && (never_stale || staleness > window)))));
        }
    }
}
