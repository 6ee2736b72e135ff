//! `policy` and `analyze` with `--kubeconfig`: the in-memory cluster, and API servers that have some of the kinds only.

use std::collections::BTreeMap;
use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use signet_devcluster::{DevCluster, Options, PodSpec};
use tokio::net::TcpListener;

use crate::policy::{ALLOW, DENY_ALL, STRICT};
use crate::support::{Ran, signet, text};

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

/// An API server that has these listings, and nothing else.
async fn serving(listings: BTreeMap<&'static str, Value>, kubeconfig: &std::path::Path) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(kubeconfig, config.to_string()).unwrap();
    let service = service_fn(move |request: Request<Incoming>| {
        let known = listings.get(request.uri().path()).cloned();
        let code = if known.is_some() { 200 } else { 404 };
        let missing = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
            "message": "the server could not find the requested resource", "reason": "NotFound",
        });
        let body = Full::new(Bytes::from(known.unwrap_or(missing).to_string()));
        async move { Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()) }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_an_older_istio_are_read_and_missing_ones_are_said() {
    let list = |items: Value| json!({"metadata": {}, "items": items});
    let deny_all = json!({"metadata": {"name": "deny-all", "namespace": "shop"}, "spec": {}});
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let old = "/apis/security.istio.io/v1beta1/authorizationpolicies";
    let listings = [
        (old, list(json!([deny_all]))),
        (
            "/apis/security.istio.io/v1beta1/peerauthentications",
            list(json!([])),
        ),
        ("/api/v1/pods", list(json!([]))),
        ("/api/v1/services", list(json!([]))),
        ("/api/v1/namespaces", list(json!([]))),
    ];
    serving(listings.into(), &kubeconfig).await;
    let kubeconfig = text(&kubeconfig);
    let verb = async |verb: &[&str]| signet(&[verb, &["--kubeconfig", &kubeconfig]].concat()).await;
    let check = verb(&["policy", "check", "-o", "json"]).await;
    assert_eq!(
        (check.code, &check.json()["policies"]),
        (0, &json!(1)),
        "{}",
        check.err
    );
    assert_eq!(check.json()["missing_kinds"], json!(["RequestAuthentication"]));
    let explain = [
        "policy",
        "explain",
        "--from",
        "web/frontend",
        "--to",
        "shop/cart:80",
    ];
    for said in [
        verb(&["policy", "check"]).await,
        verb(&["analyze"]).await,
        verb(&explain).await,
    ] {
        assert!(
            said.out.contains("does not have the kinds RequestAuthentication"),
            "{said:?}"
        );
    }
    assert_eq!(verb(&explain).await.code, 1, "the policy is in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_of_ours_are_advised_to_a_cluster_without_istio_only() {
    for (groups, advice) in [
        (json!(["apps"]), "apply deploy/crds first"),
        (
            json!(["apps", "networking.istio.io"]),
            "it has networking.istio.io of Istio",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let group = |name: &Value| json!({"name": name, "versions": []});
        let groups: Vec<Value> = groups.as_array().unwrap().iter().map(group).collect();
        serving([("/apis", json!({"groups": groups}))].into(), &kubeconfig).await;
        let ran = signet(&["policy", "check", "--kubeconfig", &text(&kubeconfig)]).await;
        assert!(ran.code == 2 && ran.err.contains(advice), "{ran:?}");
        assert_eq!(
            advice.contains("apply"),
            ran.err.contains("apply deploy/crds"),
            "{ran:?}"
        );
    }
}
