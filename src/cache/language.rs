//! Accept-Language: what of it tells answers apart, and which answer a request likes best (RFC 9110 §12.5.4).
//!
//! Nobody gets a language that the origin would not have chosen: the order of languages liked equally counts unless the operator says otherwise,
//! since most origins take it for a preference; and an answer serves another request by its language only where that request likes this
//! one language more than all others, and the origin has shown by Content-Language that it has it.

use http::HeaderMap;
use http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE};
use smallvec::SmallVec;

use super::Languages;
use super::directive::trim;
use super::vary::weight;
use crate::base::fields::Fields;

/// Begins the value that stands for "whoever likes this language best". No field value can hold it (RFC 9110 §5.5), so that no client can ask
/// for, or fill, what it names.
pub(super) const MARK: u8 = 0;

/// A language range and how much it is liked, in thousandths.
struct Liked<'v> {
    range: &'v [u8],
    weight: u16,
}

/// The ranges of an Accept-Language in the order they came; `None` when a member does not read.
fn read(value: &[u8]) -> Option<SmallVec<[Liked<'_>; 8]>> {
    let members = value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty());
    members
        .map(|member| {
            let mut parts = member.splitn(2, |&byte| byte == b';');
            let range = trim(parts.next()?);
            let weight = parts.next().map_or(Some(1000), |written| weight(trim(written)))?;
            (range == b"*" || is_tag(range)).then_some(Liked { range, weight })
        })
        .collect()
}

/// Whether it looks like a language tag: letters, digits and hyphens (RFC 5646 §2.1).
fn is_tag(range: &[u8]) -> bool {
    !range.is_empty() && range.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// A value such that requests with the same one like the same languages in the same way. Case, spacing, the form of weights and the order of
/// languages liked differently mean nothing; with [`Languages::Unordered`] the order of those liked equally does not either.
pub(super) fn normalised(mut value: Vec<u8>, rule: Languages) -> Vec<u8> {
    value.make_ascii_lowercase();
    let Some(mut liked) = read(&value) else {
        // Not a list of languages, yet no quotes and no words parted by spaces belong in it.
        value.retain(|byte| !matches!(byte, b' ' | b'\t'));
        return value;
    };
    match rule {
        Languages::Unordered => liked.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.range.cmp(b.range))),
        Languages::Normalised | Languages::AsSent => liked.sort_by_key(|one| std::cmp::Reverse(one.weight)),
    }
    let mut out = Vec::with_capacity(value.len());
    for Liked { range, weight } in &liked {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(range);
        if *weight < 1000 {
            let decimals = format!("{weight:03}");
            out.extend_from_slice(b";q=0.");
            out.extend_from_slice(decimals.trim_end_matches('0').as_bytes());
            if *weight == 0 {
                out.pop();
            }
        }
    }
    out
}

/// The languages that are liked best, in lower case; none when the value does not read or all are refused.
fn best_of(value: &[u8]) -> Vec<Vec<u8>> {
    let liked = read(value).unwrap_or_default();
    let most = liked.iter().map(|one| one.weight).max().filter(|weight| *weight > 0);
    let best = liked.iter().filter(|one| Some(one.weight) == most);
    best.map(|one| one.range.to_ascii_lowercase()).collect()
}

/// The one language that a request likes more than all others.
fn best(fields: &dyn Fields) -> Option<Vec<u8>> {
    let value = fields.joined(ACCEPT_LANGUAGE.as_str())?;
    let [best] = <[Vec<u8>; 1]>::try_from(best_of(&value)).ok()?;
    (best != b"*").then_some(best)
}

/// The one language of an answer, in lower case.
fn of_answer(response: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = response.get_all(CONTENT_LANGUAGE).iter();
    let tag = trim(lines.next()?.as_bytes());
    (lines.next().is_none() && is_tag(tag)).then(|| tag.to_ascii_lowercase())
}

/// The value for whoever likes this language best.
fn mark(language: &[u8]) -> Vec<u8> {
    [&[MARK], language].concat()
}

/// The value for whoever likes the answer's language best, where the request does.
pub(super) fn asked_and_given(request: &dyn Fields, response: &HeaderMap) -> Option<Vec<u8>> {
    let given = of_answer(response)?;
    (best(request)? == given).then(|| mark(&given))
}

/// The same where the request liked the answer's language as much as others. An answer in a language that its request did not like best tells
/// nothing: it may have been the only one, or be mislabelled.
pub(super) fn also_given(value: &[u8], response: &HeaderMap) -> Option<Vec<u8>> {
    let given = of_answer(response)?;
    best_of(value).contains(&given).then(|| mark(&given))
}

/// A request seen as one that asks for the language it likes best, in place of its own Accept-Language.
pub struct ByLanguage<'r> {
    request: &'r dyn Fields,
    value: Vec<u8>,
}

impl<'r> ByLanguage<'r> {
    /// This request, when it likes one language best.
    pub fn of(request: &'r dyn Fields) -> Option<Self> {
        best(request).map(|language| Self { request, value: mark(&language) })
    }
}

impl Fields for ByLanguage<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        if name.eq_ignore_ascii_case(ACCEPT_LANGUAGE.as_str()) {
            visit(&self.value);
        } else {
            self.request.each(name, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn text(value: &str, rule: Languages) -> String {
        String::from_utf8(normalised(value.into(), rule)).unwrap()
    }

    #[test]
    fn what_means_nothing_leaves_a_list_of_languages() {
        for (value, normalised, unordered) in [
            ("en, de", "en,de", "de,en"),
            ("de, en", "de,en", "de,en"),
            ("EN , De-at;Q=0.50", "en,de-at;q=0.5", "en,de-at;q=0.5"),
            ("de;q=0.5, en", "en,de;q=0.5", "en,de;q=0.5"),
            ("en;q=1.0, de;q=0.050", "en,de;q=0.05", "en,de;q=0.05"),
            ("fr;q=0.5, en;q=0.5, de;q=0.7", "de;q=0.7,fr;q=0.5,en;q=0.5", "de;q=0.7,en;q=0.5,fr;q=0.5"),
            ("en, fr;q=0.0", "en,fr;q=0", "en,fr;q=0"),
            ("*, en", "*,en", "*,en"),
            ("", "", ""),
            (", ,en,", "en", "en"),
            // What does not read keeps its order.
            ("en_US, de ; q=2", "en_us,de;q=2", "en_us,de;q=2"),
        ] {
            assert_eq!(text(value, Languages::Normalised), normalised, "{value}");
            assert_eq!(text(value, Languages::Unordered), unordered, "{value}");
        }
    }

    #[test]
    fn one_language_is_liked_best_or_none_is() {
        for (value, expected) in [
            ("de", Some("de")),
            ("DE-at, en;q=0.9", Some("de-at")),
            ("fr;q=0.5, de;q=1.0", Some("de")),
            ("fr;q=0.5, de;q=0.6", Some("de")),
            ("en, de", None),
            ("en, *", None),
            ("*", None),
            ("*;q=0.9, en", Some("en")),
            ("en;q=0", None),
            ("", None),
            ("en, de;q=x", None),
        ] {
            let lines = [("accept-language", value.as_bytes())];
            let found = best(&Pairs(&lines)).map(|tag| String::from_utf8(tag).unwrap());
            assert_eq!(found.as_deref(), expected, "{value}");
        }
        assert_eq!(best(&Pairs(&[])), None);
    }

    #[test]
    fn an_answer_is_given_for_its_language_only_where_that_was_liked_best() {
        for (asked, given, alone, among) in [
            ("de", &["de"][..], true, true),
            ("de, en;q=0.5", &["DE"], true, true),
            ("en, de", &["de"], false, true),
            ("en, de", &["fr"], false, false),
            ("de, en;q=0.5", &["en"], false, false),
            ("de-AT, de;q=0.9", &["de"], false, false),
            ("de", &["de, en"], false, false),
            ("de", &["de", "en"], false, false),
            ("de", &[], false, false),
            ("de", &[""], false, false),
            ("*", &["*"], false, false),
        ] {
            let mut response = HeaderMap::new();
            for line in given {
                response.append(CONTENT_LANGUAGE, HeaderValue::from_static(line));
            }
            let lines = [("accept-language", asked.as_bytes())];
            assert_eq!(asked_and_given(&Pairs(&lines), &response).is_some(), alone, "{asked} {given:?}");
            assert_eq!(also_given(asked.as_bytes(), &response).is_some(), among, "{asked} {given:?}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            list in proptest::collection::vec("(en|de|de-at|\\*|x_y)(;q=(0|1|0\\.5|0\\.25|2))?", 0..5),
        ) {
            for rule in [Languages::Normalised, Languages::Unordered] {
                let once = normalised(list.join(" , ").into(), rule);
                prop_assert_eq!(normalised(once.clone(), rule), once);
            }
        }

        #[test]
        fn who_likes_the_same_best_still_does_when_normalised(
            list in proptest::collection::vec("(en|de|fr)(;q=(0|1|0\\.5|0\\.25))?", 0..5),
        ) {
            let value = list.join(", ");
            let mut before = best_of(value.as_bytes());
            let mut after = best_of(&normalised(value.clone().into(), Languages::Unordered));
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }
    }
}
