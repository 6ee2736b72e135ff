//! The sidecar example as deployed, with a real Envoy: only the paths and ports are this test's own.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use signet_tests::agent::Agent;
use signet_tests::ca::Ca;
use signet_tests::cli::signet;
use signet_tests::client::Presented;
use signet_tests::cluster::Cluster;
use signet_tests::dir::Dir;
use signet_tests::process::Process;
use signet_tests::wait::{SOON, until_some};
use signet_tests::{http, peers, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::manifests::config_map;

/// Starts Envoy with the bootstrap of the example; answers where its listener is.
async fn envoy(program: &Path, dir: &Dir, socket: &Path) -> (Process, String) {
    let map = config_map("deploy/agent-sidecar", "envoy");
    let bootstrap = map["data"]["envoy.yaml"].as_str().unwrap();
    let mut local = bootstrap.to_owned();
    for (deployed, here) in [
        ("/run/signet/workload/agent.sock", socket.display().to_string()),
        ("port_value: 15000", "port_value: 0".into()),
        (
            "address: 0.0.0.0, port_value: 8443",
            "address: 127.0.0.1, port_value: 0".into(),
        ),
    ] {
        assert!(local.contains(deployed), "{deployed} is in the example");
        local = local.replace(deployed, &here);
    }
    let config = dir.write("envoy.yaml", local);
    let page = dir.join("admin.address");
    let mut command = Command::new(program);
    command
        .arg("--config-path")
        .arg(config)
        .arg("--admin-address-path")
        .arg(&page);
    command.args([
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--disable-hot-restart",
    ]);
    let mut process = Process::spawn("envoy", dir.path(), &mut command);
    let listener = until_some("Envoy's listener to serve", SOON * 2, async || {
        assert!(process.ended().is_none(), "{}", process.tail());
        let admin = std::fs::read_to_string(&page)
            .ok()
            .filter(|address| !address.is_empty())?;
        let ready = http::get(&admin, "/ready").await.ok()?;
        let listeners = http::get(&admin, "/listeners?format=json").await.ok()?;
        let listeners: Value = serde_json::from_str(&listeners.body).ok()?;
        let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
        (ready.body.trim() == "LIVE" && port.is_u64()).then(|| format!("127.0.0.1:{port}"))
    });
    let address = listener.await;
    (process, address)
}

/// An SVID of another workload, as its own agent would get it.
async fn svid(cluster: &Cluster, ca: &Ca, namespace: &str, account: &str) -> Presented {
    let dir = Dir::new();
    let token = dir.write_secret("token", cluster.token(namespace, account));
    let roots = dir.write("roots.pem", ca.roots().await);
    let text = |path: &Path| path.display().to_string();
    let out = dir.join("svid");
    let files = [
        "--ca-root",
        &text(&roots),
        "--token-file",
        &text(&token),
        "--out",
        &text(&out),
    ];
    let asked = [&["svid", "request", "--ca", &ca.address][..], &files].concat();
    signet(&asked).await.good();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    Presented {
        chain: read("cert-chain.pem"),
        key: read("key.pem"),
    }
}

/// What the server answers to somebody; a refusal of the certificate shows on the first read.
async fn ask(address: &str, identity: &Presented) -> Result<String, String> {
    let mut stream = tls::connect(address, Some(identity)).await?;
    let request = b"GET / HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .map_err(|e| e.to_string())?;
    Ok(answer)
}

#[tokio::test]
async fn the_example_serves_workloads_of_its_namespace_over_mutual_tls_and_nobody_else() {
    let Some(program) = peers::envoy() else { return };
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let agent = Agent::start(&cluster, &ca, "signet-example", "backend", "1h").await;
    let dir = Dir::new();
    let (_envoy, address) = envoy(&program, &dir, &agent.socket()).await;
    let shown = tls::served(&address).await.unwrap();
    assert_eq!(
        shown.id().to_string(),
        "spiffe://cluster.local/ns/signet-example/sa/backend"
    );
    let friend = svid(&cluster, &ca, "signet-example", "frontend").await;
    let answer = ask(&address, &friend).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello from backend\n"),
        "{answer}"
    );
    let stranger = svid(&cluster, &ca, "elsewhere", "frontend").await;
    let refused = ask(&address, &stranger).await.unwrap_err();
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
}
