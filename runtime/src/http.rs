//! `/metrics`, `/healthz/live` and `/healthz/ready` over plain HTTP. Reads only; nothing here changes
//! state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shutdown::Tasks;

/// Metrics connections at once: scrapers and probes, not load. Strangers reach this port too.
const MAX_CONNECTIONS: usize = 256;
/// Admin connections at once: people and scripts, not load.
const MAX_ADMIN_CONNECTIONS: usize = 64;
/// A connection that brings no whole request head for this long is closed; scrapers dial again.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// Wait after an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Named conditions that must all hold before a process says it is ready. Clones share them.
#[derive(Clone, Debug)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// All of `conditions` are missing, each for the reason given.
    #[must_use]
    pub fn waiting_for(conditions: &[(&'static str, &str)]) -> Self {
        let missing = conditions
            .iter()
            .map(|(name, why)| (*name, (*why).to_owned()))
            .collect();
        Self {
            missing: Arc::new(Mutex::new(missing)),
        }
    }

    /// The condition holds.
    pub fn holds(&self, condition: &'static str) {
        self.lock().remove(condition);
    }

    /// The condition does not hold, for this reason.
    pub fn lacks(&self, condition: &'static str, why: impl Into<String>) {
        self.lock().insert(condition, why.into());
    }

    /// What is missing, as `name: reason`; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.lock()
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the endpoint shows.
#[derive(Clone)]
pub struct Exposed {
    registry: Arc<Registry>,
    readiness: Readiness,
    turned_away: Counter,
}

impl Exposed {
    /// Shows every metric in `registry`, with one of its own, and whether the process is ready.
    #[must_use]
    pub fn new(mut registry: Registry, readiness: Readiness) -> Self {
        let turned_away = Counter::default();
        registry.register(
            "signet_http_connections_turned_away",
            "Connections to this endpoint closed because too many were open",
            turned_away.clone(),
        );
        Self {
            registry: Arc::new(registry),
            readiness,
            turned_away,
        }
    }
}

/// Serves until shutdown; returns the address bound, since port 0 asks the system for one.
///
/// # Errors
/// When the address cannot be bound, naming it.
pub async fn serve(address: SocketAddr, exposed: Exposed, tasks: &Tasks) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| std::io::Error::new(e.kind(), format!("bind metrics address {address}: {e}")))?;
    let bound = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let turned_away = exposed.turned_away.clone();
    let router = router(exposed);
    let shared = tasks.clone();
    tasks.spawn_until_shutdown(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "metrics connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                turned_away.inc();
                tracing::debug!("too many metrics connections; closed");
                continue;
            };
            shared.spawn_until_shutdown(converse(stream, router.clone(), place));
        }
    });
    Ok(bound)
}

/// Answers the requests of one connection; a peer that is slow to ask, or asks no more, is let go.
async fn converse<S>(stream: S, router: Router, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "http connection ended");
    }
}

/// The three pages, for mounting elsewhere as well.
pub fn router(exposed: Exposed) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz/live", get(async || "live\n"))
        .route("/healthz/ready", get(ready))
        .with_state(exposed)
}

async fn metrics(State(exposed): State<Exposed>) -> Response {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &exposed.registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n").into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn ready(State(exposed): State<Exposed>) -> Response {
    let missing = exposed.readiness.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready\n{}\n", missing.join("\n")),
    )
        .into_response()
}

/// Serves `router` on a unix socket (0600) until shutdown, for peers of this process's own user only.
/// The directory must be private already.
///
/// # Errors
/// When the socket cannot be bound.
pub fn serve_admin(path: &std::path::Path, router: Router, tasks: &Tasks) -> std::io::Result<()> {
    let socket = crate::socket::BoundSocket::bind(path, 0o600)?;
    let places = Arc::new(Semaphore::new(MAX_ADMIN_CONNECTIONS));
    let own = crate::socket::own_uid();
    let shared = tasks.clone();
    tasks.spawn_until_shutdown(async move {
        loop {
            let stream = match socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().map(|peer| peer.uid());
            if !uid.as_ref().is_ok_and(|uid| *uid == own) {
                tracing::warn!(uid = ?uid.ok(), "admin connection of another user refused");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!("too many admin connections; closed");
                continue;
            };
            shared.spawn_until_shutdown(converse(stream, router.clone(), place));
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn strangers_can_hold_only_so_many_connections() {
        let tasks = Tasks::new();
        let exposed = Exposed::new(Registry::default(), Readiness::waiting_for(&[]));
        let turned_away = exposed.turned_away.clone();
        let address = serve("127.0.0.1:0".parse().unwrap(), exposed, &tasks)
            .await
            .unwrap();
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz/live HTTP/1.1\r\n").await.unwrap();
            held.push(stream);
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        assert_eq!(one_more.read(&mut [0; 1]).await.unwrap(), 0, "closed at once");
        assert_eq!(turned_away.get(), 1);
        let mut last = held.pop().unwrap();
        last.write_all(b"\r\n").await.unwrap();
        let mut answer = [0; 15];
        last.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }
}
