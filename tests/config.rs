//! The configuration from outside: every message as the operator sees it, every shipped file, every key.
//!
//! `tests/config/NAME.toml` is a wrong file and `NAME.txt` what is said about it; `UPDATE=1` rewrites the latter, and the generated files
//! in `config/`. Lines `# env: NAME=value` and `# flag: name=value` at the top of a file set what is around it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use vanne::config::{Overrides, Problems, Source, load, reference, schema};
use vanne::plan::Plan;

#[path = "config/keys.rs"]
mod keys;
#[path = "config/meaning.rs"]
mod meaning;

/// A file with what is around it.
fn load_with_surroundings(name: &str, text: &str) -> Result<Plan, Problems> {
    let mut env = HashMap::new();
    let mut flags = Overrides::default();
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        if let Some((key, value)) = line.strip_prefix("# env: ").and_then(|pair| pair.split_once('=')) {
            env.insert(key.to_owned(), value.to_owned());
        }
        if let Some((key, value)) = line.strip_prefix("# flag: ").and_then(|pair| pair.split_once('=')) {
            let flag = match key {
                "listen" => &mut flags.listen,
                "redis-url" => &mut flags.redis_url,
                "cache-ttl" => &mut flags.cache_ttl,
                "log-level" => &mut flags.log_level,
                "log-format" => &mut flags.log_format,
                other => panic!("{name}: no flag is called {other}"),
            };
            *flag = Some(value.to_owned());
        }
    }
    load(&Source { name: name.to_owned(), text: text.to_owned() }, &env, &flags)
}

/// A text as a file in an empty environment.
fn load_text(text: &str) -> Result<Plan, Problems> {
    load(&Source { name: "vanne.toml".into(), text: text.to_owned() }, &HashMap::new(), &Overrides::default())
}

fn under(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn shipped() -> Vec<PathBuf> {
    let mut files = under("config");
    files.extend(under("config/examples"));
    files
}

/// Compares with a committed file, or rewrites it when UPDATE=1.
fn compare(path: &Path, now: &str) -> Result<(), String> {
    if std::env::var("UPDATE").is_ok_and(|update| update == "1") {
        fs::write(path, now).unwrap();
        return Ok(());
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    if committed == now {
        return Ok(());
    }
    Err(format!("{} differs; UPDATE=1 rewrites it. Now:\n{now}", path.display()))
}

#[test]
fn every_wrong_file_is_explained_as_committed() {
    let files = under("tests/config");
    assert!(files.len() >= 30, "only {} wrong files", files.len());
    let mut differences = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let Err(problems) = load_with_surroundings(&name, &text) else {
            differences.push(format!("{name} is taken for right"));
            continue;
        };
        let rendered = problems.render(false);
        speaks_to_operators(&name, &problems, &rendered);
        if let Err(difference) = compare(&path.with_extension("txt"), &rendered) {
            differences.push(difference);
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// No message speaks of Rust, and none holds a secret.
fn speaks_to_operators(name: &str, problems: &Problems, rendered: &str) {
    const RUST: [&str; 12] = [
        "String",
        "u16",
        "u32",
        "u64",
        "usize",
        "i64",
        "Option",
        "Some(",
        "invalid type",
        "enum",
        "struct",
        "SocketAddr",
    ];
    for word in RUST {
        assert!(!rendered.contains(word), "{name}: \"{word}\" in\n{rendered}");
    }
    assert!(!rendered.contains("s3cret"), "{name}: a secret in\n{rendered}");
    let data = serde_json::to_string(problems.list()).unwrap();
    assert!(!data.contains("s3cret"), "{name}: a secret in\n{data}");
    assert!(!problems.list().is_empty(), "{name}: refused without a reason");
    let lines: Vec<_> = problems.list().iter().filter_map(|p| p.line.zip(p.column)).collect();
    assert!(lines.is_sorted(), "{name}: not in the order of the file: {lines:?}");
}

#[test]
fn the_shown_line_and_column_are_those_of_the_data() {
    for path in under("tests/config") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Err(problems) = load_with_surroundings(&name, &fs::read_to_string(&path).unwrap()) else {
            continue;
        };
        let rendered = problems.render(false);
        for problem in problems.list() {
            if let (Some(line), Some(column)) = (problem.line, problem.column) {
                let place = format!("--> {name}:{line}:{column}\n");
                assert!(rendered.contains(&place), "{place} is not in\n{rendered}");
            }
        }
    }
}

#[test]
fn color_changes_nothing_but_the_color() {
    let Err(problems) = load_text("[server]\nthreds = 2\n") else { panic!("taken for right") };
    let colored = problems.render(true);
    assert!(colored.contains("\u{1b}["));
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, problems.render(false));
}

#[test]
fn every_shipped_file_loads() {
    let files = shipped();
    assert!(files.len() >= 6, "only {} shipped files", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(problems) = load_text(&text) {
            panic!("{}:\n{problems}", path.display());
        }
    }
}

#[test]
fn the_reference_and_the_schema_are_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    compare(&folder.join("reference.toml"), &reference()).unwrap_or_else(|difference| panic!("{difference}"));
    compare(&folder.join("vanne.schema.json"), &schema()).unwrap_or_else(|difference| panic!("{difference}"));
}

proptest::proptest! {
    /// Whatever is typed into a file, there is a plan or a reason.
    #[test]
    fn no_file_is_too_wrong_to_explain(
        which in proptest::prelude::any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0..9usize), 1..6),
    ) {
        const PIECES: [&str; 9] = ["", "\"", "[", "]\n", "\n\u{feff}x = \u{1f980}\r\n", "= 0\n", "${A", "\t", "é"];
        let files = shipped();
        let mut text = fs::read_to_string(which.get(&files)).unwrap();
        for (position, piece) in edits {
            let mut at = position.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
            text.replace_range(at..end, PIECES[piece]);
        }
        if let Err(problems) = load_text(&text) {
            proptest::prop_assert!(!problems.list().is_empty());
            proptest::prop_assert!(problems.render(false).contains("vanne.toml"));
        }
    }
}
