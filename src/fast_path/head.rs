//! The head of an answer from storage: what is told beside its own fields, the same for both ways.

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, EXPIRES, LAST_MODIFIED,
    LOCATION, SERVER, STRICT_TRANSPORT_SECURITY, VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// `Cache-Status` (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The id that the client, the logs and the instances share.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the gateway tells beside an answer's own fields.
pub struct Ours<'a> {
    /// Our member of `Cache-Status`; it is added to those that came (RFC 9211 §2).
    pub cache_status: &'a str,
    /// `Via` as a whole: what came, and our own name.
    pub via: HeaderValue,
    /// The request's id.
    pub request_id: &'a str,
    /// The age in seconds (RFC 9111 §5.1), when the answer was stored.
    pub age: Option<u64>,
    /// The length of the content, when it is known.
    pub length: Option<u64>,
    /// How long browsers may keep it, where that is not what the answer says itself.
    pub for_browsers: Option<&'a HeaderValue>,
    /// What browsers are to remember of HTTPS (RFC 6797).
    pub hsts: Option<&'a HeaderValue>,
}

impl Ours<'_> {
    /// Visits every line. All but `Cache-Status` stand in place of the answer's own lines of that name.
    pub fn each(&self, visit: &mut dyn FnMut(&HeaderName, &[u8])) {
        let mut digits = [0; 20];
        visit(&CACHE_STATUS, self.cache_status.as_bytes());
        visit(&VIA, self.via.as_bytes());
        visit(&X_REQUEST_ID, self.request_id.as_bytes());
        if let Some(value) = self.for_browsers {
            visit(&CACHE_CONTROL, value.as_bytes());
        }
        if let Some(age) = self.age {
            visit(&AGE, decimal(age, &mut digits));
        }
        if let Some(length) = self.length {
            visit(&CONTENT_LENGTH, decimal(length, &mut digits));
        }
        if let Some(hsts) = self.hsts {
            visit(&STRICT_TRANSPORT_SECURITY, hsts.as_bytes());
        }
    }

    /// Whether the answer's own lines of this name give way.
    pub fn replaces(&self, name: &HeaderName) -> bool {
        *name == VIA
            || *name == X_REQUEST_ID
            || (*name == CACHE_CONTROL && self.for_browsers.is_some())
            || (*name == AGE && self.age.is_some())
            || (*name == CONTENT_LENGTH && self.length.is_some())
            || (*name == STRICT_TRANSPORT_SECURITY && self.hsts.is_some())
    }
}

/// The Content-Length of a stored answer that is sent whole, or of which HEAD asks: it knows its length, whatever framing it came in. `None` where
/// `Content-Length` may not or need not be (RFC 9110 §8.6).
pub fn stated_length(sent: StatusCode, stored: StatusCode, length: u64) -> Option<u64> {
    let may = sent != StatusCode::NOT_MODIFIED && stored != StatusCode::NO_CONTENT;
    (may && sent == stored).then_some(length)
}

/// Writes a whole head as it goes over an HTTP/1 connection.
pub fn write(out: &mut Vec<u8>, status: StatusCode, fields: &HeaderMap, ours: &Ours<'_>, keep: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        if !ours.replaces(name) {
            line(out, name, value.as_bytes());
        }
    }
    ours.each(&mut |name, value| line(out, name, value));
    let connection: &[u8] =
        if keep { b"Connection: keep-alive\r\n\r\n" } else { b"Connection: close\r\n\r\n" };
    out.extend_from_slice(connection);
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let usual = USUAL.iter().find(|(usual, _)| usual == name);
    out.extend_from_slice(usual.map_or(name.as_str(), |(_, spelled)| spelled).as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The spelling that clients which compare names byte by byte expect, for the names that such clients look for. Others stand as they are kept, in
/// lower case, which is the same to every other reader (RFC 9110 §5.1).
const USUAL: [(HeaderName, &str); 12] = [
    (CONTENT_TYPE, "Content-Type"),
    (CONTENT_LENGTH, "Content-Length"),
    (CACHE_CONTROL, "Cache-Control"),
    (DATE, "Date"),
    (AGE, "Age"),
    (ETAG, "ETag"),
    (LAST_MODIFIED, "Last-Modified"),
    (VARY, "Vary"),
    (CONTENT_ENCODING, "Content-Encoding"),
    (EXPIRES, "Expires"),
    (LOCATION, "Location"),
    (SERVER, "Server"),
];

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fields: &HeaderMap, ours: &Ours<'_>, keep: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, StatusCode::OK, fields, ours, keep);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn ours_stand_in_place_of_what_came_but_cache_status_is_added() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("cache-status", "origin; hit"),
            ("via", "1.1 other"),
            ("age", "7"),
            ("content-length", "999"),
            ("x-request-id", "theirs"),
            ("x-own", "stays"),
            ("date", "then"),
        ] {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let ours = Ours {
            cache_status: "vanne-mem; hit",
            via: HeaderValue::from_static("1.1 other, 1.1 vanne"),
            request_id: "r",
            age: Some(0),
            length: Some(u64::MAX),
            for_browsers: None,
            hsts: None,
        };
        assert_eq!(
            written(&fields, &ours, true),
            "HTTP/1.1 200 OK\r\ncache-status: origin; hit\r\nx-own: stays\r\nDate: then\r\n\
             cache-status: vanne-mem; hit\r\nvia: 1.1 other, 1.1 vanne\r\nx-request-id: r\r\nAge: 0\r\n\
             Content-Length: 18446744073709551615\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn a_length_that_is_not_stated_leaves_the_one_that_came() {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("10"));
        let via = HeaderValue::from_static("1.1 vanne");
        let ours = Ours {
            cache_status: "v",
            via,
            request_id: "r",
            age: None,
            length: None,
            for_browsers: None,
            hsts: None,
        };
        let head = written(&fields, &ours, false);
        assert!(head.contains("\r\nContent-Length: 10\r\n"), "{head}");
        assert!(!head.contains("Age"), "{head}");
        assert!(head.ends_with("\r\nConnection: close\r\n\r\n"), "{head}");
    }

    #[test]
    fn a_length_is_stated_where_content_would_stand() {
        for (sent, stored, stated) in
            [(200, 200, true), (404, 404, true), (304, 200, false), (204, 204, false), (206, 200, false)]
        {
            let code = |code| StatusCode::from_u16(code).unwrap();
            let length = stated_length(code(sent), code(stored), 5);
            assert_eq!(length, stated.then_some(5), "{sent} {stored}");
        }
    }
}
