//! Chains that verified, so that a peer that comes back costs a hash instead of its signatures.
//!
//! A handshake still proves possession of the leaf's key each time, and nothing is resumed: what is kept is only
//! that this very chain led to this very bundle. It counts for one role, under the bundle it was found under,
//! until the first certificate on the path ends. Refusals are never kept.
//!
//! A [`Proven`] chain is also what an open connection rests on: when bundles change it is proven again, once for
//! all connections of one peer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::{BundleSet, TrustBundle};
use crate::id::TrustDomain;
use crate::verify::{Role, Verified, VerifyError, verify_peer_until};

/// Chains kept at most in each of two generations, unless said otherwise.
pub const GENERATION: usize = 2_048;
/// Longer chains are verified each time: who may present one could make us keep it thousandfold.
const MAX_KEPT_BYTES: usize = 8 * 1024;

/// The cache. Bounded; shared by any number of verifiers.
#[derive(Debug)]
pub struct ChainCache {
    generation: usize,
    generations: Mutex<Generations>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Chains by what they are. When the younger generation is full, the older one is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Arc<Proven>>,
    old: HashMap<Key, Arc<Proven>>,
}

/// A role, and the SHA-256 of the whole chain. The trust domain follows from the chain.
type Key = (Role, [u8; 32]);

/// A chain that verified, and what it verified under.
#[derive(Debug)]
pub struct Proven {
    verified: Verified,
    role: Role,
    chain: Box<[CertificateDer<'static>]>,
    domain: TrustDomain,
    /// Held, so that no other bundle can stand at its place: the same pointer is the same bundle.
    bundle: Arc<TrustBundle>,
}

impl Proven {
    /// What was found of it.
    #[must_use]
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Whether these bundles hold the very one that it verified under.
    #[must_use]
    pub fn rests_on(&self, bundles: &BundleSet) -> bool {
        bundles
            .get(&self.domain)
            .is_some_and(|bundle| Arc::ptr_eq(bundle, &self.bundle))
    }

    fn is_kept(&self) -> bool {
        self.chain
            .iter()
            .map(|certificate| certificate.len())
            .sum::<usize>()
            <= MAX_KEPT_BYTES
    }
}

/// The same chain in the same role, whatever it was found under.
impl PartialEq for Proven {
    fn eq(&self, other: &Self) -> bool {
        self.role == other.role && self.chain == other.chain
    }
}

impl Eq for Proven {}

impl Default for ChainCache {
    fn default() -> Self {
        Self::bounded(GENERATION)
    }
}

impl ChainCache {
    /// One that keeps so many chains in each generation.
    #[must_use]
    pub fn bounded(generation: usize) -> Self {
        Self {
            generation,
            generations: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// As [`crate::verify::verify_peer`], by memory where it serves.
    ///
    /// # Errors
    /// As [`crate::verify::verify_peer`].
    pub fn verify(
        &self,
        presented: &[CertificateDer<'_>],
        bundles: &BundleSet,
        role: Role,
        now: UnixTime,
    ) -> Result<Verified, VerifyError> {
        let key = (role, digest(presented));
        if let Some(proven) = self.lookup(&key, bundles, now) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(proven.verified.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let proven = self.prove_anew(key, presented, bundles, now)?;
        Ok(proven.verified.clone())
    }

    /// As [`Self::verify`], with what is needed to verify the chain again: for a handshake that has just succeeded.
    ///
    /// # Errors
    /// As [`crate::verify::verify_peer`].
    pub fn prove(
        &self,
        presented: &[CertificateDer<'_>],
        bundles: &BundleSet,
        role: Role,
        now: UnixTime,
    ) -> Result<Arc<Proven>, VerifyError> {
        let key = (role, digest(presented));
        match self.lookup(&key, bundles, now) {
            Some(proven) => Ok(proven),
            None => self.prove_anew(key, presented, bundles, now),
        }
    }

    fn prove_anew(
        &self,
        key: Key,
        presented: &[CertificateDer<'_>],
        bundles: &BundleSet,
        now: UnixTime,
    ) -> Result<Arc<Proven>, VerifyError> {
        let (role, _) = key;
        let verified = verify_peer_until(presented, bundles, role, now)?;
        let domain = verified.id.trust_domain();
        let Some(bundle) = bundles.get(&domain) else {
            return Err(VerifyError::UnknownTrustDomain(domain));
        };
        let proven = Arc::new(Proven {
            verified,
            role,
            chain: presented.iter().map(|one| one.clone().into_owned()).collect(),
            bundle: Arc::clone(bundle),
            domain,
        });
        if proven.is_kept() {
            self.lock().insert(key, Arc::clone(&proven), self.generation);
        }
        Ok(proven)
    }

    /// Whether a chain that verified once would verify under `bundles`, were it presented at the latest moment in
    /// which it was valid: what a new bundle says of its issuers counts, and not that it has ended since, of which
    /// whoever uses it knows.
    ///
    /// # Errors
    /// As [`crate::verify::verify_peer`].
    pub fn prove_again(
        &self,
        proven: &Arc<Proven>,
        bundles: &BundleSet,
        now: UnixTime,
    ) -> Result<Arc<Proven>, VerifyError> {
        if proven.rests_on(bundles) {
            return Ok(Arc::clone(proven));
        }
        let at = now.min(proven.verified.until);
        self.prove(&proven.chain, bundles, proven.role, at)
    }

    /// How often memory served, and how often it did not.
    #[must_use]
    pub fn served(&self) -> (u64, u64) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }

    /// Chains kept.
    #[must_use]
    pub fn len(&self) -> usize {
        let generations = self.lock();
        generations.young.len() + generations.old.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lookup(&self, key: &Key, bundles: &BundleSet, now: UnixTime) -> Option<Arc<Proven>> {
        let mut generations = self.lock();
        let proven = match generations.young.get(key) {
            Some(proven) => Arc::clone(proven),
            None => {
                let proven = generations.old.remove(key)?;
                generations.insert(*key, Arc::clone(&proven), self.generation);
                proven
            }
        };
        let verified = &proven.verified;
        if proven.rests_on(bundles) && verified.from <= now && now <= verified.until {
            return Some(proven);
        }
        generations.young.remove(key);
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: Key, proven: Arc<Proven>, most: usize) {
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, proven);
    }
}

/// Of all certificates, each with its length before it, so that no two chains have the same bytes.
fn digest(presented: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for certificate in presented {
        context.update(&certificate.len().to_be_bytes());
        context.update(certificate);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
