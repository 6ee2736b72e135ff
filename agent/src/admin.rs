//! What an operator can see and ask: JSON over HTTP/1.1 on a unix socket in a private directory. The
//! peer's user must be our own, by the kernel's word. No key ever goes out here.

mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use signet_certs::TrustDomain;
use signet_runtime::http::Readiness;
use signet_runtime::socket::{BoundSocket, own_uid};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::guarded::Guarded;
use crate::metrics::Metrics;
use crate::rotator::{Ask, AskError, Status};
use crate::sds::streams::Streams;
use crate::svids::Reader;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a renewal may take beyond the CA's deadline: waiting for the floor and for a bundle.
const ROTATE_GRACE: Duration = Duration::from_secs(15);

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    /// Our trust domain.
    pub domain: TrustDomain,
    /// The workload socket.
    pub socket: PathBuf,
    /// Where metrics are bound.
    pub metrics_address: String,
    /// Where the CA is.
    pub ca_address: String,
    /// Bound of a call to the CA.
    pub ca_deadline: Duration,
    /// What is missing.
    pub readiness: Readiness,
    /// The shelf.
    pub snapshots: Reader,
    /// How rotation goes.
    pub status: watch::Receiver<Arc<Status>>,
    /// Where a renewal is asked for.
    pub asks: mpsc::Sender<Ask>,
    /// Open streams.
    pub streams: Arc<Streams>,
    /// The word that ends watches.
    pub shutdown: CancellationToken,
}

/// Serves the pages on `socket` until shutdown.
pub async fn serve(socket: BoundSocket, admin: Admin, metrics: Metrics) {
    let token = admin.shutdown.clone();
    let listener = Listener {
        socket,
        places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        metrics,
    };
    let served = axum::serve(listener, router(admin)).with_graceful_shutdown(token.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "admin socket ended");
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/svids", get(svids))
        .route("/v1/svids/rotate", post(rotate))
        .route("/v1/svids/watch", get(watch_svids))
        .route("/v1/bundle", get(bundle))
        .route("/v1/streams", get(streams))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not_found", "there is no such page"))
        .with_state(admin)
}

fn refuse(code: StatusCode, reason: &str, error: impl std::fmt::Display) -> Response {
    (
        code,
        Json(json!({ "error": error.to_string(), "reason": reason })),
    )
        .into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    let missing = admin.readiness.missing();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "trust_domain": admin.domain.as_str(),
        "socket": admin.socket.display().to_string(),
        "metrics_address": admin.metrics_address,
        "ca_address": admin.ca_address,
        "ready": missing.is_empty(),
        "missing": missing,
    }))
    .into_response()
}

async fn svids(State(admin): State<Admin>) -> Response {
    let all: Vec<view::SvidView> = admin.svid().into_iter().collect();
    Json(json!({ "svids": all })).into_response()
}

/// Renews now and answers with the new SVID, or with the reason why not.
async fn rotate(State(admin): State<Admin>) -> Response {
    let (ask, outcome) = oneshot::channel();
    if admin.asks.try_send(ask).is_err() {
        let text = "too many renewals are asked for at once; try again in a moment";
        return refuse(StatusCode::TOO_MANY_REQUESTS, "busy", text);
    }
    match tokio::time::timeout(admin.ca_deadline + ROTATE_GRACE, outcome).await {
        Ok(Ok(Ok(()))) => match admin.svid() {
            Some(svid) => Json(svid).into_response(),
            None => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "withdrawn",
                "the new SVID is not served",
            ),
        },
        Ok(Ok(Err(error @ AskError::TooSoon(_)))) => refuse(StatusCode::TOO_MANY_REQUESTS, "too_soon", error),
        Ok(Ok(Err(AskError::Failed(failure)))) => {
            refuse(StatusCode::BAD_GATEWAY, failure.kind.code(), failure)
        }
        Ok(Err(_)) => refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "the request was dropped; try again",
        ),
        Err(_) => refuse(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            "the renewal takes longer than it may",
        ),
    }
}

/// One line of JSON now, and one after every change.
async fn watch_svids(State(admin): State<Admin>) -> Response {
    let lines = futures::stream::unfold((admin, None::<String>), |(mut admin, last)| async move {
        loop {
            admin.snapshots.mark_unchanged();
            admin.status.mark_unchanged();
            let line = admin.svid().and_then(|svid| serde_json::to_string(&svid).ok());
            if let Some(line) = line.filter(|line| last.as_ref() != Some(line)) {
                return Some((
                    Ok::<_, std::convert::Infallible>(format!("{line}\n")),
                    (admin, Some(line)),
                ));
            }
            tokio::select! {
                changed = admin.snapshots.changed() => changed.ok()?,
                changed = admin.status.changed() => changed.ok()?,
                () = admin.shutdown.cancelled() => return None,
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

async fn bundle(State(admin): State<Admin>) -> Response {
    match admin.snapshots.borrow().bundle() {
        Some(bundle) => Json(view::bundle(bundle)).into_response(),
        None => {
            let text = format!("no bundle yet: {}", admin.status.borrow().cause());
            refuse(StatusCode::SERVICE_UNAVAILABLE, "no_bundle", text)
        }
    }
}

async fn streams(State(admin): State<Admin>) -> Response {
    Json(json!({ "streams": admin.streams.list() })).into_response()
}

impl Admin {
    fn svid(&self) -> Option<view::SvidView> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        snapshot
            .verified()
            .map(|verified| view::svid(verified, &self.status.borrow()))
    }
}

/// Admits connections of our own user.
struct Listener {
    socket: BoundSocket,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl Listener {
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
