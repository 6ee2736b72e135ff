//! Each reason for which a node is refused: its status, the one safe sentence, and the true reason in
//! audit and metrics.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use signet_devcluster::TokenSpec;
use signet_tests::ca::Ca;
use signet_tests::cluster::{AUDIENCE, Cluster};
use signet_tests::nodes::{NODE_ACCOUNT, agent, agent_pod, agent_token, asking, identity, pod, trusting};
use signet_tests::wait::{SOON, until};
use tonic::Code;

const SAFE: &str =
    "request impersonation authentication failure: not an identity for this node; the CA's log tells why";

/// The one who asks is refused for `reason`, and only the operator learns it.
async fn refused(ca: &Ca, token: &str, id: &str, reason: &str) {
    let before = ca.scrape().await.outcome("signet_ca_csrs_total", reason);
    let said = asking(token, id).refused(ca, Code::Unauthenticated).await;
    assert_eq!(said, SAFE, "{reason}");
    let after = ca.scrape().await.outcome("signet_ca_csrs_total", reason);
    assert_eq!(after, before + 1, "{reason}");
    let quoted = format!("\"reason\":\"{reason}\"");
    until(&quoted, SOON, async || ca.process.output().contains(&quoted)).await;
    let log = ca.process.output();
    let record = log.lines().rfind(|line| line.contains(&quoted)).unwrap();
    for part in [
        "\"outcome\":\"refused\"",
        "\"caller\":",
        "\"error\":",
        "\"peer.addr\":",
    ] {
        assert!(record.contains(part), "{part} is missing in {record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_nothing_that_does_not_run_on_it() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "bank"), "bank-0", Some("n2"));
    pod(&cluster, ("shop", "done"), "done-0", Some("n1"));
    pod(&cluster, ("shop", "dead"), "dead-0", Some("n1"));
    pod(&cluster, ("shop", "waiting"), "waiting-0", None);
    cluster.api.set_pod_phase("shop", "done-0", "Succeeded").unwrap();
    cluster.api.set_pod_phase("shop", "dead-0", "Failed").unwrap();
    for account in ["bank", "done", "dead", "waiting", "nobody"] {
        refused(&ca, &token, &identity("shop", account), "no_pod_on_node").await;
    }
    // The same account name in another namespace is another account.
    refused(&ca, &token, &identity("stage", "bank"), "no_pod_on_node").await;
    // What runs beside the node itself: an agent on another node has the same account, and its own pod.
    let other = agent(&cluster, "n2");
    asking(&other, &identity("shop", "bank")).at(&ca).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_nothing_that_is_no_account_of_our_trust_domain() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let token = agent(&cluster, "n1");
    pod(&cluster, ("shop", "cart"), "cart-0", Some("n1"));
    let table = [
        ("spiffe://other.test/ns/shop/sa/cart", "foreign_trust_domain"),
        (
            "spiffe://cluster.local.evil/ns/shop/sa/cart",
            "foreign_trust_domain",
        ),
        ("spiffe://cluster.local", "not_service_account"),
        ("spiffe://cluster.local/ns/shop/sa", "not_service_account"),
        (
            "spiffe://cluster.local/ns/shop/sa/cart/admin",
            "not_service_account",
        ),
        ("spiffe://cluster.local/sa/cart/ns/shop", "not_service_account"),
        ("spiffe://cluster.local/ns/shop/sa/Cart", "not_service_account"),
        (
            "spiffe://cluster.local/ns/shop/sa/cart,spiffe://cluster.local/ns/shop/sa/bank",
            "not_spiffe_id",
        ),
        (
            "spiffe://cluster.local/ns/shop/sa/cart,evil.example",
            "not_spiffe_id",
        ),
        ("spiffe://cluster.local/ns/shop/sa/%63art", "not_spiffe_id"),
        ("spiffe://cluster.local/ns/shop/../shop/sa/cart", "not_spiffe_id"),
        ("SPIFFE://cluster.local/ns/shop/sa/cart", "not_spiffe_id"),
        ("cluster.local/ns/shop/sa/cart", "not_spiffe_id"),
        (" ", "not_spiffe_id"),
    ];
    let lists = cluster.api.counts().get("list", "pods");
    for (id, reason) in table {
        refused(&ca, &token, id, reason).await;
    }
    // None of it made the API server look.
    assert_eq!(cluster.api.counts().get("list", "pods"), lists);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_node_account_bound_to_a_pod_may_impersonate() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let cart = identity("shop", "cart");
    // On the same node, with a token bound to a live pod, yet not trusted.
    pod(&cluster, ("shop", "cart"), "cart-0", Some("node-1"));
    let neighbour = cluster.token("shop", "bank");
    refused(&ca, &neighbour, &cart, "not_node_account").await;
    let agents_default = cluster.token(NODE_ACCOUNT.0, "default");
    refused(&ca, &agents_default, &cart, "not_node_account").await;
    let _ = agent(&cluster, "node-1");
    let unbound = TokenSpec::new(NODE_ACCOUNT.0, NODE_ACCOUNT.1).audience(AUDIENCE);
    refused(&ca, &cluster.mint(&unbound), &cart, "token_not_bound").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_agent_token_is_worth_something_only_while_that_agents_pod_lives() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    for node in ["n1", "n2", "n3"] {
        pod(&cluster, ("shop", "cart"), &format!("cart-{node}"), Some(node));
    }
    let cart = identity("shop", "cart");
    let stolen: Vec<String> = ["n1", "n2", "n3"].map(|node| agent(&cluster, node)).into();
    // Known to the token cache for a minute from here.
    for token in &stolen {
        asking(token, &cart).at(&ca).await.unwrap();
    }
    let reviews = cluster.api.counts().token_reviews();
    let n1 = agent_pod("n1");
    cluster.api.delete_pod(NODE_ACCOUNT.0, &n1).unwrap();
    gone(&ca, &stolen[0], &cart).await;
    refused(&ca, &stolen[0], &cart, "pod_unknown").await;
    // The pod that takes its name does not give the old token its power back.
    pod(&cluster, NODE_ACCOUNT, &n1, Some("n1"));
    until("the successor to be known", SOON, async || {
        asking(&agent_token(&cluster, "n1"), &cart).at(&ca).await.is_ok()
    })
    .await;
    gone(&ca, &stolen[0], &cart).await;
    until("the answer about the old pod to be forgotten", SOON, async || {
        let _ = asking(&stolen[0], &cart).at(&ca).await;
        ca.scrape().await.outcome("signet_ca_csrs_total", "pod_replaced") >= 1
    })
    .await;
    cluster
        .api
        .set_pod_phase(NODE_ACCOUNT.0, &agent_pod("n2"), "Failed")
        .unwrap();
    gone(&ca, &stolen[1], &cart).await;
    refused(&ca, &stolen[1], &cart, "pod_ended").await;
    // The third was never touched.
    asking(&stolen[2], &cart).at(&ca).await.unwrap();
    // One review more, for the successor's token; the stolen ones were never reviewed again.
    assert!(cluster.api.counts().token_reviews() > reviews);
    let hits = ca.scrape().await.outcome("signet_ca_token_cache_total", "hit");
    assert!(hits >= 4, "the cache went on to vouch for them: {hits}");
}

async fn gone(ca: &Ca, token: &str, id: &str) {
    let ask = asking(token, id);
    super::refused_soon(ca, &ask).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_its_pod_must_agree_on_node_and_account() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    let cart = identity("shop", "cart");
    for node in ["n1", "n2"] {
        pod(&cluster, ("shop", "cart"), &format!("cart-{node}"), Some(node));
    }
    // A pod on no node, whose token says none either.
    pod(&cluster, NODE_ACCOUNT, &agent_pod("n0"), None);
    refused(&ca, &agent_token(&cluster, "n0"), &cart, "pod_unscheduled").await;
    // No honest API server moves a pod or signs for another's; these are told apart all the same.
    let token = agent(&cluster, "n1");
    let mut moved = cluster.get("pods", NODE_ACCOUNT.0, &agent_pod("n1")).unwrap();
    moved["spec"]["nodeName"] = json!("n2");
    cluster.api.put(moved).unwrap();
    until("the move to be seen", SOON, async || {
        asking(&token, &cart).at(&ca).await.is_err()
    })
    .await;
    refused(&ca, &token, &cart, "node_disagrees").await;
    let other = bound_to_another(&cluster, &agent(&cluster, "n2"));
    refused(&ca, &other, &cart, "pod_other_account").await;
}

/// The claims of a token of the node account, bound to a pod of the `default` account beside it.
fn bound_to_another(cluster: &Cluster, token: &str) -> String {
    pod(cluster, (NODE_ACCOUNT.0, "default"), "beside", Some("n2"));
    let beside = cluster.get("pods", NODE_ACCOUNT.0, "beside").unwrap();
    let part = token.split('.').nth(1).unwrap();
    let mut claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    claims["kubernetes.io"]["pod"] = json!({"name": "beside", "uid": beside["metadata"]["uid"]});
    cluster.api.sign_claims(&claims).unwrap()
}
