//! `/metrics`, `/healthz/live` and `/healthz/ready` over plain HTTP. Reads only; nothing here changes
//! state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::shutdown::Tasks;

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
    /// Every metric of the process.
    pub registry: Arc<Registry>,
    /// Whether it is ready, and if not, why.
    pub readiness: Readiness,
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
    let token = tasks.token();
    tasks.spawn(async move {
        let served = axum::serve(listener, router(exposed)).with_graceful_shutdown(token.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "metrics endpoint ended");
        }
    });
    Ok(bound)
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
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_ADMIN_CONNECTIONS));
    let own = crate::socket::own_uid();
    let shared = tasks.clone();
    tasks.spawn_until_shutdown(async move {
        loop {
            let stream = match socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
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
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            shared.spawn_until_shutdown(async move {
                let _place = place;
                let io = hyper_util::rt::TokioIo::new(stream);
                if let Err(error) = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await
                {
                    tracing::debug!(%error, "admin connection ended");
                }
            });
        }
    });
    Ok(())
}

/// Admin connections at once: people and scripts, not load.
const MAX_ADMIN_CONNECTIONS: usize = 64;
