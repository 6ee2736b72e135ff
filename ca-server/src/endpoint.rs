//! HTTP for other trust domains and relying parties: a bounded number of connections, each with a
//! deadline for every request head, with TLS or behind an ingress that has it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use signet_runtime::shutdown::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::metrics::Metrics;

/// Connections at once to one endpoint. Strangers reach it; what it serves is small and cacheable.
const MAX_CONNECTIONS: usize = 1024;
/// A peer that has not finished its handshake by then is let go.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// A connection that brings no whole request head for this long is closed; pollers dial again.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// A connection is closed after this, however busy: writing to a peer that does not read has no deadline
/// of its own.
const LONGEST: Duration = Duration::from_secs(120);
/// Wait after an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until shutdown; returns the address bound.
///
/// # Errors
/// When the address cannot be bound, naming it by `key`.
pub async fn serve(
    key: &str,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    (tasks, metrics): (&Tasks, &Metrics),
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("bind {key} address {address}: {e}")))?;
    let bound = listener.local_addr()?;
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (shared, metrics) = (tasks.clone(), metrics.clone());
    tasks.spawn_until_shutdown(async move {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    Metrics::count(&metrics.trust.endpoint_faults, "accept");
                    tracing::warn!(%error, "endpoint connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                Metrics::count(&metrics.trust.endpoint_faults, "too_many");
                tracing::debug!(peer.addr = %peer, "too many endpoint connections; closed");
                continue;
            };
            let served = connection(stream, acceptor.clone(), router.clone(), place);
            let metrics = metrics.clone();
            shared.spawn_until_shutdown(async move {
                let done = tokio::time::timeout(LONGEST, served).await;
                if let Err((reason, error)) = done.unwrap_or(Ok(())) {
                    Metrics::count(&metrics.trust.endpoint_faults, reason);
                    tracing::debug!(peer.addr = %peer, reason, %error, "endpoint connection ended");
                }
            });
        }
    });
    Ok(bound)
}

type Ended = Result<(), (&'static str, io::Error)>;

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    _place: OwnedSemaphorePermit,
) -> Ended {
    let Some(acceptor) = acceptor else {
        return converse(stream, router).await;
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Err(_) => Err(("handshake_deadline", io::ErrorKind::TimedOut.into())),
        Ok(Err(error)) => Err(("tls", error)),
        Ok(Ok(stream)) => converse(stream, router).await,
    }
}

async fn converse<S>(stream: S, router: Router) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .map_err(|e| ("http", io::Error::other(e)))
}
