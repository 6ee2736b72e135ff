//! The admin socket: what this CA is, what it signs with, and what it would say of a token. Nothing
//! here changes state.

use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use signet_certs::bundle::authority_id;
use signet_certs::certificate::Certificate;
use signet_runtime::clock::rfc3339;
use signet_runtime::http::Readiness;
use zeroize::Zeroizing;

use crate::authn::claims::ClaimsFault;
use crate::authn::{Authenticator, AuthnError, BearerToken};
use crate::config::Config;
use crate::federation::Foreign;
use crate::slots::Slots;
use crate::trust::Bound;

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    /// Configuration in force.
    pub config: Arc<Config>,
    /// Authorities in use.
    pub slots: Slots,
    /// Bundles of other trust domains.
    pub foreign: Foreign,
    /// Who judges tokens.
    pub authenticator: Authenticator,
    /// What is missing.
    pub readiness: Readiness,
    /// Addresses bound: gRPC, metrics.
    pub bound: (std::net::SocketAddr, std::net::SocketAddr),
    /// Addresses bound for others, where configured.
    pub trust_bound: Bound,
}

impl Admin {
    /// The pages.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/status", get(status))
            .route("/v1/authorities", get(authorities))
            .route("/v1/bundle", get(bundle))
            .route("/v1/federation", get(federation))
            .route("/v1/token/check", post(token_check))
            .with_state(Arc::new(self))
    }
}

/// The directory a socket lies in, made private.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(socket: &Path) -> std::io::Result<()> {
    socket
        .parent()
        .map_or(Ok(()), signet_runtime::socket::private_directory)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let missing = admin.readiness.missing();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "trust_domain": admin.config.trust_domain.as_str(),
        "ca_address": admin.bound.0.to_string(),
        "metrics_address": admin.bound.1.to_string(),
        "oidc_address": admin.trust_bound.oidc.map(|address| address.to_string()),
        "bundle_endpoint_address": admin.trust_bound.bundle.map(|address| address.to_string()),
        "ready": missing.is_empty(),
        "missing": missing,
    }))
}

async fn authorities(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let snapshot = admin.slots.current();
    let roots: Vec<Value> = snapshot
        .bundle
        .roots()
        .iter()
        .map(|r| described(r.certificate()))
        .collect();
    let mut issuing = described(snapshot.issuing.certificate());
    if let Some(map) = issuing.as_object_mut() {
        map.insert("renews_at".into(), rfc3339(snapshot.renew_at).into());
        map.insert("source".into(), snapshot.source.as_str().into());
    }
    Json(json!({
        "trust_domain": snapshot.bundle.trust_domain().as_str(),
        "sequence": snapshot.bundle.sequence(),
        "roots": roots,
        "issuing": issuing,
        "jwt_keys": snapshot.bundle.jwt_keys().iter().map(|key| json!({
            "kid": key.kid(),
            "algorithm": key.algorithm(),
            "key": key.public_key().kind().to_string(),
            "signs": snapshot.jwt.as_ref().is_some_and(|jwt| jwt.public() == key),
        })).collect::<Vec<_>>(),
    }))
}

async fn federation(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let (bundles, status) = (admin.foreign.current(), admin.foreign.status());
    let domains: Vec<Value> = admin
        .config
        .trust
        .federation
        .iter()
        .map(|entry| {
            let bundle = bundles.get(&entry.domain);
            let status = status.get(&entry.domain);
            json!({
                "trust_domain": entry.domain.as_str(),
                "in_force": bundle.is_some(),
                "sequence": bundle.map(|b| b.sequence()),
                "roots": bundle.map(|b| b.roots().len()),
                "jwt_keys": bundle.map(|b| b.jwt_keys().len()),
                "refresh_hint_seconds": bundle.and_then(|b| b.refresh_hint()).map(|hint| hint.as_secs()),
                "outcome": status.map(|s| s.outcome),
                "error": status.and_then(|s| s.error.clone()),
                "last_success": status.and_then(|s| s.last_success).map(rfc3339),
                "next_poll": status.and_then(|s| s.next_poll).map(rfc3339),
            })
        })
        .collect();
    Json(json!({"trust_domain": admin.config.trust_domain.as_str(), "federated": domains}))
}

fn described(certificate: &Certificate) -> Value {
    json!({
        "authority_id": authority_id(certificate),
        "subject": certificate.subject().text(),
        "serial": certificate.serial_hex(),
        "key": certificate.public_key().map_or_else(|e| e.to_string(), |k| k.kind().to_string()),
        "not_before": rfc3339(certificate.not_before()),
        "not_after": rfc3339(certificate.not_after()),
        "state": "active",
    })
}

async fn bundle(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let bundle = Arc::clone(&admin.slots.current().bundle);
    Json(json!({
        "trust_domain": bundle.trust_domain().as_str(),
        "sequence": bundle.sequence(),
        "refresh_hint_seconds": bundle.refresh_hint().map(|hint| hint.as_secs()),
        "pem": bundle.to_pem(),
        "jwks": bundle.to_jwks(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenCheck {
    token: String,
}

async fn token_check(State(admin): State<Arc<Admin>>, body: axum::body::Bytes) -> Response {
    let Ok(check) = serde_json::from_slice::<TokenCheck>(&body) else {
        let error = json!({"error": "the body is not {\"token\": \"…\"}"});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    };
    let text = Zeroizing::new(check.token);
    let (claims, answer) = admin.authenticator.explain(&BearerToken::new(&text)).await;
    let (accepted, reason, explanation, fix) = match &answer {
        Ok(caller) => (
            true,
            "ok",
            format!("the CA issues {} to it", caller.account()),
            String::new(),
        ),
        Err(error) => (
            false,
            error.as_str(),
            error.to_string(),
            fix(error, admin.authenticator.audiences()),
        ),
    };
    let account = answer.as_ref().ok().map(|caller| caller.account().clone());
    let account = account.or_else(|| claims.as_ref().map(|c| c.account.clone()));
    let pod = answer
        .as_ref()
        .ok()
        .and_then(|caller| caller.pod().map(|pod| pod.name.clone()));
    Json(json!({
        "accepted": accepted,
        "reason": reason,
        "explanation": explanation,
        "fix": fix,
        "account": account.as_ref().map(ToString::to_string),
        "pod": pod.or_else(|| claims.as_ref().and_then(|c| c.pod.clone())),
        "audiences": claims.as_ref().map(|c| c.audiences.clone()),
        "expires": claims.as_ref().map(|c| rfc3339(c.expires)),
        "issuer": claims.as_ref().and_then(|c| c.issuer.clone()),
        "spiffe_id": account.map(|a| a.spiffe_id(&admin.config.trust_domain).to_string()),
    }))
    .into_response()
}

/// What the owner of a refused token should change.
fn fix(error: &AuthnError, audiences: &[String]) -> String {
    let audience = audiences.first().map_or("signet-ca", String::as_str);
    match error {
        AuthnError::Claims(ClaimsFault::Audience { .. }) => format!(
            "set the audience of the projected token: volumes[].projected.sources[].serviceAccountToken.audience: {audience}"
        ),
        AuthnError::Claims(ClaimsFault::Expired(_)) => {
            "read the token file again; kubelet replaces it before it expires".into()
        }
        AuthnError::Claims(ClaimsFault::NoExpiry) => {
            format!("mount a projected token with audience {audience} in place of the Secret token")
        }
        AuthnError::Claims(ClaimsFault::NotYetValid(_)) => {
            "synchronise the clocks (NTP) of node and API server".into()
        }
        AuthnError::Claims(_) | AuthnError::NoToken => {
            "pass the whole file of the projected service-account token".into()
        }
        AuthnError::Signature => {
            "use a token of this cluster; after a change of signing keys, restart the pod".into()
        }
        AuthnError::Refused(_) => {
            "check that the pod and its service account still exist, then restart the pod".into()
        }
        AuthnError::Unavailable(_) => {
            "check that the CA reaches the API server and may create tokenreviews (deploy/ca/cluster-role.yaml)"
                .into()
        }
        AuthnError::Overloaded => "try again; raise reviews_in_flight if it lasts".into(),
    }
}
