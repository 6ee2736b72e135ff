//! JWT-SVIDs (JWT-SVID §2–§6): the keys that sign and verify them, minting, validation.
//!
//! JWS compact serialization only. The algorithm is looked at before anything else and must fit the
//! key; headers beyond `alg`, `kid` and `typ` are refused, as are members that stand twice. A token is
//! verified by the `jwt-svid` keys of its subject's own trust domain and by no others.

pub(crate) mod algorithm;
mod authority;
pub(crate) mod compact;
mod facts;
mod key;
mod svid;

use std::time::Duration;

use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::key::KeyError;

pub use authority::{JwtAuthority, JwtProfile};
pub use facts::{Unverified, Validated};
pub use key::{JwtKey, JwtKeyError, MAX_KID_BYTES};
pub use svid::JwtSvid;

/// Largest token read, in bytes: more than any header or metadata limit lets through.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Most audiences one token is minted for. One is what the standard recommends (JWT-SVID §3.2).
pub const MAX_AUDIENCES: usize = 16;
/// Longest audience, in bytes; enough for any URL one would write.
pub const MAX_AUDIENCE_BYTES: usize = 512;
/// How far clocks may be apart: a token counts as valid this long after `exp`, and before `nbf` and
/// `iat`. The standard allows a small leeway (JWT-SVID appendix A).
pub const LEEWAY: Duration = Duration::from_secs(30);
/// Most keys tried for a token without `kid`.
pub(crate) const MAX_TRIALS: usize = 8;

/// Why a token is not accepted, or not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// It is no JWS in compact form.
    #[error("token {0}")]
    Form(#[from] FormFault),
    /// Its header is not one of a JWT-SVID.
    #[error("token header {0}")]
    Header(#[from] HeaderFault),
    /// A claim is missing or wrong, in a token or in what was asked for.
    #[error("{0}")]
    Claim(#[from] ClaimFault),
    /// There is no bundle of its trust domain.
    #[error("no bundle of trust domain {0} is known here, so its tokens are not trusted")]
    UnknownTrustDomain(TrustDomain),
    /// The bundle of its trust domain holds no key of that name, or none that fits.
    #[error("no jwt-svid key of trust domain {domain} fits the token (kid {kid:?})")]
    UnknownKey {
        /// Trust domain of the subject.
        domain: TrustDomain,
        /// What the header says.
        kid: Option<String>,
    },
    /// The signature is not by the key it names.
    #[error("token signature does not verify")]
    Signature,
    /// It is for somebody else.
    #[error("token is not for audience {0:?}")]
    OtherAudience(String),
    /// It is over.
    #[error("token expired {ago_seconds} s ago")]
    Expired {
        /// Seconds since its end.
        ago_seconds: u64,
    },
    /// `nbf` or `iat` lies ahead.
    #[error("token is not valid for another {in_seconds} s; compare this machine's clock with the issuer's")]
    NotYetValid {
        /// Seconds until then.
        in_seconds: u64,
    },
    /// It names somebody else than expected.
    #[error("token is of {found}, expected {expected}")]
    OtherId {
        /// Who was expected.
        expected: SpiffeId,
        /// Whom it names.
        found: SpiffeId,
    },
    /// The key failed to sign.
    #[error("token cannot be signed: {0}")]
    Sign(KeyError),
}

impl JwtError {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Form(_) => "malformed",
            Self::Header(HeaderFault::Algorithm(_) | HeaderFault::NoAlgorithm) => "algorithm",
            Self::Header(_) => "header",
            Self::Claim(_) => "claims",
            Self::UnknownTrustDomain(_) => "unknown_trust_domain",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Signature => "signature",
            Self::OtherAudience(_) => "audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::OtherId { .. } => "other_id",
            Self::Sign(_) => "sign",
        }
    }
}

/// What keeps bytes from being a JWS in compact form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormFault {
    /// Larger than [`MAX_TOKEN_BYTES`].
    #[error("has {0} bytes, at most {MAX_TOKEN_BYTES} are read")]
    TooLarge(usize),
    /// Not three parts: a JWE has five, JSON serialization one.
    #[error("has {0} parts; a JWS in compact form has three")]
    Parts(usize),
    /// A part is not base64url without padding.
    #[error("{0} is not base64url without padding")]
    Base64(&'static str),
    /// A part is not a JSON object, or has a member twice.
    #[error("{part} is not a JSON object with distinct members: {fault}")]
    Json {
        /// Which part.
        part: &'static str,
        /// What the reader says; it quotes nothing of the token.
        fault: String,
    },
}

/// What keeps a header from being one of a JWT-SVID (JWT-SVID §2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// No `alg`, or not a text.
    #[error("has no alg")]
    NoAlgorithm,
    /// An algorithm outside the standard's list.
    #[error("names algorithm {0:?}; RS, ES and PS with SHA-2 are accepted")]
    Algorithm(String),
    /// `typ` is set to something else than `JWT` or `JOSE`.
    #[error("has a typ other than JWT or JOSE")]
    Type,
    /// `kid` is no short text.
    #[error("has a kid that is no text of 1 to {MAX_KID_BYTES} printable bytes")]
    Kid,
    /// A header that no JWT-SVID may have: some would choose the key.
    #[error("has member {0:?}; a JWT-SVID has only alg, kid and typ")]
    Extra(String),
}

/// What is wrong with a claim (JWT-SVID §3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimFault {
    /// Not there.
    #[error("claim {0} is missing")]
    Missing(&'static str),
    /// Of the wrong type or out of range.
    #[error("claim {0} is not of the form the standard asks for")]
    Form(&'static str),
    /// The subject is no SPIFFE ID.
    #[error("claim sub is no SPIFFE ID: {0}")]
    Subject(IdError),
    /// The subject is a trust domain, which is no workload.
    #[error("claim sub names a trust domain, not a workload")]
    TrustDomain,
    /// No audience at all, or an empty one.
    #[error("claim aud names no audience, or an empty one; a token is always for somebody")]
    NoAudience,
    /// More than [`MAX_AUDIENCES`].
    #[error("{0} audiences were asked for, at most {MAX_AUDIENCES} are served")]
    TooManyAudiences(usize),
    /// Longer than [`MAX_AUDIENCE_BYTES`].
    #[error("an audience has {0} bytes, at most {MAX_AUDIENCE_BYTES} are served")]
    AudienceTooLong(usize),
    /// A life of nothing.
    #[error("the life asked for is shorter than a second")]
    Life,
}

/// Whether a token may be asked for with these audiences.
///
/// # Errors
/// A [`ClaimFault`].
pub fn check_audience(audience: &[String]) -> Result<(), ClaimFault> {
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(ClaimFault::NoAudience);
    }
    if audience.len() > MAX_AUDIENCES {
        return Err(ClaimFault::TooManyAudiences(audience.len()));
    }
    match audience.iter().find(|one| one.len() > MAX_AUDIENCE_BYTES) {
        Some(long) => Err(ClaimFault::AudienceTooLong(long.len())),
        None => Ok(()),
    }
}
