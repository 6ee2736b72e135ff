//! The socket workloads dial: who is admitted, by the kernel's word alone, and how many at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use signet_runtime::socket::BoundSocket;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::transport::server::Connected;

use crate::guarded::Guarded;
use crate::metrics::Metrics;
use crate::quiet::Quiet;

/// Most connections of workloads at once.
pub const MAX_CONNECTIONS: usize = 4_096;
/// Wait after a failed accept; out of descriptors is the usual reason.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, at the time of connecting.
    pub pid: Option<i32>,
}

/// A connection that was admitted.
pub type Admitted = Guarded<Seat>;

/// Whose connection it is, and one of [`MAX_CONNECTIONS`] places, given back on drop.
#[derive(Debug)]
pub struct Seat {
    peer: Peer,
    _permit: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.metrics.connections_open.dec();
    }
}

/// Decides who is admitted and says who is not.
pub struct Doorkeeper {
    allowed: Vec<u32>,
    places: Arc<Semaphore>,
    metrics: Metrics,
    quiet: Quiet<u32>,
}

impl Doorkeeper {
    /// Admits the users `allowed`, [`MAX_CONNECTIONS`] connections at once.
    #[must_use]
    pub fn new(allowed: Vec<u32>, metrics: Metrics) -> Self {
        Self {
            allowed,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            metrics,
            quiet: Quiet::default(),
        }
    }

    /// Admits `stream`, or closes it.
    pub fn admit(&mut self, stream: UnixStream) -> Option<Admitted> {
        let peer = match stream.peer_cred() {
            Ok(cred) => Peer {
                uid: cred.uid(),
                gid: cred.gid(),
                pid: cred.pid(),
            },
            Err(error) => {
                Metrics::count(&self.metrics.connections, "no_credentials");
                tracing::warn!(%error, "connection refused: the kernel names no peer");
                return None;
            }
        };
        if !self.allowed.contains(&peer.uid) {
            Metrics::count(&self.metrics.connections, "refused_uid");
            if self.quiet.may_log(peer.uid, Instant::now()) {
                tracing::warn!(
                    uid = peer.uid,
                    pid = peer.pid,
                    reason = "uid",
                    "connection refused: this user is not in allowed_uids"
                );
            }
            return None;
        }
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            Metrics::count(&self.metrics.connections, "too_many");
            if self.quiet.may_log(peer.uid, Instant::now()) {
                tracing::warn!(
                    uid = peer.uid,
                    most = MAX_CONNECTIONS,
                    "connection refused: too many are open"
                );
            }
            return None;
        };
        Metrics::count(&self.metrics.connections, "admitted");
        self.metrics.connections_open.inc();
        let seat = Seat {
            peer,
            _permit: permit,
            metrics: self.metrics.clone(),
        };
        Some(Guarded::new(stream, seat))
    }
}

/// Admitted connections of `socket`, for ever. The socket goes away when the stream is dropped.
pub fn incoming(
    socket: BoundSocket,
    doorkeeper: Doorkeeper,
) -> impl Stream<Item = io::Result<Admitted>> + Send {
    futures::stream::unfold((socket, doorkeeper), |(socket, mut doorkeeper)| async move {
        loop {
            match socket.accept().await {
                Ok(stream) => {
                    if let Some(admitted) = doorkeeper.admit(stream) {
                        return Some((Ok(admitted), (socket, doorkeeper)));
                    }
                }
                Err(error) => {
                    Metrics::count(&doorkeeper.metrics.connections, "accept_failed");
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

impl Connected for Admitted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.guard().peer
    }
}
