//! Authorities made by OpenSSL: keys in every form, subjects of every shape, weak signatures.

use std::sync::Arc;

use signet_certs::certificate::Certificate;
use signet_certs::key::KeyKind;
use signet_certs::verify::{Role, VerifyError, verify_authority, verify_chain};
use signet_certs::{Authority, SigningKey, SvidChain, TrustBundle, issue};

use crate::issuing::{DAY, bundle, key, profile};
use crate::support::der::unpem;
use crate::support::peer::OpenSsl;
use crate::support::{domain, now};

/// A self-signed root made by OpenSSL around the PEM key in `file`.
fn foreign_root(openssl: &OpenSsl, file: &str, subject: &str) -> Certificate {
    let pem = openssl.must(&[
        "req",
        "-x509",
        "-new",
        "-key",
        file,
        "-subj",
        subject,
        "-days",
        "36500",
        "-config",
        "/dev/null",
        "-addext",
        "basicConstraints=critical,CA:true",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-addext",
        "subjectKeyIdentifier=hash",
    ]);
    Certificate::from_der(unpem(&pem).into()).unwrap()
}

/// Our intermediate below `root` issues a leaf that verifies here and by OpenSSL.
fn issues_below(openssl: &OpenSsl, root: &Authority) -> SvidChain {
    let trust = bundle(root);
    // OpenSSL dates its roots by the real clock, which may be ahead of the tests' own.
    let time = root.certificate().not_before().max(now());
    let issuing = root.issue_intermediate(&domain(), key(), 14 * DAY, time).unwrap();
    assert_eq!(issuing.public_key().kind(), KeyKind::P256);
    assert_eq!(verify_authority(&issuing, &trust, time), Ok(()));
    let mut chains = Vec::new();
    for authority in [root, &issuing] {
        let chain = issue(&profile(DAY), key().public_key(), authority, time).unwrap();
        assert_eq!(chain.leaf().issuer().der, authority.certificate().subject().der);
        assert_eq!(verify_chain(&chain, &trust, Role::Client, time), Ok(()));
        openssl.verifies(&trust, &chain, time);
        chains.push(chain);
    }
    chains.pop().unwrap()
}

#[test]
fn keys_in_every_form_are_plugged_in() {
    let Some(openssl) = OpenSsl::find("keys_in_every_form_are_plugged_in") else {
        return;
    };
    let rsa = |bits| ["genpkey", "-algorithm", "RSA", "-pkeyopt", bits];
    let ec = |curve| ["genpkey", "-algorithm", "EC", "-pkeyopt", curve];
    for (kind, make) in [
        (KeyKind::P256, ec("ec_paramgen_curve:P-256").as_slice()),
        (KeyKind::P384, ec("ec_paramgen_curve:P-384").as_slice()),
        (KeyKind::Rsa(2048), rsa("rsa_keygen_bits:2048").as_slice()),
        (KeyKind::Rsa(4096), rsa("rsa_keygen_bits:4096").as_slice()),
        (KeyKind::Ed25519, ["genpkey", "-algorithm", "ed25519"].as_slice()),
    ] {
        let pkcs8 = openssl.must(make);
        let file = openssl.file("ca.key", &pkcs8);
        let mut forms = vec![("PRIVATE KEY", pkcs8)];
        match kind {
            KeyKind::Rsa(_) => forms.push((
                "RSA PRIVATE KEY",
                openssl.must(&["rsa", "-in", &file, "-traditional"]),
            )),
            KeyKind::Ed25519 => {}
            _ => forms.push(("EC PRIVATE KEY", openssl.must(&["ec", "-in", &file]))),
        }
        let certificate = foreign_root(&openssl, &file, "/O=Example/CN=plugged in");
        for (label, pem) in forms {
            assert!(pem.starts_with(&format!("-----BEGIN {label}-----")), "{pem}");
            let key = Arc::new(SigningKey::from_pem(pem.as_bytes()).unwrap());
            assert_eq!(key.public_key().kind(), kind, "{label}");
            assert!(key.expose_pem().starts_with(&format!("-----BEGIN {label}-----")));
            assert_eq!(key.expose_pkcs8_der().is_ok(), label == "PRIVATE KEY");
            let root = Authority::new(key, certificate.clone(), Vec::new()).unwrap();
            issues_below(&openssl, &root);
        }
    }
}

#[test]
fn a_key_file_with_parameters_before_the_key_is_read() {
    let Some(openssl) = OpenSsl::find("a_key_file_with_parameters_before_the_key_is_read") else {
        return;
    };
    let pem = openssl.must(&["ecparam", "-name", "prime256v1", "-genkey"]);
    assert!(pem.starts_with("-----BEGIN EC PARAMETERS-----"));
    assert_eq!(
        SigningKey::from_pem(pem.as_bytes()).unwrap().public_key().kind(),
        KeyKind::P256
    );
}

#[test]
fn weak_and_foreign_private_keys_are_refused() {
    let Some(openssl) = OpenSsl::find("weak_and_foreign_private_keys_are_refused") else {
        return;
    };
    for make in [
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
        [
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-521",
        ],
        [
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:secp256k1",
        ],
    ] {
        assert_eq!(
            SigningKey::from_pem(openssl.must(&make).as_bytes())
                .unwrap_err()
                .to_string(),
            "key type of this private key is not accepted; use P-256, P-384, Ed25519 or RSA of at least 2048 bits"
        );
    }
}

#[test]
fn subjects_are_repeated_byte_for_byte_whatever_their_shape() {
    let Some(openssl) = OpenSsl::find("subjects_are_repeated_byte_for_byte_whatever_their_shape") else {
        return;
    };
    let file = openssl.file(
        "ca.key",
        openssl.must(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]),
    );
    let key = Arc::new(SigningKey::from_pem(&std::fs::read(&file).unwrap()).unwrap());
    for subject in [
        "/C=DE/DC=example/DC=corp/O=Example/OU=Platform/OU=Identity/CN=plugged in",
        "/O=Example/OU=a/OU=b/OU=c",
        "/C=DE/ST=Berlin/L=Berlin/emailAddress=ca@example.org/serialNumber=7",
        "/CN=a+OU=b/O=Example",
    ] {
        let mut certificate = foreign_root(&openssl, &file, subject);
        if subject.contains('+') {
            let args = [
                "req",
                "-x509",
                "-new",
                "-key",
                &file,
                "-subj",
                subject,
                "-multivalue-rdn",
                "-days",
                "36500",
                "-config",
                "/dev/null",
                "-addext",
                "basicConstraints=critical,CA:true",
                "-addext",
                "keyUsage=critical,keyCertSign",
                "-addext",
                "subjectKeyIdentifier=hash",
            ];
            certificate = Certificate::from_der(unpem(&openssl.must(&args)).into()).unwrap();
        }
        let root = Authority::new(key.clone(), certificate.clone(), Vec::new()).unwrap();
        let chain = issues_below(&openssl, &root);
        let intermediate = &chain.intermediates()[0];
        assert_eq!(intermediate.issuer().der, certificate.subject().der, "{subject}");
        assert_eq!(intermediate.authority_key_id(), certificate.subject_key_id());
    }
}

#[test]
fn an_authority_is_judged_by_its_signature_before_a_leaf_fails() {
    let test = "an_authority_is_judged_by_its_signature_before_a_leaf_fails";
    let Some(openssl) = OpenSsl::find(test) else {
        return;
    };
    let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let root_key = openssl.file("root.key", openssl.must(&rsa));
    let root = foreign_root(&openssl, &root_key, "/CN=root");
    let root_file = openssl.file("root.pem", root.to_pem());
    let own_key = openssl.must(&rsa);
    let own_file = openssl.file("own.key", &own_key);
    let request = openssl.must(&[
        "req",
        "-new",
        "-key",
        &own_file,
        "-subj",
        "/CN=own",
        "-config",
        "/dev/null",
    ]);
    let request = openssl.file("own.csr", request);
    let extensions = openssl.file(
        "own.ext",
        "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n",
    );
    let pss: &[&str] = &[
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    let weak = || Err(VerifyError::WeakSignature);
    for (digest, padding, verdict) in [
        ("-sha256", &[] as &[&str], Ok(())),
        ("-sha256", pss, Ok(())),
        ("-sha384", pss, Ok(())),
        ("-sha512", pss, Ok(())),
        ("-sha1", &[], weak()),
        ("-sha1", pss, weak()),
    ] {
        let mut args = vec![
            "x509",
            "-req",
            "-in",
            &request,
            digest,
            "-CA",
            &root_file,
            "-CAkey",
            &root_key,
            "-set_serial",
            "7",
            "-days",
            "3650",
            "-extfile",
            &extensions,
        ];
        args.extend(padding);
        let pem = openssl.must(&args);
        let certificate = Certificate::from_der(unpem(&pem).into()).unwrap();
        let time = certificate.not_before().max(now());
        let key = Arc::new(SigningKey::from_pem(own_key.as_bytes()).unwrap());
        let authority = Authority::new(key, certificate, Vec::new()).unwrap();
        let trust = TrustBundle::new(domain(), vec![root.clone()], 1).unwrap();
        assert_eq!(
            verify_authority(&authority, &trust, time),
            verdict,
            "{digest} {padding:?}"
        );
    }
}
