//! The program as a user starts, checks and stops it.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::free_address;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::Program;
use crate::support::redis::Redis;

struct Place {
    web: SocketAddr,
    admin: SocketAddr,
}

fn place() -> Place {
    Place { web: free_address(), admin: free_address() }
}

impl Place {
    fn configuration(&self, origin: SocketAddr) -> String {
        format!(
            "[server]\ndrain_timeout = \"10s\"\n[listen.web]\naddr = \"{}\"\n[admin]\naddr = \"{}\"\n\
             [upstreams.api]\nservers = [\"{origin}\"]\n[caches.api]\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n",
            self.web, self.admin
        )
    }
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_all_its_problems_and_code_78() {
    let program = Program::new(env!("CARGO_BIN_EXE_vanne"));
    let file = program.file(
        "wrong.toml",
        "[upstreams.api]\nservers = [\"127.0.0.1:1\"]\nbalanse = \"least_conn\"\n\n[caches.api]\nttl = \"5 mins and a bit\"\n\n[[routes]]\nupstream = \"apy\"\n",
    );
    for arguments in [vec!["check", "-c"], vec!["-t", "-c"], vec!["run", "-c"]] {
        let mut program = Program::new(env!("CARGO_BIN_EXE_vanne"));
        for argument in arguments {
            program = program.arg(argument);
        }
        let mut process = program.arg(&file).start().await;
        assert_eq!(process.wait().await.code(), Some(78));
        process.wait_for_stderr("errors in").await;
        let told = process.stderr();
        for part in [
            "wrong.toml:3:1",
            "balance",
            "wrong.toml:6:7",
            "5 mins and a bit",
            "wrong.toml:9:12",
            "apy",
            "3 errors",
        ] {
            assert!(told.contains(part), "no {part:?} in:\n{told}");
        }
    }
}

#[tokio::test]
async fn a_right_file_is_said_to_be_right() {
    let program = Program::new(env!("CARGO_BIN_EXE_vanne"));
    let file = program.file("vanne.toml", &place().configuration(free_address()));
    let mut process = program.arg("check").arg("-c").arg(&file).start().await;
    assert!(process.wait().await.success());
    process.wait_for_stdout("ok (1 listener, 1 upstream").await;
}

#[tokio::test]
async fn sigterm_lets_what_is_in_flight_finish_and_then_leaves_at_once() {
    let gate = Gate::new("twenty slow answers");
    let origin =
        Origin::new().on("/slow/*", reply(200).cache("no-store").body("done").gate(&gate)).start().await;
    let place = place();
    let mut process =
        Program::gateway(&place.configuration(origin.address())).ready_at(place.admin).start().await;
    let client = Client::new(place.web);
    let slow: Vec<_> = (0..20).map(|i| tokio::spawn(client.get(&format!("/slow/{i}")).send())).collect();
    gate.arrived(20).await;
    let mut idle = client.connect().await;
    process.signal("TERM");
    process.wait_for_stderr("draining").await;
    idle.expect_close().await;
    let admin = Client::new(place.admin);
    admin.get("/readyz").send().await.expect(503);
    assert!(!process.has_ended());
    gate.release();
    for answer in slow {
        answer.await.expect("asked").expect(200).body("done");
    }
    let leave = tokio::time::timeout(std::time::Duration::from_secs(5), process.wait());
    assert!(leave.await.expect("it leaves long before drain_timeout").success());
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let gate = Gate::new("an answer that never comes");
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("x").gate(&gate)).start().await;
    let place = place();
    let mut process =
        Program::gateway(&place.configuration(origin.address())).ready_at(place.admin).start().await;
    let waiting = tokio::spawn(Client::new(place.web).get("/slow").try_send());
    gate.arrived(1).await;
    process.signal("TERM");
    process.wait_for_stderr("draining").await;
    process.signal("INT");
    process.wait_for_stderr("second signal").await;
    process.wait().await;
    assert!(waiting.await.expect("asked").is_err());
    gate.release();
}

#[tokio::test]
async fn a_health_check_tells_a_living_gateway_from_none() {
    let origin = Origin::new().start().await;
    let place = place();
    let text = place.configuration(origin.address());
    let check = |flag: &'static str| {
        let program = Program::new(env!("CARGO_BIN_EXE_vanne"));
        let file = program.file("vanne.toml", &text);
        let program = program.arg("healthcheck").arg("-c").arg(&file);
        if flag.is_empty() { program } else { program.arg(flag) }
    };
    let mut nobody = check("").start().await;
    assert_eq!(nobody.wait().await.code(), Some(1));
    nobody.wait_for_stderr("no answer from").await;

    let _gateway = Program::gateway(&text).ready_at(place.admin).start().await;
    for flag in ["", "--ready"] {
        assert!(check(flag).start().await.wait().await.success());
    }
}

#[tokio::test]
async fn a_taken_address_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = Place { web: taken.local_addr().expect("an address"), admin: free_address() };
    let mut process = Program::gateway(&place.configuration(free_address())).start().await;
    assert_eq!(process.wait().await.code(), Some(1));
    process.wait_for_stderr("in use").await;
    let told = process.stderr();
    assert!(told.contains(&format!("cannot listen on {}", place.web)), "{told}");
    assert!(!told.contains("panicked"), "{told}");
}

#[tokio::test]
async fn flags_beat_the_environment_and_that_beats_the_file() {
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let place = place();
    let (of_flag, of_environment) = (free_address(), free_address());
    let text = place.configuration(origin.address());
    let by_environment = Program::gateway(&text)
        .env("LISTEN", &of_environment.to_string())
        .ready_at(place.admin)
        .start()
        .await;
    Client::new(of_environment).get("/").send().await.expect(200);
    drop(by_environment);
    let _by_flag = Program::gateway(&text)
        .env("LISTEN", &of_environment.to_string())
        .arg("--listen")
        .arg(&of_flag.to_string())
        .ready_at(place.admin)
        .start()
        .await;
    Client::new(of_flag).get("/").send().await.expect(200);
}

#[tokio::test]
async fn the_demonstration_holds_without_redis() {
    let nobody = free_address();
    let program = Program::new(env!("CARGO_BIN_EXE_vanne")).arg("demo").arg("--seconds").arg("8");
    let mut process = program.arg("--redis").arg(&format!("redis://{nobody}")).start().await;
    process.wait_for_stdout("verdict").await;
    let told = process.stdout();
    assert!(process.wait().await.success(), "{told}\n{}", process.stderr());
    assert!(told.contains("memory tier alone") && told.contains("verdict: it holds"), "{told}");
}

#[tokio::test]
async fn the_demonstration_holds_with_redis() {
    let redis = Redis::start().await;
    let program = Program::new(env!("CARGO_BIN_EXE_vanne")).arg("demo").arg("--seconds").arg("8");
    let mut process = program.arg("--redis").arg(&redis.url()).start().await;
    process.wait_for_stdout("verdict").await;
    let told = process.stdout();
    assert!(process.wait().await.success(), "{told}\n{}", process.stderr());
    assert!(told.contains("answers came from Redis"), "{told}");
}
