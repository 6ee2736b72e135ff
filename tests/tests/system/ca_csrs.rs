//! Hostile CSRs: each refused with its code and a sentence that says what is wrong.

use signet_tests::ca::Ca;
use signet_tests::client::{Ask, chain};
use signet_tests::cluster::Cluster;
use signet_tests::csrs;
use tonic::Code;

const RSA_1024: &str = include_str!("../../../certs/tests/fixtures/csr-rsa-1024.pem");
const P521: &str = include_str!("../../../certs/tests/fixtures/csr-p521.pem");
const SECP256K1: &str = include_str!("../../../certs/tests/fixtures/csr-secp256k1.pem");
const RSA_2048: &str = include_str!("../../../certs/tests/fixtures/csr-rsa-2048.pem");

/// What the CA says to a CSR from `shop/cart`, which holds a good token.
async fn said(csr: String, code: Code) -> String {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let said = Ask::csr(csr)
        .token(&cluster.token("shop", "cart"))
        .refused(&ca, code)
        .await;
    let scrape = ca.scrape().await;
    assert_eq!(scrape.outcome("signet_ca_csrs_total", "issued"), 0);
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_with_the_ca_flag_is_refused() {
    let said = said(csrs::asking_for_ca(), Code::InvalidArgument).await;
    assert_eq!(said, "csr asks for a CA certificate; workloads get leaves only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_with_two_uri_names_is_refused() {
    let own = "spiffe://cluster.local/ns/shop/sa/cart";
    let said = said(csrs::with_uris(&[own, own]), Code::InvalidArgument).await;
    assert_eq!(said, "csr asks for 2 URI names; an SVID has exactly one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_for_another_identity_is_refused_naming_both() {
    let csr = csrs::with_uris(&["spiffe://cluster.local/ns/shop/sa/bank"]);
    assert_eq!(
        said(csr, Code::InvalidArgument).await,
        "csr asks for \"spiffe://cluster.local/ns/shop/sa/bank\", but the caller may have only \
         spiffe://cluster.local/ns/shop/sa/cart"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_with_a_dns_name_is_refused() {
    assert_eq!(
        said(csrs::with_dns("cart.shop.svc"), Code::InvalidArgument).await,
        "csr asks for \"cart.shop.svc\", but the caller may have only spiffe://cluster.local/ns/shop/sa/cart"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_with_a_mebibyte_of_extensions_is_refused_before_it_is_read() {
    let said = said(csrs::with_extension_of(1 << 20), Code::OutOfRange).await;
    assert!(
        said.contains("message length too large") && said.contains("49152"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_past_its_bound_is_refused_with_its_size() {
    let csr = csrs::with_extension_of(26 * 1024);
    let size = csr.len();
    let said = said(csr, Code::InvalidArgument).await;
    assert_eq!(said, format!("csr has {size} bytes, at most 32768 are read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_with_a_broken_signature_is_refused() {
    let said = said(csrs::with_broken_signature(), Code::InvalidArgument).await;
    assert_eq!(said, "csr signature does not match its key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_with_rsa_1024_is_refused() {
    let said = said(RSA_1024.into(), Code::InvalidArgument).await;
    assert_eq!(said, "csr rsa key has 1024 bits, 2048 to 8192 are accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn csrs_on_other_curves_are_refused_naming_the_curve() {
    for (csr, curve) in [(P521, "1.3.132.0.35"), (SECP256K1, "1.3.132.0.10")] {
        assert_eq!(
            said(csr.into(), Code::InvalidArgument).await,
            format!(
                "csr key type elliptic curve {curve} is not accepted; use P-256, P-384, Ed25519 or RSA of at least \
                 2048 bits"
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_csr_is_refused() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    let two = csrs::plain() + &csrs::plain();
    for (csr, said) in [
        (
            "",
            "request has no csr; send one PEM block of type CERTIFICATE REQUEST",
        ),
        ("hello", "csr is not one PEM block of type CERTIFICATE REQUEST"),
        (
            two.as_str(),
            "csr is not one PEM block of type CERTIFICATE REQUEST",
        ),
    ] {
        assert_eq!(
            Ask::csr(csr)
                .token(&token)
                .refused(&ca, Code::InvalidArgument)
                .await,
            said
        );
    }
    let garbage = "-----BEGIN CERTIFICATE REQUEST-----\nMAAA\n-----END CERTIFICATE REQUEST-----\n";
    let said = Ask::csr(garbage)
        .token(&token)
        .refused(&ca, Code::InvalidArgument)
        .await;
    assert!(said.starts_with("csr is not a PKCS#10 request: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_about_csrs_without_a_token() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let said = Ask::csr("hello").refused(&ca, Code::Unauthenticated).await;
    assert!(said.starts_with("request authenticate failure"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn good_csrs_of_every_kind_are_accepted_with_and_without_the_own_name() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    let own = "spiffe://cluster.local/ns/shop/sa/cart";
    for csr in [
        csrs::plain(),
        csrs::with_uris(&[own]),
        RSA_2048.to_owned(),
        csrs::with_extension_of(1000),
    ] {
        let answer = Ask::csr(csr).token(&token).at(&ca).await.unwrap();
        assert_eq!(chain(&answer).0.id().as_str(), own);
    }
}
