//! How the instances of an upstream are spoken to.

use std::path::PathBuf;

use super::listen::Certificate;

/// TLS to the instances of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The name asked for, and verified; `None`: the instance's host.
    pub sni: Option<String>,
    /// A file with the roots that the instances' certificates must lead to; `None`: those the system trusts.
    pub ca: Option<PathBuf>,
    /// Whether an instance's certificate must be valid and for that name.
    pub verify: bool,
    /// What we show ourselves, where instances ask for it.
    pub own: Option<Certificate>,
}

/// Which HTTP the instances speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: over TLS agreed on, else known beforehand (h2c).
    Two,
}
