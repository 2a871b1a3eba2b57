//! TLS for tests: an authority that issues what a test asks for, and connections that verify it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVerifyMode};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// A root with its key, and perhaps the authority that issued it.
#[derive(Clone)]
pub struct Authority {
    cert: X509,
    key: PKey<Private>,
    above: Vec<X509>,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: X509,
    /// Its key.
    pub key: PKey<Private>,
    /// What leads to the root, the root left out.
    pub chain: Vec<X509>,
}

/// Days from now between which a certificate is valid.
pub type Days = (i64, i64);

/// From yesterday for a month.
pub const NOW: Days = (-1, 30);

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn begun(subject: &[(&str, &str)], key: &PKey<Private>, (from, to): Days) -> X509Builder {
    let mut name = X509NameBuilder::new().unwrap();
    for (field, value) in subject {
        name.append_entry_by_text(field, value).unwrap();
    }
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    let day = |days: i64| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        Asn1Time::from_unix(now + days * 86_400).unwrap()
    };
    let mut cert = X509Builder::new().unwrap();
    cert.set_version(2).unwrap();
    cert.set_subject_name(&name.build()).unwrap();
    cert.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    cert.set_not_before(&day(from)).unwrap();
    cert.set_not_after(&day(to)).unwrap();
    cert.set_pubkey(key).unwrap();
    cert
}

fn constrained(cert: &mut X509Builder) {
    cert.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    cert.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap()).unwrap();
}

impl Authority {
    /// A root of this name.
    pub fn new(name: &str) -> Self {
        let key = key();
        let mut cert = begun(&[("CN", name)], &key, NOW);
        let subject = begun(&[("CN", name)], &key, NOW).build();
        cert.set_issuer_name(subject.subject_name()).unwrap();
        constrained(&mut cert);
        cert.sign(&key, MessageDigest::sha256()).unwrap();
        Self { cert: cert.build(), key, above: Vec::new() }
    }

    /// An authority below this one.
    pub fn below(&self, name: &str) -> Self {
        let key = key();
        let mut cert = begun(&[("CN", name)], &key, NOW);
        cert.set_issuer_name(self.cert.subject_name()).unwrap();
        constrained(&mut cert);
        cert.sign(&self.key, MessageDigest::sha256()).unwrap();
        let cert = cert.build();
        let above = [vec![cert.clone()], self.above.clone()].concat();
        Self { cert, key, above }
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(&[("CN", names[0])], names, NOW)
    }

    /// A certificate that is valid between these days.
    pub fn issue_within(&self, names: &[&str], days: Days) -> Issued {
        self.issue_for(&[("CN", names[0])], names, days)
    }

    /// A certificate with this subject.
    pub fn issue_for(&self, subject: &[(&str, &str)], names: &[&str], days: Days) -> Issued {
        let key = key();
        let mut cert = begun(subject, &key, days);
        cert.set_issuer_name(self.cert.subject_name()).unwrap();
        let mut alternative = SubjectAlternativeName::new();
        for name in names {
            match name.parse::<IpAddr>() {
                Ok(_) => alternative.ip(name),
                Err(_) => alternative.dns(name),
            };
        }
        if !names.is_empty() {
            let extension = alternative.build(&cert.x509v3_context(Some(&self.cert), None)).unwrap();
            cert.append_extension(extension).unwrap();
        }
        cert.sign(&self.key, MessageDigest::sha256()).unwrap();
        Issued { cert: cert.build(), key, chain: self.above.clone() }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> Vec<u8> {
        self.cert.to_pem().unwrap()
    }

    /// What a client that trusts it alone connects with.
    pub fn trust(&self, configure: impl FnOnce(&mut SslContextBuilder)) -> SslContext {
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(self.cert.clone()).unwrap();
        context.set_cert_store(store.build());
        context.set_verify(SslVerifyMode::PEER);
        configure(&mut context);
        context.build()
    }
}

/// Files of certificates, gone when dropped.
pub struct Files(tempfile::TempDir);

impl Files {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only we may read, all at once.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }

    /// Writes a certificate with its chain, and its key: `NAME.pem` and `NAME.key`.
    pub fn pair(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.pem"), &issued.pem());
        self.write(&format!("{name}.key"), &issued.key_pem());
    }

    /// A pair as it stands in `certificates = […]`.
    pub fn entry(&self, name: &str) -> String {
        let shown = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
        format!("{{ cert = \"{}\", key = \"{}\" }}", shown("pem"), shown("key"))
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

impl Issued {
    /// The certificate and what leads to the root, in PEM.
    pub fn pem(&self) -> Vec<u8> {
        let all = std::iter::once(&self.cert).chain(&self.chain);
        all.flat_map(|cert| cert.to_pem().unwrap()).collect()
    }

    /// The key, in PEM.
    pub fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }

    /// Shown by a client.
    pub fn shown_by(&self, context: &mut SslContextBuilder) {
        context.set_certificate(&self.cert).unwrap();
        for issuer in &self.chain {
            context.add_extra_chain_cert(issuer.clone()).unwrap();
        }
        context.set_private_key(&self.key).unwrap();
    }
}

/// A connection, secured or not.
#[derive(Debug)]
pub enum Wire {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS.
    Secured(Box<SslStream<TcpStream>>),
}

impl Wire {
    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secured(stream) => stream.get_ref(),
        }
    }
}

/// Makes the handshake of a client that asks for `name`; an empty one asks for none.
///
/// # Errors
/// Why there is none.
pub async fn handshake(
    context: &SslContext,
    name: &str,
    socket: TcpStream,
) -> Result<SslStream<TcpStream>, openssl::ssl::Error> {
    let mut ssl = Ssl::new(context)?;
    if !name.is_empty() {
        ssl.set_hostname(name)?;
        ssl.param_mut().set_host(name)?;
    }
    let mut stream = SslStream::new(ssl, socket)?;
    Pin::new(&mut stream).connect().await?;
    Ok(stream)
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
