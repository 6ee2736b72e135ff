//! Envoy's configuration as JSON, put together from a few pieces.

use std::path::Path;

use serde_json::{Value, json};

use super::parts::{self, Speaks, typed};

/// Which of the two protocols it asks for secrets with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// What it calls key pair and roots.
#[derive(Clone, Debug)]
pub struct Names {
    /// Name of chain and key.
    pub pair: String,
    /// Name of the roots.
    pub roots: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            pair: "default".into(),
            roots: "ROOTCA".into(),
        }
    }
}

/// The whole document.
pub(super) fn document(id: &str, agent: &Path, listeners: &[Value], clusters: &[Value]) -> Value {
    let place = json!({"pipe": {"path": agent}});
    let mut clusters = clusters.to_vec();
    clusters.push(parts::at("agent", &place, Speaks::Http2, json!({})));
    json!({
        "node": {"id": id, "cluster": "signet-tests"},
        "admin": {"address": parts::address("127.0.0.1:0")},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// TLS of a listener: a client certificate is required.
pub(super) fn downstream_tls(subscription: Subscription, names: &Names, peer: Option<&str>) -> Value {
    let mut context = tls_context(subscription, names, peer);
    context["require_client_certificate"] = true.into();
    typed("tls", "transport_sockets.tls.v3.DownstreamTlsContext", context)
}

/// TLS towards a server.
pub(super) fn upstream_tls(subscription: Subscription, names: &Names, peer: Option<&str>) -> Value {
    let context = tls_context(subscription, names, peer);
    typed("tls", "transport_sockets.tls.v3.UpstreamTlsContext", context)
}

fn tls_context(subscription: Subscription, names: &Names, peer: Option<&str>) -> Value {
    let api = match subscription {
        Subscription::Sotw => "GRPC",
        Subscription::Delta => "DELTA_GRPC",
    };
    let sds = |name: &str| {
        json!({"name": name, "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "20s",
            "api_config_source": {
                "api_type": api,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
            },
        }})
    };
    let pinned: Vec<Value> = peer
        .iter()
        .map(|id| json!({"san_type": "URI", "matcher": {"exact": id}}))
        .collect();
    json!({"common_tls_context": {
        "tls_certificate_sds_secret_configs": [sds(&names.pair)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": pinned},
            "validation_context_sds_secret_config": sds(&names.roots),
        },
    }})
}

/// A TLS listener whose answers name the client.
pub(super) fn answering_listener(name: &str, tls: &Value) -> Value {
    let header = |name: &str, value: &str| json!({"header": {"key": name, "value": value}});
    let routes = json!({
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
            "match": {"prefix": "/"},
            "direct_response": {"status": 200, "body": {"inline_string": "hello\n"}},
        }]}],
        "response_headers_to_add": [
            header("x-peer", "%DOWNSTREAM_PEER_URI_SAN%"),
            header("x-peer-serial", "%DOWNSTREAM_PEER_SERIAL%"),
        ],
    });
    let http = parts::http(name, &routes, Vec::new(), json!({}));
    parts::listener(name, &[http], Some(tls))
}

/// A plain listener that forwards everything to a cluster.
pub(super) fn forwarding_listener(name: &str, cluster: &str) -> Value {
    let http = parts::http(name, &parts::to_cluster(cluster), Vec::new(), json!({}));
    parts::listener(name, &[http], None)
}

/// A cluster of one endpoint.
pub(super) fn cluster(
    name: &str,
    endpoint: &str,
    tls: &Value,
    requests_per_connection: Option<u32>,
) -> Value {
    let more = match requests_per_connection {
        Some(most) => json!({"common_http_protocol_options": {"max_requests_per_connection": most}}),
        None => json!({}),
    };
    parts::cluster(name, endpoint, Some(tls), Speaks::Http1, more)
}
