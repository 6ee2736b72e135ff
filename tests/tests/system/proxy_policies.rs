//! The policies that tutorials teach, as plain YAML, and what becomes of who asks: from nobody to a mesh, a
//! namespace, a workload and a port.

use serde_json::json;
use signet_tests::app::App;
use signet_tests::client::Presented;
use signet_tests::proxy::Proxy;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::proxy_tls::{World, connect};

/// Two HTTP ports of one workload, `data/backend` with the label `app: backend`.
struct Backend {
    proxy: Proxy,
    frontend: Presented,
    intruder: Presented,
    _app: App,
    _world: World,
}

impl Backend {
    async fn start() -> Self {
        let (world, app) = (World::start().await, App::start().await);
        let port = |number: u16| json!({"protocol": "http1", "port": number});
        let proxy = world
            .backend_proxy()
            .inbound(&app.address, port(8080))
            .inbound(&app.address, port(9090))
            .start()
            .await;
        Self {
            proxy,
            frontend: world.svid("web", "frontend").await,
            intruder: world.svid("other", "intruder").await,
            _app: app,
            _world: world,
        }
    }

    fn address(&self, port: u16) -> String {
        self.proxy.inbound(usize::from(port == 9090))
    }

    /// What a client without any TLS is told; 0 is a reset.
    async fn plaintext(&self, port: u16) -> u16 {
        match TcpStream::connect(self.address(port)).await {
            Ok(stream) => status(stream, "GET", "/api/v1/items").await,
            Err(_) => 0,
        }
    }

    /// What a client with an SVID is told; 0 is a reset.
    async fn mutual(&self, identity: &Presented, port: u16, method: &str, path: &str) -> u16 {
        match connect(&self.address(port), Some(identity), &["istio"]).await {
            Ok(stream) => status(stream, method, path).await,
            Err(_) => 0,
        }
    }
}

async fn status(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str) -> u16 {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: backend\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return 0;
    }
    let mut answer = Vec::new();
    // A reset after an answer takes nothing of it back.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    object("PeerAuthentication", name, namespace, spec)
}

fn allow(name: &str, namespace: &str, spec: &str) -> String {
    object("AuthorizationPolicy", name, namespace, spec)
}

fn object(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_peer_authentication_counts_port_by_port() {
    let backend = Backend::start().await;
    let mesh = peer("default", "istio-system", "{mtls: {mode: STRICT}}");
    let namespace = peer("default", "data", "{mtls: {mode: PERMISSIVE}}");
    let other = peer(
        "another",
        "data",
        "{selector: {matchLabels: {app: another}}, mtls: {mode: STRICT}}",
    );
    let workload = peer(
        "backend",
        "data",
        "{selector: {matchLabels: {app: backend}}, mtls: {mode: STRICT}}",
    );
    let port = peer(
        "backend",
        "data",
        "{selector: {matchLabels: {app: backend}}, mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: PERMISSIVE}}}",
    );
    // Each is applied on top of those before; what plaintext is told on 8080 and on 9090.
    let steps = [
        ("nothing: PERMISSIVE", "", "", (200, 200)),
        ("mesh: STRICT", "mesh", &mesh, (0, 0)),
        ("namespace: PERMISSIVE", "namespace", &namespace, (200, 200)),
        ("another workload: STRICT", "other", &other, (200, 200)),
        ("workload: STRICT", "workload", &workload, (0, 0)),
        ("port 9090: PERMISSIVE", "workload", &port, (0, 200)),
    ];
    for (what, file, yaml, (first, second)) in steps {
        if !file.is_empty() {
            backend.proxy.apply(&format!("{file}.yaml"), yaml).await;
        }
        let plaintext = (backend.plaintext(8080).await, backend.plaintext(9090).await);
        assert_eq!(plaintext, (first, second), "{what}");
        for port in [8080, 9090] {
            let mutual = backend
                .mutual(&backend.frontend, port, "GET", "/api/v1/items")
                .await;
            assert_eq!(mutual, 200, "{what}: mutual TLS on {port}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_all_denies_all_and_each_allow_adds_what_it_says() {
    let backend = Backend::start().await;
    let get = "/api/v1/items";
    let steps = [
        (
            "deny-all in the namespace",
            "deny",
            allow("deny-all", "data", "{}"),
            [403, 403, 403, 403],
        ),
        (
            "the frontend by principal",
            "frontend",
            allow(
                "backend-allow-frontend",
                "data",
                "{rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]}]}",
            ),
            [200, 200, 403, 403],
        ),
        (
            "methods and paths of the frontend",
            "frontend",
            allow(
                "backend-allow-frontend",
                "data",
                "{rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}], \
                  to: [{operation: {methods: [GET], paths: ['/api/v1/*']}}]}]}",
            ),
            [200, 403, 403, 403],
        ),
        (
            "another namespace, one port",
            "namespace",
            allow(
                "allow-other",
                "data",
                "{rules: [{from: [{source: {namespaces: [other]}}], to: [{operation: {ports: ['8080']}}]}]}",
            ),
            [200, 403, 200, 403],
        ),
        (
            "a workload policy does not override the namespace's: they add up",
            "workload",
            allow(
                "only-nobody",
                "data",
                "{selector: {matchLabels: {app: backend}}, \
                  rules: [{from: [{source: {principals: [cluster.local/ns/no/sa/body]}}]}]}",
            ),
            [200, 403, 200, 403],
        ),
        (
            "the mesh denies a namespace, whoever allows it",
            "mesh",
            allow(
                "no-other",
                "istio-system",
                "{action: DENY, rules: [{from: [{source: {namespaces: [other]}}]}]}",
            ),
            [200, 403, 403, 403],
        ),
    ];
    for (what, file, yaml, expected) in steps {
        backend.proxy.apply(&format!("{file}.yaml"), &yaml).await;
        let told = [
            backend.mutual(&backend.frontend, 8080, "GET", get).await,
            backend.mutual(&backend.frontend, 8080, "POST", get).await,
            backend.mutual(&backend.intruder, 8080, "GET", get).await,
            backend.plaintext(8080).await,
        ];
        assert_eq!(
            told, expected,
            "{what}: frontend GET, frontend POST, intruder GET, plaintext GET"
        );
        let elsewhere = backend.mutual(&backend.intruder, 9090, "GET", get).await;
        assert_eq!(elsewhere, 403, "{what}: the intruder on the other port");
    }
    for file in ["mesh", "workload", "namespace", "frontend", "deny"] {
        backend.proxy.withdraw(&format!("{file}.yaml")).await;
    }
    assert_eq!(
        backend.plaintext(9090).await,
        200,
        "without policies access returns"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_ends_the_plaintext_connections_that_are_open() {
    let backend = Backend::start().await;
    let mut open = TcpStream::connect(backend.address(8080)).await.unwrap();
    let request = b"GET /api/v1/items HTTP/1.1\r\nhost: backend\r\n\r\n";
    open.write_all(request).await.unwrap();
    let mut room = [0; 4096];
    let read = open.read(&mut room).await.unwrap();
    assert!(room[..read].starts_with(b"HTTP/1.1 200"), "PERMISSIVE takes it");
    let strict = peer("default", "data", "{mtls: {mode: STRICT}}");
    backend.proxy.apply("strict.yaml", &strict).await;
    // Closed at once, with or without the request.
    let _ = open.write_all(request).await;
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("HTTP/1.1 200"), "{rest}");
    backend
        .proxy
        .record("the end", |record| record["reason"] == "tls_plaintext_refused")
        .await;
}
