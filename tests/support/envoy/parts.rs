//! The pieces that configurations of Envoy are made of: listeners, filters, clusters.

use serde_json::{Value, json};

const TYPES: &str = "type.googleapis.com/envoy.extensions";
const OPTIONS: &str = "upstreams.http.v3.HttpProtocolOptions";

/// What a cluster speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// An extension with its configuration; `kind` is the type's name below `envoy.extensions`.
#[must_use]
pub fn typed(name: &str, kind: &str, config: Value) -> Value {
    json!({"name": name, "typed_config": of_type(kind, config)})
}

/// `config` with its type.
#[must_use]
pub fn of_type(kind: &str, config: Value) -> Value {
    merged(json!({"@type": format!("{TYPES}.{kind}")}), config)
}

/// The last HTTP filter.
#[must_use]
pub fn router() -> Value {
    typed("router", "filters.http.router.v3.Router", json!({}))
}

/// Routes that send everything to a cluster.
#[must_use]
pub fn to_cluster(cluster: &str) -> Value {
    json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
    ]}]})
}

/// The network filter that speaks HTTP: these filters, then the router. `more` has whatever else is set.
#[must_use]
pub fn http(name: &str, routes: &Value, filters: Vec<Value>, more: Value) -> Value {
    let filters: Vec<Value> = filters.into_iter().chain([router()]).collect();
    let manager = json!({
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": routes,
        "http_filters": filters,
    });
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    typed("http", kind, merged(manager, more))
}

/// The network filter that passes bytes to a cluster.
#[must_use]
pub fn tcp(name: &str, cluster: &str) -> Value {
    let config = json!({"stat_prefix": name, "cluster": cluster});
    typed("tcp", "filters.network.tcp_proxy.v3.TcpProxy", config)
}

/// A listener on a port that the system chooses.
#[must_use]
pub fn listener(name: &str, filters: &[Value], tls: Option<&Value>) -> Value {
    let chain = json!({"filters": filters});
    json!({
        "name": name,
        "address": address("127.0.0.1:0"),
        "filter_chains": [over(chain, tls)],
    })
}

/// A cluster of one endpoint, `host:port`. `more` has whatever else is set of its protocol.
#[must_use]
pub fn cluster(name: &str, endpoint: &str, tls: Option<&Value>, speaks: Speaks, more: Value) -> Value {
    over(at(name, &address(endpoint), speaks, more), tls)
}

/// A cluster of one endpoint at a place of any kind.
pub(super) fn at(name: &str, place: &Value, speaks: Speaks, more: Value) -> Value {
    let explicit = match speaks {
        Speaks::Http1 => json!({"http_protocol_options": {}}),
        Speaks::Http2 => json!({"http2_protocol_options": {}}),
    };
    let options = of_type(OPTIONS, merged(json!({"explicit_http_config": explicit}), more));
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {format!("envoy.extensions.{OPTIONS}"): options},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": place}},
        ]}]},
    })
}

/// A socket's address, from `host:port`.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn address(text: &str) -> Value {
    let (host, port) = text.rsplit_once(':').expect("host:port");
    let port: u16 = port.parse().expect("port");
    json!({"socket_address": {"address": host, "port_value": port}})
}

fn over(mut what: Value, tls: Option<&Value>) -> Value {
    if let Some(tls) = tls {
        what["transport_socket"] = tls.clone();
    }
    what
}

fn merged(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}
