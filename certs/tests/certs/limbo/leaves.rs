//! Defects of the leaf (X509-SVID §2–§5).

use signet_certs::certificate::CertificateError;
use signet_certs::key::KeyError;
use signet_certs::profile::{LeafFault, check_leaf};
use signet_certs::svid::SvidError;
use signet_certs::verify::VerifyError;

use super::leaf;
use crate::support::der::{self, uri};
use crate::support::{ID, Spec, World, id};

#[test]
fn a_sound_chain_is_accepted_for_both_roles() {
    let world = World::new();
    assert_eq!(world.verify(&world.chain(&Spec::leaf())), Ok(id()));
}

#[test]
fn each_broken_rule_of_the_profile_gives_its_own_reason() {
    let world = World::new();
    let sound = Spec::leaf;
    for (what, spec, fault) in [
        (
            "CA",
            sound().with(der::basic_constraints(true, None)),
            LeafFault::Ca,
        ),
        (
            "no key usage",
            sound().without(der::KEY_USAGE),
            LeafFault::KeyUsage("missing"),
        ),
        (
            "key usage not critical",
            sound().with(der::key_usage(false, &[der::DIGITAL_SIGNATURE])),
            LeafFault::KeyUsage("not critical"),
        ),
        (
            "no digitalSignature",
            sound().usage(&[der::KEY_ENCIPHERMENT]),
            LeafFault::KeyUsage("without digitalSignature"),
        ),
        (
            "keyCertSign",
            sound().usage(&[der::DIGITAL_SIGNATURE, der::CERT_SIGN]),
            LeafFault::SigningUsage,
        ),
        (
            "cRLSign",
            sound().usage(&[der::DIGITAL_SIGNATURE, der::CRL_SIGN]),
            LeafFault::SigningUsage,
        ),
        (
            "server only",
            sound().with(der::extended(&[der::SERVER_AUTH])),
            LeafFault::ExtendedUsage,
        ),
        (
            "client only",
            sound().with(der::extended(&[der::CLIENT_AUTH])),
            LeafFault::ExtendedUsage,
        ),
        (
            "code signing",
            sound().with(der::extended(&[der::CODE_SIGNING])),
            LeafFault::ExtendedUsage,
        ),
        (
            "no purpose",
            sound().with(der::extended(&[])),
            LeafFault::ExtendedUsage,
        ),
        (
            "names not critical",
            sound().with(der::san(false, &[uri(ID)])),
            LeafFault::NamesNotCritical,
        ),
        (
            "no names",
            sound().without(der::SAN),
            LeafFault::UriSans { found: 0 },
        ),
        (
            "DNS only",
            sound().names(&[der::dns("shop.example")]),
            LeafFault::UriSans { found: 0 },
        ),
        (
            "same URI twice",
            sound().names(&[uri(ID), uri(ID)]),
            LeafFault::UriSans { found: 2 },
        ),
        (
            "another URI beside",
            sound().names(&[uri(ID), uri("https://shop.example/")]),
            LeafFault::UriSans { found: 2 },
        ),
        (
            "trust domain's id",
            sound().names(&[uri("spiffe://cluster.local")]),
            LeafFault::NoPath("spiffe://cluster.local".parse().unwrap()),
        ),
    ] {
        assert_eq!(world.verify(&world.chain(&spec)), Err(leaf(fault)), "{what}");
    }
}

#[test]
fn what_the_profile_leaves_free_is_accepted() {
    let world = World::new();
    let sound = Spec::leaf;
    for (what, spec) in [
        ("no extended key usage", sound().without(der::EXTENDED_KEY_USAGE)),
        (
            "a third purpose",
            sound().with(der::extended(&[
                der::SERVER_AUTH,
                der::CLIENT_AUTH,
                der::CODE_SIGNING,
            ])),
        ),
        (
            "key encipherment",
            sound().usage(&[der::DIGITAL_SIGNATURE, der::KEY_ENCIPHERMENT]),
        ),
        (
            "DNS beside the id",
            sound().names(&[uri(ID), der::dns("shop.example"), der::dns("cart")]),
        ),
        (
            "address and mail",
            sound().names(&[uri(ID), der::ip(&[10, 0, 0, 1]), der::mail("a@b.example")]),
        ),
        ("subject, names critical", sound().named("cart")),
        (
            "subject, names not critical",
            sound().named("cart").with(der::san(false, &[uri(ID)])),
        ),
        ("no basic constraints", sound().without(der::BASIC_CONSTRAINTS)),
        ("unknown extension", sound().and(der::unknown(false))),
    ] {
        assert_eq!(world.verify(&world.chain(&spec)), Ok(id()), "{what}");
    }
}

#[test]
fn an_unknown_critical_extension_on_the_leaf_is_refused() {
    let world = World::new();
    let chain = world.chain(&Spec::leaf().and(der::unknown(true)));
    assert_eq!(world.verify(&chain), Err(VerifyError::CriticalExtension));
}

#[test]
fn a_leaf_with_a_weak_key_is_refused() {
    let world = World::new();
    let csr = include_str!("../../fixtures/csr-rsa-1024.pem");
    let der = der::unpem(csr);
    use x509_parser::prelude::FromDer as _;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(&der).unwrap();
    let key = rcgen::SubjectPublicKeyInfo::from_der(csr.certification_request_info.subject_pki.raw).unwrap();
    let chain = [
        Spec::leaf().sign(&key, &world.intermediate),
        world.intermediate.der.clone(),
    ];
    let fault = leaf(LeafFault::Key(KeyError::RsaBits(1024)));
    assert_eq!(
        fault.to_string(),
        "leaf is no X509-SVID: its rsa key has 1024 bits, 2048 to 8192 are accepted"
    );
    assert_eq!(world.verify(&chain), Err(fault));
}

#[test]
fn bytes_that_are_no_sound_certificate_name_their_place() {
    let world = World::new();
    let good = world.chain(&Spec::leaf());
    let broken = |position, fault| Err(VerifyError::Svid(SvidError::Certificate { position, fault }));

    let repeated = Spec::leaf().and(der::basic_constraints(false, None));
    let twice = CertificateError::RepeatedExtension("2.5.29.19".into());
    assert_eq!(world.verify(&world.chain(&repeated)), broken(0, twice));

    let undecodable = Spec::leaf().with(der::extension(der::KEY_USAGE, true, der::tlv(0x04, b"x")));
    let bad = CertificateError::BadExtension("2.5.29.15".into());
    assert_eq!(world.verify(&world.chain(&undecodable)), broken(0, bad));

    let mut longer = good[1].to_vec();
    longer.push(0);
    assert_eq!(
        world.verify(&[good[0].clone(), longer.into()]),
        broken(1, CertificateError::Trailing(1))
    );

    assert_eq!(world.verify(&[]), Err(VerifyError::Svid(SvidError::Empty)));
    let garbage = world
        .verify(&[good[0].clone(), vec![0x30, 0x01].into()])
        .unwrap_err()
        .to_string();
    assert!(
        garbage.starts_with("certificate 1 of the chain: not an x.509 certificate: "),
        "{garbage}"
    );
}

#[test]
fn names_beyond_any_use_are_refused() {
    let world = World::new();
    let mut names = vec![uri(ID)];
    names.extend(vec![der::dns("a.example"); 64]);
    let fault = SvidError::Certificate {
        position: 0,
        fault: CertificateError::TooManyNames(65),
    };
    assert_eq!(
        world.verify(&world.chain(&Spec::leaf().names(&names))),
        Err(fault.into())
    );
    let huge = Spec::leaf().and(der::extension(
        &[1, 2, 3, 4],
        false,
        der::tlv(0x04, &vec![0; 70_000]),
    ));
    let refused = world.verify(&world.chain(&huge)).unwrap_err().to_string();
    assert!(refused.contains("at most 65536 are read"), "{refused}");
}

#[test]
fn the_list_of_rules_shows_every_broken_one() {
    let world = World::new();
    let spec = Spec::leaf()
        .without(der::KEY_USAGE)
        .with(der::extended(&[der::SERVER_AUTH]));
    let certificate = signet_certs::certificate::Certificate::from_der(spec.by(&world.intermediate)).unwrap();
    let broken: Vec<_> = check_leaf(&certificate)
        .into_iter()
        .filter_map(|r| r.fault.map(|f| (r.section, f)))
        .collect();
    assert_eq!(
        broken,
        [
            ("§4.3", LeafFault::KeyUsage("missing")),
            ("§4.4", LeafFault::ExtendedUsage)
        ]
    );
}
