//! The pair of Envoys: SDS, mutual TLS, RBAC of ten rules, one worker each.

use std::path::Path;

use serde_json::{Value, json};
use signet_tests::envoy::{Envoy, EnvoySetup};

use super::{BACKEND, FRONTEND, PATH, Pair, RULES, World};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Two Envoys.
pub(crate) struct Envoys {
    pub(crate) pair: Pair,
    _running: [Envoy; 2],
}

impl Envoys {
    pub(crate) async fn start(world: &World, program: &Path) -> Self {
        let back = EnvoySetup::new(program, "back", world.backend.socket()).under(world.under);
        let tls = back.server_tls(Some(FRONTEND));
        let back = back
            .raw_cluster(cluster(
                "app",
                &world.app,
                None,
                &json!({"http_protocol_options": {}}),
            ))
            .raw_listener(http("in-http", "app", Some(&tls), Some(rbac_http())))
            .raw_listener(tcp("in-tcp", "app", Some(&tls), Some(rbac_tcp())))
            .start()
            .await;
        let (inbound, inbound_tcp) = (back.listener("in-http").await, back.listener("in-tcp").await);
        let front = EnvoySetup::new(program, "front", world.frontend.socket()).under(world.under);
        let tls = front.client_tls(Some(BACKEND));
        let one = json!({"http_protocol_options": {}});
        let two = json!({"http2_protocol_options": {}});
        let front = front
            .raw_cluster(cluster("to-http1", &inbound, Some(&tls), &one))
            .raw_cluster(cluster("to-http2", &inbound, Some(&tls), &two))
            .raw_cluster(cluster("to-tcp", &inbound_tcp, Some(&tls), &one))
            .raw_listener(http("http1", "to-http1", None, None))
            .raw_listener(http("http2", "to-http2", None, None))
            .raw_listener(tcp("tcp", "to-tcp", None, None))
            .start()
            .await;
        Self {
            pair: Pair {
                front: front.process.pid(),
                back: back.process.pid(),
                http1: front.listener("http1").await,
                http2: front.listener("http2").await,
                tcp: front.listener("tcp").await,
                inbound,
            },
            _running: [front, back],
        }
    }
}

fn http(name: &str, cluster: &str, tls: Option<&Value>, policy: Option<Value>) -> Value {
    let router = json!({"name": "router", "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")}});
    let filters: Vec<Value> = policy.into_iter().chain([router]).collect();
    let mut manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "codec_type": "AUTO",
        "normalize_path": true,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
        ]}]},
        "http_filters": filters,
    });
    if tls.is_some() {
        manager["forward_client_cert_details"] = "SANITIZE_SET".into();
        manager["set_current_client_cert_details"] = json!({"uri": true});
    }
    listener(name, &json!({"name": "http", "typed_config": manager}), None, tls)
}

fn tcp(name: &str, cluster: &str, tls: Option<&Value>, policy: Option<Value>) -> Value {
    let proxy = json!({"name": "tcp", "typed_config": {
        "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": name,
        "cluster": cluster,
    }});
    listener(name, &proxy, policy, tls)
}

fn listener(name: &str, last: &Value, first: Option<Value>, tls: Option<&Value>) -> Value {
    let filters: Vec<Value> = first.into_iter().chain([last.clone()]).collect();
    let mut chain = json!({"filters": filters});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls.clone();
    }
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [chain],
    })
}

fn cluster(name: &str, endpoint: &str, tls: Option<&Value>, protocol: &Value) -> Value {
    let (host, port) = endpoint.rsplit_once(':').expect("host:port");
    let port: u16 = port.parse().expect("a port");
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": protocol,
        }},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}},
        ]}]},
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls.clone();
    }
    cluster
}

/// Nine rules that allow something else, and one that allows this.
fn rbac_http() -> Value {
    let other = |n: usize| {
        json!({
            "permissions": [{"and_rules": {"rules": [
                {"url_path": {"path": {"prefix": format!("/other/{n}/")}}},
                {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
            ]}}],
            "principals": [authenticated(&format!("spiffe://cluster.local/ns/web/sa/other-{n}"))],
        })
    };
    let mut policies: serde_json::Map<String, Value> =
        (1..RULES).map(|n| (format!("rule-{n:02}"), other(n))).collect();
    let this = json!({
        "permissions": [{"and_rules": {"rules": [
            {"url_path": {"path": {"prefix": PATH}}},
            {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
        ]}}],
        "principals": [authenticated(FRONTEND)],
    });
    policies.insert("this".into(), this);
    json!({"name": "rbac", "typed_config": {
        "@type": format!("{TYPES}.filters.http.rbac.v3.RBAC"),
        "rules": {"action": "ALLOW", "policies": policies},
    }})
}

fn rbac_tcp() -> Value {
    let mut policies: serde_json::Map<String, Value> = (1..RULES)
        .map(|n| {
            let id = format!("spiffe://cluster.local/ns/web/sa/other-{n}");
            (
                format!("rule-{n:02}"),
                json!({"permissions": [{"any": true}], "principals": [authenticated(&id)]}),
            )
        })
        .collect();
    policies.insert(
        "this".into(),
        json!({"permissions": [{"any": true}], "principals": [authenticated(FRONTEND)]}),
    );
    json!({"name": "rbac", "typed_config": {
        "@type": format!("{TYPES}.filters.network.rbac.v3.RBAC"),
        "stat_prefix": "rbac",
        "rules": {"action": "ALLOW", "policies": policies},
    }})
}

fn authenticated(id: &str) -> Value {
    json!({"authenticated": {"principal_name": {"exact": id}}})
}
