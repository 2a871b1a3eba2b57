//! Who a client is by the certificate it showed, as fields for the instances.

use http::{HeaderMap, HeaderName, HeaderValue};
use openssl::base64;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::x509::X509Ref;

/// What is told of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    cert: HeaderValue,
    subject: HeaderValue,
    fingerprint: HeaderValue,
}

/// The certificate itself (RFC 9440 §2.2).
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

impl Identity {
    /// What a certificate says; `None` when it cannot be written into fields.
    pub fn of(cert: &X509Ref) -> Option<Self> {
        let der = cert.to_der().ok()?;
        let digest = cert.digest(MessageDigest::sha256()).ok()?;
        let fingerprint: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self {
            cert: HeaderValue::try_from(format!(":{}:", base64::encode_block(&der))).ok()?,
            subject: HeaderValue::try_from(subject(cert)).ok()?,
            fingerprint: HeaderValue::try_from(fingerprint).ok()?,
        })
    }

    /// What is told of it.
    pub fn fields(&self) -> [(HeaderName, HeaderValue); 3] {
        let values = [self.cert.clone(), self.subject.clone(), self.fingerprint.clone()];
        let [cert, subject, fingerprint] = Self::NAMES;
        let [a, b, c] = values;
        [(cert, a), (subject, b), (fingerprint, c)]
    }

    /// Puts it in place of whatever stands under these names.
    pub fn tell(&self, fields: &mut HeaderMap) {
        for (name, value) in self.fields() {
            fields.insert(name, value);
        }
    }

    /// The names it stands under.
    pub const NAMES: [HeaderName; 3] = [CLIENT_CERT, SUBJECT, FINGERPRINT];
}

/// The subject, the most particular part first, as RFC 4514 writes it; all but plain ASCII escaped, so that it fits into a field and cannot be
/// read two ways.
fn subject(cert: &X509Ref) -> String {
    let entries: Vec<_> = cert.subject_name().entries().collect();
    let part = |entry: &&openssl::x509::X509NameEntryRef| {
        let nid = entry.object().nid();
        let name = match nid {
            Nid::COMMONNAME => "CN".to_owned(),
            Nid::UNDEF => entry.object().to_string(),
            nid => nid.short_name().unwrap_or("UNKNOWN").to_owned(),
        };
        let value = entry.data().to_string().unwrap_or_default();
        format!("{name}={}", escaped(&value))
    };
    let parts: Vec<String> = entries.iter().rev().map(part).collect();
    parts.join(",")
}

/// RFC 4514 §2.4.
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' ' | b'#' if at == 0 => out.extend(['\\', char::from(byte)]),
            b' ' if at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_name_cannot_be_read_as_two() {
        for (value, written) in [
            ("alice", "alice"),
            ("alice,O=admins", "alice\\,O=admins"),
            (" a ", "\\ a\\ "),
            ("#1", "\\#1"),
            ("a\"b\\c", "a\\\"b\\\\c"),
            ("a\r\nX: y", "a\\0D\\0AX: y"),
            ("é", "\\C3\\A9"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), written);
        }
    }
}
