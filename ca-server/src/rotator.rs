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
use crate::slots::{Slots, Snapshot, Source};
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
        let store = self.store.clone();
        let follow = store.follow(self.domain.clone(), tell);
        let mut follow = std::pin::pin!(follow);
        let mut files = PluggedFiles::new(self.plugged_in.as_ref());
        let mut due = slots.current().renew_at;
        loop {
            let why = tokio::select! {
                () = sleep_until(self.clock.as_ref(), due) => "due",
                () = &mut follow => return,
                () = files.changed() => "plugged_in",
                Some(seen) = changes.recv() => match self.adopt(seen, &state) {
                    Some(next) => { state = next; "state" }
                    None => continue,
                },
            };
            due = match self.renew(&mut state, &slots, why).await {
                Ok(next) => next,
                Err(error) => {
                    Metrics::count(&self.metrics.rotations, "failed");
                    tracing::error!(%error, reason = why, "authority not renewed; the one in force stays");
                    plus(self.clock.now(), RETRY)
                }
            };
        }
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
            Seen::State(next) if next.bundle().sequence() < current.bundle().sequence() => {
                Metrics::count(&self.metrics.rotations, "older");
                tracing::error!(%place, "the stored state went back to an older sequence; it is not followed");
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
