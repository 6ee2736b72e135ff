//! `signet tls-check`, `signet why` and `signet strict-ready NAMESPACE`: real proxies are asked over their admin sockets,
//! and what they answer is what a real connection or request then meets.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use signet_tests::app::App;
use signet_tests::ca::Ca;
use signet_tests::cli::{Ran, signet, signet_with};
use signet_tests::client::Presented;
use signet_tests::cluster::Cluster;
use signet_tests::dir::{Dir, copy_program};
use signet_tests::echo::{Echo, says};
use signet_tests::mesh::{BACKEND, FRONTEND};
use signet_tests::proxy::Proxy;
use signet_tests::{http as web, tls};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::proxy_tls::{STRICT, World};

const SOMEBODY_ELSE: &str = "spiffe://cluster.local/ns/data/sa/somebody-else";

const ALLOW_GET: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: data}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {methods: [GET]}}]
";

const DENY_FRONTEND: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-you, namespace: data}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
";

const TOKENS: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: issuer, namespace: data}
spec:
  jwtRules:
  - issuer: https://id.example
    jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig","alg":"ES256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}'
"#;

/// Of that issuer, by a key `9`; the signature is none.
const UNKNOWN_KEY: &str =
    "eyJhbGciOiJFUzI1NiIsImtpZCI6IjkifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJleHAiOjQxMDI0NDQ4MDB9.c2ln";

fn mtls(expected: &str) -> Value {
    json!({"protocol": "http", "mtls": {"expected": [expected]}})
}

/// As JSON, with the exit code.
async fn asked(arguments: &[&str]) -> (i32, Value) {
    let ran = signet(&[arguments, &["-o", "json"]].concat()).await;
    assert!(!ran.stdout.is_empty(), "{ran:?}");
    assert!(!ran.stdout.contains("PRIVATE KEY"));
    (ran.code, ran.json())
}

async fn tls_check(from: &Proxy, to: &str, more: &[&str]) -> (i32, Value) {
    let socket = from.admin_socket();
    asked(&[&["tls-check", &socket, to], more].concat()).await
}

async fn why(from: &Proxy, to: &str, more: &[&str]) -> (i32, Value) {
    let socket = from.admin_socket();
    asked(&[&["why", &socket, to], more].concat()).await
}

fn verdict(answer: &(i32, Value)) -> (i32, &str, Option<&str>) {
    let (code, page) = answer;
    let outcome = page["handshake"]["outcome"].as_str().unwrap_or_default();
    (*code, outcome, page["side"].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_good_shows_both_sides() {
    let world = World::start().await;
    let app = App::start().await;
    let backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&app.address, json!({"protocol": "http", "port": 8080}))
        .start()
        .await;
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls(BACKEND))
        .start()
        .await;
    let to_proxy = backend.admin_socket();
    let good = tls_check(&frontend, &backend.inbound(0), &["--to-proxy", &to_proxy]).await;
    assert_eq!(verdict(&good), (0, "ok", None), "{good:#?}");
    let (_, page) = good;
    let (handshake, says) = (&page["handshake"], &page["to_says"]);
    assert_eq!(handshake["own"]["spiffe_id"], FRONTEND);
    assert_eq!(handshake["listed"]["by"], "outbound[0]");
    assert_eq!(handshake["listed"]["expected"], json!([BACKEND]));
    let met = &handshake["tls"];
    assert_eq!(
        (&met["version"], &met["alpn"], &met["presented"]),
        (&json!("TLSv1_3"), &json!("signet"), &json!(BACKEND))
    );
    assert_eq!(met["chain"][0]["names"], json!([BACKEND]));
    assert_eq!(met["chain"][0]["signed_by"], "the next certificate");
    let root = met["chain"][1]["signed_by"].as_str().unwrap();
    assert!(root.ends_with("in the bundle of cluster.local"), "{root}");
    assert_eq!(
        (&says["mode"], &says["port"], &says["spiffe_id"], &says["caller"]),
        (&json!("STRICT"), &json!(8080), &json!(BACKEND), &json!(FRONTEND))
    );
    // By the address that the application dials it is the same destination.
    let dialled = tls_check(&frontend, &frontend.outbound(0), &[]).await;
    assert_eq!(verdict(&dialled), (0, "ok", None), "{dialled:#?}");
    // No request was sent for it.
    assert_eq!(app.heard("host"), 0);
    let labels = [("question", "tls_check"), ("outcome", "ok")];
    let counted = frontend.scrape().await;
    assert_eq!(counted.value("signet_proxy_admin_questions_total", &labels), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_fails_names_the_side_that_is_wrong() {
    let world = World::start().await;
    let app = Echo::start().await;
    let plain_http = App::start().await;
    let backend = world
        .backend_proxy()
        .inbound(&app.address, json!({}))
        .start()
        .await;
    // A mesh with the same names, and a CA of its own.
    let other = World::start().await;
    let stranger = other
        .backend_proxy()
        .inbound(&app.address, json!({}))
        .start()
        .await;
    let refusing = refusing(&world, &other.ca).await;
    let (_held, gone) = unused();
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls(SOMEBODY_ELSE))
        .outbound(&stranger.inbound(0), mtls(BACKEND))
        .outbound(&refusing, mtls(BACKEND))
        .outbound(&app.address, mtls(BACKEND))
        .outbound(&plain_http.address, mtls(BACKEND))
        .outbound(&gone, mtls(BACKEND))
        .start()
        .await;

    let elsewhere = tls_check(&frontend, &backend.inbound(0), &[]).await;
    assert_eq!(verdict(&elsewhere), (1, "other_identity", None), "{elsewhere:#?}");
    let sentence = elsewhere.1["sentence"].as_str().unwrap();
    assert!(
        sentence.contains(BACKEND) && sentence.contains(SOMEBODY_ELSE),
        "{sentence}"
    );
    assert_eq!(elsewhere.1["handshake"]["tls"]["presented"], BACKEND);

    let to_stranger = stranger.admin_socket();
    let untrusted = tls_check(&frontend, &stranger.inbound(0), &["--to-proxy", &to_stranger]).await;
    assert_eq!(
        verdict(&untrusted),
        (1, "untrusted_root", Some("from")),
        "{untrusted:#?}"
    );
    let chain = &untrusted.1["handshake"]["tls"]["chain"];
    assert_eq!(chain[1]["signed_by"], Value::Null, "its root is nobody here");
    // And the other way round, by the other side's own word.
    let step = &untrusted.1["to_says"]["steps"][1];
    assert_eq!(
        (&step["step"], &step["reason"]),
        (&json!("certificate"), &json!("tls_certificate_refused"))
    );

    let refused = tls_check(&frontend, &refusing, &[]).await;
    assert_eq!(
        verdict(&refused),
        (1, "refused_by_peer", Some("to")),
        "{refused:#?}"
    );
    assert_eq!(refused.1["handshake"]["alert"], "unknown_ca");
    assert_eq!(
        refused.1["handshake"]["tls"]["presented"], BACKEND,
        "it was good until then"
    );

    for plaintext in [&app.address, &plain_http.address] {
        let answer = tls_check(&frontend, plaintext, &[]).await;
        assert_eq!(verdict(&answer), (1, "no_tls", Some("to")), "{answer:#?}");
    }
    let nobody = tls_check(&frontend, &gone, &[]).await;
    assert_eq!(verdict(&nobody), (1, "unreachable", Some("to")), "{nobody:#?}");
}

/// A TLS server with the backend's SVID that trusts another CA.
async fn refusing(world: &World, trusts: &Ca) -> String {
    let Presented { chain, key } = world.svid("data", "backend").await;
    let mut roots = RootCertStore::empty();
    for root in tls::certificates(&trusts.roots().await) {
        roots.add(root).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(tls::certificates(&chain), key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            acceptor.accept(stream).await.unwrap_err();
        }
    });
    address
}

/// An address at which nobody listens, and nobody else can while the socket is held.
fn unused() -> (TcpSocket, String) {
    let held = TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = held.local_addr().unwrap().to_string();
    (held, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_destinations_are_dialled_and_only_over_the_socket() {
    let world = World::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let elsewhere = listener.local_addr().unwrap().to_string();
    let frontend = world.frontend_proxy().start().await;
    let unlisted = tls_check(&frontend, &elsewhere, &[]).await;
    assert_eq!(verdict(&unlisted), (1, "unlisted", Some("from")), "{unlisted:#?}");
    assert_eq!(unlisted.1["handshake"]["default_outbound"], "refuse");
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nobody came"
    );
    // The page that the application shares answers no question.
    let question = json!({"destination": elsewhere}).to_string();
    let stream = TcpStream::connect(&frontend.admin).await.unwrap();
    let refused = web::exchange(stream, Method::POST, "/tls-check", question.clone())
        .await
        .unwrap();
    assert_eq!(refused.status, 405);
    let socket = PathBuf::from(frontend.admin_socket());
    let directory = std::fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    // What cannot be read is refused without being repeated.
    let malformed = web::unix(
        &socket,
        Method::POST,
        "/decision",
        "{\"token\": \"secret\"}".into(),
    )
    .await
    .unwrap();
    assert_eq!(malformed.status, 400);
    assert!(!malformed.body.contains("secret"), "{}", malformed.body);
    // The pages are there as well.
    let page = web::unix(&socket, Method::GET, "/listeners", String::new())
        .await
        .unwrap();
    assert_eq!(page.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirected_traffic_is_asked_about_for_this_host_alone() {
    let world = World::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = listener.local_addr().unwrap();
    let capture = json!({"inbound": "127.0.0.1:0", "outbound": "127.0.0.1:0"});
    let proxy = world.backend_proxy().set("capture", capture).start().await;
    let socket = PathBuf::from(proxy.admin_socket());
    let decide = async |destination: &str| {
        let question = json!({
            "destination": destination, "source": "127.0.0.1:1", "chain_pem": null,
            "request": {"method": "GET", "path": "/", "host": "app", "token": null},
        });
        web::unix(&socket, Method::POST, "/decision", question.to_string())
            .await
            .unwrap()
    };
    // Its own host's application is looked at.
    let answer = decide(&own.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    let last = page["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["step"], &last["outcome"]),
        (&json!("application"), &json!("ok"))
    );
    listener.accept().unwrap();

    let port = own.port();
    let elsewhere = [
        format!("192.0.2.7:{port}"),
        format!("[2001:db8::7]:{port}"),
        // These lead here, too, but are nobody's address.
        format!("0.0.0.0:{port}"),
        format!("[::ffff:0.0.0.0]:{port}"),
    ];
    let capturing = proxy.page("/listeners").await;
    let capturing = capturing["listeners"].as_array().unwrap().iter();
    let capturing: Vec<_> = capturing
        .map(|one| one["address"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(capturing.len(), 2);
    for destination in elsewhere.iter().chain(&capturing) {
        let refused = decide(destination).await;
        assert_eq!(refused.status, 404, "{destination}: {}", refused.body);
        assert!(
            refused.body.contains("no_listener") && refused.body.contains("--to-address PODIP:TARGETPORT"),
            "{destination}: {}",
            refused.body
        );
    }
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nobody came"
    );
    let labels = [("question", "decision"), ("outcome", "no_listener")];
    let counted = proxy.scrape().await;
    assert_eq!(counted.value("signet_proxy_admin_questions_total", &labels), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_unknown_key_is_left_open() {
    let world = World::start().await;
    let app = App::start().await;
    let backend = world
        .backend_proxy()
        .policy("tokens.yaml", TOKENS)
        .inbound(&app.address, json!({"protocol": "http"}))
        .start()
        .await;
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls(BACKEND))
        .start()
        .await;
    let (from, to, socket) = (
        frontend.admin_socket(),
        backend.inbound(0),
        backend.admin_socket(),
    );
    let arguments = [
        "why",
        &from,
        &to,
        "--to-proxy",
        &socket,
        "--jwt-file",
        "-",
        "-o",
        "json",
    ];
    let ran = signet_with(&arguments, UNKNOWN_KEY).await;
    let page = ran.json();
    assert_eq!((ran.code, &page["rung"]), (2, &json!("token")), "{page:#?}");
    let token = &page["rungs"][5];
    assert_eq!(
        (&token["state"], &token["reason"]),
        (&json!("depends"), &json!("token_invalid"))
    );
    assert!(!ran.stdout.contains("eyJ"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_walks_the_ladder_to_the_rung_that_a_request_meets() {
    let world = World::start().await;
    let app = App::start().await;
    let (_held, gone) = unused();
    let backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .policy("readers.yaml", ALLOW_GET)
        .inbound(&app.address, json!({"protocol": "http", "port": 8080}))
        .inbound(&gone, json!({"protocol": "http", "port": 8081}))
        .start()
        .await;
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls(BACKEND))
        .outbound(&backend.inbound(1), mtls(BACKEND))
        .start()
        .await;
    let socket = backend.admin_socket();
    let to = backend.inbound(0);
    let rung = |answer: &(i32, Value)| (answer.0, answer.1["rung"].as_str().map(str::to_owned));
    let at = |code: i32, name: &str| (code, Some(name.to_owned()));

    let allowed = why(&frontend, &to, &["--to-proxy", &socket]).await;
    assert_eq!(rung(&allowed), (0, None), "{allowed:#?}");
    assert_eq!(allowed.1["caller"], FRONTEND);
    assert_eq!(web::get(&frontend.outbound(0), "/").await.unwrap().status, 200);

    // Without the other side there is no verdict.
    let half = why(&frontend, &to, &[]).await;
    assert_eq!(rung(&half), at(2, "request"), "{half:#?}");

    // Nor where it cannot be asked: what is known is shown all the same.
    let nowhere = why(&frontend, &to, &["--to-proxy", "/nowhere/admin.sock"]).await;
    assert_eq!(rung(&nowhere), at(2, "request"), "{nowhere:#?}");
    let silence = nowhere.1["rungs"][6]["sentence"].as_str().unwrap();
    assert!(silence.contains("is the proxy running"), "{silence}");

    // A method that no rule allows.
    let post = why(&frontend, &to, &["--to-proxy", &socket, "--method", "POST"]).await;
    assert_eq!(rung(&post), at(1, "policies"), "{post:#?}");
    assert_eq!(post.1["caller_gets"], "403");
    let failed = &post.1["rungs"][6];
    assert_eq!(failed["reason"], "policy_not_allowed");
    let because = post.1["votes"][0]["because"][0].as_str().unwrap();
    assert!(
        because.starts_with("rules[0].to[0].operation.methods: "),
        "{because}"
    );
    let stream = TcpStream::connect(frontend.outbound(0)).await.unwrap();
    let real = web::exchange(stream, Method::POST, "/", String::new())
        .await
        .unwrap();
    assert_eq!(real.status, 403);

    // A path that two servers may read in two ways.
    let path = why(&frontend, &to, &["--to-proxy", &socket, "--path", "/a%00b"]).await;
    assert_eq!(
        (rung(&path), &path.1["caller_gets"]),
        (at(1, "request"), &json!("400")),
        "{path:#?}"
    );

    // An application that is away.
    let away = why(&frontend, &backend.inbound(1), &["--to-proxy", &socket]).await;
    assert_eq!(
        (rung(&away), &away.1["caller_gets"]),
        (at(1, "upstream"), &json!("503")),
        "{away:#?}"
    );
    assert_eq!(web::get(&frontend.outbound(1), "/").await.unwrap().status, 503);

    // A token that is none of its issuer's; it is in no answer.
    backend.apply("tokens.yaml", TOKENS).await;
    let arguments = [
        "why",
        &frontend.admin_socket(),
        &to,
        "--to-proxy",
        &socket,
        "--jwt-file",
        "-",
        "-o",
        "json",
    ];
    let ran = signet_with(&arguments, "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJtZSJ9.c2ln\n").await;
    assert!(!ran.stdout.contains("eyJ"), "{ran:?}");
    let token = (ran.code, ran.json());
    assert_eq!(
        (rung(&token), &token.1["caller_gets"]),
        (at(1, "token"), &json!("401")),
        "{token:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_modes_and_policies_without_http_apart() {
    let world = World::start().await;
    let app = Echo::start().await;
    let backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&app.address, json!({"port": 7000}))
        .start()
        .await;
    let to = backend.inbound(0);
    let socket = backend.admin_socket();
    let mutual = json!({"mtls": {"expected": [BACKEND]}});
    let frontend = world.frontend_proxy().outbound(&to, mutual).start().await;
    let plain = world
        .frontend_proxy()
        .outbound(&to, json!({"plaintext": true}))
        .start()
        .await;

    let (code, page) = why(&frontend, &to, &["--to-proxy", &socket]).await;
    assert_eq!((code, &page["verdict"]), (0, &json!("allowed")), "{page:#?}");
    let mut stream = TcpStream::connect(frontend.outbound(0)).await.unwrap();
    says(&mut stream, "hello").await.unwrap();

    let (code, page) = why(&plain, &to, &["--to-proxy", &socket]).await;
    assert_eq!((code, &page["rung"]), (1, &json!("mode")), "{page:#?}");
    assert_eq!(page["rungs"][2]["reason"], "tls_plaintext_refused");
    let check = tls_check(&plain, &to, &["--to-proxy", &socket]).await;
    assert_eq!(verdict(&check), (1, "plaintext", Some("from")), "{check:#?}");
    assert!(check.1["sentence"].as_str().unwrap().contains("STRICT"));

    backend.apply("deny.yaml", DENY_FRONTEND).await;
    let (code, page) = why(&frontend, &to, &["--to-proxy", &socket]).await;
    assert_eq!((code, &page["rung"]), (1, &json!("policies")), "{page:#?}");
    assert_eq!(page["caller_gets"], "connection reset");
    let failed = &page["rungs"][6];
    assert_eq!(
        (&failed["reason"], &failed["policy"]),
        (
            &json!("policy_denied"),
            &json!("AuthorizationPolicy data/not-you")
        )
    );
    // From the calling side alone it is seen that it is not for the certificates.
    let (code, page) = tls_check(&frontend, &to, &[]).await;
    assert_eq!(
        (code, &page["handshake"]["outcome"]),
        (0, &json!("reset_after")),
        "{page:#?}"
    );
}

/// A `kubectl` that runs what it is told to run in a pod on this machine, beside the proxy whose directory has the
/// pod's name: the part of a container runtime.
fn kubectl(dir: &Dir, proxies: &[(&str, &Proxy)]) -> String {
    use std::fmt::Write as _;
    let signet = signet_tests::process::program("signet");
    let mut script = String::from("#!/bin/sh\nwhile [ \"$1\" != exec ]; do shift; done\ncase \"$3\" in\n");
    for (pod, proxy) in proxies {
        writeln!(script, "{pod}) socket={} ;;", proxy.admin_socket()).unwrap();
    }
    script += "*) echo \"Error from server (NotFound): pods \\\"$3\\\" not found\" >&2; exit 1 ;;\nesac\n";
    script += "while [ \"$1\" != -- ]; do shift; done\nshift 2\n";
    writeln!(
        script,
        "exec {} \"$@\" --admin-socket \"$socket\"",
        signet.display()
    )
    .unwrap();
    let (text, path) = (
        dir.write("kubectl.sh", script),
        dir.join(format!("kubectl-{}", proxies.len())),
    );
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&text, &path);
    path.display().to_string()
}

async fn strict_ready(world: &World, kubectl: &str) -> Ran {
    let kubeconfig = world.cluster.kubeconfig().display().to_string();
    let arguments = [
        "strict-ready",
        "data",
        "--kubeconfig",
        &kubeconfig,
        "--kubectl",
        kubectl,
        "-o",
        "json",
    ];
    signet(&arguments).await
}

fn pod(cluster: &Cluster, name: &str, container: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "data", "name": name},
        "spec": {
            "serviceAccountName": "backend", "nodeName": "node-1",
            "containers": [{"name": "app", "image": "none"}, {"name": container, "image": "none"}],
        },
        "status": {"phase": "Running"},
    });
    cluster.api.put(pod).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_ready_for_strict_when_every_proxy_in_it_says_so() {
    let world = World::start().await;
    let app = Echo::start().await;
    let start = async || {
        world
            .backend_proxy()
            .inbound(&app.address, json!({"port": 7000}))
            .start()
            .await
    };
    let (one, two) = (start().await, start().await);
    pod(&world.cluster, "one", "signet-proxy");
    pod(&world.cluster, "two", "signet-proxy");
    pod(&world.cluster, "bare", "other");
    let dir = Dir::new();
    let both = kubectl(&dir, &[("one", &one), ("two", &two)]);

    let go = strict_ready(&world, &both).await.good().json();
    assert_eq!((&go["verdict"], &go["unanswered"]), (&json!("go"), &json!(0)));
    let without: Vec<_> = go["without_proxy"].as_array().unwrap().iter().collect();
    assert!(without.contains(&&json!("bare")), "{without:?}");
    assert_eq!(
        (&go["proxies"][0]["admin"], &go["proxies"][1]["admin"]),
        (&json!("one"), &json!("two"))
    );

    // The same way leads to the other questions.
    let listed = [
        "tls-check",
        "data/one",
        "10.9.9.9:1",
        "--kubectl",
        &both,
        "-o",
        "json",
    ];
    let unlisted = signet(&listed).await;
    assert_eq!(
        (unlisted.code, &unlisted.json()["handshake"]["outcome"]),
        (1, &json!("unlisted"))
    );

    let mut plain = TcpStream::connect(two.inbound(0)).await.unwrap();
    says(&mut plain, "open").await.unwrap();
    let no_go = strict_ready(&world, &both).await;
    assert_eq!(no_go.code, 1, "{no_go:?}");
    let no_go = no_go.json();
    let client = &no_go["proxies"][1]["clients"][0];
    assert_eq!(
        (&client["address"], &client["open"]),
        (&json!("127.0.0.1"), &json!(1))
    );
    assert!(client["first"].is_string(), "since when it comes: {client}");

    // One that cannot be asked forbids a go, and kubectl's own word says why.
    let half = kubectl(&dir, &[("one", &one)]);
    let silent = strict_ready(&world, &half).await;
    assert_eq!(
        (silent.code, &silent.json()["unanswered"]),
        (2, &json!(1)),
        "{silent:?}"
    );
    assert!(silent.stderr.contains("pods \"two\" not found"), "{silent:?}");
}

/// The commands of the document, in blocks of this kind.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```console ask\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .map(|line| line.strip_prefix("$ signet ").unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_questions_are_answered_and_taught_to_people() {
    let world = World::start().await;
    let app = App::start().await;
    let backend = world
        .backend_proxy()
        .inbound(&app.address, json!({"protocol": "http"}))
        .start()
        .await;
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls(BACKEND))
        .start()
        .await;
    let commands = documented();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let asked = command
            .replace("frontend/admin.sock", &frontend.admin_socket())
            .replace("backend/admin.sock", &backend.admin_socket())
            .replace("127.0.0.1:9000", &frontend.outbound(0));
        let arguments: Vec<&str> = asked.split(' ').collect();
        let ran = signet(&arguments).await.good();
        assert!(ran.stdout.contains(FRONTEND), "{ran:?}");
    }
}
