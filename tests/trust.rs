//! `docs/trust.md` names tests. Each of them exists, and no row is missing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/trust.md")).unwrap()
}

/// All Rust files below.
fn files(at: &Path, found: &mut Vec<PathBuf>) {
    if at.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if at.extension().is_some_and(|extension| extension == "rs") {
        found.push(at.to_owned());
    }
}

/// The names of the tests in a file: functions below an attribute that ends in `test`.
fn tests_in(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let attribute = line.strip_prefix("#[").and_then(|line| line.split(['(', ']']).next());
        if let Some(attribute) = attribute {
            is_test |= attribute == "test" || attribute == "tokio::test";
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            tests.push(name.split('(').next().unwrap().to_owned());
            is_test = false;
        }
    }
    tests
}

/// `file::test` or `folder::test` for every test of the crate.
fn all_tests() -> BTreeSet<String> {
    let mut found = Vec::new();
    for folder in ["src", "tests", "models/tests"] {
        files(&root().join(folder), &mut found);
    }
    let mut tests = BTreeSet::new();
    for file in found {
        let names = tests_in(&file);
        // A binary of several files is named after their folder; a unit test after its module.
        for part in file.with_extension("").iter() {
            tests.extend(names.iter().map(|name| format!("{}::{name}", part.to_str().unwrap())));
        }
    }
    tests
}

#[test]
fn each_test_that_the_page_names_exists() {
    let (page, tests) = (page(), all_tests());
    let named: BTreeSet<_> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| {
            code.contains("::") && code.chars().all(|c| c.is_ascii_lowercase() || "0123456789_:".contains(c))
        })
        .filter(|code| !["cooldown::state"].contains(code))
        .collect();
    assert!(named.len() > 80, "{}", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/trust.md names tests that are not there: {missing:#?}");
}

/// The numbers in the first column of the table with this head, in order.
fn rows(page: &str, head: &str) -> Vec<usize> {
    let table = page.split_once(head).unwrap_or_else(|| panic!("no table {head}")).1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut numbers: Vec<_> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|number| number.trim().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn each_pitfall_and_each_wish_has_its_row() {
    let page = page();
    for (head, count) in [
        ("| | pitfall | test, or reason |", 31),
        ("| tower | wish | here |", 46),
        ("| clients | wish | here |", 42),
    ] {
        assert_eq!(rows(&page, head), (1..=count).collect::<Vec<_>>(), "{head}");
    }
    // No row is without a reason.
    assert!(page.lines().filter(|line| line.starts_with("| ")).all(|line| !line.ends_with("| |")));
}

/// Only where a date is compared with the server's is there another clock.
#[test]
fn time_is_tokios() {
    let mut found = Vec::new();
    files(&root().join("src"), &mut found);
    for file in found {
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<_> = text.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        let code = code.join("\n");
        let imports: Vec<_> =
            code.split("use std::").skip(1).filter_map(|rest| rest.split(';').next()).collect();
        let from_std = imports.iter().any(|import| {
            let words: Vec<_> = import.split(|c: char| !c.is_alphanumeric()).collect();
            words.contains(&"time") && words.contains(&"Instant")
        });
        assert!(!from_std && !code.contains("std::time::Instant"), "{}: an Instant of std", file.display());
        let of_dates = file.ends_with("signal/clock.rs") || file.starts_with(root().join("src/body_hints"));
        assert!(of_dates || !code.contains("SystemTime::now"), "{}: the wall's clock", file.display());
    }
}
