//! A Redis that fails in every way there is, under steady load: no failed request, no wrong answer, no long wait, and it is used again soon.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::edge::Edge;
use crate::support::client::Client;
use crate::support::origin::{Origin, reply};
use crate::support::poll_until;
use crate::support::redis::{Redis, Value};
use crate::support::redis_fleet::{Cluster, Sentinels};

/// Clients that ask one after the other.
const CLIENTS: usize = 4;
/// What is asked for again and again: more than the memory of a gateway holds here.
const POPULAR: usize = 150;
/// How long Redis fails.
const FAILING: Duration = Duration::from_millis(2500);
/// No request may take longer than this while it does, but one in a hundred.
const LONGEST: Duration = Duration::from_millis(250);
/// It is used again so soon after it is back.
const BACK: Duration = Duration::from_secs(5);

fn content_of(target: &str) -> String {
    format!("the content of {target}, and of nothing else; {}", target.repeat(20))
}

async fn origin() -> Origin {
    Origin::new()
        .on_request("*", |r| reply(200).cache("max-age=600").body(content_of(&r.target)))
        .start()
        .await
}

/// A gateway whose memory holds little, so that most hits are Redis'.
async fn gateway(origin: &Origin, url: &str) -> Edge {
    Edge::serving(origin).cache("memory = \"64KiB\"").redis_within(url, "50ms").start_with_redis().await
}

/// What the machine took away: how late a clock was that ticks beside the requests.
#[derive(Default)]
struct Stalls(AtomicU64);

impl Stalls {
    async fn watch(self: Arc<Self>) {
        const TICK: Duration = Duration::from_millis(5);
        loop {
            let before = Instant::now();
            sleep(TICK).await;
            let late = before.elapsed().saturating_sub(TICK * 2);
            self.0.fetch_add(late.as_micros() as u64, Ordering::Relaxed);
        }
    }

    fn sum(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Requests that go on until it is dropped.
struct Load {
    tally: Arc<Tally>,
    _clients: JoinSet<()>,
}

#[derive(Default)]
struct Tally {
    stalls: Arc<Stalls>,
    failing: AtomicBool,
    /// How long requests took while Redis failed.
    took: Mutex<Vec<Duration>>,
    wrong: Mutex<Vec<String>>,
    details: Mutex<BTreeSet<String>>,
    answered: AtomicU64,
}

impl Load {
    fn on(edge: &Edge) -> Self {
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        clients.spawn(tally.stalls.clone().watch());
        for number in 0..CLIENTS {
            clients.spawn(ask_on(edge.client.clone(), number, tally.clone()));
        }
        Self { tally, _clients: clients }
    }

    /// Until so many more requests were answered.
    async fn more(&self, count: u64) {
        let before = self.tally.answered.load(Ordering::Relaxed);
        poll_until("requests to be answered", || async {
            self.tally.answered.load(Ordering::Relaxed) >= before + count
        })
        .await;
    }

    /// Fails the test if a request failed, or was answered wrongly or late.
    fn expect_none_hurt(&self) {
        let wrong = self.tally.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} hurt, the first: {}", wrong.len(), wrong[0]);
        let mut took = self.tally.took.lock().unwrap().clone();
        took.sort();
        assert!(took.len() > 100, "only {} requests while it failed", took.len());
        let p99 = took[took.len() * 99 / 100];
        assert!(p99 <= LONGEST, "of {} requests one in a hundred took {p99:?} or more", took.len());
    }

    /// What `Cache-Status` told.
    fn details(&self) -> BTreeSet<String> {
        self.tally.details.lock().unwrap().clone()
    }
}

async fn ask_on(client: Client, number: usize, tally: Arc<Tally>) {
    for round in 0.. {
        let target = match round % 4 {
            0 => format!("/once/{number}/{round}"),
            _ => format!("/popular/{}", (round * 7 + number * 31) % POPULAR),
        };
        let (before, stalled, failing) =
            (Instant::now(), tally.stalls.sum(), tally.failing.load(Ordering::Relaxed));
        let answer = client.get(&target).try_send().await;
        if failing {
            let took = before.elapsed().saturating_sub(tally.stalls.sum() - stalled);
            tally.took.lock().unwrap().push(took);
        }
        match answer {
            Ok(answer) if answer.status == 200 && answer.truncated.is_none() => {
                if answer.text() != content_of(&target) {
                    tally.wrong.lock().unwrap().push(format!("{target} was answered with {}", answer.text()));
                }
                let status = answer.cache_status();
                if let Some((_, detail)) = status.split_once("detail=") {
                    tally.details.lock().unwrap().insert(detail.to_owned());
                }
            }
            Ok(answer) => {
                tally
                    .wrong
                    .lock()
                    .unwrap()
                    .push(format!("{target}: {} {:?}", answer.status, answer.truncated));
            }
            Err(why) => tally.wrong.lock().unwrap().push(format!("{target}: {why}")),
        }
        tally.answered.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
    }
}

/// Hits that Redis gave.
fn hits(edge: &Edge) -> f64 {
    let metrics = edge.metrics();
    let lines = metrics.lines().filter(|line| {
        line.starts_with("vanne_cache_requests_total{result=\"hit\"") && line.contains("tier=\"redis\"")
    });
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn errors(edge: &Edge, kind: &str) -> f64 {
    edge.metric(&format!("vanne_redis_errors_total{{kind=\"{kind}\"}}")).unwrap_or(0.0)
}

/// Steady load before, while Redis fails, and after; `fail` and `heal` make it so.
async fn through(edge: &Edge, fail: impl AsyncFnOnce(), heal: impl AsyncFnOnce()) -> Load {
    let load = Load::on(edge);
    poll_until("hits from Redis", || async { hits(edge) > 20.0 }).await;
    load.tally.failing.store(true, Ordering::Relaxed);
    fail().await;
    sleep(FAILING).await;
    load.more(40).await;
    load.tally.failing.store(false, Ordering::Relaxed);
    heal().await;
    let (before, back) = (hits(edge), Instant::now());
    poll_until("hits from Redis again", || async { hits(edge) >= before + 20.0 }).await;
    let took = back.elapsed().saturating_sub(load.tally.stalls.sum());
    assert!(took < BACK, "it was used again after {took:?}");
    load.more(40).await;
    load.expect_none_hurt();
    load
}

#[tokio::test]
async fn killed_and_started_again() {
    let (redis, origin) = (tokio::sync::Mutex::new(Redis::start().await), origin().await);
    let url = redis.lock().await.url();
    let edge = gateway(&origin, &url).await;
    let fail = async || redis.lock().await.kill();
    let heal = async || redis.lock().await.start_again().await;
    let load = through(&edge, fail, heal).await;
    assert!(errors(&edge, "connection") > 0.0 && errors(&edge, "circuit-open") > 0.0);
    assert!(load.details().contains("redis-circuit-open"), "{:?}", load.details());
    edge.finish().await;
}

#[tokio::test]
async fn hung() {
    let (redis, origin) = (Redis::start().await, origin().await);
    let edge = gateway(&origin, &redis.url()).await;
    let load = through(&edge, async || redis.pause(), async || redis.resume()).await;
    assert!(errors(&edge, "timeout") > 0.0 && errors(&edge, "circuit-open") > 0.0);
    for detail in ["redis-timeout", "redis-circuit-open"] {
        assert!(load.details().contains(detail), "{:?}", load.details());
    }
    edge.finish().await;
}

#[tokio::test]
async fn slower_than_its_budget() {
    let (redis, origin) = (Redis::start().await, origin().await);
    let delay = Arc::new(AtomicU64::new(0));
    let edge = gateway(&origin, &slowed(&redis, delay.clone()).await).await;
    let set = |millis| delay.store(millis, Ordering::Relaxed);
    let load = through(&edge, async || set(200), async || set(0)).await;
    assert!(errors(&edge, "timeout") > 0.0);
    assert!(load.details().contains("redis-timeout"), "{:?}", load.details());
    edge.finish().await;
}

#[tokio::test]
async fn out_of_memory() {
    let (redis, origin) = (Redis::with(&["--maxmemory-policy", "noeviction"]).await, origin().await);
    let edge = gateway(&origin, &redis.url()).await;
    let limit = async |bytes: &str| {
        let set = redis.command(&["CONFIG", "SET", "maxmemory", bytes]).await;
        assert_eq!(set, Value::Simple("OK".into()));
    };
    through(&edge, async || limit("1").await, async || limit("0").await).await;
    assert!(errors(&edge, "full") > 0.0);
    edge.finish().await;
}

#[tokio::test]
async fn read_only() {
    let (redis, origin) = (Redis::start().await, origin().await);
    let nobody = crate::support::free_address().port().to_string();
    let edge = gateway(&origin, &redis.url()).await;
    let follow = async |host: &str, port: &str| {
        assert_eq!(redis.command(&["REPLICAOF", host, port]).await, Value::Simple("OK".into()));
    };
    through(&edge, async || follow("127.0.0.1", &nobody).await, async || follow("NO", "ONE").await).await;
    assert!(errors(&edge, "read-only") > 0.0);
    edge.finish().await;
}

#[tokio::test]
async fn flushed_again_and_again() {
    let (redis, origin) = (Redis::start().await, origin().await);
    let edge = gateway(&origin, &redis.url()).await;
    let fail = async || {
        for _ in 0..10 {
            redis.flush().await;
            sleep(FAILING / 20).await;
        }
    };
    through(&edge, fail, async || {}).await;
    edge.finish().await;
}

#[tokio::test]
async fn damaged() {
    let (redis, origin) = (Redis::start().await, origin().await);
    let edge = gateway(&origin, &redis.url()).await;
    let fail = async || {
        for key in redis.keys("vanne:v1:{*}").await {
            if key.contains("{fleet}") {
                continue;
            }
            let Some(mut value) = redis.get(&key).await else { continue };
            let middle = value.len() / 2;
            value[middle] ^= 0x40;
            redis.overwrite(&key, &value).await;
        }
    };
    let load = through(&edge, fail, async || {}).await;
    assert!(errors(&edge, "damaged") > 0.0);
    assert!(load.details().contains("redis-damaged"), "{:?}", load.details());
    edge.finish().await;
}

#[tokio::test]
async fn loading_after_a_start() {
    let (redis, origin) = (Redis::start().await, origin().await);
    let edge = gateway(&origin, &redis.url()).await;
    // What a server does that reads its data: it takes connections and says so to every command.
    let loading = Arc::new(AtomicBool::new(false));
    drop(edge);
    let edge = gateway(&origin, &interrupted(&redis, loading.clone()).await).await;
    let set = |on| loading.store(on, Ordering::Relaxed);
    let load = through(&edge, async || set(true), async || set(false)).await;
    assert!(errors(&edge, "loading") > 0.0);
    assert!(load.details().contains("redis-loading"), "{:?}", load.details());
    edge.finish().await;
}

#[tokio::test]
async fn failing_over_behind_sentinels() {
    let (fleet, origin) = (tokio::sync::Mutex::new(Sentinels::start().await), origin().await);
    let url = fleet.lock().await.url();
    let edge = gateway(&origin, &url).await;
    let fail = async || fleet.lock().await.servers[0].kill();
    let heal = async || {
        poll_until("the Sentinels to make the replica a master", || async {
            let role = fleet.lock().await.servers[1].command(&["ROLE"]).await.to_bytes();
            String::from_utf8_lossy(&role).contains("master")
        })
        .await;
    };
    through(&edge, fail, heal).await;
    assert!(errors(&edge, "connection") > 0.0);
    edge.finish().await;
}

#[tokio::test]
async fn a_master_of_a_cluster_failing_over() {
    let (cluster, origin) = (tokio::sync::Mutex::new(Cluster::start().await), origin().await);
    let url = cluster.lock().await.url();
    let edge = gateway(&origin, &url).await;
    let fail = async || cluster.lock().await.servers[1].kill();
    let heal = async || {
        poll_until("the replica to be a master", || async {
            let role = cluster.lock().await.servers[4].command(&["ROLE"]).await.to_bytes();
            String::from_utf8_lossy(&role).contains("master")
        })
        .await;
    };
    through(&edge, fail, heal).await;
    poll_until("all servers to be used", || async { edge.metric("vanne_redis_up") == Some(1.0) }).await;
    edge.finish().await;
}

/// The same Redis behind a line on which every answer takes so many milliseconds.
async fn slowed(redis: &Redis, delay: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let server = redis.address();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let delay = delay.clone();
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(server).await else { return };
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let (late, mut due) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                tokio::spawn(async move {
                    while let Some((at, bytes)) = due.recv().await {
                        tokio::time::sleep_until(at).await;
                        if to_client.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                });
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    let at = Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
                    if late.send((at, bytes[..count].to_vec())).is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// The same Redis behind a line on which every command is refused while it is said to be loading.
async fn interrupted(redis: &Redis, loading: Arc<AtomicBool>) -> String {
    use crate::support::redis::Resp;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let server = redis.address();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let loading = loading.clone();
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(server).await else { return };
                let (mut client, mut server) = (Resp::new(client), Resp::new(server));
                while let Ok(command) = client.value().await {
                    let answer = if loading.load(Ordering::Relaxed) {
                        Value::Error("LOADING Redis is loading the dataset in memory".into())
                    } else {
                        let sent = server.source().write_all(&command.to_bytes()).await;
                        match (sent, server.value().await) {
                            (Ok(()), Ok(answer)) => answer,
                            _ => return,
                        }
                    };
                    if client.source().write_all(&answer.to_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}
