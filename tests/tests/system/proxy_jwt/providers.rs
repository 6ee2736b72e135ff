//! Providers of CUSTOM policies, asked by a real proxy as Envoy asks them.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};
use signet_proto::wire::envoy::config::core::v3::Address;
use signet_proto::wire::envoy::service::auth::v3::AttributeContext;
use signet_proto::wire::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer};
use signet_tests::envoy::EnvoySetup;
use signet_tests::envoy::parts::{self, Speaks};
use signet_tests::peers;

use super::super::proxy_tls::World;
use super::desk::{Desk, serve};
use super::web::{Said, Web, ask};

fn custom(provider: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: data}}\n\
         spec: {{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}\n"
    )
}

/// Headers that the provider's yes is about, as a client sends them.
const SENT: [(&str, &str); 6] = [
    ("x-plain", "old"),
    ("x-set", "old"),
    ("x-join", "old"),
    ("x-absent", "old"),
    ("x-over", "old"),
    ("x-gone", "old"),
];
/// Those and the ones it may add.
const CHANGED: [&str; 8] = [
    "x-plain",
    "x-set",
    "x-join",
    "x-join-none",
    "x-absent",
    "x-over",
    "x-over-none",
    "x-gone",
];

/// What the application saw of them: joined values, since lines of one name mean the same as one line.
fn seen(said: &Said) -> BTreeMap<&'static str, String> {
    let told: Value = serde_json::from_str(&said.body).unwrap();
    let value = |name: &&'static str| {
        let values = told["headers"][*name].as_array()?;
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        Some((*name, values.join(",")))
    };
    CHANGED.iter().filter_map(value).collect()
}

/// What came back of the headers that the provider's yes is about.
fn returned(said: &Said) -> Vec<(String, String)> {
    let ours = |name: &http::HeaderName| name.as_str().starts_with("x-r-") || name == "x-back";
    let all = said.headers.iter().filter(|(name, _)| ours(name));
    let mut all: Vec<_> = all
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_policy_lets_pass_what_its_provider_lets_pass_and_nothing_without_it() {
    let (world, app) = (World::start().await, Web::mirror().await);
    let (address, provider) = serve(Desk::default()).await;
    let providers = json!([{"name": "desk", "address": address, "timeout": "5s"}]);
    let proxy = world
        .backend_proxy()
        .set("ext_authz", providers)
        .policy("ask.yaml", &custom("desk"))
        .inbound(&app.address, json!({"protocol": "http"}))
        .inbound(&app.address, json!({"protocol": "tcp"}))
        .start()
        .await;
    let yes = ask(&proxy.inbound(0), "/yes", &[]).await;
    assert_eq!(
        (yes.status, &yes.headers["x-back"]),
        (StatusCode::OK, &http::HeaderValue::from_static("b"))
    );
    let no = ask(&proxy.inbound(0), "/no", &[]).await;
    assert_eq!((no.status.as_u16(), no.body.as_str()), (418, "no tea"));
    assert_eq!(no.headers["x-why"], "because");
    let failed = ask(&proxy.inbound(0), "/fail", &[]).await;
    assert_eq!(
        (failed.status, failed.body.as_str()),
        (StatusCode::FORBIDDEN, "RBAC: access denied")
    );
    assert_eq!(ask(&proxy.inbound(1), "/tcp", &[]).await.status, StatusCode::OK);
    provider.end().await;
    let dead = ask(&proxy.inbound(0), "/yes", &[]).await;
    assert_eq!(dead.status, StatusCode::FORBIDDEN);
    proxy.apply("ask.yaml", &custom("nobody")).await;
    assert_eq!(
        ask(&proxy.inbound(0), "/yes", &[]).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_provider_is_refused_with_what_to_do_instead() {
    let world = World::start().await;
    let providers = json!([{"name": "desk", "address": "127.0.0.1:1", "protocol": "http"}]);
    let refused = world.backend_proxy().set("ext_authz", providers).refused().await;
    assert!(
        refused.contains("envoy.service.auth.v3.Authorization"),
        "{refused}"
    );
}

/// Headers, the rest of the request, and both ends with their principals.
type Comparable = (BTreeMap<String, String>, [String; 6], [(String, String); 2]);

/// What must be equal whoever asks; ports, times and numbers of requests are not.
fn comparable(told: &AttributeContext) -> Comparable {
    let http: HttpRequest = told.request.clone().unwrap().http.unwrap();
    let mut headers = http.headers;
    // Made by each proxy for itself.
    headers.retain(|name, _| !["x-request-id", "x-envoy-expected-rq-timeout-ms"].contains(&name.as_str()));
    let rest = [
        http.method,
        http.path,
        http.host,
        http.scheme,
        http.protocol,
        http.body,
    ];
    let end = |peer: &Option<Peer>| {
        let peer = peer.clone().unwrap();
        (ip(peer.address), peer.principal)
    };
    (headers, rest, [end(&told.source), end(&told.destination)])
}

fn ip(address: Option<Address>) -> String {
    use signet_proto::wire::envoy::config::core::v3::address::Address as Kind;
    match address.unwrap().address {
        Some(Kind::SocketAddress(socket)) => socket.address,
        None => String::new(),
    }
}

/// A listener of Envoy's that asks the provider at `cluster` and goes on to the application.
fn asking_listener() -> Value {
    let ask = json!({
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "desk"}, "timeout": "5s"},
    });
    let ask = parts::typed("ext_authz", "filters.http.ext_authz.v3.ExtAuthz", ask);
    let http = parts::http("asking", &parts::to_cluster("app"), vec![ask], json!({}));
    parts::listener("asking", &[http], None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_told_and_obeyed_as_envoy_does() {
    let Some(envoy) = peers::envoy() else { return };
    let (world, app, desk) = (World::start().await, Web::mirror().await, Desk::default());
    let (address, _provider) = serve(desk.clone()).await;
    let proxy = world
        .backend_proxy()
        .set(
            "ext_authz",
            json!([{"name": "desk", "address": address, "timeout": "5s"}]),
        )
        .policy("ask.yaml", &custom("desk"))
        .inbound(&app.address, json!({"protocol": "http"}))
        .start()
        .await;
    let theirs = EnvoySetup::new(&envoy, "asking", world.backend.socket())
        .raw_listener(asking_listener())
        .raw_cluster(parts::cluster(
            "app",
            &app.address,
            None,
            Speaks::Http1,
            json!({}),
        ))
        .raw_cluster(parts::cluster("desk", &address, None, Speaks::Http2, json!({})))
        .start()
        .await;
    let theirs = theirs.listener("asking").await;
    let mut sent = SENT.to_vec();
    sent.extend([
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("cookie", "a=1"),
        ("user-agent", "test"),
    ]);
    let mut told = Vec::new();
    let mut effects = Vec::new();
    for address in [proxy.inbound(0), theirs.clone()] {
        let said = ask(&address, "/yes?a=1&b=%2F", &sent).await;
        assert_eq!(said.status, StatusCode::OK);
        effects.push((seen(&said), returned(&said)));
        let all = std::mem::take(&mut *desk.0.lock().unwrap());
        assert_eq!(all.len(), 1, "asked once");
        told.push(comparable(&all[0]));
        let no = ask(&address, "/no", &[]).await;
        assert_eq!((no.status.as_u16(), no.body.as_str()), (418, "no tea"));
        assert_eq!(ask(&address, "/fail", &[]).await.status, StatusCode::FORBIDDEN);
        desk.0.lock().unwrap().clear();
    }
    assert_eq!(told[0], told[1], "ours, Envoy's");
    assert_eq!(effects[0], effects[1], "ours, Envoy's");
}
