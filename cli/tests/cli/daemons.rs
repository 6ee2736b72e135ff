//! Commands that speak to a running part, over sockets that answer as a test tells them to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use signet_certs::{JwtAuthority, SigningKey, X509Svid};
use signet_proto::sds;
use signet_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use signet_runtime::clock::rfc3339;
use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::support::{HOUR, Pki, signet, text, token};

/// Pages by `METHOD path`.
pub(crate) type Pages = HashMap<&'static str, (u16, String)>;

pub(crate) struct Daemon {
    directory: tempfile::TempDir,
    /// The last body sent to each page.
    asked: Arc<Mutex<HashMap<String, String>>>,
}

impl Daemon {
    pub(crate) fn start(pages: Pages) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("admin.sock")).unwrap();
        let pages = Arc::new(pages);
        let asked: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (pages, heard) = (Arc::clone(&pages), Arc::clone(&heard));
                let answer = service_fn(move |request: hyper::Request<Incoming>| {
                    let page = format!("{} {}", request.method(), request.uri().path());
                    let (status, body) = pages.get(&*page).cloned().unwrap_or((404, String::new()));
                    let body = Full::new(Bytes::from(body));
                    let response = hyper::Response::builder().status(status).body(body).unwrap();
                    let heard = Arc::clone(&heard);
                    async move {
                        let sent = request.into_body().collect().await.unwrap().to_bytes();
                        let sent = String::from_utf8(sent.to_vec()).unwrap();
                        heard.lock().unwrap().insert(page, sent);
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Self { directory, asked }
    }

    /// What was last sent to a page, as `METHOD path`.
    pub(crate) fn asked(&self, page: &str) -> Option<String> {
        self.asked.lock().unwrap().get(page).cloned()
    }

    pub(crate) fn socket(&self) -> String {
        text(&self.directory.path().join("admin.sock"))
    }
}

/// An SVID as an agent tells it.
pub(crate) fn svid(pki: &Pki) -> Value {
    let chain = pki.chain("cart");
    json!({
        "spiffe_id": chain.id().as_str(), "serial": chain.serial(), "authority_id": pki.issuing.id(),
        "key": "P-256", "not_before": rfc3339(chain.not_before()), "not_after": rfc3339(chain.not_after()),
        "received_at": rfc3339(crate::support::now()), "renews_at": rfc3339(chain.not_after()), "renewals": 3,
        "last_success": rfc3339(crate::support::now()), "last_failure": null, "chain_pem": chain.to_pem(),
        "a_later_member": true,
    })
}

#[tokio::test]
async fn an_agent_is_asked_for_what_it_alone_knows() {
    let svid = svid(&Pki::new());
    let pages = [("GET /v1/svids", (200, json!({"svids": [svid]}).to_string()))];
    let agent = Daemon::start(pages.into());
    let shown = signet(&["svid", "show", "--admin", &agent.socket(), "-o", "json"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    let renewal = &shown.json()["svids"][0]["renewal"];
    assert_eq!(
        (&renewal["estimated"], &renewal["count"]),
        (&json!(false), &json!(3))
    );
}

#[tokio::test]
async fn a_rotation_shows_the_old_and_the_new_serial_or_the_reason_why_not() {
    let pki = Pki::new();
    let (old, new) = (svid(&pki), svid(&pki));
    let before = ("GET /v1/svids", (200, json!({"svids": [old]}).to_string()));
    let agent = Daemon::start([before.clone(), ("POST /v1/svids/rotate", (200, new.to_string()))].into());
    let ran = signet(&["svid", "rotate", "--admin", &agent.socket(), "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        (&ran.json()["old_serial"], &ran.json()["new_serial"]),
        (&old["serial"], &new["serial"])
    );
    let refusal = json!({"error": "unavailable: connect to ca:15012: refused", "reason": "unavailable"});
    let agent = Daemon::start([before, ("POST /v1/svids/rotate", (503, refusal.to_string()))].into());
    let ran = signet(&["svid", "rotate", "--admin", &agent.socket()]).await;
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (1, "signet: unavailable: connect to ca:15012: refused\n")
    );
}

#[tokio::test]
async fn a_watch_prints_a_line_per_change_and_says_when_the_agent_leaves() {
    let pki = Pki::new();
    let lines = format!("{}\n\n{}\n", svid(&pki), svid(&pki));
    let agent = Daemon::start([("GET /v1/svids/watch", (200, lines))].into());
    let ran = signet(&[
        "svid",
        "watch",
        "--admin",
        &agent.socket(),
        "--count",
        "2",
        "-o",
        "json",
    ])
    .await;
    assert_eq!((ran.code, ran.out.lines().count()), (0, 2), "{}", ran.err);
    let ran = signet(&["svid", "watch", "--admin", &agent.socket()]).await;
    assert_eq!((ran.code, ran.out.lines().count()), (2, 2));
    assert!(
        ran.err
            .ends_with("the agent ended the watch; is it shutting down?\n"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn an_admin_socket_that_does_not_answer_is_exit_2_with_a_hint() {
    let missing = signet(&["authority", "show", "--admin", "/nowhere/admin.sock"]).await;
    assert_eq!(missing.code, 2);
    assert!(
        missing
            .err
            .contains("is the daemon running, and is this its admin_socket?"),
        "{}",
        missing.err
    );
    let directory = tempfile::tempdir().unwrap();
    let dead = directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let ran = signet(&["authority", "show", "--admin", &text(&dead)]).await;
    assert!(
        ran.err.contains("the daemon that made this socket is gone"),
        "{}",
        ran.err
    );
    let other = Daemon::start(Pages::new());
    let ran = signet(&["authority", "show", "--admin", &other.socket()]).await;
    let expected = format!(
        "signet: {} has no /v1/authorities; is it the socket of a signet-ca?\n",
        other.socket()
    );
    assert_eq!((ran.code, ran.err), (2, expected));
    let garbled = Daemon::start([("GET /v1/authorities", (200, "[]".into()))].into());
    let ran = signet(&["authority", "show", "--admin", &garbled.socket()]).await;
    assert!(
        ran.code == 2 && ran.err.contains("the answer to /v1/authorities cannot be read"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn the_ca_is_believed_about_a_token_and_its_fix_is_shown() {
    let verdict = json!({
        "accepted": false, "reason": "bad_signature", "explanation": "not signed by this cluster",
        "fix": "use a token of this cluster", "account": "shop/cart", "pod": null, "audiences": null,
        "spiffe_id": "spiffe://cluster.local/ns/shop/sa/cart",
    });
    let ca = Daemon::start([("POST /v1/token/check", (200, verdict.to_string()))].into());
    let token = crate::support::file(token("cart", "signet-ca"));
    let ran = signet(&[
        "token",
        "check",
        "--token-file",
        &token.path,
        "--admin",
        &ca.socket(),
        "-o",
        "json",
    ])
    .await;
    assert_eq!(
        (ran.code, &ran.json()["judged_by"]),
        (1, &json!("ca")),
        "{}",
        ran.err
    );
    assert_eq!(ran.json()["fix"], "use a token of this cluster");
}

#[tokio::test]
async fn a_bundle_of_a_daemon_is_read_strictly() {
    let pki = Pki::new();
    let page = |pem: String| json!({"trust_domain": "cluster.local", "sequence": 7, "pem": pem});
    let authority = JwtAuthority::new(Arc::new(SigningKey::generate().unwrap())).unwrap();
    let bundle = pki
        .bundle()
        .with_jwt_keys(vec![authority.public().clone()])
        .unwrap();
    let mut whole = page(bundle.to_pem());
    whole["jwks"] = bundle.to_jwks().into();
    let agent = Daemon::start([("GET /v1/bundle", (200, whole.to_string()))].into());
    let shown = signet(&["bundle", "show", "--admin", &agent.socket(), "-o", "json"]).await;
    assert_eq!((shown.code, &shown.json()["sequence"]), (0, &json!(7)));
    assert_eq!(shown.json()["jwt_keys"][0]["kid"], authority.public().kid());
    let exported = signet(&["bundle", "export", "--admin", &agent.socket(), "--out", "-"]).await;
    assert_eq!((exported.code, exported.out.trim_end()), (0, &*bundle.to_jwks()));
    let older = Daemon::start([("GET /v1/bundle", (200, page(bundle.to_pem()).to_string()))].into());
    let shown = signet(&["bundle", "show", "--admin", &older.socket(), "-o", "json"]).await;
    assert_eq!((shown.code, &shown.json()["jwt_keys"]), (0, &json!([])));
    let agent = Daemon::start(
        [(
            "GET /v1/bundle",
            (200, page(pki.chain("cart").to_pem()).to_string()),
        )]
        .into(),
    );
    let shown = signet(&["bundle", "show", "--admin", &agent.socket()]).await;
    assert!(
        shown.code == 2 && shown.err.contains("is not a CA certificate"),
        "{}",
        shown.err
    );
}

/// Serves one key pair and one bundle, or refuses.
struct Agent {
    svid: X509Svid,
    pki: Pki,
    refusal: Option<Status>,
}

#[tonic::async_trait]
impl SecretDiscoveryService for Agent {
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let asked = request.into_inner().message().await?.unwrap();
        let resource = match asked.resource_names.as_slice() {
            [name] if name == "default" => sds::key_pair(name, &self.svid).unwrap(),
            [name] => sds::roots(name, &self.pki.bundle()),
            _ => return Err(Status::invalid_argument("one name per stream")),
        };
        let (answers, stream) = tokio::sync::mpsc::channel(1);
        let answer = DiscoveryResponse {
            version_info: "1".into(),
            nonce: "n".into(),
            type_url: asked.type_url,
            resources: vec![resource],
        };
        answers.send(Ok(answer)).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

fn serve(agent: Agent) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let router = tonic::transport::Server::builder().add_service(SecretDiscoveryServiceServer::new(agent));
    tokio::spawn(router.serve_with_incoming(incoming));
    (directory, path)
}

fn agent(leaf_of: &Pki, roots_of: Pki, refusal: Option<Status>) -> Agent {
    let key = Arc::new(SigningKey::generate().unwrap());
    let svid = X509Svid::new(leaf_of.leaf("cart", key.public_key(), &[], HOUR), key).unwrap();
    Agent {
        svid,
        pki: roots_of,
        refusal,
    }
}

#[tokio::test]
async fn a_workload_socket_is_asked_as_envoy_asks_and_the_key_is_not_shown() {
    let pki = Pki::new();
    let same = Pki {
        root: copy(&pki.root),
        issuing: copy(&pki.issuing),
    };
    let agent = agent(&pki, same, None);
    let key = agent.svid.key().expose_pem().to_string();
    let (_directory, socket) = serve(agent);
    let shown = signet(&["svid", "show", "--socket", &text(&socket), "-o", "json"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    let svid = &shown.json()["svids"][0];
    assert_eq!(
        svid["bundle"],
        json!({"accepted": true, "reason": null, "key_matches": true})
    );
    let body = key.lines().nth(1).unwrap();
    assert!(!shown.out.contains(body) && !shown.err.contains(body));
}

#[tokio::test]
async fn roots_that_do_not_accept_the_served_chain_are_told() {
    let (_directory, socket) = serve(agent(&Pki::new(), Pki::new(), None));
    let shown = signet(&["svid", "show", "--socket", &text(&socket)]).await;
    assert_eq!(shown.code, 0);
    let sentence = "refuse it: no authority in the bundle of cluster.local signed this chain";
    assert!(shown.out.contains(sentence), "{}", shown.out);
}

#[tokio::test]
async fn an_agent_that_has_no_secret_is_exit_1_with_its_reason() {
    let refusal = Status::unavailable("no SVID yet: the CA refused the token");
    let (_directory, socket) = serve(agent(&Pki::new(), Pki::new(), Some(refusal)));
    let shown = signet(&["svid", "show", "--socket", &text(&socket)]).await;
    assert_eq!(shown.code, 1);
    let sentence = "the agent does not serve default: no SVID yet: the CA refused the token (Unavailable)\n";
    assert!(shown.err.ends_with(sentence), "{}", shown.err);
    let shown = signet(&["svid", "show", "--socket", "/nowhere/agent.sock"]).await;
    assert_eq!(shown.code, 2);
    assert!(
        shown
            .err
            .ends_with("is the agent running, and is this its socket?\n"),
        "{}",
        shown.err
    );
}

fn copy(authority: &signet_certs::Authority) -> signet_certs::Authority {
    let above = authority.presented().skip(1).cloned().collect();
    signet_certs::Authority::new(
        Arc::clone(authority.key()),
        authority.certificate().clone(),
        above,
    )
    .unwrap()
}
