//! State in a Kubernetes Secret that all replicas share: created or adopted, written only over the
//! resourceVersion that was read, watched.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::watcher;
use signet_certs::TrustDomain;
use tokio::sync::mpsc;

use super::{Seen, StoreError};
use crate::federation::stored::is_place;
use crate::state::{CaState, StateError};

/// Key of the document in the Secret's data.
const DATA_KEY: &str = "state.json";
/// Type of the Secret, so that it is not mistaken for one of another tool.
const SECRET_TYPE: &str = "signet.io/ca-state";
/// Every call to the API server ends after this.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Conflicting writers of foreign bundles give way to each other at most this often.
const CONFLICTS: usize = 5;
/// Most bytes of foreign bundles in the Secret: half of what a Secret holds (1 MiB).
const MAX_FOREIGN_BYTES: usize = 512 * 1024;

/// The foreign bundles in the Secret's data.
pub struct ForeignData(BTreeMap<String, ByteString>);

impl ForeignData {
    /// What lies at `place`.
    #[must_use]
    pub fn get(&self, place: &str) -> Option<&[u8]> {
        self.0.get(place).map(|bytes| bytes.0.as_slice())
    }

    /// With this one. Always true: it is to be written.
    pub fn set(&mut self, place: &str, json: &[u8]) -> bool {
        self.0.insert(place.to_owned(), ByteString(json.to_vec()));
        true
    }

    /// With none but these; says whether any went.
    pub fn keep(&mut self, kept: &[String]) -> bool {
        let before = self.0.len();
        self.0
            .retain(|key, _| !is_place(key) || kept.iter().any(|kept| kept == key));
        self.0.len() < before
    }

    /// Bytes of all foreign bundles.
    fn bytes(&self) -> usize {
        let foreign = self.0.iter().filter(|(key, _)| is_place(key));
        foreign.map(|(_, value)| value.0.len()).sum()
    }
}

/// One Secret.
#[derive(Clone)]
pub struct SecretStore {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretStore({})", self.place())
    }
}

impl SecretStore {
    /// The Secret `namespace/name`.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// `namespace/name`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// As [`super::Store::load`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn load(&self, domain: &TrustDomain) -> Result<Option<CaState>, StoreError> {
        match self.call(self.api.get_opt(&self.name)).await? {
            None => Ok(None),
            Some(secret) => self.read(&secret, domain).map(Some),
        }
    }

    /// As [`super::Store::create`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn create(&self, state: &CaState) -> Result<CaState, StoreError> {
        let secret = self.written(state, None);
        match self.call(self.api.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(state.clone()),
            Err(StoreError::Kube { fault, .. }) if is_conflict(&fault) => {
                let winner = self.load(state.bundle().trust_domain()).await?;
                winner.ok_or_else(|| StoreError::Conflict { place: self.place() })
            }
            Err(e) => Err(e),
        }
    }

    /// As [`super::Store::update`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn update(&self, from: &CaState, to: &CaState) -> Result<(), StoreError> {
        let conflict = || StoreError::Conflict { place: self.place() };
        let found = self
            .call(self.api.get_opt(&self.name))
            .await?
            .ok_or_else(conflict)?;
        if !self.read(&found, from.bundle().trust_domain())?.same(from) {
            return Err(conflict());
        }
        let mut secret = self.written(to, found.metadata.resource_version);
        // Foreign bundles share the Secret and are none of this writer's business.
        for (key, value) in found.data.unwrap_or_default() {
            if is_place(&key) {
                secret.data.get_or_insert_default().insert(key, value);
            }
        }
        self.replace(&secret).await
    }

    /// As [`super::Store::load_foreign`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn load_foreign(&self, place: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.call(self.api.get_opt(&self.name)).await?;
        let data = found.and_then(|secret| secret.data);
        Ok(data.and_then(|mut data| data.remove(place)).map(|bytes| bytes.0))
    }

    /// Changes the foreign bundles in the Secret, and nothing else in it, unless `change` says that there
    /// is nothing to write. Together they are bounded: our own state must always find room beside them.
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn change_foreign(
        &self,
        change: impl Fn(&mut ForeignData) -> bool,
    ) -> Result<bool, StoreError> {
        for _ in 0..CONFLICTS {
            let Some(mut secret) = self.call(self.api.get_opt(&self.name)).await? else {
                break;
            };
            let mut data = ForeignData(secret.data.unwrap_or_default());
            let before = data.bytes();
            if !change(&mut data) {
                return Ok(false);
            }
            let bytes = data.bytes();
            if bytes > MAX_FOREIGN_BYTES.max(before) {
                return Err(StoreError::ForeignTooLarge {
                    place: format!("secret {}", self.place()),
                    bytes,
                    most: MAX_FOREIGN_BYTES,
                });
            }
            secret.data = Some(data.0);
            match self.replace(&secret).await {
                Err(StoreError::Conflict { .. }) => {}
                done => return done.map(|()| true),
            }
        }
        Err(StoreError::Conflict { place: self.place() })
    }

    async fn replace(&self, secret: &Secret) -> Result<(), StoreError> {
        let params = PostParams::default();
        match self.call(self.api.replace(&self.name, &params, secret)).await {
            Ok(_) => Ok(()),
            Err(StoreError::Kube { fault, .. }) if is_conflict(&fault) => {
                Err(StoreError::Conflict { place: self.place() })
            }
            Err(e) => Err(e),
        }
    }

    /// As [`super::Store::follow`]. A broken watch is resumed with backoff by the library.
    pub async fn follow(&self, domain: TrustDomain, changes: mpsc::Sender<Seen>) {
        let only_ours = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let backoff = watcher::DefaultBackoff::default();
        let events = kube::runtime::WatchStreamExt::backoff(watcher(self.api.clone(), only_ours), backoff);
        let mut events = std::pin::pin!(events);
        let mut listed = false;
        while let Some(event) = events.next().await {
            let seen = match event {
                Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) => {
                    listed = true;
                    match self.read(&secret, &domain) {
                        Ok(state) => Seen::State(state),
                        Err(e) => Seen::Fault(e),
                    }
                }
                Ok(watcher::Event::Delete(_)) => Seen::Gone,
                Ok(watcher::Event::Init) => {
                    listed = false;
                    continue;
                }
                // Deleted while nobody watched: the list begun anew does not hold it.
                Ok(watcher::Event::InitDone) if !listed => Seen::Gone,
                Ok(watcher::Event::InitDone) => continue,
                Err(error) => {
                    tracing::warn!(%error, place = %self.place(), "watch of the state broke; resuming");
                    continue;
                }
            };
            if changes.send(seen).await.is_err() {
                return;
            }
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, StoreError> {
        let named = |fault| StoreError::Kube {
            place: self.place(),
            fault: Box::new(fault),
        };
        match tokio::time::timeout(CALL_DEADLINE, call).await {
            Ok(answer) => answer.map_err(named),
            Err(_) => Err(StoreError::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("secret {}: the API server did not answer in time", self.place()),
            ))),
        }
    }

    fn read(&self, secret: &Secret, domain: &TrustDomain) -> Result<CaState, StoreError> {
        let named = |fault| StoreError::State {
            place: format!("secret {}", self.place()),
            fault,
        };
        let data = secret.data.as_ref().and_then(|data| data.get(DATA_KEY));
        let data = data.ok_or_else(|| named(StateError::Damaged(format!("it has no key {DATA_KEY}"))))?;
        CaState::parse(&data.0, domain).map_err(named)
    }

    fn written(&self, state: &CaState, resource_version: Option<String>) -> Secret {
        let json = state.expose_json().to_vec();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version,
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".into(),
                    "signet".into(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.into()),
            data: Some(BTreeMap::from([(DATA_KEY.into(), ByteString(json))])),
            ..Secret::default()
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_bundles_count_against_their_bound() {
        let mut data = ForeignData(BTreeMap::from([(
            DATA_KEY.to_owned(),
            ByteString(vec![0; 4_000]),
        )]));
        assert!(data.set("federation.a.test.json", &[0; 10]) && data.set("federation.b.test.json", &[0; 5]));
        assert_eq!(data.bytes(), 15);
        assert!(data.keep(&["federation.b.test.json".to_owned()]));
        assert!(!data.keep(&["federation.b.test.json".to_owned()]));
        assert_eq!(
            (data.bytes(), data.get(DATA_KEY).map(<[u8]>::len)),
            (5, Some(4_000))
        );
    }
}
