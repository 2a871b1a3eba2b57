//! A request on a route with a cache: look up, judge, and serve what is stored or follow what is being fetched.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::compress;
use super::deliver::{self, Sent, Told};
use super::exchange::Destination;
use super::fill::{Fill, Source, Stored, Word};
use super::journey::Journey;
use super::live::Cache;
use super::onward::Onward;
use super::place;
use super::reply::Failure;
use super::tls::Identity;
use super::{Gateway, Outcome};
use crate::cache::Coalesce;
use crate::cache::directive::{self, RequestDirectives};
use crate::cache::events::LAST_EVENT_ID;
use crate::cache::key::{Key, KeyFacts};
use crate::cache::lookup::{self, Reuse, Why};
use crate::cache::policy::{self, Bypass, Refuse, RequestUse};
use crate::cache::record::Record;
use crate::cache::status::{self, Forward, Outcome as CacheOutcome, Tier};
use crate::cache::vary;
use crate::forward;
use crate::observe::metrics::CacheResult;
use crate::plan::CacheId;
use crate::store::flight::{Joined, Reader, Writer};
use crate::store::{Absent, Entry, Found};

/// A request may find itself behind the fetch of another variant; so often it looks again before it fetches for itself.
const LOOKS: usize = 3;

/// What is told about an answer that another gateway fetched.
const FLEET: &str = "fleet";

/// A request as the cache sees it.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) cache: Arc<Cache>,
    pub(super) key: Key,
    pub(super) fields: HeaderMap,
    directives: RequestDirectives,
    to: Destination,
    pub(super) onward: Onward,
    /// Why its answer is not stored whatever it says.
    pub(super) unstored: Option<Refuse>,
    /// The stored answer that its own is to be compared with.
    beside: Option<Arc<Entry>>,
    /// The last event it has seen of the stream it asks for.
    resume: Option<HeaderValue>,
}

impl Asked {
    /// Counts this use of the key, which is final now.
    pub(super) fn count_use(&mut self) {
        let cache = &self.cache;
        let seldom =
            cache.uses.as_ref().is_some_and(|uses| uses.note(self.key.hash()) < cache.rules.min_uses);
        self.unstored = seldom.then_some(Refuse::FewUses);
    }
}

/// What following a fetch came to.
enum Followed {
    /// The client has its answer.
    Served,
    /// The answer in flight is not for this request; look again, at this slot if one is named.
    Again(Option<[u8; 16]>),
    /// The other fetch takes too long.
    TooLong,
}

impl Gateway {
    /// Serves a request through a cache.
    ///
    /// # Errors
    /// When the client's connection broke, or the answer was cut after its head had been sent.
    pub(super) async fn serve_cached(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        cache: CacheId,
        to: Destination,
    ) -> pingora::Result<Outcome> {
        let cache = self.live.cache(cache).clone();
        let head = session.req_header();
        if let RequestUse::Bypass(why) = policy::request_use(&head.method, &head.headers, &cache.rules) {
            self.pass_by(journey, why, None);
            return Ok(Outcome::Pass);
        }
        let mut asked = self.asked(session, journey, cache, to);
        asked.key = self.key_of_version(self.live.route(to.route), to.upstream, asked.key);
        asked.count_use();
        self.answer(session, journey, &asked).await?;
        Ok(Outcome::Answered)
    }

    /// Notes that a request passes the cache by, and why.
    pub(super) fn pass_by(&self, journey: &mut Journey, why: Bypass, detail: Option<&str>) {
        journey.cache = CacheResult::Bypass;
        let forward = if why == Bypass::Method { Forward::Method } else { Forward::Bypass };
        let outcome = CacheOutcome::Forwarded {
            why: forward,
            status: None,
            stored: false,
            collapsed: false,
            ttl: None,
        };
        journey.cache_status = Some(status::member(&self.live.plan.server.name, &outcome, detail));
    }

    pub(super) fn asked(
        &self,
        session: &Session,
        journey: &Journey,
        cache: Arc<Cache>,
        to: Destination,
    ) -> Asked {
        // What Connection names never reaches the origin, so it must not choose among stored answers either.
        let mut fields = session.req_header().headers.clone();
        for name in forward::nominated(&fields) {
            fields.remove(name);
        }
        let mut onward = self.onward(session, journey, Method::GET);
        // What is fetched for all is fetched whole.
        let resume = onward.fields.remove(LAST_EVENT_ID).filter(|id| !id.is_empty());
        if let Some(rules) = &self.live.route(to.route).compress {
            compress::settle(rules, &session.req_header().method, &mut fields);
            compress::settle(rules, &session.req_header().method, &mut onward.fields);
        }
        let admitted = &onward.admitted;
        let key = Key::of(
            &KeyFacts {
                https: journey.client.https,
                host: &admitted.host,
                port: admitted.port,
                path: &admitted.path,
                query: admitted.query.as_deref(),
                fields: &fields,
            },
            &cache.rules.key,
        );
        keyed_by_user(&mut fields, &cache.rules.key.headers);
        let directives = directive::request(&fields);
        Asked { cache, key, fields, directives, to, onward, unstored: None, beside: None, resume }
    }

    pub(super) async fn answer(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
    ) -> pingora::Result<()> {
        let mut slot = None;
        let shadow = self.live.route(asked.to.route).shadow;
        for _ in 0..LOOKS {
            let mut found = asked.cache.store.lookup(&asked.key, &asked.fields).await;
            let mut reuse = found.entry.as_ref().map(|entry| self.judge(&entry.record, asked));
            if let (Some(entry), Some(how)) = (&found.entry, reuse)
                && !matches!(how, Reuse::Validate(_))
            {
                if shadow {
                    return self.compare(session, journey, asked, entry.clone()).await;
                }
                match self.serve_stored(session, journey, asked, &found, entry, how).await? {
                    Sent::Yes => return Ok(()),
                    Sent::Unreadable(trouble) => {
                        (found.entry, found.trouble, reuse) = (None, Some(trouble.as_str()), None);
                    }
                }
            }
            if shadow {
                return self.fetch_alone(session, journey, asked).await;
            }
            if asked.directives.only_if_cached {
                return self.fail(session, journey, Failure::OnlyIfCached).await;
            }
            if self.judge_miss(session, journey).await? == Outcome::Answered {
                return Ok(());
            }
            let why = forward_reason(&found, reuse);
            if asked.resume.is_some() && !self.flies(asked, slot.unwrap_or(found.slot)) {
                return self.resume_alone(session, journey, asked).await;
            }
            let reader = self.join(asked, &found, slot.take());
            let (mut reader, leads) = match reader {
                Joined::Lead(writer, reader) => {
                    let slot = self.fleet_slot(asked, &found, reuse);
                    self.spawn(asked, found.entry.clone(), writer, false, slot);
                    (reader, true)
                }
                Joined::Follow(reader) => (reader, false),
            };
            let fetched = Fetched { why, leads, trouble: found.trouble };
            match self.follow(session, journey, asked, &mut reader, &fetched).await? {
                Followed::Served => return Ok(()),
                Followed::Again(next) => slot = next,
                Followed::TooLong => break,
            }
        }
        self.fetch_alone(session, journey, asked).await
    }

    fn judge(&self, record: &Record, asked: &Asked) -> Reuse {
        lookup::judge(record, &asked.directives, &asked.cache.rules, self.live.clock.wall())
    }

    async fn serve_stored(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
        found: &Found,
        entry: &Arc<Entry>,
        reuse: Reuse,
    ) -> pingora::Result<Sent> {
        journey.cache = match (reuse, found.tier) {
            (Reuse::Fresh, Tier::Memory) => CacheResult::HitMemory,
            (Reuse::Fresh, Tier::Redis) => CacheResult::HitRedis,
            _ => CacheResult::Stale,
        };
        if reuse == Reuse::StaleWhileRevalidate || self.nears_its_end(&entry.record, asked) {
            self.refresh(asked, found, entry);
        }
        let outcome = CacheOutcome::Hit { tier: found.tier, ttl: self.ttl(&entry.record) };
        self.deliver_entry(session, journey, asked, entry, &outcome, None).await
    }

    /// A popular answer is fetched anew by chance before it expires, so that it does not expire for everybody at once.
    fn nears_its_end(&self, record: &Record, asked: &Asked) -> bool {
        asked.cache.rules.early_refresh
            && lookup::early_refresh(record, self.live.clock.wall(), super::chance()) == Some(Duration::ZERO)
    }

    /// Fetches anew in the background, unless somebody does already.
    fn refresh(&self, asked: &Asked, found: &Found, entry: &Arc<Entry>) {
        if let Joined::Lead(writer, _) = self.flight(asked, found.slot) {
            let slot = self.fleet_slot(asked, found, None);
            self.spawn(asked, Some(entry.clone()), writer, true, slot);
        }
    }

    fn join(&self, asked: &Asked, found: &Found, slot: Option<[u8; 16]>) -> Joined<Word> {
        let unshared = found.absent == Absent::NotShared && found.entry.is_none();
        if unshared || asked.cache.coalesce == Coalesce::Off {
            let (writer, reader) = asked.cache.flights.alone();
            return Joined::Lead(writer, reader);
        }
        self.flight(asked, slot.unwrap_or(found.slot))
    }

    fn flight(&self, asked: &Asked, slot: [u8; 16]) -> Joined<Word> {
        let store = &asked.cache.store;
        let good = |began| store.unchanged_since(&asked.key, began);
        asked.cache.flights.join(slot, store.began(&asked.key), good)
    }

    /// What the fleet is asked for before the origin is. A client that asks for an answer from the origin gets one; where Redis just failed, it is not
    /// asked again; and for what will not be stored nobody should wait.
    fn fleet_slot(&self, asked: &Asked, found: &Found, reuse: Option<Reuse>) -> Option<[u8; 16]> {
        let shares = asked.cache.coalesce == Coalesce::Fleet && found.trouble.is_none();
        let unshared =
            found.absent == Absent::NotShared || (asked.unstored.is_some() && found.entry.is_none());
        (shares && !unshared && reuse != Some(Reuse::Validate(Why::Request))).then_some(found.slot)
    }

    fn spawn(
        &self,
        asked: &Asked,
        stale: Option<Arc<Entry>>,
        writer: Writer<Word>,
        background: bool,
        slot: Option<[u8; 16]>,
    ) {
        let fill = Fill {
            live: self.live.clone(),
            cache: asked.cache.clone(),
            key: asked.key.clone(),
            to: asked.to,
            onward: asked.onward.clone(),
            asked: asked.fields.clone(),
            // What was stored once is worth storing again.
            beside: asked.beside.clone(),
            unstored: asked.unstored.filter(|why| *why != Refuse::FewUses || stale.is_none()),
            stale,
            background,
            slot,
            lease: None,
        };
        tokio::spawn(fill.run(writer));
    }

    /// Shadow mode: what is stored is not served but compared with what an instance answers, and stays as it is.
    async fn compare(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
        stored: Arc<Entry>,
    ) -> pingora::Result<()> {
        let alone = Asked { unstored: Some(Refuse::Shadow), beside: Some(stored), ..asked.clone() };
        self.fetch_alone(session, journey, &alone).await
    }

    /// Whether what is asked for is being fetched.
    fn flies(&self, asked: &Asked, slot: [u8; 16]) -> bool {
        let store = &asked.cache.store;
        asked.cache.flights.follow(slot, |began| store.unchanged_since(&asked.key, began)).is_some()
    }

    /// A stream of which nothing is at hand: its instance knows where it goes on. What it then sends is a part, and stored for nobody.
    async fn resume_alone(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
    ) -> pingora::Result<()> {
        let mut alone = asked.clone();
        alone.unstored = Some(Refuse::Resumed);
        if let Some(id) = alone.resume.take() {
            alone.onward.fields.insert(LAST_EVENT_ID, id);
        }
        self.fetch_alone(session, journey, &alone).await
    }

    pub(super) async fn fetch_alone(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
    ) -> pingora::Result<()> {
        if self.judge_miss(session, journey).await? == Outcome::Answered {
            return Ok(());
        }
        let (writer, mut reader) = asked.cache.flights.alone();
        self.spawn(asked, None, writer, false, None);
        let why = match asked.unstored {
            None | Some(Refuse::FewUses) => Forward::UriMiss,
            Some(_) => Forward::Bypass,
        };
        let fetched = Fetched { why, leads: true, trouble: None };
        self.follow(session, journey, asked, &mut reader, &fetched).await?;
        Ok(())
    }

    async fn follow(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
        reader: &mut Reader<Word>,
        fetched: &Fetched,
    ) -> pingora::Result<Followed> {
        // Whoever leaves while the fetch waits for a place must not keep it waiting.
        let may_wait = self.live.upstream(asked.to.upstream).group.plan().pool.is_some();
        let patience = if fetched.leads { Duration::MAX } else { asked.cache.wait_timeout };
        loop {
            let word = tokio::select! {
                biased;
                word = tokio::time::timeout(patience, reader.word()) => word,
                gone = place::client_gone(session), if may_wait => {
                    journey.failure = Some(Failure::ClientGone);
                    return Err(gone);
                }
            };
            let Ok(word) = word else { return Ok(Followed::TooLong) };
            match word {
                Some(Word::Interim(head)) => {
                    if fetched.leads {
                        deliver::interim(session, &head).await?;
                    }
                }
                Some(Word::Late) => {}
                Some(Word::NotShared) if fetched.leads => {}
                Some(Word::NotShared) => return Ok(Followed::Again(None)),
                Some(verdict) => return self.take(session, journey, asked, reader, fetched, verdict).await,
                // The fetch vanished without a word: its task failed.
                None if fetched.leads => {
                    self.fail(session, journey, Failure::Internal).await?;
                    return Ok(Followed::Served);
                }
                None => return Ok(Followed::Again(None)),
            }
        }
    }

    async fn take(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
        reader: &mut Reader<Word>,
        fetched: &Fetched,
        verdict: Word,
    ) -> pingora::Result<Followed> {
        match verdict {
            Word::Interim(_) | Word::Late | Word::NotShared => {}
            Word::Coming(record, source) => {
                let rules = asked.key.vary();
                if !vary::fits(&record, &asked.fields, rules) {
                    let variant = vary::of_request(&record.vary, &asked.fields, rules);
                    return Ok(Followed::Again(Some(asked.key.variant(&variant))));
                }
                let fetched = &fetched.by(&source);
                self.note_fetch(journey, asked, fetched, &source);
                let outcome = fetched.outcome(source.status, true, Some(self.ttl(&record)));
                let mut told = self.told(journey, &outcome, fetched.trouble);
                told.for_browsers = self.for_browsers(journey, record.status, &record.fields);
                self.deliver_coming(session, asked, &record, reader, &told).await?;
            }
            Word::Private(..) if !fetched.leads => return Ok(Followed::Again(None)),
            Word::Private(head, why, source) => {
                self.note_fetch(journey, asked, fetched, &source);
                if matches!(asked.unstored, Some(Refuse::NoQuery | Refuse::TooLargeToKey)) {
                    self.heed_change(session, journey, &head).await?;
                }
                let outcome = fetched.outcome(source.status, false, None);
                let detail = fetched.trouble.unwrap_or(why.as_str());
                self.deliver_private(session, journey, &head, reader, &outcome, detail).await?;
            }
            Word::Stored(entry, how) => {
                return self.take_stored(session, journey, asked, fetched, &entry, how).await;
            }
            Word::Failed(failed) => {
                journey.instance = failed.instance;
                journey.fetch_tries = failed.tries;
                journey.cache = CacheResult::Miss;
                self.fail(session, journey, failed.failure).await?;
            }
        }
        Ok(Followed::Served)
    }

    async fn take_stored(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
        fetched: &Fetched,
        entry: &Arc<Entry>,
        how: Stored,
    ) -> pingora::Result<Followed> {
        if !vary::fits(&entry.record, &asked.fields, asked.key.vary()) {
            return Ok(Followed::Again(None));
        }
        let (source, detail) = match how {
            Stored::Validated { shared: false, .. } if !fetched.leads => return Ok(Followed::Again(None)),
            Stored::Validated { source, .. } => {
                journey.cache = CacheResult::Revalidated;
                (source, fetched.trouble)
            }
            Stored::InsteadOfError(failure, source) => {
                journey.cache = CacheResult::Stale;
                (source, Some(failure.as_str()))
            }
            Stored::Elsewhere => {
                journey.cache = CacheResult::Collapsed;
                asked.cache.metrics.collapsed();
                let outcome = fetched.collapsed(Some(self.ttl(&entry.record)));
                self.deliver_entry(session, journey, asked, entry, &outcome, Some(FLEET)).await?;
                return Ok(Followed::Served);
            }
        };
        journey.note_source(&source);
        let outcome = fetched.outcome(source.status, false, Some(self.ttl(&entry.record)));
        match self.deliver_entry(session, journey, asked, entry, &outcome, detail).await? {
            Sent::Yes => Ok(Followed::Served),
            Sent::Unreadable(_) => Ok(Followed::Again(None)),
        }
    }

    /// A request that could not be a question may have been a change: what it makes invalid is so before its answer leaves.
    async fn heed_change(
        &self,
        session: &Session,
        journey: &Journey,
        head: &super::fill::Head,
    ) -> pingora::Result<()> {
        let mut answer = ResponseHeader::build_no_case(head.status, Some(head.fields.len()))?;
        for (name, value) in &head.fields {
            answer.append_header(name.clone(), value.clone())?;
        }
        self.invalidate(session, journey, &answer);
        self.invalidate_groups(self.changed_groups(session, journey, &answer)).await;
        Ok(())
    }

    fn note_fetch(&self, journey: &mut Journey, asked: &Asked, fetched: &Fetched, source: &Source) {
        journey.note_source(source);
        journey.cache = if fetched.leads {
            CacheResult::Miss
        } else {
            asked.cache.metrics.collapsed();
            CacheResult::Collapsed
        };
    }

    fn ttl(&self, record: &Record) -> i64 {
        status::ttl_seconds(record.lifetime, record.age(self.live.clock.wall()))
    }

    async fn deliver_entry(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        asked: &Asked,
        entry: &Arc<Entry>,
        outcome: &CacheOutcome,
        detail: Option<&str>,
    ) -> pingora::Result<Sent> {
        let age = lookup::age_field(&entry.record, self.live.clock.wall());
        let mut told = self.told(journey, outcome, detail);
        told.for_browsers = self.for_browsers(journey, entry.record.status, &entry.record.fields);
        deliver::entry(session, entry, age, &told, asked.resume.as_ref()).await
    }

    async fn deliver_coming(
        &self,
        session: &mut Session,
        asked: &Asked,
        record: &Record,
        reader: &mut Reader<Word>,
        told: &Told,
    ) -> pingora::Result<()> {
        let age = Some(lookup::age_field(record, self.live.clock.wall()));
        let seen = asked.resume.as_ref();
        deliver::coming(session, record.status, &record.fields, age, reader, told, seen).await
    }

    async fn deliver_private(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        head: &super::fill::Head,
        reader: &mut Reader<Word>,
        outcome: &CacheOutcome,
        detail: &str,
    ) -> pingora::Result<()> {
        let mut told = self.told(journey, outcome, Some(detail));
        told.for_browsers = self.for_browsers(journey, head.status, &head.fields);
        deliver::coming(session, head.status, &head.fields, None, reader, &told, None).await
    }

    fn told(&self, journey: &mut Journey, outcome: &CacheOutcome, detail: Option<&str>) -> Told {
        let member = status::member(&self.live.plan.server.name, outcome, detail);
        journey.cache_status = Some(member.clone());
        Told {
            cache_status: member,
            request_id: journey.request_id.clone(),
            via: self.live.plan.server.name.clone(),
            for_browsers: None,
            changes: journey.pass.answer.clone(),
            hsts: self.hsts(journey).cloned(),
        }
    }
}

/// Where the token, or who shows a certificate, is part of the key, a stored answer is its user's own: what RFC 9111 §3.5 keeps from being
/// shared is not shared.
pub(super) fn keyed_by_user(fields: &mut HeaderMap, key: &[header::HeaderName]) {
    if key.contains(&header::AUTHORIZATION) {
        fields.remove(header::AUTHORIZATION);
    }
    if Identity::NAMES.iter().any(|name| key.contains(name)) {
        fields.remove(&Identity::NAMES[0]);
    }
}

/// Why a request follows a fetch, and in what part.
struct Fetched {
    why: Forward,
    leads: bool,
    trouble: Option<&'static str>,
}

impl Fetched {
    /// What another gateway fetched nobody here leads.
    fn by(&self, source: &Source) -> Self {
        match source.elsewhere {
            true => Self { why: self.why, leads: false, trouble: Some(FLEET) },
            false => Self { why: self.why, leads: self.leads, trouble: self.trouble },
        }
    }

    fn collapsed(&self, ttl: Option<i64>) -> CacheOutcome {
        CacheOutcome::Forwarded { why: self.why, status: None, stored: false, collapsed: true, ttl }
    }

    fn outcome(&self, status: Option<u16>, stored: bool, ttl: Option<i64>) -> CacheOutcome {
        CacheOutcome::Forwarded {
            why: self.why,
            status: status.filter(|s| *s != 200),
            stored: stored && self.leads,
            collapsed: !self.leads,
            ttl,
        }
    }
}

fn forward_reason(found: &Found, reuse: Option<Reuse>) -> Forward {
    match (reuse, found.absent) {
        (Some(Reuse::Validate(Why::Request)), _) => Forward::Request,
        (Some(_), _) => Forward::Stale,
        (None, Absent::OtherVariant) => Forward::VaryMiss,
        (None, _) => Forward::UriMiss,
    }
}
