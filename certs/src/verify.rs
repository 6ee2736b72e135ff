//! Path validation and peer verification (X509-SVID §5, RFC 5280 §6), with a typed reason on refusal.
//!
//! webpki builds the path; around it stand the checks it leaves to its caller: the leaf's SPIFFE
//! profile, keyCertSign and path lengths on every authority, and the validity of the root. Anchors
//! come from the bundle of the peer's own trust domain and from nowhere else.

mod path;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};

use crate::authority::Authority;
use crate::bundle::{AuthorityFault, BundleSet, Root, TrustBundle, check_authority};
use crate::certificate::Certificate;
use crate::der;
use crate::id::{SpiffeId, TrustDomain};
use crate::profile::{self, LeafFault};
use crate::svid::{MAX_CHAIN, SvidChain, SvidError};

/// Signatures accepted in chains: ECDSA on P-256 and P-384, Ed25519, RSA of 2048 to 8192 bits, all
/// with SHA-2.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Which certificate of a path is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The peer's own.
    Leaf,
    /// One between leaf and root.
    Intermediate,
    /// The root in the bundle.
    Root,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Leaf => "the leaf",
            Self::Intermediate => "an intermediate",
            Self::Root => "the root",
        })
    }
}

/// Why a peer or a chain is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The chain cannot be read, or its leaf is no X509-SVID.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// No bundle for the peer's trust domain.
    #[error("no trust bundle for trust domain {0}")]
    UnknownTrustDomain(TrustDomain),
    /// Not valid any more.
    #[error("{place} expired {ago_seconds} s ago")]
    Expired {
        /// Which certificate.
        place: Place,
        /// Seconds since its last valid one.
        ago_seconds: u64,
    },
    /// Not valid yet. A clock is wrong, here or at the issuer.
    #[error("{place} is not valid for another {in_seconds} s; compare this machine's clock with the CA's")]
    NotYetValid {
        /// Which certificate.
        place: Place,
        /// Seconds until its first valid one.
        in_seconds: u64,
    },
    /// No path to a root of the bundle.
    #[error("no authority in the bundle of {0} signed this chain")]
    UnknownIssuer(TrustDomain),
    /// A signature does not verify.
    #[error("a signature in the chain does not verify")]
    Signature,
    /// A signature algorithm or key that is too weak or unknown.
    #[error("a signature in the chain uses an algorithm or key that is not accepted")]
    WeakSignature,
    /// An authority on the path may not sign.
    #[error("{place} {fault}")]
    Authority {
        /// Which certificate.
        place: Place,
        /// What it lacks.
        fault: AuthorityFault,
    },
    /// More intermediates than an authority allows (RFC 5280 §4.2.1.9).
    #[error("path is longer than an authority on it allows")]
    PathLength,
    /// A critical extension that is not understood (RFC 5280 §4.2).
    #[error("a certificate has a critical extension that is not understood")]
    CriticalExtension,
    /// A certificate that parses here but not by the stricter rules of path validation.
    #[error("a certificate in the chain cannot be used: {0}")]
    Unusable(String),
    /// Finding a path would take more work than a stranger may cause.
    #[error("chain needs more work to verify than is allowed")]
    TooMuchWork,
    /// A valid SVID of someone else.
    #[error("peer is {presented}, expected {expected}")]
    OtherId {
        /// Who was expected.
        expected: Expected,
        /// Who it is.
        presented: SpiffeId,
    },
}

impl From<LeafFault> for VerifyError {
    fn from(fault: LeafFault) -> Self {
        Self::Svid(SvidError::Leaf(fault))
    }
}

/// What the certificate is used for by its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The holder is a TLS server.
    Server,
    /// The holder is a TLS client.
    Client,
}

/// Whom one is ready to meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any verified SVID of any known trust domain.
    Any,
    /// Exactly this identity.
    Id(SpiffeId),
    /// One of these identities.
    AnyOf(std::sync::Arc<[SpiffeId]>),
    /// Any identity of this trust domain.
    Domain(TrustDomain),
}

impl Expected {
    /// Whether `id` is expected.
    ///
    /// # Errors
    /// [`VerifyError::OtherId`] naming both.
    pub fn check(&self, id: &SpiffeId) -> Result<(), VerifyError> {
        let fits = match self {
            Self::Any => true,
            Self::Id(expected) => expected == id,
            Self::AnyOf(expected) => expected.contains(id),
            Self::Domain(domain) => id.is_in(domain),
        };
        if fits {
            return Ok(());
        }
        Err(VerifyError::OtherId {
            expected: self.clone(),
            presented: id.clone(),
        })
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any SVID"),
            Self::Id(id) => id.fmt(f),
            Self::AnyOf(ids) => {
                for (at, id) in ids.iter().enumerate() {
                    let before = if at == 0 { "" } else { " or " };
                    write!(f, "{before}{id}")?;
                }
                Ok(())
            }
            Self::Domain(domain) => write!(f, "an id in {domain}"),
        }
    }
}

/// Verifies what a peer presented: DER, leaf first. The bundle is chosen by the leaf's own ID.
///
/// # Errors
/// A [`VerifyError`].
pub fn verify_peer(
    presented: &[CertificateDer<'_>],
    bundles: &BundleSet,
    role: Role,
    now: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    verify_peer_until(presented, bundles, role, now).map(|verified| verified.id)
}

/// A peer whose chain verified, and how long that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who it is.
    pub id: SpiffeId,
    /// SHA-256 of the leaf.
    pub leaf_sha256: [u8; 32],
    /// The leaf's last valid second.
    pub leaf_not_after: UnixTime,
    /// When it was verified. Nothing is known of the time before.
    pub from: UnixTime,
    /// Until when it holds under the same bundle, whatever path it was found by: nothing that was presented
    /// has ended by then, nor any root that is valid now.
    pub until: UnixTime,
}

/// As [`verify_peer`], with how long it holds.
///
/// # Errors
/// A [`VerifyError`].
pub fn verify_peer_until(
    presented: &[CertificateDer<'_>],
    bundles: &BundleSet,
    role: Role,
    now: UnixTime,
) -> Result<Verified, VerifyError> {
    let chain = peer_chain(presented)?;
    let domain = chain.id().trust_domain();
    let bundle = bundles
        .get(&domain)
        .ok_or(VerifyError::UnknownTrustDomain(domain))?;
    verify_chain(&chain, bundle, role, now)?;
    let roots = bundle.roots().iter().map(|root| root.certificate().not_after());
    let until = roots
        .filter(|end| *end >= now)
        .fold(chain.not_after(), UnixTime::min);
    let leaf = chain.leaf();
    let mut leaf_sha256 = [0; 32];
    let hash = ring::digest::digest(&ring::digest::SHA256, leaf.der());
    leaf_sha256.copy_from_slice(hash.as_ref());
    Ok(Verified {
        id: chain.id().clone(),
        leaf_sha256,
        leaf_not_after: leaf.not_after(),
        from: now,
        until,
    })
}

/// Istio's agents present the root as well; a self-issued certificate at the end is left out. Beyond
/// [`MAX_CHAIN`] nothing is even parsed.
fn peer_chain(presented: &[CertificateDer<'_>]) -> Result<SvidChain, VerifyError> {
    if presented.len() > MAX_CHAIN {
        return Err(SvidError::TooLong(presented.len()).into());
    }
    let mut all = Vec::with_capacity(presented.len());
    for (position, der) in presented.iter().enumerate() {
        let certificate = Certificate::from_der(der.clone().into_owned())
            .map_err(|fault| SvidError::Certificate { position, fault })?;
        all.push(certificate);
    }
    if all.len() > 1 && all.last().is_some_and(Certificate::is_self_issued) {
        all.pop();
    }
    Ok(SvidChain::from_certificates(all)?)
}

/// Verifies a parsed chain against the bundle of its trust domain.
///
/// # Errors
/// A [`VerifyError`]; the leaf's own faults come first.
pub fn verify_chain(
    chain: &SvidChain,
    bundle: &TrustBundle,
    role: Role,
    now: UnixTime,
) -> Result<(), VerifyError> {
    if !chain.id().is_in(bundle.trust_domain()) {
        return Err(VerifyError::UnknownTrustDomain(chain.id().trust_domain()));
    }
    profile::leaf_id(chain.leaf())?;
    check_validity(chain.leaf(), Place::Leaf, now)?;
    path::find_path(chain, bundle, role, now)
}

/// Verifies that an authority's chain ends in `bundle`, as a leaf below it would have to: every
/// certificate it presents is a valid authority with room below it, and the last is signed by a root
/// of the bundle.
///
/// # Errors
/// A [`VerifyError`].
pub fn verify_authority(
    authority: &Authority,
    bundle: &TrustBundle,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let mut last = None;
    for (certificate, below) in authority.presented().zip(0..) {
        check_signer(certificate, Place::Intermediate)?;
        check_both_ends(certificate)?;
        check_validity(certificate, Place::Intermediate, now)?;
        check_path_len(certificate, below)?;
        if let Some((lower, _)) = last {
            check_signature(lower, certificate)?;
        }
        last = Some((certificate, below + 1));
    }
    let own = authority.certificate();
    best_root(bundle, |root| {
        let root = root.certificate();
        match last {
            None if root.der() == own.der() => check_validity(root, Place::Root, now),
            Some((lower, below)) if lower.issuer().der == root.subject().der => {
                check_signature(lower, root)?;
                check_path_len(root, below)?;
                check_validity(root, Place::Root, now)
            }
            _ => Err(VerifyError::UnknownIssuer(bundle.trust_domain().clone())),
        }
    })
}

/// One root that `judge` accepts is enough. Otherwise the reason of the root that came furthest: one
/// with the right name says more than one with another.
fn best_root(
    bundle: &TrustBundle,
    judge: impl Fn(&Root) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let mut best = VerifyError::UnknownIssuer(bundle.trust_domain().clone());
    for root in bundle.roots() {
        match judge(root) {
            Ok(()) => return Ok(()),
            Err(VerifyError::UnknownIssuer(_)) => {}
            Err(VerifyError::Signature) if !matches!(best, VerifyError::UnknownIssuer(_)) => {}
            Err(fault) => best = fault,
        }
    }
    Err(best)
}

/// `lower` carries a signature by `upper`'s key, in one of the algorithms that chains may use.
fn check_signature(lower: &Certificate, upper: &Certificate) -> Result<(), VerifyError> {
    let unreadable = || VerifyError::Unusable("unexpected certificate layout".into());
    let (_, outer, _) = der::element(lower.der()).ok_or_else(unreadable)?;
    let (signed, _, rest) = der::element(outer).ok_or_else(unreadable)?;
    let (_, signature_algorithm, rest) = der::element(rest).ok_or_else(unreadable)?;
    let (_, bits, _) = der::element(rest).ok_or_else(unreadable)?;
    let (_, signature) = bits.split_first().ok_or_else(unreadable)?;
    let key = upper.public_key().map_err(|_| VerifyError::WeakSignature)?;
    let (_, spki, _) = der::element(key.spki_der()).ok_or_else(unreadable)?;
    let (_, key_algorithm, _) = der::element(spki).ok_or_else(unreadable)?;
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.signature_alg_id().as_ref() == signature_algorithm
            && algorithm.public_key_alg_id().as_ref() == key_algorithm
    };
    let algorithm = ALGORITHMS.iter().find(fits).ok_or(VerifyError::WeakSignature)?;
    let key_bits = key.raw_bits();
    algorithm
        .verify_signature(key_bits, signed, signature)
        .map_err(|_| VerifyError::Signature)
}

fn check_validity(certificate: &Certificate, place: Place, now: UnixTime) -> Result<(), VerifyError> {
    if now < certificate.not_before() {
        let in_seconds = certificate.not_before().as_secs() - now.as_secs();
        return Err(VerifyError::NotYetValid { place, in_seconds });
    }
    if now > certificate.not_after() {
        let ago_seconds = now.as_secs() - certificate.not_after().as_secs();
        return Err(VerifyError::Expired { place, ago_seconds });
    }
    Ok(())
}

fn check_signer(certificate: &Certificate, place: Place) -> Result<(), VerifyError> {
    if !certificate.constraints().unknown_critical.is_empty() {
        return Err(VerifyError::CriticalExtension);
    }
    check_authority(certificate).map_err(|fault| VerifyError::Authority { place, fault })
}

/// Extended key usage of a signing certificate, where present, is held against leaves below it.
fn check_both_ends(certificate: &Certificate) -> Result<(), VerifyError> {
    match certificate.constraints().extended {
        Some(usage) if !(usage.server_auth && usage.client_auth) => Err(VerifyError::Authority {
            place: Place::Intermediate,
            fault: AuthorityFault::ExtendedUsage,
        }),
        _ => Ok(()),
    }
}

/// Whether `signer` allows this many intermediates below itself. Self-issued ones count, as they do
/// in webpki.
fn check_path_len(signer: &Certificate, below: u32) -> Result<(), VerifyError> {
    match signer.constraints().basic.and_then(|b| b.path_len) {
        Some(most) if below > most => Err(VerifyError::PathLength),
        _ => Ok(()),
    }
}
