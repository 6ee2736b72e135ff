//! One pod against its node's agent: whatever it opens, holds back and repeats, what the agent keeps for it is
//! bounded, and its neighbours are served.

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use signet_certs::UnixTime;
use signet_proto::wire;
use signet_proto::wire::envoy::service::discovery::v3::DiscoveryRequest;
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_tests::follower::read;
use signet_tests::guest::Guest;
use signet_tests::node::Node;
use signet_tests::process::resident;
use signet_tests::sds;
use signet_tests::wait::{SOON, until, until_some};
use tonic::Status;
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

/// What a message of this many bytes begins with, and all of it but for its last byte.
fn unfinished(length: u32) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.resize(4 + length as usize, 0);
    Bytes::from(bytes)
}

/// Opens so many SDS streams over one connection, each with a message that does not end.
async fn besiege(guest: &Guest, streams: usize, sent: &Bytes) -> Vec<tokio::task::JoinHandle<()>> {
    let channel = guest.channel();
    let open = (0..streams).map(|_| {
        let (mut channel, sent) = (channel.clone(), sent.clone());
        tokio::spawn(async move {
            let first = futures::stream::once(async { Ok::<_, Status>(Frame::data(sent)) });
            let body = StreamBody::new(first.chain(futures::stream::pending()));
            let request = http::Request::post(
                "http://localhost/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            )
            .header("content-type", "application/grpc")
            .body(Body::new(body))
            .expect("a request");
            let Ok(ready) = channel.ready().await else { return };
            if let Ok(answer) = ready.call(request).await {
                // Until the agent ends it.
                let mut body = http_body_util::BodyStream::new(answer.into_body());
                while let Some(Ok(_)) = body.next().await {}
            }
        })
    });
    open.collect()
}

/// Calls that were ended for want of room, once each is counted as a refused stream too: a call that was ended just now
/// is not one yet.
async fn all_refused(node: &Node) -> u64 {
    let mut last = None;
    until_some(
        "both counts to be equal and to stand still",
        SOON * 3,
        async || {
            let page = node.agent.scrape().await;
            let refused = page.value("signet_agent_sds_refusals_total", &[("reason", "no_room")]);
            let turned_away = page.value("signet_agent_messages_turned_away_total", &[]);
            let counts = [refused, turned_away].map(whole);
            let still = last.replace(counts) == Some(counts);
            let [refused, turned_away] = counts;
            (still && refused == turned_away).then_some(turned_away)
        },
    )
    .await
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of some hundreds"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

/// A stream as of an Envoy that names itself and its extensions in each message, of 61 KB.
async fn talk(guest: &Guest) -> Result<sds::Stream, Status> {
    let says = |names: &[&str], length, version: &str, nonce: &str| DiscoveryRequest {
        node: Some(wire::envoy::config::core::v3::Node {
            id: "e".repeat(length),
            cluster: "envoys".into(),
        }),
        ..sds::ask(names, version, nonce)
    };
    let client = SecretDiscoveryServiceClient::new(guest.channel());
    let mut stream = sds::Stream::open_saying(client, says(&["default"], 61_000, "", "")).await?;
    let answer = stream.next().await?;
    let (version, nonce) = (&answer.version_info, &answer.nonce);
    // Accepts, and asks for the roots as well, so that there is an answer.
    let both = says(&["default", "ROOTCA"], 61_100, version, nonce);
    stream.send(both).await;
    stream.next().await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_never_ends_its_messages_gets_its_part_of_the_memory_and_others_are_served() {
    let node = Node::start("1h").await;
    let neighbour = node.run(("shop", "cart"), "cart-0");
    let guest = node.guest(&neighbour);
    guest.x509().await.expect("an SVID");
    let before = resident(node.agent.process.pid());
    let mut hostile = node.guest(&node.run(("shop", "bank"), "bank-0"));
    let sent = unfinished(120_000);
    let mut open = Vec::new();
    // 96 MB, if they were kept.
    for _ in 0..100 {
        open.extend(besiege(&hostile, 8, &sent).await);
    }
    // Of 800 streams there remain those whose messages have room.
    until("the others to be ended", SOON * 3, async || {
        open.iter().filter(|stream| !stream.is_finished()).count() <= 150
    })
    .await;
    let turned_away = all_refused(&node).await;
    assert!(turned_away >= 650, "{turned_away}");
    let page = node.agent.scrape().await;
    let held = page.value("signet_agent_call_message_bytes", &[]);
    assert!(held > 12e6 && held <= f64::from(16 << 20), "{held} bytes");
    let grown = resident(node.agent.process.pid()) - before;
    assert!(grown < 128.0, "{grown} MiB more than before");
    // What the neighbour asks now.
    let svid = read(&guest.x509().await.expect("an SVID"), UnixTime::now()).expect("one that is good");
    assert_eq!(svid.id().as_str(), neighbour.id());
    guest.secret("default").await.expect("a secret");
    let envoy = talk(&guest)
        .await
        .expect("answers to messages of an Envoy's size");
    let with_envoy = node.agent.scrape().await;
    let more = with_envoy.value("signet_agent_call_message_bytes", &[]) - held;
    assert!((122_000.0..130_000.0).contains(&more), "{more} bytes");
    drop(envoy);
    hostile.end();
    until("everything to be given back", SOON, async || {
        let page = node.agent.scrape().await;
        page.value("signet_agent_call_message_bytes", &[]) < 0.5
    })
    .await;
    node.guest(&node.run(("shop", "bank"), "bank-1"))
        .x509()
        .await
        .expect("it as well");
}
