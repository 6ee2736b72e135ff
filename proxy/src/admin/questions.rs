//! The admin socket: the pages, and what this proxy can be asked to try. A unix socket in a private directory, whose
//! peers must be our own user, by the kernel's word: the application shares our loopback, and must not be able to
//! make us connect. No key ever goes out here.

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use signet_runtime::shutdown::Tasks;
use signet_runtime::socket::private_directory;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Pages, decision, probe};
use crate::outbound::Address;

/// Largest question: a chain, and a request with a token.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Questions at once that make connections.
const MAX_AT_ONCE: usize = 4;

#[derive(Clone)]
struct Questions {
    pages: Arc<Pages>,
    places: Arc<Semaphore>,
}

/// Serves the socket at `path` until shutdown.
///
/// # Errors
/// A sentence when it cannot be bound, or its directory is not private.
pub fn serve(path: &Path, pages: &Arc<Pages>, tasks: &Tasks) -> Result<(), String> {
    if let Some(directory) = path.parent() {
        private_directory(directory).map_err(|e| e.to_string())?;
    }
    let questions = Questions {
        pages: Arc::clone(pages),
        places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
    };
    signet_runtime::http::serve_admin(path, router(questions), tasks).map_err(|e| e.to_string())
}

fn router(questions: Questions) -> Router {
    Router::new()
        .route("/tls-check", post(tls_check))
        .route("/decision", post(decide))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .fallback(page)
        .with_state(questions)
}

/// The pages that loopback has as well.
async fn page(State(questions): State<Questions>, request: Request<axum::body::Body>) -> Response {
    questions.pages.answer(&request, true).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsCheck {
    destination: String,
}

async fn tls_check(State(questions): State<Questions>, body: Bytes) -> Response {
    let (question, _place) = match questions.take::<TlsCheck>("tls_check", &body) {
        Ok(taken) => taken,
        Err(refused) => return *refused,
    };
    let to: Address = match question.destination.parse() {
        Ok(to) => to,
        Err(fault) => {
            questions.count("tls_check", "malformed");
            let error = format!("{:?} {fault}", question.destination);
            return refuse(StatusCode::BAD_REQUEST, "malformed", error);
        }
    };
    let probed = probe::probe(&questions.pages, &to).await;
    let outcome = probed.outcome;
    tracing::info!(destination = %to, outcome, "handshake made because an operator asked");
    questions.count("tls_check", outcome);
    Json(probed).into_response()
}

async fn decide(State(questions): State<Questions>, body: Bytes) -> Response {
    let (question, _place) = match questions.take::<decision::Question>("decision", &body) {
        Ok(taken) => taken,
        Err(refused) => return *refused,
    };
    let destination = question.destination;
    match decision::decide(&questions.pages, question).await {
        Some(answer) => {
            questions.count("decision", "answered");
            Json(answer).into_response()
        }
        None => {
            questions.count("decision", "no_listener");
            let error = format!(
                "{destination} is no address of this proxy's: no inbound listener is there, and traffic to it is not \
                 redirected here; behind a Service, name the pod's own address and port: --to-address PODIP:TARGETPORT"
            );
            refuse(StatusCode::NOT_FOUND, "no_listener", error)
        }
    }
}

impl Questions {
    /// The question and a place for it.
    fn take<T: DeserializeOwned>(
        &self,
        question: &'static str,
        body: &[u8],
    ) -> Result<(T, SemaphorePermit<'_>), Box<Response>> {
        let asked = serde_json::from_slice(body).map_err(|error| {
            self.count(question, "malformed");
            // Where, and not what: a question may hold a token.
            let (line, column) = (error.line(), error.column());
            let error = format!("the question cannot be read at line {line} column {column}");
            Box::new(refuse(StatusCode::BAD_REQUEST, "malformed", error))
        })?;
        let place = self.places.try_acquire().map_err(|_| {
            self.count(question, "busy");
            let error = "other questions are being answered; ask again in a moment";
            Box::new(refuse(StatusCode::TOO_MANY_REQUESTS, "busy", error))
        })?;
        Ok((asked, place))
    }

    fn count(&self, question: &'static str, outcome: &'static str) {
        self.pages.shared.metrics.question(question, outcome);
    }
}

fn refuse(status: StatusCode, reason: &str, error: impl std::fmt::Display) -> Response {
    let body = Json(json!({ "error": error.to_string(), "reason": reason }));
    (status, body).into_response()
}
