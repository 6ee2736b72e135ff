//! A directory of YAML in place of the API server.

use serde_json::{Value, json};
use signet_tests::cluster::Cluster;
use signet_tests::nodes::trusting;
use signet_tests::wait::{SOON, until, within};

use super::world::{Proxy, ROOT, deny};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_followed_by_an_agent_without_kubernetes_and_by_a_proxy_alone() {
    let (cluster, dir) = (Cluster::start(), signet_tests::dir::Dir::new());
    let policies = dir.sub("policies");
    let object = |name: &str, spec: &Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"namespace": "shop", "name": name}, "spec": spec,
        })
        .to_string()
    };
    let write = |name: &str, text: &str| std::fs::write(policies.join(name), text).unwrap();
    write(
        "a.json",
        &object(
            "p",
            &json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "DENY", "rules": deny("bank")["rules"]}),
        ),
    );
    let ca = trusting(&cluster).start().await;
    let rule = json!({
        "service_account": "shop/cart", "uid": signet_runtime::socket::own_uid(), "labels": {"app": "cart"},
    });
    let agent = signet_tests::agent::AgentSetup::new(&cluster, &ca, "shop", "cart")
        .await
        .set("attestor", "unix")
        .set("workloads", vec![rule])
        .set(
            "policies",
            json!({"source": "directory", "directory": policies.display().to_string()}),
        )
        .start()
        .await;
    let through = Proxy::with(&format!(
        "agent_socket: {}\npolicies: agent\n",
        agent.socket().display()
    ));
    let alone = Proxy::with(&format!(
        "policies: {{directory: {}, namespace: shop, labels: {{app: cart}}}}\n",
        policies.display()
    ));
    for proxy in [&through, &alone] {
        proxy.lets_only("the directory", &["shop", ROOT]).await;
    }
    // A file that is no YAML keeps what it said; a file that is gone takes its objects along.
    write("a.json", "{");
    for proxy in [&through, &alone] {
        until("the fault", SOON, async || !proxy.states().is_empty()).await;
        proxy.lets_only("what the file said", &["shop", ROOT]).await;
    }
    write("b.yaml", &object("q", &deny("shop")));
    std::fs::remove_file(policies.join("a.json")).unwrap();
    for proxy in [&through, &alone] {
        proxy.lets_only("another file", &["bank", ROOT]).await;
        assert_eq!(proxy.states(), []);
    }
    // A directory that is emptied, as a volume is that is not mounted any more, changes nothing and is told.
    std::fs::remove_file(policies.join("b.yaml")).unwrap();
    alone.failed("directory_empty").await;
    until("the agent's word of it", SOON, async || {
        let page = agent.admin().get("/v1/policies").await;
        page["sources"]["directory"]["failure"][0] == "directory_empty"
    })
    .await;
    for proxy in [&through, &alone] {
        proxy.lets_only("what was enforced", &["bank", ROOT]).await;
    }
    let failure = alone.readers.status.borrow().failure.clone().unwrap();
    assert!(failure.1.contains("it may not be mounted"), "{}", failure.1);
    // A file that says nothing says that there is nothing.
    write("none.yaml", "# no policies\n");
    for proxy in [&through, &alone] {
        proxy.lets_only("no policies", &["shop", "bank", ROOT]).await;
    }
    assert_eq!(alone.readers.status.borrow().failure, None);
    write("b.yaml", &object("q", &deny("shop")));
    for proxy in [&through, &alone] {
        proxy.lets_only("the file again", &["bank", ROOT]).await;
    }
    // A directory that is gone changes nothing.
    std::fs::rename(&policies, dir.join("elsewhere")).unwrap();
    alone.failed("directory").await;
    for proxy in [&through, &alone] {
        proxy.lets_only("what was enforced", &["bank", ROOT]).await;
    }
    let nothing = Proxy::with(&format!(
        "policies: {{directory: {}, namespace: shop}}\n",
        policies.display()
    ));
    within("a failure", SOON, nothing.failed("directory")).await;
    assert_eq!(
        (nothing.lets("bank"), nothing.readiness.missing().len()),
        (None, 1)
    );
}
