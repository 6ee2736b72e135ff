//! Writes the seeds of `jwt_request` and `jwks`, and the keys they are judged by, anew:
//! `cargo run -p signet-fuzz --example request_token_seeds`.

use std::error::Error;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

fn main() -> Result<(), Box<dyn Error>> {
    let (random, form) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let unspoken = |_| "no key could be made";
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(form, &random).map_err(unspoken)?;
    let p256 = EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref(), &random).map_err(|e| e.to_string())?;
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(unspoken)?;
    let ed25519 = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|e| e.to_string())?;
    let point = p256.public_key().as_ref().get(1..).unwrap_or_default();
    let (x, y) = point.split_at(point.len() / 2);
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let ec = format!(
        r#"{{"kty":"EC","crv":"P-256","kid":"a","use":"sig","x":"{}","y":"{}"}}"#,
        text(x),
        text(y)
    );
    let okp = format!(
        r#"{{"kty":"OKP","crv":"Ed25519","kid":"b","alg":"EdDSA","x":"{}"}}"#,
        text(ed25519.public_key().as_ref())
    );
    let signed = |algorithm: &str, kid: &str, claims: &str| -> Result<String, Box<dyn Error>> {
        let header = text(format!(r#"{{"alg":"{algorithm}","kid":"{kid}"}}"#).as_bytes());
        let message = format!("{header}.{}", text(claims.as_bytes()));
        let signature = match algorithm {
            "EdDSA" => ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            _ => p256
                .sign(&random, message.as_bytes())
                .map_err(unspoken)?
                .as_ref()
                .to_vec(),
        };
        Ok(format!("{message}.{}", text(&signature)))
    };
    let good = signed(
        "ES256",
        "a",
        r#"{"iss":"https://issuer.test","sub":"alice","aud":"shop"}"#,
    )?;
    let other = signed(
        "EdDSA",
        "b",
        r#"{"iss":"https://issuer.test","sub":"bob","aud":["x","shop"]}"#,
    )?;
    let later = signed("ES256", "a", r#"{"iss":"https://later.test","sub":"s"}"#)?;
    let audience = signed(
        "ES256",
        "a",
        r#"{"iss":"https://issuer.test","sub":"s","aud":"mall"}"#,
    )?;
    let expired = signed(
        "ES256",
        "a",
        r#"{"iss":"https://issuer.test","sub":"s","aud":"shop","exp":1}"#,
    )?;
    let none = signed(
        "none",
        "a",
        r#"{"iss":"https://issuer.test","sub":"s","aud":"shop"}"#,
    )?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::write(
        root.join("fixtures/request-keys.json"),
        format!("{{\"keys\":[{ec},{okp}]}}\n"),
    )?;
    let write = |target: &str, name: &str, contents: String| {
        let dir = root.join("corpus").join(target);
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join(name), contents))
    };
    let seeds = [
        (
            "header",
            format!("/\nauthorization: Bearer {good}\nx-sub: forged"),
        ),
        ("ed25519", format!("/\nx-token: {other}")),
        ("query", format!("/p?a=1&t={good}")),
        ("cookie", format!("/\ncookie: a=1; t=\"{good}\"; b")),
        ("two", format!("/?t={good}\nx-token: {other}")),
        ("beside", format!("/?t=junk\nx-token: {good}")),
        ("none", "/\nx-sub: forged\nauthorization: Basic eDp5".to_owned()),
        ("keyless", format!("/\nauthorization: Bearer {later}")),
        ("audience", format!("/\nauthorization: bearer {audience}")),
        ("expired", format!("/\nx-token: {expired}")),
        ("unsigned", format!("/\nx-token: {none}")),
    ];
    for (name, contents) in seeds {
        write("jwt_request", name, contents)?;
    }
    write("jwks", "sound", format!("{{\"keys\":[{ec},{okp}]}}"))?;
    write(
        "jwks",
        "mixed",
        format!(r#"{{"keys":[{{"kty":"oct","k":"eA"}},{ec},{{"kty":"RSA"}}]}}"#),
    )?;
    write("jwks", "empty", r#"{"keys":[]}"#.to_owned())?;
    Ok(())
}
