//! The short way: a plain hit in memory is answered here, before pingora_proxy sees the request.
//!
//! A request that pingora_proxy walks through costs two to three times what the rest of the gateway does, most of it in setting up what a hit does
//! not need. So each request is asked here first: if every rule says that a fresh answer in memory serves it whole, or as a 304, its head is
//! written at once; else nothing has been touched and the long way takes it. Both ways ask the same rules, and tell the same fields
//! ([`head`]).
//!
//! What goes the long way: everything but GET and HEAD without content on a route with a cache; `Range`, `Expect` and what a `Connection` field
//! names; misses, stale answers, and fresh ones so near their end that a refresh may be due.
//!
//! Not here: sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderValue, Method};

use self::head::Ours;
use crate::base::clock::{Clock, MonoTime, WallTime};
use crate::base::fields::{Fields, Pairs};
use crate::cache::key::{Key, KeyFacts};
use crate::cache::lookup::{self, Reuse};
use crate::cache::policy::{self, RequestUse};
use crate::cache::status::{self, Tier};
use crate::cache::{conditional, directive};
use crate::forward;
use crate::forward::edit::Edited;
use crate::guard::client::Client;
use crate::observe::access::{Line, Log};
use crate::observe::metrics::{CacheResult, Metrics};
use crate::plan::{self, Action, CacheId, Plan, Route, RouteId};
use crate::store::uses::Uses;
use crate::store::{Entry, Store};
use crate::ward::{Asked, Pass, Ward};

pub mod head;

/// The running parts it asks.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// The time.
    pub clock: &'a Clock,
    /// The running caches.
    pub cache: &'a dyn Fn(CacheId) -> Cache<'a>,
    /// What stands before the routes.
    pub ward: &'a Ward,
    /// Makes a request's id.
    pub new_id: fn() -> String,
    /// Whether a line will be written, so that its words are kept.
    pub logged: bool,
}

/// A running cache.
pub struct Cache<'a> {
    /// What it holds.
    pub store: &'a Store,
    /// How often its answers were asked for, where that matters.
    pub uses: Option<&'a Uses>,
}

/// A request as the guard took it.
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// HTTP/1.0.
    pub http10: bool,
    /// The normalised host.
    pub host: &'a str,
    /// The port the client named.
    pub port: Option<u16>,
    /// The normalised path.
    pub path: &'a str,
    /// The query.
    pub query: Option<&'a str>,
    /// Its fields.
    pub fields: &'a Pairs<'a>,
    /// The address of the connection's peer.
    pub peer: IpAddr,
    /// It came over TLS.
    pub tls: bool,
    /// What browsers are to remember of HTTPS.
    pub hsts: Option<&'a HeaderValue>,
    /// The connection is closed after this request.
    pub last: bool,
}

/// An answer, and what is to be told of it.
pub struct Answer {
    /// The head as it goes over the wire.
    pub head: Vec<u8>,
    /// Whether the connection may be used again.
    pub keep: bool,
    entry: Arc<Entry>,
    with_content: bool,
    arrived: MonoTime,
    at: WallTime,
    route: RouteId,
    cache: CacheId,
    looked: Duration,
    method: Method,
    status: u16,
    client: Client,
    request_id: String,
    cache_status: String,
    words: Option<Box<Words>>,
    /// Holds its places among the requests in flight.
    _pass: Pass,
}

/// What of a request only its line tells.
struct Words {
    host: String,
    target: String,
    protocol: &'static str,
    user_agent: Option<String>,
    referer: Option<String>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// Bytes of content that left.
    pub bytes: u64,
    /// Why not all did.
    pub error: Option<&'a str>,
}

/// Answers a request from memory; `None`: it goes the long way, and nothing was counted.
pub fn answer(parts: Parts<'_>, request: &Request<'_>) -> Option<Answer> {
    let keep = keeps(request)? && !request.last;
    let (route, cache) = cached_route(parts.plan, request)?;
    if !plain(request) {
        return None;
    }
    let (arrived, at) = (parts.clock.mono(), parts.clock.wall());
    let client = parts.plan.server.trusted_proxies.client(request.peer, request.tls, request.fields);
    let new_id = || {
        forward::trusted_request_id(request.fields, client.behind_trusted)
            .map_or_else(parts.new_id, str::to_owned)
    };
    let way = Way { parts, request, route, cache, client: &client, arrived, at };
    let Some(ward) = &parts.plan.routes[route].ward else {
        let (entry, looked) = way.find(request.fields)?;
        return Some(way.told(request.fields, entry, looked, new_id(), Pass::default(), keep));
    };
    let request_id = new_id();
    let asked = way.asked(ward, &request_id);
    let seen = parts.ward.look(&parts.plan.realms, &asked)?;
    let fields = Edited { fields: request.fields, changes: &seen.request };
    let (entry, looked) = way.find(&fields)?;
    // What it takes of its limits it takes last: a request that goes the long way is counted there.
    let pass = parts.ward.take(&asked, &seen)?;
    Some(way.told(&fields, entry, looked, request_id.clone(), pass, keep))
}

/// Whether the connection stays open after it (RFC 9112 §9.3); `None` when `Connection` says more than that: what it names never reaches an
/// instance, so it must not choose among stored answers either.
fn keeps(request: &Request<'_>) -> Option<bool> {
    let mut lines = 0;
    let mut says = None;
    request.fields.each("connection", &mut |line| {
        lines += 1;
        let line = line.trim_ascii();
        if line.eq_ignore_ascii_case(b"keep-alive") {
            says = Some(true);
        } else if line.eq_ignore_ascii_case(b"close") {
            says = Some(false);
        }
    });
    match lines {
        0 => Some(!request.http10),
        1 => says,
        _ => None,
    }
}

fn cached_route(plan: &Plan, request: &Request<'_>) -> Option<(RouteId, CacheId)> {
    let id = plan.table.find(request.host, request.path, request.method)?;
    // Every setting of a route is named, so that a new one must say here whether a hit heeds it. These do not matter to one: it sends nothing on, stores
    // nothing, and its request has no content. The ward is asked by `answer`.
    let Route {
        name: _,
        action,
        split,
        rewrite: _,
        max_body_size: _,
        content_key: _,
        store_when: _,
        lifetimes: _,
        shadow,
        trying: _,
        priority: _,
        browser: _,
        compress: _,
        ward: _,
    } = &plan.routes[id];
    // Whose answer serves is decided once, on the long way: were chance asked here as well, a miss would be asked twice.
    if split.as_ref().is_some_and(|split| split.apart) || *shadow {
        return None;
    }
    match action {
        Action::Forward { upstream: _, cache: Some(cache) } => Some((id, *cache)),
        Action::Forward { cache: None, .. } | Action::Files(_) | Action::Respond { .. } => None,
    }
}

/// The fields by which a stored answer is chosen where answers are compressed: what the client accepts is the one coding it gets.
struct Settled<'f> {
    fields: &'f dyn Fields,
    coding: Option<&'static str>,
}

impl Fields for Settled<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        match self.coding {
            Some(coding) if name.eq_ignore_ascii_case("accept-encoding") => visit(coding.as_bytes()),
            _ => self.fields.each(name, visit),
        }
    }
}

/// Whether it asks for nothing that the short way does not know.
fn plain(request: &Request<'_>) -> bool {
    // The last three say who the client is, which nobody may say of himself: the long way takes them away before anything reads them.
    const UNUSUAL: [&str; 9] = [
        "range",
        "expect",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "last-event-id",
        "client-cert",
        "x-client-cert-subject",
        "x-client-cert-fingerprint",
    ];
    !UNUSUAL.iter().any(|name| request.fields.has(name))
}

/// A request on its way to a fresh answer.
#[derive(Clone, Copy)]
struct Way<'p, 'r> {
    parts: Parts<'p>,
    request: &'r Request<'r>,
    route: RouteId,
    cache: CacheId,
    client: &'r Client,
    arrived: MonoTime,
    at: WallTime,
}

impl<'p: 'r, 'r> Way<'p, 'r> {
    fn asked<'a>(&'a self, ward: &'a plan::ward::Ward, request_id: &'a str) -> Asked<'a> {
        Asked {
            ward,
            route: self.parts.plan.routes[self.route].name.as_str(),
            method: self.request.method,
            host: self.request.host,
            path: self.request.path,
            client: self.client.addr,
            https: self.client.https,
            fields: self.request.fields,
            request_id,
        }
    }

    /// The answer in memory that serves a request with these fields, and how long it took to find.
    fn find(&self, fields: &dyn Fields) -> Option<(Arc<Entry>, Duration)> {
        let Self { parts, request, cache, .. } = *self;
        let rules = &parts.plan.caches[cache].rules;
        let compress = parts.plan.routes[self.route].compress.as_ref();
        let coding = compress.map(|rules| rules.negotiate(fields).as_str());
        let fields: &dyn Fields = &Settled { fields, coding };
        if policy::request_use(request.method, fields, rules) != RequestUse::LookUp {
            return None;
        }
        // Where the token is part of the key it is no longer part of what answers vary by: the long way knows.
        if rules.key.headers.contains(&AUTHORIZATION) {
            return None;
        }
        let key = Key::of(
            &KeyFacts {
                https: self.client.https,
                host: request.host,
                port: request.port,
                path: request.path,
                query: request.query,
                fields,
            },
            &rules.key,
        );
        let entry = (parts.cache)(cache).store.peek(&key, fields).entry?;
        let looked = parts.clock.mono().since(self.arrived);
        let directives = directive::request(fields);
        // Asked anew: what a purge made stale this instant would still be fresh at the moment before.
        let now = parts.clock.wall();
        // Whether a refresh is due is decided by chance, once: on the long way, which makes it.
        let refresh = rules.early_refresh && lookup::early_refresh(&entry.record, now, 0.0).is_some();
        if refresh || lookup::judge(&entry.record, &directives, rules, now) != Reuse::Fresh {
            return None;
        }
        if let Some(uses) = (parts.cache)(cache).uses {
            uses.note(key.hash());
        }
        Some((entry, looked))
    }

    fn told(
        self,
        asked: &dyn Fields,
        entry: Arc<Entry>,
        looked: Duration,
        request_id: String,
        pass: Pass,
        keep: bool,
    ) -> Answer {
        let record = &entry.record;
        let name = &self.parts.plan.server.name;
        let ttl = status::ttl_seconds(record.lifetime, record.age(self.at));
        let cache_status = status::member(name, &status::Outcome::Hit { tier: Tier::Memory, ttl }, None);
        let not_modified = conditional::not_modified(asked, record.status, &record.fields);
        let of_304 = not_modified.then(|| conditional::fields_of_304(&record.fields));
        let status = if not_modified { http::StatusCode::NOT_MODIFIED } else { record.status };
        let fields = of_304.as_ref().unwrap_or(&record.fields);
        let rules = self.parts.plan.routes[self.route].browser.as_ref();
        let for_browsers =
            rules.and_then(|rules| rules.value(self.request.path, record.status, &record.fields));
        let dressed = (!pass.answer.is_empty()).then(|| {
            let mut fields = fields.clone();
            if let Some(value) = for_browsers {
                fields.insert(CACHE_CONTROL, value.clone());
            }
            pass.answer.apply(&mut fields);
            fields
        });
        let fields = dressed.as_ref().unwrap_or(fields);
        let ours = Ours {
            cache_status: &cache_status,
            via: forward::via(fields, "1.1", name),
            request_id: &request_id,
            age: Some(lookup::age_field(record, self.at)),
            length: head::stated_length(status, record.status, entry.body.len()),
            for_browsers: for_browsers.filter(|_| dressed.is_none()),
            hsts: self.request.hsts,
        };
        let mut head = Vec::with_capacity(HEAD);
        head::write(&mut head, status, fields, &ours, keep);
        let with_content = !not_modified && *self.request.method != Method::HEAD;
        Answer {
            head,
            keep,
            with_content,
            arrived: self.arrived,
            at: self.at,
            route: self.route,
            cache: self.cache,
            looked,
            method: self.request.method.clone(),
            status: status.as_u16(),
            client: self.client.clone(),
            request_id,
            cache_status,
            words: self.parts.logged.then(|| Box::new(Words::of(self.request))),
            entry,
            _pass: pass,
        }
    }
}

/// What a head usually takes, in bytes; a longer one grows.
const HEAD: usize = 1024;

impl Words {
    fn of(request: &Request<'_>) -> Self {
        let field = |name| {
            let value = request.fields.first(name).and_then(|value| std::str::from_utf8(value).ok())?;
            let readable = value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
            readable.then(|| value.to_owned())
        };
        Self {
            host: request.host.to_owned(),
            target: match request.query {
                Some(query) => format!("{}?{query}", request.path),
                None => request.path.to_owned(),
            },
            protocol: if request.http10 { "HTTP/1.0" } else { "HTTP/1.1" },
            user_agent: field("user-agent"),
            referer: field("referer"),
        }
    }
}

impl Answer {
    /// The content to send after the head, in pieces.
    pub fn content(&self) -> &[Bytes] {
        if self.with_content { self.entry.body.chunks() } else { &[] }
    }

    /// Counts it, and writes its line.
    pub fn finish(self, parts: Parts<'_>, metrics: &Metrics, log: &Log, sent: Sent<'_>) {
        let took = parts.clock.mono().since(self.arrived);
        (parts.cache)(self.cache).store.served(self.looked);
        let hit = CacheResult::HitMemory;
        metrics.request(Some(self.route), &self.method, self.status, hit, took, 0, sent.bytes);
        let Some(words) = &self.words else { return };
        log.write(&Line {
            at: self.at,
            request_id: &self.request_id,
            client: self.client.addr,
            method: self.method.as_str(),
            host: &words.host,
            target: &words.target,
            protocol: words.protocol,
            status: self.status,
            bytes_in: 0,
            bytes_out: sent.bytes,
            took,
            route: Some(parts.plan.routes[self.route].name.as_str()),
            upstream: None,
            instance: None,
            tries: 0,
            cache: Some(&self.cache_status),
            error: sent.error,
            user_agent: words.user_agent.as_deref(),
            referer: words.referer.as_deref(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;
    use crate::cache::policy::LifetimeSource;
    use crate::cache::record::{Record, ReuseRule};
    use crate::config::{self, Overrides, Source};
    use crate::store::Body;

    const PLAN: &str = "
[listen.web]
    addr = \"127.0.0.1:0\"
[upstreams.api]
    servers = [\"127.0.0.1:1\"]
[caches.api]
[caches.tokens]
    key = { headers = [\"authorization\"] }
[[routes]]
    match = { path = \"/cached/*\" }
    upstream = \"api\"
    cache = \"api\"
[[routes]]
    match = { path = \"/tokens/*\" }
    upstream = \"api\"
    cache = \"tokens\"
[[routes]]
    match = { path = \"/passed/*\" }
    upstream = \"api\"
    ";

    /// A gateway's parts, with an answer under every path that is asked for.
    struct World {
        plan: Plan,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        stores: Vec<Store>,
        uses: Uses,
        ward: Ward,
    }

    impl World {
        fn new() -> Self {
            let source = Source { name: "test".into(), text: PLAN.into() };
            let plan = config::load(&source, &HashMap::<String, String>::new(), &Overrides::default());
            let plan = plan.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
            let (clock, metrics) = (Arc::new(Clock::start()), Metrics::new(&plan));
            let store = |c: &crate::plan::Cache| {
                Store::new(
                    c.memory,
                    crate::store::Sizes::of(c.max_object),
                    None,
                    clock.clone(),
                    metrics.cache(&c.name),
                )
            };
            let stores = plan.caches.iter().map(store).collect();
            let ward = Ward::new(&plan, None, &clock, &metrics, None);
            let world = Self { plan, clock, metrics, stores, uses: Uses::default(), ward };
            world.keep(0, "/cached/a", Duration::from_secs(100));
            world.keep(0, "/cached/expired", Duration::ZERO);
            world.keep(0, "/passed/a", Duration::from_secs(100));
            world.keep(1, "/tokens/a", Duration::from_secs(100));
            world
        }

        fn keep(&self, cache: CacheId, path: &str, lifetime: Duration) {
            let fields = HeaderMap::new();
            let facts =
                KeyFacts { https: false, host: "a.test", port: None, path, query: None, fields: &fields };
            let key = Key::of(&facts, &self.plan.caches[cache].rules.key);
            let mut fields = HeaderMap::new();
            fields.insert("etag", HeaderValue::from_static("\"1\""));
            let record = Record {
                key: key.shared_text(),
                status: StatusCode::OK,
                fields,
                received: self.clock.wall(),
                initial_age: Duration::ZERO,
                lifetime,
                source: LifetimeSource::MaxAge,
                reuse: ReuseRule::default(),
                stale_while_revalidate: Duration::from_secs(50),
                stale_if_error: Duration::ZERO,
                keep: Duration::from_secs(50),
                vary: Vec::new(),
                variant: Default::default(),
            };
            let body = Body::from_chunks(vec![Bytes::from_static(b"content")]);
            self.stores[cache].put(&key, Arc::new(Entry { record, body }));
        }

        /// What is answered to a request: the first line of its head and the length of what follows.
        fn asked(&self, method: Method, path: &str, lines: &[(&str, &[u8])]) -> Option<(String, usize)> {
            let cache = |id: CacheId| Cache { store: &self.stores[id], uses: Some(&self.uses) };
            let parts = Parts {
                plan: &self.plan,
                clock: &self.clock,
                cache: &cache,
                ward: &self.ward,
                new_id: || "id".into(),
                logged: false,
            };
            let request = Request {
                method: &method,
                http10: false,
                host: "a.test",
                port: None,
                path,
                query: None,
                fields: &Pairs(lines),
                peer: Ipv4Addr::LOCALHOST.into(),
                tls: false,
                hsts: None,
                last: false,
            };
            let answer = answer(parts, &request)?;
            let head = String::from_utf8_lossy(&answer.head).into_owned();
            let line = head.lines().next().unwrap_or_default().to_owned();
            Some((line, answer.content().iter().map(Bytes::len).sum()))
        }
    }

    #[test]
    fn plain_hits_take_the_short_way() {
        let world = World::new();
        for (method, path, lines, expected) in [
            (Method::GET, "/cached/a", &[][..], ("HTTP/1.1 200 OK", 7)),
            (Method::HEAD, "/cached/a", &[], ("HTTP/1.1 200 OK", 0)),
            (Method::GET, "/cached/a", &[("Connection", &b"Keep-Alive"[..])], ("HTTP/1.1 200 OK", 7)),
            (Method::GET, "/cached/a", &[("connection", b"close")], ("HTTP/1.1 200 OK", 7)),
            (Method::GET, "/cached/a", &[("If-None-Match", b"\"1\"")], ("HTTP/1.1 304 Not Modified", 0)),
            (Method::GET, "/cached/a", &[("If-None-Match", b"\"2\"")], ("HTTP/1.1 200 OK", 7)),
            (Method::GET, "/cached/a", &[("Cache-Control", b"max-age=50")], ("HTTP/1.1 200 OK", 7)),
        ] {
            let expected = (expected.0.to_owned(), expected.1);
            assert_eq!(world.asked(method.clone(), path, lines), Some(expected), "{method} {path} {lines:?}");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_long_way() {
        let world = World::new();
        for (method, path, lines) in [
            (Method::GET, "/cached/unknown", &[][..]),
            (Method::GET, "/cached/expired", &[]),
            (Method::GET, "/passed/a", &[]),
            (Method::GET, "/nowhere", &[]),
            (Method::GET, "/tokens/a", &[]),
            (Method::POST, "/cached/a", &[]),
            (Method::OPTIONS, "/cached/a", &[]),
            (Method::GET, "/cached/a", &[("Range", &b"bytes=0-1"[..])]),
            (Method::GET, "/cached/a", &[("Expect", b"100-continue")]),
            (Method::GET, "/cached/a", &[("Last-Event-ID", b"1")]),
            (Method::GET, "/cached/a", &[("Content-Length", b"0")]),
            (Method::GET, "/cached/a", &[("Transfer-Encoding", b"chunked")]),
            (Method::GET, "/cached/a", &[("Connection", b"etag")]),
            (Method::GET, "/cached/a", &[("Connection", b"close"), ("Connection", b"close")]),
            (Method::GET, "/cached/a", &[("Upgrade", b"h2c")]),
            (Method::GET, "/cached/a", &[("X-Client-Cert-Subject", b"CN=admin")]),
            (Method::GET, "/cached/a", &[("If-Match", b"\"1\"")]),
            (Method::GET, "/cached/a", &[("Cache-Control", b"no-cache")]),
            (Method::GET, "/cached/a", &[("Cache-Control", b"min-fresh=200")]),
            (Method::GET, "/cached/a", &[("Pragma", b"no-cache")]),
        ] {
            assert_eq!(world.asked(method.clone(), path, lines), None, "{method} {path} {lines:?}");
        }
    }

    #[test]
    fn an_answer_near_its_end_is_left_to_the_way_that_refreshes_it() {
        let world = World::new();
        world.clock.advance(Duration::from_secs(89));
        assert!(world.asked(Method::GET, "/cached/a", &[]).is_some());
        world.clock.advance(Duration::from_secs(2));
        assert!(world.asked(Method::GET, "/cached/a", &[]).is_none());
    }

    #[test]
    fn what_goes_the_long_way_is_counted_there() {
        let world = World::new();
        world.asked(Method::GET, "/cached/a", &[("Cache-Control", b"no-cache")]);
        world.asked(Method::GET, "/cached/unknown", &[]);
        let counted = |line: &str| line.starts_with("vanne_cache_lookups_total") && !line.ends_with(" 0");
        assert_eq!(world.metrics.render().lines().find(|line| counted(line)), None);
    }

    #[test]
    fn a_hit_is_a_use_of_its_answer() {
        let world = World::new();
        let fields = HeaderMap::new();
        let facts = KeyFacts {
            https: false,
            host: "a.test",
            port: None,
            path: "/cached/a",
            query: None,
            fields: &fields,
        };
        let key = Key::of(&facts, &world.plan.caches[0].rules.key);
        world.asked(Method::GET, "/cached/a", &[("Range", b"bytes=0-1")]);
        world.asked(Method::GET, "/cached/a", &[]);
        world.asked(Method::GET, "/cached/a", &[]);
        assert_eq!(world.uses.note(key.hash()), 3, "two hits, and this one");
    }
}
