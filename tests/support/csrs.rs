//! CSRs a CA may meet: good ones, and one per defect.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};

const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
/// Of a private arc, so that nobody knows it.
const UNKNOWN_EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 99999, 1];

fn pem_of(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).expect("csr").pem().expect("pem")
}

fn nameless() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("key")
}

/// P-256, no names.
#[must_use]
pub fn plain() -> String {
    pem_of(&nameless(), &key())
}

/// P-256 with these URI names.
#[must_use]
pub fn with_uris(uris: &[&str]) -> String {
    let mut params = nameless();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().expect("ascii")))
        .collect();
    pem_of(&params, &key())
}

/// P-256 with a DNS name.
#[must_use]
pub fn with_dns(name: &str) -> String {
    let mut params = nameless();
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("ascii"))];
    pem_of(&params, &key())
}

/// P-256 that asks to be a CA.
#[must_use]
pub fn asking_for_ca() -> String {
    let mut params = nameless();
    // SEQUENCE { BOOLEAN TRUE }
    let ca = CustomExtension::from_oid_content(BASIC_CONSTRAINTS, vec![0x30, 0x03, 0x01, 0x01, 0xff]);
    params.custom_extensions = vec![ca];
    pem_of(&params, &key())
}

/// P-256 with an unknown extension of so many bytes.
#[must_use]
pub fn with_extension_of(bytes: usize) -> String {
    let mut params = nameless();
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        UNKNOWN_EXTENSION,
        vec![7; bytes],
    )];
    pem_of(&params, &key())
}

/// A good request whose last byte, of the signature, was changed.
#[must_use]
pub fn with_broken_signature() -> String {
    let request = nameless().serialize_request(&key()).expect("csr");
    let mut der = request.der().to_vec();
    if let Some(last) = der.last_mut() {
        *last ^= 1;
    }
    let body = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

/// RSA-2048 with an empty organisation and one URI, as istio-agent sends it. `key` is PKCS#8 PEM.
#[must_use]
pub fn as_istio_agent(key: &str, uri: &str) -> String {
    let mut params = nameless();
    params.distinguished_name.push(DnType::OrganizationName, "");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ascii"))];
    let key = KeyPair::from_pem_and_sign_algo(key, &rcgen::PKCS_RSA_SHA256).expect("rsa key");
    pem_of(&params, &key)
}

/// A new RSA key of so many bits, PKCS#8 PEM.
#[must_use]
pub fn rsa_key(bits: usize) -> String {
    let bits = format!("rsa_keygen_bits:{bits}");
    crate::openssl::openssl(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", &bits], "")
}
