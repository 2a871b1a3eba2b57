//! TLS to instances: whom we trust, and what we show.

use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::utils::tls::CertKey;

use super::files::{self, Pair, Wrong};
use crate::plan::Upstream;
use crate::plan::onward::{Http, Tls};

/// How the instances of one upstream are connected to.
#[derive(Default)]
pub struct Client {
    tls: Option<Settings>,
    http: Http,
    group: u64,
}

struct Settings {
    plan: Tls,
    ca: Option<Arc<CaType>>,
    own: Option<Arc<CertKey>>,
}

/// Requests at once on one connection of HTTP/2: what most servers allow.
const MAX_STREAMS: usize = 100;

impl Client {
    /// The settings of an upstream, with what its files hold.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn of(upstream: &Upstream) -> Result<Self, Wrong> {
        let Some(plan) = &upstream.tls else {
            return Ok(Self { tls: None, http: upstream.http, group: group(upstream.http, &[]) });
        };
        let roots = plan.ca.as_deref().map(files::certificates).transpose()?;
        let bytes = plan.ca.as_deref().map(files::contents).transpose()?.unwrap_or_default();
        let own = plan.own.as_ref().map(Pair::read).transpose()?;
        let tls = Settings {
            plan: plan.clone(),
            ca: roots.map(|roots| Arc::new(roots.into())),
            own: own.map(|pair| Arc::new(CertKey::new(pair.chain, pair.key))),
        };
        Ok(Self { tls: Some(tls), http: upstream.http, group: group(upstream.http, &bytes) })
    }

    /// Tells a peer how it is spoken to; `name` is the instance's own, `host:port`.
    pub fn tell(&self, peer: &mut HttpPeer, name: &str) {
        // pingora keeps connections apart by name and key, not by whom they trust nor by what they speak.
        peer.group_key = self.group;
        if self.http == Http::Two {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = MAX_STREAMS;
        }
        let Some(tls) = &self.tls else { return };
        peer.scheme = Scheme::HTTPS;
        // Never empty: pingora verifies nothing then.
        peer.sni = tls.plan.sni.clone().unwrap_or_else(|| host_of(name).to_owned());
        peer.options.ca.clone_from(&tls.ca);
        peer.options.verify_cert = tls.plan.verify;
        peer.options.verify_hostname = tls.plan.verify;
        peer.client_cert_key.clone_from(&tls.own);
    }

    /// Whether instances are spoken to under TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// A number for all who may share connections; even, so that what is sent by whom can be told apart by the last bit.
fn group(http: Http, roots: &[u8]) -> u64 {
    let seed = if http == Http::Two { 2 } else { 1 };
    xxhash_rust::xxh3::xxh3_64_with_seed(roots, seed) & !1
}

/// The host of `host:port`; an IPv6 address without its brackets.
pub fn host_of(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']'])
}
