//! The roots as a ConfigMap in every namespace, so that pods can mount what they need to trust the CA.
//!
//! Only our own key is written; others in the same ConfigMap are kept. A ConfigMap that carries a higher
//! sequence was written by a replica that knows more, and is left alone (I5).

mod published;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::slots::{Slots, Snapshot};
use published::HIGHEST_SEQUENCE;
pub use published::{Published, PublishedError, already_published};

/// Key of the roots in the ConfigMap, as Istio's clients read it.
pub const DATA_KEY: &str = "root-cert.pem";
/// Marks our ConfigMaps, for finding them.
pub const LABEL: &str = "signet.io/roots";
/// Istio's own label for such ConfigMaps.
const ISTIO_LABEL: &str = "istio.io/config";
/// Which bundle is in it.
pub const SEQUENCE: &str = "signet.io/bundle-sequence";
/// Whose bundle is in it.
pub const TRUST_DOMAIN: &str = "signet.io/trust-domain";
/// Namespaces that get none: nothing runs in them that could use it.
const LEFT_OUT: &[&str] = &["kube-public", "kube-node-lease", "local-path-storage"];
/// Events that come together are answered together.
const SETTLE: Duration = Duration::from_millis(50);
/// Everything is looked at again this often, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(300);
/// Wait after a round in which something failed.
const RETRY: Duration = Duration::from_secs(2);
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// ConfigMaps written at once: one slow answer does not hold up every new namespace.
const AT_ONCE: usize = 16;

/// The sequence a ConfigMap is annotated with.
fn sequence(map: &ConfigMap) -> Option<u64> {
    annotation(map, SEQUENCE)?.parse().ok()
}

/// The trust domain a ConfigMap is annotated with.
fn trust_domain(map: &ConfigMap) -> Option<&str> {
    annotation(map, TRUST_DOMAIN)
}

fn annotation<'a>(map: &'a ConfigMap, key: &str) -> Option<&'a str> {
    let annotations = map.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Publishes until dropped.
pub struct Publisher {
    client: kube::Client,
    names: Vec<String>,
    metrics: Metrics,
}

/// What the watches know. The two stores are written by the watch tasks alone.
struct Known {
    namespaces: kube::runtime::reflector::Store<Namespace>,
    maps: Vec<kube::runtime::reflector::Store<ConfigMap>>,
}

impl Publisher {
    /// Publishes as ConfigMaps of these names.
    #[must_use]
    pub fn new(client: kube::Client, names: &[String], metrics: Metrics) -> Self {
        Self {
            client,
            names: names.to_vec(),
            metrics,
        }
    }

    /// Follows namespaces, ConfigMaps and the bundle, and writes what differs.
    pub async fn run(self, slots: Slots) {
        let dirty = Arc::new(Notify::new());
        let (namespaces, writer) = kube::runtime::reflector::store();
        let watch = watcher(
            Api::<Namespace>::all(self.client.clone()),
            watcher::Config::default(),
        );
        let mut watches = vec![futures::FutureExt::boxed(drive(
            watch.default_backoff().reflect(writer).boxed(),
            Arc::clone(&dirty),
        ))];
        let mut maps = Vec::new();
        for name in &self.names {
            let (store, writer) = kube::runtime::reflector::store();
            let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let watch = watcher(Api::<ConfigMap>::all(self.client.clone()), only);
            watches.push(futures::FutureExt::boxed(drive(
                watch.default_backoff().reflect(writer).boxed(),
                Arc::clone(&dirty),
            )));
            maps.push(store);
        }
        let known = Known { namespaces, maps };
        let write = self.write_rounds(slots, known, dirty);
        tokio::join!(futures::future::join_all(watches), write);
    }

    async fn write_rounds(self, slots: Slots, known: Known, dirty: Arc<Notify>) {
        let mut bundle = slots.subscribe();
        if known.namespaces.wait_until_ready().await.is_err() {
            return;
        }
        for map in &known.maps {
            if map.wait_until_ready().await.is_err() {
                return;
            }
        }
        loop {
            let snapshot = Arc::clone(&bundle.borrow_and_update());
            let failed = self.round(&snapshot, &known).await;
            let pause = if failed == 0 { RESYNC } else { RETRY };
            tokio::select! {
                () = dirty.notified() => tokio::time::sleep(SETTLE).await,
                changed = bundle.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Writes every ConfigMap that differs; answers how many failed.
    async fn round(&self, snapshot: &Snapshot, known: &Known) -> usize {
        let pem = snapshot.bundle.to_pem();
        let mut needed = Vec::new();
        let namespaces: HashSet<String> = known
            .namespaces
            .state()
            .iter()
            .filter(|ns| ns.metadata.deletion_timestamp.is_none())
            .filter_map(|ns| ns.metadata.name.clone())
            .filter(|name| !LEFT_OUT.contains(&name.as_str()))
            .collect();
        for (name, store) in self.names.iter().zip(&known.maps) {
            let there: BTreeMap<String, Arc<ConfigMap>> = store
                .state()
                .into_iter()
                .filter_map(|map| map.metadata.namespace.clone().map(|ns| (ns, map)))
                .collect();
            for namespace in &namespaces {
                let found = there.get(namespace);
                let need = need(found.map(Arc::as_ref), snapshot, &pem);
                let version = found.and_then(|map| map.metadata.resource_version.clone());
                if need != Need::Nothing {
                    needed.push((need, namespace, name, version));
                }
            }
        }
        // Pods wait for those that are missing.
        needed.sort_by_key(|(need, ..)| *need != Need::Create);
        let mut writes: Vec<BoxFuture<'_, &'static str>> = Vec::with_capacity(needed.len());
        for (need, namespace, name, version) in needed {
            writes.push(Box::pin(self.write(
                need,
                (namespace, name),
                version,
                snapshot,
                &pem,
            )));
        }
        let mut outcomes = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
        let mut failed = 0;
        while let Some(outcome) = outcomes.next().await {
            failed += usize::from(outcome == "failed");
        }
        failed
    }

    /// Writes one, or leaves it alone, and counts what came of it.
    async fn write(
        &self,
        need: Need,
        (namespace, name): (&str, &str),
        version: Option<String>,
        snapshot: &Snapshot,
        pem: &str,
    ) -> &'static str {
        let version = version.as_deref();
        let outcome = match need {
            Need::Nothing => return "unchanged",
            Need::Newer => {
                tracing::warn!(%namespace, name, "configmap carries a higher sequence than ours; left alone");
                "newer_kept"
            }
            Need::Create => self.create(namespace, name, snapshot, pem).await,
            Need::Update => self.update(namespace, name, version, snapshot, pem).await,
        };
        Metrics::count(&self.metrics.publishes, outcome);
        outcome
    }

    async fn create(&self, namespace: &str, name: &str, snapshot: &Snapshot, pem: &str) -> &'static str {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                labels: Some(labels(name)),
                annotations: Some(annotations(snapshot)),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(DATA_KEY.into(), pem.into())])),
            ..ConfigMap::default()
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        self.outcome(namespace, name, "created", api.create(&params, &map))
            .await
    }

    /// A merge patch touches only what is ours, and only the `version` that was judged: what another
    /// replica wrote since then may know more.
    async fn update(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
        snapshot: &Snapshot,
        pem: &str,
    ) -> &'static str {
        let patch = patch(name, version, snapshot, pem);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.outcome(namespace, name, "updated", api.patch(name, &params, &patch))
            .await
    }

    async fn outcome(
        &self,
        namespace: &str,
        name: &str,
        done: &'static str,
        call: impl Future<Output = Result<ConfigMap, kube::Error>>,
    ) -> &'static str {
        match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(Ok(_)) => done,
            // Another replica was faster, or the namespace is going away.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => "raced",
            Ok(Err(kube::Error::Api(status))) if status.message.contains("being terminated") => "raced",
            Ok(Err(error)) => {
                tracing::warn!(%namespace, name, %error, "roots not published");
                "failed"
            }
            Err(_) => {
                tracing::warn!(%namespace, name, "roots not published: the API server did not answer in time");
                "failed"
            }
        }
    }
}

fn patch(name: &str, version: Option<&str>, snapshot: &Snapshot, pem: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": {
            "labels": labels(name),
            "annotations": annotations(snapshot),
            "resourceVersion": version,
        },
        "data": { DATA_KEY: pem },
    })
}

/// What one ConfigMap needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Create,
    Update,
    Newer,
}

fn need(found: Option<&ConfigMap>, snapshot: &Snapshot, pem: &str) -> Need {
    let Some(map) = found else { return Need::Create };
    let ours = trust_domain(map).is_none_or(|of| of == snapshot.bundle.trust_domain().as_str());
    let sequence = sequence(map);
    let newer = |sequence| sequence > snapshot.bundle.sequence() && sequence <= HIGHEST_SEQUENCE;
    if ours && sequence.is_some_and(newer) {
        return Need::Newer;
    }
    let same_pem = map
        .data
        .as_ref()
        .and_then(|data| data.get(DATA_KEY))
        .is_some_and(|found| found == pem);
    let labelled = map
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(LABEL));
    if same_pem && labelled && ours && sequence == Some(snapshot.bundle.sequence()) {
        Need::Nothing
    } else {
        Need::Update
    }
}

fn labels(name: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([(LABEL.into(), "true".into())]);
    if name.starts_with("istio") {
        labels.insert(ISTIO_LABEL.into(), "true".into());
    }
    labels
}

fn annotations(snapshot: &Snapshot) -> BTreeMap<String, String> {
    BTreeMap::from([
        (SEQUENCE.into(), snapshot.bundle.sequence().to_string()),
        (TRUST_DOMAIN.into(), snapshot.bundle.trust_domain().to_string()),
    ])
}

/// Runs one watch, telling of every event. Errors are logged; the watch resumes by itself.
async fn drive<K: Send>(
    mut events: futures::stream::BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>,
    dirty: Arc<Notify>,
) {
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => dirty.notify_one(),
            Err(error) => tracing::warn!(%error, "watch broke; resuming"),
        }
    }
}

#[cfg(test)]
mod tests;
