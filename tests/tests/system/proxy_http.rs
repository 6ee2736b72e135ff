//! HTTP through proxies: between real Envoys, for real clients, and while identities rotate.

use std::process::Command;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use signet_proto::wire::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use signet_proto::wire::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use signet_proto::wire::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use signet_tests::app::App;
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::dir::Dir;
use signet_tests::envoy::EnvoySetup;
use signet_tests::envoy::parts::{self, Speaks};
use signet_tests::http::get;
use signet_tests::mesh::{BACKEND, FRONTEND, LISTENER, short_lived_ca};
use signet_tests::peers;
use signet_tests::proxy::Proxy;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;

use super::proxy_tls::{STRICT, World};

const ONLY_READING: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reading, namespace: data}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {methods: [GET], paths: [/api/*, /healthz/*]}}]
";

/// An application behind a proxy of its own, which a proxy of the frontend reaches.
struct Pair {
    app: App,
    backend: Proxy,
    frontend: Proxy,
    world: World,
}

impl Pair {
    async fn on(world: World, app: App, protocol: &str) -> Self {
        let (backend, frontend) = proxies(&world, &app.address, protocol, ONLY_READING).await;
        Self {
            app,
            backend,
            frontend,
            world,
        }
    }

    async fn start(protocol: &str) -> Self {
        Self::on(World::start().await, App::start().await, protocol).await
    }

    fn entry(&self) -> String {
        self.frontend.outbound(0)
    }
}

/// The proxy of a backend at `address` that obeys `policy`, and the one by which the frontend reaches it.
pub(super) async fn proxies(world: &World, address: &str, protocol: &str, policy: &str) -> (Proxy, Proxy) {
    let backend = world
        .backend_proxy()
        .set("tls12", true)
        .policy("strict.yaml", STRICT)
        .policy("these.yaml", policy)
        .inbound(address, json!({"protocol": "http"}))
        .start()
        .await;
    let expected = json!({"protocol": protocol, "mtls": {"expected": [BACKEND]}});
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), expected)
        .start()
        .await;
    (backend, frontend)
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-s", "-m", "10"])
        .args(arguments)
        .output()
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served_and_refused_by_policy_through_two_proxies() {
    if Command::new("curl").arg("--version").output().is_err() {
        return peers::skip("no curl");
    }
    let pair = Pair::start("http").await;
    let base = format!("http://{}", pair.entry());
    let ask = async |arguments: Vec<String>| {
        tokio::task::spawn_blocking(move || curl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
            .await
            .unwrap()
    };
    let arguments = |more: &[&str], path: &str| {
        let mut all: Vec<String> = more.iter().map(|one| (*one).to_owned()).collect();
        all.push(format!("{base}{path}"));
        all
    };
    let dir = Dir::new();
    let upload = format!("@{}", dir.write("upload", "x".repeat(300_000)).display());
    for version in ["--http1.1", "--http1.0", "--http2", "--http2-prior-knowledge"] {
        let told = ask(arguments(&[version], "/api/../api//x?y=z")).await;
        assert!(told.contains("/api//x?y=z"), "{version} {told}");
        let uri = format!("URI={FRONTEND}");
        assert!(
            pair.app.last("x-forwarded-client-cert").unwrap().ends_with(&uri),
            "{version} {told}"
        );
        // The answer comes before the body is sent, and is heard all the same.
        for body in ["x", &upload] {
            let options = [version, "-w", " %{http_code}", "-H", "Expect:", "-d", body];
            let code = ask(arguments(&options, "/api/x")).await;
            assert_eq!(code, "RBAC: access denied 403", "{version} {body}");
        }
    }
    let record = pair
        .backend
        .record("a record", |record| record["reason"] == "policy_not_allowed")
        .await;
    for (key, value) in [
        ("method", "POST"),
        ("path", "/api/x"),
        ("peer", FRONTEND),
        ("own_id", BACKEND),
        ("policy", "AuthorizationPolicy data/reading"),
    ] {
        assert_eq!(record[key], value, "{key} in {record}");
    }
    assert_eq!(record["status"], 403);
    let scrape = pair.backend.scrape().await;
    let labels = [
        ("reporter", "destination"),
        ("source_principal", FRONTEND),
        ("destination_principal", BACKEND),
        ("response_code", "403"),
        ("connection_security_policy", "mutual_tls"),
    ];
    assert_eq!(scrape.value("istio_requests_total", &labels), 8.0);
    let labels = [
        ("reporter", "source"),
        ("destination_principal", BACKEND),
        ("response_code", "200"),
    ];
    assert_eq!(
        pair.frontend
            .scrape()
            .await
            .value("istio_requests_total", &labels),
        4.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn load_of_many_streams_is_served_whole() {
    if Command::new("h2load").arg("--version").output().is_err() {
        return peers::skip("no h2load");
    }
    let pair = Pair::start("http").await;
    for version in ["--h1", "--npn-list=h2c"] {
        let url = format!("http://{}/api/x", pair.entry());
        let ran = tokio::task::spawn_blocking(move || {
            let arguments = [version, "-n", "2000", "-c", "20", "-m", "10", "-t", "1", &url];
            Command::new("h2load").args(arguments).output().unwrap()
        });
        let told = String::from_utf8_lossy(&ran.await.unwrap().stdout).into_owned();
        assert!(
            told.contains("2000 succeeded, 0 failed, 0 errored"),
            "{version} {told}"
        );
        assert!(told.contains("status codes: 2000 2xx"), "{version} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_is_served_by_the_proxy_and_serves_it() {
    let Some(envoy) = peers::envoy() else { return };
    let pair = Pair::start("http").await;
    let client = EnvoySetup::new(&envoy, "client", pair.world.frontend.socket())
        .keeping_client(LISTENER, &pair.backend.inbound(0), Some(BACKEND))
        .start()
        .await;
    let entry = client.listener(LISTENER).await;
    for number in 0..20 {
        let answer = get(&entry, &format!("/api/{number}")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(get(&entry, "/other").await.unwrap().status, 403);
    let server = EnvoySetup::new(&envoy, "server", pair.world.backend.socket())
        .server(LISTENER, Some(FRONTEND))
        .start()
        .await;
    let frontend = pair
        .world
        .frontend_proxy()
        .outbound(
            &server.listener(LISTENER).await,
            json!({"protocol": "http", "mtls": {"expected": [BACKEND]}}),
        )
        .start()
        .await;
    for _ in 0..20 {
        let answer = get(&frontend.outbound(0), "/").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-peer")),
            (200, Some(FRONTEND))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_certificate_is_forwarded_exactly_as_envoy_forwards_it() {
    let Some(envoy) = peers::envoy() else { return };
    let pair = Pair::start("http").await;
    let setup = EnvoySetup::new(&envoy, "sidecar", pair.world.backend.socket());
    let tls = setup.server_tls(None);
    let more = json!({
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": true},
    });
    let http = parts::http("in", &parts::to_cluster("app"), Vec::new(), more);
    let sidecar = setup
        .raw_cluster(parts::cluster(
            "app",
            &pair.app.address,
            None,
            Speaks::Http1,
            json!({}),
        ))
        .raw_listener(parts::listener("forwarding", &[http], Some(&tls)))
        .start()
        .await;
    let mut told = Vec::new();
    for upstream in [sidecar.listener("forwarding").await, pair.backend.inbound(0)] {
        // One client, and so one certificate, before either.
        let client = pair
            .world
            .frontend_proxy()
            .outbound(
                &upstream,
                json!({"protocol": "http", "mtls": {"expected": [BACKEND]}}),
            )
            .start()
            .await;
        let answer = get(&client.outbound(0), "/api/x").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        told.push(pair.app.last("x-forwarded-client-cert").unwrap());
    }
    assert_eq!(told[0], told[1], "as Envoy says it, and as we do");
    assert!(told[1].starts_with(&format!("By={BACKEND};Hash=")), "{}", told[1]);
}

/// A gRPC service that says no to everybody, with words in its trailers.
struct No;

#[tonic::async_trait]
impl Authorization for No {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        if request.metadata().get("x-say").is_some_and(|say| say == "yes") {
            return Ok(tonic::Response::new(CheckResponse::default()));
        }
        let mut status = tonic::Status::failed_precondition("no, and that is final");
        status.metadata_mut().insert("x-why", "because".parse().unwrap());
        Err(status)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_keep_their_trailers_through_two_proxies() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tonic::transport::Server::builder()
        .add_service(AuthorizationServer::new(No))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(served);
    let world = World::start().await;
    let backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&address, json!({"protocol": "http"}))
        .start()
        .await;
    let frontend = world
        .frontend_proxy()
        .outbound(
            &backend.inbound(0),
            json!({"protocol": "http", "mtls": {"expected": [BACKEND]}}),
        )
        .start()
        .await;
    let uri = format!("http://{}", frontend.outbound(0));
    let channel = tonic::transport::Endpoint::from_shared(uri)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = AuthorizationClient::new(channel);
    for _ in 0..10 {
        let refused = client.check(CheckRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        assert_eq!(refused.message(), "no, and that is final");
        assert_eq!(refused.metadata().get("x-why").unwrap(), "because");
        let mut yes = tonic::Request::new(CheckRequest::default());
        yes.metadata_mut().insert("x-say", "yes".parse().unwrap());
        client.check(yes).await.unwrap();
    }
    let labels = [("request_protocol", "grpc"), ("grpc_response_status", "9")];
    assert_eq!(
        backend.scrape().await.value("istio_requests_total", &labels),
        10.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_while_identities_rotate_and_not_one_fails() {
    const LONG: std::time::Duration = std::time::Duration::from_secs(240);
    let cluster = Cluster::start();
    let ca: Ca = short_lived_ca(&cluster).start().await;
    let world = World::on(cluster, ca, "30s").await;
    let pair = Pair::on(world, App::start().await, "http").await;
    let entry = pair.entry();
    let mut certificates = std::collections::BTreeSet::new();
    let mut kept = keeping(&entry).await;
    let began = tokio::time::Instant::now();
    let mut requests = 0_u32;
    // Until the connections between the proxies have outlived the SVID they began with, and been replaced.
    while requests < 1000 || certificates.len() < 2 {
        assert!(began.elapsed() < LONG, "{requests} requests, {certificates:?}");
        requests += 1;
        let answer = get(&entry, "/api/new").await.unwrap();
        assert_eq!(answer.status, 200, "request {requests}: {}", answer.body);
        let request = Request::get("/api/kept")
            .header("host", "b")
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = kept.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "request {requests}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let told = String::from_utf8_lossy(&body).into_owned();
        let cert = told
            .lines()
            .find(|line| line.starts_with("x-forwarded-client-cert"));
        certificates.insert(cert.unwrap().to_owned());
        if kept.ready().await.is_err() {
            kept = keeping(&entry).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn keeping(entry: &str) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(entry).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}
