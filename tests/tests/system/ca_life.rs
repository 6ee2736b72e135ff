//! Start and end of the CA's process.

use std::time::Duration;

use signet_devcluster::{Fault, FaultScope};
use signet_tests::agent::Agent;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Ask, Dial};
use signet_tests::cluster::Cluster;
use signet_tests::process::Signal;
use signet_tests::tls::PREFACE;
use signet_tests::wait::{SOON, until};
use tokio::io::AsyncWriteExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_calls_under_way_finish_and_ends_with_zero() {
    for signal in [Signal::TERM, Signal::INT] {
        let cluster = Cluster::start();
        let mut ca = Ca::start(&cluster).await;
        let ask = Ask::good().token(&cluster.token("shop", "cart"));
        let channel = Dial::default().channel(&ca).await;
        cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
        let before = cluster.api.counts().token_reviews();
        let call = tokio::spawn(async move { ask.send(&channel).await });
        until("the call to be under way", SOON, async || {
            cluster.api.counts().token_reviews() > before
        })
        .await;
        ca.process.signal(signal);
        until("the drain", SOON, async || {
            ca.process.output().contains("draining")
        })
        .await;
        cluster.api.clear_fault(FaultScope::TokenReviews);
        call.await.unwrap().expect("the call under way is answered");
        let status = ca.process.wait(SOON).await;
        assert_eq!(status.code(), Some(0));
        assert!(!ca.admin().socket().exists(), "the socket is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_finish_is_cut_at_the_end_of_the_drain() {
    let cluster = Cluster::start();
    let mut ca = CaSetup::new(&cluster).set("drain", "1s").start().await;
    let ask = Ask::good().token(&cluster.token("shop", "cart"));
    let channel = Dial::default().channel(&ca).await;
    cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
    let before = cluster.api.counts().token_reviews();
    let call = tokio::spawn(async move { ask.send(&channel).await });
    until("the call to be under way", SOON, async || {
        cluster.api.counts().token_reviews() > before
    })
    .await;
    ca.process.signal(Signal::TERM);
    let status = ca.process.wait(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0));
    call.await.unwrap().unwrap_err();
    assert!(ca.process.output().contains("drain deadline passed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_idle_connections_and_bundle_watchers_do_not_hold_up_the_end() {
    use signet_proto::wire::signet::ca::v1::WatchBundleRequest;
    use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    let channel = Dial::default().channel(&ca).await;
    let watch = AuthorityClient::new(channel)
        .watch_bundle(WatchBundleRequest::default())
        .await;
    let mut watch = watch.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    // One that says nothing, one that began to say something, one that speaks and then rests.
    let mut idle = Vec::new();
    for said in [&b""[..], &PREFACE[..5], PREFACE] {
        let mut stream = signet_tests::tls::connect(&ca.address, None).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream.flush().await.unwrap();
        idle.push(stream);
    }
    ca.process.signal(Signal::TERM);
    let status = ca.process.wait(Duration::from_secs(6)).await;
    assert_eq!(status.code(), Some(0));
    let last = watch.message().await.unwrap_err();
    assert_eq!(last.message(), "the CA is shutting down");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupied_admin_socket_is_refused_and_left_alone() {
    let cluster = Cluster::start();
    let setup = CaSetup::new(&cluster);
    let socket = setup.admin().socket().to_owned();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    let said = setup.refused().await;
    let expected = format!(
        "{} exists and is no socket; move it away or choose another path",
        socket.display()
    );
    assert!(said.contains(&expected), "{said}");
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");

    std::fs::remove_file(&socket).unwrap();
    let ca = setup.start().await;
    let other = Cluster::start();
    let second = CaSetup::new(&other).set("admin_socket", socket.display().to_string());
    let said = second.refused().await;
    let expected = format!(
        "another process serves {}; stop it or choose another path",
        socket.display()
    );
    assert!(said.contains(&expected), "{said}");
    assert_eq!(ca.admin().get("/v1/status").await["pid"], ca.process.pid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leftover_socket_of_a_killed_ca_is_taken_over() {
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    ca.process.kill();
    assert!(ca.admin().socket().exists());
    ca.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn occupied_ports_are_named() {
    let cluster = Cluster::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, what) in [
        ("listen", "bind listen address"),
        ("metrics_listen", "bind metrics address"),
    ] {
        let said = CaSetup::new(&cluster).set(key, address.clone()).refused().await;
        assert!(said.contains(&format!("{what} {address}: ")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_configuration_is_told_at_once() {
    let cluster = Cluster::start();
    let said = CaSetup::new(&cluster)
        .set("trust_domain", "Not A Domain")
        .set("svid_ttl", "48h")
        .set("audiences", serde_json::json!([]))
        .refused()
        .await;
    for part in [
        "has 3 faults",
        "trust_domain: ",
        "svid_ttl: 2d is above max_svid_ttl, 1d",
        "audiences: ",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let said = CaSetup::new(&cluster).set("svid_tll", "1h").refused().await;
    assert!(said.contains("svid_tll"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_cluster_is_named_at_start() {
    let cluster = Cluster::start();
    let said = CaSetup::new(&cluster)
        .set("kubeconfig", "/nonexistent/kubeconfig")
        .refused()
        .await;
    assert!(said.contains("kubeconfig /nonexistent/kubeconfig"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_whose_state_is_in_a_secret_waits_for_an_api_server_that_is_away() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("signet-system").unwrap();
    cluster
        .api
        .set_fault(FaultScope::AllRequests, Fault::CloseConnection);
    let setup = CaSetup::new(&cluster)
        .set("state_directory", serde_json::Value::Null)
        .set("state_secret", "signet-system/signet-ca-state");
    let admin = setup.admin();
    let mut process = setup.spawn();
    until("a few attempts", SOON, async || {
        process
            .output()
            .matches("state cannot be read yet; trying again")
            .count()
            >= 2
    })
    .await;
    assert!(process.ended().is_none());
    cluster.api.clear_fault(FaultScope::AllRequests);
    until("readiness", Duration::from_secs(30), async || {
        admin
            .try_get("/v1/status")
            .await
            .is_ok_and(|status| status["ready"] == true)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_hold_keys_leave_no_core_files() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let agent = Agent::start(&cluster, &ca, "shop", "cart", "1h").await;
    for process in [&ca.process, &agent.process] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
        let core = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"))
            .unwrap();
        let values: Vec<&str> = core.split_whitespace().take(2).collect();
        assert_eq!(values, ["0", "0"], "{limits}");
    }
}
