//! What reading, creating and deleting mean, as steps on the locked state. Updates and patches are in `apply`.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::defaults;
use crate::json;
use crate::kinds::Kind;
use crate::query::Query;
use crate::random;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, FieldFault};
use crate::store::{Key, State};
use crate::time;
use crate::token::core_kind;

/// Which objects of a kind a list, a watch or a deletion of many is about.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    pub(crate) fn new(kind: &'static Kind, namespace: Option<&str>, query: &Query) -> Result<Self, ApiError> {
        let refuse = |fault: crate::selector::SelectorError| ApiError::bad_request(fault.to_string());
        let labels = LabelSelector::parse(&query.label_selector).map_err(refuse)?;
        let fields = FieldSelector::parse(&query.field_selector, kind).map_err(refuse)?;
        Ok(Filter {
            kind,
            namespace: namespace.map(str::to_owned),
            labels,
            fields,
        })
    }

    /// Whether the selectors match; the caller has matched kind and namespace.
    pub(crate) fn selects(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// The objects, in the order of namespace and name.
    pub(crate) fn list(&self, state: &State) -> Vec<Arc<Value>> {
        let objects = state.list(self.kind, self.namespace.as_deref());
        objects.filter(|object| self.selects(object)).cloned().collect()
    }
}

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status, where the kind has one.
    Main,
    /// Only the status.
    Status,
    /// Everything; only in-process helpers write so.
    All,
}

/// A write of one kind in one place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) kind: &'static Kind,
    pub(crate) version: &'a str,
    /// Empty for kinds without namespaces.
    pub(crate) namespace: &'a str,
    pub(crate) now: SystemTime,
    /// Everything is checked and answered, nothing is stored.
    pub(crate) dry_run: bool,
}

/// What must hold of an object for its deletion.
#[derive(Debug, Default)]
pub(crate) struct Preconditions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// How a deletion ended.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Value>),
    /// Finalizers hold it; it is marked.
    Held(Arc<Value>),
}

impl Deleted {
    /// The object in its last or its marked state.
    pub(crate) fn object(&self) -> &Arc<Value> {
        match self {
            Deleted::Gone(object) | Deleted::Held(object) => object,
        }
    }
}

impl Writer<'_> {
    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(self.kind, self.namespace, name)
    }

    /// Stores a new object under its name, or a generated one.
    pub(crate) fn create(
        &self,
        state: &mut State,
        mut object: Value,
        part: Part,
    ) -> Result<Arc<Value>, ApiError> {
        self.check_type(&mut object)?;
        self.check_place(&mut object)?;
        if json::text(&object, "/metadata/resourceVersion").is_some_and(|version| !version.is_empty()) {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let name = self.choose_name(&mut object)?;
        defaults::check_name(self.kind, &name)?;
        let namespaces = core_kind("namespaces")?;
        if self.kind.namespaced && state.get(&Key::new(namespaces, "", self.namespace)).is_none() {
            return Err(ApiError::not_found(namespaces, self.namespace));
        }
        let key = self.key(&name);
        if state.get(&key).is_some() {
            return Err(ApiError::already_exists(self.kind, &name));
        }
        for field in ["deletionTimestamp", "managedFields", "selfLink"] {
            json::remove(&mut object, &["metadata", field]);
        }
        json::set(&mut object, &["metadata", "uid"], random::uid()?);
        json::set(
            &mut object,
            &["metadata", "creationTimestamp"],
            time::rfc3339(self.now),
        );
        defaults::complete(state, self.kind, &mut object, part == Part::All)?;
        let created = self.commit(state, key, object)?;
        if self.kind.kind == "Namespace" && !self.dry_run {
            create_default_account(state, &name, self.now)?;
        }
        Ok(created)
    }

    /// Deletes one object; of a namespace, everything in it first.
    pub(crate) fn delete(
        &self,
        state: &mut State,
        name: &str,
        preconditions: &Preconditions,
    ) -> Result<Deleted, ApiError> {
        let key = self.key(name);
        let current = state
            .get(&key)
            .ok_or_else(|| ApiError::not_found(self.kind, name))?;
        self.check_preconditions(&current, preconditions)?;
        let finalizers = current.pointer("/metadata/finalizers").and_then(Value::as_array);
        if finalizers.is_some_and(|list| !list.is_empty()) {
            if current.pointer("/metadata/deletionTimestamp").is_some() {
                return Ok(Deleted::Held(current));
            }
            let mut marked = Value::clone(&current);
            json::set(
                &mut marked,
                &["metadata", "deletionTimestamp"],
                time::rfc3339(self.now),
            );
            return self.commit(state, key, marked).map(Deleted::Held);
        }
        if self.dry_run {
            return Ok(Deleted::Gone(current));
        }
        Ok(Deleted::Gone(self.remove(state, &key, name).unwrap_or(current)))
    }

    /// Takes an object out for good.
    pub(crate) fn remove(&self, state: &mut State, key: &Key, name: &str) -> Option<Arc<Value>> {
        if self.kind.kind == "Namespace" {
            state.remove_namespaced(name);
        }
        state.remove(key)
    }

    /// Stores the object in the version it is kept in, unless this is a rehearsal.
    pub(crate) fn commit(
        &self,
        state: &mut State,
        key: Key,
        mut object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        json::set(
            &mut object,
            &["apiVersion"],
            self.kind.api_version(self.kind.preferred_version()),
        );
        json::set(&mut object, &["kind"], self.kind.kind);
        if self.dry_run {
            Ok(Arc::new(object))
        } else {
            state.put(self.kind, key, object)
        }
    }

    /// The object must say it is what the path says; saying nothing is agreeing.
    pub(crate) fn check_type(&self, object: &mut Value) -> Result<(), ApiError> {
        if !object.is_object() {
            return Err(ApiError::bad_request("the body is not an object"));
        }
        let expected = self.kind.api_version(self.version);
        let version = json::text(object, "/apiVersion").unwrap_or(&expected);
        if version != expected {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({expected})"
            )));
        }
        let expected = self.kind.kind;
        let kind = json::text(object, "/kind").unwrap_or(expected);
        if kind != expected {
            return Err(ApiError::bad_request(format!(
                "the kind in the data ({kind}) does not match the expected kind ({expected})"
            )));
        }
        Ok(())
    }

    /// The namespace of the object must be the one on the path; where it is absent it is filled in.
    pub(crate) fn check_place(&self, object: &mut Value) -> Result<(), ApiError> {
        let namespace = json::text(object, "/metadata/namespace").unwrap_or_default();
        if !namespace.is_empty() && namespace != self.namespace {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request: {namespace} != {}",
                self.namespace
            )));
        }
        if self.kind.namespaced {
            json::set(object, &["metadata", "namespace"], self.namespace);
        }
        Ok(())
    }

    fn choose_name(&self, object: &mut Value) -> Result<String, ApiError> {
        if let Some(name) = json::text(object, "/metadata/name").filter(|name| !name.is_empty()) {
            return Ok(name.to_owned());
        }
        let prefix = json::text(object, "/metadata/generateName")
            .unwrap_or_default()
            .to_owned();
        if prefix.is_empty() {
            let why = "name or generateName is required";
            let fault = FieldFault {
                reason: "FieldValueRequired",
                field: "metadata.name",
                value: None,
                why,
            };
            return Err(ApiError::invalid(self.kind.kind, self.kind.group, "", &fault));
        }
        let name = format!("{prefix}{}", random::name_suffix()?);
        json::set(object, &["metadata", "name"], name.as_str());
        Ok(name)
    }

    fn check_preconditions(&self, current: &Value, wanted: &Preconditions) -> Result<(), ApiError> {
        let name = json::name(current);
        let uid = json::uid(current);
        if let Some(asked) = wanted.uid.as_deref().filter(|asked| *asked != uid) {
            let why = format!(
                "the UID in the precondition ({asked}) does not match the UID in record ({uid}). \
                 The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(self.kind, name, &why));
        }
        let version = json::text(current, "/metadata/resourceVersion").unwrap_or_default();
        if let Some(asked) = wanted
            .resource_version
            .as_deref()
            .filter(|asked| *asked != version)
        {
            let why = format!(
                "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
                 ({version}). The object might have been modified"
            );
            return Err(ApiError::conflict(self.kind, name, &why));
        }
        Ok(())
    }
}

fn create_default_account(state: &mut State, namespace: &str, now: SystemTime) -> Result<(), ApiError> {
    let writer = Writer {
        kind: core_kind("serviceaccounts")?,
        version: "v1",
        namespace,
        now,
        dry_run: false,
    };
    writer.create(state, json!({"metadata": {"name": "default"}}), Part::Main)?;
    Ok(())
}

/// An object as one of the versions its kind is served in.
pub(crate) fn present(object: &Value, kind: &Kind, version: &str) -> Value {
    let mut object = object.clone();
    json::set(&mut object, &["apiVersion"], kind.api_version(version));
    object
}
