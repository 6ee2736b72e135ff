//! Nothing that can be printed holds a private key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signet_certs::key::{KeyError, hex};
use signet_certs::{SigningKey, X509Svid, issue};

use crate::issuing::{DAY, authorities, key, profile};
use crate::support::{der, now};

/// Every spelling of the key's bytes in which they might leak, by windows of eight bytes.
fn leaks(text: &str, secret: &[u8]) -> bool {
    let text = text.to_lowercase();
    let decimal = |w: &[u8]| w.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    secret
        .windows(8)
        .any(|w| text.contains(&hex(w)) || text.contains(&decimal(w)))
        || STANDARD
            .encode(secret)
            .as_bytes()
            .chunks(16)
            .any(|c| text.contains(&String::from_utf8_lossy(c).to_lowercase()))
}

/// The 32 bytes of a P-256 key's scalar inside ring's PKCS#8.
fn scalar(key: &SigningKey) -> Vec<u8> {
    let pkcs8 = key.expose_pkcs8_der().unwrap();
    let at = pkcs8.windows(2).rposition(|w| w == [0x04, 0x20]).unwrap() + 2;
    pkcs8[at..at + 32].to_vec()
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let key = key();
    let secret = scalar(&key);
    assert!(leaks(&hex(&secret), &secret));
    assert!(leaks(&format!("{secret:?}"), &secret));
    assert!(!leaks("SigningKey(P-256, 00)", &secret));
    assert!(key.expose_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
}

#[test]
fn debug_output_shows_kind_and_fingerprint_only() {
    let key = key();
    let secret = scalar(&key);
    let text = format!("{key:?}");
    assert_eq!(
        text,
        format!("SigningKey(P-256, {})", key.public_key().fingerprint())
    );
    let (root, issuing) = authorities(now());
    let chain = issue(&profile(DAY), key.public_key(), &issuing, now()).unwrap();
    let svid = X509Svid::new(chain.clone(), key.clone()).unwrap();
    for text in [
        text,
        format!("{svid:?}"),
        format!("{svid:#?}"),
        format!("{chain:?}"),
    ] {
        assert!(!leaks(&text, &secret), "{text}");
    }
    for authority in [&root, &issuing] {
        let text = format!("{authority:?} {authority:#?}");
        assert!(!leaks(&text, &scalar(authority.key())), "{text}");
        assert!(text.starts_with(&format!("Authority({}, SigningKey(", authority.id())));
    }
}

#[test]
fn errors_about_keys_never_repeat_them() {
    let good = key();
    let secret = scalar(&good);
    let pem = good.expose_pem();
    let broken = pem.replace("-----END PRIVATE KEY-----", "-----END");
    let der = der::unpem(&pem);
    let cut = der::pem("PRIVATE KEY", &der[..der.len() - 3]);
    let mislabelled = der::pem("RSA PRIVATE KEY", &der);
    let public = der::pem("PUBLIC KEY", good.public_key().spki_der());
    for text in [
        broken.as_str(),
        &cut,
        &mislabelled,
        &public,
        &pem[..80],
        "",
        "garbage",
    ] {
        let error: KeyError = SigningKey::from_pem(text.as_bytes()).unwrap_err();
        let words = format!("{error} {error:?}");
        assert!(!leaks(&words, &secret), "{words}");
    }
    assert_eq!(
        SigningKey::from_pem(b"garbage").unwrap_err().to_string(),
        "key cannot be read: no PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY block in PEM"
    );
}

#[test]
fn a_key_reads_back_as_it_was_written() {
    let key = key();
    let again = SigningKey::from_pem(key.expose_pem().as_bytes()).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert_eq!(again.expose_pem(), key.expose_pem());
    assert_eq!(again.expose_pkcs8_der().unwrap(), key.expose_pkcs8_der().unwrap());
}
