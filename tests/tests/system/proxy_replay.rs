//! `signet policy diff` over what a proxy recorded: the log of a real one, as it stands, against the policies that
//! were in force and others.

use hyper::Method;
use serde_json::json;
use signet_tests::app::App;
use signet_tests::cli::{Ran, signet};
use signet_tests::dir::Dir;
use signet_tests::http::exchange;
use signet_tests::mesh::{BACKEND, FRONTEND};
use tokio::net::TcpStream;

use super::proxy_tls::{World, connect};

const PATH: &str = "/api/v1/items";
const OLD: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: backend-allow-frontend, namespace: data}
spec:
  selector: {matchLabels: {app: backend}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {methods: [GET], paths: [/api/v1/*]}}]
";

async fn diff(dir: &Dir, new: &str) -> Ran {
    let path = |name: &str| dir.join(name).display().to_string();
    dir.write("new.yaml", new);
    let (old, new, log) = (path("old.yaml"), path("new.yaml"), path("proxy.log"));
    let arguments = [
        "policy",
        "diff",
        &old,
        &new,
        "--requests",
        &log,
        "--only-requests",
    ];
    let recorder = [
        "--recorded-by",
        "data/backend",
        "--labels",
        "app=backend",
        "-o",
        "json",
    ];
    signet(&[&arguments[..], &recorder].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_own_log_says_who_would_gain_and_who_would_lose() {
    let (world, app) = (World::start().await, App::start().await);
    let proxy = world
        .backend_proxy()
        .policy("policy.yaml", OLD)
        .inbound(&app.address, json!({"protocol": "http1", "port": 8080}))
        .start()
        .await;
    let address = proxy.inbound(0);
    let frontend = world.svid("web", "frontend").await;
    let intruder = world.svid("other", "intruder").await;
    for (who, method, status) in [
        (Some(&frontend), Method::GET, 200),
        (Some(&frontend), Method::POST, 403),
        (Some(&intruder), Method::GET, 403),
        (None, Method::GET, 403),
    ] {
        let answer = match who {
            Some(who) => {
                let stream = connect(&address, Some(who), &["istio"]).await.unwrap();
                exchange(stream, method, PATH, String::new()).await
            }
            None => {
                let stream = TcpStream::connect(&address).await.unwrap();
                exchange(stream, method, PATH, String::new()).await
            }
        };
        assert_eq!(answer.unwrap().status, status);
    }
    for status in [200, 403] {
        proxy
            .record("all requests", |record| {
                record["status"] == status && proxy.records().len() >= 4
            })
            .await;
    }
    let dir = Dir::new();
    dir.write("old.yaml", OLD);
    dir.write("proxy.log", proxy.log());

    let same = diff(&dir, OLD).await.good().json();
    assert_eq!(
        (&same["asked"], &same["given"]["recorded"]),
        (&json!(4), &json!(4))
    );
    assert!(same["given"]["no_requests"].as_u64() > Some(0), "{same}");

    // Each of the four was seen as it was: one gains by name, one by being nobody, one loses what it had.
    let intruder_too = OLD.replace(
        "web/sa/frontend]",
        "web/sa/frontend, cluster.local/ns/other/sa/intruder]",
    );
    let gains = diff(&dir, &intruder_too).await;
    assert_eq!(gains.code, 1, "{gains:?}");
    let gained = gains.json()["gained"].clone();
    assert_eq!(gained.as_array().map(Vec::len), Some(1), "{gained}");
    assert_eq!(
        (&gained[0]["from"], &gained[0]["to"], &gained[0]["requests"]),
        (
            &json!("cluster.local/ns/other/sa/intruder"),
            &json!("data/backend"),
            &json!(1)
        )
    );
    let anybody = OLD.replace(
        "from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]\n    ",
        "",
    );
    let everybody = diff(&dir, &anybody);
    let gained = everybody.await.json()["gained"].clone();
    assert_eq!(gained.as_array().map(Vec::len), Some(2), "{gained}");
    assert_eq!(gained[1]["from"], "plaintext");

    let lost = diff(&dir, &OLD.replace("[GET]", "[PUT]")).await.json()["lost"].clone();
    assert_eq!(
        lost[0]["from"],
        FRONTEND.trim_start_matches("spiffe://"),
        "{lost}"
    );
    let shown = lost[0]["examples"][0]["request"].as_str().unwrap();
    assert!(shown.starts_with(&format!("GET {PATH} of ")), "{shown}");
    assert!(proxy.records().iter().any(|record| record["own_id"] == BACKEND));
}
