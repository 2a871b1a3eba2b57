//! One health check: a connection, a request and its answer, or a call of gRPC's health protocol.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::tls::CaType;
use pingora::tls::x509::X509;
use pingora::upstreams::peer::{HttpPeer, Scheme};

use super::live::Live;
use super::peer::{self, Use};
use crate::balance::check::{Expected, MOST, Unwell, grpc};
use crate::plan::{self, Health, HealthCheck, UpstreamId};
use crate::upstream::probe::Check;

/// What a check is sent as.
const AGENT: &str = concat!("vanne-health/", env!("CARGO_PKG_VERSION"));

/// Checks the instances of one upstream.
pub struct Prober {
    live: Arc<Live>,
    upstream: UpstreamId,
    ca: Option<Arc<CaType>>,
}

/// The certificates that vouch for the instances of an upstream that is checked over TLS.
///
/// # Errors
/// When their file cannot be read or holds none.
pub fn trusted(upstream: &plan::Upstream) -> std::io::Result<Option<Arc<CaType>>> {
    let tls = upstream.health.as_ref().and_then(|health| health.tls.as_ref());
    let Some(path) = tls.and_then(|tls| tls.ca.as_deref()) else { return Ok(None) };
    read_certificates(path).map(|all| Some(Arc::new(all.into())))
}

fn read_certificates(path: &Path) -> std::io::Result<Vec<X509>> {
    let all = X509::stack_from_pem(&std::fs::read(path)?).map_err(std::io::Error::other)?;
    if all.is_empty() {
        return Err(std::io::Error::other("it holds no certificate"));
    }
    Ok(all)
}

impl Prober {
    /// A prober for one upstream of a running gateway, with the certificates that [`trusted`] read.
    pub fn new(live: Arc<Live>, upstream: UpstreamId, ca: Option<Arc<CaType>>) -> Self {
        Self { live, upstream, ca }
    }

    fn peer(&self, addr: SocketAddr, name: &str, health: &Health) -> HttpPeer {
        let plan = self.live.upstream(self.upstream).group.plan();
        let mut peer = peer::of(plan, addr, Use::Check);
        if let Some(tls) = &health.tls {
            peer.scheme = Scheme::HTTPS;
            peer.sni = tls.sni.clone().unwrap_or_else(|| host_of(name).to_owned());
            peer.options.ca = self.ca.clone();
            peer.options.verify_cert = tls.verify;
            peer.options.verify_hostname = tls.verify;
        }
        peer
    }

    async fn connect(&self, peer: &HttpPeer) -> Result<HttpSession, Unwell> {
        let made = self.live.connector.get_http_session(peer).await;
        made.map(|(session, _)| session).map_err(|error| Unwell::Connect(told(&error)))
    }

    async fn get(&self, peer: &HttpPeer, path: &str, host: &str, expected: &Expected) -> Result<(), Unwell> {
        let mut session = self.connect(peer).await?;
        let answer = get(&mut session, path, host, expected.asks_content()).await;
        let (status, content) = answer.map_err(|error| Unwell::Protocol(told(&error)))?;
        expected.judge(status, &content)
    }

    async fn call(&self, mut peer: HttpPeer, service: &str, authority: &str) -> Result<(), Unwell> {
        peer.options.set_http_version(2, 2);
        let mut session = self.connect(&peer).await?;
        let answer = call(&mut session, service, authority).await;
        let (status, content) = answer.map_err(|error| Unwell::Protocol(told(&error)))?;
        grpc::judge(status.as_deref(), &content)
    }
}

async fn get(
    session: &mut HttpSession,
    path: &str,
    host: &str,
    with_content: bool,
) -> pingora::Result<(u16, Vec<u8>)> {
    let mut head = RequestHeader::build_no_case(Method::GET, path.as_bytes(), Some(3))?;
    head.insert_header(header::HOST, host)?;
    head.insert_header(header::USER_AGENT, AGENT)?;
    head.insert_header(header::CONNECTION, "close")?;
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map_or(0, |head| head.status.as_u16());
    let content = if with_content { content(session).await? } else { Vec::new() };
    Ok((status, content))
}

async fn call(
    session: &mut HttpSession,
    service: &str,
    authority: &str,
) -> pingora::Result<(Option<String>, Vec<u8>)> {
    let mut head = RequestHeader::build_no_case(Method::POST, grpc::PATH.as_bytes(), Some(4))?;
    head.insert_header(header::HOST, authority)?;
    head.insert_header(header::USER_AGENT, AGENT)?;
    head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header(header::TE, "trailers")?;
    session.write_request_header(Box::new(head)).await?;
    session.write_request_body(Bytes::from(grpc::request(service)), true).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = |fields: &HeaderMap| Some(fields.get("grpc-status")?.to_str().ok()?.to_owned());
    // A failure may come without content, its status among the head's fields.
    let early = session.response_header().and_then(|head| status(&head.headers));
    let content = content(session).await?;
    let late = match session {
        HttpSession::H2(session) => session.read_trailers().await?.and_then(|fields| status(&fields)),
        _ => None,
    };
    Ok((late.or(early), content))
}

/// The first part of an answer's content.
async fn content(session: &mut HttpSession) -> pingora::Result<Vec<u8>> {
    let mut content = Vec::new();
    while content.len() < MOST
        && let Some(piece) = session.read_response_body().await?
    {
        content.extend_from_slice(&piece[..piece.len().min(MOST - content.len())]);
    }
    Ok(content)
}

/// What an error says to an operator.
fn told(error: &pingora::Error) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.etype().as_str()),
        None => error.etype().as_str().to_owned(),
    }
}

/// The host of `host:port`; an IPv6 address without its brackets.
fn host_of(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']'])
}

#[async_trait]
impl Check for Prober {
    async fn check(&self, addr: SocketAddr, name: &str, health: &Health) -> Result<(), Unwell> {
        match &health.check {
            HealthCheck::Tcp if health.tls.is_none() => match tokio::net::TcpStream::connect(addr).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Unwell::Connect(error.to_string())),
            },
            HealthCheck::Tcp => self.connect(&self.peer(addr, name, health)).await.map(drop),
            HealthCheck::Http { path, host, expected } => {
                let host = host.as_deref().unwrap_or(name);
                self.get(&self.peer(addr, name, health), path, host, expected).await
            }
            HealthCheck::Grpc { service, host } => {
                let authority = host.as_deref().unwrap_or(name);
                self.call(self.peer(addr, name, health), service, authority).await
            }
        }
    }
}
