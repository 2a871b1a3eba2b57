//! A client stays with its instance: a cookie that names it to us and to nobody else.
//!
//! What it holds is a keyed hash of the upstream's and the instance's names: it shows no address, and only who has the key can make one. So a client
//! cannot send itself to an instance of its choice, other than to one that it was sent to before.

use std::fmt::Write as _;
use std::time::Duration;

use crate::base::fields::{Fields, each_cookie};

/// What the cookie is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its path (RFC 6265 §5.2.4).
    pub path: String,
    /// How long a client keeps it; `None`: as long as it runs.
    pub max_age: Option<Duration>,
    /// Whether it is for https alone.
    pub secure: Secure,
    /// Whether scripts may not see it.
    pub http_only: bool,
    /// Whether requests from other sites carry it.
    pub same_site: SameSite,
}

/// Whether a cookie is for https alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// Where the client came by https.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether requests from other sites carry a cookie (RFC 6265bis §4.1.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// No.
    Strict,
    /// Only those that lead there.
    Lax,
    /// Yes.
    None,
}

/// The secret that makes the cookies of one upstream.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of an upstream, from a secret of any length. Upstreams that share a secret have keys of their own.
    pub fn new(secret: &[u8], upstream: &str) -> Self {
        let shared = blake3::derive_key("vanne sticky cookie v1", secret);
        Self(*blake3::keyed_hash(&shared, upstream.as_bytes()).as_bytes())
    }

    /// What the cookie says for an instance.
    pub fn token(&self, instance: &str) -> String {
        self.hash(instance).to_hex().to_string()
    }

    /// Whether a cookie names this instance; compared in constant time.
    pub fn names(&self, cookie: &[u8], instance: &str) -> bool {
        blake3::Hash::from_hex(cookie).is_ok_and(|hash| hash == self.hash(instance))
    }

    fn hash(&self, instance: &str) -> blake3::Hash {
        blake3::keyed_hash(&self.0, instance.as_bytes())
    }
}

impl Cookie {
    /// The instance that a request's cookie names, by its position among `instances`.
    pub fn named<'i>(
        &self,
        key: &Key,
        request: &dyn Fields,
        mut instances: impl Iterator<Item = &'i str>,
    ) -> Option<usize> {
        let mut value = None;
        each_cookie(request, &self.name, |cookie| {
            value.get_or_insert(cookie);
        });
        let value = value?;
        instances.position(|instance| key.names(value, instance))
    }

    /// The value of a `Set-Cookie` field that binds a client to an instance (RFC 6265 §4.1).
    pub fn set(&self, key: &Key, instance: &str, https: bool) -> String {
        let mut field = format!("{}={}; Path={}", self.name, key.token(instance), self.path);
        if let Some(age) = self.max_age {
            // Writing into text does not fail.
            let _ = write!(field, "; Max-Age={}", age.as_secs());
        }
        if self.secure == Secure::Always || (self.secure == Secure::Auto && https) {
            field.push_str("; Secure");
        }
        if self.http_only {
            field.push_str("; HttpOnly");
        }
        field.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    fn cookie() -> Cookie {
        Cookie {
            name: "vanne".into(),
            path: "/".into(),
            max_age: None,
            secure: Secure::Auto,
            http_only: true,
            same_site: SameSite::Lax,
        }
    }

    const INSTANCES: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

    fn named(key: &Key, line: &str) -> Option<usize> {
        let fields = [("cookie", line.as_bytes())];
        cookie().named(key, &Pairs(&fields), INSTANCES.into_iter())
    }

    #[test]
    fn what_was_set_names_its_instance_and_shows_no_address() {
        let key = Key::new(b"a secret", "api");
        for (position, instance) in INSTANCES.into_iter().enumerate() {
            let token = key.token(instance);
            assert_eq!(named(&key, &format!("a=b; vanne={token}; c=d")), Some(position));
            assert!(!token.contains("10.0"), "{token}");
        }
    }

    #[test]
    fn a_cookie_that_this_key_did_not_make_names_nobody() {
        let key = Key::new(b"a secret", "api");
        let token = key.token(INSTANCES[0]);
        for (line, fact) in [
            (format!("vanne={}", Key::new(b"another", "api").token(INSTANCES[0])), "another secret's"),
            (format!("vanne={}", Key::new(b"a secret", "web").token(INSTANCES[0])), "another upstream's"),
            (format!("vanne={}", key.token("10.0.0.9:80")), "an instance that left"),
            (format!("vanne={}", &token[..63]), "a part of one"),
            (format!("vanne={token}0"), "one with more behind it"),
            (format!("other={token}"), "another cookie"),
            ("vanne=".into(), "nothing"),
            ("vanne=10.0.0.1:80".into(), "an address"),
        ] {
            assert_eq!(named(&key, &line), None, "{fact}");
        }
    }

    #[test]
    fn its_attributes_are_those_that_were_asked_for() {
        let key = Key::new(b"a secret", "api");
        let token = key.token("a:1");
        for (cookie, https, attributes) in [
            (cookie(), false, "; Path=/; HttpOnly; SameSite=Lax"),
            (cookie(), true, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
            (
                Cookie { secure: Secure::Never, http_only: false, same_site: SameSite::Strict, ..cookie() },
                true,
                "; Path=/; SameSite=Strict",
            ),
            (
                Cookie {
                    secure: Secure::Always,
                    same_site: SameSite::None,
                    max_age: Some(Duration::from_secs(3600)),
                    path: "/app".into(),
                    ..cookie()
                },
                false,
                "; Path=/app; Max-Age=3600; Secure; HttpOnly; SameSite=None",
            ),
        ] {
            assert_eq!(cookie.set(&key, "a:1", https), format!("vanne={token}{attributes}"));
        }
    }
}
