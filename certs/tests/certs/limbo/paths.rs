//! Defects between leaf and root: who may sign, how deep, in what order, at what cost.

use std::time::{Duration, Instant};

use signet_certs::bundle::AuthorityFault;
use signet_certs::profile::LeafFault;
use signet_certs::svid::SvidError;
use signet_certs::verify::VerifyError;
use signet_certs::{BundleSet, CertificateDer};

use super::{intermediate, leaf, unknown_issuer};
use crate::support::der;
use crate::support::{Ca, Spec, World, bundle_of, id};

fn issuing() -> Spec {
    Spec::ca("test issuing", Some(0))
}

/// `count` intermediates below the root, uppermost first, without path lengths of their own.
fn ladder(root: &Ca, count: usize) -> Vec<Ca> {
    let mut all: Vec<Ca> = Vec::new();
    for step in 0..count {
        let upper = all.last().unwrap_or(root);
        let lower = Spec::ca(&format!("step {step}"), None).below(upper);
        all.push(lower);
    }
    all
}

fn climb(ladder: &[Ca]) -> Vec<CertificateDer<'static>> {
    let leaf = Spec::leaf().by(ladder.last().unwrap());
    std::iter::once(leaf)
        .chain(ladder.iter().rev().map(|ca| ca.der.clone()))
        .collect()
}

#[test]
fn each_fault_of_an_intermediate_gives_its_own_reason() {
    let sound = issuing;
    for (what, spec, fault) in [
        (
            "no keyCertSign",
            sound().usage(&[der::CRL_SIGN]),
            AuthorityFault::NoCertSign,
        ),
        (
            "no key usage",
            sound().without(der::KEY_USAGE),
            AuthorityFault::NoCertSign,
        ),
        (
            "not a CA",
            sound().with(der::basic_constraints(false, None)),
            AuthorityFault::NotCa,
        ),
        (
            "no basic constraints",
            sound().without(der::BASIC_CONSTRAINTS),
            AuthorityFault::NotCa,
        ),
        (
            "workload's id",
            sound().names(&[der::uri("spiffe://cluster.local/ca")]),
            AuthorityFault::UriName,
        ),
        (
            "two ids",
            sound().names(&[
                der::uri("spiffe://cluster.local"),
                der::uri("spiffe://cluster.local"),
            ]),
            AuthorityFault::UriName,
        ),
        (
            "DNS constraint",
            sound().and(der::name_constraints(true, 0x82, "example")),
            AuthorityFault::NameConstraints,
        ),
        (
            "URI constraint",
            sound().and(der::name_constraints(true, 0x86, "cluster.local")),
            AuthorityFault::NameConstraints,
        ),
        (
            "constraint not critical",
            sound().and(der::name_constraints(false, 0x82, "example")),
            AuthorityFault::NameConstraints,
        ),
        (
            "neither server nor client",
            sound().with(der::extended(&[der::CODE_SIGNING])),
            AuthorityFault::ExtendedUsage,
        ),
    ] {
        let world = World::with(Spec::ca("test root", Some(1)), spec);
        assert_eq!(
            world.verify(&world.chain(&Spec::leaf())),
            Err(intermediate(fault)),
            "{what}"
        );
    }
}

#[test]
fn reasons_about_intermediates_say_so() {
    let world = World::with(Spec::ca("test root", Some(1)), issuing().without(der::KEY_USAGE));
    assert_eq!(
        world.verify(&world.chain(&Spec::leaf())).unwrap_err().to_string(),
        "an intermediate may not sign certificates (keyCertSign is missing)"
    );
}

#[test]
fn an_intermediate_for_one_end_only_serves_that_end() {
    use signet_certs::verify::{Role, verify_peer};
    let world = World::with(
        Spec::ca("test root", Some(1)),
        issuing().with(der::extended(&[der::SERVER_AUTH])),
    );
    let chain = world.chain(&Spec::leaf());
    let judge = |role| verify_peer(&chain, &world.bundles, role, crate::support::now());
    assert_eq!(judge(Role::Server), Ok(id()));
    assert_eq!(
        judge(Role::Client),
        Err(intermediate(AuthorityFault::ExtendedUsage))
    );
}

#[test]
fn an_unknown_critical_extension_on_an_intermediate_is_refused() {
    let world = World::with(Spec::ca("test root", Some(1)), issuing().and(der::unknown(true)));
    assert_eq!(
        world.verify(&world.chain(&Spec::leaf())),
        Err(VerifyError::CriticalExtension)
    );
    let world = World::with(Spec::ca("test root", Some(1)), issuing().and(der::unknown(false)));
    assert_eq!(world.verify(&world.chain(&Spec::leaf())), Ok(id()));
}

#[test]
fn key_usage_of_an_authority_need_not_be_critical() {
    let usage = || der::key_usage(false, &[der::CERT_SIGN]);
    let world = World::with(
        Spec::ca("test root", Some(1)).with(usage()),
        issuing().with(usage()),
    );
    assert_eq!(world.verify(&world.chain(&Spec::leaf())), Ok(id()));
}

#[test]
fn a_root_keeps_its_path_length() {
    for (root, intermediates, result) in [
        (Some(0), 0, Ok(id())),
        (Some(0), 1, Err(VerifyError::PathLength)),
        (Some(1), 1, Ok(id())),
        (Some(1), 2, Err(VerifyError::PathLength)),
        (None, 3, Ok(id())),
    ] {
        let root_ca = Spec::ca("test root", root).root();
        let mut chain = climb(&[std::slice::from_ref(&root_ca), &ladder(&root_ca, intermediates)].concat());
        chain.pop(); // the root itself
        let mut world = World::new();
        world.bundles = BundleSet::of(bundle_of("cluster.local", &[&root_ca]));
        assert_eq!(
            world.verify(&chain),
            result,
            "root {root:?}, {intermediates} intermediates"
        );
    }
}

#[test]
fn an_intermediate_keeps_its_path_length() {
    for (length, result) in [
        (Some(0), Err(VerifyError::PathLength)),
        (Some(1), Ok(id())),
        (None, Ok(id())),
    ] {
        let world = World::with(Spec::ca("test root", None), Spec::ca("upper", length));
        let lower = Spec::ca("lower", None).below(&world.intermediate);
        let chain = [
            Spec::leaf().by(&lower),
            lower.der.clone(),
            world.intermediate.der.clone(),
        ];
        assert_eq!(world.verify(&chain), result, "{length:?}");
    }
}

#[test]
fn a_root_presented_as_well_is_left_out() {
    let world = World::new();
    let mut chain = world.chain(&Spec::leaf());
    chain.push(world.root.der.clone());
    assert_eq!(world.verify(&chain), Ok(id()));
    let direct = [Spec::leaf().by(&world.root), world.root.der.clone()];
    assert_eq!(world.verify(&direct), Ok(id()));
    // A stranger's root is no intermediate either, whatever is wrong with it.
    let stranger = World::with(Spec::ca("other root", Some(1)).valid(-200, -100), issuing());
    let mut chain = stranger.chain(&Spec::leaf());
    chain.push(stranger.root.der.clone());
    assert_eq!(world.verify(&chain), Err(unknown_issuer()));
}

#[test]
fn intermediates_may_come_in_any_order() {
    let world = World::with(Spec::ca("test root", None), Spec::ca("upper", None));
    let lower = Spec::ca("lower", None).below(&world.intermediate);
    let chain = [
        Spec::leaf().by(&lower),
        world.intermediate.der.clone(),
        lower.der.clone(),
    ];
    assert_eq!(world.verify(&chain), Ok(id()));
}

#[test]
fn a_ca_certificate_is_never_a_peer() {
    let world = World::new();
    let swapped: Vec<_> = world.chain(&Spec::leaf()).into_iter().rev().collect();
    assert_eq!(world.verify(&swapped), Err(leaf(LeafFault::Ca)));
    assert_eq!(
        world.verify(std::slice::from_ref(&world.root.der)),
        Err(leaf(LeafFault::Ca))
    );
    assert_eq!(
        leaf(LeafFault::Ca).to_string(),
        "leaf is no X509-SVID: it is a CA certificate"
    );
}

#[test]
fn a_leaf_cannot_sign_another() {
    let world = World::new();
    let signer = Spec::leaf().named("a leaf").below(&world.intermediate);
    let chain = [
        Spec::leaf().by(&signer),
        signer.der.clone(),
        world.intermediate.der.clone(),
    ];
    assert_eq!(world.verify(&chain), Err(intermediate(AuthorityFault::NotCa)));
}

#[test]
fn a_chain_with_a_hole_has_no_known_issuer() {
    let world = World::with(Spec::ca("test root", None), Spec::ca("upper", None));
    let lower = Spec::ca("lower", None).below(&world.intermediate);
    let hole = [Spec::leaf().by(&lower), lower.der.clone()];
    assert_eq!(world.verify(&hole), Err(unknown_issuer()));
    assert_eq!(world.verify(&[Spec::leaf().by(&lower)]), Err(unknown_issuer()));
    assert_eq!(
        unknown_issuer().to_string(),
        "no authority in the bundle of cluster.local signed this chain"
    );
}

#[test]
fn certificates_that_sign_each_other_end_nowhere() {
    let world = World::new();
    let (a, b) = (Spec::ca("a", None).root(), Spec::ca("b", None).root());
    let a_by_b = a.spec.sign(&*a.key, &b);
    let b_by_a = b.spec.sign(&*b.key, &a);
    let chain = [Spec::leaf().by(&a), a_by_b, b_by_a];
    assert_eq!(world.verify(&chain), Err(unknown_issuer()));
}

#[test]
fn six_intermediates_are_followed_and_seven_are_too_much() {
    let mut world = World::new();
    world.root = Spec::ca("test root", None).root();
    world.bundles = BundleSet::of(bundle_of("cluster.local", &[&world.root]));
    assert_eq!(world.verify(&climb(&ladder(&world.root, 6))), Ok(id()));
    assert_eq!(
        world.verify(&climb(&ladder(&world.root, 7))),
        Err(VerifyError::TooMuchWork)
    );
    let endless = climb(&ladder(&world.root, 10));
    assert_eq!(world.verify(&endless), Err(SvidError::TooLong(11).into()));
}

#[test]
fn chains_wide_enough_to_be_expensive_are_refused_at_once() {
    let world = World::new();
    let wide = |name: &str, count| -> Vec<Ca> { (0..count).map(|_| Spec::ca(name, None).root()).collect() };
    // Nine of one name, each of which may have signed any other; then three by three.
    let nine = wide("wide", 9);
    let mut chain = vec![Spec::leaf().by(&nine[0])];
    chain.extend(
        nine.iter()
            .zip(nine.iter().cycle().skip(1))
            .map(|(a, b)| a.spec.sign(&*a.key, b)),
    );
    refused_quickly(&world, &chain, &[VerifyError::TooMuchWork]);

    let levels = [wide("first", 3), wide("second", 3), wide("test root", 3)];
    let mut chain = vec![Spec::leaf().by(&levels[0][0])];
    for (level, above) in levels.iter().zip(levels.iter().cycle().skip(1)) {
        chain.extend(level.iter().map(|ca| ca.spec.sign(&*ca.key, &above[0])));
    }
    // Either the budget for signatures ends it, or every path is tried and none verifies.
    refused_quickly(
        &world,
        &chain,
        &[VerifyError::TooMuchWork, VerifyError::Signature, unknown_issuer()],
    );
}

#[expect(clippy::disallowed_methods, reason = "the claim is about real time")]
fn refused_quickly(world: &World, chain: &[CertificateDer<'static>], reasons: &[VerifyError]) {
    let start = Instant::now();
    let refused = world.verify(chain).unwrap_err();
    let took = start.elapsed();
    assert!(reasons.contains(&refused), "{refused}");
    assert!(took < Duration::from_secs(2), "{took:?} for {refused}");
}

#[test]
fn three_intermediates_of_one_name_are_tried_and_four_are_too_many() {
    let world = World::new();
    let namesakes: Vec<_> = (0..3).map(|_| issuing().below(&world.root).der).collect();
    let mut chain = vec![Spec::leaf().by(&world.intermediate)];
    chain.extend(namesakes.iter().take(2).cloned());
    chain.push(world.intermediate.der.clone());
    assert_eq!(world.verify(&chain), Ok(id()));
    chain.extend(namesakes.last().cloned());
    assert_eq!(world.verify(&chain), Err(VerifyError::TooMuchWork));
}
