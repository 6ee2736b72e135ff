//! `policy` and `analyze`: files, directories, standard input; exit codes.

use std::path::Path;

use serde_json::json;

use crate::support::{signet, signet_with, text};

pub(crate) const DENY_ALL: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny-all, \
                        namespace: shop}\nspec: {}\n";
pub(crate) const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, \
                      namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
pub(crate) const ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: \
                     shop}\nspec: {rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]}]}\n";
const FAULTY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: bad, namespace: \
                      shop}\nspec: {acton: DENY}\n";

pub(crate) fn put(directory: &Path, name: &str, contents: &str) -> String {
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
async fn a_token_in_the_head_is_neither_ignored_nor_printed() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\n\
                  spec: {jwtRules: [{issuer: i, jwksUri: \"https://i.example\"}, {issuer: j, jwksUri: \
                  \"https://j.example\", fromCookies: [session]}]}\n";
    let policies = put(directory.path(), "p.yaml", tokens);
    let explain = async |more: &[&str]| {
        let known = [
            "policy",
            "explain",
            "--policies",
            &policies,
            "--from",
            "web/a",
            "--to",
            "shop/cart",
        ];
        signet(&[&known[..], more].concat()).await
    };
    for (more, place) in [
        (
            ["--header", "Authorization: Bearer TOPSECRET"],
            "the header authorization",
        ),
        (
            ["--header", "Cookie: a=b; session=TOPSECRET"],
            "the cookie session",
        ),
        (
            ["--path", "/x?access_token=TOPSECRET"],
            "the query parameter access_token",
        ),
    ] {
        let ran = explain(&more).await;
        assert_eq!((ran.code, &*ran.out), (2, ""), "{}", ran.err);
        assert!(
            ran.err.contains(place) && ran.err.contains("--jwt-file"),
            "{}",
            ran.err
        );
        assert!(!ran.err.contains("TOPSECRET"), "{}", ran.err);
    }
    let other = explain(&["--header", "Authorization: Basic TOPSECRET"]).await;
    assert_eq!(other.code, 0, "{}", other.err);

    let line = "{\"from\": \"web/a\", \"to\": \"shop/cart\", \"headers\": {\"authorization\": \"Bearer TOPSECRET\"}}\n";
    let none = put(directory.path(), "none.yaml", DENY_ALL);
    let arguments = ["policy", "diff", &none, &policies, "--requests", "-"];
    let diff = signet_with(&arguments, &[], line.as_bytes()).await;
    assert!(diff.code == 2 && diff.err.contains("claims"), "{}", diff.err);
    assert!(!diff.err.contains("TOPSECRET"), "{}", diff.err);
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

#[tokio::test]
async fn diff_says_which_line_of_a_log_it_cannot_place_and_when_there_is_no_request_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let old = put(directory.path(), "old.yaml", DENY_ALL);
    let new = put(directory.path(), "new.yaml", ALLOW);
    let diff = async |log: &str, more: &[&str]| {
        let arguments = ["policy", "diff", &old, &new, "--requests", "-", "--only-requests"];
        signet_with(&[&arguments[..], more].concat(), &[], log.as_bytes()).await
    };
    let record = |own: &str, more: &str| {
        format!(
            "{{\"timestamp\":\"t\",\"level\":\"INFO\",\"target\":\"access\",\"direction\":\"inbound\",\"security\":\
             \"mutual_tls\",\"source\":\"10.0.0.1:9\",\"destination\":\"10.0.0.2:8080\",\"port\":8080,\"peer\":\
             \"spiffe://cluster.local/ns/web/sa/frontend\",{own}\"reason\":\"ok\"{more}}}\n"
        )
    };
    let own = "\"own_id\":\"spiffe://cluster.local/ns/shop/sa/cart\",";
    let get = ",\"method\":\"GET\",\"authority\":\"cart\",\"path\":\"/\"";
    let cart = ["--recorded-by", "shop/cart", "--labels", "app=cart"];

    let gained = diff(&record(own, get), &cart).await;
    assert_eq!(gained.code, 1, "{} {}", gained.out, gained.err);
    let unplaced = diff(&format!("\n{}", record(own, get)), &[]).await;
    assert_eq!(unplaced.code, 2);
    for part in [
        "-:2: ",
        "no workload in the files runs as shop/cart",
        "--recorded-by",
    ] {
        assert!(unplaced.err.contains(part), "{part}: {}", unplaced.err);
    }
    let nobodys = diff(&record("", get), &[]).await;
    assert!(
        nobodys.err.contains("does not say who answered"),
        "{}",
        nobodys.err
    );
    let unlabelled = diff(&record(own, get), &["--recorded-by", "shop/cart"]).await;
    assert!(
        unlabelled.code == 2 && unlabelled.err.contains("--labels"),
        "{}",
        unlabelled.err
    );
    let elsewhere = diff(
        &record(own, get),
        &["--recorded-by", "web/cart", "--labels", "a=b"],
    )
    .await;
    assert!(elsewhere.err.contains("names one in web"), "{}", elsewhere.err);

    // What says too little is no request, and a file without any is no answer.
    let cut = get.replace("\"/\"", &format!("\"/{}\"", "x".repeat(255)));
    let refused = record(own, get).replace("\"reason\":\"ok\"", "\"reason\":\"token_invalid\"");
    let outbound = record(own, get).replace("inbound", "outbound");
    let log = format!("started\n{}{refused}{outbound}", record(own, &cut));
    let none = diff(&log, &cart).await;
    assert_eq!(none.code, 2, "{}", none.out);
    let words = "4 lines skipped: 1 no requests, 1 of the caller's side, 2 that say too little";
    assert!(none.err.contains(words), "{}", none.err);

    // A line that an operator wrote and mistyped is not skipped.
    let typo = diff("{\"form\": \"web/a\", \"to\": \"shop/cart\"}\n", &[]).await;
    assert!(typo.code == 2 && typo.err.contains("form"), "{}", typo.err);
}

#[tokio::test]
async fn explain_says_of_a_header_of_several_lines_that_all_of_it_is_compared() {
    let policies = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
                    spec: {rules: [{when: [{key: 'request.headers[x-team]', values: [blue]}]}]}\n";
    let explain = async |headers: &[&str]| {
        let question = [
            "policy",
            "explain",
            "--policies",
            "-",
            "--from",
            "web/a",
            "--to",
            "shop/cart:80",
        ];
        let headers = headers.iter().flat_map(|header| ["--header", *header]);
        let arguments: Vec<&str> = question.into_iter().chain(headers).collect();
        signet_with(&arguments, &[], policies.as_bytes()).await
    };
    assert_eq!(explain(&["x-team: blue"]).await.code, 0);
    let twice = explain(&["x-team: blue", "x-team: red"]).await;
    assert_eq!(twice.code, 1, "{}", twice.err);
    assert!(twice.out.contains("stands 2 times"), "{}", twice.out);
    let other = explain(&["x-team: red"]).await;
    assert!(other.code == 1 && !other.out.contains("times"), "{}", other.out);
}
