//! The API server's public signing keys: a token whose signature cannot be good costs no review.
//!
//! Where the keys cannot be read (RBAC, an older server), the check is skipped and counted: the review
//! decides alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use signet_certs::UnixTime;
use signet_certs::lifetime::until;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::claims::{Algorithm, Claims, parts};
use super::token::BearerToken;
use crate::metrics::Metrics;

/// Where API servers publish their keys (OIDC discovery).
const JWKS_PATH: &str = "/openid/v1/jwks";
/// Fetches are begun at most this often, whoever invents key ids and however they end.
const REFETCH: Duration = Duration::from_secs(10);
/// Keys are fetched anew after this, so that a removed key stops passing.
const FRESH: Duration = Duration::from_secs(300);
/// Keys that cannot be fetched anew are believed this long.
const KEPT: Duration = Duration::from_secs(3600);
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Most keys kept; API servers have one to three.
const MAX_KEYS: usize = 64;

/// What a signature is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// By a published key.
    Good,
    /// Not by any published key.
    Bad,
    /// The keys cannot be read, are being fetched, or are of a kind that is not checked here.
    Unknown,
}

enum Key {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    P256(Vec<u8>),
    P384(Vec<u8>),
    /// Of a kind that is not checked here, as P-521.
    Unchecked,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    readable: bool,
    fetched: Option<UnixTime>,
}

/// The keys, fetched when needed. Clones share them.
#[derive(Clone)]
pub struct Jwks {
    client: kube::Client,
    keys: Arc<ArcSwap<Keys>>,
    /// When a fetch was last begun. Held while one is under way.
    begun: Arc<Mutex<Option<UnixTime>>>,
    metrics: Metrics,
}

impl Jwks {
    /// Keys of the API server behind `client`.
    #[must_use]
    pub fn of(client: kube::Client, metrics: Metrics) -> Self {
        Self {
            client,
            keys: Arc::default(),
            begun: Arc::default(),
            metrics,
        }
    }

    /// Whether `token` is signed by a published key.
    pub async fn verify(&self, token: &BearerToken, claims: &Claims, now: UnixTime) -> Signature {
        let key_id = claims.key_id.clone().unwrap_or_default();
        let mut keys = self.keys.load_full();
        if keys.are_stale(&key_id, now) {
            let known = keys.by_id.contains_key(&key_id);
            match self.begun.clone().try_lock_owned() {
                // The key is known: it is used now, and whether it still stands is for the next token.
                Ok(begun) if known => drop(self.fetched(begun, &key_id, now)),
                Ok(begun) => {
                    self.fetched(begun, &key_id, now).await;
                    keys = self.keys.load_full();
                }
                Err(_) if known => {}
                // Who comes while a fetch is under way does not queue behind it, holding a place: it may
                // hang.
                Err(_) => return self.skipped(),
            }
        }
        if !keys.readable {
            return self.skipped();
        }
        if claims.algorithm == Algorithm::Unchecked && keys.has_unchecked(claims.key_id.as_deref()) {
            return self.skipped();
        }
        match keys.by_id.get(&key_id) {
            Some(key) if signed_by(key, claims.algorithm, token) => Signature::Good,
            // Tokens without a key id are legal; any key of the right kind may have signed.
            None if claims.key_id.is_none()
                && keys
                    .by_id
                    .values()
                    .any(|key| signed_by(key, claims.algorithm, token)) =>
            {
                Signature::Good
            }
            _ => Signature::Bad,
        }
    }

    /// The review decides alone.
    fn skipped(&self) -> Signature {
        Metrics::count(&self.metrics.jwks, "skipped");
        Signature::Unknown
    }

    /// Begins a fetch if one is due. It runs in a task of its own and counts from its beginning: a
    /// caller who leaves, or a fetch that fails, does not make room for another.
    fn fetched(
        &self,
        mut begun: OwnedMutexGuard<Option<UnixTime>>,
        key_id: &str,
        now: UnixTime,
    ) -> impl Future<Output = ()> + use<> {
        let lately = begun.is_some_and(|at| apart(at, now) < REFETCH);
        let due = !lately && self.keys.load().are_stale(key_id, now);
        let fetching = due.then(|| {
            *begun = Some(now);
            let this = self.clone();
            tokio::spawn(async move {
                let fetched = fetch(&this.client).await;
                this.take(fetched, now);
                drop(begun);
            })
        });
        async move {
            if let Some(fetching) = fetching {
                // A fetch that panicked left the keys as they were.
                let _ = fetching.await;
            }
        }
    }

    /// Puts fetched keys in force. When the fetch failed, keys once read stay: what was good a moment
    /// ago is still the best knowledge, but not for ever.
    fn take(&self, fetched: Result<HashMap<String, Key>, String>, now: UnixTime) {
        let old = self.keys.load_full();
        let (by_id, readable) = match fetched {
            Ok(by_id) => {
                Metrics::count(&self.metrics.jwks, "fetched");
                (by_id, true)
            }
            Err(error) => {
                Metrics::count(&self.metrics.jwks, "failed");
                if old.fetched.is_none() {
                    tracing::warn!(%error, "signing keys of the API server cannot be read; every new token costs a review");
                }
                let keep = old.readable && old.fetched.is_some_and(|at| until(now, at) < KEPT);
                if keep {
                    return;
                }
                (HashMap::new(), false)
            }
        };
        self.keys.store(Arc::new(Keys {
            by_id,
            readable,
            fetched: Some(now),
        }));
    }
}

impl Keys {
    /// Whether a key of a kind that is not checked here may have signed.
    fn has_unchecked(&self, key_id: Option<&str>) -> bool {
        let unchecked = |key: &Key| matches!(key, Key::Unchecked);
        match key_id {
            Some(id) => self.by_id.get(id).is_some_and(unchecked),
            None => self.by_id.values().any(unchecked),
        }
    }

    /// Whether these are worth a fetch for a token signed by `key_id`.
    fn are_stale(&self, key_id: &str, now: UnixTime) -> bool {
        self.fetched.is_none_or(|at| {
            let age = apart(at, now);
            age >= FRESH || (age >= REFETCH && !self.by_id.contains_key(key_id))
        })
    }
}

/// Time between the two, whichever is first: the clock may have been set back.
fn apart(one: UnixTime, other: UnixTime) -> Duration {
    until(one, other).max(until(other, one))
}

async fn fetch(client: &kube::Client) -> Result<HashMap<String, Key>, String> {
    let request = http::Request::get(JWKS_PATH)
        .body(Vec::new())
        .map_err(|e| e.to_string())?;
    let text = tokio::time::timeout(FETCH_DEADLINE, client.request_text(request))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|e| e.to_string())?;
    parse(&text)
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Keys that are no public keys are skipped; a key of a known kind that cannot be read fails
/// the set (I4).
fn parse(text: &str) -> Result<HashMap<String, Key>, String> {
    let set: Set = serde_json::from_str(text).map_err(|e| format!("not a JWK set: {e}"))?;
    let mut keys = HashMap::new();
    for jwk in set.keys.into_iter().take(MAX_KEYS) {
        let bytes = |part: &Option<String>| {
            let part = part
                .as_ref()
                .ok_or_else(|| format!("key {:?} is incomplete", jwk.kid))?;
            URL_SAFE_NO_PAD
                .decode(part.trim_end_matches('='))
                .map_err(|_| format!("key {:?} is damaged", jwk.kid))
        };
        let point = || -> Result<Vec<u8>, String> { Ok([vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat()) };
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Key::Rsa {
                n: bytes(&jwk.n)?,
                e: bytes(&jwk.e)?,
            },
            ("EC", Some("P-256")) => Key::P256(point()?),
            ("EC", Some("P-384")) => Key::P384(point()?),
            ("EC" | "OKP", _) => Key::Unchecked,
            _ => continue,
        };
        keys.insert(jwk.kid, key);
    }
    Ok(keys)
}

fn signed_by(key: &Key, algorithm: Algorithm, token: &BearerToken) -> bool {
    let text = token.expose();
    let Some([header, body, signature]) = parts(text) else {
        return false;
    };
    let Some(signed) = text.get(..header.len() + 1 + body.len()) else {
        return false;
    };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
        return false;
    };
    let signed = signed.as_bytes();
    let verified = match (key, algorithm) {
        (Key::Rsa { n, e }, Algorithm::Rs256) => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, &signature)
        }
        (Key::Rsa { n, e }, Algorithm::Rs384) => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA384, signed, &signature)
        }
        (Key::Rsa { n, e }, Algorithm::Rs512) => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA512, signed, &signature)
        }
        (Key::Rsa { n, e }, Algorithm::Ps256) => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PSS_2048_8192_SHA256, signed, &signature)
        }
        (Key::Rsa { n, e }, Algorithm::Ps384) => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PSS_2048_8192_SHA384, signed, &signature)
        }
        (Key::Rsa { n, e }, Algorithm::Ps512) => {
            RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PSS_2048_8192_SHA512, signed, &signature)
        }
        (Key::P256(point), Algorithm::Es256) => {
            UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(signed, &signature)
        }
        (Key::P384(point), Algorithm::Es384) => {
            UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(signed, &signature)
        }
        // The key decides the kind; a header that says otherwise is an attack (RFC 8725 §2.1).
        _ => return false,
    };
    verified.is_ok()
}

#[cfg(test)]
mod tests;
