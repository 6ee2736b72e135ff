//! What the memory of verified chains may and may not shorten.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::tls::ChainCache;
use signet_certs::verify::{Role, VerifyError};
use signet_certs::{Authority, BundleSet, CertificateDer, LeafProfile, TrustBundle, issue};

use crate::issuing::{authorities, bundle, key, profile};
use crate::support::{at, domain, id, now};

const LIFE: i64 = 600;

fn chain_of(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let profile = LeafProfile {
        id: id(),
        ..profile(Duration::from_secs(600))
    };
    let key = key();
    issue(&profile, key.public_key(), authority, now())
        .unwrap()
        .to_der()
}

fn set(bundle: TrustBundle) -> BundleSet {
    BundleSet::of(Arc::new(bundle))
}

#[test]
fn a_chain_is_verified_once_and_known_by_its_bytes() {
    let (root, issuing) = authorities(now());
    let (cache, bundles, chain) = (ChainCache::default(), set(bundle(&root)), chain_of(&issuing));
    let first = cache.verify(&chain, &bundles, Role::Client, now()).unwrap();
    let again = cache.verify(&chain, &bundles, Role::Client, at(1)).unwrap();
    assert_eq!((&first.id, &again), (&id(), &first));
    assert_eq!(cache.served(), (1, 1));
    // In the other role, or with one byte changed, it is another.
    cache.verify(&chain, &bundles, Role::Server, now()).unwrap();
    assert_eq!(cache.served(), (1, 2));
    let mut forged = chain.clone();
    let mut leaf = forged[0].to_vec();
    *leaf.last_mut().unwrap() ^= 1;
    forged[0] = leaf.into();
    cache.verify(&forged, &bundles, Role::Client, now()).unwrap_err();
    cache.verify(&forged, &bundles, Role::Client, now()).unwrap_err();
    assert_eq!(cache.served(), (1, 4), "a refusal is not kept");
    assert_eq!(cache.len(), 2);
}

#[test]
fn a_removed_root_ends_it_at_once() {
    let (root, issuing) = authorities(now());
    let (other, _) = authorities(now());
    let (cache, chain) = (ChainCache::default(), chain_of(&issuing));
    let both = vec![root.certificate().clone(), other.certificate().clone()];
    let both = set(TrustBundle::new(domain(), both, 1).unwrap());
    for _ in 0..2 {
        cache.verify(&chain, &both, Role::Client, now()).unwrap();
    }
    let without = set(bundle(&other));
    let refused = cache.verify(&chain, &without, Role::Client, now());
    assert_eq!(refused, Err(VerifyError::UnknownIssuer(domain())));
    let none = cache.verify(&chain, &BundleSet::default(), Role::Client, now());
    assert_eq!(none, Err(VerifyError::UnknownTrustDomain(domain())));
    // And nothing of it is left for the time when the root comes back.
    let (hits, _) = cache.served();
    cache.verify(&chain, &both, Role::Client, now()).unwrap();
    assert_eq!(cache.served().0, hits);
}

#[test]
fn it_ends_with_the_leaf_and_a_clock_that_goes_back_is_not_believed() {
    let (root, issuing) = authorities(now());
    let (cache, bundles, chain) = (ChainCache::default(), set(bundle(&root)), chain_of(&issuing));
    let verified = cache.verify(&chain, &bundles, Role::Client, now()).unwrap();
    assert_eq!(verified.until, at(LIFE));
    cache.verify(&chain, &bundles, Role::Client, at(LIFE)).unwrap();
    let refused = cache.verify(&chain, &bundles, Role::Client, at(LIFE + 1));
    assert!(matches!(refused, Err(VerifyError::Expired { .. })), "{refused:?}");
    cache.verify(&chain, &bundles, Role::Client, now()).unwrap();
    let refused = cache.verify(&chain, &bundles, Role::Client, at(-LIFE));
    assert!(
        matches!(refused, Err(VerifyError::NotYetValid { .. })),
        "{refused:?}"
    );
}

#[test]
fn it_ends_with_an_authority_that_ends_before_the_leaf() {
    let (root, issuing) = authorities(now());
    let (bundles, chain) = (set(bundle(&root)), chain_of(&issuing));
    let verified = ChainCache::default()
        .verify(&chain, &bundles, Role::Client, now())
        .unwrap();
    let ends = [issuing.not_after(), root.not_after(), at(LIFE)];
    assert_eq!(Some(verified.until), ends.into_iter().min());
}

#[test]
fn it_is_bounded_and_forgets_what_is_not_asked_for() {
    let (root, issuing) = authorities(now());
    let (cache, bundles) = (ChainCache::bounded(4), set(bundle(&root)));
    let kept = chain_of(&issuing);
    for _ in 0..40 {
        cache.verify(&kept, &bundles, Role::Client, now()).unwrap();
        cache
            .verify(&chain_of(&issuing), &bundles, Role::Client, now())
            .unwrap();
        assert!(cache.len() <= 8, "{}", cache.len());
    }
    let (hits, misses) = cache.served();
    assert_eq!(
        (hits, misses),
        (39, 41),
        "what is asked for again and again stays"
    );
}

#[test]
fn what_rests_on_a_bundle_is_proven_again_under_another_even_after_its_end() {
    let (root, issuing) = authorities(now());
    let (other, _) = authorities(now());
    let (cache, bundles, chain) = (ChainCache::default(), set(bundle(&root)), chain_of(&issuing));
    let proven = cache.prove(&chain, &bundles, Role::Client, now()).unwrap();
    assert!(proven.rests_on(&bundles));
    // The same bundle costs nothing, not even after the leaf's end.
    let late = at(LIFE + 1000);
    let same = cache.prove_again(&proven, &bundles, late).unwrap();
    assert!(Arc::ptr_eq(&same, &proven));
    // One with a further root vouches for it as well.
    let both = vec![root.certificate().clone(), other.certificate().clone()];
    let both = set(TrustBundle::new(domain(), both, 1).unwrap());
    let again = cache.prove_again(&proven, &both, late).unwrap();
    assert!(again.rests_on(&both) && !again.rests_on(&bundles));
    assert_eq!(again.verified().id, id());
    // One without its root does not, nor does the want of one.
    let without = set(bundle(&other));
    let refused = cache.prove_again(&again, &without, now()).unwrap_err();
    assert_eq!(refused, VerifyError::UnknownIssuer(domain()));
    let refused = cache
        .prove_again(&again, &BundleSet::default(), now())
        .unwrap_err();
    assert_eq!(refused, VerifyError::UnknownTrustDomain(domain()));
}

#[test]
fn a_chain_that_is_very_long_is_verified_and_not_kept() {
    let (root, issuing) = authorities(now());
    let bundles = set(bundle(&root));
    let label = ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join(".");
    for (names, kept) in [(10, 1), (60, 0)] {
        let profile = LeafProfile {
            dns: (0..names)
                .map(|number| format!("n{number}.{label}.example"))
                .collect(),
            ..profile(Duration::from_secs(600))
        };
        let chain = issue(&profile, key().public_key(), &issuing, now()).unwrap();
        let cache = ChainCache::default();
        let chain = chain.to_der();
        cache.prove(&chain, &bundles, Role::Client, now()).unwrap();
        assert_eq!(cache.len(), kept, "{} bytes", chain[0].len());
    }
}
