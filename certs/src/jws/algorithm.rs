//! The signature algorithms that a request token may name (RFC 7518 §3.1, RFC 8037 §3.1): asymmetric ones.

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::jwt::algorithm::Algorithm as Sha2;
use crate::key::{KeyKind, PublicKey};

/// One that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSA or ECDSA with SHA-2, as JWT-SVIDs have it.
    Sha2(Sha2),
    /// Ed25519, the one curve of it that keys here have.
    EdDsa,
}

impl Algorithm {
    /// By its name, which is case-sensitive.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::EdDsa),
            other => Sha2::named(other).map(Self::Sha2),
        }
    }

    /// Whether a key of this kind may have made such a signature.
    pub(super) fn fits(self, kind: KeyKind) -> bool {
        match self {
            Self::Sha2(algorithm) => algorithm.fits(kind),
            Self::EdDsa => kind == KeyKind::Ed25519,
        }
    }

    /// Whether `signature` is by `key` over `message`; never for a key that does not fit.
    pub(super) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Sha2(algorithm) => algorithm.verifies(key, message, signature),
            Self::EdDsa => {
                self.fits(key.kind())
                    && UnparsedPublicKey::new(&ED25519, key.raw_bits())
                        .verify(message, signature)
                        .is_ok()
            }
        }
    }
}
