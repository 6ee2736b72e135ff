//! SVID chains as issued, and an SVID with its key as its holder keeps it (X509-SVID §2, §3).

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::{Certificate, CertificateError};
use crate::id::SpiffeId;
use crate::key::SigningKey;
use crate::profile::{self, LeafFault};

/// Most certificates in a chain: leaf, and more intermediates than anyone runs. SDKs refuse above 16.
pub const MAX_CHAIN: usize = 10;

/// Why certificates do not make an SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate at all.
    #[error("chain is empty")]
    Empty,
    /// More than [`MAX_CHAIN`].
    #[error("chain has {0} certificates, at most {MAX_CHAIN} are read")]
    TooLong(usize),
    /// A certificate that cannot be read.
    #[error("certificate {position} of the chain: {fault}")]
    Certificate {
        /// Its place, the leaf being 0.
        position: usize,
        /// What is wrong with it.
        fault: CertificateError,
    },
    /// The leaf breaks the X509-SVID profile.
    #[error("leaf is no X509-SVID: {0}")]
    Leaf(#[from] LeafFault),
    /// Key and leaf do not belong together.
    #[error("private key does not match the leaf's public key")]
    KeyMismatch,
}

/// A chain, leaf first, without the root. Its leaf keeps every rule of the X509-SVID profile.
#[derive(Clone, Debug)]
pub struct SvidChain {
    id: SpiffeId,
    leaf: Certificate,
    intermediates: Vec<Certificate>,
}

impl SvidChain {
    /// Parses and checks a chain of DER certificates, leaf first.
    ///
    /// # Errors
    /// A [`SvidError`] with the certificate's place.
    pub fn from_der(chain: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        if chain.len() > MAX_CHAIN {
            return Err(SvidError::TooLong(chain.len()));
        }
        let parsed: Result<Vec<_>, _> = chain
            .into_iter()
            .enumerate()
            .map(|(position, der)| {
                Certificate::from_der(der).map_err(|fault| SvidError::Certificate { position, fault })
            })
            .collect();
        Self::from_certificates(parsed?)
    }

    /// As [`SvidChain::from_der`], from PEM text.
    ///
    /// # Errors
    /// A [`SvidError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SvidError> {
        let all =
            Certificate::all_from_pem(pem).map_err(|fault| SvidError::Certificate { position: 0, fault })?;
        Self::from_certificates(all)
    }

    /// From certificates already parsed, leaf first.
    ///
    /// # Errors
    /// A [`SvidError`].
    pub fn from_certificates(mut all: Vec<Certificate>) -> Result<Self, SvidError> {
        if all.len() > MAX_CHAIN {
            return Err(SvidError::TooLong(all.len()));
        }
        if all.is_empty() {
            return Err(SvidError::Empty);
        }
        let intermediates = all.split_off(1);
        let leaf = all.pop().ok_or(SvidError::Empty)?;
        let id = profile::leaf_id(&leaf)?;
        Ok(Self {
            id,
            leaf,
            intermediates,
        })
    }

    /// The identity.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The leaf.
    #[must_use]
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// What stands between leaf and root, nearest to the leaf first.
    #[must_use]
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// First second of the leaf's validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.leaf.not_before()
    }

    /// Last second in which the whole chain is valid: the leaf's end, or an intermediate's if sooner.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.certificates()
            .map(Certificate::not_after)
            .min()
            .unwrap_or(self.leaf.not_after())
    }

    /// Serial of the leaf in hex.
    #[must_use]
    pub fn serial(&self) -> String {
        self.leaf.serial_hex()
    }

    /// All certificates, leaf first.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.intermediates)
    }

    /// All certificates as DER, leaf first.
    #[must_use]
    pub fn to_der(&self) -> Vec<CertificateDer<'static>> {
        self.certificates().map(|c| c.der().clone()).collect()
    }

    /// One PEM text, leaf first, each block newline-terminated.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificates().map(Certificate::to_pem).collect()
    }
}

/// A chain with its private key. Keys are shared by pointer, never copied.
#[derive(Clone)]
pub struct X509Svid {
    chain: SvidChain,
    key: Arc<SigningKey>,
}

impl X509Svid {
    /// Joins a chain and the key its leaf certifies.
    ///
    /// # Errors
    /// [`SvidError::KeyMismatch`] when they do not belong together.
    pub fn new(chain: SvidChain, key: Arc<SigningKey>) -> Result<Self, SvidError> {
        match chain.leaf.public_key() {
            Ok(public) if public == key.public_key() => Ok(Self { chain, key }),
            _ => Err(SvidError::KeyMismatch),
        }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &SvidChain {
        &self.chain
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Arc<SigningKey> {
        &self.key
    }

    /// The identity.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.chain.id
    }

    /// For rustls: chain and key together.
    #[must_use]
    pub fn certified_key(&self) -> Arc<rustls::sign::CertifiedKey> {
        Arc::new(rustls::sign::CertifiedKey::new(
            self.chain.to_der(),
            self.key.for_rustls(),
        ))
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "X509Svid({}, serial {}, {:?})",
            self.chain.id,
            self.chain.serial(),
            self.key
        )
    }
}
