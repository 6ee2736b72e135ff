//! Why a request is refused for its tokens, and what it is told (RFC 6750 §3).

use std::fmt;

use signet_certs::jws::TokenFault;
use signet_policy::decision::PolicyName;

use super::keys::Lack;

/// Why a request is refused (401).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// A token is not good, and no other one is.
    #[error("{0}")]
    Invalid(Fault),
    /// Two different tokens are good: whose the request is cannot be told.
    #[error("the request carries two different valid tokens")]
    Ambiguous,
    /// More tokens than are looked at.
    #[error("the request carries more than {} tokens", super::MAX_TOKENS)]
    TooMany,
    /// A RequestAuthentication cannot be read, and has no good version.
    #[error("{0} cannot be read and refuses every token")]
    Faulty(PolicyName),
}

/// What is wrong with a token that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No rule is for it.
    #[error("no rule of this workload is for the token")]
    NoRule,
    /// It breaks a rule.
    #[error("{0}")]
    Token(TokenFault),
    /// Nobody can tell: its issuer's keys are not here.
    #[error("{0}")]
    Keys(Lack),
}

impl Fault {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoRule => "issuer",
            Self::Token(fault) => fault.as_str(),
            Self::Keys(lack) => lack.as_str(),
        }
    }

    /// Of several faults the one that says most: a token of another issuer, or for another audience, is one that the
    /// rule is not for. What a rule with keys found says more than that another one has none.
    pub(super) fn weight(&self) -> u8 {
        match self {
            Self::NoRule => 0,
            Self::Token(TokenFault::Issuer) => 1,
            Self::Token(TokenFault::Audience) => 2,
            Self::Keys(_) => 3,
            Self::Token(TokenFault::UnknownKid | TokenFault::NoKeyFits | TokenFault::Signature) => 4,
            Self::Token(_) => 5,
        }
    }
}

impl TokenRefused {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Invalid(fault) => fault.as_str(),
            Self::Ambiguous => "ambiguous",
            Self::TooMany => "too_many",
            Self::Faulty(_) => "faulty_policy",
        }
    }

    /// The value of `WWW-Authenticate`. It tells no more than that the token is not good.
    #[must_use]
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::Ambiguous | Self::TooMany => "Bearer error=\"invalid_request\"",
            Self::Invalid(_) | Self::Faulty(_) => "Bearer error=\"invalid_token\"",
        }
    }

    /// The body for the client: the reason in a word, without what the token says.
    #[must_use]
    pub fn body(&self) -> impl fmt::Display + use<> {
        Body(self.as_str())
    }
}

struct Body(&'static str);

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token refused: {}", self.0)
    }
}
