//! The published roots: everywhere, at once, and a reason not to make a new root.

use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;
use signet_tests::dir::Dir;
use signet_tests::kube::api_server::shared;
use signet_tests::kube::install::{create, install};
use signet_tests::process::program;
use signet_tests::wait::{SOON, until, until_some};

#[tokio::test]
async fn every_namespace_has_the_roots_and_a_new_one_gets_them_at_once() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "published", None).await);
    let ca = installed.ca().start().await;
    let roots = ca.roots().await;
    let maps: Api<ConfigMap> = Api::all(admin.clone());
    let there = async || -> Vec<ConfigMap> {
        let list = maps
            .list(&ListParams::default().labels("signet.io/roots=true"))
            .await
            .unwrap();
        list.items
            .into_iter()
            .filter(|map| map.metadata.name.as_deref() == Some(&installed.roots()))
            .collect()
    };
    until("the namespaces that come with a server", SOON, async || {
        let there = there().await;
        let has = |name: &str| {
            there
                .iter()
                .any(|map| map.metadata.namespace.as_deref() == Some(name))
        };
        ["default", "kube-system", "published"].into_iter().all(has)
    })
    .await;
    create(
        &admin,
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "published-new"}}),
    )
    .await;
    let new = until_some("the new namespace's roots", SOON, async || {
        there()
            .await
            .into_iter()
            .find(|map| map.metadata.namespace.as_deref() == Some("published-new"))
    })
    .await;
    assert_eq!(new.data.unwrap()["root-cert.pem"], roots);
    let notes = new.metadata.annotations.unwrap();
    assert_eq!(notes["signet.io/bundle-sequence"], "1");
    assert_eq!(notes["signet.io/trust-domain"], installed.trust_domain());
    // A namespace that is going away takes no new objects; that is no failure.
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    namespaces
        .delete("published-new", &DeleteParams::default())
        .await
        .unwrap();
    let map: Api<ConfigMap> = Api::namespaced(admin.clone(), "published-new");
    map.delete(&installed.roots(), &DeleteParams::default())
        .await
        .unwrap();
    let deleted: Api<ConfigMap> = Api::namespaced(admin, "default");
    deleted
        .delete(&installed.roots(), &DeleteParams::default())
        .await
        .unwrap();
    until("the deleted ConfigMap to be back", SOON, async || {
        deleted.get_opt(&installed.roots()).await.unwrap().is_some()
    })
    .await;
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_configmap_writes_total", "failed"),
        0
    );
    for left_out in ["kube-public", "kube-node-lease"] {
        assert!(
            there()
                .await
                .iter()
                .all(|map| map.metadata.namespace.as_deref() != Some(left_out))
        );
    }
}

#[tokio::test]
async fn a_lost_secret_is_restored_and_never_replaced_by_a_new_root_in_silence() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "lost", None).await);
    let ca = installed.ca().start().await;
    let root = ca.admin().get("/v1/authorities").await["roots"].clone();
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "lost");
    until("the roots to be published", SOON, async || {
        maps.get_opt(&installed.roots()).await.unwrap().is_some()
    })
    .await;
    let dir = Dir::new();
    dir.write_secret("passphrase", "a long enough passphrase");
    let kubeconfig = server.admin_kubeconfig();
    let backup = dir.join("signet-ca.backup");
    let signet = |arguments: &[&str]| {
        let mut command = Command::new(program("signet"));
        command
            .args(arguments)
            .arg("--secret")
            .arg("lost/signet-ca-state");
        command.arg("--kubeconfig").arg(&kubeconfig);
        command.arg("--passphrase-file").arg(dir.join("passphrase"));
        let done = command.output().unwrap();
        assert!(
            done.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    signet(&["authority", "export", "--out", backup.to_str().unwrap()]);
    let secrets: Api<Secret> = Api::namespaced(admin, "lost");
    secrets
        .delete("signet-ca-state", &DeleteParams::default())
        .await
        .unwrap();
    until("the running CA to notice", SOON, async || {
        ca.process
            .output()
            .contains("the stored state is gone; this process goes on with what it has")
    })
    .await;
    assert_eq!(ca.admin().get("/v1/authorities").await["roots"], root);
    let refused = installed.ca().refused().await;
    for part in [
        "there is no state at lost/signet-ca-state, but configmap ",
        "signet authority restore",
        "--new-root",
    ] {
        assert!(refused.contains(part), "{part}\nnot in\n{refused}");
    }
    signet(&["authority", "restore", backup.to_str().unwrap()]);
    let restored = installed.ca().start().await;
    assert_eq!(restored.admin().get("/v1/authorities").await["roots"], root);
    drop((ca, restored));
    secrets
        .delete("signet-ca-state", &DeleteParams::default())
        .await
        .unwrap();
    let renewed = installed.ca().argument("--new-root").start().await;
    assert_ne!(renewed.admin().get("/v1/authorities").await["roots"], root);
}
