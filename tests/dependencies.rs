//! What comes in with dependencies: the rules of `deny.toml`, held by what cargo itself knows, so that every run of the tests holds them.

use std::process::Command;

use serde_json::Value as Json;
use toml::{Table, Value};

/// Every package that could be built in, on any platform, as cargo reads Cargo.lock.
fn packages() -> Vec<Json> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo is there: it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn rules() -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn texts<'r>(rules: &'r Table, section: &str, key: &str) -> Vec<&'r str> {
    rules[section][key].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

/// Whether a licence expression (SPDX, and the older `/` for OR) can be met with the licences allowed.
fn may_be_used(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any_of(&mut rest, allowed);
    met && rest.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = all_of(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = one(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any_of(words, allowed);
            *words = words.strip_prefix(&[")"]).unwrap_or_default();
            met
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&&*format!("{name} WITH {exception}"))
        }
        [name, rest @ ..] => {
            *words = rest;
            allowed.contains(name)
        }
        [] => false,
    }
}

#[test]
fn every_licence_is_one_that_is_allowed() {
    let rules = rules();
    let allowed = texts(&rules, "licenses", "allow");
    let packages = packages();
    assert!(packages.len() > 100);
    let wrong: Vec<_> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(|license| may_be_used(license, &allowed)))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let rules = rules();
    let registries = texts(&rules, "sources", "allow-registry");
    assert!(texts(&rules, "sources", "allow-git").is_empty());
    for package in packages() {
        let Some(source) = package["source"].as_str() else {
            assert_eq!(package["name"], "vanne", "a package from a folder");
            continue;
        };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        assert!(registries.contains(&registry), "{} comes from {source}", package["name"]);
    }
}

#[test]
fn nothing_that_is_banned_comes_in_and_every_requirement_names_a_version() {
    let rules = rules();
    let banned: Vec<&str> = rules["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule.get("version").is_none())
        .filter_map(|rule| rule["name"].as_str())
        .collect();
    assert!(!banned.is_empty());
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is banned");
        if name == "vanne" {
            for needed in package["dependencies"].as_array().unwrap() {
                assert_ne!(needed["req"], "*", "{} in any version", needed["name"]);
            }
        }
    }
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Zlib"];
    for (expression, met) in [
        ("MIT", true),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND GPL-2.0", false),
        ("GPL-3.0 OR MIT AND Zlib", true),
        ("GPL-3.0 WITH LLVM-exception", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(may_be_used(expression, &allowed), met, "{expression}");
    }
}
