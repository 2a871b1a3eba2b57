//! Connections under TLS: certificates by name, handshakes with a time limit, files that change while we run.
//!
//! The handshake is made here rather than in pingora's listener: there it has a fixed minute, a failure is a line in the log and nothing else, and nobody
//! sees the connections that are still in it when the gateway drains.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAcceptorBuilder, SslAlert, SslContext, SslMethod,
    SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion, select_next_proto,
};
use openssl::x509::X509Name;
use openssl::x509::store::X509StoreBuilder;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::tls::SslStream;

use self::files::{Pair, Wrong};
use super::short::in_time;
use crate::base::clock::Clock;
use crate::observe::metrics::TlsMetrics;
use crate::plan::listen::{Clients, Profile, Tls, UnknownNames};

pub mod files;
mod identity;
pub mod watch;

pub use identity::Identity;

/// The secured side of one listener.
pub struct Server {
    plan: Tls,
    contexts: ArcSwap<SslContext>,
    metrics: TlsMetrics,
}

/// A connection after its handshake.
pub struct Secured {
    /// The connection.
    pub stream: Stream,
    /// Who the client is by its certificate.
    pub identity: Option<Arc<Identity>>,
}

/// Why a handshake failed: the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It took too long.
    Timeout,
    /// The client left.
    Closed,
    /// The client speaks plain HTTP.
    PlainHttp,
    /// No version in common.
    Version,
    /// No cipher in common.
    Cipher,
    /// No protocol in common (ALPN).
    Protocol,
    /// The name is not ours.
    UnknownName,
    /// The client showed no certificate.
    NoCertificate,
    /// The client's certificate does not lead to a root we know, or is not valid now.
    BadCertificate,
    /// The client refused ours.
    Refused,
    /// Anything else.
    Other,
}

impl Failed {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Timeout,
        Self::Closed,
        Self::PlainHttp,
        Self::Version,
        Self::Cipher,
        Self::Protocol,
        Self::UnknownName,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::Refused,
        Self::Other,
    ];

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::PlainHttp => "plain-http",
            Self::Version => "version",
            Self::Cipher => "cipher",
            Self::Protocol => "protocol",
            Self::UnknownName => "unknown-name",
            Self::NoCertificate => "no-certificate",
            Self::BadCertificate => "bad-certificate",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }

    fn of(error: &openssl::ssl::Error) -> Self {
        let Some(stack) = error.ssl_error() else { return Self::Closed };
        let Some(reason) = stack.errors().last().and_then(openssl::error::Error::reason) else {
            return Self::Closed;
        };
        match reason {
            "http request" | "https proxy request" => Self::PlainHttp,
            "unsupported protocol"
            | "wrong version number"
            | "version too low"
            | "inappropriate fallback" => Self::Version,
            "no shared cipher" | "no suitable groups" | "no suitable key share" => Self::Cipher,
            "no application protocol" => Self::Protocol,
            "callback failed" | "clienthello tlsext" | "unrecognized name" => Self::UnknownName,
            "peer did not return a certificate" => Self::NoCertificate,
            "certificate verify failed" => Self::BadCertificate,
            "unexpected eof while reading" => Self::Closed,
            alert if alert.contains(" alert ") => Self::Refused,
            _ => Self::Other,
        }
    }
}

impl Server {
    /// The secured side of a listener, from files.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(plan: &Tls, metrics: TlsMetrics) -> Result<Self, Wrong> {
        let pairs = pairs(plan)?;
        let context = contexts(plan, &pairs)?;
        let server = Self { plan: plan.clone(), contexts: ArcSwap::from_pointee(context), metrics };
        server.note(&pairs);
        Ok(server)
    }

    /// Makes everything anew from the files; connections that stand are not touched.
    ///
    /// # Errors
    /// What is wrong with one of them; all stays as it was.
    pub fn reload(&self) -> Result<(), Wrong> {
        let pairs = pairs(&self.plan)?;
        let context = contexts(&self.plan, &pairs)?;
        self.contexts.store(Arc::new(context));
        self.note(&pairs);
        Ok(())
    }

    fn note(&self, pairs: &[Pair]) {
        for (files, pair) in self.plan.certificates.iter().zip(pairs) {
            self.metrics.expires(&files.cert.display().to_string(), pair.expires);
            if let Some(untimely) = pair.untimely {
                tracing::error!(certificate = %files.cert.display(), names = ?pair.names, ?untimely, "clients will refuse this certificate");
            }
        }
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// Why there is none; it was counted.
    pub async fn accept(&self, stream: Stream, clock: &Clock) -> Result<Secured, Failed> {
        let began = clock.mono();
        let socket = stream.into_any().downcast::<Socket>().map_err(|_| Failed::Other);
        let result = match socket {
            Ok(socket) => self.handshake(*socket).await,
            Err(other) => Err(other),
        };
        let took = clock.mono().since(began);
        self.metrics.handshake(result.as_ref().err().map_or("ok", |failed| failed.as_str()), took);
        result
    }

    async fn handshake(&self, socket: Socket) -> Result<Secured, Failed> {
        let ssl = Ssl::new(&self.contexts.load()).map_err(|_| Failed::Other)?;
        let mut stream = SslStream::new(ssl, socket).map_err(|_| Failed::Other)?;
        match in_time(self.plan.handshake_timeout, stream.accept()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(Failed::of(&error)),
            None => return Err(Failed::Timeout),
        }
        let ssl: &SslRef = Pin::new(&mut stream).get_mut().ssl();
        let identity = ssl.peer_certificate().and_then(|cert| Identity::of(&cert)).map(Arc::new);
        Ok(Secured { identity, stream: Box::new(stream) })
    }
}

/// Reads all pairs of a listener.
///
/// # Errors
/// The first thing that is wrong.
pub fn pairs(plan: &Tls) -> Result<Vec<Pair>, Wrong> {
    plan.certificates.iter().map(Pair::read).collect()
}

/// Whether what a listener's files hold can be served: the whole of what starting does with them.
///
/// # Errors
/// What is wrong with one of them.
pub fn check(plan: &Tls) -> Result<Vec<Pair>, Wrong> {
    let pairs = pairs(plan)?;
    contexts(plan, &pairs)?;
    Ok(pairs)
}

/// The context that handshakes begin with; it goes over to that of another certificate when the client asks for its name.
fn contexts(plan: &Tls, pairs: &[Pair]) -> Result<SslContext, Wrong> {
    let mut names = HashMap::new();
    for (files, pair) in plan.certificates.iter().zip(pairs) {
        let refused = |source| Wrong::Refused { path: files.cert.clone(), source };
        let context = builder(plan, pair)?.map_err(refused)?.build().into_context();
        for name in &pair.names {
            names.entry(name.clone()).or_insert_with(|| context.clone());
        }
    }
    let first = &plan.certificates[0].cert;
    let mut builder =
        builder(plan, &pairs[0])?.map_err(|source| Wrong::Refused { path: first.clone(), source })?;
    let refuse = plan.unknown_names == UnknownNames::Refuse;
    builder.set_servername_callback(move |ssl, alert| by_name(&names, refuse, ssl, alert));
    Ok(builder.build().into_context())
}

fn by_name(
    names: &HashMap<String, SslContext>,
    refuse: bool,
    ssl: &mut SslRef,
    alert: &mut SslAlert,
) -> Result<(), SniError> {
    let asked =
        ssl.servername(NameType::HOST_NAME).map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    match asked.as_deref().and_then(|name| named(names, name)) {
        Some(context) => ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL),
        None if refuse => {
            *alert = SslAlert::UNRECOGNIZED_NAME;
            Err(SniError::ALERT_FATAL)
        }
        None => Ok(()),
    }
}

/// What is kept under an exact name, or under the wildcard that takes the place of its first label (RFC 9525 §6.3).
fn named<'a, T>(names: &'a HashMap<String, T>, name: &str) -> Option<&'a T> {
    names.get(name).or_else(|| names.get(&format!("*.{}", name.split_once('.')?.1)))
}

type Built = Result<SslAcceptorBuilder, openssl::error::ErrorStack>;

/// Of TLS 1.2: authenticated encryption with forward secrecy.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
/// Key exchanges, the one that also withstands quantum computers first.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";

/// The settings of a listener with one certificate.
fn builder(plan: &Tls, pair: &Pair) -> Result<Built, Wrong> {
    let roots = match &plan.clients {
        Clients::Anyone => None,
        Clients::Optional(path) => Some((path, SslVerifyMode::PEER)),
        Clients::Required(path) => Some((path, SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT)),
    };
    let roots = roots.map(|(path, mode)| Ok((files::certificates(path)?, mode))).transpose()?;
    Ok(built(plan, pair, roots))
}

fn built(plan: &Tls, pair: &Pair, roots: Option<(Vec<openssl::x509::X509>, SslVerifyMode)>) -> Built {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    acceptor.set_cipher_list(CIPHERS)?;
    // A library before 3.5 does not know the first one, and then keeps its own choice.
    let _ = acceptor.set_groups_list(GROUPS);
    if plan.profile == Profile::Modern {
        acceptor.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    }
    acceptor.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    acceptor.set_certificate(&pair.chain[0])?;
    for issuer in &pair.chain[1..] {
        acceptor.add_extra_chain_cert(issuer.clone())?;
    }
    acceptor.set_private_key(&pair.key)?;
    acceptor.check_private_key()?;
    // Tickets keep sessions with the clients; without them none is kept either, so that no memory grows with clients.
    acceptor.set_session_cache_mode(SslSessionCacheMode::OFF);
    if !plan.tickets {
        acceptor.set_options(SslOptions::NO_TICKET);
        acceptor.set_num_tickets(0)?;
    }
    if let Some((roots, mode)) = roots {
        let mut store = X509StoreBuilder::new()?;
        let mut known = openssl::stack::Stack::<X509Name>::new()?;
        for root in roots {
            known.push(root.subject_name().to_owned()?)?;
            store.add_cert(root)?;
        }
        acceptor.set_verify_cert_store(store.build())?;
        acceptor.set_client_ca_list(known);
        acceptor.set_verify(mode);
    }
    // A session is resumed only where a client would have to show the same certificate.
    acceptor.set_session_id_context(b"vanne")?;
    if let Some(response) = pair.ocsp.clone() {
        acceptor.set_status_callback(move |ssl: &mut SslRef| {
            ssl.set_ocsp_status(&response)?;
            Ok(true)
        })?;
    }
    let offered = b"\x08http/1.1";
    // Whoever offers other protocols alone does not mean us: it ends here (RFC 7301 §3.2), so that no other protocol's message is read as HTTP.
    acceptor.set_alpn_select_callback(move |_, theirs| {
        select_next_proto(offered, theirs).ok_or(AlpnError::ALERT_FATAL)
    });
    Ok(acceptor)
}
