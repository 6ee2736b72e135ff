//! Key sets that somebody else holds: the agent, which fetches them once for the node, or a file. Here each is on a
//! shelf that its one writer fills; what was on it once stays until something better comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::jws::KeySet;
use signet_policy::KeyAddress;
use signet_policy::tokens::TokenRules;
use signet_proto::policy::IssuerKeys as Received;
use signet_proto::policy::keys::Digest;
use tokio::sync::{mpsc, oneshot, watch};

use super::{IssuerKeys, KeySets};

/// Those who miss something and wait; more are told at once that nothing newer will come.
const MAX_WAITING: usize = 256;

/// A set on a shelf.
#[derive(Clone, Debug)]
pub struct Set {
    /// The keys.
    pub keys: Arc<KeySet>,
    /// Which ones they are, to who fetched them.
    pub digest: Digest,
}

/// A shelf, to who reads it.
pub(super) type Shelf = watch::Receiver<Option<Set>>;

/// Somebody misses a key.
#[derive(Debug)]
pub struct Miss {
    /// In the set of this address.
    pub address: KeyAddress,
    /// Of the set that is here.
    pub held: Digest,
    /// Is told whether there is a newer one, which then comes to the shelf.
    pub told: oneshot::Sender<bool>,
}

/// Where it is said that keys are missed.
pub type Misses = mpsc::Sender<Miss>;

/// A set that somebody else holds.
#[derive(Clone, Debug)]
pub struct Given {
    shelf: Shelf,
    misses: Option<(KeyAddress, Misses)>,
}

impl Given {
    /// What lies on `shelf`, for which nobody can be asked.
    pub(super) fn on(shelf: Shelf) -> Self {
        Self { shelf, misses: None }
    }

    /// This set and no other, or none.
    #[must_use]
    pub fn fixed(keys: Option<Arc<KeySet>>) -> Self {
        let digest = Digest::default();
        let (_, shelf) = watch::channel(keys.map(|keys| Set { keys, digest }));
        Self::on(shelf)
    }

    /// The keys; nothing before there are any.
    #[must_use]
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.shelf.borrow().as_ref().map(|set| Arc::clone(&set.keys))
    }

    /// Asks for a newer set than `missed`, and waits for it. Whether there is one now.
    pub(super) async fn newer(&self, missed: &Arc<KeySet>, patience: Duration) -> bool {
        let is_newer = |set: &Option<Set>| set.as_ref().is_some_and(|set| !Arc::ptr_eq(&set.keys, missed));
        let (newer, held) = {
            let set = self.shelf.borrow();
            (is_newer(&set), set.as_ref().map(|set| set.digest))
        };
        let (false, Some(held), Some((address, misses))) = (newer, held, &self.misses) else {
            return newer;
        };
        let (told, answer) = oneshot::channel();
        let miss = Miss {
            address: address.clone(),
            held,
            told,
        };
        if misses.try_send(miss).is_err() {
            return false;
        }
        let mut shelf = self.shelf.clone();
        let came = async {
            // It may come before the answer that it will.
            tokio::select! {
                came = shelf.wait_for(is_newer) => return came.is_ok(),
                answer = answer => if !answer.unwrap_or(false) {
                    return false;
                },
            }
            self.shelf.clone().wait_for(is_newer).await.is_ok()
        };
        tokio::time::timeout(patience, came).await.unwrap_or(false)
    }
}

/// The sets that the agent sends, each kept as long as a rule asks for it. The one writer of their shelves.
#[derive(Debug)]
pub struct GivenKeys {
    shelves: BTreeMap<KeyAddress, watch::Sender<Option<Set>>>,
    misses: Misses,
}

impl GivenKeys {
    /// None yet; and where misses arrive.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Miss>) {
        let (misses, queue) = mpsc::channel(MAX_WAITING);
        let shelves = BTreeMap::new();
        (Self { shelves, misses }, queue)
    }

    /// Takes what came. A set that is not among it stays as it was: an agent that starts again has fetched nothing yet.
    /// Answers the sets that cannot be read, in whose place the last good ones stay.
    pub fn take(&mut self, received: Vec<Received>) -> Vec<(KeyAddress, String)> {
        let mut faults = Vec::new();
        for Received {
            address,
            digest,
            keys,
        } in received
        {
            let shelf = self.shelves.entry(address);
            let keys = match keys {
                Ok(keys) => Arc::new(keys),
                Err(fault) => {
                    faults.push((shelf.key().clone(), fault.to_string()));
                    continue;
                }
            };
            // The same set stays the very same: tokens that were verified by it stay so.
            shelf.or_default().send_if_modified(|set| {
                let changed = set.as_ref().is_none_or(|set| set.digest != digest);
                if changed {
                    *set = Some(Set { keys, digest });
                }
                changed
            });
        }
        faults
    }

    /// The keys of all rules; sets that none of them asks for are let go.
    pub fn key_sets(&mut self, rules: &TokenRules) -> KeySets {
        let mut wanted = BTreeSet::new();
        let sets = KeySets::new(rules, |_, address| {
            let shelf = self.shelves.entry(address.clone()).or_default().subscribe();
            wanted.insert(address.clone());
            IssuerKeys::Given(Given {
                shelf,
                misses: Some((address, self.misses.clone())),
            })
        });
        self.shelves.retain(|address, _| wanted.contains(address));
        sets
    }
}

#[cfg(test)]
mod tests;
