//! Watches: from a version, from the beginning, through selectors, and how they end.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use signet_devcluster::{DevCluster, ObjectRef, Options, PodSpec};

use crate::support::{admin, cluster, cluster_with, configmaps, within};

fn put(cluster: &DevCluster, name: &str, value: &str) {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "billing"},
        "data": {"k": value},
    });
    cluster.put(object).unwrap();
}

fn delete(cluster: &DevCluster, name: &str) {
    cluster
        .delete(&ObjectRef::core("configmaps", "billing", name))
        .unwrap();
}

type Events<K> = Pin<Box<dyn Stream<Item = Result<WatchEvent<K>, kube::Error>> + Send>>;

async fn watch<K>(api: &Api<K>, params: &WatchParams, version: &str) -> Events<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    Box::pin(within(api.watch(params, version)).await.unwrap())
}

/// The next event, as its type and the name of its object.
async fn next<K: ResourceExt>(events: &mut Events<K>) -> String {
    match within(events.next()).await {
        Some(Ok(WatchEvent::Added(object))) => format!("added {}", object.name_any()),
        Some(Ok(WatchEvent::Modified(object))) => format!("modified {}", object.name_any()),
        Some(Ok(WatchEvent::Deleted(object))) => format!("deleted {}", object.name_any()),
        Some(Ok(WatchEvent::Bookmark(_))) => "bookmark".to_owned(),
        Some(Ok(WatchEvent::Error(status))) => format!("error {} {}", status.code, status.reason),
        Some(Err(error)) => panic!("{error}"),
        None => "end".to_owned(),
    }
}

#[tokio::test]
async fn a_watch_goes_on_from_the_version_it_names() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    put(&cluster, "old", "1");
    let version = within(maps.list(&ListParams::default()))
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    put(&cluster, "a", "1");
    let mut events = watch(&maps, &WatchParams::default(), &version).await;
    assert_eq!(next(&mut events).await, "added a");
    put(&cluster, "a", "2");
    assert_eq!(next(&mut events).await, "modified a");
    delete(&cluster, "old");
    assert_eq!(next(&mut events).await, "deleted old");
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_everything() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    put(&cluster, "a", "1");
    put(&cluster, "b", "1");
    let mut events = watch(&maps, &WatchParams::default(), "0").await;
    assert_eq!(
        [next(&mut events).await, next(&mut events).await],
        ["added a", "added b"]
    );
    put(&cluster, "c", "1");
    assert_eq!(next(&mut events).await, "added c");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selected_watch() {
    let cluster = cluster();
    cluster
        .create_pod(PodSpec::new("billing", "a").node("n1").phase("Pending"))
        .unwrap();
    let pods: Api<Pod> = Api::all(admin(&cluster).await);
    let running = WatchParams::default().fields("spec.nodeName=n1,status.phase=Running");
    let mut events = watch(&pods, &running, "0").await;
    cluster
        .create_pod(PodSpec::new("billing", "elsewhere").node("n2"))
        .unwrap();
    cluster.set_pod_phase("billing", "a", "Running").unwrap();
    assert_eq!(next(&mut events).await, "added a");
    cluster.set_pod_phase("billing", "a", "Failed").unwrap();
    assert_eq!(next(&mut events).await, "deleted a");
}

#[tokio::test]
async fn too_old_and_unheard_of_versions_are_expired() {
    let cluster = cluster_with(Options {
        history: 4,
        ..Options::default()
    });
    let maps = configmaps(&cluster).await;
    for value in 0..10 {
        put(&cluster, "a", &value.to_string());
    }
    for version in ["2", "999999"] {
        let mut events = watch(&maps, &WatchParams::default(), version).await;
        assert_eq!(next(&mut events).await, "error 410 Expired", "{version}");
        assert_eq!(next(&mut events).await, "end");
    }
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let mut events = watch(&maps, &WatchParams::default().timeout(1), "0").await;
    assert_eq!(next(&mut events).await, "bookmark");
    assert_eq!(next(&mut events).await, "end");
    let quiet = WatchParams::default().timeout(1).disable_bookmarks();
    let mut events = watch(&maps, &quiet, "0").await;
    assert_eq!(next(&mut events).await, "end");
}

#[tokio::test]
async fn all_watches_can_be_broken_at_once() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let mut one = watch(&maps, &WatchParams::default(), "0").await;
    let mut two = watch(&maps, &WatchParams::default(), "0").await;
    cluster.break_watches();
    assert_eq!([next(&mut one).await, next(&mut two).await], ["end", "end"]);
    let mut three = watch(&maps, &WatchParams::default(), "0").await;
    put(&cluster, "a", "1");
    assert_eq!(next(&mut three).await, "added a");
}

#[tokio::test]
async fn streaming_lists_say_where_the_list_ends() {
    let cluster = cluster();
    put(&cluster, "a", "1");
    let config = watcher::Config::default().streaming_lists();
    let mut events = Box::pin(watcher(configmaps(&cluster).await, config));
    let mut seen = Vec::new();
    while seen.last() != Some(&"init done") {
        seen.push(match within(events.try_next()).await.unwrap().unwrap() {
            Event::Init => "init",
            Event::InitApply(_) => "init apply",
            Event::InitDone => "init done",
            Event::Apply(_) | Event::Delete(_) => "change",
        });
    }
    assert_eq!(seen, ["init", "init apply", "init done"]);
}

#[tokio::test]
async fn a_reflector_follows_through_broken_watches_and_forgotten_history() {
    let cluster = cluster_with(Options {
        history: 4,
        ..Options::default()
    });
    put(&cluster, "a", "1");
    let (store, mut follow) = follow(admin(&cluster).await).await;
    put(&cluster, "b", "1");
    until(&mut follow, || names(&store) == ["a", "b"]).await;
    cluster.break_watches();
    for value in 0..20 {
        put(&cluster, "b", &value.to_string());
    }
    delete(&cluster, "a");
    put(&cluster, "c", "1");
    until(&mut follow, || names(&store) == ["b", "c"]).await;
    cluster.shutdown().await;
}

type Follow = Pin<Box<dyn Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + Send>>;

async fn follow(client: Client) -> (reflector::Store<ConfigMap>, Follow) {
    let (store, writer) = reflector::store();
    let maps: Api<ConfigMap> = Api::namespaced(client, "billing");
    let events = watcher(maps, watcher::Config::default()).default_backoff();
    let mut follow: Follow = Box::pin(events.reflect(writer));
    until(&mut follow, || names(&store) == ["a"]).await;
    (store, follow)
}

async fn until(follow: &mut Follow, done: impl Fn() -> bool) {
    while !done() {
        // Errors are part of this: the watcher reports the end of history and starts over.
        let _ = within(follow.next()).await.unwrap();
    }
}

fn names(store: &reflector::Store<ConfigMap>) -> Vec<String> {
    let mut names: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
    names.sort();
    names
}
