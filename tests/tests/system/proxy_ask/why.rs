//! The whole ladder from one workload to another.

use http::Method;
use serde_json::{Value, json};
use signet_tests::app::App;
use signet_tests::cli::{Ran, signet_with};
use signet_tests::echo::{Echo, says};
use signet_tests::http as web;
use signet_tests::mesh::{BACKEND, FRONTEND};
use signet_tests::proxy::Proxy;
use tokio::net::TcpStream;

use super::{asked, frontend_of, mtls, tls_check, unused, verdict};
use crate::system::proxy_tls::{STRICT, World};

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

async fn why(from: &Proxy, to: &str, more: &[&str]) -> (i32, Value) {
    let socket = from.admin_socket();
    asked(&[&["why", &socket, to], more].concat()).await
}

/// With a token, on stdin.
async fn why_with(token: &str, from: &Proxy, to: &Proxy) -> Ran {
    let (from, address, socket) = (from.admin_socket(), to.inbound(0), to.admin_socket());
    let arguments = [
        "why",
        &from,
        &address,
        "--to-proxy",
        &socket,
        "--jwt-file",
        "-",
        "-o",
        "json",
    ];
    signet_with(&arguments, token).await
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
    let frontend = frontend_of(&world, &backend).await;
    let ran = why_with(UNKNOWN_KEY, &frontend, &backend).await;
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
    let ran = why_with(
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJtZSJ9.c2ln\n",
        &frontend,
        &backend,
    )
    .await;
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
