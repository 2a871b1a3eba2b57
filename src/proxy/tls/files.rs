//! Certificates and keys as files: read, and judged before anybody is shown them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref};

use crate::plan::listen::{Certificate, Clients, Tls};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everybody may read a private key.
    #[error("{}: everybody on this machine may read this private key (mode {mode:o}); chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no certificate in it.
    #[error("{}: there is no certificate in PEM in it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in it that can be read without a password.
    #[error("{}: there is no private key in PEM without a password in it", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together.
    #[error("{}: is not the key of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificates do not follow each other.
    #[error("{}: certificate {position} did not issue the one before it; put the server's first, then each one's issuer", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        position: usize,
    },
    /// It names no host.
    #[error("{}: the certificate is for no name", path.display())]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// The library would not take it.
    #[error("{}: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: openssl::error::ErrorStack,
    },
}

/// A certificate that is right but for the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untimely {
    /// Its time has passed.
    Expired,
    /// Its time is yet to come.
    NotYet,
}

impl Untimely {
    /// The words for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "has expired",
            Self::NotYet => "is not valid yet",
        }
    }
}

/// A certificate with its key, ready to be shown.
pub struct Pair {
    /// The certificate and those that lead to its root.
    pub chain: Vec<X509>,
    /// Its key.
    pub key: PKey<Private>,
    /// What is stapled.
    pub ocsp: Option<Vec<u8>>,
    /// The names it is for, in lower case.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
    /// Whether the calendar is against it now.
    pub untimely: Option<Untimely>,
}

impl Pair {
    /// Reads a certificate, its key and what belongs to it.
    ///
    /// # Errors
    /// What is wrong with one of them, or between them.
    pub fn read(files: &Certificate) -> Result<Self, Wrong> {
        let refused = |source| Wrong::Refused { path: files.cert.clone(), source };
        let chain = certificates(&files.cert)?;
        let key = private_key(&files.key)?;
        let leaf = &chain[0];
        if !leaf.public_key().map_err(refused)?.public_eq(&key) {
            return Err(Wrong::Mismatch { cert: files.cert.clone(), key: files.key.clone() });
        }
        ordered(&chain, &files.cert)?;
        let names = names(leaf);
        if names.is_empty() {
            return Err(Wrong::Nameless { path: files.cert.clone() });
        }
        let ocsp = files.ocsp.as_deref().map(contents).transpose()?;
        let now = Asn1Time::days_from_now(0).map_err(refused)?;
        let untimely = untimely(leaf, &now);
        let expires = seconds(leaf.not_after()).map_err(refused)?;
        Ok(Self { chain, key, ocsp, names, expires, untimely })
    }
}

/// All the files that a listener's security is made of.
pub fn all(tls: &Tls) -> Vec<&Path> {
    let roots = match &tls.clients {
        Clients::Anyone => None,
        Clients::Optional(roots) | Clients::Required(roots) => Some(roots.as_path()),
    };
    let mut files: Vec<&Path> = Vec::new();
    for pair in &tls.certificates {
        files.extend([pair.cert.as_path(), pair.key.as_path()]);
        files.extend(pair.ocsp.as_deref());
    }
    files.extend(roots);
    files
}

/// What a file holds.
///
/// # Errors
/// When it cannot be read.
pub fn contents(path: &Path) -> Result<Vec<u8>, Wrong> {
    fs::read(path).map_err(|source| Wrong::Unreadable { path: path.to_owned(), source })
}

/// The certificates in a file, at least one.
///
/// # Errors
/// When it cannot be read, or there is none.
pub fn certificates(path: &Path) -> Result<Vec<X509>, Wrong> {
    let chain = X509::stack_from_pem(&contents(path)?).unwrap_or_default();
    if chain.is_empty() { Err(Wrong::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

/// The private key in a file.
///
/// # Errors
/// When it cannot be read, there is none, or everybody may read it: whoever has the key is the server to every client.
pub fn private_key(path: &Path) -> Result<PKey<Private>, Wrong> {
    let unreadable = |source| Wrong::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        return Err(Wrong::Open { path: path.to_owned(), mode });
    }
    // Without the call-back the library would ask at the terminal for the password of a locked key.
    PKey::private_key_from_pem_callback(&contents(path)?, |_| Ok(0))
        .map_err(|_| Wrong::NoKey { path: path.to_owned() })
}

/// Each certificate must have been issued by the one after it: clients that do not sort them would find no way to the root (RFC 8446 §4.4.2).
fn ordered(chain: &[X509], path: &Path) -> Result<(), Wrong> {
    for (before, pair) in chain.windows(2).enumerate() {
        if pair[1].issued(&pair[0]) != openssl::x509::X509VerifyResult::OK {
            return Err(Wrong::Order { path: path.to_owned(), position: before + 2 });
        }
    }
    Ok(())
}

/// The names a certificate is for: those of its extension, or, where it has none, its common name.
fn names(cert: &X509Ref) -> Vec<String> {
    let alternative = cert.subject_alt_names();
    let listed: Vec<String> = alternative
        .iter()
        .flatten()
        .filter_map(|name| name.dnsname().map(str::to_owned).or_else(|| name.ipaddress().map(address)))
        .collect();
    let common = || {
        let entry = cert.subject_name().entries_by_nid(Nid::COMMONNAME).next()?;
        entry.data().to_string().ok()
    };
    let names = if listed.is_empty() { common().into_iter().collect() } else { listed };
    names.into_iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect()
}

fn address(bytes: &[u8]) -> String {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => std::net::IpAddr::from(four).to_string(),
        (_, Ok(sixteen)) => std::net::IpAddr::from(sixteen).to_string(),
        _ => String::new(),
    }
}

fn untimely(cert: &X509Ref, now: &Asn1TimeRef) -> Option<Untimely> {
    if cert.not_after() < now {
        Some(Untimely::Expired)
    } else if cert.not_before() > now {
        Some(Untimely::NotYet)
    } else {
        None
    }
}

/// A point in time in seconds since 1970.
fn seconds(time: &Asn1TimeRef) -> Result<i64, openssl::error::ErrorStack> {
    let apart = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(apart.days) * 86_400 + i64::from(apart.secs))
}
