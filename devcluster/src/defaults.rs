//! What the server adds to objects of a kind when they are made, and what it refuses of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::json;
use crate::kinds::Kind;
use crate::status::{ApiError, FieldFault};
use crate::store::{Key, State};
use crate::token::core_kind;

/// Longest object name (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

/// Longest namespace name (RFC 1123 label).
const MAX_LABEL: usize = 63;

/// Fills in what a new object of `kind` gets by default. With `keep_status`, a status that came along stays.
pub(crate) fn complete(
    state: &State,
    kind: &Kind,
    object: &mut Value,
    keep_status: bool,
) -> Result<(), ApiError> {
    // Nodes register with their status; every other kind with a status starts without one.
    if kind.traits.status && kind.kind != "Node" && !keep_status {
        json::remove(object, &["status"]);
    }
    if kind.traits.generation {
        json::set(object, &["metadata", "generation"], 1);
    }
    match kind.kind {
        "Namespace" => {
            let name = json::name(object).to_owned();
            json::set(
                object,
                &["metadata", "labels", "kubernetes.io/metadata.name"],
                name,
            );
            json::set(object, &["spec", "finalizers"], json!(["kubernetes"]));
            json::set(object, &["status", "phase"], "Active");
        }
        "Pod" => complete_pod(state, object)?,
        _ => {}
    }
    normalize(kind, object)
}

/// What holds for an object of `kind` after every write.
pub(crate) fn normalize(kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    if kind.kind == "Secret" && kind.group.is_empty() {
        normalize_secret(kind, object)?;
    }
    if kind.kind == "ConfigMap" {
        let data = object.get("data").and_then(Value::as_object);
        if let Some((key, _)) = data.into_iter().flatten().find(|(_, value)| !value.is_string()) {
            return Err(ApiError::bad_request(format!(
                "ConfigMap data[{key}] is not a string"
            )));
        }
    }
    Ok(())
}

/// What an update of `kind` may not change.
pub(crate) fn check_update(kind: &Kind, old: &Value, new: &Value) -> Result<(), ApiError> {
    let refuse = |field: &str, why: &str| {
        let fault = FieldFault {
            reason: "FieldValueForbidden",
            field,
            value: None,
            why,
        };
        Err(ApiError::invalid(kind.kind, kind.group, json::name(old), &fault))
    };
    let changed = |field: &str| old.get(field) != new.get(field);
    if kind.kind == "Secret" && changed("type") {
        return refuse("type", "field is immutable");
    }
    let frozen = old.get("immutable") == Some(&Value::Bool(true));
    if frozen && (changed("data") || changed("binaryData") || changed("immutable")) {
        return refuse("data", "field is immutable when `immutable` is set");
    }
    let account = "/spec/serviceAccountName";
    if kind.kind == "Pod" && old.pointer(account) != new.pointer(account) {
        return refuse("spec", "pod updates may not change the service account");
    }
    Ok(())
}

/// Refuses names Kubernetes would refuse: RFC 1123 subdomains, and labels for namespaces.
pub(crate) fn check_name(kind: &Kind, name: &str) -> Result<(), ApiError> {
    let limit = if kind.kind == "Namespace" {
        MAX_LABEL
    } else {
        MAX_NAME
    };
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.chars().all(inner) && label.starts_with(edge) && label.ends_with(edge) && !label.is_empty()
    };
    let dotted = if kind.kind == "Namespace" {
        label(name)
    } else {
        name.split('.').all(label)
    };
    if dotted && name.len() <= limit {
        return Ok(());
    }
    let value = format!("{name:?}");
    let fault = FieldFault {
        reason: "FieldValueInvalid",
        field: "metadata.name",
        value: Some(&value),
        why: "a name is lower case letters, digits, '-' and, except in namespaces, '.' (RFC 1123)",
    };
    Err(ApiError::invalid(kind.kind, kind.group, name, &fault))
}

fn complete_pod(state: &State, pod: &mut Value) -> Result<(), ApiError> {
    let given = json::text(pod, "/spec/serviceAccountName").filter(|name| !name.is_empty());
    let account = given.unwrap_or("default").to_owned();
    let namespace = json::text(pod, "/metadata/namespace")
        .unwrap_or_default()
        .to_owned();
    let accounts = core_kind("serviceaccounts")?;
    if state.get(&Key::new(accounts, &namespace, &account)).is_none() {
        let name = json::name(pod);
        let message = format!(
            "pods \"{name}\" is forbidden: error looking up service account {namespace}/{account}: \
             serviceaccount \"{account}\" not found"
        );
        return Err(ApiError::forbidden(message, "", "pods", name));
    }
    json::set(pod, &["spec", "serviceAccountName"], account.as_str());
    json::set(pod, &["spec", "serviceAccount"], account);
    if json::text(pod, "/status/phase").is_none() {
        json::set(pod, &["status", "phase"], "Pending");
    }
    Ok(())
}

fn normalize_secret(kind: &Kind, secret: &mut Value) -> Result<(), ApiError> {
    if json::text(secret, "/type").is_none() {
        json::set(secret, &["type"], "Opaque");
    }
    if let Some(Value::Object(plain)) = json::remove(secret, &["stringData"]) {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            json::set(secret, &["data", &key], encoded);
        }
    }
    let data = secret.get("data").and_then(Value::as_object);
    let is_base64 =
        |value: &Value| value.is_null() || value.as_str().is_some_and(|text| STANDARD.decode(text).is_ok());
    match data.into_iter().flatten().find(|(_, value)| !is_base64(value)) {
        Some((key, _)) => {
            let field = format!("data[{key}]");
            let why = "must be base64";
            let fault = FieldFault {
                reason: "FieldValueInvalid",
                field: &field,
                value: None,
                why,
            };
            Err(ApiError::invalid(
                kind.kind,
                kind.group,
                json::name(secret),
                &fault,
            ))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn names_follow_rfc_1123() {
        let pods = kinds::by_plural("", "pods").unwrap();
        let namespaces = kinds::by_plural("", "namespaces").unwrap();
        for good in ["a", "api-0", "a.b", "0"] {
            assert!(check_name(pods, good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a/b", "a b", &"a".repeat(254)] {
            assert!(check_name(pods, bad).is_err(), "{bad}");
        }
        assert!(check_name(namespaces, "a.b").is_err());
        assert!(check_name(namespaces, &"a".repeat(64)).is_err());
    }

    #[test]
    fn secrets_store_plain_strings_as_base64() {
        let secrets = kinds::by_plural("", "secrets").unwrap();
        let mut secret = json!({"stringData": {"a": "x"}, "data": {"b": "eQ=="}});
        normalize(secrets, &mut secret).unwrap();
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}})
        );
        assert!(normalize(secrets, &mut json!({"data": {"a": "?"}})).is_err());
    }
}
