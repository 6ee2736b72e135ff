//! What attestation yields: a workload with its identities, and which identities are in use on this node.

use std::collections::BTreeMap;
use std::path::PathBuf;

use signet_certs::SpiffeId;

/// An identity that a workload may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// Its name.
    pub id: SpiffeId,
    /// What the operator calls it, for workloads that have several.
    pub hint: Option<String>,
}

/// What was attested, for logs and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A peer admitted to the agent's own identity.
    Own,
    /// A pod of this node.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Uid of the object.
        uid: String,
        /// Service account.
        account: String,
    },
    /// A process, by the rules of the configuration.
    Process {
        /// User.
        uid: u32,
        /// The file it executes, where a rule asks for it.
        executable: Option<PathBuf>,
    },
}

/// An attested workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its identities, the default first, in an order that does not change. Empty only for
    /// [`Subject::Own`], whose one identity the CA names.
    pub identities: Vec<Entitlement>,
    /// Who it is.
    pub subject: Subject,
}

impl Workload {
    /// A peer admitted to the agent's own identity.
    #[must_use]
    pub fn own() -> Self {
        Self {
            identities: Vec::new(),
            subject: Subject::Own,
        }
    }
}

/// A pod that wants an identity, for status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
}

/// Who wants an identity: pods, or nobody in particular where rules name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedBy {
    /// The pods, in order.
    pub pods: Vec<PodRef>,
}

/// The identities in use on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Each with who wants it.
    pub ids: BTreeMap<SpiffeId, WantedBy>,
    /// Whether this is all: `false` until the first list of pods is complete.
    pub synced: bool,
}
