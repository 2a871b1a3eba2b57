//! `vanne cache get`, `ls` and `stats`: what a running gateway has stored, asked of its operator's listener.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use serde::de::DeserializeOwned;

use super::{Failure, HEALTHCHECK, Settings, get, post, print};
use crate::base::unit::ByteSize;
use crate::proxy::admin::{GET, LS, STATS};
use crate::proxy::stored::{List, Listed, Look, Looked, Shown};

/// What `vanne cache get` is told.
#[derive(Args)]
pub struct Get {
    /// The URL, with its query.
    url: String,
    /// A field of the request, which may choose among several answers: "Accept-Language: de". May be repeated.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `vanne cache ls` is told.
#[derive(Args)]
pub struct Ls {
    /// What their URLs begin with, with or without the scheme.
    #[arg(default_value = "")]
    prefix: String,
    /// How many at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `vanne cache stats` is told.
#[derive(Args)]
pub struct Stats {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows what lies under a URL. Fails when nothing does.
pub fn look(settings: &Settings, asked: Get) -> Result<(), Failure> {
    let headers = asked.headers.iter().map(|line| {
        let (name, value) = line.split_once(':').ok_or_else(|| Failure {
            code: 2,
            text: format!("vanne: {line:?} is no field; write it like \"Accept-Language: de\""),
        })?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    let look = Look { url: asked.url, headers: headers.collect::<Result<BTreeMap<_, _>, Failure>>()? };
    let answer = ask(settings, GET, &look)?;
    let looked: Looked = parsed(&answer)?;
    print(&if asked.json { answer } else { told(&looked) })?;
    match looked.entries.is_empty() {
        true => Err(Failure::at_run_time("vanne: nothing is stored there")),
        false => Ok(()),
    }
}

/// Lists what the gateway's memory holds.
pub fn list(settings: &Settings, asked: &Ls) -> Result<(), Failure> {
    let answer = ask(settings, LS, &List { prefix: asked.prefix.clone(), limit: asked.limit })?;
    if asked.json {
        return print(&answer);
    }
    let listed: Listed = parsed(&answer)?;
    let head = ["STATUS", "STATE", "AGE", "TTL", "SIZE", "CACHE", "URL"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(listed.entries.iter().map(|entry| {
        [
            entry.status.to_string(),
            entry.state.clone(),
            format!("{}s", entry.age),
            format!("{}s", entry.ttl),
            ByteSize(entry.size).to_string(),
            entry.cache.clone(),
            entry.url.clone(),
        ]
    }));
    let more = if listed.more { "… and more; --limit shows them\n" } else { "" };
    print(&format!("{}{more}", table(&rows)))
}

/// Shows figures.
pub fn stats(settings: &Settings, asked: &Stats) -> Result<(), Failure> {
    let (status, answer) = get(settings, STATS)?;
    let answer = checked(STATS, status, answer)?;
    if asked.json {
        return print(&answer);
    }
    let figures: serde_json::Value = parsed(&answer)?;
    let number = |of: &serde_json::Value, name: &str| of[name].as_u64().unwrap_or(0);
    let share = |hits: u64, misses: u64| match hits + misses {
        0 => "-".to_owned(),
        all => format!("{:.1} %", 100.0 * hits as f64 / all as f64),
    };
    let head = ["CACHE", "TIER", "ENTRIES", "SIZE", "OF", "HITS", "MISSES", "HIT RATE", "EVICTED"];
    let mut rows = vec![head.map(str::to_owned)];
    for cache in figures["caches"].as_array().into_iter().flatten() {
        let name = cache["name"].as_str().unwrap_or_default().to_owned();
        let (hits, misses) = (number(cache, "memory_hits"), number(cache, "memory_misses"));
        rows.push([
            name.clone(),
            "memory".to_owned(),
            number(cache, "entries").to_string(),
            ByteSize(number(cache, "bytes")).to_string(),
            ByteSize(number(cache, "capacity")).to_string(),
            hits.to_string(),
            misses.to_string(),
            share(hits, misses),
            number(cache, "evicted").to_string(),
        ]);
        if figures["redis"].is_null() {
            continue;
        }
        let (hits, misses) = (number(cache, "redis_hits"), number(cache, "redis_misses"));
        let none = || "-".to_owned();
        let row = [name, "redis".to_owned(), none(), none(), none()];
        let [name, tier, entries, size, of] = row;
        let (counts, rate) = ((hits.to_string(), misses.to_string()), share(hits, misses));
        rows.push([name, tier, entries, size, of, counts.0, counts.1, rate, none()]);
    }
    let mut text = table(&rows);
    let redis = &figures["redis"];
    if !redis.is_null() {
        let of = match number(redis, "maxmemory") {
            0 => "no limit".to_owned(),
            limit => ByteSize(limit).to_string(),
        };
        let up = if redis["up"] == true { "up" } else { "down" };
        let _ = writeln!(
            text,
            "\nredis: {up}, {} keys, {} of {of}, {} evicted, {} expired",
            number(redis, "keys"),
            ByteSize(number(redis, "used_memory")),
            number(redis, "evicted_keys"),
            number(redis, "expired_keys"),
        );
    }
    print(&text)
}

fn told(looked: &Looked) -> String {
    let mut text = String::new();
    for entry in &looked.entries {
        tell(&mut text, entry);
    }
    if !looked.vary.is_empty() {
        let _ = writeln!(text, "varies by {}; -H names another", looked.vary.join(", "));
    }
    if looked.not_shared {
        text.push_str("not for sharing when last seen\n");
    }
    if let Some(trouble) = &looked.redis_trouble {
        let _ = writeln!(text, "redis did not say: {trouble}");
    }
    text
}

fn tell(text: &mut String, entry: &Shown) {
    let Shown { url, cache, tier, status, state, age, ttl, size, tags, variant, fields } = entry;
    let size = ByteSize(*size);
    let _ = writeln!(text, "{url}\n  {tier} of {cache}: {status}, {state}, age {age} s, ttl {ttl} s, {size}");
    for (name, value) in variant {
        let _ = writeln!(text, "  for {name}: {}", value.as_deref().unwrap_or("(none)"));
    }
    if !tags.is_empty() {
        let _ = writeln!(text, "  tags {}", tags.join(", "));
    }
    for (name, lines) in fields {
        for line in lines {
            let _ = writeln!(text, "  < {name}: {line}");
        }
    }
}

/// Columns as wide as their widest cell; the last as wide as it is.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn ask(settings: &Settings, path: &str, what: &impl serde::Serialize) -> Result<String, Failure> {
    let body = serde_json::to_string(what).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))?;
    let (status, answer) = post(settings, path, &body, HEALTHCHECK)?;
    checked(path, status, answer)
}

fn checked(path: &str, status: u16, answer: String) -> Result<String, Failure> {
    match status {
        200 => Ok(answer),
        _ => Err(Failure::at_run_time(format!("vanne: {path} answered {status}: {}", answer.trim_end()))),
    }
}

fn parsed<T: DeserializeOwned>(answer: &str) -> Result<T, Failure> {
    serde_json::from_str(answer)
        .map_err(|e| Failure::at_run_time(format!("vanne: an answer that does not read: {e}")))
}
