//! One public `jwt-svid` key of a bundle (JWT-SVID §6.1).

use std::fmt;

use super::algorithm::Algorithm;
use crate::jwk::KeyMembers;
use crate::key::{KeyError, KeyKind, PublicKey};

/// Longest `kid` read, in bytes. Ours have 43.
pub const MAX_KID_BYTES: usize = 256;

/// Why a key cannot verify or sign JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The entry has no `kid`, which every one of them must have.
    #[error("has no kid")]
    NoKid,
    /// The `kid` is empty, too long or not printable.
    #[error("has a kid that is no text of 1 to {MAX_KID_BYTES} printable bytes")]
    Kid,
    /// A member that its kind of key needs is missing or is not base64url.
    #[error("member {0} is missing or is not base64url without padding")]
    Member(&'static str),
    /// The key is weak, malformed or of an unknown kind.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No algorithm of JWT-SVIDs signs with such a key.
    #[error("is of kind {0}, with which no JWT-SVID is signed; use P-256, P-384 or RSA")]
    Kind(KeyKind),
}

/// A public key that verifies JWT-SVIDs, under the name its trust domain gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtKey {
    kid: String,
    key: PublicKey,
}

impl JwtKey {
    /// A key under the name `kid`.
    ///
    /// # Errors
    /// [`JwtKeyError::Kid`] and [`JwtKeyError::Kind`].
    pub fn new(kid: String, key: PublicKey) -> Result<Self, JwtKeyError> {
        if !kid_is_sound(&kid) {
            return Err(JwtKeyError::Kid);
        }
        match Algorithm::of_signer(key.kind()) {
            Some(_) => Ok(Self { kid, key }),
            None => Err(JwtKeyError::Kind(key.kind())),
        }
    }

    /// A key under the name that follows from its contents (RFC 7638).
    ///
    /// # Errors
    /// [`JwtKeyError::Kind`].
    pub fn by_thumbprint(key: PublicKey) -> Result<Self, JwtKeyError> {
        Self::new(KeyMembers::of(&key).thumbprint(), key)
    }

    /// Its name in token headers.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The algorithm a holder of the private half uses here; another of the same family verifies too.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        Algorithm::of_signer(self.key.kind()).map_or("", Algorithm::name)
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({:?}, {})", self.kid, self.key.kind())
    }
}

/// A name that fits in a log line and a table.
pub(super) fn kid_is_sound(kid: &str) -> bool {
    (1..=MAX_KID_BYTES).contains(&kid.len()) && !kid.chars().any(char::is_control)
}
