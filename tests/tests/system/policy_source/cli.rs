//! `signet workload policies` at a real agent.

use serde_json::json;
use signet_tests::cli::{Ran, signet};
use signet_tests::node::Node;
use signet_tests::wait::{SOON, until};

use super::world::{Client, bad, deny, node, put, run};

async fn asked(node: &Node) -> Ran {
    let socket = node.agent.admin().socket().display().to_string();
    signet(&["workload", "policies", "--admin", &socket, "-o", "json"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_who_has_what_and_what_stands_in_place_of_a_bad_object() {
    let node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let guest = node.guest(&pod);
    let mut client = Client::open(&guest).await.unwrap();
    let first = client.next().await.unwrap();
    let sent = asked(&node).await;
    assert_eq!(sent.code, 1, "sent, and in force nowhere: {sent:?}");
    assert_eq!(sent.json()["proxies"][0]["version"], first.version);
    client.answer(&first.version, "").await;
    until("everything in force", SOON, async || asked(&node).await.code == 0).await;
    let well = asked(&node).await.json();
    let proxy = &well["proxies"][0];
    assert_eq!(proxy["acked"], first.version);
    assert!(
        proxy["workload"].as_str().unwrap().starts_with("pod shop/cart"),
        "{proxy}"
    );

    put(&node, "shop", "new", &bad());
    put(&node, "shop", "p", &bad());
    until("both faults", SOON, async || {
        let said = asked(&node).await;
        let states = said.json()["policies"].as_array().map(|all| {
            let state = |one: &serde_json::Value| (one["policy"].clone(), one["state"].clone());
            all.iter().map(state).collect::<Vec<_>>()
        });
        said.code == 1
            && states.is_some_and(|states| {
                states.contains(&(json!("AuthorizationPolicy shop/new"), json!("denies_all")))
                    && states.contains(&(json!("AuthorizationPolicy shop/p"), json!("last_good")))
            })
    })
    .await;
}
