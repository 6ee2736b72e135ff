//! The cluster's own CA and the serving certificate below it, made anew at every start.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::cluster::StartError;

/// How far back the certificates reach, for clients whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// How long the certificates last: longer than any development cluster runs.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The names a pod or a person reaches the API under.
const DNS_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// What is needed to serve, and to be believed.
pub(crate) struct ServingTls {
    pub(crate) ca_pem: String,
    pub(crate) config: Arc<ServerConfig>,
}

/// Makes a CA, and a certificate for the names above and `address`.
pub(crate) fn generate(address: IpAddr) -> Result<ServingTls, StartError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = params("signet-devcluster CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut serving = params("signet-devcluster");
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    serving.use_authority_key_identifier_extension = true;
    for name in DNS_NAMES {
        serving.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    let loopback = IpAddr::from([127, 0, 0, 1]);
    serving.subject_alt_names.push(SanType::IpAddress(loopback));
    if address != loopback {
        serving.subject_alt_names.push(SanType::IpAddress(address));
    }
    let certificate = serving.signed_by(&key, &issuer)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(ServingTls {
        ca_pem: ca_certificate.pem(),
        config: Arc::new(config),
    })
}

fn params(common_name: &str) -> CertificateParams {
    let now = crate::time::wall_clock();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = now.checked_sub(BACKDATE).unwrap_or(now).into();
    params.not_after = now.checked_add(LIFETIME).unwrap_or(now).into();
    params
}
