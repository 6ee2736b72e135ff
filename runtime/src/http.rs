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
        let missing = conditions.iter().map(|(name, why)| (*name, (*why).to_owned())).collect();
        Self { missing: Arc::new(Mutex::new(missing)) }
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
        self.lock().iter().map(|(name, why)| format!("{name}: {why}")).collect()
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
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", missing.join("\n"))).into_response()
}
