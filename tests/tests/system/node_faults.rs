//! A node under faults: whatever is away, in whatever order it comes back, no workload loses a valid
//! SVID, and none keeps what it should not have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use signet_certs::UnixTime;
use signet_devcluster::{Fault, FaultScope, Options};
use signet_tests::churn::{Churn, NAMESPACE};
use signet_tests::cluster::Cluster;
use signet_tests::follower::{Follower, read};
use signet_tests::node::{Node, Pod};
use signet_tests::nodes::trusting;
use signet_tests::wait::{SOON, until, within};
use tokio::time::Instant;
use tonic::Code;

/// Half a minute, so that half of it passes in a test.
const TTL: &str = "30s";
const HALF_TTL: Duration = Duration::from_secs(15);

/// A pod of an account of its own, by its number, and a workload in it.
fn workload(node: &Node, number: u32) -> (Pod, Follower) {
    let account = format!("account-{number}");
    let pod = node.run(("shop", &account), &format!("pod-{number}"));
    let follower = Follower::start(node.guest(&pod), &pod.id());
    (pod, follower)
}

fn workloads(node: &Node, count: u32) -> Vec<(Pod, Follower)> {
    (0..count).map(|number| workload(node, number)).collect()
}

async fn serials(all: &[(Pod, Follower)]) -> Vec<String> {
    let mut serials = Vec::new();
    for (_, follower) in all {
        serials.push(follower.serial().await);
    }
    serials
}

/// Waits until each has another SVID than it had, and was never without one.
async fn renewed(all: &[(Pod, Follower)], before: &[String], deadline: Duration) {
    for ((_, follower), serial) in all.iter().zip(before) {
        follower.renewed(serial, deadline).await;
    }
}

/// Waits until the renewal of every one of these was tried and came to nothing; all are served still.
async fn renewals_fail(node: &Node, all: &[(Pod, Follower)]) {
    until("every renewal to fail", HALF_TTL * 2, async || {
        let page = node.agent.admin().get("/v1/svids").await;
        let svids = page["svids"].as_array().unwrap();
        let failed = |id: &Value| {
            svids
                .iter()
                .any(|s| s["spiffe_id"] == *id && s["last_failure"].is_object())
        };
        all.iter().for_each(|(_, follower)| follower.assert_undisturbed());
        all.iter().all(|(pod, _)| failed(&pod.id().into()))
    })
    .await;
}

/// What connects now gets the SVID that the others have.
async fn served_on(node: &Node, all: &[(Pod, Follower)]) {
    for (pod, follower) in all {
        let svid = read(&node.guest(pod).x509().await.unwrap(), UnixTime::now()).unwrap();
        let last = follower.heard().last.unwrap();
        assert_eq!(svid.chain().serial(), last.serial());
    }
}

async fn value(node: &Node, name: &str, labels: &[(&str, &str)]) -> f64 {
    node.agent.scrape().await.value(name, labels)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_answers_nobody_stops_neither_service_nor_renewal() {
    let node = Node::start(TTL).await;
    let all = workloads(&node, 6);
    let before = serials(&all).await;
    // The watches that run say nothing more and nothing less; the CA believes its own for five minutes.
    node.cluster.api.set_fault(FaultScope::AllRequests, Fault::Hang);
    served_on(&node, &all).await;
    renewed(&all, &before, HALF_TTL * 2).await;
    all.iter().for_each(|(_, follower)| follower.assert_undisturbed());
    assert!(value(&node, "signet_agent_svids_withdrawn_total", &[]).await < 0.5);
    node.cluster.api.clear_fault(FaultScope::AllRequests);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_renewals_wait_for_it_and_are_made_in_time() {
    let node = Node::start(TTL).await;
    let all = workloads(&node, 6);
    let before = serials(&all).await;
    let api = &node.cluster.api;
    api.set_fault(FaultScope::AllRequests, Fault::CloseConnection);
    api.break_watches();
    renewals_fail(&node, &all).await;
    served_on(&node, &all).await;
    assert_eq!(serials(&all).await, before);
    api.clear_fault(FaultScope::AllRequests);
    renewed(&all, &before, HALF_TTL).await;
    all.iter().for_each(|(_, follower)| follower.assert_undisturbed());
    assert!(value(&node, "signet_agent_svids_withdrawn_total", &[]).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_away_for_more_than_half_a_life_costs_nobody_an_svid() {
    let mut node = Node::start(TTL).await;
    let all = workloads(&node, 20);
    let before = serials(&all).await;
    let since = Instant::now();
    node.ca.process.kill();
    renewals_fail(&node, &all).await;
    until("half a life to pass", HALF_TTL * 2, async || {
        since.elapsed() > HALF_TTL
    })
    .await;
    served_on(&node, &all).await;
    // A pod that comes meanwhile waits, and is served when the CA is back.
    let late = workload(&node, 99);
    until("it to be told to wait", SOON, async || {
        !late.1.heard().ends.is_empty()
    })
    .await;
    late.1.assert_well();
    assert_eq!(late.1.heard().messages, 0);
    node.ca.start_again().await;
    renewed(&all, &before, HALF_TTL).await;
    late.1.serial().await;
    late.1.assert_well();
    all.iter().for_each(|(_, follower)| follower.assert_undisturbed());
    assert!(value(&node, "signet_agent_svids_withdrawn_total", &[]).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_that_ended_while_the_ca_was_away_is_served_to_nobody() {
    let mut node = Node::start("10s").await;
    let pod = node.run(("shop", "cart"), "cart-0");
    let follower = Follower::start(node.guest(&pod), &pod.id());
    let before = follower.serial().await;
    let ends = follower.heard().last.unwrap().not_after();
    let guest = node.guest(&pod);
    node.ca.process.kill();
    until("the SVID to be taken out", SOON * 2, async || {
        node.kept(&pod.id()).await.is_none()
    })
    .await;
    assert!(UnixTime::now() >= ends);
    let status = guest.x509().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let status = guest.secret("default").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(value(&node, "signet_agent_svids_withdrawn_total", &[]).await > 0.5);
    node.ca.start_again().await;
    // The one time that a follower must have something to complain of, and this alone.
    until("the next", SOON * 3, async || {
        follower.heard().last.unwrap().serial() != before
    })
    .await;
    let faults = follower.heard().faults;
    assert!(
        faults.len() == 1 && faults[0].starts_with("nothing valid from"),
        "{faults:?}"
    );
    assert!(
        follower
            .heard()
            .ends
            .iter()
            .all(|(code, _)| *code != Code::PermissionDenied)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_ca_may_be_killed_and_come_back_in_any_order() {
    let mut node = Node::start("1h").await;
    let all = workloads(&node, 6);
    for [kill_ca_first, start_ca_first] in [[true, true], [true, false], [false, true], [false, false]] {
        let before = serials(&all).await;
        if kill_ca_first {
            node.ca.process.kill();
            served_on(&node, &all).await;
            node.agent.process.kill();
        } else {
            node.agent.process.kill();
            node.ca.process.kill();
        }
        if start_ca_first {
            node.ca.start_again().await;
            node.spawn_agent();
        } else {
            node.spawn_agent();
            // It answers by now, and cannot know anything.
            until("the agent to answer", SOON, async || {
                node.agent.admin().try_get("/v1/status").await.is_ok()
            })
            .await;
            let status = node.guest(&all[0].0).x509().await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            node.ca.start_again().await;
        }
        renewed(&all, &before, SOON * 3).await;
    }
    // The CA alone, while everybody is served.
    let before = serials(&all).await;
    let messages: Vec<usize> = all.iter().map(|(_, f)| f.heard().messages).collect();
    node.ca.process.kill();
    node.ca.start_again().await;
    let (pod, late) = workload(&node, 99);
    late.serial().await;
    assert_eq!(late.heard().last.unwrap().id().as_str(), pod.id());
    assert_eq!(serials(&all).await, before);
    let after: Vec<usize> = all.iter().map(|(_, f)| f.heard().messages).collect();
    assert_eq!(messages, after, "nobody heard of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gap_in_the_watch_hid_is_made_good_for_those_who_came_and_those_who_went() {
    let cluster = Cluster::with(Options {
        history: 64,
        ..Options::default()
    });
    let ca = trusting(&cluster).set("min_svid_ttl", "10s");
    let node = Node::on(cluster, ca, |agent| agent.set("svid_ttl", "1h")).await;
    let mut all = workloads(&node, 8);
    serials(&all).await;
    let api = &node.cluster.api;
    for scope in [FaultScope::Watches, FaultScope::Pods] {
        api.set_fault(scope, Fault::InternalError);
    }
    api.break_watches();
    until("the agent to lose its watch", SOON, async || {
        let labels = [("reason", "start")];
        value(&node, "signet_agent_pod_watch_failures_total", &labels).await > 0.5
    })
    .await;
    let mut gone = all.split_off(4);
    for (pod, _) in &gone {
        node.delete(pod);
    }
    // One of them is replaced under its name, and much else happens: more than the API server remembers.
    let replaced = gone.pop().unwrap();
    let account = replaced.0.account.clone();
    let successor = node.run(("shop", &account), &replaced.0.name);
    let churn = Churn {
        rate: 500,
        time: Duration::from_secs(1),
        living: 1,
        accounts: 5,
    };
    churn.prepare(&node.cluster);
    churn.run(&node.cluster, |_, _| {}).await;
    let came = workload(&node, 99);
    // What is known stays in use, and what is not known is not denied.
    served_on(&node, &all).await;
    until("it to be told to wait", SOON, async || {
        !came.1.heard().ends.is_empty()
    })
    .await;
    came.1.assert_well();
    for (_, follower) in &gone {
        follower.assert_undisturbed();
    }
    for scope in [FaultScope::Watches, FaultScope::Pods] {
        api.clear_fault(scope);
    }
    // However long the API server was away, the agent asks again every five seconds at most.
    within("those who went to hear of it", SOON, async {
        for (_, follower) in gone.iter().chain([&replaced]) {
            follower.denied().await;
        }
    })
    .await;
    came.1.serial().await;
    let heir = Follower::start(node.guest(&successor), &successor.id());
    heir.serial().await;
    for (_, follower) in all.iter().chain([&came]) {
        follower.assert_well();
    }
    all.iter().for_each(|(_, follower)| follower.assert_undisturbed());
    // The agent's pod, the four that stayed, the successor and the newcomer.
    node.wait_pods(7).await;
    // The CA lists everything anew, whether it was told that its place is gone or gave up on watching first.
    until("the CA to list again", SOON * 3, async || {
        node.ca
            .scrape()
            .await
            .outcome("signet_ca_pod_watches_total", "listed")
            >= 2
    })
    .await;
}

/// Pods that come while others do so by the hundred: each is served, and told when it is over. Answers how many.
async fn visit(node: &Node, churning: &AtomicBool) -> usize {
    let mut visits = 0;
    while churning.load(Ordering::Relaxed) || visits == 0 {
        let account = format!("account-{visits}");
        let pod = node.run((NAMESPACE, &account), &format!("visitor-{visits}"));
        let follower = Follower::start(node.guest(&pod), &pod.id());
        follower.serial().await;
        follower.assert_well();
        node.delete(&pod);
        follower.denied().await;
        visits += 1;
    }
    visits
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_a_second_disturb_nobody_and_leave_nothing_behind() {
    let node = Node::start(TTL).await;
    let all = workloads(&node, 20);
    let before = serials(&all).await;
    let churn = Churn {
        rate: 200,
        time: Duration::from_secs(60),
        living: 200,
        accounts: 100,
    };
    churn.prepare(&node.cluster);
    let churning = AtomicBool::new(true);
    let churned = async {
        let churned = churn.run(&node.cluster, |_, _| {}).await;
        churning.store(false, Ordering::Relaxed);
        churned
    };
    let (churned, visits) = tokio::join!(churned, visit(&node, &churning));
    assert_eq!(churned.pods, 12_000);
    assert!(visits > 0);
    renewed(&all, &before, HALF_TTL * 2).await;
    all.iter().for_each(|(_, follower)| follower.assert_undisturbed());
    leaves_nothing(&node).await;
}

/// Of all who came and went nothing is kept but the SVIDs of their accounts for the linger; twenty are there still, and
/// the agent's own pod.
async fn leaves_nothing(node: &Node) {
    node.wait_pods(21).await;
    until("the CA to forget them", SOON, async || {
        (node.ca.scrape().await.value("signet_ca_pods_indexed", &[]) - 21.0).abs() < 0.5
    })
    .await;
    until("their streams and connections to be gone", SOON, async || {
        let page = node.agent.scrape().await;
        let streams = page.value("signet_agent_workload_api_streams", &[("kind", "x509_svid")]);
        let connections = page.value("signet_agent_workload_connections_open", &[]);
        streams < 20.5 && connections < 20.5
    })
    .await;
    until("those who came and went to linger", SOON, async || {
        let page = node.agent.admin().get("/v1/workloads").await;
        let rows = page["workloads"].as_array().unwrap();
        rows.iter().all(|row| {
            let churned = row["account"].as_str().unwrap_or_default().starts_with(NAMESPACE);
            !churned || row["state"] == "lingering"
        })
    })
    .await;
}
