//! The request as an instance gets it: target, Host and fields, the same for what passes through and for what the cache fetches.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use pingora::http::RequestHeader;

use super::journey::{Admitted, join_query};
use crate::balance::hash::Facts;
use crate::forward::{self, HostRule};
use crate::guard::client::Client;
use crate::route::Rewrite;
use crate::upstream::Endpoint;

/// What the forwarding of one request depends on, whatever instance it goes to.
#[derive(Clone, Debug)]
pub struct Onward {
    /// The method.
    pub method: Method,
    /// The fields as the client sent them, conditions and ranges as the caller wants them.
    pub fields: HeaderMap,
    /// The guard's reading.
    pub admitted: Admitted,
    /// Who sent it.
    pub client: Client,
    /// The address of the connection's peer.
    pub peer: IpAddr,
    /// The port it came in by.
    pub port: u16,
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// Its id.
    pub request_id: String,
    /// It asks for a WebSocket.
    pub websocket: bool,
    /// Its content, when it was read into the key.
    pub content: Option<Bytes>,
}

impl Onward {
    /// The head to send to `endpoint`.
    ///
    /// # Errors
    /// When a field cannot be written, which the guard should have refused: a fault of ours.
    pub fn head(
        &self,
        rewrite: &Rewrite,
        host: &HostRule,
        endpoint: &Endpoint,
        via: &str,
    ) -> pingora::Result<RequestHeader> {
        let mut fields = self.fields.clone();
        let authority = self.admitted.authority();
        forward::request(&mut fields, &self.facts(&authority, via));
        if let Some(identity) = &self.admitted.identity {
            identity.tell(&mut fields);
        }
        fields.insert(http::header::HOST, self.host(host, endpoint, &authority)?);

        let path = rewrite.apply(&self.admitted.path);
        let target = join_query(&path, self.admitted.query.as_deref());
        let mut head =
            RequestHeader::build_no_case(self.method.clone(), target.as_bytes(), Some(fields.len()))?;
        for (name, value) in &fields {
            head.append_header(name.clone(), value.clone())?;
        }
        if let Some(content) = &self.content {
            head.insert_header(http::header::CONTENT_LENGTH, content.len())?;
        }
        Ok(head)
    }

    /// What of it may decide which instance is asked.
    pub fn hash_facts(&self) -> Facts<'_> {
        Facts {
            client: self.client.addr,
            path: &self.admitted.path,
            query: self.admitted.query.as_deref(),
            fields: &self.fields,
        }
    }

    fn facts<'a>(&'a self, authority: &'a str, via: &'a str) -> forward::RequestFacts<'a> {
        forward::RequestFacts {
            client: self.client.addr,
            peer: self.peer,
            behind_trusted: self.client.behind_trusted,
            https: self.client.https,
            host: authority,
            port: self.port,
            version: self.version,
            request_id: &self.request_id,
            via,
            websocket: self.websocket,
        }
    }

    fn host(&self, rule: &HostRule, endpoint: &Endpoint, authority: &str) -> pingora::Result<HeaderValue> {
        let host = match rule {
            HostRule::Client => authority,
            HostRule::Instance => endpoint.name(),
            HostRule::Fixed(host) => host,
        };
        HeaderValue::from_str(host).map_err(|e| {
            pingora::Error::because(
                pingora::ErrorType::InvalidHTTPHeader,
                "the Host to send on is not a field value",
                e,
            )
        })
    }
}

/// The protocol version as `Via` writes it.
pub fn version_word(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
