//! JWT-SVID §2–§6: what is minted, and the corpus of one token per defect with the reason each gives.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaKeyPair,
};
use serde_json::{Value, json};
use signet_certs::jwt::{
    ClaimFault, FormFault, HeaderFault, JwtAuthority, JwtError, JwtProfile, LEEWAY, MAX_AUDIENCE_BYTES,
    MAX_AUDIENCES, MAX_TOKEN_BYTES,
};
use signet_certs::{BundleSet, JwtKey, JwtSvid, SigningKey, TrustBundle, TrustDomain};
use zeroize::Zeroizing;

use crate::support::peer::OpenSsl;
use crate::support::{ID, NOW, at, id, now};

const AUDIENCE: &str = "https://vault.test";

fn fresh() -> JwtAuthority {
    JwtAuthority::new(Arc::new(SigningKey::generate().unwrap())).unwrap()
}

fn bundle(domain: &str, keys: Vec<JwtKey>) -> Arc<TrustBundle> {
    let domain: TrustDomain = domain.parse().unwrap();
    let bundle = TrustBundle::new(domain, Vec::new(), 1).unwrap();
    Arc::new(bundle.with_jwt_keys(keys).unwrap())
}

fn trusting(authority: &JwtAuthority) -> BundleSet {
    BundleSet::of(bundle("cluster.local", vec![authority.public().clone()]))
}

fn profile(ttl: u64) -> JwtProfile {
    JwtProfile {
        id: id(),
        audience: vec![AUDIENCE.into()],
        ttl: Duration::from_secs(ttl),
        issuer: None,
    }
}

/// A token made by hand, by another implementation than the one under test.
struct Forged {
    header: String,
    claims: String,
    key: EcdsaKeyPair,
}

static SIGNER: LazyLock<JwtAuthority> = LazyLock::new(fresh);

fn pair(authority: &JwtAuthority) -> EcdsaKeyPair {
    let pkcs8 = authority.key().expose_pkcs8_der().unwrap();
    let random = ring::rand::SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).unwrap()
}

impl Forged {
    /// One that keeps every rule.
    fn sound() -> Self {
        let kid = SIGNER.public().kid();
        Self {
            header: json!({"alg": "ES256", "kid": kid, "typ": "JWT"}).to_string(),
            claims: json!({"sub": ID, "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW}).to_string(),
            key: pair(&SIGNER),
        }
    }

    fn header(self, name: &str, value: Value) -> Self {
        let mut header: Value = serde_json::from_str(&self.header).unwrap();
        header[name] = value;
        Self {
            header: header.to_string(),
            ..self
        }
    }

    fn claim(self, name: &str, value: Value) -> Self {
        let mut claims: Value = serde_json::from_str(&self.claims).unwrap();
        claims[name] = value;
        Self {
            claims: claims.to_string(),
            ..self
        }
    }

    fn without(self, name: &str) -> Self {
        let strip = |text: &str| {
            let mut members: Value = serde_json::from_str(text).unwrap();
            members.as_object_mut().unwrap().remove(name);
            members.to_string()
        };
        Self {
            header: strip(&self.header),
            claims: strip(&self.claims),
            ..self
        }
    }

    fn token(&self) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&self.header),
            URL_SAFE_NO_PAD.encode(&self.claims)
        );
        let random = ring::rand::SystemRandom::new();
        let signature = self.key.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn refused(&self) -> JwtError {
        check(&self.token()).unwrap_err()
    }
}

fn check(token: &str) -> Result<(), JwtError> {
    JwtSvid::validate(token, AUDIENCE, &trusting(&SIGNER), now()).map(drop)
}

#[test]
fn a_minted_token_says_what_its_profile_says_and_no_more() {
    let mut asked = profile(300);
    asked.issuer = Some("https://oidc.test".into());
    asked.audience = vec!["a".into(), "b".into(), "a".into()];
    let svid = SIGNER.mint(&asked, now()).unwrap();
    let said = JwtSvid::read_unverified(svid.expose_token()).unwrap();
    assert_eq!(said.check(), Ok(()));
    assert_eq!(
        Value::Object(said.header),
        json!({"alg": "ES256", "kid": SIGNER.public().kid(), "typ": "JWT"})
    );
    assert_eq!(
        Value::Object(said.claims),
        json!({"aud": ["a", "b"], "exp": NOW + 300, "iat": NOW, "iss": "https://oidc.test", "sub": ID})
    );
    assert_eq!((svid.id(), svid.kid()), (&id(), SIGNER.public().kid()));
    assert_eq!((svid.issued_at(), svid.expires_at()), (now(), at(300)));
    assert_eq!(svid.audience(), ["a", "b"]);
}

#[test]
fn a_token_shows_neither_itself_nor_its_key_in_debug() {
    let svid = SIGNER.mint(&profile(300), now()).unwrap();
    let shown = format!("{svid:?} {:?}", *SIGNER);
    let signature = svid.expose_token().rsplit('.').next().unwrap();
    assert!(!shown.contains(signature) && shown.contains(ID), "{shown}");
}

#[test]
fn what_makes_no_token_is_refused_before_it_is_signed() {
    let with = |audience: Vec<String>| JwtProfile {
        audience,
        ..profile(300)
    };
    let long = MAX_AUDIENCE_BYTES + 1;
    for (asked, fault) in [
        (with(vec![]), ClaimFault::NoAudience),
        (with(vec!["a".into(), String::new()]), ClaimFault::NoAudience),
        (
            with(vec!["a".into(); MAX_AUDIENCES + 1]),
            ClaimFault::TooManyAudiences(MAX_AUDIENCES + 1),
        ),
        (with(vec!["a".repeat(long)]), ClaimFault::AudienceTooLong(long)),
        (profile(0), ClaimFault::Life),
    ] {
        assert_eq!(SIGNER.mint(&asked, now()).unwrap_err(), JwtError::Claim(fault));
    }
    let mut domain = profile(300);
    domain.id = "spiffe://cluster.local".parse().unwrap();
    assert_eq!(
        SIGNER.mint(&domain, now()).unwrap_err(),
        JwtError::Claim(ClaimFault::TrustDomain)
    );
}

#[test]
fn a_sound_token_of_another_implementation_is_accepted() {
    let found = JwtSvid::validate(&Forged::sound().token(), AUDIENCE, &trusting(&SIGNER), now()).unwrap();
    assert_eq!((found.id, found.expires_at), (id(), at(300)));
    assert_eq!(found.claims["iat"], json!(NOW));
    for lenient in [
        Forged::sound().without("typ"),
        Forged::sound().header("typ", json!("JOSE")),
        Forged::sound().without("iat"),
        Forged::sound().claim("aud", json!(["other", AUDIENCE])),
        Forged::sound().claim("exp", json!(NOW as f64 + 300.5)),
        Forged::sound().claim("private", json!({"deep": [1, {"a": null}]})),
        Forged::sound().without("kid"),
    ] {
        assert_eq!(
            check(&lenient.token()),
            Ok(()),
            "{} {}",
            lenient.header,
            lenient.claims
        );
    }
}

#[test]
fn only_the_algorithms_of_the_standard_are_read() {
    for name in ["none", "HS256", "EdDSA", "es256", "ES256K", "RS1", ""] {
        let refused = Forged::sound().header("alg", json!(name)).refused();
        assert_eq!(refused, JwtError::Header(HeaderFault::Algorithm(name.into())));
    }
    for missing in [
        Forged::sound().without("alg"),
        Forged::sound().header("alg", json!(["ES256"])),
    ] {
        assert_eq!(missing.refused(), JwtError::Header(HeaderFault::NoAlgorithm));
    }
}

/// The public key as an HMAC secret: the algorithm is refused before any key is looked at.
#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": SIGNER.public().kid()}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(Forged::sound().claims));
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SIGNER.public().public_key().spki_der());
    let tag = ring::hmac::sign(&secret, signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(
        check(&token),
        Err(JwtError::Header(HeaderFault::Algorithm("HS256".into())))
    );
}

#[test]
fn the_algorithm_is_judged_before_all_else() {
    let wrong = Forged::sound()
        .header("alg", json!("none"))
        .header("typ", json!("x"));
    let token = wrong
        .header("crv", json!(1))
        .claim("sub", json!("nobody"))
        .token();
    assert!(matches!(
        check(&token),
        Err(JwtError::Header(HeaderFault::Algorithm(_)))
    ));
}

#[test]
fn an_algorithm_that_the_named_key_cannot_make_finds_no_key() {
    for name in ["ES384", "ES512", "RS256", "RS512", "PS256"] {
        let refused = Forged::sound().header("alg", json!(name)).refused();
        let kid = Some(SIGNER.public().kid().to_owned());
        let domain = "cluster.local".parse().unwrap();
        assert_eq!(refused, JwtError::UnknownKey { domain, kid }, "{name}");
    }
}

#[test]
fn a_type_other_than_a_tokens_is_refused() {
    for kind in [
        json!("at+jwt"),
        json!("wit+jwt"),
        json!("jwt"),
        json!(""),
        json!(1),
        json!(null),
    ] {
        let refused = Forged::sound().header("typ", kind.clone()).refused();
        assert_eq!(refused, JwtError::Header(HeaderFault::Type), "{kind}");
    }
}

#[test]
fn headers_that_a_token_may_not_have_are_refused_by_name() {
    for name in [
        "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "crit", "cty", "b64", "private",
    ] {
        let refused = Forged::sound().header(name, json!("x")).refused();
        assert_eq!(refused, JwtError::Header(HeaderFault::Extra(name.into())));
    }
    for kid in [json!(1), json!(""), json!("k".repeat(257)), json!("a\u{7}")] {
        let refused = Forged::sound().header("kid", kid).refused();
        assert_eq!(refused, JwtError::Header(HeaderFault::Kid));
    }
}

#[test]
fn what_is_no_compact_jws_is_refused_by_its_form() {
    let sound = Forged::sound().token();
    let mut parts = sound.split('.');
    let (h, c, s) = (
        parts.next().unwrap(),
        parts.next().unwrap(),
        parts.next().unwrap(),
    );
    let flattened = json!({"protected": h, "payload": c, "signature": s}).to_string();
    for (token, count) in [
        (format!("{h}.{c}"), 2),
        (format!("{sound}.{s}.{s}"), 5),
        (flattened, 1),
        (String::new(), 1),
    ] {
        assert_eq!(
            check(&token),
            Err(JwtError::Form(FormFault::Parts(count))),
            "{token}"
        );
    }
    let padded = URL_SAFE.encode(&Forged::sound().claims);
    assert!(padded.ends_with('='), "an example that shows padding");
    for (token, part) in [
        (format!("{h}.{padded}.{s}"), "claims"),
        (format!("{h}=.{c}.{s}"), "header"),
        (format!("{h} .{c}.{s}"), "header"),
        (format!("{h}.{c}.{s}="), "signature"),
        (format!("{h}.{c}.{s}\n"), "signature"),
    ] {
        assert_eq!(
            check(&token),
            Err(JwtError::Form(FormFault::Base64(part))),
            "{token}"
        );
    }
    let large = format!("{sound}{}", "A".repeat(MAX_TOKEN_BYTES));
    assert_eq!(
        check(&large),
        Err(JwtError::Form(FormFault::TooLarge(large.len())))
    );
}

#[test]
fn members_that_stand_twice_are_refused_wherever_they_stand() {
    let twice = |forged: Forged| match forged.refused() {
        JwtError::Form(FormFault::Json { part, fault }) => {
            assert!(fault.starts_with("a member stands twice"), "{fault}");
            part
        }
        other => panic!("{other:?}"),
    };
    let header = Forged::sound().header.replacen('{', r#"{"alg":"none","#, 1);
    assert_eq!(
        twice(Forged {
            header,
            ..Forged::sound()
        }),
        "header"
    );
    let claims = Forged::sound()
        .claims
        .replacen('{', r#"{"sub":"spiffe://x/y","#, 1);
    assert_eq!(
        twice(Forged {
            claims,
            ..Forged::sound()
        }),
        "claims"
    );
    let claims = Forged::sound()
        .claims
        .replacen('{', r#"{"x":[{"a":1,"a":1}],"#, 1);
    assert_eq!(
        twice(Forged {
            claims,
            ..Forged::sound()
        }),
        "claims"
    );
    for claims in ["[]", "1", "{", "", "{} {}", &"[".repeat(5_000)] {
        let forged = Forged {
            claims: claims.into(),
            ..Forged::sound()
        };
        assert!(
            matches!(
                forged.refused(),
                JwtError::Form(FormFault::Json { part: "claims", .. })
            ),
            "{claims}"
        );
    }
}

#[test]
fn a_subject_must_be_a_workload() {
    for (subject, reason) in [
        (
            json!("someone"),
            "claim sub is no SPIFFE ID: must begin with \"spiffe://\"",
        ),
        (
            json!("spiffe://cluster.local/a/"),
            "claim sub is no SPIFFE ID: path has an empty segment or ends in '/'",
        ),
        (
            json!("spiffe://cluster.local"),
            "claim sub names a trust domain, not a workload",
        ),
        (json!(7), "claim sub is not of the form the standard asks for"),
    ] {
        let refused = Forged::sound().claim("sub", subject).refused();
        assert_eq!(refused.to_string(), reason);
    }
    assert_eq!(
        Forged::sound().without("sub").refused(),
        JwtError::Claim(ClaimFault::Missing("sub"))
    );
}

#[test]
fn a_token_is_always_for_somebody_and_only_for_them() {
    assert_eq!(
        Forged::sound().without("aud").refused(),
        JwtError::Claim(ClaimFault::Missing("aud"))
    );
    for nobody in [json!([]), json!(""), json!([AUDIENCE, ""])] {
        let refused = Forged::sound().claim("aud", nobody).refused();
        assert_eq!(refused, JwtError::Claim(ClaimFault::NoAudience));
    }
    for odd in [json!(1), json!({}), json!([1]), json!(null)] {
        let refused = Forged::sound().claim("aud", odd).refused();
        assert_eq!(refused, JwtError::Claim(ClaimFault::Form("aud")));
    }
    for other in [
        "https://vault.tes",
        "HTTPS://vault.test",
        "https://vault.test/",
        "*",
    ] {
        let refused = Forged::sound().claim("aud", json!([other])).refused();
        assert_eq!(refused, JwtError::OtherAudience(AUDIENCE.into()), "{other}");
    }
    let none = JwtSvid::validate(&Forged::sound().token(), "", &trusting(&SIGNER), now());
    assert_eq!(none, Err(JwtError::OtherAudience(String::new())));
}

#[test]
fn times_hold_within_the_leeway_and_not_beyond() {
    let leeway = LEEWAY.as_secs();
    assert_eq!(
        Forged::sound().without("exp").refused(),
        JwtError::Claim(ClaimFault::Missing("exp"))
    );
    for odd in [json!("300"), json!(null), json!(-1), json!(1e300), json!([NOW])] {
        let refused = Forged::sound().claim("exp", odd.clone()).refused();
        assert_eq!(refused, JwtError::Claim(ClaimFault::Form("exp")), "{odd}");
    }
    let ends = |exp: u64| check(&Forged::sound().claim("exp", json!(exp)).token());
    assert_eq!(ends(NOW - leeway + 1), Ok(()));
    assert_eq!(ends(NOW - leeway), Err(JwtError::Expired { ago_seconds: leeway }));
    assert_eq!(ends(u64::MAX), Ok(()));
    for claim in ["nbf", "iat"] {
        let begins = |begin: u64| check(&Forged::sound().claim(claim, json!(begin)).token());
        assert_eq!(begins(NOW + leeway), Ok(()));
        let in_seconds = leeway + 1;
        assert_eq!(
            begins(NOW + in_seconds),
            Err(JwtError::NotYetValid { in_seconds })
        );
    }
}

#[test]
fn only_the_keys_of_the_subjects_own_domain_verify() {
    let foreign = fresh();
    let mut set = trusting(&SIGNER);
    set.insert(bundle("other.test", vec![foreign.public().clone()]));
    let validate = |forged: &Forged| JwtSvid::validate(&forged.token(), AUDIENCE, &set, now());
    // Signed by A's key for a subject of B, and under B's kid for a subject of A.
    let other = Forged::sound().claim("sub", json!("spiffe://other.test/a"));
    assert!(matches!(validate(&other), Err(JwtError::UnknownKey { .. })));
    let mut borrowed = Forged::sound().header("kid", json!(foreign.public().kid()));
    borrowed.key = pair(&foreign);
    assert!(matches!(validate(&borrowed), Err(JwtError::UnknownKey { .. })));
    let unknown = Forged::sound().claim("sub", json!("spiffe://third.test/a"));
    assert_eq!(
        validate(&unknown).unwrap_err(),
        JwtError::UnknownTrustDomain("third.test".parse().unwrap())
    );
    assert!(matches!(
        Forged::sound().header("kid", json!("unknown")).refused(),
        JwtError::UnknownKey { .. }
    ));
}

#[test]
fn a_signature_by_another_key_or_over_other_contents_is_refused() {
    let mut other = Forged::sound();
    other.key = pair(&fresh());
    assert_eq!(other.refused(), JwtError::Signature);
    let mut nameless = Forged::sound().without("kid");
    nameless.key = pair(&fresh());
    assert_eq!(nameless.refused(), JwtError::Signature);
    let sound = Forged::sound().token();
    let altered = Forged::sound().claim("exp", json!(NOW + 301)).token();
    let (sound, altered): (Vec<_>, Vec<_>) = (sound.split('.').collect(), altered.split('.').collect());
    for token in [
        format!("{}.{}.{}", sound[0], altered[1], sound[2]),
        format!("{}.{}.", sound[0], sound[1]),
        format!("{}.{}.AAAA", sound[0], sound[1]),
    ] {
        assert_eq!(check(&token), Err(JwtError::Signature), "{token}");
    }
}

/// A bundle entry for X.509 never verifies a token, even if somebody signs with its key.
#[test]
fn a_key_of_an_x509_entry_verifies_no_token() {
    use crate::support::Spec;
    let root = Spec::ca("root", Some(1)).root();
    let entry = json!({"kty": "EC", "use": "x509-svid", "kid": SIGNER.public().kid(),
        "x5c": [base64::engine::general_purpose::STANDARD.encode(&root.der)]});
    let json = json!({"keys": [entry]}).to_string();
    let only_x509 = TrustBundle::from_jwks("cluster.local".parse().unwrap(), json.as_bytes()).unwrap();
    let set = BundleSet::of(Arc::new(only_x509));
    let refused = JwtSvid::validate(&Forged::sound().token(), AUDIENCE, &set, now());
    assert!(matches!(refused, Err(JwtError::UnknownKey { .. })));
}

#[test]
fn without_a_kid_only_a_bounded_number_of_keys_is_tried() {
    let mut keys: Vec<JwtKey> = (0..8).map(|_| fresh().public().clone()).collect();
    keys.push(SIGNER.public().clone());
    let nameless = Forged::sound().without("kid").token();
    let with = |keys: &[JwtKey]| {
        let set = BundleSet::of(bundle("cluster.local", keys.to_vec()));
        JwtSvid::validate(&nameless, AUDIENCE, &set, now()).map(drop)
    };
    assert_eq!(with(&keys), Err(JwtError::Signature), "the ninth is not tried");
    assert_eq!(with(&keys[1..]), Ok(()));
}

#[test]
fn a_holder_takes_only_the_token_it_asked_for() {
    let set = trusting(&SIGNER);
    let token = || Zeroizing::new(Forged::sound().token());
    let asked = [AUDIENCE.to_owned()];
    let svid = JwtSvid::receive(token(), &id(), &asked, &set, now()).unwrap();
    assert_eq!(svid.expires_at(), at(300));
    let other = "spiffe://cluster.local/ns/shop/sa/bank".parse().unwrap();
    let refused = JwtSvid::receive(token(), &other, &asked, &set, now()).unwrap_err();
    assert!(matches!(refused, JwtError::OtherId { .. }));
    let more = [AUDIENCE.to_owned(), "b".to_owned()];
    let refused = JwtSvid::receive(token(), &id(), &more, &set, now()).unwrap_err();
    assert_eq!(refused, JwtError::OtherAudience("b".into()));
}

#[test]
fn an_operators_rsa_key_signs_rs256_and_verifies_the_rest_of_its_family() {
    let name = "an_operators_rsa_key_signs_rs256_and_verifies_the_rest_of_its_family";
    let Some(openssl) = OpenSsl::find(name) else {
        return;
    };
    let pem = openssl.must(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let key = Arc::new(SigningKey::from_pem(pem.as_bytes()).unwrap());
    let pkcs8 = key.expose_pkcs8_der().unwrap();
    let authority = JwtAuthority::new(key).unwrap();
    let svid = authority.mint(&profile(60), now()).unwrap();
    let set = trusting(&authority);
    let found = JwtSvid::validate(svid.expose_token(), AUDIENCE, &set, now()).unwrap();
    assert_eq!(found.id, id());
    let said = JwtSvid::read_unverified(svid.expose_token()).unwrap();
    assert_eq!(said.header["alg"], json!("RS256"));

    let pair = RsaKeyPair::from_pkcs8(&pkcs8).unwrap();
    let by = |alg: &str, padding: &'static dyn ring::signature::RsaEncoding| {
        let sound = Forged::sound().header("alg", json!(alg));
        let sound = sound.header("kid", json!(authority.public().kid()));
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&sound.header),
            URL_SAFE_NO_PAD.encode(&sound.claims)
        );
        let mut signature = vec![0; pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        pair.sign(padding, &random, signed.as_bytes(), &mut signature)
            .unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        JwtSvid::validate(&token, AUDIENCE, &set, now()).map(drop)
    };
    assert_eq!(by("RS256", &RSA_PKCS1_SHA256), Ok(()));
    assert_eq!(by("PS512", &RSA_PSS_SHA512), Ok(()));
    assert_eq!(by("RS512", &RSA_PSS_SHA512), Err(JwtError::Signature));
    assert!(matches!(
        by("ES256", &RSA_PKCS1_SHA256),
        Err(JwtError::UnknownKey { .. })
    ));
}

#[test]
fn a_p384_key_signs_es384_and_an_ed25519_key_nothing() {
    let of = |algorithm| {
        let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        JwtAuthority::new(Arc::new(SigningKey::from_pem(pem.as_bytes()).unwrap()))
    };
    let p384 = of(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let svid = p384.mint(&profile(60), now()).unwrap();
    assert!(JwtSvid::validate(svid.expose_token(), AUDIENCE, &trusting(&p384), now()).is_ok());
    assert!(p384.is_verified_by(p384.public()) && !p384.is_verified_by(SIGNER.public()));
    assert!(of(&rcgen::PKCS_ED25519).is_err());
}

proptest! {
    #[test]
    fn what_is_minted_validates_for_each_of_its_audiences(
        audience in prop::collection::vec("\\PC{1,60}", 1..6),
        ttl in 1u64..100_000,
        skew in -(LEEWAY.as_secs() as i64)..=0,
    ) {
        let asked = JwtProfile { audience: audience.clone(), ..profile(ttl) };
        let svid = SIGNER.mint(&asked, now()).unwrap();
        let set = trusting(&SIGNER);
        for one in &audience {
            let found = JwtSvid::validate(svid.expose_token(), one, &set, at(skew)).unwrap();
            prop_assert_eq!(found.id, id());
        }
        let late = at(i64::try_from(ttl + LEEWAY.as_secs()).unwrap());
        let over = JwtSvid::validate(svid.expose_token(), &audience[0], &set, late);
        prop_assert!(matches!(over, Err(JwtError::Expired { .. })), "{:?}", over);
    }

    #[test]
    fn no_altered_byte_of_a_token_passes(position in any::<prop::sample::Index>(), other in "[A-Za-z0-9_.-]") {
        let sound = Forged::sound().token();
        let at = position.index(sound.len());
        let mut bytes = sound.clone().into_bytes();
        bytes[at] = other.as_bytes()[0];
        let altered = String::from_utf8(bytes).unwrap();
        prop_assert!(altered == sound || check(&altered).is_err(), "{}", altered);
    }

    #[test]
    fn no_text_makes_the_reader_fail_otherwise_than_by_a_reason(text in "\\PC{0,200}") {
        prop_assert!(check(&text).is_err());
        let _ = JwtSvid::read_unverified(&text);
    }
}
