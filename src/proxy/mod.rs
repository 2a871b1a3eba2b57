//! The only folder that says `pingora`: connections come in here, and the walk of a request is here, phase by phase.
//!
//! ```text
//! connection   read the head under a total deadline, admit it, hand it over
//!              a plain hit in memory is answered there                -> fast_path, short
//! enter        limits of this connection, who the client is, an id
//! route        whose request is it?
//! ward         may it ask: from there, so often, by that name?        -> ward
//! cache        stored? judged? fetched by somebody already?          -> serve, fill, deliver
//! pick         which instance? (once per attempt)                    -> upstream_peer
//! forward      what changes on the way up                            -> upstream_request_filter
//! answer       what changes on the way down, what it invalidates     -> upstream_response_filter, response_filter
//! fail         retry, or say why                                     -> fail_to_connect, error_while_proxy, fail_to_proxy
//! log          count it, write its line                              -> logging
//! ```
//!
//! There are two ways to an upstream. What passes through goes by pingora_proxy, which carries request content, upgrades and streams in both
//! directions. What a cache fetches goes by [`fill`], a task of its own over pingora's connector: so stale answers, validation,
//! coalescing and a client that leaves do not have to be forced into one client's connection. pingora's own cache state machine is not used: it
//! merges only five fields of a 304, ignores the origin's Age and Date, cannot serve `s-maxage` answers stale, and falls back to uncoalesced
//! fetches when a store fails.
//!
//! Not here: rules, arithmetic, parsing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

pub mod admin;
mod again;
mod beside;
mod compress;
pub mod connection;
pub mod content;
mod dated;
pub mod deliver;
mod divide;
pub mod exchange;
pub mod explain;
mod files;
pub mod fill;
mod fleet;
mod http2;
pub mod journey;
mod keep;
pub mod live;
pub mod onward;
pub mod orders;
mod patience;
pub mod peer;
mod place;
pub mod probe;
pub mod purge;
mod purger;
mod question;
pub mod reply;
mod serve;
mod short;
pub mod sticky;
pub mod stored;
pub mod tls;
pub mod upstreams;
mod ward;

use self::content::Fault;
use self::exchange::Destination;
use self::journey::{Admitted, Journey};
use self::live::Live;
use self::onward::{Onward, version_word};
use self::reply::{Failure, PAGE_TYPE};
use self::tls::Identity;
use crate::balance::retry::{Ended, FailedAt};
use crate::base::dice::Dice;
use crate::cache::content::is_question;
use crate::cache::key::{Key, KeyFacts};
use crate::cache::purge::{self as purge_rules, Force, Label};
use crate::cache::{KeyRules, invalidate};
use crate::forward::{self, coding};
use crate::observe::access::Line;
use crate::plan::{Action, RouteId, UpstreamId};

/// The gateway as pingora calls it.
pub struct Gateway {
    live: Arc<Live>,
}

/// Why an exchange ends whose answer somebody else may do better.
const GIVEN_UP: &str = "an answer is given up for its status";

/// What a step made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The client has its answer.
    Answered,
    /// It goes on to an upstream.
    Pass,
}

impl Gateway {
    /// A gateway over running parts.
    pub fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// Who sent it, by what connection, under which id.
    fn enter(&self, session: &mut Session, journey: &mut Journey) {
        if journey.admitted.is_none() {
            // What HTTP/2 found out comes with the request, not with its connection.
            journey.admitted = session.req_header().extensions.get::<Arc<Admitted>>().map(|a| (**a).clone());
        }
        if let Some(admitted) = &journey.admitted {
            let limits = &self.live.plan.listeners[admitted.listener].limits;
            session.set_read_timeout(Some(limits.read_timeout));
            session.set_write_timeout(Some(limits.write_timeout));
            if admitted.last {
                session.set_keepalive(None);
            }
        }
        let address =
            |a: Option<&pingora::protocols::l4::socket::SocketAddr>| a.and_then(|a| a.as_inet().copied());
        if let Some(peer) = address(session.client_addr()) {
            journey.peer = peer.ip();
        }
        if let Some(local) = address(session.server_addr()) {
            journey.port = local.port();
        }
        let tls = journey.admitted.as_ref().is_some_and(|admitted| admitted.tls);
        let fields = &session.req_header().headers;
        journey.client = self.live.plan.server.trusted_proxies.client(journey.peer, tls, fields);
        journey.request_id = forward::trusted_request_id(fields, journey.client.behind_trusted)
            .map_or_else(new_request_id, str::to_owned);
        self.identify(session, journey);
    }

    /// Before a key or `Vary` reads them, the fields that say who the client is say what its certificate says, or nothing.
    fn identify(&self, session: &mut Session, journey: &Journey) {
        if !journey.client.behind_trusted {
            for name in &Identity::NAMES {
                session.req_header_mut().remove_header(name);
            }
        }
        let Some(identity) = journey.admitted.as_ref().and_then(|admitted| admitted.identity.clone()) else {
            return;
        };
        for (name, value) in identity.fields() {
            let _ = session.req_header_mut().insert_header(name, value);
        }
    }

    /// What browsers are told to remember of HTTPS; never said over anything else (RFC 6797 §7.2).
    fn hsts(&self, journey: &Journey) -> Option<&HeaderValue> {
        let admitted = journey.admitted.as_ref().filter(|admitted| admitted.tls)?;
        self.live.plan.listeners[admitted.listener].tls.as_ref()?.hsts.as_ref()
    }

    /// Finds the route and sets what depends on it.
    fn route(&self, session: &Session, journey: &mut Journey) -> std::result::Result<RouteId, Failure> {
        let admitted = journey.admitted.as_ref().ok_or(Failure::Internal)?;
        let plan = &self.live.plan;
        let head = session.req_header();
        let found = || plan.table.find(&admitted.host, &admitted.path, &head.method);
        let id = self.preflight_route(session, admitted).or_else(found).ok_or(Failure::NoRoute)?;
        let listener = plan.listeners[admitted.listener].limits.max_body_size;
        journey.route = Some(id);
        journey.upstream = self.divide(session, journey, &plan.routes[id]);
        journey.max_body = plan.routes[id].max_body_size.unwrap_or(listener).0;
        match fill::content_length(&head.headers) {
            Some(length) if journey.max_body > 0 && length > journey.max_body => Err(Failure::BodyTooLarge),
            _ => Ok(id),
        }
    }

    async fn act(&self, session: &mut Session, journey: &mut Journey, route: RouteId) -> Result<Outcome> {
        match &self.live.route(route).action {
            Action::Respond { status, body } => {
                self.respond(session, journey, *status, body).await?;
                Ok(Outcome::Answered)
            }
            Action::Files(_) => {
                self.serve_files(session, journey, route).await?;
                Ok(Outcome::Answered)
            }
            // No key holds the content of a GET, but an instance may answer by it (RFC 9110 §9.3.1).
            Action::Forward { cache: Some(_), .. } if has_content(session) => Ok(Outcome::Pass),
            Action::Forward { upstream: _, cache: Some(cache) } => {
                let to = Destination { route, upstream: self.upstream_of(journey)? };
                match &self.live.route(route).content_key {
                    Some(rule) if is_question(&session.req_header().method) => {
                        self.serve_question(session, journey, *cache, to, rule).await
                    }
                    _ => self.serve_cached(session, journey, *cache, to).await,
                }
            }
            Action::Forward { cache: None, .. } => Ok(Outcome::Pass),
        }
    }

    fn onward(&self, session: &Session, journey: &Journey, method: Method) -> Onward {
        let head = session.req_header();
        let mut fields = head.headers.clone();
        if journey.route.is_some_and(|id| self.live.route(id).compress.is_some()) {
            coding::plain_conditions(&mut fields);
        }
        Onward {
            websocket: forward::is_websocket(&head.headers, &head.method, head.version == Version::HTTP_11),
            method,
            fields,
            admitted: journey.admitted.clone().unwrap_or_else(Admitted::nothing),
            client: journey.client.clone(),
            peer: journey.peer,
            port: journey.port,
            version: version_word(head.version),
            request_id: journey.request_id.clone(),
            own: journey.pass.request.clone(),
            content: None,
        }
    }

    /// How long browsers may keep an answer, where that is not what it says itself.
    fn for_browsers(
        &self,
        journey: &Journey,
        status: http::StatusCode,
        answer: &http::HeaderMap,
    ) -> Option<http::HeaderValue> {
        let rules = self.live.route(journey.route?).browser.as_ref()?;
        rules.value(&journey.admitted.as_ref()?.path, status, answer).cloned()
    }

    fn upstream_of(&self, journey: &Journey) -> Result<UpstreamId> {
        let none = || Error::explain(ErrorType::InternalError, "a request without an upstream was sent on");
        journey.upstream.ok_or_else(none)
    }

    /// Answers with a text of the operator's.
    async fn respond(
        &self,
        session: &mut Session,
        journey: &Journey,
        status: http::StatusCode,
        body: &str,
    ) -> Result<()> {
        let mut head = ResponseHeader::build_no_case(status, Some(6))?;
        let bodyless = matches!(status.as_u16(), 204 | 304);
        if !bodyless {
            head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
            head.insert_header(header::CONTENT_LENGTH, body.len())?;
        }
        self.sign(journey, &mut head)?;
        let bodyless = bodyless || session.req_header().method == Method::HEAD || body.is_empty();
        session.write_response_header(Box::new(head), bodyless).await?;
        if !bodyless {
            session.write_response_body(Some(Bytes::copy_from_slice(body.as_bytes())), true).await?;
        }
        Ok(())
    }

    /// What stands in every answer that is ours alone.
    fn sign(&self, journey: &Journey, head: &mut ResponseHeader) -> Result<()> {
        ward::dress(head, &journey.pass.answer)?;
        head.insert_header(header::VIA, format!("1.1 {}", self.live.plan.server.name))?;
        head.insert_header("x-request-id", journey.request_id.as_str())?;
        if let Some(hsts) = self.hsts(journey) {
            head.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        Ok(())
    }

    /// Where a request is sent that did not come over TLS, on a listener that takes no other; what proves the ownership of a name to an issuer of
    /// certificates is excepted, since that is asked for before there is a certificate (RFC 8555 §8.3).
    fn elsewhere(&self, journey: &Journey) -> Option<String> {
        let admitted = journey.admitted.as_ref()?;
        let port = self.live.plan.listeners[admitted.listener].https_port?;
        let proof = admitted.path.starts_with("/.well-known/acme-challenge/");
        if journey.client.https || proof || admitted.host.is_empty() {
            return None;
        }
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        Some(format!("https://{}{port}{}", admitted.host, admitted.target()))
    }

    /// Sends a client elsewhere; 308 keeps its method and content (RFC 9110 §15.4.9).
    async fn redirect(&self, session: &mut Session, journey: &Journey, to: &str) -> Result<()> {
        let mut head = ResponseHeader::build_no_case(http::StatusCode::PERMANENT_REDIRECT, Some(4))?;
        head.insert_header(header::LOCATION, to)?;
        head.insert_header(header::CONTENT_LENGTH, 0)?;
        self.sign(journey, &mut head)?;
        session.write_response_header(Box::new(head), true).await
    }

    /// Answers with a failure's page.
    async fn fail(&self, session: &mut Session, journey: &mut Journey, failure: Failure) -> Result<()> {
        journey.failure = Some(failure);
        let page = failure.page(&journey.request_id);
        let mut head = ResponseHeader::build_no_case(failure.status(), Some(8))?;
        head.insert_header(header::CONTENT_TYPE, PAGE_TYPE)?;
        head.insert_header(header::CONTENT_LENGTH, page.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header("x-request-id", journey.request_id.as_str())?;
        if let Some(seconds) = failure.retry_after() {
            head.insert_header(header::RETRY_AFTER, seconds)?;
        }
        if let Some(methods) = failure.allow() {
            head.insert_header(header::ALLOW, methods)?;
        }
        ward::dress(&mut head, &journey.pass.answer)?;
        if let Some(status) = &journey.cache_status {
            head.insert_header("cache-status", status.as_str())?;
        }
        if let Some(error) = failure.proxy_error() {
            let (name, details) = (&self.live.plan.server.name, failure.as_str());
            head.insert_header("proxy-status", format!("{name}; error={error}; details=\"{details}\""))?;
        }
        if let Some(hsts) = self.hsts(journey) {
            head.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        let bodyless = session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(head), bodyless).await?;
        if !bodyless {
            session.write_response_body(Some(page), true).await?;
        }
        Ok(())
    }

    /// A change made through us makes what is stored for its target invalid, before its answer leaves (RFC 9111 §4.4).
    fn invalidate(&self, session: &Session, journey: &Journey, answer: &ResponseHeader) {
        let method = &session.req_header().method;
        let Some(admitted) = journey.admitted.as_ref() else { return };
        if self.live.caches.is_empty() || !invalidate::invalidates(method, answer.status) {
            return;
        }
        let https = journey.client.https;
        self.invalidate_target(session, journey, admitted, &admitted.path, admitted.query.as_deref());
        for target in invalidate::also(&answer.headers, https, &admitted.host, admitted.port, &admitted.path)
        {
            self.invalidate_target(session, journey, admitted, &target.path, target.query.as_deref());
        }
    }

    /// What a change makes invalid beside its target: the groups it names (RFC 9875 §3).
    fn changed_groups(&self, session: &Session, journey: &Journey, answer: &ResponseHeader) -> Vec<Label> {
        let Some(admitted) = journey.admitted.as_ref() else { return Vec::new() };
        if !answer.headers.contains_key(purge_rules::GROUP_INVALIDATION)
            || !invalidate::invalidates(&session.req_header().method, answer.status)
        {
            return Vec::new();
        }
        let facts = KeyFacts {
            https: journey.client.https,
            host: &admitted.host,
            port: admitted.port,
            path: &admitted.path,
            query: None,
            fields: &session.req_header().headers,
        };
        let key = Key::of(&facts, &KeyRules::default());
        purge_rules::invalidated_groups(key.text(), &answer.headers)
    }

    /// They are invalid before the answer of the change leaves.
    async fn invalidate_groups(&self, labels: Vec<Label>) {
        if labels.is_empty() {
            return;
        }
        let live = self.live.clone();
        let telling = tokio::spawn(async move {
            let reach = live.purge(&labels, Force::Hard).await;
            live.count_purge("group", labels.len(), Force::Hard, reach);
        });
        // This process knows at once; the client does not wait for a Redis that hangs, while the fleet is told as soon as it can be.
        let budget = self.live.plan.redis.as_ref().map_or(Duration::from_secs(1), |redis| redis.timeout);
        let _ = tokio::time::timeout(budget, telling).await;
    }

    fn invalidate_target(
        &self,
        session: &Session,
        journey: &Journey,
        admitted: &Admitted,
        path: &str,
        query: Option<&str>,
    ) {
        // The cache is that of the route which a GET of the target takes.
        let Some(id) = self.live.plan.table.find(&admitted.host, path, &Method::GET) else { return };
        let route = self.live.route(id);
        let Action::Forward { cache: Some(cache), .. } = &route.action else { return };
        let cache = self.live.cache(*cache);
        let facts = KeyFacts {
            https: journey.client.https,
            host: &admitted.host,
            port: admitted.port,
            path,
            query,
            fields: &session.req_header().headers,
        };
        for key in self.keys_of_versions(route, &Key::of(&facts, &cache.rules.key)) {
            cache.store.invalidate(&key);
        }
    }

    fn write_line(&self, session: &Session, journey: &Journey, status: u16, took: Duration) {
        if !self.live.log.is_on() {
            return;
        }
        let head = session.req_header();
        let target = journey.admitted.as_ref().map(Admitted::target).unwrap_or_default();
        let field = |name: header::HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok());
        let upstream = self.upstream_of(journey).ok().map(|id| self.live.plan.upstreams[id].name.clone());
        self.live.log.write(&Line {
            at: journey.at,
            request_id: &journey.request_id,
            client: journey.client.addr,
            method: head.method.as_str(),
            host: journey.admitted.as_ref().map_or("", |a| a.host.as_str()),
            target: &target,
            protocol: protocol(head.version),
            status,
            bytes_in: journey.body_seen,
            bytes_out: session.body_bytes_sent() as u64,
            took,
            route: journey.route.map(|id| self.live.route(id).name.as_str()),
            upstream: upstream.as_ref().filter(|_| journey.instance.is_some()).map(|name| name.as_str()),
            instance: journey.instance.as_deref(),
            tries: u32::try_from(journey.tried.len()).unwrap_or(u32::MAX).saturating_add(journey.fetch_tries),
            cache: journey.cache_status.as_deref(),
            error: journey.failure.map(Failure::as_str),
            user_agent: field(header::USER_AGENT),
            referer: field(header::REFERER),
        });
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Journey;

    fn new_ctx(&self) -> Journey {
        Journey::begin(self.live.clock.mono(), self.live.clock.wall(), &self.live.metrics)
    }

    /// No modules: compression and the rest are chosen by us, per route.
    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    /// Takes over what the connection's reader found out about this request.
    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        journey: &mut Journey,
        context: Box<dyn std::any::Any + Send + Sync>,
    ) {
        journey.admitted = context.downcast::<Admitted>().ok().map(|admitted| *admitted);
    }

    async fn early_request_filter(&self, session: &mut Session, journey: &mut Journey) -> Result<()> {
        self.enter(session, journey);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, journey: &mut Journey) -> Result<bool> {
        if let Some(to) = self.elsewhere(journey) {
            self.redirect(session, journey, &to).await?;
            return Ok(true);
        }
        if self.purged(session, journey).await? {
            return Ok(true);
        }
        let route = match self.route(session, journey) {
            Ok(route) => route,
            Err(failure) => {
                self.fail(session, journey, failure).await?;
                return Ok(true);
            }
        };
        if self.ward(session, journey, route).await? == Outcome::Answered
            || self.act(session, journey, route).await? == Outcome::Answered
        {
            return Ok(true);
        }
        Ok(self.judge_miss(session, journey).await? == Outcome::Answered)
    }

    async fn upstream_peer(&self, session: &mut Session, journey: &mut Journey) -> Result<Box<HttpPeer>> {
        let upstream = self.live.upstream(self.upstream_of(journey)?);
        let picked = self.place(session, journey, upstream).await?;
        let group = &upstream.group;
        journey.attempt = self.live.clock.mono();
        let first = *journey.first_attempt.get_or_insert(journey.attempt);
        let trying = again::trying(self.live.route(journey.route.unwrap_or_default()), group.plan());
        let left = again::time_left(&trying, Some(first), journey.attempt);
        let peer = peer::within(upstream, &picked, again::patience(&trying, left), left);
        if journey.tried.is_empty() {
            upstream.retries.request();
        }
        journey.tried.push(picked.index);
        journey.instance = Some(picked.endpoint.name().to_owned());
        journey.picked = Some(picked);
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        #[cfg(unix)] _fd: std::os::unix::io::RawFd,
        #[cfg(windows)] _sock: std::os::windows::io::RawSocket,
        digest: Option<&pingora::protocols::Digest>,
        journey: &mut Journey,
    ) -> Result<()> {
        let took = self.live.clock.mono().since(journey.attempt);
        let upstream = self.live.upstream(self.upstream_of(journey)?);
        upstream.metrics.connected(reused, took);
        journey.retire = peer::is_worn(digest, &upstream.group, self.live.clock.wall());
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        let group = &self.live.upstream(self.upstream_of(journey)?).group;
        let route = self.live.route(journey.route.unwrap_or_default());
        let mut onward = self.onward(session, journey, session.req_header().method.clone());
        // pingora makes the rest of a head of HTTP/2, whose streams cannot become a WebSocket.
        let version = upstream_request.version;
        onward.websocket &= version != Version::HTTP_2;
        let Some(picked) = &journey.picked else {
            return Error::e_explain(ErrorType::InternalError, "a request was sent on without an instance");
        };
        *upstream_request =
            onward.head(&route.rewrite, &group.plan().host, &picked.endpoint, &self.live.plan.server.name)?;
        upstream_request.set_version(version);
        if journey.retire && !onward.websocket && version != Version::HTTP_2 {
            upstream_request.insert_header(header::CONNECTION, "close")?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        journey: &mut Journey,
    ) -> Result<()> {
        journey.body_seen += body.as_ref().map_or(0, |b| b.len() as u64);
        journey.body_at = Some(self.live.clock.mono());
        if journey.max_body > 0 && journey.body_seen > journey.max_body {
            journey.failure = Some(Failure::BodyTooLarge);
            return Err(
                Error::explain(ErrorType::HTTPStatus(413), "the request's content is too large").into_down()
            );
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        exchange::check_framing(answer).map_err(Error::into_up)?;
        let head = session.req_header();
        if answer.status == http::StatusCode::SWITCHING_PROTOCOLS
            && !forward::is_websocket(&head.headers, &head.method, head.version == Version::HTTP_11)
        {
            let why = "a switch of protocols that nobody asked for";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
        }
        if answer.status.is_informational() && answer.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        let upstream = self.live.upstream(self.upstream_of(journey)?);
        if let Some(picked) = &mut journey.picked {
            let took = self.live.clock.mono().since(journey.attempt);
            upstream.metrics.answered(picked.index, answer.status.as_u16(), took);
            upstream.group.took(picked.index, took);
            exchange::take_capacity(&upstream.group, picked.index, answer);
            let retry_after = exchange::retry_after(&answer.headers, self.live.clock.wall());
            picked.answered(answer.status.as_u16(), retry_after);
        }
        let status = answer.status.as_u16();
        if status >= 400 && self.again(session, journey, Ended::Answered(status)) {
            journey.picked = None;
            journey.given_up = true;
            return Err(Error::explain(ErrorType::HTTPStatus(status), GIVEN_UP).into_up());
        }
        self.invalidate(session, journey, answer);
        let groups = self.changed_groups(session, journey, answer);
        self.invalidate_groups(groups).await;
        if session.is_upgrade_req() {
            return replace_fields(answer, |fields| forward::response(fields, true));
        }
        // What `forward::response` does where nothing is upgraded, without a copy of all fields.
        for name in forward::hop_by_hop(&answer.headers) {
            answer.remove_header(&name);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        journey: &mut Journey,
    ) -> Result<()> {
        if answer.status.is_informational() {
            return Ok(());
        }
        if session.req_header().version == Version::HTTP_10 {
            // HTTP/1.0 knows no chunks: the end of the content is the end of the connection.
            answer.remove_header(&header::TRANSFER_ENCODING);
        }
        self.compress(session, journey, answer)?;
        if let Some(kept) = self.for_browsers(journey, answer.status, &answer.headers) {
            answer.insert_header(header::CACHE_CONTROL, kept)?;
        }
        if answer.status != http::StatusCode::SWITCHING_PROTOCOLS {
            ward::dress(answer, &journey.pass.answer)?;
        }
        let via = forward::via(&answer.headers, "1.1", &self.live.plan.server.name);
        answer.insert_header(header::VIA, via)?;
        answer.insert_header("x-request-id", journey.request_id.as_str())?;
        if let Some(hsts) = self.hsts(journey) {
            answer.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        if let Some(status) = &journey.cache_status {
            answer.append_header("cache-status", status.as_str())?;
        }
        self.bind(journey, answer)?;
        dated::keep(session, answer);
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        journey: &mut Journey,
    ) -> Result<Option<Duration>> {
        Self::compress_piece(journey, body, end)?;
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        journey: &mut Journey,
        mut error: Box<Error>,
    ) -> Box<Error> {
        journey.failure = Some(exchange::connect_failure(&error));
        if let Some(picked) = &journey.picked {
            picked.endpoint.connect_failed(picked.addr);
        }
        error.set_retry(self.again(session, journey, Ended::Failed(FailedAt::Connect)));
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        journey: &mut Journey,
        reused: bool,
    ) -> Box<Error> {
        if std::mem::take(&mut journey.given_up) {
            error.set_retry(true);
            return error;
        }
        if !exchange::blames_upstream(&error) {
            // What a client causes is never held against an instance, and never tried again.
            journey.picked = None;
            error.set_retry(false);
            return error;
        }
        let (at, failure) = exchange::classify(&error, reused);
        journey.failure = Some(failure);
        let at = if session.response_written().is_some() { FailedAt::DuringAnswer } else { at };
        error.set_retry(self.again(session, journey, Ended::Failed(at)));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        journey: &mut Journey,
    ) -> FailToProxy {
        let failure = journey.failure.unwrap_or_else(|| failure_of(error));
        journey.failure = Some(failure);
        let begun = session.response_written().is_some_and(|head| !head.status.is_informational());
        // Nothing can be said once a head has left: the connection is closed, so that the client sees the truncation.
        if !begun && failure != Failure::ClientGone {
            session.set_keepalive(None);
            if self.fail(session, journey, failure).await.is_err() {
                journey.failure = Some(Failure::ClientGone);
            }
        }
        FailToProxy { error_code: failure.status().as_u16(), can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _session: &Session, _journey: &Journey, _error: &Error) -> bool {
        // The access log has a line for every failed request; a second one in another form would only repeat it.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _journey: &Journey,
        _error: &Error,
        _context: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, journey: &mut Journey) {
        journey.picked = None;
        let status = session.response_written().map_or(0, |head| head.status.as_u16());
        if error.is_some() && journey.failure.is_none() {
            journey.failure = error.map(failure_of);
        }
        if error.is_none() && journey.failure.is_some_and(Failure::is_upstream) && status < 500 {
            // An earlier attempt failed and a later one answered.
            journey.failure = None;
        }
        let took = self.live.clock.mono().since(journey.arrived);
        let head = session.req_header();
        self.live.metrics.request(
            journey.route,
            &head.method,
            if status == 0 { Failure::ClientGone.status().as_u16() } else { status },
            journey.cache,
            took,
            journey.body_seen,
            session.body_bytes_sent() as u64,
        );
        self.write_line(session, journey, status, took);
    }
}

impl Admitted {
    fn nothing() -> Self {
        Self {
            host: String::new(),
            port: None,
            path: "/".into(),
            query: None,
            last: true,
            listener: 0,
            tls: false,
            identity: None,
        }
    }
}

/// Whether a GET or HEAD comes with content.
fn has_content(session: &mut Session) -> bool {
    let head = session.req_header();
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return false;
    }
    let coded = head.headers.contains_key(header::TRANSFER_ENCODING);
    let framed = coded || fill::content_length(&head.headers).is_some_and(|length| length > 0);
    // HTTP/2 needs no field to announce content.
    framed || (head.version == Version::HTTP_2 && !session.as_downstream_mut().is_body_empty())
}

/// Changes the fields of an answer as a plain map. Lower-case names are the same to every reader (RFC 9110 §5.1).
fn replace_fields(answer: &mut ResponseHeader, change: impl FnOnce(&mut http::HeaderMap)) -> Result<()> {
    let mut fields = answer.headers.clone();
    change(&mut fields);
    let gone: Vec<header::HeaderName> =
        answer.headers.keys().filter(|n| !fields.contains_key(*n)).cloned().collect();
    for name in gone {
        answer.remove_header(&name);
    }
    Ok(())
}

/// What an error of pingora's means, where no step of ours said it better.
fn failure_of(error: &Error) -> Failure {
    match content::fault(error) {
        Some(Fault::Malformed) => return Failure::Refused(crate::guard::request::Refusal::Framing),
        Some(Fault::Slow) => return Failure::ClientTimeout,
        None => {}
    }
    match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(413), _) => Failure::BodyTooLarge,
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => Failure::ClientTimeout,
        (
            ErrorType::WriteError
            | ErrorType::ReadError
            | ErrorType::ConnectionClosed
            | ErrorType::WriteTimedout,
            s,
        ) if *s == ErrorSource::Downstream => Failure::ClientGone,
        (_, ErrorSource::Downstream) => Failure::Refused(crate::guard::request::Refusal::Framing),
        (_, ErrorSource::Upstream) => exchange::classify(error, false).1,
        _ => Failure::Internal,
    }
}

thread_local! {
    static DICE: std::cell::RefCell<Dice> = std::cell::RefCell::new(Dice::from_entropy());
}

/// 96 random bits, enough that no two requests of a fleet share one.
fn new_request_id() -> String {
    let bits = DICE.with_borrow_mut(|dice| (u128::from(dice.any_u64()) << 64) | u128::from(dice.any_u64()));
    // Nibble by nibble, since every request has one and formatting costs ten times as much.
    (0..24)
        .rev()
        .map(|nibble| char::from(b"0123456789abcdef"[(bits >> (nibble * 4)) as usize & 15]))
        .collect()
}

/// Any number.
fn any_number() -> u64 {
    DICE.with_borrow_mut(Dice::any_u64)
}

/// A number in `[0, 1)`.
fn chance() -> f64 {
    DICE.with_borrow_mut(Dice::unit)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
