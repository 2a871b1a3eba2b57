//! Entity tags made of content: every gateway of a fleet, and the same gateway after a deployment that changed nothing, gives a file the same (RFC 9110 §8.8.3).
//!
//! A file is read once for its tag, which is then remembered by what changes when the file does ([`Stamp`]).

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use quick_cache::sync::Cache;

use super::beneath::Stamp;
use crate::base::clock::WallTime;
use crate::forward::coding::Coding;

/// What a file's content is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print([u8; 16]);

/// How many files are remembered.
const REMEMBERED: usize = 100_000;
/// Files whose time is nearer than this to the present may have been written again within the grain of that time; what is known of them is not kept.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Larger files are read for their tag behind the first request, which goes without one rather than wait.
const AT_ONCE: u64 = 16 * 1024 * 1024;
const PIECE: usize = 128 * 1024;

/// The prints of files.
pub struct Prints {
    known: Cache<Stamp, Print>,
    reading: Mutex<HashSet<Stamp>>,
}

/// What is known of a file's print.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// It is this.
    Print(Print),
    /// It takes long to find: [`Prints::find`] is to be called behind the request.
    ToFind,
    /// Somebody is finding it.
    BeingFound,
}

impl Default for Prints {
    fn default() -> Self {
        Self { known: Cache::new(REMEMBERED), reading: Mutex::default() }
    }
}

/// Whether what is known of a file may be kept for its stamp.
pub fn is_settled(stamp: &Stamp, now: WallTime) -> bool {
    now.since(stamp.changed()) > SETTLED_AFTER
}

impl Print {
    /// The print of some content.
    pub fn of(content: &[u8]) -> Self {
        Self::from(&blake3::hash(content))
    }

    fn from(hash: &blake3::Hash) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Self(short)
    }

    /// The tag of the content in a coding; `form` tells apart codings of other bytes that mean the same.
    pub fn tag(self, coding: Coding, form: &str) -> HeaderValue {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let coding = if coding == Coding::Identity { String::new() } else { format!(";{}", coding.as_str()) };
        HeaderValue::from_str(&format!("\"{digits}{coding}{form}\""))
            .unwrap_or(HeaderValue::from_static("\"\""))
    }
}

impl Prints {
    /// The print of an open file; blocks while it is read.
    ///
    /// # Errors
    /// When it cannot be read, or changes meanwhile.
    pub fn of(&self, file: &File, stamp: &Stamp, now: WallTime) -> io::Result<Known> {
        if let Some(print) = self.known.get(stamp) {
            return Ok(Known::Print(print));
        }
        if stamp.length <= AT_ONCE {
            return self.read(file, stamp, now).map(Known::Print);
        }
        let first = self.reading().insert(*stamp);
        Ok(if first { Known::ToFind } else { Known::BeingFound })
    }

    /// Finds what was to be found; blocks while the file is read.
    pub fn find(&self, file: &File, stamp: &Stamp, now: WallTime) {
        // A file that cannot be read goes without a tag, and its next request tries again.
        let _ = self.read(file, stamp, now);
        self.reading().remove(stamp);
    }

    /// Remembers the print of content that was read for another reason.
    pub fn note(&self, stamp: &Stamp, content: &[u8], now: WallTime) -> Print {
        self.known.get(stamp).unwrap_or_else(|| self.keep(stamp, Print::of(content), now))
    }

    fn keep(&self, stamp: &Stamp, print: Print, now: WallTime) -> Print {
        if is_settled(stamp, now) {
            self.known.insert(*stamp, print);
        }
        print
    }

    fn read(&self, file: &File, stamp: &Stamp, now: WallTime) -> io::Result<Print> {
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < stamp.length {
            let count = file.read_at(&mut piece, at)?;
            if count == 0 {
                return Err(changed());
            }
            hasher.update(&piece[..count]);
            at += count as u64;
        }
        if Stamp::now(file)? != *stamp {
            return Err(changed());
        }
        Ok(self.keep(stamp, Print::from(&hasher.finalize()), now))
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, HashSet<Stamp>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file is not what it was when it was opened.
pub fn changed() -> io::Error {
    io::Error::other("the file changed while it was read")
}
