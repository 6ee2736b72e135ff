//! Issuing: a profile and a public key become a chain. The name comes from the profile, which comes
//! from a permit; nothing of the CSR but its key gets here (I2).
//!
//! What is built is parsed again and checked against the profile before it is returned. The issuing
//! chain itself is verified where authorities change, not per leaf: a verification costs three times
//! a signature.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::authority::Authority;
use crate::certificate::{Certificate, CertificateError};
use crate::der;
use crate::id::{SpiffeId, TrustDomain};
use crate::key::{KeyError, PublicKey, RcgenKey};
use crate::leaf;
use crate::lifetime::{backdate, minus, plus, until};
use crate::serial::{SERIAL_BYTES, Serials};
use crate::svid::{SvidChain, SvidError};

/// 9999-12-31T23:59:59Z, the last second a certificate can name (RFC 5280 §4.1.2.5).
pub(crate) const END_OF_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));

/// Why nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The issuer ends too soon. Ask again: a successor is being put in use.
    #[error("issuing authority {authority} has {left_seconds} s left, less than the shortest lifetime")]
    IssuerEnding {
        /// The authority's name.
        authority: String,
        /// Seconds it has left.
        left_seconds: u64,
    },
    /// A name that cannot stand in a certificate.
    #[error("name {0:?} cannot stand in a certificate")]
    Name(String),
    /// The key cannot be certified, or signing failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The library could not write the certificate.
    #[error("certificate cannot be written: {0}")]
    Write(String),
    /// What was written does not parse as what was meant. A fault of ours; nothing leaves.
    #[error("what was built does not keep its profile: {0}")]
    Profile(String),
}

impl IssueError {
    /// Whether asking again later can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::IssuerEnding { .. })
    }
}

impl From<CertificateError> for IssueError {
    fn from(error: CertificateError) -> Self {
        Self::Profile(error.to_string())
    }
}

impl From<SvidError> for IssueError {
    fn from(error: SvidError) -> Self {
        Self::Profile(error.to_string())
    }
}

/// What a leaf will say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafProfile {
    /// The identity: the leaf's one URI name.
    pub id: SpiffeId,
    /// Lifetime from now; cut to the issuer's end.
    pub ttl: Duration,
    /// The issuer must have at least this much left.
    pub min_left: Duration,
    /// DNS names beside the identity, from configuration only.
    pub dns: Vec<String>,
}

/// Issues one leaf for `key` under `authority` and returns it with what its holder must present:
/// leaf first, without the root. Backdated by [`backdate`].
///
/// # Errors
/// An [`IssueError`]; only [`IssueError::IssuerEnding`] is worth a retry.
pub fn issue(
    profile: &LeafProfile,
    key: &PublicKey,
    authority: &Authority,
    now: UnixTime,
) -> Result<SvidChain, IssueError> {
    let end = authority.not_after();
    let left = until(end, now);
    if left < profile.min_left || left.is_zero() {
        return Err(IssueError::IssuerEnding {
            authority: authority.id(),
            left_seconds: left.as_secs(),
        });
    }
    let not_before = minus(now, backdate(profile.ttl)).max(authority.certificate().not_before());
    let not_after = plus(now, profile.ttl).min(end);
    let leaf = Certificate::from_der(leaf::write(profile, key, authority, (not_before, not_after))?)?;
    check_issuer(&leaf, authority)?;
    check(&leaf, profile, key, (not_before, not_after))?;
    let chain = std::iter::once(leaf)
        .chain(authority.presented().cloned())
        .collect();
    Ok(SvidChain::from_certificates(chain)?)
}

/// Holds the certificate as parsed against the profile as meant. The profile's own rules are checked
/// again when the chain is made.
fn check(
    leaf: &Certificate,
    profile: &LeafProfile,
    key: &PublicKey,
    validity: (UnixTime, UnixTime),
) -> Result<(), IssueError> {
    let names = leaf.names();
    let kept = [
        (
            "id",
            names.uris.iter().map(String::as_str).eq([profile.id.as_str()]),
        ),
        ("dns names", names.dns == profile.dns),
        ("other names", names.others.is_empty()),
        ("key", leaf.public_key() == Ok(key)),
        ("validity", (leaf.not_before(), leaf.not_after()) == validity),
        ("serial", leaf.serial().len() == SERIAL_BYTES),
        (
            "basic constraints",
            leaf.constraints()
                .basic
                .is_some_and(|b| !b.ca && b.path_len.is_none()),
        ),
        (
            "extended key usage",
            leaf.constraints()
                .extended
                .is_some_and(|e| e.server_auth && e.client_auth),
        ),
        (
            "critical extensions",
            leaf.constraints().unknown_critical.is_empty(),
        ),
    ];
    match kept.iter().find(|(_, kept)| !kept) {
        Some((what, _)) => Err(IssueError::Profile((*what).into())),
        None => Ok(()),
    }
}

/// The certificate names `authority` as its issuer, byte for byte, and its key.
fn check_issuer(built: &Certificate, authority: &Authority) -> Result<(), IssueError> {
    let issuer = authority.certificate();
    if built.issuer().der != issuer.subject().der {
        return Err(IssueError::Profile("issuer".into()));
    }
    if issuer.subject_key_id().is_some() && built.authority_key_id() != issuer.subject_key_id() {
        return Err(IssueError::Profile("authority key identifier".into()));
    }
    Ok(())
}

/// Parameters of CA certificates of ours. Leaves are written by [`crate::leaf`].
pub(crate) struct Template {
    pub(crate) params: rcgen::CertificateParams,
}

impl Template {
    /// A CA certificate for `domain`. The subject names the key, so that no two generations share it.
    pub(crate) fn authority(
        domain: &TrustDomain,
        role: &str,
        key: &PublicKey,
        path_len: u8,
        validity: (UnixTime, UnixTime),
    ) -> Self {
        let mut template = Self::new(validity);
        let params = &mut template.params;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(path_len));
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, domain.as_str());
        params.distinguished_name.push(
            rcgen::DnType::CommonName,
            format!("signet {role} {}", key.fingerprint()),
        );
        if let Ok(id) = uri_san(domain.id().as_str()) {
            params.subject_alt_names.push(id);
        }
        template
    }

    pub(crate) fn new((not_before, not_after): (UnixTime, UnixTime)) -> Self {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let (not_before, not_after) = (not_before.min(END_OF_TIME), not_after.min(END_OF_TIME));
        let mut params = rcgen::CertificateParams::default();
        params.not_before = epoch + Duration::from_secs(not_before.as_secs());
        params.not_after = epoch + Duration::from_secs(not_after.as_secs());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        Self { params }
    }

    /// Signs with `authority`, for `key`.
    pub(crate) fn sign(mut self, key: &PublicKey, authority: &Authority) -> Result<Certificate, IssueError> {
        self.params.serial_number = Some(random_serial()?);
        let written = self
            .params
            .signed_by(key, authority.issuer())
            .map_err(|e| IssueError::Write(e.to_string()))?;
        let built = Certificate::from_der(written.der().clone())?;
        let subject = &authority.certificate().subject().der;
        let built = if built.issuer().der == *subject {
            built
        } else {
            reissue(&built, authority)?
        };
        check_issuer(&built, authority)?;
        Ok(built)
    }

    /// Signs with the key being certified: a root.
    pub(crate) fn self_sign(mut self, key: &RcgenKey) -> Result<Certificate, IssueError> {
        self.params.serial_number = Some(random_serial()?);
        self.params.use_authority_key_identifier_extension = false;
        let written = self
            .params
            .self_signed(key)
            .map_err(|e| IssueError::Write(e.to_string()))?;
        Ok(Certificate::from_der(written.der().clone())?)
    }
}

/// rcgen writes an issuer name anew from its parts, which changes names with repeated or unusual
/// attributes (several OU or DC, printable strings). Names are compared byte for byte by verifiers,
/// so the certificate is signed again with the authority's subject as it stands.
fn reissue(built: &Certificate, authority: &Authority) -> Result<Certificate, IssueError> {
    let broken = || IssueError::Write("unexpected certificate layout".into());
    let (_, outer, _) = der::element(built.der()).ok_or_else(broken)?;
    let (_, mut tbs, rest) = der::element(outer).ok_or_else(broken)?;
    let (algorithm, _, _) = der::element(rest).ok_or_else(broken)?;
    let mut parts = Vec::new();
    for place in 0..4 {
        let (whole, _, rest) = der::element(tbs).ok_or_else(broken)?;
        // version, serial, signature, issuer (RFC 5280 §4.1)
        if place == 3 {
            parts.extend_from_slice(&authority.certificate().subject().der);
        } else {
            parts.extend_from_slice(whole);
        }
        tbs = rest;
    }
    parts.extend_from_slice(tbs);
    let tbs = der::wrap(0x30, &parts);
    let signature = authority.key().sign(&tbs)?;
    let bits = der::wrap(0x03, &[&[0], signature.as_slice()].concat());
    let whole = der::wrap(0x30, &[tbs.as_slice(), algorithm, &bits].concat());
    Ok(Certificate::from_der(CertificateDer::from(whole))?)
}

/// A URI name; SPIFFE IDs are ASCII by their grammar.
pub(crate) fn uri_san(uri: &str) -> Result<rcgen::SanType, IssueError> {
    let name = uri
        .to_owned()
        .try_into()
        .map_err(|_| IssueError::Name(uri.into()))?;
    Ok(rcgen::SanType::URI(name))
}

fn random_serial() -> Result<rcgen::SerialNumber, KeyError> {
    Ok(rcgen::SerialNumber::from_slice(&Serials::default().next()?))
}
