//! What clients ask before they ask for objects: versions, groups, resources, keys.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kinds::{KINDS, Kind, REVIEWS};
use crate::shared::Shared;
use crate::status::ApiError;
use crate::token::API_AUDIENCE;

/// Verbs every stored kind has.
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// The media type `kubectl` asks for OpenAPI documents in.
pub(crate) const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The same as it may stand in a header: `@` is no letter of a media type (RFC 9110 §8.3.1).
pub(crate) const OPENAPI_PROTOBUF_SENT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// [`openapi`] in that media type: field 1, the version of OpenAPI, and nothing else.
pub(crate) const OPENAPI_DOCUMENT: &[u8] = b"\n\x032.0";

/// `/openapi/v2` as JSON: a document that describes nothing.
pub(crate) fn openapi() -> Value {
    json!({"swagger": "2.0", "info": {"title": "signet-devcluster", "version": "v1.33.0"}, "paths": {}})
}

/// `/version`: a Kubernetes version clients can compare, and what this really is.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": "v1.33.0+signet-devcluster",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/api`.
pub(crate) fn core_versions(shared: &Shared) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": shared.address.to_string()},
        ],
    })
}

/// `/apis`.
pub(crate) fn groups() -> Value {
    let stored = KINDS.iter().map(|kind| kind.group);
    let names: BTreeSet<&str> = stored.chain(REVIEWS.iter().map(|(group, ..)| *group)).collect();
    let groups: Vec<Value> = names
        .into_iter()
        .filter_map(|name| group_entry(name).ok())
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(crate) fn group(name: &str) -> Result<Value, ApiError> {
    let mut group = group_entry(name)?;
    crate::json::set(&mut group, &["kind"], "APIGroup");
    crate::json::set(&mut group, &["apiVersion"], "v1");
    Ok(group)
}

fn group_entry(name: &str) -> Result<Value, ApiError> {
    let stored = KINDS
        .iter()
        .find(|kind| kind.group == name)
        .map(|kind| kind.versions.to_vec());
    let answered = || {
        REVIEWS
            .iter()
            .find(|(group, ..)| *group == name)
            .map(|(_, version, ..)| vec![*version])
    };
    let served = stored
        .or_else(answered)
        .filter(|_| !name.is_empty())
        .ok_or_else(ApiError::not_served)?;
    let entry = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = served.iter().map(entry).collect();
    let preferred = versions.first().cloned();
    Ok(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(crate) fn resources(group: &str, version: &str) -> Result<Value, ApiError> {
    let stored = KINDS
        .iter()
        .filter(|kind| kind.group == group && kind.served(version).is_some());
    let mut resources: Vec<Value> = stored.flat_map(kind_entries).collect();
    for (_, _, plural, kind) in REVIEWS.iter().filter(|(g, v, ..)| *g == group && *v == version) {
        resources.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind,
            "verbs": ["create"],
        }));
    }
    if resources.is_empty() {
        return Err(ApiError::not_served());
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

fn kind_entries(kind: &Kind) -> Vec<Value> {
    let mut entries = vec![json!({
        "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
        "kind": kind.kind, "shortNames": kind.short, "verbs": VERBS,
    })];
    if kind.traits.status {
        entries.push(json!({
            "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": ["get", "patch", "update"],
        }));
    }
    if kind.kind == "ServiceAccount" {
        entries.push(json!({
            "name": "serviceaccounts/token", "singularName": "", "namespaced": true, "kind": "TokenRequest",
            "group": "authentication.k8s.io", "version": "v1", "verbs": ["create"],
        }));
    }
    entries
}

/// `/.well-known/openid-configuration`.
pub(crate) fn openid_configuration(shared: &Shared) -> Value {
    json!({
        "issuer": API_AUDIENCE,
        "jwks_uri": format!("https://{}/openid/v1/jwks", shared.address),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_version_that_is_named_lists_resources() {
        for group in groups()["groups"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                let name = group["name"].as_str().unwrap();
                assert!(
                    resources(name, version["version"].as_str().unwrap()).is_ok(),
                    "{group}"
                );
            }
        }
        assert!(resources("", "v1").is_ok());
        assert!(resources("apps", "v1").is_err());
    }
}
