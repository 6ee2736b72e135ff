//! Trust bundles as PEM and as JWK sets.

use signet_certs::bundle::{MAX_AUTHORITIES, check_authority};
use signet_certs::{TrustBundle, TrustDomain};

fn domain() -> Option<TrustDomain> {
    "cluster.local".parse().ok()
}

/// A bundle in PEM.
pub fn bundle_pem(data: &[u8]) {
    let Some(domain) = domain() else { return };
    if let Ok(bundle) = TrustBundle::from_pem(domain, data, 7) {
        assert!(!bundle.roots().is_empty());
        accepted(&bundle);
    }
}

/// A bundle as a SPIFFE JWK set.
pub fn bundle_jwks(data: &[u8]) {
    let Some(domain) = domain() else { return };
    if let Ok(bundle) = TrustBundle::from_jwks(domain, data) {
        accepted(&bundle);
    }
}

/// Only roots and jwt-svid keys are in it; JWKS carries all of it, PEM the roots.
fn accepted(bundle: &TrustBundle) {
    assert!(bundle.roots().len() <= MAX_AUTHORITIES);
    for root in bundle.roots() {
        assert_eq!(check_authority(root.certificate()), Ok(()));
        assert!(root.certificate().is_self_issued());
        assert!(!root.authority_id().is_empty());
    }
    let domain = bundle.trust_domain().clone();
    let jwks = TrustBundle::from_jwks(domain.clone(), bundle.to_jwks().as_bytes());
    assert!(jwks.is_ok_and(|again| again.to_jwks() == bundle.to_jwks() && again.same_content(bundle)));
    if !bundle.roots().is_empty() {
        let pem = TrustBundle::from_pem(domain, bundle.to_pem().as_bytes(), bundle.sequence());
        assert!(pem.is_ok_and(|again| again.to_pem() == bundle.to_pem() && again.same_roots(bundle)));
    }
}
