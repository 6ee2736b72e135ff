//! A real handshake, made by the caller's proxy.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use signet_tests::app::App;
use signet_tests::ca::Ca;
use signet_tests::client::Presented;
use signet_tests::echo::Echo;
use signet_tests::mesh::{BACKEND, FRONTEND};
use signet_tests::{http as web, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{frontend_of, mtls, tls_check, unused, verdict};
use crate::system::proxy_tls::{STRICT, World};

const SOMEBODY_ELSE: &str = "spiffe://cluster.local/ns/data/sa/somebody-else";

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
    let frontend = frontend_of(&world, &backend).await;
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
