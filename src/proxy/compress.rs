//! Compressing what upstreams answer: on its way to a client, or once for all on its way into a cache.
//!
//! Compression takes the processor for longer than a worker may be kept from its connections. What passes through comes in pieces that are small enough; what is
//! fetched for a cache is compressed on threads that serve no connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::Gateway;
use super::fill::content_length;
use super::journey::Journey;
use crate::files::code::{Effort, Encoder};
use crate::forward::coding::{self, Coding, Rules};
use crate::observe::metrics::Metrics;

/// Smaller pieces are compressed where they are: handing them over costs more.
const AT_ONCE: usize = 2048;

/// Content on its way into a coding.
pub struct Coder {
    encoder: Encoder,
    /// Its length was not announced: it may be a stream whose pieces somebody waits for.
    flush: bool,
}

impl Coder {
    /// Begins to compress an answer, and says so in its fields; `None` when it is left as it is.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn begin(answer: &mut ResponseHeader, coding: Coding, metrics: &Metrics) -> Result<Option<Self>> {
        let flush = content_length(&answer.headers).is_none();
        let encoder = Encoder::new(coding, Effort::Quick).map_err(failed)?;
        change(answer, |fields| coding::apply(fields, coding))?;
        let Some(encoder) = encoder else { return Ok(None) };
        metrics.compressed(coding.as_str());
        Ok(Some(Self { encoder, flush }))
    }

    /// Takes a piece where it is; answers with what is compressed so far, which may be nothing.
    fn write(&mut self, piece: &[u8]) -> Result<Bytes> {
        self.encoder.write(piece, self.flush).map_err(failed)
    }

    fn finish(self) -> Result<Bytes> {
        self.encoder.finish().map_err(failed)
    }

    /// Takes a piece, or the end, on a thread that serves no connection; answers with what is compressed so far, which may be nothing, and with itself unless that was the
    /// end.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub async fn take(mut self, piece: Option<Bytes>) -> Result<(Bytes, Option<Self>)> {
        match piece {
            Some(piece) if piece.len() < AT_ONCE => Ok((self.write(&piece)?, Some(self))),
            Some(piece) => aside(move || Ok((self.write(&piece)?, Some(self)))).await,
            None => aside(move || Ok((self.finish()?, None))).await,
        }
    }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Error::e_explain(ErrorType::InternalError, "compression failed"))
}

fn failed(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::InternalError, "compression failed", error)
}

/// Changes the fields of an answer, as a plain map.
fn change(answer: &mut ResponseHeader, by: impl FnOnce(&mut HeaderMap)) -> Result<()> {
    let mut fields = answer.headers.clone();
    by(&mut fields);
    let mut names: Vec<HeaderName> = answer.headers.keys().chain(fields.keys()).cloned().collect();
    names.dedup();
    for name in names {
        if answer.headers.get_all(&name).iter().eq(fields.get_all(&name).iter()) {
            continue;
        }
        answer.remove_header(&name);
        for value in fields.get_all(&name) {
            answer.append_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

/// Makes what a request accepts the one coding it gets, so that a cache holds one variant for each coding and not one for each way to ask.
pub(super) fn settle(rules: &Rules, method: &Method, fields: &mut HeaderMap) {
    if matches!(*method, Method::GET | Method::HEAD) {
        let coding = HeaderValue::from_static(rules.negotiate(&*fields).as_str());
        fields.insert(header::ACCEPT_ENCODING, coding);
    }
}

/// The coding that was settled.
pub(super) fn settled(fields: &HeaderMap) -> Coding {
    let coding = fields.get(header::ACCEPT_ENCODING).and_then(|value| Coding::named(value.as_bytes()));
    coding.unwrap_or(Coding::Identity)
}

/// Makes the confirmation of something that we compressed one of what is stored.
///
/// # Errors
/// When its fields cannot be changed.
pub(super) fn confirm(answer: &mut ResponseHeader, stored: &HeaderMap) -> Result<()> {
    change(answer, |fields| {
        coding::retag(fields, stored, header::ETAG.as_str());
        if fields.contains_key(header::VARY) {
            coding::vary(fields);
        }
    })
}

impl Gateway {
    /// Begins to compress an answer that passes through.
    pub(super) fn compress(
        &self,
        session: &Session,
        journey: &mut Journey,
        answer: &mut ResponseHeader,
    ) -> Result<()> {
        let Some(rules) = journey.route.and_then(|id| self.live.route(id).compress.as_ref()) else {
            return Ok(());
        };
        let request = session.req_header();
        if answer.status == StatusCode::NOT_MODIFIED {
            return change(answer, |fields| coding::retag(fields, &request.headers, "if-none-match"));
        }
        if rules.judge(&request.method, &request.headers, answer.status, &answer.headers).is_err() {
            return Ok(());
        }
        // HTTP/1.0 takes no content whose length nobody knows on a connection that is to stay.
        let coding = match request.version {
            Version::HTTP_10 => Coding::Identity,
            _ => rules.negotiate(&request.headers),
        };
        let coder = Coder::begin(answer, coding, &self.live.metrics)?;
        if coder.is_some() && request.version == Version::HTTP_11 {
            answer.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        journey.coder = coder.filter(|_| request.method != Method::HEAD);
        Ok(())
    }

    /// Compresses a piece of an answer that passes through.
    pub(super) fn compress_piece(journey: &mut Journey, piece: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(mut coder) = journey.coder.take() else { return Ok(()) };
        let mut out = match piece.take() {
            Some(plain) if !plain.is_empty() => coder.write(&plain)?,
            _ => Bytes::new(),
        };
        if end {
            let rest = coder.finish()?;
            out = if out.is_empty() { rest } else { [out, rest].concat().into() };
        } else {
            journey.coder = Some(coder);
        }
        // An empty piece would be the last chunk.
        *piece = Some(out).filter(|out| !out.is_empty());
        Ok(())
    }
}
