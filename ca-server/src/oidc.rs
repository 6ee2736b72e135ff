//! What OIDC relying parties ask for: the discovery document and the keys of JWT-SVIDs (OpenID Connect
//! Discovery 1.0 §4). Plain HTTP: the issuer's `https` ends at an ingress.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde_json::json;
use signet_certs::{JwtKey, TrustBundle};

use crate::federation::url::EndpointUrl;
use crate::metrics::Metrics;
use crate::slots::Slots;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";

#[derive(Clone)]
struct Pages {
    issuer: String,
    slots: Slots,
    metrics: Metrics,
}

/// The two pages, at the root and under the path of `issuer`: an ingress may pass the path on or not.
pub fn router(issuer: &str, slots: Slots, metrics: Metrics) -> Router {
    let pages = Pages {
        issuer: issuer.to_owned(),
        slots,
        metrics,
    };
    let under = |prefix: &str| {
        Router::new()
            .route(&format!("{prefix}{DISCOVERY}"), get(discovery))
            .route(&format!("{prefix}{KEYS}"), get(keys))
    };
    let prefix = issuer
        .parse::<EndpointUrl>()
        .map(|url| url.path().trim_end_matches('/').to_owned())
        .unwrap_or_default();
    let mut routes = under("");
    if !prefix.is_empty() && !prefix.contains(['{', '}', '*', ':']) {
        routes = routes.merge(under(&prefix));
    }
    routes
        .fallback(nothing)
        .method_not_allowed_fallback(not_that)
        .with_state(pages)
}

async fn discovery(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.oidc_requests, "discovery");
    let bundle = pages.slots.current();
    let algorithms: BTreeSet<&str> = bundle.bundle.jwt_keys().iter().map(JwtKey::algorithm).collect();
    let document = json!({
        "issuer": pages.issuer,
        "jwks_uri": format!("{}{KEYS}", pages.issuer),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": ["aud", "exp", "iat", "iss", "sub"],
    });
    answer(&bundle.bundle, document.to_string())
}

async fn keys(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.oidc_requests, "keys");
    let snapshot = pages.slots.current();
    answer(&snapshot.bundle, snapshot.bundle.to_oidc_jwks())
}

/// Kept by caches for one refresh hint: a new key is published for four before it signs.
fn answer(bundle: &TrustBundle, body: String) -> Response {
    let seconds = bundle.refresh_hint().map_or(0, |hint| hint.as_secs());
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, format!("public, max-age={seconds}")),
    ];
    (headers, body).into_response()
}

async fn nothing(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.oidc_requests, "not_found");
    let text = format!("the pages are {DISCOVERY} and {KEYS}\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn not_that(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.oidc_requests, "method");
    (StatusCode::METHOD_NOT_ALLOWED, "GET the page\n").into_response()
}
