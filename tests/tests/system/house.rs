//! The arrows of the house, from `cargo metadata` and the lock file: who may import whom, and what is
//! linked once or never.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

fn metadata() -> Value {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let done = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--locked",
            "--all-features",
        ])
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("metadata")
}

/// Dependencies of each member on members, those for tests and builds apart.
fn arrows(metadata: &Value, tests_too: bool) -> BTreeMap<String, BTreeSet<String>> {
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = packages.iter().filter(|package| package["source"].is_null());
    ours.map(|package| {
        let imports = package["dependencies"].as_array().unwrap().iter();
        let imports = imports
            .filter(|dependency| tests_too || dependency["kind"].is_null())
            .map(|dependency| text(&dependency["name"]))
            .filter(|name| name.starts_with("signet-"))
            .collect();
        (text(&package["name"]), imports)
    })
    .collect()
}

#[test]
fn crates_import_only_what_the_house_allows() {
    const ALL: &[&str] = &["signet-certs", "signet-policy", "signet-proto", "signet-runtime"];
    let allowed: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("signet-certs", vec![]),
        ("signet-policy", vec!["signet-certs"]),
        ("signet-proto", vec!["signet-certs", "signet-policy"]),
        ("signet-runtime", vec![]),
        ("signet-ca", ALL.to_vec()),
        ("signet-agent", ALL.to_vec()),
        ("signet-proxy", ALL.to_vec()),
        ("signet-cli", [ALL, &["signet-devcluster"]].concat()),
        ("signet-devcluster", vec![]),
    ]);
    let metadata = metadata();
    let found = arrows(&metadata, false);
    // These two stand at the end of every arrow.
    for end in ["signet-tests", "signet-fuzz"] {
        assert!(found.contains_key(end), "{end} is gone");
        for (importer, imports) in arrows(&metadata, true) {
            assert!(
                !imports.contains(end) || importer == "signet-tests",
                "{importer} imports {end}"
            );
        }
    }
    for (importer, imports) in &found {
        if ["signet-tests", "signet-fuzz"].contains(&importer.as_str()) {
            continue;
        }
        let allowed = allowed
            .get(importer.as_str())
            .unwrap_or_else(|| panic!("{importer} is not in the table"));
        for import in imports {
            assert!(
                allowed.contains(&import.as_str()),
                "{importer} must not import {import}"
            );
        }
    }
    for (importer, _) in allowed {
        assert!(found.contains_key(importer), "{importer} is gone");
    }
}

#[test]
fn no_server_links_the_test_cluster_even_by_a_detour() {
    let metadata = metadata();
    let found = arrows(&metadata, false);
    for server in ["signet-ca", "signet-agent", "signet-proxy"] {
        let (mut open, mut seen) = (vec![server.to_owned()], BTreeSet::new());
        while let Some(next) = open.pop() {
            if seen.insert(next.clone()) {
                open.extend(found.get(&next).cloned().unwrap_or_default());
            }
        }
        assert!(
            !seen.contains("signet-devcluster"),
            "{server} links signet-devcluster"
        );
        assert!(!seen.contains("signet-tests"), "{server} links signet-tests");
    }
}

#[test]
fn one_tls_stack_one_grpc_stack_one_client() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let versions = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    for once in [
        "rustls",
        "ring",
        "hyper",
        "tonic",
        "prost",
        "kube",
        "x509-parser",
        "rustls-webpki",
        "tokio-rustls",
    ] {
        assert_eq!(versions(once), 1, "{once}");
    }
    for never in [
        "aws-lc-rs",
        "aws-lc-sys",
        "openssl",
        "openssl-sys",
        "native-tls",
        "serde_yaml",
        "rsa",
    ] {
        assert_eq!(versions(never), 0, "{never}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_house_and_unsafe_is_forbidden() {
    let house = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(house.contains("unsafe_code = \"forbid\""));
    for package in metadata()["packages"].as_array().unwrap() {
        if !package["source"].is_null() {
            continue;
        }
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{}",
            package["name"]
        );
    }
}
