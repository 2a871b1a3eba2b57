//! Which upstream a request of a route goes to, and under which key its answer is stored.

use pingora::proxy::Session;

use super::journey::Journey;
use super::{Gateway, any_number};
use crate::balance::hash::Facts;
use crate::cache::key::Key;
use crate::plan::{Action, Route, UpstreamId};

impl Gateway {
    /// The upstream that a request goes to; `None` where the gateway answers itself.
    pub(super) fn divide(&self, session: &Session, journey: &Journey, route: &Route) -> Option<UpstreamId> {
        let Action::Forward { upstream, .. } = &route.action else { return None };
        let (Some(split), Some(admitted)) = (&route.split, &journey.admitted) else { return Some(*upstream) };
        let facts = Facts {
            client: journey.client.addr,
            path: &admitted.path,
            query: admitted.query.as_deref(),
            fields: &session.req_header().headers,
        };
        Some(split.choose(&facts, any_number()).unwrap_or(*upstream))
    }

    /// The key for what `upstream` answers on a route: its own, where the versions are kept apart. The route's own upstream keeps the plain key, so that
    /// what was stored before the split began is served on.
    pub(super) fn key_of_version(&self, route: &Route, upstream: UpstreamId, key: Key) -> Key {
        let apart = route.split.as_ref().is_some_and(|split| split.apart);
        match &route.action {
            Action::Forward { upstream: own, .. } if apart && *own != upstream => {
                key.of_version(self.live.plan.upstreams[upstream].name.as_str())
            }
            _ => key,
        }
    }

    /// All keys under which answers to one target may be stored on a route.
    pub(super) fn keys_of_versions(&self, route: &Route, key: &Key) -> Vec<Key> {
        let others = route.split.iter().flat_map(|split| split.upstreams());
        let versions = others.map(|upstream| self.key_of_version(route, upstream, key.clone()));
        std::iter::once(key.clone()).chain(versions).collect()
    }
}
