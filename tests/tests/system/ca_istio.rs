//! As Istio's clients ask: their audience, names, metadata, headers, keys and pings.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use signet_devcluster::TokenSpec;
use signet_tests::ca::CaSetup;
use signet_tests::client::{Ask, Dial, chain};
use signet_tests::cluster::Cluster;
use signet_tests::csrs;
use signet_tests::wait::{SOON, until};
use tonic::Code;

const ISTIOD: &str = "istiod.istio-system.svc";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_as_istio_agent_sends_it_is_served() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("istio_compatibility", true)
        .start()
        .await;
    cluster.workload("shop", "cart");
    let token = cluster.mint(&TokenSpec::new("shop", "cart").audience("istio-ca").pod("cart-0"));
    let own = "spiffe://cluster.local/ns/shop/sa/cart";
    let csr = csrs::as_istio_agent(&csrs::rsa_key(2048), own);
    let dial = Dial {
        server_name: ISTIOD.into(),
        ..Dial::default()
    };
    for cluster_id in ["Kubernetes", ""] {
        let answer = Ask::csr(csr.clone())
            .token(&token)
            .header("clusterid", cluster_id)
            .metadata("CertSigner", "")
            .seconds(86_400)
            .send(&dial.channel(&ca).await)
            .await
            .unwrap();
        assert!(answer.cert_chain.len() >= 2);
        let (chain, roots) = chain(&answer);
        assert_eq!(chain.id().as_str(), own);
        assert_eq!(roots, ca.roots().await);
    }
    // Our own audience goes on beside it.
    Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_compatibility_istio_tokens_are_refused() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).start().await;
    cluster.workload("shop", "cart");
    let token = cluster.mint(&TokenSpec::new("shop", "cart").audience("istio-ca").pod("cart-0"));
    Ask::good()
        .token(&token)
        .refused(&ca, Code::Unauthenticated)
        .await;
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_csrs_total", "token_audience"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roots_are_published_under_istios_name_too() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("istio_compatibility", true)
        .start()
        .await;
    let roots = ca.roots().await;
    until("istio's configmap", SOON, async || {
        let map = cluster.get("configmaps", "default", "istio-ca-root-cert");
        map.is_some_and(|map| {
            map["data"]["root-cert.pem"] == roots && map["metadata"]["labels"]["istio.io/config"] == "true"
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frequent_pings_without_calls_are_tolerated() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).start().await;
    let config = std::sync::Arc::new(Dial::default().config(&ca.roots().await));
    let tcp = tokio::net::TcpStream::connect(&ca.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(signet_tests::ca::SERVER_NAME).unwrap();
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(50))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .handshake::<_, http_body_util::Full<bytes::Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    // Sixty pings: a server that minds them would have ended the connection long before.
    let ended = tokio::time::timeout(Duration::from_secs(3), connection).await;
    assert!(ended.is_err(), "the connection ended: {ended:?}");
    drop(sender);
}
