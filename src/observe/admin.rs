//! The operator's endpoints: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::metrics::Metrics;

/// What the operator's listener answers from.
pub struct Admin {
    /// The metrics to show.
    pub metrics: Arc<Metrics>,
    /// Whether the gateway takes requests: false while draining.
    pub ready: Arc<AtomicBool>,
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

    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: TEXT, body: body.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::tests::{plan, value};

    fn admin(ready: bool) -> Admin {
        Admin { metrics: Metrics::new(&plan()), ready: Arc::new(AtomicBool::new(ready)) }
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
    fn the_index_names_every_page() {
        let admin = admin(true);
        for line in admin.answer("GET", "/").body.lines().skip(1) {
            let path = line.split_whitespace().next().unwrap_or_default();
            assert_eq!(admin.answer("GET", path).status, 200, "{path}");
        }
    }
}
