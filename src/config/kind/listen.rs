//! Words and paths of a listener.

use std::path::PathBuf;

use crate::config::setting::FromText;
use crate::config::table::words;
use crate::plan::listen::{Profile, UnknownNames};

words! { Profile, "a profile of TLS",
    "intermediate" => Self::Intermediate,
    "modern" => Self::Modern,
}

words! { UnknownNames, "a way to treat unknown names",
    "first" => Self::First,
    "refuse" => Self::Refuse,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must.
    Required,
    /// It may.
    Optional,
}

words! { ClientAuth, "a way to ask clients for certificates",
    "required" => Self::Required,
    "optional" => Self::Optional,
}

/// The path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl FromText for FilePath {
    fn what() -> String {
        "the path of a file".to_owned()
    }

    const EXAMPLE: &'static str = "/etc/vanne/example.com.pem";
    const PATTERN: &'static str = ".+";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() || text.contains('\0') { Err(None) } else { Ok(Self(PathBuf::from(text))) }
    }
}
