//! Tokens of other issuers: JSON Web Tokens that end users and services carry in requests (RFC 7519), and the
//! key sets that verify them (RFC 7517).
//!
//! JWS compact serialization only. Which algorithm a token may name is a list; one without a signature and
//! one signed with a shared secret are not on it. What a token must say is decided by its receiver.

mod algorithm;
mod keys;
mod token;

pub use keys::{KeyFault, KeySet, KeySetError, MAX_KEY_SET_BYTES, MAX_KEYS, Skipped};
pub use token::{ClockFault, Token};

use crate::jwt::FormFault;

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFault {
    /// It is no JWS in compact form.
    #[error("token {0}")]
    Form(#[from] FormFault),
    /// No algorithm, or one that is not taken.
    #[error("token header names no algorithm that is taken; RS, PS, ES with SHA-2 and EdDSA are")]
    Algorithm,
    /// The header demands that something be understood which is not.
    #[error("token header has crit, of which nothing is understood here")]
    Critical,
    /// `kid` is no text.
    #[error("token header has a kid that is no short text")]
    Kid,
    /// A claim has the wrong type.
    #[error("claim {0} is not of the form the standard asks for")]
    Claim(&'static str),
    /// It is of another issuer.
    #[error("token is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("token is for none of the audiences")]
    Audience,
    /// It is over.
    #[error("token expired {ago_seconds} s ago")]
    Expired {
        /// Seconds since its end.
        ago_seconds: u64,
    },
    /// Its time has not begun.
    #[error("token is not valid for another {in_seconds} s; compare this machine's clock with the issuer's")]
    NotYetValid {
        /// Seconds until then.
        in_seconds: u64,
    },
    /// The set holds no key of the name that the token gives.
    #[error("the issuer's key set has no key of the token's kid")]
    UnknownKid,
    /// The set holds no key that could have made such a signature.
    #[error("the issuer's key set has no key that fits the token's algorithm")]
    NoKeyFits,
    /// The signature is by none of the keys.
    #[error("token signature does not verify")]
    Signature,
}

impl TokenFault {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Form(_) => "malformed",
            Self::Algorithm => "algorithm",
            Self::Critical | Self::Kid => "header",
            Self::Claim(_) => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::UnknownKid => "unknown_key",
            Self::NoKeyFits => "no_key_fits",
            Self::Signature => "signature",
        }
    }
}

impl From<ClockFault> for TokenFault {
    fn from(fault: ClockFault) -> Self {
        match fault {
            ClockFault::Expired { ago_seconds } => Self::Expired { ago_seconds },
            ClockFault::NotYetValid { in_seconds } => Self::NotYetValid { in_seconds },
        }
    }
}

#[cfg(test)]
mod tests;
