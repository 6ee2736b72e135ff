//! Impersonated issuance with 100,000 pods in the index: speed beside the crypto limit and beside a CA
//! without node accounts, and what the index takes.

use signet_certs::{ServiceAccountId, TrustDomain};
use signet_devcluster::PodSpec;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::Dial;
use signet_tests::cluster::Cluster;
use signet_tests::nodes::{agent, trusting};
use tokio::time::Instant;

use super::{IN_FLIGHT, RUN, as_f64, callers, mib, on_core_0, say};
use crate::issuance::{Caller, saturate};
use crate::report::{Row, row};
use crate::{crypto, process};

const PODS: usize = 100_000;
const NODES: usize = 1_000;
const NAMESPACES: usize = 500;
const ACCOUNTS: usize = 5_000;
/// Nodes that ask, each over a connection of its own, for all the accounts that run on them.
const ASKING: usize = 64;

pub(crate) async fn measure(pinned: bool, rows: &mut Vec<Row>) {
    let limit = crypto::measure();
    let cluster = Cluster::start();
    say("making 100,000 pods on 1,000 nodes");
    populate(&cluster);
    // Roots in five hundred namespaces are another part's work; and the second CA must not find the first one's.
    let setup = |setup: CaSetup| {
        let quiet = setup.set("publish_roots", false).set("log_filter", "info");
        on_core_0(quiet, pinned)
    };
    let plain = setup(CaSetup::new(&cluster)).start().await;
    let idle = process::resident(plain.process.pid());
    let own = callers(&cluster, &plain, ASKING, ASKING).await;
    let plain_rate = saturate(&own, IN_FLIGHT, RUN, plain.process.pid())
        .await
        .per_core();
    drop(plain);

    let started = Instant::now();
    let ca = setup(trusting(&cluster)).start().await;
    let ready = started.elapsed();
    let listed = process::resident(ca.process.pid());
    let scrape = ca.scrape().await;
    let pods = scrape.value("signet_ca_pods_indexed", &[]);
    let bytes = scrape.value("signet_ca_pod_index_bytes", &[]);
    let size = bytes / 1_048_576.0;
    let index = row(
        format!("index of {pods} pods"),
        format!("{:.0} bytes each, {} in all", bytes / pods, mib(size)),
        "",
    );
    rows.push(index.held("at most 60 MiB", size <= 60.0));
    rows.push(row(
        "CA resident, pods listed",
        format!("{} ({} without node accounts)", mib(listed), mib(idle)),
        format!("{:.0} bytes per pod", (listed - idle) * 1_048_576.0 / pods),
    ));
    rows.push(row(
        "start to ready with the pods listed",
        format!("{ready:.1?}"),
        "",
    ));

    say("issuing to nodes for what runs on them");
    let nodes = nodes(&cluster, &ca).await;
    let run = saturate(&nodes, IN_FLIGHT, RUN, ca.process.pid()).await;
    let lookups = cluster.api.counts().get("list", "pods");
    rows.push(row(
        format!("impersonated issuing, {ASKING} nodes"),
        format!(
            "{:.0} certificates/s/core ({:.0}/s in all, {} issued)",
            run.per_core(),
            as_f64(run.issued) / run.wall.as_secs_f64(),
            run.issued
        ),
        format!("{:.2} of the limit", run.per_core() / limit.per_second()),
    ));
    rows.push(row(
        "own identities, CA without node accounts",
        format!("{plain_rate:.0} certificates/s/core"),
        format!("impersonated: {:.2} of it", run.per_core() / plain_rate),
    ));
    rows.push(row(
        "lists of pods for it all",
        format!("{lookups}"),
        "pages of the listing and lookups",
    ));
}

/// Pod `n` runs as account `n mod 5,000` on node `n mod 1,000`: five accounts and a hundred pods a node.
fn populate(cluster: &Cluster) {
    for n in 0..NAMESPACES {
        cluster.api.create_namespace(&namespace(n)).expect("a namespace");
    }
    for n in 0..ACCOUNTS {
        cluster
            .api
            .create_service_account(&namespace(n), &account(n))
            .expect("an account");
    }
    for n in 0..PODS {
        let name = format!("{}-7c9d8f6b5d-{n:05}", account(n % ACCOUNTS));
        let pod = PodSpec::new(namespace(n % ACCOUNTS), name)
            .service_account(account(n % ACCOUNTS))
            .node(node(n % NODES))
            .label("app.kubernetes.io/name", account(n % ACCOUNTS));
        cluster.api.create_pod(pod).expect("a pod");
    }
}

fn namespace(n: usize) -> String {
    format!("team-{}", n % NAMESPACES)
}

fn account(n: usize) -> String {
    format!("service-{n}")
}

fn node(n: usize) -> String {
    format!("node-{n}.eu-central-1.compute.internal")
}

/// A caller per node, for one of the accounts that run on it.
async fn nodes(cluster: &Cluster, ca: &Ca) -> Vec<Caller> {
    let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let mut callers = Vec::with_capacity(ASKING);
    for n in 0..ASKING {
        let token = agent(cluster, &node(n));
        let channel = Dial::default().channel(ca).await;
        let wanted = n + NODES * (n % (ACCOUNTS / NODES));
        let id = ServiceAccountId::new(&namespace(wanted), &account(wanted)).expect("an account");
        let mut caller = Caller::impersonating(channel, &token, &id.spiffe_id(&domain));
        caller.call().await.expect("the CA issues");
        callers.push(caller);
    }
    callers
}
