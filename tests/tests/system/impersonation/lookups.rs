//! Direct lookups: what they are for, and what a hostile node can make of them.

use std::time::Duration;

use futures::future::join_all;
use signet_devcluster::{Fault, FaultScope};
use signet_tests::ca::Ca;
use signet_tests::client::{Ask, Dial};
use signet_tests::cluster::Cluster;
use signet_tests::nodes::{agent, asking, identity, pod, trusting};
use signet_tests::wait::{SOON, until};
use tokio::time::Instant;
use tonic::Code;

const LOOKUPS: &str = "signet_ca_pod_lookups_total";

/// Ends the watch of pods and keeps it from being opened again.
pub(super) async fn break_watch(cluster: &Cluster, ca: &Ca) {
    cluster.api.set_fault(FaultScope::Watches, Fault::InternalError);
    let before = ca.scrape().await.outcome("signet_ca_pod_watches_total", "broke");
    cluster.api.break_watches();
    until("the watch to be broken", SOON, async || {
        ca.scrape().await.outcome("signet_ca_pod_watches_total", "broke") > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_the_watch_has_not_shown_is_found_by_one_lookup() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    until("the agent to be indexed", SOON, async || {
        ca.scrape().await.value("signet_ca_pods_indexed", &[]) >= 1.0
    })
    .await;
    break_watch(&cluster, &ca).await;
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let before = cluster.api.counts().get("list", "pods");
    let ask = asking(&token, &identity("shop", "cart"));
    ask.at(&ca).await.unwrap();
    // The agent's own pod and the workload's: one each, both kept.
    assert_eq!(cluster.api.counts().get("list", "pods") - before, 2);
    ask.at(&ca).await.unwrap();
    assert_eq!(cluster.api.counts().get("list", "pods") - before, 2);
    assert_eq!(ca.scrape().await.outcome(LOOKUPS, "found"), 2);
    // After two seconds it is asked again, and a pod that is gone is gone.
    cluster.api.delete_pod("shop", "cart-0").unwrap();
    super::refused_soon(&ca, &ask).await;
    assert_eq!(ca.scrape().await.outcome(LOOKUPS, "none"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_watch_shows_needs_no_lookup() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    until("both to be indexed", SOON, async || {
        ca.scrape().await.value("signet_ca_pods_indexed", &[]) >= 2.0
    })
    .await;
    let before = cluster.api.counts().get("list", "pods");
    for _ in 0..20 {
        asking(&token, &identity("shop", "cart")).at(&ca).await.unwrap();
    }
    assert_eq!(cluster.api.counts().get("list", "pods"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_lookups_in_flight_are_one() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    asking(&token, &identity("shop", "cart")).at(&ca).await.unwrap();
    let before = cluster.api.counts().get("list", "pods");
    let slow = Fault::Delay(Duration::from_millis(500));
    cluster.api.set_fault(FaultScope::Pods, slow);
    let channel = Dial::default().channel(&ca).await;
    let ask = asking(&token, &identity("shop", "nobody"));
    let answers = join_all((0..30).map(|_| ask.send(&channel))).await;
    for answer in answers {
        assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
    }
    assert_eq!(cluster.api.counts().get("list", "pods") - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_invents_names_is_slowed_down_and_nobody_else_is() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let (hostile, honest) = (agent(&cluster, "n1"), agent(&cluster, "n2"));
    for node in ["n1", "n2"] {
        pod(&cluster, ("shop", "cart"), &format!("cart-{node}"), Some(node));
    }
    let cart = identity("shop", "cart");
    for token in [&hostile, &honest] {
        until("the pods to be known", SOON, async || {
            asking(token, &cart).at(&ca).await.is_ok()
        })
        .await;
    }
    let channel = Dial::default().channel(&ca).await;
    let (before, started) = (cluster.api.counts().get("list", "pods"), Instant::now());
    let asks: Vec<Ask> = (0..600)
        .map(|n| asking(&hostile, &identity("shop", &format!("invented{n}"))))
        .collect();
    let mut slowed = 0;
    for some in asks.chunks(60) {
        for answer in join_all(some.iter().map(|ask| ask.send(&channel))).await {
            let status = answer.unwrap_err();
            match status.code() {
                Code::Unauthenticated => {}
                Code::ResourceExhausted => {
                    slowed += 1;
                    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
                }
                other => panic!("{other:?}: {}", status.message()),
            }
        }
    }
    let lookups = cluster.api.counts().get("list", "pods") - before;
    // A burst of 256 and 16 a second after it.
    let most = 256 + 16 * (started.elapsed().as_secs() + 2);
    assert!(lookups <= most, "{lookups} lookups, at most {most}");
    assert!(slowed >= 600 - most, "{slowed} were slowed down");
    assert_eq!(ca.scrape().await.outcome(LOOKUPS, "caller_share"), slowed);
    assert_eq!(
        ca.scrape().await.outcome("signet_ca_csrs_total", "lookup_share"),
        slowed
    );
    // What is known goes on for itself; what is new goes on for others.
    asking(&hostile, &cart).at(&ca).await.unwrap();
    pod(&cluster, ("shop", "bank"), "bank-0", Some("n2"));
    asking(&honest, &identity("shop", "bank")).at(&ca).await.unwrap();
}
