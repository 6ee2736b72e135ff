//! What every connection needs, made once.

use std::sync::Arc;

use signet_runtime::Clock;
use tokio_util::sync::CancellationToken;

use crate::access_log::{Limit, Policy, Reason};
use crate::config::Config;
use crate::connection::{Accepted, Direction};
use crate::connections::Connections;
use crate::enforced::Policies;
use crate::ext_authz::Asker;
use crate::ext_authz::answer::Answer;
use crate::handshake::Acceptor;
use crate::http::pool::Pools;
use crate::jwt::Tokens;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::outbound::Dialer;

/// Shared by all connections of the process.
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// What is enforced now.
    pub policies: Policies,
    /// Our SVID and the bundles.
    pub keys: Keys,
    /// TLS of clients.
    pub acceptor: Acceptor,
    /// The downstream connections that are open.
    pub connections: Connections,
    /// Connections to upstreams.
    pub dialer: Dialer,
    /// Connections that wait for HTTP requests.
    pub http: Pools,
    /// What asks the providers of CUSTOM policies.
    pub asker: Asker,
    /// What judges tokens.
    pub tokens: Tokens,
    /// The metrics.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Given when no new work is taken, and what is under way should end.
    pub drain: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// A connection had to make room for what others have waiting. Counted, not recorded: a flood must not become a
    /// flood of records.
    pub fn crowded(&self, direction: Direction) {
        let reason = Reason::Limit(Limit::Waiting);
        self.metrics.ended(direction, reason);
        if let Some(left_out) = self.connections.to_be_said(reason.as_str()) {
            tracing::warn!(
                direction = direction.as_str(),
                reason = reason.as_str(),
                left_out,
                "connection made room for what others have waiting to be read"
            );
        }
    }

    /// Asks an external authorizer about a connection without requests.
    ///
    /// # Errors
    /// Why it did not say yes.
    pub async fn ask_about_connection(
        &self,
        provider: &str,
        accepted: &Accepted,
    ) -> Result<(), (Reason, String)> {
        match self.asker.ask(provider, accepted, None).await {
            Answer::Allowed(_) => Ok(()),
            Answer::Denied(_) => Err((
                Reason::Policy(Policy::ProviderRefused),
                format!("provider {provider} did not allow it"),
            )),
            Answer::Failed(failure) => Err((
                Reason::Policy(Policy::ProviderFailed),
                format!("provider {provider}: {failure}"),
            )),
        }
    }
}
