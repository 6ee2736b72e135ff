//! A bearer token as a secret: bounded, never printed, wiped.

use std::fmt;

use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

/// Longest token read, in bytes. Projected tokens have about 1,000.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The one scheme, matched exactly, as istiod does on gRPC.
const PREFIX: &str = "Bearer ";

/// A token as sent. Its length is not checked yet; its claims are not read yet.
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// Takes a token over; surrounding white space is no part of it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// The first `authorization` value with the scheme `Bearer `.
    #[must_use]
    pub fn from_metadata(metadata: &MetadataMap) -> Option<Self> {
        metadata
            .get_all("authorization")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(|value| value.strip_prefix(PREFIX))
            .map(Self::new)
    }

    /// SHA-256 of the token: how caches know it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.0.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        hash
    }

    /// The token itself: for the API server that issued it, and for checking its parts.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerToken({} bytes)", self.0.len())
    }
}
