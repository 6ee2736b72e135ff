//! Bad objects, agents that are gone, API servers that do not answer.

use serde_json::{Value, json};
use signet_devcluster::{Fault, FaultScope};
use signet_tests::process::Signal;
use signet_tests::wait::{SOON, until};

use super::world::{Proxy, ROOT, bad, delete, deny, node, put, run};

const ALL: &[&str] = &["shop", "bank", ROOT];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_keeps_its_last_good_version_or_counts_as_the_strictest_and_touches_no_other() {
    let node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    put(&node, "bank", "bad", &bad());
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the good version", &["shop", ROOT]).await;
    // Edited: its last good version stays, and others go on.
    put(&node, "shop", "p", &bad());
    until("the fault to be told", SOON, async || {
        proxy.states() == [("AuthorizationPolicy shop/p".to_owned(), "last_good")]
    })
    .await;
    proxy.lets_only("the last good version", &["shop", ROOT]).await;
    // A deny of the whole mesh arrives beside a bad object of another namespace, and of this one.
    put(&node, ROOT, "mesh", &deny(ROOT));
    proxy.lets_only("the deny of the mesh", &["shop"]).await;
    // Created bad: it denies what it reaches.
    put(&node, "shop", "new", &bad());
    proxy.lets_only("the strictest reading", &[]).await;
    delete(&node, "shop", "new");
    proxy.lets_only("its end", &["shop"]).await;
    put(&node, "shop", "p", &deny("shop"));
    proxy.lets_only("the correction", &["bank"]).await;
    assert_eq!(proxy.states(), []);
    let page = node.agent.admin().get("/v1/policies").await;
    let faulty: Vec<&Value> = page["policies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|policy| policy["state"] != "sound")
        .collect();
    assert_eq!(faulty.len(), 1, "{page}");
    assert_eq!(
        (&faulty[0]["policy"], &faulty[0]["state"]),
        (&json!("AuthorizationPolicy bank/bad"), &json!("denies_all"))
    );
    assert!(
        faulty[0]["faults"][0]
            .as_str()
            .unwrap()
            .contains("did you mean from?"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_at_a_restart_is_the_strictest_to_who_never_saw_it_good() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the good version", &["shop", ROOT]).await;
    node.agent.process.kill();
    put(&node, "shop", "p", &bad());
    node.spawn_agent();
    // Who saw it good keeps that version, though this agent has none.
    until("the new agent's word", SOON, async || {
        proxy.states() == [("AuthorizationPolicy shop/p".to_owned(), "last_good")]
    })
    .await;
    assert_eq!(
        (proxy.lets("shop"), proxy.lets("bank")),
        (Some(true), Some(false))
    );
    let fresh = Proxy::start(&node, &pod);
    fresh.lets_only("the strictest reading", &[]).await;
    assert_eq!(fresh.states()[0].1, "denies_all");
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_agent_changes_nothing_and_who_has_nothing_yet_lets_nobody_pass() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the policy", &["shop", ROOT]).await;
    node.agent.process.signal(Signal::KILL);
    proxy.failed("dial").await;
    let fresh = Proxy::start(&node, &pod);
    fresh.failed("dial").await;
    assert_eq!((fresh.lets("shop"), fresh.readiness.missing().len()), (None, 1));
    proxy.lets_only("what was enforced", &["shop", ROOT]).await;
    assert!(proxy.readiness.missing().is_empty());
    delete(&node, "shop", "p");
    node.agent.start_again().await;
    proxy.lets_only("the change meanwhile", ALL).await;
    fresh.lets_only("the first snapshot", ALL).await;
    assert!(fresh.readiness.missing().is_empty());
    // The same policies from another agent are no news.
    let in_force = proxy.metrics.snapshots("in_force");
    node.agent.process.kill();
    node.agent.start_again().await;
    until("the same again", SOON, async || {
        proxy.metrics.snapshots("unchanged") > 0
    })
    .await;
    assert_eq!(proxy.metrics.snapshots("in_force"), in_force);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_what_is_known_stays_and_nothing_is_made_up() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the policy", &["shop", ROOT]).await;
    // A gap in the watch: what happened in it is found by the next list.
    node.cluster
        .api
        .set_fault(FaultScope::AllRequests, Fault::InternalError);
    node.cluster.api.break_watches();
    delete(&node, "shop", "p");
    put(&node, "shop", "q", &deny("shop"));
    until("a failure of the watches", SOON, async || {
        let scrape = node.agent.scrape().await;
        let failures = ["list", "start", "status", "stream"];
        let count = |reason| scrape.value("signet_agent_policy_watch_failures_total", &[("reason", reason)]);
        failures.into_iter().map(count).sum::<f64>() > 2.5
    })
    .await;
    proxy.lets_only("what was known", &["shop", ROOT]).await;
    node.cluster.api.clear_fault(FaultScope::AllRequests);
    proxy.lets_only("what happened in the gap", &["bank", ROOT]).await;
    // An agent that starts while the policies cannot be listed sends nothing, and says what is missing. Pods
    // are listed, so that the proxy is attested.
    node.agent.process.kill();
    let forbidden =
        json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"});
    node.cluster.api.set_fault(
        FaultScope::AllRequests,
        Fault::Answer {
            status: 403,
            body: forbidden.to_string(),
        },
    );
    node.cluster
        .api
        .set_fault(FaultScope::Pods, Fault::Delay(std::time::Duration::ZERO));
    node.spawn_agent();
    let fresh = Proxy::start(&node, &pod);
    fresh.failed("unavailable").await;
    let missing = fresh.readiness.missing().join("");
    assert!(
        missing.contains("not all policies are known yet: AuthorizationPolicy"),
        "{missing}"
    );
    assert_eq!(fresh.lets("bank"), None);
    proxy.lets_only("what was enforced", &["bank", ROOT]).await;
    node.cluster.api.clear_fault(FaultScope::Pods);
    node.cluster.api.clear_fault(FaultScope::AllRequests);
    fresh.lets_only("the first snapshot", &["bank", ROOT]).await;
}
