//! The driver of [`crate::jwt_rotation`]: makes keys, stores what comes out, puts it in force.

use std::sync::Arc;

use signet_certs::lifetime::plus;
use signet_certs::verify::verify_authority;
use signet_certs::{JwtAuthority, SigningKey, UnixTime};

use super::{RETRY, RotateError, Rotator};
use crate::jwt_keys::{Entry, JwtKeys};
use crate::jwt_rotation::{Action, Change, Event, Policy, signs_until, step};
use crate::jwt_source::JwtSource;
use crate::metrics::Metrics;
use crate::slots::Slots;
use crate::state::CaState;
use crate::store::StoreError;

/// More steps than any change needs.
const MOST_STEPS: usize = 64;
/// Replicas that start together give way to each other at most this often.
const CONFLICTS: usize = 10;

/// The source of keys, and what of it the state does not say yet.
pub(super) struct Supplied {
    pub(super) source: JwtSource,
    /// Whether the file changed and the keys are not in line with it yet.
    news: bool,
    /// The fault of the file told last.
    fault: Option<String>,
    /// The key that signs and is not at hand here, once that was told.
    missed: Option<String>,
}

impl Supplied {
    /// After [`Rotator::start`], which brought the keys in line.
    pub(super) fn by(source: JwtSource) -> Self {
        Self {
            source,
            news: false,
            fault: None,
            missed: None,
        }
    }

    /// Reads the operator's file again. Says whether it changed.
    pub(super) fn read(&mut self, metrics: &Metrics) -> bool {
        let changed = match self.source.poll() {
            Ok(changed) => {
                if changed {
                    self.fault = None;
                }
                changed
            }
            Err(error) => {
                let fault = error.to_string();
                if self.fault.as_ref() != Some(&fault) {
                    Metrics::count(&metrics.trust.jwt_rotations, "key_file");
                    tracing::error!(%error, "the file of JWT keys cannot be used; its last good keys stay");
                    self.fault = Some(fault);
                }
                false
            }
        };
        self.news |= changed;
        changed
    }
}

impl Rotator {
    /// As [`Rotator::settle`], adopting what another replica was faster to store.
    pub(super) async fn settle_at_start(
        &self,
        state: &CaState,
        jwt: &JwtSource,
    ) -> Result<CaState, RotateError> {
        let mut state = state.clone();
        for _ in 0..CONFLICTS {
            match self.settle(&state, jwt, &Event::Supplied).await {
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

    /// Brings the keys to rest and stores them, all changes in one write; answers when there is something
    /// to do again.
    async fn settle(
        &self,
        state: &CaState,
        jwt: &JwtSource,
        why: &Event,
    ) -> Result<(CaState, UnixTime), RotateError> {
        let (supply, now) = (jwt.supply(), self.clock.now());
        let rest = rest(state.jwt().clone(), why, |keys, event| {
            step(keys, event, &supply, &self.jwt, now)
        })?;
        if rest.changes.is_empty() {
            return Ok((state.clone(), rest.until));
        }
        let next = state.with_jwt(rest.keys)?;
        self.store.update(state, &next).await?;
        for change in rest.changes {
            Metrics::count(&self.metrics.trust.jwt_rotations, change.as_str());
            tracing::info!(
                outcome = change.as_str(),
                sequence = next.bundle().sequence(),
                kid = next.jwt().active().map(|entry| entry.key.kid()),
                "JWT authorities changed"
            );
        }
        Ok((next, rest.until))
    }

    /// Reads the file, settles and puts the outcome in force; answers when the next change is due.
    pub(super) async fn turn_jwt(&self, state: &mut CaState, jwt: &mut Supplied, slots: &Slots) -> UnixTime {
        jwt.read(&self.metrics);
        let retry = plus(self.clock.now(), RETRY);
        let why = if jwt.news { Event::Supplied } else { Event::Woke };
        match self.settle(state, &jwt.source, &why).await {
            Ok((settled, due)) => {
                jwt.news = false;
                if let Some(active) = settled.jwt().active() {
                    jwt.source.signs(&active.key);
                }
                let changed = !settled.same(state);
                *state = settled;
                let signing = self.signing(state, &jwt.source, slots);
                self.tell_missed(state, jwt, signing.as_ref());
                let kid = |key: &Option<Arc<JwtAuthority>>| key.as_ref().map(|key| key.public().clone());
                if changed || kid(&signing) != kid(&slots.current().jwt) {
                    self.republish(state, &jwt.source, slots);
                }
                let ends = signing.and_then(|key| {
                    let entry = state.jwt().0.iter().find(|entry| entry.key == *key.public());
                    entry.and_then(|entry| signs_until(entry, &self.jwt))
                });
                ends.map_or(due, |ends| ends.min(due))
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

    /// Tells once of each key that signs and is not at hand here: the file of this replica is behind.
    fn tell_missed(&self, state: &CaState, jwt: &mut Supplied, signing: Option<&Arc<JwtAuthority>>) {
        let active = state.jwt().active().map(|entry| &entry.key);
        let signs = signing.map(|key| key.public());
        let missed = active
            .filter(|active| signs != Some(*active))
            .map(|key| key.kid());
        if let Some(kid) = missed
            && jwt.missed.as_deref() != missed
        {
            Metrics::count(&self.metrics.trust.jwt_rotations, "not_held");
            tracing::warn!(
                kid,
                "the JWT authority that signs is not at hand here; the one before signs on until its last token \
                 would outlive it. Is this replica's jwt_svid.key_file up to date?"
            );
        }
        jwt.missed = missed.map(str::to_owned);
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
            .with_jwt(self.signing(state, jwt, slots));
        self.show(&next, state);
        if !slots.publish(next) {
            Metrics::count(&self.metrics.rotations, "older");
            tracing::error!(reason = "jwt", "an older bundle was offered and refused");
        }
    }

    /// The authority that signs here under `state`: the active one, or for a while the one before it where
    /// the active one is not at hand.
    pub(super) fn signing(
        &self,
        state: &CaState,
        jwt: &JwtSource,
        slots: &Slots,
    ) -> Option<Arc<JwtAuthority>> {
        let now = self.clock.now();
        at_hand(state, jwt).or_else(|| {
            let before = slots.current().jwt.clone()?;
            let still = |entry: &&Entry| entry.key == *before.public();
            let entry = state.jwt().0.iter().find(still)?;
            let over = signs_until(entry, &self.jwt).is_some_and(|end| end <= now);
            (!over && before.is_verified_by(&entry.key)).then_some(before)
        })
    }
}

/// Keys that have nothing to do.
struct Rest {
    keys: JwtKeys,
    changes: Vec<Change>,
    until: UnixTime,
}

/// Steps until there is nothing to do.
fn rest(
    mut keys: JwtKeys,
    why: &Event,
    step: impl Fn(JwtKeys, Event) -> (JwtKeys, Action),
) -> Result<Rest, RotateError> {
    let (mut changes, mut event) = (Vec::new(), why.clone());
    for _ in 0..MOST_STEPS {
        let (next, action) = step(keys, event);
        keys = next;
        event = match action {
            Action::WakeAt(until) => return Ok(Rest { keys, changes, until }),
            Action::Make => Event::Made(fresh()?),
            Action::Store(change) => {
                changes.push(change);
                why.clone()
            }
        };
    }
    Err(RotateError::Restless)
}

/// The JWT authorities of a trust domain that begins.
///
/// # Errors
/// When no key can be made.
pub fn first_keys(jwt: &JwtSource, policy: &Policy, now: UnixTime) -> Result<JwtKeys, RotateError> {
    let supply = jwt.supply();
    let first = rest(JwtKeys::default(), &Event::Supplied, |keys, event| {
        step(keys, event, &supply, policy, now)
    })?;
    Ok(first.keys)
}

fn fresh() -> Result<Arc<JwtAuthority>, RotateError> {
    let key = SigningKey::generate().map_err(signet_certs::jwt::JwtKeyError::Key)?;
    Ok(Arc::new(JwtAuthority::new(Arc::new(key))?))
}

/// The active authority of `state`, if its private half is at hand and what it signs verifies by the key
/// published (I6).
pub(super) fn at_hand(state: &CaState, jwt: &JwtSource) -> Option<Arc<JwtAuthority>> {
    let active = state.jwt().active()?;
    let authority = active.own.clone().or_else(|| jwt.find(&active.key))?;
    authority.is_verified_by(&active.key).then_some(authority)
}
