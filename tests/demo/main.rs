//! `make demo`: one node, one agent, two real Envoys that it tells apart, mutual TLS between them, three
//! proxies of ours with policies that come and go, and certificates that renew while traffic flows. Each step says in a line what it does; a step that does
//! not hold ends it with exit code 1.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks")]
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a step that does not hold ends the demo"
)]

mod node;
mod policy;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt as _;
use node::{Copies, Identity, Watched};
use policy::{Programs, Shop};
use signet_runtime::shutdown::signalled;
use signet_tests::agent::Agent;
use signet_tests::cli::signet;
use signet_tests::cluster::Cluster;
use signet_tests::envoy::{Envoy, EnvoySetup};
use signet_tests::load::{Load, Report};
use signet_tests::process::program;
use signet_tests::{nodes, peers, sds};
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
const AUDIENCE: &str = "backend";

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
    let ca = nodes::trusting(&cluster)
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
        "one agent for the node: it gets an SVID for each of six accounts that have a pod there",
    );
    let copies = Copies::new();
    let built = program("signet-proxy");
    let proxy = |name| copies.of(&built, name);
    let identities = [
        identity(
            "frontend",
            ("frontend", "web"),
            copies.of(&envoy, "envoy-frontend"),
        ),
        identity("backend", ("backend", "api"), copies.of(&envoy, "envoy-backend")),
        identity("tools", ("tools", "cli"), program("signet")),
        identity("shop", ("shop", "web"), proxy("proxy-shop")),
        identity("intruder", ("other", "web"), proxy("proxy-other")),
        identity("orders", ("orders", "api"), proxy("proxy-orders")),
    ];
    let agent = node::start(&cluster, &ca, TTL, &identities).await;
    let [frontend, backend, _, shop, intruder, orders] = &identities;
    say(
        4,
        "two real Envoys on the agent's one socket: the kernel says which program asks, each gets its own",
    );
    let server = EnvoySetup::new(&backend.executable, backend.name, agent.socket())
        .server("in", Some(FRONTEND))
        .start()
        .await;
    let address = server.listener("in").await;
    let client = EnvoySetup::new(&frontend.executable, frontend.name, agent.socket())
        .client("out", &address, Some(BACKEND))
        .start()
        .await;
    who_is_there(&agent).await;
    say(
        5,
        "the same socket for others: a stranger gets nothing; a third program gets a token over the Workload API",
    );
    stranger(&agent).await;
    token(&agent, &copies).await;
    say(
        6,
        "a steady stream of requests through both Envoys, each over a new mutual TLS connection",
    );
    let entrance = client.listener("out").await;
    let load = Load::start(&entrance, REQUESTS_PER_SECOND);
    load.more(u64::from(REQUESTS_PER_SECOND)).await;
    say(
        7,
        "three signet-proxy on the same socket: one before an application, two for those who call it",
    );
    let programs = Programs {
        frontend: shop.executable.clone(),
        intruder: intruder.executable.clone(),
        backend: orders.executable.clone(),
    };
    let mesh = Shop::start(&agent, programs).await;
    say(8, "mutual TLS: who may connect at all");
    mesh.mutual_tls().await;
    say(9, "authorization: who may do what");
    mesh.authorization().await;
    say(10, "tokens: for whom a request is made");
    let token = mesh.tokens().await;
    say(
        11,
        "SVIDs live one minute here (24 hours by default), so that renewals happen under all of it, in front of you",
    );
    println!("      in force  STRICT, deny-all, backend-allow-frontend, login, demand-a-token");
    println!(
        "      tried     a steady stream of requests of the frontend with a good token, through both proxies"
    );
    let through_proxies = mesh.load(REQUESTS_PER_SECOND, token);
    let mut watched = [frontend, backend, shop, orders].map(Watched::new);
    renewals(&mut watched, &agent, [&load, &through_proxies], began).await;
    mesh.still_enforced().await;
    say(
        12,
        "policies deleted under the same requests: access returns, and none of them fails",
    );
    mesh.deleted().await;
    through_proxies.more(u64::from(REQUESTS_PER_SECOND)).await;
    load.more(u64::from(REQUESTS_PER_SECOND)).await;
    let proxied = through_proxies.stop().await;
    assert_eq!(proxied.failures, 0, "requests failed: {:?}", proxied.words);
    let traffic = load.stop().await;
    close(&watched, &traffic, &[&server, &client]).await;
    println!(
        "requests through our proxies      {}, failures {}",
        proxied.requests, proxied.failures
    );
    println!();
    println!("Try `signet dev` next: the same system, yours to poke at.");
}

fn identity(
    name: &'static str,
    (namespace, account): (&'static str, &'static str),
    executable: std::path::PathBuf,
) -> Identity {
    Identity {
        name,
        namespace,
        account,
        executable,
    }
}

/// The agent tells which program is which workload.
async fn who_is_there(agent: &Agent) {
    let admin = agent.admin().socket().display().to_string();
    let page = signet(&["workload", "list", "--admin", &admin, "-o", "json"])
        .await
        .good()
        .json();
    let lines = node::clients(&page);
    assert_eq!(lines.len(), 2, "both Envoys, and nobody else: {page}");
    for line in lines {
        println!("      {line}");
    }
}

/// This very program is no workload, whoever runs it.
async fn stranger(agent: &Agent) {
    match sds::fetch(&agent.socket(), "default").await {
        Ok(_) => panic!("a program that no rule names got a key"),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
            println!(
                "      this demo, run by the same user, asks as well: {}",
                status.message()
            );
        }
    }
}

/// `signet` itself is a workload here: it gets a token and has it checked.
async fn token(agent: &Agent, copies: &Copies) {
    let socket = agent.socket().display().to_string();
    let file = copies.file("token").display().to_string();
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        &socket,
        "--audience",
        AUDIENCE,
        "--out",
        &file,
    ];
    signet(&fetch).await.good();
    let validate = [
        "jwt",
        "validate",
        &file,
        "--socket",
        &socket,
        "--audience",
        AUDIENCE,
    ];
    let verdict = signet(&[&validate[..], &["-o", "json"]].concat())
        .await
        .good()
        .json();
    println!(
        "      `signet jwt fetch --audience {AUDIENCE}`: a token of {}, ends {}",
        text(&verdict["spiffe_id"]),
        text(&verdict["expires_at"])
    );
    let other = [
        "jwt",
        "validate",
        &file,
        "--socket",
        &socket,
        "--audience",
        "somebody-else",
    ];
    let refused = signet(&other).await;
    assert_eq!(
        refused.code, 1,
        "a token for one audience passed for another: {refused:?}"
    );
    println!("      the same token for another audience: refused");
}

/// Waits for the renewals, and ends at the first request that fails.
async fn renewals(watched: &mut [Watched], agent: &Agent, loads: [&Load; 2], began: Instant) {
    let deadline = Instant::now() + PATIENCE;
    while watched.iter().any(|one| one.renewals() < RENEWALS) {
        assert!(
            Instant::now() < deadline,
            "no {RENEWALS} renewals of each workload within {PATIENCE:?}"
        );
        let [traffic, proxied] = loads.map(Load::report);
        for report in [&traffic, &proxied] {
            assert_eq!(report.failures, 0, "requests failed: {:?}", report.words);
        }
        for one in watched.iter_mut() {
            one.look(agent, began, &traffic).await;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The closing table, and what must hold.
async fn close(workloads: &[Watched], traffic: &Report, envoys: &[&Envoy]) {
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
}

fn say(step: u32, what: &str) {
    println!("{step:>2}/12 {what}");
}

fn short(serial: &str) -> &str {
    serial.get(..8).unwrap_or(serial)
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
