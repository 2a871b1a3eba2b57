//! `vanne cache warm`: asks the gateway for what should be stored before clients do.
//!
//! Requests go through a public listener like anybody's, so that what they store is what clients will find. URLs of https are told as such in
//! X-Forwarded-Proto, which a gateway believes that names this machine among its `trusted_proxies`.

use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::fetch::{Fetched, fetch};
use super::{Failure, Settings, plan, print, reachable, runtime};
use crate::base::clock::Clock;

/// How long one answer may take: a generated one takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);
/// The largest sitemap: 50 MiB by the protocol of sitemaps.org.
const SITEMAP: usize = 50 * 1024 * 1024;
/// The most URLs of one run.
const MOST: usize = 1_000_000;
/// How many sitemaps of an index are read.
const SITEMAPS: usize = 1000;
/// The width of the progress bar, in characters.
const BAR: usize = 30;

/// What to ask for, and how.
#[derive(Args)]
#[command(group(ArgGroup::new("source").required(true).args(["list", "log", "sitemap"])))]
pub struct Warm {
    /// A file with a URL a line; "-" is standard input. A path alone is one of --host.
    #[arg(long)]
    list: Option<PathBuf>,
    /// An access log of the gateway: what was asked for by GET and answered with 200, the most frequent first.
    #[arg(long)]
    log: Option<PathBuf>,
    /// A sitemap or an index of sitemaps: a file, or a URL that is asked of the gateway.
    #[arg(long)]
    sitemap: Option<String>,
    /// The host of paths.
    #[arg(long)]
    host: Option<String>,
    /// The listener to ask [default: the first of the configuration].
    #[arg(long)]
    via: Option<SocketAddr>,
    /// Requests at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Requests per second at most.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// URLs at most.
    #[arg(long)]
    limit: Option<usize>,
    /// A field of every request: "Accept-Language: de". May be repeated.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Default, Clone, Serialize)]
struct Tally {
    /// URLs asked for.
    asked: usize,
    /// Fetched and stored.
    stored: usize,
    /// Stored already.
    hit: usize,
    /// Answered, and not stored.
    not_stored: usize,
    /// Answered with 500 or more, or not at all.
    failed: usize,
    /// Bytes of content.
    bytes: u64,
    /// Seconds from first to last.
    seconds: f64,
    /// The first that failed, with why.
    failures: Vec<String>,
}

/// Asks for everything; fails when something failed.
pub fn warm(settings: &Settings, warm: Warm) -> Result<(), Failure> {
    check_headers(&warm.headers)?;
    let addr = match warm.via {
        Some(addr) => addr,
        None => {
            let plan = plan(settings)?;
            let listener = plan.listeners.first();
            reachable(listener.ok_or_else(|| Failure::at_run_time("vanne: there is no listener"))?.addr)
        }
    };
    let json = warm.json;
    let tally = runtime(2)?.block_on(run(addr, warm))?;
    print(&if json { as_json(&tally)? } else { told(&tally) })?;
    match tally.failed {
        0 => Ok(()),
        failed => Err(Failure::at_run_time(format!("vanne: {failed} of {} failed", tally.asked))),
    }
}

fn check_headers(headers: &[String]) -> Result<(), Failure> {
    let right = |line: &String| {
        let name = line.split_once(':').map(|(name, _)| name.trim());
        name.is_some_and(|name| http::HeaderName::from_bytes(name.as_bytes()).is_ok())
            && !line.contains(['\r', '\n'])
    };
    match headers.iter().find(|line| !right(line)) {
        None => Ok(()),
        Some(wrong) => Err(Failure {
            code: 2,
            text: format!("vanne: {wrong:?} is no field; write it like \"Accept-Language: de\""),
        }),
    }
}

fn as_json(tally: &Tally) -> Result<String, Failure> {
    let text =
        serde_json::to_string_pretty(tally).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))?;
    Ok(text + "\n")
}

fn told(tally: &Tally) -> String {
    let Tally { asked, stored, hit, not_stored, failed, bytes, seconds, failures } = tally;
    let mut text = format!(
        "{asked} asked in {seconds:.1} s: {stored} stored, {hit} there already, {not_stored} not stored, {failed} failed; {bytes} bytes\n"
    );
    failures.iter().for_each(|failure| text.extend(["  ", failure, "\n"]));
    text
}

async fn run(addr: SocketAddr, warm: Warm) -> Result<Tally, Failure> {
    let mut urls = sources(addr, &warm).await?;
    urls.truncate(warm.limit.unwrap_or(MOST).min(MOST));
    let clock = Clock::start();
    let begun = clock.mono();
    let work = Arc::new(Work {
        addr,
        headers: warm.headers.iter().map(|line| format!("{line}\r\n")).collect(),
        total: urls.len(),
        urls: Mutex::new(urls.into()),
        pace: warm.rate.map(|rate| tokio::sync::Mutex::new(pace(rate))),
        tally: Mutex::default(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..warm.concurrency {
        workers.spawn(work.clone().ask());
    }
    let shown = std::io::stderr().is_terminal();
    let mut tick = interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            ended = workers.join_next() => if ended.is_none() { break },
            _ = tick.tick(), if shown => show(&work.so_far(), work.total),
        }
    }
    if shown {
        show(&work.so_far(), work.total);
        let _ = writeln!(std::io::stderr());
    }
    Ok(Tally { seconds: clock.mono().since(begun).as_secs_f64(), ..work.so_far() })
}

fn pace(rate: u32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn show(tally: &Tally, total: usize) {
    let filled = (tally.asked * BAR).checked_div(total).unwrap_or(BAR);
    let bar = format!("{}{}", "=".repeat(filled), " ".repeat(BAR - filled));
    let (asked, failed) = (tally.asked, tally.failed);
    let _ = write!(std::io::stderr(), "\r[{bar}] {asked}/{total}, {failed} failed ");
}

struct Work {
    addr: SocketAddr,
    headers: String,
    total: usize,
    urls: Mutex<VecDeque<Url>>,
    pace: Option<tokio::sync::Mutex<Interval>>,
    tally: Mutex<Tally>,
}

impl Work {
    async fn ask(self: Arc<Self>) {
        loop {
            if let Some(pace) = &self.pace {
                pace.lock().await.tick().await;
            }
            let next = self.urls.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(url) = next else { return };
            let answer = fetch(self.addr, &url.request(&self.headers), 0, PATIENCE).await;
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).note(&url, answer);
        }
    }

    fn so_far(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tally {
    fn note(&mut self, url: &Url, answer: Result<Fetched, String>) {
        const SHOWN: usize = 20;
        self.asked += 1;
        let why = match answer {
            Ok(answer) if answer.status < 500 => {
                self.bytes += answer.bytes;
                let says = |word: &str| answer.cache_status.contains(word);
                // What another request fetches at this moment is stored as well.
                match (says("; hit"), says("; stored") || says("; collapsed")) {
                    (true, _) => self.hit += 1,
                    (_, true) => self.stored += 1,
                    _ => self.not_stored += 1,
                }
                return;
            }
            Ok(answer) => format!("answered {}", answer.status),
            Err(why) => why,
        };
        self.failed += 1;
        if self.failures.len() < SHOWN {
            self.failures.push(format!("{}: {why}", url.text()));
        }
    }
}

/// A URL to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Url {
    https: bool,
    authority: String,
    target: String,
}

impl Url {
    /// `None` for what is none: it would be sent as part of a head.
    fn read(text: &str, host: Option<&str>) -> Option<Self> {
        let text = text.trim();
        let (https, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        let (authority, target) = match (rest.len() < text.len(), host) {
            (true, _) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
            (false, Some(host)) if text.starts_with('/') => (host, text),
            _ => return None,
        };
        let target = target.split('#').next().unwrap_or_default();
        let slash = if target.starts_with('/') { "" } else { "/" };
        let url = Self { https, authority: authority.to_owned(), target: format!("{slash}{target}") };
        let clean = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        (clean(&url.authority) && clean(&url.target)).then_some(url)
    }

    fn text(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.target)
    }

    fn request(&self, headers: &str) -> String {
        let Self { authority, target, .. } = self;
        let proto = if self.https { "X-Forwarded-Proto: https\r\n" } else { "" };
        format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: vanne-warm\r\n{proto}{headers}Connection: close\r\n\r\n"
        )
    }
}

async fn sources(addr: SocketAddr, warm: &Warm) -> Result<Vec<Url>, Failure> {
    let host = warm.host.as_deref();
    let urls = if let Some(path) = &warm.list {
        let text = if path == Path::new("-") { standard_input() } else { std::fs::read_to_string(path) };
        listed(&text.map_err(|e| unreadable(&path.display().to_string(), &e))?, host)?
    } else if let Some(path) = &warm.log {
        let file = std::fs::File::open(path).map_err(|e| unreadable(&path.display().to_string(), &e))?;
        logged(std::io::BufReader::new(file), host)
    } else {
        mapped(addr, warm.sitemap.as_deref().unwrap_or_default(), host).await?
    };
    let mut known = HashSet::new();
    Ok(urls.into_iter().filter(|url| known.insert(url.clone())).collect())
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::at_run_time(format!("vanne: cannot read {name}: {error}"))
}

fn standard_input() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map(|_| text)
}

/// A URL a line; empty lines and those that begin with # do not count.
fn listed(text: &str, host: Option<&str>) -> Result<Vec<Url>, Failure> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            Url::read(line, host).ok_or_else(|| Failure {
                code: 2,
                text: format!(
                    "vanne: {line:?} is no URL; write it like https://host/path, or /path with --host"
                ),
            })
        })
        .collect()
}

/// What was asked for by GET and answered with 200, the most frequent first. Lines that are none of ours are passed over.
fn logged(log: impl BufRead, host: Option<&str>) -> Vec<Url> {
    let mut counts: std::collections::HashMap<Url, (usize, usize)> = std::collections::HashMap::new();
    for (position, line) in log.lines().map_while(Result::ok).enumerate() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        if line["method"] != "GET" || line["status"] != 200 {
            continue;
        }
        let said = |name: &str| line[name].as_str().unwrap_or_default();
        if let Some(url) = Url::read(said("target"), Some(host.unwrap_or(said("host")))) {
            counts.entry(url).or_insert((0, position)).0 += 1;
        }
    }
    let mut urls: Vec<_> = counts.into_iter().collect();
    urls.sort_by_key(|(_, (count, position))| (std::cmp::Reverse(*count), *position));
    urls.into_iter().map(|(url, _)| url).collect()
}

/// The URLs of a sitemap, and of those that an index names.
async fn mapped(addr: SocketAddr, source: &str, host: Option<&str>) -> Result<Vec<Url>, Failure> {
    let mut urls = Vec::new();
    let mut sitemaps = VecDeque::from([source.to_owned()]);
    let mut read = HashSet::new();
    while let Some(source) = sitemaps.pop_front() {
        if !read.insert(source.clone()) || read.len() > SITEMAPS {
            continue;
        }
        let text = sitemap(addr, &source).await?;
        let found = locations(&text);
        if text.contains("<sitemapindex") {
            sitemaps.extend(found);
        } else {
            urls.extend(found.iter().filter_map(|url| Url::read(url, host)));
        }
        if urls.len() >= MOST {
            break;
        }
    }
    Ok(urls)
}

async fn sitemap(addr: SocketAddr, source: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::at_run_time(format!("vanne: the sitemap {source}: {why}"));
    if !source.contains("://") {
        return std::fs::read_to_string(source).map_err(|e| wrong(&e.to_string()));
    }
    let url = Url::read(source, None).ok_or_else(|| wrong("that is no URL"))?;
    let answer = fetch(addr, &url.request(""), SITEMAP, PATIENCE).await.map_err(|why| wrong(&why))?;
    match answer.status {
        200 => Ok(String::from_utf8_lossy(&answer.content).into_owned()),
        status => Err(wrong(&format!("the gateway answered {status}"))),
    }
}

/// What stands in `<loc>`.
fn locations(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("<loc>") {
        let Some((location, after)) = after.split_once("</loc>") else { break };
        let location = location.trim();
        let bare = location.strip_prefix("<![CDATA[").and_then(|inner| inner.strip_suffix("]]>"));
        found.push(bare.map_or_else(|| unescaped(location), |bare| bare.trim().to_owned()));
        rest = after;
    }
    found
}

/// The five entities of XML undone; the ampersand last, so that nothing is undone twice.
fn unescaped(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_what_would_break_a_head_is_not() {
        for (text, host, shown) in [
            ("http://a/b?c#d", None, Some("http://a/b?c")),
            ("https://a:8443", None, Some("https://a:8443/")),
            ("https://a?q", None, Some("https://a/?q")),
            ("/b", Some("a"), Some("http://a/b")),
            ("/b", None, None),
            ("b", Some("a"), None),
            ("http:///b", None, None),
            ("http://a/b c", None, None),
            ("http://a/\u{e9}", None, None),
        ] {
            assert_eq!(Url::read(text, host).map(|url| url.text()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_log_gives_what_was_asked_for_most_first() {
        let line = |method: &str, target: &str, status: u16| {
            format!(
                "{{\"method\":\"{method}\",\"host\":\"a\",\"target\":\"{target}\",\"status\":{status}}}\n"
            )
        };
        let log = [
            line("GET", "/once", 200),
            line("GET", "/often", 200),
            "not ours\n".to_owned(),
            line("POST", "/posted", 200),
            line("GET", "/missing", 404),
            line("GET", "/often", 200),
        ]
        .concat();
        let urls: Vec<String> = logged(log.as_bytes(), None).iter().map(Url::text).collect();
        assert_eq!(urls, ["http://a/often", "http://a/once"]);
    }

    #[test]
    fn a_sitemap_gives_its_locations() {
        let text = "<urlset><url><loc> http://a/1?x=1&amp;y=2 </loc></url><url><loc><![CDATA[http://a/2]]></loc></url><url><loc>http://a/3";
        assert_eq!(locations(text), ["http://a/1?x=1&y=2", "http://a/2"]);
        assert_eq!(unescaped("&amp;lt;"), "&lt;");
    }
}
