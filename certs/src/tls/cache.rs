//! Chains that verified, so that a peer that comes back costs a hash instead of its signatures.
//!
//! A handshake still proves possession of the leaf's key each time, and nothing is resumed: what is kept is only
//! that this very chain led to this very bundle. It counts for one role, under the bundle it was found under,
//! until the first certificate on the path ends. Refusals are never kept.

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
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
}

/// A role, and the SHA-256 of the whole chain. The trust domain follows from the chain.
type Key = (Role, [u8; 32]);

#[derive(Clone, Debug)]
struct Entry {
    verified: Verified,
    domain: TrustDomain,
    /// Held, so that no other bundle can stand at its place: the same pointer is the same bundle.
    bundle: Arc<TrustBundle>,
}

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
        if let Some(verified) = self.lookup(&key, bundles, now) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(verified);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let verified = verify_peer_until(presented, bundles, role, now)?;
        let domain = verified.id.trust_domain();
        if let Some(bundle) = bundles.get(&domain) {
            let entry = Entry {
                verified: verified.clone(),
                bundle: Arc::clone(bundle),
                domain,
            };
            self.lock().insert(key, entry, self.generation);
        }
        Ok(verified)
    }

    /// What is known of a chain whose handshake has just succeeded; nothing if it is no longer kept.
    #[must_use]
    pub fn known(&self, presented: &[CertificateDer<'_>], role: Role) -> Option<Verified> {
        let key = (role, digest(presented));
        let generations = self.lock();
        let entry = generations.young.get(&key).or_else(|| generations.old.get(&key));
        entry.map(|entry| entry.verified.clone())
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

    fn lookup(&self, key: &Key, bundles: &BundleSet, now: UnixTime) -> Option<Verified> {
        let mut generations = self.lock();
        let entry = match generations.young.get(key) {
            Some(entry) => entry.clone(),
            None => {
                let entry = generations.old.remove(key)?;
                generations.insert(*key, entry.clone(), self.generation);
                entry
            }
        };
        let same = bundles
            .get(&entry.domain)
            .is_some_and(|bundle| Arc::ptr_eq(bundle, &entry.bundle));
        if same && entry.verified.from <= now && now <= entry.verified.until {
            return Some(entry.verified);
        }
        generations.young.remove(key);
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: Key, entry: Entry, most: usize) {
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
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
