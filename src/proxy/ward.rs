//! What stands before a route: the request is judged before anything is done for it, and every answer to it, whoever gives it, says what is to be said.

use http::{StatusCode, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::journey::{Admitted, Journey};
use super::reply::Failure;
use super::{Gateway, Outcome};
use crate::forward::edit::{Change, Changes, varies};
use crate::guard::cors;
use crate::plan::RouteId;
use crate::ward::{Asked, Verdict};

impl Gateway {
    /// The route of the request that a preflight asks about, when the gateway answers preflights there: OPTIONS itself may have another or none.
    pub(super) fn preflight_route(&self, session: &Session, admitted: &Admitted) -> Option<RouteId> {
        let head = session.req_header();
        let method = cors::preflight(&head.method, &head.headers)?;
        let id = self.live.plan.table.find(&admitted.host, &admitted.path, &method)?;
        self.live.route(id).ward.as_ref()?.cors.as_ref().map(|_| id)
    }

    /// Judges a request by its route.
    ///
    /// # Errors
    /// When the client's connection broke.
    pub(super) async fn ward(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        route: RouteId,
    ) -> Result<Outcome> {
        let Some(ward) = &self.live.route(route).ward else { return Ok(Outcome::Pass) };
        let mut pass = std::mem::take(&mut journey.pass);
        let verdict = match asked(self, session, journey, route, ward) {
            Some(asked) => self.live.ward.judge(&self.live.plan.realms, &asked, &mut pass).await,
            None => return self.fail(session, journey, Failure::Internal).await.map(|()| Outcome::Answered),
        };
        journey.pass = pass;
        match verdict {
            Verdict::Pass => {
                let changes = journey.pass.request.clone();
                edit_request(session.req_header_mut(), &changes)?;
                Ok(Outcome::Pass)
            }
            Verdict::Preflight => {
                let mut head = ResponseHeader::build_no_case(StatusCode::NO_CONTENT, Some(10))?;
                self.sign(journey, &mut head)?;
                session.write_response_header(Box::new(head), true).await?;
                Ok(Outcome::Answered)
            }
            Verdict::Denied(denial) => {
                self.live.metrics.denied(route, denial.as_str());
                self.fail(session, journey, Failure::Denied(denial)).await?;
                Ok(Outcome::Answered)
            }
        }
    }

    /// Judges a request that storage did not answer by the limits that hits are free of, once; [`Outcome::Answered`] when it was refused.
    ///
    /// # Errors
    /// When the client's connection broke.
    pub(super) async fn judge_miss(&self, session: &mut Session, journey: &mut Journey) -> Result<Outcome> {
        let route = journey.route.unwrap_or_default();
        let Some(ward) = self.live.route(route).ward.as_ref().filter(|_| !journey.counted) else {
            return Ok(Outcome::Pass);
        };
        journey.counted = true;
        let mut pass = std::mem::take(&mut journey.pass);
        let judged = match asked(self, session, journey, route, ward) {
            Some(asked) => self.live.ward.judge_miss(&asked, &mut pass).await,
            None => Ok(()),
        };
        journey.pass = pass;
        let Err(denial) = judged else { return Ok(Outcome::Pass) };
        self.live.metrics.denied(route, denial.as_str());
        self.fail(session, journey, Failure::Denied(denial)).await?;
        Ok(Outcome::Answered)
    }
}

fn asked<'a>(
    gateway: &'a Gateway,
    session: &'a Session,
    journey: &'a Journey,
    route: RouteId,
    ward: &'a crate::plan::ward::Ward,
) -> Option<Asked<'a>> {
    let admitted = journey.admitted.as_ref()?;
    let head = session.req_header();
    Some(Asked {
        ward,
        route: gateway.live.route(route).name.as_str(),
        method: &head.method,
        host: &admitted.host,
        path: &admitted.path,
        client: journey.client.addr,
        https: journey.client.https,
        fields: &head.headers,
        request_id: &journey.request_id,
    })
}

fn edit_request(head: &mut RequestHeader, changes: &Changes) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut fields = head.headers.clone();
    changes.before(&mut fields);
    let gone: Vec<_> = head.headers.keys().cloned().collect();
    for name in gone {
        head.remove_header(&name);
    }
    for (name, value) in &fields {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// Changes the fields of an answer as its route says.
///
/// # Errors
/// When a field cannot be written: a fault of ours.
pub(super) fn dress(head: &mut ResponseHeader, changes: &Changes) -> Result<()> {
    for change in &changes.0 {
        match change {
            Change::Remove(name) => drop(head.remove_header(name)),
            Change::Set(name, value) => head.insert_header(name.clone(), value.clone())?,
            Change::Add(name, value) => drop(head.append_header(name.clone(), value.clone())?),
            Change::Default(name, value) => {
                if !head.headers.contains_key(name) {
                    head.insert_header(name.clone(), value.clone())?;
                }
            }
            Change::Vary(name) => {
                if !varies(&head.headers, name) {
                    head.append_header(header::VARY, name.as_str())?;
                }
            }
        }
    }
    Ok(())
}
