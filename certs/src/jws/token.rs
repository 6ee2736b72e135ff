//! One token: taken apart, its signature and what it says of times, issuer and audience.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use serde_json::{Map, Value};

use super::TokenFault;
use super::algorithm::Algorithm;
use super::keys::{IssuerKey, KeySet};
use crate::jwt::compact::Parts;
use crate::jwt::{MAX_KID_BYTES, MAX_TRIALS};

/// A token whose signature is not yet verified. Tokens are secrets, so there is no `Debug`.
pub struct Token<'t> {
    parts: Parts<'t>,
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
    expires_at: Option<UnixTime>,
    not_before: Option<UnixTime>,
}

/// A time at which a token does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFault {
    /// After its end.
    Expired {
        /// Seconds since.
        ago_seconds: u64,
    },
    /// Before its beginning.
    NotYetValid {
        /// Seconds until.
        in_seconds: u64,
    },
}

impl<'t> Token<'t> {
    /// Takes `text` apart and checks the form of the claims that are known to the standard.
    ///
    /// # Errors
    /// A [`TokenFault`] of form, header or claims.
    pub fn read(text: &'t str) -> Result<Self, TokenFault> {
        let parts = Parts::of(text)?;
        let algorithm = parts.header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm
            .and_then(Algorithm::named)
            .ok_or(TokenFault::Algorithm)?;
        if parts.header.contains_key("crit") {
            return Err(TokenFault::Critical);
        }
        let kid = match parts.header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.clone()),
            Some(_) => return Err(TokenFault::Kid),
        };
        let claims = parts.claims()?;
        for name in ["iss", "sub"] {
            if claims.get(name).is_some_and(|value| !value.is_string()) {
                return Err(TokenFault::Claim(name));
            }
        }
        Ok(Self {
            expires_at: date(&claims, "exp")?,
            not_before: date(&claims, "nbf")?,
            kid: kid.filter(|kid| !kid.is_empty()),
            parts,
            algorithm,
            claims,
        })
    }

    /// Who it says made it.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// When it ends, if it does.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        self.expires_at
    }

    /// When it begins, if it says so.
    #[must_use]
    pub fn not_before(&self) -> Option<UnixTime> {
        self.not_before
    }

    /// Its claims.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// Its claims as they were signed: base64url without padding.
    #[must_use]
    pub fn payload(&self) -> &'t str {
        self.parts.payload()
    }

    /// Whether it holds at `now`, give or take `skew`. Without `exp` it has no end.
    ///
    /// # Errors
    /// A [`ClockFault`].
    pub fn check_times(&self, now: UnixTime, skew: Duration) -> Result<(), ClockFault> {
        check_times(self.not_before, self.expires_at, now, skew)
    }

    /// Whether it is for one of `audiences`; for anyone if there are none.
    ///
    /// # Errors
    /// [`TokenFault::Audience`], also for an `aud` that is neither text nor texts.
    pub fn check_audience(&self, audiences: &[String]) -> Result<(), TokenFault> {
        let named = |value: &Value| {
            let text = value.as_str();
            text.is_some_and(|text| audiences.iter().any(|one| one == text))
        };
        let fits = audiences.is_empty()
            || match self.claims.get("aud") {
                Some(Value::Array(many)) => many.iter().any(named),
                Some(one) => named(one),
                None => false,
            };
        if fits { Ok(()) } else { Err(TokenFault::Audience) }
    }

    /// Whether one of the issuer's keys made the signature. A token that names its key is tried with those of
    /// that name and with nameless ones.
    ///
    /// # Errors
    /// [`TokenFault::UnknownKid`], [`TokenFault::NoKeyFits`], [`TokenFault::Signature`], [`TokenFault::Form`].
    pub fn verify(&self, keys: &KeySet) -> Result<(), TokenFault> {
        let signature = self.parts.signature()?;
        let named = |key: &&IssuerKey| match (&self.kid, &key.kid) {
            (Some(wanted), Some(has)) => wanted == has,
            _ => true,
        };
        let fits = |key: &&IssuerKey| {
            key.algorithm.is_none_or(|only| only == self.algorithm) && self.algorithm.fits(key.key.kind())
        };
        let mut candidates = keys.keys().iter().filter(named).filter(fits).take(MAX_TRIALS);
        let message = self.parts.signed.as_bytes();
        if candidates.any(|key| self.algorithm.verifies(&key.key, message, &signature)) {
            return Ok(());
        }
        let known = |kid: &String| keys.keys().iter().any(|key| key.kid.as_ref() == Some(kid));
        if self.kid.as_ref().is_some_and(|kid| !known(kid)) {
            return Err(TokenFault::UnknownKid);
        }
        match keys.keys().iter().filter(named).any(|key| fits(&key)) {
            true => Err(TokenFault::Signature),
            false => Err(TokenFault::NoKeyFits),
        }
    }
}

/// Whether a token of these times holds at `now`, give or take `skew`.
pub(super) fn check_times(
    not_before: Option<UnixTime>,
    expires_at: Option<UnixTime>,
    now: UnixTime,
    skew: Duration,
) -> Result<(), ClockFault> {
    let (now, skew) = (now.as_secs(), skew.as_secs());
    if let Some(begin) = not_before.map(|at| at.as_secs())
        && begin > now.saturating_add(skew)
    {
        return Err(ClockFault::NotYetValid {
            in_seconds: begin - now,
        });
    }
    if let Some(end) = expires_at.map(|at| at.as_secs())
        && now > end.saturating_add(skew)
    {
        return Err(ClockFault::Expired {
            ago_seconds: now - end,
        });
    }
    Ok(())
}

impl ClockFault {
    /// Whether a token of these times holds at `now`, give or take `skew`: for one that was verified before.
    ///
    /// # Errors
    /// A [`ClockFault`].
    pub fn check(
        not_before: Option<UnixTime>,
        expires_at: Option<UnixTime>,
        now: UnixTime,
        skew: Duration,
    ) -> Result<(), Self> {
        check_times(not_before, expires_at, now, skew)
    }
}

/// Seconds since the epoch; fractions are cut off (RFC 7519 §2, `NumericDate`).
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<UnixTime>, TokenFault> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(TokenFault::Claim(name)),
    };
    let seconds = number.as_u64().or_else(|| {
        let fraction = number.as_f64()?;
        Some(Duration::try_from_secs_f64(fraction).ok()?.as_secs())
    });
    let seconds = seconds.ok_or(TokenFault::Claim(name))?;
    Ok(Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds))))
}
