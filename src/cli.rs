//! The command line: what was asked for, and the exit code that says how it went.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed at run time |
//! | 2 | the arguments do not read |
//! | 77 | not permitted: a port below 1024 |
//! | 78 | the configuration is wrong; `RestartPreventExitStatus=78` keeps systemd from trying again |
//!
//! Data goes to standard output, everything else to standard error.

use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::app::StartError;
use crate::base::clock::Clock;
use crate::config::{self, Overrides, Source, SystemEnv};
use crate::demo;
use crate::explain::told::Explained;
use crate::explain::{self, Unclear};
use crate::guard::auth;
use crate::plan::Plan;
use crate::proxy::admin::{EXPLAIN, PURGE};
use crate::proxy::explain::Ask;
use crate::proxy::orders::{RELOAD, UPGRADE};
use crate::proxy::purge::Order;

mod cache;
mod fetch;
mod run;
mod upstreams;
mod warm;

const FAILED: u8 = 1;
const NOT_PERMITTED: u8 = 77;
const BAD_CONFIGURATION: u8 = 78;

/// An edge gateway: balancing, a shared HTTP cache in memory and Redis, health checks, metrics.
#[derive(Parser)]
#[command(name = "vanne", version, about, arg_required_else_help = true)]
struct Arguments {
    /// Check the configuration and exit: the same as `vanne check`.
    #[arg(short = 't', long = "test")]
    test: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway in the foreground.
    Run {
        /// Read the configuration again whenever its file changes.
        #[arg(long)]
        watch: bool,
    },
    /// Have a running gateway read its configuration again: all of it or, when something is wrong, nothing. Needs `admin.token`; SIGHUP does the same.
    Reload,
    /// Have a running gateway start its program anew and leave its sockets to it, without losing a request. Needs `admin.token`; SIGUSR2 does the same.
    Upgrade,
    /// Check the configuration: every problem at once, with its place and what would be right.
    Check {
        /// Print problems as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask a running gateway whether it is alive; for containers. Exits 0 when it is.
    Healthcheck {
        /// Ask whether it takes requests (`/readyz`) rather than whether it is alive (`/healthz`).
        #[arg(long)]
        ready: bool,
    },
    /// Tell what would become of a request, from the configuration alone or with --live from a running gateway: its route and why not the others,
    /// its key, what would be stored and for how long, and who would be asked.
    Explain(Explain),
    /// Show the main job on this machine: sample instances, gateway, load, live figures.
    Demo {
        /// How long the load lasts; at least 8.
        #[arg(long, default_value_t = 12)]
        seconds: u64,
        /// Redis to use; else `REDIS_URL`, else the default port, else the memory tier alone.
        #[arg(long)]
        redis: Option<String>,
        /// Leave everything running afterwards, to be curled.
        #[arg(long)]
        keep: bool,
    },
    /// Hash a password for `auth`: it is asked for, or read as a line from standard input, so that no list of processes and no history
    /// shows it.
    HashPassword {
        /// The user's name: then a whole line for `users` or `users_file` is printed.
        #[arg(long)]
        user: Option<String>,
    },
    /// Act on what a running gateway, and its fleet, have stored.
    Cache {
        #[command(subcommand)]
        what: CacheCommand,
    },
    /// Show the instances of a running gateway: their state, since when and why.
    Upstreams(upstreams::Show),
    /// Have an instance of a running gateway take no new requests; what is in flight is finished. Needs `admin.token`.
    Drain(upstreams::Drain),
    /// Have an instance of a running gateway take requests again. Needs `admin.token`.
    Ready(upstreams::Target),
    /// Change the share of an instance of a running gateway. Needs `admin.token`.
    Weight(upstreams::Share),
    /// Print what the program knows about its configuration.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Make stored answers invalid, on every gateway and in Redis. Needs `admin.token` in the configuration.
    Purge(Purge),
    /// Ask the gateway for what should be stored before clients do: what a list, an access log or a sitemap names.
    Warm(warm::Warm),
    /// Show what is stored under a URL, in memory and in Redis. Needs `admin.token`.
    Get(cache::Get),
    /// List what the gateway's memory holds. Needs `admin.token`.
    Ls(cache::Ls),
    /// Show how much is stored, and how often it served. Needs `admin.token`.
    Stats(cache::Stats),
}

#[derive(Args)]
struct Purge {
    /// A tag: what the origin named in Cache-Tag, Surrogate-Key or xkey.
    #[arg(long)]
    tag: Vec<String>,
    /// A URL, with its query.
    #[arg(long)]
    url: Vec<String>,
    /// A directory: `https://host/directory/`.
    #[arg(long)]
    prefix: Vec<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
    /// Let them become stale instead of going.
    #[arg(long)]
    soft: bool,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every key with its meaning and default, as a TOML file.
    Reference,
    /// The JSON Schema (draft-07), for editors.
    Schema,
}

/// Settings that flags may give; a flag beats the environment, which beats the file, which beats the default.
#[derive(Args)]
struct Settings {
    /// The configuration file [default: config/vanne.toml, else /etc/vanne/vanne.toml].
    #[arg(short, long, global = true, env = "VANNE_CONFIG")]
    config: Option<PathBuf>,
    /// The address of the public listener (also `LISTEN`).
    #[arg(long, global = true)]
    listen: Option<String>,
    /// The URL of Redis; empty is none (also `REDIS_URL`).
    #[arg(long, global = true)]
    redis_url: Option<String>,
    /// The `ttl` of every cache (also `CACHE_TTL`).
    #[arg(long, global = true)]
    cache_ttl: Option<String>,
    /// The least severity logged (also `LOG_LEVEL`).
    #[arg(long, global = true)]
    log_level: Option<String>,
    /// `text` or `json` (also `LOG_FORMAT`).
    #[arg(long, global = true)]
    log_format: Option<String>,
}

/// Why a command did not do what it was asked.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn at_run_time(text: impl Into<String>) -> Self {
        Self { code: FAILED, text: text.into() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let not_permitted = matches!(&error, StartError::Listen { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
        Self { code: if not_permitted { NOT_PERMITTED } else { FAILED }, text: format!("vanne: {error}") }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{}", failure.text.trim_end());
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let settings = arguments.settings;
    match arguments.command {
        _ if arguments.test => check(&settings, false),
        Some(Command::Check { json }) => check(&settings, json),
        Some(Command::Run { watch }) => run::run(&settings, watch),
        Some(Command::Reload) => order(&settings, RELOAD),
        Some(Command::Upgrade) => order(&settings, UPGRADE),
        Some(Command::Healthcheck { ready }) => healthcheck(&settings, ready),
        Some(Command::Explain(asked)) => explain(&settings, asked),
        Some(Command::Demo { seconds, redis, keep }) => {
            let redis = redis.or(settings.redis_url);
            show(demo::Options { seconds, redis, keep })
        }
        Some(Command::HashPassword { user }) => hash_password(user.as_deref()),
        Some(Command::Cache { what: CacheCommand::Purge(purge) }) => self::purge(&settings, purge),
        Some(Command::Cache { what: CacheCommand::Warm(what) }) => warm::warm(&settings, what),
        Some(Command::Cache { what: CacheCommand::Get(what) }) => cache::look(&settings, what),
        Some(Command::Cache { what: CacheCommand::Ls(what) }) => cache::list(&settings, &what),
        Some(Command::Cache { what: CacheCommand::Stats(what) }) => cache::stats(&settings, &what),
        Some(Command::Upstreams(show)) => upstreams::show(&settings, &show),
        Some(Command::Drain(drain)) => upstreams::drain(&settings, &drain),
        Some(Command::Ready(target)) => upstreams::ready(&settings, &target),
        Some(Command::Weight(share)) => upstreams::weight(&settings, &share),
        Some(Command::Config { what: ConfigCommand::Reference }) => print(&config::reference()),
        Some(Command::Config { what: ConfigCommand::Schema }) => print(&config::schema()),
        None => Err(Failure { code: 2, text: Arguments::command().render_help().to_string() }),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))
}

/// What is asked of `explain`.
#[derive(Args)]
struct Explain {
    /// The method.
    method: String,
    /// The URL as a client would ask for it.
    url: String,
    /// A field of the request: "Accept: text/html". May be repeated.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The content of the request.
    #[arg(short, long, default_value = "")]
    data: String,
    /// The status of an answer to judge; without it and --answer, some typical answers are judged.
    #[arg(long)]
    status: Option<u16>,
    /// A field of an answer to judge: "Cache-Control: max-age=60". May be repeated.
    #[arg(long)]
    answer: Vec<String>,
    /// Ask the running gateway, too: what it has stored, what it would do now, how its instances are. Needs `admin.token` in the configuration.
    #[arg(long)]
    live: bool,
    /// Where the running gateway's admin listener is, instead of where the configuration says; asks it like --live.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

fn explain(settings: &Settings, asked: Explain) -> Result<(), Failure> {
    let Explain { method, url, headers, data, status, answer, live, admin, json } = asked;
    let ask = Ask { method, url, headers, data, status, answer };
    let told = if live || admin.is_some() {
        explained_by_gateway(settings, &ask, admin)?
    } else {
        let unclear = |unclear: Unclear| Failure { code: 2, text: format!("vanne: {unclear}") };
        let question = ask.question().map_err(unclear)?;
        explain::explain(&plan(settings)?, &question, Clock::start().wall()).map_err(unclear)?.told
    };
    match json {
        true => print(&(as_json(&told)? + "\n")),
        false => print(&told.to_string()),
    }
}

fn explained_by_gateway(
    settings: &Settings,
    ask: &Ask,
    admin: Option<SocketAddr>,
) -> Result<Explained, Failure> {
    let (status, answer) = with_token(admin, settings, "POST", EXPLAIN, &as_json(ask)?, HEALTHCHECK)?;
    let said = || format!("vanne: {EXPLAIN} answered {status}: {answer}");
    match status {
        200 => serde_json::from_str(&answer).map_err(|e| Failure::at_run_time(format!("{}\n{e}", said()))),
        400 => Err(Failure { code: 2, text: said() }),
        _ => Err(Failure::at_run_time(said())),
    }
}

fn check(settings: &Settings, json: bool) -> Result<(), Failure> {
    let source = read(settings)?;
    match config::load(&source, &SystemEnv, &overrides(settings)) {
        Ok(plan) => {
            folders_are_there(&plan)?;
            files(&plan)?;
            print(&if json { "[]\n".to_owned() } else { format!("{}: {}\n", source.name, summary(&plan)) })
        }
        Err(problems) if json => {
            print(&(as_json(&problems.list())? + "\n"))?;
            Err(Failure { code: BAD_CONFIGURATION, text: String::new() })
        }
        Err(problems) => Err(Failure { code: BAD_CONFIGURATION, text: problems.render(color()) }),
    }
}

/// What a plan cannot know: whether the folders it names can be opened here.
fn folders_are_there(plan: &Plan) -> Result<(), Failure> {
    let missing: Vec<String> =
        crate::files::missing_roots(plan).iter().map(|missing| format!("error: {missing}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure { code: BAD_CONFIGURATION, text: missing.join("\n") })
}

/// What the configuration names must be there and fit together, and be valid today: starting would say the same, but for the last.
fn files(plan: &Plan) -> Result<(), Failure> {
    let listeners = plan.listeners.iter().filter_map(crate::app::wrong_with);
    let upstreams = plan.upstreams.iter().filter_map(crate::app::wrong_with_upstream);
    let wrong: Vec<String> = listeners.chain(upstreams).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure { code: BAD_CONFIGURATION, text: wrong.join("\n") })
}

fn as_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))
}

/// Color is for people: a terminal, unless `NO_COLOR` says otherwise.
fn color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn summary(plan: &Plan) -> String {
    let instances: usize = plan.upstreams.iter().map(|u| u.servers.len()).sum();
    format!(
        "ok ({}, {} over {}, {}, {})",
        count(plan.listeners.len(), "listener"),
        count(plan.upstreams.len(), "upstream"),
        count(instances, "instance"),
        count(plan.caches.len(), "cache"),
        count(plan.routes.len(), "route"),
    )
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn read(settings: &Settings) -> Result<Source, Failure> {
    let path = match &settings.config {
        Some(path) => path.clone(),
        None => default_file(),
    };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|e| Failure {
        code: BAD_CONFIGURATION,
        text: format!(
            "vanne: cannot read {name}: {e}; name the file with -c, or see it work with `vanne demo`"
        ),
    })?;
    Ok(Source { name, text })
}

fn default_file() -> PathBuf {
    let here = PathBuf::from("config/vanne.toml");
    if here.exists() { here } else { PathBuf::from("/etc/vanne/vanne.toml") }
}

fn overrides(settings: &Settings) -> Overrides {
    Overrides {
        listen: settings.listen.clone(),
        redis_url: settings.redis_url.clone(),
        cache_ttl: settings.cache_ttl.clone(),
        log_level: settings.log_level.clone(),
        log_format: settings.log_format.clone(),
    }
}

fn plan(settings: &Settings) -> Result<Plan, Failure> {
    let source = read(settings)?;
    config::load(&source, &SystemEnv, &overrides(settings))
        .map_err(|problems| Failure { code: BAD_CONFIGURATION, text: problems.render(color()) })
}

fn show(options: demo::Options) -> Result<(), Failure> {
    match runtime(std::thread::available_parallelism().map_or(2, usize::from))?.block_on(demo::run(options)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::at_run_time(
            "vanne: the demonstration did not show what it claims; see the lines marked FAIL",
        )),
        Err(text) => Err(Failure::at_run_time(format!("vanne: {text}"))),
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("vanne")
        .enable_all()
        .build()
        .map_err(|e| Failure::at_run_time(format!("vanne: cannot start worker threads: {e}")))
}

/// How long a container's health check may take.
const HEALTHCHECK: Duration = Duration::from_secs(3);

fn healthcheck(settings: &Settings, ready: bool) -> Result<(), Failure> {
    let plan = plan(settings)?;
    let Some(addr) = plan.admin.addr else {
        return Err(Failure::at_run_time("vanne: admin.addr is off, so there is nobody to ask"));
    };
    let path = if ready { "/readyz" } else { "/healthz" };
    let status = ask(reachable(addr), path)
        .map_err(|e| Failure::at_run_time(format!("vanne: no answer from http://{addr}{path}: {e}")))?;
    match status {
        200 => Ok(()),
        status => Err(Failure::at_run_time(format!("vanne: http://{addr}{path} answered {status}"))),
    }
}

fn purge(settings: &Settings, purge: Purge) -> Result<(), Failure> {
    let Purge { tag: tags, url: urls, prefix: prefixes, all, soft } = purge;
    let order = Order { tags, urls, prefixes, all, soft };
    let (status, answer) = post(settings, PURGE, &as_json(&order)?, HEALTHCHECK)?;
    match status {
        200 => print(&answer),
        _ => Err(Failure::at_run_time(format!("vanne: {PURGE} answered {status}: {answer}"))),
    }
}

/// How long a reload or an upgrade may take: as long as a new process may take to start, and a little.
const ORDER: Duration = Duration::from_secs(90);

/// Has a running gateway do something to itself, and prints what came of it.
fn order(settings: &Settings, path: &str) -> Result<(), Failure> {
    let (status, answer) = post(settings, path, "", ORDER)?;
    let outcome: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let said = |key: &str| outcome.get(key).and_then(|text| text.as_str()).map(str::to_owned);
    match status {
        200 => {
            let lines =
                outcome.get("changes").and_then(|lines| lines.as_array()).cloned().unwrap_or_default();
            let lines = lines.iter().filter_map(|line| line.as_str()).map(|line| format!("  {line}\n"));
            let done = said("done").unwrap_or(answer);
            print(&format!("{done}\n{}", lines.collect::<String>()))
        }
        422 => Err(Failure { code: BAD_CONFIGURATION, text: said("error").unwrap_or(answer) }),
        _ => {
            let why = said("error").unwrap_or(answer);
            Err(Failure::at_run_time(format!("vanne: {path} answered {status}: {why}")))
        }
    }
}

/// POSTs to the operator's listener with the token of the configuration.
fn post(settings: &Settings, path: &str, body: &str, patience: Duration) -> Result<(u16, String), Failure> {
    with_token(None, settings, "POST", path, body, patience)
}

/// GETs from the operator's listener with the token of the configuration.
fn get(settings: &Settings, path: &str) -> Result<(u16, String), Failure> {
    with_token(None, settings, "GET", path, "", HEALTHCHECK)
}

/// Asks the operator's listener, at another address than the configuration's if one is given.
fn with_token(
    addr: Option<SocketAddr>,
    settings: &Settings,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> Result<(u16, String), Failure> {
    let plan = plan(settings)?;
    let (Some(addr), Some(token)) = (addr.or(plan.admin.addr), plan.admin.token) else {
        let text = "vanne: this is off over the network: set admin.addr and admin.token in the configuration";
        return Err(Failure { code: BAD_CONFIGURATION, text: text.to_owned() });
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    exchange_within(reachable(addr), &request, patience)
        .map_err(|e| Failure::at_run_time(format!("vanne: no answer from http://{addr}{path}: {e}")))
}

fn hash_password(user: Option<&str>) -> Result<(), Failure> {
    let wrong = |text: &str| Failure { code: 2, text: format!("vanne: {text}") };
    if user.is_some_and(|name| name.is_empty() || name.chars().any(|c| c == ':' || c.is_control())) {
        return Err(wrong("a user's name has at least one character, no colon and no controls"));
    }
    let password = read_password().map_err(|e| Failure::at_run_time(format!("vanne: no password: {e}")))?;
    if password.is_empty() {
        return Err(wrong("the password is empty"));
    }
    let hash = auth::hash(password.as_bytes()).map_err(|e| Failure::at_run_time(format!("vanne: {e}")))?;
    print(&user.map_or_else(|| format!("{hash}\n"), |name| format!("{name}:{hash}\n")))
}

/// A line from standard input; from a terminal without showing it.
fn read_password() -> std::io::Result<String> {
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password("Password: ");
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// An address to listen on may be "any"; one to connect to is this machine then.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(a) if a.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], a.port())),
        SocketAddr::V6(a) if a.ip().is_unspecified() => {
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], a.port()))
        }
        other => other,
    }
}

fn ask(addr: SocketAddr, path: &str) -> std::io::Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    exchange(addr, &request).map(|(status, _)| status)
}

/// So much of an answer of the operator's listener is read: more than it lists at once.
const LARGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Sends a request and gives the answer's status and content.
fn exchange(addr: SocketAddr, request: &str) -> std::io::Result<(u16, String)> {
    exchange_within(addr, request, HEALTHCHECK)
}

/// The same; so long may each wait for the answer take.
fn exchange_within(addr: SocketAddr, request: &str, patience: Duration) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, HEALTHCHECK)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(HEALTHCHECK))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LARGEST_ANSWER).read_to_end(&mut answer)?;
    let status =
        std::str::from_utf8(answer.get(9..12).unwrap_or_default()).ok().and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("not an HTTP answer"))?;
    let text = String::from_utf8_lossy(&answer);
    Ok((status, text.split_once("\r\n\r\n").map_or("", |(_, content)| content).to_owned()))
}
