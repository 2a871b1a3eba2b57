//! The types of keys: durations, sizes, addresses, words, lists, tables by name.

mod address;
mod content;
mod group;
mod listen;
mod number;
mod text;
mod ward;
mod word;

pub use address::{Address, AdminAddress, HostName, HostPort, Network, RedisUrl};
pub use content::{Directives, FileBeneath, FileName, Folder, MediaType};
pub use group::{ByStatus, List, Named, OneOrMany, OrOff};
pub use listen::{ClientAuth, FilePath, HttpVersions, UpstreamHttp};
pub use number::{AnySize, AnyTime, Count, LeaseTime, Size, Statuses, Threads, Time, Timeout};
pub use text::{
    Asked, CookieName, JsonPlace, JsonPointer, Label, Path, Prefix, Pseudonym, Regexp, Text, Token,
};
pub use ward::{Authorization, FieldValue, FrameWord, Hits, PerTime, RealmText, Scope, UserLine, user_help};
pub use word::{Balance, BodyForm, CheckType, Level, RetryOn, Versions};

/// Letters, digits and what may stand between them in a name.
fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}
