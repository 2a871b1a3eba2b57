//! What a shared cache does, behaviour by behaviour, over real sockets: RFC 9111 and its family as tables of facts.
//!
//! A [`Fact`] is two requests for one target: what the origin answered to the first, how long the second comes after it, and whether the
//! second was answered from storage, from the origin, or after a validation. Behaviours that need more than that are tests of their own.

mod freshness;

mod storing;

mod reusing;

mod vary;

mod language;

mod conditions;

mod updating;

mod invalidating;

mod failing;

mod rules;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vanne::base::clock::WallTime;
use vanne::cache::date;

use crate::edge::Edge;
use crate::support::client::Answer;
use crate::support::origin::{Origin, Reply, reply};

/// What became of the second request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It was answered from storage.
    Reused,
    /// The origin answered, unconditionally asked.
    Fetched,
    /// The origin was asked with a condition of ours.
    Validated,
}

/// Two requests for one target. Lines are `name: value`, one a line; [`dated`] tells how dates are written.
#[derive(Debug, Clone)]
pub struct Fact {
    what: &'static str,
    status: u16,
    answer: &'static str,
    first: &'static str,
    later: u64,
    second: &'static str,
    method: &'static str,
    then: Then,
}

/// A 200 with these lines, asked for again at once.
pub const fn fact(what: &'static str, answer: &'static str, then: Then) -> Fact {
    Fact { what, status: 200, answer, first: "", later: 0, second: "", method: "GET", then }
}

impl Fact {
    /// The first answer has this status.
    pub const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The second request comes so many seconds later.
    pub const fn later(mut self, seconds: u64) -> Self {
        self.later = seconds;
        self
    }

    /// The first request has these lines.
    pub const fn first(mut self, lines: &'static str) -> Self {
        self.first = lines;
        self
    }

    /// The second request has these lines.
    pub const fn second(mut self, lines: &'static str) -> Self {
        self.second = lines;
        self
    }

    /// Both requests have these lines.
    pub const fn both(self, lines: &'static str) -> Self {
        self.first(lines).second(lines)
    }
}

/// A gateway before an origin, and targets that nobody has asked for yet.
pub struct Bench {
    pub origin: Origin,
    pub edge: Edge,
    next: Cell<usize>,
}

impl Bench {
    /// With these lines in `[caches.api]`.
    pub async fn with(cache: &str) -> Self {
        let origin = Origin::new().start().await;
        let edge = Edge::serving(&origin).cache(cache).start().await;
        Self { origin, edge, next: Cell::new(0) }
    }

    /// With every default.
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// A target of its own.
    pub fn target(&self) -> String {
        self.next.set(self.next.get() + 1);
        format!("/{}", self.next.get())
    }

    /// The gateway's time, which [`Edge::grow_older`] moves.
    pub fn now(&self) -> WallTime {
        self.edge.now()
    }

    /// Sets the origin's answer for a target.
    pub fn answer(&self, target: &str, status: u16, lines: &str, body: &str) {
        self.origin.set(target, self.reply(status, lines).body(body));
    }

    /// An answer of the origin with these lines.
    pub fn reply(&self, status: u16, lines: &str) -> Reply {
        let add = |reply: Reply, (name, value): (String, String)| reply.header(&name, &value);
        dated(lines, self.now()).into_iter().fold(reply(status), add)
    }

    /// A request with these lines.
    pub async fn ask(&self, method: &str, target: &str, lines: &str) -> Answer {
        let ask = self.edge.request(method, target);
        dated(lines, self.now()).iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send().await
    }

    /// A GET with these lines.
    pub async fn get(&self, target: &str, lines: &str) -> Answer {
        self.ask("GET", target, lines).await
    }

    pub fn later(&self, seconds: u64) {
        self.edge.grow_older(Duration::from_secs(seconds));
    }

    /// Tries every fact and fails with the whole list of those that do not hold.
    pub async fn hold(&self, facts: &[Fact]) {
        let mut broken = Vec::new();
        for fact in facts {
            let found = self.tried(fact).await;
            if found != Ok(fact.then) {
                broken.push(format!("{}: {found:?}, not {:?}; {fact:?}", fact.what, fact.then));
            }
        }
        assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), facts.len(), broken.join("\n"));
    }

    async fn tried(&self, fact: &Fact) -> Result<Then, String> {
        let target = self.target();
        let status = fact.status;
        let lines = dated(fact.answer, self.now());
        let count = AtomicUsize::new(0);
        self.origin.set_script(&target, move |_| {
            let body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst));
            let head = lines.iter().fold(reply(status), |reply, (name, value)| reply.header(name, value));
            if matches!(status, 204 | 304) { head } else { head.body(body) }
        });
        let first = self.ask(fact.method, &target, fact.first).await;
        if first.status != status {
            return Err(format!("status {}", first.status));
        }
        self.later(fact.later);
        let second = self.ask(fact.method, &target, fact.second).await;
        if second.status != status || second.truncated.is_some() {
            return Err(format!("status {} the second time", second.status));
        }
        let last = self.origin.last(&target);
        let conditional = last.header("if-none-match").or(last.header("if-modified-since")).is_some();
        let whole = fact.method == "HEAD" || matches!(status, 204 | 304);
        let said = |expected: &str| {
            if whole || second.text() == expected {
                Ok(())
            } else {
                Err(format!("the content {:?}", second.text()))
            }
        };
        match self.origin.hits(&target) {
            1 => said("answer 0").map(|()| Then::Reused),
            2 if conditional => said("answer 1").map(|()| Then::Validated),
            2 => said("answer 1").map(|()| Then::Fetched),
            more => Err(format!("{more} requests reached the origin")),
        }
    }

    pub async fn finish(self) {
        self.edge.finish().await;
        self.origin.finish().await;
    }
}

/// Fields written as lines. `{i+60}` is the date in 60 seconds in IMF form, `{r-60}` that of a minute ago in RFC 850 form, `{a+0}` now in asctime
/// form; `{i+60|GMT>UTC}` is spelled otherwise in one place.
pub fn dated(lines: &str, now: WallTime) -> Vec<(String, String)> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a line is name: value");
            (name.to_owned(), with_dates(value.strip_prefix(' ').unwrap_or(value), now))
        })
        .collect()
}

fn with_dates(text: &str, now: WallTime) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let (template, after) = rest.split_once('}').expect("a date ends with }");
    let (when, change) = template.split_once('|').unwrap_or((template, ""));
    let seconds: i64 = when[1..].parse().expect("a date is {form±seconds}");
    let by = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { now.minus(by) } else { now.plus(by) };
    let spelled = in_form(&when[..1], at);
    let spelled = match change.split_once('>') {
        Some((from, to)) => {
            assert!(spelled.contains(from), "{spelled} has no {from}");
            spelled.replacen(from, to, 1)
        }
        None => spelled,
    };
    format!("{before}{spelled}{}", with_dates(after, now))
}

fn in_form(form: &str, at: WallTime) -> String {
    let imf = date::format(at);
    let words: Vec<&str> = imf.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let [weekday, day, month, year, time, _] = words[..] else { panic!("{imf} has six words") };
    let full = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let long = full.iter().find(|name| name.starts_with(weekday)).expect("a day of the week");
    match form {
        "i" => imf,
        "r" => format!("{long}, {day}-{month}-{} {time} GMT", &year[2..]),
        "a" => format!("{weekday} {month} {:>2} {time} {year}", day.trim_start_matches('0')),
        _ => panic!("no date has the form {form}"),
    }
}
