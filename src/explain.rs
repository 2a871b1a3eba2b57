//! What would become of a request, told from a plan alone: its route and why not the others, its key, what would be stored and for how long,
//! and who would be asked. The same rules decide as when it runs.
//!
//! Not here: what is stored at this moment, and which instances are up; only a running gateway knows.

use std::fmt::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::balance::hash::Facts;
use crate::balance::split::When;
use crate::base::clock::WallTime;
use crate::cache::Rules;
use crate::cache::content::is_question;
use crate::cache::key::{Key, KeyFacts};
use crate::cache::policy::{self, Bypass, Exchange, LifetimeSource, Refuse, RequestUse};
use crate::cache::record::Record;
use crate::guard::request::{self, Accepted, Head, Limits};
use crate::plan::{Action, Cache, Plan, Route};
use crate::route::Mismatch;

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

/// Explains a request under a plan, as lines of text.
///
/// # Errors
/// When the question does not read.
pub fn explain(plan: &Plan, question: &Question, now: WallTime) -> Result<String, Unclear> {
    let url = Url::parse(&question.url).ok_or_else(|| Unclear::Url(question.url.clone()))?;
    let mut asked = question.fields.clone();
    if !asked.contains_key(header::HOST) {
        let host = HeaderValue::from_str(url.authority).map_err(|_| Unclear::Url(question.url.clone()))?;
        asked.insert(header::HOST, host);
    }
    let mut out = format!("{} {}\n\n", question.method, question.url);
    let accepted = match request::accept(&head(question, &url, &asked), &NO_LIMITS) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            line(&mut out, "refused", format_args!("{}, with {}", refusal.as_str(), refusal.status()));
            return Ok(out);
        }
    };
    let request = Request { plan, question, https: url.https, fields: &asked, accepted: &accepted, now };
    request.tell(&mut out);
    Ok(out)
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

/// A line: what it is about, and what is said.
fn line(out: &mut String, about: &str, said: fmt::Arguments<'_>) {
    // Writing into text does not fail.
    let _ = writeln!(out, "{about:<9} {said}");
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
    fn tell(&self, out: &mut String) {
        let (host, path) = (&*self.accepted.host, &*self.accepted.path);
        let found = self.plan.table.find(host, path, &self.question.method);
        match found {
            Some(id) => {
                let rule = &self.plan.table.rules()[id];
                line(out, "route", format_args!("{} ({rule})", self.plan.routes[id].name));
            }
            None => line(out, "route", format_args!("none, so the answer is 404")),
        }
        self.tell_other_routes(out, found);
        let Some(route) = found.map(|id| &self.plan.routes[id]) else { return };
        match &route.action {
            Action::Respond { status, body } => {
                line(out, "answer", format_args!("{status} from the gateway itself, {} bytes", body.len()));
            }
            Action::Forward { upstream, cache } => {
                let chosen = self.tell_split(out, route).unwrap_or(*upstream);
                self.tell_upstream(out, route, chosen);
                let version = route.split.as_ref().filter(|split| split.apart && chosen != *upstream);
                let version = version.map(|_| self.plan.upstreams[chosen].name.as_str());
                match cache {
                    None => line(out, "cache", format_args!("none on this route")),
                    Some(cache) => self.tell_cache(out, route, &self.plan.caches[*cache], version),
                }
            }
        }
    }

    fn tell_other_routes(&self, out: &mut String, found: Option<usize>) {
        let rules = self.plan.table.rules().iter().enumerate().filter(|(id, _)| Some(*id) != found);
        for (id, rule) in rules {
            let why = match rule.mismatch(&self.accepted.host, &self.accepted.path, &self.question.method) {
                Some(Mismatch::Host) => "another host",
                Some(Mismatch::Path) => "another path",
                Some(Mismatch::Method) => "another method",
                None => "it matches, but less exactly",
            };
            line(out, "  not", format_args!("{} ({rule}): {why}", self.plan.routes[id].name));
        }
    }

    /// Who else answers requests of this route; says which upstream this one asks for. Shares are left to the clients and chances of a running
    /// gateway.
    fn tell_split(&self, out: &mut String, route: &Route) -> Option<usize> {
        let split = route.split.as_ref()?;
        let facts = Facts {
            client: Ipv4Addr::UNSPECIFIED.into(),
            path: &self.accepted.path,
            query: self.accepted.query.as_deref(),
            fields: self.fields,
        };
        let mut asked = None;
        for part in &split.parts {
            let name = &self.plan.upstreams[part.upstream].name;
            let taken = asked.is_none() && part.when.is_asked(&facts);
            asked = if taken { Some(part.upstream) } else { asked };
            let this_one = if taken { ": this one" } else { "" };
            match &part.when {
                When::Share(share) => line(out, "split", format_args!("{share} in a hundred to {name}")),
                when => line(out, "split", format_args!("with {when} to {name}{this_one}")),
            }
        }
        asked
    }

    fn tell_upstream(&self, out: &mut String, route: &Route, upstream: usize) {
        let upstream = &self.plan.upstreams[upstream];
        let servers: Vec<&str> = upstream.servers.iter().map(|server| server.addr.as_str()).collect();
        line(out, "upstream", format_args!("{} ({})", upstream.name, servers.join(", ")));
        let path = route.rewrite.apply(&self.accepted.path);
        let query = self.accepted.query.as_deref().map_or(String::new(), |query| format!("?{query}"));
        line(out, "  as", format_args!("{} {path}{query}", self.question.method));
    }

    fn tell_cache(&self, out: &mut String, route: &Route, cache: &Cache, version: Option<&str>) {
        let rules = &*cache.rules;
        let by_content = route.content_key.as_ref().filter(|_| is_question(&self.question.method));
        let passes = match (by_content, policy::request_use(&self.question.method, self.fields, rules)) {
            (Some(_), _) if policy::passes_by(self.fields, &rules.bypass) => Some(Bypass::Operator),
            (Some(rule), _) if self.question.content.len() as u64 > rule.most => Some(Bypass::Body),
            (Some(_), _) | (None, RequestUse::LookUp) => None,
            (None, RequestUse::Bypass(why)) => Some(why),
        };
        if let Some(why) = passes {
            return line(out, "cache", format_args!("{}, passed by: {}", cache.name, passing_word(why)));
        }
        let mut key = self.key(rules);
        if let Some(rule) = by_content {
            let mut headers = rule.headers.clone();
            headers.extend([header::CONTENT_TYPE, header::CONTENT_ENCODING]);
            let content = rule.canonical(&self.question.content);
            key = key.with_content(self.question.method.as_str(), &content, &headers, self.fields);
        }
        if let Some(version) = version {
            key = key.of_version(version);
        }
        line(out, "cache", format_args!("{}: looked up, and fetched once for all who ask", cache.name));
        line(out, "key", format_args!("{key:?}"));
        self.tell_answers(out, route, &key, rules);
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

    fn tell_answers(&self, out: &mut String, route: &Route, key: &Key, rules: &Rules) {
        out.push('\n');
        let answers = self.question.answer.clone().map_or_else(typical_answers, |answer| vec![answer]);
        for (status, fields) in answers {
            let judged = match route.store_when.takes_status(status) {
                true => policy::store(&self.exchange(status, &fields), key, rules),
                false => Err(Refuse::Condition),
            };
            let said = match judged {
                Ok(record) => stored(&record),
                Err(why) => format!("not stored: {}", why.as_str()),
            };
            // Writing into text does not fail.
            let _ = writeln!(out, "an answer {}\n          {said}", spelled(status, &fields));
        }
    }

    fn exchange<'e>(&'e self, status: StatusCode, response: &'e HeaderMap) -> Exchange<'e> {
        Exchange {
            method: &Method::GET,
            request: self.fields,
            status,
            response,
            delimited: true,
            sent: self.now,
            received: self.now,
        }
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

fn stored(record: &Record) -> String {
    let mut said = match record.source {
        LifetimeSource::None => "stored, and validated before every use".to_owned(),
        _ if record.reuse.always_validate => "stored, and validated before every use".to_owned(),
        source => format!("stored, fresh for {} ({})", seconds(record.lifetime), source_word(source)),
    };
    for (window, what) in [
        (record.stale_while_revalidate, "served stale while fetched anew for"),
        (record.stale_if_error, "served stale when the instances fail for"),
    ] {
        if !window.is_zero() {
            // Writing into text does not fail.
            let _ = write!(said, "; {what} {} more", seconds(window));
        }
    }
    said
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn source_word(source: LifetimeSource) -> &'static str {
    match source {
        LifetimeSource::SMaxAge => "s-maxage",
        LifetimeSource::MaxAge => "max-age",
        LifetimeSource::Expires => "Expires",
        LifetimeSource::Targeted => "a targeted field",
        LifetimeSource::Heuristic => "a tenth of the time since Last-Modified",
        LifetimeSource::Operator => "the operator's ttl",
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
