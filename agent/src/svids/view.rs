//! What one workload may see: its own identities and the bundles, and nothing of anybody else.

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use signet_certs::{SpiffeId, TrustDomain};
use signet_runtime::backoff::random_share;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shelves::{Shelves, Whose};
use super::trust::Trust;
use super::verified::Verified;
use crate::status::Status;

/// Over how long a change of the bundles alone is spread, for each that looks (SPIFFE_Workload_API §4.3): every
/// client of the node verifies anew all it trusts, and all of them share its cores.
const SPREAD_EACH: Duration = Duration::from_millis(1);
/// Over how long at most.
pub const SPREAD: Duration = Duration::from_secs(1);

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
    /// Whether there were bundles when it was looked last; who waits for the first is not kept waiting.
    trusting: bool,
    /// When a change of the bundles is to be heard.
    trust_at: Option<Instant>,
}

impl View {
    pub(super) fn new(shelves: Shelves, wishes: Vec<Wish>, trust_bell: watch::Receiver<()>) -> Self {
        Self {
            trusting: shelves.trust().own().is_some(),
            shelves,
            wishes,
            trust_bell,
            trust_at: None,
        }
    }

    /// What is seen now.
    #[must_use]
    pub fn current(&self) -> Arc<Seen> {
        Arc::new(self.shelves.seen(&self.wishes))
    }

    /// Waits until something in sight has changed since this was last waited for. Nothing is lost when
    /// the wait is given up. A change of somebody else's identity wakes nobody here, one of the workload's own
    /// identities at once, and one of the bundles all, within [`SPREAD`].
    pub async fn changed(&mut self) {
        loop {
            let trust_at = self.trust_at;
            tokio::select! {
                biased;
                () = any_of(&mut self.wishes) => break,
                // The shelves, which hold the bells, live as long as this view; so no bell is ever gone.
                _ = self.trust_bell.changed(), if trust_at.is_none() => {
                    if !std::mem::replace(&mut self.trusting, true) {
                        break;
                    }
                    self.trust_at = Some(Instant::now() + self.shelves.spread().mul_f64(random_share()));
                }
                () = at(trust_at) => break,
            }
        }
        // Whatever is seen now is seen with the newest bundles.
        self.trust_at = None;
        self.trust_bell.mark_unchanged();
    }
}

/// Waits until then; for ever where nothing is due.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Waits for the first of their bells.
async fn any_of(wishes: &mut [Wish]) {
    match wishes {
        [] => std::future::pending().await,
        [one] => {
            let _ = one.bell.changed().await;
        }
        many => {
            let bells = many.iter_mut().map(|wish| Box::pin(wish.bell.changed()));
            let _ = select_all(bells).await;
        }
    }
}

/// Over how long a change is spread that so many hear of.
pub(super) fn spread(listeners: usize) -> Duration {
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX);
    SPREAD_EACH.saturating_mul(listeners).min(SPREAD)
}
