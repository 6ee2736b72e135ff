//! Who is at the other end of a connection: the kernel's credentials, and a handle on the process taken
//! before a byte of it was read.
//!
//! The kernel remembers who connected; the handle says whether that process still lives. A connection
//! that was passed on keeps the credentials of the process that made it, and ends with that process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::Pid;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::cgroup::PodUid;
use super::process::{FileId, Process, ProcessError};
use super::stat::Owner;

/// Why there is no handle on a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel names no credentials.
    #[error("the kernel names no peer: {0}")]
    NoCredentials(#[source] io::Error),
    /// The process lives in a process namespace that we cannot see.
    #[error("the kernel names no process; the agent does not see the process namespace of its peers")]
    NoProcess,
    /// The process cannot be held.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The user is not admitted.
    #[error("user {uid} is not in allowed_uids")]
    Uid {
        /// The user.
        uid: u32,
    },
}

impl PeerError {
    /// A stable word, for the metric of connections.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NoCredentials(_) => "no_credentials",
            Self::NoProcess => "no_process",
            Self::Process(ProcessError::Ended) => "peer_ended",
            Self::Process(ProcessError::OtherOwner | ProcessError::OtherProcess) => "peer_changed",
            Self::Process(ProcessError::Malformed(_) | ProcessError::Unreadable(..)) => "peer_unreadable",
            Self::Uid { .. } => "refused_uid",
        }
    }
}

/// Who a bound is kept for: a pod with all its processes, or else a process. It says nothing of who may
/// have what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// A pod.
    Pod(PodUid),
    /// A process; 0 for one that has no number here.
    Process(i32),
}

/// The process at the other end of a connection. Clones share the handle.
#[derive(Clone, Debug)]
pub struct Peer {
    inner: Arc<Inner>,
    pod: Option<PodUid>,
}

#[derive(Debug)]
struct Inner {
    owner: Owner,
    pid: Option<i32>,
    since: Instant,
    process: Option<Process>,
}

impl Peer {
    /// Takes a handle on the process that connected `stream`, with the process table at `host_proc`.
    /// To be called as soon as the stream is accepted, inside the runtime.
    ///
    /// # Errors
    /// A [`PeerError`].
    pub fn of(stream: &UnixStream, host_proc: &Path) -> Result<Self, PeerError> {
        let named = Self::by_credentials(stream)?;
        // None, or 0, for a process outside our process namespace.
        let pid = named.pid().and_then(Pid::from_raw).ok_or(PeerError::NoProcess)?;
        let process = Process::hold(pid, pidfd_of(stream)?, host_proc)?;
        // Another owner than at the time of connecting: it changed, or the number is another's by now.
        if process.owner() != named.inner.owner {
            return Err(ProcessError::OtherOwner.into());
        }
        Ok(Self {
            inner: Arc::new(Inner {
                owner: named.inner.owner,
                pid: named.inner.pid,
                since: named.inner.since,
                process: Some(process),
            }),
            pod: None,
        })
    }

    /// The credentials alone, without a handle: for a decision that rests on the user.
    ///
    /// # Errors
    /// [`PeerError::NoCredentials`].
    pub fn by_credentials(stream: &UnixStream) -> Result<Self, PeerError> {
        let cred = stream.peer_cred().map_err(PeerError::NoCredentials)?;
        let inner = Inner {
            owner: Owner {
                uid: cred.uid(),
                gid: cred.gid(),
            },
            pid: cred.pid(),
            since: Instant::now(),
            process: None,
        };
        Ok(Self {
            inner: Arc::new(inner),
            pod: None,
        })
    }

    /// Its user at the time of connecting.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.inner.owner.uid
    }

    /// Its group at the time of connecting.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.inner.owner.gid
    }

    /// Its process id at the time of connecting; none where it lives in a process namespace that we cannot see.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.inner.pid
    }

    /// The same peer, of whom a first look at its cgroups said that it is of `pod`.
    #[must_use]
    pub(crate) fn seen_in(self, pod: Option<PodUid>) -> Self {
        Self { pod, ..self }
    }

    /// Who the bounds on what it takes are kept for.
    #[must_use]
    pub fn share(&self) -> Share {
        match self.pod {
            Some(pod) => Share::Pod(pod),
            None => Share::Process(self.pid().unwrap_or_default()),
        }
    }

    /// When it was accepted.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.inner.since
    }

    /// Whether the process lives. Always so for [`Peer::by_credentials`], which holds none.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.recheck(), Err(ProcessError::Ended))
    }

    /// Waits until the process has ended; for ever for [`Peer::by_credentials`].
    pub async fn ended(&self) {
        match &self.inner.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the process lives and is what it was.
    pub(super) fn recheck(&self) -> Result<(), ProcessError> {
        self.inner.process.as_ref().map_or(Ok(()), Process::recheck)
    }

    /// Its cgroups, as text.
    pub(super) fn cgroup(&self) -> Result<Vec<u8>, ProcessError> {
        self.held()?.cgroup()
    }

    /// The file it executes.
    pub(super) fn executable(&self) -> Result<FileId, ProcessError> {
        self.held()?.executable()
    }

    /// Its mount namespace.
    pub(super) fn mounts(&self) -> Result<FileId, ProcessError> {
        self.held()?.mounts()
    }

    fn held(&self) -> Result<&Process, ProcessError> {
        self.inner
            .process
            .as_ref()
            .ok_or(ProcessError::Malformed("directory"))
    }
}

/// The pidfd of the process that connected, as the kernel kept it (unix(7), `SO_PEERPIDFD`); none before
/// Linux 6.5.
fn pidfd_of(stream: &UnixStream) -> Result<Option<OwnedFd>, ProcessError> {
    match getsockopt(stream, sockopt::PeerPidfd) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        // The kernel has no pidfd of a process that was reaped; which of these it says depends on its age.
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => Err(ProcessError::Ended),
        Err(error) => Err(ProcessError::Unreadable("pidfd", error.into())),
    }
}

/// Whether the kernel itself says which process connected, so that a number given to another process
/// between connecting and being accepted is noticed.
#[must_use]
pub fn kernel_names_processes() -> bool {
    std::os::unix::net::UnixStream::pair().is_ok_and(|(one, _)| getsockopt(&one, sockopt::PeerPidfd).is_ok())
}

#[cfg(test)]
pub(crate) mod tests;
