//! Which file a path names: decoded once, judged piece by piece, before any file is touched.
//!
//! What is refused here is refused for what it says; that nothing leads out of the root by a link is the kernel's to see to ([`super::beneath`]).

use percent_encoding::percent_decode;

/// The longest path in bytes; Linux takes 4096 with its end.
const LONGEST: usize = 4095;
/// The longest name in bytes.
const LONGEST_NAME: usize = 255;

/// A path beneath a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative {
    /// Its names, joined by `/`; empty for the root itself.
    pub bytes: Vec<u8>,
    /// It names a folder: it ended with `/`.
    pub folder: bool,
}

impl Relative {
    /// Reads the path of a request; `None` when it names nothing that may be served: no file has a name like it, or the name is hidden.
    ///
    /// `.well-known` is the one name with a dot first that is meant for all (RFC 8615), and only at the top.
    pub fn read(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        if path.is_empty() {
            return Some(Self { bytes: Vec::new(), folder: true });
        }
        let (path, folder) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        let mut bytes = Vec::with_capacity(path.len());
        for (position, piece) in path.split('/').enumerate() {
            let name = decoded(piece)?;
            let well_known = position == 0 && name == b".well-known";
            if !is_open(&name) && !well_known {
                return None;
            }
            if position > 0 {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(&name);
        }
        (bytes.len() <= LONGEST).then_some(Self { bytes, folder })
    }

    /// A file beneath it, or beside it.
    pub fn with(&self, more: &str) -> Vec<u8> {
        [&self.bytes[..], more.as_bytes()].concat()
    }

    /// A file in the folder that it names.
    pub fn inside(&self, name: &str) -> Vec<u8> {
        if self.bytes.is_empty() { name.as_bytes().to_vec() } else { self.with(&format!("/{name}")) }
    }

    /// The last of its names.
    pub fn last(&self) -> &[u8] {
        self.bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(&self.bytes)
    }
}

/// One piece of a path, decoded once; `None` when an escape is broken.
fn decoded(piece: &str) -> Option<Vec<u8>> {
    let bytes = piece.as_bytes();
    let whole = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    whole.then(|| percent_decode(bytes).collect())
}

/// Whether a file of this name is for all. A backslash parts names on other systems, and in the minds of browsers; a control in a name serves nobody.
pub fn is_open(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name[0] != b'.'
        && !name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0..=0x1f | 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_file_or_a_folder() {
        for (path, bytes, folder) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("/a/b.txt", "a/b.txt", false),
            ("/a%20b", "a b", false),
            ("/%C3%BC.html", "ü.html", false),
            ("/a%25b", "a%b", false),
            ("/%252e%252e", "%2e%2e", false),
            ("/.well-known/acme", ".well-known/acme", false),
            ("/a..b", "a..b", false),
            ("/a...", "a...", false),
        ] {
            let expected = Relative { bytes: bytes.into(), folder };
            assert_eq!(Relative::read(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_hidden_or_no_name_is_refused() {
        for path in [
            "",
            "a",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/../a",
            "/a/..",
            "/a/../b",
            "/%2e%2e/a",
            "/.%2e/a",
            "/.git/config",
            "/a/.env",
            "/a/.well-known/b",
            "/%2Ewell-known%2F..",
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a%0a",
            "/a%7F",
            "/%",
            "/%2",
            "/%zz",
            "/a%",
            "/...",
            "/.htaccess/",
        ] {
            assert_eq!(Relative::read(path), None, "{path}");
        }
        assert_eq!(Relative::read(&format!("/{}", "a".repeat(256))), None);
        assert_eq!(Relative::read(&format!("/{}", "a/".repeat(3000))), None);
    }

    #[test]
    fn names_are_found_beside_and_beneath() {
        let root = Relative::read("/").expect("the root");
        let below = Relative::read("/a/b").expect("a path");
        assert_eq!(root.inside("index.html"), b"index.html");
        assert_eq!(below.inside("index.html"), b"a/b/index.html");
        assert_eq!(below.with(".html"), b"a/b.html");
        assert_eq!(below.last(), b"b");
    }
}
