//! `vanne run`: from the configuration to a serving process, through reloads, perhaps to the next process, and to rest.
//!
//! | signal | does |
//! |---|---|
//! | SIGHUP | reads the configuration again: all of it or nothing |
//! | SIGUSR2 | starts the program anew and leaves the listeners to it |
//! | SIGTERM, SIGINT | drains: `/readyz` says so for `drain_delay`, then the listeners close and what is in flight may finish |
//! | SIGQUIT | the same without `drain_delay` |
//! | a second one of these | leaves at once |

use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Failure, Settings, color, default_file, plan, runtime};
use crate::app::upgrade::{self, Inheritance};
use crate::app::{self, Running};
use crate::plan::{self, LogFormat};
use crate::proxy::orders::{Asked, Order};

/// How often a watched file is looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn run(settings: &Settings, watch: bool) -> Result<(), Failure> {
    let plan = plan(settings)?;
    let set_level = start_log(&plan.log);
    let inherited = upgrade::inherited().map_err(|e| {
        Failure::at_run_time(format!("vanne: the sockets of the process before did not arrive: {e}"))
    })?;
    runtime(plan.server.threads)?.block_on(async {
        // Before anything starts: a signal that comes early must not kill.
        let signals = Signals::watch()
            .map_err(|e| Failure::at_run_time(format!("vanne: cannot watch signals: {e}")))?;
        let running = app::start_with(plan, &inherited)?;
        announce(&running);
        let mut service = Service { settings, set_level, running };
        service.serving(inherited);
        let leave = service.serve(signals, watch).await;
        leave.carry_out(service.running).await;
        Ok(())
    })
}

/// A gateway and what it takes to change it.
struct Service<'a> {
    settings: &'a Settings,
    set_level: SetLevel,
    running: Running,
}

/// Changes the least severity of the program's own messages.
type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// That serving ends, and how.
struct Leave {
    way: Way,
    signals: Signals,
}

enum Way {
    /// Those who watch `/readyz` are to look away first.
    Drain,
    /// At once, but to the end of what is in flight.
    Quit,
    /// Another process serves on the same sockets.
    HandedOver { pid: u32 },
}

impl Service<'_> {
    /// Tells those who wait for it that requests are served from now on.
    fn serving(&self, inherited: Inheritance) {
        self.configured(false);
        if let Err(error) = inherited.taken() {
            tracing::warn!(%error, "the process before could not be told that this one serves");
        }
        notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }

    fn configured(&self, reload: bool) {
        let live = &self.running.live;
        live.metrics.configured(live.clock.wall().as_secs(), reload);
    }

    /// Until it is time to leave.
    async fn serve(&mut self, mut signals: Signals, watch: bool) -> Leave {
        let mut orders = self.running.orders();
        let mut watched = Watched::of(self.settings);
        let mut look = tokio::time::interval(LOOK);
        let mut alive = Watchdog::start();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Leave { way: Way::Drain, signals },
                _ = signals.interrupt.recv() => return Leave { way: Way::Drain, signals },
                _ = signals.quit.recv() => return Leave { way: Way::Quit, signals },
                _ = signals.hangup.recv() => { let _ = self.reload(); }
                _ = signals.upgrade.recv() => if let Ok(pid) = self.upgrade().await {
                    return Leave { way: Way::HandedOver { pid }, signals };
                },
                _ = look.tick(), if watch => if watched.changed() { let _ = self.reload(); },
                () = alive.due() => notify(&[NotifyState::Watchdog]),
                Some(asked) = orders.recv() => if let Some(pid) = self.carry_out(asked).await {
                    return Leave { way: Way::HandedOver { pid }, signals };
                },
            }
        }
    }

    /// What the operator's listener was told to have done. The process that serves from now on, when it is another.
    async fn carry_out(&mut self, asked: Asked) -> Option<u32> {
        match asked.order {
            Order::Reload => {
                match self.reload() {
                    Ok(changes) => {
                        let done = if changes.is_empty() { "reloaded: nothing changed" } else { "reloaded" };
                        asked.answer(200, json!({ "done": done, "changes": changes }));
                    }
                    Err(why) => asked.answer(422, json!({ "error": why })),
                }
                None
            }
            Order::Upgrade => match self.upgrade().await {
                Ok(pid) => {
                    asked.answer(200, json!({ "done": format!("process {pid} serves now"), "pid": pid }));
                    Some(pid)
                }
                Err(why) => {
                    asked.answer(500, json!({ "error": why }));
                    None
                }
            },
        }
    }

    /// Reads the configuration again and goes on by it; what changed, in words.
    fn reload(&mut self) -> Result<Vec<String>, String> {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        let outcome = match plan(self.settings) {
            Ok(plan) => self.running.reload(plan).map_err(|error| error.to_string()),
            Err(failure) => Err(failure.text.trim_end().to_owned()),
        };
        notify(&[NotifyState::Ready]);
        match outcome {
            Ok(changes) => {
                (self.set_level)(&self.running.live.plan.log.level);
                self.configured(true);
                tracing::info!(changes = changes.len(), "reloaded");
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                changes.iter().for_each(|change| tracing::info!("reloaded: {change}"));
                Ok(changes)
            }
            Err(why) => {
                self.running.live.metrics.reload_failed();
                tracing::error!("not reloaded, the running configuration goes on: {why}");
                Err(why)
            }
        }
    }

    /// Starts the program anew, with these sockets; its process.
    async fn upgrade(&mut self) -> Result<u32, String> {
        tracing::info!("upgrading: starting the program anew");
        match upgrade::hand_over(&self.running).await {
            Ok(pid) => Ok(pid),
            Err(why) => {
                self.running.live.metrics.upgrade_failed();
                tracing::error!("not upgraded, this process goes on: {why}");
                Err(why.to_string())
            }
        }
    }
}

impl Leave {
    /// Finishes what is in flight; a second signal leaves at once.
    async fn carry_out(self, running: Running) {
        let Self { way, mut signals } = self;
        let connections = running.open_connections();
        if let Way::HandedOver { pid } = way {
            tracing::info!(pid, connections, "another process serves now; finishing what is in flight here");
            notify(&[NotifyState::MainPid(pid)]);
        } else {
            tracing::info!(connections, "draining; signal again to leave at once");
            notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        }
        let finished = async {
            match way {
                Way::Drain => running.drain().await,
                Way::Quit | Way::HandedOver { .. } => running.finish().await,
            }
        };
        tokio::select! {
            drained = finished => match drained.cut {
                0 => tracing::info!("drained"),
                cut => tracing::warn!(connections = cut, "drain_timeout is over; what was left is cut"),
            },
            () = signals.asked_to_leave() => tracing::warn!("second signal: leaving at once"),
        }
    }
}

/// Tells systemd, when it asked to be told. That it cannot be reached is no reason not to serve.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Says that the process lives, as often as the service manager wants to hear it.
struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    fn start() -> Self {
        // Twice in the time after which it would be taken for dead.
        Self(sd_notify::watchdog_enabled().map(|within| tokio::time::interval(within / 2)))
    }

    async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// The configuration file as it was last seen.
struct Watched<'a> {
    path: std::borrow::Cow<'a, Path>,
    seen: Option<blake3::Hash>,
}

impl<'a> Watched<'a> {
    fn of(settings: &'a Settings) -> Self {
        let path = match &settings.config {
            Some(path) => path.as_path().into(),
            None => default_file().into(),
        };
        let mut watched = Self { path, seen: None };
        watched.changed();
        watched
    }

    /// Whether it reads otherwise than when last asked. While it cannot be read, as in the middle of being replaced, it has not changed.
    fn changed(&mut self) -> bool {
        let Ok(text) = std::fs::read(&self.path) else { return false };
        let now = blake3::hash(&text);
        self.seen.replace(now) != Some(now)
    }
}

fn start_log(log: &plan::Log) -> SetLevel {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.level)).with_writer(std::io::stderr);
    // A second log in one process is a caller's own affair; the first one stays.
    match log.format {
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| {
                let _ = handle.reload(filter(level));
            })
        }
        LogFormat::Text => {
            let builder = builder.with_ansi(color()).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| {
                let _ = handle.reload(filter(level));
            })
        }
    }
}

fn filter(level: &str) -> EnvFilter {
    // What pingora says about single connections and requests, the access log and the metrics say already, once for each.
    let level = format!("pingora_core::connectors=off,pingora_core::protocols=off,pingora_proxy=off,{level}");
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn announce(running: &Running) {
    let plan = &running.live.plan;
    for (listener, address) in plan.listeners.iter().zip(&running.addresses) {
        tracing::info!(listener = %listener.name, %address, "listening");
    }
    for upstream in &plan.upstreams {
        tracing::info!(upstream = %upstream.name, instances = upstream.servers.len(), balance = ?upstream.balance, "upstream");
    }
    match (&plan.redis, plan.caches.is_empty()) {
        (Some(_), _) => tracing::info!("cache: memory over redis"),
        (None, false) => {
            tracing::warn!("cache: no redis.url is set, so each gateway caches in its own memory alone")
        }
        (None, true) => {}
    }
    if let Some(address) = running.admin {
        tracing::info!(%address, "admin: /metrics /healthz /readyz");
    }
}

/// The signals a gateway is run by.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    upgrade: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Returns at a signal that asks to leave.
    async fn asked_to_leave(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
