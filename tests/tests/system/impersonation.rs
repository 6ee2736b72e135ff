//! Nodes that ask for the identities of what they run: what ztunnel and our agents do, and what a stolen
//! token of theirs is worth.

mod faults;
mod lookups;
mod refusals;

use std::time::Duration;

use futures::future::join_all;
use signet_certs::verify::{Role, verify_chain};
use signet_devcluster::{ObjectRef, TokenSpec};
use signet_tests::ca::Ca;
use signet_tests::client::{Ask, Dial, chain, now};
use signet_tests::cluster::Cluster;
use signet_tests::csrs;
use signet_tests::nodes::{NODE_ACCOUNT, agent, asking, identity, pod, trusting};
use signet_tests::wait::{SOON, until};
use tonic::Code;

const ISTIOD: &str = "istiod.istio-system.svc";

/// The wanted identity is in the answer as ztunnel checks it, and verifies.
async fn good(ca: &Ca, answer: &signet_proto::wire::istio::v1::auth::IstioCertificateResponse, id: &str) {
    // At least leaf and roots; one certificate per element, the roots last and whole.
    assert!(answer.cert_chain.len() >= 2);
    let (last, certificates) = answer.cert_chain.split_last().unwrap();
    assert_eq!(*last, ca.roots().await);
    for pem in certificates {
        assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 1);
        assert!(pem.ends_with('\n'));
    }
    let (chain, _) = chain(answer);
    // Byte for byte, and the only one.
    assert_eq!(chain.leaf().names().uris, [id]);
    verify_chain(&chain, &ca.bundle().await, Role::Server, now()).unwrap();
    verify_chain(&chain, &ca.bundle().await, Role::Client, now()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_as_a_starting_ztunnel_sends_it_is_served_on_one_connection() {
    let cluster = Cluster::start();
    let ztunnel = ("istio-system", "ztunnel");
    let ca = trusting(&cluster)
        .set("istio_compatibility", true)
        .set("trusted_node_accounts", vec!["istio-system/ztunnel"])
        .start()
        .await;
    pod(&cluster, ztunnel, "ztunnel-x", Some("n1"));
    let spec = TokenSpec::new(ztunnel.0, ztunnel.1).audience("istio-ca");
    let token = cluster.mint(&spec.pod("ztunnel-x"));
    let ids: Vec<String> = (0..50)
        .map(|n| {
            let account = format!("app{n}");
            pod(&cluster, ("shop", &account), &format!("{account}-0"), Some("n1"));
            identity("shop", &account)
        })
        .collect();
    let dial = Dial {
        server_name: ISTIOD.into(),
        versions: vec![&rustls::version::TLS13],
        ..Dial::default()
    };
    let channel = dial.channel(&ca).await;
    // Eight at once, as it does.
    for eight in ids.chunks(8) {
        let asks: Vec<Ask> = eight
            .iter()
            .map(|id| asking(&token, id).deadline(Duration::from_secs(10)))
            .collect();
        let answers = join_all(asks.iter().map(|ask| ask.send(&channel))).await;
        for (id, answer) in eight.iter().zip(answers) {
            good(&ca, &answer.unwrap(), id).await;
        }
    }
    let scrape = ca.scrape().await;
    assert_eq!(scrape.outcome("signet_ca_csrs_total", "issued"), 50);
    // One token, one review.
    assert_eq!(
        scrape.outcome("signet_ca_token_reviews_total", "authenticated"),
        1
    );
    let log = ca.process.output();
    let audit = log.lines().find(|line| line.contains(&ids[7])).unwrap();
    for part in ["\"issued\"", "istio-system/ztunnel (pod ztunnel-x)", "serial"] {
        assert!(audit.contains(part), "{part} is missing in {audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_istios_clients_vary_makes_no_difference() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let cart = identity("shop", "cart");
    let own = identity(NODE_ACCOUNT.0, NODE_ACCOUNT.1);
    let with = |csr: String| Ask::csr(csr).token(&token);
    let table = [
        // No name in the CSR; headers for the cluster empty, absent, doubled.
        (with(csrs::plain()).metadata("ImpersonatedIdentity", &cart), &cart),
        (asking(&token, &cart).header("clusterid", ""), &cart),
        (asking(&token, &cart).metadata("CertSigner", ""), &cart),
        (
            asking(&token, &cart)
                .metadata("WorkloadName", "x")
                .header("x-custom", "y"),
            &cart,
        ),
        (asking(&token, &cart).seconds(0), &cart),
        (asking(&token, &cart).seconds(i64::MAX), &cart),
        // Dedicated mode: no metadata at all; empty counts as absent.
        (with(csrs::with_uris(&[&own])), &own),
        (with(csrs::plain()).metadata("ImpersonatedIdentity", ""), &own),
        (asking(&token, &own), &own),
    ];
    for (ask, id) in table {
        good(&ca, &ask.at(&ca).await.unwrap(), id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_csr_must_name_the_impersonated_identity_or_nothing() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    for account in ["cart", "bank"] {
        pod(&cluster, ("shop", account), &format!("{account}-0"), Some("n1"));
    }
    let (cart, bank) = (identity("shop", "cart"), identity("shop", "bank"));
    let said = Ask::csr(csrs::with_uris(&[&bank]))
        .token(&token)
        .metadata("ImpersonatedIdentity", &cart)
        .refused(&ca, Code::InvalidArgument)
        .await;
    assert_eq!(
        said,
        format!("csr asks for {bank:?}, but the caller may have only {cart}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_account_keeps_its_own_identity_without_any_pod_being_asked_about() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let lists = cluster.api.counts().get("list", "pods");
    // A workload, an agent whose pod is nowhere, and a token bound to nothing.
    let cart = cluster.token("shop", "cart");
    pod(&cluster, NODE_ACCOUNT, "agent-n1", None);
    let unscheduled = signet_tests::nodes::agent_token(&cluster, "n1");
    let spec = TokenSpec::new(NODE_ACCOUNT.0, NODE_ACCOUNT.1).audience("signet-ca");
    let unbound = cluster.mint(&spec);
    let own = identity(NODE_ACCOUNT.0, NODE_ACCOUNT.1);
    for (token, id) in [
        (&cart, identity("shop", "cart")),
        (&unscheduled, own.clone()),
        (&unbound, own),
    ] {
        good(&ca, &asking(token, &id).at(&ca).await.unwrap(), &id).await;
    }
    assert_eq!(cluster.api.counts().get("list", "pods"), lists);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_node_accounts_no_pod_is_ever_listed_or_watched() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let said = asking(&token, &identity("shop", "cart"))
        .refused(&ca, Code::Unauthenticated)
        .await;
    assert!(said.contains("impersonation is not enabled"), "{said}");
    let counts = cluster.api.counts();
    assert_eq!((counts.get("list", "pods"), counts.get("watch", "pods")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_leaves_the_node_with_its_last_live_pod() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    for name in ["cart-0", "cart-1"] {
        pod(&cluster, ("shop", "cart"), name, Some("n1"));
    }
    let ask = asking(&token, &identity("shop", "cart"));
    ask.at(&ca).await.unwrap();
    cluster.api.set_pod_phase("shop", "cart-0", "Succeeded").unwrap();
    ask.at(&ca).await.unwrap();
    // A pod that is being deleted still runs.
    let mut held = cluster.get("pods", "shop", "cart-1").unwrap();
    held["metadata"]["finalizers"] = serde_json::json!(["example.com/held"]);
    cluster.api.put(held).unwrap();
    cluster.api.delete_pod("shop", "cart-1").unwrap();
    assert!(cluster.get("pods", "shop", "cart-1").unwrap()["metadata"]["deletionTimestamp"].is_string());
    ask.at(&ca).await.unwrap();
    cluster.api.set_pod_phase("shop", "cart-1", "Failed").unwrap();
    refused_soon(&ca, &ask).await;
    // One that goes without having ended.
    pod(&cluster, ("shop", "cart"), "cart-2", Some("n1"));
    until("the identity to be back", SOON, async || {
        ask.at(&ca).await.is_ok()
    })
    .await;
    cluster
        .api
        .delete(&ObjectRef::core("pods", "shop", "cart-2"))
        .unwrap();
    refused_soon(&ca, &ask).await;
    let refused = ca
        .scrape()
        .await
        .outcome("signet_ca_csrs_total", "no_pod_on_node");
    assert!(refused >= 2, "{refused}");
}

/// The refusal of an identity that was granted a moment ago.
async fn refused_soon(ca: &Ca, ask: &Ask) {
    until("a refusal", SOON, async || match ask.at(ca).await {
        Ok(_) => false,
        Err(status) => {
            assert_eq!(status.code(), Code::Unauthenticated, "{}", status.message());
            true
        }
    })
    .await;
}
