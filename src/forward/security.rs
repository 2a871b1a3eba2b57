//! Fields by which an answer tells browsers to be careful, where the instance does not say so itself.

use std::time::Duration;

use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::edit::Change;

/// Who may show an answer within a frame (RFC 7034).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Pages of the same origin.
    SameOrigin,
    /// Nobody.
    Deny,
}

/// What is said where the instance says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    always: Vec<(HeaderName, HeaderValue)>,
    over_tls: Option<HeaderValue>,
}

/// For how long a browser is to use TLS alone (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// How long.
    pub age: Duration,
    /// Whether for subdomains, too.
    pub subdomains: bool,
    /// Whether browsers may be shipped with it.
    pub preload: bool,
}

/// What is to be said; `None` is nothing.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `Strict-Transport-Security`, said over TLS alone (RFC 6797 §7.2).
    pub hsts: Option<Hsts>,
    /// `X-Content-Type-Options: nosniff`.
    pub nosniff: bool,
    /// `Referrer-Policy`.
    pub referrer: Option<HeaderValue>,
    /// `X-Frame-Options`.
    pub frame: Option<Frame>,
    /// `Content-Security-Policy`.
    pub content: Option<HeaderValue>,
    /// `Permissions-Policy`.
    pub permissions: Option<HeaderValue>,
    /// `Cross-Origin-Opener-Policy`.
    pub opener: Option<HeaderValue>,
}

impl Security {
    /// Fields that say what is wanted.
    pub fn new(wanted: Wanted) -> Self {
        let frame = wanted.frame.map(|frame| match frame {
            Frame::SameOrigin => HeaderValue::from_static("SAMEORIGIN"),
            Frame::Deny => HeaderValue::from_static("DENY"),
        });
        let lines = [
            (X_CONTENT_TYPE_OPTIONS, wanted.nosniff.then_some(HeaderValue::from_static("nosniff"))),
            (REFERRER_POLICY, wanted.referrer),
            (X_FRAME_OPTIONS, frame),
            (CONTENT_SECURITY_POLICY, wanted.content),
            (HeaderName::from_static("permissions-policy"), wanted.permissions),
            (HeaderName::from_static("cross-origin-opener-policy"), wanted.opener),
        ];
        let always = lines.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let over_tls = wanted.hsts.and_then(|hsts| {
            let mut text = format!("max-age={}", hsts.age.as_secs());
            if hsts.subdomains {
                text.push_str("; includeSubDomains");
            }
            if hsts.preload {
                text.push_str("; preload");
            }
            HeaderValue::try_from(text).ok()
        });
        Self { always, over_tls }
    }

    /// The changes of an answer to a client that used https, or did not.
    pub fn changes(&self, https: bool) -> impl Iterator<Item = Change> {
        let hsts = self.over_tls.iter().filter(move |_| https);
        let hsts = hsts.map(|value| Change::Default(STRICT_TRANSPORT_SECURITY, value.clone()));
        let always = self.always.iter().map(|(name, value)| Change::Default(name.clone(), value.clone()));
        always.chain(hsts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::edit::Changes;
    use http::HeaderMap;

    #[test]
    fn tls_alone_is_asked_for_over_tls_alone_and_nothing_of_an_instances_is_overruled() {
        let security = Security::new(Wanted {
            hsts: Some(Hsts { age: Duration::from_secs(60), subdomains: true, preload: true }),
            nosniff: true,
            frame: Some(Frame::Deny),
            referrer: Some(HeaderValue::from_static("no-referrer")),
            ..Wanted::default()
        });
        let told = |https: bool| {
            let mut fields = HeaderMap::new();
            fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
            Changes(security.changes(https).collect()).apply(&mut fields);
            fields
        };
        assert_eq!(told(true)[STRICT_TRANSPORT_SECURITY], "max-age=60; includeSubDomains; preload");
        assert!(!told(false).contains_key(STRICT_TRANSPORT_SECURITY));
        assert_eq!(told(false)[X_FRAME_OPTIONS], "SAMEORIGIN");
        assert_eq!(told(false)[REFERRER_POLICY], "no-referrer");
        assert_eq!(told(false).len(), 3);
    }
}
