//! Which roots count: those of the leaf's own trust domain, and no others.

use signet_certs::bundle::BundleError;
use signet_certs::verify::{Expected, Role, VerifyError, verify_chain, verify_peer};
use signet_certs::{BundleSet, SvidChain, TrustBundle};

use super::unknown_issuer;
use crate::support::der::{self, uri};
use crate::support::{Spec, World, bundle_of, domain, id, now};

const FOREIGN: &str = "spiffe://other.example/ns/shop/sa/cart";

#[test]
fn the_root_of_another_domain_is_no_anchor_even_when_both_are_loaded() {
    let mut world = World::new();
    let other = World::new();
    world.bundles.insert(bundle_of("other.example", &[&other.root]));
    // A local name signed by the foreign authority, and the other way round.
    assert_eq!(
        world.verify(&other.chain(&Spec::leaf())),
        Err(VerifyError::Signature)
    );
    let foreign = Spec::leaf().names(&[uri(FOREIGN)]);
    assert_eq!(world.verify(&world.chain(&foreign)), Err(VerifyError::Signature));
    assert_eq!(world.verify(&other.chain(&foreign)), Ok(FOREIGN.parse().unwrap()));
}

#[test]
fn a_foreign_root_under_a_name_of_its_own_has_no_known_issuer() {
    let mut world = World::new();
    let other = World::with(
        Spec::ca("other root", Some(1)),
        Spec::ca("other issuing", Some(0)),
    );
    world.bundles.insert(bundle_of("other.example", &[&other.root]));
    assert_eq!(world.verify(&other.chain(&Spec::leaf())), Err(unknown_issuer()));
}

#[test]
fn a_domain_without_a_bundle_is_trusted_by_nobody() {
    let world = World::new();
    let foreign = world.chain(&Spec::leaf().names(&[uri(FOREIGN)]));
    let refused = world.verify(&foreign).unwrap_err();
    assert_eq!(
        refused,
        VerifyError::UnknownTrustDomain("other.example".parse().unwrap())
    );
    assert_eq!(
        refused.to_string(),
        "no trust bundle for trust domain other.example"
    );
    let chain = world.chain(&Spec::leaf());
    assert_eq!(
        verify_peer(&chain, &BundleSet::default(), Role::Server, now()),
        Err(VerifyError::UnknownTrustDomain(domain()))
    );
    let parsed = SvidChain::from_der(chain).unwrap();
    let other = bundle_of("other.example", &[&world.root]);
    assert_eq!(
        verify_chain(&parsed, &other, Role::Server, now()),
        Err(VerifyError::UnknownTrustDomain(domain()))
    );
}

#[test]
fn an_empty_bundle_trusts_nobody() {
    let mut world = World::new();
    let chain = world.chain(&Spec::leaf());
    world.bundles = BundleSet::of(bundle_of("cluster.local", &[]));
    assert_eq!(world.verify(&chain), Err(unknown_issuer()));
}

#[test]
fn roots_that_share_a_name_are_all_tried() {
    let mut world = World::new();
    let namesake = Spec::ca("test root", Some(1)).root();
    let chain = world.chain(&Spec::leaf());
    for roots in [[&namesake, &world.root], [&world.root, &namesake]] {
        world.bundles = BundleSet::of(bundle_of("cluster.local", &roots));
        assert_eq!(world.verify(&chain), Ok(id()));
    }
    world.bundles = BundleSet::of(bundle_of("cluster.local", &[&namesake]));
    assert_eq!(world.verify(&chain), Err(VerifyError::Signature));
}

#[test]
fn what_may_not_sign_never_gets_into_a_bundle() {
    let sound = || Spec::ca("test root", None);
    for (spec, sentence) in [
        (
            sound().with(der::basic_constraints(false, None)),
            "is not a CA certificate",
        ),
        (
            sound().usage(&[der::CRL_SIGN]),
            "may not sign certificates (keyCertSign is missing)",
        ),
        (
            sound().without(der::KEY_USAGE),
            "may not sign certificates (keyCertSign is missing)",
        ),
        (
            sound().names(&[uri("spiffe://cluster.local/ca")]),
            "carries a URI name that is not a trust domain's id",
        ),
        (
            sound().and(der::name_constraints(true, 0x82, "example")),
            "carries name constraints, which rustls peers refuse",
        ),
    ] {
        let root = spec.root().certificate();
        let refused = TrustBundle::new(domain(), vec![root], 1).unwrap_err();
        assert!(matches!(refused, BundleError::NotAnAuthority { position: 0, .. }));
        assert_eq!(
            refused.to_string(),
            format!("authority 0 (CN=test root) {sentence}")
        );
    }
}

#[test]
fn a_sound_peer_of_another_name_is_refused_naming_both() {
    let world = World::new();
    let found = world.verify(&world.chain(&Spec::leaf())).unwrap();
    let till: signet_certs::SpiffeId = "spiffe://cluster.local/ns/shop/sa/till".parse().unwrap();
    let refused = Expected::Id(till.clone()).check(&found).unwrap_err();
    assert_eq!(refused.to_string(), format!("peer is {found}, expected {till}"));
    assert_eq!(
        refused,
        VerifyError::OtherId {
            expected: Expected::Id(till),
            presented: found.clone()
        }
    );
    let abroad = Expected::Domain("other.example".parse().unwrap())
        .check(&found)
        .unwrap_err();
    assert_eq!(
        abroad.to_string(),
        format!("peer is {found}, expected an id in other.example")
    );
    for fits in [Expected::Any, Expected::Id(id()), Expected::Domain(domain())] {
        assert_eq!(fits.check(&found), Ok(()));
    }
}
