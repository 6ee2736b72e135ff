//! Whether a namespace is ready for STRICT, by the word of every proxy in it.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use signet_tests::cli::{Ran, signet};
use signet_tests::cluster::Cluster;
use signet_tests::dir::{Dir, copy_program};
use signet_tests::echo::{Echo, says};
use signet_tests::proxy::Proxy;
use tokio::net::TcpStream;

use crate::system::proxy_tls::World;

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
