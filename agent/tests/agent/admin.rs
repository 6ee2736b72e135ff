//! The admin socket.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::fake_ca::{FakeCa, Mood};
use crate::harness::{Agent, Sotw, eventually};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn the_admin_socket_lies_in_a_private_directory_and_pages_that_do_not_exist_say_so() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let mode = |name: &str| std::fs::metadata(agent.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("admin"), 0o700);
    assert_eq!(mode("admin/admin.sock"), 0o600);
    assert_eq!(mode("work/agent.sock"), 0o660);
    let (code, body) = agent.get("/v1/nothing").await;
    assert_eq!(
        (code, body["error"].as_str()),
        (404, Some("there is no such page"))
    );
    agent.stop().await;
}

#[tokio::test]
async fn status_names_the_parts_and_what_is_missing() {
    let ca = FakeCa::start(Mood::Refuse(tonic::Status::unauthenticated("no"))).await;
    let agent = Agent::start(&ca, "");
    let status = eventually("a refusal", || async {
        if !agent.path("admin/admin.sock").exists() {
            return None;
        }
        let (_, status) = agent.get("/v1/status").await;
        status["missing"]
            .to_string()
            .contains("no SVID yet")
            .then_some(status)
    })
    .await;
    assert_eq!(status["ready"], false);
    assert_eq!(status["trust_domain"], "cluster.local");
    assert_eq!(status["ca_address"], format!("127.0.0.1:{}", ca.address.port()));
    assert_eq!(
        status["socket"],
        agent.path("work/agent.sock").display().to_string()
    );
    assert!(!status["metrics_address"].as_str().unwrap().ends_with(":0"));
    agent.stop().await;
}

#[tokio::test]
async fn rotation_on_request_keeps_the_floor_and_answers_with_the_new_svid() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let (code, body) = agent.post("/v1/svids/rotate").await;
    assert_eq!((code, body["reason"].as_str()), (429, Some("too_soon")));
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .starts_with("the last SVID is too young")
    );
    agent.stop().await;

    let ca = FakeCa::start(Mood::issue(Duration::from_secs(20))).await;
    let agent = Agent::start(&ca, "");
    let before = agent.svid(|_| true).await;
    let (code, after) = agent.post("/v1/svids/rotate").await;
    assert_eq!(code, 200, "{after}");
    assert_ne!(after["serial"], before["serial"]);
    assert_eq!(after["renewals"], 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_watcher_gets_a_line_at_once_and_one_after_every_change() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(4))).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let stream = UnixStream::connect(agent.path("admin/admin.sock")).await.unwrap();
    let (read, mut write) = stream.into_split();
    write
        .write_all(b"GET /v1/svids/watch HTTP/1.1\r\nhost: agent\r\n\r\n")
        .await
        .unwrap();
    let mut lines = BufReader::new(read).lines();
    let mut serials = std::collections::BTreeSet::new();
    let seen = async {
        while serials.len() < 3 {
            let line = lines.next_line().await.unwrap().expect("a line before the end");
            if let Ok(svid) = serde_json::from_str::<serde_json::Value>(&line)
                && let Some(serial) = svid["serial"].as_str()
            {
                serials.insert(serial.to_owned());
            }
        }
    };
    tokio::time::timeout(crate::harness::SOON, seen).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn open_streams_are_listed_with_what_they_hold_and_rejected() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    let first = sotw.next().await.unwrap();
    sotw.answer(&first, &["default"], Some("KEY_VALUES_MISMATCH"))
        .await;
    let stream = eventually("the rejection to be shown", || async {
        let (_, body) = agent.get("/v1/streams").await;
        let stream = body["streams"][0].clone();
        stream["last_nack"].is_string().then_some(stream)
    })
    .await;
    assert_eq!(stream["kind"], "sotw");
    assert_eq!(stream["node"], "web-1");
    assert_eq!(stream["names"][0], "default");
    assert_eq!(stream["version"], first.version_info);
    assert!(stream["acked"].is_null());
    assert_eq!(stream["last_nack"], "KEY_VALUES_MISMATCH");
    assert_eq!(stream["pid"], std::process::id());
    drop(sotw);
    eventually("the stream to leave the table", || async {
        let (_, body) = agent.get("/v1/streams").await;
        body["streams"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    agent.stop().await;
}
