//! Opening files beneath a root, so that nothing leads out of it: not `..`, not a link, not a link that is changed while we look.
//!
//! The kernel is asked to see to it (`openat2` with `RESOLVE_BENEATH`, Linux 5.6). Where it cannot, names are opened one by one and no link is followed at all: that
//! refuses more, and never less.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use crate::base::clock::WallTime;

/// A folder whose files are served.
pub struct Root(OwnedFd);

/// What lies at a path.
pub enum Node {
    /// A regular file.
    File(Opened),
    /// A folder.
    Folder(OwnedFd),
}

/// A regular file, open for reading.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// What tells it from what it was and will be.
    pub stamp: Stamp,
}

/// What a file has that changes when its content does: the same stamp stands for the same content, but for a file that was written twice within the grain of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Its length in bytes.
    pub length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// The stamp of an open file, as it is now.
    ///
    /// # Errors
    /// What the system says.
    pub fn now(file: &File) -> io::Result<Self> {
        Ok(Self::of(&fstat(file)?))
    }

    /// When the content was last written, in whole seconds.
    pub fn modified(&self) -> WallTime {
        WallTime::from_secs(u64::try_from(self.modified.0).unwrap_or(0))
    }

    /// When anything about it last changed, in whole seconds.
    pub fn changed(&self) -> WallTime {
        WallTime::from_secs(u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(0))
    }
}

/// To read; never to wait for what is no file, like a pipe nobody writes to.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Root {
    /// Opens the folder itself. A link may lead to it: who replaces that link replaces all files at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        Ok(Self(openat(CWD, folder, flags, Mode::empty())?))
    }

    /// Opens what lies at a path beneath it; `None` when there is nothing that may be read.
    ///
    /// # Errors
    /// What the system says, when that is not about this path: no more files may be open, the disk fails.
    pub fn at(&self, path: &[u8]) -> io::Result<Option<Node>> {
        let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        let opened = match self.open_beneath(path) {
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path),
            other => other,
        };
        match opened.and_then(node) {
            Ok(node) => Ok(node),
            Err(error) if is_absent(error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn open_beneath(&self, path: &OsStr) -> Result<OwnedFd, Errno> {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..AGAIN {
            match openat2(&self.0, path, FLAGS, Mode::empty(), resolve) {
                // Something was renamed meanwhile, so that the kernel is not sure.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_beneath(&self, _path: &OsStr) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    /// Name by name, no link followed.
    fn walk(&self, path: &OsStr) -> Result<OwnedFd, Errno> {
        let mut names = path.as_bytes().split(|byte| *byte == b'/').peekable();
        let mut here = openat(&self.0, ".", FLAGS | OFlags::DIRECTORY, Mode::empty())?;
        while let Some(name) = names.next() {
            if name == b".." || name.is_empty() {
                return Err(Errno::NOENT);
            }
            let folder = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
            here = openat(&here, OsStr::from_bytes(name), FLAGS | OFlags::NOFOLLOW | folder, Mode::empty())?;
        }
        Ok(here)
    }
}

/// So often a path is looked up while others rename what lies on it.
#[cfg(target_os = "linux")]
const AGAIN: usize = 16;

fn node(opened: OwnedFd) -> Result<Option<Node>, Errno> {
    let stat = fstat(&opened)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            Some(Node::File(Opened { file: File::from(opened), stamp: Stamp::of(&stat) }))
        }
        FileType::Directory => Some(Node::Folder(opened)),
        _ => None,
    })
}

/// Whether it is the path's fault: nothing there, no leave to read it, a link that leads out or in circles.
fn is_absent(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NAMETOOLONG
            | Errno::NXIO
            | Errno::NODEV
            | Errno::INVAL
            | Errno::AGAIN
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let outer = tempfile::tempdir().expect("a folder");
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("folders");
        std::fs::write(outer.path().join("secret"), "secret").expect("a file");
        std::fs::write(root.join("a/b/file"), "inside").expect("a file");
        symlink("../secret", root.join("out")).expect("a link");
        symlink(outer.path().join("secret"), root.join("absolute")).expect("a link");
        symlink("../..", root.join("a/up")).expect("a link");
        symlink("a/b/file", root.join("within")).expect("a link");
        symlink("circle", root.join("circle")).expect("a link");
        symlink("/proc/self/root", root.join("magic")).expect("a link");
        outer
    }

    #[test]
    fn links_lead_to_what_lies_beneath_the_root_alone() {
        let outer = tree();
        let root = Root::open(&outer.path().join("root")).expect("the root");
        let is_file = |path: &str| matches!(root.at(path.as_bytes()), Ok(Some(Node::File(_))));
        let is_folder = |path: &str| matches!(root.at(path.as_bytes()), Ok(Some(Node::Folder(_))));
        assert!(is_file("a/b/file") && is_folder("a/b") && is_folder(""));
        for path in [
            "out",
            "absolute",
            "a/up/secret",
            "circle",
            "magic/etc/passwd",
            "../secret",
            "a/../../secret",
            "/etc/passwd",
            "nothing",
            "a/b/file/x",
        ] {
            assert!(matches!(root.at(path.as_bytes()), Ok(None)), "{path}");
        }
        // The kernel follows what stays within; the walk follows nothing.
        let walks = |path: &str| root.walk(OsStr::new(path)).is_ok();
        assert!(walks("a/b/file") && walks("."));
        for path in ["out", "absolute", "a/up/root", "within", "..", "a/..", "a//b", "circle"] {
            assert!(!walks(path), "{path}");
        }
    }

    #[test]
    fn a_pipe_is_no_file_and_nobody_waits_for_it() {
        let outer = tree();
        let pipe = outer.path().join("root/pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        let root = Root::open(&outer.path().join("root")).expect("the root");
        assert!(matches!(root.at(b"pipe"), Ok(None)));
    }
}
