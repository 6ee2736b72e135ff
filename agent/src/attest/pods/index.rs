//! The pods of this node by uid. Pure: one event in, the pods whose entitlement ended out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};
use tokio_util::sync::CancellationToken;

use super::facts::PodFacts;
use crate::attest::cgroup::PodUid;
use crate::attest::{PodRef, Wanted};

/// Most pods kept. The kubelet's own default is 110; a node far beyond has another fault.
pub const MAX_PODS: usize = 10_000;

/// Most pods remembered that are gone. A process of one that still asks does so at once or not for long.
const MAX_GONE: usize = 1_024;

/// A pod, and the word that is given when it is entitled to nothing any more.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What is known of it.
    pub facts: PodFacts,
    /// Its account's identity; none for a mirror of a static pod, which has no account.
    pub id: Option<SpiffeId>,
    /// Cancelled when the pod is gone or over.
    pub ended: CancellationToken,
}

impl Pod {
    fn is(&self, facts: &PodFacts) -> bool {
        let who = |facts: &PodFacts| (facts.namespace.clone(), facts.name.clone(), facts.account.clone());
        who(&self.facts) == who(facts)
    }
}

/// What the watch says.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod is there, or changed.
    Applied(PodFacts),
    /// A pod is gone.
    Deleted(PodUid),
    /// A complete list replaces everything.
    Listed(Vec<PodFacts>),
}

/// What an event changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether anything did.
    pub any: bool,
    /// Whether the identities in use, or who uses them, may have.
    pub wanted: bool,
    /// Pods for which there was no room.
    pub no_room: usize,
}

/// The pods.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pods: HashMap<PodUid, Arc<Pod>>,
    names: HashMap<(String, String), PodUid>,
    /// Pods that were here; a uid never comes back.
    gone: VecDeque<PodUid>,
    full: bool,
}

impl Index {
    /// The pod of that uid.
    #[must_use]
    pub fn get(&self, uid: PodUid) -> Option<&Arc<Pod>> {
        self.pods.get(&uid)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether the pod was here and is gone, as far back as is remembered.
    #[must_use]
    pub fn is_gone(&self, uid: PodUid) -> bool {
        self.gone.contains(&uid) && !self.pods.contains_key(&uid)
    }

    /// Whether a pod was left out for want of room since the last list: then absence proves nothing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Takes an event in. Identities are of `domain`.
    pub fn apply(&mut self, event: Event, domain: &TrustDomain) -> Change {
        let mut change = Change::default();
        match event {
            Event::Applied(facts) => self.put(facts, domain, &mut change),
            Event::Deleted(uid) => self.remove(uid, &mut change),
            Event::Listed(list) => {
                self.full = false;
                let listed: std::collections::HashSet<PodUid> = list.iter().map(|facts| facts.uid).collect();
                let gone: Vec<PodUid> = self
                    .pods
                    .keys()
                    .filter(|uid| !listed.contains(uid))
                    .copied()
                    .collect();
                for uid in gone {
                    self.remove(uid, &mut change);
                }
                for facts in list {
                    self.put(facts, domain, &mut change);
                }
            }
        }
        change
    }

    fn put(&mut self, facts: PodFacts, domain: &TrustDomain, change: &mut Change) {
        match self.pods.get(&facts.uid) {
            Some(pod) if pod.facts == facts => return,
            // Names and accounts of a pod cannot change; if they do, it is not that pod any more.
            Some(pod) if !pod.is(&facts) => self.remove(facts.uid, change),
            Some(_) => {}
            None if self.pods.len() >= MAX_PODS => {
                self.full = true;
                change.no_room += 1;
                return;
            }
            None => {}
        }
        let entitled = self
            .pods
            .get(&facts.uid)
            .map(|pod| &pod.ended)
            .filter(|ended| !ended.is_cancelled());
        change.any = true;
        change.wanted |= entitled.is_some() == facts.over;
        let ended = entitled.cloned().unwrap_or_default();
        if facts.over {
            ended.cancel();
        }
        // A name belongs to one pod at a time; who had it before is gone, told or not.
        let name = (facts.namespace.clone(), facts.name.clone());
        if let Some(former) = self.names.insert(name, facts.uid)
            && former != facts.uid
        {
            self.forget(former, change);
        }
        let id = ServiceAccountId::new(&facts.namespace, &facts.account)
            .ok()
            .map(|account| account.spiffe_id(domain));
        self.pods.insert(facts.uid, Arc::new(Pod { facts, id, ended }));
    }

    fn remove(&mut self, uid: PodUid, change: &mut Change) {
        if let Some(pod) = self.forget(uid, change) {
            let name = (pod.facts.namespace.clone(), pod.facts.name.clone());
            if self.names.get(&name) == Some(&uid) {
                self.names.remove(&name);
            }
        }
    }

    fn forget(&mut self, uid: PodUid, change: &mut Change) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(&uid)?;
        change.any = true;
        change.wanted |= !pod.ended.is_cancelled();
        pod.ended.cancel();
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(uid);
        Some(pod)
    }

    /// The identities that pods are entitled to, but those of the pod `own`.
    #[must_use]
    pub fn wanted(&self, own: Option<PodUid>) -> Wanted {
        let mut wanted = Wanted {
            synced: true,
            ..Wanted::default()
        };
        for pod in self.pods.values() {
            if pod.facts.over || own == Some(pod.facts.uid) {
                continue;
            }
            let Some(id) = &pod.id else { continue };
            let by = wanted.ids.entry(id.clone()).or_default();
            by.pods.push(PodRef {
                namespace: pod.facts.namespace.clone(),
                name: pod.facts.name.clone(),
                uid: pod.facts.uid.to_string(),
            });
        }
        for by in wanted.ids.values_mut() {
            by.pods.sort();
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
