//! Start-up, the order of it, and the end.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use signet_certs::verify::{Role, verify_chain};
use signet_certs::{Authority, LeafProfile, SigningKey, issue};
use signet_runtime::backoff::{Backoff, random_share};
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
use crate::config::{Config, StateAt};
use crate::jwt_rotation::Policy;
use crate::jwt_service::Minting;
use crate::jwt_source::JwtSource;
use crate::listener;
use crate::metrics::Metrics;
use crate::pod_index::PodView;
use crate::pod_lookup::Lookups;
use crate::pod_watch::{self, PodWatch};
use crate::publisher::{Publisher, already_published};
use crate::rotator::{Rotator, first_keys};
use crate::serve::{CALL_DEADLINE, Server};
use crate::service::Issuing;
use crate::serving::Serving;
use crate::slots::{Slots, Snapshot};
use crate::state::CaState;
use crate::store::Store;
use crate::store::file::FileStore;
use crate::store::secret::SecretStore;
use crate::trust::Surroundings;

const SELF_TEST: &str = "self_test";
const TOKEN_REVIEW: &str = "token_review";

/// Runs the CA until it is told to stop.
///
/// # Errors
/// A sentence for the operator.
pub fn main(config: Config, new_root: bool) -> Result<(), String> {
    signet_runtime::logs::init(config.logs.0, &config.logs.1)?;
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

/// Finds or makes the root, and makes the issuing authority below it.
async fn authorities(
    config: &Config,
    client: &kube::Client,
    new_root: bool,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<(Slots, Rotator, Rotating), String> {
    let store = match &config.state {
        StateAt::Directory(path) => Store::File(FileStore::open(path).map_err(|e| e.to_string())?),
        StateAt::Secret { namespace, name } => {
            Store::Secret(Box::new(SecretStore::new(client.clone(), namespace, name)))
        }
    };
    let jwt = JwtSource::open(config.trust.jwt.key_file.as_deref()).map_err(|e| e.to_string())?;
    let state = match load_patiently(&store, config).await? {
        Some(state) => state,
        None => first_state(config, client, new_root, (&store, &jwt), clock).await?,
    };
    let rotator = Rotator {
        domain: config.trust_domain.clone(),
        issuing_life: config.lifetimes.issuing,
        refresh_hint: config.lifetimes.refresh_hint,
        jwt: jwt_policy(config),
        plugged_in: config.plugged_in.clone(),
        store,
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
    };
    let (state, snapshot) = rotator.start(&state, &jwt).await.map_err(|e| e.to_string())?;
    check_lifetimes(config, &snapshot)?;
    tracing::info!(
        authority_id = %snapshot.issuing.id(),
        source = snapshot.source.as_str(),
        sequence = state.bundle().sequence(),
        "authority in use"
    );
    Ok((Slots::new(snapshot), rotator, Rotating { state, jwt }))
}

/// What the rotator starts from.
struct Rotating {
    state: CaState,
    jwt: JwtSource,
}

fn jwt_policy(config: &Config) -> Policy {
    let jwt = &config.trust.jwt;
    Policy::new(config.lifetimes.refresh_hint, jwt.key_life, jwt.ttl.max)
}

/// At start an API server may be away for a moment; a damaged state is no matter of patience.
async fn load_patiently(store: &Store, config: &Config) -> Result<Option<CaState>, String> {
    let backoff = Backoff {
        base: Duration::from_millis(500),
        cap: Duration::from_secs(10),
    };
    let mut attempt = 0;
    loop {
        match store.load(&config.trust_domain).await {
            Ok(state) => return Ok(state),
            Err(error) if error.is_transient() => {
                tracing::warn!(place = %store.place(), %error, attempt, "state cannot be read yet; trying again");
                tokio::time::sleep(backoff.delay(attempt, random_share())).await;
                attempt += 1;
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// A root is made only where there has never been one.
async fn first_state(
    config: &Config,
    client: &kube::Client,
    new_root: bool,
    (store, jwt): (&Store, &JwtSource),
    clock: &Arc<dyn Clock>,
) -> Result<CaState, String> {
    let published = already_published(client, &config.trust_domain)
        .await
        .map_err(|e| format!("cannot tell whether there has been a root before: {e}"))?;
    if let (Some(published), false) = (&published, new_root) {
        return Err(format!(
            "there is no state at {}, but configmap {} names a root that workloads trust. Restore the state \
             with `signet authority restore`, or start once with --new-root to replace that root, which cuts \
             off every workload until it has the new one",
            store.place(),
            published.place
        ));
    }
    // Agents and ConfigMaps keep the newest sequence they have seen: a new root must be newer.
    let last = published.map_or(0, |published| published.sequence);
    let state = if config.plugged_in.is_some() {
        let none = signet_certs::TrustBundle::new(config.trust_domain.clone(), Vec::new(), last);
        CaState::with_bundle(Arc::new(none.map_err(|e| e.to_string())?))
    } else {
        let key = Arc::new(SigningKey::generate().map_err(|e| e.to_string())?);
        let root = Authority::self_signed_root(&config.trust_domain, key, config.lifetimes.root, clock.now())
            .map_err(|e| e.to_string())?;
        CaState::with_root(&config.trust_domain, root, last.saturating_add(1)).map_err(|e| e.to_string())?
    };
    let keys = first_keys(jwt, &jwt_policy(config), clock.now()).map_err(|e| e.to_string())?;
    let state = state.born_with_jwt(keys).map_err(|e| e.to_string())?;
    let winner = store.create(&state).await.map_err(|e| e.to_string())?;
    let outcome = if winner.same(&state) { "created" } else { "adopted" };
    tracing::info!(place = %store.place(), outcome, "root of trust");
    Ok(winner)
}

/// The longest SVID must fit into half of what issues it.
fn check_lifetimes(config: &Config, snapshot: &Snapshot) -> Result<(), String> {
    let certificate = snapshot.issuing.certificate();
    let life = certificate
        .not_after()
        .as_secs()
        .saturating_sub(certificate.not_before().as_secs());
    let max = config.lifetimes.svid.max.as_secs();
    if max > life / 2 {
        return Err(format!(
            "max_svid_ttl is {max} s, more than half of the issuing authority's life of {life} s; lower it, or \
             plug in a CA that lives longer"
        ));
    }
    Ok(())
}

/// A leaf made now verifies under the bundle served now.
fn self_test(config: &Config, snapshot: &Snapshot, clock: &dyn Clock) -> Result<(), String> {
    let profile = LeafProfile {
        id: config.account.spiffe_id(&config.trust_domain),
        ttl: config.lifetimes.svid.min,
        min_left: Duration::from_secs(1),
        dns: Vec::new(),
    };
    let key = SigningKey::generate().map_err(|e| e.to_string())?;
    let now = clock.now();
    let chain = issue(&profile, key.public_key(), &snapshot.issuing, now).map_err(|e| e.to_string())?;
    verify_chain(&chain, &snapshot.bundle, Role::Server, now).map_err(|e| e.to_string())
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
    let bundles = Bundles::new(slots, foreign, minting, tasks.clone(), metrics.clone());
    listener::accept(
        listener,
        Arc::new(tls),
        limits.connections,
        Arc::new(Server::new(issuing, bundles)),
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

/// Tests until a leaf verifies once: again after every change of authorities.
async fn pass_self_test(config: Arc<Config>, slots: Slots, clock: Arc<dyn Clock>, readiness: Readiness) {
    let mut changes = slots.subscribe();
    loop {
        let snapshot = Arc::clone(&changes.borrow_and_update());
        match self_test(&config, &snapshot, clock.as_ref()) {
            Ok(()) => return readiness.holds(SELF_TEST),
            Err(error) => {
                tracing::error!(%error, "self-test failed");
                readiness.lacks(SELF_TEST, error);
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Asks until the API server answers a review once. Losing it later is an alarm, not unreadiness: all
/// replicas would leave together.
async fn wait_for_review(authenticator: Authenticator, readiness: Readiness) {
    let backoff = Backoff {
        base: Duration::from_millis(250),
        cap: Duration::from_secs(10),
    };
    for attempt in 0.. {
        match authenticator.probe().await {
            Ok(()) => return readiness.holds(TOKEN_REVIEW),
            Err(error) => {
                if attempt == 0 {
                    tracing::warn!(%error, "TokenReview not answered yet; not ready");
                }
                readiness.lacks(TOKEN_REVIEW, error.to_string());
            }
        }
        tokio::time::sleep(backoff.delay(attempt, random_share())).await;
    }
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
