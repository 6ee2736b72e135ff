//! Trust bundles: the X.509 authorities and `jwt-svid` keys one trust domain accepts now, always kept
//! with its domain.
//!
//! Follows SPIFFE Trust Domain and Bundle §3–§4, X509-SVID §6 and JWT-SVID §6. A bundle holds roots only, never an
//! intermediate. An entry that must be understood and cannot be fails the whole bundle (I4); entries
//! of unknown kinds are skipped, as the standard asks.

mod jwks;
mod root;
mod set;

use std::cmp::Ordering;
use std::time::Duration;

use crate::certificate::{Certificate, CertificateError};
use crate::id::TrustDomain;
use crate::jwt::{JwtKey, JwtKeyError};
pub use root::{AuthorityFault, Root, authority_id, check_authority};
pub use set::BundleSet;

/// Largest bundle document read, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;
/// Most authorities one bundle may hold. A rotation needs two; a merger of companies needs some more.
pub const MAX_AUTHORITIES: usize = 64;
/// Most `jwt-svid` keys one bundle may hold, for the same reason.
pub const MAX_JWT_KEYS: usize = 64;

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
    /// A `jwt-svid` entry that cannot be read.
    #[error("key {position} {fault}")]
    JwtKey {
        /// Index in `keys`.
        position: usize,
        /// What is wrong with it.
        fault: JwtKeyError,
    },
    /// More than [`MAX_JWT_KEYS`].
    #[error("bundle has {0} jwt-svid keys, at most {MAX_JWT_KEYS} are read")]
    TooManyJwtKeys(usize),
    /// Two different `jwt-svid` keys under one name.
    #[error("two jwt-svid keys have the kid {0:?}")]
    SameKid(String),
}

/// What a bundle is next to an earlier one of the same trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// It has a higher sequence, or neither has one and the contents differ.
    Newer,
    /// The same sequence and contents.
    Same,
    /// A lower sequence.
    Older,
    /// The same sequence with other contents: its publisher broke a rule, or there are two of them.
    Conflicting,
}

/// The roots and `jwt-svid` keys of one trust domain, with the number that orders their versions.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Vec<Root>,
    jwt_keys: Vec<JwtKey>,
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
                subject: certificate.subject().text(),
                fault,
            };
            check_authority(&certificate).map_err(refused)?;
            if !certificate.is_self_issued() {
                return Err(refused(AuthorityFault::Intermediate));
            }
            if roots.iter().any(|r| r.certificate().der() == certificate.der()) {
                continue;
            }
            let root = Root::of(certificate.clone()).map_err(refused)?;
            roots.push(root);
        }
        Ok(Self {
            trust_domain,
            roots,
            jwt_keys: Vec::new(),
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

    /// The roots as concatenated PEM, in the bundle's order.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.roots
            .iter()
            .map(|root| root.certificate().to_pem())
            .collect()
    }

    /// With this hint for how soon to ask again.
    #[must_use]
    pub fn with_refresh_hint(mut self, hint: Duration) -> Self {
        self.refresh_hint = Some(hint);
        self
    }

    /// With these `jwt-svid` keys in place of those it had; a key that stands twice is kept once.
    ///
    /// # Errors
    /// [`BundleError::TooManyJwtKeys`] and [`BundleError::SameKid`].
    pub fn with_jwt_keys(mut self, keys: Vec<JwtKey>) -> Result<Self, BundleError> {
        if keys.len() > MAX_JWT_KEYS {
            return Err(BundleError::TooManyJwtKeys(keys.len()));
        }
        self.jwt_keys = Vec::with_capacity(keys.len());
        for key in keys {
            match self.jwt_keys.iter().find(|known| known.kid() == key.kid()) {
                None => self.jwt_keys.push(key),
                Some(known) if *known == key => {}
                Some(_) => return Err(BundleError::SameKid(key.kid().into())),
            }
        }
        Ok(self)
    }

    /// The same contents under another sequence number.
    #[must_use]
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    /// The trust domain whose SVIDs this bundle vouches for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The accepted roots.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The keys that verify JWT-SVIDs of this trust domain; none means it has no JWT-SVIDs.
    #[must_use]
    pub fn jwt_keys(&self) -> &[JwtKey] {
        &self.jwt_keys
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
                .any(|r| r.certificate().der() == root.certificate().der())
        };
        self.roots.len() == other.roots.len() && self.roots.iter().all(|root| holds(other, root))
    }

    /// Whether both hold the same roots and the same `jwt-svid` keys, in whatever order.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.jwt_keys.len() == other.jwt_keys.len()
            && self.jwt_keys.iter().all(|key| other.jwt_keys.contains(key))
            && self.same_roots(other)
    }

    /// What this bundle is next to `current`, an earlier one of the same trust domain (SPIFFE
    /// Federation §4.2): the sequence decides; where neither has one, the one that came last.
    #[must_use]
    pub fn succeeds(&self, current: &Self) -> Succession {
        match self.sequence.cmp(&current.sequence) {
            Ordering::Greater => Succession::Newer,
            Ordering::Less => Succession::Older,
            Ordering::Equal if self.same_content(current) => Succession::Same,
            Ordering::Equal if self.sequence == 0 => Succession::Newer,
            Ordering::Equal => Succession::Conflicting,
        }
    }
}
