//! Two versions side by side: which upstream a route's request goes to.

use std::fmt;

use http::HeaderName;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::hash::{Facts, HashOn};
use crate::base::fields::{each_cookie, trim};

/// Sets the lot of a request apart from its places on rings: else the clients of one share would all meet the same few instances.
const LOT: u64 = 0x5EED;

/// How the requests of one route are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// What of a request keeps it in its share; `None`: chance decides anew for each.
    pub by: Option<HashOn>,
    /// Who gets what; the first that takes a request has it, and the route's own upstream has the rest.
    pub parts: Vec<Part>,
    /// What the upstreams answer is stored apart.
    pub apart: bool,
}

/// What one upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its position in the plan.
    pub upstream: usize,
    /// Which requests.
    pub when: When,
}

/// Which requests an upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// So many in a hundred.
    Share(u32),
    /// Those with this field, and this value if one is given.
    Header(HeaderName, Option<String>),
    /// Those with this cookie, and this value if one is given.
    Cookie(String, Option<String>),
}

impl Split {
    /// The upstream that gets this request; `None`: the route's own. `chance` is any number, drawn evenly.
    ///
    /// Shares are laid end to end over the lots from 0 to 1: when one of them grows, those it had stay with it.
    pub fn choose(&self, facts: &Facts<'_>, chance: u64) -> Option<usize> {
        let key = self.by.as_ref().and_then(|by| by.key(facts));
        let lot = key.map_or(chance, |key| xxh3_64_with_seed(&key.to_le_bytes(), LOT));
        let percent = u32::try_from((u128::from(lot) * 100) >> 64).unwrap_or_default();
        let mut before = 0;
        let mut takes = |part: &&Part| match &part.when {
            When::Share(share) => {
                before += share;
                percent < before
            }
            asked => asked.is_asked(facts),
        };
        self.parts.iter().find(|part| takes(part)).map(|part| part.upstream)
    }

    /// The upstreams that get a part, in order and as often as they are named.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.upstream)
    }
}

impl When {
    /// Whether a request asks for it by a field or cookie.
    pub fn is_asked(&self, facts: &Facts<'_>) -> bool {
        let mut found = false;
        let fits = |wanted: &Option<String>, value: &[u8]| {
            wanted.as_ref().is_none_or(|wanted| trim(value) == wanted.as_bytes())
        };
        match self {
            Self::Share(_) => {}
            Self::Header(name, wanted) => {
                facts.fields.each(name.as_str(), &mut |value| found |= fits(wanted, value));
            }
            Self::Cookie(name, wanted) => {
                each_cookie(facts.fields, name, |value| found |= fits(wanted, value));
            }
        }
        found
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{share} in a hundred"),
            Self::Header(name, None) => write!(f, "{name}"),
            Self::Header(name, Some(value)) => write!(f, "{name}: {value}"),
            Self::Cookie(name, None) => write!(f, "cookie {name}"),
            Self::Cookie(name, Some(value)) => write!(f, "cookie {name}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dice::Dice;
    use crate::base::fields::Pairs;

    fn split(by: Option<HashOn>, parts: &[(usize, When)]) -> Split {
        let parts = parts.iter().map(|(upstream, when)| Part { upstream: *upstream, when: when.clone() });
        Split { by, parts: parts.collect(), apart: true }
    }

    fn asked(split: &Split, client: u32, fields: &[(&str, &[u8])], chance: u64) -> Option<usize> {
        let client = std::net::IpAddr::from((client << 8).to_be_bytes());
        split.choose(&Facts { client, path: "/", query: None, fields: &Pairs(fields) }, chance)
    }

    #[test]
    fn who_asks_for_an_upstream_has_it() {
        let header =
            |value: Option<&str>| When::Header(HeaderName::from_static("x-canary"), value.map(Into::into));
        let cookie = |value: Option<&str>| When::Cookie("canary".into(), value.map(Into::into));
        let split = split(None, &[(1, header(Some("yes"))), (2, cookie(None)), (3, cookie(Some("x")))]);
        for (fields, upstream, fact) in [
            (&[("X-Canary", &b"yes"[..])][..], Some(1), "the field with its value"),
            (&[("X-Canary", b" yes ")], Some(1), "space around it does not count"),
            (&[("X-Canary", b"no")], None, "another value"),
            (&[("Cookie", b"a=b; canary=0")], Some(2), "the cookie, whatever its value"),
            (&[("Cookie", b"canary=x")], Some(2), "the first that takes it"),
            (&[("Cookie", b"canaries=x")], None, "another cookie"),
            (&[], None, "nothing of it"),
        ] {
            assert_eq!(asked(&split, 0, fields, 0), upstream, "{fact}");
        }
    }

    #[test]
    fn shares_are_so_many_in_a_hundred() {
        let mut dice = Dice::seeded(1);
        for by in [None, Some(HashOn::Client)] {
            let split = split(by.clone(), &[(1, When::Share(5)), (2, When::Share(20)), (3, When::Share(0))]);
            let mut counts = [0; 4];
            for client in 0..20_000 {
                counts[asked(&split, client, &[], dice.any_u64()).unwrap_or(0)] += 1;
            }
            let right =
                counts[3] == 0 && (900..1100).contains(&counts[1]) && (3800..4200).contains(&counts[2]);
            assert!(right, "{counts:?} by {by:?}");
        }
    }

    #[test]
    fn a_client_keeps_its_share_and_none_loses_it_when_the_share_grows() {
        let mut dice = Dice::seeded(2);
        let mut had = std::collections::HashSet::new();
        for share in [1, 5, 5, 30, 100] {
            let split = split(Some(HashOn::Client), &[(1, When::Share(share))]);
            let has =
                (0..2000).filter(|client| asked(&split, *client, &[], dice.any_u64()).is_some()).collect();
            assert!(had.is_subset(&has), "at {share} %");
            had = has;
        }
        assert_eq!(had.len(), 2000);
    }

    #[test]
    fn a_request_without_what_keeps_it_is_divided_by_chance() {
        let by = Some(HashOn::Cookie("session".into()));
        let split = split(by, &[(1, When::Share(50))]);
        assert_eq!(asked(&split, 0, &[], 0), Some(1));
        assert_eq!(asked(&split, 0, &[], u64::MAX), None);
    }
}
