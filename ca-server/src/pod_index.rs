//! Which account runs on which node, for every live pod of the cluster, in few bytes: the facts of the
//! node rule. Pure: fed by `pod_watch`, read by [`PodView`] behind one lock that is never held long.
//!
//! A pod is known by its UID alone, since a name may be taken over by a successor. Only live pods that
//! are on a node are kept; whoever is not found here is looked up, so leaving one out is safe.

mod liveness;
mod names;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ring::digest;
use signet_certs::{ServiceAccountId, UnixTime};
use signet_policy::PodFacts;

pub use liveness::{Liveness, TRUSTED_FOR};
use names::Names;

/// Most pods kept, about 100 bytes each at most. Kubernetes itself stops at 150,000.
pub const MOST_PODS: usize = 1_000_000;

/// What a live pod is known for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivePod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The account it runs as.
    pub account: &'a str,
    /// The node it is on.
    pub node: &'a str,
}

/// Where one pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    node: u32,
    account: u32,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    place: Place,
    /// The listing in which it was last seen.
    round: u32,
}

/// A UID in 16 bytes: its own, where it is a UUID as Kubernetes makes them; else of its hash.
type Uid = [u8; 16];

/// Every live pod on a node. Names are kept once each, and only while a pod bears them.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: HashMap<Uid, Known>,
    counts: HashMap<Place, u32>,
    nodes: Names,
    accounts: Names,
    round: u32,
}

impl PodIndex {
    /// The pod with this UID lives, there. Says whether there was room for it.
    pub fn put(&mut self, uid: &str, pod: LivePod<'_>) -> bool {
        let uid = compact(uid);
        if self.pods.len() >= MOST_PODS && !self.pods.contains_key(&uid) {
            return false;
        }
        let account = account_name(pod.namespace, pod.account);
        // Held before the old place is let go, so that names that stay are not freed in between.
        let place = Place {
            node: self.nodes.hold(pod.node),
            account: self.accounts.hold(&account),
        };
        *self.counts.entry(place).or_default() += 1;
        let known = Known {
            place,
            round: self.round,
        };
        if let Some(before) = self.pods.insert(uid, known) {
            self.let_go(before.place);
        }
        true
    }

    /// The pod has ended, or is gone.
    pub fn remove(&mut self, uid: &str) {
        if let Some(known) = self.pods.remove(&compact(uid)) {
            self.let_go(known.place);
        }
    }

    /// A listing of everything begins.
    pub fn begin_listing(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The listing is complete: what was neither in it nor put since it began is gone.
    pub fn end_listing(&mut self) {
        let round = self.round;
        let mut gone = Vec::new();
        self.pods.retain(|_, known| {
            let stays = known.round == round;
            if !stays {
                gone.push(known.place);
            }
            stays
        });
        for place in gone {
            self.let_go(place);
        }
    }

    /// The live pod with this UID.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<LivePod<'_>> {
        let known = self.pods.get(&compact(uid))?;
        let (namespace, account) = self.accounts.text(known.place.account)?.split_once('/')?;
        let node = self.nodes.text(known.place.node)?;
        Some(LivePod {
            namespace,
            account,
            node,
        })
    }

    /// Whether a live pod of `account` is on `node`.
    #[must_use]
    pub fn runs(&self, node: &str, account: &ServiceAccountId) -> bool {
        let account = account_name(account.namespace(), account.name());
        let place = self.nodes.find(node).zip(self.accounts.find(&account));
        place.is_some_and(|(node, account)| self.counts.contains_key(&Place { node, account }))
    }

    /// How many pods are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Memory held, in bytes, by the sizes of tables and names; the allocator adds its own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // Hash tables keep a byte of their own per slot, and an eighth of the slots empty.
        let table = |capacity: usize, entry: usize| capacity / 7 * 8 * (entry + 1);
        table(self.pods.capacity(), size_of::<(Uid, Known)>())
            + table(self.counts.capacity(), size_of::<(Place, u32)>())
            + self.nodes.bytes()
            + self.accounts.bytes()
    }

    fn let_go(&mut self, place: Place) {
        if let Entry::Occupied(mut count) = self.counts.entry(place) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.nodes.release(place.node);
        self.accounts.release(place.account);
    }
}

fn account_name(namespace: &str, account: &str) -> String {
    format!("{namespace}/{account}")
}

fn compact(uid: &str) -> Uid {
    uuid(uid).unwrap_or_else(|| {
        let hash = digest::digest(&digest::SHA256, uid.as_bytes());
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        short
    })
}

/// The 16 bytes of a UUID in its one canonical form, lower case (RFC 9562 §4); nothing else.
fn uuid(text: &str) -> Option<Uid> {
    let mut digits = text
        .bytes()
        .enumerate()
        .filter_map(|(at, byte)| match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => None,
            (8 | 13 | 18 | 23, _) => Some(None),
            (_, b'0'..=b'9') => Some(Some(byte - b'0')),
            (_, b'a'..=b'f') => Some(Some(byte - b'a' + 10)),
            _ => Some(None),
        });
    if text.len() != 36 {
        return None;
    }
    let mut uid = [0; 16];
    for byte in &mut uid {
        *byte = (digits.next()?? << 4) | digits.next()??;
    }
    Some(uid)
}

/// The index as its readers and its one writer share it.
#[derive(Clone, Debug, Default)]
pub struct PodView(Arc<RwLock<Following>>);

/// What is behind the lock.
#[derive(Debug, Default)]
pub struct Following {
    /// The pods.
    pub index: PodIndex,
    /// Whether they are to be believed.
    pub liveness: Liveness,
}

impl PodView {
    /// The facts of the live pod with this UID in this namespace, as far as they are known and to be
    /// believed at `now`.
    #[must_use]
    pub fn pod(&self, namespace: &str, uid: &str, now: UnixTime) -> Option<PodFacts> {
        let following = self.read();
        if !following.liveness.holds(now) {
            return None;
        }
        let found = following.index.pod(uid).filter(|pod| pod.namespace == namespace);
        found.map(|pod| PodFacts {
            uid: uid.to_owned(),
            account: pod.account.to_owned(),
            node: Some(pod.node.to_owned()),
            ended: false,
        })
    }

    /// Whether a live pod of `account` is known on `node`, and that is to be believed at `now`.
    #[must_use]
    pub fn runs(&self, node: &str, account: &ServiceAccountId, now: UnixTime) -> bool {
        let following = self.read();
        following.liveness.holds(now) && following.index.runs(node, account)
    }

    /// For readers of more than one fact.
    pub fn read(&self) -> RwLockReadGuard<'_, Following> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the one writer.
    pub fn write(&self) -> RwLockWriteGuard<'_, Following> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
