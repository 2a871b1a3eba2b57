//! The operator's endpoints: `/metrics`, `/healthz`, `/readyz`, and who may change something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::metrics::Metrics;

/// What the operator's listener answers from.
pub struct Admin {
    /// The metrics to show.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway takes requests: false while draining.
    pub ready: Arc<AtomicBool>,
    /// What a request that changes something must show; `None`: none may.
    pub token: Option<String>,
}

/// An answer of the operator's listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Its Content-Type.
    pub content_type: &'static str,
    /// The content. A HEAD is answered with its length and without it: that is the listener's to do.
    pub body: String,
}

/// Prometheus' text format, as its exposition format names it.
const METRICS: &str = "text/plain; version=0.0.4";
const TEXT: &str = "text/plain; charset=utf-8";
/// The methods every path here knows.
const ALLOW: &str = "GET, HEAD";

const INDEX: &str = "\
vanne
/metrics  what happened, for Prometheus
/healthz  200 while the process lives
/readyz   200 while requests are taken, 503 while draining

GET /api/v1/upstreams shows every instance: its state, why and since when
POST /api/v1/upstreams drains an instance, readies it or changes its weight, when admin.token is set
GET /api/v1/cache/stats, POST /api/v1/cache/get and /api/v1/cache/ls show what is stored, when admin.token is set
POST /api/v1/purge makes stored answers invalid, when admin.token is set
";

impl Admin {
    /// Answers a request for `path`; a query is ignored.
    pub fn answer(&self, method: &str, path: &str) -> Answer {
        let known = match path.split('?').next().unwrap_or_default() {
            "/" => Self::index,
            "/metrics" => Self::metrics,
            "/healthz" => Self::alive,
            "/readyz" => Self::ready,
            _ => return Answer::text(404, "no such page; there are /metrics, /healthz and /readyz\n"),
        };
        match method {
            "GET" | "HEAD" => known(self),
            _ => Answer::text(405, "only GET and HEAD are answered here\n"),
        }
    }

    /// Whether a request with this Authorization may change something (RFC 6750 §2.1).
    ///
    /// # Errors
    /// The answer that refuses it.
    pub fn may_change(&self, authorization: Option<&[u8]>) -> Result<(), Answer> {
        let Some(token) = &self.token else {
            let why = "off: no admin.token is set in the configuration";
            return Err(Answer::json(403, serde_json::json!({ "error": why })));
        };
        let shown = authorization.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        // Hashes are compared, so that the time it takes tells nothing about the token.
        if shown.is_some_and(|shown| blake3::hash(shown) == blake3::hash(token.as_bytes())) {
            return Ok(());
        }
        let why = "not permitted: send Authorization: Bearer with the token of the configuration";
        Err(Answer::json(401, serde_json::json!({ "error": why })))
    }

    fn index(&self) -> Answer {
        Answer::text(200, INDEX)
    }

    fn metrics(&self) -> Answer {
        Answer { status: 200, content_type: METRICS, body: self.metrics.render() }
    }

    /// Says nothing about Redis or instances: restarting the gateway mends neither.
    fn alive(&self) -> Answer {
        Answer::text(200, "ok\n")
    }

    fn ready(&self) -> Answer {
        if self.ready.load(Ordering::Acquire) {
            Answer::text(200, "ready\n")
        } else {
            Answer::text(503, "draining\n")
        }
    }
}

impl Answer {
    /// The value of the Allow field, which a 405 must carry (RFC 9110 §15.5.6).
    pub fn allow(&self) -> Option<&'static str> {
        (self.status == 405).then_some(ALLOW)
    }

    /// A JSON answer.
    pub fn json(status: u16, value: serde_json::Value) -> Self {
        Self { status, content_type: "application/json", body: format!("{value}\n") }
    }

    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: TEXT, body: body.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::tests::{plan, value};

    fn admin(ready: bool) -> Admin {
        Admin { metrics: Metrics::new(&plan()), ready: Arc::new(AtomicBool::new(ready)), token: None }
    }

    #[test]
    fn each_path_and_method_has_its_answer() {
        for (ready, method, path, status) in [
            (true, "GET", "/", 200),
            (true, "GET", "/metrics", 200),
            (true, "HEAD", "/metrics", 200),
            (true, "GET", "/metrics?name=x", 200),
            (true, "GET", "/healthz", 200),
            (false, "GET", "/healthz", 200),
            (true, "GET", "/readyz", 200),
            (false, "GET", "/readyz", 503),
            (false, "GET", "/metrics", 200),
            (true, "GET", "/nothing", 404),
            (true, "POST", "/nothing", 404),
            (true, "GET", "/metrics/", 404),
            (true, "GET", "", 404),
            (true, "POST", "/metrics", 405),
            (true, "get", "/healthz", 405),
            (true, "DELETE", "/", 405),
        ] {
            let answer = admin(ready).answer(method, path);
            assert_eq!(answer.status, status, "{method} {path}, ready: {ready}");
            assert_eq!(answer.allow().is_some(), status == 405, "{method} {path}");
        }
    }

    #[test]
    fn metrics_come_in_the_format_they_are_announced_in() {
        let admin = admin(true);
        admin.metrics.request_entered();
        let answer = admin.answer("GET", "/metrics");
        assert_eq!(answer.content_type, "text/plain; version=0.0.4");
        assert_eq!(value(&answer.body, "vanne_requests_in_flight"), Some(1.0));
    }

    #[test]
    fn readiness_follows_the_flag() {
        let admin = admin(true);
        admin.ready.store(false, Ordering::Release);
        assert_eq!(admin.answer("GET", "/readyz").status, 503);
        admin.ready.store(true, Ordering::Release);
        assert_eq!(admin.answer("GET", "/readyz").status, 200);
    }

    #[test]
    fn only_who_knows_the_token_may_change_something() {
        let with = |token: Option<&str>| Admin { token: token.map(str::to_owned), ..admin(true) };
        for (token, shown, status) in [
            (None, None, Some(403)),
            (None, Some("Bearer "), Some(403)),
            (Some("secret"), None, Some(401)),
            (Some("secret"), Some("Bearer wrong"), Some(401)),
            (Some("secret"), Some("Bearer secre"), Some(401)),
            (Some("secret"), Some("Bearer secrets"), Some(401)),
            (Some("secret"), Some("Basic secret"), Some(401)),
            (Some("secret"), Some("secret"), Some(401)),
            (Some("secret"), Some("Bearer secret"), None),
            (Some("secret"), Some("bearer secret"), None),
        ] {
            let refused = with(token).may_change(shown.map(str::as_bytes)).err().map(|answer| answer.status);
            assert_eq!(refused, status, "{token:?} {shown:?}");
        }
    }

    #[test]
    fn the_index_names_every_page() {
        let admin = admin(true);
        let index = admin.answer("GET", "/").body;
        for line in index.lines().skip(1).take_while(|line| !line.is_empty()) {
            let path = line.split_whitespace().next().unwrap_or_default();
            assert_eq!(admin.answer("GET", path).status, 200, "{path}");
        }
    }
}
