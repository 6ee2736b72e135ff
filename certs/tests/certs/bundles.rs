//! SPIFFE Trust Domain and Bundle §3–§4, X509-SVID §6: what a bundle takes, skips, refuses and writes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signet_certs::bundle::{
    BundleError, MAX_AUTHORITIES, MAX_BUNDLE_BYTES, MAX_JWT_KEYS, Succession, authority_id,
};
use signet_certs::jwt::JwtKeyError;
use signet_certs::key::KeyError;
use signet_certs::{JwtKey, SigningKey, TrustBundle};

use crate::support::der;
use crate::support::{Ca, Spec, World, domain};

fn root(name: &str) -> Ca {
    Spec::ca(name, Some(1)).root()
}

fn read(json: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_jwks(domain(), json.to_string().as_bytes())
}

fn entry(ca: &Ca) -> Value {
    json!({"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(&ca.der)]})
}

/// How many roots a set holds whose entries are one sound one and `other`.
fn roots_beside(other: &Value) -> Result<usize, BundleError> {
    read(&json!({"keys": [other, entry(&root("sound"))]})).map(|bundle| bundle.roots().len())
}

#[test]
fn keys_must_be_there_and_may_be_empty() {
    for broken in [
        json!({}),
        json!([]),
        json!({"keys": null}),
        json!({"keys": {}}),
        json!({"keys": [1]}),
    ] {
        assert!(matches!(read(&broken), Err(BundleError::Json(_))), "{broken}");
    }
    let missing = read(&json!({})).unwrap_err().to_string();
    assert!(
        missing.starts_with("bundle is not a SPIFFE JWK set: missing field `keys`"),
        "{missing}"
    );
    assert!(read(&json!({"keys": []})).unwrap().roots().is_empty());
}

#[test]
fn entries_of_other_kinds_are_skipped_and_the_rest_kept() {
    let x5c = json!([STANDARD.encode(&root("other").der)]);
    for other in [
        json!({"kty": "AKP", "use": "x509-svid", "x5c": x5c}),
        json!({"kty": "foo", "use": "x509-svid", "x5c": x5c}),
        json!({"use": "x509-svid", "x5c": x5c}),
        json!({"kty": "ec", "use": "x509-svid", "x5c": x5c}),
        json!({"kty": "EC", "use": "X509-SVID", "x5c": x5c}),
        json!({"kty": "EC", "use": "sig", "x5c": x5c}),
        json!({"kty": "EC", "x5c": x5c}),
        // Kinds of key that no JWT-SVID here is verified with.
        json!({"kty": "EC", "use": "jwt-svid", "kid": "a", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "use": "jwt-svid", "kid": "a", "crv": "Ed25519", "x": "AA"}),
        json!({"kty": "oct", "use": "jwt-svid", "kid": "a", "k": "AA"}),
        json!({"kty": "EC", "use": "wit-svid", "kid": "a"}),
        json!({"kty": "EC", "use": "x509-svid"}),
        json!({"kty": "EC", "use": "x509-svid", "x5c": []}),
        json!({"kty": "EC", "use": "x509-svid", "x5c": null}),
        // Of a kind unknown here, so its members are nobody's business.
        json!({"kty": 5, "use": {}, "x5c": 7, "x": [], "n": {}}),
        json!({"kty": "EC", "use": "later-svid", "x5c": "AA", "crv": 1}),
        json!({}),
    ] {
        assert_eq!(roots_beside(&other), Ok(1), "{other}");
    }
}

#[test]
fn members_that_nobody_defined_are_tolerated() {
    let mut known = entry(&root("a"));
    known["kid"] = json!("extra");
    known["alg"] = json!(["odd"]);
    let set = json!({"keys": [known], "later": {"a": 1}, "spiffe_sequence": 7, "spiffe_refresh_hint": 60});
    let bundle = read(&set).unwrap();
    assert_eq!((bundle.roots().len(), bundle.sequence()), (1, 7));
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(60)));
    let bare = read(&json!({"keys": []})).unwrap();
    assert_eq!((bare.sequence(), bare.refresh_hint()), (0, None));
}

#[test]
fn only_the_first_certificate_of_an_entry_counts() {
    let (a, b) = (root("a"), root("b"));
    let mut two = entry(&a);
    two["x5c"] = json!([
        STANDARD.encode(&a.der),
        STANDARD.encode(&b.der),
        "not base64 at all"
    ]);
    let bundle = read(&json!({"keys": [two]})).unwrap();
    assert_eq!(bundle.roots()[0].certificate().der(), &a.der);
    assert_eq!(bundle.roots().len(), 1);
}

#[test]
fn an_entry_that_must_be_understood_and_cannot_be_fails_the_bundle() {
    // A root whose base64 holds a character that base64url writes otherwise.
    let (urlish, text) = std::iter::repeat_with(|| root("a"))
        .map(|ca| (URL_SAFE.encode(&ca.der), STANDARD.encode(&ca.der)))
        .find(|(url, standard)| url != standard)
        .unwrap();
    let with = |x5c: Value| json!({"kty": "EC", "use": "x509-svid", "x5c": x5c});
    for x5c in [
        json!([urlish]),
        json!(["?"]),
        json!([format!("{text}\n")]),
        json!([5]),
        json!("AA"),
        json!({}),
    ] {
        let refused = roots_beside(&with(x5c.clone())).unwrap_err();
        assert_eq!(refused, BundleError::X5c { position: 0 }, "{x5c}");
    }
    assert_eq!(
        BundleError::X5c { position: 3 }.to_string(),
        "key 3: x5c is not base64 of a certificate"
    );
    let garbage = roots_beside(&with(json!([STANDARD.encode("garbage")]))).unwrap_err();
    assert!(matches!(garbage, BundleError::Certificate { position: 0, .. }));

    let world = World::new();
    let leaf = with(json!([STANDARD.encode(Spec::leaf().by(&world.root))]));
    let refused = roots_beside(&leaf).unwrap_err().to_string();
    assert_eq!(refused, "authority 0 () is not a CA certificate");
    let refused = roots_beside(&entry(&world.intermediate)).unwrap_err().to_string();
    assert_eq!(
        refused,
        "authority 0 (CN=test issuing) is an intermediate; a bundle holds roots only"
    );
}

#[test]
fn sequences_are_whole_numbers_of_64_bits() {
    for sequence in [0, 1, (1 << 53) + 1, (1 << 63) - 1, u64::MAX] {
        let set = json!({"keys": [], "spiffe_sequence": sequence});
        let bundle = read(&set).unwrap();
        assert_eq!(bundle.sequence(), sequence);
        assert!(
            bundle
                .to_jwks()
                .contains(&format!("\"spiffe_sequence\":{sequence}"))
        );
        let again = TrustBundle::from_jwks(domain(), bundle.to_jwks().as_bytes()).unwrap();
        assert_eq!(again.sequence(), sequence);
    }
    for bad in [json!("7"), json!(-1), json!(1.5), json!([7]), json!(true)] {
        let sequence = read(&json!({"keys": [], "spiffe_sequence": bad}));
        assert!(matches!(sequence, Err(BundleError::Json(_))), "{bad}");
        let hint = read(&json!({"keys": [], "spiffe_refresh_hint": bad}));
        assert!(matches!(hint, Err(BundleError::Json(_))), "{bad}");
    }
}

#[test]
fn repeated_members_and_trailing_bytes_are_refused() {
    let x5c = STANDARD.encode(&root("a").der);
    for text in [
        r#"{"keys": [], "keys": []}"#.to_owned(),
        r#"{"keys": [], "spiffe_sequence": 1, "spiffe_sequence": 2}"#.to_owned(),
        format!(r#"{{"keys": [{{"kty": "EC", "use": "x509-svid", "use": "x509-svid", "x5c": ["{x5c}"]}}]}}"#),
        r#"{"keys": []} {"keys": []}"#.to_owned(),
        r#"{"keys": []}x"#.to_owned(),
        String::new(),
    ] {
        let refused = TrustBundle::from_jwks(domain(), text.as_bytes());
        assert!(matches!(refused, Err(BundleError::Json(_))), "{text}");
    }
}

#[test]
fn what_is_written_keeps_the_standard() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let rsa = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/root.pem")).unwrap();
    let rsa = signet_certs::certificate::Certificate::all_from_pem(&rsa)
        .unwrap()
        .remove(0);
    let roots = vec![
        root("p256").certificate(),
        Spec::ca("p384", None).root_with(p384.into()).certificate(),
        Spec::ca("ed25519", None).root_with(ed25519.into()).certificate(),
        rsa,
    ];
    let bundle = TrustBundle::new(domain(), roots.clone(), 3)
        .unwrap()
        .with_refresh_hint(Duration::from_secs(300));
    let set: Value = serde_json::from_str(&bundle.to_jwks()).unwrap();
    assert_eq!(
        (&set["spiffe_sequence"], &set["spiffe_refresh_hint"]),
        (&json!(3), &json!(300))
    );
    let keys = set["keys"].as_array().unwrap();
    for (key, (root, members)) in keys.iter().zip(roots.iter().zip([
        (
            ["kty", "use", "crv", "x", "y", "x5c"].as_slice(),
            ("EC", "P-256", 32),
        ),
        (
            ["kty", "use", "crv", "x", "y", "x5c"].as_slice(),
            ("EC", "P-384", 48),
        ),
        (
            ["kty", "use", "crv", "x", "x5c"].as_slice(),
            ("OKP", "Ed25519", 32),
        ),
        (["kty", "use", "n", "e", "x5c"].as_slice(), ("RSA", "", 256)),
    ])) {
        let (names, (kty, curve, len)) = members;
        let mut found: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        let mut names = names.to_vec();
        found.sort_unstable();
        names.sort_unstable();
        assert_eq!(found, names, "no kid, nothing beyond the standard");
        assert_eq!(
            (key["kty"].as_str(), key["use"].as_str()),
            (Some(kty), Some("x509-svid"))
        );
        assert_eq!(key["crv"].as_str().unwrap_or_default(), curve);
        assert_eq!(key["x5c"], json!([STANDARD.encode(root.der())]));
        let number = URL_SAFE_NO_PAD
            .decode(key["x"].as_str().or(key["n"].as_str()).unwrap())
            .unwrap();
        assert_eq!(number.len(), len);
        let spki = root.public_key().unwrap().spki_der();
        assert!(
            spki.windows(len).any(|w| w == number),
            "the members describe the certificate's key"
        );
    }
    let again = TrustBundle::from_jwks(domain(), bundle.to_jwks().as_bytes()).unwrap();
    assert!(again.same_roots(&bundle));
    assert_eq!(again.refresh_hint(), bundle.refresh_hint());
}

#[test]
fn pem_holds_certificates_and_nothing_else() {
    let (a, b) = (root("a"), root("b"));
    let text = a.certificate().to_pem() + &b.certificate().to_pem();
    let bundle = TrustBundle::from_pem(domain(), text.as_bytes(), 4).unwrap();
    assert_eq!((bundle.to_pem(), bundle.sequence()), (text.clone(), 4));
    assert!(TrustBundle::from_pem(domain(), format!("# roots\n{text}").as_bytes(), 4).is_ok());
    let key = der::pem("PRIVATE KEY", b"secret");
    let half = &text[..text.len() - 40];
    let broken = text.replacen("MI", "!!", 1);
    for bad in [
        "",
        "no block",
        key.as_str(),
        &(text.clone() + &key),
        half,
        &broken,
    ] {
        let refused = TrustBundle::from_pem(domain(), bad.as_bytes(), 1).unwrap_err();
        assert!(matches!(refused, BundleError::Certificate { .. }), "{refused}");
        assert!(!refused.to_string().contains("secret"));
    }
    let pasted = TrustBundle::from_pem(domain(), (text + &key).as_bytes(), 1).unwrap_err();
    assert_eq!(
        pasted.to_string(),
        "authority 0: no usable CERTIFICATE block in the PEM text: it holds another kind of block"
    );
}

#[test]
fn sizes_are_bounded_and_duplicates_dropped() {
    let a = root("a").certificate();
    let twice = TrustBundle::new(domain(), vec![a.clone(), a.clone()], 1).unwrap();
    assert_eq!(twice.roots().len(), 1);
    let many = TrustBundle::new(domain(), vec![a; MAX_AUTHORITIES + 1], 1);
    assert_eq!(many.unwrap_err(), BundleError::TooMany(MAX_AUTHORITIES + 1));
    let huge = vec![b' '; MAX_BUNDLE_BYTES + 1];
    let too_large = BundleError::TooLarge(MAX_BUNDLE_BYTES + 1);
    assert_eq!(TrustBundle::from_jwks(domain(), &huge).unwrap_err(), too_large);
    assert_eq!(TrustBundle::from_pem(domain(), &huge, 1).unwrap_err(), too_large);
}

#[test]
fn bundles_are_compared_by_their_roots() {
    let (a, b) = (root("a").certificate(), root("b").certificate());
    let of = |roots: &[&signet_certs::certificate::Certificate], sequence| {
        TrustBundle::new(domain(), roots.iter().map(|r| (*r).clone()).collect(), sequence).unwrap()
    };
    assert!(of(&[&a, &b], 1).same_roots(&of(&[&b, &a], 2)));
    assert!(!of(&[&a], 1).same_roots(&of(&[&a, &b], 1)));
    assert!(!of(&[&a], 1).same_roots(&of(&[&b], 1)));
    assert!(of(&[], 1).same_roots(&of(&[], 9).with_sequence(1)));
    assert_eq!(
        authority_id(&a),
        a.serial_hex(),
        "without a subject key identifier the serial names it"
    );
}

fn jwt_key(kid: &str) -> JwtKey {
    let key = SigningKey::generate().unwrap().public_key().clone();
    JwtKey::new(kid.into(), key).unwrap()
}

fn with_jwt(keys: Vec<JwtKey>, sequence: u64) -> TrustBundle {
    let bundle = TrustBundle::new(domain(), Vec::new(), sequence).unwrap();
    bundle.with_jwt_keys(keys).unwrap()
}

#[test]
fn jwt_keys_are_written_with_kid_and_use_and_read_back() {
    let (a, b) = (jwt_key("a"), jwt_key("b"));
    let bundle = with_jwt(vec![a.clone(), b.clone(), a.clone()], 3);
    assert_eq!(bundle.jwt_keys(), [a, b]);
    let set: Value = serde_json::from_str(&bundle.to_jwks()).unwrap();
    let members: Vec<&String> = set["keys"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!(
        (&set["keys"][0]["use"], &set["keys"][0]["kid"]),
        (&json!("jwt-svid"), &json!("a"))
    );
    let again = TrustBundle::from_jwks(domain(), bundle.to_jwks().as_bytes()).unwrap();
    assert!(again.same_content(&bundle) && again.sequence() == 3);
}

#[test]
fn jwt_keys_for_generic_libraries_come_without_use_and_without_roots() {
    let root = entry(&root("r"));
    let key = json!({"kty": "EC", "use": "jwt-svid", "kid": "k", "crv": "P-256"});
    let mut set = json!({"keys": [root, key], "spiffe_sequence": 9});
    let made: Value = serde_json::from_str(&with_jwt(vec![jwt_key("k")], 1).to_jwks()).unwrap();
    set["keys"][1] = made["keys"][0].clone();
    let bundle = read(&set).unwrap();
    let generic: Value = serde_json::from_str(&bundle.to_jwt_jwks()).unwrap();
    assert_eq!(generic.as_object().unwrap().len(), 1);
    assert_eq!(generic["keys"].as_array().unwrap().len(), 1);
    assert_eq!(generic["keys"][0].get("use"), None);
    let oidc: Value = serde_json::from_str(&bundle.to_oidc_jwks()).unwrap();
    assert_eq!(
        (&oidc["keys"][0]["use"], &oidc["keys"][0]["alg"]),
        (&json!("sig"), &json!("ES256"))
    );
}

#[test]
fn a_jwt_entry_that_must_be_understood_and_cannot_be_fails_the_bundle() {
    let sound: Value = serde_json::from_str(&with_jwt(vec![jwt_key("k")], 1).to_jwks()).unwrap();
    let without = |member: &str| {
        let mut entry = sound["keys"][0].clone();
        entry.as_object_mut().unwrap().remove(member);
        entry
    };
    let with = |member: &str, value: Value| {
        let mut entry = sound["keys"][0].clone();
        entry[member] = value;
        entry
    };
    let rsa = |n: &str| json!({"kty": "RSA", "use": "jwt-svid", "kid": "r", "n": n, "e": "AQAB"});
    let weak = KeyError::RsaBits(1024);
    for (bad, fault) in [
        (without("kid"), JwtKeyError::NoKid),
        (with("kid", json!(7)), JwtKeyError::Kid),
        (with("kid", json!("")), JwtKeyError::Kid),
        (with("kid", json!("k".repeat(257))), JwtKeyError::Kid),
        (with("kid", json!("a\nb")), JwtKeyError::Kid),
        (without("crv"), JwtKeyError::Member("crv")),
        (without("x"), JwtKeyError::Member("x")),
        (with("y", json!("AA==")), JwtKeyError::Member("y")),
        (
            with("y", json!("AA")),
            KeyError::Malformed("coordinates of P-256 have 32 bytes each".into()).into(),
        ),
        (rsa(&URL_SAFE_NO_PAD.encode([0xff; 128])), weak.into()),
    ] {
        let refused = read(&json!({"keys": [bad, sound["keys"][0]]})).unwrap_err();
        assert_eq!(refused, BundleError::JwtKey { position: 0, fault }, "{bad}");
    }
}

#[test]
fn two_keys_of_one_name_fail_the_bundle_and_so_do_too_many() {
    let bundle = TrustBundle::new(domain(), Vec::new(), 1).unwrap();
    let same = bundle.clone().with_jwt_keys(vec![jwt_key("a"), jwt_key("a")]);
    assert_eq!(same.unwrap_err(), BundleError::SameKid("a".into()));
    let many = (0..=MAX_JWT_KEYS).map(|n| jwt_key(&n.to_string())).collect();
    let refused = bundle.with_jwt_keys(many).unwrap_err();
    assert_eq!(refused, BundleError::TooManyJwtKeys(MAX_JWT_KEYS + 1));
}

#[test]
fn a_bundle_succeeds_another_by_sequence_and_without_one_by_coming_later() {
    let key = jwt_key("a");
    let at = |sequence| with_jwt(vec![key.clone()], sequence);
    let other = |sequence| with_jwt(vec![jwt_key("b")], sequence);
    assert_eq!(other(8).succeeds(&at(7)), Succession::Newer);
    assert_eq!(other(6).succeeds(&at(7)), Succession::Older);
    assert_eq!(at(7).succeeds(&at(7)), Succession::Same);
    assert_eq!(other(7).succeeds(&at(7)), Succession::Conflicting);
    assert_eq!(other(0).succeeds(&at(0)), Succession::Newer);
    assert_eq!(at(0).succeeds(&at(0)), Succession::Same);
    assert_eq!(at(0).succeeds(&at(1)), Succession::Older);
}
