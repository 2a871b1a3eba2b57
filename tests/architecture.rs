//! Imports go downward only: `src/` against the table of layers in `src/lib.rs`.
//!
//! This reads text, so it also sees what one build does not compile. Comments, strings and `#[cfg(test)]` items are left
//! out: a test may build its facts with any layer.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a module of the crate may import.
struct Layer {
    module: &'static str,
    /// Modules of this crate.
    crates_own: &'static [&'static str],
    /// Crates out of [`GUARDED`].
    others: &'static [&'static str],
    /// What goes wrong otherwise.
    because: &'static str,
}

/// Crates that open sockets or belong to a library the rules must outlive; any crate not named here is free.
const GUARDED: &[&str] = &["pingora", "redis", "tokio"];

const RULE: &str = "a rule takes facts as arguments; what it imported it could no longer be tested, simulated and fuzzed without";
const LIVE: &str =
    "the live parts know the plan and what is below it; only proxy and app bring them together";

const LAYERS: &[Layer] = &[
    Layer { module: "base", crates_own: &[], others: &[], because: "base is what everything stands on" },
    Layer { module: "route", crates_own: &["base"], others: &[], because: RULE },
    Layer { module: "guard", crates_own: &["base"], others: &[], because: RULE },
    Layer { module: "cache", crates_own: &["base"], others: &[], because: RULE },
    Layer { module: "balance", crates_own: &["base"], others: &[], because: RULE },
    Layer { module: "forward", crates_own: &["base"], others: &[], because: RULE },
    Layer {
        module: "plan",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward"],
        others: &[],
        because: "the plan is plain data made of the rules' own types; whoever reads it must not need the server",
    },
    Layer {
        module: "config",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward", "plan"],
        others: &[],
        because: "checking a file must need neither a network nor a running gateway",
    },
    Layer {
        module: "observe",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward", "plan"],
        others: &["tokio"],
        because: LIVE,
    },
    Layer {
        module: "store",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward", "plan", "observe"],
        others: &["tokio", "redis"],
        because: LIVE,
    },
    Layer {
        module: "upstream",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward", "plan", "observe"],
        others: &["tokio"],
        because: LIVE,
    },
    Layer {
        module: "files",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward", "plan", "observe"],
        others: &["tokio"],
        because: LIVE,
    },
    Layer {
        module: "ward",
        crates_own: &["base", "route", "guard", "cache", "balance", "forward", "plan", "observe", "store"],
        others: &["tokio"],
        because: "it counts and remembers for whoever holds the connection",
    },
    Layer {
        module: "fast_path",
        crates_own: &[
            "base", "route", "guard", "cache", "balance", "forward", "plan", "observe", "store", "ward",
        ],
        others: &[],
        because: "the short way decides and writes a head; who holds the socket calls it",
    },
    Layer {
        module: "proxy",
        crates_own: &[
            "base",
            "route",
            "guard",
            "cache",
            "balance",
            "forward",
            "plan",
            "observe",
            "store",
            "upstream",
            "files",
            "ward",
            "fast_path",
        ],
        others: &["pingora", "tokio"],
        because: "the proxy runs a plan; how it was written, and who started it, is not its business",
    },
    Layer {
        module: "explain",
        crates_own: &["base", "balance", "route", "guard", "cache", "forward", "plan"],
        others: &[],
        because: "it tells what the rules say, without running anything",
    },
    Layer { module: "app", crates_own: EVERYTHING, others: &["pingora", "tokio", "redis"], because: "" },
    Layer { module: "cli", crates_own: EVERYTHING, others: &["pingora", "tokio", "redis"], because: "" },
    Layer { module: "demo", crates_own: EVERYTHING, others: &["tokio", "redis"], because: "" },
    Layer { module: "main", crates_own: EVERYTHING, others: &["pingora", "tokio", "redis"], because: "" },
    Layer { module: "lib", crates_own: &[], others: &[], because: "the map of the crate holds no code" },
];

const EVERYTHING: &[&str] = &[
    "base",
    "route",
    "guard",
    "cache",
    "balance",
    "forward",
    "plan",
    "config",
    "observe",
    "store",
    "upstream",
    "files",
    "ward",
    "fast_path",
    "proxy",
    "app",
    "cli",
    "demo",
];

/// Calls that only one file may make.
const CALLS: &[(&str, &str)] = &[
    ("Instant::now", "take `MonoTime` as an argument, or ask base::clock::Clock"),
    ("SystemTime::now", "take `WallTime` as an argument, or ask base::clock::Clock"),
    ("thread::sleep", "it blocks a worker that serves other requests; wait for an event instead"),
];
const CLOCK: &str = "base/clock.rs";

#[test]
fn imports_go_downward_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "the sources are in {}", root.display());
    let mut problems = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable source");
        let path = file.strip_prefix(&root).expect("a file below src").to_str().expect("a path in UTF-8");
        for (line, why) in check(path, &text) {
            let _ = writeln!(problems, "src/{path}:{line}: {why}");
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn the_table_names_every_module_of_the_crate() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
        .expect("src/lib.rs");
    let declared: Vec<&str> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(!declared.is_empty());
    for module in declared {
        assert!(LAYERS.iter().any(|layer| layer.module == module), "no row for `{module}` in {}", file!());
    }
}

/// Every place of a file that breaks a rule: the line and why.
fn check(path: &str, text: &str) -> Vec<(usize, String)> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    let Some(layer) = LAYERS.iter().find(|layer| layer.module == module) else {
        return vec![(1, format!("`{module}` has no row in the table of {}", file!()))];
    };
    let code = without_tests(&code_only(text));
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let mut problems = Vec::new();
    for (at, target) in own_modules(&code, depth(path)) {
        if target != module && EVERYTHING.contains(&&*target) && !layer.crates_own.contains(&&*target) {
            problems.push((line(at), format!("`{module}` may not import `{target}`: {}", layer.because)));
        }
    }
    for guarded in GUARDED.iter().filter(|name| !layer.others.contains(name)) {
        for at in mentions_of_crate(&code, guarded) {
            problems
                .push((line(at), format!("`{module}` may not use the crate {guarded}: {}", layer.because)));
        }
    }
    for (call, instead) in CALLS.iter().filter(|_| path != CLOCK) {
        for (at, _) in code.match_indices(call) {
            problems.push((line(at), format!("`{call}` belongs to {CLOCK}: {instead}")));
        }
    }
    problems.sort();
    problems
}

/// How many `super::` lead from a file to the root of the crate.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// The modules of this crate that the code names from its root: `crate::x`, `vanne::x`, `crate::{x, y}`, and `super::x`
/// where `super` is the root.
fn own_modules(code: &str, depth: usize) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for root in ["crate::", "vanne::", &to_root] {
        for (at, _) in code.match_indices(root) {
            let before = &code[..at];
            if before.ends_with(is_name_character) || before.ends_with("super::") {
                continue;
            }
            found.extend(first_names(&code[at + root.len()..]).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// `a` of `a::b`; `a` and `c` of `{a::{b}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return vec![name_at(path)] };
    let (mut depth, mut expecting, mut names) = (0, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            _ if expecting && is_name_character(character) => {
                names.push(name_at(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|character| is_name_character(*character)).collect()
}

/// Where the code names a crate, or one that begins with its name and `_` (`pingora_core`), as the root of a path.
fn mentions_of_crate(code: &str, name: &str) -> Vec<usize> {
    let mentions = code.match_indices(name).filter(|(at, _)| {
        let before = code[..*at].trim_end();
        // `self::redis`, `mod redis`: a module of this crate that is called so.
        let is_root = !code[..*at].ends_with(is_name_character)
            && (!before.ends_with("::") || before.ends_with(" ::"))
            && !before.ends_with("mod");
        let rest = &code[at + name.len()..];
        let rest = rest.strip_prefix('_').map_or(rest, |rest| rest.trim_start_matches(is_name_character));
        let used = before.ends_with("use") || before.ends_with("extern crate");
        is_root && (rest.starts_with("::") || (used && rest.starts_with([';', ' '])))
    });
    mentions.map(|(at, _)| at).collect()
}

fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The text with comments, strings and characters blanked, every line break and every byte offset kept.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + blank_length(&bytes[at..], code.ends_with(is_name_character));
        if end > at {
            code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            // Beyond ASCII only the offsets matter: no name this test looks for has such a character.
            code.push(if bytes[at].is_ascii() { bytes[at] as char } else { ' ' });
            at += 1;
        }
    }
    code
}

/// How long the comment, string or character at the start of `text` is; 0 if there is none.
fn blank_length(text: &[u8], within_name: bool) -> usize {
    match text {
        [b'/', b'/', ..] => text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len()),
        [b'/', b'*', ..] => comment_length(text),
        [b'r' | b'b' | b'c', ..] if within_name => 0,
        [b'b' | b'c', b'r', b'"' | b'#', ..] => raw_string_length(text, 2),
        [b'r', b'"' | b'#', ..] => raw_string_length(text, 1),
        [b'"', ..] => quoted_length(text),
        [b'\'', b'\\', ..] => quoted_length(text),
        // A character, not the lifetime `'a`: one that is closed after one character, of whatever length in bytes.
        [b'\'', rest @ ..] => {
            let width =
                rest.first().map_or(0, |byte| if *byte < 0x80 { 1 } else { byte.leading_ones() as usize });
            if rest.get(width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn comment_length(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted_length(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != text[0] {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// `r"…"`, `r#"…"#`, also after `b`; 0 for a raw name like `r#type`.
fn raw_string_length(text: &[u8], prefix: usize) -> usize {
    let hashes = text[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if text.get(prefix + hashes) != Some(&b'"') {
        return 0;
    }
    let end = [b"\"", &b"#".repeat(hashes)[..]].concat();
    let body = prefix + hashes + 1;
    let closed = text[body..].windows(end.len()).position(|window| window == end);
    closed.map_or(text.len(), |at| body + at + end.len())
}

/// The code with every item under `#[cfg(test)]` blanked, line breaks kept.
fn without_tests(code: &str) -> String {
    let mut code = code.to_string();
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = start + item_length(&code[start..]);
        let blank: String = code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(start..end, &blank);
    }
    code
}

/// Up to the `;` of an item without a body, or the `}` that closes its body.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (at, character) in item.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

mod the_reader {
    use super::check;

    /// The lines of `text`, as the file at `path`, that break a rule.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn sees_every_spelling_of_an_import() {
        for (path, text) in [
            ("cache/key.rs", "use crate::balance::pick::Pick;"),
            ("cache/key.rs", "use crate::{base::name, balance};"),
            ("cache/key.rs", "use crate::{\n    base::{name::A, unit},\n    balance::{self},\n};"),
            ("cache/key.rs", "pub use super::super::balance::Pick;"),
            ("cache/mod.rs", "use super::balance;"),
            ("plan.rs", "use super::store::Store;"),
            ("plan.rs", "fn f() -> crate::store::Store { x }"),
            ("cache/deep/er.rs", "use super::super::super::plan;"),
            ("config/mod.rs", "use crate::store::Store;"),
            ("store/mod.rs", "use crate::upstream::Pool;"),
            ("upstream/mod.rs", "use crate::config::File;"),
            ("proxy/mod.rs", "use crate::config::File;"),
            ("proxy/mod.rs", "use crate::app;"),
            ("base/clock.rs", "use crate::plan;"),
            ("plan.rs", "use pingora::proxy::Session;"),
            ("plan.rs", "use pingora_core::upstreams::peer::Peer;"),
            ("plan.rs", "use ::tokio::net;"),
            ("cache/mod.rs", "fn f(x: tokio::time::Duration) {}"),
            ("store/mod.rs", "use pingora::cache::Storage;"),
            ("upstream/mod.rs", "use redis;"),
            ("proxy/mod.rs", "let t = std::time::Instant::now();"),
            ("store/mod.rs", "let t = SystemTime::now();"),
            ("app.rs", "thread::sleep(d);"),
            ("nowhere.rs", ""),
        ] {
            assert_eq!(lines(path, text).len(), 1, "{path}: {text}: {:?}", check(path, text));
        }
    }

    #[test]
    fn accepts_what_the_table_allows() {
        for (path, text) in [
            ("cache/key.rs", "use crate::base::name::Name;\nuse crate::cache::vary;\nuse super::vary;"),
            ("plan.rs", "use crate::cache::Rules;\nuse crate::{balance, base, route};"),
            (
                "store/mod.rs",
                "use crate::observe::metrics;\npub mod redis;\nuse self::redis::RedisTier;\nuse tokio::net;",
            ),
            ("store/redis.rs", "use redis::AsyncCommands;"),
            ("proxy/mod.rs", "use pingora::proxy::Session;\nuse crate::store::redis::RedisTier;"),
            ("app.rs", "use crate::config::load;\nuse redis::Client;"),
            ("main.rs", "use vanne::cli;"),
            ("base/clock.rs", "Instant::now(); SystemTime::now();"),
            ("cache/key.rs", "pub(crate) fn key() {}"),
            ("cache/key.rs", "use other_crate::balance;\nuse a::crate_::plan;"),
            ("cache/key.rs", "let tokio = 1; let x = my_tokio::y;"),
        ] {
            assert_eq!(lines(path, text), [0; 0], "{path}: {:?}", check(path, text));
        }
    }

    #[test]
    fn leaves_out_comments_strings_and_tests() {
        for text in [
            "//! [`crate::balance`]\n/// tokio::net\n// Instant::now\n",
            "/* crate::balance /* nested */ tokio::net */",
            r##"let a = "crate::balance \" tokio::x"; let b = r#"Instant::now " "#; let c = b"redis::x";"##,
            "#[cfg(test)]\nmod tests {\n    use crate::balance;\n    fn f() { Instant::now(); }\n}\n",
            "#[cfg(test)]\nuse crate::balance;\n",
            "#[cfg(test)]\nmod tests;\n",
        ] {
            assert_eq!(lines("cache/key.rs", text), [0; 0], "{text}");
        }
    }

    #[test]
    fn goes_on_after_what_it_leaves_out_and_counts_its_lines() {
        for before in [
            "/* a\n */\n",
            "let a = \"é\n\";\n",
            "let a = r#\"\"\n\"#;\n",
            "#[cfg(test)]\nmod tests { fn f() {} }\n",
            "fn f<'a>(b: &'a str) {}\nlet q = '\"'; let e = 'é'; let s = '\\'';\n",
            "let r#type = 1;\nlet br = b'x';\n",
        ] {
            assert_eq!(lines("cache/key.rs", &format!("{before}use crate::balance;")), [3], "{before}");
        }
    }
}
