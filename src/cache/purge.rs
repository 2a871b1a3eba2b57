//! Purging: making stored answers invalid by what they are about, at a cost that does not depend on how many there are.
//!
//! Nothing is searched and nothing is deleted. A purge writes down a *mark*: a label (a tag, a group, a URL, a prefix, everything) and an [`Epoch`].
//! Every stored answer carries the epoch at which its making began. Before reuse the two are compared: an answer that began before a mark on one of
//! its labels is purged, one that began after it is not. So a purge also beats a fetch in flight: what began before it and ends after it is
//! invalid when it arrives.
//!
//! What a reader cannot know counts against the answer: one that began before the oldest mark still known is validated before reuse.

use std::collections::HashMap;

use http::HeaderMap;
use sfv::{BareItem, List, ListEntry, Parser};

use super::key;
use crate::base::fields::Fields;

/// A point in the order of purges: the number of the last purge known. A later purge has a greater one.
pub type Epoch = u64;

/// What a mark is about, hashed: the first half of the BLAKE3 hash of its kind and its length-prefixed parts.
pub type Label = [u8; 16];

/// The fields in which an origin names the tags of an answer: those of Cloudflare and others, Fastly, and Varnish's xkey.
pub const TAG_FIELDS: [&str; 3] = ["cache-tag", "surrogate-key", "xkey"];
/// The groups of an answer (RFC 9875 §2).
pub const GROUPS: &str = "cache-groups";
/// The groups that a change makes invalid (RFC 9875 §3).
pub const GROUP_INVALIDATION: &str = "cache-group-invalidation";

/// Labels of one kind that count for one answer: an origin's answer must not make every look-up long. RFC 9875 §2 asks for 32 groups at least.
const MOST: usize = 256;
/// The deepest directory a prefix may name.
pub const DEEPEST: usize = 16;
/// Marks kept; past it the older half is let go, and what began before the youngest of those is validated.
const MARKS: usize = 64 * 1024;

/// What is to be purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// Everything.
    All,
    /// Answers with a tag, whatever their host.
    Tag(&'a [u8]),
    /// Answers of an origin with a group (RFC 9875 §2.1).
    Group {
        /// The origin: scheme, host and port as the key has them.
        origin: &'a [u8],
        /// The group.
        group: &'a [u8],
    },
    /// The answers of one URL under a cache's own rules, whatever fields or cookies part them; http and https alike.
    Url(&'a [u8]),
    /// Answers whose path lies in a directory; it ends with `/`.
    Prefix {
        /// Host and port as the key has them.
        authority: &'a [u8],
        /// The directory.
        path: &'a [u8],
    },
}

impl Target<'_> {
    /// Its label.
    pub fn label(&self) -> Label {
        match self {
            Self::All => hash(b'a', &[]),
            Self::Tag(tag) => hash(b't', &[tag]),
            Self::Group { origin, group } => hash(b'g', &[origin, group]),
            Self::Url(url) => hash(b'u', &[url]),
            Self::Prefix { authority, path } => hash(b'p', &[authority, path]),
        }
    }
}

fn hash(kind: u8, parts: &[&[u8]]) -> Label {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut label = [0; 16];
    label.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    label
}

/// The labels of a stored answer, from its key's text and its fields.
pub fn labels(text: &[u8], fields: &HeaderMap) -> Box<[Label]> {
    let place = key::place(text);
    let mut labels = vec![Target::All.label(), Target::Url(place.url).label()];
    for path in directories(place.path) {
        labels.push(Target::Prefix { authority: place.authority, path }.label());
    }
    each_tag(fields, |tag| labels.push(Target::Tag(tag).label()));
    for group in groups(fields, GROUPS) {
        labels.push(Target::Group { origin: place.origin, group: group.as_bytes() }.label());
    }
    labels.into()
}

/// The labels that the answer to an unsafe request makes invalid: those of its Cache-Group-Invalidation (RFC 9875 §3), on the origin of a key's text.
pub fn invalidated_groups(text: &[u8], response: &HeaderMap) -> Vec<Label> {
    let origin = key::place(text).origin;
    let label = |group: String| Target::Group { origin, group: group.as_bytes() }.label();
    groups(response, GROUP_INVALIDATION).into_iter().map(label).collect()
}

/// `/`, `/a/`, `/a/b/` of `/a/b/c`.
fn directories(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.take(DEEPEST).map(|(at, _)| &path[..=at])
}

/// Tags are parted by commas or spaces, whichever an origin's convention is; so none holds either.
fn each_tag(fields: &HeaderMap, mut visit: impl FnMut(&[u8])) {
    for name in TAG_FIELDS {
        let mut left = MOST;
        fields.each(name, &mut |line| {
            let tags = line.split(|byte| matches!(byte, b',' | b' ' | b'\t')).filter(|tag| !tag.is_empty());
            for tag in tags.take(left) {
                visit(tag);
                left -= 1;
            }
        });
    }
}

/// The tags that an answer's fields name.
pub fn tags(fields: &HeaderMap) -> Vec<String> {
    let mut tags = Vec::new();
    each_tag(fields, |tag| tags.push(String::from_utf8_lossy(tag).into_owned()));
    tags
}

/// The strings of a structured list; members that are no strings are ignored, and the whole field when it does not parse (RFC 9875 §2).
fn groups(fields: &HeaderMap, name: &str) -> Vec<String> {
    let Some(value) = fields.joined(name) else { return Vec::new() };
    let Ok(list) = Parser::new(&value[..]).parse::<List>() else { return Vec::new() };
    let string = |member: ListEntry| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(text) => Some(text.as_str().to_owned()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    list.into_iter().filter_map(string).take(MOST).collect()
}

/// How a purge treats what it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Force {
    /// As if it had never been stored.
    Hard,
    /// Stale from now on: what may be done with a stale answer may still be done with it, and it can be validated.
    Soft,
}

/// What the marks make of a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing.
    Untouched,
    /// It is stale.
    Stale,
    /// It is gone.
    Gone,
}

/// The marks known.
#[derive(Debug, Default)]
pub struct Marks {
    marks: HashMap<Label, Mark>,
    floor: Epoch,
    last: Epoch,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    hard: Epoch,
    soft: Epoch,
}

impl Marks {
    /// The number of the last purge known: what a fetch that begins now is stamped with.
    pub fn last(&self) -> Epoch {
        self.last
    }

    /// A purge of this process's own, under a number between all known ones and those still to come from elsewhere.
    pub fn purge(&mut self, labels: &[Label], force: Force) -> Epoch {
        let epoch = self.last + 1;
        self.note(labels, epoch, force);
        epoch
    }

    /// A purge with the number it has. One that is known is known twice without harm.
    pub fn note(&mut self, labels: &[Label], epoch: Epoch, force: Force) {
        self.last = self.last.max(epoch);
        for label in labels {
            let mark = self.marks.entry(*label).or_default();
            match force {
                Force::Hard => mark.hard = mark.hard.max(epoch),
                Force::Soft => mark.soft = mark.soft.max(epoch),
            }
        }
        self.bound(MARKS);
    }

    /// Purges before this one are not known.
    pub fn known_since(&mut self, epoch: Epoch) {
        self.floor = self.floor.max(epoch);
        self.last = self.last.max(epoch);
    }

    /// Judges an answer whose making began at an epoch.
    pub fn judge(&self, labels: &[Label], began: Epoch) -> Verdict {
        let mut verdict = if began < self.floor { Verdict::Stale } else { Verdict::Untouched };
        if began >= self.last {
            return verdict;
        }
        for mark in labels.iter().filter_map(|label| self.marks.get(label)) {
            if mark.hard > began {
                return Verdict::Gone;
            }
            if mark.soft > began {
                verdict = Verdict::Stale;
            }
        }
        verdict
    }

    fn bound(&mut self, most: usize) {
        if self.marks.len() <= most {
            return;
        }
        let mut epochs: Vec<Epoch> = self.marks.values().map(|mark| mark.hard.max(mark.soft)).collect();
        let middle = epochs.len() / 2;
        let (_, median, _) = epochs.select_nth_unstable(middle);
        let median = *median;
        self.marks.retain(|_, mark| mark.hard.max(mark.soft) > median);
        self.floor = self.floor.max(median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KeyRules;
    use crate::cache::key::{Key, KeyFacts};

    fn key(https: bool, port: Option<u16>, path: &str, query: Option<&str>) -> Key {
        let fields = HeaderMap::new();
        let facts = KeyFacts { https, host: "a.example", port, path, query, fields: &fields };
        Key::of(&facts, &KeyRules::default())
    }

    fn labelled(fields: &[(&'static str, &'static str)]) -> Box<[Label]> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        labels(key(false, None, "/a/b", None).text(), &map)
    }

    fn has_tag(fields: &[(&'static str, &'static str)], tag: &str) -> bool {
        labelled(fields).contains(&Target::Tag(tag.as_bytes()).label())
    }

    fn has_group(field: &'static str, group: &str) -> bool {
        let key = key(false, None, "/a/b", None);
        let origin = key::place(key.text()).origin;
        labelled(&[("cache-groups", field)])
            .contains(&Target::Group { origin, group: group.as_bytes() }.label())
    }

    #[test]
    fn tags_come_from_three_fields_however_they_are_parted() {
        for (name, value) in
            [("cache-tag", "x,y"), ("cache-tag", "x, y ,"), ("surrogate-key", "x y"), ("xkey", " x\ty ")]
        {
            assert!(has_tag(&[(name, value)], "x") && has_tag(&[(name, value)], "y"), "{name}: {value}");
            assert!(!has_tag(&[(name, value)], "") && !has_tag(&[(name, value)], "x y"), "{name}: {value}");
        }
        assert!(has_tag(&[("xkey", "x"), ("xkey", "y")], "y"));
        assert!(!has_tag(&[("x-tag", "x")], "x"));
        assert!(!has_tag(&[("cache-tag", "X")], "x"), "tags are compared as they are written");
    }

    #[test]
    fn groups_are_strings_of_a_structured_list() {
        for (field, group, is) in [
            (r#""a", "b""#, "b", true),
            (r#""a";x=1"#, "a", true),
            (r#""a b, c""#, "a b, c", true),
            ("a", "a", false),
            (r#"1, "a""#, "a", true),
            (r#"("a")"#, "a", false),
            (r#""a", "#, "a", false),
        ] {
            assert_eq!(has_group(field, group), is, "{field}");
        }
    }

    #[test]
    fn a_group_is_one_of_its_origin_alone() {
        let mut fields = HeaderMap::new();
        fields.insert(GROUPS, "\"g\"".parse().unwrap());
        fields.insert(GROUP_INVALIDATION, "\"g\"".parse().unwrap());
        let own = labels(key(false, None, "/a", None).text(), &fields);
        for (https, port, hit) in [(false, None, true), (true, None, false), (false, Some(81), false)] {
            let gone = invalidated_groups(key(https, port, "/other", None).text(), &fields);
            assert_eq!(own.contains(&gone[0]), hit, "{https} {port:?}");
        }
    }

    #[test]
    fn an_answer_lies_in_all_its_directories_and_no_other() {
        let of = |path: &str| labels(key(false, None, path, None).text(), &HeaderMap::new());
        for (path, prefix, within) in [
            ("/a/b/c", "/", true),
            ("/a/b/c", "/a/", true),
            ("/a/b/c", "/a/b/", true),
            ("/a/b/", "/a/b/", true),
            ("/a/b", "/a/b/", false),
            ("/ab", "/a/", false),
            ("/a", "/b/", false),
        ] {
            let key = key(false, None, path, None);
            let authority = key::place(key.text()).authority;
            let label = Target::Prefix { authority, path: prefix.as_bytes() }.label();
            assert_eq!(of(path).contains(&label), within, "{path} in {prefix}");
        }
    }

    #[test]
    fn a_url_is_the_same_by_both_schemes_and_not_by_another_query() {
        let of = |https, query| labels(key(https, None, "/a", query).text(), &HeaderMap::new());
        assert_eq!(of(false, Some("x"))[1], of(true, Some("x"))[1]);
        assert_ne!(of(false, Some("x"))[1], of(false, None)[1]);
    }

    const A: Label = [1; 16];
    const B: Label = [2; 16];

    #[test]
    fn a_mark_counts_for_what_began_before_it_and_bears_its_label() {
        let mut marks = Marks::default();
        marks.note(&[A], 10, Force::Hard);
        marks.note(&[B], 20, Force::Soft);
        for (labels, began, verdict) in [
            (&[A][..], 9, Verdict::Gone),
            (&[A], 10, Verdict::Untouched),
            (&[B], 19, Verdict::Stale),
            (&[B], 20, Verdict::Untouched),
            (&[B, A], 9, Verdict::Gone),
            (&[A, B], 15, Verdict::Stale),
            (&[[3; 16]], 0, Verdict::Untouched),
        ] {
            assert_eq!(marks.judge(labels, began), verdict, "{labels:?} {began}");
        }
    }

    #[test]
    fn marks_told_late_or_twice_change_nothing_known() {
        let mut marks = Marks::default();
        marks.note(&[A], 10, Force::Hard);
        marks.note(&[A], 5, Force::Hard);
        assert_eq!(marks.judge(&[A], 7), Verdict::Gone);
        assert_eq!(marks.last(), 10);
    }

    #[test]
    fn an_own_purge_comes_after_all_that_is_known() {
        let mut marks = Marks::default();
        marks.note(&[B], 10, Force::Hard);
        assert_eq!(marks.purge(&[A], Force::Hard), 11);
        assert_eq!(marks.judge(&[A], 10), Verdict::Gone);
        assert_eq!(marks.judge(&[A], marks.last()), Verdict::Untouched);
    }

    #[test]
    fn what_began_before_the_known_is_validated() {
        let mut marks = Marks::default();
        marks.known_since(10);
        assert_eq!(marks.judge(&[A], 9), Verdict::Stale);
        assert_eq!(marks.judge(&[A], 10), Verdict::Untouched);
    }

    #[test]
    fn marks_past_the_bound_are_let_go_on_the_safe_side() {
        let mut marks = Marks::default();
        for n in 0..100u64 {
            let mut label = [0; 16];
            label[..8].copy_from_slice(&n.to_le_bytes());
            marks.note(&[label], n + 1, Force::Hard);
            marks.bound(10);
            assert!(marks.marks.len() <= 10);
            assert_ne!(marks.judge(&[label], n), Verdict::Untouched);
        }
        assert_eq!(marks.judge(&[A], 1), Verdict::Stale);
        assert_eq!(marks.judge(&[A], 100), Verdict::Untouched);
    }
}
