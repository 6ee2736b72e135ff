//! What one workload may see: its own identities and the bundles, and nothing of anybody else.

use std::sync::Arc;

use futures::future::select_all;
use signet_certs::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::shelves::{Shelves, Whose};
use super::trust::Trust;
use super::verified::Verified;
use crate::status::Status;

/// One identity that a workload may have.
#[derive(Clone, Debug)]
pub struct Held {
    /// The identity.
    pub id: SpiffeId,
    /// What tells it from the workload's other identities, if configured.
    pub hint: Option<String>,
    /// The SVID, once there is one.
    pub verified: Option<Verified>,
    /// How its keeping goes.
    pub status: Arc<Status>,
}

impl Held {
    /// Why there is no SVID, as far as is known.
    #[must_use]
    pub fn cause(&self) -> String {
        self.status.cause()
    }
}

/// What a workload sees at one moment. Every SVID in it verified under the bundle in it.
#[derive(Debug)]
pub struct Seen {
    /// Our trust domain.
    pub domain: TrustDomain,
    /// The workload's identities in their order, the first being the default. Empty only while the agent
    /// does not know its own name.
    pub svids: Vec<Held>,
    /// The bundles in force.
    pub trust: Arc<Trust>,
    nameless: Option<Arc<Status>>,
}

impl Seen {
    /// Of these parts.
    #[must_use]
    pub fn new(domain: TrustDomain, svids: Vec<Held>, trust: Arc<Trust>) -> Self {
        Self {
            domain,
            svids,
            trust,
            nameless: None,
        }
    }

    /// With one identity more, whose name is not known yet.
    #[must_use]
    pub(super) fn with_nameless(mut self, status: Arc<Status>) -> Self {
        self.nameless = Some(status);
        self
    }

    /// The default identity.
    #[must_use]
    pub fn default_svid(&self) -> Option<&Held> {
        self.svids.first()
    }

    /// Why something is missing, as far as is known.
    #[must_use]
    pub fn cause(&self) -> String {
        let lacking = self.svids.iter().find(|held| held.verified.is_none());
        match (lacking.map(|held| &held.status), &self.nameless) {
            (Some(status), _) | (None, Some(status)) => status.cause(),
            (None, None) => "the CA has sent no bundle yet".into(),
        }
    }
}

/// One identity looked at, and the bell that rings when it changes.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) whose: Whose,
    pub(super) hint: Option<String>,
    pub(super) bell: watch::Receiver<()>,
}

/// What one workload may see, as it changes.
#[derive(Debug)]
pub struct View {
    shelves: Shelves,
    wishes: Vec<Wish>,
    trust_bell: watch::Receiver<()>,
}

impl View {
    pub(super) fn new(shelves: Shelves, wishes: Vec<Wish>, trust_bell: watch::Receiver<()>) -> Self {
        Self {
            shelves,
            wishes,
            trust_bell,
        }
    }

    /// What is seen now.
    #[must_use]
    pub fn current(&self) -> Arc<Seen> {
        Arc::new(self.shelves.seen(&self.wishes))
    }

    /// Waits until something in sight has changed since this was last waited for. Nothing is lost when
    /// the wait is given up. A change of somebody else's identity wakes nobody here.
    pub async fn changed(&mut self) {
        let trust = self.trust_bell.changed();
        // The shelves, which hold the bells, live as long as this view; so no bell is ever gone.
        match self.wishes.as_mut_slice() {
            [] => {
                let _ = trust.await;
            }
            [one] => tokio::select! {
                _ = trust => {}
                _ = one.bell.changed() => {}
            },
            many => {
                let bells = many.iter_mut().map(|wish| Box::pin(wish.bell.changed()));
                tokio::select! {
                    _ = trust => {}
                    _ = select_all(bells) => {}
                }
            }
        }
    }
}
