//! Who asks: the Basic scheme (RFC 7617), against hashed passwords.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use sha_crypt::ShaCrypt;

use crate::base::fields::Fields;

/// The longest password that is looked at, in bytes: nobody types a longer one, and hashing takes the longer the longer it is.
const LONGEST_PASSWORD: usize = 1024;

/// The users of a realm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users(Vec<User>);

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Arc<str>,
    /// The password's hash.
    pub hash: Hash,
}

/// A hashed password.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Argon2(String),
    Bcrypt(String),
    ShaCrypt(String),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(***)")
    }
}

/// Why a line is no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAUser {
    /// It is not `name:hash`.
    #[error("it is not a name, a colon and a hash")]
    Form,
    /// What stands for a hash is a password, or made by a scheme that is long broken.
    #[error("its password is not hashed by argon2, bcrypt or sha-crypt")]
    Hash,
    /// The name is taken.
    #[error("another line has the same name")]
    Twice,
}

impl Hash {
    /// Reads a hash: of argon2 (`$argon2id$…`), bcrypt (`$2y$…`, from `htpasswd -B`) or SHA-crypt (`$5$…`, `$6$…`).
    ///
    /// # Errors
    /// When it is none of these, or damaged.
    pub fn parse(text: &str) -> Result<Self, NotAUser> {
        let form = if text.starts_with("$argon2") {
            let read = PasswordHash::new(text).ok().filter(|hash| hash.hash.is_some() && hash.salt.is_some());
            read.map(|_| Form::Argon2(text.to_owned()))
        } else if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            text.parse::<bcrypt::HashParts>().ok().map(|_| Form::Bcrypt(text.to_owned()))
        } else if text.starts_with("$5$") || text.starts_with("$6$") {
            sha_crypt::PasswordHash::new(text)
                .ok()
                .filter(|_| sha_crypt_is_whole(text))
                .map(|_| Form::ShaCrypt(text.to_owned()))
        } else {
            None
        };
        form.map(Self).ok_or(NotAUser::Hash)
    }

    /// Whether it was made from this password. Takes as long as the hash was made to take: never to be called where other requests wait.
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.0 {
            Form::Argon2(hash) => Argon2::default().verify_password(password, hash.as_str()).is_ok(),
            Form::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Form::ShaCrypt(hash) => sha_crypt::PasswordHash::new(hash.as_str())
                .is_ok_and(|hash| ShaCrypt::default().verify_password(password, &hash).is_ok()),
        }
    }
}

/// `$5$salt$43 characters` or `$6$salt$86 characters`, with or without `rounds=…$` before the salt.
fn sha_crypt_is_whole(text: &str) -> bool {
    let mut parts = text.split('$').skip(1);
    let length = if parts.next() == Some("5") { 43 } else { 86 };
    let rest: Vec<&str> = parts.collect();
    let rest = match rest.as_slice() {
        [rounds, rest @ ..] if rounds.starts_with("rounds=") => rest,
        rest => rest,
    };
    matches!(rest, [_, sum] if sum.len() == length)
}

/// Hashes a password the way it should be done today: argon2id with the parameters its authors recommend first for servers (19 MiB, two passes).
///
/// # Errors
/// When the system gives no random numbers.
pub fn hash(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    let hash: PasswordHash = Argon2::default().hash_password(password)?;
    Ok(hash.to_string())
}

impl Users {
    /// Users of these lines, each `name:hash`, as `htpasswd` writes them.
    ///
    /// # Errors
    /// The position of the first line that is none, and why.
    pub fn of_lines<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Self, (usize, NotAUser)> {
        let mut users = Self::default();
        for (position, line) in lines.into_iter().enumerate() {
            users.add(line).map_err(|why| (position, why))?;
        }
        Ok(users)
    }

    /// Adds the user of a line.
    ///
    /// # Errors
    /// When it is none.
    pub fn add(&mut self, line: &str) -> Result<(), NotAUser> {
        let (name, hash) = line.split_once(':').ok_or(NotAUser::Form)?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(NotAUser::Form);
        }
        let hash = Hash::parse(hash)?;
        if self.0.iter().any(|user| &*user.name == name) {
            return Err(NotAUser::Twice);
        }
        self.0.push(User { name: name.into(), hash });
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The user whom these credentials prove. A name that nobody has costs as much as one that somebody has, so that time tells no names.
    pub fn verify(&self, given: &Credentials) -> Option<Arc<str>> {
        let user = self.0.iter().find(|user| *user.name == *given.name);
        let hash = &user.or(self.0.first())?.hash;
        let right = hash.verify(&given.password);
        user.filter(|_| right).map(|user| user.name.clone())
    }
}

/// A name and a password as a client sent them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// The credentials of a request (RFC 7617 §2); `None` when there are none, several, or they do not read.
pub fn credentials(fields: &dyn Fields) -> Option<Credentials> {
    let mut lines = 0;
    fields.each("authorization", &mut |_| lines += 1);
    let value = fields.first("authorization").filter(|_| lines == 1)?;
    let (scheme, coded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64(coded.trim_ascii())?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    let password = decoded[colon + 1..].to_vec();
    let reads = !name.is_empty() && !name.chars().any(char::is_control) && password.len() <= LONGEST_PASSWORD;
    reads.then_some(Credentials { name, password })
}

/// What a client that showed nothing, or the wrong thing, is asked for (RFC 7617 §2 and §2.1). `realm` holds nothing that a quoted string must escape.
pub fn challenge(realm: &str) -> String {
    format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
}

/// Decodes base64 with its padding (RFC 4648 §4); `None` when it is not exactly that.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) || text.len() > 4 * LONGEST_PASSWORD {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let digits = &text[..text.len() - padding];
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            bits = (bits << 6) | u32::from(digit(*byte)?);
        }
        bits <<= 6 * (4 - group.len());
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..group.len()]);
        // Bits that are cut off must be zero: else one password would have several spellings.
        if bytes[group.len()..].iter().any(|byte| *byte != 0) {
            return None;
        }
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    /// The known answer of bcrypt's own tests, and what `openssl passwd` makes.
    const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    const SHA512: &str = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
    const SHA256: &str = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";

    fn cheap(password: &str) -> String {
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let hash: PasswordHash =
            argon.hash_password_with_salt(password.as_bytes(), b"0123456789abcdef").unwrap();
        hash.to_string()
    }

    #[test]
    fn hashes_of_three_families_are_read_and_verified() {
        let argon = cheap("correct horse");
        for (hash, right) in [
            (BCRYPT, "U*U"),
            (SHA512, "Hello world!"),
            (SHA256, "Hello world!"),
            (argon.as_str(), "correct horse"),
        ] {
            let hash = Hash::parse(hash).unwrap_or_else(|_| panic!("{hash}"));
            assert!(hash.verify(right.as_bytes()), "{hash:?} {right}");
            assert!(!hash.verify(b"wrong"));
            assert!(!hash.verify(b""));
        }
    }

    #[test]
    fn every_version_of_bcrypt_is_taken() {
        for version in ["2a", "2b", "2x", "2y"] {
            assert!(
                Hash::parse(&BCRYPT.replacen("2a", version, 1)).is_ok_and(|hash| hash.verify(b"U*U")),
                "{version}"
            );
        }
    }

    #[test]
    fn what_we_make_we_take() {
        let made = hash(b"a secret").unwrap();
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        assert!(Hash::parse(&made).unwrap().verify(b"a secret"));
        assert_ne!(made, hash(b"a secret").unwrap());
    }

    #[test]
    fn plain_passwords_and_broken_schemes_are_no_hashes() {
        for wrong in [
            "",
            "password",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$apr1$zOMZ0z0z$aaaaaaaaaaaaaaaaaaaaaa",
            "$1$abc$def",
            "rqXexS6ZhobKA",
            "$2y$",
            "$2y$10$short",
            "$6$salt",
            "$6$salt$short",
            "$5$",
            "$argon2id$",
            "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg",
        ] {
            assert_eq!(Hash::parse(wrong), Err(NotAUser::Hash), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_a_name_and_a_hash() {
        let line = format!("alice:{BCRYPT}");
        let users = Users::of_lines([line.as_str()]).unwrap();
        let given = |name: &str, password: &str| Credentials { name: name.into(), password: password.into() };
        let right = "U*U";
        assert_eq!(users.verify(&given("alice", right)).as_deref(), Some("alice"));
        assert_eq!(users.verify(&given("alice", "wrong")), None);
        assert_eq!(users.verify(&given("bob", right)), None);
        assert_eq!(Users::default().verify(&given("alice", right)), None);
        assert_eq!(Users::of_lines([line.as_str(), line.as_str()]), Err((1, NotAUser::Twice)));
        assert_eq!(Users::of_lines(["alice"]), Err((0, NotAUser::Form)));
        assert_eq!(Users::of_lines([&*format!(":{BCRYPT}")]), Err((0, NotAUser::Form)));
        assert_eq!(Users::of_lines(["alice:secret"]), Err((0, NotAUser::Hash)));
        assert!(!format!("{users:?}").contains("$2a$"));
    }

    #[test]
    fn credentials_are_read_strictly() {
        let read = |value: &'static [u8]| {
            credentials(&Pairs(&[("authorization", value)]))
                .map(|c| (c.name, String::from_utf8(c.password).unwrap()))
        };
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(read(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read(b"basic dGVzdDoxMjPCow=="), pair("test", "123\u{a3}"));
        assert_eq!(read(b"Basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(read(b"Basic YTo="), pair("a", ""));
        for wrong in [
            &b"Basic"[..],
            b"Basic ",
            b"Basic YQ==",
            b"Basic OmI=",
            b"Basic YTpi YTpi",
            b"Basic YTo",
            b"Basic YTpi=",
            b"Basic YTp=",
            b"Basic ====",
            b"Basic YTp$",
            b"Bearer YTpi",
            b"BasicYTpi",
            b"Basic YQo6Yg==",
            b"Basic YTpj\xff",
        ] {
            assert_eq!(read(wrong), None, "{:?}", String::from_utf8_lossy(wrong));
        }
        let twice = Pairs(&[("authorization", b"Basic YTpi"), ("authorization", b"Basic YTpi")]);
        assert!(credentials(&twice).is_none());
    }
}
