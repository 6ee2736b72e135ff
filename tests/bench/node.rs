//! A node with 250 pods of 100 accounts and 1,000 open streams: what its agent takes, how fast a new SVID
//! is everywhere, how long a new pod waits for its first, and what a minute of churn leaves behind.

mod streams;

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use signet_proto::wire::X509svidRequest;
use signet_tests::churn::Churn;
use signet_tests::cluster::Cluster;
use signet_tests::guest::Guest;
use signet_tests::local::cgroup;
use signet_tests::node::{self, Node, Pod};
use signet_tests::nodes::trusting;
use signet_tests::wait::until;
use signet_tests::workload::{next, secure};
use tokio::time::Instant;

use super::{RUN, mib, round, say};
use crate::process::{cpu, resident};
use crate::report::{Row, row};
use streams::Crowd;

const NAMESPACE: &str = "bench";
const PODS: usize = 250;
const ACCOUNTS: usize = 100;
/// Of these a tenth is the floor between two SVIDs of one identity: the minute at rest.
const LIFE: &str = "10m";
const REST: Duration = Duration::from_secs(60);
/// Pods made one after the other to see how long the first SVID takes.
const ARRIVALS: usize = 200;
/// Pods made at once, as when another node is drained.
const CROWD: usize = 50;
/// Processes that make Workload API calls, and how often each does: within what the agent lets a pod and a node do.
const CALLERS: usize = 64;
const PACE: Duration = Duration::from_millis(40);
const CHURN: Churn = Churn {
    rate: 200,
    time: Duration::from_secs(60),
    living: 200,
    accounts: 100,
};
/// Longer than an SVID is kept after its last pod left.
const LINGER: Duration = Duration::from_secs(90);

pub(crate) async fn measure(rows: &mut Vec<Row>) {
    say("a node: 250 pods of 100 accounts, four streams each");
    let cluster = Cluster::start();
    let ca = trusting(&cluster).set("log_filter", "info");
    let quiet = |agent: signet_tests::agent::AgentSetup| {
        agent
            .set("svid_ttl", LIFE)
            .set("log_filter", "info")
            .set("socket_mode", "0666")
    };
    let node = Node::on(cluster, ca, quiet).await;
    let agent = node.agent.process.pid();
    rows.push(row("node agent resident, no pods", mib(resident(agent)), ""));
    let pods = populate(&node, rows).await;
    let guests: Vec<Guest> = pods.iter().map(|pod| node.guest(pod)).collect();
    let mut crowd = Crowd::gather(&pods, &guests).await;
    rows.push(row(
        "node agent resident, 1,000 streams",
        mib(resident(agent)),
        "",
    ));
    at_rest(&node, rows).await;
    fan_out(&node, &mut crowd, rows).await;
    calls(&node, &guests, rows).await;
    arrivals(&node, rows).await;
    churn(&node, &mut crowd, rows).await;
}

fn account(n: usize) -> String {
    format!("service-{}", n % ACCOUNTS)
}

/// The pods, and an SVID for each of their accounts.
async fn populate(node: &Node, rows: &mut Vec<Row>) -> Vec<Pod> {
    let began = Instant::now();
    let pods = (0..PODS).map(|n| node.run((NAMESPACE, &account(n)), &format!("pod-{n}")));
    let pods = pods.collect();
    wait_kept(node, ACCOUNTS).await;
    rows.push(row(
        format!("{PODS} pods at once to {ACCOUNTS} SVIDs"),
        format!("{:?}", round(began.elapsed())),
        "8 requests to the CA at a time",
    ));
    rows.push(row(
        format!("node agent resident, {PODS} pods"),
        mib(resident(node.agent.process.pid())),
        "",
    ));
    pods
}

/// Waits until so many identities are served and none is on its way in or out.
async fn wait_kept(node: &Node, count: usize) {
    until("the identities of the node", LINGER, async || {
        let scrape = node.agent.scrape().await;
        let state = |state| scrape.value("signet_agent_identities", &[("state", state)]);
        let served = state("served");
        let others = state("waiting") + state("lingering");
        (served - super::as_f64(count as u64)).abs() < 0.5 && others < 0.5
    })
    .await;
}

async fn at_rest(node: &Node, rows: &mut Vec<Row>) {
    say("a minute at rest");
    let before = cpu(node.agent.process.pid());
    tokio::time::sleep(REST).await;
    let used = cpu(node.agent.process.pid()) - before;
    rows.push(row(
        "node agent CPU per minute at rest",
        format!("{used:?}"),
        format!(
            "{:.2} % of a core",
            100.0 * used.as_secs_f64() / REST.as_secs_f64()
        ),
    ));
}

/// Every identity is rotated once, one after the other.
async fn fan_out(node: &Node, crowd: &mut Crowd, rows: &mut Vec<Row>) {
    say("a rotation of each identity");
    let admin = node.agent.admin();
    let mut times = Vec::new();
    for n in 0..ACCOUNTS {
        let id = signet_tests::nodes::identity(NAMESPACE, &account(n));
        let (asked, body) = (Instant::now(), json!({"spiffe_id": id}));
        let (answer, came) = tokio::join!(admin.post("/v1/svids/rotate", &body), crowd.renewed(&id));
        answer.expect("a rotation");
        times.extend(came.into_iter().map(|at| at - asked));
    }
    let streams = times.len();
    rows.push(row(
        format!("a rotation to its streams ({ACCOUNTS} rotations, {streams} messages)"),
        quantiles(times),
        "the CA's answer included",
    ));
}

/// `FetchX509SVID` to its first message, over warm connections.
async fn calls(node: &Node, guests: &[Guest], rows: &mut Vec<Row>) {
    say("Workload API calls");
    let (agent, began) = (node.agent.process.pid(), Instant::now());
    let apis: Vec<_> = guests.iter().take(CALLERS).map(Guest::api).collect();
    let before = cpu(agent);
    let callers = apis.into_iter().map(|mut api| {
        tokio::spawn(async move {
            let mut calls: u64 = 0;
            let mut turns = tokio::time::interval(PACE);
            while began.elapsed() < RUN {
                turns.tick().await;
                let opened = api.fetch_x509svid(secure(X509svidRequest {})).await;
                next(&mut opened.expect("a stream").into_inner())
                    .await
                    .expect("an SVID");
                calls += 1;
            }
            calls
        })
    });
    let calls: u64 = join_all(callers)
        .await
        .into_iter()
        .map(|c| c.expect("a caller"))
        .sum();
    let used = cpu(agent) - before;
    rows.push(row(
        "FetchX509SVID to its first message",
        format!("{:.0} calls/s/core", super::as_f64(calls) / used.as_secs_f64()),
        format!(
            "{:.0}/s in all",
            super::as_f64(calls) / began.elapsed().as_secs_f64()
        ),
    ));
}

/// From a pod's creation to the SVID in its process's hands, a new connection included.
async fn arrivals(node: &Node, rows: &mut Vec<Row>) {
    say("pods that arrive");
    for (what, new) in [("of a new account", true), ("of a known account", false)] {
        let mut times = Vec::new();
        for n in 0..ARRIVALS {
            let account = if new { format!("new-{n}") } else { account(n) };
            let guest = expect(node, &account);
            times.push(arrive(node, &guest, &account, &format!("arrival-{new}-{n}")).await);
        }
        times.sort();
        let late = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        let arrival = row(format!("pod to usable SVID, {what}"), quantiles(times), "");
        rows.push(arrival.held("p99 at most 500 ms", late <= Duration::from_millis(500)));
    }
    let names: Vec<String> = (0..CROWD).map(|n| format!("crowd-{n}")).collect();
    let guests: Vec<Guest> = names.iter().map(|name| expect(node, name)).collect();
    let at_once = names.iter().zip(&guests);
    let times = join_all(at_once.map(|(name, guest)| arrive(node, guest, name, name))).await;
    rows.push(row(
        format!("pod to usable SVID, {CROWD} new accounts at once"),
        quantiles(times),
        "",
    ));
}

/// What is there before the pod is: its account, and the process that will be in it.
fn expect(node: &Node, account: &str) -> Guest {
    node::account(&node.cluster, (NAMESPACE, account));
    node.guest_in("0::/\n")
}

async fn arrive(node: &Node, guest: &Guest, account: &str, name: &str) -> Duration {
    let began = Instant::now();
    let pod = node.run((NAMESPACE, account), name);
    node.table.show(guest.pid(), &cgroup(&pod.uid, &pod.container));
    guest.x509().await.expect("an SVID");
    let took = began.elapsed();
    node.delete(&pod);
    took
}

async fn churn(node: &Node, crowd: &mut Crowd, rows: &mut Vec<Row>) {
    wait_kept(node, ACCOUNTS).await;
    say("a minute of churn");
    let pids = [node.agent.process.pid(), node.ca.process.pid()];
    CHURN.prepare(&node.cluster);
    let (sizes, used) = (pids.map(resident), pids.map(cpu));
    let churned = CHURN.run(&node.cluster, |_, _| {}).await;
    let [agent, ca] = [0, 1].map(|n| cpu(pids[n]) - used[n]);
    let lost = crowd.lost();
    assert_eq!(lost, 0, "streams of others ended");
    rows.push(row(
        format!("churn, {} pods/s for {:?}", CHURN.rate, round(churned.took)),
        format!("agent CPU {agent:?}, CA CPU {ca:?}"),
        format!("{lost} of {} streams lost", crowd.len()),
    ));
    wait_kept(node, ACCOUNTS).await;
    let after = pids.map(resident);
    rows.push(row(
        "resident before and after churn",
        format!("agent {} to {}", mib(sizes[0]), mib(after[0])),
        format!("CA {} to {}", mib(sizes[1]), mib(after[1])),
    ));
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| round(times[(times.len() * share / 100).min(times.len() - 1)]);
    format!("p50 {:?}, p99 {:?}, most {:?}", at(50), at(99), at(100))
}
