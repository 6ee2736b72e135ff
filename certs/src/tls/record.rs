//! A client configuration that remembers what the server presented, believed or not: for whoever has to tell why a
//! handshake failed. It believes no more than [`super::mutual_client_config`] does.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{BundleSource, IdentitySource, Terms, chain, client};
use crate::verify::Expected;

/// What a server presented. For one handshake.
#[derive(Clone, Debug, Default)]
pub struct Presented(Arc<OnceLock<Vec<CertificateDer<'static>>>>);

impl Presented {
    /// The chain, leaf first; nothing where the handshake did not get that far.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.0.get().map(Vec::as_slice).unwrap_or_default()
    }
}

/// As [`super::mutual_client_config`], for one handshake, with what the server presents in it.
///
/// # Errors
/// As [`super::mutual_client_config`].
pub fn recording_client_config(
    identity: Arc<dyn IdentitySource>,
    bundles: Arc<dyn BundleSource>,
    expected: Expected,
    terms: Terms<'_>,
) -> Result<(ClientConfig, Presented), Error> {
    let presented = Presented::default();
    let recorded = presented.clone();
    let config = client(Some(identity), bundles, expected, terms, |inner| {
        Arc::new(Recording { inner, recorded })
    })?;
    Ok((config, presented))
}

/// Notes a chain, and leaves the verdict to another verifier.
#[derive(Debug)]
struct Recording {
    inner: Arc<dyn ServerCertVerifier>,
    recorded: Presented,
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = chain(end_entity, intermediates).into_iter();
        let _ = self.recorded.0.set(all.map(CertificateDer::into_owned).collect());
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
