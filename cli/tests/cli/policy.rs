//! `policy` and `analyze`: files, directories, standard input, a cluster; exit codes; and every command of
//! `docs/policy.md` with the output that stands there.

use std::path::Path;

use serde_json::json;
use signet_devcluster::{DevCluster, Options, PodSpec};

use crate::support::{Ran, signet, signet_with, text};

const DENY_ALL: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny-all, \
                        namespace: shop}\nspec: {}\n";
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, \
                      namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
const ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: \
                     shop}\nspec: {rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]}]}\n";
const FAULTY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: bad, namespace: \
                      shop}\nspec: {acton: DENY}\n";

fn put(directory: &Path, name: &str, contents: &str) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, contents).unwrap();
    text(&path)
}

#[tokio::test]
async fn a_directory_is_read_whole_and_without_hidden_files() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "b/c/deep.yml", FAULTY);
    put(directory.path(), "a.yaml", DENY_ALL);
    put(directory.path(), "..data/copy.yaml", FAULTY);
    put(directory.path(), "notes.txt", "no YAML: [");
    let ran = signet(&["policy", "check", &text(directory.path()), "-o", "json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    let faults = ran.json()["faults"].as_array().unwrap().clone();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0]["file"].as_str().unwrap().ends_with("b/c/deep.yml"));
    assert_eq!(faults[0]["line"], 4);
    assert_eq!(faults[0]["field"], "spec.acton");
    assert_eq!(ran.json()["policies"], 2);
}

#[tokio::test]
async fn check_answers_yes_no_or_that_it_cannot() {
    let check = async |more: &[&str], input: &str| {
        let arguments = [&["policy", "check"], more].concat();
        signet_with(&arguments, &[], input.as_bytes()).await.code
    };
    assert_eq!(check(&["-"], DENY_ALL).await, 0);
    assert_eq!(check(&["-"], FAULTY).await, 1);
    assert_eq!(
        check(&["-"], "apiVersion: v1\nkind: Pod\n").await,
        2,
        "no policy is no answer"
    );
    assert_eq!(check(&["/nonexistent"], "").await, 2);
    assert_eq!(check(&[], "").await, 2);
    let scheme = ALLOW.replace("cluster.local/ns", "spiffe://cluster.local/ns");
    assert_eq!(check(&["-"], &scheme).await, 0, "a warning is none of its faults");
    assert_eq!(check(&["-", "--strict"], &scheme).await, 1);
    let nameless = DENY_ALL.replace(", namespace: shop", "");
    assert_eq!(
        check(&["-"], &nameless).await,
        1,
        "an object without a namespace lies nowhere"
    );
    assert_eq!(check(&["-", "--namespace", "shop"], &nameless).await, 0);
}

#[tokio::test]
async fn explain_reads_a_token_and_never_prints_it_or_a_header() {
    let directory = tempfile::tempdir().unwrap();
    let policies = put(directory.path(), "p.yaml", &format!("{DENY_ALL}---\n{STRICT}"));
    for format in ["table", "json", "yaml"] {
        let token = crate::support::token("cart", "secret-audience");
        let ran = signet_with(
            &[
                "policy",
                "explain",
                "--policies",
                &policies,
                "--from",
                "web/frontend",
                "--to",
                "shop/cart",
                "--jwt-file",
                "-",
                "--header",
                "X-Api-Key: secret-header",
                "-o",
                format,
            ],
            &[],
            token.as_bytes(),
        )
        .await;
        assert_eq!(ran.code, 1, "{}", ran.err);
        for secret in token.split('.').chain(["secret-header", "secret-audience"]) {
            assert!(
                !ran.out.contains(secret) && !ran.err.contains(secret),
                "{format}: {secret}"
            );
        }
        assert!(ran.out.contains("x-api-key") || format == "table", "{}", ran.out);
    }
}

#[tokio::test]
async fn explain_asks_for_the_port_where_it_matters() {
    let ports = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
                 spec: {rules: [{to: [{operation: {ports: [\"8080\"]}}]}]}\n";
    let explain = async |to: &str| {
        let arguments = [
            "policy",
            "explain",
            "--policies",
            "-",
            "--from",
            "web/a",
            "--to",
            to,
            "--labels",
            "a=b",
        ];
        signet_with(&arguments, &[], ports.as_bytes()).await
    };
    let ran = explain("shop/cart").await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("speak of ports 8080"), "{}", ran.err);
    assert_eq!(explain("shop/cart:8080").await.code, 0);
    assert_eq!(explain("shop/cart:8081").await.code, 1);
}

#[tokio::test]
async fn given_requests_are_replayed_and_a_broken_line_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let old = put(directory.path(), "old.yaml", DENY_ALL);
    let new = put(directory.path(), "new.yaml", &format!("{DENY_ALL}---\n{ALLOW}"));
    let line = json!({"from": "web/frontend", "to": "shop/cart:8080", "method": "GET", "path": "/x"});
    let requests = put(directory.path(), "r.jsonl", &format!("{line}\n\n{line}\n"));
    let diff = async |requests: &str, more: &[&str]| {
        let arguments = [
            &[
                "policy",
                "diff",
                &*old,
                &*new,
                "--requests",
                requests,
                "-o",
                "json",
            ],
            more,
        ]
        .concat();
        signet(&arguments).await
    };
    let ran = diff(&requests, &["--only-requests"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        (&ran.json()["asked"], &ran.json()["gained"][0]["requests"]),
        (&json!(2), &json!(2))
    );
    let other = line.to_string().replace("frontend", "other");
    let others = put(directory.path(), "o.jsonl", &other);
    assert_eq!(
        diff(&others, &["--only-requests"]).await.code,
        0,
        "nobody else gains"
    );
    assert_eq!(
        diff(&others, &[]).await.code,
        1,
        "and the literals of the rules are asked too"
    );
    let broken = put(
        directory.path(),
        "b.jsonl",
        &format!("{line}\n{}", other.replace("path", "pth")),
    );
    let ran = diff(&broken, &[]).await;
    assert!(ran.code == 2 && ran.err.contains("b.jsonl:2: "), "{}", ran.err);
}

#[tokio::test]
async fn a_small_change_in_a_large_set_is_found_and_a_search_that_was_cut_off_is_no_yes() {
    let directory = tempfile::tempdir().unwrap();
    let rule = |n: usize| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{n}, namespace: \
             n{}}}\nspec:\n  selector: {{matchLabels: {{app: a{n}}}}}\n  rules: [{{to: [{{operation: {{paths: \
             [/p{n}, /q{n}]}}}}]}}]\n---\n",
            n % 7
        )
    };
    let all: String = (0..600).map(rule).collect();
    let old = put(directory.path(), "old.yaml", &all);
    let new = put(directory.path(), "new.yaml", &all.replace("/q599]", "/r599]"));
    let ran = signet(&["policy", "diff", &old, &new, "-o", "json"]).await;
    assert_eq!(
        (ran.code, &ran.json()["complete"]),
        (1, &json!(true)),
        "{}",
        ran.err
    );
    let to = |change: &str| ran.json()[change][0]["to"].clone();
    assert_eq!(
        (to("gained"), to("lost")),
        (json!("n4/(app=a599)"), json!("n4/(app=a599)"))
    );
    let reordered = put(
        directory.path(),
        "re.yaml",
        &all.replace("[/p1, /q1]", "[/q1, /p1]"),
    );
    let same = signet(&["policy", "diff", &old, &reordered]).await;
    assert_eq!(same.code, 0, "{} {}", same.out, same.err);
    let cut = signet(&["policy", "diff", &old, &reordered, "--most", "1"]).await;
    assert!(cut.code == 2 && cut.err.contains("raise --most"), "{}", cut.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_asked_through_a_kubeconfig() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = text(&directory.path().join("kubeconfig"));
    let cluster = DevCluster::start(Options::default()).unwrap();
    cluster.write_kubeconfig(&kubeconfig).unwrap();
    for namespace in ["shop", "web"] {
        cluster.create_namespace(namespace).unwrap();
    }
    cluster.create_service_account("shop", "cart").unwrap();
    cluster
        .create_pod(PodSpec::new("shop", "cart-0").service_account("cart"))
        .unwrap();
    let check = async || signet(&["policy", "check", "--kubeconfig", &kubeconfig, "-o", "json"]).await;
    assert_eq!(check().await.code, 2, "no policy is no answer");

    for (plural, document) in [
        ("authorizationpolicies", DENY_ALL),
        ("authorizationpolicies", ALLOW),
        ("peerauthentications", STRICT),
    ] {
        create(&kubeconfig, plural, document).await;
    }
    let ran = check().await;
    assert_eq!((ran.code, &ran.json()["policies"]), (0, &json!(3)), "{}", ran.err);
    let explain = async |from: &str| {
        let arguments = [
            "policy",
            "explain",
            "--kubeconfig",
            &kubeconfig,
            "--from",
            from,
            "--to",
            "shop/cart:80",
            "-o",
            "json",
        ];
        signet(&arguments).await
    };
    let allowed: Ran = explain("web/frontend").await;
    assert_eq!(allowed.code, 0, "{}", allowed.err);
    assert_eq!(
        allowed.json()["decided_by"]["policy"],
        "AuthorizationPolicy shop/allow"
    );
    assert_eq!(explain("none").await.json()["on_the_wire"], "connection reset");
    let ran = signet(&["analyze", "--kubeconfig", &kubeconfig, "-o", "json"]).await;
    let codes: Vec<_> = ran.json()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].clone())
        .collect();
    assert_eq!(
        (ran.code, codes),
        (1, vec![json!("SGN0031")]),
        "the pod has no proxy"
    );
    cluster.shutdown().await;
    assert_eq!(check().await.code, 2);
}

async fn create(kubeconfig: &str, plural: &str, document: &str) {
    let config = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default())
        .await
        .unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let object: serde_json::Value = serde_saphyr::from_str(document).unwrap();
    let path = format!("/apis/security.istio.io/v1/namespaces/shop/{plural}");
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    client.request::<serde_json::Value>(request).await.unwrap();
}

/// A block of a document that is a file, or a command with what it prints.
enum Block {
    File(String, String),
    Command(Vec<String>, String),
}

/// In `docs/policy.md`, blocks `yaml NAME` are files, and blocks `console policy` commands on them.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```").filter(|kind| !kind.is_empty()) else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n") + "\n";
        if let Some(name) = kind.strip_prefix("yaml ") {
            blocks.push(Block::File(name.to_owned(), body));
        } else if kind == "console policy" {
            let commands = body.split("$ signet ").skip(1);
            blocks.extend(commands.map(|command| {
                let command = command.replace("\\\n", " ");
                let (words, output) = command.split_once('\n').unwrap();
                let words = words.split_whitespace().map(str::to_owned).collect();
                Block::Command(words, output.to_owned())
            }));
        }
    }
    blocks
}

#[tokio::test]
async fn every_command_of_the_page_on_policy_prints_what_stands_there() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
    let directory = tempfile::tempdir().unwrap();
    let mut ran = 0;
    for block in blocks(&std::fs::read_to_string(page).unwrap()) {
        match block {
            Block::File(name, contents) => {
                put(directory.path(), &name, &contents);
            }
            Block::Command(words, wanted) => {
                let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_signet"))
                    .current_dir(directory.path())
                    .args(&words)
                    .output()
                    .await
                    .unwrap();
                let out = String::from_utf8(done.stdout).unwrap();
                let err = String::from_utf8(done.stderr).unwrap();
                assert_eq!(out.trim_end(), wanted.trim_end(), "{words:?} {err}");
                assert!(matches!(done.status.code(), Some(0 | 1)), "{words:?} {err}");
                ran += 1;
            }
        }
    }
    assert!(ran >= 5, "the commands were found: {ran}");
}
