//! The node rule at a real API server, with the deployed rights: real tokens bound to real pods, a real
//! watch with its selectors, and real lookups. Servers before 1.30 name no node in a review; the rule
//! then goes by the pod alone.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use signet_tests::ca::Ca;
use signet_tests::client::{Ask, chain};
use signet_tests::kube::api_server::shared;
use signet_tests::kube::install::{create, install, token};
use signet_tests::nodes::asking;
use signet_tests::wait::{SOON, until};
use tonic::Code;

/// An account, and a pod of it that is bound to a node, as a scheduler would have bound it.
async fn placed(admin: &kube::Client, namespace: &str, account: &str, node: &str) {
    let named = json!({"name": account, "namespace": namespace});
    create(
        admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}),
    )
    .await;
    placed_again(admin, namespace, account, node).await;
}

async fn placed_again(admin: &kube::Client, namespace: &str, account: &str, node: &str) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("{account}-0"), "namespace": namespace},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "app", "image": "app"}],
        },
    });
    create(admin, &pod).await;
}

async fn refused_soon(ca: &Ca, ask: &Ask, reason: &str) {
    until(reason, SOON, async || {
        if let Err(status) = ask.at(ca).await {
            assert_eq!(status.code(), Code::Unauthenticated, "{}", status.message());
        }
        ca.scrape().await.outcome("signet_ca_csrs_total", reason) >= 1
    })
    .await;
}

#[tokio::test]
async fn a_node_gets_what_runs_on_it_while_its_own_pod_lives() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "node-rule", None).await);
    let space = "node-rule";
    for (account, node) in [("agent", "n1"), ("cart", "n1"), ("bank", "n2")] {
        placed(&admin, space, account, node).await;
    }
    let ca = installed
        .ca()
        .set("trusted_node_accounts", vec![format!("{space}/agent")])
        .start()
        .await;
    let token = token(&admin, space, "agent", &["signet-ca"], Some("agent-0")).await;
    let id = |account: &str| format!("spiffe://{}/ns/{space}/sa/{account}", installed.trust_domain());
    let answer = asking(&token, &id("cart")).at(&ca).await.unwrap();
    assert_eq!(chain(&answer).0.leaf().names().uris, [id("cart")]);
    asking(&token, &id("bank"))
        .refused(&ca, Code::Unauthenticated)
        .await;
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_csrs_total", "no_pod_on_node"),
        1
    );
    assert_eq!(
        ca.scrape().await.outcome("signet_ca_pod_lookups_total", "none"),
        1
    );

    // A pod of a moment ago is there by watch or by lookup.
    placed(&admin, space, "fresh", "n1").await;
    asking(&token, &id("fresh")).at(&ca).await.unwrap();
    // One that has succeeded is not, although its object is still there.
    let pods: Api<Pod> = Api::namespaced(admin.clone(), space);
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("fresh-0", &PatchParams::default(), &ended)
        .await
        .unwrap();
    until("the end of fresh-0", SOON, async || {
        asking(&token, &id("fresh")).at(&ca).await.is_err()
    })
    .await;
    asking(&token, &id("cart")).at(&ca).await.unwrap();

    // The token outlives its pod in the caches of both; its power does not.
    let now = DeleteParams::default().grace_period(0);
    pods.delete("agent-0", &now).await.unwrap();
    refused_soon(&ca, &asking(&token, &id("cart")), "pod_unknown").await;
    placed_again(&admin, space, "agent", "n1").await;
    refused_soon(&ca, &asking(&token, &id("cart")), "pod_replaced").await;
    let log = ca.process.output();
    assert!(
        !log.contains("forbidden") && !log.contains("watch of pods broke"),
        "{log}"
    );
}
