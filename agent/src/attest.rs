//! Which identities the process at the other end of a connection may have, by the kernel's word and,
//! in Kubernetes, the API server's. Nothing that the process says about itself is believed.
//!
//! | module | owns |
//! |---|---|
//! | [`workload`] | what comes out: a workload with its identities, and those in use on this node |
//! | [`peer`] | who connected, and a handle on the process, taken before its first byte was read |
//! | [`process`], [`stat`] | a process held by descriptors; its files, parsed |
//! | [`cgroup`] | from `/proc/<pid>/cgroup` to a container of a pod: pure |
//! | [`pods`] | the pods of this node: one watch, one index |
//! | [`kubernetes`] | the attestor of a node: process, container, pod, account |
//! | [`unix`] | the attestor of a machine without Kubernetes: rules |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use signet_certs::{SpiffeId, TrustDomain};
use signet_runtime::Clock;
use signet_runtime::shutdown::Tasks;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use self::cgroup::PodUid;
use self::kubernetes::Kubernetes;
use self::pods::watch::{Parts, PodWatch};
use self::process::ProcessError;
use self::unix::Unix;
use crate::metrics::Metrics;
use crate::policy::protocols::PodPort;
use crate::quiet::Quiet;

pub mod cgroup;
pub mod kubernetes;
pub mod peer;
pub mod pods;
pub mod process;
pub mod stat;
pub mod unix;
pub mod workload;

pub use peer::{Peer, PeerError, Share};
pub use workload::{Entitlement, PodRef, Subject, Wanted, WantedBy, Workload};

/// Why a process gets nothing. The texts are for the process itself and tell it no more than its own facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// It cannot be known yet; the process should ask again. `UNAVAILABLE`.
    #[error("no identity issued: {text}")]
    Unavailable {
        /// A stable word.
        reason: &'static str,
        /// A sentence.
        text: String,
    },
    /// It is known that there is none. `PERMISSION_DENIED`.
    #[error("no identity issued: {text}")]
    Denied {
        /// A stable word.
        reason: &'static str,
        /// A sentence.
        text: String,
    },
}

impl AttestError {
    /// The stable word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { reason, .. } | Self::Denied { reason, .. } => reason,
        }
    }

    fn peer_ended() -> Self {
        ProcessError::Ended.into()
    }
}

impl From<ProcessError> for AttestError {
    fn from(fault: ProcessError) -> Self {
        let text = fault.to_string();
        let reason = match fault {
            ProcessError::Ended => "peer_ended",
            ProcessError::OtherOwner | ProcessError::OtherProcess => "peer_changed",
            // Out of descriptors, or an unlucky moment: nothing is known against the process.
            ProcessError::Malformed(_) | ProcessError::Unreadable(..) => {
                let reason = "peer_unreadable";
                return Self::Unavailable { reason, text };
            }
        };
        Self::Denied { reason, text }
    }
}

/// A process of this machine, and the identity it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixRule {
    /// The identity.
    pub id: SpiffeId,
    /// Its user, if that is asked for.
    pub uid: Option<u32>,
    /// Its group, if that is asked for.
    pub gid: Option<u32>,
    /// The file it executes, if that is asked for.
    pub executable: Option<PathBuf>,
    /// What the operator calls the identity.
    pub hint: Option<String>,
    /// Labels by which policies select its processes; the same in all rules of one identity.
    pub labels: BTreeMap<String, String>,
}

/// Which attestor, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// Every peer of these users gets the agent's own identity.
    Own {
        /// The users.
        allowed_uids: Vec<u32>,
    },
    /// Processes by rules.
    Unix {
        /// Where the process table is mounted.
        host_proc: PathBuf,
        /// The rules, in the order of the file.
        rules: Vec<UnixRule>,
    },
    /// The pods of this node.
    Kubernetes {
        /// Where the node's process table is mounted.
        host_proc: PathBuf,
        /// The node's name.
        node_name: String,
        /// The agent's own pod, which gets nothing.
        pod_uid: Option<String>,
        /// How to reach the API server; in-cluster by default.
        kubeconfig: Option<PathBuf>,
    },
}

/// Where a workload stands for policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its namespace and labels.
    pub workload: signet_policy::Workload,
    /// The named ports of its pod.
    pub ports: Vec<PodPort>,
}

/// A bell for places of workloads.
#[derive(Debug)]
pub struct Places(Option<watch::Receiver<pods::View>>);

impl Places {
    /// What has changed until now is known.
    pub fn seen(&mut self) {
        if let Some(views) = &mut self.0 {
            views.mark_unchanged();
        }
    }

    /// Waits for the next change; for ever where there is none.
    pub async fn changed(&mut self) {
        let changed = match &mut self.0 {
            Some(views) => views.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

/// Decides what a peer may have. Clones share everything.
#[derive(Clone, Debug)]
pub struct Attestor {
    kind: Kind,
    wanted: watch::Receiver<Arc<Wanted>>,
    metrics: Metrics,
    quiet: Arc<Mutex<Quiet<(&'static str, u32)>>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Own { allowed_uids: Arc<[u32]> },
    Unix(Arc<Unix>),
    Kubernetes(Arc<Kubernetes>),
}

impl Attestor {
    /// Starts what `settings` ask for; identities are of `domain`.
    ///
    /// # Errors
    /// A sentence when it cannot start: the process table is none of ours, or there is no way to the API server.
    pub async fn start(
        settings: Settings,
        domain: &TrustDomain,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        if !matches!(settings, Settings::Own { .. }) && !peer::kernel_names_processes() {
            tracing::warn!(
                reason = "no_peer_pidfd",
                "this kernel does not say which process connected (SO_PEERPIDFD, Linux 6.5): until a connection is \
                 accepted its process is known by number only; SECURITY.md says what follows"
            );
        }
        match settings {
            Settings::Own { allowed_uids } => Ok(Self::own(allowed_uids, metrics)),
            Settings::Unix { host_proc, rules } => {
                process::check_table(&host_proc)?;
                let unix = Unix::new(host_proc, rules)?;
                let (_, wanted) = watch::channel(Arc::new(unix.wanted()));
                Ok(Self::of(Kind::Unix(Arc::new(unix)), wanted, metrics))
            }
            Settings::Kubernetes {
                host_proc,
                node_name,
                pod_uid,
                kubeconfig,
            } => {
                process::check_table(&host_proc)?;
                let own = match pod_uid {
                    None => None,
                    Some(text) => {
                        Some(PodUid::parse(&text).ok_or_else(|| format!("pod_uid {text:?} is no uid"))?)
                    }
                };
                let (watch, pods, wanted) = PodWatch::new(Parts {
                    client: pods::api::watch_client(kubeconfig.as_deref()).await?,
                    node: node_name,
                    own,
                    domain: domain.clone(),
                    clock: Arc::clone(clock),
                    metrics: metrics.clone(),
                });
                tasks.spawn_essential("pod watch", watch.run());
                let kubernetes = Kubernetes::new(host_proc, own, pods);
                Ok(Self::of(Kind::Kubernetes(Arc::new(kubernetes)), wanted, metrics))
            }
        }
    }

    /// Every peer of these users gets the agent's own identity.
    #[must_use]
    pub fn own(allowed_uids: Vec<u32>, metrics: &Metrics) -> Self {
        let (_, wanted) = watch::channel(Arc::new(Wanted {
            ids: BTreeMap::new(),
            synced: true,
        }));
        let allowed_uids = allowed_uids.into();
        Self::of(Kind::Own { allowed_uids }, wanted, metrics)
    }

    fn of(kind: Kind, wanted: watch::Receiver<Arc<Wanted>>, metrics: &Metrics) -> Self {
        Self {
            kind,
            wanted,
            metrics: metrics.clone(),
            quiet: Arc::default(),
        }
    }

    /// Who is at the other end of `stream`, which was accepted just now and not read from. A peer that
    /// gets an error here is not to be served at all.
    ///
    /// # Errors
    /// A [`PeerError`].
    pub fn peer(&self, stream: &UnixStream) -> Result<Peer, PeerError> {
        match &self.kind {
            Kind::Own { allowed_uids } => {
                let peer = Peer::by_credentials(stream)?;
                if !allowed_uids.contains(&peer.uid()) {
                    return Err(PeerError::Uid { uid: peer.uid() });
                }
                Ok(peer)
            }
            Kind::Unix(unix) => unix.peer(stream),
            Kind::Kubernetes(kubernetes) => kubernetes.peer(stream),
        }
    }

    /// What the peer may have. Waits a bounded time for what cannot be known yet.
    ///
    /// # Errors
    /// An [`AttestError`], counted and logged.
    pub async fn attest(&self, peer: &Peer) -> Result<Arc<Workload>, AttestError> {
        let workload = match &self.kind {
            Kind::Own { .. } => Ok(Workload::own()),
            Kind::Unix(unix) => unix.attest(peer),
            Kind::Kubernetes(kubernetes) => kubernetes.attest(peer).await,
        };
        let outcome = workload.as_ref().map_or_else(AttestError::reason, |_| "ok");
        Metrics::count(&self.metrics.attestations, outcome);
        if let Err(fault) = &workload {
            self.tell(peer, fault);
        }
        workload.map(Arc::new)
    }

    /// Whether the peer still is what it was attested as: before each later message.
    ///
    /// # Errors
    /// An [`AttestError`], counted; the stream is to end with it.
    pub fn recheck(&self, peer: &Peer, workload: &Arc<Workload>) -> Result<(), AttestError> {
        let still = match &self.kind {
            Kind::Own { .. } => Ok(()),
            Kind::Unix(unix) => unix.recheck(peer, workload),
            Kind::Kubernetes(kubernetes) => kubernetes.recheck(peer, workload),
        };
        still.inspect_err(|fault| Metrics::blame(&self.metrics.attestation_ends, fault.reason()))
    }

    /// Waits until the peer's process, or what it was attested as, is gone: the stream is to end then.
    pub async fn ended(&self, peer: &Peer, workload: &Arc<Workload>) -> AttestError {
        let fault = match &self.kind {
            Kind::Own { .. } => std::future::pending().await,
            Kind::Unix(_) => {
                peer.ended().await;
                AttestError::peer_ended()
            }
            Kind::Kubernetes(kubernetes) => kubernetes.ended(peer, workload).await,
        };
        Metrics::blame(&self.metrics.attestation_ends, fault.reason());
        fault
    }

    /// Where the workload stands for policies, as it is now. Nothing for one that is gone, and for the agent's own
    /// identity.
    #[must_use]
    pub fn place(&self, workload: &Workload) -> Option<Place> {
        match &self.kind {
            Kind::Own { .. } => None,
            Kind::Unix(unix) => unix.place(workload),
            Kind::Kubernetes(kubernetes) => kubernetes.place(workload),
        }
    }

    /// Rings when [`Self::place`] may answer differently.
    #[must_use]
    pub fn places(&self) -> Places {
        Places(match &self.kind {
            Kind::Own { .. } | Kind::Unix(_) => None,
            Kind::Kubernetes(kubernetes) => Some(kubernetes.views()),
        })
    }

    /// The identities in use on this node; none are known beforehand for the agent's own.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.clone()
    }

    fn tell(&self, peer: &Peer, fault: &AttestError) {
        let thing = (fault.reason(), peer.uid());
        let may_log = {
            let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            quiet.may_log(thing, Instant::now())
        };
        if may_log {
            tracing::warn!(
                uid = peer.uid(), pid = peer.pid(), reason = fault.reason(), error = %fault,
                "a local process gets no identity"
            );
        }
    }
}
