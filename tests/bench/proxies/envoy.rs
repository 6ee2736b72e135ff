//! The pair of Envoys: SDS, mutual TLS, RBAC of ten rules, one worker each.

use std::path::Path;

use serde_json::{Value, json};
use signet_tests::envoy::parts::{self, Speaks, cluster, typed};
use signet_tests::envoy::{Envoy, EnvoySetup};

use super::{BACKEND, FRONTEND, PATH, Pair, RULES, World};

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
            .raw_cluster(cluster("app", &world.app, None, Speaks::Http1, json!({})))
            .raw_listener(http("in-http", "app", Some(&tls), Some(rbac_http())))
            .raw_listener(tcp("in-tcp", "app", Some(&tls), Some(rbac_tcp())))
            .start()
            .await;
        let (inbound, inbound_tcp) = (back.listener("in-http").await, back.listener("in-tcp").await);
        let front = EnvoySetup::new(program, "front", world.frontend.socket()).under(world.under);
        let tls = front.client_tls(Some(BACKEND));
        let to = |name, address, speaks| cluster(name, address, Some(&tls), speaks, json!({}));
        let front = front
            .raw_cluster(to("to-http1", &inbound, Speaks::Http1))
            .raw_cluster(to("to-http2", &inbound, Speaks::Http2))
            .raw_cluster(to("to-tcp", &inbound_tcp, Speaks::Http1))
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
    let mut more = json!({"normalize_path": true});
    if tls.is_some() {
        more["forward_client_cert_details"] = "SANITIZE_SET".into();
        more["set_current_client_cert_details"] = json!({"uri": true});
    }
    let filters = policy.into_iter().collect();
    let http = parts::http(name, &parts::to_cluster(cluster), filters, more);
    parts::listener(name, &[http], tls)
}

fn tcp(name: &str, cluster: &str, tls: Option<&Value>, policy: Option<Value>) -> Value {
    let filters: Vec<Value> = policy.into_iter().chain([parts::tcp(name, cluster)]).collect();
    parts::listener(name, &filters, tls)
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
    let rules = json!({"rules": {"action": "ALLOW", "policies": policies}});
    typed("rbac", "filters.http.rbac.v3.RBAC", rules)
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
    let rules = json!({"stat_prefix": "rbac", "rules": {"action": "ALLOW", "policies": policies}});
    typed("rbac", "filters.network.rbac.v3.RBAC", rules)
}

fn authenticated(id: &str) -> Value {
    json!({"authenticated": {"principal_name": {"exact": id}}})
}
