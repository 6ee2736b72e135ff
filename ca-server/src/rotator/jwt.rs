//! The driver of [`crate::jwt_rotation`]: makes keys, stores what comes out, puts it in force.

use std::sync::Arc;

use signet_certs::lifetime::plus;
use signet_certs::verify::verify_authority;
use signet_certs::{JwtAuthority, SigningKey, UnixTime};

use super::{KEY_FILE_POLL, RETRY, RotateError, Rotator};
use crate::jwt_keys::JwtKeys;
use crate::jwt_rotation::{Action, Event, Policy, step};
use crate::jwt_source::JwtSource;
use crate::metrics::Metrics;
use crate::slots::Slots;
use crate::state::CaState;
use crate::store::StoreError;

/// More steps than any change needs.
const MOST_STEPS: usize = 64;
/// Replicas that start together give way to each other at most this often.
const CONFLICTS: usize = 10;

impl Rotator {
    /// As [`Rotator::settle`], adopting what another replica was faster to store.
    pub(super) async fn settle_at_start(
        &self,
        state: &CaState,
        jwt: &JwtSource,
    ) -> Result<CaState, RotateError> {
        let mut state = state.clone();
        for _ in 0..CONFLICTS {
            match self.settle(&state, jwt).await {
                Ok((settled, _)) => return Ok(settled),
                Err(RotateError::Store(StoreError::Conflict { .. })) => {
                    state = self.store.load(&self.domain).await?.ok_or(RotateError::NoKey)?;
                }
                Err(error) => return Err(error),
            }
        }
        let place = self.store.place();
        Err(StoreError::Conflict { place }.into())
    }

    /// Steps until there is nothing to do, storing each change; answers when there is again.
    async fn settle(&self, state: &CaState, jwt: &JwtSource) -> Result<(CaState, UnixTime), RotateError> {
        let mut state = state.clone();
        let mut event = Event::Woke;
        for _ in 0..MOST_STEPS {
            let now = self.clock.now();
            let (keys, action) = step(state.jwt().clone(), event, &jwt.supply(), &self.jwt, now);
            event = match action {
                Action::WakeAt(time) => return Ok((state, time)),
                Action::Make => Event::Made(fresh()?),
                Action::Store(change) => {
                    let next = state.with_jwt(keys)?;
                    self.store.update(&state, &next).await?;
                    state = next;
                    Metrics::count(&self.metrics.trust.jwt_rotations, change.as_str());
                    tracing::info!(
                        outcome = change.as_str(),
                        sequence = state.bundle().sequence(),
                        kid = state.jwt().active().map(|entry| entry.key.kid()),
                        "JWT authorities changed"
                    );
                    Event::Woke
                }
            };
        }
        Err(RotateError::Restless)
    }

    /// Settles and puts the outcome in force; answers when the next change is due.
    pub(super) async fn turn_jwt(&self, state: &mut CaState, jwt: &JwtSource, slots: &Slots) -> UnixTime {
        let retry = plus(self.clock.now(), RETRY);
        match self.settle(state, jwt).await {
            Ok((settled, due)) => {
                let changed = !settled.same(state);
                *state = settled;
                if changed || slots.current().jwt.is_none() {
                    self.republish(state, jwt, slots);
                }
                due
            }
            // What the other process wrote comes through the watch of the store.
            Err(RotateError::Store(StoreError::Conflict { .. })) => {
                Metrics::count(&self.metrics.trust.jwt_rotations, "conflict");
                tracing::debug!("another replica changed the JWT authorities first");
                retry
            }
            Err(error) => {
                Metrics::count(&self.metrics.trust.jwt_rotations, "failed");
                tracing::error!(%error, "JWT authorities not changed; those in force stay");
                retry
            }
        }
    }

    /// Puts the bundle and the JWT authority of `state` in force beside the issuing authority in use, whose
    /// roots it shares.
    pub(super) fn republish(&self, state: &CaState, jwt: &JwtSource, slots: &Slots) {
        let current = slots.current();
        if let Err(error) = verify_authority(&current.issuing, state.bundle(), self.clock.now()) {
            Metrics::count(&self.metrics.trust.jwt_rotations, "failed");
            tracing::error!(%error, "JWT authorities not changed; those in force stay");
            return;
        }
        let next = current
            .with_bundle(self.bundle(state))
            .with_jwt(signing(state, jwt));
        self.show(&next, state);
        if !slots.publish(next) {
            Metrics::count(&self.metrics.rotations, "older");
            tracing::error!(reason = "jwt", "an older bundle was offered and refused");
        }
    }

    /// Ends when the operator's file has new contents; never without one.
    pub(super) async fn key_file_changed(&self, jwt: &mut JwtSource) {
        if matches!(jwt, JwtSource::Own) {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(KEY_FILE_POLL).await;
            match jwt.poll() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    Metrics::count(&self.metrics.trust.jwt_rotations, "key_file");
                    tracing::error!(%error, "the file of JWT keys cannot be used; its last good keys stay");
                }
            }
        }
    }
}

/// The JWT authorities of a trust domain that begins.
///
/// # Errors
/// When no key can be made.
pub fn first_keys(jwt: &JwtSource, policy: &Policy, now: UnixTime) -> Result<JwtKeys, RotateError> {
    let (mut keys, mut event) = (JwtKeys::default(), Event::Woke);
    for _ in 0..MOST_STEPS {
        let (next, action) = step(keys, event, &jwt.supply(), policy, now);
        keys = next;
        event = match action {
            Action::WakeAt(_) => return Ok(keys),
            Action::Make => Event::Made(fresh()?),
            Action::Store(_) => Event::Woke,
        };
    }
    Err(RotateError::Restless)
}

fn fresh() -> Result<Arc<JwtAuthority>, RotateError> {
    let key = SigningKey::generate().map_err(signet_certs::jwt::JwtKeyError::Key)?;
    Ok(Arc::new(JwtAuthority::new(Arc::new(key))?))
}

/// The authority that signs under `state`: its private half is at hand, and what it signs verifies by
/// the key published (I6).
pub(super) fn signing(state: &CaState, jwt: &JwtSource) -> Option<Arc<JwtAuthority>> {
    let active = state.jwt().active()?;
    let authority = active.own.clone().or_else(|| jwt.find(&active.key))?;
    authority.is_verified_by(&active.key).then_some(authority)
}
