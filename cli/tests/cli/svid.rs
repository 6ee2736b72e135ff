//! `svid show FILE`, `svid verify`, `bundle show FILE`.

use crate::support::{Pki, Ran, file, now, signet};

async fn verify(chain: &str, bundle: &str, more: &[&str]) -> Ran {
    let mut arguments = vec!["svid", "verify", chain, "--bundle", bundle, "-o", "json"];
    arguments.extend(more);
    signet(&arguments).await
}

#[tokio::test]
async fn a_chain_file_is_shown_with_every_rule_and_no_renewal() {
    let pki = Pki::new();
    let chain = pki.chain("cart");
    let shown = signet(&["svid", "show", &file(chain.to_pem()).path, "-o", "json"]).await;
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    let shown = shown.json();
    let svid = &shown["svids"][0];
    assert_eq!(svid["spiffe_id"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(svid["serial"], chain.serial());
    assert_eq!(svid["signed_by"]["authority_id"], pki.issuing.id());
    assert_eq!(svid["renewal"], serde_json::Value::Null, "nobody renews a file");
    assert_eq!(svid["chain"].as_array().unwrap().len(), 2);
    let rules = svid["rules"].as_array().unwrap();
    assert!(
        rules.len() >= 8 && rules.iter().all(|rule| rule["kept"] == true),
        "{rules:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_is_no_svid_is_shown_with_the_rules_it_breaks() {
    let root = file(Pki::new().root.certificate().to_pem());
    let shown = signet(&["svid", "show", &root.path]).await;
    assert_eq!(shown.code, 0);
    assert!(
        shown
            .out
            .contains("BROKEN  §4.1     not a CA: it is a CA certificate"),
        "{}",
        shown.out
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_exit_2_and_says_which_file() {
    let none = signet(&["svid", "show", "/nowhere/chain.pem"]).await;
    assert_eq!(none.code, 2);
    assert_eq!(
        none.err,
        "signet: read /nowhere/chain.pem: No such file or directory (os error 2)\n"
    );
    let empty = file("");
    let ran = signet(&["svid", "show", &empty.path]).await;
    let expected = format!(
        "signet: {}: no usable CERTIFICATE block in the PEM text: it is empty\n",
        empty.path
    );
    assert_eq!((ran.code, ran.err), (2, expected));
    let text = file("hello");
    let ran = signet(&["svid", "show", &text.path]).await;
    let told = "it holds no CERTIFICATE block\n";
    assert!(ran.code == 2 && ran.err.ends_with(told), "{}", ran.err);
}

#[tokio::test]
async fn a_good_chain_is_exit_0_with_the_root_that_accepts_it() {
    let pki = Pki::new();
    let (chain, bundle) = (pki.chain_file("cart"), pki.bundle_file());
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    let ran = verify(&chain.path, &bundle.path, &["--id", id]).await;
    assert_eq!(ran.code, 0);
    let verdict = ran.json();
    assert_eq!(verdict["spiffe_id"], id);
    assert_eq!(verdict["accepted_by"][0], pki.root.id());
    assert_eq!(verdict["trust_domain_from"], "roots");
    let with_root = file(pki.chain("cart").to_pem() + &pki.bundle().to_pem());
    assert_eq!(
        verify(&with_root.path, &bundle.path, &[]).await.code,
        0,
        "as Istio's agents present it"
    );
    let jwks = file(pki.bundle().to_jwks());
    let verdict = verify(&chain.path, &jwks.path, &[]).await;
    assert_eq!(
        (verdict.code, verdict.json()["trust_domain_from"].as_str()),
        (0, Some("chain"))
    );
}

#[tokio::test]
async fn a_refused_chain_is_exit_1_with_a_typed_reason() {
    let pki = Pki::new();
    let (chain, bundle) = (pki.chain_file("cart"), pki.bundle_file());
    let (stranger, other_domain) = (
        Pki::new().bundle_file(),
        Pki::of(&"other".parse().unwrap()).bundle_file(),
    );
    let no_svid = file(pki.issuing.certificate().to_pem());
    let later = signet_runtime::clock::rfc3339(signet_certs::lifetime::plus(now(), crate::support::HOUR * 2));
    for (chain, bundle, more, reason, sentence) in [
        (
            &chain,
            &bundle,
            &["--at", &later][..],
            "expired",
            "the leaf expired ",
        ),
        (
            &chain,
            &bundle,
            &["--at", "2001-01-01T00:00:00Z"],
            "not_yet_valid",
            "the leaf is not valid for ",
        ),
        (
            &chain,
            &bundle,
            &["--id", "spiffe://cluster.local/ns/a/sa/b"],
            "other_id",
            "peer is spiffe://",
        ),
        (
            &chain,
            &stranger,
            &[],
            "unknown_issuer",
            "no authority in the bundle of cluster.local signed",
        ),
        (
            &chain,
            &other_domain,
            &[],
            "other_trust_domain",
            "no trust bundle for trust domain cluster.local",
        ),
        (
            &chain,
            &bundle,
            &["--trust-domain", "other"],
            "other_trust_domain",
            "no trust bundle for trust domain",
        ),
        (
            &no_svid,
            &bundle,
            &[],
            "not_an_svid",
            "leaf is no X509-SVID: it is a CA certificate",
        ),
    ] {
        let ran = verify(&chain.path, &bundle.path, more).await;
        assert_eq!(ran.code, 1, "{reason}: {ran:?}");
        let verdict = ran.json();
        assert_eq!(verdict["reason"], reason);
        let explanation = verdict["explanation"].as_str().unwrap();
        assert!(explanation.starts_with(sentence), "{reason}: {explanation}");
        assert_eq!(verdict["accepted"], false);
    }
}

#[tokio::test]
async fn a_bundle_that_is_none_is_exit_2() {
    let pki = Pki::new();
    let chain = pki.chain_file("cart");
    for (bundle, sentence) in [
        (file("{\"keys\":1}"), "bundle is not a SPIFFE JWK set"),
        (file("nonsense"), "no usable CERTIFICATE block"),
        (pki.chain_file("cart"), "is not a CA certificate"),
        (
            file(pki.issuing.certificate().to_pem()),
            "is an intermediate; a bundle holds roots only",
        ),
    ] {
        let ran = verify(&chain.path, &bundle.path, &[]).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        assert!(
            ran.err.contains(sentence) && ran.err.contains(&bundle.path),
            "{}",
            ran.err
        );
    }
}

#[tokio::test]
async fn a_time_or_an_id_that_is_none_is_told_with_an_example() {
    let ran = signet(&["svid", "verify", "c", "--bundle", "b", "--at", "noon"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err
            .contains("\"noon\" is no time; write one like 2027-01-15T08:00:00Z"),
        "{}",
        ran.err
    );
    let ran = signet(&["svid", "verify", "c", "--bundle", "b", "--id", "cart"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("must begin with \"spiffe://\""), "{}", ran.err);
}

#[tokio::test]
async fn a_bundle_file_is_shown_with_the_domain_its_roots_name() {
    let pki = Pki::new();
    let shown = signet(&["bundle", "show", &pki.bundle_file().path, "-o", "json"]).await;
    assert_eq!(shown.code, 0);
    let shown = shown.json();
    assert_eq!(shown["trust_domain"], "cluster.local");
    assert_eq!(shown["sequence"], serde_json::Value::Null);
    assert_eq!(shown["roots"][0]["authority_id"], pki.root.id());
    let jwks = file(pki.bundle().to_jwks());
    let shown = signet(&["bundle", "show", &jwks.path, "-o", "json"]).await.json();
    assert_eq!(
        (&shown["trust_domain"], &shown["sequence"]),
        (&serde_json::Value::Null, &7.into())
    );
}
