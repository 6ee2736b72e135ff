//! What an authenticated caller may have. The rule itself is `policy::issuance` and `policy::node_rule`;
//! this finds the facts it asks for: in the index of pods while that is to be believed, else by a lookup.
//!
//! Every service that issues something shares one [`Authorizer`].

use std::collections::BTreeSet;
use std::sync::Arc;

use signet_certs::{ServiceAccountId, TrustDomain};
use signet_policy::issuance::{Asked, Claim, claim};
use signet_policy::node_rule::{Impersonation, Placed};
use signet_policy::{Caller, Denied, IssuancePermit, PodFacts};
use signet_runtime::Clock;

use crate::authn::Authenticator;
use crate::pod_index::PodView;
use crate::pod_lookup::{LookupError, Lookups};

/// Why there is no permit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizeError {
    /// The rule says no. The text is for audit and log; strangers see less.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The rule cannot be answered now.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

impl AuthorizeError {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.as_str(),
            Self::Lookup(LookupError::Unavailable(_)) => "pods_unavailable",
            Self::Lookup(LookupError::CallerShare) => "lookup_share",
            Self::Lookup(LookupError::Overloaded) => "overloaded",
        }
    }

    /// Whether the same request may pass later without anything else having changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Lookup(_))
    }
}

/// Where facts about pods come from.
#[derive(Clone)]
pub struct Pods {
    /// What the watch has told.
    pub view: PodView,
    /// The API server itself.
    pub lookups: Lookups,
}

/// Says who may have which SVID. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer(Arc<Inner>);

struct Inner {
    domain: TrustDomain,
    trusted: BTreeSet<ServiceAccountId>,
    /// There where accounts are trusted.
    pods: Option<Pods>,
    clock: Arc<dyn Clock>,
}

impl Authorizer {
    /// An authorizer in `domain` that lets every caller have its own identity and nothing else.
    #[must_use]
    pub fn own_only(domain: TrustDomain, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            domain,
            trusted: BTreeSet::new(),
            pods: None,
            clock,
        }))
    }

    /// One that also lets pods of `trusted` accounts have what runs on their node.
    #[must_use]
    pub fn with_nodes(
        domain: TrustDomain,
        trusted: BTreeSet<ServiceAccountId>,
        pods: Pods,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner {
            domain,
            trusted,
            pods: Some(pods),
            clock,
        }))
    }

    /// The permit for what `caller` asks for. A caller's own identity asks nobody.
    ///
    /// # Errors
    /// An [`AuthorizeError`].
    pub async fn authorize(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
    ) -> Result<IssuancePermit, AuthorizeError> {
        match claim(caller, asked, &self.0.domain, &self.0.trusted)? {
            Claim::Own(permit) => Ok(permit),
            // Boxed: a caller that asks for itself need not carry the state of this along.
            Claim::Another(impersonation) => Box::pin(self.by_node_rule(impersonation)).await,
        }
    }

    async fn by_node_rule(&self, impersonation: Impersonation) -> Result<IssuancePermit, AuthorizeError> {
        let uid = impersonation.pod().uid.clone();
        let facts = self.pod(&impersonation).await?;
        let placed = impersonation.place(facts).map_err(Denied::from)?;
        let runs = self.runs(&uid, &placed).await?;
        Ok(placed.permit(runs).map_err(Denied::from)?)
    }

    /// The caller's pod. What the index does not know may be newer than it: only a lookup says no.
    async fn pod(&self, impersonation: &Impersonation) -> Result<Option<PodFacts>, LookupError> {
        let Some(pods) = &self.0.pods else { return Ok(None) };
        let (namespace, pod) = (impersonation.namespace(), impersonation.pod());
        if let Some(facts) = pods.view.pod(namespace, &pod.uid, self.0.clock.now()) {
            return Ok(Some(facts));
        }
        pods.lookups.pod(&pod.uid, namespace, &pod.name).await
    }

    async fn runs(&self, caller: &str, placed: &Placed) -> Result<bool, LookupError> {
        let Some(pods) = &self.0.pods else {
            return Ok(false);
        };
        let (node, account) = (placed.node(), placed.account());
        if pods.view.runs(node, account, self.0.clock.now()) {
            return Ok(true);
        }
        pods.lookups.runs(caller, node, account).await
    }
}

/// Who asks, and what they may have: the two questions before anything is issued.
#[derive(Clone)]
pub struct Gate {
    /// Who asks.
    pub authenticator: Authenticator,
    /// What they may have.
    pub authorizer: Authorizer,
}
