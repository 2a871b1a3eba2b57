//! Fetching for the cache: one exchange, owned by nobody's connection, that everyone who wants the answer follows.
//!
//! A fill runs as a task of its own. So a client that leaves does not end what others wait for, a stale answer can be served while its
//! successor is fetched, and whoever comes meanwhile reads along. It says in [`Word`]s what it learns; the order is: interim answers, one
//! verdict, content.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;

use super::beside::Beside;
use super::compress;
use super::exchange::{self, Answer, Destination, Failed};
use super::fleet::Turn;
use super::keep::Keeping;
use super::live::{Cache, Live};
use super::onward::Onward;
use super::reply::Failure;
use crate::cache::content::StoreWhen;
use crate::cache::freshen::{self, Freshened};
use crate::cache::key::Key;
use crate::cache::lookup;
use crate::cache::policy::{self, Exchange, Refuse};
use crate::cache::record::Record;
use crate::cache::{Rules, directive};
use crate::forward::{self, coding};
use crate::store::flight::Writer;
use crate::store::redis::lease::{Lease, Outcome};
use crate::store::{Began, Entry};

/// How long after an answer that is not for sharing its key is remembered as such, so that requests do not wait for one another in vain.
pub(super) const NOT_SHARED_FOR: Duration = Duration::from_secs(60);

/// What a fill has to say about the answer.
#[derive(Clone)]
pub enum Word {
    /// An interim answer (1xx), for the one who asked.
    Interim(Arc<ResponseHeader>),
    /// It waited for another gateway in vain, and asks the origin only now: who waits for it begins to wait anew.
    Late,
    /// The answer will not be for sharing: it is fetched for the one who asked alone.
    NotShared,
    /// The answer is to be stored; its content follows. Readers whose request it fits may have it.
    Coming(Arc<Record>, Source),
    /// The answer is not to be stored; its content follows, for the one who asked alone.
    Private(Arc<Head>, Refuse, Source),
    /// This stored answer serves.
    Stored(Arc<Entry>, Stored),
    /// There is none.
    Failed(Failed),
}

/// Why a stored answer serves after all.
#[derive(Debug, Clone)]
pub enum Stored {
    /// The origin confirmed it; what it added is for all who wait, or for the one who asked alone.
    Validated {
        /// Who confirmed it.
        source: Source,
        /// Whether the others may have it too.
        shared: bool,
    },
    /// It is stale, but the origin failed.
    InsteadOfError(Failure, Source),
    /// Another gateway fetched it meanwhile.
    Elsewhere,
}

/// Which instance answered, and how.
#[derive(Debug, Clone)]
pub struct Source {
    /// The instance, if one was asked.
    pub instance: Option<Arc<str>>,
    /// Attempts made.
    pub tries: u32,
    /// The origin's own status.
    pub status: Option<u16>,
    /// Another gateway asked it.
    pub elsewhere: bool,
}

/// The head of an answer that is not stored.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields.
    pub fields: HeaderMap,
}

/// All that one fetch needs.
pub struct Fill {
    /// The running gateway.
    pub live: Arc<Live>,
    /// The cache it is for.
    pub cache: Arc<Cache>,
    /// The key it is stored under.
    pub key: Key,
    /// Where it is fetched.
    pub to: Destination,
    /// The request.
    pub onward: Onward,
    /// The request's fields as the client sent them: what Vary, Authorization and `no-store` are judged by.
    pub asked: HeaderMap,
    /// Why it is not stored whatever it says.
    pub unstored: Option<Refuse>,
    /// The stored answer to compare it with.
    pub beside: Option<Arc<Entry>>,
    /// The stored answer to validate, if there is one.
    pub stale: Option<Arc<Entry>>,
    /// Nobody waits for it: it refreshes what was served.
    pub background: bool,
    /// What the fleet is asked for before the origin is; `None`: it is not asked.
    pub slot: Option<[u8; 16]>,
    /// The right to fetch for the fleet, once it was given.
    pub lease: Option<Lease>,
}

/// Resolves when nobody waits any more for what somebody waited for.
pub(super) async fn deserted(writer: &Writer<Word>, background: bool) {
    if background {
        return std::future::pending().await;
    }
    writer.deserted().await;
}

impl Fill {
    /// Fetches, stores, and tells the readers.
    pub async fn run(mut self, mut writer: Writer<Word>) {
        match self.wait_for_fleet(&mut writer).await {
            Turn::Fetch => {}
            Turn::Have(entry) => {
                writer.say(Word::Stored(entry, Stored::Elsewhere));
                return writer.finish();
            }
            Turn::Follow(record, relayed) => return self.follow_elsewhere(*record, relayed, writer).await,
            // Whoever came in this instant finds the fetch gone and looks again.
            Turn::Deserted => return,
        }
        loop {
            // A change made while we fetch may be missing from what we get: such an answer is not stored.
            let began = self.cache.store.began(&self.key);
            self.set_conditions();
            let interim = |head: &ResponseHeader| writer.say(Word::Interim(Arc::new(head.clone())));
            let asked =
                exchange::ask(&self.live, self.to, &self.onward, interim, deserted(&writer, self.background));
            let answer = match asked.await {
                Ok(answer) => self.compressed(answer),
                // Whoever came in this instant finds the fetch gone and looks again.
                Err(failed) if failed.failure == Failure::ClientGone => return,
                Err(failed) => return self.failed(failed, writer),
            };
            match self.freshened(&answer) {
                Freshness::Other => return self.answered(answer, began, writer).await,
                Freshness::Confirmed(entry, keep) => {
                    return self.confirmed(answer, entry, keep.then_some(began), writer).await;
                }
                // The origin confirms something we do not have: ask again for the whole.
                Freshness::Mismatch => self.stale = None,
            }
        }
    }

    /// The request that is sent states our own conditions, never the client's: those are answered from the result.
    fn set_conditions(&mut self) {
        freshen::remove_conditions(&mut self.onward.fields);
        if let Some(stale) = &self.stale {
            freshen::add_validators(&mut self.onward.fields, &stale.record);
            if self.compresses().is_some() {
                coding::plain_conditions(&mut self.onward.fields);
            }
        }
    }

    fn compresses(&self) -> Option<&coding::Rules> {
        self.live.route(self.to.route).compress.as_deref()
    }

    /// The answer as it is stored: compressed once, for all who take it so.
    fn compressed(&self, mut answer: Answer) -> Answer {
        let Some(rules) = self.compresses() else { return answer };
        if let Some(stale) = self.stale.as_ref().filter(|_| answer.head.status == StatusCode::NOT_MODIFIED) {
            // Fields that came over the wire can be written again.
            let _ = compress::confirm(&mut answer.head, &stale.record.fields);
            return answer;
        }
        let head = &answer.head;
        let judged = rules.judge(&self.onward.method, &self.onward.fields, head.status, &head.headers);
        if judged.is_ok() && answer.is_delimited(&self.onward.method) {
            // Without memory for it the content stays as it is.
            let _ = answer.code(compress::settled(&self.asked), &self.live.metrics);
        }
        answer
    }

    fn failed(self, failed: Failed, writer: Writer<Word>) {
        let source = Source {
            instance: failed.instance.as_deref().map(Into::into),
            tries: failed.tries,
            status: None,
            elsewhere: false,
        };
        match self.stand_in() {
            Some(entry) if failed.failure.is_upstream() => {
                writer.say(Word::Stored(entry, Stored::InsteadOfError(failed.failure, source)));
            }
            _ => writer.say(Word::Failed(failed)),
        }
        writer.finish();
    }

    /// The stale answer, when it may be served because the origin failed.
    fn stand_in(&self) -> Option<Arc<Entry>> {
        let entry = self.stale.as_ref()?;
        let request = directive::request(&self.asked);
        let now = self.live.clock.wall();
        lookup::serve_on_error(&entry.record, &request, &self.cache.rules, now).then(|| entry.clone())
    }

    /// The cache's rules for what is stored, or the route's in their place.
    fn rules(&self) -> Arc<Rules> {
        self.live.route(self.to.route).lifetimes.over(&self.cache.rules)
    }

    fn exchange<'a>(&'a self, answer: &'a Answer) -> Exchange<'a> {
        Exchange {
            // A question that is keyed by its content is stored as a GET of its answer would be.
            method: &Method::GET,
            request: &self.asked,
            status: answer.head.status,
            response: &answer.head.headers,
            delimited: answer.is_delimited(&self.onward.method),
            sent: answer.sent,
            received: answer.received,
        }
    }

    fn freshened(&self, answer: &Answer) -> Freshness {
        let Some(stale) = self.stale.as_ref().filter(|_| answer.head.status == StatusCode::NOT_MODIFIED)
        else {
            return Freshness::Other;
        };
        match freshen::apply_304(&stale.record, &self.exchange(answer), &self.rules()) {
            Freshened::Updated { record, keep } => {
                Freshness::Confirmed(Arc::new(Entry { record: *record, body: stale.body.clone() }), keep)
            }
            Freshened::Mismatch => Freshness::Mismatch,
        }
    }

    async fn confirmed(
        mut self,
        answer: Answer,
        entry: Arc<Entry>,
        keep: Option<Began>,
        writer: Writer<Word>,
    ) {
        let shared = keep.is_some();
        let superseded = shared && self.is_superseded(answer.sent).await;
        if let Some(began) = keep.filter(|_| !superseded) {
            self.cache.store.put_since(&self.key, entry.clone(), began);
            self.give_back(Outcome::Stored);
        } else if !shared && directive::response(&answer.head.headers, &self.cache.rules.targeted).no_store {
            self.cache.store.invalidate(&self.key);
        }
        let source = source(&answer);
        drain_and_release(answer).await;
        writer.say(Word::Stored(entry, Stored::Validated { source, shared }));
        writer.finish();
    }

    async fn answered(mut self, answer: Answer, began: Began, mut writer: Writer<Word>) {
        let status = answer.head.status.as_u16();
        if lookup::is_failure(answer.head.status)
            && let Some(entry) = self.stand_in()
        {
            let source = source(&answer);
            writer.say(Word::Stored(entry, Stored::InsteadOfError(Failure::BadAnswer, source)));
            return writer.finish();
        }
        match self.judge(&answer) {
            Ok(record) => self.store(record, answer, began, writer).await,
            Err(why) => {
                self.remember_refusal(why, status);
                writer.stop_keeping();
                writer.say(Word::Private(Arc::new(head(&answer)), why, source(&answer)));
                self.pass_on(answer, writer).await;
            }
        }
    }

    fn judge(&self, answer: &Answer) -> Result<Record, Refuse> {
        let judged = policy::store(&self.exchange(answer), &self.key, &self.rules());
        let judged = judged.and_then(|record| match self.store_when().takes_status(answer.head.status) {
            true => Ok(record),
            false => Err(Refuse::Condition),
        });
        let judged = match self.unstored {
            Some(Refuse::FewUses) => judged.and(Err(Refuse::FewUses)),
            Some(why) => Err(why),
            None => judged,
        };
        self.cache.metrics.store(match &judged {
            Ok(_) => "allowed",
            Err(why) => why.as_str(),
        });
        judged
    }

    /// Answers that are private by nature will be private again: requests for them need not wait for one another. What was stored before is no
    /// longer what the origin says. A failing origin tells nothing about either.
    fn remember_refusal(&mut self, why: Refuse, status: u16) {
        use Refuse::{Authorization, NoStore, NoUse, Private, SetCookie, Status, VaryAny};
        if status >= 500
            || !matches!(why, Private | NoStore | SetCookie | VaryAny | Authorization | NoUse | Status)
        {
            self.give_back(Outcome::Nothing);
            return;
        }
        if self.stale.is_some() {
            self.cache.store.invalidate(&self.key);
        }
        self.cache.store.not_shared(&self.key, NOT_SHARED_FOR);
        self.give_back(Outcome::NotShared);
    }

    async fn store(mut self, record: Record, mut answer: Answer, began: Began, mut writer: Writer<Word>) {
        let announced = content_length(&record.fields);
        let asks_content = self.store_when().asks_content();
        let mut keeping = Keeping::begin(&self.cache, &self.key, &record, announced, asks_content);
        let record = Arc::new(record);
        self.let_others_go(&keeping, &mut writer);
        writer.say(Word::Coming(record.clone(), source(&answer)));
        self.offer(&record, &writer);
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => {
                    // Whoever asked goes first; what Redis gets as well is fetched to its end even when nobody waits for it any more.
                    if writer.push(chunk.clone()).await.is_err() && !keeping.is_apart() {
                        return;
                    }
                    keeping.add(&self.cache, &self.key, &chunk).await;
                    self.let_others_go(&keeping, &mut writer);
                }
                Ok(None) => break,
                Err(_) => {
                    self.cache.metrics.store("truncated");
                    return;
                }
            }
        }
        if keeping.at_hand().is_some_and(|chunks| !self.content_is_to_store(chunks)) {
            self.cache.metrics.store(Refuse::Condition.as_str());
        } else if keeping.is_any() && self.is_superseded(answer.sent).await {
            self.cache.metrics.store("superseded");
        } else if let Some(body) = keeping.finish(&self.cache).await {
            let entry = Arc::new(Entry { record: Arc::unwrap_or_clone(record), body });
            self.cache.store.put_since(&self.key, entry, began);
            self.give_back(Outcome::Stored);
        }
        answer.release().await;
        writer.finish();
    }

    /// What is not at hand cannot be joined any more, and what is kept nowhere is not worth waiting for in the fleet.
    fn let_others_go(&mut self, keeping: &Keeping, writer: &mut Writer<Word>) {
        if !keeping.is_at_hand() {
            writer.stop_keeping();
        }
        if !keeping.is_any() {
            self.give_back(Outcome::Nothing);
        }
    }

    fn store_when(&self) -> &StoreWhen {
        &self.live.route(self.to.route).store_when
    }

    fn content_is_to_store(&self, chunks: &[Bytes]) -> bool {
        let when = self.store_when();
        !when.asks_content() || when.takes_content(&chunks.concat())
    }

    async fn pass_on(self, mut answer: Answer, writer: Writer<Word>) {
        let mut beside = self.beside.clone().map(|stored| Beside::of(stored, &answer));
        loop {
            let chunk = tokio::select! {
                chunk = answer.chunk() => chunk,
                // A stream may be silent for long: its instance is freed as soon as nobody listens any more.
                () = writer.abandoned() => return,
            };
            match chunk {
                Ok(Some(chunk)) => {
                    if let Some(beside) = &mut beside {
                        beside.take(&chunk);
                    }
                    if writer.push(chunk).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if let Some(beside) = beside {
            beside.tell(&self.live, self.to.route, &self.onward.admitted.target());
        }
        answer.release().await;
        writer.finish();
    }
}

enum Freshness {
    Confirmed(Arc<Entry>, bool),
    Mismatch,
    Other,
}

fn source(answer: &Answer) -> Source {
    Source {
        instance: Some(answer.instance.as_str().into()),
        tries: answer.tries,
        status: Some(answer.head.status.as_u16()),
        elsewhere: false,
    }
}

fn head(answer: &Answer) -> Head {
    let mut fields = answer.head.headers.clone();
    forward::response(&mut fields, false);
    Head { status: answer.head.status, fields }
}

/// The Content-Length of an answer, when it states one that reads.
pub fn content_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn drain_and_release(mut answer: Answer) {
    while let Ok(Some(_)) = answer.chunk().await {}
    answer.release().await;
}
