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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Snapshot, Source};
    use signet_certs::{Authority, SigningKey, TrustBundle, UnixTime};
    use std::time::Duration;

    fn bundle(name: &str, sequence: u64) -> (TrustBundle, Authority) {
        let domain: TrustDomain = name.parse().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let key = Arc::new(SigningKey::generate().unwrap());
        let root = Authority::self_signed_root(&domain, key, Duration::from_secs(1_000), now).unwrap();
        let bundle = TrustBundle::new(domain, vec![root.certificate().clone()], sequence).unwrap();
        (bundle, root)
    }

    #[test]
    fn an_endpoint_is_proven_by_the_newest_bundle_of_its_own_domain_and_by_no_other() {
        let (own, root) = bundle("own.test", 1);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let slots = Slots::new(Snapshot::new(Arc::new(own), Arc::new(root), Source::OwnRoot, now));
        let foreign = Foreign::default();
        let of = |name: &str| Proof::of(name.parse().unwrap(), slots.clone(), foreign.clone());
        let sequence = |name: &str| {
            let domain: TrustDomain = name.parse().unwrap();
            let set = of(name).bundles();
            set.get(&domain).map(|bundle| bundle.sequence())
        };
        assert_eq!((sequence("own.test"), sequence("a.test")), (Some(1), None));
        assert!(!of("a.test").is_there());
        let (first, second) = (bundle("a.test", 4).0, bundle("a.test", 5).0);
        foreign.publish(Arc::new(first));
        foreign.publish(Arc::new(bundle("b.test", 9).0));
        assert_eq!(sequence("a.test"), Some(4));
        // The same verifier, asked again after the peer rotated its root.
        let proof = of("a.test");
        foreign.publish(Arc::new(second.clone()));
        let after = proof.bundles();
        assert!(after.get(second.trust_domain()).unwrap().same_content(&second));
        assert_eq!(after.iter().count(), 1, "domains are never pooled");
    }
}
