//! Authorities that others made: what belongs together, how deep they reach, what a bundle says of them.

use std::sync::Arc;

use signet_certs::authority::AuthorityError;
use signet_certs::bundle::AuthorityFault;
use signet_certs::certificate::Certificate;
use signet_certs::verify::{Place, Role, VerifyError, verify_authority, verify_chain};
use signet_certs::{Authority, SigningKey, issue};

use crate::issuing::{DAY, authorities, bundle, key, profile};
use crate::support::der::{self, seq, tlv};
use crate::support::{Ca, Spec, World, at, bundle_of, domain, now};

fn plugged(ca: &Ca, above: &[&Ca]) -> Result<Authority, AuthorityError> {
    let key = SigningKey::from_pem(ca.key.serialize_pem().as_bytes()).unwrap();
    Authority::new(
        Arc::new(key),
        ca.certificate(),
        above.iter().map(|ca| ca.certificate()).collect(),
    )
}

/// A self-signed CA certificate with any subject, in the key of `ca`.
fn resubjected(ca: &Ca, subject: &[u8]) -> Certificate {
    use x509_parser::prelude::FromDer as _;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&ca.der).unwrap();
    let old = parsed.tbs_certificate.subject.as_raw();
    let tbs = parsed.tbs_certificate.as_ref();
    let swap = |bytes: &[u8], from: usize| {
        let at = from + bytes[from..].windows(old.len()).position(|w| w == old).unwrap();
        (
            [&bytes[..at], subject, &bytes[at + old.len()..]].concat(),
            at + subject.len(),
        )
    };
    let header = if tbs[1] < 0x80 {
        2
    } else {
        2 + usize::from(tbs[1] & 0x7f)
    };
    let (body, next) = swap(&tbs[header..], 0);
    let tbs = tlv(0x30, &swap(&body, next).0);
    let signature = rcgen::SigningKey::sign(&*ca.key, &tbs).unwrap();
    let algorithm = seq(&[tlv(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])]);
    let whole = seq(&[tbs, algorithm, tlv(0x03, &[vec![0], signature].concat())]);
    Certificate::from_der(whole.into()).unwrap()
}

#[test]
fn names_that_rcgen_cannot_hold_are_repeated_all_the_same() {
    let ca = Spec::ca("plain", None).root();
    let attribute = |oid: u8, tag: u8, text: &[u8]| seq(&[tlv(0x06, &[0x55, 4, oid]), tlv(tag, text)]);
    for subject in [
        // two attributes in one RDN
        seq(&[tlv(
            0x31,
            &[attribute(11, 0x0c, b"b"), attribute(3, 0x0c, b"aa")].concat(),
        )]),
        // NumericString, TeletexString beyond ASCII, BMPString
        seq(&[tlv(0x31, &attribute(5, 0x12, b"7"))]),
        seq(&[tlv(0x31, &attribute(10, 0x14, b"Caf\xe9"))]),
        seq(&[tlv(0x31, &attribute(10, 0x1e, b"\0A"))]),
        // the same value twice
        seq(&[
            tlv(0x31, &attribute(11, 0x13, b"x")),
            tlv(0x31, &attribute(11, 0x13, b"x")),
        ]),
    ] {
        let certificate = resubjected(&ca, &subject);
        assert_eq!(certificate.subject().der, subject);
        let key = Arc::new(SigningKey::from_pem(ca.key.serialize_pem().as_bytes()).unwrap());
        let root = Authority::new(key.clone(), certificate, Vec::new()).unwrap();
        let issuing = root
            .issue_intermediate(&domain(), crate::issuing::key(), DAY, now())
            .unwrap();
        let chain = issue(&profile(DAY), key.public_key(), &issuing, now()).unwrap();
        assert_eq!(chain.intermediates()[0].issuer().der, subject);
        assert_eq!(verify_chain(&chain, &bundle(&root), Role::Server, now()), Ok(()));
    }
}

#[test]
fn a_path_length_of_zero_leaves_no_room_for_an_intermediate() {
    let (root, issuing) = authorities(now());
    assert!(root.may_issue_intermediate() && !issuing.may_issue_intermediate());
    let refused = issuing
        .issue_intermediate(&domain(), key(), DAY, now())
        .unwrap_err();
    assert_eq!(refused, AuthorityError::PathLength);
    assert_eq!(
        refused.to_string(),
        "its path length does not allow an intermediate below it"
    );
    // Nor does one further up: upper (1) → lower (no limit) is as deep as upper allows.
    let world = World::with(Spec::ca("test root", None), Spec::ca("upper", Some(1)));
    let lower = Spec::ca("lower", None).below(&world.intermediate);
    let authority = plugged(&lower, &[&world.intermediate]).unwrap();
    assert!(!authority.may_issue_intermediate());
    let world = World::with(Spec::ca("test root", None), Spec::ca("upper", Some(2)));
    let lower = Spec::ca("lower", None).below(&world.intermediate);
    assert!(
        plugged(&lower, &[&world.intermediate])
            .unwrap()
            .may_issue_intermediate()
    );
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let world = World::new();
    let other = Spec::ca("other", None).below(&world.root);
    let foreign = Ca {
        key: other.key.clone(),
        ..world.intermediate.clone()
    };
    assert_eq!(
        plugged(&foreign, &[]).unwrap_err().to_string(),
        "private key does not match the signing certificate (CN=test issuing)"
    );
    let lower = Spec::ca("lower", None).below(&other);
    assert_eq!(
        plugged(&lower, &[&world.intermediate, &other])
            .unwrap_err()
            .to_string(),
        "chain is out of order: CN=other should follow CN=lower"
    );
    assert!(plugged(&lower, &[&other]).is_ok());
    for (spec, fault) in [
        (
            Spec::ca("x", None).usage(&[der::CRL_SIGN]),
            AuthorityFault::NoCertSign,
        ),
        (Spec::leaf().named("x"), AuthorityFault::NotCa),
        (
            Spec::ca("x", None).and(der::name_constraints(true, 0x82, "a")),
            AuthorityFault::NameConstraints,
        ),
    ] {
        let refused = plugged(&spec.below(&world.root), &[]).unwrap_err();
        assert_eq!(
            refused,
            AuthorityError::NotAnAuthority {
                subject: "CN=x".into(),
                fault
            }
        );
    }
}

#[test]
fn an_authority_is_verified_as_a_leaf_below_it_would_be() {
    let world = World::new();
    let trust = bundle_of("cluster.local", &[&world.root]);
    let sound = plugged(&world.intermediate, &[]).unwrap();
    assert_eq!(verify_authority(&sound, &trust, now()), Ok(()));
    assert_eq!(
        verify_authority(&plugged(&world.root, &[]).unwrap(), &trust, now()),
        Ok(())
    );

    let judge = |ca: &Ca, above: &[&Ca]| verify_authority(&plugged(ca, above).unwrap(), &trust, now());
    let deep = Spec::ca("deep", None).below(&world.intermediate);
    assert_eq!(judge(&deep, &[&world.intermediate]), Err(VerifyError::PathLength));
    let shallow = World::with(Spec::ca("test root", None), Spec::ca("upper", Some(0)));
    let deep = plugged(
        &Spec::ca("deep", None).below(&shallow.intermediate),
        &[&shallow.intermediate],
    );
    let unlimited = bundle_of("cluster.local", &[&shallow.root]);
    assert_eq!(
        verify_authority(&deep.unwrap(), &unlimited, now()),
        Err(VerifyError::PathLength)
    );
    let one_ended = Spec::ca("x", None)
        .with(der::extended(&[der::SERVER_AUTH]))
        .below(&world.root);
    let fault = AuthorityFault::ExtendedUsage;
    assert_eq!(
        judge(&one_ended, &[]),
        Err(VerifyError::Authority {
            place: Place::Intermediate,
            fault
        })
    );
    let critical = Spec::ca("x", None).and(der::unknown(true)).below(&world.root);
    assert_eq!(judge(&critical, &[]), Err(VerifyError::CriticalExtension));
    let expired = Spec::ca("x", None).valid(-20, -10).below(&world.root);
    let place = Place::Intermediate;
    assert_eq!(
        judge(&expired, &[]),
        Err(VerifyError::Expired {
            place,
            ago_seconds: 10
        })
    );
    let stranger = Spec::ca("stranger", None).root();
    let unknown = Err(VerifyError::UnknownIssuer(domain()));
    assert_eq!(judge(&stranger, &[]), unknown);
    assert_eq!(judge(&Spec::ca("x", None).below(&stranger), &[]), unknown);
    let namesake = Spec::ca("test root", Some(1)).root();
    assert_eq!(
        judge(&Spec::ca("x", None).below(&namesake), &[]),
        Err(VerifyError::Signature)
    );
    assert_eq!(
        verify_authority(&sound, &bundle_of("cluster.local", &[]), now()),
        unknown
    );
}

#[test]
fn a_root_that_allows_no_intermediate_is_found_out_before_a_leaf_fails() {
    let root = Spec::ca("short root", Some(0)).root();
    let issuing = Spec::ca("issuing", None).below(&root);
    let trust = bundle_of("cluster.local", &[&root]);
    let authority = plugged(&issuing, &[]).unwrap();
    assert_eq!(
        verify_authority(&authority, &trust, now()),
        Err(VerifyError::PathLength)
    );
}

#[test]
fn a_renewed_root_carries_its_old_intermediates() {
    let world = World::new();
    let old = world
        .root
        .spec
        .clone()
        .valid(-200, -100)
        .root_with(world.root.key.clone());
    let authority = plugged(&world.intermediate, &[]).unwrap();
    let both = bundle_of("cluster.local", &[&old, &world.root]);
    assert_eq!(verify_authority(&authority, &both, now()), Ok(()));
    let only_old = bundle_of("cluster.local", &[&old]);
    let expired = VerifyError::Expired {
        place: Place::Root,
        ago_seconds: 100,
    };
    assert_eq!(verify_authority(&authority, &only_old, now()), Err(expired));
    assert_eq!(verify_authority(&authority, &only_old, at(-150)), Ok(()));
}
