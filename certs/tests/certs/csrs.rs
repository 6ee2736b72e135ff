//! Hostile and honest signing requests, each with the sentence a caller reads.

use std::sync::Arc;

use rcgen::{CustomExtension, DnType, KeyPair};
use signet_certs::csr::{CsrError, MAX_CSR_BYTES, request};
use signet_certs::key::KeyKind;
use signet_certs::{Csr, SigningKey, SpiffeId};

use crate::support::der::{self, pem, tlv, unpem, uri};
use crate::support::{ID, id};

const LABEL: &str = "CERTIFICATE REQUEST";

/// A request of the test's own making, signed with a fresh P-256 key.
fn forged(change: impl FnOnce(&mut rcgen::CertificateParams)) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    let der = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    pem(LABEL, der.der())
}

fn asking(extension: CustomExtension) -> String {
    forged(|params| params.custom_extensions = vec![extension])
}

fn refusal(pem: &str) -> String {
    let fault = match Csr::from_pem(pem) {
        Err(fault) => fault,
        Ok(csr) => csr.check_names(&id()).unwrap_err(),
    };
    fault.to_string()
}

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_request_may_name_its_own_id_or_nothing() {
    let key = Arc::new(SigningKey::generate().unwrap());
    for asked in [None, Some(id())] {
        let csr = Csr::from_pem(&request(&key, asked.as_ref()).unwrap()).unwrap();
        assert_eq!(csr.public_key(), key.public_key());
        assert_eq!(csr.requested_uri(), asked.as_ref().map(SpiffeId::as_str));
        assert_eq!(csr.check_names(&id()), Ok(()));
    }
    let by_common_name = forged(|p| p.distinguished_name.push(DnType::CommonName, ID));
    assert_eq!(Csr::from_pem(&by_common_name).unwrap().check_names(&id()), Ok(()));
    let organisation = forged(|p| p.distinguished_name.push(DnType::OrganizationName, "shop"));
    assert_eq!(Csr::from_pem(&organisation).unwrap().check_names(&id()), Ok(()));
}

#[test]
fn every_other_name_is_refused_naming_both() {
    let permitted = format!("but the caller may have only {ID}");
    for (asked, names) in [
        (
            "spiffe://cluster.local/ns/shop/sa/till",
            vec![uri("spiffe://cluster.local/ns/shop/sa/till")],
        ),
        ("https://shop.example/", vec![uri("https://shop.example/")]),
        (
            "spiffe://Cluster.local/ns/shop/sa/cart",
            vec![uri("spiffe://Cluster.local/ns/shop/sa/cart")],
        ),
        ("shop.example", vec![der::dns("shop.example")]),
        ("shop.example", vec![uri(ID), der::dns("shop.example")]),
        ("mail cart@shop.example", vec![der::mail("cart@shop.example")]),
        ("ip 10.0.0.1", vec![der::ip(&[10, 0, 0, 1])]),
        (
            "ip ::1",
            vec![der::ip(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])],
        ),
    ] {
        let sentence = refusal(&asking(der::san(true, &names)));
        assert_eq!(sentence, format!("csr asks for {asked:?}, {permitted}"));
    }
    let by_common_name = forged(|p| p.distinguished_name.push(DnType::CommonName, "till"));
    assert_eq!(
        refusal(&by_common_name),
        format!("csr asks for \"till\", {permitted}")
    );
}

#[test]
fn a_second_common_name_or_name_extension_does_not_hide_behind_the_first() {
    let cn = |name: &str| {
        tlv(
            0x31,
            &der::seq(&[tlv(0x06, &[0x55, 4, 3]), tlv(0x0c, name.as_bytes())]),
        )
    };
    let subject = der::seq(&[cn(ID), cn("till")]);
    assert_eq!(
        refusal(&assembled(&subject, &tlv(0xa0, &[]))),
        format!("csr asks for \"till\", but the caller may have only {ID}")
    );
    let one = extension_request(&[san_der(ID)]);
    let other = extension_request(&[san_der("spiffe://cluster.local/ns/shop/sa/till")]);
    let empty = der::seq(&[]);
    let twice = tlv(0xa0, &[one.clone(), other].concat());
    assert_eq!(
        refusal(&assembled(&empty, &twice)),
        "csr asks for 2 URI names; an SVID has exactly one"
    );
    let repeated = extension_request(&[san_der(ID), san_der("spiffe://cluster.local/ns/shop/sa/till")]);
    let repeated = assembled(&empty, &tlv(0xa0, &repeated));
    assert_eq!(
        refusal(&repeated),
        "csr asks for 2 URI names; an SVID has exactly one"
    );
    let value = der::seq(&[san_der(ID)]);
    let two_values = attribute(&[value.clone(), value].concat());
    assert_eq!(
        refusal(&assembled(&empty, &tlv(0xa0, &two_values))),
        "csr is not a PKCS#10 request: an attribute with several extension requests"
    );
    assert_eq!(
        Csr::from_pem(&assembled(&empty, &tlv(0xa0, &one)))
            .unwrap()
            .check_names(&id()),
        Ok(())
    );
}

#[test]
fn a_refusal_repeats_only_the_beginning_of_a_long_name() {
    let long = format!("{ID}{}", "é".repeat(9_000));
    let sentence = refusal(&asking(der::san(true, &[uri(&long)])));
    assert!(
        sentence.len() < 1_500 && sentence.contains(ID),
        "{} bytes",
        sentence.len()
    );
}

#[test]
fn two_uri_names_are_refused_even_when_one_is_permitted() {
    let both = [uri(ID), uri("spiffe://cluster.local/ns/shop/sa/till")];
    assert_eq!(
        refusal(&asking(der::san(true, &both))),
        "csr asks for 2 URI names; an SVID has exactly one"
    );
}

#[test]
fn a_request_for_a_ca_certificate_is_refused() {
    let sentence = "csr asks for a CA certificate; workloads get leaves only";
    assert_eq!(refusal(&asking(der::basic_constraints(true, None))), sentence);
    assert_eq!(
        refusal(&asking(der::key_usage(true, &[der::CERT_SIGN]))),
        sentence
    );
    assert!(Csr::from_pem(&asking(der::basic_constraints(false, None))).is_ok());
}

#[test]
fn size_is_judged_before_anything_is_parsed() {
    let huge = asking(der::extension(
        &[1, 2, 3, 4],
        false,
        tlv(0x04, &vec![0; 1024 * 1024]),
    ));
    assert_eq!(
        refusal(&huge),
        format!("csr has {} bytes, at most 32768 are read", huge.len())
    );
    let der = unpem(&huge);
    assert_eq!(Csr::from_der(&der).unwrap_err(), CsrError::TooLarge(der.len()));
    assert_eq!(
        refusal(&"x".repeat(MAX_CSR_BYTES)),
        "csr is not one PEM block of type CERTIFICATE REQUEST"
    );
}

#[test]
fn a_broken_signature_proves_nothing() {
    let mut der = unpem(&forged(|_| ()));
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(refusal(&pem(LABEL, &der)), "csr signature does not match its key");
    let key = Arc::new(SigningKey::generate().unwrap());
    let mut named = unpem(&request(&key, Some(&id())).unwrap());
    let at = named.windows(4).position(|w| w == b"cart").unwrap();
    named[at] = b'k';
    assert_eq!(
        refusal(&pem(LABEL, &named)),
        "csr signature does not match its key"
    );
}

#[test]
fn weak_and_foreign_keys_are_refused() {
    let advice = "use P-256, P-384, Ed25519 or RSA of at least 2048 bits";
    for (name, sentence) in [
        (
            "csr-rsa-1024.pem",
            "csr rsa key has 1024 bits, 2048 to 8192 are accepted".to_owned(),
        ),
        (
            "csr-p521.pem",
            format!("csr key type elliptic curve 1.3.132.0.35 is not accepted; {advice}"),
        ),
        (
            "csr-secp256k1.pem",
            format!("csr key type elliptic curve 1.3.132.0.10 is not accepted; {advice}"),
        ),
        (
            "csr-p256-explicit.pem",
            "csr key cannot be read: elliptic curve is not named".to_owned(),
        ),
    ] {
        assert_eq!(refusal(&fixture(name)), sentence, "{name}");
    }
}

#[test]
fn requests_of_openssl_are_accepted() {
    for (name, kind) in [
        ("csr-p384-sha256.pem", KeyKind::P384),
        ("csr-rsa-2048.pem", KeyKind::Rsa(2048)),
    ] {
        let csr = Csr::from_pem(&fixture(name)).unwrap();
        assert_eq!(csr.public_key().kind(), kind);
        assert_eq!(csr.check_names(&id()), Ok(()));
    }
}

#[test]
fn every_kind_of_key_asks_with_its_own_algorithm() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(Csr::from_der(der.der()).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn an_algorithm_that_does_not_fit_the_key_is_refused() {
    // ecdsa-with-SHA256 becomes Ed25519, ecdsa-with-SHA1 and ecdsa-with-SHA512.
    let der = unpem(&forged(|_| ()));
    for (oid, text) in [
        (vec![0x2b, 0x65, 0x70], "1.3.101.112"),
        (
            vec![0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
            "1.2.840.10045.4.1",
        ),
        (
            vec![0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
            "1.2.840.10045.4.3.4",
        ),
        (
            vec![0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
            "1.2.840.113549.1.1.11",
        ),
    ] {
        let [info, _, signature] = parts(&der);
        let relabelled = der::seq(&[info, der::seq(&[tlv(0x06, &oid)]), signature]);
        assert_eq!(
            refusal(&pem(LABEL, &relabelled)),
            format!("csr is signed with {text}, which is not accepted for a P-256 key")
        );
    }
}

#[test]
fn what_is_not_one_request_is_refused() {
    let good = forged(|_| ());
    let not_one = "csr is not one PEM block of type CERTIFICATE REQUEST";
    let relabelled = good.replace(LABEL, "CERTIFICATE");
    let garbled = good.replace("MI", "!!");
    let half = &good[..good.len() / 2];
    for text in [
        "",
        "garbage",
        &relabelled,
        &garbled,
        half,
        &format!("{good}{good}"),
    ] {
        assert_eq!(refusal(text), not_one, "{text}");
    }
    let mut der = unpem(&good);
    der.extend([0, 0, 0]);
    assert_eq!(
        refusal(&pem(LABEL, &der)),
        "csr is not a PKCS#10 request: 3 bytes after it"
    );
    assert!(refusal(&pem(LABEL, &[0x30, 0x03, 1, 1, 0xff])).starts_with("csr is not a PKCS#10 request: "));
    assert!(Csr::from_pem(&format!("# a comment\n{good}")).is_ok());
}

#[test]
fn too_many_names_and_broken_extensions_are_refused() {
    let many = vec![der::dns("a.example"); 65];
    assert_eq!(
        refusal(&asking(der::san(false, &many))),
        "csr is not a PKCS#10 request: 65 subject alternative names, at most 64 are read"
    );
    let broken = asking(der::extension(der::BASIC_CONSTRAINTS, true, tlv(0x04, b"?")));
    assert_eq!(
        refusal(&broken),
        "csr is not a PKCS#10 request: a requested extension cannot be decoded"
    );
}

/// The three parts of a request: what is signed, the algorithm, the signature.
fn parts(der: &[u8]) -> [Vec<u8>; 3] {
    use x509_parser::prelude::FromDer as _;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(der).unwrap();
    let info = csr.certification_request_info.raw.to_vec();
    let signature = tlv(0x03, &[&[0], csr.signature_value.data.as_ref()].concat());
    [
        info,
        der::seq(&[tlv(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])]),
        signature,
    ]
}

/// A correctly signed request with any subject and any attributes.
fn assembled(subject: &[u8], attributes: &[u8]) -> String {
    let key = SigningKey::generate().unwrap();
    let info = [&[2, 1, 0], subject, key.public_key().spki_der(), attributes].concat();
    let info = tlv(0x30, &info);
    let signature = tlv(0x03, &[vec![0], key.sign(&info).unwrap()].concat());
    let algorithm = der::seq(&[tlv(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])]);
    pem(LABEL, &der::seq(&[info, algorithm, signature]))
}

fn san_der(name: &str) -> Vec<u8> {
    let (tag, name) = uri(name);
    der::seq(&[
        tlv(0x06, &[0x55, 0x1d, 0x11]),
        tlv(0x04, &der::seq(&[tlv(tag, &name)])),
    ])
}

fn extension_request(extensions: &[Vec<u8>]) -> Vec<u8> {
    attribute(&der::seq(extensions))
}

/// An extensionRequest attribute (RFC 2985 §5.4.2) with these values.
fn attribute(values: &[u8]) -> Vec<u8> {
    let oid = tlv(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e]);
    der::seq(&[oid, tlv(0x31, values)])
}
