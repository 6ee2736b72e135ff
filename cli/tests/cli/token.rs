//! `token check`, offline and against an API server.

use signet_devcluster::{DevCluster, Options, PodSpec, TokenSpec};

use crate::support::{Ran, file, signet, signet_with, text, token};

async fn check(token: &str, more: &[&str]) -> Ran {
    let token = file(token);
    let mut arguments = vec!["token", "check", "--token-file", &token.path, "-o", "json"];
    arguments.extend(more);
    signet(&arguments).await
}

#[tokio::test]
async fn offline_nothing_is_verified_and_the_exit_code_says_so() {
    let good = token("cart", "signet-ca");
    let ran = check(&good, &[]).await;
    assert_eq!((ran.code, ran.json()["accepted"].is_null()), (2, true));
    assert!(
        ran.err
            .starts_with("signet: nothing was verified: pass --admin SOCKET"),
        "{}",
        ran.err
    );
    let ran = check(&token("cart", "istio-ca"), &[]).await;
    assert_eq!(
        (ran.code, ran.json()["reason"].as_str()),
        (1, Some("token_audience"))
    );
    let fix = ran.json()["fix"].as_str().unwrap().to_owned();
    assert!(fix.contains("audience: signet-ca"), "{fix}");
    assert_eq!(
        check(&token("cart", "istio-ca"), &["--audience", "istio-ca"])
            .await
            .code,
        2
    );
    let ran = check("not.a-token", &[]).await;
    assert_eq!(
        (ran.code, ran.json()["reason"].as_str()),
        (1, Some("token_malformed"))
    );
}

#[tokio::test]
async fn a_token_on_standard_input_is_read_and_never_printed() {
    let good = token("cart", "signet-ca");
    for format in ["table", "json", "yaml"] {
        let arguments = ["token", "check", "--token-file", "-", "-o", format];
        let ran = signet_with(&arguments, &[], good.as_bytes()).await;
        assert_eq!(ran.code, 2);
        for part in good.split('.') {
            assert!(
                !ran.out.contains(part) && !ran.err.contains(part),
                "{format}: {ran:?}"
            );
        }
        assert!(ran.out.contains("system:serviceaccount:shop:cart"), "{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_has_the_last_word() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = text(&directory.path().join("kubeconfig"));
    let cluster = DevCluster::start(Options::default()).unwrap();
    cluster.write_kubeconfig(&kubeconfig).unwrap();
    cluster.create_namespace("shop").unwrap();
    cluster.create_service_account("shop", "cart").unwrap();
    cluster
        .create_pod(PodSpec::new("shop", "cart-0").service_account("cart"))
        .unwrap();
    let spec = || TokenSpec::new("shop", "cart").audience("signet-ca");
    let asked = ["--kubeconfig", &kubeconfig];

    let bound = cluster.mint_token(&spec().pod("cart-0")).unwrap();
    let ran = check(&bound, &asked).await;
    assert_eq!(
        (ran.code, ran.json()["judged_by"].as_str()),
        (0, Some("api_server")),
        "{}",
        ran.err
    );
    assert_eq!(ran.json()["pod"], "cart-0");

    let unbound = file(cluster.mint_token(&spec()).unwrap());
    let table = signet(&[
        "token",
        "check",
        "--token-file",
        &unbound.path,
        "--kubeconfig",
        &kubeconfig,
    ])
    .await;
    assert_eq!(table.code, 0);
    assert!(table.out.contains("not bound to a pod"), "{}", table.out);

    let foreign = check(&token("cart", "signet-ca"), &asked).await;
    assert_eq!(
        (foreign.code, foreign.json()["reason"].as_str()),
        (1, Some("review_refused"))
    );

    cluster
        .create_pod(PodSpec::new("shop", "cart-1").service_account("cart"))
        .unwrap();
    let orphan = cluster.mint_token(&spec().pod("cart-1")).unwrap();
    cluster.delete_pod("shop", "cart-1").unwrap();
    let ran = check(&orphan, &asked).await;
    assert_eq!(ran.code, 1);
    let fix = ran.json()["fix"].as_str().unwrap().to_owned();
    assert!(
        fix.starts_with("the pod it was bound to is gone"),
        "{fix}: {}",
        ran.out
    );

    cluster.shutdown().await;
    let ran = check(&bound, &asked).await;
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (2, "signet: token review: the API server cannot be reached\n")
    );
}
