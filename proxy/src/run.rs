//! Putting the proxy together, and taking it down.

use std::future::Future;
use std::sync::Arc;

use signet_runtime::clock::TlsTime;
use signet_runtime::http::{Exposed, Readiness};
use signet_runtime::shutdown::{Tasks, signalled};
use signet_runtime::{Clock, SystemClock};

use crate::accept::{self, Ready};
use crate::admin::{self, Pages};
use crate::config::Config;
use crate::connections::Connections;
use crate::handshake::Acceptor;
use crate::http::metrics::HttpMetrics;
use crate::http::pool::Pools;
use crate::keys::{Keys, Shelf};
use crate::metrics::Metrics;
use crate::outbound::Dialer;
use crate::policy_source;
use crate::probes::{self, ProbeMetrics};
use crate::sds_client::{self, SdsClient};
use crate::servers::Servers;
use crate::shared::Shared;
use crate::tidy;
use crate::vigil;

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
    let workers = usize::from(config.workers);
    // One thread needs no stealing of work between threads, and is the cheaper for it.
    let mut builder = if workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder
        .worker_threads(workers)
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
/// A sentence when it cannot start: an address that cannot be bound.
pub async fn run(
    config: Config,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let tasks = Tasks::new();
    let drain = config.drain;
    let mut outcome = start(config, clock, &tasks).await;
    if outcome.is_ok() {
        tokio::select! {
            () = stop => {}
            lost = tasks.lost() => outcome = Err(format!("the {lost} task ended; the log tells why")),
        }
    }
    if !tasks.drain(drain).await {
        tracing::warn!("some connections did not end in time");
    }
    outcome
}

async fn start(config: Config, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<(), String> {
    let config = Arc::new(config);
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Metrics::new(&mut registry, &config.local);
    let http = Pools::new(HttpMetrics::new(&mut registry, &metrics.census));
    let probes = ProbeMetrics::new(&mut registry);
    let servers = Servers::new(&config, &mut registry, &clock, tasks)?;
    let readiness = Readiness::waiting_for(&[
        (policy_source::READY, "no policies were read yet"),
        (sds_client::READY, "the agent has not sent an SVID yet"),
    ]);
    let exposed = Exposed::new(registry, readiness.clone());
    let metrics_address = signet_runtime::http::serve(config.metrics_listen, exposed, tasks)
        .await
        .map_err(|e| e.to_string())?;
    let listeners = accept::bind(&config)?;
    if let Some(asked) = &config.probes {
        let address = probes::serve(asked, probes, tasks).await?;
        tracing::info!(%address, "probes of the application are answered");
    }
    let (admin_listener, admin_address) = admin::bind(config.admin_listen).await?;
    let keys = follow_keys(&config, &clock, &metrics, &readiness, tasks);
    let time = TlsTime(Arc::clone(&clock));
    let source = policy_source::Parts {
        clock: Arc::clone(&clock),
        metrics: metrics.policies.clone(),
        issuers: servers.issuers,
        readiness: readiness.clone(),
    };
    let policies = policy_source::start(&config, source, tasks);
    let shared = Arc::new(Shared {
        policies: policies.policies,
        acceptor: Acceptor::new(keys.clone(), Arc::clone(&clock), config.tls12),
        connections: Connections::new(metrics.connections_open.clone()),
        dialer: Dialer::new(keys.clone(), time, config.tls12),
        keys,
        asker: servers.asker,
        tokens: servers.tokens,
        http,
        metrics,
        clock,
        drain: tasks.token(),
        config,
    });
    let pages = Arc::new(Pages {
        listeners: listeners.iter().map(Ready::bound).collect(),
        policies: policies.status,
        since: shared.clock.now(),
        shared: Arc::clone(&shared),
    });
    for bound in &pages.listeners {
        tracing::info!(
            direction = bound.direction.as_str(), address = %bound.address,
            upstream = bound.upstream.as_deref(), "listening"
        );
    }
    if let Some(socket) = &shared.config.admin_socket {
        admin::questions::serve(socket, &pages, tasks)?;
    }
    admin::serve(admin_listener, pages, tasks);
    for listener in listeners {
        listener.serve(&shared, tasks);
    }
    let (swept, idle) = (Arc::clone(&shared), shared.config.limits.http.upstream_idle);
    tasks.spawn_until_shutdown(async move { swept.http.sweep_for_ever(idle).await });
    tasks.spawn_essential("vigil", vigil::keep(Arc::clone(&shared)));
    let workers = usize::from(shared.config.workers);
    tasks.spawn_until_shutdown(tidy::for_ever(shared.connections.clone(), workers));
    tracing::info!(metrics_address = %metrics_address, admin_address = %admin_address, "proxy started");
    Ok(())
}

/// Starts what fetches our SVID and the bundles from the agent.
fn follow_keys(
    config: &Arc<Config>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Keys {
    let (shelf, keys) = Shelf::new(config.trust_domain.clone());
    let client = SdsClient::new(
        Arc::clone(config),
        shelf,
        Arc::clone(clock),
        metrics.clone(),
        readiness.clone(),
    );
    tasks.spawn_essential("secrets", client.run(tasks.token()));
    keys
}
