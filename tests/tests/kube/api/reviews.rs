//! TokenReview as a real API server answers it, judged by the CA's reviewer with the deployed rights.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams};
use prometheus_client::registry::Registry;
use serde_json::json;
use signet_ca::authn::review::{ReviewFault, Reviewer};
use signet_ca::authn::{AuthnError, BearerToken};
use signet_ca::metrics::Metrics;
use signet_policy::Caller;
use signet_tests::cluster::Cluster;
use signet_tests::kube::api_server::{ApiServer, client, shared};
use signet_tests::kube::install::{Installed, create, install, pod, token, workload};
use signet_tests::kube::skips::too_old;
use signet_tests::wait::until_some;

/// The API server keeps a positive answer for ten seconds.
const SERVER_CACHE: Duration = Duration::from_secs(30);

async fn reviewer(installed: &Installed, audience: &str) -> Reviewer {
    reviewer_at(&installed.kubeconfig, audience).await
}

async fn reviewer_at(kubeconfig: &Path, audience: &str) -> Reviewer {
    let client = client(&std::fs::read_to_string(kubeconfig).unwrap()).await;
    let metrics = Metrics::new(&mut Registry::default());
    Reviewer::new(client, &[audience.to_owned()], Duration::from_secs(5), 4, metrics)
}

async fn review(reviewer: &Reviewer, token: &str) -> Result<Caller, AuthnError> {
    reviewer.review(&BearerToken::new(token), None).await
}

#[track_caller]
fn words(answer: Result<Caller, AuthnError>) -> String {
    match answer {
        Err(AuthnError::Refused(ReviewFault::NotAuthenticated(words))) => words,
        other => panic!("expected the API server's refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn the_answers_to_living_tokens_are_those_that_were_recorded() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "reviews", None).await);
    workload(&admin, "reviews-app", "api").await;
    let ours = reviewer(&installed, "signet-ca").await;
    let bound = token(&admin, "reviews-app", "api", &["signet-ca"], Some("api-0")).await;
    let caller = review(&ours, &bound).await.unwrap();
    assert_eq!(caller.account().to_string(), "reviews-app/api");
    assert_eq!(caller.pod().unwrap().name, "api-0");
    let unbound = token(&admin, "reviews-app", "api", &["signet-ca"], None).await;
    assert!(review(&ours, &unbound).await.unwrap().pod().is_none());
    let two = token(&admin, "reviews-app", "api", &["other", "signet-ca"], None).await;
    review(&ours, &two).await.unwrap();
    for audiences in [&["other"][..], &[]] {
        let foreign = token(&admin, "reviews-app", "api", audiences, None).await;
        let said = words(review(&ours, &foreign).await);
        assert!(
            said.contains("is invalid for the target audiences [\"signet-ca\"]"),
            "{said}"
        );
    }
    words(review(&ours, "not-a-token").await);
    // The first character of the signature; the last one holds bits that decoders ignore.
    let (signed, signature) = bound.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    words(review(&ours, &format!("{signed}.{other}{rest}")).await);
    // A user who is no service account; the static token file knows only the server's own audience.
    let strangers = reviewer(&installed, "https://kubernetes.default.svc").await;
    let answer = review(&strangers, "admin-token").await;
    let expected = AuthnError::Refused(ReviewFault::NotServiceAccount("admin".into()));
    assert_eq!(answer.unwrap_err(), expected);
}

#[tokio::test]
async fn a_token_dies_with_its_pod_its_pods_uid_and_its_account() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "mortal", None).await);
    let ours = reviewer(&installed, "signet-ca").await;
    let mut tokens = Vec::new();
    for account in ["deleted", "recreated", "dissolved"] {
        workload(&admin, "mortal-app", account).await;
        let pod = format!("{account}-0");
        let token = token(&admin, "mortal-app", account, &["signet-ca"], Some(&pod)).await;
        review(&ours, &token).await.unwrap();
        tokens.push(token);
    }
    let pods: Api<Pod> = Api::namespaced(admin.clone(), "mortal-app");
    for name in ["deleted-0", "recreated-0"] {
        pods.delete(name, &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }
    pod(&admin, "mortal-app", "recreated").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "mortal-app");
    accounts
        .delete("dissolved", &DeleteParams::default())
        .await
        .unwrap();
    let refused = async |token: &str| {
        let said = until_some("the server's cache to end", SERVER_CACHE, async || {
            review(&ours, token).await.err()
        });
        words(Err(said.await))
    };
    let [deleted, recreated, dissolved] = [&tokens[0], &tokens[1], &tokens[2]];
    let (deleted, recreated, dissolved) =
        tokio::join!(refused(deleted), refused(recreated), refused(dissolved));
    assert!(deleted.contains("invalidated"), "{deleted}");
    assert!(recreated.contains("does not match claim"), "{recreated}");
    assert!(
        dissolved.contains("not found") || dissolved.contains("invalidated"),
        "{dissolved}"
    );
    let fresh = token(
        &admin,
        "mortal-app",
        "recreated",
        &["signet-ca"],
        Some("recreated-0"),
    )
    .await;
    review(&ours, &fresh).await.unwrap();
}

#[tokio::test]
async fn the_review_of_a_pod_on_a_node_names_the_node() {
    let Some(server) = shared().await else { return };
    if minor_is_below(&server, 30).await {
        too_old("the node-name extra needs Kubernetes 1.30; tested on the in-memory cluster");
        return;
    }
    let (admin, installed) = (server.admin().await, install(&server, "noded", None).await);
    workload(&admin, "noded-app", "api").await;
    create(
        &admin,
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}),
    )
    .await;
    let on_node = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "placed", "namespace": "noded-app"},
        "spec": {
            "serviceAccountName": "api",
            "nodeName": "node-1",
            "containers": [{"name": "app", "image": "app"}],
        },
    });
    create(&admin, &on_node).await;
    let token = token(&admin, "noded-app", "api", &["signet-ca"], Some("placed")).await;
    let caller = review(&reviewer(&installed, "signet-ca").await, &token)
        .await
        .unwrap();
    assert_eq!(caller.pod().unwrap().node.as_deref(), Some("node-1"));
}

#[tokio::test]
async fn the_in_memory_cluster_names_the_node_as_servers_since_1_30_do() {
    let cluster = Cluster::start();
    let token = cluster.token("noded-app", "api");
    let caller = review(&reviewer_at(&cluster.kubeconfig(), "signet-ca").await, &token).await;
    assert_eq!(caller.unwrap().pod().unwrap().node.as_deref(), Some("node-1"));
}

async fn minor_is_below(server: &ApiServer, minor: u32) -> bool {
    server.minor_version().await < minor
}
