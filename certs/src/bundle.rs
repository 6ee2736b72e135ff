//! Trust bundles: the X.509 authorities one trust domain accepts now, always kept with its domain.
//!
//! Follows SPIFFE Trust Domain and Bundle §3–§4 and X509-SVID §6. A bundle holds roots only, never an
//! intermediate. An entry that must be understood and cannot be fails the whole bundle (I4); entries
//! of unknown kinds are skipped, as the standard asks.

mod jwks;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{Certificate, CertificateError};
use crate::id::{SpiffeId, TrustDomain};
use jwks::{Jwk, JwkSet, ReadSet};

/// Largest bundle document read, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;
/// Most authorities one bundle may hold. A rotation needs two; a merger of companies needs some more.
pub const MAX_AUTHORITIES: usize = 64;

/// Why a bundle is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Larger than [`MAX_BUNDLE_BYTES`].
    #[error("bundle has {0} bytes, at most {MAX_BUNDLE_BYTES} are read")]
    TooLarge(usize),
    /// More than [`MAX_AUTHORITIES`].
    #[error("bundle has {0} authorities, at most {MAX_AUTHORITIES} are read")]
    TooMany(usize),
    /// Not a JWK set with the members the standard asks for.
    #[error("bundle is not a SPIFFE JWK set: {0}")]
    Json(String),
    /// The `x5c` value is not standard base64.
    #[error("key {position}: x5c is not base64 of a certificate")]
    X5c {
        /// Index in `keys`.
        position: usize,
    },
    /// A certificate that cannot be read.
    #[error("authority {position}: {fault}")]
    Certificate {
        /// Its place in the document.
        position: usize,
        /// What is wrong with it.
        fault: CertificateError,
    },
    /// A certificate that is no CA certificate.
    #[error("authority {position} ({subject}) {fault}")]
    NotAnAuthority {
        /// Its place in the document.
        position: usize,
        /// Its subject.
        subject: String,
        /// What it lacks.
        fault: AuthorityFault,
    },
}

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

/// The roots of one trust domain, with the number that orders its versions.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Vec<Root>,
    sequence: u64,
    refresh_hint: Option<Duration>,
}

impl TrustBundle {
    /// From parsed root certificates. Duplicates are dropped; none at all is legal and trusts nobody.
    ///
    /// # Errors
    /// [`BundleError::NotAnAuthority`] and [`BundleError::TooMany`].
    pub fn new(
        trust_domain: TrustDomain,
        certificates: Vec<Certificate>,
        sequence: u64,
    ) -> Result<Self, BundleError> {
        if certificates.len() > MAX_AUTHORITIES {
            return Err(BundleError::TooMany(certificates.len()));
        }
        let mut roots: Vec<Root> = Vec::with_capacity(certificates.len());
        for (position, certificate) in certificates.into_iter().enumerate() {
            let refused = |fault| BundleError::NotAnAuthority {
                position,
                subject: certificate.subject().text.clone(),
                fault,
            };
            check_authority(&certificate).map_err(refused)?;
            if !certificate.is_self_issued() {
                return Err(refused(AuthorityFault::Intermediate));
            }
            if roots.iter().any(|r| r.certificate.der() == certificate.der()) {
                continue;
            }
            let anchor = webpki::anchor_from_trusted_cert(certificate.der())
                .map_err(|_| refused(AuthorityFault::NotCa))?
                .to_owned();
            roots.push(Root { certificate, anchor });
        }
        Ok(Self {
            trust_domain,
            roots,
            sequence,
            refresh_hint: None,
        })
    }

    /// From concatenated PEM certificates.
    ///
    /// # Errors
    /// A [`BundleError`]; one bad block fails the whole bundle.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8], sequence: u64) -> Result<Self, BundleError> {
        if pem.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge(pem.len()));
        }
        let all = Certificate::all_from_pem(pem)
            .map_err(|fault| BundleError::Certificate { position: 0, fault })?;
        Self::new(trust_domain, all, sequence)
    }

    /// From a SPIFFE JWK set (SPIFFE Trust Domain and Bundle §4). Without `spiffe_sequence` the
    /// sequence is 0.
    ///
    /// # Errors
    /// A [`BundleError`]. Entries of unknown `kty` or `use`, and those without `x5c`, are skipped.
    pub fn from_jwks(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge(json.len()));
        }
        let set: ReadSet = serde_json::from_slice(json).map_err(|e| BundleError::Json(e.to_string()))?;
        let mut certificates = Vec::new();
        for (position, key) in set.keys.iter().enumerate() {
            let Some(x5c) = key.x5c() else { continue };
            let der = x5c
                .as_str()
                .and_then(|text| STANDARD.decode(text).ok())
                .ok_or(BundleError::X5c { position })?;
            let certificate = Certificate::from_der(CertificateDer::from(der))
                .map_err(|fault| BundleError::Certificate { position, fault })?;
            certificates.push(certificate);
        }
        let mut bundle = Self::new(trust_domain, certificates, set.spiffe_sequence.unwrap_or(0))?;
        bundle.refresh_hint = set.spiffe_refresh_hint.map(Duration::from_secs);
        Ok(bundle)
    }

    /// The SPIFFE JWK set of this bundle: `use` is `x509-svid`, no `kid`, one certificate in `x5c`.
    #[must_use]
    pub fn to_jwks(&self) -> String {
        let keys = self
            .roots
            .iter()
            .map(|root| Jwk::from_certificate(&root.certificate))
            .collect();
        let set = JwkSet {
            keys,
            spiffe_sequence: self.sequence,
            spiffe_refresh_hint: self.refresh_hint.map(|hint| hint.as_secs()),
        };
        serde_json::to_string(&set).unwrap_or_default()
    }

    /// The roots as concatenated PEM, in the bundle's order.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(|root| root.certificate.to_pem()).collect()
    }

    /// With this hint for how soon to ask again.
    #[must_use]
    pub fn with_refresh_hint(mut self, hint: Duration) -> Self {
        self.refresh_hint = Some(hint);
        self
    }

    /// The same roots under another sequence number.
    #[must_use]
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    /// The trust domain whose SVIDs these roots vouch for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The accepted roots.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Rises with every change of content.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How soon to ask again, if the publisher said so.
    #[must_use]
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// Whether both hold the same roots, in whatever order.
    #[must_use]
    pub fn same_roots(&self, other: &Self) -> bool {
        let holds = |bundle: &Self, root: &Root| {
            bundle
                .roots
                .iter()
                .any(|r| r.certificate.der() == root.certificate.der())
        };
        self.roots.len() == other.roots.len() && self.roots.iter().all(|root| holds(other, root))
    }
}

/// The newest bundle of each trust domain. Domains are never pooled: a peer is verified against the
/// bundle of its own domain alone (SPIFFE Trust Domain and Bundle §3).
#[derive(Clone, Debug, Default)]
pub struct BundleSet {
    bundles: HashMap<TrustDomain, Arc<TrustBundle>>,
}

impl BundleSet {
    /// A set of one.
    #[must_use]
    pub fn of(bundle: Arc<TrustBundle>) -> Self {
        let mut set = Self::default();
        set.insert(bundle);
        set
    }

    /// Adds a bundle or replaces its domain's.
    pub fn insert(&mut self, bundle: Arc<TrustBundle>) {
        self.bundles.insert(bundle.trust_domain.clone(), bundle);
    }

    /// The bundle of `domain`.
    #[must_use]
    pub fn get(&self, domain: &TrustDomain) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(domain)
    }

    /// All bundles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.bundles.values()
    }
}
