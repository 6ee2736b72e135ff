//! Raw TLS: what a server shows, and to whom it speaks.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use signet_certs::SvidChain;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Presented;

/// What an HTTP/2 client says first, with settings that change nothing. A server that has read it waits
/// for calls.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The certificates in PEM text.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.expect("certificates in PEM")
}

/// Connects to `address` accepting whatever it shows, presenting `identity` if asked.
///
/// # Errors
/// What the handshake said. A server that refuses our certificate says so only on the first read.
pub async fn connect(address: &str, identity: Option<&Presented>) -> Result<TlsStream<TcpStream>, String> {
    let config = client_config(identity)?;
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|e| format!("connect {address}: {e}"))?;
    let name = ServerName::try_from("any.invalid").map_err(|e| e.to_string())?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|e| format!("handshake with {address}: {e}"))
}

/// Accepts whatever is shown, and presents `identity` if asked.
///
/// # Errors
/// When the identity cannot be read.
pub fn client_config(identity: Option<&Presented>) -> Result<ClientConfig, String> {
    crate::init();
    let provider = rustls::crypto::ring::default_provider();
    let verifier = Arc::new(Anyone(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Presented { chain, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| e.to_string())?;
            builder
                .with_client_auth_cert(certificates(chain), key)
                .map_err(|e| e.to_string())
        }
    }
}

/// The chain that a server shows now.
///
/// # Errors
/// When there is no handshake, or no SVID in it.
pub async fn served(address: &str) -> Result<SvidChain, String> {
    let stream = connect(address, None).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = shown.iter().map(|c| c.clone().into_owned()).collect();
    SvidChain::from_der(chain).map_err(|e| e.to_string())
}

/// Looks, and believes anything.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
