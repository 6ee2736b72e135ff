//! An object of the API server, cut down to what travels. Pure.
//!
//! What Kubernetes notes about an object changes often and decides nothing; of the annotations only the dry run
//! does. Everything else stays, so that an unknown field is still a fault.

use bytes::Bytes;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};
use signet_policy::document::Reading;
use signet_policy::model::{Kind, ObjectKey};
use signet_policy::read_object;

/// Istio's annotation: the policy is evaluated and decides nothing.
const DRY_RUN: &str = "istio.io/dry-run";
/// What objects of the API server are said to come from.
pub const ORIGIN: &str = "kubernetes";
/// API group of the kinds.
pub const GROUP: &str = "security.istio.io";

/// An object as it was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its name, by the API server's word.
    pub key: ObjectKey,
    /// Its uid, which no later object of its name has.
    pub uid: String,
    /// What travels of it.
    pub json: Bytes,
    /// What it says.
    pub reading: Reading,
}

/// The object of `kind`, of a served `version`. Nothing for one without name or namespace, which the API server
/// does not have.
#[must_use]
pub fn told(kind: Kind, version: &str, object: DynamicObject) -> Option<Told> {
    let key = key(kind, &object)?;
    let DynamicObject { metadata, data, .. } = object;
    let mut meta = Map::new();
    meta.insert("namespace".to_owned(), json!(key.namespace));
    meta.insert("name".to_owned(), json!(key.name));
    if let Some(created) = &metadata.creation_timestamp {
        meta.insert("creationTimestamp".to_owned(), json!(created));
    }
    if let Some(dry_run) = metadata.annotations.as_ref().and_then(|all| all.get(DRY_RUN)) {
        meta.insert("annotations".to_owned(), json!({DRY_RUN: dry_run}));
    }
    let mut rest = match data {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    rest.remove("status");
    rest.insert("apiVersion".to_owned(), json!(format!("{GROUP}/{version}")));
    rest.insert("kind".to_owned(), json!(kind.as_str()));
    rest.insert("metadata".to_owned(), Value::Object(meta));
    let whole = Value::Object(rest);
    Some(Told {
        key,
        uid: metadata.uid.unwrap_or_default(),
        json: Bytes::from(whole.to_string()),
        reading: read_object(ORIGIN, &whole),
    })
}

/// Its name.
#[must_use]
pub fn key(kind: Kind, object: &DynamicObject) -> Option<ObjectKey> {
    Some(ObjectKey {
        kind,
        namespace: object.metadata.namespace.clone()?,
        name: object.metadata.name.clone()?,
    })
}

#[cfg(test)]
mod tests {
    use signet_policy::document::Content;

    use super::*;

    fn object(more: &Value) -> DynamicObject {
        let mut object = json!({
            "apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
            "metadata": {
                "name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-31T12:00:00Z", "labels": {"a": "b"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", DRY_RUN: "true"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"mtls": {"mode": "STRICT"}}, "status": {"observedGeneration": "2"},
        });
        for (name, value) in more.as_object().unwrap() {
            object[name] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_kubernetes_notes_does_not_travel() {
        let told = told(Kind::PeerAuthentication, "v1beta1", object(&json!({}))).unwrap();
        let json: Value = serde_json::from_slice(&told.json).unwrap();
        assert_eq!(
            json,
            json!({
                "apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
                "metadata": {
                    "name": "p", "namespace": "shop", "creationTimestamp": "2026-01-31T12:00:00Z",
                    "annotations": {DRY_RUN: "true"},
                },
                "spec": {"mtls": {"mode": "STRICT"}},
            })
        );
        let Content::Sound(object) = told.reading.content else {
            panic!("it is sound")
        };
        assert!(object.meta().dry_run);
        assert_eq!((told.uid.as_str(), object.key()), ("u", told.key));
    }

    #[test]
    fn an_unknown_field_beside_the_spec_is_still_a_fault() {
        let misspelt = object(&json!({"sepc": {}}));
        let told = told(Kind::PeerAuthentication, "v1", misspelt).unwrap();
        assert!(matches!(told.reading.content, Content::Faulty(_)));
    }
}
