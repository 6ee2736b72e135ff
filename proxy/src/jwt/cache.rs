//! Tokens that were verified before. A token counts as verified under the same rule and by the same key set
//! only, and for as long as its own times hold; tokens that were refused are judged anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signet_certs::UnixTime;
use signet_certs::jws::{ClockFault, KeySet};
use signet_policy::RequestIdentity;
use signet_policy::model::JwtRule;

use super::CLOCK_SKEW;

/// Most entries of one half.
const MAX_ENTRIES: usize = 4096;
/// Most bytes of tokens behind the entries of one half; claims take some times as much.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Hash of the token, number of the rule.
pub(super) type Key = ([u8; 32], usize);

/// A token that was verified.
pub(super) struct Verified {
    pub(super) identity: Arc<RequestIdentity>,
    /// Its claims as they were signed.
    pub(super) payload: Box<str>,
    pub(super) not_before: Option<UnixTime>,
    pub(super) expires_at: Option<UnixTime>,
}

impl Verified {
    pub(super) fn holds(&self, now: UnixTime) -> bool {
        ClockFault::check(self.not_before, self.expires_at, now, CLOCK_SKEW).is_ok()
    }

    /// The last second in which it holds, give or take one.
    pub(super) fn ends(&self) -> Option<UnixTime> {
        let end = Duration::from_secs(self.expires_at?.as_secs()).saturating_add(CLOCK_SKEW);
        Some(UnixTime::since_unix_epoch(end))
    }
}

/// What a token was verified by.
#[derive(Clone)]
struct Entry {
    issuer: Option<String>,
    audiences: Vec<String>,
    space_delimited: Vec<String>,
    /// Held, so that no other set can come to lie at its address.
    keys: Arc<KeySet>,
    verified: Arc<Verified>,
    bytes: usize,
}

impl Entry {
    fn is_by(&self, rule: &JwtRule, keys: &Arc<KeySet>) -> bool {
        Arc::ptr_eq(&self.keys, keys)
            && self.issuer == rule.issuer
            && self.audiences == rule.audiences
            && self.space_delimited == rule.space_delimited
    }
}

/// Two halves: when the young one is full it becomes the old one, and what was old is let go. What is used in
/// the old half moves to the young one.
#[derive(Default)]
struct Halves {
    young: HashMap<Key, Entry>,
    young_bytes: usize,
    old: HashMap<Key, Entry>,
}

/// The cache.
#[derive(Default)]
pub(super) struct Cache(Mutex<Halves>);

impl Cache {
    /// What was verified under this key by the same rule and keys.
    pub(super) fn get(&self, key: &Key, rule: &JwtRule, keys: &Arc<KeySet>) -> Option<Arc<Verified>> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = halves.young.get(key) {
            return entry.is_by(rule, keys).then(|| Arc::clone(&entry.verified));
        }
        let entry = halves.old.remove(key)?;
        if !entry.is_by(rule, keys) {
            return None;
        }
        let verified = Arc::clone(&entry.verified);
        halves.insert(*key, entry);
        Some(verified)
    }

    /// Keeps a token of so many bytes. Whether others had to go.
    pub(super) fn put(
        &self,
        key: Key,
        bytes: usize,
        rule: &JwtRule,
        keys: &Arc<KeySet>,
        verified: &Arc<Verified>,
    ) -> bool {
        let entry = Entry {
            issuer: rule.issuer.clone(),
            audiences: rule.audiences.clone(),
            space_delimited: rule.space_delimited.clone(),
            keys: Arc::clone(keys),
            verified: Arc::clone(verified),
            bytes,
        };
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.insert(key, entry)
    }
}

impl Halves {
    fn insert(&mut self, key: Key, entry: Entry) -> bool {
        let full = self.young.len() >= MAX_ENTRIES || self.young_bytes + entry.bytes > MAX_BYTES;
        let evicted = full && !self.old.is_empty();
        if full {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += entry.bytes;
        if let Some(before) = self.young.insert(key, entry) {
            self.young_bytes = self.young_bytes.saturating_sub(before.bytes);
        }
        evicted
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let rule = super::super::tests::rule("issuer: i\njwks: '{\"keys\":[]}'");
        let keys = super::super::tests::some_keys();
        let other_keys = Arc::new((*keys).clone());
        let verified = Arc::new(Verified {
            identity: Arc::new(RequestIdentity::assert_verified(serde_json::Map::new(), &[])),
            payload: "".into(),
            not_before: None,
            expires_at: None,
        });
        let cache = Cache::default();
        let key = |number: usize| ([7; 32], number);
        cache.put(key(0), 100, &rule, &keys, &verified);
        assert!(
            cache.get(&key(0), &rule, &other_keys).is_none(),
            "other keys verify anew"
        );
        let mut renamed = rule.clone();
        renamed.audiences.push("a".into());
        assert!(
            cache.get(&key(0), &renamed, &keys).is_none(),
            "another rule verifies anew"
        );
        let mut evicted = 0;
        for number in 1..20_000 {
            evicted += usize::from(cache.put(key(number), 1000, &rule, &keys, &verified));
            assert!(cache.get(&key(0), &rule, &keys).is_some(), "{number}");
        }
        let halves = cache.0.lock().unwrap();
        assert!(evicted > 5 && halves.young_bytes <= MAX_BYTES, "{evicted}");
        assert!(halves.young.len() + halves.old.len() <= 2 * MAX_ENTRIES);
        assert_eq!(
            halves.young.values().map(|entry| entry.bytes).sum::<usize>(),
            halves.young_bytes
        );
    }
}
