//! rustls configurations made from SVIDs and bundles: who we are, whom we accept, by whose clock.
//!
//! Session resumption is off everywhere: rustls does not run the verifier on a resumed session, so a
//! peer whose root or SVID was removed would keep coming back (spiffe/spire#6715).

mod cache;
mod record;
mod web;

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::bundle::{BundleSet, TrustBundle};
use crate::id::SpiffeId;
use crate::verify::{Expected, Role, VerifyError, verify_peer};
pub use cache::{ChainCache, GENERATION, Proven};
pub use record::{Presented, recording_client_config};
pub use web::{WebCertificateError, public_server_config, web_client_config, web_identity, web_roots};

/// Where the current bundles are. Asked at every handshake, so a new bundle needs no new config.
pub trait BundleSource: Send + Sync {
    /// The bundles in force now.
    fn bundles(&self) -> Arc<BundleSet>;

    /// Where chains that verified are kept; nowhere, unless the source has such a place.
    fn cache(&self) -> Option<&ChainCache> {
        None
    }
}

/// Where our current chain and key are. Asked at every handshake.
pub trait IdentitySource: Send + Sync {
    /// The identity to present now, or nothing while there is none.
    fn identity(&self) -> Option<Arc<CertifiedKey>>;
}

/// The one crypto provider: ring, AES-128-GCM first (fastest on AES hardware).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The typed reason inside a handshake error, if it was our verifier that refused.
#[must_use]
pub fn refusal(error: &Error) -> Option<&VerifyError> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

/// The identity of a peer whose handshake succeeded with one of the verifiers here.
#[must_use]
pub fn peer_id(presented: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    let leaf = presented?.first()?;
    let leaf = crate::certificate::Certificate::from_der(leaf.clone().into_owned()).ok()?;
    crate::profile::leaf_id(&leaf).ok()
}

/// What both sides of mutual TLS between workloads agree on.
pub struct Terms<'a> {
    /// Protocols offered, or accepted by a server in its own order.
    pub alpn: &'a [&'a [u8]],
    /// Whether TLS 1.2 is spoken beside 1.3.
    pub tls12: bool,
    /// Whose clock counts.
    pub time: Arc<dyn TimeProvider>,
}

impl fmt::Debug for Terms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terms(tls12: {})", self.tls12)
    }
}

static BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
static NEWER: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl Terms<'_> {
    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.tls12 { BOTH } else { NEWER }
    }

    fn protocols(&self) -> Vec<Vec<u8>> {
        self.alpn.iter().map(|name| name.to_vec()).collect()
    }
}

/// A server configuration: TLS 1.2 and 1.3, no resumption. A client certificate is `required`, or
/// optional and verified when given; it is accepted only from trust domains in `bundles`.
///
/// # Errors
/// rustls' own, when the provider cannot do TLS 1.2 and 1.3.
pub fn server_config(
    identity: Arc<dyn IdentitySource>,
    bundles: Arc<dyn BundleSource>,
    required: bool,
    alpn: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let tls12 = true;
    server(identity, bundles, required, Terms { alpn, tls12, time })
}

/// A server configuration for workloads: a client certificate is required, no resumption.
///
/// # Errors
/// As [`server_config`].
pub fn mutual_server_config(
    identity: Arc<dyn IdentitySource>,
    bundles: Arc<dyn BundleSource>,
    terms: Terms<'_>,
) -> Result<ServerConfig, Error> {
    server(identity, bundles, true, terms)
}

fn server(
    identity: Arc<dyn IdentitySource>,
    bundles: Arc<dyn BundleSource>,
    required: bool,
    terms: Terms<'_>,
) -> Result<ServerConfig, Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(SpiffeClientVerifier {
        bundles,
        required,
        algorithms,
    });
    let protocols = terms.protocols();
    let versions = terms.versions();
    let mut config = ServerConfig::builder_with_details(provider, terms.time)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Resolver(identity)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = protocols;
    Ok(config)
}

/// A client configuration that meets a SPIFFE server: its SVID must be `expected`, host names do not
/// matter. Presents `identity` when asked, if there is one.
///
/// # Errors
/// As [`server_config`].
pub fn spiffe_client_config(
    identity: Option<Arc<dyn IdentitySource>>,
    bundles: Arc<dyn BundleSource>,
    expected: Expected,
    alpn: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let tls12 = true;
    client(identity, bundles, expected, Terms { alpn, tls12, time }, None)
}

/// A client configuration for workloads: the server's SVID must be `expected`, ours is presented.
///
/// # Errors
/// As [`server_config`].
pub fn mutual_client_config(
    identity: Arc<dyn IdentitySource>,
    bundles: Arc<dyn BundleSource>,
    expected: Expected,
    terms: Terms<'_>,
) -> Result<ClientConfig, Error> {
    client(Some(identity), bundles, expected, terms, None)
}

/// With `presented`, what the server shows is noted there.
fn client(
    identity: Option<Arc<dyn IdentitySource>>,
    bundles: Arc<dyn BundleSource>,
    expected: Expected,
    terms: Terms<'_>,
    presented: Option<Presented>,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(SpiffeServerVerifier {
        bundles,
        expected,
        presented,
        algorithms,
    });
    let protocols = terms.protocols();
    let versions = terms.versions();
    let builder = ClientConfig::builder_with_details(provider, terms.time)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Resolver(identity))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols;
    Ok(config)
}

/// A client configuration that meets a server by its DNS name, under the roots of `bundle`: how the
/// CA is dialled. TLS 1.3 only, no client certificate.
///
/// # Errors
/// As [`server_config`], or when the bundle is empty.
pub fn dns_client_config(
    bundle: &TrustBundle,
    alpn: &[&[u8]],
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(bundle.roots().iter().map(|root| root.anchor().clone()));
    let mut config = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn refused(reason: VerifyError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

/// Whose chain it is, by memory where there is one.
fn verified(
    source: &dyn BundleSource,
    chain: &[CertificateDer<'_>],
    role: Role,
    now: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    let bundles = source.bundles();
    match source.cache() {
        Some(cache) => cache
            .verify(chain, &bundles, role, now)
            .map(|verified| verified.id),
        None => verify_peer(chain, &bundles, role, now),
    }
}

fn chain<'a>(leaf: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf.clone())
        .chain(rest.iter().cloned())
        .collect()
}

/// Accepts servers by SPIFFE ID.
struct SpiffeServerVerifier {
    bundles: Arc<dyn BundleSource>,
    expected: Expected,
    presented: Option<Presented>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for SpiffeServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeServerVerifier({})", self.expected)
    }
}

impl ServerCertVerifier for SpiffeServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        if let Some(presented) = &self.presented {
            presented.note(&chain);
        }
        verified(&*self.bundles, &chain, Role::Server, now)
            .and_then(|id| self.expected.check(&id))
            .map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts clients by SPIFFE ID.
struct SpiffeClientVerifier {
    bundles: Arc<dyn BundleSource>,
    required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for SpiffeClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeClientVerifier(required: {})", self.required)
    }
}

impl ClientCertVerifier for SpiffeClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verified(
            &*self.bundles,
            &chain(end_entity, intermediates),
            Role::Client,
            now,
        )
        .map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Presents whatever identity is current.
struct Resolver(Arc<dyn IdentitySource>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.identity()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.identity()
    }

    fn has_certs(&self) -> bool {
        self.0.identity().is_some()
    }
}
