//! Working on the cluster from inside the process: what a test or `signet dev` would otherwise do over the wire.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::DevCluster;
use crate::json;
use crate::kinds::{self, Kind};
use crate::specs::{ObjectRef, PodSpec, TokenSpec};
use crate::status::ApiError;
use crate::token::{self, Order, PodBinding, core_kind};
use crate::verbs::{Part, Preconditions, Writer};

impl DevCluster {
    /// Creates a namespace with its `default` service account; returns its uid.
    pub fn create_namespace(&self, name: &str) -> Result<String, ApiError> {
        self.create_named(core_kind("namespaces")?, "", name)
    }

    /// Deletes a namespace and everything in it, at once.
    pub fn delete_namespace(&self, name: &str) -> Result<(), ApiError> {
        self.delete(&ObjectRef::core("namespaces", "", name))
    }

    /// Creates a service account; returns its uid.
    pub fn create_service_account(&self, namespace: &str, name: &str) -> Result<String, ApiError> {
        self.create_named(core_kind("serviceaccounts")?, namespace, name)
    }

    /// Deletes a service account.
    pub fn delete_service_account(&self, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.delete(&ObjectRef::core("serviceaccounts", namespace, name))
    }

    /// Creates a node; returns its uid.
    pub fn create_node(&self, name: &str) -> Result<String, ApiError> {
        self.create_named(core_kind("nodes")?, "", name)
    }

    /// Creates a pod; returns its uid.
    pub fn create_pod(&self, pod: PodSpec) -> Result<String, ApiError> {
        let PodSpec {
            namespace,
            name,
            service_account,
            node,
            labels,
            phase,
        } = pod;
        let mut object = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "serviceAccountName": service_account,
                "containers": [{"name": "main", "image": "none"}],
            },
            "status": {"phase": phase},
        });
        if let Some(node) = node {
            json::set(&mut object, &["spec", "nodeName"], node);
        }
        self.create(core_kind("pods")?, &namespace, object)
    }

    /// Deletes a pod, at once.
    pub fn delete_pod(&self, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.delete(&ObjectRef::core("pods", namespace, name))
    }

    /// Sets `status.phase` of a pod.
    pub fn set_pod_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<(), ApiError> {
        let writer = self.writer(core_kind("pods")?, namespace);
        self.shared.store.write(|state| {
            let current = state
                .get(&writer.key(name))
                .ok_or_else(|| ApiError::not_found(writer.kind, name))?;
            let mut pod = Value::clone(&current);
            json::set(&mut pod, &["status", "phase"], phase);
            writer.update(state, name, pod, Part::Status).map(drop)
        })
    }

    /// Mints a service-account token, as TokenRequest would, with any lifetime.
    pub fn mint_token(&self, spec: &TokenSpec) -> Result<String, ApiError> {
        let order = Order {
            namespace: spec.namespace.clone(),
            service_account: spec.service_account.clone(),
            audiences: spec.audiences.clone(),
            lifetime: spec.lifetime,
            pod: spec.pod.clone().map(|name| PodBinding { name, uid: None }),
        };
        token::mint(&self.shared, &order, self.shared.now())
    }

    /// The object as it is stored, if it is there.
    pub fn get(&self, object: &ObjectRef) -> Option<Value> {
        let writer = self.writer(find(object).ok()?, &object.namespace);
        let found = self
            .shared
            .store
            .read(|state| state.get(&writer.key(&object.name)));
        found.map(Arc::unwrap_or_clone)
    }

    /// Creates the object, or replaces it whole, status too. `apiVersion`, `kind` and `metadata` say what it is; a
    /// resource version in it must be the current one. Returns it as stored.
    pub fn put(&self, object: Value) -> Result<Value, ApiError> {
        let text = |pointer| json::text(&object, pointer).unwrap_or_default().to_owned();
        let api_version = text("/apiVersion");
        let kind = kinds::by_type(&api_version, &text("/kind")).ok_or_else(ApiError::not_served)?;
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let (_, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let writer = Writer {
            version,
            ..self.writer(kind, &namespace)
        };
        let stored = self
            .shared
            .store
            .write(|state| match state.get(&writer.key(&name)) {
                None => writer.create(state, object, Part::All),
                Some(current) => {
                    let mut object = object;
                    let pointer = "/metadata/resourceVersion";
                    if json::text(&object, pointer).is_none_or(str::is_empty) {
                        let version = json::text(&current, pointer).unwrap_or_default();
                        json::set(&mut object, &["metadata", "resourceVersion"], version);
                    }
                    writer.update(state, &name, object, Part::All)
                }
            })?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Deletes the object; finalizers hold it as they would over the wire.
    pub fn delete(&self, object: &ObjectRef) -> Result<(), ApiError> {
        let writer = self.writer(find(object)?, &object.namespace);
        let deleting = |state: &mut _| writer.delete(state, &object.name, &Preconditions::default());
        self.shared.store.write(deleting).map(drop)
    }

    fn create_named(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<String, ApiError> {
        self.create(kind, namespace, json!({"metadata": {"name": name}}))
    }

    fn create(&self, kind: &'static Kind, namespace: &str, object: Value) -> Result<String, ApiError> {
        let writer = self.writer(kind, namespace);
        let created = self
            .shared
            .store
            .write(|state| writer.create(state, object, Part::All))?;
        Ok(json::uid(&created).to_owned())
    }

    fn writer<'a>(&self, kind: &'static Kind, namespace: &'a str) -> Writer<'a> {
        let version = kind.preferred_version();
        Writer {
            kind,
            version,
            namespace,
            now: self.shared.now(),
            dry_run: false,
        }
    }
}

fn find(object: &ObjectRef) -> Result<&'static Kind, ApiError> {
    kinds::by_plural(&object.group, &object.resource).ok_or_else(ApiError::not_served)
}
