//! What is enforced now. One writer, the policy source; many readers.

use std::sync::Arc;

use signet_policy::InForce;
use signet_policy::model::Mode;
use signet_proto::policy::Ports;
use tokio::sync::watch;

use crate::access_log::{Reason, Tls};
use crate::config::Protocol;
use crate::connection::{Accepted, Direction, Security};

use crate::jwt::KeySets;
use crate::spoken;

/// One snapshot of what is enforced.
#[derive(Debug)]
pub struct Enforced {
    /// Policies, modes and token rules.
    pub in_force: InForce,
    /// The keys of the token rules.
    pub keys: Arc<KeySets>,
    /// What is spoken on the workload's ports, as far as the source knows.
    pub ports: Ports,
    /// The snapshot's version, as its source counts.
    pub version: String,
}

/// A connection is open that could not be opened any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection has no mutual TLS, and by now it is demanded")]
pub struct Unmet;

impl Unmet {
    /// For records and metrics.
    #[must_use]
    pub fn reason(self) -> Reason {
        Reason::Tls(Tls::PlaintextRefused)
    }
}

impl Enforced {
    /// What is spoken on a port of the workload; nothing where the source does not know.
    #[must_use]
    pub fn protocol(&self, port: u16) -> Option<Protocol> {
        spoken::told(&self.ports, port)
    }

    /// Whether a connection may be on its port: what STRICT demands of new connections, it demands of open ones too.
    ///
    /// # Errors
    /// [`Unmet`].
    pub fn meets(&self, accepted: &Accepted) -> Result<(), Unmet> {
        let inbound = accepted.direction == Direction::Inbound;
        let strict = inbound && self.in_force.peers.mode(accepted.port) == Mode::Strict;
        if strict && !matches!(accepted.security, Security::Mutual(_)) {
            return Err(Unmet);
        }
        Ok(())
    }
}

/// Where readers find the snapshot in force. Clones see the same.
#[derive(Clone, Debug)]
pub struct Policies(watch::Receiver<Option<Arc<Enforced>>>);

impl Policies {
    /// Of a source. Nothing in it means that there was no snapshot yet.
    #[must_use]
    pub fn new(source: watch::Receiver<Option<Arc<Enforced>>>) -> Self {
        Self(source)
    }

    /// What is enforced now; nothing before the first snapshot, and then nobody is let pass.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Enforced>> {
        self.0.borrow().clone()
    }

    /// Whether `enforced` is what is enforced now.
    #[must_use]
    pub fn is_current(&self, enforced: &Arc<Enforced>) -> bool {
        self.0
            .borrow()
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, enforced))
    }

    /// Whether something is enforced that this reader has not seen.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// What is enforced now, to be followed by [`Self::changed`].
    #[must_use]
    pub fn seen(&mut self) -> Option<Arc<Enforced>> {
        self.0.borrow_and_update().clone()
    }

    /// Waits for a snapshot that this reader has not seen. When its source is gone, waits forever: what
    /// was enforced last stays in force.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
