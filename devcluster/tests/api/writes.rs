//! Changing what is there: updates, patches, apply, status, finalizers.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use signet_devcluster::{DevCluster, ObjectRef, PodSpec};

use crate::objects::configmap;
use crate::support::{admin, cluster, configmaps, refusal, send, send_typed, within};

#[tokio::test]
async fn updates_from_an_old_read_conflict() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let first = within(maps.create(&PostParams::default(), &configmap("a", "1")))
        .await
        .unwrap();
    let mut second = first.clone();
    second.data = configmap("a", "2").data;
    let second = within(maps.replace("a", &PostParams::default(), &second))
        .await
        .unwrap();
    assert_ne!(second.resource_version(), first.resource_version());
    assert_eq!(second.uid(), first.uid());
    let mut late = first.clone();
    late.data = None;
    let status = refusal(within(maps.replace("a", &PostParams::default(), &late)).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let same = within(maps.replace("a", &PostParams::default(), &second))
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        second.resource_version(),
        "a write that changes nothing is none"
    );
    within(maps.replace("a", &PostParams::default(), &configmap("a", "3")))
        .await
        .unwrap();
    put_under_another_name(&cluster).await;
}

async fn put_under_another_name(cluster: &DevCluster) {
    let client = admin(cluster).await;
    let path = "/api/v1/namespaces/billing/configmaps";
    send(&client, "POST", path, r#"{"metadata":{"name":"b"}}"#).await;
    let (status, answer) = send(
        &client,
        "PUT",
        &format!("{path}/b"),
        r#"{"metadata":{"name":"a"}}"#,
    )
    .await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn leases_are_not_overwritten_blindly() {
    let cluster = cluster();
    let leases: Api<Lease> = Api::namespaced(admin(&cluster).await, "billing");
    let mut lease = Lease::default();
    lease.metadata.name = Some("leader".to_owned());
    within(leases.create(&PostParams::default(), &lease))
        .await
        .unwrap();
    assert_eq!(
        refusal(within(leases.replace("leader", &PostParams::default(), &lease)).await).code,
        422
    );
}

#[tokio::test]
async fn patches_of_every_kind_are_laid_over() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    within(maps.create(&PostParams::default(), &configmap("a", "1")))
        .await
        .unwrap();
    let plain = PatchParams::default();
    let merge = json!({"data": {"key": null, "other": "2"}, "metadata": {"labels": {"app": "x"}}});
    let merged = within(maps.patch("a", &plain, &Patch::Merge(&merge)))
        .await
        .unwrap();
    assert_eq!(
        merged.data,
        Some(BTreeMap::from([("other".to_owned(), "2".to_owned())]))
    );
    assert_eq!(merged.labels()["app"], "x");
    let strategic = json!({"data": {"$retainKeys": ["third"], "third": "3"}});
    let laid = within(maps.patch("a", &plain, &Patch::Strategic(&strategic)))
        .await
        .unwrap();
    assert_eq!(laid.data.unwrap().len(), 2);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"key": "9"}});
    assert_eq!(
        refusal(within(maps.patch("a", &plain, &Patch::Merge(&stale))).await).code,
        409
    );
    let client = admin(&cluster).await;
    let path = "/api/v1/namespaces/billing/configmaps/a";
    let operations = r#"[{"op": "replace", "path": "/data/third", "value": "4"}]"#;
    let (status, text) = send_typed(&client, "PATCH", path, "application/json-patch+json", operations).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        cluster
            .get(&ObjectRef::core("configmaps", "billing", "a"))
            .unwrap()["data"]["third"],
        "4"
    );
}

#[tokio::test]
async fn server_side_apply_creates_and_merges() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let manager = PatchParams::apply("tests");
    let mut wanted = configmap("a", "1");
    let created = within(maps.patch("a", &manager, &Patch::Apply(&wanted)))
        .await
        .unwrap();
    wanted.data = Some(BTreeMap::from([("more".to_owned(), "2".to_owned())]));
    let merged = within(maps.patch("a", &manager, &Patch::Apply(&wanted)))
        .await
        .unwrap();
    assert_eq!(merged.uid(), created.uid());
    assert_eq!(merged.data.unwrap().len(), 2);
}

#[tokio::test]
async fn rehearsals_store_nothing() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let rehearsal = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    within(maps.create(&rehearsal, &configmap("a", "1")))
        .await
        .unwrap();
    assert_eq!(refusal(within(maps.get("a")).await).code, 404);
}

#[tokio::test]
async fn status_is_written_apart_from_the_rest() {
    let cluster = cluster();
    cluster
        .create_pod(PodSpec::new("billing", "a").phase("Pending"))
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(admin(&cluster).await, "billing");
    let change = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"x": "y"}}});
    let plain = PatchParams::default();
    let main = within(pods.patch("a", &plain, &Patch::Merge(&change)))
        .await
        .unwrap();
    assert_eq!(main.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
    assert_eq!(main.labels()["x"], "y");
    let status = within(pods.patch_status("a", &plain, &Patch::Merge(&change)))
        .await
        .unwrap();
    assert_eq!(status.status.unwrap().phase.as_deref(), Some("Running"));
    cluster.set_pod_phase("billing", "a", "Succeeded").unwrap();
    let read = within(pods.get("a")).await.unwrap();
    assert_eq!(read.status.unwrap().phase.as_deref(), Some("Succeeded"));
}

#[tokio::test]
async fn deletions_keep_to_their_preconditions_and_finalizers() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let mut map = configmap("a", "1");
    map.metadata.finalizers = Some(vec!["signet.test/hold".to_owned()]);
    within(maps.create(&PostParams::default(), &map)).await.unwrap();
    let other = Preconditions {
        uid: Some("another".to_owned()),
        resource_version: None,
    };
    let deleting = DeleteParams::default().preconditions(other);
    assert_eq!(refusal(within(maps.delete("a", &deleting)).await).code, 409);
    let held = within(maps.delete("a", &DeleteParams::default()))
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let release = json!({"metadata": {"finalizers": null}});
    within(maps.patch("a", &PatchParams::default(), &Patch::Merge(&release)))
        .await
        .unwrap();
    assert_eq!(refusal(within(maps.get("a")).await).code, 404);
}
