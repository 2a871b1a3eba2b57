//! A program that is replaced by a newer one while it serves.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::free_address;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::{Process, Program, signal};
use crate::support::{poll_until, within};

const TOKEN: &str = "sixteen-characters-at-least";

struct Place {
    web: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    fn new() -> Self {
        Self { web: free_address(), admin: free_address() }
    }

    fn before(&self, origin: &Origin) -> String {
        format!(
            "[server]\ndrain_timeout = \"20s\"\ndrain_delay = \"20s\"\n[listen.web]\naddr = \"{}\"\n[admin]\naddr = \"{}\"\n\
             token = \"{TOKEN}\"\n[upstreams.api]\nservers = [\"{}\"]\n[[routes]]\nupstream = \"api\"\n",
            self.web,
            self.admin,
            origin.address()
        )
    }

    /// The process that serves now, as its own metrics say when it started.
    async fn started(&self) -> Option<f64> {
        let page = Client::new(self.admin).get("/metrics").try_send().await.ok()?.text();
        page.lines().find_map(|line| line.strip_prefix("process_start_time_seconds ")?.parse().ok())
    }
}

/// The processes whose parent this one is.
fn children(of: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let all = std::fs::read_dir("/proc")
        .expect("a /proc")
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|&pid| parent(pid) == Some(of)).collect()
}

/// Ends a process when the specification does: the next program is nobody's child by then.
struct Ended(u32);

impl Drop for Ended {
    fn drop(&mut self) {
        signal(self.0, "KILL");
    }
}

async fn upgraded(process: &mut Process) -> Ended {
    poll_until("a new process", || async { !children(process.id()).is_empty() }).await;
    Ended(children(process.id())[0])
}

#[tokio::test]
async fn the_next_program_serves_on_the_same_sockets_and_no_request_is_lost() {
    let gate = Gate::new("an answer under way");
    let origin = Origin::new()
        .on("/slow", reply(200).body("slow").gate(&gate))
        .on("*", reply(200).body("x"))
        .start()
        .await;
    let place = Place::new();
    let mut process = Program::gateway(&place.before(&origin)).ready_at(place.admin).start().await;
    let slow = tokio::spawn(Client::new(place.web).get("/slow").send());
    gate.arrived(1).await;
    let going = Arc::new(AtomicBool::new(true));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (client, going) = (Client::new(place.web), going.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while going.load(Ordering::Relaxed) {
                    client.get("/x").try_send().await.expect("every request is answered").expect(200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    process.signal("USR2");
    let next = upgraded(&mut process).await;
    process.wait_for_stderr("another process serves now").await;
    // Those who come now meet the next program, which says so by its own counters; the request under way is the old one's to finish.
    Client::new(place.admin).get("/readyz").send().await.expect(200);
    Client::new(place.web).get("/x").send().await.expect(200);
    assert!(!process.has_ended(), "it has an answer to finish");
    gate.release();
    slow.await.expect("asked").expect(200).body("slow");
    assert!(within("the old program to leave, without its drain_delay", process.wait()).await.success());
    Client::new(place.web).get("/x").send().await.expect(200);
    going.store(false, Ordering::Relaxed);
    let mut served = 0;
    for task in load {
        served += task.await.expect("no request fails");
    }
    assert!(served > 20, "{served} requests are no load");
    drop(next);
}

#[tokio::test]
async fn a_program_that_does_not_come_to_serve_changes_nothing() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let place = Place::new();
    let mut process = Program::gateway(&place.before(&origin)).ready_at(place.admin).start().await;
    let started = place.started().await;
    let file = process.folder().join("vanne.toml");
    std::fs::write(&file, "[upstreams").expect("its folder is ours");
    process.signal("USR2");
    process.wait_for_stderr("not upgraded, this process goes on").await;
    Client::new(place.web).get("/x").send().await.expect(200);
    assert_eq!(place.started().await, started);
    let page = Client::new(place.admin).get("/metrics").send().await.text();
    assert!(page.contains("vanne_upgrade_failures_total 1\n"), "{page}");
    assert!(children(process.id()).is_empty());
    assert!(!process.has_ended());
}

#[tokio::test]
async fn the_command_waits_until_the_next_program_serves() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let place = Place::new();
    let mut process = Program::gateway(&place.before(&origin)).ready_at(place.admin).start().await;
    let file = process.folder().join("vanne.toml");
    let command = Program::new(env!("CARGO_BIN_EXE_vanne")).arg("upgrade").arg("-c");
    let mut told = command.arg(file.to_str().expect("a path of letters")).start().await;
    let next = upgraded(&mut process).await;
    assert!(told.wait().await.success());
    told.wait_for_stdout(&format!("process {} serves now", next.0)).await;
    assert!(within("the old program to leave", process.wait()).await.success());
    Client::new(place.web).get("/x").send().await.expect(200);
}

#[tokio::test]
async fn the_service_manager_is_told_of_each_step() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let mut heard = String::new();
    let mut hear = |wanted: &str| {
        let mut message = [0; 512];
        while !heard.contains(wanted) {
            let length =
                manager.recv(&mut message).unwrap_or_else(|e| panic!("{wanted} is not told ({e}): {heard}"));
            heard.push_str(std::str::from_utf8(&message[..length]).expect("text"));
            heard.push('\n');
        }
        heard.clear();
    };
    let path = path.to_str().expect("a path of letters");
    let process = Program::gateway(&place.before(&origin))
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "200000")
        .ready_at(place.admin)
        .start()
        .await;
    hear("READY=1");
    hear("WATCHDOG=1");
    process.signal("HUP");
    hear("RELOADING=1\nMONOTONIC_USEC=");
    hear("READY=1");
    process.signal("TERM");
    hear("STOPPING=1");
}

#[tokio::test]
async fn sigquit_drains_without_waiting_for_drain_delay() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let place = Place::new();
    let mut process = Program::gateway(&place.before(&origin)).ready_at(place.admin).start().await;
    process.signal("QUIT");
    // Its drain_delay is longer than anybody waits here.
    assert!(within("it to leave", process.wait()).await.success());
}
