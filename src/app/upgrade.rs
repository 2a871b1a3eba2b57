//! From one process to the next: the listening sockets go to a new run of the program, so that at no moment nobody listens.
//!
//! The new process finds a Unix socket as its standard input, which no other process can reach: over it come the listening sockets (`SCM_RIGHTS`)
//! with what each is for, and back goes one line once it serves. Until then the process before serves; when the line does not come, it
//! goes on.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use super::Running;

/// Set for a process that is to find sockets at its standard input.
const ASKED: &str = "VANNE_UPGRADE";
/// What the new process says once it serves.
const SERVING: u8 = b'+';
/// How long the new process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is still there.
const LOOK: Duration = Duration::from_millis(20);
/// The most sockets that can be sent at once: the kernel's own limit is 253.
const MOST: usize = 250;
/// The most that is said about them, in bytes.
const LONGEST: usize = 64 * 1024;

/// Why the process did not hand over.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The program could not be started.
    #[error("the program could not be started: {0}")]
    Start(io::Error),
    /// The sockets could not be sent.
    #[error("the sockets could not be handed over: {0}")]
    Send(io::Error),
    /// The new process left.
    #[error("the new process ended before it served ({0}); what was wrong, it said itself")]
    Ended(ExitStatus),
    /// It did not say that it serves; it was ended.
    #[error("the new process did not serve within {} s and was ended", PATIENCE.as_secs())]
    Silent,
}

/// What a socket is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Purpose {
    /// A listener's name; `None`: the operator's listener.
    listener: Option<String>,
    /// The address as the configuration says it.
    wanted: SocketAddr,
}

/// Sockets from the process before, if there was one.
#[derive(Default)]
pub struct Inheritance {
    sockets: Vec<(Purpose, TcpListener)>,
    before: Option<UnixStream>,
}

impl Inheritance {
    /// The socket of this listener, `None` being the operator's.
    pub(super) fn socket(
        &self,
        listener: Option<&str>,
        wanted: SocketAddr,
    ) -> Option<io::Result<TcpListener>> {
        let is_it = |purpose: &Purpose| purpose.listener.as_deref() == listener && purpose.wanted == wanted;
        let (_, socket) = self.sockets.iter().find(|(purpose, _)| is_it(purpose))?;
        Some(socket.try_clone())
    }

    /// Tells the process before that this one serves. Sockets that were not asked for close here.
    ///
    /// # Errors
    /// When that process is gone.
    pub fn taken(self) -> io::Result<()> {
        self.before.map_or(Ok(()), |mut before| before.write_all(&[SERVING]))
    }
}

/// What the process before left to this one; nothing when there was none.
///
/// # Errors
/// When there is one and what it sends does not arrive whole.
pub fn inherited() -> io::Result<Inheritance> {
    if std::env::var_os(ASKED).is_none() {
        return Ok(Inheritance::default());
    }
    receive(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Starts the program anew and waits until it serves on the sockets of this gateway; its process number.
///
/// # Errors
/// When it does not come to serve. Then it is gone, and this gateway serves as before.
pub async fn hand_over(running: &Running) -> Result<u32, UpgradeError> {
    let (ours, theirs) = UnixStream::pair().map_err(UpgradeError::Start)?;
    let mut child = start(theirs).map_err(UpgradeError::Start)?;
    match served(running, ours, &mut child).await {
        Ok(()) => {
            let pid = child.id();
            // Nobody else collects it should it end before this process does.
            std::thread::spawn(move || child.wait());
            Ok(pid)
        }
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

/// The program as it lies on the disk now, with the arguments of this process.
fn start(stdin: UnixStream) -> io::Result<Child> {
    let mut program = std::env::current_exe()?;
    // Linux says so of a program whose file was replaced; under its name lies the new one.
    if let Some(path) = program.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        program = path.into();
    }
    std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(ASKED, "1")
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .spawn()
}

async fn served(running: &Running, ours: UnixStream, child: &mut Child) -> Result<(), UpgradeError> {
    send(running, &ours).map_err(UpgradeError::Send)?;
    ours.set_nonblocking(true).map_err(UpgradeError::Send)?;
    let ours = tokio::net::UnixStream::from_std(ours).map_err(UpgradeError::Send)?;
    let answer = async {
        loop {
            let mut word = [0];
            match ours.try_read(&mut word) {
                Ok(1) if word[0] == SERVING => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => {}
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(UpgradeError::Ended(status));
            }
            let _ = tokio::time::timeout(LOOK, ours.readable()).await;
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(UpgradeError::Silent))
}

fn send(running: &Running, to: &UnixStream) -> io::Result<()> {
    let sockets: Vec<_> = running.sockets().collect();
    if sockets.len() > MOST {
        return Err(io::Error::other(format!(
            "there are {} listeners; {MOST} can be handed over",
            sockets.len()
        )));
    }
    let purposes: Vec<Purpose> = sockets
        .iter()
        .map(|(listener, wanted, _)| Purpose { listener: listener.map(str::to_owned), wanted: *wanted })
        .collect();
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, _, socket)| socket.as_fd()).collect();
    let mut text = serde_json::to_vec(&purposes)?;
    text.push(b'\n');
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    // The sockets go with the first byte; the rest is an ordinary stream.
    let sent = rustix::net::sendmsg(to, &[IoSlice::new(&text[..1])], &mut rights, SendFlags::empty())?;
    let mut to = to;
    to.write_all(&text[sent..])
}

fn receive(from: UnixStream) -> io::Result<Inheritance> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0];
    rustix::net::recvmsg(&from, &mut [IoSliceMut::new(&mut text)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    read_line(&from, &mut text)?;
    let purposes: Vec<Purpose> = serde_json::from_slice(&text)?;
    if purposes.len() != fds.len() {
        return Err(io::Error::other(format!("{} sockets came, {} were told of", fds.len(), purposes.len())));
    }
    let sockets = purposes.into_iter().zip(fds.into_iter().map(TcpListener::from)).collect();
    Ok(Inheritance { sockets, before: Some(from) })
}

/// Reads on to the end of the line.
fn read_line(mut from: &UnixStream, text: &mut Vec<u8>) -> io::Result<()> {
    let mut byte = [0];
    while text.last() != Some(&b'\n') {
        io::Read::read_exact(&mut from, &mut byte)?;
        text.push(byte[0]);
        if text.len() > LONGEST {
            return Err(io::Error::other("what was told of the sockets does not end"));
        }
    }
    Ok(())
}
