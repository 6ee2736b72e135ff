//! What every connection and every handle of one cluster shares.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::counts::Counters;
use crate::fault::Faults;
use crate::grants::{Account, Grants};
use crate::keys::Keyring;
use crate::options::Clock;
use crate::review::ReviewCache;
use crate::store::Store;

/// The one state of a cluster.
pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) keys: Keyring,
    pub(crate) reviews: ReviewCache,
    pub(crate) admin_token: Zeroizing<String>,
    pub(crate) grants: RwLock<HashMap<Account, Grants>>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) watches: Watches,
    pub(crate) stop: CancellationToken,
}

/// The options that do not change.
pub(crate) struct Settings {
    pub(crate) jwks_readable: bool,
    pub(crate) node_extras: bool,
    pub(crate) token_leeway: Duration,
}

/// What bounds the watches, and what ends them all.
pub(crate) struct Watches {
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) generation: watch::Sender<u64>,
}

impl Shared {
    /// The cluster's time.
    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Whether the account holds a grant for the request.
    pub(crate) fn permits(
        &self,
        account: &Account,
        verb: &str,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> bool {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        grants
            .get(account)
            .is_some_and(|grants| grants.permit(verb, group, resource, namespace))
    }
}
