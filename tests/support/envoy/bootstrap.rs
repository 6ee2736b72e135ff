//! Envoy's configuration as JSON, put together from a few pieces.

use std::path::Path;

use serde_json::{Value, json};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

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
    let mut clusters = clusters.to_vec();
    clusters.push(json!({
        "name": "agent",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": protocol(&json!({"http2_protocol_options": {}}), None),
        "load_assignment": {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"pipe": {"path": agent}}}},
        ]}]},
    }));
    json!({
        "node": {"id": id, "cluster": "signet-tests"},
        "admin": {"address": address("127.0.0.1:0")},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// TLS of a listener: a client certificate is required.
pub(super) fn downstream_tls(subscription: Subscription, names: &Names, peer: Option<&str>) -> Value {
    let mut context = tls_context(subscription, names, peer);
    context["@type"] = format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext").into();
    context["require_client_certificate"] = true.into();
    json!({"name": "tls", "typed_config": context})
}

/// TLS towards a server.
pub(super) fn upstream_tls(subscription: Subscription, names: &Names, peer: Option<&str>) -> Value {
    let mut context = tls_context(subscription, names, peer);
    context["@type"] = format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext").into();
    json!({"name": "tls", "typed_config": context})
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
    listener(name, &routes, Some(tls))
}

/// A plain listener that forwards everything to a cluster.
pub(super) fn forwarding_listener(name: &str, cluster: &str) -> Value {
    let routes = json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
        "match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "10s"},
    }]}]});
    listener(name, &routes, None)
}

fn listener(name: &str, routes: &Value, tls: Option<&Value>) -> Value {
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": routes,
        "http_filters": [{"name": "router", "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")}}],
    });
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls.clone();
    }
    json!({"name": name, "address": address("127.0.0.1:0"), "filter_chains": [chain]})
}

/// A cluster of one endpoint.
pub(super) fn cluster(
    name: &str,
    endpoint: &str,
    tls: &Value,
    requests_per_connection: Option<u32>,
) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "transport_socket": tls,
        "typed_extension_protocol_options": protocol(&json!({"http_protocol_options": {}}), requests_per_connection),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(endpoint)}},
        ]}]},
    })
}

fn protocol(explicit: &Value, requests_per_connection: Option<u32>) -> Value {
    let mut options = json!({
        "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": explicit,
    });
    if let Some(most) = requests_per_connection {
        options["common_http_protocol_options"] = json!({"max_requests_per_connection": most});
    }
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options})
}

fn address(text: &str) -> Value {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    let port: u16 = port.parse().expect("port");
    json!({"socket_address": {"address": host, "port_value": port}})
}
