//! How a listener's connections are secured and which HTTP they speak.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

/// How connections are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates, at least one. The first is shown to whom none of the others is for.
    pub certificates: Vec<Certificate>,
    /// Versions and ciphers.
    pub profile: Profile,
    /// Whether clients show certificates of their own.
    pub clients: Clients,
    /// A client that asks for a name which no certificate is for: whether it is shown the first one all the same.
    pub unknown_names: UnknownNames,
    /// Whether clients may resume sessions by tickets.
    pub tickets: bool,
    /// The whole handshake must be done within this time.
    pub handshake_timeout: Duration,
    /// How often the files are looked at for a change; zero: never.
    pub reload: Duration,
    /// The `Strict-Transport-Security` of every answer (RFC 6797 §6.1).
    pub hsts: Option<HeaderValue>,
}

/// A certificate and what belongs to it, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, then those that lead to its root, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// What its issuer says of its revocation, in DER (RFC 6960): stapled to handshakes.
    pub ocsp: Option<PathBuf>,
}

/// Which versions and ciphers are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// TLS 1.3 alone.
    Modern,
    /// TLS 1.2 and 1.3, in 1.2 only authenticated encryption with forward secrecy.
    Intermediate,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked.
    Anyone,
    /// They may show one that leads to a root in this file; another one ends the handshake.
    Optional(PathBuf),
    /// They must.
    Required(PathBuf),
}

/// What becomes of a client that asks for a name which no certificate is for, or for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownNames {
    /// It is shown the first certificate.
    First,
    /// The handshake ends.
    Refuse,
}
