//! What lies in a folder, as a page.

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::fs::{Dir, FileType};

use super::name::is_open;

/// More names than this are not shown: nobody reads them, and the page is made in memory.
const MOST: usize = 10_000;
/// What a link need not escape (RFC 3986 §2.3).
const LINK: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The page of a folder. `path` is what the client asked for.
///
/// # Errors
/// When the folder cannot be read.
pub fn page(folder: &OwnedFd, path: &str) -> io::Result<String> {
    let mut names: Vec<(bool, Vec<u8>)> = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_folder = entry.file_type() == FileType::Directory;
        let shown = is_folder
            || matches!(entry.file_type(), FileType::RegularFile | FileType::Symlink | FileType::Unknown);
        if is_open(name) && shown && names.len() < MOST {
            names.push((!is_folder, name.to_vec()));
        }
    }
    names.sort_unstable();
    let title = escaped(&percent_encoding::percent_decode_str(path).decode_utf8_lossy());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n"
    );
    if path != "/" {
        page.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    for (is_file, name) in names {
        let end = if is_file { "" } else { "/" };
        let (link, shown) = (percent_encode(&name, LINK), escaped(&String::from_utf8_lossy(&name)));
        // Writing into text does not fail.
        let _ = writeln!(page, "<li><a href=\"./{link}{end}\">{shown}{end}</a></li>");
    }
    page.push_str("</ul>\n</html>\n");
    Ok(page)
}

/// Text that is no markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_never_run() {
        let outer = tempfile::tempdir().expect("a folder");
        for name in ["<img src=x onerror=alert(1)>", "a b.txt", ".hidden", "q?#.txt"] {
            std::fs::write(outer.path().join(name), "").expect("a file");
        }
        std::fs::create_dir(outer.path().join("zebra")).expect("a folder");
        let folder = OwnedFd::from(std::fs::File::open(outer.path()).expect("the folder"));
        let page = page(&folder, "/a%3Cb%3E/").expect("a page");
        assert!(page.contains("<title>/a&lt;b&gt;/</title>"), "{page}");
        assert!(
            page.contains("<a href=\"./%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E\">&lt;img "),
            "{page}"
        );
        assert!(page.contains("<a href=\"./a%20b.txt\">a b.txt</a>"), "{page}");
        assert!(page.contains("./q%3F%23.txt"), "{page}");
        assert!(!page.contains("hidden") && !page.contains("<img"), "{page}");
        assert!(
            page.find("zebra/").expect("the folder") < page.find("a b.txt").expect("the file"),
            "folders first"
        );
    }
}
