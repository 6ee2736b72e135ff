//! Why an upstream gave no answer.

use std::sync::Arc;

use signet_certs::verify::VerifyError;

use crate::access_log::{Identity, Limit, Reason, Upstream as Fault};
use crate::keys::Trust;
use crate::outbound::DialFailure;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialFailure),
    /// The connection that another request began did not come about, while this one waited for it.
    #[error("{0}")]
    Awaited(Arc<SendFailure>),
    /// As many requests as allowed are under way.
    #[error("{0} has as many requests under way as allowed")]
    Busy(String),
    /// As many of them are of the client's address as it may have.
    #[error("{0} has as many requests of this client's address under way as allowed")]
    Share(String),
    /// The connection or its protocol failed.
    #[error("{address}: {source}")]
    Broken {
        /// Whom.
        address: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// A stream of HTTP/2 failed, or its connection did.
    #[error("{address}: {source}")]
    Stream {
        /// Whom.
        address: String,
        /// What the parser said.
        source: h2::Error,
    },
    /// The connection ended before an answer.
    #[error("{0} closed the connection before it answered")]
    Closed(String),
    /// The bundles no longer vouch for it.
    #[error("{address} is no longer trusted: {fault}")]
    Untrusted {
        /// Whom.
        address: String,
        /// Why.
        fault: VerifyError,
    },
}

impl SendFailure {
    /// Of a connection that broke: by itself, or because we broke it off.
    pub(super) fn broken(address: String, trust: Option<&Trust>, source: hyper::Error) -> Self {
        Self::untrusted(&address, trust).unwrap_or(Self::Broken { address, source })
    }

    /// Of a stream that broke: by itself, or because we broke its connection off.
    pub(super) fn stream(address: String, trust: Option<&Trust>, source: h2::Error) -> Self {
        Self::untrusted(&address, trust).unwrap_or(Self::Stream { address, source })
    }

    fn untrusted(address: &str, trust: Option<&Trust>) -> Option<Self> {
        trust.and_then(Trust::fault).map(|fault| Self::Untrusted {
            address: address.to_owned(),
            fault: fault.clone(),
        })
    }

    /// For records and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial(failure) => failure.reason(),
            Self::Awaited(failure) => failure.reason(),
            Self::Busy(_) => Reason::Upstream(Fault::Busy),
            Self::Share(_) => Reason::Limit(Limit::Source),
            Self::Untrusted { .. } => Reason::Identity(Identity::TrustWithdrawn),
            Self::Broken { source, .. } if source.is_parse() => Reason::Upstream(Fault::BadAnswer),
            Self::Broken { .. } | Self::Stream { .. } | Self::Closed(_) => Reason::Upstream(Fault::Reset),
        }
    }
}
