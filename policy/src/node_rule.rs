//! The node rule: a trusted node account, proven by the live pod its token is bound to, may have the
//! identity of any account with a live pod on that same node. Nothing else may be impersonated.
//!
//! Three steps, each handing a typed value to the next, so that the cluster is asked only for callers
//! that may try, and in the order in which one fact leads to the next:
//! [`Impersonation`] (who asks for what) → [`Placed`] (the node the caller's pod runs on) → a permit.

use std::collections::BTreeSet;

use signet_certs::id::IdError;
use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};

use crate::caller::{BoundPod, Caller};
use crate::issuance::IssuancePermit;

/// Why a node may not have an identity. The text is for audit and log; strangers see less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeDenied {
    /// The caller's account is not one of the node accounts.
    #[error("{caller} is not a trusted node account and may ask only for itself, not for {requested}")]
    NotNodeAccount {
        /// Who asked.
        caller: ServiceAccountId,
        /// What was asked for, if it is an identity.
        requested: String,
    },
    /// What is asked for is no SPIFFE ID. The text itself is not repeated.
    #[error("what the node asks for is no SPIFFE ID: {0}")]
    NotSpiffeId(IdError),
    /// It lies in another trust domain.
    #[error("{requested} is not in our trust domain {ours}")]
    ForeignTrustDomain {
        /// What was asked for.
        requested: SpiffeId,
        /// The trust domain this CA issues in.
        ours: TrustDomain,
    },
    /// It is not of the form `/ns/<namespace>/sa/<account>`.
    #[error("{requested} is not the identity of a service account")]
    NotServiceAccount {
        /// What was asked for.
        requested: SpiffeId,
    },
    /// The token is not bound to a pod, so it proves no node.
    #[error("the token of {caller} is not bound to a pod; project it into the node agent's pod")]
    TokenNotBound {
        /// Who asked.
        caller: ServiceAccountId,
    },
    /// The pod the token is bound to does not exist any more.
    #[error("pod {pod} of the token does not exist")]
    PodUnknown {
        /// The pod, as `namespace/name`.
        pod: String,
    },
    /// Another pod has its name now.
    #[error("pod {pod} is {now} now; the token is bound to {token}")]
    PodReplaced {
        /// The pod, as `namespace/name`.
        pod: String,
        /// UID the token is bound to.
        token: String,
        /// UID of the pod there is.
        now: String,
    },
    /// The pod runs as another account than the token's.
    #[error("pod {pod} runs as {account}, not as the token's account")]
    PodOfOtherAccount {
        /// The pod, as `namespace/name`.
        pod: String,
        /// The account it runs as.
        account: String,
    },
    /// The pod has ended: Succeeded or Failed.
    #[error("pod {pod} of the token has ended")]
    PodEnded {
        /// The pod, as `namespace/name`.
        pod: String,
    },
    /// The pod runs on no node yet.
    #[error("pod {pod} of the token is not on a node")]
    PodUnscheduled {
        /// The pod, as `namespace/name`.
        pod: String,
    },
    /// The API server says of the token that it is of another node than the pod's.
    #[error("the token is of node {token}, its pod runs on {pod}")]
    NodeDisagrees {
        /// Node in the review of the token.
        token: String,
        /// Node of the pod.
        pod: String,
    },
    /// No live pod of the requested account runs on the caller's node.
    #[error("no pod of {requested} runs on node {node}")]
    NoPodOnNode {
        /// What was asked for.
        requested: SpiffeId,
        /// The caller's node.
        node: String,
    },
}

impl NodeDenied {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotNodeAccount { .. } => "not_node_account",
            Self::NotSpiffeId(_) => "not_spiffe_id",
            Self::ForeignTrustDomain { .. } => "foreign_trust_domain",
            Self::NotServiceAccount { .. } => "not_service_account",
            Self::TokenNotBound { .. } => "token_not_bound",
            Self::PodUnknown { .. } => "pod_unknown",
            Self::PodReplaced { .. } => "pod_replaced",
            Self::PodOfOtherAccount { .. } => "pod_other_account",
            Self::PodEnded { .. } => "pod_ended",
            Self::PodUnscheduled { .. } => "pod_unscheduled",
            Self::NodeDisagrees { .. } => "node_disagrees",
            Self::NoPodOnNode { .. } => "no_pod_on_node",
        }
    }
}

/// What the cluster says of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its UID.
    pub uid: String,
    /// The account it runs as, without namespace.
    pub account: String,
    /// The node it is bound to, if it is.
    pub node: Option<String>,
    /// Whether it is Succeeded or Failed. A pod that is being deleted has not ended.
    pub ended: bool,
}

/// A trusted node account asks for another account of our trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    caller: ServiceAccountId,
    pod: BoundPod,
    requested: SpiffeId,
    account: ServiceAccountId,
}

impl Impersonation {
    /// What can be said of `caller` asking for `requested` without asking the cluster.
    pub(crate) fn claimed(
        caller: &Caller,
        requested: &str,
        domain: &TrustDomain,
        trusted: &BTreeSet<ServiceAccountId>,
    ) -> Result<Self, NodeDenied> {
        let account = caller.account();
        if !trusted.contains(account) {
            return Err(NodeDenied::NotNodeAccount {
                caller: account.clone(),
                requested: crate::issuance::named(requested),
            });
        }
        let requested: SpiffeId = requested.parse().map_err(NodeDenied::NotSpiffeId)?;
        if !requested.is_in(domain) {
            let ours = domain.clone();
            return Err(NodeDenied::ForeignTrustDomain { requested, ours });
        }
        let Ok(wanted) = ServiceAccountId::try_from(&requested) else {
            return Err(NodeDenied::NotServiceAccount { requested });
        };
        let Some(pod) = caller.pod() else {
            let caller = account.clone();
            return Err(NodeDenied::TokenNotBound { caller });
        };
        Ok(Self {
            caller: account.clone(),
            pod: pod.clone(),
            requested,
            account: wanted,
        })
    }

    /// Namespace of the caller's pod: the one of its account.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.caller.namespace()
    }

    /// The pod the caller's token is bound to.
    #[must_use]
    pub fn pod(&self) -> &BoundPod {
        &self.pod
    }

    /// Judges the caller by what the cluster says of the pod of that name now.
    ///
    /// # Errors
    /// [`NodeDenied`] unless that pod is the token's, lives, and runs on a node.
    pub fn place(self, facts: Option<PodFacts>) -> Result<Placed, NodeDenied> {
        let pod = || format!("{}/{}", self.caller.namespace(), self.pod.name);
        let Some(facts) = facts else {
            return Err(NodeDenied::PodUnknown { pod: pod() });
        };
        if facts.uid != self.pod.uid {
            return Err(NodeDenied::PodReplaced {
                pod: pod(),
                token: self.pod.uid.clone(),
                now: facts.uid,
            });
        }
        if facts.account != self.caller.name() {
            let account = facts.account;
            return Err(NodeDenied::PodOfOtherAccount { pod: pod(), account });
        }
        if facts.ended {
            return Err(NodeDenied::PodEnded { pod: pod() });
        }
        let Some(node) = facts.node.filter(|node| !node.is_empty()) else {
            return Err(NodeDenied::PodUnscheduled { pod: pod() });
        };
        match self.pod.node {
            Some(token) if token != node => Err(NodeDenied::NodeDisagrees { token, pod: node }),
            _ => Ok(Placed {
                node,
                requested: self.requested,
                account: self.account,
            }),
        }
    }
}

/// The caller's pod lives, on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    node: String,
    requested: SpiffeId,
    account: ServiceAccountId,
}

impl Placed {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The account asked for.
    #[must_use]
    pub fn account(&self) -> &ServiceAccountId {
        &self.account
    }

    /// The permit, if a pod of the account that is neither Succeeded nor Failed is on the node.
    ///
    /// # Errors
    /// [`NodeDenied::NoPodOnNode`].
    pub fn permit(self, runs: bool) -> Result<IssuancePermit, NodeDenied> {
        if runs {
            return Ok(IssuancePermit::granted(self.requested, self.account));
        }
        Err(NodeDenied::NoPodOnNode {
            requested: self.requested,
            node: self.node,
        })
    }
}

#[cfg(test)]
mod tests;
