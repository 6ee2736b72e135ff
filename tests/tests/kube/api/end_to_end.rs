//! From TokenRequest to SVID: real tokens, the deployed rights, the programs as users run them.

use std::path::Path;
use std::process::{Command, Output};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::json;
use signet_tests::admin::Admin;
use signet_tests::ca::Ca;
use signet_tests::dir::Dir;
use signet_tests::kube::api_server::shared;
use signet_tests::kube::install::{Installed, install, token, workload};
use signet_tests::process::{Process, program};
use signet_tests::wait::{SOON, until, until_some};

/// The roots as a pod of `namespace` would mount them.
async fn published(admin: &kube::Client, installed: &Installed, namespace: &str) -> String {
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), namespace);
    let map = until_some("the roots in a new namespace", SOON, async || {
        maps.get_opt(&installed.roots()).await.unwrap()
    });
    map.await.data.unwrap()["root-cert.pem"].clone()
}

fn signet(arguments: &[&str]) -> Output {
    Command::new(program("signet")).args(arguments).output().unwrap()
}

fn request(ca: &Ca, dir: &Dir, token: &str) -> Output {
    let token = dir.write_secret("token", token).display().to_string();
    let (roots, out) = (dir.join("root-cert.pem"), dir.join("svid"));
    let (roots, out) = (roots.display().to_string(), out.display().to_string());
    signet(&[
        "svid",
        "request",
        "--ca",
        &ca.address,
        "--ca-root",
        &roots,
        "--token-file",
        &token,
        "--out",
        &out,
    ])
}

#[tokio::test]
async fn a_real_token_becomes_an_svid_and_a_foreign_one_does_not() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "whole-path", None).await);
    let ca = installed.ca().start().await;
    workload(&admin, "whole-path-app", "cart").await;
    let dir = Dir::new();
    let roots = published(&admin, &installed, "whole-path-app").await;
    assert_eq!(roots, ca.roots().await);
    dir.write("root-cert.pem", roots);
    let good = token(&admin, "whole-path-app", "cart", &["signet-ca"], Some("cart-0")).await;
    let done = request(&ca, &dir, &good);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let id = format!("spiffe://{}/ns/whole-path-app/sa/cart", installed.trust_domain());
    let (chain, roots) = (dir.join("svid/cert-chain.pem"), dir.join("svid/root-cert.pem"));
    let (chain, roots) = (chain.display().to_string(), roots.display().to_string());
    let verified = signet(&["svid", "verify", &chain, "--bundle", &roots, "--id", &id]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    // The signing keys were read with the rights every account has.
    assert!(
        ca.scrape()
            .await
            .outcome("signet_ca_jwks_fetches_total", "fetched")
            >= 1
    );
    let foreign = token(&admin, "whole-path-app", "cart", &["other"], Some("cart-0")).await;
    assert!(!request(&ca, &dir, &foreign).status.success());
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_csrs_total", "token_audience"),
        1
    );
}

#[tokio::test]
async fn an_agent_with_a_projected_token_serves_its_own_identity() {
    let Some(server) = shared().await else { return };
    let (admin, installed) = (server.admin().await, install(&server, "with-agent", None).await);
    let ca = installed.ca().start().await;
    workload(&admin, "with-agent-app", "cart").await;
    let dir = Dir::new();
    dir.write(
        "root-cert.pem",
        published(&admin, &installed, "with-agent-app").await,
    );
    dir.write_secret(
        "token",
        token(&admin, "with-agent-app", "cart", &["signet-ca"], Some("cart-0")).await,
    );
    let mut agent = agent(&dir, &installed, &ca);
    let socket = Admin::at(&dir.join("admin/admin.sock"));
    let svids = until_some("the agent's first SVID", SOON, async || {
        assert!(agent.ended().is_none(), "{}", agent.tail());
        let svids = socket.try_get("/v1/svids").await.ok()?;
        svids["svids"][0]["spiffe_id"].as_str().map(str::to_owned)
    });
    let id = format!("spiffe://{}/ns/with-agent-app/sa/cart", installed.trust_domain());
    assert_eq!(svids.await, id);
    let workload = dir.join("workload/agent.sock").display().to_string();
    until("the workload socket to serve", SOON, async || {
        let shown = signet(&["svid", "show", "--socket", &workload]);
        String::from_utf8_lossy(&shown.stdout).contains(&id)
    })
    .await;
    assert_eq!(agent.terminate().await, 0);
}

fn agent(dir: &Dir, installed: &Installed, ca: &Ca) -> Process {
    let path = |name: &str| dir.join(name);
    let config = json!({
        "trust_domain": installed.trust_domain(),
        "ca_address": ca.address,
        "ca_server_name": "signet-ca.signet-system.svc",
        "ca_root_file": path("root-cert.pem"),
        "token_file": path("token"),
        "socket": path("workload/agent.sock"),
        "admin_socket": path("admin/admin.sock"),
        "metrics_listen": "127.0.0.1:0",
        "log_format": "text",
    });
    let config = dir.write("agent.yaml", config.to_string());
    let mut command = Command::new(program("signet-agent"));
    command.args([Path::new("run"), Path::new("--config"), &config]);
    Process::spawn("signet-agent", dir.path(), &mut command)
}
