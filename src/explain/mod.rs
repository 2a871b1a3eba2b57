//! What would become of a request, told from a plan alone: its route and why not the others, its key, what would be stored and for how long,
//! and who would be asked. The same rules decide as when it runs.
//!
//! Not here: what is stored at this moment, and which instances are up; a running gateway adds it.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use self::told::{Explained, Judged};
use crate::balance::hash::Facts;
use crate::balance::split::When;
use crate::base::clock::WallTime;
use crate::cache::Rules;
use crate::cache::content::is_question;
use crate::cache::key::{Key, KeyFacts};
use crate::cache::policy::{self, Bypass, Exchange, LifetimeSource, Refuse, RequestUse};
use crate::cache::record::Record;
use crate::forward::edit::{self, Changes};
use crate::guard::request::{self, Accepted, Head, Limits};
use crate::plan::ward::Ward;
use crate::plan::{Action, CacheId, Files, Plan, Route, RouteId, UpstreamId};
use crate::route::Mismatch;

pub mod told;

/// A request as a person states it.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: Method,
    /// `http://host/path?query`, or https.
    pub url: String,
    /// Its fields.
    pub fields: HeaderMap,
    /// Its content.
    pub content: Vec<u8>,
    /// An answer to judge: status and fields; `None`: some typical ones.
    pub answer: Option<(StatusCode, HeaderMap)>,
}

impl Question {
    /// A question from what a person writes. `answer` are the fields of an answer to judge, `status` is its status, 200 when only fields are given.
    ///
    /// # Errors
    /// The first part that does not read.
    pub fn read(
        method: &str,
        url: String,
        headers: &[String],
        content: String,
        status: Option<u16>,
        answer: &[String],
    ) -> Result<Self, Unclear> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Unclear::Method(method.to_owned()))?;
        let code = status.unwrap_or(200);
        let read = StatusCode::from_u16(code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let read = read.ok_or(Unclear::Status(code))?;
        let judged = (status.is_some() || !answer.is_empty()).then(|| fields(answer));
        Ok(Self {
            method,
            url,
            fields: fields(headers)?,
            content: content.into_bytes(),
            answer: judged.transpose()?.map(|fields| (read, fields)),
        })
    }
}

/// Why a question cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// Not a URL.
    #[error("{0:?} is not a URL; write it like http://example.com/path?query")]
    Url(String),
    /// Not a field line.
    #[error("{0:?} is not a header field; write it like \"Accept: text/html\"")]
    Field(String),
    /// Not an HTTP method.
    #[error("{0:?} is not a method; write one like GET")]
    Method(String),
    /// Not a status.
    #[error("{0} is not a status; write one from 200 to 599")]
    Status(u16),
}

/// Reads header fields written as `Name: value`.
///
/// # Errors
/// The first line that is none.
pub fn fields(lines: &[String]) -> Result<HeaderMap, Unclear> {
    let mut fields = HeaderMap::new();
    for line in lines {
        let field = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = field.ok_or_else(|| Unclear::Field(line.clone()))?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// A URL in its parts.
struct Url<'a> {
    https: bool,
    authority: &'a str,
    target: String,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split('#').next()?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if target.starts_with('/') { "" } else { "/" };
        (!authority.is_empty()).then(|| Self { https, authority, target: format!("{slash}{target}") })
    }
}

/// What is looked up for a request, and where.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The cache.
    pub cache: CacheId,
    /// The key.
    pub key: Key,
    /// The fields that choose among the answers under it, and that their reuse is judged by.
    pub fields: HeaderMap,
}

/// An explanation, and what a running gateway needs to add what it knows.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What is told.
    pub told: Explained,
    /// Who would be asked.
    pub upstream: Option<UpstreamId>,
    /// What would be looked up.
    pub lookup: Option<Lookup>,
}

/// Explains a request under a plan.
///
/// # Errors
/// When the question does not read.
pub fn explain(plan: &Plan, question: &Question, now: WallTime) -> Result<Explanation, Unclear> {
    let url = Url::parse(&question.url).ok_or_else(|| Unclear::Url(question.url.clone()))?;
    let mut asked = question.fields.clone();
    if !asked.contains_key(header::HOST) {
        let host = HeaderValue::from_str(url.authority).map_err(|_| Unclear::Url(question.url.clone()))?;
        asked.insert(header::HOST, host);
    }
    let told =
        Explained { method: question.method.to_string(), url: question.url.clone(), ..Explained::default() };
    let mut explanation = Explanation { told, upstream: None, lookup: None };
    match request::accept(&head(question, &url, &asked), &NO_LIMITS) {
        Ok(accepted) => {
            let request =
                Request { plan, question, https: url.https, fields: &asked, accepted: &accepted, now };
            request.tell(&mut explanation);
        }
        Err(refusal) => {
            let (why, status) = (refusal.as_str().to_owned(), refusal.status().to_string());
            explanation.told.refused = Some(told::Refused { why, status });
        }
    }
    Ok(explanation)
}

const NO_LIMITS: Limits = Limits { max_fields: usize::MAX, max_head: usize::MAX, max_body: 0 };

fn head<'a>(question: &'a Question, url: &'a Url<'_>, fields: &'a HeaderMap) -> Head<'a> {
    Head {
        method: &question.method,
        target: url.target.as_bytes(),
        http2: false,
        http10: false,
        authority: None,
        fields,
        field_count: fields.len(),
        size: 0,
    }
}

/// A request that was taken.
struct Request<'a> {
    plan: &'a Plan,
    question: &'a Question,
    https: bool,
    fields: &'a HeaderMap,
    accepted: &'a Accepted<'a>,
    now: WallTime,
}

impl Request<'_> {
    fn tell(&self, out: &mut Explanation) {
        let (host, path) = (&*self.accepted.host, &*self.accepted.path);
        let found = self.plan.table.find(host, path, &self.question.method);
        out.told.route = found.map(|id| self.route(id, None));
        out.told.other_routes = self.other_routes(found);
        let Some(route) = found.map(|id| &self.plan.routes[id]) else { return };
        match &route.ward {
            None => self.tell_action(out, route),
            Some(ward) => {
                self.tell_ward(out, ward);
                let fields = self.edited(route, ward);
                Request { fields: &fields, ..*self }.tell_action(out, route);
            }
        }
    }

    /// What it must pass first.
    fn tell_ward(&self, out: &mut Explanation, ward: &Ward) {
        let mut asked = Vec::new();
        if ward.access.is_some() {
            asked.push("its address".to_owned());
        }
        for id in &ward.limits {
            asked.push(format!("limit {}", self.plan.limits[*id].name));
        }
        if ward.cors.is_some() {
            asked.push("whose page asks".to_owned());
        }
        if let Some(id) = ward.realm {
            asked.push(format!("a password of {}", self.plan.realms[id].name));
        }
        out.told.judged_by = asked;
    }

    /// Its fields as they are once the route has changed them.
    fn edited(&self, route: &Route, ward: &Ward) -> HeaderMap {
        let facts = edit::Facts {
            client: std::net::Ipv4Addr::UNSPECIFIED.into(),
            host: &self.accepted.host,
            method: self.question.method.as_str(),
            path: &self.accepted.path,
            request_id: "request-id",
            route: route.name.as_str(),
            https: self.https,
            user: Some("user"),
        };
        let mut fields = self.fields.clone();
        if ward.realm.is_some_and(|id| !self.plan.realms[id].pass) {
            fields.remove(header::AUTHORIZATION);
        }
        Changes(ward.request.changes(&facts).collect()).before(&mut fields);
        fields
    }

    fn tell_action(&self, out: &mut Explanation, route: &Route) {
        match &route.action {
            Action::Respond { status, body } => {
                out.told.answer = Some(told::Own { status: status.to_string(), bytes: body.len() });
            }
            Action::Files(files) => out.told.files = Some(self.files(route, files)),
            Action::Forward { upstream, cache } => {
                let chosen = self.tell_split(out, route).unwrap_or(*upstream);
                out.upstream = Some(chosen);
                out.told.upstream = Some(self.upstream(route, chosen));
                let version = route.split.as_ref().filter(|split| split.apart && chosen != *upstream);
                let version = version.map(|_| self.plan.upstreams[chosen].name.as_str());
                match cache {
                    None => out.told.cache = Some(told::Cache { name: None, passed_by: None, key: None }),
                    Some(cache) => self.tell_cache(out, route, *cache, version),
                }
            }
        }
    }

    fn route(&self, id: RouteId, why_not: Option<&str>) -> told::Route {
        told::Route {
            name: self.plan.routes[id].name.to_string(),
            takes: self.plan.table.rules()[id].to_string(),
            why_not: why_not.map(str::to_owned),
        }
    }

    fn files(&self, route: &Route, files: &Files) -> told::Files {
        let path = route.rewrite.apply(&self.accepted.path);
        let root = files.root.display().to_string();
        if !matches!(self.question.method, Method::GET | Method::HEAD) {
            return told::Files { root, asked: path.into(), readable: false, ..told::Files::default() };
        }
        let folder = path.ends_with('/');
        let said =
            route.browser.as_ref().and_then(|rules| rules.value(&path, StatusCode::OK, &HeaderMap::new()));
        told::Files {
            root,
            readable: true,
            index: if folder { files.index.clone() } else { Vec::new() },
            or: (!folder && files.clean_urls).then(|| format!("{path}.html")),
            fallback: files.fallback.as_ref().map(|fallback| format!("/{fallback}")),
            cache_control: said.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            asked: path.into(),
        }
    }

    fn other_routes(&self, found: Option<RouteId>) -> Vec<told::Route> {
        let (host, path) = (&*self.accepted.host, &*self.accepted.path);
        let rules = self.plan.table.rules().iter().enumerate().filter(|(id, _)| Some(*id) != found);
        rules
            .map(|(id, rule)| {
                let why = match rule.mismatch(host, path, &self.question.method) {
                    Some(Mismatch::Host) => "another host",
                    Some(Mismatch::Path) => "another path",
                    Some(Mismatch::Method) => "another method",
                    None => "it matches, but less exactly",
                };
                self.route(id, Some(why))
            })
            .collect()
    }

    /// Who else answers requests of this route; says which upstream this one asks for. Shares are left to the clients and chances of a running
    /// gateway.
    fn tell_split(&self, out: &mut Explanation, route: &Route) -> Option<UpstreamId> {
        let split = route.split.as_ref()?;
        let facts = Facts {
            client: Ipv4Addr::UNSPECIFIED.into(),
            path: &self.accepted.path,
            query: self.accepted.query.as_deref(),
            fields: self.fields,
        };
        let mut asked = None;
        for part in &split.parts {
            let takes = asked.is_none() && part.when.is_asked(&facts);
            asked = if takes { Some(part.upstream) } else { asked };
            let when = match &part.when {
                When::Share(share) => format!("{share} in a hundred"),
                when => format!("with {when}"),
            };
            let upstream = self.plan.upstreams[part.upstream].name.to_string();
            out.told.split.push(told::Split { when, upstream, takes });
        }
        asked
    }

    fn upstream(&self, route: &Route, upstream: UpstreamId) -> told::Upstream {
        let upstream = &self.plan.upstreams[upstream];
        let path = route.rewrite.apply(&self.accepted.path);
        let query = self.accepted.query.as_deref().map_or(String::new(), |query| format!("?{query}"));
        told::Upstream {
            name: upstream.name.to_string(),
            servers: upstream.servers.iter().map(|server| server.addr.as_str().to_owned()).collect(),
            asked: format!("{} {path}{query}", self.question.method),
        }
    }

    fn tell_cache(&self, out: &mut Explanation, route: &Route, id: CacheId, version: Option<&str>) {
        let cache = &self.plan.caches[id];
        let rules = &*cache.rules;
        let by_content = route.content_key.as_ref().filter(|_| is_question(&self.question.method));
        let passes = match (by_content, policy::request_use(&self.question.method, self.fields, rules)) {
            (Some(_), _) if policy::passes_by(self.fields, &rules.bypass) => Some(Bypass::Operator),
            (Some(rule), _) if self.question.content.len() as u64 > rule.most => Some(Bypass::Body),
            (Some(rule), _) if !rule.only_asks(&self.question.content) => Some(Bypass::Body),
            (Some(_), _) | (None, RequestUse::LookUp) => None,
            (None, RequestUse::Bypass(why)) => Some(why),
        };
        let mut told = told::Cache { name: Some(cache.name.to_string()), passed_by: None, key: None };
        if let Some(why) = passes {
            told.passed_by = Some(passing_word(why).to_owned());
            out.told.cache = Some(told);
            return;
        }
        let mut key = self.key(rules);
        let mut by_token = rules.key.headers.contains(&header::AUTHORIZATION);
        if let Some(rule) = by_content {
            let mut headers = rule.headers.clone();
            headers.extend([header::CONTENT_TYPE, header::CONTENT_ENCODING]);
            let content = rule.canonical(&self.question.content);
            key = key.with_content(self.question.method.as_str(), &content, &headers, self.fields);
            by_token |= rule.headers.contains(&header::AUTHORIZATION);
        }
        if let Some(version) = version {
            key = key.of_version(version);
        }
        told.key = Some(format!("{key:?}"));
        out.told.cache = Some(told);
        let mut fields = self.fields.clone();
        if by_token {
            // What is stored is its user's own then.
            fields.remove(header::AUTHORIZATION);
        }
        out.told.answers = self.judged(route, &key, &fields, &route.lifetimes.over(&cache.rules));
        out.lookup = Some(Lookup { cache: id, key, fields });
    }

    fn key(&self, rules: &Rules) -> Key {
        let facts = KeyFacts {
            https: self.https,
            host: &self.accepted.host,
            port: self.accepted.port,
            path: &self.accepted.path,
            query: self.accepted.query.as_deref(),
            fields: self.fields,
        };
        Key::of(&facts, &rules.key)
    }

    fn judged(&self, route: &Route, key: &Key, request: &HeaderMap, rules: &Rules) -> Vec<Judged> {
        let answers = self.question.answer.clone().map_or_else(typical_answers, |answer| vec![answer]);
        let judge = |(status, fields): (StatusCode, HeaderMap)| {
            let exchange = Exchange {
                method: &Method::GET,
                request,
                status,
                response: &fields,
                delimited: true,
                sent: self.now,
                received: self.now,
            };
            let judged = match route.store_when.takes_status(status) {
                true => policy::store(&exchange, key, rules),
                false => Err(Refuse::Condition),
            };
            let answer = spelled(status, &fields);
            match judged {
                Ok(record) => Judged { answer, ..stored(&record) },
                Err(why) => Judged { answer, why_not: Some(why.as_str().to_owned()), ..Judged::default() },
            }
        };
        answers.into_iter().map(judge).collect()
    }
}

/// Answers whose fate an operator wants to know first.
fn typical_answers() -> Vec<(StatusCode, HeaderMap)> {
    let with = |status: StatusCode, lines: &[(HeaderName, &'static str)]| {
        let line =
            |(name, value): &(HeaderName, &'static str)| (name.clone(), HeaderValue::from_static(value));
        (status, lines.iter().map(line).collect::<HeaderMap>())
    };
    vec![
        with(StatusCode::OK, &[]),
        with(StatusCode::OK, &[(header::CACHE_CONTROL, "max-age=60")]),
        with(StatusCode::OK, &[(header::CACHE_CONTROL, "private")]),
        with(StatusCode::OK, &[(header::CACHE_CONTROL, "max-age=60"), (header::SET_COOKIE, "session=1")]),
        with(StatusCode::OK, &[(header::ETAG, "\"1\"")]),
        with(StatusCode::NOT_FOUND, &[]),
        with(StatusCode::INTERNAL_SERVER_ERROR, &[]),
    ]
}

fn spelled(status: StatusCode, fields: &HeaderMap) -> String {
    let mut text = status.as_u16().to_string();
    for (name, value) in fields {
        // Writing into text does not fail.
        let _ = write!(text, ", {name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn stored(record: &Record) -> Judged {
    let window = |time: Duration| (!time.is_zero()).then_some(time.as_secs());
    let validated = record.source == LifetimeSource::None || record.reuse.always_validate;
    Judged {
        stored: true,
        fresh_for: (!validated).then_some(record.lifetime.as_secs()),
        because_of: (!validated).then(|| source_word(record.source).to_owned()),
        stale_while_revalidate: window(record.stale_while_revalidate),
        stale_if_error: window(record.stale_if_error),
        ..Judged::default()
    }
}

/// Where a lifetime comes from, in words.
pub fn source_word(source: LifetimeSource) -> &'static str {
    match source {
        LifetimeSource::SMaxAge => "s-maxage",
        LifetimeSource::MaxAge => "max-age",
        LifetimeSource::Expires => "Expires",
        LifetimeSource::Targeted => "a targeted field",
        LifetimeSource::Heuristic => "a tenth of the time since Last-Modified",
        LifetimeSource::Operator => "the operator's ttl",
        LifetimeSource::Header => "the field of ttl_header",
        LifetimeSource::None => "nothing",
    }
}

fn passing_word(why: Bypass) -> &'static str {
    match why {
        Bypass::Method => "its method is not cached on this route",
        Bypass::Upgrade => "it asks for an upgrade",
        Bypass::Body => "it has content that makes no key here",
        Bypass::Precondition => "it has a precondition that only the origin can judge",
        Bypass::Operator => "it has a field or cookie of the cache's bypass",
    }
}
