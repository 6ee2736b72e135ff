//! The shelf: what is served now, as one immutable snapshot. One writer, readers without locks.
//!
//! A snapshot is made only of an SVID that was verified together with the bundle beside it (I6), and
//! never goes back to an older bundle (I5).

use std::sync::Arc;

use signet_certs::lifetime::until;
use signet_certs::verify::{Role, VerifyError, verify_chain};
use signet_certs::{BundleSet, SpiffeId, TrustBundle, TrustDomain, UnixTime, X509Svid};
use tokio::sync::watch;

use crate::bundle_watch::{Verdict, judge};
use crate::rotation::Facts;
use crate::secrets::Secrets;

/// An SVID with the bundle it verified under.
#[derive(Clone, Debug)]
pub struct Verified {
    svid: X509Svid,
    bundle: Arc<TrustBundle>,
    received: UnixTime,
    usable_until: UnixTime,
}

impl Verified {
    /// Verifies the SVID, received at `received`, as both ends of a connection would.
    ///
    /// # Errors
    /// A [`VerifyError`].
    pub fn check(
        svid: X509Svid,
        bundle: Arc<TrustBundle>,
        received: UnixTime,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        verify_chain(svid.chain(), &bundle, Role::Server, now)?;
        verify_chain(svid.chain(), &bundle, Role::Client, now)?;
        let roots_end = bundle.roots().iter().map(|r| r.certificate().not_after()).max();
        let end = svid.chain().not_after();
        let usable_until = roots_end.map_or(end, |roots_end| roots_end.min(end));
        Ok(Self {
            svid,
            bundle,
            received,
            usable_until,
        })
    }

    /// The SVID.
    #[must_use]
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }

    /// When it came, by our clock.
    #[must_use]
    pub fn received(&self) -> UnixTime {
        self.received
    }

    /// What the rotation machine needs to know.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            received: self.received,
            usable_until: self.usable_until,
        }
    }
}

/// What is served now.
#[derive(Debug)]
pub struct Snapshot {
    domain: TrustDomain,
    identity: Option<SpiffeId>,
    verified: Option<Verified>,
    bundles: BundleSet,
    secrets: Secrets,
}

impl Snapshot {
    /// Nothing yet, for an agent of `domain` whose identity may be known from its token.
    #[must_use]
    pub fn empty(domain: TrustDomain, identity: Option<SpiffeId>) -> Self {
        Self {
            domain,
            identity,
            verified: None,
            bundles: BundleSet::default(),
            secrets: Secrets::default(),
        }
    }

    /// The bundle alone: no SVID can be served with it.
    #[must_use]
    pub fn of_bundle(bundle: Arc<TrustBundle>, identity: Option<SpiffeId>) -> Self {
        let domain = bundle.trust_domain().clone();
        let secrets = Secrets::new(None, &bundle);
        Self {
            domain,
            identity,
            verified: None,
            bundles: BundleSet::of(bundle),
            secrets,
        }
    }

    /// The SVID and the bundle it verified under.
    #[must_use]
    pub fn of_svid(verified: Verified) -> Self {
        let bundle = Arc::clone(&verified.bundle);
        Self {
            domain: bundle.trust_domain().clone(),
            identity: Some(verified.svid.id().clone()),
            secrets: Secrets::new(Some(&verified.svid), &bundle),
            bundles: BundleSet::of(bundle),
            verified: Some(verified),
        }
    }

    /// Our trust domain.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Our identity: the SVID's, or what the token claims until there is one.
    #[must_use]
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.identity.as_ref()
    }

    /// The SVID served, if there is one.
    #[must_use]
    pub fn verified(&self) -> Option<&Verified> {
        self.verified.as_ref()
    }

    /// The bundle of our trust domain, if there is one.
    #[must_use]
    pub fn bundle(&self) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(&self.domain)
    }

    /// The SDS resources made of it.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Seconds of the served SVID left at `now`.
    #[must_use]
    pub fn seconds_left(&self, now: UnixTime) -> Option<u64> {
        self.verified
            .as_ref()
            .map(|v| until(v.usable_until, now).as_secs())
    }
}

/// Where readers find the newest snapshot.
pub type Reader = watch::Receiver<Arc<Snapshot>>;

/// The writer's end.
#[derive(Debug)]
pub struct Shelf {
    newest: watch::Sender<Arc<Snapshot>>,
}

impl Shelf {
    /// An empty shelf and its first reader.
    #[must_use]
    pub fn new(domain: TrustDomain, identity: Option<SpiffeId>) -> (Self, Reader) {
        let (newest, reader) = watch::channel(Arc::new(Snapshot::empty(domain, identity)));
        (Self { newest }, reader)
    }

    /// Puts `snapshot` in force. One whose bundle is older than the bundle in force is left out.
    pub fn put(&self, snapshot: Snapshot) -> Verdict {
        let current = self.newest.borrow().bundle().cloned();
        let verdict = match (&current, snapshot.bundle()) {
            (Some(_), None) => Verdict::Older,
            (_, None) => Verdict::Newer,
            (current, Some(offered)) => judge(current.as_deref(), offered, snapshot.domain()),
        };
        if matches!(verdict, Verdict::Newer | Verdict::Same) {
            self.newest.send_replace(Arc::new(snapshot));
        }
        verdict
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.borrow())
    }
}
