//! `vanne demo`: the main job, shown on this machine in a quarter of a minute.
//!
//! Three sample instances (one slow, one that dies for a few seconds), the gateway in front of them, a bounded load, a line a second, and a
//! verdict that is true only if what it says happened: it is made from what the clients saw.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::app::{self, Running, StartError};
use crate::base::clock::Clock;
use crate::config::{self, Overrides, Source};

mod instance;
mod load;
mod tally;

use self::instance::Instance;
use self::load::Load;
use self::tally::{Second, Totals};

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the load lasts; at least 8 seconds, since an instance is down in the middle.
    pub seconds: u64,
    /// Redis; none: the one of `REDIS_URL` or on the default port, if it answers.
    pub redis: Option<String>,
    /// Leave everything running afterwards, until interrupted.
    pub keep: bool,
}

/// The instance that dies, and when, in seconds of the run.
const VICTIM: usize = 2;
const DIES_AT: u64 = 3;
const BACK_AT: u64 = 6;
/// How long the slow instance thinks about each request.
const SLOW: Duration = Duration::from_millis(15);

/// Runs the demonstration. True when all it claims happened.
///
/// # Errors
/// When an instance or the gateway cannot be started.
pub async fn run(options: Options) -> Result<bool, String> {
    let seconds = options.seconds.max(8);
    let redis = find_redis(options.redis.as_deref()).await;
    let mut instances = Vec::new();
    for (name, delay) in [("api-1", Duration::ZERO), ("api-2", SLOW), ("api-3", Duration::ZERO)] {
        instances.push(Instance::start(name, delay).await.map_err(|e| format!("cannot start {name}: {e}"))?);
    }
    let gateway = start_gateway(&instances, redis.as_deref()).await?;
    introduce(&gateway, &instances, redis.as_deref());

    let verdict = show(&gateway, &mut instances, seconds).await;
    let passed = announce(&gateway, &verdict, redis.is_some());
    if options.keep {
        say(&format!(
            "still running; try: curl -i http://{}/api/items/7   (Ctrl-C ends it)",
            gateway.addresses[0]
        ));
        let _ = tokio::signal::ctrl_c().await;
    }
    gateway.drain().await;
    Ok(passed)
}

/// Redis, when it answers; asked with the protocol's own PING, since an open port may be anything.
async fn find_redis(named: Option<&str>) -> Option<String> {
    let url =
        named.map(str::to_owned).or_else(|| std::env::var("REDIS_URL").ok().filter(|url| !url.is_empty()));
    let url = url.unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let client = redis::Client::open(url.as_str()).ok()?;
    let ping = async {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
    };
    tokio::time::timeout(Duration::from_millis(500), ping).await.ok().flatten().map(|_| url)
}

/// On the usual ports, or on free ones when somebody has them.
async fn start_gateway(instances: &[Instance], redis: Option<&str>) -> Result<Running, String> {
    const USUAL: [u16; 2] = [8080, 9180];
    let started = start_on(USUAL, instances, redis)?;
    let started = match started {
        // Ports 0: the system chooses, so that nobody can come between.
        Err(StartError::Listen { .. }) => start_on([0, 0], instances, redis)?,
        other => other,
    };
    started.map_err(|e| e.to_string())
}

fn start_on(
    [web, admin]: [u16; 2],
    instances: &[Instance],
    redis: Option<&str>,
) -> Result<Result<Running, StartError>, String> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let text = configuration(instances, local(web), local(admin), redis);
    let source = Source { name: "demo.toml".into(), text };
    // The demonstration is the same everywhere: the environment's settings are not for it.
    let nothing: HashMap<String, String> = HashMap::new();
    let plan =
        config::load(&source, &nothing, &Overrides::default()).map_err(|problems| problems.render(false))?;
    Ok(app::start(plan))
}

/// The demonstration's configuration, as a user would write it. The key prefix is its own, so that it reads nothing of an earlier run.
fn configuration(instances: &[Instance], web: SocketAddr, admin: SocketAddr, redis: Option<&str>) -> String {
    let servers: Vec<String> = instances.iter().map(|i| format!("\"{}\"", i.addr())).collect();
    let redis = redis.map_or(String::new(), |url| {
        format!(
            "[redis]\nurl = {}\nprefix = \"vanne-demo-{}\"\n",
            toml::Value::String(url.into()),
            std::process::id()
        )
    });
    format!(
        r#"
[listen.web]
addr = "{web}"

[admin]
addr = "{admin}"

[log]
access = "off"
level = "error"

{redis}
[upstreams.api]
servers = [{}]
balance = "least_conn"
health = {{ path = "/ready", every = "300ms", timeout = "200ms", fall = 2, rise = 2 }}

[caches.api]
memory = "1MiB"
stale_while_revalidate = "5s"
stale_if_error = "1h"

[[routes]]
match = {{ path = "/api/items/*" }}
upstream = "api"
cache = "api"

[[routes]]
match = {{ path = "/*" }}
upstream = "api"
"#,
        servers.join(", ")
    )
}

fn introduce(gateway: &Running, instances: &[Instance], redis: Option<&str>) {
    let admin = gateway.admin.map_or_else(|| "off".into(), |a| format!("http://{a}/metrics"));
    let redis = match redis {
        Some(url) => format!("redis: {}", without_secret(url)),
        None => "no Redis answers: memory tier alone".into(),
    };
    say(&format!("gateway  http://{}   metrics {admin}   {redis}", gateway.addresses[0]));
    let names: Vec<String> = instances.iter().map(|i| format!("{} {}", i.name(), i.addr())).collect();
    say(&format!(
        "instances  {}   (api-2 takes {} ms; api-3 dies at {DIES_AT} s, is back at {BACK_AT} s)",
        names.join("   "),
        SLOW.as_millis()
    ));
    say("  t   req/s     p50     p99   hit%   mem/redis/stale/miss/pass      api-1  api-2  api-3   events");
}

/// A URL as it may be shown: a password stays out.
fn without_secret(url: &str) -> String {
    match url.split_once('@') {
        Some((scheme, host)) => format!("{}://…@{host}", scheme.split("://").next().unwrap_or("redis")),
        None => url.to_owned(),
    }
}

/// Runs the load second by second, kills and revives the victim, and prints what the clients saw.
async fn show(gateway: &Running, instances: &mut [Instance], seconds: u64) -> Totals {
    let clock = Arc::new(Clock::start());
    let load = Load::start(gateway.addresses[0], clock.clone());
    let group = gateway.live.upstreams[0].group.clone();
    let mut totals = Totals::default();
    let mut was_up = vec![true; instances.len()];
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    for t in 1..=seconds {
        tick.tick().await;
        let mut events = Vec::new();
        let up: Vec<bool> = group.endpoints().iter().map(|e| e.is_up()).collect();
        for (i, (now, before)) in up.iter().zip(&mut was_up).enumerate() {
            if now != before {
                events.push(format!(
                    "{} is {}",
                    instances[i].name(),
                    if *now { "back in rotation" } else { "taken out" }
                ));
                *before = *now;
            }
        }
        let second = load.take();
        totals.add(&second, &up, VICTIM);
        if t == DIES_AT {
            instances[VICTIM].kill().await;
            totals.killed = true;
            events.push("api-3 killed".into());
        }
        if t == BACK_AT {
            match instances[VICTIM].revive().await {
                Ok(()) => events.push("api-3 restarted".into()),
                Err(error) => events.push(format!("api-3 could not be restarted: {error}")),
            }
            totals.revived = true;
        }
        say(&row(t, &second, &up, &events));
    }
    totals.add(&load.stop().await, &was_up, VICTIM);
    totals
}

fn row(t: u64, second: &Second, up: &[bool], events: &[String]) -> String {
    let served = |i: usize| {
        let count = second.served_by(i);
        if up.get(i).copied().unwrap_or(false) { format!("{count:>6}") } else { format!("{:>6}", "DOWN") }
    };
    let tiers =
        format!("{}/{}/{}/{}/{}", second.memory, second.redis, second.stale, second.missed, second.passed);
    format!(
        "{t:>3} {:>7} {:>7} {:>7} {:>6}   {tiers:<28} {} {} {}   {}",
        second.count(),
        milliseconds(second.percentile(0.50)),
        milliseconds(second.percentile(0.99)),
        format!("{:.1}", second.hit_percent()),
        served(0),
        served(1),
        served(2),
        events.join(", ")
    )
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}ms", time.as_secs_f64() * 1000.0)
}

/// The verdict: each claim on a line of its own, with what it rests on.
fn announce(gateway: &Running, totals: &Totals, redis: bool) -> bool {
    let mut claims = vec![
        (totals.count > 0, format!("{} requests served", totals.count)),
        (
            totals.failed == 0 && totals.while_down > 0,
            format!(
                "{} failed for clients; {} were served while api-3 was down",
                totals.failed, totals.while_down
            ),
        ),
        (
            totals.cached > 0,
            format!(
                "{} answers from cache ({:.1} % of those that may be)",
                totals.cached,
                totals.hit_percent()
            ),
        ),
        (
            totals.taken_out && totals.victim_served_again,
            format!(
                "api-3 was {}taken out and {} again",
                if totals.taken_out { "" } else { "NOT " },
                if totals.victim_served_again { "serves" } else { "does NOT serve" }
            ),
        ),
    ];
    if redis {
        claims.push((totals.from_redis > 0, format!("{} answers came from Redis", totals.from_redis)));
    }
    let passed = claims.iter().all(|(held, _)| *held);
    for (held, claim) in &claims {
        say(&format!("{} {claim}", if *held { "ok  " } else { "FAIL" }));
    }
    say(&format!(
        "{}  try: curl -i http://{}/api/items/7",
        if passed { "verdict: it holds." } else { "verdict: it does NOT hold." },
        gateway.addresses[0]
    ));
    passed
}

/// Figures go to standard output; a reader that has left (`| head`) is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_secret("redis://user:secret@host:6379/1"), "redis://…@host:6379/1");
        assert_eq!(without_secret("redis://127.0.0.1:6379"), "redis://127.0.0.1:6379");
    }
}
