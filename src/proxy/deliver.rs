//! Sending an answer to the client, from storage or while it is being fetched: conditions, ranges, fields, content.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::fill::{Word, content_length};
use super::{dated, ward};
use crate::cache::conditional;
use crate::cache::events;
use crate::cache::range::{self, Part, Selection};
use crate::fast_path::head::{self, Ours};
use crate::forward;
use crate::forward::edit::Changes;
use crate::store::flight::{End, Reader};
use crate::store::redis::Trouble;
use crate::store::redis::pieces::Reading;
use crate::store::{Body, Entry};

/// What is told about an answer, beside its own fields.
pub struct Told {
    /// Our member of `Cache-Status`.
    pub cache_status: String,
    /// The request's id.
    pub request_id: String,
    /// Our name in `Via`.
    pub via: String,
    /// How long browsers may keep it, where that is not what it says itself.
    pub for_browsers: Option<HeaderValue>,
    /// What the route changes in the fields.
    pub changes: Changes,
    /// What browsers are to remember of HTTPS.
    pub hsts: Option<HeaderValue>,
}

/// What of the content is sent.
pub(super) enum Content {
    None,
    Whole,
    Part(Part),
    Several(range::Multipart, Vec<Part>),
}

/// Passes an interim answer on; HTTP/1.0 has none (RFC 9110 §15.2).
///
/// # Errors
/// When the client's connection broke.
pub async fn interim(session: &mut Session, head: &ResponseHeader) -> Result<()> {
    if session.req_header().version == Version::HTTP_10 {
        return Ok(());
    }
    let mut fields = head.headers.clone();
    forward::response(&mut fields, false);
    let head = assemble(head.status, &fields)?;
    session.write_response_header(Box::new(head), false).await
}

/// What came of sending a stored answer.
pub enum Sent {
    /// The client has it.
    Yes,
    /// Its content cannot be read, as was found before anything was sent.
    Unreadable(Trouble),
}

/// Sends a stored answer; of an event stream what comes behind the event `seen`.
///
/// # Errors
/// When the client's connection broke, or the content could not be read to its end: the connection must then be closed, so that the client sees it.
pub async fn entry(
    session: &mut Session,
    entry: &Entry,
    age: u64,
    told: &Told,
    seen: Option<&HeaderValue>,
) -> Result<Sent> {
    let record = &entry.record;
    let at_hand = entry.body.apart().is_none();
    // A stream so long that it lies apart is sent from its beginning.
    if let Some(first) = seen
        .filter(|_| at_hand)
        .and_then(|id| position_after(entry.body.chunks(), record.status, &record.fields, id))
    {
        let mut head = assemble(record.status, &rest_of(&record.fields))?;
        tell_rest(&mut head, told, Some(age), Some(entry.body.len() - first))?;
        dated::keep(session, &head);
        let rest = match first < entry.body.len() {
            true => Content::Part(Part { first, last: u64::MAX }),
            false => Content::None,
        };
        return send_stored(session, head, &entry.body, rest).await.map(|()| Sent::Yes);
    }
    let (mut head, content) =
        select(session, record.status, &record.fields, Some(entry.body.len()), entry.body.len(), at_hand)?;
    let whole = matches!(content, Content::Whole) || session.req_header().method == Method::HEAD;
    let length = head::stated_length(head.status, record.status, entry.body.len()).filter(|_| whole);
    tell(&mut head, told, Some(age), length)?;
    let content = if session.req_header().method == Method::HEAD { Content::None } else { content };
    let part = match (&content, at_hand) {
        (Content::Whole, false) => Some((0, u64::MAX)),
        (Content::Part(part), false) => Some((part.first, part.last)),
        _ => None,
    };
    let Some(mut reading) = part.and_then(|(first, last)| entry.body.read(first, last)) else {
        dated::keep(session, &head);
        return send_stored(session, head, &entry.body, content).await.map(|()| Sent::Yes);
    };
    let first = match reading.next().await.transpose() {
        Ok(first) => first,
        Err(trouble) => return Ok(Sent::Unreadable(trouble)),
    };
    dated::keep(session, &head);
    session.write_response_header(Box::new(head), false).await?;
    send_read(session, first, reading).await.map(|()| Sent::Yes)
}

/// Sends content piece by piece as it is read.
async fn send_read(session: &mut Session, mut next: Option<Bytes>, mut reading: Reading) -> Result<()> {
    while let Some(bytes) = next {
        session.write_response_body(Some(bytes), false).await?;
        next = reading
            .next()
            .await
            .transpose()
            .map_err(|trouble| Error::explain(ErrorType::ConnectionClosed, trouble.as_str()).into_up())?;
    }
    session.write_response_body(None, true).await
}

/// The position in an event stream from which it goes on for a client that has seen this event.
fn position_after(
    pieces: &[bytes::Bytes],
    status: StatusCode,
    fields: &HeaderMap,
    seen: &HeaderValue,
) -> Option<u64> {
    let readable = events::is_event_stream(status, fields);
    readable.then(|| events::position_after(pieces.iter().map(|piece| &piece[..]), seen.as_bytes())).flatten()
}

/// The fields of an answer of which only the rest is sent: nobody may keep it as if it were the whole.
fn rest_of(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    for name in [header::ETAG, header::LAST_MODIFIED, header::EXPIRES, header::CONTENT_LENGTH] {
        fields.remove(name);
    }
    for name in ["cdn-cache-control", "surrogate-control"] {
        fields.remove(name);
    }
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields
}

/// Sends an answer that is being fetched, piece by piece as it comes; of an event stream what comes behind the event `seen`.
///
/// # Errors
/// When the client's connection broke, or the content was truncated at its source: the connection must then be closed, so that the client sees it.
pub async fn coming(
    session: &mut Session,
    status: StatusCode,
    fields: &HeaderMap,
    age: Option<u64>,
    reader: &mut Reader<Word>,
    told: &Told,
    seen: Option<&HeaderValue>,
) -> Result<()> {
    if let Some(first) = seen.and_then(|id| position_after(&reader.at_hand(), status, fields, id)) {
        let mut head = assemble(status, &rest_of(fields))?;
        tell_rest(&mut head, told, age, None)?;
        dated::keep(session, &head);
        frame(session, &mut head)?;
        session.write_response_header(Box::new(head), false).await?;
        return stream(session, reader, Part { first, last: u64::MAX }).await;
    }
    let length = content_length(fields);
    let (mut head, content) = select(session, status, fields, length, length.unwrap_or(0), false)?;
    tell(&mut head, told, age, None)?;
    dated::keep(session, &head);
    if session.req_header().method == Method::HEAD || matches!(content, Content::None) {
        return session.write_response_header(Box::new(head), true).await;
    }
    frame(session, &mut head)?;
    session.write_response_header(Box::new(head), false).await?;
    let part = match content {
        Content::Part(part) => part,
        _ => Part { first: 0, last: u64::MAX },
    };
    stream(session, reader, part).await
}

/// The status and fields for this client, and what of the content it gets. Ranges need a known length; several parts at once need the whole at hand.
pub(super) fn select(
    session: &Session,
    status: StatusCode,
    fields: &HeaderMap,
    length: Option<u64>,
    whole: u64,
    at_hand: bool,
) -> Result<(ResponseHeader, Content)> {
    let request = session.req_header();
    // Conditions of other methods are not about what is stored (RFC 9110 §13.1.2).
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    if reads && conditional::not_modified(&request.headers, status, fields) {
        return Ok((assemble(StatusCode::NOT_MODIFIED, &conditional::fields_of_304(fields))?, Content::None));
    }
    let selection = match length {
        Some(length) if status == StatusCode::OK && request.method == Method::GET => {
            range::select(&request.headers, fields, length)
        }
        _ => Selection::Whole,
    };
    match selection {
        Selection::Several(parts) if at_hand => several(fields, parts, whole),
        Selection::Whole | Selection::Several(_) => Ok((assemble(status, fields)?, Content::Whole)),
        Selection::One(part) => {
            let mut head = assemble(StatusCode::PARTIAL_CONTENT, fields)?;
            head.insert_header(header::CONTENT_RANGE, range::content_range(part, whole))?;
            head.insert_header(header::CONTENT_LENGTH, part.last - part.first + 1)?;
            Ok((head, Content::Part(part)))
        }
        Selection::Unsatisfiable => {
            let mut head = ResponseHeader::build_no_case(StatusCode::RANGE_NOT_SATISFIABLE, None)?;
            head.insert_header(header::CONTENT_RANGE, format!("bytes */{whole}"))?;
            head.insert_header(header::CONTENT_LENGTH, 0)?;
            Ok((head, Content::None))
        }
    }
}

fn several(fields: &HeaderMap, parts: Vec<Part>, whole: u64) -> Result<(ResponseHeader, Content)> {
    // Any string that is not in the content will do; 64 random bits are not.
    let boundary = format!("vanne-{:016x}", crate::base::dice::Dice::from_entropy().any_u64());
    let content_type = fields.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let layout = range::multipart(&parts, whole, content_type, &boundary);
    let mut head = assemble(StatusCode::PARTIAL_CONTENT, fields)?;
    head.insert_header(header::CONTENT_TYPE, layout.content_type.clone())?;
    head.insert_header(header::CONTENT_LENGTH, layout.length)?;
    Ok((head, Content::Several(layout, parts)))
}

fn assemble(status: StatusCode, fields: &HeaderMap) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, Some(fields.len() + 6))?;
    for (name, value) in fields {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

fn tell(head: &mut ResponseHeader, told: &Told, age: Option<u64>, length: Option<u64>) -> Result<()> {
    if let Some(kept) =
        told.for_browsers.as_ref().filter(|_| head.status != StatusCode::RANGE_NOT_SATISFIABLE)
    {
        head.insert_header(header::CACHE_CONTROL, kept)?;
    }
    tell_rest(head, told, age, length)
}

/// The same of an answer of which only the rest is sent: no rule about browsers lets them keep it.
fn tell_rest(head: &mut ResponseHeader, told: &Told, age: Option<u64>, length: Option<u64>) -> Result<()> {
    // What the route says of fields comes after the rules about browsers.
    ward::dress(head, &told.changes)?;
    let via = forward::via(&head.headers, "1.1", &told.via);
    let ours = Ours {
        cache_status: &told.cache_status,
        via,
        request_id: &told.request_id,
        age,
        length,
        for_browsers: None,
        hsts: told.hsts.as_ref(),
    };
    let mut result = Ok(());
    ours.each(&mut |name, value| {
        let added = if ours.replaces(name) {
            head.insert_header(name, value)
        } else {
            head.append_header(name, value).map(|_| ())
        };
        if added.is_err() {
            result = added;
        }
    });
    result
}

/// Content of unknown length is sent in chunks; to HTTP/1.0 until the connection closes (RFC 9112 §6.1).
fn frame(session: &Session, head: &mut ResponseHeader) -> Result<()> {
    let bodyless = matches!(head.status.as_u16(), 204 | 304);
    if !bodyless
        && !head.headers.contains_key(header::CONTENT_LENGTH)
        && session.req_header().version == Version::HTTP_11
    {
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

async fn send_stored(
    session: &mut Session,
    head: ResponseHeader,
    body: &Body,
    content: Content,
) -> Result<()> {
    let pieces = match content {
        Content::None => Vec::new(),
        Content::Whole => body.chunks().to_vec(),
        Content::Part(part) => body.slice(part.first, part.last),
        Content::Several(layout, parts) => {
            let mut pieces = Vec::new();
            for (head, part) in layout.heads.into_iter().zip(parts) {
                pieces.push(head.into());
                pieces.extend(body.slice(part.first, part.last));
            }
            pieces.push(layout.tail.into());
            pieces
        }
    };
    session.write_response_header(Box::new(head), pieces.is_empty()).await?;
    let last = pieces.len().saturating_sub(1);
    for (i, piece) in pieces.into_iter().enumerate() {
        session.write_response_body(Some(piece), i == last).await?;
    }
    Ok(())
}

async fn stream(session: &mut Session, reader: &mut Reader<Word>, part: Part) -> Result<()> {
    let mut position = 0u64;
    loop {
        match reader.chunk().await {
            Ok(chunk) => {
                let start = position;
                position += chunk.len() as u64;
                if position <= part.first || start > part.last {
                    continue;
                }
                let from = part.first.saturating_sub(start) as usize;
                let to = (part.last - start).saturating_add(1).min(chunk.len() as u64) as usize;
                session.write_response_body(Some(chunk.slice(from..to)), false).await?;
                if position > part.last {
                    return session.write_response_body(None, true).await;
                }
            }
            Err(End::Complete) => return session.write_response_body(None, true).await,
            Err(End::Truncated) => {
                return Err(Error::explain(ErrorType::ConnectionClosed, TRUNCATED).into_up());
            }
        }
    }
}

/// Marks the error of an answer whose end never came.
pub const TRUNCATED: &str = "the answer's content was truncated at its source";
