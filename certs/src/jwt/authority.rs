//! A key that signs JWT-SVIDs of its trust domain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::UnixTime;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::{ClaimFault, JwtError, JwtKey, JwtKeyError, JwtSvid, check_audience};
use crate::der;
use crate::id::SpiffeId;
use crate::key::{KeyError, SigningKey};

/// What a token is to say. The names come from a permit, never from a request alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProfile {
    /// The workload.
    pub id: SpiffeId,
    /// For whom, at least one.
    pub audience: Vec<String>,
    /// Life, at least a second.
    pub ttl: Duration,
    /// The issuer URL, where OIDC relying parties look for one.
    pub issuer: Option<String>,
}

/// A signing key with its public half under the name that follows from it.
pub struct JwtAuthority {
    key: Arc<SigningKey>,
    public: JwtKey,
    algorithm: Algorithm,
}

impl JwtAuthority {
    /// ES256 or ES384 for a key on a curve, RS256 for an RSA key; `kid` is the thumbprint of RFC 7638.
    ///
    /// # Errors
    /// [`JwtKeyError::Kind`] for a key that no JWT-SVID is signed with.
    pub fn new(key: Arc<SigningKey>) -> Result<Self, JwtKeyError> {
        let public = JwtKey::by_thumbprint(key.public_key().clone())?;
        let kind = key.public_key().kind();
        let algorithm = Algorithm::of_signer(kind).ok_or(JwtKeyError::Kind(kind))?;
        Ok(Self {
            key,
            public,
            algorithm,
        })
    }

    /// The public half, for the bundle.
    #[must_use]
    pub fn public(&self) -> &JwtKey {
        &self.public
    }

    /// The signing key, for whoever keeps it.
    #[must_use]
    pub fn key(&self) -> &Arc<SigningKey> {
        &self.key
    }

    /// Makes a token that begins `now`, reads it again and compares it with the profile.
    ///
    /// # Errors
    /// [`JwtError::Claim`] for a profile that makes no token, [`JwtError::Sign`] when signing fails.
    pub fn mint(&self, profile: &JwtProfile, now: UnixTime) -> Result<JwtSvid, JwtError> {
        check_audience(&profile.audience)?;
        if profile.ttl < Duration::from_secs(1) {
            return Err(ClaimFault::Life.into());
        }
        let header = format!(
            r#"{{"alg":"{}","kid":"{}","typ":"JWT"}}"#,
            self.algorithm.name(),
            self.public.kid()
        );
        let claims = Value::from(claims(profile, now)).to_string();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self.sign(signed.as_bytes()).map_err(JwtError::Sign)?;
        let token = Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)));
        let svid = JwtSvid::own(token)?;
        if svid.id() != &profile.id {
            return Err(JwtError::OtherId {
                expected: profile.id.clone(),
                found: svid.id().clone(),
            });
        }
        Ok(svid)
    }

    /// Whether what this key signs verifies by `public`: asked whenever either changes (I6).
    #[must_use]
    pub fn is_verified_by(&self, public: &JwtKey) -> bool {
        let probe = b"signet: does this key verify what that key signs";
        self.sign(probe)
            .is_ok_and(|signature| self.algorithm.verifies(public.public_key(), probe, &signature))
    }

    /// A signature in the form of JWS: for a curve both halves in full length (RFC 7518 §3.4).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.key.sign(message)?;
        match self.algorithm.half() {
            Some(half) => fixed(&signature, half).ok_or(KeyError::Sign),
            None => Ok(signature),
        }
    }
}

impl fmt::Debug for JwtAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtAuthority({:?})", self.public)
    }
}

fn claims(profile: &JwtProfile, now: UnixTime) -> Map<String, Value> {
    let mut audience: Vec<&str> = Vec::with_capacity(profile.audience.len());
    for one in &profile.audience {
        if !audience.contains(&one.as_str()) {
            audience.push(one);
        }
    }
    let end = now.as_secs().saturating_add(profile.ttl.as_secs());
    let mut claims = Map::new();
    claims.insert("aud".into(), audience.into());
    claims.insert("exp".into(), end.into());
    claims.insert("iat".into(), now.as_secs().into());
    if let Some(issuer) = &profile.issuer {
        claims.insert("iss".into(), issuer.as_str().into());
    }
    claims.insert("sub".into(), profile.id.as_str().into());
    claims
}

/// `ECDSA-Sig-Value` (RFC 3279 §2.2.3) as two numbers of `half` bytes each.
fn fixed(signature: &[u8], half: usize) -> Option<Vec<u8>> {
    let (_, both, _) = der::element(signature)?;
    let (_, r, rest) = der::element(both)?;
    let (_, s, _) = der::element(rest)?;
    let mut out = Vec::with_capacity(2 * half);
    for number in [r, s] {
        let zeros = number.iter().take_while(|b| **b == 0).count();
        let number = number.get(zeros..)?;
        out.resize(out.len() + half.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_signature_are_padded_to_full_length() {
        let der = [0x30, 8, 2, 2, 0, 0x81, 2, 2, 1, 5];
        assert_eq!(fixed(&der, 4), Some(vec![0, 0, 0, 0x81, 0, 0, 1, 5]));
        assert_eq!(fixed(&der, 1), None);
        assert_eq!(fixed(&der[..5], 4), None);
    }
}
