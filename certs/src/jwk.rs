//! Public keys as JSON Web Keys (RFC 7517, RFC 7518 §6) and their thumbprints (RFC 7638).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::der;
use crate::key::{KeyError, PublicKey};

/// `SubjectPublicKeyInfo` of an uncompressed point, up to the point (RFC 5480 §2).
const P256_HEAD: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
const P384_HEAD: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04";
/// Algorithm identifier `rsaEncryption` with its NULL (RFC 3279 §2.3.1).
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// The members that say which key it is; what a `kty` does not have is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyMembers {
    pub(crate) kty: &'static str,
    pub(crate) crv: Option<&'static str>,
    pub(crate) x: Option<String>,
    pub(crate) y: Option<String>,
    pub(crate) n: Option<String>,
    pub(crate) e: Option<String>,
}

impl KeyMembers {
    /// The members of `public`.
    pub(crate) fn of(public: &PublicKey) -> Self {
        let mut members = Self::default();
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(public.spki_der()) else {
            return members;
        };
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        match spki.parsed() {
            Ok(ParsedKey::EC(point)) => {
                let coordinates = point.data().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                members.kty = "EC";
                members.crv = Some(if x.len() == 32 { "P-256" } else { "P-384" });
                (members.x, members.y) = (text(x), text(y));
            }
            Ok(ParsedKey::RSA(rsa)) => {
                members.kty = "RSA";
                (members.n, members.e) = (text(bare(rsa.modulus)), text(bare(rsa.exponent)));
            }
            _ => {
                members.kty = "OKP";
                members.crv = Some("Ed25519");
                members.x = text(&spki.subject_public_key.data);
            }
        }
        members
    }

    /// The key's name by its own contents: SHA-256 over the required members in the order of their
    /// names, base64url (RFC 7638 §3).
    pub(crate) fn thumbprint(&self) -> String {
        let all = [
            ("crv", self.crv),
            ("e", self.e.as_deref()),
            ("kty", Some(self.kty)),
            ("n", self.n.as_deref()),
            ("x", self.x.as_deref()),
            ("y", self.y.as_deref()),
        ];
        // Every value is of the base64url alphabet or a fixed word, so nothing needs escaping.
        let members: Vec<String> = all
            .iter()
            .filter_map(|(name, value)| value.map(|value| format!("\"{name}\":\"{value}\"")))
            .collect();
        let canonical = format!("{{{}}}", members.join(","));
        let digest = ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }
}

/// Big-endian bytes without leading zeros.
fn bare(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// A point of P-256 or P-384 from its coordinates, each in full length (RFC 7518 §6.2.1).
pub(crate) fn point(crv: &str, x: &[u8], y: &[u8]) -> Result<PublicKey, KeyError> {
    let (head, size) = match crv {
        "P-256" => (P256_HEAD, 32),
        "P-384" => (P384_HEAD, 48),
        other => return Err(KeyError::Unsupported(format!("elliptic curve {other}"))),
    };
    if x.len() != size || y.len() != size {
        return Err(KeyError::Malformed(format!(
            "coordinates of {crv} have {size} bytes each"
        )));
    }
    PublicKey::from_spki_der(&[head, x, y].concat())
}

/// An RSA key from modulus and exponent, big-endian (RFC 7518 §6.3.1).
pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Result<PublicKey, KeyError> {
    let integers = [integer(n), integer(e)].concat();
    let mut bits = vec![0];
    bits.extend(der::wrap(SEQUENCE, &integers));
    let spki = [RSA_ALGORITHM, &der::wrap(BIT_STRING, &bits)].concat();
    PublicKey::from_spki_der(&der::wrap(SEQUENCE, &spki))
}

/// A non-negative DER integer.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let bare = bare(bytes);
    match bare.first() {
        Some(top) if *top < 0x80 => der::wrap(INTEGER, bare),
        _ => der::wrap(INTEGER, &[&[0], bare].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;

    #[test]
    fn a_point_reads_back_from_its_members() {
        let key = SigningKey::generate().unwrap();
        let members = KeyMembers::of(key.public_key());
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text.unwrap()).unwrap();
        let (x, y) = (bytes(members.x), bytes(members.y));
        assert_eq!(point("P-256", &x, &y).as_ref(), Ok(key.public_key()));
        assert!(point("P-384", &x, &y).is_err() && point("P-521", &x, &y).is_err());
        assert!(point("P-256", &x[1..], &y).is_err());
    }

    /// The example of RFC 7638 §3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let modulus = URL_SAFE_NO_PAD.decode(n).unwrap();
        let key = rsa(&modulus, &[1, 0, 1]).unwrap();
        let members = KeyMembers::of(&key);
        assert_eq!(
            (members.n.as_deref(), members.e.as_deref()),
            (Some(n), Some("AQAB"))
        );
        assert_eq!(
            members.thumbprint(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }
}
