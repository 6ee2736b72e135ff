//! What a token says, with and without proof.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::compact::Parts;
use super::key::kid_is_sound;
use super::{ClaimFault, HeaderFault, JwtError};
use crate::id::SpiffeId;

/// A validated token: its signature, subject, audience and times hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// The workload it was issued to.
    pub id: SpiffeId,
    /// All of its audiences.
    pub audience: Vec<String>,
    /// When it was issued, if it says so.
    pub issued_at: Option<UnixTime>,
    /// When it ends.
    pub expires_at: UnixTime,
    /// The key that signed it, if the token names it.
    pub kid: Option<String>,
    /// Every claim, those above included.
    pub claims: Map<String, Value>,
}

/// What a token says of itself. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq)]
pub struct Unverified {
    /// Its header.
    pub header: Map<String, Value>,
    /// Its claims.
    pub claims: Map<String, Value>,
}

impl Unverified {
    /// Whether its header and claims are in the form of a JWT-SVID.
    ///
    /// # Errors
    /// A [`JwtError`] with the first rule it breaks.
    pub fn check(&self) -> Result<(), JwtError> {
        Header::read(&self.header)?;
        Claims::read(&self.claims)?;
        Ok(())
    }

    /// When it ends, if it says so as it should.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        date(&self.claims, "exp").ok().flatten()
    }

    /// Whom it names, if that is a SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> Option<SpiffeId> {
        self.claims.get("sub")?.as_str()?.parse().ok()
    }

    pub(super) fn of(token: &str) -> Result<Self, JwtError> {
        let parts = Parts::of(token)?;
        let claims = parts.claims()?;
        Ok(Self {
            header: parts.header,
            claims,
        })
    }
}

/// A header that a JWT-SVID may have.
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
}

impl Header {
    /// Checks the algorithm first, then the rest (JWT-SVID §2).
    pub(super) fn read(header: &Map<String, Value>) -> Result<Self, HeaderFault> {
        let name = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(HeaderFault::NoAlgorithm)?;
        let algorithm = Algorithm::named(name).ok_or_else(|| HeaderFault::Algorithm(short(name)))?;
        match header.get("typ") {
            None => {}
            Some(Value::String(kind)) if matches!(kind.as_str(), "JWT" | "JOSE") => {}
            Some(_) => return Err(HeaderFault::Type),
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid_is_sound(kid) => Some(kid.clone()),
            Some(_) => return Err(HeaderFault::Kid),
        };
        let known = ["alg", "kid", "typ"];
        match header.keys().find(|name| !known.contains(&name.as_str())) {
            Some(extra) => Err(HeaderFault::Extra(short(extra))),
            None => Ok(Self { algorithm, kid }),
        }
    }
}

/// The claims that every JWT-SVID has, in their right form.
pub(super) struct Claims {
    pub(super) id: SpiffeId,
    pub(super) audience: Vec<String>,
    pub(super) expires_at: UnixTime,
    pub(super) issued_at: Option<UnixTime>,
    pub(super) not_before: Option<UnixTime>,
}

impl Claims {
    /// Checks `sub`, `aud`, `exp`, `iat` and `nbf` (JWT-SVID §3).
    pub(super) fn read(claims: &Map<String, Value>) -> Result<Self, ClaimFault> {
        let subject = match claims.get("sub") {
            None => return Err(ClaimFault::Missing("sub")),
            Some(Value::String(subject)) => subject,
            Some(_) => return Err(ClaimFault::Form("sub")),
        };
        let id: SpiffeId = subject.parse().map_err(ClaimFault::Subject)?;
        if id.is_trust_domain() {
            return Err(ClaimFault::TrustDomain);
        }
        Ok(Self {
            id,
            audience: audience(claims)?,
            expires_at: date(claims, "exp")?.ok_or(ClaimFault::Missing("exp"))?,
            issued_at: date(claims, "iat")?,
            not_before: date(claims, "nbf")?,
        })
    }

    /// Whether it holds at `now`, give or take the leeway.
    pub(super) fn check_times(&self, now: UnixTime) -> Result<(), JwtError> {
        let leeway = super::LEEWAY.as_secs();
        let (now, end) = (now.as_secs(), self.expires_at.as_secs());
        if now >= end.saturating_add(leeway) {
            return Err(JwtError::Expired {
                ago_seconds: now - end,
            });
        }
        for begin in [self.not_before, self.issued_at].into_iter().flatten() {
            let begin = begin.as_secs();
            if begin > now.saturating_add(leeway) {
                return Err(JwtError::NotYetValid {
                    in_seconds: begin - now,
                });
            }
        }
        Ok(())
    }
}

/// One text, or several (RFC 7519 §4.1.3); at least one, and none empty.
fn audience(claims: &Map<String, Value>) -> Result<Vec<String>, ClaimFault> {
    let text = |value: &Value| match value {
        Value::String(one) if one.is_empty() => Err(ClaimFault::NoAudience),
        Value::String(one) => Ok(one.clone()),
        _ => Err(ClaimFault::Form("aud")),
    };
    match claims.get("aud") {
        None => Err(ClaimFault::Missing("aud")),
        Some(Value::Array(many)) if many.is_empty() => Err(ClaimFault::NoAudience),
        Some(Value::Array(many)) => many.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

/// Seconds since the epoch; fractions are cut off (RFC 7519 §2, `NumericDate`).
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<UnixTime>, ClaimFault> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(ClaimFault::Form(name)),
    };
    let seconds = match number.as_u64() {
        Some(seconds) => Some(seconds),
        None => number
            .as_f64()
            .and_then(|f| Duration::try_from_secs_f64(f).ok())
            .map(|d| d.as_secs()),
    };
    let seconds = seconds.ok_or(ClaimFault::Form(name))?;
    Ok(Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds))))
}

/// The beginning of a stranger's text, for a message.
fn short(text: &str) -> String {
    text.chars().take(32).collect()
}
