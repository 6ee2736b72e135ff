//! A token at its holder, and the proof that one is good at whoever receives it (JWT-SVID §4).

use std::fmt;

use rustls_pki_types::UnixTime;
use zeroize::Zeroizing;

use super::compact::Parts;
use super::facts::{Claims, Header, Unverified, Validated};
use super::{ClaimFault, JwtError, JwtKey, MAX_TRIALS};
use crate::bundle::{BundleSet, TrustBundle};
use crate::id::SpiffeId;

/// A JWT-SVID. It cannot be cloned or printed by accident, and is wiped when dropped.
pub struct JwtSvid {
    token: Zeroizing<String>,
    id: SpiffeId,
    audience: Vec<String>,
    issued_at: UnixTime,
    expires_at: UnixTime,
    kid: String,
}

impl JwtSvid {
    /// A token as its holder receives it from the CA: of `id`, for every one of `audience`, and good by
    /// `bundles` now.
    ///
    /// # Errors
    /// A [`JwtError`].
    pub fn receive(
        token: Zeroizing<String>,
        id: &SpiffeId,
        audience: &[String],
        bundles: &BundleSet,
        now: UnixTime,
    ) -> Result<Self, JwtError> {
        let first = audience.first().ok_or(ClaimFault::NoAudience)?;
        let found = Self::validate(&token, first, bundles, now)?;
        if found.id != *id {
            return Err(JwtError::OtherId {
                expected: id.clone(),
                found: found.id,
            });
        }
        match audience.iter().find(|one| !found.audience.contains(one)) {
            Some(missing) => Err(JwtError::OtherAudience(missing.clone())),
            None => Self::own(token),
        }
    }

    /// A token whose signature is not in doubt, because it was just made or just verified.
    pub(super) fn own(token: Zeroizing<String>) -> Result<Self, JwtError> {
        let parts = Parts::of(&token)?;
        let header = Header::read(&parts.header)?;
        let claims = Claims::read(&parts.claims()?)?;
        Ok(Self {
            id: claims.id,
            audience: claims.audience,
            issued_at: claims.issued_at.ok_or(ClaimFault::Missing("iat"))?,
            expires_at: claims.expires_at,
            kid: header.kid.ok_or(super::HeaderFault::Kid)?,
            token,
        })
    }

    /// Whether `token` is good for `audience` now, by the bundle of its subject's trust domain.
    ///
    /// # Errors
    /// A [`JwtError`] with the first rule it breaks; its text holds nothing secret.
    pub fn validate(
        token: &str,
        audience: &str,
        bundles: &BundleSet,
        now: UnixTime,
    ) -> Result<Validated, JwtError> {
        let parts = Parts::of(token)?;
        let header = Header::read(&parts.header)?;
        let members = parts.claims()?;
        let claims = Claims::read(&members)?;
        let domain = claims.id.trust_domain();
        let Some(bundle) = bundles.get(&domain) else {
            return Err(JwtError::UnknownTrustDomain(domain));
        };
        verify(&parts, &header, bundle)?;
        claims.check_times(now)?;
        if audience.is_empty() || !claims.audience.iter().any(|one| one == audience) {
            return Err(JwtError::OtherAudience(audience.chars().take(128).collect()));
        }
        Ok(Validated {
            id: claims.id,
            audience: claims.audience,
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
            kid: header.kid,
            claims: members,
        })
    }

    /// What a token says of itself, for showing it. Nothing of it is proven.
    ///
    /// # Errors
    /// [`JwtError::Form`] for what is no JWS in compact form.
    pub fn read_unverified(token: &str) -> Result<Unverified, JwtError> {
        Unverified::of(token)
    }

    /// The token itself, for its workload, or a socket whose peer was checked (I3).
    #[must_use]
    pub fn expose_token(&self) -> &str {
        &self.token
    }

    /// The workload it is of.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// For whom it is.
    #[must_use]
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// When it was made.
    #[must_use]
    pub fn issued_at(&self) -> UnixTime {
        self.issued_at
    }

    /// When it ends.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// The key that signed it.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtSvid({}, kid {})", self.id, self.kid)
    }
}

/// The key that the header names, or without a name the few that could have signed.
fn verify(parts: &Parts<'_>, header: &Header, bundle: &TrustBundle) -> Result<(), JwtError> {
    let algorithm = header.algorithm;
    let named = |key: &&JwtKey| header.kid.as_deref().is_none_or(|kid| kid == key.kid());
    let mut candidates = bundle
        .jwt_keys()
        .iter()
        .filter(named)
        .filter(|key| algorithm.fits(key.public_key().kind()))
        .take(MAX_TRIALS)
        .peekable();
    if candidates.peek().is_none() {
        return Err(JwtError::UnknownKey {
            domain: bundle.trust_domain().clone(),
            kid: header.kid.clone(),
        });
    }
    let signature = parts.signature()?;
    let message = parts.signed.as_bytes();
    if candidates.any(|key| algorithm.verifies(key.public_key(), message, &signature)) {
        Ok(())
    } else {
        Err(JwtError::Signature)
    }
}
