//! Tokens are made here with ring and rcgen's keys; foreign ones are in `tests/tests/system/proxy_jwt.rs`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::UnixTime;

use super::*;

const SKEW: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// One issuer with a key on P-256 and one on Curve25519.
struct Issuer {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
        }
    }

    /// The key on P-256 with these further members.
    fn ec(&self, more: &str) -> String {
        let (x, y) = self.p256.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{more}}}"#)
    }

    fn okp(&self, more: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.ed25519.public_key().as_ref());
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{more}}}"#)
    }

    fn signed(&self, header: &str, claims: &str) -> String {
        let head = URL_SAFE_NO_PAD.encode(header);
        let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = if header.contains("EdDSA") {
            self.ed25519.sign(message.as_bytes()).as_ref().to_vec()
        } else {
            let random = SystemRandom::new();
            self.p256
                .sign(&random, message.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec()
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(keys: &[String]) -> KeySet {
    KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes()).unwrap()
}

fn verdict(token: &str, keys: &KeySet) -> Result<(), TokenFault> {
    Token::read(token).and_then(|token| token.verify(keys))
}

#[test]
fn a_key_verifies_only_what_its_issuer_says_it_is_for() {
    let issuer = Issuer::new();
    let token = issuer.signed(r#"{"alg":"ES256","kid":"a"}"#, r#"{"iss":"i"}"#);
    for (more, expected) in [
        ("", Ok(())),
        (r#","kid":"a""#, Ok(())),
        (
            r#","kid":"a","alg":"ES256","use":"sig","key_ops":["verify"]"#,
            Ok(()),
        ),
        (r#","kid":"b""#, Err(TokenFault::UnknownKid)),
    ] {
        assert_eq!(verdict(&token, &set(&[issuer.ec(more)])), expected, "{more}");
    }
    let named = set(&[issuer.okp(r#","kid":"a""#), issuer.ec(r#","kid":"b""#)]);
    assert_eq!(verdict(&token, &named), Err(TokenFault::NoKeyFits));
    let nameless = issuer.signed(r#"{"alg":"ES256"}"#, "{}");
    assert_eq!(verdict(&nameless, &named), Ok(()));
    let other = set(&[Issuer::new().ec(r#","kid":"a""#)]);
    assert_eq!(verdict(&token, &other), Err(TokenFault::Signature));
}

#[test]
fn a_key_that_cannot_be_used_is_left_out_with_its_reason_and_the_others_stay() {
    let issuer = Issuer::new();
    let weak = format!(
        r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#,
        URL_SAFE_NO_PAD.encode([0xff; 128])
    );
    for (bad, fault) in [
        (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), KeyFault::Shared),
        (
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#.to_owned(),
            KeyFault::Kind,
        ),
        (
            r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.to_owned(),
            KeyFault::Kind,
        ),
        (r#"{"kid":"a"}"#.to_owned(), KeyFault::Member("kty")),
        (r#"{"kty":"RSA","n":"AA"}"#.to_owned(), KeyFault::Member("e")),
        (weak, KeyFault::Key(crate::key::KeyError::RsaBits(1024))),
        (issuer.ec(r#","use":"enc""#), KeyFault::Use),
        (issuer.ec(r#","key_ops":["sign"]"#), KeyFault::Operations),
        (issuer.ec(r#","alg":"HS256""#), KeyFault::Algorithm),
        (issuer.ec(r#","alg":"RS256""#), KeyFault::Algorithm),
        (issuer.ec(r#","kid":7"#), KeyFault::Kid),
    ] {
        let alone = KeySet::parse(format!(r#"{{"keys":[{bad}]}}"#).as_bytes());
        let skipped = vec![Skipped { position: 0, fault }];
        assert_eq!(alone, Err(KeySetError::NoKey(skipped.clone())), "{bad}");
        let beside = set(&[bad, issuer.ec("")]);
        assert_eq!((beside.usable(), beside.skipped()), (1, skipped.as_slice()));
    }
    assert!(matches!(
        KeySet::parse(br#"{"keys":[]}"#),
        Err(KeySetError::NoKey(_))
    ));
    assert_eq!(KeySet::parse(br#"{"keys":{}}"#), Err(KeySetError::Json));
    let private = set(&[issuer.ec(""), issuer.okp(r#","d":"AA""#)]);
    assert_eq!(
        (private.usable(), private.with_private_half()),
        (2, [1].as_slice())
    );
}

#[test]
fn tokens_without_a_signature_or_with_a_shared_secret_are_refused_before_any_key_is_tried() {
    let issuer = Issuer::new();
    for algorithm in ["none", "None", "HS256", "HS512", "es256", "ES256K", ""] {
        let token = issuer.signed(&format!(r#"{{"alg":"{algorithm}"}}"#), "{}");
        assert_eq!(
            verdict(&token, &set(&[issuer.ec("")])),
            Err(TokenFault::Algorithm),
            "{algorithm}"
        );
        let bare = token.rsplit_once('.').unwrap().0;
        assert_eq!(
            verdict(&format!("{bare}."), &set(&[issuer.ec("")])),
            Err(TokenFault::Algorithm)
        );
    }
    let critical = issuer.signed(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, "{}");
    assert_eq!(
        verdict(&critical, &set(&[issuer.ec("")])),
        Err(TokenFault::Critical)
    );
    // Members that would bring a key along change nothing.
    let brought = issuer.signed(&format!(r#"{{"alg":"ES256","jwk":{}}}"#, issuer.ec("")), "{}");
    assert_eq!(
        verdict(&brought, &set(&[Issuer::new().ec("")])),
        Err(TokenFault::Signature)
    );
}

#[test]
fn times_hold_give_or_take_the_skew() {
    let issuer = Issuer::new();
    let check = |claims: &str, now: u64| {
        let token = issuer.signed(r#"{"alg":"EdDSA"}"#, claims);
        let read = Token::read(&token)?;
        read.check_times(at(now), SKEW).map_err(TokenFault::from)
    };
    let expired = |ago_seconds| Err(TokenFault::Expired { ago_seconds });
    let early = |in_seconds| Err(TokenFault::NotYetValid { in_seconds });
    for (claims, now, expected) in [
        ("{}", 5000, Ok(())),
        (r#"{"exp":1000}"#, 1060, Ok(())),
        (r#"{"exp":1000}"#, 1061, expired(61)),
        (r#"{"exp":0}"#, 1061, expired(1061)),
        (r#"{"exp":1000.9}"#, 1061, expired(61)),
        (r#"{"nbf":1000}"#, 940, Ok(())),
        (r#"{"nbf":1000}"#, 939, early(61)),
        (r#"{"exp":"1000"}"#, 10, Err(TokenFault::Claim("exp"))),
        (r#"{"exp":-1}"#, 10, Err(TokenFault::Claim("exp"))),
        (r#"{"exp":1e300}"#, 10, Err(TokenFault::Claim("exp"))),
        (r#"{"nbf":null}"#, 10, Err(TokenFault::Claim("nbf"))),
        (r#"{"iss":["i"]}"#, 10, Err(TokenFault::Claim("iss"))),
    ] {
        assert_eq!(check(claims, now), expected, "{claims} at {now}");
    }
}

#[test]
fn one_audience_of_the_rule_suffices_and_none_means_anyone() {
    let issuer = Issuer::new();
    let check = |claims: &str, audiences: &[&str]| {
        let token = issuer.signed(r#"{"alg":"EdDSA"}"#, claims);
        let audiences: Vec<String> = audiences.iter().map(|one| (*one).to_owned()).collect();
        Token::read(&token).unwrap().check_audience(&audiences).is_ok()
    };
    assert!(check(r#"{"aud":"a"}"#, &["b", "a"]) && check(r#"{"aud":["x","a"]}"#, &["a"]));
    assert!(check("{}", &[]) && check(r#"{"aud":7}"#, &[]));
    assert!(!check("{}", &["a"]) && !check(r#"{"aud":["A"]}"#, &["a"]) && !check(r#"{"aud":7}"#, &["7"]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_single_bit_of_a_token_can_change(header in prop_oneof![
        Just(r#"{"alg":"ES256","kid":"a"}"#), Just(r#"{"alg":"EdDSA"}"#)
    ], bit in 0..8usize, place in any::<prop::sample::Index>()) {
        let issuer = Issuer::new();
        let keys = set(&[issuer.ec(r#","kid":"a""#), issuer.okp("")]);
        let token = issuer.signed(header, r#"{"iss":"i","sub":"s","exp":4000000000}"#);
        prop_assert_eq!(verdict(&token, &keys), Ok(()));
        let mut bytes = token.into_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(changed) = std::str::from_utf8(&bytes) {
            prop_assert!(verdict(changed, &keys).is_err());
        }
    }
}
