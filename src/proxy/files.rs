//! Serving files: what [`crate::files`] finds is sent here, whole, in parts, or not at all because the client has it.

use std::fs::File;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::deliver::{self, Content as Selected};
use super::journey::{Journey, join_query};
use super::reply::Failure;
use super::{Gateway, dated};
use crate::base::fields::Fields;
use crate::cache::conditional;
use crate::cache::range::Part;
use crate::fast_path::head::stated_length;
use crate::files::{self, Answer, Asked, Content, Served, Site};
use crate::plan::RouteId;

/// How much of a file is read at once: the most that a slow client's answer holds in memory.
const PIECE: u64 = 128 * 1024;

impl Gateway {
    /// Answers with a file.
    ///
    /// # Errors
    /// When the client's connection broke, or a file was cut after its head had been sent.
    pub(super) async fn serve_files(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        route: RouteId,
    ) -> Result<()> {
        if !matches!(session.req_header().method, Method::GET | Method::HEAD) {
            return self.fail(session, journey, Failure::ReadOnly).await;
        }
        let Some(site) = &self.live.sites[route] else {
            return self.fail(session, journey, Failure::Internal).await;
        };
        let Some(asked) = self.asked_file(session, journey, route) else {
            return self.fail(session, journey, Failure::Internal).await;
        };
        match find(site, asked).await {
            Ok(Answer::Content(served)) => self.send_file(session, journey, route, *served).await,
            Ok(Answer::Folder) => self.add_slash(session, journey).await,
            Ok(Answer::Missing) => self.fail(session, journey, Failure::NoFile).await,
            Err(error) => {
                tracing::error!(%error, "a file cannot be read");
                self.fail(session, journey, Failure::Internal).await
            }
        }
    }

    fn asked_file(&self, session: &Session, journey: &Journey, route: RouteId) -> Option<Asked> {
        let admitted = journey.admitted.as_ref()?;
        let fields = &session.req_header().headers;
        Some(Asked {
            path: self.live.route(route).rewrite.apply(&admitted.path).into_owned(),
            shown: admitted.path.clone(),
            accepts: fields.joined("accept-encoding"),
            part: fields.contains_key(header::RANGE),
        })
    }

    async fn send_file(
        &self,
        session: &mut Session,
        journey: &mut Journey,
        route: RouteId,
        mut served: Served,
    ) -> Result<()> {
        let path = journey.admitted.as_ref().map_or("", |admitted| &admitted.path);
        let rules = self.live.route(route).browser.as_ref();
        let kept = rules.and_then(|rules| rules.value(path, served.status, &served.fields)).cloned();
        // A page that says that there is nothing must not outlive the next release.
        let kept = kept.or((served.status != StatusCode::OK).then_some(HeaderValue::from_static("no-cache")));
        if let Some(kept) = kept {
            served.fields.insert(header::CACHE_CONTROL, kept);
        }
        let request = &session.req_header().headers;
        take_known_tag(request, &mut served);
        if served.status == StatusCode::OK && conditional::precondition_fails(request, &served.fields) {
            return self.fail(session, journey, Failure::Precondition).await;
        }
        let length = served.content.len();
        let (mut head, selected) =
            deliver::select(session, served.status, &served.fields, Some(length), length, true)?;
        let bodyless = session.req_header().method == Method::HEAD || matches!(selected, Selected::None);
        if matches!(selected, Selected::Whole)
            && let Some(length) = stated_length(head.status, served.status, length)
        {
            head.insert_header(header::CONTENT_LENGTH, length)?;
        }
        self.sign(journey, &mut head)?;
        dated::keep(session, &head);
        let bodyless = bodyless || (length == 0 && matches!(selected, Selected::Whole));
        session.write_response_header(Box::new(head), bodyless).await?;
        if bodyless {
            return Ok(());
        }
        send(session, &served.content, selected).await
    }

    /// Sends the client to the same path with a slash: what a page in a folder names is relative to it.
    async fn add_slash(&self, session: &mut Session, journey: &mut Journey) -> Result<()> {
        let Some(admitted) = journey.admitted.as_ref() else { return Ok(()) };
        let path = format!("{}/", admitted.path);
        let mut head = ResponseHeader::build_no_case(StatusCode::PERMANENT_REDIRECT, Some(5))?;
        head.insert_header(header::LOCATION, join_query(&path, admitted.query.as_deref()))?;
        head.insert_header(header::CACHE_CONTROL, "no-cache")?;
        head.insert_header(header::CONTENT_LENGTH, 0)?;
        self.sign(journey, &mut head)?;
        session.write_response_header(Box::new(head), true).await
    }
}

/// A system that is short of something for an instant is asked once more: a file that is replaced while it is read is whole again when the replacing is done.
async fn find(site: &Arc<Site>, asked: Asked) -> std::io::Result<Answer> {
    match site.answer(asked.clone()).await {
        Ok(answer) => Ok(answer),
        Err(_) => site.answer(asked).await,
    }
}

/// A client that holds the same content in another form of the same coding has what it asks for, under the tag that it knows.
fn take_known_tag(request: &HeaderMap, served: &mut Served) {
    if !request.contains_key(header::IF_NONE_MATCH)
        || conditional::not_modified(request, served.status, &served.fields)
    {
        return;
    }
    let Some(now) = served.fields.get(header::ETAG).cloned() else { return };
    for tag in std::mem::take(&mut served.also) {
        served.fields.insert(header::ETAG, tag);
        if conditional::not_modified(request, served.status, &served.fields) {
            return;
        }
    }
    served.fields.insert(header::ETAG, now);
}

async fn send(session: &mut Session, content: &Content, selected: Selected) -> Result<()> {
    match selected {
        Selected::None => {}
        Selected::Whole => {
            let last = content.len().saturating_sub(1);
            send_part(session, content, Part { first: 0, last }, true).await?;
        }
        Selected::Part(part) => send_part(session, content, part, true).await?,
        Selected::Several(layout, parts) => {
            for (head, part) in layout.heads.into_iter().zip(parts) {
                session.write_response_body(Some(head.into()), false).await?;
                send_part(session, content, part, false).await?;
            }
            session.write_response_body(Some(layout.tail.into()), true).await?;
        }
    }
    Ok(())
}

/// Sends a part piece by piece: the next is read when the client has taken the one before.
async fn send_part(session: &mut Session, content: &Content, part: Part, end: bool) -> Result<()> {
    let file = match content {
        Content::Held(bytes) => {
            let to = (part.last + 1).min(bytes.len() as u64) as usize;
            return session.write_response_body(Some(bytes.slice(part.first as usize..to)), end).await;
        }
        Content::File(file, _) => file,
    };
    let mut at = part.first;
    // One buffer for all pieces: made anew on one thread and freed on another, they would pile up in the allocator.
    let mut buffer = BytesMut::new();
    while at <= part.last {
        let count = (part.last - at + 1).min(PIECE);
        let piece = read(file, at, count, buffer).await?;
        at += count;
        session.write_response_body(Some(piece.clone()), end && at > part.last).await?;
        buffer = piece.try_into_mut().unwrap_or_default();
    }
    Ok(())
}

async fn read(file: &Arc<File>, at: u64, count: u64, mut buffer: BytesMut) -> Result<Bytes> {
    let file = file.clone();
    buffer.resize(count as usize, 0);
    let read = tokio::task::spawn_blocking(move || {
        files::fill(&file, at, &mut buffer)?;
        Ok::<_, std::io::Error>(buffer.freeze())
    });
    let read = read.await;
    match read {
        Ok(Ok(piece)) => Ok(piece),
        // The connection is closed, so that the client sees that something is missing.
        Ok(Err(_)) | Err(_) => Err(Error::explain(ErrorType::ConnectionClosed, deliver::TRUNCATED).into_up()),
    }
}
