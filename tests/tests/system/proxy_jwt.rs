//! Tokens in requests and providers of CUSTOM policies, through a real proxy: tokens that PyJWT made, keys that
//! are fetched, and a provider that is asked as Envoy asks it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use signet_proto::wire::envoy::config::core::v3::{Address, HeaderValue, HeaderValueOption};
use signet_proto::wire::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer};
use signet_proto::wire::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use signet_proto::wire::envoy::service::auth::v3::check_response::HttpResponse;
use signet_proto::wire::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use signet_proto::wire::envoy::r#type::v3::HttpStatus;
use signet_proto::wire::google::rpc;
use signet_tests::envoy::EnvoySetup;
use signet_tests::peers;
use signet_tests::proxy::Proxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use super::proxy_tls::World;

/// Headers of every answer of the application.
const ANSWERED: [&str; 5] = ["x-r-plain", "x-r-set", "x-r-add", "x-r-absent", "x-r-over"];

/// An answer: status, headers, body.
struct Said {
    status: StatusCode,
    headers: http::HeaderMap,
    body: String,
}

/// A request over a connection of its own.
async fn ask(address: &str, path: &str, headers: &[(&str, &str)]) -> Said {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", "backend.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Said {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// A web server that answers by a function of the request's path and headers; ends when dropped.
struct Web {
    address: String,
    task: JoinHandle<()>,
}

impl Web {
    async fn start(
        answer: impl Fn(&Request<hyper::body::Incoming>) -> String + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let body = answer(&request);
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    for name in ANSWERED {
                        response
                            .headers_mut()
                            .insert(name, http::HeaderValue::from_static("app"));
                    }
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, task }
    }

    /// One that says what it was sent.
    async fn mirror() -> Self {
        Self::start(|request| {
            let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in request.headers() {
                let values = headers.entry(name.to_string()).or_default();
                values.push(value.to_str().unwrap().to_owned());
            }
            json!({"target": request.uri().to_string(), "headers": headers}).to_string()
        })
        .await
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn authentication(rule: &Value) -> String {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "data"}, "spec": {"jwtRules": [rule]},
    })
    .to_string()
}

/// Without a token of the issuer, nothing below `/admin` is reached; without `ops` among its groups neither.
const ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin, namespace: data}
spec:
  action: DENY
  rules:
  - from: [{source: {notRequestPrincipals: ['https://issuer.test/*']}}]
    to: [{operation: {paths: ['/admin*']}}]
  - when: [{key: 'request.auth.claims[groups]', notValues: [ops]}]
    to: [{operation: {paths: ['/admin*']}}]
";

/// What PyJWT made, or nothing after noting the skip.
fn from_pyjwt() -> Option<Value> {
    let python = peers::python()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/tokens.py");
    let made = Command::new(python).arg(script).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(serde_json::from_slice(&made.stdout).unwrap())
}

async fn verdict(proxy: &Proxy, path: &str, token: Option<&str>) -> StatusCode {
    let header = token.map(bearer);
    let headers: Vec<(&str, &str)> = header
        .iter()
        .map(|value| ("authorization", value.as_str()))
        .collect();
    ask(&proxy.inbound(0), path, &headers).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_pyjwt_made_are_judged_as_their_issuer_meant() {
    let Some(made) = from_pyjwt() else { return };
    let (world, app) = (World::start().await, Web::mirror().await);
    let rule = json!({
        "issuer": "https://issuer.test", "audiences": ["shop"], "jwks": made["jwks"].to_string(),
        "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
    });
    let proxy = world
        .backend_proxy()
        .policy("tokens.yaml", &authentication(&rule))
        .policy("admin.yaml", ADMIN)
        .inbound(&app.address, json!({"protocol": "http"}))
        .start()
        .await;
    for (name, token) in made["good"].as_object().unwrap() {
        let token = bearer(token.as_str().unwrap());
        let said = ask(
            &proxy.inbound(0),
            "/admin/x",
            &[("authorization", &token), ("x-sub", "root")],
        )
        .await;
        assert_eq!(said.status, StatusCode::OK, "{name}: {}", said.body);
        let seen: Value = serde_json::from_str(&said.body).unwrap();
        assert_eq!(seen["headers"]["x-sub"], json!(["alice"]), "{name}");
        assert!(
            seen["headers"]["authorization"].is_null(),
            "{name}: the token stays here"
        );
    }
    for (name, token) in made["bad"].as_object().unwrap() {
        let status = verdict(&proxy, "/", token.as_str()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
    }
    assert_eq!(
        verdict(&proxy, "/", None).await,
        StatusCode::OK,
        "a token is not demanded"
    );
    assert_eq!(verdict(&proxy, "/admin/x", None).await, StatusCode::FORBIDDEN);
    let forged = ask(&proxy.inbound(0), "/", &[("x-sub", "root")]).await;
    assert!(!forged.body.contains("x-sub"), "{}", forged.body);
    let record = proxy
        .record("a refusal", |record| {
            record["detail"]
                .as_str()
                .is_some_and(|e| e.starts_with("token expired"))
        })
        .await;
    assert_eq!(record["reason"], "token_invalid");
    let junk = ask(&proxy.inbound(0), "/", &[("authorization", "Bearer x.y.z")]).await;
    assert_eq!(
        junk.headers["www-authenticate"],
        r#"Bearer error="invalid_token""#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_and_without_them_the_issuers_tokens_are_refused() {
    let Some(made) = from_pyjwt() else { return };
    let (world, app) = (World::start().await, Web::mirror().await);
    let (page, shown) = watch::channel("{}".to_owned());
    let issuer = Web::start(move |_| shown.borrow().clone()).await;
    let rule = json!({"issuer": "https://issuer.test", "jwksUri": format!("http://{}/keys", issuer.address)});
    let setup = || {
        world
            .backend_proxy()
            .policy("tokens.yaml", &authentication(&rule))
            .inbound(&app.address, json!({"protocol": "http"}))
    };
    let token = made["good"]["ES256"].as_str();
    // Loopback is never dialled unless the operator says so, whoever wrote the rule.
    let careful = setup().start().await;
    assert_eq!(verdict(&careful, "/", token).await, StatusCode::UNAUTHORIZED);
    let reason = |record: &Value| record["reason"] == "token_no_keys";
    careful.record("a refusal for want of keys", reason).await;
    drop(careful);

    let open = json!({"allowed_cidrs": ["127.0.0.0/8"]});
    let unfed = setup().set("jwt", open.clone()).start().await;
    assert_eq!(
        verdict(&unfed, "/", token).await,
        StatusCode::UNAUTHORIZED,
        "a page without keys is none"
    );
    drop(unfed);
    page.send_replace(made["jwks"].to_string());
    let proxy = setup().set("jwt", open).start().await;
    signet_tests::wait::until("the keys to be there", signet_tests::wait::SOON, async || {
        verdict(&proxy, "/", token).await == StatusCode::OK
    })
    .await;
    // The issuer being gone changes nothing.
    drop(issuer);
    assert_eq!(verdict(&proxy, "/", token).await, StatusCode::OK);
    assert_eq!(
        verdict(&proxy, "/", made["bad"]["unknown_kid"].as_str()).await,
        StatusCode::UNAUTHORIZED
    );
}

/// A provider that judges by the path, and keeps what it was told.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Vec<AttributeContext>>>);

#[tonic::async_trait]
impl Authorization for Desk {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap();
        let http = attributes
            .request
            .as_ref()
            .and_then(|request| request.http.as_ref());
        let path = http.map_or("", |http| http.path.as_str()).to_owned();
        self.0.lock().unwrap().push(attributes);
        Ok(tonic::Response::new(match path.as_str() {
            "/no" => CheckResponse {
                status: Some(rpc::Status {
                    code: 7,
                    message: String::new(),
                }),
                http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                    status: Some(HttpStatus { code: 418 }),
                    headers: vec![option("x-why", "because", None, 0)],
                    body: "no tea".into(),
                })),
            },
            "/fail" => return Err(Status::internal("it broke")),
            _ => CheckResponse {
                status: None,
                http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![
                        option("x-plain", "new", None, 0),
                        option("x-set", "new", Some(false), 0),
                        option("x-join", "new", Some(true), 0),
                        option("x-join-none", "new", Some(true), 0),
                        option("x-absent", "new", None, 1),
                        option("x-over", "new", None, 2),
                        option("x-over-none", "new", None, 3),
                    ],
                    headers_to_remove: vec!["x-gone".into(), "host".into()],
                    response_headers_to_add: vec![
                        option("x-back", "b", None, 0),
                        option("x-r-plain", "new", None, 0),
                        option("x-r-set", "new", Some(false), 0),
                        option("x-r-add", "new", Some(true), 0),
                        option("x-r-absent", "new", None, 1),
                        option("x-r-over", "new", None, 2),
                        option("x-r-over-none", "new", None, 3),
                    ],
                    ..OkHttpResponse::default()
                })),
            },
        }))
    }
}

fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.into(),
            value: value.into(),
            ..HeaderValue::default()
        }),
        append,
        append_action,
        keep_empty_value: false,
    }
}

/// Where it is served, and what ends it and every connection to it.
async fn serve(desk: Desk) -> (String, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(desk));
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async { drop(stopped.await) };
    let task = tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), until));
    (address, Serving { stop, task })
}

/// A provider that is served until this is dropped.
struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Serving {
    async fn end(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

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
    json!({
        "name": "asking",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "asking",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
                ]}]},
                "http_filters": [
                    {"name": "envoy.filters.http.ext_authz", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                        "transport_api_version": "V3",
                        "grpc_service": {"envoy_grpc": {"cluster_name": "desk"}, "timeout": "5s"},
                    }},
                    {"name": "envoy.filters.http.router", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    }},
                ],
            },
        }]}],
    })
}

fn cluster(name: &str, address: &str, http2: bool) -> Value {
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap()}},
        }}]}]},
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    cluster
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
        .raw_cluster(cluster("app", &app.address, false))
        .raw_cluster(cluster("desk", &address, true))
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
