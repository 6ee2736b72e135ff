//! Real Envoys on the agents' secrets: accepted, renewed under load, through outages and restarts.

use std::time::Duration;

use serde_json::Value;
use signet_tests::agent::Agent;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::now;
use signet_tests::cluster::Cluster;
use signet_tests::envoy::{EnvoySetup, Names, Subscription};
use signet_tests::load::Load;
use signet_tests::mesh::{BACKEND, FRONTEND, LISTENER, Mesh, short_lived_ca};
use signet_tests::wait::{SOON, until};
use signet_tests::{http, peers, tls};

/// The shortest SVIDs there are: several renewals in half a minute.
const TTL: &str = "10s";
/// Life of such an SVID, half of which passes before it is renewed.
const LIFE: Duration = Duration::from_secs(10);

/// At least three renewals by either workload while requests flow, each on a new TLS connection.
async fn renews_under_load(subscription: Subscription) {
    let Some(envoy) = peers::envoy() else { return };
    let mesh = Mesh::start(&envoy, TTL, subscription).await;
    let backend_address = mesh.backend.listener(LISTENER).await;
    let first = tls::served(&backend_address).await.unwrap();
    assert_eq!(first.id().as_str(), BACKEND);
    assert_eq!(first.serial(), mesh.backend_agent.serial().await);

    let load = Load::start(&mesh.entry, 20);
    let deadline = LIFE * 4;
    mesh.frontend_agent.wait_renewals(3, deadline).await;
    mesh.backend_agent.wait_renewals(3, deadline).await;
    load.more(20).await;
    let report = load.stop().await;

    assert_eq!(report.failures, 0, "{:?}", report.words);
    assert!(report.requests > 200, "{} requests", report.requests);
    assert!(report.serials.len() >= 4, "the server saw {:?}", report.serials);
    assert_eq!(report.peers.into_iter().collect::<Vec<_>>(), [FRONTEND]);
    let last = tls::served(&backend_address).await.unwrap();
    assert_ne!(last.serial(), first.serial());
    assert_eq!(mesh.rejected().await, 0);
    for envoy in [&mesh.frontend, &mesh.backend] {
        assert!(envoy.stat("sds.default.update_success").await >= 4);
        assert!(envoy.stat("sds.ROOTCA.update_success").await >= 1);
        assert_eq!(envoy.stat("init_fetch_timeout").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_renewals_under_load_lose_no_request_over_sotw() {
    renews_under_load(Subscription::Sotw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_renewals_under_load_lose_no_request_over_delta() {
    renews_under_load(Subscription::Delta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_outage_longer_than_a_renewal_interval_loses_no_request() {
    let Some(envoy) = peers::envoy() else { return };
    let mut mesh = Mesh::start(&envoy, "40s", Subscription::Sotw).await;
    let load = Load::start(&mesh.entry, 20);
    // Both renew now, so that the outage begins at the same age of both SVIDs.
    for agent in [&mesh.backend_agent, &mesh.frontend_agent] {
        let renewed = agent.admin().post("/v1/svids/rotate", &Value::Null).await;
        renewed.unwrap_or_else(|e| panic!("{e}"));
        assert!(agent.svid().await["last_failure"].is_null());
    }
    mesh.ca.process.kill();
    let before = (
        mesh.frontend_agent.serial().await,
        mesh.backend_agent.serial().await,
    );
    // Until both have tried in vain, at 40 to 60 % of their SVIDs' lives; the rest is for the recovery.
    for agent in [&mesh.frontend_agent, &mesh.backend_agent] {
        let end = svid_end(agent).await - RECOVERY;
        until("a failed renewal", Duration::from_secs(30), async || {
            assert!(now().as_secs() < end, "no renewal was tried in time");
            !agent.svid().await["last_failure"].is_null()
        })
        .await;
        let failure = agent.svid().await["last_failure"].take();
        for key in ["at", "reason", "error"] {
            assert!(
                failure[key].as_str().is_some_and(|text| !text.is_empty()),
                "{key} in {failure}"
            );
        }
        let labels = [("reason", failure["reason"].as_str().unwrap())];
        let scrape = agent.scrape().await;
        assert!(scrape.value("signet_agent_svid_renewal_failures_total", &labels) >= 1.0);
    }
    load.more(20).await;
    let during = (
        mesh.frontend_agent.serial().await,
        mesh.backend_agent.serial().await,
    );
    assert_eq!(during, before, "the SVIDs that were held when the CA went");
    mesh.ca.start_again().await;
    until("recovery", Duration::from_secs(20), async || {
        mesh.frontend_agent.serial().await != before.0 && mesh.backend_agent.serial().await != before.1
    })
    .await;
    load.more(20).await;
    let report = load.stop().await;
    assert_eq!(report.failures, 0, "{:?}", report.words);
    assert_eq!(mesh.rejected().await, 0);
}

/// Seconds of an SVID's life kept for the CA to start and both agents to come back to it.
const RECOVERY: u64 = 10;

/// When the SVID that the agent serves ends.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds since the epoch"
)]
async fn svid_end(agent: &Agent) -> u64 {
    let scrape = agent.scrape().await;
    scrape.value("signet_agent_svid_not_after_timestamp_seconds", &[]) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_and_restarted_agent_loses_no_request() {
    let Some(envoy) = peers::envoy() else { return };
    let mut mesh = Mesh::start(&envoy, "20s", Subscription::Sotw).await;
    let load = Load::start(&mesh.entry, 20);
    let address = mesh.backend.listener(LISTENER).await;
    for killed in [true, false] {
        for agent in [&mut mesh.backend_agent, &mut mesh.frontend_agent] {
            if killed {
                agent.process.kill();
            } else {
                assert_eq!(agent.process.terminate().await, 0);
            }
            load.more(10).await;
            agent.start_again().await;
        }
        let serial = mesh.backend_agent.serial().await;
        until("the new agent's SVID to be served", SOON, async || {
            tls::served(&address)
                .await
                .is_ok_and(|chain| chain.serial() == serial)
        })
        .await;
    }
    load.more(20).await;
    let report = load.stop().await;
    assert_eq!(report.failures, 0, "{:?}", report.words);
    assert_eq!(mesh.rejected().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_trust_domain_and_another_identity_are_refused() {
    let Some(envoy) = peers::envoy() else { return };
    let mesh = Mesh::start(&envoy, "1h", Subscription::Sotw).await;
    let address = mesh.backend.listener(LISTENER).await;

    // A workload of the same name from a mesh with other roots.
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("trust_domain", "other.example")
        .start()
        .await;
    let agent = signet_tests::agent::AgentSetup::new(&cluster, &ca, "web", "frontend")
        .await
        .set("trust_domain", "other.example")
        .start()
        .await;
    let stranger = EnvoySetup::new(&envoy, "stranger", agent.socket())
        .client(LISTENER, &address, None)
        .start()
        .await;
    let answer = http::get(&stranger.listener(LISTENER).await, "/").await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    // The other's roots are not ours: it already refuses our server.
    assert!(stranger.stat("ssl.fail_verify_error").await >= 1);
    // And our server refuses its certificate.
    let svid = signet_tests::client::svid(&ca, &cluster.token("web", "frontend")).await;
    refuses(&mesh, &address, &svid).await;

    // Another identity of our own trust domain.
    let svid = signet_tests::client::svid(&mesh.ca, &mesh.cluster.token("web", "stranger")).await;
    refuses(&mesh, &address, &svid).await;
    assert_eq!(http::get(&mesh.entry, "/").await.unwrap().status, 200);
}

async fn refuses(mesh: &Mesh, address: &str, svid: &signet_tests::client::Presented) {
    let errors = async || {
        mesh.backend.stat("ssl.fail_verify_error").await + mesh.backend.stat("ssl.fail_verify_san").await
    };
    let before = errors().await;
    let answer = match tls::connect(address, Some(svid)).await {
        Ok(stream) => http::exchange(stream, ::http::Method::GET, "/", String::new())
            .await
            .map(|a| a.body),
        Err(e) => Err(e),
    };
    answer.expect_err("a refusal");
    until("the refusal to be counted", SOON, async || {
        errors().await > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spiffe_names_serve_as_well_as_istios() {
    let Some(envoy) = peers::envoy() else { return };
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let agent = Agent::start(&cluster, &ca, "data", "backend", "1h").await;
    for roots in ["spiffe://cluster.local", "ALL"] {
        for subscription in [Subscription::Sotw, Subscription::Delta] {
            let names = Names {
                pair: BACKEND.into(),
                roots: roots.into(),
            };
            let setup = || {
                EnvoySetup::new(&envoy, "named", agent.socket())
                    .subscription(subscription)
                    .names(names.clone())
            };
            let server = setup().server(LISTENER, None).start().await;
            let client = setup()
                .client(LISTENER, &server.listener(LISTENER).await, None)
                .start()
                .await;
            let answer = http::get(&client.listener(LISTENER).await, "/").await.unwrap();
            assert_eq!(
                answer.status, 200,
                "{roots} over {subscription:?}: {}",
                answer.body
            );
            assert_eq!(answer.header("x-peer"), Some(BACKEND));
            assert_eq!(server.rejected().await + client.rejected().await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_opened_before_renewals_goes_on_after_them() {
    let Some(envoy) = peers::envoy() else { return };
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    let agent = Agent::start(&cluster, &ca, "data", "backend", TTL).await;
    let server = EnvoySetup::new(&envoy, "server", agent.socket())
        .server(LISTENER, None)
        .start()
        .await;
    let client = EnvoySetup::new(&envoy, "client", agent.socket())
        .keeping_client(LISTENER, &server.listener(LISTENER).await, None)
        .start()
        .await;
    let entry = client.listener(LISTENER).await;
    let serial = async || {
        let answer = http::get(&entry, "/").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.header("x-peer-serial").unwrap().to_owned()
    };
    let first = serial().await;
    agent.wait_renewals(2, LIFE * 3).await;
    assert_eq!(
        serial().await,
        first,
        "the same connection, with the certificate it began with"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_logs_why_a_name_is_refused() {
    let Some(envoy) = peers::envoy() else { return };
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let agent = Agent::start(&cluster, &ca, "data", "backend", "1h").await;
    for (name, said) in [
        ("defualt", "no%20secret%20is%20called"),
        (FRONTEND, "this%20workload%20may%20not%20have"),
    ] {
        let names = Names {
            pair: name.into(),
            roots: "ROOTCA".into(),
        };
        let server = EnvoySetup::new(&envoy, "wrong", agent.socket())
            .names(names)
            .server(LISTENER, None);
        let server = server.start_unready().await;
        until("the reason in Envoy's log", SOON, async || {
            let log = server.process.output();
            log.contains(said) || log.contains(&said.replace("%20", " "))
        })
        .await;
    }
}
