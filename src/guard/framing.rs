//! Where the body ends: one reading or none.

use crate::base::fields::Fields;

use super::request::{Head, Refusal};

/// Judges what says where the body ends (RFC 9112 §6, RFC 9113 §8.2.2); answers with the declared length in bytes, when there is one.
///
/// A message that two readers could cut at different places is how one client's bytes become another's request. The RFC allows to repair
/// some of them (equal lengths repeated, Transfer-Encoding winning over Content-Length); nobody honest sends them, so all are refused.
pub(super) fn judge(head: &Head<'_>) -> Result<Option<u64>, Refusal> {
    let length = length(head.fields)?;
    let coded = chunked(head.fields)?;
    if coded && (length.is_some() || head.http10 || head.http2) {
        return Err(Refusal::Framing);
    }
    if head.http2 && names_a_connection(head.fields) {
        return Err(Refusal::Framing);
    }
    Ok(length)
}

/// The one Content-Length: digits alone, at most 19 of them, so that no reader's counter overflows (RFC 9110 §8.6, RFC 9112 §6.3).
fn length(fields: &dyn Fields) -> Result<Option<u64>, Refusal> {
    let Some(line) = at_most_one(fields, "content-length")? else {
        return Ok(None);
    };
    if line.is_empty() || line.len() > 19 {
        return Err(Refusal::Framing);
    }
    let mut length: u64 = 0;
    for &byte in line {
        if !byte.is_ascii_digit() {
            return Err(Refusal::Framing);
        }
        length = length * 10 + u64::from(byte - b'0');
    }
    Ok(Some(length))
}

/// Whether the body is chunked: one Transfer-Encoding that says exactly that (RFC 9112 §6.1 allows to refuse any other coding).
fn chunked(fields: &dyn Fields) -> Result<bool, Refusal> {
    match at_most_one(fields, "transfer-encoding")? {
        None => Ok(false),
        Some(line) if line.eq_ignore_ascii_case(b"chunked") => Ok(true),
        Some(_) => Err(Refusal::Framing),
    }
}

fn at_most_one<'a>(fields: &'a dyn Fields, name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut found = None;
    let mut lines = 0_usize;
    fields.each(name, &mut |line| {
        lines += 1;
        found = Some(line);
    });
    if lines > 1 { Err(Refusal::Framing) } else { Ok(found) }
}

/// A field about the connection makes an HTTP/2 message malformed (RFC 9113 §8.2.2); passed on, it would speak to an HTTP/1 origin.
fn names_a_connection(fields: &dyn Fields) -> bool {
    let mut other_te = false;
    fields.each("te", &mut |line| other_te |= !line.eq_ignore_ascii_case(b"trailers"));
    other_te
        || ["connection", "keep-alive", "proxy-connection", "upgrade"].iter().any(|name| fields.has(name))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::base::fields::Pairs;

    #[derive(Clone, Copy)]
    enum Version {
        Http10,
        Http11,
        Http2,
    }
    use Version::{Http2, Http10, Http11};

    fn judged(version: Version, lines: &[(&str, &str)]) -> Result<Option<u64>, Refusal> {
        let lines: Vec<(&str, &[u8])> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        judge(&Head {
            method: &Method::POST,
            target: b"/",
            http2: matches!(version, Http2),
            http10: matches!(version, Http10),
            authority: None,
            fields: &Pairs(&lines),
            field_count: lines.len(),
            size: 0,
        })
    }

    #[test]
    fn one_plain_length_or_chunked_or_neither() {
        for (version, lines, length) in [
            (Http11, &[][..], None),
            (Http11, &[("content-length", "0")], Some(0)),
            (Http11, &[("Content-Length", "42")], Some(42)),
            (Http11, &[("content-length", "0042")], Some(42)),
            (Http11, &[("content-length", "9999999999999999999")], Some(9_999_999_999_999_999_999)),
            (Http11, &[("transfer-encoding", "chunked")], None),
            (Http11, &[("Transfer-Encoding", "Chunked")], None),
            (Http10, &[("content-length", "1")], Some(1)),
            (Http2, &[("content-length", "1"), ("te", "trailers")], Some(1)),
            (Http11, &[("connection", "keep-alive"), ("te", "gzip")], None),
        ] {
            assert_eq!(judged(version, lines), Ok(length), "{lines:?}");
        }
    }

    #[test]
    fn a_message_that_could_be_cut_in_two_ways_is_refused() {
        for (version, lines) in [
            // RFC 9112 §6.1: both together "ought to be handled as an error".
            (Http11, &[("content-length", "1"), ("transfer-encoding", "chunked")][..]),
            (Http11, &[("transfer-encoding", "chunked"), ("content-length", "0")]),
            // §6.3: several lengths, even equal ones.
            (Http11, &[("content-length", "1"), ("content-length", "1")]),
            (Http11, &[("content-length", "1"), ("Content-Length", "2")]),
            (Http11, &[("content-length", "1, 1")]),
            (Http11, &[("content-length", "1,2")]),
            // RFC 9110 §8.6: digits alone.
            (Http11, &[("content-length", "")]),
            (Http11, &[("content-length", "+1")]),
            (Http11, &[("content-length", "-1")]),
            (Http11, &[("content-length", "1 ")]),
            (Http11, &[("content-length", " 1")]),
            (Http11, &[("content-length", "1 1")]),
            (Http11, &[("content-length", "0x1")]),
            (Http11, &[("content-length", "1f")]),
            (Http11, &[("content-length", "1.0")]),
            (Http11, &[("content-length", "1_000")]),
            (Http11, &[("content-length", "\"1\"")]),
            (Http11, &[("content-length", "١")]),
            (Http11, &[("content-length", "18446744073709551617")]),
            (Http11, &[("content-length", "00000000000000000001")]),
            // RFC 9112 §6.1: only chunked, only once, only in HTTP/1.1.
            (Http11, &[("transfer-encoding", "")]),
            (Http11, &[("transfer-encoding", "identity")]),
            (Http11, &[("transfer-encoding", "gzip")]),
            (Http11, &[("transfer-encoding", "gzip, chunked")]),
            (Http11, &[("transfer-encoding", "chunked, chunked")]),
            (Http11, &[("transfer-encoding", "chunked, identity")]),
            (Http11, &[("transfer-encoding", "chunked,")]),
            (Http11, &[("transfer-encoding", "chunked;q=1")]),
            (Http11, &[("transfer-encoding", "xchunked")]),
            (Http11, &[("transfer-encoding", "\"chunked\"")]),
            (Http11, &[("transfer-encoding", " chunked")]),
            (Http11, &[("transfer-encoding", "\u{b}chunked")]),
            (Http11, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
            (Http11, &[("transfer-encoding", "chunked"), ("transfer-encoding", "identity")]),
            (Http10, &[("transfer-encoding", "chunked")]),
            (Http2, &[("transfer-encoding", "chunked")]),
            // RFC 9113 §8.2.2: fields about the connection.
            (Http2, &[("connection", "close")]),
            (Http2, &[("keep-alive", "1")]),
            (Http2, &[("proxy-connection", "close")]),
            (Http2, &[("upgrade", "websocket")]),
            (Http2, &[("te", "gzip")]),
            (Http2, &[("te", "trailers, gzip")]),
            (Http2, &[("te", "trailers"), ("te", "gzip")]),
        ] {
            assert_eq!(judged(version, lines), Err(Refusal::Framing), "{lines:?}");
        }
    }
}
