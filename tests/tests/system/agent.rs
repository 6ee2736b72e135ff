//! The agent: names and admission on its socket, faults and recovery, files.

use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use signet_agent::sds::PATIENCE;
use signet_certs::{SigningKey, SvidChain, X509Svid};
use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::Secret;
use signet_proto::wire::google::rpc::Status as WireStatus;
use signet_runtime::clock::rfc3339;
use signet_runtime::{Clock as _, SystemClock};
use signet_tests::agent::{Agent, AgentSetup};
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::cluster::Cluster;
use signet_tests::dir::mode;
use signet_tests::mesh::short_lived_ca;
use signet_tests::process::Signal;
use signet_tests::sds::{self, Stream, ask};
use signet_tests::wait::{SOON, until, until_some};
use tonic::Code;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// A cluster, a CA and an agent of `shop/cart` with SVIDs of an hour.
async fn running() -> (Cluster, Ca, Agent) {
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    let agent = Agent::start(&cluster, &ca, "shop", "cart", "1h").await;
    (cluster, ca, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_gives_its_secret() {
    let (_cluster, ca, agent) = running().await;
    let roots = ca.roots().await;
    for name in ["default", CART] {
        let secret = sds::fetch(&agent.socket(), name).await.unwrap();
        assert_eq!(secret.name, name);
        let pair = sds::pair(&secret);
        let chain = SvidChain::from_pem(pair.chain.as_bytes()).unwrap();
        assert_eq!(chain.id().as_str(), CART);
        assert_eq!(
            chain.intermediates().len(),
            1,
            "leaf and issuing authority, without the root"
        );
        let key = SigningKey::from_pem(pair.key.as_bytes()).unwrap();
        X509Svid::new(chain, key.into()).expect("the key of this chain");
    }
    for name in ["ROOTCA", "spiffe://cluster.local"] {
        let secret = sds::fetch(&agent.socket(), name).await.unwrap();
        assert_eq!((secret.name.as_str(), sds::roots(&secret)), (name, roots.clone()));
    }
    let all = sds::fetch(&agent.socket(), "ALL").await.unwrap();
    assert!(format!("{all:?}").contains("envoy.tls.cert_validator.spiffe"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_are_refused_at_once_with_a_sentence() {
    let (_cluster, _ca, agent) = running().await;
    for (name, code, said) in [
        ("defualt", Code::NotFound, "no secret is called \"defualt\""),
        (
            "file-cert:/etc/shadow~/etc/shadow",
            Code::NotFound,
            "no secret is called",
        ),
        (
            "spiffe://cluster.local/ns/shop/sa/bank",
            Code::PermissionDenied,
            "this workload may not have",
        ),
        ("spiffe://other.example", Code::NotFound, "no secret is called"),
    ] {
        // One that is held is held as long every time.
        until("an answer at once", SOON * 2, async || {
            let began = tokio::time::Instant::now();
            let status = sds::fetch(&agent.socket(), name).await.unwrap_err();
            assert_eq!(status.code(), code, "{name}: {status:?}");
            assert!(status.message().contains(said), "{name}: {}", status.message());
            began.elapsed() < PATIENCE
        })
        .await;
    }
    let status = sds::client(&agent.socket())
        .fetch_secrets(ask(&["default"], "", ""))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_on_its_way_is_held_and_then_the_cause_is_told() {
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    let setup = AgentSetup::new(&cluster, &ca, "shop", "cart").await;
    ca.process.kill();
    let agent = setup.start_unready().await;
    let began = tokio::time::Instant::now();
    let status = sds::fetch(&agent.socket(), "default").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().starts_with("default: not ready: "),
        "{}",
        status.message()
    );
    let held = began.elapsed();
    assert!(held >= PATIENCE, "held for {held:?}");
    let status = agent.admin().get("/v1/status").await;
    assert_eq!(status["ready"], false);
    // One that asks just before the CA is back gets it on the same stream, if in time; later ones at once.
    ca.start_again().await;
    until("the secret", SOON, async || {
        sds::fetch(&agent.socket(), "default").await.is_ok()
    })
    .await;
    until("readiness", SOON, async || {
        agent.admin().get("/v1/status").await["ready"] == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_shown_with_its_names_and_the_version_it_acknowledged() {
    let (_cluster, _ca, agent) = running().await;
    let mut stream = Stream::open(&agent.socket(), &["default", "ROOTCA"])
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(first.resources.len(), 2, "both from one snapshot");
    stream
        .send(ask(&["default", "ROOTCA"], &first.version_info, &first.nonce))
        .await;
    let shown = async || agent.admin().get("/v1/streams").await["streams"][0].take();
    until("the ack", SOON, async || {
        shown().await["acked"] == first.version_info
    })
    .await;
    assert_eq!(shown().await["kind"], "sotw");
    assert_eq!(shown().await["node"], "test");
    assert_eq!(shown().await["names"], json!(["ROOTCA", "default"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_asked_for_too_soon_is_refused_with_the_time_to_wait() {
    let (_cluster, _ca, agent) = running().await;
    let before = agent.serial().await;
    let said = agent
        .admin()
        .post("/v1/svids/rotate", &Value::Null)
        .await
        .unwrap_err();
    assert!(
        said.starts_with("the last SVID is too young: the next may be asked for at "),
        "{said}"
    );
    assert_eq!(agent.serial().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_stream_may_ask_for_is_bounded() {
    let (_cluster, _ca, agent) = running().await;
    let names: Vec<String> = (0..65).map(|n| format!("name-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stream = Stream::open(&agent.socket(), &names).await.unwrap();
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "more than 64 names on one stream");
    let long = "x".repeat(600 * 1024);
    let mut stream = Stream::open(&agent.socket(), &[&long]).await.unwrap();
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "a request may have at most 262144 bytes");
    sds::fetch(&agent.socket(), "default").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_paused_past_its_renewal_renews_at_once_when_it_wakes() {
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    let agent = Agent::start(&cluster, &ca, "shop", "cart", "12s").await;
    let issued = async || ca.scrape().await.outcome("signet_ca_csrs_total", "issued");
    let due = until_some("a planned renewal", SOON, async || {
        agent.svid().await["renews_at"].as_str().map(str::to_owned)
    })
    .await;
    agent.process.signal(Signal::STOP);
    let before = issued().await;
    // A suspended node, past the half of its SVID's life. RFC 3339 in UTC is in the order of time.
    until("the renewal to be due", SOON, async || {
        rfc3339(SystemClock.now()) > due
    })
    .await;
    assert_eq!(issued().await, before, "it slept");
    agent.process.signal(Signal::CONT);
    until("the renewal", SOON, async || issued().await > before).await;
    agent.wait_renewals(1, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_pushed_without_the_unchanged_roots_and_a_rejection_is_kept_and_shown() {
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    let agent = Agent::start(&cluster, &ca, "shop", "cart", "10s").await;
    let mut stream = Stream::open(&agent.socket(), &["default", "ROOTCA"])
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    let names = ["default", "ROOTCA"];
    stream.send(ask(&names, &first.version_info, &first.nonce)).await;
    let second = stream.next().await.unwrap();
    let pushed: Vec<Secret> = second
        .resources
        .iter()
        .map(|any| Secret::decode(any.value.as_slice()).unwrap())
        .collect();
    assert_eq!(
        pushed
            .iter()
            .map(|secret| secret.name.as_str())
            .collect::<Vec<_>>(),
        ["default"]
    );
    let mut rejection = ask(&names, &first.version_info, &second.nonce);
    rejection.error_detail = Some(WireStatus {
        code: 13,
        message: "KEY_VALUES_MISMATCH".into(),
    });
    stream.send(rejection).await;
    until("the rejection to be shown", SOON, async || {
        let page = agent.admin().get("/v1/streams").await;
        page["streams"][0]["last_nack"]
            .as_str()
            .is_some_and(|text| text.contains("KEY_VALUES_MISMATCH"))
    })
    .await;
    // Not sent again unchanged; the next SVID is.
    let third = stream.next().await.unwrap();
    assert_ne!(third.version_info, second.version_info);
    assert!(
        agent.process.output().contains("KEY_VALUES_MISMATCH"),
        "the log has Envoy's text"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_bundle_reaches_open_streams() {
    let (cluster, ca, agent) = running().await;
    let mut stream = Stream::open(&agent.socket(), &["ROOTCA"]).await.unwrap();
    let first = stream.next().await.unwrap();
    stream
        .send(ask(&["ROOTCA"], &first.version_info, &first.nonce))
        .await;
    let other = Ca::start(&Cluster::start()).await;
    let mut state: Value = serde_json::from_slice(&std::fs::read(ca.setup.state_file()).unwrap()).unwrap();
    state["roots"]
        .as_array_mut()
        .unwrap()
        .push(json!({"certificate": other.roots().await, "key": null}));
    state["sequence"] = 2.into();
    ca.setup.dir().write_secret("state/state.json", state.to_string());
    let second = stream.next().await.unwrap();
    let secret = Secret::decode(second.resources[0].value.as_slice()).unwrap();
    assert_eq!(sds::roots(&secret).matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(agent.admin().get("/v1/bundle").await["sequence"], 2);
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_are_not_allowed_are_not_admitted() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let stranger = signet_runtime::socket::own_uid() + 1;
    let agent = AgentSetup::new(&cluster, &ca, "shop", "cart")
        .await
        .set("allowed_uids", json!([stranger]));
    let agent = agent.start().await;
    assert_eq!(mode(&agent.socket()), 0o660);
    let status = sds::fetch(&agent.socket(), "default").await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    let scrape = agent.scrape().await;
    assert!(
        scrape.outcome("signet_agent_workload_connections_total", "refused_uid") >= 1,
        "{}",
        scrape.text()
    );
    assert!(
        agent
            .process
            .output()
            .contains("this user is not in allowed_uids")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_told_and_a_new_one_heals_without_a_restart() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let setup = AgentSetup::new(&cluster, &ca, "shop", "cart").await;
    setup
        .dir()
        .write_secret("token", Cluster::start().token("shop", "cart"));
    let agent = setup.start_unready().await;
    until("the refusal", SOON, async || {
        let status = agent.admin().get("/v1/status").await;
        status["missing"].to_string().contains("signet token check")
    })
    .await;
    agent.mount_token(&cluster.token("shop", "cart"));
    until("readiness", Duration::from_secs(30), async || {
        agent.admin().get("/v1/status").await["ready"] == true
    })
    .await;
    assert_eq!(agent.svid().await["spiffe_id"], CART);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_with_other_roots_is_not_trusted() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let other = CaSetup::new(&Cluster::start()).start().await;
    let setup = AgentSetup::new(&cluster, &ca, "shop", "cart").await;
    let roots = setup.dir().write("root-cert.pem", other.roots().await);
    let agent = setup.start_unready().await;
    until("the fault", SOON, async || {
        let status = agent.admin().get("/v1/status").await;
        status["missing"]
            .to_string()
            .contains("is not accepted as signet-ca.signet-system.svc under the roots in")
    })
    .await;
    assert_eq!(ca.scrape().await.outcome("signet_ca_csrs_total", "issued"), 0);
    // The right roots, mounted later, are found without a restart.
    std::fs::write(roots, ca.roots().await).unwrap();
    until("readiness", Duration::from_secs(30), async || {
        agent.admin().get("/v1/status").await["ready"] == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_private_whole_and_followed_by_their_hook() {
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    let setup = AgentSetup::new(&cluster, &ca, "shop", "cart")
        .await
        .set("svid_ttl", "10s");
    let out = setup.dir().join("out");
    let marks = setup.dir().join("marks");
    let hook = format!("echo changed >> {}", marks.display());
    let agent = setup
        .set(
            "output",
            json!({"directory": out, "on_change": ["/bin/sh", "-c", hook]}),
        )
        .start()
        .await;
    let changes = || {
        std::fs::read_to_string(&marks)
            .unwrap_or_default()
            .lines()
            .count()
    };
    until("the first files", SOON, async || changes() >= 1).await;
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    for name in ["key.pem", "cert-chain.pem", "root-cert.pem"] {
        assert_eq!(mode(&out.join(name)), 0o600, "{name}");
    }
    assert_eq!(read("root-cert.pem"), ca.roots().await);
    let first = SvidChain::from_pem(read("cert-chain.pem").as_bytes()).unwrap();
    agent.wait_renewals(1, Duration::from_secs(20)).await;
    until("the next files", SOON, async || changes() >= 2).await;
    let chain = SvidChain::from_pem(read("cert-chain.pem").as_bytes()).unwrap();
    assert_ne!(chain.serial(), first.serial());
    X509Svid::new(
        chain,
        SigningKey::from_pem(read("key.pem").as_bytes()).unwrap().into(),
    )
    .expect("a pair");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupied_workload_socket_is_refused_and_a_leftover_is_taken_over() {
    let (cluster, ca, mut agent) = running().await;
    let second = AgentSetup::new(&cluster, &ca, "shop", "cart").await;
    let said = second
        .set("socket", agent.socket().display().to_string())
        .refused()
        .await;
    let expected = format!(
        "another process serves {}; stop it or choose another path",
        agent.socket().display()
    );
    assert!(said.contains(&expected), "{said}");
    agent.process.kill();
    assert!(agent.socket().exists());
    agent.start_again().await;
    sds::fetch(&agent.socket(), "default").await.unwrap();
    assert_eq!(agent.process.terminate().await, 0);
    assert!(!agent.socket().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_alerts_need_is_in_the_metrics() {
    let (_cluster, ca, agent) = running().await;
    let scrape = agent.scrape().await;
    let now = signet_tests::client::now().as_secs() as f64;
    let value = |name: &str| {
        scrape
            .find(name, &[])
            .unwrap_or_else(|| panic!("no {name} in {}", scrape.text()))
    };
    let end = value("signet_agent_svid_not_after_timestamp_seconds");
    assert!((now + 3_500.0..now + 3_700.0).contains(&end), "{end} at {now}");
    assert!((now - 60.0..now + 5.0).contains(&value("signet_agent_svid_last_success_timestamp_seconds")));
    assert!(value("signet_agent_svid_next_renewal_seconds") > 600.0);
    assert_eq!(value("signet_agent_bundle_sequence"), 1.0);
    until("the watch to be counted", SOON, async || {
        ca.scrape().await.value("signet_ca_bundle_watchers", &[]) >= 1.0
    })
    .await;
}
