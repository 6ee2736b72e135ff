//! The Secret that replicas share: made once, adopted by the others, followed.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use signet_ca::state::CaState;
use signet_ca::store::secret::SecretStore;
use signet_certs::TrustDomain;
use signet_tests::admin::Admin;
use signet_tests::kube::api_server::shared;
use signet_tests::kube::install::{create, install};
use signet_tests::wait::{SOON, until};

use super::root;

const ROUNDS: usize = 25;
const CONTENDERS: usize = 4;

#[tokio::test]
async fn of_many_that_create_the_state_at_once_one_wins_and_all_agree() {
    let Some(server) = shared().await else { return };
    let admin = server.admin().await;
    create(
        &admin,
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "contest"}}),
    )
    .await;
    let domain: TrustDomain = "contest.test".parse().unwrap();
    let mut winners = BTreeSet::new();
    for round in 0..ROUNDS {
        let name = format!("state-{round}");
        let contender = |number: usize| {
            let store = SecretStore::new(admin.clone(), "contest", &name);
            let state = CaState::with_root(&domain, root("contest.test"), 1).unwrap();
            async move { (number, store.create(&state).await.unwrap().same(&state), store) }
        };
        let done = join_all((0..CONTENDERS).map(contender)).await;
        let won: Vec<usize> = done
            .iter()
            .filter(|(_, own, _)| *own)
            .map(|(number, ..)| *number)
            .collect();
        assert_eq!(won.len(), 1, "round {round}");
        winners.extend(won);
        let stored = done[0].2.load(&domain).await.unwrap().unwrap();
        assert_eq!(stored.bundle().roots().len(), 1);
    }
    assert!(winners.len() > 1, "it was a race: {winners:?}");
}

async fn roots_of(admin: &Admin) -> Option<Value> {
    let authorities = admin.try_get("/v1/authorities").await.ok()?;
    Some(json!([authorities["sequence"], authorities["roots"]]))
}

#[tokio::test]
async fn two_replicas_that_start_together_have_one_root_and_issuing_keys_of_their_own() {
    let Some(server) = shared().await else { return };
    let installed = install(&server, "replicas", None).await;
    let secrets: Api<Secret> = Api::namespaced(server.admin().await, "replicas");
    for _ in 0..3 {
        // Not published: a root of an earlier round would be found there.
        let replica = |name: &str| installed.ca().set("publish_roots", false).named(name);
        let (one, other) = tokio::join!(replica("one").start(), replica("other").start());
        let (first, second) = (
            roots_of(&one.admin()).await.unwrap(),
            roots_of(&other.admin()).await.unwrap(),
        );
        assert_eq!(first, second);
        let issuing =
            async |admin: Admin| admin.get("/v1/authorities").await["issuing"]["authority_id"].clone();
        assert_ne!(issuing(one.admin()).await, issuing(other.admin()).await);
        secrets
            .delete("signet-ca-state", &DeleteParams::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_edit_of_the_secret_is_followed_and_published_without_a_restart() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "followed", None).await);
    let ca = installed.ca().start().await;
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "followed");
    let stored = secrets.get("signet-ca-state").await.unwrap().data.unwrap();
    let mut document: Value = serde_json::from_slice(&stored["state.json"].0).unwrap();
    let second = root(&installed.trust_domain()).certificate().to_pem();
    document["roots"]
        .as_array_mut()
        .unwrap()
        .push(json!({"certificate": second, "key": null}));
    document["sequence"] = json!(2);
    let edit = json!({"stringData": {"state.json": document.to_string()}});
    secrets
        .patch("signet-ca-state", &PatchParams::default(), &Patch::Merge(edit))
        .await
        .unwrap();
    until("the second root to be served", SOON, async || {
        let bundle = ca.admin().get("/v1/bundle").await;
        bundle["sequence"] == 2 && bundle["pem"].as_str().unwrap().contains(second.trim())
    })
    .await;
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    until("the second root to be published", SOON, async || {
        let map = maps.get_opt(&installed.roots()).await.unwrap();
        map.is_some_and(|map| map.data.unwrap()["root-cert.pem"].contains(second.trim()))
    })
    .await;
    // What is no state leaves everything as it is.
    let edit = json!({"stringData": {"state.json": "{}"}});
    secrets
        .patch("signet-ca-state", &PatchParams::default(), &Patch::Merge(edit))
        .await
        .unwrap();
    until("the fault in the log", SOON, async || {
        ca.process
            .output()
            .contains("the stored state cannot be used; what is in force stays")
    })
    .await;
    assert_eq!(ca.admin().get("/v1/bundle").await["sequence"], 2);
    let namespaces: Api<Namespace> = Api::all(admin);
    assert!(namespaces.get_opt("followed").await.unwrap().is_some());
}
