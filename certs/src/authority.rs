//! X.509 authorities: a signing key and its CA certificate (X509-SVID §3.2, §4).
//!
//! Ours carry the trust domain's own ID as their one URI name, a subject that is unique to the key,
//! keyCertSign and cRLSign, and path lengths of one (root) and zero (issuing). They carry no name
//! constraints, since rustls peers refuse every chain that does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
use x509_parser::prelude::FromDer;

use crate::bundle::{AuthorityFault, authority_id, check_authority};
use crate::certificate::{Certificate, CertificateError};
use crate::id::TrustDomain;
use crate::issue::{IssueError, Template};
use crate::key::{KeyError, PublicKey, RcgenKey, SigningKey};
use crate::leaf;
use crate::lifetime::{MAX_BACKDATE, minus, plus};

/// Why a key and certificates do not make an authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate is no CA certificate.
    #[error("signing certificate ({subject}) {fault}")]
    NotAnAuthority {
        /// Its subject.
        subject: String,
        /// What it lacks.
        fault: AuthorityFault,
    },
    /// Key and certificate do not belong together.
    #[error("private key does not match the signing certificate ({0})")]
    KeyMismatch(String),
    /// The chain above it is out of order.
    #[error("chain is out of order: {issuer} should follow {subject}")]
    ChainOrder {
        /// Subject of the lower certificate.
        subject: String,
        /// The issuer it names.
        issuer: String,
    },
    /// It may not sign further CA certificates (RFC 5280 §4.2.1.9).
    #[error("its path length does not allow an intermediate below it")]
    PathLength,
    /// Building or signing failed.
    #[error(transparent)]
    Issue(#[from] Box<IssueError>),
}

/// A signing key with its certificate and everything between that and the root.
pub struct Authority {
    issuer: rcgen::Issuer<'static, RcgenKey>,
    certificate: Certificate,
    above: Vec<Certificate>,
    common: leaf::Common,
}

impl Authority {
    /// A fresh self-signed root for `domain`, backdated for clock skew.
    ///
    /// # Errors
    /// [`AuthorityError::Key`] or [`AuthorityError::Issue`].
    pub fn self_signed_root(
        domain: &TrustDomain,
        key: Arc<SigningKey>,
        life: Duration,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let template = Template::authority(domain, "root", key.public_key(), 1, window(life, now));
        let certificate = template
            .self_sign(&RcgenKey::new(Arc::clone(&key)))
            .map_err(Box::new)?;
        Self::new(key, certificate, Vec::new())
    }

    /// Joins a key with its certificate and the intermediates above it, nearest first, without the
    /// root. Checks that they belong together and may sign; whether a bundle accepts them is
    /// [`crate::verify::verify_authority`]'s to say.
    ///
    /// # Errors
    /// An [`AuthorityError`] naming the certificate that does not fit.
    pub fn new(
        key: Arc<SigningKey>,
        certificate: Certificate,
        above: Vec<Certificate>,
    ) -> Result<Self, AuthorityError> {
        for signing in std::iter::once(&certificate).chain(&above) {
            check_authority(signing).map_err(|fault| AuthorityError::NotAnAuthority {
                subject: signing.subject().text(),
                fault,
            })?;
        }
        if certificate.public_key().ok() != Some(key.public_key()) {
            return Err(AuthorityError::KeyMismatch(certificate.subject().text()));
        }
        for (lower, upper) in std::iter::once(&certificate).chain(&above).zip(&above) {
            if lower.issuer().der != upper.subject().der {
                return Err(AuthorityError::ChainOrder {
                    subject: lower.subject().text(),
                    issuer: lower.issuer().text(),
                });
            }
        }
        let common = leaf::Common::new(key.public_key(), certificate.subject_key_id_bytes());
        let issuer = issuer(&certificate, RcgenKey::new(key))?;
        Ok(Self {
            issuer,
            certificate,
            above,
            common,
        })
    }

    /// A fresh issuing authority below this one, for `domain`; its life is cut to this one's end.
    ///
    /// # Errors
    /// [`AuthorityError::PathLength`] when this authority may not sign CA certificates.
    pub fn issue_intermediate(
        &self,
        domain: &TrustDomain,
        key: Arc<SigningKey>,
        life: Duration,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        if !self.may_issue_intermediate() {
            return Err(AuthorityError::PathLength);
        }
        let (not_before, not_after) = window(life, now);
        let validity = (
            not_before.max(self.certificate.not_before()),
            not_after.min(self.not_after()),
        );
        let template = Template::authority(domain, "issuing", key.public_key(), 0, validity);
        let certificate = template.sign(key.public_key(), self).map_err(Box::new)?;
        Self::new(key, certificate, self.presented().cloned().collect())
    }

    /// Whether the path lengths of this certificate and of those above it leave room for one more
    /// intermediate. A root that is not here has its say in [`crate::verify::verify_authority`].
    #[must_use]
    pub fn may_issue_intermediate(&self) -> bool {
        std::iter::once(&self.certificate)
            .chain(&self.above)
            .zip(1..)
            .all(|(signing, below)| {
                signing
                    .constraints()
                    .basic
                    .is_some_and(|b| b.path_len.is_none_or(|most| below <= most))
            })
    }

    /// The signing certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its name in logs and tables.
    #[must_use]
    pub fn id(&self) -> String {
        authority_id(&self.certificate)
    }

    /// What a leaf's holder presents besides the leaf: this certificate and those above it, nearest
    /// first. Empty for a root, which never travels in a chain.
    pub fn presented(&self) -> impl Iterator<Item = &Certificate> {
        let own = (!self.certificate.is_self_issued()).then_some(&self.certificate);
        own.into_iter().chain(&self.above)
    }

    /// The last second in which everything presented is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        let above = self.above.iter().map(Certificate::not_after);
        above.min().map_or(self.certificate.not_after(), |end| {
            end.min(self.certificate.not_after())
        })
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.key().public_key()
    }

    /// The signing key.
    #[must_use]
    pub fn key(&self) -> &Arc<SigningKey> {
        self.issuer.key().key()
    }

    /// What all of its leaves have in common.
    pub(crate) fn common(&self) -> &leaf::Common {
        &self.common
    }

    pub(crate) fn issuer(&self) -> &rcgen::Issuer<'static, RcgenKey> {
        &self.issuer
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, {:?})", self.id(), self.key())
    }
}

/// rcgen's view of an authority, for CA certificates below it. Names that rcgen cannot hold (attributes side by side in one RDN,
/// rare string types) are left empty here, and stand in certificates as [`crate::issue`] writes them.
fn issuer(
    certificate: &Certificate,
    key: RcgenKey,
) -> Result<rcgen::Issuer<'static, RcgenKey>, AuthorityError> {
    let malformed = |what: String| AuthorityError::Certificate(CertificateError::Malformed(what));
    let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(|e| malformed(e.to_string()))?;
    let plain = |string: Tag| matches!(string, Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    let simple = parsed.subject().iter().all(|rdn| {
        rdn.iter().count() == 1 && rdn.iter().all(|attribute| plain(attribute.attr_value().tag()))
    });
    if simple {
        return rcgen::Issuer::from_ca_cert_der(certificate.der(), key).map_err(|e| malformed(e.to_string()));
    }
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Ok(Some(id)) = parsed.get_extension_unique(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)
        && let ParsedExtension::SubjectKeyIdentifier(id) = id.parsed_extension()
    {
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(id.0.to_vec());
    }
    Ok(rcgen::Issuer::new(params, key))
}

/// First and last second of a CA certificate made `now`.
fn window(life: Duration, now: UnixTime) -> (UnixTime, UnixTime) {
    (minus(now, MAX_BACKDATE), plus(now, life))
}
