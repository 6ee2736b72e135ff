//! The socket workloads dial: who is admitted, by the kernel's word alone, and how many at once.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use signet_runtime::socket::BoundSocket;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::server::Connected;

use crate::attest::{Attestor, Peer, PeerError, Share};
use crate::authority::Lenient;
use crate::guarded::Guarded;
use crate::metrics::Metrics;
use crate::preface::{Preface, Silent};
use crate::quiet::Quiet;

/// Most connections of workloads at once.
pub const MAX_CONNECTIONS: usize = 2_048;
/// Most of one user: all pods together may run as one, but a user who is not root leaves places to others.
const MAX_PER_UID: usize = 1_536;
/// Most of one process, or of one pod with all its processes. An Envoy has one for each secret at most.
const MAX_PER_SHARE: usize = 512;
/// Wait after a failed accept; out of descriptors is the usual reason.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that was admitted.
pub type Admitted = Lenient<Preface<Guarded<Seat>>>;

/// Who sits where.
#[derive(Debug, Default)]
struct Places {
    taken: usize,
    of_uid: BTreeMap<u32, usize>,
    of_share: BTreeMap<Share, usize>,
}

/// Whose connection it is, and one of [`MAX_CONNECTIONS`] places, given back on drop.
#[derive(Debug)]
pub struct Seat {
    peer: Peer,
    places: Arc<Mutex<Places>>,
    metrics: Metrics,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        places.taken = places.taken.saturating_sub(1);
        leave(&mut places.of_uid, &self.peer.uid());
        leave(&mut places.of_share, &self.peer.share());
        drop(places);
        self.metrics.connections_open.dec();
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Places {
    /// Takes a place, or says which bound is reached.
    fn take(&mut self, uid: u32, share: Share) -> Result<(), usize> {
        let of_uid = self.of_uid.get(&uid).copied().unwrap_or_default();
        let of_share = self.of_share.get(&share).copied().unwrap_or_default();
        for (count, most) in [
            (self.taken, MAX_CONNECTIONS),
            (of_uid, MAX_PER_UID),
            (of_share, MAX_PER_SHARE),
        ] {
            if count >= most {
                return Err(most);
            }
        }
        self.taken += 1;
        self.of_uid.insert(uid, of_uid + 1);
        self.of_share.insert(share, of_share + 1);
        Ok(())
    }
}

/// Decides who is admitted and says who is not.
pub struct Doorkeeper {
    attestor: Attestor,
    places: Arc<Mutex<Places>>,
    metrics: Metrics,
    quiet: Quiet<(u32, &'static str)>,
}

impl Doorkeeper {
    /// Admits whom `attestor` takes for a peer, as many as there are places.
    #[must_use]
    pub fn new(attestor: Attestor, metrics: Metrics) -> Self {
        Self {
            attestor,
            places: Arc::default(),
            metrics,
            quiet: Quiet::default(),
        }
    }

    /// Admits `stream`, which was not read from, or closes it.
    pub fn admit(&mut self, stream: UnixStream) -> Option<Admitted> {
        let uid = stream.peer_cred().map(|cred| cred.uid()).unwrap_or_default();
        let peer = match self.attestor.peer(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                self.refuse(uid, &error);
                return None;
            }
        };
        let pid = peer.pid();
        let taken = lock(&self.places).take(peer.uid(), peer.share());
        if let Err(most) = taken {
            Metrics::count(&self.metrics.connections, "too_many");
            if self.quiet.may_log((uid, "too_many"), Instant::now()) {
                tracing::warn!(uid, pid, most, "connection refused: too many are open");
            }
            return None;
        }
        Metrics::count(&self.metrics.connections, "admitted");
        self.metrics.connections_open.inc();
        let seat = Seat {
            peer,
            places: Arc::clone(&self.places),
            metrics: self.metrics.clone(),
        };
        let silent = Silent::new(self.metrics.clone(), uid, pid);
        Some(Lenient::new(Preface::new(Guarded::new(stream, seat), silent)))
    }

    fn refuse(&mut self, uid: u32, error: &PeerError) {
        let reason = error.outcome();
        Metrics::count(&self.metrics.connections, reason);
        if !self.quiet.may_log((uid, reason), Instant::now()) {
            return;
        }
        match error {
            PeerError::Uid { uid } => {
                tracing::warn!(
                    uid,
                    reason,
                    "connection refused: this user is not in allowed_uids"
                );
            }
            error => tracing::warn!(uid, reason, %error, "connection refused"),
        }
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
        self.inner().inner().guard().peer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_of_one_user_and_of_one_process() {
        let mut places = Places::default();
        for _ in 0..MAX_PER_SHARE {
            assert_eq!(places.take(0, Share::Process(7)), Ok(()));
        }
        assert_eq!(places.take(0, Share::Process(7)), Err(MAX_PER_SHARE));
        let mut pid = 100;
        while places.take(0, Share::Process(pid)).is_ok() {
            pid += 1;
        }
        assert_eq!(places.of_uid.get(&0), Some(&MAX_PER_UID));
        assert_eq!(
            places.take(0, Share::Process(pid)),
            Err(MAX_PER_UID),
            "others keep their places"
        );
        while places.take(1, Share::Process(pid)).is_ok() {
            pid += 1;
        }
        assert_eq!(places.taken, MAX_CONNECTIONS);
        assert_eq!(places.take(2, Share::Process(pid)), Err(MAX_CONNECTIONS));
    }
}
