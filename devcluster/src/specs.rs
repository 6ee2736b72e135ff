//! What the in-process helpers take: descriptions of pods, tokens and objects.

use std::collections::BTreeMap;
use std::time::Duration;

/// A pod to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// Its namespace, which must exist.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The account it runs as, which must exist.
    pub service_account: String,
    /// The node it is bound to; the node object may be missing, as in Kubernetes.
    pub node: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `status.phase`.
    pub phase: String,
}

impl PodSpec {
    /// A running pod of the `default` account, on no node.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        PodSpec {
            namespace: namespace.into(),
            name: name.into(),
            service_account: "default".to_owned(),
            node: None,
            labels: BTreeMap::new(),
            phase: "Running".to_owned(),
        }
    }

    /// Sets the account.
    #[must_use]
    pub fn service_account(mut self, name: impl Into<String>) -> Self {
        self.service_account = name.into();
        self
    }

    /// Sets the node.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets the phase.
    #[must_use]
    pub fn phase(mut self, phase: impl Into<String>) -> Self {
        self.phase = phase.into();
        self
    }
}

/// A token to mint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// Namespace of the account.
    pub namespace: String,
    /// The account the token speaks for.
    pub service_account: String,
    /// Audiences; none means the API server itself.
    pub audiences: Vec<String>,
    /// How long it is valid, in whole seconds. Unlike TokenRequest this may be short.
    pub lifetime: Duration,
    /// The pod it is bound to, which must run as the account.
    pub pod: Option<String>,
}

impl TokenSpec {
    /// An hour's token of the account for the API server itself, bound to nothing.
    pub fn new(namespace: impl Into<String>, service_account: impl Into<String>) -> Self {
        TokenSpec {
            namespace: namespace.into(),
            service_account: service_account.into(),
            audiences: Vec::new(),
            lifetime: Duration::from_secs(3600),
            pod: None,
        }
    }

    /// Adds an audience.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Sets the lifetime.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Binds the token to a pod.
    #[must_use]
    pub fn pod(mut self, name: impl Into<String>) -> Self {
        self.pod = Some(name.into());
        self
    }
}

/// Where an object is, for the raw helpers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name, such as `configmaps`.
    pub resource: String,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// An object of the core group; `namespace` is empty for nodes and namespaces.
    pub fn core(resource: &str, namespace: &str, name: &str) -> Self {
        ObjectRef::of("", resource, namespace, name)
    }

    /// An object of any group.
    pub fn of(group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        ObjectRef {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}
