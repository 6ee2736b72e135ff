//! An issuer's JSON Web Key Set: read key by key. A key that cannot be used is left out with its reason, since
//! issuers publish keys of all kinds in one set; a set in which none can be used is no set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use crate::jwk;
use crate::jwt::MAX_KID_BYTES;
use crate::key::{KeyError, PublicKey};

/// Largest set read, in bytes. Large issuers publish some 10 KiB.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// Most keys of one set.
pub const MAX_KEYS: usize = 256;
/// `SubjectPublicKeyInfo` of an Ed25519 key, up to the key (RFC 8410 §4).
const ED25519_HEAD: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// Members that only a private or shared key has (RFC 7518 §6).
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The keys of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<IssuerKey>,
    skipped: Vec<Skipped>,
    private: Vec<usize>,
}

/// A key, with what its issuer says it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuerKey {
    pub(super) kid: Option<String>,
    /// If set, the only algorithm it is good for.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) key: PublicKey,
}

/// A key that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its place in the set, from 0.
    pub position: usize,
    /// Why.
    pub fault: KeyFault,
}

/// Why a key is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// Neither RSA, nor EC on P-256 or P-384, nor Ed25519.
    #[error("is of a kind that is not taken; use RSA, EC on P-256 or P-384, or OKP with Ed25519")]
    Kind,
    /// A shared secret: whoever verifies with it could make tokens.
    #[error("is a shared secret (kty oct), with which no token is verified here")]
    Shared,
    /// `use` is not `sig`.
    #[error("is not for signatures (use is not sig)")]
    Use,
    /// `key_ops` does not hold `verify`.
    #[error("is not for verifying (key_ops has no verify)")]
    Operations,
    /// `alg` is unknown, or does not fit the key.
    #[error("names an alg that is not taken, or that such a key cannot have")]
    Algorithm,
    /// `kid` is no short text.
    #[error("has a kid that is no text of 1 to {MAX_KID_BYTES} bytes")]
    Kid,
    /// A member that its kind of key needs is missing or is not base64url.
    #[error("member {0} is missing or is not base64url without padding")]
    Member(&'static str),
    /// The key is weak or malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why there is no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Larger than [`MAX_KEY_SET_BYTES`].
    #[error("key set has {0} bytes, at most {MAX_KEY_SET_BYTES} are read")]
    TooLarge(usize),
    /// Not `{"keys": [{…}, …]}`.
    #[error("no JSON object with a list of objects under \"keys\"")]
    Json,
    /// More than [`MAX_KEYS`].
    #[error("key set has {0} keys, at most {MAX_KEYS} are read")]
    TooMany(usize),
    /// None of its keys can be used.
    #[error("key set has no key that can be used{}", first(.0))]
    NoKey(Vec<Skipped>),
}

fn first(skipped: &[Skipped]) -> String {
    skipped
        .first()
        .map_or_else(String::new, |one| format!(": key {} {}", one.position, one.fault))
}

#[derive(Deserialize)]
struct ReadSet {
    keys: Vec<Map<String, Value>>,
}

impl KeySet {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// A [`KeySetError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLarge(json.len()));
        }
        let read: ReadSet = serde_json::from_slice(json).map_err(|_| KeySetError::Json)?;
        if read.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(read.keys.len()));
        }
        let mut set = Self {
            keys: Vec::new(),
            skipped: Vec::new(),
            private: Vec::new(),
        };
        for (position, members) in read.keys.iter().enumerate() {
            if PRIVATE.iter().any(|name| members.contains_key(*name)) {
                set.private.push(position);
            }
            match IssuerKey::read(members) {
                Ok(key) => set.keys.push(key),
                Err(fault) => set.skipped.push(Skipped { position, fault }),
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::NoKey(set.skipped));
        }
        Ok(set)
    }

    /// How many keys can be used; at least one.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// Those left out, with their reasons.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Places of keys with their private half in the set, which is ignored; whoever can read the set can make
    /// tokens of the issuer.
    #[must_use]
    pub fn with_private_half(&self) -> &[usize] {
        &self.private
    }

    pub(super) fn keys(&self) -> &[IssuerKey] {
        &self.keys
    }
}

impl IssuerKey {
    fn read(members: &Map<String, Value>) -> Result<Self, KeyFault> {
        let text = |name| members.get(name).and_then(Value::as_str);
        let key_type = text("kty").ok_or(KeyFault::Member("kty"))?;
        if members
            .get("use")
            .is_some_and(|usage| usage.as_str() != Some("sig"))
        {
            return Err(KeyFault::Use);
        }
        let verifies = |operations: &Value| {
            let mut named = operations.as_array().into_iter().flatten();
            named.any(|one| one.as_str() == Some("verify"))
        };
        if members.get("key_ops").is_some_and(|ops| !verifies(ops)) {
            return Err(KeyFault::Operations);
        }
        let key = match (key_type, text("crv")) {
            ("oct", _) => return Err(KeyFault::Shared),
            ("RSA", _) => jwk::rsa(&bytes(members, "n")?, &bytes(members, "e")?)?,
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                jwk::point(curve, &bytes(members, "x")?, &bytes(members, "y")?)?
            }
            ("OKP", Some("Ed25519")) => {
                PublicKey::from_spki_der(&[ED25519_HEAD, &bytes(members, "x")?].concat())?
            }
            _ => return Err(KeyFault::Kind),
        };
        let kid = match members.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=MAX_KID_BYTES).contains(&kid.len()) => Some(kid.clone()),
            Some(_) => return Err(KeyFault::Kid),
        };
        let algorithm = match members.get("alg") {
            None => None,
            Some(name) => {
                let named = name.as_str().and_then(Algorithm::named);
                let fitting = named.filter(|algorithm| algorithm.fits(key.kind()));
                Some(fitting.ok_or(KeyFault::Algorithm)?)
            }
        };
        Ok(Self { kid, algorithm, key })
    }
}

fn bytes(members: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyFault> {
    members
        .get(name)
        .and_then(Value::as_str)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(KeyFault::Member(name))
}
