//! Writes the seeds of `jwt_svid` and the bundles they are judged by anew:
//! `cargo run -p signet-fuzz --example jwt_seeds`. One token per defect; `tests/replay.rs` knows the
//! reason each must give.

use std::error::Error;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use signet_certs::{JwtKey, SigningKey, TrustBundle};
use signet_fuzz::FIXTURE_TIME as NOW;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// A key as a foreign issuer holds it.
struct Issuer {
    pair: EcdsaKeyPair,
    public: JwtKey,
}

impl Issuer {
    fn fresh() -> Result<Self, Box<dyn Error>> {
        let key = SigningKey::generate()?;
        let pkcs8 = key.expose_pkcs8_der()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(|e| e.to_string())?;
        Ok(Self {
            pair,
            public: JwtKey::by_thumbprint(key.public_key().clone())?,
        })
    }

    fn token(&self, header: &str, claims: &str) -> Result<String, Box<dyn Error>> {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|e| e.to_string())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `base` with one member set, or left out where `value` is null.
fn with(base: &Value, name: &str, value: Value) -> String {
    let mut changed = base.clone();
    if let Some(members) = changed.as_object_mut() {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.into(), value)),
        }
    }
    changed.to_string()
}

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(home.join("corpus/jwt_svid"))?;
    let (ours, theirs) = (Issuer::fresh()?, Issuer::fresh()?);
    let x509_only = Issuer::fresh()?;
    for (domain, issuer) in [("cluster.local", &ours), ("other.test", &theirs)] {
        let bundle = TrustBundle::new(domain.parse()?, Vec::new(), 1)?;
        let bundle = bundle.with_jwt_keys(vec![issuer.public.clone()])?;
        let path = format!("fixtures/jwt-{domain}.json");
        std::fs::write(home.join(path), bundle.to_jwks())?;
    }
    let header = json!({"alg": "ES256", "kid": ours.public.kid(), "typ": "JWT"});
    let claims = json!({"sub": ID, "aud": "https://vault.test", "exp": NOW + 300, "iat": NOW});
    let (h, c) = (header.to_string(), claims.to_string());
    let sound = ours.token(&h, &c)?;
    let parts: Vec<&str> = sound.split('.').collect();
    let [first, second, third] = parts.as_slice() else {
        return Err("three parts".into());
    };

    let mut seeds: Vec<(String, String)> = Vec::new();
    let mut seed = |name: &str, token: String| seeds.push((name.to_owned(), token));
    seed("sound", sound.clone());
    seed(
        "sound-of-another-domain",
        theirs.token(
            &with(&header, "kid", json!(theirs.public.kid())),
            &with(&claims, "sub", json!("spiffe://other.test/a")),
        )?,
    );
    seed(
        "sound-without-kid",
        ours.token(&with(&header, "kid", Value::Null), &c)?,
    );
    for (name, member, value) in [
        ("alg-none", "alg", json!("none")),
        ("alg-hs256", "alg", json!("HS256")),
        ("alg-eddsa", "alg", json!("EdDSA")),
        ("alg-lower-case", "alg", json!("es256")),
        ("alg-of-another-key", "alg", json!("RS256")),
        ("alg-missing", "alg", Value::Null),
        ("typ-other", "typ", json!("at+jwt")),
        ("kid-unknown", "kid", json!("unknown")),
        ("kid-of-another-domain", "kid", json!(theirs.public.kid())),
        ("kid-of-an-x509-key", "kid", json!(x509_only.public.kid())),
        ("header-jku", "jku", json!("https://evil.test/keys")),
        ("header-jwk", "jwk", json!({"kty": "oct"})),
        ("header-x5u", "x5u", json!("https://evil.test/c")),
        ("header-x5c", "x5c", json!(["AA=="])),
        ("header-crit", "crit", json!(["exp"])),
        ("header-private", "x", json!(1)),
    ] {
        seed(name, ours.token(&with(&header, member, value), &c)?);
    }
    for (name, member, value) in [
        ("exp-missing", "exp", Value::Null),
        ("exp-past", "exp", json!(NOW - 3600)),
        ("exp-text", "exp", json!("soon")),
        ("nbf-future", "nbf", json!(NOW + 3600)),
        ("iat-future", "iat", json!(NOW + 3600)),
        ("aud-missing", "aud", Value::Null),
        ("aud-none", "aud", json!([])),
        ("aud-empty", "aud", json!("")),
        ("aud-wrong", "aud", json!(["https://other.test"])),
        ("sub-missing", "sub", Value::Null),
        ("sub-not-spiffe", "sub", json!("someone@example.test")),
        ("sub-trust-domain", "sub", json!("spiffe://cluster.local")),
        ("sub-trailing-slash", "sub", json!("spiffe://cluster.local/a/")),
        ("sub-capitals", "sub", json!("SPIFFE://Cluster.local/a")),
        ("sub-of-an-unknown-domain", "sub", json!("spiffe://third.test/a")),
        ("sub-of-another-domain", "sub", json!("spiffe://other.test/a")),
    ] {
        seed(name, ours.token(&h, &with(&claims, member, value))?);
    }
    seed("signed-by-another-domain", theirs.token(&h, &c)?);
    let altered = URL_SAFE_NO_PAD.encode(with(&claims, "exp", json!(NOW + 9000)));
    seed("payload-altered", format!("{first}.{altered}.{third}"));
    seed("signature-empty", format!("{first}.{second}."));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, ours.public.public_key().spki_der());
    let confused = format!(
        "{}.{second}",
        URL_SAFE_NO_PAD.encode(with(&header, "alg", json!("HS256")))
    );
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, confused.as_bytes()));
    seed("hs256-with-the-public-key", format!("{confused}.{tag}"));
    let flattened = json!({"protected": first, "payload": second, "signature": third});
    seed("json-serialization", flattened.to_string());
    seed("two-parts", format!("{first}.{second}"));
    seed("four-parts", format!("{sound}.{third}"));
    seed("five-parts", format!("{first}.{second}.{third}.{second}.{third}"));
    seed("padded", format!("{first}.{}.{third}", URL_SAFE.encode(&c) + "="));
    seed(
        "member-twice",
        ours.token(
            &h,
            &c.replacen('{', "{\"sub\":\"spiffe://cluster.local/root\",", 1),
        )?,
    );
    seed("header-no-object", ours.token("[]", &c)?);
    let spki = ours.public.public_key().spki_der();
    let old = json!({
        "kid": ours.public.kid(), "public_key": base64::engine::general_purpose::STANDARD.encode(spki),
        "private_key": null, "published_at": NOW, "phase": "old", "at": NOW + 60,
    });
    let state = json!({
        "schema": 2, "trust_domain": "cluster.local", "sequence": 3, "roots": [], "active": null,
        "jwt_keys": [old],
    });
    std::fs::write(home.join("corpus/ca_state/old-jwt-key"), state.to_string())?;
    for (name, token) in seeds {
        std::fs::write(home.join("corpus/jwt_svid").join(name), token)?;
    }
    Ok(())
}
