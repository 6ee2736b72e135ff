//! An API server that is away, slow, or has forgotten, and a watch that says nothing for too long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::registry::Registry;
use signet_ca::authorizer::{AuthorizeError, Authorizer, Pods};
use signet_ca::metrics::Metrics;
use signet_ca::pod_index::PodView;
use signet_ca::pod_lookup::Lookups;
use signet_ca::pod_watch::{self, PodWatch};
use signet_certs::{ServiceAccountId, UnixTime};
use signet_devcluster::{Fault, FaultScope, Options};
use signet_policy::issuance::Asked;
use signet_policy::{BoundPod, Caller};
use signet_runtime::Clock;
use signet_runtime::http::Readiness;
use signet_tests::cluster::Cluster;
use signet_tests::kube::api_server::client;
use signet_tests::nodes::{NODE_ACCOUNT, agent, agent_pod, asking, identity, pod, trusting};
use signet_tests::wait::{SOON, until};
use tonic::Code;

use super::lookups::break_watch;

const UNAVAILABLE: &str = "the API server cannot be asked what runs on this node; try again";

#[tokio::test(flavor = "multi_thread")]
async fn readiness_waits_for_the_first_whole_listing_and_no_longer() {
    let cluster = Cluster::start();
    let token = agent(&cluster, "n1");
    for n in 0..1_200 {
        pod(&cluster, ("shop", "cart"), &format!("cart-{n}"), Some("n1"));
    }
    cluster.api.set_fault(FaultScope::Pods, Fault::InternalError);
    let setup = trusting(&cluster);
    let process = setup.spawn();
    let missing = async || {
        let status = setup.admin().try_get("/v1/status").await.ok()?;
        Some((status["ready"].clone(), status["missing"].to_string()))
    };
    until("everything but the pods", SOON, async || {
        missing().await.is_some_and(|(ready, missing)| {
            ready == false && missing.starts_with("[\"pod_index: ") && !missing.contains("\",\"")
        })
    })
    .await;
    drop(process);
    cluster.api.clear_fault(FaultScope::Pods);
    let before = cluster.api.counts().get("list", "pods");
    let ca = setup.start().await;
    // Pages of five hundred.
    assert_eq!(cluster.api.counts().get("list", "pods") - before, 3);
    assert!(ca.scrape().await.value("signet_ca_pods_indexed", &[]) >= 1_201.0);
    // Losing the API server later is an alarm.
    break_watch(&cluster, &ca).await;
    assert_eq!(ca.admin().get("/v1/status").await["ready"], true);
    asking(&token, &identity("shop", "cart")).at(&ca).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_nobody_is_impersonated_and_then_everything_goes_on() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).set("review_timeout", "300ms").start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let (cart, own) = (identity("shop", "cart"), identity(NODE_ACCOUNT.0, NODE_ACCOUNT.1));
    asking(&token, &cart).at(&ca).await.unwrap();
    for fault in [
        Fault::InternalError,
        Fault::Hang,
        Fault::CloseConnection,
        Fault::Garbage,
    ] {
        cluster.api.set_fault(FaultScope::Pods, fault.clone());
        break_watch(&cluster, &ca).await;
        until(
            "answers kept before to be forgotten",
            SOON,
            async || match asking(&token, &cart).at(&ca).await {
                Ok(_) => false,
                Err(status) => {
                    assert_eq!(
                        status.code(),
                        Code::Unavailable,
                        "{fault:?}: {}",
                        status.message()
                    );
                    assert_eq!(status.message(), UNAVAILABLE);
                    true
                }
            },
        )
        .await;
        // The token is still known; its own identity asks about no pod.
        asking(&token, &own).at(&ca).await.unwrap();
        cluster.api.clear_fault(FaultScope::Pods);
        cluster.api.clear_fault(FaultScope::Watches);
        until("impersonation to go on", SOON * 3, async || {
            asking(&token, &cart).at(&ca).await.is_ok()
        })
        .await;
        // By the index itself: lookups are neither made nor needed.
        let lookups = async || {
            let scrape = ca.scrape().await;
            ["found", "none", "kept"].map(|word| scrape.outcome("signet_ca_pod_lookups_total", word))
        };
        until("the index to be believed again", SOON, async || {
            let before = lookups().await;
            asking(&token, &cart).at(&ca).await.unwrap();
            lookups().await == before
        })
        .await;
    }
    assert!(
        ca.scrape()
            .await
            .outcome("signet_ca_csrs_total", "pods_unavailable")
            >= 4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_watch_is_made_good_by_a_listing() {
    let cluster = Cluster::with(Options {
        history: 64,
        ..Options::default()
    });
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "old"), "old-0", Some("n1"));
    asking(&token, &identity("shop", "old")).at(&ca).await.unwrap();
    break_watch(&cluster, &ca).await;
    // More than the API server remembers.
    cluster.api.delete_pod("shop", "old-0").unwrap();
    for n in 0..100 {
        pod(&cluster, ("shop", "new"), &format!("new-{n}"), Some("n1"));
    }
    cluster.api.clear_fault(FaultScope::Watches);
    until("the listing", SOON, async || {
        ca.scrape().await.value("signet_ca_pods_indexed", &[]) >= 101.0
    })
    .await;
    let scrape = ca.scrape().await;
    assert!(scrape.outcome("signet_ca_pod_watches_total", "expired") >= 1);
    // The agent and the hundred; the one deleted meanwhile is gone.
    until("what is gone to be gone", SOON, async || {
        (ca.scrape().await.value("signet_ca_pods_indexed", &[]) - 101.0).abs() < 0.5
    })
    .await;
    asking(&token, &identity("shop", "new")).at(&ca).await.unwrap();
    super::refused_soon(&ca, &asking(&token, &identity("shop", "old"))).await;
}

/// A clock set by hand.
struct ByHand(Mutex<u64>);

impl ByHand {
    fn advance(&self, seconds: u64) {
        *self.0.lock().unwrap() += seconds;
    }
}

impl Clock for ByHand {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(*self.0.lock().unwrap()))
    }
}

/// The CA's own parts at an API server of the wire, with a clock of the test's.
struct Parts {
    authorizer: Authorizer,
    clock: Arc<ByHand>,
    caller: Caller,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn parts(cluster: &Cluster) -> Parts {
    let _ = agent(cluster, "n1");
    let clock = Arc::new(ByHand(Mutex::new(1_800_000_000)));
    let api = client(&std::fs::read_to_string(cluster.kubeconfig()).unwrap()).await;
    let metrics = Metrics::new(&mut Registry::default());
    let view = PodView::default();
    let readiness = Readiness::waiting_for(&[(pod_watch::CONDITION, "not listed")]);
    let watch = PodWatch::new(
        api.clone(),
        view.clone(),
        Arc::clone(&clock) as Arc<dyn Clock>,
        readiness.clone(),
        metrics.clone(),
    );
    let watch = tokio::spawn(watch.run());
    until("the listing", SOON, async || readiness.missing().is_empty()).await;
    let account = ServiceAccountId::new(NODE_ACCOUNT.0, NODE_ACCOUNT.1).unwrap();
    let lookups = Lookups::new(api, Duration::from_secs(2), metrics);
    let authorizer = Authorizer::with_nodes(
        "cluster.local".parse().unwrap(),
        [account.clone()].into(),
        Pods { view, lookups },
        Arc::clone(&clock) as Arc<dyn Clock>,
    );
    let name = agent_pod("n1");
    let agent = cluster.get("pods", NODE_ACCOUNT.0, &name).unwrap();
    let uid = agent["metadata"]["uid"].as_str().unwrap().to_owned();
    let pod = BoundPod {
        name,
        uid,
        node: None,
    };
    Parts {
        authorizer,
        clock,
        caller: Caller::assert_authenticated(account, Some(pod)),
        watch,
    }
}

impl Parts {
    async fn ask(&self, id: &str) -> Result<(), AuthorizeError> {
        let asked = Asked {
            impersonated: Some(id),
            certificate: None,
        };
        self.authorizer.authorize(&self.caller, asked).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_silent_for_five_minutes_is_confirmed_by_lookups_and_without_an_api_server_not_at_all() {
    let cluster = Cluster::start();
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let parts = parts(&cluster).await;
    let cart = identity("shop", "cart");
    let lists = async || cluster.api.counts().get("list", "pods");
    let before = lists().await;
    parts.clock.advance(300);
    parts.ask(&cart).await.unwrap();
    assert_eq!(lists().await, before, "within five minutes the watch is believed");
    parts.clock.advance(1);
    parts.ask(&cart).await.unwrap();
    assert_eq!(lists().await, before + 2, "after them both pods are confirmed");
    // Confirmed for two seconds; then, with no API server, there is no answer.
    cluster.api.set_fault(FaultScope::Pods, Fault::InternalError);
    until("the confirmation to be forgotten", SOON, async || {
        match parts.ask(&cart).await {
            Ok(()) => false,
            Err(error) => {
                assert_eq!(error.as_str(), "pods_unavailable");
                true
            }
        }
    })
    .await;
    // Any event makes the index believed again, though the API server still lists nothing.
    pod(&cluster, ("shop", "bank"), "bank-0", Some("n2"));
    until("the event", SOON, async || parts.ask(&cart).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_clock_was_set_back_everything_is_confirmed() {
    let cluster = Cluster::start();
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let parts = parts(&cluster).await;
    *parts.clock.0.lock().unwrap() -= 3_600;
    let before = cluster.api.counts().get("list", "pods");
    parts.ask(&identity("shop", "cart")).await.unwrap();
    assert_eq!(cluster.api.counts().get("list", "pods"), before + 2);
}
