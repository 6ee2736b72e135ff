//! `CreateCertificate` when all is well: what comes back, over which TLS, for how long.

use serde_json::json;
use signet_certs::certificate::Certificate;
use signet_certs::verify::{Expected, Role, verify_chain};
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Ask, Dial, chain, now};
use signet_tests::cluster::Cluster;
use signet_tests::{csrs, openssl};
use tonic::Code;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_becomes_an_svid_of_its_account() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let answer = Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
    let (chain, roots) = chain(&answer);
    assert_eq!(chain.id().as_str(), CART);
    let bundle = ca.bundle().await;
    verify_chain(&chain, &bundle, Role::Client, now()).unwrap();
    verify_chain(&chain, &bundle, Role::Server, now()).unwrap();
    Expected::Id(CART.parse().unwrap()).check(chain.id()).unwrap();
    let (good, words) = openssl::verifies(ca.setup.dir().path(), &chain.to_pem(), &roots);
    assert!(good, "{words}");
    let scrape = ca.scrape().await;
    assert_eq!(scrape.outcome("signet_ca_csrs_total", "issued"), 1);
    assert_eq!(
        scrape.outcome("signet_ca_token_reviews_total", "authenticated"),
        1
    );
    let log = ca.process.output();
    let record = log
        .lines()
        .find(|line| line.contains("\"outcome\":\"issued\""))
        .expect("an audit record");
    for part in [CART, "shop/cart (pod cart-0)", &chain.serial(), "csr_sha256"] {
        assert!(record.contains(part), "{part} in {record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_leaf_issuing_authority_and_last_the_whole_root_bundle() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let answer = Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
    assert_eq!(answer.cert_chain.len(), 3);
    let one = |pem: &String| {
        let all = Certificate::all_from_pem(pem.as_bytes()).unwrap();
        assert_eq!(all.len(), 1, "one certificate per element");
        all.into_iter().next().unwrap()
    };
    let (leaf, issuing, root) = (
        one(&answer.cert_chain[0]),
        one(&answer.cert_chain[1]),
        one(&answer.cert_chain[2]),
    );
    assert_eq!(leaf.authority_key_id(), issuing.subject_key_id());
    assert_eq!(issuing.authority_key_id(), root.subject_key_id());
    assert!(root.is_self_issued() && !issuing.is_self_issued());
    assert_eq!(answer.cert_chain[2], ca.roots().await);
    assert!(
        answer
            .cert_chain
            .iter()
            .all(|element| element.ends_with("-----END CERTIFICATE-----\n"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_tls_versions_are_served_and_alpn_is_h2() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let dial = Dial {
            versions: vec![version],
            ..Dial::default()
        };
        Ask::good()
            .token(&token)
            .send(&dial.channel(&ca).await)
            .await
            .unwrap();
        let config = std::sync::Arc::new(dial.config(&ca.roots().await));
        let tcp = tokio::net::TcpStream::connect(&ca.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(signet_tests::ca::SERVER_NAME).unwrap();
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(version.version));
        assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
    }
    let stream = signet_tests::tls::connect(&ca.address, None).await.unwrap();
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        None,
        "nothing offered, nothing chosen"
    );
    // A client that speaks only HTTP/1.1 is told so in the handshake.
    let dial = Dial {
        alpn: vec![b"http/1.1".to_vec()],
        ..Dial::default()
    };
    let status = Ask::good()
        .token(&token)
        .send(&dial.channel(&ca).await)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let error = signet_runtime::grpc::dial_error(&status)
        .expect("a dial error")
        .to_string();
    assert!(
        error.contains("NoApplicationProtocol") || error.contains("application protocol"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_serving_certificate_has_the_names_configured_and_no_other() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("serving_names", json!(["ca.one.example"]))
        .start()
        .await;
    let token = cluster.token("shop", "cart");
    let dial = Dial {
        server_name: "ca.one.example".into(),
        ..Dial::default()
    };
    Ask::good()
        .token(&token)
        .send(&dial.channel(&ca).await)
        .await
        .unwrap();
    let status = Ask::good().token(&token).at(&ca).await.unwrap_err();
    let error = signet_runtime::grpc::dial_error(&status)
        .expect("a dial error")
        .to_string();
    assert!(
        error.contains("NotValidForName") || error.contains("not valid for name"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lifetimes_are_clamped_to_the_bounds() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("min_svid_ttl", "10s")
        .set("svid_ttl", "2h")
        .set("max_svid_ttl", "4h")
        .start()
        .await;
    let token = cluster.token("shop", "cart");
    for (asked, given) in [
        (1, 10),
        (60, 60),
        (0, 7_200),
        (-5, 7_200),
        (100_000_000, 14_400),
        (i64::MAX, 14_400),
    ] {
        let before = now().as_secs();
        let answer = Ask::good().token(&token).seconds(asked).at(&ca).await.unwrap();
        let after = now().as_secs();
        let (chain, _) = chain(&answer);
        let (begin, end) = (chain.not_before().as_secs(), chain.not_after().as_secs());
        assert!(
            (before + given..=after + given).contains(&end),
            "asked {asked}, ends {end}, expected {given} after {before}..={after}"
        );
        // By a quarter of the life, two minutes at most; an odd quarter may be rounded up.
        let backdated = end - given - begin;
        let quarter = (given / 4).min(120);
        assert!(
            (quarter..=(given.div_ceil(4)).min(120)).contains(&backdated),
            "backdated {backdated} of {given}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_dns_names_appear_only_for_their_account() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set(
            "extra_dns_names",
            json!({"shop/cart": ["cart.example.com", "cart.shop.svc"]}),
        )
        .start()
        .await;
    let dns = async |account: &str| {
        let answer = Ask::good()
            .token(&cluster.token("shop", account))
            .at(&ca)
            .await
            .unwrap();
        chain(&answer).0.leaf().names().dns.clone()
    };
    assert_eq!(dns("cart").await, ["cart.example.com", "cart.shop.svc"]);
    assert!(dns("bank").await.is_empty());
    // Asking for it in the CSR gives it to nobody, not even to whom it belongs.
    let csr = csrs::with_dns("cart.example.com");
    let said = Ask::csr(csr)
        .token(&cluster.token("shop", "bank"))
        .refused(&ca, Code::InvalidArgument)
        .await;
    assert_eq!(
        said,
        "csr asks for \"cart.example.com\", but the caller may have only spiffe://cluster.local/ns/shop/sa/bank"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_is_refused_with_its_reason() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    let said = Ask::good()
        .token(&token)
        .metadata("ImpersonatedIdentity", "spiffe://cluster.local/ns/shop/sa/bank")
        .refused(&ca, Code::Unauthenticated)
        .await;
    assert_eq!(
        said,
        "impersonation is not enabled on this CA; ask for your own identity"
    );
    // Its own name is no impersonation.
    let answer = Ask::good()
        .token(&token)
        .metadata("ImpersonatedIdentity", CART)
        .at(&ca)
        .await
        .unwrap();
    assert_eq!(chain(&answer).0.id().as_str(), CART);
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_csrs_total", "impersonation_disabled"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_must_agree_with_the_token_and_gives_nothing_by_itself() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let (cart, bank) = (cluster.token("shop", "cart"), cluster.token("shop", "bank"));
    let svid = std::sync::Arc::new(signet_tests::client::svid(&ca, &cart).await);
    let dial = Dial {
        identity: Some(svid),
        ..Dial::default()
    };
    let channel = dial.channel(&ca).await;
    let answer = Ask::good().token(&cart).send(&channel).await.unwrap();
    assert_eq!(chain(&answer).0.id().as_str(), CART);
    let status = Ask::good().token(&bank).send(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(
        status.message(),
        "client certificate and token name different identities"
    );
    let status = Ask::good().send(&channel).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::Unauthenticated,
        "a certificate alone is not enough"
    );
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_csrs_total", "certificate_disagrees"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_a_foreign_ca_ends_the_handshake() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let foreign = {
        let theirs = Cluster::start();
        let ca = Ca::start(&theirs).await;
        signet_tests::client::svid(&ca, &theirs.token("shop", "cart")).await
    };
    let dial = Dial {
        identity: Some(std::sync::Arc::new(foreign)),
        ..Dial::default()
    };
    let status = Ask::good()
        .token(&cluster.token("shop", "cart"))
        .send(&dial.channel(&ca).await)
        .await
        .unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    signet_tests::wait::until("the fault to be counted", signet_tests::wait::SOON, async || {
        ca.scrape()
            .await
            .outcome("signet_ca_connection_faults_total", "client_certificate")
            >= 1
    })
    .await;
    assert_eq!(ca.scrape().await.outcome("signet_ca_csrs_total", "issued"), 0);
}
