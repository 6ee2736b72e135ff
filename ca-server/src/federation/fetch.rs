//! One GET of a bundle endpoint: TLS by the configured profile, redirects with the same checks, a bounded body, one
//! deadline for all of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use signet_certs::tls::refusal;
use signet_runtime::fetch::{FetchError, Fetcher, Redirects};

use super::url::EndpointUrl;

/// Largest bundle fetched, in bytes. All of them together fit into one message to an agent.
pub const MAX_BODY_BYTES: usize = 96 * 1024;
/// Everything from the name's resolution to the last byte, redirects included.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It does not prove to be who it must be, or speaks no TLS.
    #[error("{host} does not prove to be the configured endpoint: {fault}")]
    Unproven {
        /// Its host.
        host: String,
        /// What our verifier or rustls says.
        fault: String,
    },
    /// Anything else.
    #[error(transparent)]
    Fetch(FetchError),
}

impl From<FetchError> for EndpointError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Tls { host, fault } => Self::Unproven {
                host,
                fault: spoken(&fault),
            },
            other => Self::Fetch(other),
        }
    }
}

/// The body that `url` answers with. The operator names the endpoint, and may name one inside the cluster.
///
/// # Errors
/// An [`EndpointError`].
pub async fn fetch(url: &EndpointUrl, tls: Arc<ClientConfig>) -> Result<Bytes, EndpointError> {
    let fetcher = Fetcher {
        tls,
        permit: Arc::new(|_| true),
        max_body: MAX_BODY_BYTES,
        // All of them are treated as temporary (SPIFFE Federation §5.2.1.4).
        redirects: Redirects::AnyWithTls,
        user_agent: concat!("signet-ca/", env!("CARGO_PKG_VERSION")),
    };
    Ok(fetcher.get(&url.to_string(), DEADLINE).await?)
}

/// Our verifier's own words, where it was the one that refused.
fn spoken(error: &std::io::Error) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls.and_then(refusal) {
        Some(reason) => reason.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
