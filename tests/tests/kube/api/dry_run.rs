//! The API server's own opinion of the manifests.

use http::{Request, StatusCode};
use kube::Resource as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use signet_tests::kube::api_server::shared;
use signet_tests::kube::install::kind_of;
use signet_tests::kube::manifests::{FOLDERS, Manifest, of};
use signet_tests::kube::skips::too_old;

/// Minor version with `unhealthyPodEvictionPolicy` in `policy/v1`.
const DISRUPTION: u32 = 27;
/// Minor version with sidecar containers.
const SIDECAR: u32 = 29;

fn needs(manifest: &Manifest) -> Option<u32> {
    let first = manifest.object.pointer("/spec/template/spec/initContainers");
    let mut first = first.and_then(Value::as_array).into_iter().flatten();
    match manifest.kind() {
        "PodDisruptionBudget" => Some(DISRUPTION),
        "Deployment" if first.any(|container| !container["restartPolicy"].is_null()) => Some(SIDECAR),
        _ => None,
    }
}

/// Shows the server every manifest that needs this version.
async fn accepted(needed: Option<u32>) {
    let Some(server) = shared().await else { return };
    let (client, minor) = (server.admin().await, server.minor_version().await);
    if let Some(needed) = needed.filter(|needed| minor < *needed) {
        return too_old(&format!("needs Kubernetes 1.{needed}, the server is 1.{minor}"));
    }
    let mut seen = 0;
    for manifest in FOLDERS
        .into_iter()
        .flat_map(of)
        .filter(|manifest| needs(manifest) == needed)
    {
        if let Some(namespace) = manifest.object["metadata"]["namespace"].as_str() {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            post(&client, &object, "").await.unwrap();
        }
        let strict = "?dryRun=All&fieldValidation=Strict";
        let answer = post(&client, &manifest.object, strict).await;
        answer.unwrap_or_else(|refused| panic!("{}: {refused}", manifest.file.display()));
        seen += 1;
    }
    assert!(seen > 0, "there is such a manifest");
}

#[tokio::test]
async fn the_api_server_accepts_every_manifest_in_a_strict_dry_run() {
    accepted(None).await;
}

#[tokio::test]
async fn the_api_server_accepts_the_disruption_budget() {
    accepted(Some(DISRUPTION)).await;
}

#[tokio::test]
async fn the_api_server_accepts_the_sidecars() {
    accepted(Some(SIDECAR)).await;
}

/// Creates an object, in a dry run or not; one that is there already was valid. Servers before 1.25 do
/// not know `fieldValidation` and ignore it; there the types alone check the fields.
async fn post(client: &kube::Client, object: &Value, query: &str) -> Result<(), String> {
    let namespace = object["metadata"]["namespace"].as_str();
    let path = DynamicObject::url_path(&kind_of(object), namespace);
    let request = Request::post(format!("{path}{query}"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
