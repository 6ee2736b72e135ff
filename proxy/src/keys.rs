//! Our SVID and the bundles: one writer, readers without locks, never backwards, nothing that does not verify.

mod shelf;
mod trust;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use signet_certs::tls::{BundleSource, ChainCache, IdentitySource, Proven};
use signet_certs::verify::{Role, VerifyError};
use signet_certs::{BundleSet, SpiffeId, UnixTime, X509Svid};
use tokio::sync::watch;

use crate::listed::List;
pub use shelf::{Refused, Shelf, Taken};
pub use trust::Trust;

/// So many connections are proven again before others get their turn.
const AT_ONCE: usize = 16;

/// What is in use now: bundles, and an SVID that verifies under them.
#[derive(Debug)]
pub struct Snapshot {
    own: Option<Own>,
    bundles: Arc<BundleSet>,
}

/// An SVID in use.
#[derive(Clone, Debug)]
pub struct Own {
    svid: X509Svid,
    certified: Arc<CertifiedKey>,
}

impl Own {
    fn new(svid: X509Svid) -> Self {
        Self {
            certified: svid.certified_key(),
            svid,
        }
    }

    /// Who we are.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        self.svid.id()
    }

    /// Chain and key.
    #[must_use]
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }

    /// For rustls.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The last second in which the whole chain is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.svid.chain().not_after()
    }
}

impl Snapshot {
    /// Our SVID, if there is one that verifies.
    #[must_use]
    pub fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// The bundles in force.
    #[must_use]
    pub fn bundles(&self) -> &Arc<BundleSet> {
        &self.bundles
    }
}

#[derive(Debug, Default)]
struct Inner {
    snapshot: ArcSwapOption<Snapshot>,
    cache: ChainCache,
    /// What open connections rest on.
    trusts: List<Trust>,
    changes: watch::Sender<u64>,
}

/// Where the snapshot in use is found, and the chains of peers that verified. Clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<Inner>);

impl Keys {
    /// The snapshot in use; nothing before the first.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.snapshot.load_full()
    }

    /// Our SVID, unless there is none, or it has ended.
    #[must_use]
    pub fn usable(&self, now: UnixTime) -> Option<Own> {
        let snapshot = self.0.snapshot.load();
        let own = snapshot.as_ref()?.own.as_ref()?;
        (now <= own.not_after()).then(|| own.clone())
    }

    /// The chains of peers that verified.
    #[must_use]
    pub fn chains(&self) -> &ChainCache {
        &self.0.cache
    }

    /// Proves a chain whose handshake has just succeeded under the bundles in force, which may have changed since.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn prove(
        &self,
        presented: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Arc<Proven>, VerifyError> {
        self.0.cache.prove(presented, &self.bundles(), role, now)
    }

    /// For a connection that rests on this chain: it will be told when the bundles no longer vouch for it.
    #[must_use]
    pub fn follow(&self, proven: Arc<Proven>, now: UnixTime) -> Arc<Trust> {
        let trust = self.0.trusts.enter(|place| Trust::new(proven, place));
        // From here on it is found when bundles change; they may have changed before.
        trust.look_again(&self.0.cache, &self.bundles(), now);
        trust
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Proves again what open connections rest on, and tells those that lost it. How many did. What rests on a bundle
    /// that has not changed costs nothing.
    pub async fn look_again(&self, now: UnixTime) -> usize {
        let bundles = self.bundles();
        let mut lost = 0;
        for some in self.0.trusts.all().chunks(AT_ONCE) {
            for trust in some {
                lost += usize::from(trust.look_again(&self.0.cache, &bundles, now));
            }
            tokio::task::yield_now().await;
        }
        lost
    }

    fn put(&self, snapshot: Snapshot) {
        self.0.snapshot.store(Some(Arc::new(snapshot)));
        self.0
            .changes
            .send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl IdentitySource for Keys {
    fn identity(&self) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.0.snapshot.load();
        let own = snapshot.as_ref()?.own.as_ref()?;
        Some(Arc::clone(&own.certified))
    }
}

impl BundleSource for Keys {
    fn bundles(&self) -> Arc<BundleSet> {
        let snapshot = self.0.snapshot.load();
        snapshot
            .as_ref()
            .map(|snapshot| Arc::clone(&snapshot.bundles))
            .unwrap_or_default()
    }

    fn cache(&self) -> Option<&ChainCache> {
        Some(&self.0.cache)
    }
}

/// One SVID for one handshake, so that it is known which one was used.
#[derive(Debug)]
pub struct Fixed(pub Arc<CertifiedKey>);

impl IdentitySource for Fixed {
    fn identity(&self) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
