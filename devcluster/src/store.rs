//! Every object of the cluster, its one resource version counter, and the recent past that watches read from.
//!
//! The store knows kinds only as keys. What a verb means is decided in `verbs`, which runs inside [`Store::write`]
//! so that a read-modify-write is one step for everyone else.

mod history;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use crate::json;
use crate::kinds::Kind;
use crate::status::ApiError;
pub(crate) use history::{Change, History, Past};

/// Most objects kept at once; a runaway test hits this before the machine's memory.
const MAX_OBJECTS: usize = 250_000;

/// Most bytes of objects kept at once, counted as JSON.
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// Where an object lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    group: &'static str,
    plural: &'static str,
    namespace: String,
    name: String,
}

impl Key {
    /// The place of `name` in `namespace` (empty for kinds without namespaces).
    pub(crate) fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Key {
            group: kind.group,
            plural: kind.plural,
            namespace,
            name,
        }
    }

    fn is_of(&self, kind: &Kind) -> bool {
        self.group == kind.group && self.plural == kind.plural
    }
}

struct Stored {
    kind: &'static Kind,
    object: Arc<Value>,
    size: usize,
}

/// The state behind the lock.
pub(crate) struct State {
    objects: BTreeMap<Key, Stored>,
    bytes: usize,
    revision: u64,
    history: History,
}

impl State {
    /// The newest resource version handed out.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The object at `key`.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).map(|stored| Arc::clone(&stored.object))
    }

    /// All objects of a kind, of one namespace or of all, ordered by namespace and name.
    pub(crate) fn list<'a>(
        &'a self,
        kind: &'a Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Value>> {
        let first = Bound::Included(Key::new(kind, namespace.unwrap_or_default(), ""));
        self.list_from(kind, namespace, first)
    }

    /// As [`State::list`], from a place on.
    pub(crate) fn list_from<'a>(
        &'a self,
        kind: &'a Kind,
        namespace: Option<&'a str>,
        first: Bound<Key>,
    ) -> impl Iterator<Item = &'a Arc<Value>> {
        let inside = move |key: &Key| key.is_of(kind) && namespace.is_none_or(|ns| key.namespace == ns);
        self.objects
            .range((first, Bound::Unbounded))
            .take_while(move |(key, _)| inside(key))
            .map(|(_, stored)| &stored.object)
    }

    /// Stores `object` at `key` under a new resource version and returns it as stored.
    pub(crate) fn put(
        &mut self,
        kind: &'static Kind,
        key: Key,
        mut object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let revision = self.revision.saturating_add(1);
        json::set(
            &mut object,
            &["metadata", "resourceVersion"],
            revision.to_string(),
        );
        let size = object.to_string().len();
        let replaced = self.objects.get(&key).map_or(0, |stored| stored.size);
        let bytes = self.bytes.saturating_sub(replaced).saturating_add(size);
        if bytes > MAX_BYTES || (self.objects.len() >= MAX_OBJECTS && replaced == 0) {
            return Err(ApiError::internal("the in-memory cluster is full"));
        }
        let object = Arc::new(object);
        let stored = Stored {
            kind,
            object: Arc::clone(&object),
            size,
        };
        let namespace = key.namespace.clone();
        let before = self.objects.insert(key, stored).map(|stored| stored.object);
        self.bytes = bytes;
        self.revision = revision;
        let change = Change {
            revision,
            kind,
            namespace,
            before,
            after: Some(Arc::clone(&object)),
        };
        self.history.push(change, size);
        Ok(object)
    }

    /// Takes the object at `key` out and returns its last state under the resource version of the removal.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let stored = self.objects.remove(key)?;
        self.bytes = self.bytes.saturating_sub(stored.size);
        self.revision = self.revision.saturating_add(1);
        let revision = self.revision;
        let mut last = Value::clone(&stored.object);
        json::set(&mut last, &["metadata", "resourceVersion"], revision.to_string());
        let last = Arc::new(last);
        let namespace = key.namespace.clone();
        let before = Some(Arc::clone(&last));
        self.history.push(
            Change {
                revision,
                kind: stored.kind,
                namespace,
                before,
                after: None,
            },
            stored.size,
        );
        Some(last)
    }

    /// Takes every object of a namespace out.
    pub(crate) fn remove_namespaced(&mut self, namespace: &str) {
        let inside = self.objects.keys().filter(|key| key.namespace == namespace);
        let doomed: Vec<Key> = inside.cloned().collect();
        for key in doomed {
            self.remove(&key);
        }
    }

    /// What changed after `revision`, oldest first and at most a batch, unless that past is forgotten.
    pub(crate) fn since(&self, revision: u64) -> Past {
        self.history.since(revision)
    }
}

/// The objects behind one lock, and a signal for every new resource version.
pub(crate) struct Store {
    state: Mutex<State>,
    revisions: watch::Sender<u64>,
}

impl Store {
    /// An empty store that remembers `history` changes.
    pub(crate) fn new(history: usize) -> Self {
        let history = History::new(history);
        let state = State {
            objects: BTreeMap::new(),
            bytes: 0,
            revision: 1,
            history,
        };
        Store {
            state: Mutex::new(state),
            revisions: watch::Sender::new(1),
        }
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state in one step and wakes the watches when anything was written.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.revision;
        let outcome = change(&mut state);
        if state.revision != before {
            self.revisions.send_replace(state.revision);
        }
        outcome
    }

    /// Follows the resource version.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst one half-made change of a throw-away cluster.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn configmap(name: &str) -> (&'static Kind, Key, Value) {
        let kind = kinds::by_plural("", "configmaps").unwrap();
        (
            kind,
            Key::new(kind, "a", name),
            json!({"metadata": {"name": name, "namespace": "a"}}),
        )
    }

    #[test]
    fn every_change_has_its_own_resource_version() {
        let store = Store::new(8);
        let (kind, key, object) = configmap("x");
        let first = store.write(|state| state.put(kind, key.clone(), object)).unwrap();
        let removed = store.write(|state| state.remove(&key)).unwrap();
        assert_eq!(json::text(&first, "/metadata/resourceVersion"), Some("2"));
        assert_eq!(json::text(&removed, "/metadata/resourceVersion"), Some("3"));
        assert_eq!(*store.subscribe().borrow(), 3);
    }

    #[test]
    fn lists_stay_inside_kind_and_namespace() {
        let store = Store::new(8);
        for name in ["b", "a"] {
            let (kind, key, object) = configmap(name);
            store.write(|state| state.put(kind, key, object)).unwrap();
        }
        let secrets = kinds::by_plural("", "secrets").unwrap();
        store
            .write(|state| state.put(secrets, Key::new(secrets, "a", "s"), json!({})))
            .unwrap();
        let names = |namespace: Option<&str>| {
            let (kind, ..) = configmap("");
            let listed = |state: &State| {
                state
                    .list(kind, namespace)
                    .map(|o| json::name(o).to_owned())
                    .collect::<Vec<_>>()
            };
            store.read(listed)
        };
        assert_eq!(names(None), ["a", "b"]);
        assert_eq!(names(Some("a")), ["a", "b"]);
        assert!(names(Some("z")).is_empty());
    }
}
