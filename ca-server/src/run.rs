//! Start-up, the order of it, and the end.

mod authorities;
mod conditions;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use signet_runtime::clock::TlsTime;
use signet_runtime::http::{Exposed, Readiness};
use signet_runtime::shutdown::{Tasks, signalled};
use signet_runtime::{Clock, SystemClock};
use tokio::net::TcpListener;

use crate::admin::{self, Admin};
use crate::authn::Authenticator;
use crate::authn::jwks::Jwks;
use crate::authn::review::Reviewer;
use crate::authorizer::{Authorizer, Gate, Pods};
use crate::bundle_service::Bundles;
use crate::config::Config;
use crate::jwt_service::Minting;
use crate::listener;
use crate::metrics::Metrics;
use crate::pod_index::PodView;
use crate::pod_lookup::Lookups;
use crate::pod_watch::{self, PodWatch};
use crate::publisher::Publisher;
use crate::rotator::Rotator;
use crate::serve::{CALL_DEADLINE, Server};
use crate::service::Issuing;
use crate::serving::Serving;
use crate::shares::Shares;
use crate::slots::Slots;
use crate::trust::Surroundings;
use authorities::{Rotating, authorities};
use conditions::{SELF_TEST, TOKEN_REVIEW, pass_self_test, wait_for_review};

/// Runs the CA until it is told to stop.
///
/// # Errors
/// A sentence for the operator.
pub fn main(config: Config, new_root: bool) -> Result<(), String> {
    signet_runtime::logs::init(config.logs.0, &crate::audit::with_records(&config.logs.1))?;
    for fault in signet_runtime::harden::process() {
        tracing::warn!(error = fault, "process not hardened");
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a crypto provider is installed already".to_owned())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("start runtime: {e}"))?;
    runtime.block_on(run(config, new_root))
}

async fn run(config: Config, new_root: bool) -> Result<(), String> {
    let config = Arc::new(config);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let tasks = Tasks::new();
    let stop = signalled();
    let readiness = Readiness::waiting_for(&[
        (SELF_TEST, "the first self-test has not run yet"),
        (TOKEN_REVIEW, "the API server has not answered a TokenReview yet"),
    ]);
    let exposed = Exposed::new(registry, readiness.clone());
    let metrics_bound = signet_runtime::http::serve(config.endpoints.metrics, exposed, &tasks)
        .await
        .map_err(|e| e.to_string())?;
    let started = async {
        let client = client(&config).await?;
        let (slots, rotator, rotating) = authorities(&config, &client, new_root, &clock, &metrics).await?;
        let bound = serve(
            &config,
            client,
            slots,
            (rotator, rotating),
            readiness,
            metrics_bound,
            &clock,
            &metrics,
            &tasks,
        )
        .await?;
        tracing::info!(address = %bound, metrics = %metrics_bound, trust_domain = %config.trust_domain, "serving");
        Ok::<_, String>(())
    };
    tokio::pin!(stop);
    tokio::select! {
        done = started => done?,
        signal = &mut stop => {
            let signal = signal.map_err(|e| format!("signals: {e}"))?;
            tracing::info!(signal, "stopped while starting");
            tasks.drain(config.drain).await;
            return Ok(());
        }
    }
    let ended = tokio::select! {
        signal = stop => {
            let signal = signal.map_err(|e| format!("signals: {e}"))?;
            tracing::info!(signal, "draining");
            Ok(())
        }
        lost = tasks.lost() => Err(format!("the {lost} task ended; the log tells why")),
    };
    if !tasks.drain(config.drain).await {
        tracing::warn!("drain deadline passed; calls under way were cut");
    }
    ended
}

async fn client(config: &Config) -> Result<kube::Client, String> {
    let mut loaded = match &config.kubeconfig {
        None => kube::Config::incluster().map_err(|e| {
            format!("not in a cluster ({e}); set kubeconfig to a file that reaches the API server")
        })?,
        Some(path) => {
            let named = |e: kube::config::KubeconfigError| format!("kubeconfig {}: {e}", path.display());
            let file = kube::config::Kubeconfig::read_from(path).map_err(named)?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
                .await
                .map_err(named)?
        }
    };
    // Our own deadlines and backoff decide; a library's hidden retries would multiply reviews.
    loaded.default_retry = false;
    kube::Client::try_from(loaded).map_err(|e| format!("kubernetes client: {e}"))
}

#[expect(clippy::too_many_arguments, reason = "the one place where everything meets")]
async fn serve(
    config: &Arc<Config>,
    client: kube::Client,
    slots: Slots,
    (rotator, rotating): (Rotator, Rotating),
    readiness: Readiness,
    metrics_bound: std::net::SocketAddr,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<std::net::SocketAddr, String> {
    let limits = &config.limits;
    let serving = Serving::start(config, &slots.current(), clock.now())?;
    let tls = signet_certs::tls::server_config(
        Arc::new(serving.clone()),
        Arc::new(slots.clone()),
        false,
        &[b"h2"],
        Arc::new(TlsTime(Arc::clone(clock))),
    )
    .map_err(|e| format!("tls: {e}"))?;
    let listener = TcpListener::bind(config.endpoints.grpc)
        .await
        .map_err(|e| format!("bind listen address {}: {e}", config.endpoints.grpc))?;
    let bound = listener.local_addr().map_err(|e| e.to_string())?;
    let reviewer = Reviewer::new(
        client.clone(),
        &config.audiences,
        limits.review_timeout,
        limits.reviews,
        metrics.clone(),
    );
    let jwks = Jwks::of(client.clone(), metrics.clone());
    let authenticator = Authenticator::new(
        &config.audiences,
        jwks,
        reviewer,
        Arc::clone(clock),
        metrics.clone(),
    );
    let authorizer = authorizer(config, &client, clock, &readiness, metrics, tasks);
    let surroundings = Surroundings {
        config,
        slots: &slots,
        clock,
        metrics,
        tasks,
    };
    let foreign = surroundings.federate(&rotator.store).await;
    let trust_bound = surroundings.serve(&serving).await?;
    let admin = Admin {
        config: Arc::clone(config),
        slots: slots.clone(),
        foreign: foreign.clone(),
        authenticator: authenticator.clone(),
        readiness: readiness.clone(),
        bound: (bound, metrics_bound),
        trust_bound,
    };
    admin::prepare(&config.endpoints.admin).map_err(|e| e.to_string())?;
    signet_runtime::http::serve_admin(&config.endpoints.admin, admin.router(), tasks)
        .map_err(|e| e.to_string())?;
    let tested = pass_self_test(
        Arc::clone(config),
        slots.clone(),
        Arc::clone(clock),
        readiness.clone(),
    );
    tasks.spawn_until_shutdown(tested);
    tasks.spawn_essential(
        "serving certificate",
        serving.run(slots.clone(), Arc::clone(clock), metrics.clone()),
    );
    tasks.spawn_essential(
        "rotator",
        rotator.run(rotating.state, rotating.jwt, slots.clone()),
    );
    tasks.spawn_until_shutdown(wait_for_review(authenticator.clone(), readiness));
    if config.publishing.enabled {
        let publisher = Publisher::new(client, &config.publishing.configmaps, metrics.clone());
        tasks.spawn_essential("publisher", publisher.run(slots.clone()));
    }
    let gate = Gate {
        authenticator,
        authorizer,
    };
    let minting = Minting::new(
        gate.clone(),
        slots.clone(),
        Arc::clone(config),
        Arc::clone(clock),
        metrics.clone(),
    );
    let issuing = Issuing::new(
        gate,
        slots.clone(),
        Arc::clone(config),
        Arc::clone(clock),
        metrics.clone(),
    );
    let bundles = Bundles::new(slots, foreign, tasks.clone(), metrics.clone());
    let server = Server::new(issuing, minting, bundles, limits.connection_age, metrics.clone());
    listener::accept(
        listener,
        Arc::new(tls),
        Shares::new(limits.connections, limits.connections_per_address),
        Arc::new(server),
        tasks,
        metrics.clone(),
    );
    Ok(bound)
}

/// Who may have what. Pods are watched, and readiness waits for them, only where accounts are trusted.
fn authorizer(
    config: &Config,
    client: &kube::Client,
    clock: &Arc<dyn Clock>,
    readiness: &Readiness,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Authorizer {
    let (domain, clock) = (config.trust_domain.clone(), Arc::clone(clock));
    if config.node_accounts.is_empty() {
        return Authorizer::own_only(domain, clock);
    }
    let view = PodView::default();
    readiness.lacks(pod_watch::CONDITION, "the pods have not been listed yet");
    let watch = PodWatch::new(
        client.clone(),
        view.clone(),
        Arc::clone(&clock),
        readiness.clone(),
        metrics.clone(),
    );
    tasks.spawn_essential("watch of pods", watch.run());
    let lookups = Lookups::new(
        client.clone(),
        lookup_deadline(config.limits.review_timeout),
        metrics.clone(),
    );
    let pods = Pods { view, lookups };
    Authorizer::with_nodes(domain, config.node_accounts.clone(), pods, clock)
}

/// What a call has left for each of two lookups after a review that waited and was answered late.
fn lookup_deadline(review: Duration) -> Duration {
    let left = CALL_DEADLINE.saturating_sub(review * 2 + Duration::from_secs(1));
    review.min(left / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_and_two_lookups_end_before_the_call_does() {
        for review in [100, 300, 5_000, 9_000].map(Duration::from_millis) {
            let lookup = lookup_deadline(review);
            assert!(
                !lookup.is_zero() && review * 2 + lookup * 2 < CALL_DEADLINE,
                "{review:?}"
            );
        }
    }
}
