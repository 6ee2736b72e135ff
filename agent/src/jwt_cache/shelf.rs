//! Tokens that were fetched and are good for a while. Pure: time and bounds come in as arguments.
//!
//! A token is kept under its identity and the set of its audiences, whatever their order. Each part of
//! a key is prefixed with its length, so that no two sets of audiences share a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::UnixTime;
use signet_certs::jwt::{JwtSvid, LEEWAY};
use signet_certs::lifetime::{minus, plus, until};

use crate::ca_client::Failure;
use crate::svids::Whose;

/// How long before its end a token is no longer handed out: it would end on the way.
const MARGIN: Duration = Duration::from_secs(5);
/// What an entry costs besides its token and key.
const OVERHEAD: usize = 256;

/// Most that is held.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Tokens in all.
    pub entries: usize,
    /// Tokens of one identity.
    pub entries_of_one: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// Failures remembered.
    pub failures: usize,
}

/// What a token is kept under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    whose: Whose,
    audiences: Arc<[u8]>,
}

impl Key {
    /// Of an identity and a set of audiences.
    #[must_use]
    pub fn new(whose: &Whose, audience: &[String]) -> Self {
        let mut bytes = Vec::new();
        for one in audience.iter().collect::<BTreeSet<_>>() {
            bytes.extend_from_slice(&one.len().to_be_bytes());
            bytes.extend_from_slice(one.as_bytes());
        }
        Self {
            whose: whose.clone(),
            audiences: bytes.into(),
        }
    }

    /// The identity.
    #[must_use]
    pub fn whose(&self) -> &Whose {
        &self.whose
    }
}

#[derive(Debug)]
struct Entry {
    token: Arc<JwtSvid>,
    received: UnixTime,
    fresh_until: UnixTime,
    bytes: usize,
}

/// What is there for a key.
#[derive(Debug)]
pub enum Found {
    /// A token in the first half of its life.
    Fresh(Arc<JwtSvid>),
    /// A token in the second half: good when no other is to be had.
    Aging(Arc<JwtSvid>),
    /// Nothing.
    Nothing,
}

/// The tokens, and the failures of late.
#[derive(Debug)]
pub struct Shelf {
    bounds: Bounds,
    tokens: BTreeMap<Key, Entry>,
    of_one: BTreeMap<Whose, usize>,
    bytes: usize,
    failures: BTreeMap<Key, (UnixTime, Failure)>,
}

impl Shelf {
    /// Nothing yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tokens: BTreeMap::new(),
            of_one: BTreeMap::new(),
            bytes: 0,
            failures: BTreeMap::new(),
        }
    }

    /// The token under `key`, if it is signed by one of `kids` and good at `now`.
    #[must_use]
    pub fn get(&self, key: &Key, kids: impl Fn(&str) -> bool, now: UnixTime) -> Found {
        let Some(entry) = self.tokens.get(key).filter(|entry| kids(entry.token.kid())) else {
            return Found::Nothing;
        };
        if until(entry.token.expires_at(), now) <= MARGIN {
            return Found::Nothing;
        }
        // A clock that was set back tells nothing about the token's age.
        let known_age = entry.received <= plus(now, LEEWAY);
        if known_age && now < entry.fresh_until {
            Found::Fresh(Arc::clone(&entry.token))
        } else {
            Found::Aging(Arc::clone(&entry.token))
        }
    }

    /// Keeps a token that came at `now`, in place of the one under the same key. Says how many others
    /// had to go for it.
    pub fn put(&mut self, key: Key, token: Arc<JwtSvid>, now: UnixTime) -> usize {
        self.failures.remove(&key);
        self.take(&key);
        let bytes = token.expose_token().len() + key.audiences.len() + OVERHEAD;
        if bytes > self.bounds.bytes {
            return 1;
        }
        let mut evicted = 0;
        if self.of_one.get(&key.whose).copied().unwrap_or_default() >= self.bounds.entries_of_one {
            evicted += self.evict(|other| other.whose == key.whose);
        }
        while self.tokens.len() >= self.bounds.entries || self.bytes + bytes > self.bounds.bytes {
            match self.evict(|_| true) {
                0 => break,
                some => evicted += some,
            }
        }
        let life = until(token.expires_at(), now);
        let entry = Entry {
            fresh_until: plus(now, life / 2),
            received: now,
            token,
            bytes,
        };
        self.bytes += bytes;
        *self.of_one.entry(key.whose.clone()).or_default() += 1;
        self.tokens.insert(key, entry);
        evicted
    }

    /// Takes out, of those that `may_go`, the token that ends first.
    fn evict(&mut self, may_go: impl Fn(&Key) -> bool) -> usize {
        let first = self
            .tokens
            .iter()
            .filter(|(key, _)| may_go(key))
            .min_by_key(|(_, entry)| entry.token.expires_at().as_secs())
            .map(|(key, _)| key.clone());
        first.map_or(0, |key| usize::from(self.take(&key)))
    }

    fn take(&mut self, key: &Key) -> bool {
        let Some(entry) = self.tokens.remove(key) else {
            return false;
        };
        self.bytes -= entry.bytes;
        if let Some(count) = self.of_one.get_mut(&key.whose) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&key.whose);
            }
        }
        true
    }

    /// Remembers that asking failed: nobody asks again for this key before `then`.
    pub fn put_failure(&mut self, key: Key, failure: Failure, now: UnixTime, then: UnixTime) {
        if self.failures.len() >= self.bounds.failures {
            self.failures.retain(|_, (then, _)| now < *then);
        }
        if self.failures.len() < self.bounds.failures {
            self.failures.insert(key, (then, failure));
        }
    }

    /// The failure that forbids asking at `now`.
    #[must_use]
    pub fn failure(&self, key: &Key, now: UnixTime) -> Option<&Failure> {
        let (then, failure) = self.failures.get(key)?;
        // A clock set back must not silence a key for longer than a failure ever does.
        let near = minus(*then, super::LONGEST_SILENCE) <= now;
        (now < *then && near).then_some(failure)
    }

    /// Drops what is over, what is signed by no key of `kids`, and what is nobody's any more.
    pub fn sweep(&mut self, kids: impl Fn(&str) -> bool, wanted: impl Fn(&Whose) -> bool, now: UnixTime) {
        let gone: Vec<Key> = self
            .tokens
            .iter()
            .filter(|(key, entry)| {
                let over = until(entry.token.expires_at(), now) <= MARGIN;
                over || !kids(entry.token.kid()) || !wanted(&key.whose)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.take(&key);
        }
        self.failures.retain(|_, (then, _)| now < *then);
    }

    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Bytes they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
