//! The tests that `docs/spiffe.md` names for its claims.

use std::collections::BTreeSet;

use signet_tests::dir::files_below;
use signet_tests::kube::manifests::{repository, text};

/// The names of the functions that are marked as tests, in all our sources.
fn tests() -> BTreeSet<String> {
    let crates = [
        "agent",
        "ca-server",
        "certs",
        "cli",
        "policy",
        "proto",
        "runtime",
        "tests",
    ];
    let files = crates.map(|name| files_below(&repository().join(name)));
    let sources = files
        .iter()
        .flatten()
        .filter(|file| file.extension().is_some_and(|e| e == "rs"));
    let mut found = BTreeSet::new();
    for file in sources {
        let code = std::fs::read_to_string(file).unwrap();
        for rest in code.split("test]").chain(code.split("test(")).skip(1) {
            let name = rest.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
            found.extend(name.map(str::to_owned));
        }
        // Properties are marked inside a macro.
        for rest in code.split("proptest! {").skip(1) {
            let names = rest
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_requirement_names_tests_that_exist() {
    let tests = tests();
    let document = text("docs/spiffe.md");
    let (claims, _) = document
        .split_once("\n## What the standards leave open\n")
        .unwrap();
    let rows = claims.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| standard") && !line.starts_with("| section")
    });
    let mut named = 0;
    for row in rows {
        let last = row.trim_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {row}");
        for name in names {
            assert!(tests.contains(name), "there is no test {name}: {row}");
            named += 1;
        }
    }
    assert!(named > 50, "{named} tests are named; the tables were not found");
    // And those that stand alone on a line, below the tables.
    let is_name = |name: &&str| name.contains('_') && !name.contains(' ');
    let prose = claims.lines().filter(|line| line.starts_with('`'));
    for name in prose
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(is_name)
    {
        assert!(tests.contains(name), "there is no test {name}");
    }
}
