//! What an operator can see and ask: JSON over HTTP/1.1 on a unix socket in a private directory. The
//! peer's user must be our own, by the kernel's word. No key ever goes out here.

mod listener;
mod view;
mod workloads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use signet_certs::SpiffeId;
use signet_runtime::Clock;
use signet_runtime::http::Readiness;
use signet_runtime::socket::BoundSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::attest::Attestor;
use crate::keeper::{Ask, AskError};
use crate::metrics::Metrics;
use crate::policy::{self, Policies};
use crate::sds::streams::{StreamKind, Streams};
use crate::svids::{Shelves, Whose};
use listener::Listener;

/// Largest body read: one SPIFFE ID and its braces.
const MAX_BODY_BYTES: usize = 8 * 1024;
/// How long a renewal may take beyond the CA's deadline: waiting for the floor and for a bundle.
const ROTATE_GRACE: Duration = Duration::from_secs(15);

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    /// How workloads are attested, in a word.
    pub attestor_name: &'static str,
    /// Who uses which identity.
    pub attestor: Attestor,
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
    /// The SVIDs and bundles, and how their keeping goes.
    pub shelves: Shelves,
    /// The policies, if any are served.
    pub policies: Option<Policies>,
    /// Where a renewal is asked for.
    pub asks: mpsc::Sender<Ask>,
    /// Open streams.
    pub streams: Arc<Streams>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// The word that ends watches.
    pub shutdown: CancellationToken,
}

/// Serves the pages on `socket` until shutdown.
pub async fn serve(socket: BoundSocket, admin: Admin, metrics: Metrics) {
    let token = admin.shutdown.clone();
    let listener = Listener::new(socket, metrics);
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
        .route("/v1/federation", get(federation))
        .route("/v1/streams", get(streams))
        .route("/v1/policies", get(policies))
        .route("/v1/workloads", get(workloads))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
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
        "trust_domain": admin.shelves.domain().as_str(),
        "attestor": admin.attestor_name,
        "socket": admin.socket.display().to_string(),
        "metrics_address": admin.metrics_address,
        "ca_address": admin.ca_address,
        "ready": missing.is_empty(),
        "missing": missing,
    }))
    .into_response()
}

async fn svids(State(admin): State<Admin>) -> Response {
    let all = admin.shelves.all();
    let all: Vec<view::SvidView> = all.iter().filter_map(view::svid).collect();
    Json(json!({ "svids": all })).into_response()
}

/// What may be said to a renewal.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    spiffe_id: Option<SpiffeIdText>,
}

/// A SPIFFE ID, parsed at the door.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SpiffeIdText(SpiffeId);

impl TryFrom<String> for SpiffeIdText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|fault| format!("{text:?}: {fault}"))
    }
}

/// Renews now and answers with the new SVID, or with the reason why not.
async fn rotate(State(admin): State<Admin>, body: Bytes) -> Response {
    // No body, or `null`, wishes for nothing in particular.
    let wish: Result<Option<Rotate>, _> = match body.trim_ascii() {
        [] => Ok(None),
        json => serde_json::from_slice(json),
    };
    let wish = match wish {
        Ok(wish) => wish.unwrap_or_default(),
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "malformed", error),
    };
    let (reply, outcome) = oneshot::channel();
    let id = wish.spiffe_id.map(|id| id.0);
    if admin.asks.try_send(Ask { id, reply }).is_err() {
        let text = "too many renewals are asked for at once; try again in a moment";
        return refuse(StatusCode::TOO_MANY_REQUESTS, "busy", text);
    }
    match tokio::time::timeout(admin.ca_deadline + ROTATE_GRACE, outcome).await {
        Ok(Ok(Ok(whose))) => match admin.svid(&whose) {
            Some(svid) => Json(svid).into_response(),
            None => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "withdrawn",
                "the new SVID is not served",
            ),
        },
        Ok(Ok(Err(error))) => not_renewed(error),
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

fn not_renewed(error: AskError) -> Response {
    match error {
        AskError::TooSoon(_) => refuse(StatusCode::TOO_MANY_REQUESTS, "too_soon", error),
        AskError::Unknown(_) => refuse(StatusCode::NOT_FOUND, "unknown_identity", error),
        AskError::Which(_) => refuse(StatusCode::BAD_REQUEST, "which_identity", error),
        AskError::Gone => refuse(StatusCode::NOT_FOUND, "no_workload", error),
        AskError::Failed(failure) => refuse(StatusCode::BAD_GATEWAY, failure.kind.code(), failure),
    }
}

/// One line of JSON for every SVID now, and one for each after it changed.
async fn watch_svids(State(admin): State<Admin>) -> Response {
    let news = admin.shelves.news();
    let told = BTreeMap::<Whose, String>::new();
    let lines = futures::stream::unfold((admin, news, told), |(admin, mut news, mut told)| async move {
        loop {
            news.mark_unchanged();
            let new = new_lines(&admin.shelves, &mut told);
            if !new.is_empty() {
                return Some((Ok::<_, std::convert::Infallible>(new), (admin, news, told)));
            }
            tokio::select! {
                changed = news.changed() => changed.ok()?,
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

/// The lines of what differs from what was told.
fn new_lines(shelves: &Shelves, told: &mut BTreeMap<Whose, String>) -> String {
    let all = shelves.all();
    told.retain(|whose, _| all.iter().any(|shown| shown.whose == *whose));
    let mut new = String::new();
    for shown in &all {
        let line = view::svid(shown).and_then(|svid| serde_json::to_string(&svid).ok());
        if let Some(line) = line.filter(|line| told.get(&shown.whose) != Some(line)) {
            new.push_str(&line);
            new.push('\n');
            told.insert(shown.whose.clone(), line);
        }
    }
    new
}

async fn bundle(State(admin): State<Admin>) -> Response {
    match admin.shelves.trust().own() {
        Some(bundle) => Json(view::bundle(bundle)).into_response(),
        None => no_bundle(&admin),
    }
}

async fn federation(State(admin): State<Admin>) -> Response {
    match view::federation(&admin.shelves.trust()) {
        Some(page) => Json(page).into_response(),
        None => no_bundle(&admin),
    }
}

fn no_bundle(admin: &Admin) -> Response {
    let first = admin.shelves.all().into_iter().next();
    let cause = first.map_or_else(
        || "the CA has not answered yet".to_owned(),
        |shown| shown.status.cause(),
    );
    let text = format!("no bundle yet: {cause}");
    refuse(StatusCode::SERVICE_UNAVAILABLE, "no_bundle", text)
}

async fn workloads(State(admin): State<Admin>) -> Response {
    let wanted = Arc::clone(&admin.attestor.wanted().borrow());
    let rows = workloads::rows(
        &wanted,
        &admin.streams.list(),
        &admin.shelves.all(),
        admin.clock.now(),
    );
    Json(json!({ "attestor": admin.attestor_name, "workloads": rows })).into_response()
}

async fn streams(State(admin): State<Admin>) -> Response {
    Json(json!({ "streams": admin.streams.list() })).into_response()
}

/// What is known of policies, and which proxy has which version.
async fn policies(State(admin): State<Admin>) -> Response {
    let Some(policies) = &admin.policies else {
        let text = "the configuration has no policies; set policies.source";
        return refuse(StatusCode::NOT_FOUND, "not_served", text);
    };
    let mut page = policy::status::page(policies);
    let streams = admin.streams.list().into_iter();
    let proxies: Vec<_> = streams
        .filter(|stream| stream.kind == StreamKind::Policies)
        .collect();
    if let Some(fields) = page.as_object_mut() {
        fields.insert("proxies".to_owned(), json!(proxies));
    }
    Json(page).into_response()
}

impl Admin {
    fn svid(&self, whose: &Whose) -> Option<view::SvidView> {
        let all = self.shelves.all();
        let shown = all.iter().find(|shown| shown.whose == *whose);
        shown.and_then(view::svid)
    }
}
