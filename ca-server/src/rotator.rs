//! The loop that keeps the authorities fresh: renews the issuing authority at half its life, follows
//! the store and a plugged-in CA. It verifies before it publishes, and keeps what is good when
//! something new is not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::key::KeyKind;
use signet_certs::lifetime::plus;
use signet_certs::verify::{VerifyError, verify_authority};
use signet_certs::{Authority, SigningKey, TrustBundle, TrustDomain, UnixTime};
use signet_runtime::Clock;
use signet_runtime::clock::sleep_until;
use signet_runtime::files::FollowedFile;
use tokio::sync::mpsc;

use crate::metrics::{Metrics, Role};
use crate::plugged_in::{self, PluggedIn};
use crate::slots::{Slots, Snapshot, Source, follows};
use crate::state::CaState;
use crate::store::{Seen, Store, StoreError};

/// How long to wait after a renewal that failed.
const RETRY: Duration = Duration::from_secs(10);
/// How often the plugged-in CA's files are looked at.
const FILES_POLL: Duration = Duration::from_secs(2);
/// Conflicting writers give way to each other at most this often.
const CONFLICTS: usize = 10;

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
}

/// What the rotator works with.
pub struct Rotator {
    /// Our trust domain.
    pub domain: TrustDomain,
    /// Life of an issuing authority.
    pub issuing_life: Duration,
    /// Hint for pollers of the bundle.
    pub refresh_hint: Duration,
    /// Directory of a plugged-in CA.
    pub plugged_in: Option<PathBuf>,
    /// Where the state is kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

/// The signing side of a state: our own root, or the operator's CA.
enum Signer {
    Root(Arc<Authority>),
    PluggedIn(Arc<Authority>),
}

impl Rotator {
    /// Brings the state in line with a plugged-in CA, if there is one, and makes the first snapshot.
    ///
    /// # Errors
    /// A [`RotateError`].
    pub async fn start(&self, state: &CaState) -> Result<(CaState, Snapshot), RotateError> {
        let (state, signer) = self.signer(state).await?;
        let snapshot = self.snapshot(&state, &signer)?;
        self.show(&snapshot);
        Ok((state, snapshot))
    }

    /// Runs until dropped.
    pub async fn run(self, mut state: CaState, slots: Slots) {
        let (tell, mut changes) = mpsc::channel(16);
        let mut following = std::pin::pin!(self.follow(tell));
        let mut files = PluggedFiles::new(self.plugged_in.as_ref());
        let mut offered = None;
        let mut due = slots.current().renew_at;
        loop {
            let why = tokio::select! {
                () = sleep_until(self.clock.as_ref(), due) => "due",
                () = &mut following => return,
                () = files.changed() => "plugged_in",
                Some(seen) = changes.recv() => {
                    offered = self.adopt(seen, &state);
                    if offered.is_none() {
                        continue;
                    }
                    "state"
                }
            };
            due = match self.turn(&mut state, &mut offered, &slots, why).await {
                Ok(next) => next,
                Err(error) => {
                    Metrics::count(&self.metrics.rotations, "failed");
                    tracing::error!(%error, reason = why, "authority not renewed; the one in force stays");
                    plus(self.clock.now(), RETRY)
                }
            };
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
        slots: &Slots,
        why: &str,
    ) -> Result<UnixTime, RotateError> {
        let Some(mut next) = offered.take() else {
            return self.renew(state, slots, why).await;
        };
        let error = match self.renew(&mut next, slots, why).await {
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
            self.renew(state, slots, why).await?;
            return Ok(plus(now, RETRY));
        }
        Err(error)
    }

    /// Makes the next snapshot and publishes it; answers when the one after it is due.
    async fn renew(&self, state: &mut CaState, slots: &Slots, why: &str) -> Result<UnixTime, RotateError> {
        let (next, signer) = self.signer(state).await?;
        *state = next;
        let snapshot = self.snapshot(state, &signer)?;
        let now = self.clock.now();
        let due = match snapshot.source {
            // Nothing here can renew the operator's own certificate: look again, the metric alarms.
            Source::Direct => plus(now, RETRY.max(Duration::from_secs(3600))),
            _ => snapshot.renew_at,
        };
        self.show(&snapshot);
        let authority_id = snapshot.issuing.id();
        if slots.publish(snapshot) {
            Metrics::count(&self.metrics.rotations, "renewed");
            tracing::info!(%authority_id, reason = why, sequence = state.bundle().sequence(), "authority in use");
        } else {
            Metrics::count(&self.metrics.rotations, "older");
            tracing::error!(reason = why, "an older bundle was offered and refused");
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

    /// Who signs under this state. With a plugged-in CA, its roots are written into the state first,
    /// so that the sequence rises and survives.
    async fn signer(&self, state: &CaState) -> Result<(CaState, Signer), RotateError> {
        let Some(directory) = &self.plugged_in else {
            let root = state.active().ok_or(RotateError::NoKey)?;
            return Ok((state.clone(), Signer::Root(Arc::clone(root))));
        };
        let PluggedIn { authority, bundle } =
            plugged_in::load(directory, &self.domain, self.clock.now()).map_err(plugged_in_fault)?;
        let mut state = state.clone();
        for _ in 0..CONFLICTS {
            if bundle.same_roots(state.bundle()) {
                return Ok((state, Signer::PluggedIn(Arc::new(authority))));
            }
            let shared = state.bundle().roots().iter().any(|old| {
                bundle
                    .roots()
                    .iter()
                    .any(|new| new.certificate().der() == old.certificate().der())
            });
            if !shared && !state.bundle().roots().is_empty() {
                return Err(RotateError::Disjoint);
            }
            let sequence = state.bundle().sequence() + 1;
            let next = CaState::with_bundle(Arc::new(bundle.clone().with_sequence(sequence)));
            match self.store.update(&state, &next).await {
                Ok(()) => {
                    tracing::info!(sequence, "bundle follows the plugged-in roots");
                    state = next;
                }
                Err(StoreError::Conflict { .. }) => {
                    state = self.store.load(&self.domain).await?.ok_or(RotateError::NoKey)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Err(RotateError::Store(StoreError::Conflict {
            place: self.store.place(),
        }))
    }

    /// A fresh issuing authority below the signer, or the signer itself where that is right, verified
    /// against the bundle.
    fn snapshot(&self, state: &CaState, signer: &Signer) -> Result<Snapshot, RotateError> {
        let now = self.clock.now();
        let below = |parent: &Authority| -> Result<Arc<Authority>, RotateError> {
            let key = Arc::new(SigningKey::generate().map_err(signet_certs::authority::AuthorityError::Key)?);
            Ok(Arc::new(parent.issue_intermediate(
                &self.domain,
                key,
                self.issuing_life,
                now,
            )?))
        };
        let (issuing, source) = match signer {
            Signer::Root(root) => (below(root)?, Source::OwnRoot),
            Signer::PluggedIn(ca) => {
                let is_root = ca.certificate().is_self_issued();
                let fast = ca.public_key().kind() == KeyKind::P256;
                if ca.may_issue_intermediate() && (is_root || !fast) {
                    (below(ca)?, Source::PluggedIn)
                } else {
                    if let Some(cost) = plugged_in::direct_cost(ca.public_key().kind()) {
                        tracing::warn!(
                            authority_id = %ca.id(),
                            key = %ca.public_key().kind(),
                            cost,
                            "the plugged-in CA's path length leaves no room for an intermediate; issuing from it directly"
                        );
                    }
                    (Arc::clone(ca), Source::Direct)
                }
            }
        };
        verify_authority(&issuing, state.bundle(), now)?;
        let bundle = TrustBundle::clone(state.bundle()).with_refresh_hint(self.refresh_hint);
        Ok(Snapshot::new(Arc::new(bundle), issuing, source, now))
    }

    fn show(&self, snapshot: &Snapshot) {
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

fn plugged_in_fault(fault: plugged_in::PluggedInError) -> RotateError {
    match fault {
        plugged_in::PluggedInError::Authority(e) => RotateError::Authority(e),
        plugged_in::PluggedInError::Unverified(e) => RotateError::Unverified(e),
        other => RotateError::Store(StoreError::Io(std::io::Error::other(other.to_string()))),
    }
}

/// The plugged-in CA's files, followed by contents.
struct PluggedFiles(Vec<FollowedFile>);

impl PluggedFiles {
    fn new(directory: Option<&PathBuf>) -> Self {
        let paths = directory.map(|d| plugged_in::files(d)).unwrap_or_default();
        let mut files: Vec<_> = paths
            .into_iter()
            .map(|path| FollowedFile::new(path, 512 * 1024))
            .collect();
        for file in &mut files {
            let _ = file.poll();
        }
        Self(files)
    }

    /// Ends when contents changed; never without a plugged-in CA.
    async fn changed(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(FILES_POLL).await;
            let changed = self
                .0
                .iter_mut()
                .filter_map(|file| file.poll().ok().flatten())
                .count();
            if changed > 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::FileStore;
    use signet_certs::lifetime::minus;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    struct At(UnixTime);

    impl Clock for At {
        fn now(&self) -> UnixTime {
            self.0
        }
    }

    fn domain() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    fn fresh(sequence: u64) -> CaState {
        let key = Arc::new(SigningKey::generate().unwrap());
        let root = Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400), NOW).unwrap();
        CaState::with_root(&domain(), root, sequence).unwrap()
    }

    fn rotator(directory: &std::path::Path, now: UnixTime) -> Rotator {
        Rotator {
            domain: domain(),
            issuing_life: Duration::from_secs(1_000),
            refresh_hint: Duration::from_secs(300),
            plugged_in: None,
            store: Store::File(FileStore::open(directory).unwrap()),
            clock: Arc::new(At(now)),
            metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
        }
    }

    #[tokio::test]
    async fn a_stored_state_that_cannot_sign_does_not_stop_renewal_under_the_last_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, first) = rotator(dir.path(), NOW).start(&fresh(1)).await.unwrap();
        let due = first.renew_at;
        let before = first.issuing.id();
        let slots = Slots::new(first);
        let keyless = CaState::with_bundle(Arc::new(TrustBundle::clone(fresh(2).bundle())));

        let mut offered = Some(keyless);
        let early = rotator(dir.path(), minus(due, Duration::from_secs(1)));
        let refused = early.turn(&mut state, &mut offered, &slots, "state").await;
        assert!(matches!(refused, Err(RotateError::NoKey)));
        assert_eq!(slots.current().issuing.id(), before);

        let late = rotator(dir.path(), due);
        late.turn(&mut state, &mut offered, &slots, "due").await.unwrap();
        assert_ne!(slots.current().issuing.id(), before, "renewed all the same");
        assert_eq!(slots.current().bundle.sequence(), 1);
        assert!(offered.is_some(), "tried again later");
    }

    #[tokio::test]
    async fn a_stored_state_with_other_roots_under_the_same_sequence_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let rotator = rotator(dir.path(), NOW);
        let state = fresh(4);
        assert!(rotator.adopt(Seen::State(fresh(4)), &state).is_none());
        assert!(rotator.adopt(Seen::State(fresh(3)), &state).is_none());
        assert!(rotator.adopt(Seen::State(fresh(5)), &state).is_some());
    }
}
