//! `make bench`: speed and size of the identity path, printed as a table with ratios.
//!
//! Absolute figures depend on the machine and the hour; the ratios come from one run.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot measure says so by ending"
)]

mod crypto;
mod fanout;
mod impersonation;
mod issuance;
mod node;
mod parts;
mod process;
mod proxies;
mod report;

use std::time::Duration;

use issuance::{Caller, as_f64};
use report::{Row, row};
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_tests::agent::Agent;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::Dial;
use signet_tests::cluster::Cluster;
use signet_tests::metrics::Scrape;
use tokio::time::Instant;
use tonic::transport::Channel;

/// How long each load runs.
const RUN: Duration = Duration::from_secs(8);
/// Calls under way in a saturated run.
const IN_FLIGHT: usize = 64;
/// SDS streams of the fan-out.
const STREAMS: usize = 1_000;
/// Workloads of the herd.
const HERD: usize = 10_000;
/// Connections the herd comes over: an agent per node.
const HERD_CONNECTIONS: usize = 200;

/// The parts that can be asked for by name; all of them are run when none is.
const SECTIONS: [&str; 7] = ["parts", "issuing", "nodes", "agent", "node", "herd", "proxies"];

fn main() {
    signet_tests::init();
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        say(&format!(
            "there is no section {unknown}; there are {}",
            SECTIONS.join(", ")
        ));
        return;
    }
    let wanted = |section: &str| asked.is_empty() || asked.iter().any(|name| name == section);
    let mut rows = Vec::new();
    if wanted("parts") {
        say("measuring the parts of issuing in memory");
        parts(&mut rows);
    }
    if wanted("issuing") {
        // CA and callers on a core each, as two machines would be; work that wanders between cores is
        // measured as something else.
        let pinned = process::stay_on(1);
        if !pinned {
            say("this machine does not let CA and callers be pinned to cores; ratios will be lower");
        }
        runtime().block_on(issuance_on_a_core(pinned, &mut rows));
        process::roam();
    }
    if wanted("nodes") {
        let pinned = process::stay_on(1);
        runtime().block_on(impersonation::measure(pinned, &mut rows));
        process::roam();
    }
    if wanted("proxies") {
        let pinned = process::stay_on(1);
        runtime().block_on(proxies::measure(pinned, &mut rows));
        process::roam();
    }
    if wanted("agent") {
        say("agent: start, fan-out to 1,000 streams");
        runtime().block_on(agent_on_all_cores(&mut rows));
    }
    if wanted("node") {
        runtime().block_on(node::measure(&mut rows));
    }
    if wanted("herd") {
        say("herd: 10,000 workloads at once of one CA on two cores");
        runtime().block_on(herd(&mut rows));
    }
    report::print(&rows);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn parts(rows: &mut Vec<Row>) {
    let limit = crypto::measure();
    let parts = parts::measure(limit);
    rows.push(row(
        "reading a CSR, beside its verification",
        format!("{:?}", parts.csr),
        format!("{:?}", limit.verify),
    ));
    rows.push(row(
        "making and checking a leaf, beside its signature",
        format!("{:?}", parts.leaf),
        format!("{:?}", limit.sign),
    ));
}

async fn issuance_on_a_core(pinned: bool, rows: &mut Vec<Row>) {
    say("measuring the crypto limit");
    let limit = crypto::measure();
    rows.push(row(
        "P-256 verify + sign",
        format!("{:?} + {:?}", limit.verify, limit.sign),
        "the limit",
    ));
    rows.push(row(
        "limit of one core",
        format!("{:.0} certificates/s", limit.per_second()),
        "1.00",
    ));
    let cluster = Cluster::start();
    let setup = CaSetup::new(&cluster).set("log_filter", "info");
    let ca = on_core_0(setup, pinned).start().await;
    let idle = process::resident(ca.process.pid());
    rows.push(row("CA resident, idle", mib(idle), "").held("at most 20 MiB", idle <= 20.0));
    for (connections, least) in [(8, 0.80), (64, 0.72)] {
        say(&format!("issuing over {connections} warm connections"));
        issuing(&cluster, &ca, (connections, least), rows).await;
    }
    rows.push(row(
        "CA resident, after load",
        mib(process::resident(ca.process.pid())),
        "",
    ));
}

async fn agent_on_all_cores(rows: &mut Vec<Row>) {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    agent(&cluster, &ca, rows).await;
}

/// The CA on the other core than this program.
fn on_core_0(setup: CaSetup, pinned: bool) -> CaSetup {
    if pinned {
        setup.under(&["taskset", "-c", "0"])
    } else {
        setup
    }
}

/// Saturation, with the limit measured before and after, then latency at half of what saturation reached.
async fn issuing(cluster: &Cluster, ca: &Ca, (connections, least): (usize, f64), rows: &mut Vec<Row>) {
    let callers = callers(cluster, ca, connections, connections).await;
    let before = crypto::measure();
    let run = issuance::saturate(&callers, IN_FLIGHT, RUN, ca.process.pid()).await;
    let ratio = run.per_core() / before.mean(crypto::measure()).per_second();
    let reached = format!(
        "{:.0} certificates/s/core ({:.0}/s in all, {} issued)",
        run.per_core(),
        as_f64(run.issued) / run.wall.as_secs_f64(),
        run.issued
    );
    let issuing = row(
        format!("issuing, {connections} connections"),
        reached,
        format!("{ratio:.2} of the limit"),
    );
    rows.push(issuing.held(&format!("at least {least:.2}"), ratio >= least));
    let half = as_f64(run.issued) / run.wall.as_secs_f64() / 2.0;
    let latency = issuance::at_rate(&callers, half, RUN).await;
    let at = |q: f64| format!("{:.2}", as_f64(latency.value_at_quantile(q)) / 1000.0);
    rows.push(row(
        format!("latency at half load, {connections} connections"),
        format!("p50 {} ms, p99 {} ms, p99.9 {} ms", at(0.5), at(0.99), at(0.999)),
        format!("{half:.0} calls/s"),
    ));
}

/// Callers with a token each, spread over so many warm connections; every token is reviewed once.
async fn callers(cluster: &Cluster, ca: &Ca, count: usize, connections: usize) -> Vec<Caller> {
    let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let mut channels: Vec<Channel> = Vec::new();
    for _ in 0..connections {
        channels.push(Dial::default().channel(ca).await);
    }
    let mut callers = Vec::with_capacity(count);
    for n in 0..count {
        let account = ServiceAccountId::new("bench", &format!("w{n}")).expect("an account");
        let token = cluster.token(account.namespace(), account.name());
        callers.push(Caller::new(
            channels[n % connections].clone(),
            &token,
            &account.spiffe_id(&domain),
        ));
    }
    for caller in &mut callers {
        caller.call().await.expect("the CA issues");
    }
    callers
}

async fn agent(cluster: &Cluster, ca: &Ca, rows: &mut Vec<Row>) {
    let started = Instant::now();
    let agent = Agent::start(cluster, ca, "bench", "w0", "1m").await;
    rows.push(row(
        "agent start to first SVID served",
        format!("{:?}", round(started.elapsed())),
        "",
    ));
    let pid = agent.process.pid();
    let idle = process::resident(pid);
    rows.push(row("agent resident, idle", mib(idle), "").held("at most 12 MiB", idle <= 12.0));
    let subscribers = fanout::subscribe(&agent.socket(), STREAMS).await;
    rows.push(row(
        format!("agent resident, {STREAMS} streams"),
        mib(process::resident(pid)),
        "",
    ));
    let admin = agent.admin();
    let rotate = async || {
        admin
            .post("/v1/svids/rotate", &serde_json::json!({}))
            .await
            .expect("a rotation");
    };
    // The floor after the first SVID is a tenth of its life; the rotation must not wait for it.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (half, all) = fanout::fan_out(subscribers, rotate()).await;
    rows.push(row(
        format!("new SVID to {STREAMS} streams"),
        format!(
            "half {:?}, all {:?} after asking, the CA's answer included",
            round(half),
            round(all)
        ),
        "",
    ));
}

/// A cluster and a CA of its own, with the defaults, whose queue and counters tell the story.
async fn herd(rows: &mut Vec<Row>) {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).set("log_filter", "info").start().await;
    let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let mut channels = Vec::new();
    for _ in 0..HERD_CONNECTIONS {
        channels.push(Dial::default().channel(&ca).await);
    }
    let callers = (0..HERD)
        .map(|n| {
            let account = ServiceAccountId::new("herd", &format!("w{n}")).expect("an account");
            let token = cluster.token(account.namespace(), account.name());
            Caller::new(
                channels[n % HERD_CONNECTIONS].clone(),
                &token,
                &account.spiffe_id(&domain),
            )
        })
        .collect();
    let before = process::cpu(ca.process.pid());
    let stop = tokio_util::sync::CancellationToken::new();
    let depth = tokio::spawn(watch_depth(ca.metrics.clone(), stop.clone()));
    let herd = issuance::herd(callers).await;
    stop.cancel();
    let deepest = depth.await.expect("the sampler");
    rows.push(row(
        format!("herd of {HERD}, each token reviewed"),
        format!(
            "all served in {:?}, CA CPU {:?}",
            round(herd.wall),
            process::cpu(ca.process.pid()) - before
        ),
        "0 lost",
    ));
    rows.push(row(
        "herd: deepest queue, refusals with a hint",
        format!("{deepest} under way, {} refused and retried", herd.refused),
        format!("{} calls", herd.calls),
    ));
    rows.push(row(
        "CA resident, after the herd",
        mib(process::resident(ca.process.pid())),
        "",
    ));
}

/// Samples the number of calls under way until told to stop; answers the largest seen.
async fn watch_depth(address: String, stop: tokio_util::sync::CancellationToken) -> f64 {
    let mut deepest = 0.0_f64;
    while !stop.is_cancelled() {
        let now = Scrape::of(&address)
            .await
            .value("signet_ca_requests_in_flight", &[]);
        deepest = deepest.max(now);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    deepest
}

fn round(time: Duration) -> Duration {
    Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / 10 * 10)
}

fn mib(value: f64) -> String {
    format!("{value:.1} MiB")
}

fn say(text: &str) {
    println!("bench: {text}");
}
