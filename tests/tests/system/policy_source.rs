//! Policies from the API server to what a proxy enforces: a real agent, processes of pods, and the reader of the
//! proxy in this process, which the agent attests as a pod's.

mod cli;
mod directory;
mod faults;
mod guards;
mod keys;
mod ports;
mod world;

use std::collections::BTreeMap;

use serde_json::json;
use signet_proto::policy::parse;
use signet_tests::node::Node;
use signet_tests::wait::{SOON, until};
use tonic::Code;

use world::{Client, ROOT, delete, deny, deny_all, labelled, names, node, put, put_kind, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_gets_what_concerns_it_at_once_and_after_every_change_of_that() {
    let node = node().await;
    let pod = run(&node, "cart");
    put(&node, "bank", "theirs", &deny_all());
    put(&node, "shop", "all", &json!({}));
    let guest = node.guest(&pod);
    let mut client = Client::open(&guest).await.unwrap();
    let first = client.next().await.unwrap();
    assert_eq!(names(&first), ["shop/all"]);
    let read = parse(first.clone()).unwrap();
    assert_eq!(
        (read.workload.namespace.as_str(), read.root_namespace.as_str()),
        ("shop", ROOT)
    );
    assert_eq!(
        read.workload.labels,
        BTreeMap::from([("app".into(), "cart".into())])
    );
    client.answer(&first.version, "").await;
    until("the answer on the page", SOON, async || {
        let page = node.agent.admin().get("/v1/policies").await;
        page["proxies"][0]["acked"] == first.version
    })
    .await;
    // What concerns others makes no message; the next one is about the next own change.
    put(&node, "bank", "more", &deny_all());
    put(
        &node,
        "shop",
        "web",
        &json!({"selector": {"matchLabels": {"app": "web"}}}),
    );
    put(&node, ROOT, "mesh", &deny("bank"));
    assert_eq!(client.names().await, ["istio-system/mesh", "shop/all"]);
    put_kind(
        &node,
        "PeerAuthentication",
        "shop",
        "strict",
        &json!({"mtls": {"mode": "STRICT"}}),
    );
    assert_eq!(
        client.names().await,
        ["istio-system/mesh", "shop/all", "shop/strict"]
    );
    // The pod's labels decide, as they are now.
    labelled(&node, "cart", &json!({"app": "web"}));
    let moved = client.next().await.unwrap();
    assert_eq!(
        names(&moved),
        ["istio-system/mesh", "shop/all", "shop/web", "shop/strict"]
    );
    client.answer(&moved.version, "it is not understood").await;
    let page = node.agent.admin().get("/v1/policies").await;
    assert_eq!(page["synced"], true);
    assert_eq!(page["policies"].as_array().unwrap().len(), 6);
    until("the answers on the page", SOON, async || {
        let page = node.agent.admin().get("/v1/policies").await;
        let proxy = &page["proxies"][0];
        proxy["node"] == "a-test/1"
            && proxy["acked"] == first.version
            && proxy["version"] == moved.version
            && proxy["last_nack"] == format!("{}: it is not understood", moved.version)
    })
    .await;
    delete(&node, "shop", "all");
    assert_eq!(
        client.names().await,
        ["istio-system/mesh", "shop/web", "shop/strict"]
    );
    let scrape = node.agent.scrape().await;
    for outcome in ["ack", "nack"] {
        assert_eq!(
            scrape.outcome("signet_agent_policy_answers_total", outcome),
            1,
            "{outcome}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_pod_and_an_agent_without_policies_says_so() {
    let node = node().await;
    let pod = run(&node, "cart");
    let guest = node.guest(&pod);
    let mut client = Client::open(&guest).await.unwrap();
    client.next().await.unwrap();
    node.delete(&pod);
    assert_eq!(client.next().await.unwrap_err().code(), Code::PermissionDenied);
    let plain = Node::start("1h").await;
    let pod = plain.run(("shop", "cart"), "cart-0");
    let guest = plain.guest(&pod);
    let refused = match Client::open(&guest).await {
        Ok(mut client) => client.next().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("policies.source"), "{refused}");
}
