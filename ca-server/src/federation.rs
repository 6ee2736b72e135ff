//! Trust domains beside ours: their bundles, configured or fetched from their endpoints, kept apart and
//! handed to our agents (SPIFFE Federation).
//!
//! One driver per trust domain ([`follow`]) around one pure machine ([`poll`]); what one of them does or
//! suffers touches no other (I4).

pub mod fetch;
pub mod follow;
pub mod poll;
pub mod proof;
pub mod source;
pub mod stored;
pub mod url;

use std::collections::BTreeMap;
use std::sync::Arc;

use signet_certs::{TrustBundle, TrustDomain, UnixTime};
use tokio::sync::watch;

/// The foreign bundles in force, each under the name it was configured with.
pub type Bundles = BTreeMap<TrustDomain, Arc<TrustBundle>>;

/// How one relationship stands, for those who look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When a poll last succeeded.
    pub last_success: Option<UnixTime>,
    /// When the next one is due.
    pub next_poll: Option<UnixTime>,
    /// What came of the last one.
    pub outcome: &'static str,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The foreign bundles in force: each driver writes its own, everybody reads all.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    bundles: watch::Sender<Arc<Bundles>>,
    status: watch::Sender<Arc<BTreeMap<TrustDomain, Status>>>,
}

impl Foreign {
    /// The bundles in force.
    #[must_use]
    pub fn current(&self) -> Arc<Bundles> {
        Arc::clone(&self.bundles.borrow())
    }

    /// Told of every change of a bundle.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Bundles>> {
        self.bundles.subscribe()
    }

    /// How each relationship stands.
    #[must_use]
    pub fn status(&self) -> Arc<BTreeMap<TrustDomain, Status>> {
        Arc::clone(&self.status.borrow())
    }

    /// Puts a bundle in force in place of its domain's.
    pub fn publish(&self, bundle: Arc<TrustBundle>) {
        self.bundles.send_modify(|bundles| {
            let mut next = Bundles::clone(bundles);
            next.insert(bundle.trust_domain().clone(), bundle);
            *bundles = Arc::new(next);
        });
    }

    /// Notes how the relationship with `domain` stands.
    pub fn note(&self, domain: &TrustDomain, status: Status) {
        self.status.send_modify(|all| {
            let mut next = BTreeMap::clone(all);
            next.insert(domain.clone(), status);
            *all = Arc::new(next);
        });
    }
}
