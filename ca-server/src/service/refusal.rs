//! Why a request gets no chain, and what of that the caller is told: a code to act on, and no more than
//! its own facts.

use std::time::Duration;

use signet_certs::csr::CsrError;
use signet_certs::issue::IssueError;
use signet_policy::Denied;
use signet_proto::issue::IssueRequestError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::authn::AuthnError;
use crate::authorizer::AuthorizeError;
use crate::pod_lookup::LookupError;
use crate::serve::MessageError;

/// Callers that are told to come back are told to wait this long, spread by their own backoff.
const PUSHBACK: Duration = Duration::from_millis(500);

/// Why a request was not answered with a chain: one variant per step.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Unreadable(#[from] MessageError),
    #[error("not answered in time")]
    Late,
    #[error(transparent)]
    Malformed(#[from] IssueRequestError),
    #[error("too many requests under way")]
    Overloaded,
    #[error(transparent)]
    Unauthenticated(#[from] AuthnError),
    #[error(transparent)]
    Unauthorized(#[from] AuthorizeError),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Refusal {
    /// A stable word for metrics and audit.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Unreadable(e) => e.as_str(),
            Self::Late => "deadline",
            Self::Malformed(_) => "malformed",
            Self::Overloaded => "overloaded",
            Self::Unauthenticated(e) => e.as_str(),
            Self::Unauthorized(e) => e.as_str(),
            Self::Csr(CsrError::OtherName { .. }) => "csr_other_name",
            Self::Csr(_) => "csr_malformed",
            Self::Issue(e) if e.is_transient() => "issuer_ending",
            Self::Issue(_) => "issue_failed",
        }
    }

    /// Whether it came before the caller was known.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        matches!(
            self,
            Self::Unreadable(_)
                | Self::Late
                | Self::Malformed(_)
                | Self::Overloaded
                | Self::Unauthenticated(_)
        )
    }

    /// What a stranger is told: a code, and a sentence that helps its owner without telling secrets.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Unreadable(e) => e.status(),
            Self::Late => Status::deadline_exceeded("the call was not finished in time"),
            Self::Malformed(e) => Status::invalid_argument(e.to_string()),
            Self::Csr(e) => Status::invalid_argument(e.to_string()),
            Self::Overloaded => pushback("the CA is busy; try again shortly"),
            Self::Unauthenticated(e) => unauthenticated(e),
            Self::Unauthorized(e) => unauthorized(e),
            Self::Issue(e) if e.is_transient() => {
                Status::unavailable("the issuing authority is about to be replaced; try again")
            }
            Self::Issue(_) => Status::internal("the certificate could not be made; the CA's log tells why"),
        }
    }
}

/// What somebody who did not authenticate is told: nothing of why the token failed.
pub(crate) fn unauthenticated(error: &AuthnError) -> Status {
    match error {
        AuthnError::Overloaded => pushback("the CA is busy; try again shortly"),
        AuthnError::Unavailable(_) => {
            Status::unavailable("the API server cannot be asked about the token; try again")
        }
        _ => Status::unauthenticated(
            "request authenticate failure: the token was not accepted; `signet token check` tells why",
        ),
    }
}

/// A node that is refused learns that it was, not why: the reasons tell what runs elsewhere.
pub(crate) fn unauthorized(error: &AuthorizeError) -> Status {
    match error {
        AuthorizeError::Denied(Denied::ImpersonationDisabled { .. }) => {
            Status::unauthenticated("impersonation is not enabled on this CA; ask for your own identity")
        }
        AuthorizeError::Denied(Denied::CertificateDisagrees { .. }) => {
            Status::unauthenticated("client certificate and token name different identities")
        }
        AuthorizeError::Denied(_) => Status::unauthenticated(
            "request impersonation authentication failure: not an identity for this node; the CA's log tells why",
        ),
        AuthorizeError::Lookup(LookupError::Unavailable(_)) => {
            Status::unavailable("the API server cannot be asked what runs on this node; try again")
        }
        AuthorizeError::Lookup(_) => pushback("the CA has asked too much about this node; try again shortly"),
    }
}

/// `RESOURCE_EXHAUSTED` with the hint gRPC clients honour (gRFC A6).
pub(crate) fn pushback(text: &str) -> Status {
    let mut status = Status::new(Code::ResourceExhausted, text);
    let hint = MetadataValue::from(u64::try_from(PUSHBACK.as_millis()).unwrap_or(1_000));
    status.metadata_mut().insert("grpc-retry-pushback-ms", hint);
    status
}

#[cfg(test)]
mod tests;
