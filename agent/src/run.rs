//! Putting the agent together, and taking it down: streams end, sockets go, then the process.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use signet_runtime::http::{Exposed, Readiness};
use signet_runtime::shutdown::{Tasks, signalled};
use signet_runtime::socket::{BoundSocket, private_directory};
use signet_runtime::{Clock, SystemClock};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;

use crate::admin::{self, Admin};
use crate::attest::{self, Attestor};
use crate::bundle_watch::{self, BundleWatch};
use crate::ca_client::CaClient;
use crate::calls::Calls;
use crate::config::Config;
use crate::jwt_cache::JwtCache;
use crate::keeper::{self, Ask, Keeper};
use crate::metrics::Metrics;
use crate::output;
use crate::policy::serve::PolicyService;
use crate::policy::{self, Policies};
use crate::sds::streams::Streams;
use crate::sds::{self, Sds};
use crate::svids::{Keeping, Shelves, Whose};
use crate::workload_api::{WorkloadApi, reflection};
use crate::workload_socket::{Doorkeeper, incoming};

/// Most streams of one connection. Envoy uses one per secret name.
const MAX_STREAMS_PER_CONNECTION: u32 = 1_024;
/// Bytes of a connection, and of each of its streams, that are received before anybody asked for them: what the
/// protocol begins with (RFC 9113 §6.9.2), and it cannot be less. Nobody here sends much.
const WINDOW: u32 = 65_535;
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

/// What the parts have in common.
#[derive(Clone)]
struct Shared {
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    attestor: Attestor,
    tasks: Tasks,
}

impl Shared {
    /// Whether the agent keeps its own SVID only.
    fn own(&self) -> bool {
        matches!(self.config.attestor, attest::Settings::Own { .. })
    }
}

async fn start(config: &Config, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<(), String> {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::waiting_for(&conditions(config));
    let exposed = Exposed::new(registry, readiness.clone());
    let metrics_address = signet_runtime::http::serve(config.metrics_listen, exposed, tasks)
        .await
        .map_err(|e| e.to_string())?;
    let workload_socket = bind_workload(config)?;
    let admin_socket = bind_admin(config)?;
    readiness.holds(SOCKET);
    let attestor = Attestor::start(
        config.attestor.clone(),
        &config.trust_domain,
        &clock,
        tasks,
        &metrics,
    )
    .await?;
    let shared = Shared {
        config: Arc::new(config.clone()),
        clock,
        metrics: metrics.clone(),
        readiness,
        attestor: attestor.clone(),
        tasks: tasks.clone(),
    };
    let streams = Streams::new(metrics.clone());
    let (keeping, shelves) = Shelves::new(config.trust_domain.clone());
    let (asks, ca) = keep(&shared, keeping)?;
    let policies = policies(&shared).await?;
    let services = services(&shared, &shelves, &streams, (ca, policies.clone()))?;
    serve(
        workload_socket,
        (
            Doorkeeper::new(attestor, metrics.clone()),
            Calls::new(metrics.clone()),
        ),
        services,
        tasks,
    );
    let pages = pages(&shared, (shelves, policies), streams, asks, metrics_address);
    tasks.spawn(admin::serve(admin_socket, pages, metrics));
    tracing::info!(
        socket = %config.workload.socket.display(), metrics_address = %metrics_address,
        ca_address = config.ca.address(), trust_domain = %config.trust_domain,
        attestor = config.attestor_name(), "agent started"
    );
    Ok(())
}

/// What must hold before the agent is ready. Workloads other than itself may come and go, so it does
/// not wait for any SVID of theirs.
fn conditions(config: &Config) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![(SOCKET, "the workload socket is not bound yet")];
    all.push(match config.attestor {
        attest::Settings::Own { .. } => (keeper::READY, "the CA has not answered yet"),
        _ => (bundle_watch::READY, "the CA has not answered yet"),
    });
    if let attest::Settings::Kubernetes { .. } = config.attestor {
        all.push((keeper::PODS, "the pods of this node are not listed yet"));
    }
    if config.policies.is_some() {
        all.push((policy::keeper::READY, "the policies are not known yet"));
    }
    all
}

/// Starts what keeps SVIDs and bundles; answers where renewals are asked for, and the way to the CA.
fn keep(shared: &Shared, keeping: Keeping) -> Result<(mpsc::Sender<Ask>, CaClient), String> {
    let Shared {
        config,
        tasks,
        metrics,
        ..
    } = shared;
    let (newest, trust) = watch::channel(None);
    let ca = CaClient::new(
        Arc::new(config.ca.clone()),
        config.trust_domain.clone(),
        trust.clone(),
        Arc::clone(&shared.clock),
        metrics.clone(),
    )?;
    let watch = BundleWatch {
        ca: ca.clone(),
        domain: config.trust_domain.clone(),
        newest,
        metrics: metrics.clone(),
        readiness: (!shared.own()).then(|| shared.readiness.clone()),
    };
    tasks.spawn_essential("bundle watch", watch.run());
    tasks.spawn_essential("root file", ca.clone().follow_root_file());
    if let Some(output) = config.output.clone() {
        let view = keeping.shelves().view_of(vec![(Whose::Own, None)]);
        tasks.spawn_essential("output", output::follow(view, output, metrics.clone()));
    }
    let (asks, asked) = mpsc::channel(MAX_ASKS);
    let keeper = Keeper::new(keeper::Parts {
        ca: ca.clone(),
        ttl: config.svid_ttl,
        trust,
        wanted: (!shared.own()).then(|| shared.attestor.wanted()),
        shelves: keeping,
        asks: asked,
        clock: Arc::clone(&shared.clock),
        metrics: metrics.clone(),
        readiness: shared.readiness.clone(),
    });
    tasks.spawn_essential("keeper", keeper.run());
    Ok((asks, ca))
}

/// Starts what follows policies, if any are configured.
async fn policies(shared: &Shared) -> Result<Option<Policies>, String> {
    let Some(settings) = shared.config.policies.clone() else {
        return Ok(None);
    };
    let mesh = policy::Mesh {
        domain: shared.config.trust_domain.clone(),
        settings,
    };
    let parts = policy::keeper::Parts {
        clock: Arc::clone(&shared.clock),
        metrics: shared.metrics.clone(),
        readiness: shared.readiness.clone(),
    };
    policy::start(mesh, parts, &shared.tasks).await.map(Some)
}

/// What is served on the workload socket.
fn services(
    shared: &Shared,
    shelves: &Shelves,
    streams: &Arc<Streams>,
    (ca, policies): (CaClient, Option<Policies>),
) -> Result<Routes, String> {
    let Shared {
        clock,
        metrics,
        tasks,
        attestor,
        ..
    } = shared;
    let tokens = JwtCache::new(
        Arc::new(ca),
        shelves.clone(),
        shared.config.jwt_svid_ttl,
        Arc::clone(clock),
        metrics.clone(),
    );
    let cleaning = tokens.clone().keep_clean(attestor.wanted());
    tasks.spawn_essential("token cache", cleaning);
    let parts = sds::Parts {
        attestor: attestor.clone(),
        shelves: shelves.clone(),
        streams: Arc::clone(streams),
        shutdown: tasks.token(),
    };
    let workload_api = WorkloadApi::new(parts.clone(), tokens, Arc::clone(clock), metrics.clone());
    Ok(Routes::new(Sds::new(parts.clone()))
        .add_service(workload_api)
        .add_service(PolicyService::new(parts, policies, metrics.clone()))
        .add_service(reflection::v1(tasks.token())?)
        .add_service(reflection::v1alpha(tasks.token())?))
}

fn pages(
    shared: &Shared,
    (shelves, policies): (Shelves, Option<Policies>),
    streams: Arc<Streams>,
    asks: mpsc::Sender<Ask>,
    metrics_address: SocketAddr,
) -> Admin {
    let config = &shared.config;
    Admin {
        attestor_name: config.attestor_name(),
        attestor: shared.attestor.clone(),
        socket: config.workload.socket.clone(),
        metrics_address: metrics_address.to_string(),
        ca_address: config.ca.address(),
        ca_deadline: config.ca.deadline,
        readiness: shared.readiness.clone(),
        shelves,
        policies,
        asks,
        streams,
        clock: Arc::clone(&shared.clock),
        shutdown: shared.tasks.token(),
    }
}

fn serve(socket: BoundSocket, (doorkeeper, calls): (Doorkeeper, Calls), services: Routes, tasks: &Tasks) {
    let token = tasks.token();
    let essential = tasks.essential("workload socket");
    tasks.spawn(async move {
        let _essential = essential;
        let served = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(16 * 1024)
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .layer(calls)
            .add_routes(services)
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
