//! Who may speak to the admin socket: our own user, by the kernel's word.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::socket::{BoundSocket, own_uid};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::guarded::Guarded;
use crate::metrics::Metrics;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 64;

/// Admits connections.
pub(super) struct Listener {
    socket: BoundSocket,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl Listener {
    pub(super) fn new(socket: BoundSocket, metrics: Metrics) -> Self {
        Self {
            socket,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            metrics,
        }
    }

    fn admit(&self, stream: &UnixStream) -> Result<OwnedSemaphorePermit, &'static str> {
        match stream.peer_cred() {
            Ok(cred) if cred.uid() == own_uid() => {}
            Ok(cred) => {
                tracing::warn!(
                    uid = cred.uid(),
                    pid = cred.pid(),
                    "admin connection of another user refused"
                );
                return Err("refused_uid");
            }
            Err(_) => return Err("no_credentials"),
        }
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| "too_many")
    }
}

impl axum::serve::Listener for Listener {
    type Io = Guarded<OwnedSemaphorePermit>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        loop {
            let stream = match self.socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    Metrics::count(&self.metrics.admin_connections, "accept_failed");
                    tracing::warn!(%error, "admin accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match self.admit(&stream) {
                Ok(permit) => {
                    Metrics::count(&self.metrics.admin_connections, "admitted");
                    return (Guarded::new(stream, permit), ());
                }
                Err(outcome) => Metrics::count(&self.metrics.admin_connections, outcome),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}
