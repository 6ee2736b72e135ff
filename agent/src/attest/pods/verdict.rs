//! What the index says of a container that asks, and whether it can know. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::View;
use super::index::Pod;
use crate::attest::cgroup::{Container, PodUid};

/// How long what is not seen may still be on its way: the scheduler's binding, the kubelet's report of a
/// new container, an API server under load.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Most containers remembered that asked before they were seen.
const MAX_ASKED: usize = 1_024;
/// A container that has not asked for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// What is to be answered to a container.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is of this pod.
    Is(Arc<Pod>),
    /// It is known that it gets nothing; a stable word.
    Never(&'static str),
    /// It cannot be known yet; a stable word.
    NotYet(&'static str),
    /// As [`Verdict::NotYet`], and a fresh list would tell.
    Relist(&'static str),
}

/// What `view` says at `now` of a container that asked for the first time at `first`. `own` is the
/// agent's own pod.
#[must_use]
pub fn judge(
    view: &View,
    own: Option<PodUid>,
    container: &Container,
    first: Instant,
    now: Instant,
) -> Verdict {
    // The agent's account may ask for others' identities: nobody is handed that one.
    if own == Some(container.pod) {
        return Verdict::Never("own_pod");
    }
    let Some(known_as_of) = view.known_as_of else {
        return Verdict::NotYet("pods_unsynced");
    };
    let unseen = match view.index.get(container.pod) {
        Some(pod) if pod.facts.over => return Verdict::Never("pod_ended"),
        Some(pod) if pod.id.is_none() => return Verdict::Never("no_account"),
        Some(pod) if pod.facts.containers.contains(&container.id) => return Verdict::Is(Arc::clone(pod)),
        Some(_) => "container_unseen",
        None if view.index.is_gone(container.pod) => return Verdict::Never("pod_ended"),
        None => "pod_unseen",
    };
    let due = first + PATIENCE;
    if now < due {
        Verdict::NotYet(unseen)
    } else if known_as_of >= due && !view.index.is_full() {
        Verdict::Never(unseen)
    } else {
        Verdict::Relist(unseen)
    }
}

/// When containers that were not seen asked for the first time.
#[derive(Debug, Default)]
pub struct Asked(BTreeMap<Container, (Instant, Instant)>);

impl Asked {
    /// When `container`, which asks now, did so first. With no room left it is now, every time: such a
    /// container is told to come back, and never that it gets nothing.
    pub fn first(&mut self, container: &Container, now: Instant) -> Instant {
        if let Some((first, last)) = self.0.get_mut(container) {
            *last = now;
            return *first;
        }
        if self.0.len() >= MAX_ASKED {
            self.0.retain(|_, (_, last)| now.duration_since(*last) < FORGET);
        }
        if self.0.len() < MAX_ASKED {
            self.0.insert(*container, (now, now));
        }
        now
    }

    /// Forgets a container that was seen.
    pub fn seen(&mut self, container: &Container) {
        self.0.remove(container);
    }
}

#[cfg(test)]
mod tests;
