//! What Kubernetes knows of an object, as far as policy depends on it.

use std::fmt;

use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Excerpt};

/// Istio's annotation: the policy is evaluated and decides nothing.
const DRY_RUN: &str = "istio.io/dry-run";

/// Every field of `metadata`: a misspelt `namespace` must not move a policy elsewhere.
pub(crate) const FIELDS: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "clusterName",
];

/// The kinds of `security.istio.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `AuthorizationPolicy`.
    AuthorizationPolicy,
    /// `PeerAuthentication`.
    PeerAuthentication,
    /// `RequestAuthentication`.
    RequestAuthentication,
}

impl Kind {
    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::AuthorizationPolicy,
            Self::PeerAuthentication,
            Self::RequestAuthentication,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }

    /// Its name in a document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of an object among all objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Name, namespace, age and the dry-run annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// When it was made, as Kubernetes writes it (`2026-01-31T12:00:00Z`), which sorts by age.
    pub created: Option<String>,
    /// Evaluated without deciding.
    pub dry_run: bool,
}

impl Meta {
    /// Reads `metadata`. Without a namespace the object lies in `default_namespace`, if there is one.
    pub(crate) fn read(
        document: &Object<'_>,
        default_namespace: Option<&str>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let meta = document.require("metadata", faults)?.object(FIELDS, faults)?;
        let name = meta.require("name", faults)?.parse(faults, kubernetes_name);
        let namespace = match (meta.get("namespace"), default_namespace) {
            (None, Some(namespace)) => Some(namespace.to_owned()),
            _ => meta.require("namespace", faults)?.parse(faults, kubernetes_name),
        };
        let created = match meta.get("creationTimestamp") {
            Some(time) if !is_null(&time) => Some(time.parse(faults, timestamp)?),
            _ => None,
        };
        let dry_run = match meta.get("annotations") {
            Some(annotations) if !is_null(&annotations) => dry_run(&annotations, faults)?,
            _ => false,
        };
        Some(Self {
            namespace: namespace?,
            name: name?,
            created,
            dry_run,
        })
    }
}

fn is_null(at: &Cursor<'_>) -> bool {
    at.node().value == crate::node::Tree::Null
}

pub(crate) fn dry_run(annotations: &Cursor<'_>, faults: &mut Faults) -> Option<bool> {
    let entries = annotations.entries(faults)?;
    match entries.iter().find(|(name, _)| *name == DRY_RUN) {
        None => Some(false),
        Some((_, value)) => value.parse(faults, |text| match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err(BadValue::Bool(Excerpt::of(text))),
        }),
    }
}

/// RFC 1123: what names of these objects and of namespaces are made of.
pub(crate) fn kubernetes_name(text: &str) -> Result<String, BadValue> {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let sound = text.len() <= 253
        && text.bytes().all(inner)
        && edge(text.bytes().next())
        && edge(text.bytes().last());
    if sound {
        Ok(text.to_owned())
    } else {
        Err(BadValue::Name(Excerpt::of(text)))
    }
}

/// A time in the one form that Kubernetes writes, so that text order is time order.
fn timestamp(text: &str) -> Result<String, BadValue> {
    let form = b"0000-00-00T00:00:00Z";
    let fits = |(byte, form): (u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    if text.len() == form.len() && text.bytes().zip(form).all(fits) {
        Ok(text.to_owned())
    } else {
        Err(BadValue::Time(Excerpt::of(text)))
    }
}
