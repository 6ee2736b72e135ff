//! What a service-account token says of itself (RFC 7519), read without trust: enough to refuse what
//! cannot pass before anyone else is asked.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use signet_certs::account_token::{self, AccountClaims, account_of_user};
use signet_certs::lifetime::{minus, plus};
use signet_certs::{ServiceAccountId, UnixTime};

use super::token::{BearerToken, MAX_TOKEN_BYTES};

/// The API server's clock may be this far from ours; it has the last word on time.
const LEEWAY: Duration = Duration::from_secs(30);

/// Why a token cannot pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsFault {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("has {0} bytes, at most {MAX_TOKEN_BYTES} are read")]
    TooLarge(usize),
    /// Not three base64url parts with JSON in the first two.
    #[error("is not a signed JWT; is the whole file sent?")]
    NotJws,
    /// An algorithm that no API server uses.
    #[error("is signed with {0:?}, which is not accepted")]
    Algorithm(String),
    /// For somebody else.
    #[error("is for audience {found:?}, this CA accepts {accepted:?}")]
    Audience {
        /// Audiences in the token.
        found: Vec<String>,
        /// Audiences the CA accepts.
        accepted: Vec<String>,
    },
    /// Past its end.
    #[error("expired {0} s ago")]
    Expired(u64),
    /// Without an end, as legacy Secret tokens are.
    #[error("has no expiry; use a projected token, not a legacy Secret token")]
    NoExpiry,
    /// Not valid yet.
    #[error("is not valid for another {0} s; compare this machine's clock with the API server's")]
    NotYetValid(u64),
    /// Not a service account's.
    #[error("belongs to {0:?}, which is not a service account")]
    Subject(String),
}

impl ClaimsFault {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "token_empty",
            Self::TooLarge(_) => "token_too_large",
            Self::NotJws => "token_malformed",
            Self::Algorithm(_) => "token_algorithm",
            Self::Audience { .. } => "token_audience",
            Self::Expired(_) => "token_expired",
            Self::NoExpiry => "token_no_expiry",
            Self::NotYetValid(_) => "token_not_yet_valid",
            Self::Subject(_) => "token_subject",
        }
    }
}

/// Signature algorithms API servers sign with (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// ECDSA P-256 with SHA-256.
    Es256,
    /// ECDSA P-384 with SHA-384.
    Es384,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// A public-key algorithm that is not checked here: the review decides alone.
    Unchecked,
}

impl Algorithm {
    /// By its name. Nothing for `none`, for shared secrets, and for what no registry knows.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            // P-521 and the Edwards curves (RFC 7518 §3.1, RFC 8037, RFC 9864).
            "ES512" | "EdDSA" | "Ed25519" | "Ed448" => Self::Unchecked,
            _ => return None,
        })
    }
}

/// A token's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Signature algorithm, from the allow-list.
    pub algorithm: Algorithm,
    /// Which key signed.
    pub key_id: Option<String>,
    /// Audiences.
    pub audiences: Vec<String>,
    /// First moment past its end.
    pub expires: UnixTime,
    /// First moment it holds.
    pub not_before: Option<UnixTime>,
    /// The account in `sub`.
    pub account: ServiceAccountId,
    /// Issuer, for showing.
    pub issuer: Option<String>,
    /// The pod it is bound to, for showing.
    pub pod: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
}

/// Reads the claims of a token, judging only its form.
///
/// # Errors
/// The first [`ClaimsFault`] of form.
pub fn read(token: &BearerToken) -> Result<Claims, ClaimsFault> {
    let text = token.expose();
    match text.len() {
        0 => return Err(ClaimsFault::Empty),
        len if len > MAX_TOKEN_BYTES => return Err(ClaimsFault::TooLarge(len)),
        _ => {}
    }
    let [header, ..] = parts(text).ok_or(ClaimsFault::NotJws)?;
    let header: Header = decode(header)?;
    let said = AccountClaims::read(text).map_err(|_| ClaimsFault::NotJws)?;
    let algorithm = Algorithm::named(&header.alg)
        .ok_or_else(|| ClaimsFault::Algorithm(header.alg.chars().take(16).collect()))?;
    let subject = said.subject.unwrap_or_default();
    let account = account_of_user(&subject).ok_or_else(|| ClaimsFault::Subject(shorten(&subject)))?;
    Ok(Claims {
        algorithm,
        key_id: header.kid,
        audiences: said.audiences,
        expires: said.expires_at.ok_or(ClaimsFault::NoExpiry)?,
        not_before: said.not_before,
        account,
        issuer: said.issuer,
        pod: said.pod.map(|(name, _)| name),
    })
}

/// Reads the claims and refuses a token that cannot pass at `now` for one of `accepted` audiences.
///
/// # Errors
/// The first [`ClaimsFault`].
pub fn check(token: &BearerToken, accepted: &[String], now: UnixTime) -> Result<Claims, ClaimsFault> {
    let claims = read(token)?;
    if !claims
        .audiences
        .iter()
        .any(|audience| accepted.contains(audience))
    {
        let found = claims.audiences.iter().take(8).map(|a| shorten(a)).collect();
        return Err(ClaimsFault::Audience {
            found,
            accepted: accepted.to_vec(),
        });
    }
    if plus(claims.expires, LEEWAY) <= now {
        return Err(ClaimsFault::Expired(now.as_secs() - claims.expires.as_secs()));
    }
    match claims.not_before {
        Some(start) if minus(start, LEEWAY) > now => {
            Err(ClaimsFault::NotYetValid(start.as_secs() - now.as_secs()))
        }
        _ => Ok(claims),
    }
}

/// Header, claims and signature, still encoded, and none of them empty.
pub(super) fn parts(text: &str) -> Option<[&str; 3]> {
    let parts = account_token::parts(text).ok()?;
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, ClaimsFault> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| ClaimsFault::NotJws)?;
    serde_json::from_slice(&json).map_err(|_| ClaimsFault::NotJws)
}

/// Text from a stranger, short enough for a log line.
fn shorten(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;
