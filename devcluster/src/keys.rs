//! The keys that sign service-account tokens, and compact JWS (RFC 7515) over them with ES256 (RFC 7518 §3.4).

use std::fmt;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Most keys that stay published after rotations; the oldest goes first.
const MAX_KEYS: usize = 8;

/// What becomes of the old signing key when a new one is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKey {
    /// It stays in the JWKS and its tokens stay valid.
    Keep,
    /// It leaves the JWKS at once and its tokens no longer verify.
    Drop,
}

/// No key could be made, or a key would not sign.
#[derive(Debug, thiserror::Error)]
#[error("the token signing key cannot be made or used")]
pub struct KeyError;

/// Why a token's signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureFault {
    /// Not a compact JWS with a JSON header and JSON claims.
    NotAToken,
    /// It names a key that is not published.
    UnknownKey,
    /// The signature does not verify.
    Mismatch,
}

struct TokenKey {
    pair: EcdsaKeyPair,
    /// JWK thumbprint (RFC 7638).
    id: String,
    jwk: Value,
}

impl TokenKey {
    fn generate() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| KeyError)?;
        let document = Zeroizing::new(document.as_ref().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &document, &random).map_err(|_| KeyError)?;
        // SEC 1 §2.3.3: an uncompressed point is 0x04, x, y.
        let point = pair.public_key().as_ref().get(1..).ok_or(KeyError)?;
        let (x, y) = point.split_at_checked(32).ok_or(KeyError)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // RFC 7638 §3.2: required members only, in this order, without blanks.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let digest = ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes());
        let id = URL_SAFE_NO_PAD.encode(digest);
        let jwk =
            json!({"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256", "x": x, "y": y});
        Ok(TokenKey { pair, id, jwk })
    }
}

/// The signing key in use, and the older ones that still verify.
pub(crate) struct Keyring(RwLock<Vec<TokenKey>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring(es256, {})", self.active_id())
    }
}

impl Keyring {
    /// A ring with one fresh key.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        Ok(Keyring(RwLock::new(vec![TokenKey::generate()?])))
    }

    /// Puts a fresh key in use and returns its id.
    pub(crate) fn rotate(&self, old: OldKey) -> Result<String, KeyError> {
        let fresh = TokenKey::generate()?;
        let id = fresh.id.clone();
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if old == OldKey::Drop {
            keys.clear();
        }
        if keys.len() >= MAX_KEYS {
            keys.remove(0);
        }
        keys.push(fresh);
        Ok(id)
    }

    /// The id of the key in use.
    pub(crate) fn active_id(&self) -> String {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.last().map(|key| key.id.clone()).unwrap_or_default()
    }

    /// The JSON Web Key Set of every key that verifies.
    pub(crate) fn jwks(&self) -> Value {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        json!({"keys": keys.iter().map(|key| key.jwk.clone()).collect::<Vec<_>>()})
    }

    /// Signs `claims` with the key in use.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.last().ok_or(KeyError)?;
        let header = json!({"alg": "ES256", "kid": key.id});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = key
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| KeyError)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token, unverified: a real server reads the issuer before it looks for a key.
    pub(crate) fn peek(token: &str) -> Result<Value, SignatureFault> {
        let [_, claims, _] = parts(token).ok_or(SignatureFault::NotAToken)?;
        decode(claims).ok_or(SignatureFault::NotAToken)
    }

    /// Checks the signature of a token against the published keys.
    pub(crate) fn verify(&self, token: &str) -> Result<(), SignatureFault> {
        let [header, claims, signature] = parts(token).ok_or(SignatureFault::NotAToken)?;
        let header_fields = decode(header).ok_or(SignatureFault::NotAToken)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| SignatureFault::NotAToken)?;
        let signed = format!("{header}.{claims}");
        let kid = crate::json::text(&header_fields, "/kid");
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut fault = SignatureFault::UnknownKey;
        for key in keys.iter().filter(|key| kid.is_none_or(|kid| kid == key.id)) {
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key());
            let is_es256 = crate::json::text(&header_fields, "/alg") == Some("ES256");
            if is_es256 && public.verify(signed.as_bytes(), &signature).is_ok() {
                return Ok(());
            }
            fault = SignatureFault::Mismatch;
        }
        Err(fault)
    }
}

fn parts(token: &str) -> Option<[&str; 3]> {
    let mut parts = token.split('.');
    let all = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(all)
}

fn decode(part: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_verify_until_their_key_is_dropped() {
        let ring = Keyring::generate().unwrap();
        let claims = json!({"sub": "x"});
        let first = ring.sign(&claims).unwrap();
        assert_eq!(ring.verify(&first), Ok(()));
        ring.rotate(OldKey::Keep).unwrap();
        assert_eq!(ring.verify(&first), Ok(()));
        assert_eq!(ring.jwks()["keys"].as_array().unwrap().len(), 2);
        ring.rotate(OldKey::Drop).unwrap();
        assert_eq!(ring.verify(&first), Err(SignatureFault::UnknownKey));
        assert_eq!(Keyring::peek(&first), Ok(claims));
    }

    #[test]
    fn altered_and_unreadable_tokens_are_told_apart() {
        let ring = Keyring::generate().unwrap();
        let token = ring.sign(&json!({"sub": "x"})).unwrap();
        let (signed, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7_u8; 64]));
        assert_eq!(ring.verify(&forged), Err(SignatureFault::Mismatch));
        for bad in ["", "a.b", "a.b.c", "a.b.c.d", signed] {
            assert_eq!(ring.verify(bad), Err(SignatureFault::NotAToken), "{bad}");
        }
    }
}
