//! The pair of `signet-proxy`: SDS, mutual TLS, AuthorizationPolicies of ten rules, one worker each.

use serde_json::json;
use signet_tests::proxy::{Proxy, ProxySetup};

use super::{BACKEND, FRONTEND, PATH, Pair, RULES, World};

/// Two proxies.
pub(crate) struct Proxies {
    pub(crate) pair: Pair,
    _running: [Proxy; 2],
}

impl Proxies {
    pub(crate) async fn start(world: &World) -> Self {
        let back = setup(world, &world.backend.socket(), "data", "backend")
            .inbound(&world.app, json!({"port": 8080, "protocol": "http1"}))
            .inbound(&world.app, json!({"port": 9090, "protocol": "tcp"}))
            .policy("rules.yaml", &policies())
            .start()
            .await;
        let (inbound, inbound_tcp) = (back.inbound(0), back.inbound(1));
        let mtls = json!({"expected": [BACKEND]});
        let front = setup(world, &world.frontend.socket(), "web", "frontend")
            .outbound(&inbound, json!({"protocol": "http1", "mtls": mtls}))
            .outbound(&inbound, json!({"protocol": "http2", "mtls": mtls}))
            .outbound(&inbound_tcp, json!({"protocol": "tcp", "mtls": mtls}))
            .start()
            .await;
        Self {
            pair: Pair {
                front: front.process.pid(),
                back: back.process.pid(),
                http1: front.outbound(0),
                http2: front.outbound(1),
                tcp: front.outbound(2),
                inbound,
            },
            _running: [front, back],
        }
    }
}

/// Like the Envoys: one worker, and records only of what is refused.
fn setup(world: &World, agent: &std::path::Path, namespace: &str, app: &str) -> ProxySetup {
    ProxySetup::new(agent, namespace, app)
        .under(world.under)
        .set("workers", 1)
        .set("access_log", "refused")
        .set("log_filter", "info")
}

/// STRICT; nine rules that allow something else, and one that allows this, for the HTTP port and for the other.
fn policies() -> String {
    let principal = |id: &str| id.trim_start_matches("spiffe://").to_owned();
    let rule = |number: usize, of: &dyn Fn(&str) -> String| {
        let last = number == RULES;
        let id = if last {
            principal(FRONTEND)
        } else {
            format!("cluster.local/ns/web/sa/other-{number}")
        };
        let path = if last {
            PATH.to_owned()
        } else {
            format!("/other/{number}/")
        };
        format!(
            "  - from: [{{source: {{principals: ['{id}']}}}}]\n    to: [{{operation: {}}}]\n",
            of(&path)
        )
    };
    let all = |of: &dyn Fn(&str) -> String| (1..=RULES).map(|n| rule(n, of)).collect::<String>();
    let http = all(&|path| format!("{{methods: [GET], paths: ['{path}*'], ports: ['8080']}}"));
    let tcp = all(&|_| "{ports: ['9090']}".into());
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: strict, namespace: data}}\n\
         spec: {{mtls: {{mode: STRICT}}}}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: http, namespace: data}}\n\
         spec:\n  rules:\n{http}---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: tcp, namespace: data}}\n\
         spec:\n  rules:\n{tcp}"
    )
}
