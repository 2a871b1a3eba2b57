//! Which file answers a path: itself, the index of a folder, a page without its ending, or the page of all others.

use std::io;
use std::os::fd::OwnedFd;

use super::beneath::{Node, Opened, Root};
use super::name::Relative;
use crate::plan::Files;

/// What answers.
pub enum Found {
    /// This file, at this path beneath the root.
    File(Vec<u8>, Opened),
    /// The same path with a slash at its end.
    Moved,
    /// A page of what this folder holds.
    List(OwnedFd),
    /// Nothing.
    Nothing,
}

/// Looks for what a path names.
///
/// # Errors
/// When the system fails.
pub fn find(root: &Root, files: &Files, path: &Relative) -> io::Result<Found> {
    let found = if path.folder { folder(root, files, path)? } else { file(root, files, path)? };
    match (&found, &files.fallback) {
        // A page of an application that finds its own way; what has an ending is a file that is missing, and a page in its place would be read as a script.
        (Found::Nothing, Some(fallback)) if !path.last().contains(&b'.') => {
            plain(root, fallback.as_bytes().to_vec())
        }
        _ => Ok(found),
    }
}

fn file(root: &Root, files: &Files, path: &Relative) -> io::Result<Found> {
    match root.at(&path.bytes)? {
        Some(Node::File(opened)) => return Ok(Found::File(path.bytes.clone(), opened)),
        Some(Node::Folder(_)) if files.listing || index(root, files, path)?.is_some() => {
            return Ok(Found::Moved);
        }
        _ => {}
    }
    if files.clean_urls { plain(root, path.with(".html")) } else { Ok(Found::Nothing) }
}

fn folder(root: &Root, files: &Files, path: &Relative) -> io::Result<Found> {
    if let Some((path, opened)) = index(root, files, path)? {
        return Ok(Found::File(path, opened));
    }
    match root.at(&path.bytes)? {
        Some(Node::Folder(folder)) if files.listing => Ok(Found::List(folder)),
        _ => Ok(Found::Nothing),
    }
}

fn index(root: &Root, files: &Files, path: &Relative) -> io::Result<Option<(Vec<u8>, Opened)>> {
    for name in &files.index {
        let inside = path.inside(name);
        if let Some(Node::File(opened)) = root.at(&inside)? {
            return Ok(Some((inside, opened)));
        }
    }
    Ok(None)
}

fn plain(root: &Root, path: Vec<u8>) -> io::Result<Found> {
    Ok(match root.at(&path)? {
        Some(Node::File(opened)) => Found::File(path, opened),
        _ => Found::Nothing,
    })
}
