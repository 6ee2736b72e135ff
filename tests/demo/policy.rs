//! The story of policy: three `signet-proxy` on the node's agent, one in front of an application, and what
//! each policy does to who asks. Every step prints what was applied, what was tried, what came back, and why.

use std::convert::Infallible;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use signet_tests::agent::Agent;
use signet_tests::load::{Load, What};
use signet_tests::proxy::{Proxy, ProxySetup};
use signet_tests::wait::{SOON, until_some};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::text;

/// Where the policies lie.
const NAMESPACE: &str = "orders";
/// The identity of the workload that is called.
const CALLED: &str = "spiffe://cluster.local/ns/orders/sa/api";
const PLAIN: &str = "GET /api/v1/items";
/// What the steady stream of requests asks for; no other request does.
const LOADED: &str = "/api/v1/stream";
const ISSUER: &str = "https://login.example.com";

/// The programs that the agent tells apart.
pub(crate) struct Programs {
    pub(crate) frontend: PathBuf,
    pub(crate) intruder: PathBuf,
    pub(crate) backend: PathBuf,
}

/// Everything, running.
pub(crate) struct Shop {
    frontend: Proxy,
    intruder: Proxy,
    backend: Proxy,
}

impl Shop {
    /// An application, the proxy in front of it, and the proxies of two callers.
    pub(crate) async fn start(agent: &Agent, programs: Programs) -> Self {
        let app = application().await;
        let backend = ProxySetup::new(&agent.socket(), NAMESPACE, "api")
            .running(programs.backend)
            .inbound(&app, json!({"port": 8080, "protocol": "http1"}))
            .start()
            .await;
        let caller = async |program: PathBuf, namespace: &str| {
            ProxySetup::new(&agent.socket(), namespace, "web")
                .running(program)
                .outbound(
                    &backend.inbound(0),
                    json!({"protocol": "http1", "mtls": {"expected": [CALLED]}}),
                )
                .start()
                .await
        };
        Self {
            frontend: caller(programs.frontend, "shop").await,
            intruder: caller(programs.intruder, "other").await,
            backend,
        }
    }

    /// Who may connect at all.
    pub(crate) async fn mutual_tls(&self) {
        self.mode("STRICT").await;
        self.plaintext(false).await;
        self.ask(("frontend", &self.frontend), "GET /api/v1/items", None, 200)
            .await;
        self.mode("PERMISSIVE").await;
        self.plaintext(true).await;
        self.ask(("frontend", &self.frontend), "GET /api/v1/items", None, 200)
            .await;
        let page = self.backend.page("/plaintext-clients").await;
        println!(
            "      who       /plaintext-clients of the proxy names {}",
            clients(&page)
        );
        self.mode("STRICT").await;
    }

    /// Who may do what.
    pub(crate) async fn authorization(&self) {
        self.apply("deny-all", "{}", "nobody may do anything").await;
        self.ask(("frontend", &self.frontend), "GET /api/v1/items", None, 403)
            .await;
        let frontend = "{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}";
        self.apply("backend-allow-frontend", frontend, "the frontend may")
            .await;
        self.ask(("frontend", &self.frontend), "GET /api/v1/items", None, 200)
            .await;
        self.ask(("intruder", &self.intruder), "GET /api/v1/items", None, 403)
            .await;
        let reads = "{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], \
                     to: [{operation: {methods: [GET], paths: ['/api/v1/*']}}]}]}";
        self.apply(
            "backend-allow-frontend",
            reads,
            "the frontend may GET /api/v1/*, no more",
        )
        .await;
        self.ask(("frontend", &self.frontend), "GET /api/v1/items", None, 200)
            .await;
        self.ask(("frontend", &self.frontend), "POST /api/v1/items", None, 403)
            .await;
        self.ask(("frontend", &self.frontend), "GET /admin", None, 403)
            .await;
        let namespace = "{rules: [{from: [{source: {namespaces: [other]}}], \
                         to: [{operation: {methods: [GET], paths: ['/api/v1/*']}}]}]}";
        self.apply(
            "allow-namespace-other",
            namespace,
            "so may everything of namespace other",
        )
        .await;
        self.ask(("intruder", &self.intruder), "GET /api/v1/items", None, 200)
            .await;
        self.withdraw("allow-namespace-other").await;
        self.ask(("intruder", &self.intruder), "GET /api/v1/items", None, 403)
            .await;
    }

    /// For whom a request is made. The good token, for more requests.
    pub(crate) async fn tokens(&self) -> String {
        let (ours, theirs) = (Issuer::new("k1"), Issuer::new("k1"));
        let rules = json!({"jwtRules": [{"issuer": ISSUER, "jwks": ours.keys()}]});
        self.write("RequestAuthentication", "login", &rules.to_string())
            .await;
        let demand = "{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}";
        self.apply("demand-a-token", demand, "no request without a token")
            .await;
        self.ask(
            ("frontend, no token", &self.frontend),
            "GET /api/v1/items",
            None,
            403,
        )
        .await;
        let wrong = theirs.token();
        self.ask(
            ("frontend, a forged token", &self.frontend),
            "GET /api/v1/items",
            Some(&wrong),
            401,
        )
        .await;
        let right = ours.token();
        self.ask(
            ("frontend, a good token", &self.frontend),
            "GET /api/v1/items",
            Some(&right),
            200,
        )
        .await;
        right
    }

    /// After all renewals the same are refused, by the same policies.
    pub(crate) async fn still_enforced(&self) {
        self.ask(("frontend, no token", &self.frontend), PLAIN, None, 403)
            .await;
        self.ask(("intruder", &self.intruder), PLAIN, None, 403).await;
    }

    /// Everything is deleted, in an order in which the frontend may do at any time what it does; access returns.
    pub(crate) async fn deleted(&self) {
        for name in ["demand-a-token", "login", "deny-all", "backend-allow-frontend"] {
            self.withdraw(name).await;
        }
        self.ask(("intruder", &self.intruder), "POST /admin", None, 200)
            .await;
    }

    /// Requests from the frontend, each on a connection of its own.
    pub(crate) fn load(&self, per_second: u32, token: String) -> Load {
        let what = What {
            path: LOADED.to_owned(),
            token: Some(token),
        };
        Load::asking(&self.frontend.outbound(0), per_second, what)
    }

    async fn mode(&self, mode: &str) {
        println!("      applied   PeerAuthentication {NAMESPACE}/mode: {mode}");
        let spec = format!("{{mtls: {{mode: {mode}}}}}");
        let yaml = document("PeerAuthentication", "mode", &spec);
        self.backend.apply("mode.yaml", &yaml).await;
    }

    async fn apply(&self, name: &str, spec: &str, meaning: &str) {
        println!("      applied   AuthorizationPolicy {NAMESPACE}/{name}: {meaning}");
        let yaml = document("AuthorizationPolicy", name, spec);
        self.backend.apply(&format!("{name}.yaml"), &yaml).await;
    }

    async fn write(&self, kind: &str, name: &str, spec: &str) {
        println!("      applied   {kind} {NAMESPACE}/{name}");
        self.backend
            .apply(&format!("{name}.yaml"), &document(kind, name, spec))
            .await;
    }

    async fn withdraw(&self, name: &str) {
        println!("      deleted   {NAMESPACE}/{name}");
        self.backend.withdraw(&format!("{name}.yaml")).await;
    }

    /// Somebody without a proxy, and so without an identity.
    async fn plaintext(&self, passes: bool) {
        let seen = self.backend.records().len();
        let answer = request(&self.backend.inbound(0), PLAIN, None).await;
        let came = answer.map_or_else(|e| format!("no answer: {e}"), |(status, _)| status.to_string());
        println!("      tried     a client without a proxy, in plaintext: {PLAIN} → {came}");
        assert_eq!(came == "200", passes, "a plaintext client: {came}");
        self.why(seen, |record| {
            record["security"] != "mutual_tls" && (record["reason"] == "ok") == passes
        })
        .await;
    }

    /// `what` is a method and a path.
    async fn ask(&self, (who, by): (&str, &Proxy), what: &str, token: Option<&str>, expected: u16) {
        let seen = self.backend.records().len();
        let answer = request(&by.outbound(0), what, token).await;
        let (status, body) = answer.unwrap_or_else(|e| panic!("{who}: {what}: {e}"));
        println!("      tried     {who}: {what} → {status} {}", body.trim());
        assert_eq!(status, expected, "{who}: {what}: {body}");
        let (method, path) = what.split_once(' ').unwrap_or_default();
        self.why(seen, |record| {
            record["status"] == expected && record["method"] == method && record["path"] == path
        })
        .await;
    }

    /// The first record after those that were `seen` which fits says why.
    async fn why(&self, seen: usize, fits: impl Fn(&Value) -> bool) {
        let record = until_some("a record of it", SOON, async || {
            self.backend
                .records()
                .into_iter()
                .skip(seen)
                .find(|record| fits(record))
        })
        .await;
        println!("      why       {}", why(&record));
    }
}

/// What an access record says of its outcome, and who decided it.
fn why(record: &Value) -> String {
    let reason = text(&record["reason"]);
    match (record["detail"].as_str(), record["policy"].as_str()) {
        (Some(detail), _) => format!("{reason}: {detail}"),
        (None, Some(policy)) if reason == "ok" => format!("{reason}: allowed by {policy}"),
        (None, Some(policy)) => format!("{reason}: {policy}"),
        (None, None) if reason == "ok" => {
            format!("{reason}: no ALLOW policy is in force, and no DENY matches")
        }
        (None, None) => reason.to_owned(),
    }
}

fn clients(page: &Value) -> String {
    let all = page["clients"].as_array().cloned().unwrap_or_default();
    assert!(!all.is_empty(), "the plaintext client is named: {page}");
    let named: Vec<String> = all
        .iter()
        .map(|client| text(&client["address"]).to_owned())
        .collect();
    named.join(", ")
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n"
    )
}

/// One request, a method and a path, on a connection of its own; the status and the body.
async fn request(address: &str, what: &str, token: Option<&str>) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let bearer = token.map_or(String::new(), |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let head = format!(
        "{what} HTTP/1.1\r\nhost: api.orders\r\n{bearer}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((status, body.to_owned()))
}

/// The application: it says hello to whoever gets through.
async fn application() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let hello = service_fn(async |_: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), hello),
            );
        }
    });
    address
}

/// Who makes tokens.
struct Issuer {
    kid: &'static str,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self {
            kid,
            key: key.expect("a key"),
            random,
        }
    }

    /// Its key set, as text.
    fn keys(&self) -> String {
        let point = self.key.public_key().as_ref();
        let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": part(1), "y": part(33),
        });
        json!({"keys": [key]}).to_string()
    }

    /// A token of a person, good for an hour.
    fn token(&self) -> String {
        let now = signet_tests::client::now().as_secs();
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        let claims = json!({"iss": ISSUER, "sub": "ada", "iat": now, "exp": now + 3_600});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
