//! Files, media types and what is said about content.

use std::path::PathBuf;

use http::HeaderValue;

use crate::config::setting::FromText;
use crate::config::table::words;
use crate::forward::browser::Pattern;
use crate::forward::coding::Coding;

/// A folder on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(pub PathBuf);

impl FromText for Folder {
    fn what() -> String {
        "a folder".to_owned()
    }

    const EXAMPLE: &'static str = "public";
    const PATTERN: &'static str = ".+";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        (!text.trim().is_empty()).then(|| Self(PathBuf::from(text))).ok_or(None)
    }
}

/// A file beneath a folder that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBeneath(pub String);

impl FromText for FileBeneath {
    fn what() -> String {
        "the name of a file beneath the root".to_owned()
    }

    const EXAMPLE: &'static str = "index.html";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if let Some(rest) = text.strip_prefix('/') {
            return Err(Some(format!("it is looked for beneath the root: write \"{rest}\"")));
        }
        let right = text.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'));
        right.then(|| Self(text.to_owned())).ok_or(None)
    }
}

/// A file's name, without a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(pub String);

impl FromText for FileName {
    fn what() -> String {
        "the name of a file".to_owned()
    }

    const EXAMPLE: &'static str = "index.html";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let right = !matches!(text, "" | "." | "..") && !text.contains(['/', '\0']);
        right.then(|| Self(text.to_owned())).ok_or(None)
    }
}

/// The value of Cache-Control; `None`: the field is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives(pub Option<HeaderValue>);

impl FromText for Directives {
    fn what() -> String {
        "the value of Cache-Control".to_owned()
    }

    const EXAMPLE: &'static str = "public, max-age=3600";
    const PATTERN: &'static str = "^[ -~]*$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let text = text.trim();
        if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(Some("use visible ASCII characters and spaces".to_owned()));
        }
        let value = HeaderValue::from_str(text).map_err(|_| None)?;
        Ok(Self((!text.is_empty()).then_some(value)))
    }
}

impl FromText for Pattern {
    fn what() -> String {
        "a pattern of names".to_owned()
    }

    const EXAMPLE: &'static str = "*.pdf";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        if text.contains('/') && !text.starts_with(['/', '*']) {
            return Err(Some(format!("a pattern with a slash is compared with the whole path: \"/{text}\"")));
        }
        (!text.is_empty()).then(|| Self(text.to_owned())).ok_or(None)
    }
}

/// A media type; `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType(pub String);

impl FromText for MediaType {
    fn what() -> String {
        "a media type".to_owned()
    }

    const EXAMPLE: &'static str = "text/*";
    const PATTERN: &'static str = "^[^/; ]+/[^/; ]+$";

    fn from_text(text: &str) -> Result<Self, Option<String>> {
        let (kind, rest) = text.split_once('/').ok_or(None)?;
        let token = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-*".contains(&b))
        };
        let right = token(kind) && token(rest);
        right.then(|| Self(text.to_ascii_lowercase())).ok_or_else(|| {
            Some("write it like \"application/json\" or \"text/*\", without parameters".to_owned())
        })
    }
}

words! { Coding, "a coding of content",
    "br" => Self::Brotli,
    "zstd" => Self::Zstd,
    "gzip" => Self::Gzip,
}
