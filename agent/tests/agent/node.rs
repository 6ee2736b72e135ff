//! An agent that serves several workloads, told apart by rules.

use std::time::Duration;

use serde_json::{Value, json};
use signet_certs::TrustBundle;
use signet_runtime::socket::own_uid;
use tonic::Code;

use crate::fake_ca::{FakeCa, Mood, Tower};
use crate::harness::{Agent, Sotw, eventually, token_of};

const HOUR: Duration = Duration::from_secs(3_600);
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const BANK: &str = "spiffe://cluster.local/ns/bank/sa/ledger";

/// Rules: this process is cart and web, in this order; another user's is the bank's ledger.
fn rules() -> String {
    let (own, other) = (own_uid(), own_uid().wrapping_add(1));
    format!(
        "attestor: unix\nworkloads:\n- {{service_account: shop/cart, uid: {own}, hint: internal}}\n\
         - {{service_account: bank/ledger, uid: {other}}}\n- {{service_account: shop/web, uid: {own}}}\n"
    )
}

async fn running() -> (FakeCa, Agent) {
    let ca = FakeCa::start(Mood::impersonate(HOUR)).await;
    let agent = Agent::start(&ca, &rules());
    served(&agent, 3).await;
    (ca, agent)
}

/// The SVIDs, once there are so many.
async fn served(agent: &Agent, count: usize) -> Vec<Value> {
    eventually("all SVIDs", || async {
        if !agent.path("admin/admin.sock").exists() {
            return None;
        }
        let (_, body) = agent.get("/v1/svids").await;
        let svids = body["svids"].as_array()?.clone();
        (svids.len() == count).then_some(svids)
    })
    .await
}

fn serial_of(svids: &[Value], id: &str) -> String {
    let svid = svids.iter().find(|svid| svid["spiffe_id"] == id).unwrap();
    svid["serial"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_process_gets_its_own_identities_and_no_other_that_the_agent_holds() {
    let (_ca, agent) = running().await;
    let channel = agent.channel().await;
    let mut versions = Vec::new();
    for name in ["default", CART, WEB] {
        let mut sotw = Sotw::ask(&channel, &[name]).await;
        versions.push(sotw.next().await.unwrap().version_info);
    }
    assert_eq!(
        versions[0], versions[1],
        "the first rule that fits is the default"
    );
    assert_ne!(versions[1], versions[2]);
    let status = Sotw::ask(&channel, &["default", BANK])
        .await
        .next()
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status
            .message()
            .starts_with(&format!("this workload may not have {BANK}; it has {CART}")),
        "{}",
        status.message()
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_process_that_no_rule_fits_is_told_so_and_an_agent_that_serves_others_is_ready() {
    let ca = FakeCa::start(Mood::impersonate(HOUR)).await;
    let other = own_uid().wrapping_add(1);
    let rules = format!("attestor: unix\nworkloads: [{{service_account: bank/ledger, uid: {other}}}]\n");
    let agent = Agent::start(&ca, &rules);
    served(&agent, 1).await;
    let (_, status) = agent.get("/v1/status").await;
    assert_eq!(
        (&status["ready"], &status["attestor"]),
        (&json!(true), &json!("unix"))
    );
    let channel = agent.channel().await;
    let status = match Sotw::open(&channel, first("ROOTCA")).await {
        Ok(mut stream) => stream.next().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().starts_with("no identity issued"),
        "{}",
        status.message()
    );
    let (_, streams) = agent.get("/v1/streams").await;
    assert_eq!(streams["streams"], json!([]), "it left no stream behind");
    agent.stop().await;
}

fn first(name: &str) -> signet_proto::wire::envoy::service::discovery::v3::DiscoveryRequest {
    signet_proto::wire::envoy::service::discovery::v3::DiscoveryRequest {
        node: crate::harness::node("n"),
        resource_names: vec![name.into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn without_a_ca_the_agent_is_not_ready_and_a_workload_waits_for_the_cause() {
    let ca = FakeCa::start(Mood::Refuse(tonic::Status::unauthenticated(
        "request impersonation authentication failure",
    )))
    .await;
    ca.state.bundles.send_replace(None);
    let agent = Agent::start(&ca, &rules());
    let channel = agent.channel().await;
    let status = Sotw::ask(&channel, &["default"]).await.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("request impersonation"),
        "{}",
        status.message()
    );
    assert!(!status.message().contains(BANK), "nothing of others is told");
    let (_, status) = agent.get("/v1/status").await;
    assert_eq!(status["ready"], false);
    assert!(status["missing"].to_string().contains("bundle: "), "{status}");
    agent.stop().await;
}

#[tokio::test]
async fn a_workload_finds_the_same_or_a_newer_svid_after_the_agent_was_restarted() {
    let (ca, agent) = running().await;
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    sotw.next().await.unwrap();
    let before = std::fs::read_dir(agent.dir.path()).unwrap().count();
    let dir = agent.stop().await;
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        before,
        "nothing is written to disk"
    );
    let more = format!("ca_address: 127.0.0.1:{}\n{}", ca.address.port(), rules());
    let agent = Agent::start_in(dir, &more);
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    assert_eq!(sotw.next().await.unwrap().resources.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn the_page_of_workloads_says_who_uses_what_and_who_is_connected() {
    let (_ca, agent) = running().await;
    let channel = agent.channel().await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut sotw = Sotw::ask(&channel, &["default"]).await;
        sotw.next().await.unwrap();
        open.push(sotw);
    }
    let (_, page) = agent.get("/v1/workloads").await;
    assert_eq!(page["attestor"], "unix");
    let rows = page["workloads"].as_array().unwrap();
    let row = |id: &str| rows.iter().find(|row| row["spiffe_id"] == id).unwrap();
    assert_eq!(rows.len(), 3, "{page}");
    assert_eq!(
        (&row(CART)["kind"], &row(CART)["pid"]),
        (&json!("process"), &json!(std::process::id()))
    );
    assert_eq!(row(CART)["clients"], json!({"sotw": 2}));
    assert_eq!(row(CART)["account"], "shop/cart");
    assert_eq!(
        (&row(BANK)["kind"], &row(BANK)["clients"]),
        (&json!("identity"), &json!({}))
    );
    assert!(
        rows.iter()
            .all(|row| row["state"] == "served" && row["renews_at"].is_string()),
        "{page}"
    );
    agent.stop().await;
}

#[tokio::test]
async fn one_identity_is_renewed_by_name_and_its_streams_alone_hear_of_it() {
    let ca = FakeCa::start(Mood::impersonate(Duration::from_secs(20))).await;
    let agent = Agent::start(&ca, &rules());
    let before = served(&agent, 3).await;
    let channel = agent.channel().await;
    let mut web = Sotw::ask(&channel, &[WEB]).await;
    let first = web.next().await.unwrap();
    web.ack(&first, &[WEB]).await;
    for nobody in [Value::Null, json!({})] {
        let (code, body) = agent.post_json("/v1/svids/rotate", nobody).await;
        assert_eq!((code, body["reason"].as_str()), (400, Some("which_identity")));
    }
    let renew = |id: &'static str| agent.post_json("/v1/svids/rotate", json!({ "spiffe_id": id }));
    let (code, body) = renew("spiffe://cluster.local/ns/no/sa/body").await;
    assert_eq!((code, body["reason"].as_str()), (404, Some("unknown_identity")));
    let (code, body) = agent
        .post_json("/v1/svids/rotate", json!({ "spiffe_id": "web" }))
        .await;
    assert_eq!((code, body["reason"].as_str()), (400, Some("malformed")));
    let (code, after) = renew(WEB).await;
    assert_eq!((code, &after["spiffe_id"]), (200, &json!(WEB)), "{after}");
    assert_ne!(after["serial"], serial_of(&before, WEB));
    assert_ne!(web.next().await.unwrap().version_info, first.version_info);
    let now = served(&agent, 3).await;
    assert_eq!(serial_of(&now, BANK), serial_of(&before, BANK));
    agent.stop().await;
}

#[tokio::test]
async fn foreign_bundles_come_and_go_for_clients_and_on_the_page() {
    let (ca, agent) = running().await;
    let root = Tower::new().root.certificate().clone();
    let partner = TrustBundle::new("partner.test".parse().unwrap(), vec![root], 9).unwrap();
    let channel = agent.channel().await;
    let mut all = Sotw::ask(&channel, &["ALL"]).await;
    let alone = all.next().await.unwrap();
    all.ack(&alone, &["ALL"]).await;
    let status = Sotw::ask(&channel, &["spiffe://partner.test"])
        .await
        .next()
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    ca.federate(vec![partner]);
    let federated = all.next().await.unwrap();
    assert_ne!(federated.version_info, alone.version_info);
    all.ack(&federated, &["ALL"]).await;
    let mut roots = Sotw::ask(&channel, &["spiffe://partner.test"]).await;
    assert_eq!(roots.next().await.unwrap().resources.len(), 1);
    let (_, page) = agent.get("/v1/federation").await;
    assert_eq!(page["federated"][0]["trust_domain"], "partner.test");
    assert_eq!(
        (&page["federated"][0]["sequence"], &page["federated"][0]["roots"]),
        (&json!(9), &json!(1))
    );
    ca.federate(Vec::new());
    assert_eq!(all.next().await.unwrap().version_info, alone.version_info);
    let (_, page) = agent.get("/v1/federation").await;
    assert_eq!(page["federated"], json!([]));
    assert_eq!(ca.requests(), 3, "nobody had to ask for another SVID");
    agent.stop().await;
}

#[tokio::test]
async fn the_token_of_the_agent_stands_behind_every_request() {
    let (ca, agent) = running().await;
    let tokens = ca.state.tokens.lock().unwrap().clone();
    let own = format!("Bearer {}", token_of("shop/cart"));
    assert!(
        tokens.len() == 3 && tokens.iter().all(|token| *token == own),
        "{tokens:?}"
    );
    agent.stop().await;
}
