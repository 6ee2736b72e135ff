//! `make demo`: two workloads, two real Envoys, mutual TLS, and certificates that renew while traffic
//! flows. Each step says in a line what it does; a step that does not hold ends it with exit code 1.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks")]
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a step that does not hold ends the demo"
)]

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt as _;
use signet_runtime::shutdown::signalled;
use signet_tests::agent::Agent;
use signet_tests::ca::CaSetup;
use signet_tests::cluster::Cluster;
use signet_tests::envoy::{Envoy, EnvoySetup};
use signet_tests::load::{Load, Report};
use signet_tests::peers;
use tokio::time::Instant;

/// Life of the SVIDs: renewed about every half of it.
const TTL: &str = "1m";
/// Renewals of each workload that the demo waits for.
const RENEWALS: u64 = 3;
/// They take about 100 s; a machine that needs longer than this has another problem.
const PATIENCE: Duration = Duration::from_secs(170);
const REQUESTS_PER_SECOND: u32 = 20;

const FRONTEND: &str = "spiffe://cluster.local/ns/frontend/sa/web";
const BACKEND: &str = "spiffe://cluster.local/ns/backend/sa/api";

#[tokio::main]
async fn main() -> ExitCode {
    signet_tests::init();
    let story = AssertUnwindSafe(story()).catch_unwind();
    // Whichever way it ends, what was started is dropped with the story, and so stopped.
    tokio::select! {
        told = story => match told {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => {
                eprintln!("demo: FAILED; the step above did not hold");
                ExitCode::FAILURE
            }
        },
        signal = signalled() => {
            eprintln!("demo: stopped by {}; everything it started is stopped too", signal.unwrap_or("a signal"));
            ExitCode::from(130)
        }
    }
}

/// One workload: its agent, and how often it was seen to renew.
struct Workload {
    name: &'static str,
    id: &'static str,
    agent: Agent,
    serials: Vec<String>,
}

impl Workload {
    /// Looks whether it serves another SVID than before; says so in a line.
    async fn look(&mut self, began: Instant, traffic: &Report) {
        let serial = self.agent.serial().await;
        if self.serials.last() == Some(&serial) {
            return;
        }
        if !self.serials.is_empty() {
            println!(
                "   {:>4} s  {} renewed: serial {}…, {} requests so far, {} failed",
                began.elapsed().as_secs(),
                self.name,
                short(&serial),
                traffic.requests,
                traffic.failures
            );
        }
        self.serials.push(serial);
    }

    fn renewals(&self) -> u64 {
        u64::try_from(self.serials.len())
            .unwrap_or(u64::MAX)
            .saturating_sub(1)
    }
}

async fn story() {
    let began = Instant::now();
    let Some(envoy) = peers::envoy() else {
        panic!("this demo needs a real Envoy; `make demo` sets it up");
    };
    say(
        1,
        "a Kubernetes API: in memory, over HTTPS, with really signed service-account tokens",
    );
    let cluster = Cluster::start();
    say(
        2,
        "the CA: its own root, an issuing authority below it, tokens checked by TokenReview",
    );
    let ca = CaSetup::new(&cluster)
        .set("svid_ttl", TTL)
        .set("min_svid_ttl", "10s")
        .start()
        .await;
    let authorities = ca.admin().get("/v1/authorities").await;
    println!(
        "      {} issues below {}",
        text(&authorities["issuing"]["subject"]),
        text(&authorities["roots"][0]["subject"])
    );
    say(
        3,
        "two workloads in two namespaces, an agent each; a key never leaves its agent but over the socket",
    );
    let mut frontend = workload(&cluster, &ca, "frontend", "web", FRONTEND).await;
    let mut backend = workload(&cluster, &ca, "backend", "api", BACKEND).await;
    say(
        4,
        "two real Envoys take `default` and `ROOTCA` over SDS; each accepts only the other's SPIFFE ID",
    );
    let server = EnvoySetup::new(&envoy, "backend", backend.agent.socket())
        .server("in", Some(FRONTEND))
        .start()
        .await;
    let address = server.listener("in").await;
    let client = EnvoySetup::new(&envoy, "frontend", frontend.agent.socket())
        .client("out", &address, Some(BACKEND))
        .start()
        .await;
    let entrance = client.listener("out").await;
    say(
        5,
        "a steady stream of requests through both, each over a new mutual TLS connection",
    );
    let load = Load::start(&entrance, REQUESTS_PER_SECOND);
    load.more(u64::from(REQUESTS_PER_SECOND)).await;
    say(
        6,
        "SVIDs live one minute here (24 hours by default), so that renewals happen in front of you",
    );
    let deadline = Instant::now() + PATIENCE;
    while frontend.renewals() < RENEWALS || backend.renewals() < RENEWALS {
        assert!(
            Instant::now() < deadline,
            "no {RENEWALS} renewals of each workload within {PATIENCE:?}"
        );
        let traffic = load.report();
        assert_eq!(traffic.failures, 0, "requests failed: {:?}", traffic.words);
        frontend.look(began, &traffic).await;
        backend.look(began, &traffic).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    load.more(u64::from(REQUESTS_PER_SECOND)).await;
    let traffic = load.stop().await;
    close(&[&frontend, &backend], &traffic, &[&server, &client]).await;
}

async fn workload(
    cluster: &Cluster,
    ca: &signet_tests::ca::Ca,
    namespace: &'static str,
    account: &str,
    id: &'static str,
) -> Workload {
    let agent = Agent::start(cluster, ca, namespace, account, TTL).await;
    let svid = agent.svid().await;
    assert_eq!(svid["spiffe_id"], id, "the CA named another identity");
    println!("      {id}, serial {}…", short(text(&svid["serial"])));
    Workload {
        name: namespace,
        id,
        agent,
        serials: Vec::new(),
    }
}

/// The closing table, and what must hold.
async fn close(workloads: &[&Workload], traffic: &Report, envoys: &[&Envoy]) {
    println!();
    println!("{:<44} {:>12} {:>9}", "IDENTITY", "SERIALS SEEN", "RENEWALS");
    for workload in workloads {
        println!(
            "{:<44} {:>12} {:>9}",
            workload.id,
            workload.serials.len(),
            workload.renewals()
        );
    }
    let mut rejected = 0;
    for envoy in envoys {
        rejected += envoy.rejected().await;
    }
    println!();
    println!("requests                          {}", traffic.requests);
    println!("failures                          {}", traffic.failures);
    println!("client certificates seen          {}", traffic.serials.len());
    println!("secrets rejected by the Envoys    {rejected}");
    assert_eq!(traffic.failures, 0, "requests failed: {:?}", traffic.words);
    assert_eq!(rejected, 0, "Envoy rejected secrets");
    let seen = u64::try_from(traffic.serials.len()).unwrap_or(0);
    assert!(
        seen > RENEWALS,
        "the backend saw only {seen} certificates of the frontend"
    );
    assert!(
        traffic.peers.iter().all(|peer| peer == FRONTEND),
        "the backend saw {:?}",
        traffic.peers
    );
    println!();
    println!("Try `signet dev` next: the same system, yours to poke at.");
}

fn say(step: u32, what: &str) {
    println!("{step}/6   {what}");
}

fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
