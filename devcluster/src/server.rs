//! Sockets: accepting, the TLS handshake, HTTP/1.1 and HTTP/2, and an end to all of it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Answer;
use crate::dispatch::{self, HangUp};
use crate::shared::Shared;

/// Most connections at once; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 4096;

/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1024;

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long an HTTP/1.1 connection may be silent between requests: longer than clients keep theirs (the kube client 90 s),
/// so that a client never sends into a connection that is about to be closed.
const IDLE_DEADLINE: Duration = Duration::from_secs(120);

/// How long to wait after `accept` failed, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the cluster stops.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let stop = shared.stop.clone();
    let accepting = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (acceptor, shared, tasks_of_it) =
                        (acceptor.clone(), Arc::clone(&shared), tasks.clone());
                    tasks.spawn(async move {
                        connection(stream, acceptor, shared, tasks_of_it).await;
                        drop(slot);
                        tracing::trace!(peer.addr = %peer, "connection ended");
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>, tasks: TaskTracker) {
    let end = shared.stop.child_token();
    let _ = stream.set_nodelay(true);
    let serving = async {
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await else {
            return;
        };
        let service = service_fn(|request| {
            let (shared, end) = (Arc::clone(&shared), end.clone());
            async move { Ok::<_, Infallible>(answer(&shared, &end, request).await) }
        });
        let mut builder = auto::Builder::new(Tasks {
            tasks,
            end: end.clone(),
        });
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_DEADLINE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(error = %error, "connection broke");
        }
    };
    end.run_until_cancelled(serving).await;
    // Requests of this connection that are still under way have nobody to answer.
    end.cancel();
}

async fn answer(
    shared: &Arc<Shared>,
    end: &CancellationToken,
    request: http::Request<hyper::body::Incoming>,
) -> Answer {
    match dispatch::serve(shared, request).await {
        Ok(answer) => answer,
        Err(HangUp) => {
            end.cancel();
            std::future::pending().await
        }
    }
}

/// Runs what HTTP/2 spawns as tasks the cluster waits for, and no longer than their connection.
#[derive(Clone)]
struct Tasks {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let end = self.end.clone();
        self.tasks
            .spawn(async move { end.run_until_cancelled_owned(future).await.map(drop) });
    }
}
