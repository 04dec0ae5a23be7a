//! Checks that the tests exist that the documentation names for attacks and limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

const PAGE: &str = include_str!("../../../docs/CONTRIBUTING.md");

/// The tests that the page names, each as its file and its name.
fn named_tests() -> Vec<(&'static str, &'static str)> {
    let tests = PAGE.split('`').filter(|text| text.starts_with("crates/"));
    tests.filter_map(|text| text.split_once("::")).collect()
}

#[test]
fn the_tests_against_attacks_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let missing: Vec<_> = named_tests()
        .into_iter()
        .filter(|(file, name)| {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            let is_test = |line: &str| {
                let line = line.trim_start();
                ["fn ", "async fn ", "def "].iter().any(|word| {
                    line.strip_prefix(word)
                        .and_then(|rest| rest.strip_prefix(name))
                        .is_some_and(|rest| rest.starts_with('('))
                })
            };
            !text.lines().any(is_test)
        })
        .collect();
    assert!(missing.is_empty(), "docs/CONTRIBUTING.md names tests that do not exist: {missing:#?}");
}

#[test]
fn each_attack_and_each_limit_has_a_test() {
    let (_, section) = PAGE.split_once("### Attacks, limits and their tests").unwrap();
    let section = section.split("\n### ").next().unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows.iter().filter(|row| !row.ends_with("| tests |")) {
        assert!(row.contains("::"), "no test in {row}");
    }
}
