//! Several real Redis servers as one store: a Cluster, and a master that Sentinels watch; and certificates for one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::redis::{Redis, Value};
use super::{free_address, poll_until};

/// A Cluster of three masters with a replica each.
pub struct Cluster {
    /// The first three were the masters at first, each with the replica three places on.
    pub servers: Vec<Redis>,
}

impl Cluster {
    /// Starts six servers and waits until all slots are served and every replica follows.
    pub async fn start() -> Self {
        let mut servers = Vec::new();
        for _ in 0..6 {
            let bus = free_address().port().to_string();
            let options =
                ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
            servers.push((Redis::with(&options).await, bus));
        }
        let (first, bus) = (servers[0].0.address(), servers[0].1.clone());
        for (i, (server, _)) in servers.iter().enumerate() {
            ok(server, &["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]).await;
            if i > 0 {
                let port = first.port().to_string();
                ok(server, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
            }
        }
        let cluster = Self { servers: servers.into_iter().map(|(server, _)| server).collect() };
        for (i, (from, to)) in [("0", "5460"), ("5461", "10922"), ("10923", "16383")].into_iter().enumerate()
        {
            ok(&cluster.servers[i], &["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        }
        cluster.until("all to know each other", "cluster_known_nodes:6").await;
        for i in 3..6 {
            let master = cluster.servers[i - 3].command(&["CLUSTER", "MYID"]).await.bytes();
            let master = String::from_utf8(master).unwrap();
            let replica = &cluster.servers[i];
            poll_until("a replica to follow", || async {
                replica.command(&["CLUSTER", "REPLICATE", &master]).await == Value::Simple("OK".into())
            })
            .await;
        }
        cluster.until("the Cluster to serve", "cluster_state:ok").await;
        for replica in &cluster.servers[3..] {
            poll_until("a replica to be in step", || async {
                says(replica, "INFO", "master_link_status:up").await
            })
            .await;
        }
        cluster
    }

    async fn until(&self, what: &str, text: &str) {
        for server in &self.servers {
            poll_until(what, || async { says(server, "CLUSTER INFO", text).await }).await;
        }
    }

    /// The URL for a configuration, with two of the servers.
    pub fn url(&self) -> String {
        format!("redis+cluster://{},{}", self.servers[0].address(), self.servers[4].address())
    }

    /// The keys on all masters that match a pattern, sorted.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys = Vec::new();
        for server in self.servers.iter().filter(|server| server.is_running()) {
            if says(server, "ROLE", "master").await {
                keys.extend(server.keys(pattern).await);
            }
        }
        keys.sort();
        keys
    }

    /// The position of the server that serves a key now.
    pub async fn master_of(&self, key: &str) -> usize {
        for (i, server) in self.servers.iter().enumerate().filter(|(_, server)| server.is_running()) {
            let answer = server.command(&["GET", key]).await;
            if matches!(answer, Value::Bulk(_)) || shown(&answer).contains("WRONGTYPE") {
                return i;
            }
        }
        panic!("nobody serves {key}");
    }
}

/// A master, a replica, and three Sentinels that watch them as `main`.
pub struct Sentinels {
    /// The master at first, and the replica.
    pub servers: [Redis; 2],
    sentinels: Vec<(std::net::SocketAddr, Child, tempfile::TempDir)>,
}

impl Sentinels {
    /// Starts all and waits until the Sentinels know the replica and one another.
    pub async fn start() -> Self {
        let master = Redis::start().await;
        let port = master.address().port().to_string();
        let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]).await;
        poll_until("the replica to be in step", || async {
            says(&replica, "INFO", "master_link_status:up").await
        })
        .await;
        let sentinels = (0..3).map(|_| sentinel(&port)).collect();
        let all = Self { servers: [master, replica], sentinels };
        for (address, ..) in &all.sentinels {
            poll_until("the Sentinels to know of all", || async {
                let told = super::redis::ask(*address, &["INFO", "sentinel"]).await;
                told.is_some_and(|told| {
                    let told = shown(&told);
                    told.contains("slaves=1,sentinels=3") && told.contains("status=ok")
                })
            })
            .await;
        }
        all
    }

    /// Where one of the Sentinels listens.
    pub fn a_sentinel(&self) -> std::net::SocketAddr {
        self.sentinels[0].0
    }

    /// The URL for a configuration; the first Sentinel is one that is not there.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|(address, ..)| address.to_string()).collect();
        format!("redis+sentinel://{},{}/main", free_address(), addresses.join(","))
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for (_, sentinel, _) in &mut self.sentinels {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}

fn sentinel(master: &str) -> (std::net::SocketAddr, Child, tempfile::TempDir) {
    let (address, folder) = (free_address(), tempfile::tempdir().expect("a temporary folder"));
    let file = folder.path().join("sentinel.conf");
    let text = format!(
        "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n",
        address.port(),
        folder.path().display()
    );
    std::fs::write(&file, text).expect("a writable temporary folder");
    let child = Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server; tests/run installs it");
    (address, child, folder)
}

/// A certificate authority, and certificates that it vouches for, in files.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// Made by `openssl`, good for a day: `ca`, `server` for `localhost` and 127.0.0.1, `client`; and `other`, another authority.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = Self { folder };
        for name in ["ca", "other"] {
            made.openssl(&[
                "req",
                "-x509",
                "-nodes",
                "-subj",
                "/CN=Test",
                "-days",
                "1",
                "-keyout",
                &key(name),
                "-out",
                &pem(name),
            ]);
        }
        for name in ["server", "client"] {
            let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
            let subject = format!("/CN={name}");
            made.openssl(&[
                "req",
                "-x509",
                "-nodes",
                "-subj",
                &subject,
                "-days",
                "1",
                "-addext",
                names,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-keyout",
                &key(name),
                "-out",
                &pem(name),
            ]);
        }
        made
    }

    /// A certificate's file.
    pub fn pem(&self, name: &str) -> PathBuf {
        self.folder.path().join(pem(name))
    }

    /// Its key's file.
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(key(name))
    }

    fn openssl(&self, arguments: &[&str]) {
        let made = Command::new("openssl")
            .args(arguments)
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .current_dir(self.folder.path())
            .stderr(Stdio::null())
            .status()
            .expect("openssl; tests/run installs it");
        assert!(made.success(), "openssl {arguments:?}");
    }
}

fn pem(name: &str) -> String {
    format!("{name}.pem")
}

fn key(name: &str) -> String {
    format!("{name}.key")
}

/// A path as TOML and command lines take it.
pub fn path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

async fn ok(server: &Redis, words: &[&str]) {
    let answer = server.command(words).await;
    assert_eq!(answer, Value::Simple("OK".into()), "{words:?}");
}

async fn says(server: &Redis, words: &str, text: &str) -> bool {
    let words: Vec<&str> = words.split(' ').collect();
    shown(&server.command(&words).await).contains(text)
}

fn shown(value: &Value) -> String {
    String::from_utf8_lossy(&value.to_bytes()).into_owned()
}
