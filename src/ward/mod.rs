//! The live side of the guard: who has asked how often, whose password is known, and the one judgement that both ways ask for.
//!
//! A request is judged in this order: from where, how often, whether it is a preflight, and who. How often comes before who, so that passwords cannot be
//! tried faster than a limit lets. What it takes from one limit is given back when another refuses it.
//!
//! Not here: sending responses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use crate::base::clock::Clock;
use crate::base::fields::Fields;
use crate::forward::edit::{self, Change, Changes};
use crate::guard::rate::{self, Judged, Key, Rate, seconds_up};
use crate::guard::{auth, cors};
use crate::observe::metrics::{LimitMetrics, Metrics};
use crate::plan::ward::{Limit, LimitId, RealmId, Tell, WithoutRedis};
use crate::plan::{self, Plan};
use crate::store::redis::RedisTier;

pub mod crowd;
pub mod realm;
pub mod table;

use self::crowd::{Crowd, Place};
use self::realm::{Busy, Realm, Who};
use self::table::Table;

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits and realms of a plan, at work.
pub struct Ward {
    limits: Vec<Limiter>,
    realms: Vec<Arc<Realm>>,
    clock: Arc<Clock>,
    redis: Option<Arc<RedisTier>>,
}

struct Limiter {
    plan: Limit,
    table: Arc<Table>,
    crowd: Arc<Crowd>,
    metrics: LimitMetrics,
}

/// A request, as it is judged.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What its route asks for.
    pub ward: &'a plan::ward::Ward,
    /// The route's name.
    pub route: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The host.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client used https.
    pub https: bool,
    /// Its fields as they came.
    pub fields: &'a dyn Fields,
    /// Its id.
    pub request_id: &'a str,
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// Its address may not ask.
    Address,
    /// It has asked too often; answered with this status, and to come again after so many seconds.
    Rate(StatusCode, u32),
    /// Too many of its client's requests are in flight; answered with this status.
    InFlight(StatusCode),
    /// Redis cannot count, and what is not counted does not pass.
    Uncounted,
    /// It shows no name and password, or not the right ones.
    Credentials,
    /// Too many passwords wait to be verified.
    Busy,
}

impl Denial {
    /// The word for logs and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address-denied",
            Self::Rate(..) => "rate-limited",
            Self::InFlight(_) => "too-many-in-flight",
            Self::Uncounted => "limit-unknown",
            Self::Credentials => "unauthorized",
            Self::Busy => "sign-in-busy",
        }
    }

    /// The status that says it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Address => StatusCode::FORBIDDEN,
            Self::Rate(status, _) | Self::InFlight(status) => status,
            Self::Uncounted | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Credentials => StatusCode::UNAUTHORIZED,
        }
    }

    /// Seconds after which trying again makes sense, where it does.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::Rate(_, seconds) => Some(seconds),
            Self::InFlight(_) | Self::Uncounted | Self::Busy => Some(1),
            Self::Address | Self::Credentials => None,
        }
    }
}

/// What goes with a request once it was judged, and holds its places while it is in flight.
#[derive(Debug, Default)]
pub struct Pass {
    /// What changes in its fields.
    pub request: Arc<Changes>,
    /// What changes in those of its answer.
    pub answer: Changes,
    places: SmallVec<[Place; 2]>,
}

/// A request that was looked at, and may pass but for its limits.
#[derive(Debug)]
pub struct Seen {
    /// What changes in its fields.
    pub request: Changes,
    user: Option<Arc<str>>,
}

/// A request's fate.
#[derive(Debug)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It only asked whether another may be made.
    Preflight,
    /// It does not pass.
    Denied(Denial),
}

/// Which limits are asked: those of every request, or those that answers from storage are free of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    All,
    Misses,
}

impl Ward {
    /// Makes the parts of a plan. What those `before` counted and remembered goes on where it means the same.
    pub fn new(
        plan: &Plan,
        before: Option<&Self>,
        clock: &Arc<Clock>,
        metrics: &Metrics,
        redis: Option<Arc<RedisTier>>,
    ) -> Self {
        let limits = plan.limits.iter().map(|limit| {
            let known = before.and_then(|ward| ward.limits.iter().find(|known| known.counts_as(limit)));
            Limiter {
                plan: limit.clone(),
                table: known
                    .map_or_else(|| Arc::new(Table::new(limit.most_places())), |known| known.table.clone()),
                crowd: known.map_or_else(Arc::default, |known| known.crowd.clone()),
                metrics: metrics.limit(&limit.name),
            }
        });
        let realms = plan.realms.iter().map(|realm| {
            let known = before.and_then(|ward| ward.realms.iter().find(|known| known.is_of(realm)));
            known.cloned().unwrap_or_else(|| Arc::new(Realm::new(realm, clock.clone())))
        });
        Self { limits: limits.collect(), realms: realms.collect(), clock: clock.clone(), redis }
    }

    /// Looks at a request that an answer in memory may serve, without waiting and without taking anything; `None` when it must be refused, or when to
    /// know takes time.
    pub fn look(&self, realms: &[plan::ward::Realm], asked: &Asked<'_>) -> Option<Seen> {
        let ward = asked.ward;
        if ward.access.as_ref().is_some_and(|access| !access.allows(asked.client)) {
            return None;
        }
        if self.limits_of(ward, Stage::All).any(Limiter::asks_redis) {
            return None;
        }
        let user = match ward.realm {
            None => None,
            Some(id) => match self.realms.get(id)?.known(&auth::credentials(asked.fields)?)? {
                Who::User(name) => Some(name),
                Who::Nobody => return None,
            },
        };
        Some(Seen { request: request_changes(realms, asked, user.as_deref()), user })
    }

    /// Takes what a request that was looked at needs of its limits; `None`, with nothing taken, when one refuses it.
    pub fn take(&self, asked: &Asked<'_>, seen: &Seen) -> Option<Pass> {
        let mut taking = Taking::default();
        for limiter in self.limits_of(asked.ward, Stage::All) {
            let key = limiter.plan.key.key(asked.client, asked.fields);
            if !taking.would_take(limiter, key, self.now()) {
                taking.give_back();
                return None;
            }
        }
        let mut pass = Pass { answer: answer_changes(asked, seen.user.as_deref()), ..Pass::default() };
        taking.keep(&mut pass, false);
        Some(pass)
    }

    /// Judges a request. What its answer, or its refusal, is to say is in `pass`.
    pub async fn judge(&self, realms: &[plan::ward::Realm], asked: &Asked<'_>, pass: &mut Pass) -> Verdict {
        let ward = asked.ward;
        if ward.access.as_ref().is_some_and(|access| !access.allows(asked.client)) {
            pass.answer = answer_changes(asked, None);
            return Verdict::Denied(Denial::Address);
        }
        let counted = self.count(asked, Stage::All, pass).await;
        let user = match counted {
            Err(denial) => {
                self.say(asked, None, pass);
                return Verdict::Denied(denial);
            }
            Ok(()) if preflight(asked).is_some() => {
                self.say_preflight(asked, pass);
                return Verdict::Preflight;
            }
            Ok(()) => self.who(ward.realm, asked).await,
        };
        match user {
            Ok(user) => {
                self.say(asked, user.as_deref(), pass);
                pass.request = Arc::new(request_changes(realms, asked, user.as_deref()));
                Verdict::Pass
            }
            Err(denial) => {
                self.say(asked, None, pass);
                if let (Denial::Credentials, Some(realm)) = (denial, ward.realm.and_then(|id| realms.get(id)))
                    && let Ok(challenge) = HeaderValue::try_from(auth::challenge(&realm.realm))
                {
                    pass.answer.0.push(Change::Set(WWW_AUTHENTICATE, challenge));
                }
                Verdict::Denied(denial)
            }
        }
    }

    /// Judges a request that storage could not answer by the limits that answers from storage are free of.
    ///
    /// # Errors
    /// Why it may not go on.
    pub async fn judge_miss(&self, asked: &Asked<'_>, pass: &mut Pass) -> Result<(), Denial> {
        self.count(asked, Stage::Misses, pass).await
    }

    async fn who(&self, realm: Option<RealmId>, asked: &Asked<'_>) -> Result<Option<Arc<str>>, Denial> {
        let Some(realm) = realm.and_then(|id| self.realms.get(id)) else { return Ok(None) };
        let given = auth::credentials(asked.fields).ok_or(Denial::Credentials)?;
        match realm.verify(&given).await {
            Ok(Who::User(name)) => Ok(Some(name)),
            Ok(Who::Nobody) => Err(Denial::Credentials),
            Err(Busy) => Err(Denial::Busy),
        }
    }

    /// What the answer says beside what the limits told already.
    fn say(&self, asked: &Asked<'_>, user: Option<&str>, pass: &mut Pass) {
        let told = std::mem::take(&mut pass.answer);
        pass.answer = answer_changes(asked, user);
        pass.answer.0.extend(told.0);
    }

    fn say_preflight(&self, asked: &Asked<'_>, pass: &mut Pass) {
        let lines = asked.ward.cors.as_ref().map_or_else(Vec::new, |cors| cors.preflight(asked.fields));
        let mut changes: Vec<Change> =
            lines.into_iter().map(|(name, value)| Change::Set(name, value)).collect();
        let names = ["origin", "access-control-request-method", "access-control-request-headers"];
        changes.extend(names.map(|name| Change::Vary(HeaderName::from_static(name))));
        changes.append(&mut pass.answer.0);
        pass.answer = Changes(changes);
    }

    /// Asks every limit of a stage: those that this gateway counts first, since what they took can be given back at once.
    async fn count(&self, asked: &Asked<'_>, stage: Stage, pass: &mut Pass) -> Result<(), Denial> {
        let mut taking = Taking::default();
        let mut result = Ok(());
        let own = self.limits_of(asked.ward, stage).filter(|limiter| !limiter.asks_redis());
        let fleets = self.limits_of(asked.ward, stage).filter(|limiter| limiter.asks_redis());
        for limiter in own.chain(fleets) {
            let key = limiter.plan.key.key(asked.client, asked.fields);
            result = taking.enter(limiter, key);
            if result.is_ok() {
                result = match limiter.asks_redis() {
                    true => self.take_from_fleet(limiter, key, &mut taking).await,
                    false => taking.take(limiter, key, self.now()),
                };
            }
            if result.is_err() {
                taking.give_back();
                break;
            }
        }
        taking.keep(pass, result.is_err());
        result
    }

    /// Takes a request from a limit of the fleet.
    async fn take_from_fleet<'w>(
        &'w self,
        limiter: &'w Limiter,
        key: Key,
        taking: &mut Taking<'w>,
    ) -> Result<(), Denial> {
        let (Some(redis), Some(rate)) = (&self.redis, &limiter.plan.rate) else {
            return taking.take(limiter, key, self.now());
        };
        let name = format!("{}:{}", limiter.plan.name, hex(&key));
        match redis.take(&name, Duration::from_nanos(rate.interval()), rate.window()).await {
            Ok(taken) => {
                let judged = judged(rate, taken.taken, taken.full_in);
                taking.told.push((limiter, judged));
                refused(limiter, &judged)
            }
            Err(_) => {
                limiter.metrics.uncounted();
                match limiter.plan.without_redis {
                    WithoutRedis::Local => taking.take(limiter, key, self.now()),
                    WithoutRedis::Allow => Ok(()),
                    WithoutRedis::Refuse => {
                        limiter.metrics.refused("uncounted");
                        Err(Denial::Uncounted)
                    }
                }
            }
        }
    }

    fn limits_of<'s>(
        &'s self,
        ward: &'s plan::ward::Ward,
        stage: Stage,
    ) -> impl Iterator<Item = &'s Limiter> {
        let limits = ward.limits.iter().filter_map(|id: &LimitId| self.limits.get(*id));
        limits.filter(move |limiter| limiter.plan.hits == (stage == Stage::All))
    }

    fn now(&self) -> u64 {
        self.clock.mono().as_nanos()
    }
}

impl Limiter {
    /// Whether what it has counted means the same under a new plan. The rate may be another: a moment is a moment.
    fn counts_as(&self, plan: &Limit) -> bool {
        self.plan.name == plan.name
            && self.plan.key == plan.key
            && self.plan.most_places() == plan.most_places()
    }

    fn asks_redis(&self) -> bool {
        self.plan.fleet && self.plan.rate.is_some()
    }
}

/// What one request takes of its limits, until it is known whether it passes all of them.
#[derive(Default)]
struct Taking<'w> {
    places: SmallVec<[Place; 2]>,
    taken: SmallVec<[(&'w Limiter, Key); 2]>,
    told: SmallVec<[(&'w Limiter, Judged); 2]>,
}

impl<'w> Taking<'w> {
    /// Takes both, counting no refusal: whoever asks refuses elsewhere.
    fn would_take(&mut self, limiter: &'w Limiter, key: Key, now: u64) -> bool {
        if let Some(most) = limiter.plan.in_flight {
            let Some(place) = limiter.crowd.enter(key, most) else { return false };
            self.places.push(place);
        }
        self.ask(limiter, key, now).is_none_or(|judged| judged.full_at.is_some())
    }

    /// A place among the requests in flight.
    fn enter(&mut self, limiter: &'w Limiter, key: Key) -> Result<(), Denial> {
        let Some(most) = limiter.plan.in_flight else { return Ok(()) };
        match limiter.crowd.enter(key, most) {
            Some(place) => {
                self.places.push(place);
                Ok(())
            }
            None => {
                limiter.metrics.refused("in-flight");
                Err(Denial::InFlight(limiter.plan.status))
            }
        }
    }

    /// One request of the rate, as this gateway counts.
    fn take(&mut self, limiter: &'w Limiter, key: Key, now: u64) -> Result<(), Denial> {
        match self.ask(limiter, key, now) {
            Some(judged) => refused(limiter, &judged),
            None => Ok(()),
        }
    }

    /// Asks the rate, if there is one, and notes what it took.
    fn ask(&mut self, limiter: &'w Limiter, key: Key, now: u64) -> Option<Judged> {
        let rate = limiter.plan.rate.as_ref()?;
        let (judged, kept) = limiter.table.judge(key, |full_at| {
            let judged = rate.judge(full_at, now);
            (judged.full_at, judged)
        });
        if kept.forgot {
            limiter.metrics.forgot();
        }
        if judged.full_at.is_some() {
            self.taken.push((limiter, key));
        }
        self.told.push((limiter, judged));
        Some(judged)
    }

    /// What was taken is given back: the request does not pass.
    fn give_back(&mut self) {
        self.places.clear();
        for (limiter, key) in self.taken.drain(..) {
            if let Some(rate) = &limiter.plan.rate {
                limiter.table.give_back(key, rate.interval());
            }
        }
    }

    /// Hands the places over, and what is to be told of the rates.
    fn keep(self, pass: &mut Pass, refused: bool) {
        pass.places.extend(self.places);
        let told = self.told.iter().filter(|(limiter, _)| match limiter.plan.tell {
            Tell::Always => true,
            Tell::Refused => refused,
            Tell::Never => false,
        });
        let changes = &mut pass.answer.0;
        for (limiter, judged) in told {
            let Some(rate) = &limiter.plan.rate else { continue };
            let (policy, now) = rate::told(limiter.plan.name.as_str(), rate, judged);
            let lines = [(RATELIMIT_POLICY, policy), (RATELIMIT, now)];
            for (name, value) in lines {
                // What is stored may tell of another client's.
                let first =
                    !changes.iter().any(|change| matches!(change, Change::Set(own, _) if *own == name));
                let Ok(value) = HeaderValue::try_from(value) else { continue };
                changes.push(if first { Change::Set(name, value) } else { Change::Add(name, value) });
            }
        }
    }
}

/// Why a request may not pass, if a rate says so.
fn refused(limiter: &Limiter, judged: &Judged) -> Result<(), Denial> {
    if judged.full_at.is_some() {
        return Ok(());
    }
    limiter.metrics.refused("rate");
    let seconds = u32::try_from(seconds_up(judged.wait)).unwrap_or(u32::MAX).max(1);
    Err(Denial::Rate(limiter.plan.status, seconds))
}

/// What the fleet's count says, as one of our own would.
fn judged(rate: &Rate, taken: bool, full_in: Duration) -> Judged {
    let full_in = u64::try_from(full_in.as_nanos()).unwrap_or(u64::MAX);
    let whole = u64::try_from(rate.window().as_nanos()).unwrap_or(u64::MAX);
    let left = whole.saturating_sub(full_in) / rate.interval();
    Judged {
        full_at: taken.then_some(full_in),
        left: u32::try_from(left).unwrap_or(u32::MAX),
        full_in,
        wait: full_in.saturating_add(rate.interval()).saturating_sub(whole),
    }
}

fn hex(key: &Key) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(32);
    for byte in key.0 {
        // Writing into text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn preflight(asked: &Asked<'_>) -> Option<Method> {
    asked.ward.cors.as_ref()?;
    cors::preflight(asked.method, asked.fields)
}

fn facts<'a>(asked: &'a Asked<'_>, user: Option<&'a str>) -> edit::Facts<'a> {
    edit::Facts {
        client: asked.client,
        host: asked.host,
        method: asked.method.as_str(),
        path: asked.path,
        request_id: asked.request_id,
        route: asked.route,
        https: asked.https,
        user,
    }
}

fn request_changes(realms: &[plan::ward::Realm], asked: &Asked<'_>, user: Option<&str>) -> Changes {
    let stripped = asked.ward.realm.and_then(|id| realms.get(id)).is_some_and(|realm| !realm.pass);
    let mut changes = Vec::new();
    if stripped {
        changes.push(Change::Remove(AUTHORIZATION));
    }
    changes.extend(asked.ward.request.changes(&facts(asked, user)));
    Changes(changes)
}

fn answer_changes(asked: &Asked<'_>, user: Option<&str>) -> Changes {
    let ward = asked.ward;
    let mut changes = Vec::new();
    if let Some(security) = &ward.security {
        changes.extend(security.changes(asked.https));
    }
    if let Some(cors) = &ward.cors {
        changes.extend(cors::OURS.map(Change::Remove));
        changes.extend(cors.answer(asked.fields).into_iter().map(|(name, value)| Change::Set(name, value)));
        if cors.varies() {
            changes.push(Change::Vary(ORIGIN));
        }
    }
    changes.extend(ward.answer.changes(&facts(asked, user)));
    Changes(changes)
}
