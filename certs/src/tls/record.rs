//! A client configuration that remembers what the server presented, believed or not: for whoever has to tell why a
//! handshake failed. It believes no more than [`super::mutual_client_config`] does.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, Error};
use rustls_pki_types::CertificateDer;

use super::{BundleSource, IdentitySource, Terms, client};
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

    pub(super) fn note(&self, chain: &[CertificateDer<'_>]) {
        let _ = self
            .0
            .set(chain.iter().cloned().map(CertificateDer::into_owned).collect());
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
    let config = client(Some(identity), bundles, expected, terms, Some(presented.clone()))?;
    Ok((config, presented))
}
