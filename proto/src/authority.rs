//! `WatchBundle`: a trust bundle over the wire and back.

use bytes::Bytes;
use signet_certs::bundle::BundleError;
use signet_certs::certificate::{Certificate, CertificateError};
use signet_certs::id::IdError;
use signet_certs::{CertificateDer, TrustBundle};

use crate::wire::signet::ca::v1::WatchBundleResponse;

/// Why a bundle from the wire is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireBundleError {
    /// The trust domain is no trust domain.
    #[error("trust domain {name:?}: {fault}")]
    TrustDomain {
        /// What was sent.
        name: String,
        /// What is wrong with it.
        fault: IdError,
    },
    /// A root that cannot be read.
    #[error("root {position}: {fault}")]
    Root {
        /// Its place.
        position: usize,
        /// What is wrong with it.
        fault: CertificateError,
    },
    /// The roots make no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A bundle as the CA sends it.
#[must_use]
pub fn to_wire(bundle: &TrustBundle) -> WatchBundleResponse {
    WatchBundleResponse {
        trust_domain: bundle.trust_domain().to_string(),
        sequence: bundle.sequence(),
        roots: bundle
            .roots()
            .iter()
            .map(|r| Bytes::copy_from_slice(r.certificate().der()))
            .collect(),
        refresh_hint_seconds: bundle.refresh_hint().map_or(0, |hint| hint.as_secs()),
    }
}

/// A bundle as an agent receives it.
///
/// # Errors
/// A [`WireBundleError`]; one bad root fails the whole bundle (I4).
pub fn from_wire(message: &WatchBundleResponse) -> Result<TrustBundle, WireBundleError> {
    let domain = message
        .trust_domain
        .parse()
        .map_err(|fault| WireBundleError::TrustDomain {
            name: message.trust_domain.clone(),
            fault,
        })?;
    let mut roots = Vec::with_capacity(message.roots.len());
    for (position, der) in message.roots.iter().enumerate() {
        let root = Certificate::from_der(CertificateDer::from(der.to_vec()))
            .map_err(|fault| WireBundleError::Root { position, fault })?;
        roots.push(root);
    }
    let bundle = TrustBundle::new(domain, roots, message.sequence)?;
    Ok(match message.refresh_hint_seconds {
        0 => bundle,
        seconds => bundle.with_refresh_hint(std::time::Duration::from_secs(seconds)),
    })
}
