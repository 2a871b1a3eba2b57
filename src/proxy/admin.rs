//! The operator's listener: carries [`Admin`]'s answers over HTTP.

use async_trait::async_trait;
use http::{Response, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::observe::admin::Admin;

/// Serves [`Admin`] over HTTP.
pub struct AdminApp(pub Admin);

#[async_trait]
impl ServeHttp for AdminApp {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let answer = self.0.answer(head.method.as_str(), head.uri.path());
        let mut response = Response::new(answer.body.into_bytes());
        *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or_default();
        let length = response.body().len();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(answer.content_type));
        fields.insert(header::CONTENT_LENGTH, length.into());
        fields.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        response
    }
}
