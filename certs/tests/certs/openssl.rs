//! A foreign implementation reads what we make, and comes to the same verdict.

use std::sync::Arc;

use signet_certs::certificate::Certificate;
use signet_certs::csr::request;
use signet_certs::{Csr, LeafProfile, SigningKey, SvidChain, TrustBundle, UnixTime, issue};

use crate::issuing::{DAY, authorities, bundle, key, profile};
use crate::support::peer::OpenSsl;
use crate::support::{ID, id, now};

impl OpenSsl {
    /// `openssl verify`, as strict as it can be, says yes.
    pub(crate) fn verifies(&self, trust: &TrustBundle, chain: &SvidChain, time: UnixTime) {
        let ran = self.verify(trust, chain, time);
        assert!(ran.ok, "{}{}{}", ran.stdout, ran.stderr, chain.to_pem());
    }

    fn verify(&self, trust: &TrustBundle, chain: &SvidChain, time: UnixTime) -> crate::support::peer::Ran {
        let roots = self.file("roots.pem", trust.to_pem());
        let leaf = self.file("leaf.pem", chain.leaf().to_pem());
        let between: String = chain.intermediates().iter().map(Certificate::to_pem).collect();
        let time = time.as_secs().to_string();
        let mut args = vec![
            "verify",
            "-x509_strict",
            "-no-CApath",
            "-no-CAstore",
            "-attime",
            &time,
        ];
        args.extend(["-purpose", "sslclient", "-CAfile", &roots]);
        let between = self.file("between.pem", &between);
        if !chain.intermediates().is_empty() {
            args.extend(["-untrusted", &between]);
        }
        args.push(&leaf);
        self.run(&args)
    }

    fn text(&self, certificate: &Certificate) -> String {
        let file = self.file("one.pem", certificate.to_pem());
        self.must(&["x509", "-in", &file, "-noout", "-text"])
    }
}

fn holds(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}

#[test]
fn openssl_reads_every_kind_of_certificate_we_make() {
    let Some(openssl) = OpenSsl::find("openssl_reads_every_kind_of_certificate_we_make") else {
        return;
    };
    let (root, issuing) = authorities(now());
    let own_id = "X509v3 Subject Alternative Name: \n                URI:spiffe://cluster.local\n";
    let signs = "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n";
    holds(
        &openssl.text(root.certificate()),
        &[
            "Version: 3 (0x2)",
            own_id,
            signs,
            "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:1",
        ],
    );
    holds(
        &openssl.text(issuing.certificate()),
        &[
            own_id,
            signs,
            "CA:TRUE, pathlen:0",
            "X509v3 Authority Key Identifier",
        ],
    );
    let with_dns = LeafProfile {
        dns: vec!["cart.shop.svc".into()],
        ..profile(DAY)
    };
    for (profile, names) in [
        (profile(DAY), format!("URI:{ID}\n")),
        (with_dns, format!("URI:{ID}, DNS:cart.shop.svc\n")),
    ] {
        let chain = issue(&profile, key().public_key(), &issuing, now()).unwrap();
        let names = format!("X509v3 Subject Alternative Name: critical\n                {names}");
        holds(
            &openssl.text(chain.leaf()),
            &[
                "Subject: \n",
                &names,
                "X509v3 Key Usage: critical\n                Digital Signature\n",
                "TLS Web Server Authentication, TLS Web Client Authentication",
                "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            ],
        );
        openssl.verifies(&bundle(&root), &chain, now());
    }
}

#[test]
fn openssl_refuses_what_we_refuse() {
    let Some(openssl) = OpenSsl::find("openssl_refuses_what_we_refuse") else {
        return;
    };
    let (root, issuing) = authorities(now());
    let (stranger, _) = authorities(now());
    let chain = issue(&profile(DAY), key().public_key(), &issuing, now()).unwrap();
    assert!(!openssl.verify(&bundle(&stranger), &chain, now()).ok);
    let late = signet_certs::lifetime::plus(now(), 2 * DAY);
    let expired = openssl.verify(&bundle(&root), &chain, late);
    assert!(
        !expired.ok && expired.stderr.contains("certificate has expired"),
        "{}",
        expired.stderr
    );
}

#[test]
fn requests_pass_both_ways() {
    let Some(openssl) = OpenSsl::find("requests_pass_both_ways") else {
        return;
    };
    let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let p384 = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
    ];
    let p256 = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ];
    for make in [
        rsa.as_slice(),
        &p384,
        &p256,
        &["genpkey", "-algorithm", "ed25519"],
    ] {
        let pem = openssl.must(make);
        let file = openssl.file("key.pem", &pem);
        let key = Arc::new(SigningKey::from_pem(pem.as_bytes()).unwrap());

        let ours = openssl.file("ours.csr", request(&key, Some(&id())).unwrap());
        let text = openssl.must(&["req", "-in", &ours, "-noout", "-text", "-verify"]);
        holds(
            &text,
            &["X509v3 Subject Alternative Name: critical", &format!("URI:{ID}")],
        );

        let san = format!("subjectAltName=URI:{ID}");
        let theirs = openssl.must(&[
            "req",
            "-new",
            "-key",
            &file,
            "-subj",
            "/O=any",
            "-config",
            "/dev/null",
            "-addext",
            &san,
        ]);
        let csr = Csr::from_pem(&theirs).unwrap();
        assert_eq!(csr.public_key(), key.public_key());
        assert_eq!(csr.check_names(&id()), Ok(()));

        let (root, issuing) = authorities(now());
        let chain = issue(&profile(DAY), csr.public_key(), &issuing, now()).unwrap();
        openssl.verifies(&bundle(&root), &chain, now());
    }
}
