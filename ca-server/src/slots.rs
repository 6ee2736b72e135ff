//! The authorities in use, as one immutable snapshot for readers.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::lifetime::{minus, until};
use signet_certs::{Authority, BundleSet, JwtAuthority, TrustBundle, UnixTime};
use tokio::sync::watch;

/// Where the issuing authority comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An intermediate of this process below our own root.
    OwnRoot,
    /// An intermediate of this process below a CA that the operator brought.
    PluggedIn,
    /// The operator's CA itself, which leaves no room for an intermediate or is one of P-256 already.
    Direct,
}

impl Source {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnRoot => "own_root",
            Self::PluggedIn => "plugged_in",
            Self::Direct => "direct",
        }
    }
}

/// What signs, and what everyone should trust. The issuing chain has been verified against the bundle.
#[derive(Debug)]
pub struct Snapshot {
    /// The trust bundle in force.
    pub bundle: Arc<TrustBundle>,
    /// The same bundle as a set, for verifiers.
    pub bundles: Arc<BundleSet>,
    /// The authority that signs leaves.
    pub issuing: Arc<Authority>,
    /// Where it comes from.
    pub source: Source,
    /// When its successor is due.
    pub renew_at: UnixTime,
    /// The authority that signs JWT-SVIDs, which the bundle is known to verify.
    pub jwt: Option<Arc<JwtAuthority>>,
}

impl Snapshot {
    /// Joins the two; the successor is due at half of what the issuing authority has left. For an
    /// authority that cannot be renewed here that is when the alarm starts.
    #[must_use]
    pub fn new(bundle: Arc<TrustBundle>, issuing: Arc<Authority>, source: Source, now: UnixTime) -> Self {
        let left: Duration = until(issuing.not_after(), now);
        let renew_at = minus(issuing.not_after(), left / 2);
        Self {
            bundles: Arc::new(BundleSet::of(Arc::clone(&bundle))),
            bundle,
            issuing,
            source,
            renew_at,
            jwt: None,
        }
    }

    /// With this authority for JWT-SVIDs.
    #[must_use]
    pub fn with_jwt(mut self, jwt: Option<Arc<JwtAuthority>>) -> Self {
        self.jwt = jwt;
        self
    }

    /// The same issuing authority with another bundle, which has been verified to accept it.
    #[must_use]
    pub fn with_bundle(&self, bundle: Arc<TrustBundle>) -> Self {
        Self {
            bundles: Arc::new(BundleSet::of(Arc::clone(&bundle))),
            bundle,
            issuing: Arc::clone(&self.issuing),
            source: self.source,
            renew_at: self.renew_at,
            jwt: self.jwt.clone(),
        }
    }
}

/// One writer, many readers without locks.
#[derive(Clone, Debug)]
pub struct Slots {
    current: watch::Sender<Arc<Snapshot>>,
}

impl Slots {
    /// Starts with `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            current: watch::Sender::new(Arc::new(snapshot)),
        }
    }

    /// The snapshot in force.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// Told of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Puts `next` in force, unless its bundle is older than the one in force, or another one of the
    /// same sequence, which followers would never learn of (I5).
    pub fn publish(&self, next: Snapshot) -> bool {
        self.current.send_if_modified(|current| {
            let forward = follows(&next.bundle, &current.bundle);
            if forward {
                *current = Arc::new(next);
            }
            forward
        })
    }
}

/// Whether `next` may take the place of `current`: it has a higher sequence, or the same contents.
#[must_use]
pub fn follows(next: &TrustBundle, current: &TrustBundle) -> bool {
    match next.sequence().cmp(&current.sequence()) {
        Ordering::Greater => true,
        Ordering::Equal => next.same_content(current),
        Ordering::Less => false,
    }
}

impl signet_certs::tls::BundleSource for Slots {
    fn bundles(&self) -> Arc<BundleSet> {
        Arc::clone(&self.current.borrow().bundles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_certs::SigningKey;

    #[test]
    fn other_roots_under_the_same_sequence_are_never_put_in_force() {
        let domain: signet_certs::TrustDomain = "cluster.local".parse().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let fresh = || {
            let key = Arc::new(SigningKey::generate().unwrap());
            let life = Duration::from_secs(1_000);
            let root = Arc::new(Authority::self_signed_root(&domain, key, life, now).unwrap());
            let roots = vec![root.certificate().clone()];
            let bundle = TrustBundle::new(domain.clone(), roots, 5).unwrap();
            Snapshot::new(Arc::new(bundle), root, Source::OwnRoot, now)
        };
        let slots = Slots::new(fresh());
        assert!(!slots.publish(fresh()));
    }

    #[test]
    fn an_older_bundle_is_never_put_in_force() {
        let domain = "cluster.local".parse().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let key = Arc::new(SigningKey::generate().unwrap());
        let life = Duration::from_secs(1_000);
        let root = Arc::new(Authority::self_signed_root(&domain, key, life, now).unwrap());
        let at = |sequence| {
            let roots = vec![root.certificate().clone()];
            let bundle = Arc::new(TrustBundle::new(domain.clone(), roots, sequence).unwrap());
            Snapshot::new(bundle, Arc::clone(&root), Source::OwnRoot, now)
        };
        let slots = Slots::new(at(5));
        assert!(!slots.publish(at(4)));
        assert_eq!(slots.current().bundle.sequence(), 5);
        assert!(slots.publish(at(5)) && slots.publish(at(6)));
        assert_eq!(slots.current().renew_at.as_secs(), 1_800_000_500);
    }
}
