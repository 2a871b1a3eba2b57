//! What the guides claim: every rule names the test that holds it, and the test is there.

use std::fs;
use std::path::{Path, PathBuf};

/// The claims of a guide: what stands between backticks in the last column of its tables.
fn claims(guide: &str) -> Vec<String> {
    let rows = guide.lines().filter(|line| line.starts_with('|'));
    let last = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    let named = last.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`'));
    named.map(str::to_owned).collect()
}

/// Where the test of a claim would be: `src::a::b::name` in the library, `a::b::name` among the specifications.
fn candidates(modules: &[&str]) -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match modules.split_first() {
        Some((&"src", rest)) => rest.iter().fold(root.join("src"), |path, module| path.join(module)),
        _ => modules.iter().fold(root.join("tests/spec"), |path, module| path.join(module)),
    };
    [folder.with_extension("rs"), folder.join("mod.rs")]
}

fn exists(claim: &str) -> bool {
    let mut modules: Vec<&str> = claim.split("::").collect();
    let Some(name) = modules.pop() else { return false };
    let texts = candidates(&modules).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.into_iter().any(|text| text.contains(&format!("fn {name}(")))
}

#[test]
fn every_rule_of_the_cache_names_a_test_that_is_there() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CACHING.md")).unwrap();
    let claims = claims(&guide);
    let rules = guide.lines().filter(|line| line.starts_with('|')).count();
    let heads = guide.lines().filter(|line| line.starts_with("| rule")).count();
    assert_eq!(claims.len(), rules - 2 * heads, "a rule names no test");
    let missing: Vec<_> = claims.iter().filter(|claim| !exists(claim)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_rule_of_limits_access_and_fields_names_a_test_that_is_there() {
    let guide =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RATE_LIMITS.md")).unwrap();
    let claims = claims(&guide);
    let rules = guide.lines().filter(|line| line.starts_with('|')).count();
    let heads = guide.lines().filter(|line| line.starts_with("| rule")).count();
    assert_eq!(claims.len(), rules - 2 * heads, "a rule names no test");
    let missing: Vec<_> = claims.iter().filter(|claim| !exists(claim)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(exists("conformance::vary::several_variants_are_held_at_once_and_none_is_anothers"));
    assert!(exists("src::cache::key::scheme_host_port_path_and_query_all_count"));
    assert!(!exists("conformance::vary::no_such_test"));
    assert!(!exists("no_such_module::several_variants_are_held_at_once_and_none_is_anothers"));
}
