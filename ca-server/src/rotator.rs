//! The loop that keeps the authorities fresh: renews the issuing authority at half its life, rotates
//! the JWT authorities, follows the store, a plugged-in CA and the operator's JWT keys. It verifies
//! before it publishes, and keeps what is good when something new is not.

mod jwt;
mod signer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::lifetime::plus;
use signet_certs::verify::VerifyError;
use signet_certs::{TrustDomain, UnixTime};
use signet_runtime::Clock;
use signet_runtime::clock::sleep_until;
use tokio::sync::mpsc;

use crate::jwt_rotation::Policy;
use crate::jwt_source::JwtSource;
use crate::metrics::{Metrics, PhaseLabel, Role};
use crate::slots::{Slots, Snapshot, Source, follows};
use crate::state::{CaState, StateError};
use crate::store::{Seen, Store, StoreError};
pub use jwt::first_keys;
use jwt::{Supplied, at_hand};
use signer::PluggedFiles;

/// How long to wait after a renewal that failed.
const RETRY: Duration = Duration::from_secs(10);
/// How often the operator's file of JWT keys is looked at.
const KEY_FILE_POLL: Duration = Duration::from_secs(2);

/// Why there is no issuing authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// Making the authority failed.
    #[error(transparent)]
    Authority(#[from] signet_certs::authority::AuthorityError),
    /// It does not lead to the bundle.
    #[error("the new issuing authority does not verify: {0}")]
    Unverified(#[from] VerifyError),
    /// The state holds roots whose keys are elsewhere, and no CA is plugged in.
    #[error(
        "the state holds roots but no root key; set plugged_in_ca to the CA that has it, \
         or restore the state with `signet authority restore`"
    )]
    NoKey,
    /// The roots of a plugged-in CA changed to ones that share nothing with those in force.
    #[error(
        "the plugged-in roots share no root with those in force, so every workload would be cut off; \
         publish both first: put old and new into the root file, wait until all have renewed, then remove the old"
    )]
    Disjoint,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What would be stored makes no state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A JWT authority cannot be made.
    #[error("the new JWT authority cannot be made: {0}")]
    Jwt(#[from] signet_certs::jwt::JwtKeyError),
    /// The JWT authorities never come to rest, which their rules exclude.
    #[error("the JWT authorities do not come to rest")]
    Restless,
}

/// What may wake the loop.
enum Woken {
    /// Something about roots or the issuing authority, and why.
    Renew(Why),
    /// Something about JWT authorities.
    Jwt,
}

/// Why the issuing authority is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Half of its life is over, or the last try failed.
    Due,
    /// The files of the plugged-in CA changed, or changed before and could not be followed yet.
    Files,
    /// The stored state has other roots.
    State,
}

impl Why {
    /// A stable word.
    fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Files => "plugged_in",
            Self::State => "state",
        }
    }
}

/// What the rotator works with.
pub struct Rotator {
    /// Our trust domain.
    pub domain: TrustDomain,
    /// Life of an issuing authority.
    pub issuing_life: Duration,
    /// Hint for pollers of the bundle.
    pub refresh_hint: Duration,
    /// Times of the JWT authorities.
    pub jwt: Policy,
    /// Directory of a plugged-in CA.
    pub plugged_in: Option<PathBuf>,
    /// Where the state is kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

impl Rotator {
    /// Brings the state in line with a plugged-in CA and the source of JWT keys, and makes the first
    /// snapshot.
    ///
    /// # Errors
    /// A [`RotateError`].
    pub async fn start(&self, state: &CaState, jwt: &JwtSource) -> Result<(CaState, Snapshot), RotateError> {
        let state = self.settle_at_start(state, jwt).await?;
        let state = self.align(&state).await?;
        let snapshot = self.snapshot(&state, &self.signer(&state)?, at_hand(&state, jwt))?;
        self.show(&snapshot, &state);
        Ok((state, snapshot))
    }

    /// Runs until dropped.
    pub async fn run(self, mut state: CaState, jwt: JwtSource, slots: Slots) {
        let mut jwt = Supplied::by(jwt);
        let mut key_file = signer::ticks(KEY_FILE_POLL);
        let (tell, mut changes) = mpsc::channel(16);
        let mut following = std::pin::pin!(self.follow(tell));
        let mut files = PluggedFiles::new(self.plugged_in.as_ref());
        let mut offered = None;
        let mut behind = false;
        let mut due = slots.current().renew_at;
        let mut jwt_due = self.clock.now();
        loop {
            let woken = tokio::select! {
                () = sleep_until(self.clock.as_ref(), due) => Woken::Renew(Why::Due),
                () = sleep_until(self.clock.as_ref(), jwt_due) => Woken::Jwt,
                _ = key_file.tick() => match jwt.read(&self.metrics) {
                    true => Woken::Jwt,
                    false => continue,
                },
                () = &mut following => return,
                () = files.changed() => Woken::Renew(Why::Files),
                Some(seen) = changes.recv() => {
                    drop_overtaken(&mut offered, &seen, &state);
                    match self.adopt(seen, &state) {
                        None => continue,
                        Some(next) if next.same_roots(&state) => {
                            state = next;
                            self.republish(&state, &jwt.source, &slots);
                            Woken::Jwt
                        }
                        other => {
                            offered = other;
                            Woken::Renew(Why::State)
                        }
                    }
                }
            };
            match woken {
                Woken::Jwt => jwt_due = self.turn_jwt(&mut state, &mut jwt, &slots).await,
                Woken::Renew(why) => {
                    let why = if behind { Why::Files } else { why };
                    let turned = self
                        .turn(&mut state, &mut offered, &jwt.source, &slots, why)
                        .await;
                    behind = why == Why::Files && turned.is_err();
                    due = turned.unwrap_or_else(|error| {
                        Metrics::count(&self.metrics.rotations, "failed");
                        tracing::error!(%error, reason = why.as_str(), "authority not renewed; the one in force stays");
                        plus(self.clock.now(), RETRY)
                    });
                }
            }
        }
    }

    /// Follows the store for ever.
    async fn follow(&self, tell: mpsc::Sender<Seen>) {
        loop {
            self.store.follow(self.domain.clone(), tell.clone()).await;
            tracing::warn!(place = %self.store.place(), "following the stored state ended; beginning anew");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews under the state offered, if there is one. One that cannot be used is tried again, and does
    /// not stop renewal under the last good one (I4).
    async fn turn(
        &self,
        state: &mut CaState,
        offered: &mut Option<CaState>,
        jwt: &JwtSource,
        slots: &Slots,
        why: Why,
    ) -> Result<UnixTime, RotateError> {
        let Some(mut next) = offered.take() else {
            return self.renew(state, jwt, slots, why).await;
        };
        let error = match self.renew(&mut next, jwt, slots, why).await {
            Ok(due) => {
                *state = next;
                return Ok(due);
            }
            Err(error) => error,
        };
        *offered = Some(next);
        let now = self.clock.now();
        if slots.current().renew_at <= now {
            tracing::error!(%error, "the stored state cannot be used; renewing under the one in force");
            self.renew(state, jwt, slots, why).await?;
            return Ok(plus(now, RETRY));
        }
        Err(error)
    }

    /// Makes the next snapshot and publishes it; answers when the one after it is due.
    async fn renew(
        &self,
        state: &mut CaState,
        jwt: &JwtSource,
        slots: &Slots,
        why: Why,
    ) -> Result<UnixTime, RotateError> {
        if why == Why::Files {
            *state = self.align(state).await?;
        }
        let signing = self.signing(state, jwt, slots);
        let snapshot = self.snapshot(state, &self.signer(state)?, signing)?;
        let now = self.clock.now();
        let due = match snapshot.source {
            // Nothing here can renew the operator's own certificate: look again, the metric alarms.
            Source::Direct => plus(now, RETRY.max(Duration::from_secs(3600))),
            _ => snapshot.renew_at,
        };
        self.show(&snapshot, state);
        let authority_id = snapshot.issuing.id();
        if slots.publish(snapshot) {
            Metrics::count(&self.metrics.rotations, "renewed");
            tracing::info!(%authority_id, reason = why.as_str(), sequence = state.bundle().sequence(), "authority in use");
        } else {
            Metrics::count(&self.metrics.rotations, "older");
            tracing::error!(reason = why.as_str(), "an older bundle was offered and refused");
        }
        Ok(due)
    }

    /// What the store now says, if it is news and usable.
    fn adopt(&self, seen: Seen, current: &CaState) -> Option<CaState> {
        let place = self.store.place();
        match seen {
            Seen::State(next) if next.same(current) => None,
            Seen::State(next) if !follows(next.bundle(), current.bundle()) => {
                Metrics::count(&self.metrics.rotations, "older");
                tracing::error!(
                    %place,
                    sequence = next.bundle().sequence(),
                    in_force = current.bundle().sequence(),
                    "the stored state went back to an older sequence, or has other roots under the same one; \
                     it is not followed"
                );
                None
            }
            Seen::State(next) => Some(next),
            Seen::Gone => {
                Metrics::count(&self.metrics.rotations, "state_gone");
                tracing::error!(
                    %place,
                    "the stored state is gone; this process goes on with what it has. Restore it with \
                     `signet authority restore` before the next start"
                );
                None
            }
            Seen::Fault(error) => {
                Metrics::count(&self.metrics.rotations, "state_fault");
                tracing::error!(%error, "the stored state cannot be used; what is in force stays");
                None
            }
        }
    }

    fn show(&self, snapshot: &Snapshot, state: &CaState) {
        for phase in ["prepared", "active", "old"] {
            let of_it = state.jwt().0.iter().filter(|entry| entry.phase.as_str() == phase);
            self.metrics
                .trust
                .jwt_keys
                .get_or_create(&PhaseLabel { phase })
                .set(i64::try_from(of_it.count()).unwrap_or(i64::MAX));
        }
        let end = |time: UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let gauge = |role, time| {
            self.metrics
                .not_after
                .get_or_create(&Role { role })
                .set(end(time))
        };
        gauge("issuing", snapshot.issuing.not_after());
        if let Some(first) = snapshot
            .bundle
            .roots()
            .iter()
            .map(|r| r.certificate().not_after())
            .min()
        {
            gauge("root", first);
        }
        self.metrics
            .bundle_sequence
            .set(i64::try_from(snapshot.bundle.sequence()).unwrap_or(i64::MAX));
    }
}

/// What was offered before is none any more once the store is back at the roots in force: tried for ever,
/// it could undo what was stored after it.
fn drop_overtaken(offered: &mut Option<CaState>, seen: &Seen, in_force: &CaState) {
    if matches!(seen, Seen::State(next) if next.same_roots(in_force)) {
        *offered = None;
    }
}

#[cfg(test)]
mod tests;
