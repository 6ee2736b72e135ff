//! Limits, and the end.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::WatchParams;
use serde_json::json;
use signet_devcluster::{DevCluster, Options, StartError};

use crate::support::{admin, cluster, cluster_with, configmaps, refusal, send, send_typed, within};

#[tokio::test]
async fn large_bodies_are_refused() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(5 * 1024 * 1024)}}).to_string();
    let path = "/api/v1/namespaces/billing/configmaps";
    let (status, answer) = send(&client, "POST", path, &body).await;
    assert_eq!(
        (status.as_u16(), &answer["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let path = "/api/v1/namespaces/billing/configmaps";
    for (body, code) in [
        ("", 400),
        ("[]", 400),
        ("{", 400),
        (r#"{"kind":"Secret"}"#, 400),
        (r#"{"metadata":{"name":"UP"}}"#, 422),
        (r#"{"metadata":{"name":"a","namespace":"shop"}}"#, 400),
        (r#"{"metadata":{"name":"a","resourceVersion":"1"}}"#, 400),
        (r#"{"metadata":{"name":"a"},"data":{"k":1}}"#, 400),
    ] {
        let (status, answer) = send(&client, "POST", path, body).await;
        assert_eq!(status.as_u16(), code, "{body}: {answer}");
        assert_eq!(answer["kind"], "Status");
    }
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(send_typed(&client, "POST", path, protobuf, "k8s").await.0, 400);
    let pod = "k8s\0\n\u{9}\n\u{2}v1\u{12}\u{3}Pod";
    assert_eq!(send_typed(&client, "POST", path, protobuf, pod).await.0, 415);
    assert_eq!(
        send_typed(&client, "POST", path, "application/yaml", "a: b")
            .await
            .0,
        415
    );
    assert_eq!(send(&client, "PUT", path, "{}").await.0, 405);
    assert_eq!(send(&client, "POST", "/api/v1/configmaps", "{}").await.0, 405);
}

#[tokio::test]
async fn watches_are_limited_in_number() {
    let cluster = cluster_with(Options {
        max_watches: 1,
        ..Options::default()
    });
    let maps: Api<ConfigMap> = configmaps(&cluster).await;
    let first = within(maps.watch(&WatchParams::default(), "0")).await.unwrap();
    let second = within(maps.watch(&WatchParams::default(), "0")).await.map(drop);
    assert_eq!(refusal(second).code, 429);
    cluster.break_watches();
    let mut first = Box::pin(first);
    assert!(within(first.next()).await.is_none());
}

#[tokio::test]
async fn shutdown_ends_watches_and_frees_the_port() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = configmaps(&cluster).await;
    let mut events = Box::pin(within(maps.watch(&WatchParams::default(), "0")).await.unwrap());
    within(cluster.shutdown()).await;
    // The connection goes away under the stream, which is an error or an end, and nothing after it.
    while let Some(Ok(_)) = within(events.next()).await {}
    let listen = cluster.address();
    let next = DevCluster::start(Options {
        listen,
        ..Options::default()
    })
    .unwrap();
    assert_eq!(next.url(), format!("https://{listen}"));
    let taken = DevCluster::start(Options {
        listen,
        ..Options::default()
    });
    assert!(matches!(taken, Err(StartError::Listen { .. })));
}

#[test]
fn a_cluster_needs_a_runtime() {
    assert!(matches!(
        DevCluster::start(Options::default()),
        Err(StartError::NoRuntime)
    ));
}

#[tokio::test]
async fn secrets_stay_out_of_debug_output() {
    let cluster = cluster();
    assert!(!format!("{cluster:?}").contains(cluster.admin_token()));
}
