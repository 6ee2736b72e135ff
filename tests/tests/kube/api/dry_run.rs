//! The API server's own opinion of the manifests.

use http::Request;
use kube::Resource as _;
use kube::api::DynamicObject;
use serde_json::Value;
use signet_tests::kube::api_server::shared;
use signet_tests::kube::install::{create, kind_of};
use signet_tests::kube::manifests::{FOLDERS, Manifest, of};
use signet_tests::kube::skips::too_old;

#[tokio::test]
async fn the_api_server_accepts_every_manifest_in_a_strict_dry_run() {
    let Some(server) = shared().await else { return };
    let (client, minor) = (server.admin().await, server.minor_version().await);
    for manifest in FOLDERS.into_iter().flat_map(of) {
        let file = manifest.file.display().to_string();
        if let Some(needed) = since(&manifest).filter(|needed| minor < *needed) {
            too_old(
                &file,
                &format!("needs Kubernetes 1.{needed}, the server is 1.{minor}"),
            );
            continue;
        }
        if let Err(refused) = dry_run(&client, &manifest.object).await {
            panic!("{file}: {refused}");
        }
        // What comes later lies in it.
        if manifest.kind() == "Namespace" {
            create(&client, &manifest.object).await;
        }
    }
}

/// The first minor version that knows what is in the manifest.
fn since(manifest: &Manifest) -> Option<u32> {
    let sidecar = manifest
        .object
        .pointer("/spec/template/spec/initContainers/0/restartPolicy");
    match manifest.kind() {
        "PodDisruptionBudget" => Some(27),
        "Deployment" if sidecar.is_some() => Some(29),
        _ => None,
    }
}

/// Servers before 1.25 do not know `fieldValidation` and ignore it; the types check the fields there.
async fn dry_run(client: &kube::Client, object: &Value) -> Result<(), String> {
    let kind = kind_of(object);
    let namespace = object["metadata"]["namespace"].as_str();
    let path = DynamicObject::url_path(&kind, namespace);
    let request = Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    client
        .request::<Value>(request)
        .await
        .map(drop)
        .map_err(|e| e.to_string())
}
