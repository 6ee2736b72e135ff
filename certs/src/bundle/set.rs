//! The bundles of several trust domains.

use std::collections::HashMap;
use std::sync::Arc;

use super::TrustBundle;
use crate::id::TrustDomain;

/// The newest bundle of each trust domain. Domains are never pooled: a peer is verified against the
/// bundle of its own domain alone (SPIFFE Trust Domain and Bundle §3).
#[derive(Clone, Debug, Default)]
pub struct BundleSet {
    bundles: HashMap<TrustDomain, Arc<TrustBundle>>,
}

impl BundleSet {
    /// A set of one.
    #[must_use]
    pub fn of(bundle: Arc<TrustBundle>) -> Self {
        let mut set = Self::default();
        set.insert(bundle);
        set
    }

    /// Adds a bundle or replaces its domain's.
    pub fn insert(&mut self, bundle: Arc<TrustBundle>) {
        self.bundles.insert(bundle.trust_domain().clone(), bundle);
    }

    /// The bundle of `domain`.
    #[must_use]
    pub fn get(&self, domain: &TrustDomain) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(domain)
    }

    /// Takes the bundle of `domain` out.
    pub fn remove(&mut self, domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        self.bundles.remove(domain)
    }

    /// All bundles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.bundles.values()
    }
}
