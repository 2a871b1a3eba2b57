//! One health check: a connection, or a request and the status of its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora::http::RequestHeader;

use super::live::Live;
use super::peer::{self, Use};
use crate::plan::{HealthCheck, UpstreamId};
use crate::upstream::probe::Check;

/// Checks the instances of one upstream.
pub struct Prober {
    live: Arc<Live>,
    upstream: UpstreamId,
}

impl Prober {
    /// A prober for one upstream of a running gateway.
    pub fn new(live: Arc<Live>, upstream: UpstreamId) -> Self {
        Self { live, upstream }
    }

    async fn ask(&self, addr: SocketAddr, path: &str, host: &str) -> pingora::Result<u16> {
        let plan = self.live.upstream(self.upstream).group.plan();
        let peer = peer::of(plan, addr, Use::Check);
        let (mut session, _) = self.live.connector.get_http_session(&peer).await?;
        let mut head = RequestHeader::build_no_case(Method::GET, path.as_bytes(), Some(3))?;
        head.insert_header(http::header::HOST, host)?;
        head.insert_header(http::header::USER_AGENT, concat!("vanne-health/", env!("CARGO_PKG_VERSION")))?;
        head.insert_header(http::header::CONNECTION, "close")?;
        session.write_request_header(Box::new(head)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        Ok(session.response_header().map_or(0, |head| head.status.as_u16()))
    }
}

#[async_trait]
impl Check for Prober {
    async fn check(&self, addr: SocketAddr, name: &str, check: &HealthCheck) -> Result<(), String> {
        match check {
            HealthCheck::Tcp => match tokio::net::TcpStream::connect(addr).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("no connection: {error}")),
            },
            HealthCheck::Http { path, host, expect } => {
                let host = host.as_deref().unwrap_or(name);
                match self.ask(addr, path, host).await {
                    Ok(status) if expect.iter().any(|(low, high)| (*low..=*high).contains(&status)) => Ok(()),
                    Ok(status) => Err(format!("{path} answered {status}")),
                    Err(error) => Err(format!("{path}: {}", error.etype().as_str())),
                }
            }
        }
    }
}
