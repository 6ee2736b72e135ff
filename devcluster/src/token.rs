//! Minting service-account tokens: the claims, and the `token` subresource (TokenRequest).

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::json;
use crate::kinds::{self, Kind};
use crate::random;
use crate::shared::Shared;
use crate::status::{ApiError, FieldFault};
use crate::store::{Key, State};
use crate::time;

/// The audience and the issuer of the API server itself.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// Shortest lifetime TokenRequest grants, as in Kubernetes.
const MIN_SECONDS: u64 = 600;

/// Longest lifetime TokenRequest accepts, as in Kubernetes.
const MAX_SECONDS: u64 = 1 << 32;

/// Lifetime when the request names none, as in Kubernetes.
const DEFAULT_SECONDS: u64 = 3600;

/// The pod a token is bound to.
pub(crate) struct PodBinding {
    pub(crate) name: String,
    /// Checked when given.
    pub(crate) uid: Option<String>,
}

/// A token to be made.
pub(crate) struct Order {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) lifetime: Duration,
    pub(crate) pod: Option<PodBinding>,
}

/// Signs a token for `order`, whose account and pod must exist.
pub(crate) fn mint(shared: &Shared, order: &Order, now: SystemTime) -> Result<String, ApiError> {
    let claims = shared
        .store
        .read(|state| claims(state, order, now, shared.settings.node_extras))?;
    shared
        .keys
        .sign(&claims)
        .map_err(|fault| ApiError::internal(&fault.to_string()))
}

fn claims(state: &State, order: &Order, now: SystemTime, extras: bool) -> Result<Value, ApiError> {
    let accounts = core_kind("serviceaccounts")?;
    let (namespace, name) = (order.namespace.as_str(), order.service_account.as_str());
    let account = state
        .get(&Key::new(accounts, namespace, name))
        .ok_or_else(|| ApiError::not_found(accounts, name))?;
    let issued = time::unix(now);
    let mut private = json!({
        "namespace": namespace,
        "serviceaccount": {"name": name, "uid": json::uid(&account)},
    });
    if let Some(binding) = &order.pod {
        let pod = bound_pod(state, order, binding)?;
        json::set(
            &mut private,
            &["pod"],
            json!({"name": binding.name, "uid": json::uid(&pod)}),
        );
        if let Some(node) = json::text(&pod, "/spec/nodeName").filter(|_| extras) {
            json::set(&mut private, &["node", "name"], node);
            let nodes = core_kind("nodes")?;
            if let Some(node) = state.get(&Key::new(nodes, "", node)) {
                json::set(&mut private, &["node", "uid"], json::uid(&node));
            }
        }
    }
    let api_audience = [API_AUDIENCE.to_owned()];
    let audiences = if order.audiences.is_empty() {
        &api_audience[..]
    } else {
        &order.audiences
    };
    let mut claims = json!({
        "aud": audiences,
        "exp": issued.saturating_add(order.lifetime.as_secs()),
        "iat": issued,
        "iss": API_AUDIENCE,
        "kubernetes.io": private,
        "nbf": issued,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    });
    if extras {
        json::set(&mut claims, &["jti"], random::uid()?);
    }
    Ok(claims)
}

fn bound_pod(state: &State, order: &Order, binding: &PodBinding) -> Result<std::sync::Arc<Value>, ApiError> {
    let pods = core_kind("pods")?;
    let key = Key::new(pods, &order.namespace, &binding.name);
    let pod = state
        .get(&key)
        .ok_or_else(|| ApiError::not_found(pods, &binding.name))?;
    let uid = json::uid(&pod);
    if let Some(asked) = binding.uid.as_deref().filter(|asked| *asked != uid) {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(pods, &binding.name, &why));
    }
    if json::text(&pod, "/spec/serviceAccountName") != Some(&order.service_account) {
        let account = &order.service_account;
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
        )));
    }
    Ok(pod)
}

/// Answers `create` on `serviceaccounts/<name>/token`.
pub(crate) fn token_request(
    shared: &Shared,
    namespace: &str,
    name: &str,
    request: &Value,
    now: SystemTime,
) -> Result<Value, ApiError> {
    let seconds = match request.pointer("/spec/expirationSeconds") {
        None | Some(Value::Null) => DEFAULT_SECONDS,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| bad_expiration(value, "must be a number of seconds"))?,
    };
    let given = Value::from(seconds);
    if seconds < MIN_SECONDS {
        return Err(bad_expiration(
            &given,
            "may not specify a duration less than 10 minutes",
        ));
    }
    if seconds > MAX_SECONDS {
        return Err(bad_expiration(
            &given,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    let mut audiences = json::texts(request, "/spec/audiences");
    if audiences.is_empty() {
        audiences.push(API_AUDIENCE.to_owned());
    }
    let bound = request
        .pointer("/spec/boundObjectRef")
        .filter(|bound| !bound.is_null());
    let order = Order {
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
        audiences: audiences.clone(),
        lifetime: Duration::from_secs(seconds),
        pod: bound.map(pod_binding).transpose()?,
    };
    let token = mint(shared, &order, now)?;
    let expires = now.checked_add(order.lifetime).unwrap_or(now);
    Ok(json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": time::rfc3339(now)},
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
        "status": {"token": token, "expirationTimestamp": time::rfc3339(expires)},
    }))
}

fn pod_binding(bound: &Value) -> Result<PodBinding, ApiError> {
    let field = |pointer| json::text(bound, pointer).filter(|text| !text.is_empty());
    match (field("/apiVersion"), field("/kind"), field("/name")) {
        (Some("v1"), Some("Pod"), Some(name)) => Ok(PodBinding {
            name: name.to_owned(),
            uid: field("/uid").map(str::to_owned),
        }),
        (version, kind, _) => Err(ApiError::bad_request(format!(
            "cannot bind token to object of type {}, Kind={}: this cluster binds tokens to pods only",
            version.unwrap_or_default(),
            kind.unwrap_or_default()
        ))),
    }
}

fn bad_expiration(value: &Value, why: &str) -> ApiError {
    let value = value.to_string();
    let fault = FieldFault {
        reason: "FieldValueInvalid",
        field: "spec.expirationSeconds",
        value: Some(&value),
        why,
    };
    ApiError::invalid("TokenRequest", "authentication.k8s.io", "", &fault)
}

/// A row of the kinds table that is always there.
pub(crate) fn core_kind(plural: &str) -> Result<&'static Kind, ApiError> {
    kinds::by_plural("", plural).ok_or_else(ApiError::not_served)
}
