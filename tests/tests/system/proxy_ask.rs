//! `signet tls-check`, `signet why` and `signet strict-ready NAMESPACE`: real proxies are asked over their admin sockets,
//! and what they answer is what a real connection or request then meets.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use signet_tests::app::App;
use signet_tests::cli::signet;
use signet_tests::http as web;
use signet_tests::mesh::{BACKEND, FRONTEND};
use signet_tests::proxy::Proxy;
use tokio::net::TcpSocket;

use super::proxy_tls::World;

mod strict_ready;
mod tls_check;
mod why;

fn mtls(expected: &str) -> Value {
    json!({"protocol": "http", "mtls": {"expected": [expected]}})
}

/// The frontend's proxy, which reaches this one by mutual TLS.
async fn frontend_of(world: &World, backend: &Proxy) -> Proxy {
    world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls(BACKEND))
        .start()
        .await
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

fn verdict(answer: &(i32, Value)) -> (i32, &str, Option<&str>) {
    let (code, page) = answer;
    let outcome = page["handshake"]["outcome"].as_str().unwrap_or_default();
    (*code, outcome, page["side"].as_str())
}

/// An address at which nobody listens, and nobody else can while the socket is held.
fn unused() -> (TcpSocket, String) {
    let held = TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = held.local_addr().unwrap().to_string();
    (held, address)
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
    let frontend = frontend_of(&world, &backend).await;
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
