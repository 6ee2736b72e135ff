//! What the commands about policies print.

use clap::Parser as _;

use super::{at, hold};
use crate::args::{Cli, Command, PolicyCommand, PolicyDiffArgs, PolicyExplainArgs};
use crate::policy::analyze::{Analyzed, Evidence, findings};
use crate::policy::check::Checked;
use crate::policy::diff::compare;
use crate::policy::documents::{Documents, set};
use crate::policy::explain::explain;
use crate::policy::explain::view::Explained;
use crate::policy::inventory::Inventory;
use crate::policy::mesh::mesh;
use crate::policy::question::Token;

const SHOP: &str = include_str!("policy/shop.yaml");
const TOKENS: &str = include_str!("policy/tokens.yaml");
const HALF: &str = include_str!("policy/half.yaml");
const MISTAKES: &str = include_str!("policy/mistakes.yaml");
const FAULTS: &str = include_str!("policy/faults.yaml");

fn documents(text: &str) -> Documents {
    let mut documents = Documents::default();
    documents.add_text("shop.yaml", text, None);
    documents
}

fn command(line: &str) -> Command {
    let words = line.split(' ').filter(|word| !word.is_empty());
    Cli::try_parse_from(["signet"].into_iter().chain(words))
        .unwrap()
        .command
}

fn explain_args(line: &str) -> PolicyExplainArgs {
    match command(&format!("policy explain --policies - {line}")) {
        Command::Policy(PolicyCommand::Explain(args)) => *args,
        other => panic!("{other:?}"),
    }
}

fn diff_args(line: &str) -> PolicyDiffArgs {
    match command(&format!("policy diff old new {line}")) {
        Command::Policy(PolicyCommand::Diff(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn explained(line: &str, text: &str) -> Explained {
    let args = explain_args(line);
    let token = args.request.claims.clone().map_or(Token::None, Token::Claims);
    explain(&args, &documents(text), token, at(0).0).unwrap()
}

fn evidence<R>(documents: &Documents, look: impl FnOnce(Evidence<'_>) -> R) -> R {
    evidence_in("cluster.local", documents, look)
}

fn evidence_in<R>(domain: &str, documents: &Documents, look: impl FnOnce(Evidence<'_>) -> R) -> R {
    let args = explain_args(&format!("--from none --to a/b --trust-domain {domain}")).mesh;
    let (mesh, set, inventory) = (mesh(&args), set(documents), Inventory::of(documents));
    look(Evidence {
        documents,
        set: &set,
        inventory: &inventory,
        mesh: &mesh,
        own: &args.trust_domain,
    })
}

#[test]
fn policy_check() {
    let sound = documents(SHOP);
    hold("policy-check", &Checked::of(&sound, Vec::new()));
    let faulty = documents(FAULTS);
    hold("policy-check-faults", &Checked::of(&faulty, Vec::new()));
    let mistaken = documents(MISTAKES);
    let warnings = evidence(&mistaken, |evidence| findings(&evidence));
    hold("policy-check-warnings", &Checked::of(&mistaken, warnings));
}

#[test]
fn analyze() {
    let mistaken = documents(&format!("{MISTAKES}---\n{FAULTS}"));
    hold(
        "analyze",
        &evidence(&mistaken, |evidence| Analyzed::of(&evidence, &[])),
    );
    let half = documents(HALF);
    hold(
        "analyze-half-migrated",
        &evidence_in("mesh.example", &half, |evidence| Analyzed::of(&evidence, &[])),
    );
    let sound = documents(SHOP);
    hold(
        "analyze-clean",
        &evidence(&sound, |evidence| Analyzed::of(&evidence, &[])),
    );
}

#[test]
fn policy_explain() {
    let claims = r#"{"iss":"https://id.example","sub":"ann","aud":"shop","groups":["admins"]}"#;
    for (name, line, allowed) in [
        (
            "allowed",
            "--from web/frontend --to shop/backend --path /api/v1/items",
            true,
        ),
        (
            "intruder",
            "--from web/intruder --to shop/backend --path /api/v1/items",
            false,
        ),
        (
            "method",
            "--from web/frontend --to shop/backend --method POST --path /api/v1/items?x=1",
            false,
        ),
        ("strict", "--from none --to shop/backend", false),
        ("tcp", "--from web/frontend --to shop/backend:8080 --tcp", false),
        (
            "path",
            "--from web/frontend --to shop/backend --path /a/..;/b",
            false,
        ),
        (
            "no-policy",
            "--from none --to other/thing:80 --labels app=thing",
            true,
        ),
        (
            "deny",
            "--from dev/tester --to shop/admin:8080 --labels app=admin",
            false,
        ),
        (
            "no-token",
            "--from web/frontend --to shop/admin:8080 --labels app=admin",
            false,
        ),
        (
            "token",
            &format!("--from web/frontend --to shop/admin:8080 --labels app=admin --claims {claims}"),
            true,
        ),
        (
            "token-refused",
            "--from web/frontend --to shop/admin:8080 --labels app=admin --claims {\"iss\":\"https://no.example\"}",
            false,
        ),
        (
            "custom",
            "--from web/frontend --to shop/asked:8080 --labels app=asked --provider judge=grpc",
            true,
        ),
    ] {
        let view = explained(line, SHOP);
        assert_eq!(view.allowed, allowed, "{name}: {}", view.sentence);
        hold(&format!("policy-explain-{name}"), &view);
    }
}

#[test]
fn a_faulty_policy_is_explained_as_what_it_counts_as() {
    let view = explained("--from web/frontend --to shop/cart:80 --labels app=cart", FAULTS);
    assert!(!view.allowed);
    hold("policy-explain-faulty", &view);
}

#[test]
fn the_policy_that_is_proposed_lets_exactly_that_pass() {
    for line in [
        "--from web/intruder --to shop/backend:8080 --path /api/v1/items",
        "--from web/frontend --to shop/backend:8080 --path /other/./x",
        "--from web/frontend --to shop/backend:9000 --tcp",
        "--from spiffe://far.example/db --to shop/backend:8080 --method PUT",
        "--from web/a --to shop/nobody --labels app=nobody,x/y=1",
    ] {
        let before = explained(line, SHOP);
        let proposed = before
            .policy
            .unwrap_or_else(|| panic!("{line}: {}", before.sentence));
        assert!(!before.allowed, "{line}");
        let text = format!("{SHOP}---\n{proposed}");
        assert_eq!(documents(&text).faults().len(), 0, "{proposed}");
        let after = explained(line, &text);
        assert!(after.allowed, "{line}: {}\n{proposed}", after.sentence);
        let other = explained(&line.replace("--from web/", "--from web/other-"), &text);
        assert!(!other.allowed || !line.contains("web/"), "{line}\n{proposed}");
    }
}

#[test]
fn policy_diff() {
    let same = compare(&diff_args(""), (&documents(SHOP), &documents(SHOP)), at(0).0).unwrap();
    assert!(!same.changed && same.complete);
    hold("policy-diff-same", &same);
    let new = SHOP
        .replace("methods: [GET]", "methods: [GET, POST]")
        .replace("ns/web/sa/monitor", "ns/web/sa/watcher");
    let compared = compare(&diff_args(""), (&documents(SHOP), &documents(&new)), at(0).0).unwrap();
    assert!(compared.changed);
    hold("policy-diff", &compared);
    let cut = compare(
        &diff_args("--most 3"),
        (&documents(SHOP), &documents(&new)),
        at(0).0,
    )
    .unwrap();
    assert!(cut.asked <= 3 && !cut.complete, "{}", cut.asked);
}

#[test]
fn policy_diff_replays_what_a_proxy_recorded() {
    let log = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(log.path(), include_str!("policy/access.log")).unwrap();
    let args = diff_args(&format!("--requests {} --only-requests", log.path().display()));
    let new = SHOP.replace("methods: [GET]", "methods: [POST]");
    let with_tokens = |text: &str| format!("{text}---\n{TOKENS}");
    let (old, new) = (with_tokens(SHOP), with_tokens(&new));
    let new = new.replace(
        "requestPrincipals: [\"https://id.example/ann\"]",
        "requestPrincipals: [\"*/bob\"]",
    );
    let compared = compare(&args, (&documents(&old), &documents(&new)), at(0).0).unwrap();
    assert!(compared.changed);
    hold("policy-diff-recorded", &compared);
}

/// What is found by a change of each kind: the literal stands in one of the two sets only.
#[test]
fn a_change_of_any_literal_is_noticed() {
    for (old, new) in [
        ("ns/web/sa/frontend", "ns/web/sa/front"),
        ("/api/v1/*", "/api/v2/*"),
        ("methods: [GET]", "methods: [HEAD]"),
        ("namespaces: [dev]", "namespaces: [test]"),
        ("mode: STRICT", "mode: PERMISSIVE"),
        (
            "notRequestPrincipals: [\"*\"]",
            "notRequestPrincipals: [\"https://id.example/ann\"]",
        ),
        ("values: [admins]", "values: [owners]"),
        ("ipBlocks: [10.9.0.0/16]", "ipBlocks: [10.8.0.0/16]"),
        ("hosts: [\"status.example\"]", "hosts: [\"state.example\"]"),
        ("ports: [\"9100\"]", "ports: [\"9200\"]"),
        ("issuer: https://id.example", "issuer: https://id2.example"),
        ("values: [\"7\"]", "values: [\"8\"]"),
        ("provider: {name: judge}", "provider: {name: other}"),
        ("app: status", "app: state"),
    ] {
        assert!(SHOP.contains(old), "{old}");
        let changed = SHOP.replace(old, new);
        let args = diff_args("--provider judge=grpc --provider other=grpc");
        for (a, b) in [(SHOP, &*changed), (&*changed, SHOP)] {
            let compared = compare(&args, (&documents(a), &documents(b)), at(0).0).unwrap();
            assert!(compared.changed, "{old} → {new}");
        }
    }
}
