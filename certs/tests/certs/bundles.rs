//! SPIFFE Trust Domain and Bundle §3–§4, X509-SVID §6: what a bundle takes, skips, refuses and writes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signet_certs::TrustBundle;
use signet_certs::bundle::{BundleError, MAX_AUTHORITIES, MAX_BUNDLE_BYTES, authority_id};

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
        json!({"kty": "EC", "use": "jwt-svid", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "use": "jwt-svid"}),
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
