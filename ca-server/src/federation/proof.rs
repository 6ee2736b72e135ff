//! By what an `https_spiffe` endpoint is proven: the newest bundle of its own trust domain (SPIFFE
//! Federation §5.2.2.4), which need not be the domain that is fetched.

use std::sync::Arc;

use signet_certs::tls::BundleSource;
use signet_certs::{BundleSet, TrustDomain};

use super::Foreign;
use crate::slots::Slots;

/// Finds that bundle anew for every handshake.
pub struct Proof {
    domain: TrustDomain,
    slots: Slots,
    foreign: Foreign,
}

impl Proof {
    /// For endpoints in `domain`, by our own bundle or one of the foreign ones in force.
    #[must_use]
    pub fn of(domain: TrustDomain, slots: Slots, foreign: Foreign) -> Self {
        Self {
            domain,
            slots,
            foreign,
        }
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.bundles().get(&self.domain).is_some()
    }
}

impl BundleSource for Proof {
    fn bundles(&self) -> Arc<BundleSet> {
        let own = Arc::clone(&self.slots.current().bundles);
        if own.get(&self.domain).is_some() {
            return own;
        }
        let foreign = self.foreign.current();
        Arc::new(
            foreign
                .get(&self.domain)
                .map_or_else(BundleSet::default, |bundle| BundleSet::of(Arc::clone(bundle))),
        )
    }
}
