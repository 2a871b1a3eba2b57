//! The gateway under test: started in this process on free ports, from a configuration as a user writes it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use vanne::app::{self, Running};
use vanne::base::clock::WallTime;
use vanne::config::{self, Overrides, Source};

use crate::support::client::{Answer, Ask, Client};
use crate::support::origin::Origin;
use crate::support::{poll_until, within};

/// A running gateway and a client of its first listener.
pub struct Edge {
    running: Running,
    pub client: Client,
}

/// A configuration in the making.
pub struct Configuration {
    servers: Vec<String>,
    upstream: String,
    cache: Option<String>,
    listen: String,
    admin: String,
    rest: String,
    routes: Option<String>,
    first_upstream: bool,
}

/// Seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Edge {
    /// A gateway before this origin, with one upstream `api` and one cache `api` on every path.
    pub fn serving(origin: &Origin) -> Configuration {
        Self::before(&[origin.address()])
    }

    /// The same before several instances.
    pub fn before(instances: &[SocketAddr]) -> Configuration {
        Configuration {
            servers: instances.iter().map(|a| format!("\"{a}\"")).collect(),
            upstream: String::new(),
            cache: Some(String::new()),
            listen: String::new(),
            admin: String::new(),
            rest: String::new(),
            routes: None,
            first_upstream: true,
        }
    }

    /// Sends a GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.client.get(target).send().await
    }

    /// A request to be sent.
    pub fn request(&self, method: &str, target: &str) -> Ask<'static> {
        self.client.request(method, target)
    }

    /// Lets everything stored grow older without anybody waiting.
    pub fn grow_older(&self, by: Duration) {
        self.running.live.clock.advance(by);
    }

    /// What lasts a while in the gateway, as an instance's time out does, is over sooner by so much.
    pub fn let_time_pass(&self, by: Duration) {
        self.running.live.clock.advance_steady(by);
    }

    /// The gateway's own time.
    pub fn now(&self) -> WallTime {
        self.running.live.clock.wall()
    }

    /// Plain hits go the way of all other requests.
    pub fn send_hits_the_long_way(&self) {
        self.running.live.short_way.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    /// Where a listener is bound, by its position.
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.running.addresses[listener]
    }

    /// How many connections of clients are open.
    pub fn open_connections(&self) -> usize {
        self.running.open_connections()
    }

    /// The operator's listener.
    pub fn admin(&self) -> Client {
        Client::new(self.running.admin.expect("the operator's listener is on"))
    }

    /// Where the operator's listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.running.admin.expect("the operator's listener is on")
    }

    /// Purges as the operator's listener does.
    pub async fn purge(&self, order: &vanne::proxy::purge::Order) {
        order.carry_out(&self.running.live).await.expect("an order that reads");
    }

    /// All metrics as Prometheus reads them.
    pub fn metrics(&self) -> String {
        self.running.live.metrics.render()
    }

    /// The value of one series, written as it is shown: `vanne_requests_total{code="200",…}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        self.metrics().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until Redis holds what was written.
    pub async fn flush_redis(&self) {
        if let Some(redis) = &self.running.live.redis {
            redis.flush().await;
        }
    }

    /// What the gateway thinks of each instance of its first upstream.
    pub fn up(&self) -> Vec<bool> {
        self.running.live.upstreams[0].group.endpoints().iter().map(|e| e.is_up()).collect()
    }

    /// Requests in flight at each instance of its first upstream.
    pub fn in_flight(&self) -> Vec<u32> {
        self.running.live.upstreams[0].group.endpoints().iter().map(|e| e.in_flight()).collect()
    }

    /// Drains and ends.
    pub async fn finish(self) {
        within("the gateway to drain", self.running.drain()).await;
    }
}

impl Configuration {
    /// Adds lines to `[upstreams.api]`.
    pub fn upstream(mut self, lines: &str) -> Self {
        self.upstream = lines.into();
        self
    }

    /// Adds lines to `[caches.api]`.
    pub fn cache(mut self, lines: &str) -> Self {
        self.cache = Some(lines.into());
        self
    }

    /// Nothing is cached.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// There is no `[upstreams.api]`: the tables added name their own.
    pub fn without_first_upstream(mut self) -> Self {
        self.first_upstream = false;
        self
    }

    /// Adds lines to `[listen.web]`.
    pub fn listen(mut self, lines: &str) -> Self {
        self.listen = lines.into();
        self
    }

    /// Adds lines to `[admin]`.
    pub fn admin(mut self, lines: &str) -> Self {
        self.admin = lines.into();
        self
    }

    /// Adds tables.
    pub fn also(mut self, tables: &str) -> Self {
        self.rest.push_str(tables);
        self.rest.push('\n');
        self
    }

    /// Uses this Redis, and gives it time: a busy machine must not make its answers misses.
    pub fn redis(self, url: &str) -> Self {
        self.redis_within(url, "5s")
    }

    /// Uses this Redis with this budget for each operation.
    pub fn redis_within(self, url: &str, timeout: &str) -> Self {
        self.also(&format!("[redis]\nurl = \"{url}\"\ntimeout = \"{timeout}\"\n"))
    }

    /// Replaces the one route on every path.
    pub fn routes(mut self, tables: &str) -> Self {
        self.routes = Some(tables.into());
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        let cache = self.cache.as_ref().map_or(String::new(), |lines| format!("[caches.api]\n{lines}\n"));
        let use_cache = if self.cache.is_some() { "cache = \"api\"\n" } else { "" };
        let routes = self
            .routes
            .clone()
            .unwrap_or(format!("[[routes]]\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n{use_cache}"));
        let log = if self.rest.contains("[log]") { "" } else { "[log]\naccess = \"off\"\n" };
        let upstream = if self.first_upstream {
            format!("[upstreams.api]\nservers = [{}]\n{}\n", self.servers.join(", "), self.upstream)
        } else {
            String::new()
        };
        format!(
            "[listen.web]\naddr = \"127.0.0.1:0\"\n{}\n[admin]\naddr = \"127.0.0.1:0\"\n{}\n{log}{upstream}{cache}\n{routes}\n{}",
            self.listen, self.admin, self.rest
        )
    }

    /// Starts the gateway and waits until Redis is in use: what is fetched before that cannot be known to be newer than all purges.
    pub async fn start_with_redis(self) -> Edge {
        let edge = self.start().await;
        poll_until("Redis to be in use", || async { edge.metric("vanne_redis_up") == Some(1.0) }).await;
        edge
    }

    fn plan(&self) -> vanne::plan::Plan {
        let source = Source { name: "test.toml".into(), text: self.text() };
        let nothing: HashMap<String, String> = HashMap::new();
        match config::load(&source, &nothing, &Overrides::default()) {
            Ok(plan) => plan,
            Err(problems) => panic!("{}", problems.render(false)),
        }
    }

    /// Why the gateway does not start.
    pub async fn fails_to_start(self) -> String {
        app::start(self.plan()).err().expect("the gateway does not start").to_string()
    }

    /// Starts the gateway.
    pub async fn start(self) -> Edge {
        let running = app::start(self.plan()).expect("the gateway starts");
        // One name for all: gateways on other ports are one fleet.
        let client = Client::new(running.addresses[0]).with_host("edge.test");
        Edge { running, client }
    }
}
