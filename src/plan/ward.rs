//! What stands before the routes: limits, addresses, users, other sites' pages, and edits of fields.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::base::name::{LimitName, RealmName};
use crate::forward::edit::Edits;
use crate::forward::security::Security;
use crate::guard::access::Access;
use crate::guard::auth::Users;
use crate::guard::cors;
use crate::guard::rate::{KeyBy, Rate};

/// The position of a limit in [`super::Plan::limits`].
pub type LimitId = usize;
/// The position of a realm in [`super::Plan::realms`].
pub type RealmId = usize;

/// What a request of a route must pass, in this order, and what is said in its answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ward {
    /// From where it may come.
    pub access: Option<Arc<Access>>,
    /// How often.
    pub limits: Vec<LimitId>,
    /// Which other sites' pages may read the answers.
    pub cors: Option<Arc<cors::Rules>>,
    /// Whose it must be.
    pub realm: Option<RealmId>,
    /// What changes in the fields of its requests.
    pub request: Edits,
    /// What its answers tell browsers to be careful with.
    pub security: Option<Arc<Security>>,
    /// What changes in the fields of its answers; the last word.
    pub answer: Edits,
}

/// How often, and how many at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name in routes, metrics, and `RateLimit`.
    pub name: LimitName,
    /// What tells one client from another.
    pub key: KeyBy,
    /// How often each may ask.
    pub rate: Option<Rate>,
    /// How many requests of each may be in flight at this gateway.
    pub in_flight: Option<u32>,
    /// Whether all gateways that share the Redis count together.
    pub fleet: bool,
    /// What happens while Redis cannot count.
    pub without_redis: WithoutRedis,
    /// Whether answers from storage count, too.
    pub hits: bool,
    /// What is answered beyond it.
    pub status: StatusCode,
    /// Whether answers tell what is left.
    pub tell: Tell,
    /// How many clients are remembered.
    pub most_keys: usize,
}

impl Limit {
    /// How many clients' moments are kept: none without a rate.
    pub fn most_places(&self) -> usize {
        if self.rate.is_some() { self.most_keys } else { 0 }
    }
}

/// What a limit of the fleet does while Redis cannot count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutRedis {
    /// Each gateway counts for itself.
    Local,
    /// All requests pass.
    Allow,
    /// None does.
    Refuse,
}

/// Whether answers tell what is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// All of them.
    Always,
    /// Refusals alone.
    Refused,
    /// None.
    Never,
}

/// Users who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// Its name in routes.
    pub name: RealmName,
    /// What a browser shows when it asks for a password; nothing in it needs escaping in a quoted string.
    pub realm: String,
    /// Who they are.
    pub users: Arc<Users>,
    /// For how long a password that was verified, or was wrong, is known without hashing it again.
    pub remember: Duration,
    /// Whether instances get the client's `Authorization`.
    pub pass: bool,
}
