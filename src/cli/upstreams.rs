//! `vanne upstreams`, `drain`, `ready`, `weight`: the instances of a running gateway, asked of its operator's listener.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::{BAD_CONFIGURATION, Failure, Settings, exchange, plan, print, reachable, runtime};
use crate::base::unit::{parse_duration, show_duration};
use crate::proxy::admin::UPSTREAMS;
use crate::proxy::upstreams::{Instance, Overview, Told, Weight, Word};

/// What `vanne upstreams` shows.
#[derive(Args)]
pub struct Show {
    /// This upstream alone.
    upstream: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An instance.
#[derive(Args)]
pub struct Target {
    /// The upstream's name.
    upstream: String,
    /// The instance, `host:port` as configured.
    instance: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `vanne drain` is told.
#[derive(Args)]
pub struct Drain {
    #[command(flatten)]
    target: Target,
    /// Wait until nothing is in flight there, this long at most: "30s". Fails when something still is.
    #[arg(long, value_parser = duration)]
    wait: Option<Duration>,
}

/// What `vanne weight` is told.
#[derive(Args)]
pub struct Share {
    #[command(flatten)]
    target: Target,
    /// Its share from now on; 0 takes no new requests.
    #[arg(value_parser = share)]
    weight: Weight,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|_| "write numbers and units, like 30s or 2m".to_owned())
}

fn share(text: &str) -> Result<Weight, String> {
    let weight: u32 = text.parse().map_err(|_| "a weight is a whole number".to_owned())?;
    Weight::try_from(weight).map_err(str::to_owned)
}

/// Shows the instances.
pub fn show(settings: &Settings, show: &Show) -> Result<(), Failure> {
    let mut overview = Listener::of(settings)?.overview()?;
    if let Some(name) = &show.upstream {
        let known: Vec<_> = overview.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        overview.upstreams.retain(|upstream| upstream.name == *name);
        if overview.upstreams.is_empty() {
            let text = format!("vanne: there is no upstream {name:?}; there are: {}", known.join(", "));
            return Err(Failure::at_run_time(text));
        }
    }
    if show.json { print_json(&overview) } else { print(&all(&overview)) }
}

fn all(overview: &Overview) -> String {
    let upstreams = overview.upstreams.iter();
    let rows: Vec<_> =
        upstreams.flat_map(|u| u.instances.iter().map(|instance| (u.name.as_str(), instance))).collect();
    let mut text = table(&rows);
    for upstream in &overview.upstreams {
        if let Some(circuit) = upstream.circuit.as_ref().filter(|circuit| *circuit != "closed") {
            text.push_str(&format!(
                "{}: its circuit is {circuit}, because its exchanges failed\n",
                upstream.name
            ));
        }
        if upstream.panic {
            text.push_str(&format!("{}: too few instances are up, so all are used\n", upstream.name));
        }
    }
    text
}

/// Takes an instance out, and waits if that is asked for.
pub fn drain(settings: &Settings, drain: &Drain) -> Result<(), Failure> {
    let listener = Listener::of(settings)?;
    let mut instance = listener.order(&drain.target, Word::Drain)?;
    if let Some(wait) = drain.wait {
        instance = runtime(1)?.block_on(listener.drained(&drain.target, wait))?;
    }
    told(&drain.target, instance)
}

/// Gives an instance its requests back.
pub fn ready(settings: &Settings, target: &Target) -> Result<(), Failure> {
    told(target, Listener::of(settings)?.order(target, Word::Ready)?)
}

/// Changes an instance's share.
pub fn weight(settings: &Settings, share: &Share) -> Result<(), Failure> {
    told(&share.target, Listener::of(settings)?.order(&share.target, Word::Weight(share.weight))?)
}

fn told(target: &Target, instance: Instance) -> Result<(), Failure> {
    if target.json {
        return print_json(&instance);
    }
    print(&table(&[(target.upstream.as_str(), &instance)]))
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))?;
    print(&(text + "\n"))
}

/// Instances, each with the name of its upstream.
fn table(instances: &[(&str, &Instance)]) -> String {
    let head = ["UPSTREAM", "INSTANCE", "STATE", "FOR", "WEIGHT", "IN FLIGHT", "REASON"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(instances.iter().map(|(upstream, instance)| row(upstream, instance)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(upstream: &str, instance: &Instance) -> [String; 7] {
    let seconds = Duration::from_secs(instance.for_seconds as u64);
    let backup = if instance.backup { " backup" } else { "" };
    [
        upstream.to_owned(),
        instance.name.clone(),
        instance.state.clone(),
        show_duration(seconds),
        format!("{}{backup}", instance.weight),
        instance.in_flight.to_string(),
        instance.reason.clone(),
    ]
}

/// The operator's listener of a running gateway.
struct Listener {
    addr: SocketAddr,
    token: Option<String>,
}

impl Listener {
    fn of(settings: &Settings) -> Result<Self, Failure> {
        let plan = plan(settings)?;
        let Some(addr) = plan.admin.addr else {
            return Err(Failure::at_run_time("vanne: admin.addr is off, so there is nobody to ask"));
        };
        Ok(Self { addr: reachable(addr), token: plan.admin.token })
    }

    fn overview(&self) -> Result<Overview, Failure> {
        self.ask("GET", "", "")
    }

    fn order(&self, target: &Target, order: Word) -> Result<Instance, Failure> {
        let Some(token) = &self.token else {
            let text = "vanne: orders are off: set admin.token in the configuration";
            return Err(Failure { code: BAD_CONFIGURATION, text: text.to_owned() });
        };
        let told = Told { upstream: target.upstream.clone(), instance: target.instance.clone(), order };
        let body = serde_json::to_string(&told).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))?;
        let length = body.len();
        self.ask("POST", &format!("Authorization: Bearer {token}\r\nContent-Length: {length}\r\n"), &body)
    }

    async fn drained(&self, target: &Target, mut left: Duration) -> Result<Instance, Failure> {
        const EVERY: Duration = Duration::from_millis(100);
        loop {
            let upstreams = self.overview()?.upstreams.into_iter();
            let mut instances =
                upstreams.filter(|upstream| upstream.name == target.upstream).flat_map(|u| u.instances);
            let found = instances.find(|instance| instance.name == target.instance);
            let gone = || Failure::at_run_time("vanne: the instance is no longer in the configuration");
            let instance = found.ok_or_else(gone)?;
            if instance.in_flight == 0 {
                return Ok(instance);
            }
            if left.is_zero() {
                let text = format!("vanne: {} requests are still in flight", instance.in_flight);
                return Err(Failure::at_run_time(text));
            }
            tokio::time::sleep(EVERY.min(left)).await;
            left = left.saturating_sub(EVERY);
        }
    }

    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        fields: &str,
        body: &str,
    ) -> Result<T, Failure> {
        let addr = self.addr;
        let request = format!(
            "{method} {UPSTREAMS} HTTP/1.1\r\nHost: {addr}\r\n{fields}Connection: close\r\n\r\n{body}"
        );
        let failed = |why: String| Failure::at_run_time(format!("vanne: http://{addr}{UPSTREAMS} {why}"));
        let (status, answer) =
            exchange(addr, &request).map_err(|e| failed(format!("gave no answer: {e}")))?;
        match status {
            200 => serde_json::from_str(&answer)
                .map_err(|e| failed(format!("gave an answer that does not read: {e}"))),
            _ => Err(failed(format!("answered {status}: {}", answer.trim_end()))),
        }
    }
}
