//! A borrowed view of a message's header fields.
//!
//! Rules read fields through [`Fields`], so that they serve both a parsed [`http::HeaderMap`] and the raw slices of a request that was
//! never turned into one.

use http::HeaderMap;

/// Header fields that can be read by name. Names are given in lower case and matched without regard to case.
pub trait Fields: Sync {
    /// Calls `visit` with the value of every line named `name`, in the order they came.
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8]));

    /// The value of the first line named `name`.
    fn first<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        let mut found = None;
        self.each(name, &mut |value| {
            found.get_or_insert(value);
        });
        found
    }

    /// Whether any line is named `name`.
    fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// All lines named `name`, joined by ", " (RFC 9110 §5.3); `None` when there is none.
    fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let mut whole: Option<Vec<u8>> = None;
        self.each(name, &mut |value| match &mut whole {
            None => whole = Some(value.to_vec()),
            Some(whole) => {
                whole.extend_from_slice(b", ");
                whole.extend_from_slice(value);
            }
        });
        whole
    }
}

impl Fields for HeaderMap {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for value in self.get_all(name) {
            visit(value.as_bytes());
        }
    }
}

/// Name and value pairs in the order they came, as a parser leaves them.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'p>(pub &'p [(&'p str, &'p [u8])]);

impl Fields for Pairs<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for (n, value) in self.0 {
            if n.eq_ignore_ascii_case(name) {
                visit(value);
            }
        }
    }
}

/// Calls `visit` with every value of a cookie (RFC 6265 §4.2.1): which of several an instance takes is not ours to know.
pub fn each_cookie<'a>(fields: &'a dyn Fields, name: &str, mut visit: impl FnMut(&'a [u8])) {
    fields.each("cookie", &mut |line| {
        for pair in line.split(|&byte| byte == b';').map(trim) {
            let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            if trim(&pair[..equals]) == name.as_bytes() {
                visit(trim(pair.get(equals + 1..).unwrap_or_default()));
            }
        }
    });
}

/// Without the white space of a field value around it (RFC 9110 §5.6.3).
pub fn trim(text: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn both_views_read_the_same_lines() {
        let mut map = HeaderMap::new();
        map.append("vary", HeaderValue::from_static("a"));
        map.append("Vary", HeaderValue::from_static("b, c"));
        let pairs = Pairs(&[("VARY", b"a"), ("x", b"y"), ("vary", b"b, c")]);
        assert_eq!(map.joined("vary").as_deref(), Some(&b"a, b, c"[..]));
        assert_eq!(pairs.joined("vary").as_deref(), Some(&b"a, b, c"[..]));
        assert_eq!(map.first("vary"), pairs.first("vary"));
        assert!(!pairs.has("age"));
    }
}
