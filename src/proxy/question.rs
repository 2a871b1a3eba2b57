//! A POST or QUERY whose content is part of its key: the question is read whole, then served like any other request through the cache.
//!
//! A key made of half a question would give one answer to all questions that begin alike, so what is not read whole is not cached.

use bytes::{Bytes, BytesMut};
use http::{Version, header};
use pingora::Result;
use pingora::proxy::Session;

use super::exchange::Destination;
use super::fill::content_length;
use super::journey::Journey;
use super::reply::Failure;
use super::serve::keyed_by_user;
use super::{Gateway, Outcome};
use crate::cache::content::ContentKey;
use crate::cache::policy::{self, Bypass};
use crate::plan::CacheId;

/// What is told about a question that is too large for a key.
const TOO_LARGE: &str = "content-too-large";

impl Gateway {
    /// Serves a question through a cache.
    ///
    /// # Errors
    /// When the client's connection broke, or the answer was cut after its head had been sent.
    pub(super) async fn serve_question(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        cache: CacheId,
        to: Destination,
        rule: &ContentKey,
    ) -> Result<Outcome> {
        if policy::passes_by(&session.req_header().headers, &self.live.cache(cache).rules.bypass) {
            self.pass_by(journey, Bypass::Operator, None);
            return Ok(Outcome::Pass);
        }
        if content_length(&session.req_header().headers).is_some_and(|length| length > rule.most) {
            self.pass_by(journey, Bypass::Body, Some(TOO_LARGE));
            return Ok(Outcome::Pass);
        }
        let content = match self.read_content(session, journey).await {
            Ok(content) => content,
            Err(failure) => {
                session.set_keepalive(None);
                self.fail(session, journey, failure).await?;
                return Ok(Outcome::Answered);
            }
        };
        let method = session.req_header().method.clone();
        let mut asked = self.asked(session, journey, self.live.cache(cache).clone(), to);
        let whole = content.len() as u64 <= rule.most;
        if whole {
            // The same bytes mean another thing under another type or coding.
            let mut headers = rule.headers.clone();
            headers.extend([header::CONTENT_TYPE, header::CONTENT_ENCODING]);
            asked.key =
                asked.key.with_content(method.as_str(), &rule.canonical(&content), &headers, &asked.fields);
            asked.key = self.key_of_version(self.live.route(to.route), to.upstream, asked.key);
            keyed_by_user(&mut asked.fields, &rule.headers);
        } else {
            asked.fields.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        }
        asked.onward.method = method;
        asked.onward.fields.remove(header::EXPECT);
        asked.onward.content = Some(content);
        match whole {
            true => {
                asked.count_use();
                self.answer(session, journey, &asked).await?;
            }
            false => self.fetch_alone(session, journey, &asked).await?,
        }
        Ok(Outcome::Answered)
    }

    /// Reads a question whole, within the route's limit.
    async fn read_content(
        &self,
        session: &mut Session,
        journey: &mut Journey,
    ) -> std::result::Result<Bytes, Failure> {
        let head = session.req_header();
        if head.version != Version::HTTP_10 && head.headers.contains_key(header::EXPECT) {
            let told = session.as_mut().write_continue_response().await;
            told.map_err(|_| Failure::ClientGone)?;
        }
        let mut content = BytesMut::new();
        loop {
            match session.as_mut().read_request_body().await {
                Ok(Some(piece)) => {
                    journey.body_seen += piece.len() as u64;
                    if journey.max_body > 0 && journey.body_seen > journey.max_body {
                        return Err(Failure::BodyTooLarge);
                    }
                    content.extend_from_slice(&piece);
                }
                Ok(None) => return Ok(content.freeze()),
                Err(error) => return Err(super::failure_of(&error.into_down())),
            }
        }
    }
}
