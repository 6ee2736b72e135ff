//! Applications on libraries that others wrote, both ends of them, with a proxy each between: WebSockets, and gRPC by
//! its own makers.

use serde_json::{Value, json};
use signet_tests::proxy::Proxy;
use signet_tests::python::Script;
use signet_tests::spiffe::Running;

use super::proxy_http::proxies;
use super::proxy_tls::World;

const THESE: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: these, namespace: data}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {paths: [/up, /signet.test.Peer/*]}}]
";

/// A server behind its proxy, and a proxy of its clients.
struct Way {
    frontend: Proxy,
    backend: Proxy,
    // Started first, ended last.
    server: Running,
    script: Script,
    _world: World,
}

impl Way {
    /// To what this script serves; nothing where there is no Python for it.
    async fn start(script: &str) -> Option<Self> {
        let script = Script::new(script)?;
        let mut server = script.start(&["serve"]);
        let (address, world) = (server.address().await, World::start().await);
        let (backend, frontend) = proxies(&world, &address, "http", THESE).await;
        Some(Self {
            frontend,
            backend,
            server,
            script,
            _world: world,
        })
    }

    fn entry(&self) -> String {
        self.frontend.outbound(0)
    }

    async fn refuse_all(&self) {
        let nobody = THESE.replace("/sa/frontend", "/sa/nobody");
        self.backend.apply("these.yaml", &nobody).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_carry_every_kind_of_message_and_their_close_both_ways() {
    let Some(mut way) = Way::start("sockets.py").await else {
        return;
    };
    let url = format!("ws://{}/up", way.entry());
    for (round, (more, extensions)) in [
        (&[][..], json!([])),
        (&["deflate"], json!(["permessage-deflate"])),
    ]
    .into_iter()
    .enumerate()
    {
        let said = way.script.run(&[&["talk", &url][..], more].concat()).await;
        let expected = json!({"messages": 117, "fragments": 6, "subprotocol": "signet.echo", "extensions": extensions,
            "code": 4000});
        assert_eq!(said, [expected]);
        let heard = way.server.line(round + 1).await;
        let expected = json!({"code": 4000, "reason": "enough", "messages": 117, "pongs": 117});
        assert_eq!(heard, expected);
    }
    let told = way.script.run(&["told", &url]).await;
    assert_eq!(told, [json!({"code": 4321, "reason": "as you say ✓"})]);
    assert_eq!(way.server.line(3).await["code"], 4321);
    let record = way
        .backend
        .record("a record", |record| record["status"] == 101)
        .await;
    assert_eq!(
        (&record["reason"], &record["path"]),
        (&json!("ok"), &json!("/up"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_with_its_permit() {
    let Some(mut way) = Way::start("sockets.py").await else {
        return;
    };
    let mut client = way.script.start(&["stay", &format!("ws://{}/up", way.entry())]);
    client.line(0).await;
    way.refuse_all().await;
    // 1006: it broke off, and neither end said that it would (RFC 6455 §7.1.5).
    assert_eq!(client.line(1).await, json!({"code": 1006}));
    let heard = way.server.line(1).await;
    assert_eq!(
        (&heard["code"], &heard["messages"]),
        (&json!(1006), &json!(3)),
        "{heard}"
    );
    way.backend
        .record("a record", |record| record["reason"] == "policy_withdrawn")
        .await;
}

/// How a call ends that the service refuses.
fn no(code: &str, details: &str, trailers: &Value) -> Value {
    json!({"code": code, "details": details, "trailers": trailers})
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_by_its_makers_keep_metadata_words_and_status() {
    let Some(mut way) = Way::start("calls.py").await else {
        return;
    };
    let said = way.script.run(&["call", &way.entry()]).await;
    let first = json!({"x-first": "before", "x-first-bin": "00fe"});
    for (line, length) in said.iter().zip(["0", "5", "2000000"]) {
        let last = json!({"x-length": length, "x-last-bin": "00ff"});
        let expected = json!({"code": "OK", "details": "", "trailers": last, "first": first});
        assert_eq!(line["echo"], expected);
    }
    let refused = no(
        "FAILED_PRECONDITION",
        "no, and that is final ✓",
        &json!({"x-why": "because"}),
    );
    let whole = json!({"words": 100, "code": "OK", "details": "", "trailers": {"x-end": "whole"}});
    let stopped = json!({"words": 100, "code": "OUT_OF_RANGE", "details": "stopped",
        "trailers": {"x-why": "you said so"}});
    let unknown = no("UNIMPLEMENTED", "Method not found!", &json!({}));
    let given_up = json!({"first": "first", "code": "CANCELLED"});
    let expected = [
        json!({"refuse": refused}),
        json!({"whole": whole}),
        json!({"stopped": stopped}),
        json!({"unknown": unknown}),
        json!({"given_up": given_up}),
    ];
    assert_eq!(said[3..], expected);
    // The service hears that its client gave up.
    assert_eq!(way.server.line(1).await, json!({"given_up": true}));
    let scrape = way.backend.scrape().await;
    for (status, count) in [("0", 4.0), ("9", 1.0), ("11", 1.0), ("12", 1.0)] {
        let labels = [("request_protocol", "grpc"), ("grpc_response_status", status)];
        let counted = scrape.value("istio_requests_total", &labels);
        assert!((counted - count).abs() < 0.5, "{status}: {counted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_by_its_makers_hears_a_refusal_in_its_own_words() {
    let Some(way) = Way::start("calls.py").await else {
        return;
    };
    way.refuse_all().await;
    let said = way.script.run(&["refused", &way.entry()]).await;
    for (line, call) in said.iter().zip(["unary", "stream"]) {
        let told = &line[call];
        assert_eq!(
            (&told["code"], &told["details"]),
            (&json!("PERMISSION_DENIED"), &json!("RBAC: access denied")),
            "{told}"
        );
    }
    assert_eq!(said.len(), 2);
}
