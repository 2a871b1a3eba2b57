//! Passwords of one realm: hashed off the workers, a few at a time, and known for a while afterwards.
//!
//! A hash is made to cost tens of milliseconds. On a worker it would hold up every connection it serves; for every request it would cost a machine; and
//! as many at once as a client likes would take them all.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::base::clock::{Clock, MonoTime};
use crate::guard::auth::{Credentials, Users};
use crate::plan;

/// Credentials that are remembered: so many that were right, and so many that were wrong, so that the latter never push the former out.
const MOST: usize = 4096;
/// Requests that may wait for their password's turn.
const MOST_WAITING: usize = 256;

/// The users of a realm, at work.
pub struct Realm {
    plan: plan::ward::Realm,
    users: Arc<Users>,
    remember: Duration,
    clock: Arc<Clock>,
    /// What credentials are hashed with before they are remembered; another one in every process.
    salt: [u8; 32],
    known: Mutex<Known>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Known {
    right: HashMap<[u8; 32], (MonoTime, Arc<str>)>,
    wrong: HashMap<[u8; 32], MonoTime>,
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A user.
    User(Arc<str>),
    /// Nobody that we know.
    Nobody,
}

/// So many passwords wait to be verified that this one is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Realm {
    /// The users of a plan.
    pub fn new(plan: &plan::ward::Realm, clock: Arc<Clock>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            plan: plan.clone(),
            users: plan.users.clone(),
            remember: plan.remember,
            clock,
            salt: salt(),
            known: Mutex::default(),
            // The other half is for those who have signed in.
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether it is made of this plan, so that what it remembers is still right.
    pub fn is_of(&self, plan: &plan::ward::Realm) -> bool {
        self.plan == *plan
    }

    /// Who showed these credentials, when it is remembered.
    pub fn known(&self, given: &Credentials) -> Option<Who> {
        self.look(&self.hash(given))
    }

    fn look(&self, hash: &[u8; 32]) -> Option<Who> {
        let now = self.clock.mono();
        let known = self.known.lock();
        if let Some((until, name)) = known.right.get(hash) {
            return (now < *until).then(|| Who::User(name.clone()));
        }
        known.wrong.get(hash).filter(|until| now < **until).map(|_| Who::Nobody)
    }

    /// Who showed these credentials.
    ///
    /// # Errors
    /// When too many wait for the answer.
    pub async fn verify(&self, given: &Credentials) -> Result<Who, Busy> {
        let hash = self.hash(given);
        if let Some(who) = self.look(&hash) {
            return Ok(who);
        }
        let _waiting = Waiting::begin(&self.waiting).ok_or(Busy)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Busy)?;
        // Of many requests with the same credentials the first one has found out for all.
        if let Some(who) = self.look(&hash) {
            return Ok(who);
        }
        let (users, given) = (self.users.clone(), given.clone());
        let verified = tokio::task::spawn_blocking(move || {
            // Held until the hash is made, also when the client leaves meanwhile.
            let _turn = turn;
            users.verify(&given)
        });
        let who = match verified.await {
            Ok(Some(name)) => Who::User(name),
            Ok(None) => Who::Nobody,
            Err(_) => return Err(Busy),
        };
        self.remember(hash, &who);
        Ok(who)
    }

    fn remember(&self, hash: [u8; 32], who: &Who) {
        if self.remember.is_zero() {
            return;
        }
        let now = self.clock.mono();
        let until = now.plus(self.remember);
        let mut known = self.known.lock();
        match who {
            Who::User(name) => {
                if known.right.len() >= MOST {
                    known.right.retain(|_, (until, _)| now < *until);
                }
                if known.right.len() < MOST {
                    known.right.insert(hash, (until, name.clone()));
                }
            }
            Who::Nobody => {
                if known.wrong.len() >= MOST {
                    known.wrong.clear();
                }
                known.wrong.insert(hash, until);
            }
        }
    }

    fn hash(&self, given: &Credentials) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.salt);
        hasher.update(given.name.as_bytes()).update(b"\0").update(&given.password);
        *hasher.finalize().as_bytes()
    }
}

/// Random bytes of the system's, by way of the keys that the standard library gives its maps.
fn salt() -> [u8; 32] {
    let mut salt = [0; 32];
    for part in salt.chunks_exact_mut(8) {
        let random = std::hash::RandomState::new().build_hasher().finish();
        part.copy_from_slice(&random.to_le_bytes());
    }
    salt
}

/// A request that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::AcqRel) < MOST_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(remember: Duration) -> Realm {
        let hash = bcrypt::hash("right", 4).unwrap();
        let line = format!("alice:{hash}");
        let plan = plan::ward::Realm {
            name: "staff".into(),
            realm: "restricted".into(),
            users: Arc::new(Users::of_lines([line.as_str()]).unwrap()),
            remember,
            pass: false,
        };
        Realm::new(&plan, Arc::new(Clock::start()))
    }

    fn given(password: &str) -> Credentials {
        Credentials { name: "alice".into(), password: password.into() }
    }

    #[tokio::test]
    async fn what_was_verified_is_known_for_a_while() {
        let realm = realm(Duration::from_secs(60));
        assert_eq!(realm.known(&given("right")), None);
        assert_eq!(realm.verify(&given("right")).await, Ok(Who::User("alice".into())));
        assert_eq!(realm.verify(&given("wrong")).await, Ok(Who::Nobody));
        assert_eq!(realm.known(&given("right")), Some(Who::User("alice".into())));
        assert_eq!(realm.known(&given("wrong")), Some(Who::Nobody));
        assert_eq!(realm.known(&given("other")), None);
    }

    #[tokio::test]
    async fn with_no_time_to_remember_nothing_is_known() {
        let realm = realm(Duration::ZERO);
        assert_eq!(realm.verify(&given("right")).await, Ok(Who::User("alice".into())));
        assert_eq!(realm.known(&given("right")), None);
    }

    #[test]
    fn wrong_passwords_never_push_right_ones_out_and_neither_grows_without_end() {
        let realm = realm(Duration::from_secs(60));
        realm.remember([0; 32], &Who::User("alice".into()));
        for number in 0..3 * MOST {
            let mut hash = [1; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            realm.remember(hash, &Who::Nobody);
        }
        let known = realm.known.lock();
        assert_eq!(known.right.len(), 1);
        assert!(known.wrong.len() <= MOST);
    }
}
