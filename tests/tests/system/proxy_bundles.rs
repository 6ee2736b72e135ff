//! Bundles never go back (I5): whoever was told of one does not return to an older one, whomever it meets later. A CA
//! that lags stands where the other was, and an agent that starts again knows no more than that CA does.

use std::time::Duration;

use serde_json::{Value, json};
use signet_tests::agent::Agent;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Presented, svid};
use signet_tests::cluster::Cluster;
use signet_tests::echo::{Echo, says};
use signet_tests::proxy::Proxy;
use signet_tests::sds;
use signet_tests::wait::{SOON, until};

use super::proxy_tls::{STRICT, World, connect};

/// Longer than anybody waits before the next attempt to reach a CA.
const RECONNECTED: Duration = Duration::from_secs(60);

fn state(ca: &Ca) -> Value {
    serde_json::from_slice(&std::fs::read(ca.setup.state_file()).unwrap()).unwrap()
}

/// Puts it in force at a CA, as one who restores it would.
fn put(ca: &CaSetup, state: &Value) {
    let directory = ca.dir().sub("state");
    ca.dir()
        .write_secret(directory.join("state.json"), state.to_string());
}

/// `state` under this sequence, with these roots.
fn numbered(state: &Value, sequence: u64, roots: &[&Value]) -> Value {
    let mut next = state.clone();
    next["sequence"] = sequence.into();
    next["roots"] = roots.iter().map(|root| (*root).clone()).collect();
    next
}

async fn knows(agent: &Agent, sequence: u64) {
    let what = format!("the agent to know the bundle of sequence {sequence}");
    until(&what, RECONNECTED, async || {
        agent.admin().get("/v1/bundle").await["sequence"] == sequence
    })
    .await;
}

/// How many roots the proxy believes.
async fn believes(proxy: &Proxy) -> usize {
    let page = proxy.page("/secrets").await;
    page["bundles"][0]["roots"].as_array().map_or(0, Vec::len)
}

async fn serves(proxy: &Proxy, client: &Presented) -> bool {
    match connect(&proxy.inbound(0), Some(client), &["istio"]).await {
        Ok(mut stream) => says(&mut stream, "hello").await.is_ok(),
        Err(_) => false,
    }
}

/// A client of another CA of the same trust domain, and that CA's root.
async fn other() -> (Presented, Value) {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let client = svid(&ca, &cluster.token("web", "frontend")).await;
    let mut root = state(&ca)["roots"][0].take();
    root["key"] = Value::Null;
    (client, root)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_root_does_not_come_back_by_a_ca_or_an_agent_that_lags() {
    let mut world = World::start().await;
    let (app, (stranger, foreign)) = (Echo::start().await, other().await);
    let friend = world.svid("web", "frontend").await;
    let setup = world.backend_proxy().policy("strict.yaml", STRICT);
    let proxy = setup.inbound(&app.address, json!({})).start().await;
    let (born, own) = (state(&world.ca), state(&world.ca)["roots"][0].clone());
    let wide = numbered(&born, 2, &[&own, &foreign]);
    let narrow = numbered(&born, 3, &[&own]);
    put(&world.ca.setup, &wide);
    knows(&world.backend, 2).await;
    until("both roots", SOON, async || believes(&proxy).await == 2).await;
    assert!(serves(&proxy, &stranger).await && serves(&proxy, &friend).await);
    put(&world.ca.setup, &narrow);
    knows(&world.backend, 3).await;
    until("one root", SOON, async || believes(&proxy).await == 1).await;
    assert!(!serves(&proxy, &stranger).await);

    // A CA in its place that has not heard of it: the agent stays.
    world.ca.process.terminate().await;
    let lagging = CaSetup::new(&world.cluster).set("listen", world.ca.address.clone());
    put(&lagging, &wide);
    let lagging = lagging.start().await;
    until("the older bundle to be offered", RECONNECTED, async || {
        let scrape = world.backend.scrape().await;
        scrape.outcome("signet_agent_bundles_total", "older") >= 1
    })
    .await;
    knows(&world.backend, 3).await;
    let secret = sds::fetch(&world.backend.socket(), "ROOTCA").await.unwrap();
    assert_eq!(sds::roots(&secret).matches("BEGIN CERTIFICATE").count(), 1);

    // An agent that starts again knows only what that CA says: the proxy stays.
    world.backend.process.terminate().await;
    world.backend.start_again().await;
    knows(&world.backend, 2).await;
    until("the older bundle to be refused", RECONNECTED, async || {
        proxy
            .scrape()
            .await
            .outcome("signet_proxy_secrets_total", "refused")
            >= 1
    })
    .await;
    assert!(
        proxy
            .process
            .stderr()
            .contains("is older than the one in force, of sequence 3")
    );
    assert_eq!(believes(&proxy).await, 1);
    assert!(!serves(&proxy, &stranger).await && serves(&proxy, &friend).await);

    // What is newer is taken again, from whomever.
    let (newcomer, further) = other().await;
    put(&lagging.setup, &numbered(&born, 4, &[&own, &further]));
    knows(&world.backend, 4).await;
    until("another root", SOON, async || believes(&proxy).await == 2).await;
    assert!(serves(&proxy, &newcomer).await && !serves(&proxy, &stranger).await);
}
