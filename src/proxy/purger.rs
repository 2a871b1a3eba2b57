//! PURGE and BAN on a public listener, from those who may.

use http::{StatusCode, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::Gateway;
use super::journey::{Admitted, Journey};
use super::purge::Order;
use crate::guard::purger::{self, What};

impl Gateway {
    /// Answers a request that asks for a purge. Answers whether it was one; where nobody may purge it is a request like any other.
    ///
    /// # Errors
    /// When the client's connection broke.
    pub(super) async fn purged(&self, session: &mut Session, journey: &Journey) -> Result<bool> {
        let Some(admitted) = &journey.admitted else { return Ok(false) };
        let Some(purgers) = &self.live.plan.listeners[admitted.listener].purgers else { return Ok(false) };
        let head = session.req_header();
        let Some(asked) = purger::asked(&head.method, &admitted.path, &head.headers) else {
            return Ok(false);
        };
        let (status, told) = if purgers.may(journey.client.addr) {
            match order(&asked, admitted).carry_out(&self.live).await {
                Ok(done) => (StatusCode::OK, serde_json::to_value(done).unwrap_or_default()),
                Err(wrong) => (StatusCode::BAD_REQUEST, serde_json::json!({ "error": wrong.to_string() })),
            }
        } else {
            (StatusCode::FORBIDDEN, serde_json::json!({ "error": "this address may not purge" }))
        };
        let content = format!("{told}\n");
        let mut answer = ResponseHeader::build_no_case(status, Some(5))?;
        answer.insert_header(header::CONTENT_TYPE, "application/json")?;
        answer.insert_header(header::CONTENT_LENGTH, content.len())?;
        answer.insert_header(header::CACHE_CONTROL, "no-store")?;
        answer.insert_header("x-request-id", journey.request_id.as_str())?;
        session.write_response_header(Box::new(answer), false).await?;
        session.write_response_body(Some(content.into()), true).await?;
        Ok(true)
    }
}

fn order(asked: &purger::Asked<'_>, admitted: &Admitted) -> Order {
    let authority = admitted.port.map_or_else(|| admitted.host.clone(), |p| format!("{}:{p}", admitted.host));
    let mut order = Order { soft: asked.soft, ..Order::default() };
    match &asked.what {
        What::Tags(tags) => order.tags = tags.iter().map(|&tag| tag.to_owned()).collect(),
        What::Url => order.urls = vec![format!("http://{authority}{}", admitted.target())],
        What::Directory(path) => order.prefixes = vec![format!("http://{authority}{path}")],
    }
    order
}
