//! Clients that stay with their instance: the cookie of what passes through.
//!
//! What a cache fetches is for everybody: it goes to any instance, and its answer carries nobody's cookie.

use std::fs;
use std::io;
use std::sync::OnceLock;

use http::header::{CACHE_CONTROL, SET_COOKIE};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::Gateway;
use super::journey::Journey;
use crate::balance::sticky::{Cookie, Key};
use crate::plan::{StickyKey, Upstream};
use crate::upstream::Group;

/// What makes and reads the cookies of one upstream.
pub struct Sticky {
    cookie: Cookie,
    key: Key,
}

impl Sticky {
    /// The cookies of an upstream, when it has any.
    ///
    /// # Errors
    /// When the file that holds the secret cannot be read, or holds too little.
    pub fn of(plan: &Upstream) -> io::Result<Option<Self>> {
        let Some(sticky) = &plan.sticky else { return Ok(None) };
        let secret = match &sticky.key {
            StickyKey::Secret(secret) => secret.clone().into_bytes(),
            StickyKey::File(path) => long_enough(fs::read(path)?)?,
            StickyKey::Random => {
                tracing::warn!(
                    upstream = %plan.name,
                    "sticky.key is not set: cookies are made with a key of this process's own, so that clients are shared out anew when it restarts, and other gateways do not know them"
                );
                own_secret()?.to_vec()
            }
        };
        Ok(Some(Self { cookie: sticky.cookie.clone(), key: Key::new(&secret, plan.name.as_str()) }))
    }

    /// The instance that a request is bound to.
    pub fn bound(&self, session: &Session, group: &Group) -> Option<usize> {
        let instances = group.endpoints().iter().map(|endpoint| endpoint.name());
        self.cookie.named(&self.key, &session.req_header().headers, instances)
    }
}

/// The same as long as the process lives, whatever configuration it loads.
fn own_secret() -> io::Result<[u8; 32]> {
    static OWN: OnceLock<[u8; 32]> = OnceLock::new();
    if let Some(secret) = OWN.get() {
        return Ok(*secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(*OWN.get_or_init(|| secret))
}

/// Without the line's end that an editor leaves.
fn long_enough(mut secret: Vec<u8>) -> io::Result<Vec<u8>> {
    while secret.last().is_some_and(u8::is_ascii_whitespace) {
        secret.pop();
    }
    if secret.len() < 16 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds fewer than 16 bytes"));
    }
    Ok(secret)
}

impl Gateway {
    /// Binds the client to the instance that answered, unless it is bound to one that may be used: one that is merely full for the moment keeps its
    /// clients.
    pub(super) fn bind(&self, journey: &Journey, answer: &mut ResponseHeader) -> Result<()> {
        let upstream = self.live.upstream(self.upstream_of(journey)?);
        let (Some(sticky), Some(picked)) = (&upstream.sticky, &journey.picked) else { return Ok(()) };
        let stays = journey.bound.is_some_and(|bound| {
            bound == picked.index || (upstream.group.is_usable(bound) && !journey.tried.contains(&bound))
        });
        if stays {
            return Ok(());
        }
        let field = sticky.cookie.set(&sticky.key, picked.endpoint.name(), journey.client.https);
        answer.append_header(SET_COOKIE, field)?;
        // A cache before us must not give one client's cookie to another.
        for name in [CACHE_CONTROL.as_str(), "cdn-cache-control"] {
            if name == CACHE_CONTROL.as_str() || answer.headers.contains_key(name) {
                answer.append_header(name, "private")?;
            }
        }
        Ok(())
    }
}
