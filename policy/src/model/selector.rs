//! What a policy applies to: labels of workloads, or named objects.

use std::collections::BTreeMap;

use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Conflict, Excerpt};
use crate::model::meta::kubernetes_name;

/// Most references of one policy.
const MAX_TARGETS: usize = 16;

/// What a policy applies to within its namespace (the root namespace: within the mesh).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Every workload: no selector, or one without labels.
    Everything,
    /// Workloads that carry all of these labels. Not empty.
    Labels(BTreeMap<String, String>),
    /// The named objects only, and no workload of its own.
    Targets(Vec<TargetRef>),
}

/// What policies attach to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A `Gateway` of `gateway.networking.k8s.io`.
    Gateway,
    /// A `GatewayClass` of `gateway.networking.k8s.io`.
    GatewayClass,
    /// A `Service`.
    Service,
    /// A `ServiceEntry` of `networking.istio.io`.
    ServiceEntry,
}

/// A reference to an object of the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
}

impl Attachment {
    /// Reads `selector`, `targetRef` and `targetRefs` of a `spec`.
    pub(crate) fn read(spec: &Object<'_>, namespace: Option<&str>, faults: &mut Faults) -> Option<Self> {
        let targets = targets(spec, namespace, faults)?;
        let selector = match spec.get("selector") {
            Some(at) => Some(labels(&at, faults)?),
            None => None,
        };
        match (selector, targets) {
            (None, None) => Some(Self::Everything),
            (Some(labels), None) if labels.is_empty() => Some(Self::Everything),
            (Some(labels), None) => Some(Self::Labels(labels)),
            (None, Some(targets)) => Some(Self::Targets(targets)),
            (Some(_), Some(_)) => {
                spec.at().fault(faults, Conflict::SelectorAndTargets);
                None
            }
        }
    }
}

fn labels(selector: &Cursor<'_>, faults: &mut Faults) -> Option<BTreeMap<String, String>> {
    let selector = selector.object(&["matchLabels"], faults)?;
    let Some(labels) = selector.get("matchLabels") else {
        return selector.is_empty().then(BTreeMap::new);
    };
    let entries = labels.entries(faults)?;
    let count = entries.len();
    let mut read = BTreeMap::new();
    for (name, at) in entries {
        let value = label_value(&at, faults);
        if name.contains('*') {
            at.fault(faults, BadValue::LabelStar(Excerpt::of(name)));
        } else if name.is_empty() {
            at.fault(faults, BadValue::Name(Excerpt::of(name)));
        } else if let Some(value) = value {
            read.insert(name.to_owned(), value);
        }
    }
    (read.len() == count).then_some(read)
}

/// A label may be empty: that is a label like any other.
fn label_value(at: &Cursor<'_>, faults: &mut Faults) -> Option<String> {
    if at.node().text() == Some("") {
        return Some(String::new());
    }
    at.parse(faults, |text| {
        if text.contains('*') {
            Err(BadValue::LabelStar(Excerpt::of(text)))
        } else {
            Ok(text.to_owned())
        }
    })
}

/// The references, if the policy has any; nothing at the outer level if they are faulty.
#[expect(
    clippy::option_option,
    reason = "outside: could it be read; inside: are there any"
)]
fn targets(
    spec: &Object<'_>,
    namespace: Option<&str>,
    faults: &mut Faults,
) -> Option<Option<Vec<TargetRef>>> {
    match (spec.get("targetRef"), spec.get("targetRefs")) {
        (None, None) => Some(None),
        (Some(_), Some(both)) => {
            both.fault(faults, Conflict::TargetTwice);
            None
        }
        (Some(one), None) => Some(Some(vec![target(&one, namespace, faults)?])),
        (None, Some(list)) => {
            let items = list.filled_list(MAX_TARGETS, faults)?;
            let count = items.len();
            let read: Vec<_> = items
                .iter()
                .filter_map(|item| target(item, namespace, faults))
                .collect();
            (read.len() == count).then_some(Some(read))
        }
    }
}

fn target(at: &Cursor<'_>, own: Option<&str>, faults: &mut Faults) -> Option<TargetRef> {
    let object = at.object(&["group", "kind", "name", "namespace"], faults)?;
    // The core group is the empty text, so this is the one text that may be empty.
    let group = match object.get("group") {
        Some(group) if group.node().text() != Some("") => group.text(faults)?,
        _ => "",
    };
    let kind_at = object.require("kind", faults)?;
    let name = object.require("name", faults)?.parse(faults, kubernetes_name);
    if let Some(elsewhere) = object.get("namespace")
        && let Some(namespace) = elsewhere.text(faults)
        && own != Some(namespace)
    {
        elsewhere.fault(faults, Conflict::TargetElsewhere);
        return None;
    }
    let kind = kind_at.parse(faults, |kind| match (group, kind) {
        ("gateway.networking.k8s.io", "Gateway") => Ok(TargetKind::Gateway),
        ("gateway.networking.k8s.io", "GatewayClass") => Ok(TargetKind::GatewayClass),
        ("" | "core", "Service") => Ok(TargetKind::Service),
        ("networking.istio.io", "ServiceEntry") => Ok(TargetKind::ServiceEntry),
        _ => Err(BadValue::Target(Excerpt::of(&format!("{group}/{kind}")))),
    })?;
    Some(TargetRef { kind, name: name? })
}
