//! What the CA starts from: the root it finds or makes, and the issuing authority below it.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{Authority, SigningKey};
use signet_runtime::Clock;
use signet_runtime::backoff::{Backoff, random_share};

use crate::config::{Config, StateAt};
use crate::jwt_rotation::Policy;
use crate::jwt_source::JwtSource;
use crate::metrics::Metrics;
use crate::publisher::{Published, already_published};
use crate::rotator::{Rotator, first_keys};
use crate::slots::{Slots, Snapshot};
use crate::state::CaState;
use crate::store::Store;
use crate::store::file::FileStore;
use crate::store::secret::SecretStore;

/// Finds or makes the root, and makes the issuing authority below it.
pub(super) async fn authorities(
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
pub(super) struct Rotating {
    pub(super) state: CaState,
    pub(super) jwt: JwtSource,
}

fn jwt_policy(config: &Config) -> Policy {
    let jwt = &config.trust.jwt;
    Policy::new(config.lifetimes.refresh_hint, jwt.key_life, jwt.ttl.max)
}

/// At start an API server may be away for a moment.
const PATIENCE: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(10),
};

/// What was published before, as soon as the API server tells. A ConfigMap that makes no sense is no matter
/// of patience.
async fn published_patiently(client: &kube::Client, config: &Config) -> Result<Option<Published>, String> {
    let mut attempt = 0;
    loop {
        match already_published(client, &config.publishing.configmaps, &config.trust_domain).await {
            Ok(published) => return Ok(published),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, attempt, "published roots cannot be looked for yet; trying again");
                tokio::time::sleep(PATIENCE.delay(attempt, random_share())).await;
                attempt += 1;
            }
            Err(error) => {
                return Err(format!(
                    "cannot tell whether there has been a root before: {error}"
                ));
            }
        }
    }
}

/// The state, as soon as it can be read. A damaged one is no matter of patience.
async fn load_patiently(store: &Store, config: &Config) -> Result<Option<CaState>, String> {
    let mut attempt = 0;
    loop {
        match store.load(&config.trust_domain).await {
            Ok(state) => return Ok(state),
            Err(error) if error.is_transient() => {
                tracing::warn!(place = %store.place(), %error, attempt, "state cannot be read yet; trying again");
                tokio::time::sleep(PATIENCE.delay(attempt, random_share())).await;
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
    let published = published_patiently(client, config).await?;
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
