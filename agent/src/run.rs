//! Putting the agent together, and taking it down: streams end, sockets go, then the process.

use std::future::Future;
use std::sync::Arc;

use signet_runtime::http::{Exposed, Readiness};
use signet_runtime::shutdown::{Tasks, signalled};
use signet_runtime::socket::{BoundSocket, private_directory};
use signet_runtime::{Clock, SystemClock};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin};
use crate::bundle_watch::BundleWatch;
use crate::ca_client::CaClient;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::output;
use crate::rotator::{self, Parts, Rotator};
use crate::sds::Sds;
use crate::sds::streams::Streams;
use crate::svids::Shelf;
use crate::workload_socket::{Doorkeeper, incoming};

/// Most streams of one connection. Envoy uses one per secret name.
const MAX_STREAMS_PER_CONNECTION: u32 = 1_024;
/// Operators' requests for a renewal that may queue.
const MAX_ASKS: usize = 8;
/// Name of the readiness condition.
const SOCKET: &str = "socket";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A sentence when it cannot start.
pub fn main(config: Config) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    signet_runtime::logs::init(config.logs.0, &config.logs.1)?;
    for fault in signet_runtime::harden::process() {
        tracing::warn!(error = %fault, "process not hardened");
    }
    // Two workers serve a thousand streams; each more would cost memory while idle.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|e| format!("start runtime: {e}"))?;
    runtime.block_on(run(config, Arc::new(SystemClock), async {
        match signalled().await {
            Ok(signal) => tracing::info!(signal, "shutting down"),
            Err(error) => tracing::error!(%error, "no signal handler; shutting down"),
        }
    }))
}

/// Runs until `stop` is done, then drains.
///
/// # Errors
/// A sentence when it cannot start: an address or a socket that cannot be bound.
pub async fn run(
    config: Config,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let tasks = Tasks::new();
    let mut outcome = start(&config, clock, &tasks).await;
    if outcome.is_ok() {
        tokio::select! {
            () = stop => {}
            lost = tasks.lost() => outcome = Err(format!("the {lost} task ended; the log tells why")),
        }
    }
    if !tasks.drain(config.drain).await {
        tracing::warn!("some streams did not end in time");
    }
    outcome
}

async fn start(config: &Config, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<(), String> {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::waiting_for(&[
        (rotator::READY, "the CA has not answered yet"),
        (SOCKET, "the workload socket is not bound yet"),
    ]);
    let exposed = Exposed::new(registry, readiness.clone());
    let metrics_address = signet_runtime::http::serve(config.metrics_listen, exposed, tasks)
        .await
        .map_err(|e| e.to_string())?;

    let ca = Arc::new(config.ca.clone());
    let (newest, bundles) = watch::channel(None);
    let client = CaClient::new(
        ca,
        config.trust_domain.clone(),
        bundles.clone(),
        Arc::clone(&clock),
        metrics.clone(),
    )?;
    let (shelf, snapshots) = Shelf::new(config.trust_domain.clone(), None);
    let (status, status_reader) = watch::channel(Arc::default());
    let (asks, asked) = mpsc::channel(MAX_ASKS);
    let streams = Streams::new(metrics.clone());

    let workload_socket = bind_workload(config)?;
    let admin_socket = bind_admin(config)?;
    readiness.holds(SOCKET);

    let watch = BundleWatch {
        ca: client.clone(),
        domain: config.trust_domain.clone(),
        newest,
        metrics: metrics.clone(),
    };
    tasks.spawn_essential("bundle watch", watch.run());
    tasks.spawn_essential("root file", client.clone().follow_root_file());
    let rotator = Rotator::new(Parts {
        ca: client,
        domain: config.trust_domain.clone(),
        ttl: config.svid_ttl,
        bundles,
        shelf,
        asks: asked,
        status,
        clock,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
    });
    tasks.spawn_essential("rotator", rotator.run());
    if let Some(output) = config.output.clone() {
        tasks.spawn_essential(
            "output",
            output::follow(snapshots.clone(), output, metrics.clone()),
        );
    }
    let doorkeeper = Doorkeeper::new(config.workload.allowed_uids.clone(), metrics.clone());
    let sds = Sds::new(
        snapshots.clone(),
        status_reader.clone(),
        Arc::clone(&streams),
        tasks.token(),
    );
    serve_sds(workload_socket, doorkeeper, sds, tasks);
    let pages = Admin {
        domain: config.trust_domain.clone(),
        socket: config.workload.socket.clone(),
        metrics_address: metrics_address.to_string(),
        ca_address: config.ca.address(),
        ca_deadline: config.ca.deadline,
        readiness,
        snapshots,
        status: status_reader,
        asks,
        streams,
        shutdown: tasks.token(),
    };
    tasks.spawn(admin::serve(admin_socket, pages, metrics));
    tracing::info!(
        socket = %config.workload.socket.display(), metrics_address = %metrics_address,
        ca_address = config.ca.address(), trust_domain = %config.trust_domain, "agent started"
    );
    Ok(())
}

fn serve_sds(
    socket: BoundSocket,
    doorkeeper: Doorkeeper,
    sds: signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer<Sds>,
    tasks: &Tasks,
) {
    let token = tasks.token();
    let essential = tasks.essential("workload socket");
    tasks.spawn(async move {
        let _essential = essential;
        let served = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(16 * 1024)
            .add_service(sds)
            .serve_with_incoming_shutdown(incoming(socket, doorkeeper), token.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "workload socket ended");
        }
    });
}

fn bind_workload(config: &Config) -> Result<BoundSocket, String> {
    if let Some(directory) = config.workload.socket.parent() {
        std::fs::create_dir_all(directory).map_err(|e| format!("directory {}: {e}", directory.display()))?;
    }
    BoundSocket::bind(&config.workload.socket, config.workload.mode).map_err(|e| e.to_string())
}

fn bind_admin(config: &Config) -> Result<BoundSocket, String> {
    if let Some(directory) = config.admin_socket.parent() {
        private_directory(directory).map_err(|e| e.to_string())?;
    }
    BoundSocket::bind(&config.admin_socket, 0o600).map_err(|e| e.to_string())
}
