//! The proxy's listeners: which TLS is met, which passes, what is reset, and who is named.

use std::io::ErrorKind;
use std::sync::Arc;

use serde_json::json;
use signet_tests::agent::Agent;
use signet_tests::ca::Ca;
use signet_tests::client::{Presented, svid};
use signet_tests::cluster::Cluster;
use signet_tests::echo::{Echo, ended, says};
use signet_tests::envoy::EnvoySetup;
use signet_tests::mesh::{BACKEND, FRONTEND, LISTENER};
use signet_tests::proxy::{Proxy, ProxySetup};
use signet_tests::wait::{SOON, until};
use signet_tests::{http, peers, tls};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: data}
spec: {mtls: {mode: STRICT}}
";

/// A cluster with a CA and the agents of two workloads.
pub(crate) struct World {
    pub(crate) backend: Agent,
    pub(crate) frontend: Agent,
    pub(crate) ca: Ca,
    pub(crate) cluster: Cluster,
}

impl World {
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start();
        let ca = Ca::start(&cluster).await;
        Self::on(cluster, ca, "1h").await
    }

    pub(crate) async fn on(cluster: Cluster, ca: Ca, ttl: &str) -> Self {
        Self {
            backend: Agent::start(&cluster, &ca, "data", "backend", ttl).await,
            frontend: Agent::start(&cluster, &ca, "web", "frontend", ttl).await,
            ca,
            cluster,
        }
    }

    /// A proxy of the backend, not started yet.
    pub(crate) fn backend_proxy(&self) -> ProxySetup {
        ProxySetup::new(&self.backend.socket(), "data", "backend")
    }

    /// A proxy of the frontend, not started yet.
    pub(crate) fn frontend_proxy(&self) -> ProxySetup {
        ProxySetup::new(&self.frontend.socket(), "web", "frontend")
    }

    /// An SVID of this workload.
    pub(crate) async fn svid(&self, namespace: &str, account: &str) -> Presented {
        svid(&self.ca, &self.cluster.token(namespace, account)).await
    }
}

/// TLS to `address` that offers `alpn`, as whoever `identity` is; believes any server.
pub(crate) async fn connect(
    address: &str,
    identity: Option<&Presented>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = tls::client_config(identity).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from("any.invalid").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

async fn reason(proxy: &Proxy, reason: &str) -> serde_json::Value {
    proxy.record(reason, |record| record["reason"] == reason).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_port_serves_the_mesh_and_resets_all_else() {
    let world = World::start().await;
    let app = Echo::start().await;
    let proxy = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .set("limits", json!({"handshake": "1s"}))
        .inbound(&app.address, json!({}))
        .start()
        .await;
    let address = proxy.inbound(0);

    // Any TLS is terminated, whatever its ALPN.
    let client = world.svid("web", "frontend").await;
    for alpn in [&["signet", "istio"][..], &["istio"], &["h2"], &[]] {
        let mut stream = connect(&address, Some(&client), alpn).await.unwrap();
        says(&mut stream, "hello").await.unwrap();
        let settled = stream.get_ref().1.alpn_protocol();
        let expected = alpn.first().filter(|name| ["signet", "istio"].contains(name));
        assert_eq!(settled, expected.map(|name| name.as_bytes()), "{alpn:?}");
        stream.shutdown().await.unwrap();
        ended(&mut stream).await.unwrap();
    }
    let served = proxy.record("a record", |record| record["reason"] == "ok").await;
    assert_eq!(
        (&served["peer"], &served["own_id"]),
        (&json!(FRONTEND), &json!(BACKEND))
    );
    assert_eq!((&served["received"], &served["sent"]), (&json!(5), &json!(5)));
    assert_eq!(served["security"], "mutual_tls");

    // Plaintext, silence, half a hello and a broken one are reset.
    for (first, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "tls_plaintext_refused"),
        (&[22, 3, 1, 0, 100, 1, 0], "tls_stalled"),
        (&[22, 3, 1, 0, 4, 9, 9, 9, 9], "tls_malformed"),
        (b"", "tls_stalled"),
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let end = ended(&mut stream).await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{expected}");
        let record = reason(&proxy, expected).await;
        let whole = if expected == "tls_stalled" { 1_000 } else { 0 };
        assert!(record["elapsed_ms"].as_u64() >= Some(whole), "{record}");
    }
    // A client without a certificate is told so by TLS.
    let mut stream = connect(&address, None, &["istio"]).await.unwrap();
    let said = ended(&mut stream).await.unwrap_err().to_string();
    assert!(said.contains("CertificateRequired"), "{said}");
    reason(&proxy, "tls_no_certificate").await;
    let scrape = proxy.scrape().await;
    for expected in ["tls_plaintext_refused", "tls_malformed", "tls_no_certificate"] {
        let labels = [("direction", "inbound"), ("reason", expected)];
        assert_eq!(
            scrape.value("signet_proxy_refusals_total", &labels),
            1.0,
            "{expected}"
        );
    }
    let labels = [
        ("source_principal", FRONTEND),
        ("connection_security_policy", "mutual_tls"),
    ];
    assert_eq!(scrape.value("istio_tcp_connections_opened_total", &labels), 4.0);
    assert_eq!(scrape.value("istio_tcp_received_bytes_total", &labels), 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_mesh_is_refused_with_its_reason() {
    let world = World::start().await;
    let app = Echo::start().await;
    let proxy = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&app.address, json!({}))
        .start()
        .await;
    let cluster = Cluster::start();
    let other = Ca::start(&cluster).await;
    let stranger = svid(&other, &cluster.token("web", "frontend")).await;
    let mut stream = connect(&proxy.inbound(0), Some(&stranger), &["istio"])
        .await
        .unwrap();
    ended(&mut stream).await.unwrap_err();
    let record = reason(&proxy, "tls_certificate_refused").await;
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("no authority in the bundle of cluster.local signed this chain"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permissive_port_serves_both_and_names_the_plaintext_client() {
    let world = World::start().await;
    let app = Echo::start().await;
    let banner = Echo::greeting("220 ready\r\n").await;
    let proxy = world
        .backend_proxy()
        .set("limits", json!({"first_bytes": "200ms"}))
        .inbound(&app.address, json!({"port": 7000}))
        .inbound(&banner.address, json!({"port": 7001}))
        .start()
        .await;
    let client = world.svid("web", "frontend").await;
    let mut mutual = connect(&proxy.inbound(0), Some(&client), &["istio"])
        .await
        .unwrap();
    says(&mut mutual, "secret").await.unwrap();
    let mut plain = TcpStream::connect(proxy.inbound(0)).await.unwrap();
    says(&mut plain, "open").await.unwrap();

    let open = proxy.page("/connections").await;
    let kinds: Vec<_> = open["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["security"].clone(), one["peer"]["spiffe_id"].clone()))
        .collect();
    assert!(kinds.contains(&(json!("mutual_tls"), json!(FRONTEND))), "{open}");
    assert!(kinds.contains(&(json!("plaintext"), json!(null))), "{open}");
    let clients = proxy.page("/plaintext-clients").await;
    let listed = &clients["clients"][0];
    assert_eq!(
        (&listed["address"], &listed["port"]),
        (&json!("127.0.0.1"), &json!(7000))
    );

    // A server that speaks first has a client that waits.
    let mut silent = TcpStream::connect(proxy.inbound(1)).await.unwrap();
    let mut greeting = [0; 11];
    tokio::io::AsyncReadExt::read_exact(&mut silent, &mut greeting)
        .await
        .unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    // One byte of TLS, and there is no way back.
    let mut begun = TcpStream::connect(proxy.inbound(0)).await.unwrap();
    begun.write_all(&[22, 3, 1, 0, 4, 9, 9, 9, 9]).await.unwrap();
    let end = ended(&mut begun).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    reason(&proxy, "tls_malformed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_of_others_passes_a_permissive_port_unread_unless_it_is_to_be_terminated() {
    let Some(envoy) = peers::envoy() else { return };
    let world = World::start().await;
    let behind = EnvoySetup::new(&envoy, "behind", world.frontend.socket())
        .server(LISTENER, None)
        .start()
        .await;
    let behind = behind.listener(LISTENER).await;
    let proxy = world
        .backend_proxy()
        .inbound(&behind, json!({}))
        .inbound(&behind, json!({"tls": "terminate"}))
        .start()
        .await;
    let client = world.svid("web", "other").await;
    // What is seen is the certificate of the one behind, which asks for ours itself.
    assert_eq!(
        tls::served(&proxy.inbound(0)).await.unwrap().id().as_str(),
        FRONTEND
    );
    let stream = connect(&proxy.inbound(0), Some(&client), &[]).await.unwrap();
    let answer = http::exchange(stream, ::http::Method::GET, "/", String::new())
        .await
        .unwrap();
    assert_eq!(
        answer.header("x-peer"),
        Some("spiffe://cluster.local/ns/web/sa/other")
    );
    let passed = proxy
        .record("a record", |record| record["security"] == "passed_through")
        .await;
    assert_eq!((&passed["peer"], &passed["own_id"]), (&json!(null), &json!(null)));
    let shown = tls::served(&proxy.inbound(1)).await.unwrap();
    assert_eq!(shown.id().as_str(), BACKEND);
}

/// How a connection ends to which nothing is said. The end may come before the connection is known to be there.
async fn is_reset(address: impl tokio::net::ToSocketAddrs) -> ErrorKind {
    match TcpStream::connect(address).await {
        Ok(mut stream) => ended(&mut stream).await.unwrap_err().kind(),
        Err(error) => error.kind(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_identity_is_refused_and_both_are_named() {
    let world = World::start().await;
    let app = Echo::start().await;
    let backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&app.address, json!({}))
        .start()
        .await;
    let wrong = "spiffe://cluster.local/ns/data/sa/database";
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), json!({"mtls": {"expected": [wrong]}}))
        .outbound(
            &backend.inbound(0),
            json!({"mtls": {"expected": [wrong, BACKEND]}}),
        )
        .outbound(&app.address, json!({"mtls": {"expected": [BACKEND]}}))
        .start()
        .await;
    assert_eq!(is_reset(frontend.outbound(0)).await, ErrorKind::ConnectionReset);
    let record = reason(&frontend, "identity_unexpected_upstream").await;
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains(&format!("peer is {BACKEND}, expected {wrong}")),
        "{detail}"
    );

    let mut served = TcpStream::connect(frontend.outbound(1)).await.unwrap();
    says(&mut served, "hello").await.unwrap();
    // A server without TLS is never spoken to without TLS.
    assert_eq!(is_reset(frontend.outbound(2)).await, ErrorKind::ConnectionReset);
    reason(&frontend, "upstream_handshake").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_meets_the_proxy_from_either_side() {
    let Some(envoy) = peers::envoy() else { return };
    let world = World::start().await;
    // Envoy with our SDS in front of the proxy in front of an application that speaks HTTP.
    let app = EnvoySetup::new(&envoy, "app", world.backend.socket())
        .server(LISTENER, Some(FRONTEND))
        .start()
        .await;
    let app_address = app.listener(LISTENER).await;
    // An application for plain HTTP: the agent's metrics page. Envoy's clients speak TLS 1.2 unless told otherwise.
    let backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .set("tls12", true)
        .inbound(&world.backend.metrics, json!({}))
        .start()
        .await;
    let client = EnvoySetup::new(&envoy, "client", world.frontend.socket())
        .client(LISTENER, &backend.inbound(0), Some(BACKEND))
        .start()
        .await;
    let answer = http::get(&client.listener(LISTENER).await, "/healthz/live")
        .await
        .unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "live\n"));
    let served = reason(&backend, "ok").await;
    assert_eq!(served["peer"], FRONTEND);
    let newer = world
        .backend_proxy()
        .inbound(&world.backend.metrics, json!({"tls": "terminate"}))
        .start()
        .await;
    let client = EnvoySetup::new(&envoy, "older", world.frontend.socket())
        .client(LISTENER, &newer.inbound(0), Some(BACKEND))
        .start()
        .await;
    let answer = http::get(&client.listener(LISTENER).await, "/healthz/live")
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 503);
    let refused = reason(&newer, "tls_handshake").await;
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.contains("TLS 1.2 at most, which tls12: true would admit"),
        "{detail}"
    );

    // The proxy in front of an Envoy that asks for a certificate.
    let frontend = world
        .frontend_proxy()
        .outbound(&app_address, json!({"mtls": {"expected": [BACKEND]}}))
        .start()
        .await;
    let answer = http::get(&frontend.outbound(0), "/").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-peer")),
        (200, Some(FRONTEND))
    );
    let record = reason(&frontend, "ok").await;
    assert_eq!(record["upstream_id"], BACKEND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_page_answers_loopback_names_and_get_alone_and_shows_no_key() {
    let world = World::start().await;
    let proxy = world
        .backend_proxy()
        .inbound("127.0.0.1:9", json!({}))
        .start()
        .await;
    let ask = async |request: String| {
        let mut stream = TcpStream::connect(&proxy.admin).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)
            .await
            .unwrap();
        answer
    };
    let request = |method: &str, host: &str| {
        format!("{method} /secrets HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
    };
    assert!(
        ask(request("GET", "evil.example"))
            .await
            .starts_with("HTTP/1.1 403 ")
    );
    assert!(
        ask(request("POST", "localhost"))
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    let page = ask(request("GET", &proxy.admin)).await;
    assert!(
        page.starts_with("HTTP/1.1 200 ") && page.contains(BACKEND),
        "{page}"
    );
    assert!(!page.contains("PRIVATE KEY"));
    let log = proxy.process.output();
    assert!(!log.contains("PRIVATE KEY"));
    until("the SVID in the metrics", SOON, async || {
        proxy
            .scrape()
            .await
            .value("signet_proxy_svid_not_after_timestamp_seconds", &[])
            > 0.0
    })
    .await;
}
