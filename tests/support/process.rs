//! A program under test as a process: the gateway with a configuration, watched and ended.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::client::Client;
use super::{poll_until, within};

/// A program about to be started.
#[derive(Debug)]
pub struct Program {
    command: Command,
    folder: tempfile::TempDir,
    ready: Option<SocketAddr>,
}

/// A running program, killed when dropped.
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    folder: tempfile::TempDir,
}

impl Program {
    /// The gateway, run with this configuration from an empty folder.
    pub fn gateway(configuration: &str) -> Self {
        let program = Self::new(env!("CARGO_BIN_EXE_vanne"));
        let file = program.file("vanne.toml", configuration);
        program.arg("run").arg("-c").arg(&file)
    }

    /// Any program, in an empty folder. It inherits the environment but for the variables the gateway reads.
    pub fn new(path: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(path);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A developer's own Redis must not decide what a test sees.
        for name in ["REDIS_URL", "CACHE_TTL", "LISTEN", "RUST_LOG"] {
            command.env_remove(name);
        }
        Self { command, folder, ready: None }
    }

    /// Writes a file into its folder and gives the path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a writable temporary folder");
        path.to_str().expect("a temporary path in UTF-8").into()
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Started means that `GET /readyz` at this address, the admin listener's, answers 200.
    pub fn ready_at(mut self, admin: SocketAddr) -> Self {
        self.ready = Some(admin);
        self
    }

    /// Starts the program and waits until it is ready, if [`Program::ready_at`] said where to see it.
    ///
    /// # Panics
    /// If it ends before it is ready, with what it wrote.
    pub async fn start(mut self) -> Process {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        let mut process = Process { child, ended: None, out, err, folder: self.folder };
        if let Some(admin) = self.ready {
            process.wait_until_ready(admin).await;
        }
        process
    }
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `INT`, `USR2`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        assert!(self.ended.is_none(), "the process has ended; its id may be another's by now");
        signal(self.id(), name);
    }

    /// Kills it (SIGKILL) and collects it.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself; `wait` collects it either way.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not end in time, with what it wrote.
    pub async fn wait(&mut self) -> ExitStatus {
        let ended = within("the process to end", async {
            while !self.has_ended() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        ended.await;
        self.ended.expect("an ended process has a status")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child of this process");
        }
        self.ended.is_some()
    }

    /// Waits until all that an ended process wrote was read.
    pub async fn wait_for_ends(&self) {
        // The readers of its pipes hold a share of what they read until then.
        let read = || Arc::strong_count(&self.out) == 1 && Arc::strong_count(&self.err) == 1;
        poll_until("the end of what it wrote", || async { read() }).await;
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.out)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.err)
    }

    /// Waits until it has written `text` to standard error.
    pub async fn wait_for_stderr(&self, text: &str) {
        poll_until(&format!("{text:?} on standard error"), || async { self.stderr().contains(text) }).await;
    }

    /// Waits until it has written `text` to standard output.
    pub async fn wait_for_stdout(&self, text: &str) {
        poll_until(&format!("{text:?} on standard output"), || async { self.stdout().contains(text) }).await;
    }

    async fn wait_until_ready(&mut self, admin: SocketAddr) {
        let client = Client::new(admin);
        within(&format!("/readyz on {admin}"), async {
            loop {
                assert!(
                    !self.has_ended(),
                    "it ended before it was ready ({:?}): {}",
                    self.ended,
                    self.stderr()
                );
                if client.get("/readyz").try_send().await.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // The one place where what it said about a failure can be seen.
        if std::thread::panicking() {
            eprintln!("--- what process {} wrote ---\n{}{}", self.id(), self.stdout(), self.stderr());
        }
    }
}

/// Sends a signal to a process of this test, by id. The shell's own `kill` is there where the program is not.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "signal {name} could not be sent to process {process}"
    );
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Arc<Mutex<Vec<u8>>> {
    let text = Arc::new(Mutex::new(Vec::new()));
    let mut stream = stream.expect("a piped stream");
    let into = text.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    text
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned()
}
