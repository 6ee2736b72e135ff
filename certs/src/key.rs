//! Keys: private ones that can sign but not be copied or printed, public ones that are strong enough.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::SignatureScheme;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::{Zeroize, Zeroizing};

use crate::der::nest;

/// Smallest RSA modulus accepted anywhere, in bits (NIST SP 800-57 part 1, 112-bit strength).
pub const MIN_RSA_BITS: usize = 2048;
/// Largest RSA modulus accepted: verification cost grows with its square, and callers are strangers.
pub const MAX_RSA_BITS: usize = 8192;
/// Longest public key read, in bytes of DER; an 8192-bit RSA key needs about 1,100.
const MAX_SPKI_BYTES: usize = 2048;

/// Why a key is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a key, or not in a form that is read here.
    #[error("key cannot be read: {0}")]
    Malformed(String),
    /// An RSA modulus below [`MIN_RSA_BITS`] or above [`MAX_RSA_BITS`].
    #[error("rsa key has {0} bits, {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")]
    RsaBits(usize),
    /// A curve or algorithm outside the allow-list.
    #[error("key type {0} is not accepted; use P-256, P-384, Ed25519 or RSA of at least {MIN_RSA_BITS} bits")]
    Unsupported(String),
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Random,
    /// Signing failed, which for a loaded key means the random source did.
    #[error("signing failed")]
    Sign,
}

/// What kind of key it is. Everything else is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256, our own default.
    P256,
    /// ECDSA on P-384.
    P384,
    /// EdDSA on Curve25519.
    Ed25519,
    /// RSA with this many modulus bits.
    Rsa(usize),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa(bits) => write!(f, "RSA-{bits}"),
        }
    }
}

/// A public key of an accepted kind and strength.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Arc<[u8]>,
    /// How many bytes at the end of the SPKI are the key itself.
    bits: usize,
    kind: KeyKind,
}

/// The three kinds that make up nearly all keys have SPKIs of one fixed form (RFC 5480 §2, RFC 8410
/// §4): head, then the key. The head ends with the bit string's count of unused bits.
const FIXED_FORMS: &[(KeyKind, &[u8], usize)] = &[
    (KeyKind::P256, b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00", 65),
    (KeyKind::P384, b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00", 97),
    (KeyKind::Ed25519, b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32),
];

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`, bounded to 2 KiB.
    ///
    /// # Errors
    /// A [`KeyError`] naming what is wrong: unreadable, unsupported, or an RSA size out of bounds.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() > MAX_SPKI_BYTES {
            return Err(KeyError::Malformed(format!("{} bytes of public key", der.len())));
        }
        for (kind, head, bits) in FIXED_FORMS {
            let uncompressed = |key: &[u8]| *kind == KeyKind::Ed25519 || key.first() == Some(&4);
            if der
                .strip_prefix(*head)
                .is_some_and(|key| key.len() == *bits && uncompressed(key))
            {
                return Ok(Self {
                    spki: der.into(),
                    bits: *bits,
                    kind: *kind,
                });
            }
        }
        let (rest, spki) =
            SubjectPublicKeyInfo::from_der(der).map_err(|e| KeyError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(KeyError::Malformed("bytes after the key".into()));
        }
        let kind = kind_of(&spki)?;
        let bits = spki.subject_public_key.data.len();
        // rcgen reads the key again when it writes it; a key it cannot carry is refused here, once.
        rcgen::SubjectPublicKeyInfo::from_der(der)
            .map_err(|_| KeyError::Unsupported(spki.algorithm.algorithm.to_string()))?;
        Ok(Self {
            spki: der.into(),
            bits,
            kind,
        })
    }

    /// The key as DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// First eight bytes of the key's SHA-256, in hex: enough to tell keys apart in a log.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.spki);
        hex(digest.as_ref().get(..8).unwrap_or_default())
    }

    /// Appends the `SubjectPublicKeyInfo` in the one form of its kind (RFC 5480 §2, RFC 8410 §4, RFC 3279
    /// §2.3.1), whatever form it was read in.
    pub(crate) fn write_spki(&self, out: &mut Vec<u8>) {
        const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
        if let Some((_, head, _)) = FIXED_FORMS.iter().find(|(kind, ..)| *kind == self.kind) {
            out.extend_from_slice(head);
            out.extend_from_slice(self.raw_bits());
            return;
        }
        nest(out, 0x30, |out| {
            out.extend_from_slice(RSA);
            nest(out, 0x03, |out| {
                out.push(0);
                out.extend_from_slice(self.raw_bits());
            });
        });
    }

    /// The raw key bits (a point, or an RSAPublicKey structure), as signature checks want them.
    pub(crate) fn raw_bits(&self) -> &[u8] {
        self.spki.get(self.spki.len() - self.bits..).unwrap_or_default()
    }
}

/// rcgen writes the key from its parts; every kind accepted has one algorithm identifier.
impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.raw_bits()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.kind {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
            KeyKind::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.kind, self.fingerprint())
    }
}

fn kind_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, KeyError> {
    const EC: &str = "1.2.840.10045.2.1";
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const ED25519: &str = "1.3.101.112";
    const RSA: &str = "1.2.840.113549.1.1.1";
    let algorithm = spki.algorithm.algorithm.to_id_string();
    let point_of = |len: usize| match spki.parsed() {
        Ok(ParsedKey::EC(point)) if point.data().len() == len && point.data().first() == Some(&4) => Ok(()),
        _ => Err(KeyError::Malformed("not an uncompressed point".into())),
    };
    match algorithm.as_str() {
        EC => {
            let named = spki.algorithm.parameters.as_ref().filter(|p| p.tag() == Tag::Oid);
            let curve = named.and_then(|p| p.as_oid().ok());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some(P256) => point_of(65).map(|()| KeyKind::P256),
                Some(P384) => point_of(97).map(|()| KeyKind::P384),
                Some(other) => Err(KeyError::Unsupported(format!("elliptic curve {other}"))),
                None => Err(KeyError::Malformed("elliptic curve is not named".into())),
            }
        }
        ED25519 if spki.subject_public_key.data.len() == 32 => Ok(KeyKind::Ed25519),
        RSA => match spki.parsed() {
            Ok(ParsedKey::RSA(rsa)) => {
                let modulus = rsa.modulus.iter().skip_while(|b| **b == 0);
                let bits = match modulus.clone().next() {
                    Some(top) => modulus.count() * 8 - top.leading_zeros() as usize,
                    None => 0,
                };
                if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                    Ok(KeyKind::Rsa(bits))
                } else {
                    Err(KeyError::RsaBits(bits))
                }
            }
            _ => Err(KeyError::Malformed("not an rsa key".into())),
        },
        other => Err(KeyError::Unsupported(other.into())),
    }
}

/// A private key. It signs; it cannot be cloned, printed or serialized by accident. Its encoded form
/// is wiped when the last owner lets go; what ring keeps inside is not (see SECURITY.md).
pub struct SigningKey {
    inner: Arc<dyn rustls::sign::SigningKey>,
    encoded: Encoded,
    public: PublicKey,
}

/// The key's DER, wiped on drop.
struct Encoded(PrivateKeyDer<'static>);

impl Drop for Encoded {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SigningKey {
    /// A fresh P-256 key.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system's random source fails.
    pub fn generate() -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Random)?;
        Self::from_der(PrivatePkcs8KeyDer::from(document.as_ref().to_vec()).into())
    }

    /// Reads one PEM private key: PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// A [`KeyError`]; its text never holds key bytes.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
            KeyError::Malformed("no PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY block in PEM".into())
        })?;
        Self::from_der(der)
    }

    /// Takes a DER private key over; the bytes are wiped when the key is dropped.
    ///
    /// # Errors
    /// As [`SigningKey::from_pem`].
    pub fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let encoded = Encoded(der);
        let inner = rustls::crypto::ring::sign::any_supported_type(&encoded.0)
            .map_err(|_| KeyError::Unsupported("of this private key".into()))?;
        let spki = inner
            .public_key()
            .ok_or_else(|| KeyError::Malformed("key has no public half".into()))?;
        let public = PublicKey::from_spki_der(spki.as_ref())?;
        Ok(Self {
            inner,
            encoded,
            public,
        })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message` with the key's own algorithm: ECDSA with the hash of the curve's size (ASN.1
    /// form), Ed25519, or RSA PKCS#1 v1.5 with SHA-256.
    ///
    /// # Errors
    /// [`KeyError::Sign`] when the random source fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let scheme = match self.public.kind {
            KeyKind::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            KeyKind::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            KeyKind::Ed25519 => SignatureScheme::ED25519,
            KeyKind::Rsa(_) => SignatureScheme::RSA_PKCS1_SHA256,
        };
        let signer = self.inner.choose_scheme(&[scheme]).ok_or(KeyError::Sign)?;
        signer.sign(message).map_err(|_| KeyError::Sign)
    }

    /// The key for rustls, which signs handshakes with it.
    pub(crate) fn for_rustls(&self) -> Arc<dyn rustls::sign::SigningKey> {
        Arc::clone(&self.inner)
    }

    /// The private key as DER, PKCS#8 for every key made here. Only for a socket whose peer was
    /// checked, or a file the operator asked for (I3).
    ///
    /// # Errors
    /// [`KeyError::Unsupported`] for a key that was read in another form than PKCS#8.
    pub fn expose_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.encoded.0 {
            PrivateKeyDer::Pkcs8(der) => Ok(Zeroizing::new(der.secret_pkcs8_der().to_vec())),
            _ => Err(KeyError::Unsupported("in another form than PKCS#8".into())),
        }
    }

    /// The private key as PEM in the form it was made or read in. The same caution as
    /// [`SigningKey::expose_pkcs8_der`].
    #[must_use]
    pub fn expose_pem(&self) -> Zeroizing<String> {
        let (label, der) = match &self.encoded.0 {
            PrivateKeyDer::Pkcs1(der) => ("RSA PRIVATE KEY", der.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(der) => ("EC PRIVATE KEY", der.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(der) => ("PRIVATE KEY", der.secret_pkcs8_der()),
            _ => ("PRIVATE KEY", [].as_slice()),
        };
        Zeroizing::new(crate::der::pem(label, der))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SigningKey({}, {})",
            self.public.kind,
            self.public.fingerprint()
        )
    }
}

/// rcgen signs through this: it sees the key only as something that can sign.
pub(crate) struct RcgenKey(Arc<SigningKey>);

impl RcgenKey {
    pub(crate) fn new(key: Arc<SigningKey>) -> Self {
        Self(key)
    }

    pub(crate) fn key(&self) -> &Arc<SigningKey> {
        &self.0
    }
}

impl rcgen::PublicKeyData for RcgenKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.public.algorithm()
    }
}

impl rcgen::SigningKey for RcgenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?');
    let mut text = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    String::from_utf8(text).unwrap_or_default()
}
