//! X.509 authorities: what a certificate must be to sign, and one as a root of a bundle.

use rustls_pki_types::TrustAnchor;

use crate::certificate::Certificate;
use crate::id::SpiffeId;

/// What a certificate lacks to be an X.509 authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityFault {
    /// Basic constraints do not say CA.
    #[error("is not a CA certificate")]
    NotCa,
    /// Key usage is present without keyCertSign, or missing.
    #[error("may not sign certificates (keyCertSign is missing)")]
    NoCertSign,
    /// Its SPIFFE ID has a path, or it names several (X509-SVID §3.2).
    #[error("carries a URI name that is not a trust domain's id")]
    UriName,
    /// Its key is weak or of an unknown kind.
    #[error("has a key that is not accepted")]
    Key,
    /// It is signed by another authority, so it belongs in chains, not in a bundle.
    #[error("is an intermediate; a bundle holds roots only")]
    Intermediate,
    /// Extended key usage that lacks one of the two ends of TLS; verifiers hold it against leaves below.
    #[error("has an extended key usage that lacks serverAuth or clientAuth")]
    ExtendedUsage,
    /// A name constraint, which no widely used verifier handles alike (IOP-12 in the notes on peers).
    #[error("carries name constraints, which rustls peers refuse")]
    NameConstraints,
}

/// What every signing certificate, root or intermediate, must be.
///
/// # Errors
/// The first [`AuthorityFault`].
pub fn check_authority(certificate: &Certificate) -> Result<(), AuthorityFault> {
    let constraints = certificate.constraints();
    if !constraints.basic.is_some_and(|b| b.ca) {
        return Err(AuthorityFault::NotCa);
    }
    if !constraints.key_usage.is_some_and(|u| u.key_cert_sign) {
        return Err(AuthorityFault::NoCertSign);
    }
    if constraints.has_name_constraints {
        return Err(AuthorityFault::NameConstraints);
    }
    certificate.public_key().map_err(|_| AuthorityFault::Key)?;
    match certificate.names().uris.as_slice() {
        [] => Ok(()),
        [uri] if uri.parse::<SpiffeId>().map_or(true, |id| id.is_trust_domain()) => Ok(()),
        _ => Err(AuthorityFault::UriName),
    }
}

/// One accepted root.
#[derive(Clone, Debug)]
pub struct Root {
    certificate: Certificate,
    anchor: TrustAnchor<'static>,
}

impl Root {
    /// A certificate that was checked to be a root.
    pub(super) fn of(certificate: Certificate) -> Result<Self, AuthorityFault> {
        let anchor = webpki::anchor_from_trusted_cert(certificate.der())
            .map_err(|_| AuthorityFault::NotCa)?
            .to_owned();
        Ok(Self { certificate, anchor })
    }

    /// The root certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its name in logs and tables: the subject key identifier, or the serial where there is none.
    #[must_use]
    pub fn authority_id(&self) -> String {
        authority_id(&self.certificate)
    }

    pub(crate) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }
}

/// How an authority is called: its subject key identifier in hex, or its serial where there is none.
#[must_use]
pub fn authority_id(certificate: &Certificate) -> String {
    certificate
        .subject_key_id()
        .map_or_else(|| certificate.serial_hex(), str::to_owned)
}
