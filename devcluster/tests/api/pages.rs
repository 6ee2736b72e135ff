//! Listings in pages, as large clusters are read.

use http::StatusCode;
use kube::api::{Api, ListParams};
use serde_json::json;
use signet_devcluster::{DevCluster, Fault, FaultScope, Options, PodSpec};

use crate::support::{admin, cluster, cluster_with, send, within};

fn pods(cluster: &DevCluster, names: std::ops::Range<usize>) {
    for n in names {
        let namespace = ["billing", "shop"][n % 2];
        let node = if n % 3 == 0 { "n1" } else { "n2" };
        let pod = PodSpec::new(namespace, format!("p{n:02}")).node(node);
        cluster.create_pod(pod).unwrap();
    }
}

#[tokio::test]
async fn pages_lead_to_each_other_and_together_are_the_whole_listing() {
    let cluster = cluster();
    pods(&cluster, 0..10);
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::all(admin(&cluster).await);
    for fields in ["", "spec.nodeName=n2"] {
        let whole = within(api.list(&ListParams::default().fields(fields)))
            .await
            .unwrap();
        let (mut params, mut found, mut pages) =
            (ListParams::default().fields(fields).limit(3), Vec::new(), 0);
        loop {
            let page = within(api.list(&params)).await.unwrap();
            assert_eq!(page.metadata.resource_version, whole.metadata.resource_version);
            found.extend(page.items);
            pages += 1;
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => break,
            }
        }
        assert_eq!(pages, whole.items.len().div_ceil(3), "{fields}");
        let uids = |pods: &[k8s_openapi::api::core::v1::Pod]| -> Vec<_> {
            pods.iter().map(|pod| pod.metadata.uid.clone()).collect()
        };
        assert_eq!(uids(&found), uids(&whole.items), "{fields}");
    }
}

#[tokio::test]
async fn a_page_goes_on_from_the_first_ones_version_until_that_is_forgotten() {
    let cluster = cluster_with(Options {
        history: 8,
        ..Options::default()
    });
    pods(&cluster, 0..4);
    let client = admin(&cluster).await;
    let (_, first) = send(&client, "GET", "/api/v1/pods?limit=3", "").await;
    let next = first["metadata"]["continue"].as_str().unwrap().to_owned();
    pods(&cluster, 4..6);
    let path = format!("/api/v1/pods?limit=9&continue={next}");
    let (_, second) = send(&client, "GET", &path, "").await;
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    pods(&cluster, 6..20);
    let (status, body) = send(&client, "GET", &path, "").await;
    assert_eq!((status, &body["reason"]), (StatusCode::GONE, &json!("Expired")));
    let (status, _) = send(&client, "GET", "/api/v1/pods?continue=nonsense", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn faults_of_watches_and_of_reading_pods_leave_the_rest_alone() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let status = async |path: &str| send(&client, "GET", path, "").await.0;
    cluster.set_fault(FaultScope::Pods, Fault::InternalError);
    assert_eq!(status("/api/v1/pods").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status("/api/v1/configmaps").await, StatusCode::OK);
    let watch = "/api/v1/pods?watch=true&timeoutSeconds=0";
    assert_eq!(status(watch).await, StatusCode::OK);
    cluster.clear_fault(FaultScope::Pods);
    cluster.set_fault(FaultScope::Watches, Fault::InternalError);
    assert_eq!(status("/api/v1/pods").await, StatusCode::OK);
    assert_eq!(status(watch).await, StatusCode::INTERNAL_SERVER_ERROR);
}
