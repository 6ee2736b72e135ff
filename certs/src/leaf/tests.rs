use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::certificate::Certificate;
use crate::csr::Csr;
use crate::der::element;
use crate::id::TrustDomain;
use crate::issue::{Template, issue, uri_san};
use crate::key::SigningKey;

/// 2027-01-15 08:00:00 UTC.
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn profile(id: &str, dns: &[&str]) -> LeafProfile {
    LeafProfile {
        id: id.parse().unwrap(),
        ttl: Duration::from_secs(DAY),
        min_left: Duration::ZERO,
        dns: dns.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<SigningKey> {
    let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
    Arc::new(SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap())
}

fn root(key: Arc<SigningKey>) -> Authority {
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    Authority::self_signed_root(&domain, key, Duration::from_secs(100 * 365 * DAY), at(NOW)).unwrap()
}

/// A CA certificate that carries no subject key identifier.
fn without_key_id() -> Authority {
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "no key id");
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let mut constraints =
        rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], b"\x30\x03\x01\x01\xff".to_vec());
    constraints.set_criticality(true);
    params.custom_extensions = vec![constraints];
    let der = params.self_signed(&pair).unwrap().der().clone();
    let certificate = Certificate::from_der(der).unwrap();
    assert_eq!(certificate.subject_key_id(), None);
    let key = SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
    Authority::new(Arc::new(key), certificate, Vec::new()).unwrap()
}

/// The signed part and the algorithm behind it.
fn signed_part(der: &[u8]) -> (&[u8], &[u8]) {
    let (_, outer, _) = element(der).unwrap();
    let (tbs, _, rest) = element(outer).unwrap();
    (tbs, element(rest).unwrap().0)
}

/// The same leaf by the general library, with the serial of `ours`.
fn by_the_library(
    ours: &Certificate,
    profile: &LeafProfile,
    key: &PublicKey,
    authority: &Authority,
    validity: (UnixTime, UnixTime),
) -> CertificateDer<'static> {
    let mut params = Template::new(validity).params;
    params.serial_number = Some(rcgen::SerialNumber::from_slice(ours.serial()));
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
        .subject_alt_names
        .push(uri_san(profile.id.as_str()).unwrap());
    for name in &profile.dns {
        let dns = name.clone().try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::DnsName(dns));
    }
    params.signed_by(key, authority.issuer()).unwrap().der().clone()
}

fn agree(profile: &LeafProfile, key: &PublicKey, authority: &Authority, validity: (UnixTime, UnixTime)) {
    let ours = write(profile, key, authority, validity).unwrap();
    let parsed = Certificate::from_der(ours.clone()).unwrap();
    let theirs = by_the_library(&parsed, profile, key, authority, validity);
    assert_eq!(signed_part(&ours), signed_part(&theirs));
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[test]
fn every_kind_of_key_is_written_as_the_library_writes_it() {
    let read = |pem: &str| Csr::from_pem(pem).unwrap().public_key().clone();
    let keys = [
        made(&rcgen::PKCS_ECDSA_P256_SHA256).public_key().clone(),
        made(&rcgen::PKCS_ECDSA_P384_SHA384).public_key().clone(),
        made(&rcgen::PKCS_ED25519).public_key().clone(),
        read(include_str!("../../tests/fixtures/csr-rsa-2048.pem")),
    ];
    let authority = root(made(&rcgen::PKCS_ECDSA_P256_SHA256));
    for key in keys {
        agree(&profile(CART, &[]), &key, &authority, (at(NOW), at(NOW + DAY)));
    }
}

#[test]
fn every_kind_of_authority_signs_as_the_library_says() {
    let key = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let authorities = [
        root(made(&rcgen::PKCS_ECDSA_P384_SHA384)),
        root(made(&rcgen::PKCS_ED25519)),
        without_key_id(),
    ];
    for authority in authorities {
        let validity = (at(NOW), at(NOW + DAY));
        agree(&profile(CART, &[]), key.public_key(), &authority, validity);
        let chain = issue(&profile(CART, &[]), key.public_key(), &authority, at(NOW));
        assert_eq!(chain.unwrap().id().as_str(), CART);
    }
}

#[test]
fn an_ed25519_authority_writes_the_library_s_certificate_to_the_last_byte() {
    let authority = root(made(&rcgen::PKCS_ED25519));
    let key = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (profile, validity) = (profile(CART, &["cart.shop.svc"]), (at(NOW), at(NOW + DAY)));
    let ours = write(&profile, key.public_key(), &authority, validity).unwrap();
    let parsed = Certificate::from_der(ours.clone()).unwrap();
    assert_eq!(
        ours,
        by_the_library(&parsed, &profile, key.public_key(), &authority, validity)
    );
}

#[test]
fn years_from_2050_on_have_four_digits() {
    let authority = root(made(&rcgen::PKCS_ECDSA_P256_SHA256));
    let key = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    // 2049-12-31T23:59:59Z and the second after; the last second a certificate can name, and later.
    let edge = 2_524_607_999;
    let last = END_OF_TIME.as_secs();
    for validity in [(0, edge), (edge, edge + 1), (951_782_400, last), (0, last + 1)] {
        let validity = (at(validity.0), at(validity.1));
        agree(&profile(CART, &[]), key.public_key(), &authority, validity);
    }
}

#[test]
fn a_name_that_is_not_ascii_is_refused() {
    let authority = root(made(&rcgen::PKCS_ECDSA_P256_SHA256));
    let key = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    let refused = write(
        &profile(CART, &["kärt"]),
        key.public_key(),
        &authority,
        (at(NOW), at(NOW + DAY)),
    );
    assert_eq!(refused.unwrap_err(), IssueError::Name("kärt".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Lengths of names move every length field above them.
    #[test]
    fn names_of_any_length_and_times_of_any_second_are_written_as_the_library_writes_them(
        path in "(/[a-z0-9]{1,200}){1,9}",
        dns in proptest::collection::vec("[a-z]{1,60}\\.svc", 0..6),
        from in 0..8_000_000_000_u64,
        life in 0..8_000_000_000_u64,
    ) {
        let authority = root(made(&rcgen::PKCS_ECDSA_P256_SHA256));
        let key = made(&rcgen::PKCS_ECDSA_P256_SHA256);
        let dns: Vec<&str> = dns.iter().map(String::as_str).collect();
        let profile = profile(&format!("spiffe://cluster.local{path}"), &dns);
        agree(&profile, key.public_key(), &authority, (at(from), at(from + life)));
    }
}
