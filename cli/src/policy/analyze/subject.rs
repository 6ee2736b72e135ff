//! Which workloads a policy is about: those in the documents that it reaches, or one made up for it.

use std::collections::BTreeMap;
use std::rc::Rc;

use signet_policy::model::{Attachment, Object};
use signet_policy::scope::{self, Role};
use signet_policy::{InForce, Workload};

use super::super::inventory;
use super::Evidence;

/// A workload that a policy is about.
#[derive(Clone)]
pub struct Subject<'e> {
    /// As policies see it.
    pub workload: Workload,
    /// In the documents, if it stands there.
    pub real: Option<&'e inventory::Workload>,
    /// What is in force for it.
    pub in_force: Rc<InForce>,
}

impl<'e> Subject<'e> {
    fn new(evidence: Evidence<'e>, workload: Workload, real: Option<&'e inventory::Workload>) -> Self {
        Self {
            in_force: Rc::new(evidence.set.in_force(&workload, evidence.mesh)),
            workload,
            real,
        }
    }

    /// A workload of the documents.
    #[must_use]
    pub fn real(evidence: Evidence<'e>, real: &'e inventory::Workload) -> Self {
        Self::new(evidence, real.as_policy(), Some(real))
    }

    /// A workload that `object` reaches; nothing if it reaches no workloads, only what is named.
    #[must_use]
    pub fn made_up(evidence: Evidence<'e>, object: &Object) -> Option<Self> {
        let labels = match object.attachment() {
            Attachment::Everything => BTreeMap::new(),
            Attachment::Labels(labels) => labels.clone(),
            Attachment::Targets(_) => return None,
        };
        let workload = Workload {
            namespace: object.meta().namespace.clone(),
            labels,
            role: Role::Sidecar,
        };
        Some(Self::new(evidence, workload, None))
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match self.real {
            Some(real) => format!("{} {}/{}", real.meta.kind, real.meta.namespace, real.meta.name),
            None => format!(
                "the workloads it selects in namespace {}",
                self.workload.namespace
            ),
        }
    }

    /// The objects that concern it.
    pub fn objects(&self, evidence: Evidence<'e>) -> Vec<&'e Object> {
        let concerns = |object: &&Object| reaches(evidence, object, &self.workload);
        evidence
            .set
            .objects()
            .map(|object| &**object)
            .filter(concerns)
            .collect()
    }
}

/// Whether an object concerns a workload.
#[must_use]
pub fn reaches(evidence: Evidence<'_>, object: &Object, workload: &Workload) -> bool {
    let level = match object {
        Object::Peer(_) => scope::peer_level,
        Object::Authorization(_) | Object::Request(_) => scope::level,
    };
    let namespace = Some(object.meta().namespace.as_str());
    level(
        namespace,
        object.attachment(),
        workload,
        &evidence.mesh.root_namespace,
    )
    .is_ok()
}
