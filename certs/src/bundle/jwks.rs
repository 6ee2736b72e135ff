//! The wire form of a bundle: what is read is lenient where the standard asks for it (SPIFFE Trust
//! Domain and Bundle §4), what is written has no member beyond the standard.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::Certificate;

/// A JWK set as read. Members that stand twice are refused by serde, unknown ones ignored.
#[derive(Deserialize)]
pub(super) struct ReadSet {
    pub(super) keys: Vec<ReadKey>,
    pub(super) spiffe_sequence: Option<u64>,
    pub(super) spiffe_refresh_hint: Option<u64>,
}

/// An entry as read: members of any type, so that an entry of another kind is skipped and not judged.
#[derive(Deserialize)]
pub(super) struct ReadKey {
    kty: Option<Value>,
    #[serde(rename = "use")]
    usage: Option<Value>,
    x5c: Option<Value>,
}

impl ReadKey {
    /// The first `x5c` value of an entry that is meant for X.509, or nothing for an entry to skip.
    pub(super) fn x5c(&self) -> Option<&Value> {
        let is = |member: &Option<Value>, known: &[&str]| {
            member
                .as_ref()
                .and_then(Value::as_str)
                .is_some_and(|text| known.contains(&text))
        };
        if !is(&self.kty, &["EC", "RSA", "OKP"]) || !is(&self.usage, &["x509-svid"]) {
            return None;
        }
        match self.x5c.as_ref()? {
            Value::Array(values) => values.first(),
            other => Some(other),
        }
    }
}

/// A JWK set as written.
#[derive(Serialize)]
pub(super) struct JwkSet {
    pub(super) keys: Vec<Jwk>,
    pub(super) spiffe_sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spiffe_refresh_hint: Option<u64>,
}

#[derive(Serialize, Default)]
pub(super) struct Jwk {
    kty: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    x5c: [String; 1],
}

impl Jwk {
    pub(super) fn from_certificate(certificate: &Certificate) -> Self {
        let mut key = Self {
            usage: "x509-svid",
            x5c: [STANDARD.encode(certificate.der())],
            ..Self::default()
        };
        let Ok(public) = certificate.public_key() else {
            return key;
        };
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(public.spki_der()) else {
            return key;
        };
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        match spki.parsed() {
            Ok(ParsedKey::EC(point)) => {
                let coordinates = point.data().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                key.kty = "EC";
                key.crv = Some(if x.len() == 32 { "P-256" } else { "P-384" });
                (key.x, key.y) = (text(x), text(y));
            }
            Ok(ParsedKey::RSA(rsa)) => {
                let bare = |bytes: &[u8]| bytes.iter().copied().skip_while(|b| *b == 0).collect::<Vec<_>>();
                key.kty = "RSA";
                (key.n, key.e) = (text(&bare(rsa.modulus)), text(&bare(rsa.exponent)));
            }
            _ => {
                key.kty = "OKP";
                key.crv = Some("Ed25519");
                key.x = text(&spki.subject_public_key.data);
            }
        }
        key
    }
}
