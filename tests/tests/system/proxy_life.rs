//! The life of the proxy's connections: through rotations, changes of policy, outages and the end.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;
use signet_tests::ca::CaSetup;
use signet_tests::cluster::Cluster;
use signet_tests::echo::{Echo, ended, says};
use signet_tests::mesh::{BACKEND, FRONTEND, short_lived_ca};
use signet_tests::plugged::{Files, KeyForm, Kind, TestCa};
use signet_tests::process::Signal;
use signet_tests::proxy::Proxy;
use signet_tests::wait::{SOON, until};
use tokio::net::TcpStream;

use crate::system::proxy_tls::{STRICT, World, connect};

const ALLOW_FRONTEND: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-frontend, namespace: data}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]}]}
";
const DENY_FRONTEND: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-frontend, namespace: data}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [web]}}]}]}
";

/// Both proxies of a way from frontend to backend.
struct Pair {
    frontend: Proxy,
    backend: Proxy,
}

impl Pair {
    async fn start(world: &World, app: &Echo) -> Self {
        let backend = world
            .backend_proxy()
            .policy("strict.yaml", STRICT)
            .policy("allow.yaml", ALLOW_FRONTEND)
            .inbound(&app.address, json!({}))
            .start()
            .await;
        let frontend = world
            .frontend_proxy()
            .outbound(&backend.inbound(0), json!({"mtls": {"expected": [BACKEND]}}))
            .start()
            .await;
        Self { frontend, backend }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.frontend.outbound(0)).await.unwrap()
    }
}

async fn serial(proxy: &Proxy) -> serde_json::Value {
    proxy.page("/secrets").await["svid"]["serial"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_keep_open_connections_and_new_ones_use_the_new_svid() {
    const LONG: Duration = Duration::from_secs(120);
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    // Half of it lies between a renewal and the end, however busy the machine.
    let world = World::on(cluster, ca, "20s").await;
    let app = Echo::start().await;
    let pair = Pair::start(&world, &app).await;
    let mut old = pair.connect().await;
    says(&mut old, "before").await.unwrap();
    let first = serial(&pair.backend).await;
    world.backend.wait_renewals(2, LONG).await;
    world.frontend.wait_renewals(2, LONG).await;
    until("the new SVID", SOON, async || {
        serial(&pair.backend).await != first
    })
    .await;
    says(&mut old, "after").await.unwrap();
    let mut new = pair.connect().await;
    says(&mut new, "after").await.unwrap();
    let open = pair.backend.page("/connections").await;
    let ends: Vec<_> = open["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["own_not_after"].clone())
        .collect();
    assert_eq!(ends.len(), 2, "{open}");
    assert_ne!(ends[0], ends[1], "{open}");
    assert_eq!(
        pair.backend
            .scrape()
            .await
            .value("signet_proxy_refusals_total", &[]),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_withdrawn_closes_the_connection_that_had_it() {
    let world = World::start().await;
    let app = Echo::start().await;
    let pair = Pair::start(&world, &app).await;
    let mut open = pair.connect().await;
    says(&mut open, "while it may").await.unwrap();
    pair.backend.apply("deny.yaml", DENY_FRONTEND).await;
    let end = ended(&mut open).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    let record = pair
        .backend
        .record("the end", |record| record["reason"] == "policy_withdrawn")
        .await;
    assert_eq!(record["policy"], "AuthorizationPolicy data/deny-frontend");
    assert_eq!(record["peer"], FRONTEND);

    // And no new one has it.
    let mut refused = pair.connect().await;
    assert_eq!(
        ended(&mut refused).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let record = pair
        .backend
        .record("a refusal", |record| record["reason"] == "policy_denied")
        .await;
    assert!(
        record["upstream"].is_null(),
        "the application was dialled: {record}"
    );
    pair.backend.withdraw("deny.yaml").await;
    let mut again = pair.connect().await;
    says(&mut again, "again").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_closes_the_plaintext_connections_that_are_open_and_no_others() {
    let world = World::start().await;
    let app = Echo::start().await;
    let backend = world
        .backend_proxy()
        .inbound(&app.address, json!({}))
        .start()
        .await;
    let mtls = json!({"mtls": {"expected": [BACKEND]}});
    let frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), mtls)
        .start()
        .await;
    let mut plaintext = TcpStream::connect(backend.inbound(0)).await.unwrap();
    says(&mut plaintext, "while it may").await.unwrap();
    let mut mutual = TcpStream::connect(frontend.outbound(0)).await.unwrap();
    says(&mut mutual, "while it may").await.unwrap();
    backend.apply("strict.yaml", STRICT).await;
    let end = ended(&mut plaintext).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    says(&mut mutual, "as before").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_leaves_the_permit_leaves_the_connection() {
    let world = World::start().await;
    let app = Echo::start().await;
    let pair = Pair::start(&world, &app).await;
    let mut open = pair.connect().await;
    says(&mut open, "before").await.unwrap();
    pair.backend
        .apply("other.yaml", &DENY_FRONTEND.replace("[web]", "[elsewhere]"))
        .await;
    says(&mut open, "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_allowing_rule_nobody_else_passes_and_the_record_says_why() {
    let world = World::start().await;
    let app = Echo::start().await;
    let pair = Pair::start(&world, &app).await;
    let intruder = world.svid("web", "intruder").await;
    let mut stream = connect(&pair.backend.inbound(0), Some(&intruder), &["istio"])
        .await
        .unwrap();
    ended(&mut stream).await.unwrap_err();
    let record = pair
        .backend
        .record("a refusal", |record| record["reason"] == "policy_not_allowed")
        .await;
    assert_eq!(record["peer"], "spiffe://cluster.local/ns/web/sa/intruder");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.starts_with("none of 1 ALLOW policies matches"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_costs_no_connection_and_is_followed_again() {
    let mut world = World::start().await;
    let app = Echo::start().await;
    let pair = Pair::start(&world, &app).await;
    let mut open = pair.connect().await;
    says(&mut open, "before").await.unwrap();
    world.backend.process.kill();
    world.frontend.process.kill();
    says(&mut open, "without").await.unwrap();
    let mut new = pair.connect().await;
    says(&mut new, "without, anew").await.unwrap();
    let before = serial(&pair.backend).await;
    world.backend.start_again().await;
    world.frontend.start_again().await;
    until("the SVID of the new agent", Duration::from_secs(90), async || {
        serial(&pair.backend).await != before
    })
    .await;
    says(&mut open, "after").await.unwrap();
    let mut last = pair.connect().await;
    says(&mut last, "after, anew").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn before_there_is_an_svid_the_mesh_is_refused_and_the_proxy_is_unready() {
    let app = Echo::start().await;
    let nobody = signet_tests::dir::Dir::new();
    let setup = signet_tests::proxy::ProxySetup::new(&nobody.join("agent.sock"), "data", "backend");
    let proxy = setup
        .policy("strict.yaml", STRICT)
        .inbound(&app.address, json!({}))
        .start_unready()
        .await;
    until("the policies", SOON, async || {
        !proxy.page("/policies").await["in_force"].is_null()
    })
    .await;
    let ready = signet_tests::http::get(&proxy.metrics, "/healthz/ready")
        .await
        .unwrap();
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("svid: the agent has not sent an SVID yet"),
        "{}",
        ready.body
    );
    connect(&proxy.inbound(0), None, &["istio"]).await.unwrap_err();
    proxy
        .record("the refusal", |record| record["reason"] == "identity_none")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_open_connections_may_finish_and_new_ones_are_not_taken() {
    let world = World::start().await;
    let app = Echo::start().await;
    let mut pair = Pair::start(&world, &app).await;
    let mut open = pair.connect().await;
    says(&mut open, "before").await.unwrap();
    let address = pair.backend.inbound(0);
    pair.backend.process.signal(Signal::TERM);
    until("the listener to close", SOON, async || {
        TcpStream::connect(&address).await.is_err()
    })
    .await;
    says(&mut open, "still here").await.unwrap();
    drop(open);
    let status = pair.backend.process.wait(SOON).await;
    assert_eq!(status.code(), Some(0));
    let records = pair.backend.records();
    assert!(
        records.iter().any(|record| record["reason"] == "ok"),
        "{records:?}"
    );
}

/// A CA that operators bring, whose root is replaced step by step while connections are open.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_root_ends_what_is_open() {
    let cluster = Cluster::start();
    let setup = CaSetup::new(&cluster);
    let files = Files::at(setup.dir().join("cacerts"));
    let (old, new) = (TestCa::root("Old", Kind::P256), TestCa::root("New", Kind::P256));
    files.istio(&old, KeyForm::Pkcs8, &[], &[&old]);
    let ca = setup
        .set("plugged_in_ca", files.path().display().to_string())
        .start()
        .await;
    let world = World::on(cluster, ca, "1h").await;
    let app = Echo::start().await;
    let pair = Pair::start(&world, &app).await;
    let mut open = pair.connect().await;
    says(&mut open, "before").await.unwrap();
    let svid = world.svid("web", "frontend").await;
    let mut direct = connect(&pair.backend.inbound(0), Some(&svid), &["istio"])
        .await
        .unwrap();
    says(&mut direct, "before").await.unwrap();

    files.istio(&old, KeyForm::Pkcs8, &[], &[&old, &new]);
    until("both roots", SOON, async || {
        world.ca.bundle().await.roots().len() == 2
    })
    .await;
    says(&mut open, "with both").await.unwrap();
    let issuing = async || world.ca.admin().get("/v1/authorities").await["issuing"].take();
    let before = issuing().await;
    files.istio(&new, KeyForm::Pkcs8, &[], &[&old, &new]);
    until("the new CA", SOON, async || issuing().await != before).await;
    says(&mut open, "with the new CA").await.unwrap();
    files.istio(&new, KeyForm::Pkcs8, &[], &[&new]);
    ended(&mut open).await.unwrap_err();
    ended(&mut direct).await.unwrap_err();
    // Of the pair whichever side learns of it first ends it; of the other one there is no other side to do so.
    let record = pair
        .backend
        .record("the end", |record| record["reason"] == "trust_withdrawn")
        .await;
    assert_eq!(record["peer"], FRONTEND);
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("no authority in the bundle"), "{detail}");
}
