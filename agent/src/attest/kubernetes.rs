//! From a process to its pod: its cgroups name a container, the pods of this node say whose it is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

use super::cgroup::{self, Container, PodUid};
use super::peer::{Peer, PeerError};
use super::pods::Reader;
use super::pods::index::Pod;
use super::pods::verdict::{Asked, Verdict, judge};
use super::{AttestError, Entitlement, Place, Subject, Workload};

/// Longest wait of one question for what is on its way. A client that waits longer learns why within seconds.
pub const WAIT: Duration = Duration::from_secs(5);

/// The attestor of a node of Kubernetes.
#[derive(Debug)]
pub struct Kubernetes {
    host_proc: PathBuf,
    own: Option<PodUid>,
    pods: Reader,
    asked: Mutex<Asked>,
}

impl Kubernetes {
    /// Processes by the table at `host_proc`, pods by `pods`; the pod `own` is the agent's.
    #[must_use]
    pub fn new(host_proc: PathBuf, own: Option<PodUid>, pods: Reader) -> Self {
        Self {
            host_proc,
            own,
            pods,
            asked: Mutex::default(),
        }
    }

    /// A handle on the peer, and for the bounds the pod it seems to be of.
    ///
    /// # Errors
    /// A [`PeerError`].
    pub fn peer(&self, stream: &UnixStream) -> Result<Peer, PeerError> {
        let peer = Peer::of(stream, &self.host_proc)?;
        let container = container_of(&peer).ok();
        Ok(peer.seen_in(container.map(|container| container.pod)))
    }

    /// The workload of the peer.
    ///
    /// # Errors
    /// An [`AttestError`].
    pub async fn attest(&self, peer: &Peer) -> Result<Workload, AttestError> {
        let container = container_of(peer)?;
        let pod = tokio::select! {
            pod = self.pod_of(&container) => pod?,
            () = peer.ended() => return Err(AttestError::peer_ended()),
        };
        // Only now is it believed: all that was read was of the process that connected, and it lives.
        peer.recheck()?;
        self.asked().seen(&container);
        workload(&pod).ok_or_else(|| never("no_account", &container))
    }

    /// Waits a bounded time for the container to be seen.
    async fn pod_of(&self, container: &Container) -> Result<Arc<Pod>, AttestError> {
        let mut views = self.pods.view.clone();
        let deadline = Instant::now() + WAIT;
        loop {
            let now = Instant::now();
            let first = self.asked().first(container, now);
            let view = views.borrow_and_update().clone();
            let reason = match judge(&view, self.own, container, first, now) {
                Verdict::Is(pod) => return Ok(pod),
                Verdict::Never(reason) => return Err(never(reason, container)),
                Verdict::NotYet(reason) => reason,
                Verdict::Relist(reason) => {
                    self.pods.relist.notify_one();
                    reason
                }
            };
            drop(view);
            if now >= deadline {
                return Err(not_yet(reason, container));
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return Err(not_yet(reason, container)) },
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Whether the peer still is what it was attested as.
    ///
    /// # Errors
    /// An [`AttestError`].
    pub fn recheck(&self, peer: &Peer, workload: &Workload) -> Result<(), AttestError> {
        let container = container_of(peer)?;
        peer.recheck()?;
        let pod = self
            .entitled(container.pod)
            .ok_or_else(|| never("pod_ended", &container))?;
        // Another pod, another account: nothing that was attested.
        if self::workload(&pod).as_ref() != Some(workload) {
            return Err(never("pod_ended", &container));
        }
        Ok(())
    }

    /// Waits until the process or the pod's entitlement has ended.
    pub async fn ended(&self, peer: &Peer, workload: &Workload) -> AttestError {
        let uid = match &workload.subject {
            Subject::Pod { uid, .. } => PodUid::parse(uid),
            Subject::Own | Subject::Process { .. } => None,
        };
        let Some(pod) = uid.and_then(|uid| self.entitled(uid)) else {
            return pod_ended();
        };
        tokio::select! {
            () = peer.ended() => AttestError::peer_ended(),
            () = pod.ended.cancelled() => pod_ended(),
        }
    }

    /// The pod's namespace and labels.
    #[must_use]
    pub fn place(&self, workload: &Workload) -> Option<Place> {
        let Subject::Pod { uid, .. } = &workload.subject else {
            return None;
        };
        let pod = self.entitled(PodUid::parse(uid)?)?;
        Some(Place {
            workload: signet_policy::Workload {
                namespace: pod.facts.namespace.clone(),
                labels: pod.facts.labels.clone(),
                role: signet_policy::scope::Role::Sidecar,
            },
            ports: pod.facts.ports.clone(),
        })
    }

    /// The pods, as they change.
    #[must_use]
    pub fn views(&self) -> tokio::sync::watch::Receiver<super::pods::View> {
        self.pods.view.clone()
    }

    fn entitled(&self, uid: PodUid) -> Option<Arc<Pod>> {
        let view = self.pods.view.borrow();
        view.index.get(uid).filter(|pod| !pod.facts.over).cloned()
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        // The map is whole at every instant: a panic elsewhere leaves nothing half done.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn workload(pod: &Pod) -> Option<Workload> {
    Some(Workload {
        identities: vec![Entitlement {
            id: pod.id.clone()?,
            hint: None,
        }],
        subject: Subject::Pod {
            namespace: pod.facts.namespace.clone(),
            name: pod.facts.name.clone(),
            uid: pod.facts.uid.to_string(),
            account: pod.facts.account.clone(),
        },
    })
}

fn container_of(peer: &Peer) -> Result<Container, AttestError> {
    let text = peer.cgroup()?;
    match cgroup::parse(&text) {
        Ok(Some(container)) => Ok(container),
        Ok(None) => Err(AttestError::Denied {
            reason: "no_pod",
            text: "the process belongs to no pod, or to the agent's own".into(),
        }),
        Err(fault) => Err(AttestError::Denied {
            reason: fault.reason(),
            text: fault.to_string(),
        }),
    }
}

fn pod_ended() -> AttestError {
    AttestError::Denied {
        reason: "pod_ended",
        text: "the pod is gone, or nothing of it runs any more".into(),
    }
}

fn never(reason: &'static str, container: &Container) -> AttestError {
    let Container { pod, id } = container;
    let text = match reason {
        "own_pod" => "the agent's own pod gets no identity here".to_owned(),
        "no_account" => format!("pod {pod} has no service account"),
        "container_unseen" => format!("container {id} is not among those of pod {pod}"),
        "pod_unseen" => format!("pod {pod} is not on this node"),
        _ => return pod_ended(),
    };
    AttestError::Denied { reason, text }
}

fn not_yet(reason: &'static str, container: &Container) -> AttestError {
    let Container { pod, id } = container;
    let text = match reason {
        "pods_unsynced" => "the agent does not know the pods of this node yet".to_owned(),
        "container_unseen" => format!("container {id} is not shown among those of pod {pod} yet"),
        _ => format!("pod {pod} is not seen on this node yet"),
    };
    AttestError::Unavailable { reason, text }
}

#[cfg(test)]
mod tests;
