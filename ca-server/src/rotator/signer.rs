//! Who signs: our own root or the operator's CA, and the issuing authority made below it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::key::KeyKind;
use signet_certs::verify::verify_authority;
use signet_certs::{Authority, JwtAuthority, SigningKey, TrustBundle};
use signet_runtime::files::FollowedFile;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{RotateError, Rotator};
use crate::plugged_in::{self, PluggedIn};
use crate::slots::{Snapshot, Source};
use crate::state::CaState;
use crate::store::StoreError;

/// How often the plugged-in CA's files are looked at.
const FILES_POLL: Duration = Duration::from_secs(2);
/// Conflicting writers give way to each other at most this often.
const CONFLICTS: usize = 10;

/// The signing side of a state: our own root, or the operator's CA.
pub(super) enum Signer {
    Root(Arc<Authority>),
    PluggedIn(Arc<Authority>),
}

impl Rotator {
    /// Who signs under this state. What it signs is verified against the state's roots, whoever wrote
    /// them: another replica may have newer files than this one.
    pub(super) fn signer(&self, state: &CaState) -> Result<Signer, RotateError> {
        let Some(directory) = &self.plugged_in else {
            let root = state.active().ok_or(RotateError::NoKey)?;
            return Ok(Signer::Root(Arc::clone(root)));
        };
        let PluggedIn { authority, .. } = self.load(directory)?;
        Ok(Signer::PluggedIn(Arc::new(authority)))
    }

    /// Writes the roots of a plugged-in CA into the state, so that the sequence rises and survives. Only
    /// for a start and when its files changed here: replicas whose files differ for some seconds would
    /// otherwise overwrite each other.
    pub(super) async fn align(&self, state: &CaState) -> Result<CaState, RotateError> {
        let mut state = state.clone();
        let Some(directory) = &self.plugged_in else {
            return Ok(state);
        };
        let PluggedIn { bundle, .. } = self.load(directory)?;
        for _ in 0..CONFLICTS {
            if bundle.same_roots(state.bundle()) {
                return Ok(state);
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
            let next = state.with_roots(&bundle)?;
            let sequence = next.bundle().sequence();
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

    fn load(&self, directory: &Path) -> Result<PluggedIn, RotateError> {
        plugged_in::load(directory, &self.domain, self.clock.now()).map_err(plugged_in_fault)
    }

    /// A fresh issuing authority below the signer, or the signer itself where that is right, verified
    /// against the bundle.
    pub(super) fn snapshot(
        &self,
        state: &CaState,
        signer: &Signer,
        jwt: Option<Arc<JwtAuthority>>,
    ) -> Result<Snapshot, RotateError> {
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
        let snapshot = Snapshot::new(self.bundle(state), issuing, source, now);
        Ok(snapshot.with_jwt(jwt))
    }

    /// The bundle of a state, with the hint for those who poll it.
    pub(super) fn bundle(&self, state: &CaState) -> Arc<TrustBundle> {
        Arc::new(TrustBundle::clone(state.bundle()).with_refresh_hint(self.refresh_hint))
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
pub(super) struct PluggedFiles {
    files: Vec<FollowedFile>,
    ticks: Interval,
}

impl PluggedFiles {
    pub(super) fn new(directory: Option<&PathBuf>) -> Self {
        let paths = directory.map(|d| plugged_in::files(d)).unwrap_or_default();
        let mut files: Vec<_> = paths
            .into_iter()
            .map(|path| FollowedFile::new(path, 512 * 1024))
            .collect();
        for file in &mut files {
            let _ = file.poll();
        }
        Self {
            files,
            ticks: ticks(FILES_POLL),
        }
    }

    /// Ends when contents changed; never without a plugged-in CA. What wakes the loop meanwhile costs no
    /// tick.
    pub(super) async fn changed(&mut self) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.ticks.tick().await;
            let changed = self
                .files
                .iter_mut()
                .filter_map(|file| file.poll().ok().flatten())
                .count();
            if changed > 0 {
                return;
            }
        }
    }
}

/// Ticks for a file that is polled, the first after one period.
pub(super) fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
