//! One parsed certificate: its DER and the facts that issuing, verifying and showing need.
//!
//! Parsing is strict (I1, I4): trailing bytes, repeated extensions and undecodable known extensions
//! fail the whole certificate. Judging the facts is left to [`crate::profile`] and [`crate::verify`].

mod constraints;
mod facts;
mod names;

use std::sync::{Arc, OnceLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::id::{IdError, SpiffeId};
use crate::key::{KeyError, PublicKey, hex};
pub use constraints::{BasicConstraints, Constraints, ExtendedKeyUsage, KeyUsage};
use facts::{Facts, KeyId, facts};
pub use names::Names;
pub(crate) use names::shown;

/// Longest certificate read, in bytes of DER. Ours have about 500; foreign roots seldom reach 4 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// Most names one certificate or request may carry.
pub const MAX_NAMES: usize = 64;

/// Most extensions one certificate may carry; real ones have about ten.
pub const MAX_EXTENSIONS: usize = 64;

/// Why bytes are not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("certificate has {0} bytes, at most {MAX_CERTIFICATE_BYTES} are read")]
    TooLarge(usize),
    /// Not DER, or not X.509.
    #[error("not an x.509 certificate: {0}")]
    Malformed(String),
    /// Bytes after the end.
    #[error("{0} bytes after the certificate")]
    Trailing(usize),
    /// An extension stands twice (RFC 5280 §4.2).
    #[error("extension {0} stands twice")]
    RepeatedExtension(String),
    /// A known extension that cannot be decoded.
    #[error("extension {0} cannot be decoded")]
    BadExtension(String),
    /// More than [`MAX_EXTENSIONS`].
    #[error("{0} extensions, at most {MAX_EXTENSIONS} are read")]
    TooManyExtensions(usize),
    /// More than [`MAX_NAMES`] subject alternative names.
    #[error("{0} subject alternative names, at most {MAX_NAMES} are read")]
    TooManyNames(usize),
    /// A PEM text that holds no certificate, or is broken.
    #[error("no usable CERTIFICATE block in the PEM text: {0}")]
    Pem(String),
}

/// A distinguished name, for comparing and for showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its DER, compared byte for byte.
    pub der: Vec<u8>,
}

impl Name {
    /// Its text, as in `O=cluster.local`; empty for an empty name.
    #[must_use]
    pub fn text(&self) -> String {
        X509Name::from_der(&self.der).map_or_else(|_| String::new(), |(_, name)| name.to_string())
    }
}

/// A parsed certificate with its DER. Clones share both.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    der: CertificateDer<'static>,
    facts: Facts,
    /// Made when first asked for: issuing authorities and roots are sent with every answer.
    pem: OnceLock<String>,
}

impl Certificate {
    /// Reads one DER certificate.
    ///
    /// # Errors
    /// A [`CertificateError`] naming what is wrong.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge(der.len()));
        }
        let parsed = {
            let (rest, cert) =
                X509Certificate::from_der(&der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
            if !rest.is_empty() {
                return Err(CertificateError::Trailing(rest.len()));
            }
            facts(&cert)?
        };
        Ok(Self(Arc::new(Inner {
            der,
            facts: parsed,
            pem: OnceLock::new(),
        })))
    }

    /// Reads every `CERTIFICATE` block of a PEM text, in order. Other blocks are refused: a private
    /// key pasted into a chain file is a mistake worth stopping at.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] when there is none, or the first block's own error.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let mut all = Vec::new();
        for block in <(rustls_pki_types::pem::SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = block.map_err(|e| CertificateError::Pem(e.to_string()))?;
            if kind != rustls_pki_types::pem::SectionKind::Certificate {
                return Err(CertificateError::Pem("it holds another kind of block".into()));
            }
            all.push(Self::from_der(CertificateDer::from(der))?);
        }
        if all.is_empty() {
            let why = if pem.trim_ascii().is_empty() {
                "it is empty"
            } else {
                "it holds no CERTIFICATE block"
            };
            return Err(CertificateError::Pem(why.into()));
        }
        Ok(all)
    }

    /// The certificate's DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// The certificate as one PEM block, newline-terminated.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.pem().to_owned()
    }

    /// As [`Certificate::to_pem`], borrowed.
    #[must_use]
    pub fn pem(&self) -> &str {
        self.0
            .pem
            .get_or_init(|| crate::der::pem("CERTIFICATE", &self.0.der))
    }

    /// The serial number, big-endian, as it stands in the certificate.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.0.facts.serial
    }

    /// The serial number in lower-case hex.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        hex(&self.0.facts.serial)
    }

    /// First second of validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.0.facts.validity.0
    }

    /// Last second of validity.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.0.facts.validity.1
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.0.facts.subject
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.0.facts.issuer
    }

    /// Whether subject and issuer are the same name. Says nothing about the signature.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.0.facts.subject.der == self.0.facts.issuer.der
    }

    /// The public key, or why it is not accepted.
    ///
    /// # Errors
    /// The [`KeyError`] that judging the key gave.
    pub fn public_key(&self) -> Result<&PublicKey, &KeyError> {
        self.0.facts.public_key.as_ref()
    }

    /// Subject alternative names.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.0.facts.names
    }

    /// The one URI name read as a SPIFFE ID, or what is wrong with it; nothing when there is not exactly
    /// one.
    pub(crate) fn uri_id(&self) -> Option<&Result<SpiffeId, IdError>> {
        self.0.facts.id.as_ref()
    }

    /// What the key is for.
    #[must_use]
    pub fn constraints(&self) -> &Constraints {
        &self.0.facts.constraints
    }

    /// Subject key identifier in hex, if present: how an authority is named in logs.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&str> {
        self.0.facts.key_ids.0.as_ref().map(KeyId::hex)
    }

    /// Subject key identifier as it stands in the certificate.
    pub(crate) fn subject_key_id_bytes(&self) -> Option<&[u8]> {
        self.0.facts.key_ids.0.as_ref().map(|id| &*id.bytes)
    }

    /// Authority key identifier in hex, if present.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&str> {
        self.0.facts.key_ids.1.as_ref().map(KeyId::hex)
    }

    /// Dotted OID of the signature algorithm.
    #[must_use]
    pub fn signature_algorithm(&self) -> &str {
        &self.0.facts.signature_algorithm
    }
}
