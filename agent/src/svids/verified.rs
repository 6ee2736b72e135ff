//! An SVID that verified under a bundle, and the only kind that is ever served (I6).

use std::sync::Arc;

use signet_certs::verify::{Role, VerifyError, verify_chain};
use signet_certs::{TrustBundle, UnixTime, X509Svid};

use crate::rotation::Facts;
use crate::secrets::PairSecrets;

/// An SVID with the bundle it verified under. Clones share both, and the resources made of them.
#[derive(Clone, Debug)]
pub struct Verified {
    svid: Arc<X509Svid>,
    bundle: Arc<TrustBundle>,
    received: UnixTime,
    usable_until: UnixTime,
    pair: Arc<PairSecrets>,
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
        let usable_until = verify(&svid, &bundle, now)?;
        let svid = Arc::new(svid);
        Ok(Self {
            pair: Arc::new(PairSecrets::new(Arc::clone(&svid))),
            svid,
            bundle,
            received,
            usable_until,
        })
    }

    /// The same SVID, verified under another bundle.
    ///
    /// # Errors
    /// A [`VerifyError`].
    pub fn check_again(&self, bundle: Arc<TrustBundle>, now: UnixTime) -> Result<Self, VerifyError> {
        let usable_until = verify(&self.svid, &bundle, now)?;
        Ok(Self {
            bundle,
            usable_until,
            ..self.clone()
        })
    }

    /// The SVID.
    #[must_use]
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }

    /// Whether both are one SVID, under whatever bundles.
    #[must_use]
    pub fn same_svid(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.svid, &other.svid)
    }

    /// The bundle it verified under.
    #[must_use]
    pub fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// When it came, by our clock.
    #[must_use]
    pub fn received(&self) -> UnixTime {
        self.received
    }

    /// The last second in which it can be used: its chain's end, or its last root's.
    #[must_use]
    pub fn usable_until(&self) -> UnixTime {
        self.usable_until
    }

    /// What the rotation machine needs to know.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            received: self.received,
            usable_until: self.usable_until,
        }
    }

    /// Its SDS resources, shared by every stream of the identity.
    #[must_use]
    pub fn secrets(&self) -> &PairSecrets {
        &self.pair
    }
}

fn verify(svid: &X509Svid, bundle: &TrustBundle, now: UnixTime) -> Result<UnixTime, VerifyError> {
    verify_chain(svid.chain(), bundle, Role::Server, now)?;
    verify_chain(svid.chain(), bundle, Role::Client, now)?;
    let roots_end = bundle.roots().iter().map(|r| r.certificate().not_after()).max();
    let end = svid.chain().not_after();
    Ok(roots_end.map_or(end, |roots_end| roots_end.min(end)))
}
