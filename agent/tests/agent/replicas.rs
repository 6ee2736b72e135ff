//! Several replicas of the CA behind one address, as a Service has them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tonic::Status;

use crate::fake_ca::{FakeCa, Mood, bundle};
use crate::harness::{Agent, eventually, token_of};

/// Gives connections to these in turn; answers where, and counts them.
async fn in_turn(replicas: Vec<SocketAddr>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let to = replicas[number % replicas.len()];
            tokio::spawn(async move {
                let mut replica = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut client, &mut replica).await
            });
        }
    });
    (address, made)
}

fn agent_of(ca: &FakeCa, address: SocketAddr) -> Agent {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.pem"), ca.root_pem()).unwrap();
    std::fs::write(dir.path().join("token"), token_of("shop/cart")).unwrap();
    Agent::start_in(dir, &format!("ca_address: {address}\n"))
}

/// A replica that always says this, and one that works.
async fn served_in_spite_of(failing: Status, reason: &str) {
    let works = FakeCa::start(Mood::issue(Duration::from_secs(3_600))).await;
    let fails = works.replica(Mood::Refuse(failing)).await;
    let (address, made) = in_turn(vec![fails.address, works.address]).await;
    let agent = agent_of(&works, address);
    agent.svid(|svid| svid["serial"].is_string()).await;
    assert_eq!(fails.requests(), 2, "two failures are enough");
    assert_eq!(made.load(Ordering::SeqCst), 2);
    let line = format!("signet_agent_ca_connections_left_total{{reason=\"{reason}\"}} 1");
    assert!(agent.metrics().await.contains(&line), "{line}");
    // Bundles come from there as well: the other replica says nothing new for ever.
    works.publish(bundle(&[&works.tower()], 2));
    eventually("the bundle of the replica that works", || async {
        let metrics = agent.metrics().await;
        metrics.contains("signet_agent_bundle_sequence 2\n").then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leaves_a_replica_that_cannot_do_its_work_for_another_with_its_bundle_watch() {
    served_in_spite_of(
        Status::unavailable("the API server does not answer"),
        "unavailable",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leaves_a_replica_that_has_too_much_to_do_for_another() {
    let overloaded = Status::resource_exhausted("too many requests; try another replica");
    served_in_spite_of(overloaded, "overloaded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_refuses_the_token_works_and_is_kept() {
    let works = FakeCa::start(Mood::issue(Duration::from_secs(3_600))).await;
    let refuses = works
        .replica(Mood::Refuse(Status::unauthenticated("not this token")))
        .await;
    let (address, made) = in_turn(vec![refuses.address, works.address]).await;
    let agent = agent_of(&works, address);
    eventually("three refusals", || async {
        (refuses.requests() >= 3).then_some(())
    })
    .await;
    assert_eq!(made.load(Ordering::SeqCst), 1);
    assert_eq!(works.requests(), 0);
    agent.stop().await;
}
