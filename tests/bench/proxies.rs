//! A pair of proxies, plaintext in, mutual TLS between them, policy at the second: ours and Envoys, the same
//! work in the same run. Both pairs get their SVIDs from agents over SDS and forward to the same application.

mod app;
mod envoy;
mod load;
mod signet;

use std::sync::Arc;
use std::time::Duration;

use signet_tests::agent::Agent;
use signet_tests::ca::Ca;
use signet_tests::client::{Presented, svid};
use signet_tests::cluster::Cluster;
use signet_tests::process::{cpu, resident};

use crate::issuance::as_f64;
use crate::report::{Row, row};
use crate::say;
use load::Latency;

/// Who may call.
pub(crate) const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
/// Who is called.
pub(crate) const BACKEND: &str = "spiffe://cluster.local/ns/data/sa/backend";
/// What is asked for; the tenth of ten rules allows it.
pub(crate) const PATH: &str = "/api/v1/items";
/// Rules of the policy at the second proxy.
pub(crate) const RULES: usize = 10;
/// How long each load runs.
const RUN: Duration = Duration::from_secs(6);
/// Connections of the load.
const CONNECTIONS: usize = 32;
/// Requests a second at which added latency is measured.
const RATE: f64 = 1_000.0;
/// Connections that lie idle.
const IDLE: usize = 1_000;
/// Connections count as idle after this: our proxy gives back what their handshakes needed within fifteen seconds.
const SETTLE: Duration = Duration::from_secs(20);
/// Bytes of the bulk transfer.
const BULK: u64 = 512 * 1024 * 1024;

/// Two proxies that run.
pub(crate) struct Pair {
    /// The process that plaintext enters.
    pub(crate) front: u32,
    /// The process that demands mutual TLS and decides.
    pub(crate) back: u32,
    /// Entries at `front`, `host:port`: HTTP/1.1 between the two, HTTP/2 between the two, and TCP.
    pub(crate) http1: String,
    pub(crate) http2: String,
    pub(crate) tcp: String,
    /// The mutual-TLS HTTP listener of `back`.
    pub(crate) inbound: String,
}

impl Pair {
    fn cpu(&self) -> Duration {
        cpu(self.front) + cpu(self.back)
    }
}

/// What both pairs are given.
pub(crate) struct World {
    pub(crate) frontend: Agent,
    pub(crate) backend: Agent,
    pub(crate) app: String,
    /// Runs the proxies on a core that nothing else uses.
    pub(crate) under: &'static [&'static str],
    ca: Ca,
    cluster: Cluster,
}

/// What was measured of one pair.
#[derive(Default)]
struct Figures {
    idle: f64,
    per_connection: f64,
    loaded: f64,
    http1: f64,
    http2: f64,
    tcp: f64,
    handshakes: f64,
    bulk: f64,
    latency: Latency,
}

/// Measures both pairs, one after the other, and compares. Without Envoy or `wrk` it says so and measures nothing.
pub(crate) async fn measure(pinned: bool, rows: &mut Vec<Row>) {
    let Some(program) = signet_tests::peers::envoy() else {
        return say("proxies: no Envoy to compare with");
    };
    if !load::has_wrk() {
        return say("proxies: no wrk to load them with");
    }
    let world = World::start(if pinned { &["taskset", "-c", "0"] } else { &[] }).await;
    let presented = Arc::new(world.presented().await);
    let direct = load::latency(&world.app, RATE, RUN).await;
    let theirs = {
        say("proxies: a pair of Envoys");
        let running = envoy::Envoys::start(&world, &program).await;
        figures(&running.pair, &presented, direct).await
    };
    let ours = {
        say("proxies: a pair of signet-proxy");
        let running = signet::Proxies::start(&world).await;
        figures(&running.pair, &presented, direct).await
    };
    report(&ours, &theirs, direct, rows);
}

impl World {
    async fn start(under: &'static [&'static str]) -> Self {
        let cluster = Cluster::start();
        let ca = Ca::start(&cluster).await;
        Self {
            frontend: Agent::start(&cluster, &ca, "web", "frontend", "1h").await,
            backend: Agent::start(&cluster, &ca, "data", "backend", "1h").await,
            app: app::start(BULK).await,
            under,
            ca,
            cluster,
        }
    }

    /// The caller's SVID in our own hands, for connections that no proxy makes.
    async fn presented(&self) -> Presented {
        svid(&self.ca, &self.cluster.token("web", "frontend")).await
    }
}

async fn figures(pair: &Pair, presented: &Arc<Presented>, direct: Latency) -> Figures {
    let mut figures = Figures {
        idle: resident(pair.back),
        ..Figures::default()
    };
    let held = load::idle(&pair.inbound, presented, IDLE).await;
    tokio::time::sleep(SETTLE).await;
    figures.per_connection = (resident(pair.back) - figures.idle) * 1024.0 / as_f64(IDLE as u64);
    drop(held);
    figures.http1 = requests(pair, &pair.http1).await;
    figures.http2 = requests(pair, &pair.http2).await;
    figures.loaded = resident(pair.back);
    figures.tcp = requests(pair, &pair.tcp).await;
    let (before, made) = (
        cpu(pair.back),
        load::handshakes(&pair.inbound, presented, RUN).await,
    );
    figures.handshakes = as_f64(made) / (cpu(pair.back) - before).as_secs_f64();
    let before = pair.cpu();
    let moved = load::bulk(&pair.tcp).await;
    figures.bulk = 2.0 * as_f64(moved) / (pair.cpu() - before).as_secs_f64() / 1e6;
    figures.latency = load::latency(&pair.http1, RATE, RUN).await.less(direct);
    figures
}

/// Requests per CPU-second of one proxy.
async fn requests(pair: &Pair, entry: &str) -> f64 {
    // Connections and pools are made before the clock starts.
    load::wrk(entry, CONNECTIONS, Duration::from_secs(1)).await;
    let before = pair.cpu();
    let done = load::wrk(entry, CONNECTIONS, RUN).await;
    2.0 * as_f64(done) / (pair.cpu() - before).as_secs_f64()
}

/// The target of each line beside Envoy.
const AHEAD: &str = "ahead of Envoy";

fn report(ours: &Figures, theirs: &Figures, direct: Latency, rows: &mut Vec<Row>) {
    let mut rate = |what: &str, unit: &str, pick: fn(&Figures) -> f64| {
        let (a, b) = (pick(ours), pick(theirs));
        let row = row(
            what,
            format!("{a:.0} {unit}"),
            format!("Envoy {b:.0}: {:.2} times", a / b),
        );
        rows.push(row.held(AHEAD, a > b));
    };
    rate("proxy: HTTP/1.1 requests", "per CPU-second", |f| f.http1);
    rate("proxy: HTTP/2-hop requests", "per CPU-second", |f| f.http2);
    rate("proxy: TCP requests", "per CPU-second", |f| f.tcp);
    rate("proxy: full handshakes, a request each", "per CPU-second", |f| {
        f.handshakes
    });
    rate("proxy: TCP bulk", "MB per CPU-second", |f| f.bulk);
    let mut size = |what: &str, unit: &str, pick: fn(&Figures) -> f64| {
        let (a, b) = (pick(ours), pick(theirs));
        let row = row(
            what,
            format!("{a:.1} {unit}"),
            format!("Envoy {b:.1} {unit}: {:.2} of it", a / b),
        );
        rows.push(row.held(AHEAD, a < b));
    };
    size("proxy resident, idle", "MiB", |f| f.idle);
    size("proxy resident, an idle mutual-TLS connection", "KiB", |f| {
        f.per_connection
    });
    size("proxy resident, after load", "MiB", |f| f.loaded);
    rows.push(row(
        format!("two proxies add at {RATE:.0} requests/s"),
        ours.latency.to_string(),
        format!("Envoys {}; without any {direct}", theirs.latency),
    ));
}
