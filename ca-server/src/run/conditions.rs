//! What must have held once before the CA is ready: a leaf verified, and a token was reviewed.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::verify::{Role, verify_chain};
use signet_certs::{LeafProfile, SigningKey, issue};
use signet_runtime::Clock;
use signet_runtime::backoff::{Backoff, random_share};
use signet_runtime::http::Readiness;

use crate::authn::Authenticator;
use crate::config::Config;
use crate::slots::{Slots, Snapshot};

pub(super) const SELF_TEST: &str = "self_test";
pub(super) const TOKEN_REVIEW: &str = "token_review";

/// Tests until a leaf verifies once: again after every change of authorities.
pub(super) async fn pass_self_test(
    config: Arc<Config>,
    slots: Slots,
    clock: Arc<dyn Clock>,
    readiness: Readiness,
) {
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
pub(super) async fn wait_for_review(authenticator: Authenticator, readiness: Readiness) {
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
