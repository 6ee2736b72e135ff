//! TLS towards parties that know certificates by host name: bundle endpoints and their clients
//! (SPIFFE Federation §5). TLS 1.2 and 1.3 with forward-secret AEAD suites only, which is Mozilla's
//! "intermediate" profile.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{IdentitySource, Resolver, provider};
use crate::key::{KeyError, SigningKey};

/// Most certificates in a file of an operator.
const MAX_CERTIFICATES: usize = 1024;

/// Why an operator's certificates are not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebCertificateError {
    /// Not PEM, or without a certificate.
    #[error("holds no certificates in PEM, or more than {MAX_CERTIFICATES}, or something damaged")]
    Pem,
    /// A certificate that is no CA certificate that rustls reads.
    #[error("certificate {position} cannot be used as a CA: {fault}")]
    Ca {
        /// Its place.
        position: usize,
        /// What rustls says.
        fault: Error,
    },
    /// The key cannot be read.
    #[error("key: {0}")]
    Key(#[from] KeyError),
    /// Certificate and key do not belong together.
    #[error("certificate and key do not belong together")]
    Mismatch,
}

/// A server configuration that asks clients for nothing.
///
/// # Errors
/// rustls' own, when the provider cannot do TLS 1.2 and 1.3.
pub fn public_server_config(
    identity: Arc<dyn IdentitySource>,
    alpn: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(identity)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A client configuration that meets a server by its host name under `roots`.
///
/// # Errors
/// As [`public_server_config`].
pub fn web_client_config(
    roots: RootCertStore,
    alpn: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The CAs of a PEM file; every one must be usable.
///
/// # Errors
/// A [`WebCertificateError`].
pub fn web_roots(pem: &[u8]) -> Result<RootCertStore, WebCertificateError> {
    let mut roots = RootCertStore::empty();
    for (position, certificate) in certificates(pem)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|fault| WebCertificateError::Ca { position, fault })?;
    }
    Ok(roots)
}

/// A chain in PEM, leaf first, with its key in PEM.
///
/// # Errors
/// A [`WebCertificateError`]; its text never holds key bytes.
pub fn web_identity(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, WebCertificateError> {
    let chain = certificates(chain)?;
    let key = SigningKey::from_pem(key)?;
    let identity = CertifiedKey::new(chain, key.for_rustls());
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(_) => Err(WebCertificateError::Mismatch),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, WebCertificateError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES + 1)
        .collect();
    match all {
        Ok(all) if (1..=MAX_CERTIFICATES).contains(&all.len()) => Ok(all),
        _ => Err(WebCertificateError::Pem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_offered_is_forward_secret_and_authenticated() {
        for suite in &provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            let tls13 = name.starts_with("TLS13_");
            assert!(tls13 || name.starts_with("TLS_ECDHE_"), "{name}");
            assert!(name.contains("GCM") || name.contains("CHACHA20"), "{name}");
        }
    }

    #[test]
    fn files_that_hold_no_certificate_or_another_key_are_refused() {
        let made = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let ((chain, key), (_, other)) = (made("a.test"), made("b.test"));
        web_identity(chain.as_bytes(), key.as_bytes()).unwrap();
        let mixed = web_identity(chain.as_bytes(), other.as_bytes());
        assert!(matches!(mixed, Err(WebCertificateError::Mismatch)));
        let none = web_identity(key.as_bytes(), key.as_bytes());
        assert!(matches!(none, Err(WebCertificateError::Pem)));
        assert_eq!(web_roots(chain.as_bytes()).unwrap().len(), 1);
        assert!(web_roots(b"").is_err());
    }
}
