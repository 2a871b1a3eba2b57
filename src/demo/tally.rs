//! What the clients saw, counted: by second for the table, in all for the verdict.

use std::time::Duration;

use super::load::Framing;

/// One answer, as far as the figures go by it.
pub struct Answer {
    status: u16,
    instance: Option<usize>,
    cache: Cache,
    /// The gateway closes the connection after it.
    pub close: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Memory,
    Redis,
    Stale,
    Missed,
    Passed,
}

impl Answer {
    /// Reads a head and how its content is framed.
    pub fn parse(head: &[u8]) -> Option<(Self, Framing)> {
        let mut lines = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut lines);
        parsed.parse(head).ok()?;
        let field = |name: &str| {
            parsed
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name))
                .and_then(|h| std::str::from_utf8(h.value).ok())
        };
        let framing = match field("content-length") {
            Some(length) => Framing::Length(length.parse().ok()?),
            None => Framing::Chunked,
        };
        let instance = field("x-instance")
            .and_then(|name| name.strip_prefix("api-")?.parse::<usize>().ok()?.checked_sub(1));
        let cache = field("cache-status").map_or(Cache::Passed, told);
        let close = field("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        Some((Self { status: parsed.code?, instance, cache, close }, framing))
    }
}

/// What `Cache-Status` tells.
fn told(member: &str) -> Cache {
    let stale = member.split("ttl=").nth(1).is_some_and(|ttl| ttl.starts_with('-'));
    match (member.contains("; hit"), stale) {
        (true, true) => Cache::Stale,
        (true, false) if member.contains("-redis") => Cache::Redis,
        (true, false) => Cache::Memory,
        _ => Cache::Missed,
    }
}

/// One second.
#[derive(Default)]
pub struct Second {
    times: Vec<Duration>,
    served: [u64; 3],
    pub memory: u64,
    pub redis: u64,
    pub stale: u64,
    pub missed: u64,
    pub passed: u64,
    failed: u64,
}

impl Second {
    /// Notes an answer, or that none came.
    pub fn note(&mut self, answer: Option<Answer>, took: Duration) {
        let Some(answer) = answer.filter(|a| a.status == 200) else {
            self.failed += 1;
            return;
        };
        self.times.push(took);
        match answer.cache {
            Cache::Memory => self.memory += 1,
            Cache::Redis => self.redis += 1,
            Cache::Stale => self.stale += 1,
            Cache::Missed => self.missed += 1,
            Cache::Passed => self.passed += 1,
        }
        // A stored answer names the instance it once came from; only a fresh one was served by it now.
        if matches!(answer.cache, Cache::Missed | Cache::Passed)
            && let Some(count) = answer.instance.and_then(|i| self.served.get_mut(i))
        {
            *count += 1;
        }
    }

    pub fn count(&self) -> u64 {
        self.times.len() as u64
    }

    /// What instance `i` served itself.
    pub fn served_by(&self, i: usize) -> u64 {
        self.served.get(i).copied().unwrap_or(0)
    }

    /// The time within which the given share of answers came.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = (times.len() as f64 * share) as usize;
        times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Hits among the requests that a cache was asked for.
    pub fn hit_percent(&self) -> f64 {
        percent(self.memory + self.redis + self.stale, self.missed)
    }
}

fn percent(hits: u64, misses: u64) -> f64 {
    if hits + misses == 0 { 0.0 } else { hits as f64 * 100.0 / (hits + misses) as f64 }
}

/// The whole run.
#[derive(Default)]
pub struct Totals {
    pub count: u64,
    pub failed: u64,
    pub cached: u64,
    pub from_redis: u64,
    missed: u64,
    /// Served between the victim's death and its revival.
    pub while_down: u64,
    /// The victim was killed.
    pub killed: bool,
    /// The victim was started again.
    pub revived: bool,
    /// Its health check noticed.
    pub taken_out: bool,
    /// It served requests after its revival.
    pub victim_served_again: bool,
}

impl Totals {
    /// Adds a second; `up` is what the gateway thinks of each instance.
    pub fn add(&mut self, second: &Second, up: &[bool], victim: usize) {
        self.count += second.count();
        self.failed += second.failed;
        self.cached += second.memory + second.redis + second.stale;
        self.from_redis += second.redis;
        self.missed += second.missed;
        let victim_up = up.get(victim).copied().unwrap_or(true);
        if self.killed && !self.revived {
            self.while_down += second.count();
            self.taken_out |= !victim_up;
        }
        if self.revived && victim_up && second.served_by(victim) > 0 {
            self.victim_served_again = true;
        }
    }

    /// Hits among the requests that a cache was asked for.
    pub fn hit_percent(&self) -> f64 {
        percent(self.cached, self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cache_status_tells_is_counted_as_it_is() {
        for (member, expected) in [
            ("vanne-mem; hit; ttl=2", Cache::Memory),
            ("vanne-redis; hit; ttl=0", Cache::Redis),
            ("vanne-mem; hit; ttl=-3", Cache::Stale),
            ("vanne; fwd=uri-miss; stored", Cache::Missed),
        ] {
            assert!(told(member) == expected, "{member}");
        }
    }

    #[test]
    fn an_answer_that_is_not_200_counts_as_failed() {
        let mut second = Second::default();
        let (bad, _) = Answer::parse(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
        second.note(Some(bad), Duration::ZERO);
        second.note(None, Duration::ZERO);
        assert_eq!((second.failed, second.count()), (2, 0));
    }
}
