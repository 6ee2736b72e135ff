//! The wire form of a bundle: what is read is lenient where the standard asks for it (SPIFFE Trust
//! Domain and Bundle §4), what is written has no member beyond the standard.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BundleError, MAX_BUNDLE_BYTES, TrustBundle};
use crate::certificate::Certificate;
use crate::id::TrustDomain;
use crate::jwk::{self, KeyMembers};
use crate::jwt::{JwtKey, JwtKeyError};

impl TrustBundle {
    /// From a SPIFFE JWK set (SPIFFE Trust Domain and Bundle §4). Without `spiffe_sequence` the
    /// sequence is 0.
    ///
    /// # Errors
    /// A [`BundleError`]. Entries of unknown `kty`, `crv` or `use` are skipped, and those meant for
    /// X.509 without `x5c`.
    pub fn from_jwks(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge(json.len()));
        }
        let set: ReadSet = serde_json::from_slice(json).map_err(|e| BundleError::Json(e.to_string()))?;
        let mut certificates = Vec::new();
        let mut jwt_keys = Vec::new();
        for (position, key) in set.keys.iter().enumerate() {
            if let Some(x5c) = key.x5c() {
                certificates.push(certificate(x5c, position)?);
            } else if let Some(read) = key.jwt() {
                jwt_keys.push(read.map_err(|fault| BundleError::JwtKey { position, fault })?);
            }
        }
        let bundle = Self::new(trust_domain, certificates, set.spiffe_sequence.unwrap_or(0))?;
        let mut bundle = bundle.with_jwt_keys(jwt_keys)?;
        bundle.refresh_hint = set.spiffe_refresh_hint.map(Duration::from_secs);
        Ok(bundle)
    }

    /// The SPIFFE JWK set of this bundle: `x509-svid` entries have no `kid` and one certificate in
    /// `x5c`, `jwt-svid` entries have a `kid`.
    #[must_use]
    pub fn to_jwks(&self) -> String {
        let roots = self.roots().iter().map(|r| Jwk::of_root(r.certificate()));
        let keys = self.jwt_keys().iter().map(|key| Jwk {
            usage: Some("jwt-svid"),
            ..Jwk::of_jwt_key(key)
        });
        written(&JwkSet {
            keys: roots.chain(keys).collect(),
            spiffe_sequence: Some(self.sequence),
            spiffe_refresh_hint: self.refresh_hint.map(|hint| hint.as_secs()),
        })
    }

    /// The `jwt-svid` keys alone as a standard JWK set, without `use`, as the Workload API hands them
    /// to generic JWT libraries.
    #[must_use]
    pub fn to_jwt_jwks(&self) -> String {
        written(&JwkSet {
            keys: self.jwt_keys().iter().map(Jwk::of_jwt_key).collect(),
            spiffe_sequence: None,
            spiffe_refresh_hint: None,
        })
    }

    /// The same for OIDC relying parties, which look for `use` = `sig` and `alg` (OpenID Connect
    /// Discovery 1.0 §3).
    #[must_use]
    pub fn to_oidc_jwks(&self) -> String {
        let entry = |key| Jwk {
            usage: Some("sig"),
            alg: Some(JwtKey::algorithm(key)),
            ..Jwk::of_jwt_key(key)
        };
        written(&JwkSet {
            keys: self.jwt_keys().iter().map(entry).collect(),
            spiffe_sequence: None,
            spiffe_refresh_hint: None,
        })
    }
}

fn certificate(x5c: &Value, position: usize) -> Result<Certificate, BundleError> {
    let der = x5c
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .ok_or(BundleError::X5c { position })?;
    Certificate::from_der(CertificateDer::from(der))
        .map_err(|fault| BundleError::Certificate { position, fault })
}

fn written(set: &JwkSet) -> String {
    serde_json::to_string(set).unwrap_or_default()
}

/// A JWK set as read. Members that stand twice are refused by serde, unknown ones ignored.
#[derive(Deserialize)]
struct ReadSet {
    keys: Vec<ReadKey>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

/// An entry as read: members of any type, so that an entry of another kind is skipped and not judged.
#[derive(Deserialize)]
struct ReadKey {
    kty: Option<Value>,
    #[serde(rename = "use")]
    usage: Option<Value>,
    x5c: Option<Value>,
    kid: Option<Value>,
    crv: Option<Value>,
    x: Option<Value>,
    y: Option<Value>,
    n: Option<Value>,
    e: Option<Value>,
}

impl ReadKey {
    /// The first `x5c` value of an entry that is meant for X.509, or nothing for an entry to skip.
    fn x5c(&self) -> Option<&Value> {
        if !is(self.kty.as_ref(), &["EC", "RSA", "OKP"]) || !is(self.usage.as_ref(), &["x509-svid"]) {
            return None;
        }
        match self.x5c.as_ref()? {
            Value::Array(values) => values.first(),
            other => Some(other),
        }
    }

    /// The key of an entry that is meant for JWT-SVIDs, or nothing for an entry to skip: one of another
    /// use, or of a kind that no key accepted here has.
    fn jwt(&self) -> Option<Result<JwtKey, JwtKeyError>> {
        if !is(self.usage.as_ref(), &["jwt-svid"]) {
            return None;
        }
        if is(self.kty.as_ref(), &["RSA"]) {
            return Some(self.rsa());
        }
        if is(self.kty.as_ref(), &["EC"]) {
            return match self.crv.as_ref() {
                Some(Value::String(crv)) if !matches!(crv.as_str(), "P-256" | "P-384") => None,
                Some(Value::String(crv)) => Some(self.point(crv)),
                _ => Some(Err(JwtKeyError::Member("crv"))),
            };
        }
        None
    }

    fn rsa(&self) -> Result<JwtKey, JwtKeyError> {
        let (n, e) = (bytes(self.n.as_ref(), "n")?, bytes(self.e.as_ref(), "e")?);
        JwtKey::new(self.kid()?, jwk::rsa(&n, &e)?)
    }

    fn point(&self, crv: &str) -> Result<JwtKey, JwtKeyError> {
        let (x, y) = (bytes(self.x.as_ref(), "x")?, bytes(self.y.as_ref(), "y")?);
        JwtKey::new(self.kid()?, jwk::point(crv, &x, &y)?)
    }

    fn kid(&self) -> Result<String, JwtKeyError> {
        match &self.kid {
            None => Err(JwtKeyError::NoKid),
            Some(Value::String(kid)) => Ok(kid.clone()),
            Some(_) => Err(JwtKeyError::Kid),
        }
    }
}

fn is(member: Option<&Value>, known: &[&str]) -> bool {
    member
        .and_then(Value::as_str)
        .is_some_and(|text| known.contains(&text))
}

fn bytes(member: Option<&Value>, name: &'static str) -> Result<Vec<u8>, JwtKeyError> {
    member
        .and_then(Value::as_str)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(JwtKeyError::Member(name))
}

/// A JWK set as written.
#[derive(Serialize)]
struct JwkSet {
    keys: Vec<Jwk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Serialize, Default)]
struct Jwk {
    kty: &'static str,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<[String; 1]>,
}

impl Jwk {
    fn of_root(certificate: &Certificate) -> Self {
        let members = certificate.public_key().map(KeyMembers::of);
        Self {
            usage: Some("x509-svid"),
            x5c: Some([STANDARD.encode(certificate.der())]),
            ..Self::of(members.unwrap_or_default())
        }
    }

    fn of_jwt_key(key: &JwtKey) -> Self {
        Self {
            kid: Some(key.kid().into()),
            ..Self::of(KeyMembers::of(key.public_key()))
        }
    }

    fn of(members: KeyMembers) -> Self {
        let KeyMembers { kty, crv, x, y, n, e } = members;
        Self {
            kty,
            crv,
            x,
            y,
            n,
            e,
            ..Self::default()
        }
    }
}
