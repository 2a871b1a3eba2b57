//! An explanation as plain data: JSON for programs, lines of text for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Explained {
    /// Its method.
    pub method: String,
    /// Its URL.
    pub url: String,
    /// Why it is refused before it is routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The route that takes it; none: the answer is 404.
    pub route: Option<Route>,
    /// The others, and why they do not.
    pub other_routes: Vec<Route>,
    /// What it must pass before anything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged_by: Vec<String>,
    /// The answer that the gateway gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Own>,
    /// The files that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Who else answers requests of this route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<Split>,
    /// Who is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// What the cache does with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What a running gateway knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Now>,
    /// What would be made of answers.
    pub answers: Vec<Judged>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The reason.
    pub why: String,
    /// The status it is answered with.
    pub status: String,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub takes: String,
    /// Why it does not take this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// An answer of the gateway's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Its status.
    pub status: String,
    /// Its length.
    pub bytes: usize,
}

/// A folder whose files answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Files {
    /// The folder.
    pub root: String,
    /// The path that names a file beneath it.
    pub asked: String,
    /// Whether the method reads files; else the answer is 405.
    pub readable: bool,
    /// What answers for a folder, the first that is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub index: Vec<String>,
    /// What answers where that file is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub or: Option<String>,
    /// What answers where there is no file, unless the name has an ending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How long browsers may keep it, unless it is a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
}

/// A part of a route's requests that another upstream answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Which part.
    pub when: String,
    /// Who answers it.
    pub upstream: String,
    /// Whether this request surely belongs to it.
    pub takes: bool,
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its instances.
    pub servers: Vec<String>,
    /// The request line that they see.
    pub asked: String,
}

/// The part of a cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Its name; none: the route has none.
    pub name: Option<String>,
    /// Why it is passed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed_by: Option<String>,
    /// The key, readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What becomes of an answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Judged {
    /// Its status and fields.
    pub answer: String,
    /// Whether it is stored.
    pub stored: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// For how many seconds it is fresh; none: it is validated before every use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_for: Option<u64>,
    /// Where that comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because_of: Option<String>,
    /// For how many seconds more it is served while it is fetched anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<u64>,
    /// For how many seconds more it is served when the instances fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<u64>,
}

/// What a running gateway knows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Now {
    /// What it would do with the request at this moment.
    pub does: String,
    /// What memory holds for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Held>,
    /// What Redis holds for it; none without Redis, or where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Held>,
    /// The instances as they are.
    pub instances: Vec<Instance>,
}

/// What a tier holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Nothing that serves it, and why.
    Nothing(String),
    /// An answer.
    Answer(Box<Answer>),
}

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The length of its content, in bytes.
    pub bytes: u64,
    /// Its age, in seconds.
    pub age: u64,
    /// How many seconds it stays fresh; negative: for so long it has been stale.
    pub ttl: i64,
    /// For how many seconds it is fresh in all.
    pub fresh_for: u64,
    /// Where that comes from.
    pub because_of: String,
    /// What was purged of it: `stale` (it was purged softly), `doubtful` (a purge may have been missed).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<String>,
    /// The request fields it was chosen by, with their values as compared.
    pub varies_by: Vec<String>,
    /// Its entity tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its address as written.
    pub name: String,
    /// How it stands, in the words of `vanne upstreams`.
    pub state: String,
    /// Requests in flight there.
    pub in_flight: u32,
}

/// A line: what it is about, and what is said.
fn line(f: &mut fmt::Formatter<'_>, about: &str, said: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{about:<9} {said}")
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}\n\n", self.method, self.url)?;
        if let Some(Refused { why, status }) = &self.refused {
            return line(f, "refused", format_args!("{why}, with {status}"));
        }
        match &self.route {
            Some(route) => line(f, "route", format_args!("{} ({})", route.name, route.takes))?,
            None => line(f, "route", format_args!("none, so the answer is 404"))?,
        }
        for Route { name, takes, why_not } in &self.other_routes {
            let why = why_not.as_deref().unwrap_or("it matches");
            line(f, "  not", format_args!("{name} ({takes}): {why}"))?;
        }
        if !self.judged_by.is_empty() {
            line(f, "judged by", format_args!("{}", self.judged_by.join(", ")))?;
        }
        if let Some(Own { status, bytes }) = &self.answer {
            line(f, "answer", format_args!("{status} from the gateway itself, {bytes} bytes"))?;
        }
        self.files.as_ref().map_or(Ok(()), |files| files.fmt(f))?;
        for Split { when, upstream, takes } in &self.split {
            let this_one = if *takes { ": this one" } else { "" };
            line(f, "split", format_args!("{when} to {upstream}{this_one}"))?;
        }
        if let Some(Upstream { name, servers, asked }) = &self.upstream {
            line(f, "upstream", format_args!("{name} ({})", servers.join(", ")))?;
            line(f, "  as", format_args!("{asked}"))?;
        }
        self.cache.as_ref().map_or(Ok(()), |cache| cache.fmt(f))?;
        self.now.as_ref().map_or(Ok(()), |now| now.fmt(f))?;
        if !self.answers.is_empty() {
            writeln!(f)?;
        }
        self.answers.iter().try_for_each(|judged| judged.fmt(f))
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "files", format_args!("{}, as {}", self.root, self.asked))?;
        if !self.readable {
            return line(f, "answer", format_args!("405: files are read with GET and HEAD"));
        }
        if !self.index.is_empty() {
            line(f, "  index", format_args!("{}", self.index.join(", ")))?;
        }
        if let Some(or) = &self.or {
            line(f, "  or", format_args!("{or}"))?;
        }
        if let Some(fallback) = &self.fallback {
            line(f, "  else", format_args!("{fallback}, unless the name has an ending"))?;
        }
        if let Some(value) = &self.cache_control {
            line(f, "browser", format_args!("Cache-Control: {value}, unless it is a page"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.passed_by) {
            (None, _) => line(f, "cache", format_args!("none on this route"))?,
            (Some(name), Some(why)) => line(f, "cache", format_args!("{name}, passed by: {why}"))?,
            (Some(name), None) => {
                line(f, "cache", format_args!("{name}: looked up, and fetched once for all who ask"))?;
            }
        }
        self.key.as_ref().map_or(Ok(()), |key| line(f, "key", format_args!("{key}")))
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "an answer {}", self.answer)?;
        write!(f, "          ")?;
        match (&self.why_not, self.fresh_for, &self.because_of) {
            (Some(why), ..) => write!(f, "not stored: {why}")?,
            (None, Some(time), Some(source)) => write!(f, "stored, fresh for {time} s ({source})")?,
            _ => write!(f, "stored, and validated before every use")?,
        }
        if let Some(time) = self.stale_while_revalidate {
            write!(f, "; served stale while fetched anew for {time} s more")?;
        }
        if let Some(time) = self.stale_if_error {
            write!(f, "; served stale when the instances fail for {time} s more")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "now", format_args!("{}", self.does))?;
        for (tier, held) in [("memory", &self.memory), ("redis", &self.redis)] {
            if let Some(held) = held {
                line(f, "  in", format_args!("{tier}: {held}"))?;
            }
        }
        for Instance { name, state, in_flight } in &self.instances {
            line(f, "  at", format_args!("{name}: {state}, {in_flight} in flight"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(why) => write!(f, "{why}"),
            Self::Answer(answer) => answer.fmt(f),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, bytes, age, ttl, fresh_for, because_of, .. } = self;
        write!(f, "{status}, {bytes} bytes, age {age} s, ")?;
        match ttl {
            1.. => write!(f, "fresh for {ttl} s more of {fresh_for} s ({because_of})")?,
            _ => write!(f, "stale for {} s after {fresh_for} s ({because_of})", -ttl)?,
        }
        if let Some(purged) = &self.purged {
            write!(f, "; {purged} by a purge")?;
        }
        if let Some(etag) = &self.etag {
            write!(f, "; etag {etag}")?;
        }
        if !self.varies_by.is_empty() {
            write!(f, "; for {}", self.varies_by.join(", "))?;
        }
        Ok(())
    }
}
