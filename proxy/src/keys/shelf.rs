//! What becomes of secrets as they come: pure, apart from the shelf it fills.
//!
//! Bundles are taken at once, since a removed root must count at once; our SVID is in use only as long as it
//! verifies under them (I6). An SVID that does not verify yet is kept aside until bundles come that it does
//! verify under. One that is older than the one in use is never taken (I5), and nothing takes the last good one
//! away but bundles that it does not verify under (I7).

use std::collections::BTreeMap;
use std::sync::Arc;

use signet_certs::verify::{Role, VerifyError, verify_chain};
use signet_certs::{BundleSet, SpiffeId, TrustDomain, UnixTime, X509Svid};
use signet_proto::sds::{Content, MAX_DOMAINS};

use super::{Keys, Own, Snapshot};

/// Why a secret is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// An SVID of another trust domain than ours.
    #[error("SVID {0} is not of our trust domain {1}")]
    OtherDomain(SpiffeId, TrustDomain),
    /// An SVID issued before the one in use.
    #[error("SVID {0} is older than the one in use")]
    Older(SpiffeId),
    /// An SVID that does not verify under the bundles that are in force.
    #[error("SVID does not verify: {0}")]
    Unverified(#[from] VerifyError),
    /// Bundles without our own trust domain's, or an empty one.
    #[error("bundles hold no root of our trust domain {0}")]
    NoOwnRoots(TrustDomain),
    /// A bundle of a lower sequence number than the one in force, which stays. The others were taken.
    #[error(
        "the bundle of {domain} has sequence {offered} and is older than the one in force, of sequence {held}"
    )]
    OlderBundle {
        /// Whose.
        domain: TrustDomain,
        /// Its sequence.
        offered: u64,
        /// The sequence of the one in force.
        held: u64,
    },
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A new SVID is in use.
    Svid,
    /// New bundles are in force.
    Bundles,
    /// New bundles are in force, and our SVID no longer verifies.
    Withdrawn,
    /// It is what we had.
    Same,
}

/// The one writer of [`Keys`].
#[derive(Debug)]
pub struct Shelf {
    keys: Keys,
    domain: TrustDomain,
    bundles: Option<Arc<BundleSet>>,
    /// The highest sequence seen of each of them. The same roots may come under a higher one.
    sequences: BTreeMap<TrustDomain, u64>,
    own: Option<Own>,
    /// An SVID that may verify under bundles to come.
    aside: Option<X509Svid>,
}

impl Shelf {
    /// Empty, for a workload of `domain`.
    #[must_use]
    pub fn new(domain: TrustDomain) -> (Self, Keys) {
        let keys = Keys::default();
        let shelf = Self {
            keys: keys.clone(),
            domain,
            bundles: None,
            sequences: BTreeMap::new(),
            own: None,
            aside: None,
        };
        (shelf, keys)
    }

    /// Our SVID in use.
    #[must_use]
    pub fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// Takes one secret.
    ///
    /// # Errors
    /// [`Refused`]; what is in use stays so.
    pub fn take(&mut self, content: Content, now: UnixTime) -> Result<Taken, Refused> {
        match content {
            Content::Pair(svid) => self.take_svid(svid, now),
            Content::Bundles(bundles) => self.take_bundles(bundles, now),
        }
    }

    fn take_svid(&mut self, svid: X509Svid, now: UnixTime) -> Result<Taken, Refused> {
        if !svid.id().is_in(&self.domain) {
            return Err(Refused::OtherDomain(svid.id().clone(), self.domain.clone()));
        }
        if let Some(own) = &self.own {
            let (new, old) = (svid.chain(), own.svid().chain());
            if new.leaf().der() == old.leaf().der() && new.to_der() == old.to_der() {
                return Ok(Taken::Same);
            }
            // Both ends say so: a shorter life alone makes no SVID older.
            let older = new.not_before() < old.not_before() && new.not_after() < old.not_after();
            if older && old.not_after() >= now {
                return Err(Refused::Older(svid.id().clone()));
            }
        }
        if let Err(fault) = self.verifies(&svid, now) {
            self.aside = Some(svid);
            return Err(fault.into());
        }
        self.aside = None;
        self.own = Some(Own::new(svid));
        self.publish();
        Ok(Taken::Svid)
    }

    fn take_bundles(&mut self, mut bundles: BundleSet, now: UnixTime) -> Result<Taken, Refused> {
        let own = bundles.get(&self.domain);
        if own.is_none_or(|bundle| bundle.roots().is_empty()) {
            return Err(Refused::NoOwnRoots(self.domain.clone()));
        }
        let older = self.keep_newer(&mut bundles);
        let taken = self.put_bundles(bundles, now);
        older.map_or(Ok(taken), Err)
    }

    /// Puts bundles in force in place of older ones that are offered (I5), and remembers how new the others are. An
    /// agent that has started again may know less than the one before. Answers the first that is older.
    fn keep_newer(&mut self, bundles: &mut BundleSet) -> Option<Refused> {
        let offered: Vec<(TrustDomain, u64)> = bundles
            .iter()
            .map(|bundle| (bundle.trust_domain().clone(), bundle.sequence()))
            .collect();
        let mut older = None;
        // What is left out for once is remembered as well, as long as there is room.
        if self.sequences.len() > MAX_DOMAINS {
            self.sequences.retain(|domain, _| bundles.get(domain).is_some());
        }
        for (domain, offered) in offered {
            let known = self.sequences.get(&domain).copied().unwrap_or_default();
            // Who numbers nothing is believed: an agent of an earlier release.
            if offered > 0 && offered < known {
                let before = self.bundles.as_ref().and_then(|before| before.get(&domain));
                match before {
                    Some(before) => bundles.insert(Arc::clone(before)),
                    // It was left out meanwhile. Until a bundle comes that is not older, nobody of that domain is believed.
                    None => drop(bundles.remove(&domain)),
                }
                older.get_or_insert_with(|| Refused::OlderBundle {
                    domain: domain.clone(),
                    offered,
                    held: known,
                });
            }
            self.sequences.insert(domain, offered.max(known));
        }
        older
    }

    fn put_bundles(&mut self, mut bundles: BundleSet, now: UnixTime) -> Taken {
        if let Some(before) = &self.bundles {
            let all = bundles.iter().count();
            let same = keep_same(&mut bundles, before);
            if same == all && all == before.iter().count() {
                return Taken::Same;
            }
        }
        self.bundles = Some(Arc::new(bundles));
        let aside = self.aside.take();
        if let Some(svid) = aside {
            match self.verifies(&svid, now) {
                Ok(()) => self.own = Some(Own::new(svid)),
                Err(_) => self.aside = Some(svid),
            }
        }
        let withdrawn = self.own.take().and_then(|own| {
            let verifies = self.verifies(own.svid(), now).is_ok();
            if verifies {
                self.own = Some(own);
                return None;
            }
            Some(own)
        });
        let outcome = match withdrawn {
            Some(own) => {
                // Bundles that come later may vouch for it again.
                self.aside.get_or_insert_with(|| own.svid().clone());
                Taken::Withdrawn
            }
            None => Taken::Bundles,
        };
        self.publish();
        outcome
    }

    fn verifies(&self, svid: &X509Svid, now: UnixTime) -> Result<(), VerifyError> {
        let unknown = || VerifyError::UnknownTrustDomain(self.domain.clone());
        let bundles = self.bundles.as_ref().ok_or_else(unknown)?;
        let bundle = bundles.get(&self.domain).ok_or_else(unknown)?;
        verify_chain(svid.chain(), bundle, Role::Server, now)?;
        verify_chain(svid.chain(), bundle, Role::Client, now)
    }

    fn publish(&self) {
        let Some(bundles) = &self.bundles else { return };
        self.keys.put(Snapshot {
            own: self.own.clone(),
            bundles: Arc::clone(bundles),
        });
    }
}

/// Bundles of the same roots stay the very same, so that what was verified under them still counts. Answers how many.
fn keep_same(bundles: &mut BundleSet, before: &BundleSet) -> usize {
    let same: Vec<_> = before
        .iter()
        .filter(|old| {
            bundles
                .get(old.trust_domain())
                .is_some_and(|new| new.same_content(old))
        })
        .map(Arc::clone)
        .collect();
    let count = same.len();
    for bundle in same {
        bundles.insert(bundle);
    }
    count
}

#[cfg(test)]
mod tests;
