//! Which pages of other sites may read answers: cross-origin resource sharing, as the Fetch standard has it (§3.2 and §4.8).
//!
//! What an instance says itself about it gives way: a stored answer may name another page's origin.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
};
use http::{HeaderName, HeaderValue, Method};

use crate::base::fields::Fields;

/// Who may read what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The sites.
    pub origins: Origins,
    /// The methods a page may use beside GET, HEAD and POST.
    pub methods: Vec<Method>,
    /// The fields a page may send beside the plain ones.
    pub headers: Names,
    /// The fields of an answer that a page may read beside the plain ones.
    pub expose: Vec<HeaderName>,
    /// Whether a page may use its user's cookies and credentials.
    pub credentials: bool,
    /// For how long a browser may keep a preflight's answer.
    pub max_age: Duration,
}

/// Sites, as browsers name them: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All of them; never together with credentials.
    Any,
    /// These.
    These(Vec<Origin>),
}

/// One site, or all subdomains of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `https://app.example.com`
    Exact(String),
    /// `https://*.example.com:8443`: what stands before the star and after it, the dot included.
    Subdomains {
        /// `https://`
        before: String,
        /// `.example.com:8443`
        after: String,
    },
}

/// Field names, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Whatever is asked for.
    Any,
    /// These.
    These(Vec<HeaderName>),
}

/// Fields to be set.
pub type Lines = Vec<(HeaderName, HeaderValue)>;

/// The fields that only whoever decides about sharing may set.
pub const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

impl Origin {
    /// Reads a site as it is written in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme_reads = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        let (host, star) = match authority.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (authority, false),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, Some(port)),
            _ => (host, None),
        };
        let port_reads = port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_reads = match bracketed {
            Some(addr) => !star && addr.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && !host.starts_with('.')
                    && !host.ends_with('.')
                    && !host.contains("..")
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
            }
        };
        if !(scheme_reads && host_reads && port_reads) {
            return None;
        }
        Some(match star {
            true => Self::Subdomains { before: format!("{scheme}://"), after: authority[1..].to_owned() },
            false => Self::Exact(text.to_owned()),
        })
    }

    /// Whether it is the site that `origin`, a field's value, names. Browsers write origins in lower case; another spelling is another site.
    pub fn is(&self, origin: &str) -> bool {
        match self {
            Self::Exact(text) => text == origin,
            Self::Subdomains { before, after } => {
                let label =
                    origin.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
                label.is_some_and(|label| {
                    !label.is_empty()
                        && !label.starts_with('.')
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
                })
            }
        }
    }
}

/// Whether a request only asks whether another one may be made, and with which method.
pub fn preflight(method: &Method, fields: &dyn Fields) -> Option<Method> {
    if *method != Method::OPTIONS || !fields.has("origin") {
        return None;
    }
    Method::from_bytes(fields.first("access-control-request-method")?).ok()
}

impl Rules {
    /// Whether the answer differs from origin to origin, so that it must say so in `Vary`.
    pub fn varies(&self) -> bool {
        self.origins != Origins::Any
    }

    /// What the answer to a request says to the page that made it; nothing to one that may not read it.
    pub fn answer(&self, fields: &dyn Fields) -> Lines {
        let Some(origin) = self.allowed(fields) else { return Vec::new() };
        let mut lines = self.who(origin);
        if let Some(names) = joined(self.expose.iter().map(HeaderName::as_str)) {
            lines.push((ACCESS_CONTROL_EXPOSE_HEADERS, names));
        }
        lines
    }

    /// What a preflight is told; nothing when its page may not ask.
    pub fn preflight(&self, fields: &dyn Fields) -> Lines {
        let Some(origin) = self.allowed(fields) else { return Vec::new() };
        let mut lines = self.who(origin);
        if let Some(methods) = joined(self.methods.iter().map(Method::as_str)) {
            lines.push((ACCESS_CONTROL_ALLOW_METHODS, methods));
        }
        if let Some(names) = self.headers_for(fields) {
            lines.push((ACCESS_CONTROL_ALLOW_HEADERS, names));
        }
        lines.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs())));
        lines
    }

    fn allowed(&self, fields: &dyn Fields) -> Option<HeaderValue> {
        let mut lines = 0;
        fields.each("origin", &mut |_| lines += 1);
        let origin = fields.first("origin").filter(|_| lines == 1)?;
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::These(list) => {
                let text = std::str::from_utf8(origin).ok()?;
                list.iter().any(|site| site.is(text)).then(|| HeaderValue::from_bytes(origin).ok())?
            }
        }
    }

    fn who(&self, origin: HeaderValue) -> Lines {
        let mut lines = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin)];
        if self.credentials {
            lines.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        lines
    }

    /// What is asked for where anything may be, as far as it is a list of names; `*` would not cover `Authorization`, nor anything with credentials.
    fn headers_for(&self, fields: &dyn Fields) -> Option<HeaderValue> {
        match &self.headers {
            Names::These(names) => joined(names.iter().map(HeaderName::as_str)),
            Names::Any => {
                let asked = fields.joined("access-control-request-headers")?;
                let names: Option<Vec<HeaderName>> = asked
                    .split(|byte| *byte == b',')
                    .map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
                    .collect();
                joined(names?.iter().map(HeaderName::as_str))
            }
        }
    }
}

fn joined<'n>(names: impl Iterator<Item = &'n str>) -> Option<HeaderValue> {
    let text = names.collect::<Vec<_>>().join(", ");
    if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_site_is_a_scheme_a_host_and_perhaps_a_port() {
        for right in [
            "https://example.com",
            "http://localhost:3000",
            "https://*.example.com",
            "https://*.example.com:8443",
            "http://[::1]:3000",
            "capacitor://localhost",
            "chrome-extension://abcdef",
        ] {
            assert!(Origin::parse(right).is_some(), "{right}");
        }
        for wrong in [
            "*",
            "null",
            "example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://example.com/",
            "https://example.com/path",
            "https://Example.com",
            "HTTPS://example.com",
            "https://a.*.example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:99999",
            "https://example.com:8x",
            "https://user@example.com",
            "https://example..com",
            "https://.example.com",
            "https://exam ple.com",
        ] {
            assert!(Origin::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_star_stands_for_subdomains_and_for_nothing_else() {
        let star = origin("https://*.example.com");
        for (text, is) in [
            ("https://a.example.com", true),
            ("https://a.b.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("https://a.example.com.evil.test", false),
            ("http://a.example.com", false),
            ("https://a.example.com:8443", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test?.example.com", false),
            ("https://evil.test#.example.com", false),
            ("https://user@a.example.com", false),
            ("https://evil.test:80.example.com", false),
            ("https://A.example.com", false),
            ("null", false),
        ] {
            assert_eq!(star.is(text), is, "{text}");
        }
        assert!(origin("https://*.example.com:8443").is("https://a.example.com:8443"));
        assert!(origin("https://example.com").is("https://example.com"));
        assert!(!origin("https://example.com").is("https://example.com:443"));
    }

    fn rules() -> Rules {
        Rules {
            origins: Origins::These(vec![origin("https://app.test"), origin("https://*.app.test")]),
            methods: vec![Method::GET, Method::PUT],
            headers: Names::These(vec![HeaderName::from_static("x-one")]),
            expose: vec![HeaderName::from_static("x-total")],
            credentials: true,
            max_age: Duration::from_secs(600),
        }
    }

    fn shown(lines: Lines) -> String {
        let line = |(name, value): (HeaderName, HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_page_is_told_what_it_may_and_others_are_told_nothing() {
        let rules = rules();
        let asked = Pairs(&[
            ("Origin", b"https://app.test"),
            ("Access-Control-Request-Method", b"PUT"),
            ("Access-Control-Request-Headers", b"x-one, x-two"),
        ]);
        assert_eq!(
            shown(rules.answer(&asked)),
            "access-control-allow-origin: https://app.test\naccess-control-allow-credentials: true\n\
             access-control-expose-headers: x-total"
        );
        assert_eq!(
            shown(rules.preflight(&asked)),
            "access-control-allow-origin: https://app.test\naccess-control-allow-credentials: true\n\
             access-control-allow-methods: GET, PUT\naccess-control-allow-headers: x-one\naccess-control-max-age: 600"
        );
        for other in [
            &[("origin", &b"https://evil.test"[..])][..],
            &[("origin", b"null")],
            &[("origin", b"https://app.test"), ("origin", b"https://app.test")],
            &[("origin", b"https://app.test, https://evil.test")],
            &[],
        ] {
            assert_eq!(rules.answer(&Pairs(other)), [], "{other:?}");
            assert_eq!(rules.preflight(&Pairs(other)), [], "{other:?}");
        }
    }

    #[test]
    fn all_sites_are_told_a_star_and_any_field_is_echoed_as_names_alone() {
        let open = Rules { origins: Origins::Any, headers: Names::Any, credentials: false, ..rules() };
        let asked = Pairs(&[("origin", b"https://x.test"), ("access-control-request-headers", b"X-A,x-b")]);
        assert!(shown(open.preflight(&asked)).starts_with("access-control-allow-origin: *\n"));
        assert!(shown(open.preflight(&asked)).contains("access-control-allow-headers: x-a, x-b\n"));
        assert!(!open.varies());
        let odd = Pairs(&[("origin", b"https://x.test"), ("access-control-request-headers", b"x a")]);
        assert!(!shown(open.preflight(&odd)).contains("allow-headers"));
    }

    #[test]
    fn only_options_with_an_origin_and_a_method_is_a_preflight() {
        let whole = Pairs(&[("origin", b"https://a.test"), ("access-control-request-method", b"PUT")]);
        assert_eq!(preflight(&Method::OPTIONS, &whole), Some(Method::PUT));
        assert_eq!(preflight(&Method::GET, &whole), None);
        assert_eq!(preflight(&Method::OPTIONS, &Pairs(&[("origin", b"https://a.test")])), None);
        assert_eq!(preflight(&Method::OPTIONS, &Pairs(&[("access-control-request-method", b"PUT")])), None);
    }
}
