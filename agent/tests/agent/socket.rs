//! Who is admitted to the workload socket, and what a restart costs.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::fake_ca::{FakeCa, Mood};
use crate::harness::{Agent, Sotw, eventually};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_user_who_is_not_allowed_is_closed_out_and_counted() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let other = signet_runtime::socket::own_uid().wrapping_add(1);
    let agent = Agent::start(&ca, &format!("allowed_uids: [{other}]\n"));
    agent.svid(|_| true).await;
    let mut stream = UnixStream::connect(agent.path("work/agent.sock")).await.unwrap();
    let read = stream.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let metrics = agent.metrics().await;
    assert!(
        metrics.contains("signet_agent_workload_connections_total{outcome=\"refused_uid\"} 1"),
        "{metrics}"
    );
    agent.stop().await;
}

/// Reflection attests nobody and counts nothing, and a call of it may be held open.
#[tokio::test]
async fn one_process_cannot_hold_calls_without_end_and_gets_places_back() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..5 {
        let mut tool = ServerReflectionClient::new(agent.channel().await);
        for _ in 0..1_000 {
            let (asking, asked) = mpsc::channel(1);
            match tool.server_reflection_info(ReceiverStream::new(asked)).await {
                Ok(answers) => held.push((asking, answers)),
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0 && !held.is_empty(), "{refused} of 5000 were refused");
    let metrics = agent.metrics().await;
    let counted = format!("signet_agent_calls_turned_away_total {refused}");
    assert!(metrics.contains(&counted), "{metrics}");
    drop(held);
    let tool = ServerReflectionClient::new(agent.channel().await);
    eventually("a place", || {
        let mut tool = tool.clone();
        async move { tool.server_reflection_info(tokio_stream::pending()).await.ok() }
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn at_the_end_streams_close_as_unavailable_and_the_sockets_are_gone() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    let first = sotw.next().await.unwrap();
    sotw.ack(&first, &["default"]).await;
    let ended = tokio::spawn(async move { sotw.next().await.unwrap_err() });
    let dir = agent.stop().await;
    let status = ended.await.unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(
        status.message(),
        "the agent is shutting down; secrets stay valid, connect again"
    );
    assert!(!dir.path().join("work/agent.sock").exists());
    assert!(!dir.path().join("admin/admin.sock").exists());
}

/// The drain lasts longer than the end is waited for.
#[tokio::test]
async fn a_reflection_call_held_open_ends_with_the_agent_and_does_not_stretch_the_drain() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "drain: 300s\n");
    agent.svid(|_| true).await;
    let mut tool = ServerReflectionClient::new(agent.channel().await);
    let (asking, asked) = mpsc::channel(1);
    let answers = tool.server_reflection_info(ReceiverStream::new(asked)).await;
    let mut answers = answers.unwrap().into_inner();
    agent.stop().await;
    assert!(answers.message().await.unwrap().is_none(), "an orderly end");
    drop(asking);
}

#[tokio::test]
async fn a_client_gets_its_secret_from_the_agent_that_comes_after() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let dir = agent.stop().await;
    let agent = Agent::start_in(dir, &format!("ca_address: 127.0.0.1:{}\n", ca.address.port()));
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    assert_eq!(sotw.next().await.unwrap().resources.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn an_occupied_socket_path_stops_the_start_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("work")).unwrap();
    std::fs::write(dir.path().join("work/agent.sock"), "precious").unwrap();
    let yaml = format!(
        "socket: {0}/work/agent.sock\nadmin_socket: {0}/admin/admin.sock\nmetrics_listen: 127.0.0.1:0\n",
        dir.path().display()
    );
    let config =
        signet_agent::config::Config::check(signet_runtime::config::from_text(&yaml).unwrap()).unwrap();
    let clock = std::sync::Arc::new(signet_runtime::SystemClock);
    let error = signet_agent::run::run(config, clock, std::future::pending())
        .await
        .unwrap_err();
    assert!(
        error.ends_with("exists and is no socket; move it away or choose another path"),
        "{error}"
    );
}

#[tokio::test]
async fn connections_that_end_give_their_place_back() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    for _ in 0..300 {
        drop(UnixStream::connect(agent.path("work/agent.sock")).await.unwrap());
    }
    eventually("all places to be free", || async {
        let metrics = agent.metrics().await;
        let all = metrics.contains("signet_agent_workload_connections_total{outcome=\"admitted\"} 300");
        (all && metrics.contains("signet_agent_workload_connections_open 0")).then_some(())
    })
    .await;
    agent.stop().await;
}
