//! May it be stored, may it be reused? RFC 9111 and its family as pure rules with the time as an argument.
//!
//! Decided here: the key of a request ([`key`], [`vary`]), what Cache-Control and its kin say ([`directive`], [`date`]), whether an answer may be
//! stored and for how long ([`policy`]), whether a stored one may be reused ([`lookup`]), how it is validated and freshened ([`freshen`]), what the
//! client's own conditions and ranges mean for it ([`conditional`], [`range`]), what a change invalidates ([`invalidate`]), and how all this
//! is told ([`status`]). [`record`] is the stored form.
//!
//! Absent: sockets, stores, tasks, metrics, logging. A decision's reason is an enum, and is at once metric label, log field and
//! `Cache-Status` detail.

use std::time::Duration;

use http::HeaderName;

pub mod conditional;
pub mod content;
pub mod date;
pub mod directive;
pub mod freshen;
pub mod invalidate;
pub mod key;
pub mod lookup;
pub mod policy;
pub mod purge;
pub mod range;
pub mod record;
pub mod status;
pub mod vary;

/// The operator's rules for one cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The freshness lifetime the operator gives; its part is set by `ttl_mode`. `None`: only the origin's word and heuristics count.
    pub ttl: Option<Duration>,
    /// What `ttl` means next to the origin's word.
    pub ttl_mode: TtlMode,
    /// Lifetimes by status, each an inclusive range, used like `ttl` for those statuses; also makes them storable (negative caching).
    pub ttl_by_status: Vec<((u16, u16), Duration)>,
    /// Serve stale while fetching anew, for this long past freshness, when the origin does not say (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// Serve stale when the origin fails, for this long past freshness, when the origin does not say (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// Keep an entry that has a validator for this long past freshness, so that it can be validated rather than fetched.
    pub keep: Duration,
    /// What a Set-Cookie in an answer means.
    pub set_cookie: SetCookie,
    /// Whether a client's `no-cache`, `max-age`, `min-fresh`, `max-stale` and `Pragma` count.
    pub client_directives: ClientDirectives,
    /// Whether a lifetime may be derived from Last-Modified (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// Whether an answer that is asked for often is fetched anew shortly before it expires.
    pub early_refresh: bool,
    /// The targeted fields that take the place of Cache-Control, the first that is there and valid (RFC 9213 §2.2).
    pub targeted: Vec<HeaderName>,
    /// Which requests pass the cache by.
    pub bypass: BypassRules,
    /// How often an answer must have been asked for before it is stored; 1 is at once.
    pub min_uses: u8,
    /// What the key is made of beside scheme, host, port and path.
    pub key: KeyRules,
}

/// Which requests pass the cache by: their answers come from the origin and are not stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BypassRules {
    /// Those that have one of these fields.
    pub headers: Vec<HeaderName>,
    /// Those that have one of these cookies.
    pub cookies: Vec<String>,
}

/// The targeted field that every shared cache near the origin may be told by (RFC 9213 §3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Among whom one fetch serves all who ask for the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coalesce {
    /// Everybody fetches for himself.
    Off,
    /// The requests of one gateway.
    Process,
    /// Those of all gateways that share a Redis; without Redis, those of one gateway. The default: what is worth a cache is worth fetching once, and
    /// the question to Redis is a fraction of a millisecond that only misses pay.
    #[default]
    Fleet,
}

/// Which answers another gateway's clients may follow while they are fetched here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relay {
    /// None: other gateways do not wait for event streams, and for the rest until it is stored.
    Off,
    /// Event streams, which may take minutes. The default: whoever waited for the end of one would see nothing until then.
    #[default]
    Streams,
    /// All.
    All,
}

impl Relay {
    /// Whether an answer with these fields may be followed.
    pub fn takes(self, fields: &http::HeaderMap) -> bool {
        match self {
            Self::Off => false,
            Self::Streams => is_event_stream(fields),
            Self::All => true,
        }
    }
}

/// Whether an answer is a stream of events (HTML Standard §9.2): it may take as long as it likes.
pub fn is_event_stream(fields: &http::HeaderMap) -> bool {
    let kind = fields.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

/// What the operator's `ttl` means next to the origin's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlMode {
    /// It counts when the origin says nothing.
    #[default]
    Default,
    /// It counts whatever the origin says, as long as the answer may be stored at all.
    Override,
    /// The origin's word counts, up to it.
    Cap,
}

/// What a Set-Cookie in an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetCookie {
    /// Not stored: replaying one user's cookie to others is the worst a shared cache can do.
    #[default]
    Refuse,
    /// Stored without it.
    Strip,
    /// Stored with it (RFC 9111 §7.3 allows it).
    Store,
}

/// Whether a client's request directives count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientDirectives {
    /// They do (RFC 9111 §5.2.1).
    #[default]
    Honour,
    /// They do not, so that no client can make the gateway hammer the origin; `only-if-cached` still does.
    Ignore,
}

/// What the key is made of beside scheme, host, port and path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRules {
    /// Hosts that share one set of answers, told under the first; empty: every host has its own.
    pub hosts: Vec<String>,
    /// Which query parameters count.
    pub query: QueryRule,
    /// Whether query parameters are put in order first, so that `a=1&b=2` and `b=2&a=1` are one.
    pub sort_query: bool,
    /// Request fields that count.
    pub headers: Vec<HeaderName>,
    /// Cookies that count.
    pub cookies: Vec<String>,
}

impl KeyRules {
    /// The host under which a host's answers are told.
    fn host<'a>(&'a self, host: &'a str) -> &'a str {
        match self.hosts.first() {
            Some(first) if self.hosts.iter().any(|other| other == host) => first,
            _ => host,
        }
    }
}

/// Which query parameters count in the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QueryRule {
    /// All, as received.
    #[default]
    All,
    /// None.
    None,
    /// Only these.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ttl: None,
            ttl_mode: TtlMode::Default,
            ttl_by_status: Vec::new(),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            keep: Duration::from_secs(3600),
            set_cookie: SetCookie::Refuse,
            client_directives: ClientDirectives::Honour,
            heuristic: true,
            early_refresh: true,
            targeted: vec![CDN_CACHE_CONTROL],
            bypass: BypassRules::default(),
            min_uses: 1,
            key: KeyRules::default(),
        }
    }
}
