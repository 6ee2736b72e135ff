//! The deployed rights are enough, and each of them is needed: without it an operator sees a failure
//! that names it.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::json;
use signet_tests::ca::CaSetup;
use signet_tests::kube::api_server::{ApiServer, shared};
use signet_tests::kube::install::{Installed, Right, create, install, rights};
use signet_tests::metrics::Scrape;
use signet_tests::wait::{SOON, until, until_some};

use super::root;

/// What the log says above the API server's own words, and whether the CA then refuses to start.
const SIGNS: &[(&str, &str, bool)] = &[
    (
        "create tokenreviews",
        "TokenReview not answered yet; not ready",
        false,
    ),
    ("list namespaces", "watch broke; resuming", false),
    ("watch namespaces", "watch broke; resuming", false),
    ("list pods", "pods cannot be listed; trying again", false),
    ("watch pods", "watch of pods broke; resuming", false),
    (
        "list configmaps",
        "cannot tell whether there has been a root before",
        true,
    ),
    ("create configmaps", "roots not published", false),
    ("watch configmaps", "watch broke; resuming", false),
    ("patch configmaps", "roots not published", false),
    ("create secrets", "signet-ca-state", true),
    ("get secrets", "signet-ca-state", true),
    ("list secrets", "watch of the state broke; resuming", false),
    ("watch secrets", "watch of the state broke; resuming", false),
    ("update secrets", "signet-ca-state", true),
];

/// Tests that run CAs of their own at the same time.
const AT_ONCE: usize = 3;

#[tokio::test]
async fn with_the_deployed_rights_everything_works() {
    let Some(server) = shared().await else { return };
    let installed = install(&server, "all-rights", None).await;
    occupied(&server, &installed).await;
    let ca = demanding(&installed).start().await;
    let maps: Api<ConfigMap> = Api::all(server.admin().await);
    let merged = until_some("a ConfigMap in the occupied namespace", SOON, async || {
        let maps = maps.list(&kube::api::ListParams::default()).await.unwrap();
        let ours = maps
            .items
            .into_iter()
            .filter(|map| map.metadata.name.as_deref() == Some(&installed.roots()));
        let mut ours = ours.filter(|map| map.metadata.namespace.as_deref() == Some(&installed.name));
        ours.find(|map| map.metadata.labels.is_some())
    })
    .await;
    let data = merged.data.unwrap();
    assert_eq!(data["kept"], "by the merge");
    assert_eq!(data["root-cert.pem"], ca.roots().await);
    let log = ca.process.output();
    assert!(!log.contains("forbidden") && !log.contains("broke"), "{log}");
    let scrape = Scrape::of(&ca.metrics).await;
    assert_eq!(scrape.outcome("signet_ca_configmap_writes_total", "failed"), 0);
}

#[tokio::test]
async fn without_any_one_of_the_deployed_rights_the_log_names_it() {
    let Some(server) = shared().await else { return };
    let rights = rights();
    let granted: Vec<String> = rights.iter().map(Right::short).collect();
    let expected: Vec<&str> = SIGNS.iter().map(|(right, ..)| *right).collect();
    let (mut sorted, mut wanted) = (granted.clone(), expected.clone());
    sorted.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(
        sorted, wanted,
        "a sign for every right, and a right for every sign"
    );
    let runs = stream::iter(rights.iter().enumerate()).map(|(index, right)| missing(&server, index, right));
    runs.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

async fn missing(server: &ApiServer, index: usize, right: &Right) {
    let (_, headline, refuses) = SIGNS.iter().find(|(short, ..)| *short == right.short()).unwrap();
    let installed = install(server, &format!("without-{index}"), Some(right)).await;
    occupied(server, &installed).await;
    let setup = demanding(&installed);
    let mut ca = setup.spawn();
    let cause = format!("cannot {} resource \"{}\"", right.verb, right.resource);
    let seen = |log: String| {
        log.lines()
            .any(|line| line.contains(headline) && line.contains(&cause))
    };
    until(
        &format!("{headline:?} and {cause:?} in one line"),
        SOON,
        async || seen(ca.output()),
    )
    .await;
    if *refuses {
        assert!(!ca.wait(SOON).await.success(), "{}", right.short());
    } else {
        assert!(ca.ended().is_none(), "{} is no reason to end", right.short());
    }
}

/// A CA that uses every right: its plugged-in root makes it write the state a second time, and a node
/// account makes it watch pods.
fn demanding(installed: &Installed) -> CaSetup {
    let setup = installed.ca();
    let root = root(&installed.trust_domain());
    let dir = setup.dir().sub("cacerts");
    for (file, pem) in [
        ("ca-cert.pem", root.certificate().to_pem()),
        ("root-cert.pem", root.certificate().to_pem()),
        ("ca-key.pem", root.key().expose_pem().to_string()),
    ] {
        std::fs::write(dir.join(file), pem).unwrap();
    }
    setup
        .set("plugged_in_ca", dir.display().to_string())
        .set("trusted_node_accounts", vec!["signet-system/signet-agent"])
}

/// A ConfigMap of somebody else under the name of ours, so that it has to be changed and not made.
async fn occupied(server: &ApiServer, installed: &Installed) {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": installed.roots(), "namespace": installed.name},
        "data": {"kept": "by the merge"},
    });
    create(&server.admin().await, &map).await;
}
