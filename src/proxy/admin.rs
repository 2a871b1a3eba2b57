//! The operator's listener: carries [`Admin`]'s answers over HTTP, shows the instances, and takes purges and orders.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, Method, Response, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use super::live::Live;
use super::purge::Order;
use super::stored::{List, Look, Stats};
use super::upstreams::{Overview, Told};
use crate::observe::admin::{Admin, Answer};

/// Where purges are asked for.
pub const PURGE: &str = "/api/v1/purge";
/// Where instances are shown, and told what to do.
pub const UPSTREAMS: &str = "/api/v1/upstreams";
/// Where figures of what is stored are shown.
pub const STATS: &str = "/api/v1/cache/stats";
/// Where one stored answer is looked at.
pub const GET: &str = "/api/v1/cache/get";
/// Where stored answers are listed.
pub const LS: &str = "/api/v1/cache/ls";
/// The largest order of a purge, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Serves [`Admin`] over HTTP.
pub struct AdminApp {
    /// What it answers from.
    pub admin: Admin,
    /// What it acts on.
    pub live: Arc<Live>,
}

impl AdminApp {
    /// What is answered from these parts.
    pub fn new(live: Arc<Live>) -> Self {
        let token = live.plan.admin.token.clone();
        let admin = Admin { metrics: live.metrics.clone(), ready: live.ready.clone(), token };
        Self { admin, live }
    }

    async fn answer(&self, session: &mut ServerSession) -> Answer {
        let head = session.req_header();
        match (head.method.as_str(), head.uri.path()) {
            (_, PURGE) => self.purge(session).await,
            ("GET" | "HEAD", UPSTREAMS) => {
                Answer::json(200, serde_json::to_value(Overview::of(&self.live)).unwrap_or_default())
            }
            (_, UPSTREAMS) => self.order(session).await,
            ("GET" | "HEAD", STATS) => match self.may(session) {
                Ok(()) => shown(Stats::of(&self.live).await),
                Err(refused) => refused,
            },
            ("POST", GET) => match self.asked::<Look>(session).await {
                Ok(look) => look.look(&self.live).await.map_or_else(no_url, shown),
                Err(answer) => answer,
            },
            ("POST", LS) => match self.asked::<List>(session).await {
                Ok(list) => shown(list.list(&self.live)),
                Err(answer) => answer,
            },
            (_, GET | LS) => Answer::json(405, error("what is looked for is POSTed")),
            (method, path) => {
                if path == "/metrics" {
                    self.live.upstreams.iter().for_each(|upstream| upstream.group.show_states());
                }
                self.admin.answer(method, path)
            }
        }
    }

    /// What is stored may be as secret as who may change it.
    fn may(&self, session: &ServerSession) -> Result<(), Answer> {
        let shown = session.req_header().headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        self.admin.may_change(shown)
    }

    /// What is asked, by someone who may.
    async fn asked<T: serde::de::DeserializeOwned>(&self, session: &mut ServerSession) -> Result<T, Answer> {
        self.may(session)?;
        let body = whole_body(session).await?;
        serde_json::from_slice(&body)
            .map_err(|wrong| Answer::json(400, error(&format!("what is asked does not read: {wrong}"))))
    }

    /// What an operator says about an instance.
    async fn order(&self, session: &mut ServerSession) -> Answer {
        let head = session.req_header();
        if head.method != Method::POST {
            return Answer::json(405, error("instances are shown to a GET, and told what to do by a POST"));
        }
        let shown = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if let Err(refused) = self.admin.may_change(shown) {
            return refused;
        }
        let body = match whole_body(session).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let order: Told = match serde_json::from_slice(&body) {
            Ok(order) => order,
            Err(wrong) => return Answer::json(400, error(&format!("the order does not read: {wrong}"))),
        };
        match order.carry_out(&self.live) {
            Ok(instance) => Answer::json(200, serde_json::to_value(instance).unwrap_or_default()),
            Err(wrong) => Answer::json(404, error(&wrong.to_string())),
        }
    }

    async fn purge(&self, session: &mut ServerSession) -> Answer {
        let head = session.req_header();
        if head.method != Method::POST {
            return Answer::json(405, error("purges are POSTed"));
        }
        let shown = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if let Err(refused) = self.admin.may_change(shown) {
            return refused;
        }
        let body = match whole_body(session).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let order: Order = match serde_json::from_slice(&body) {
            Ok(order) => order,
            Err(wrong) => return Answer::json(400, error(&format!("the order does not read: {wrong}"))),
        };
        match order.carry_out(&self.live).await {
            Ok(done) => Answer::json(200, serde_json::to_value(done).unwrap_or_default()),
            Err(wrong) => Answer::json(400, error(&wrong.to_string())),
        }
    }
}

fn shown(value: impl serde::Serialize) -> Answer {
    Answer::json(200, serde_json::to_value(value).unwrap_or_default())
}

fn no_url() -> Answer {
    Answer::json(
        400,
        error("that is no URL, or no field of a request; write a URL like https://host/path?query"),
    )
}

async fn whole_body(session: &mut ServerSession) -> Result<Vec<u8>, Answer> {
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(piece)) if body.len() + piece.len() <= LARGEST => body.extend_from_slice(&piece),
            Ok(Some(_)) => return Err(Answer::json(413, error("an order is at most 1 MiB"))),
            Ok(None) => return Ok(body),
            Err(_) => return Err(Answer::json(400, error("the order was cut"))),
        }
    }
}

pub(super) fn error(text: &str) -> serde_json::Value {
    serde_json::json!({ "error": text })
}

#[async_trait]
impl ServeHttp for AdminApp {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        respond(self.answer(session).await)
    }
}

/// An answer as it is sent.
pub(super) fn respond(answer: Answer) -> Response<Vec<u8>> {
    let mut response = Response::new(answer.body.into_bytes());
    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or_default();
    let length = response.body().len();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    fields.insert(header::CONTENT_LENGTH, length.into());
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if answer.status == 401 {
        fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
