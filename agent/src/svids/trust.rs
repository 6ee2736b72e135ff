//! The trust bundles in force: our own domain's and those of domains we federate with, never pooled.

use std::sync::Arc;

use signet_certs::{BundleSet, TrustBundle, TrustDomain};

use crate::secrets::RootSecrets;

/// Everything whose SVIDs are accepted now. Empty until the first bundle came.
#[derive(Debug, Default)]
pub struct Trust {
    own: Option<Arc<TrustBundle>>,
    foreign: Vec<Arc<TrustBundle>>,
    bundles: BundleSet,
    secrets: RootSecrets,
}

impl Trust {
    /// Our own bundle and the foreign ones. A foreign bundle of our own domain is left out: nobody else
    /// vouches for local names.
    #[must_use]
    pub fn new(own: Arc<TrustBundle>, mut foreign: Vec<Arc<TrustBundle>>) -> Self {
        foreign.retain(|bundle| bundle.trust_domain() != own.trust_domain());
        foreign.sort_by(|a, b| a.trust_domain().cmp(b.trust_domain()));
        let mut bundles = BundleSet::of(Arc::clone(&own));
        for bundle in &foreign {
            bundles.insert(Arc::clone(bundle));
        }
        Self {
            secrets: RootSecrets::new(&own, &foreign),
            own: Some(own),
            foreign,
            bundles,
        }
    }

    /// The bundle of our own trust domain.
    #[must_use]
    pub fn own(&self) -> Option<&Arc<TrustBundle>> {
        self.own.as_ref()
    }

    /// The bundles of the domains we federate with, by name.
    #[must_use]
    pub fn foreign(&self) -> &[Arc<TrustBundle>] {
        &self.foreign
    }

    /// The foreign bundle of `domain`.
    #[must_use]
    pub fn foreign_of(&self, domain: &TrustDomain) -> Option<&Arc<TrustBundle>> {
        self.foreign.iter().find(|bundle| bundle.trust_domain() == domain)
    }

    /// All of them.
    #[must_use]
    pub fn bundles(&self) -> &BundleSet {
        &self.bundles
    }

    /// Their SDS resources, shared by every stream.
    #[must_use]
    pub fn secrets(&self) -> &RootSecrets {
        &self.secrets
    }
}
