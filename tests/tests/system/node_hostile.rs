//! One pod against its node's agent: whatever it opens, holds back and repeats, what the agent keeps for it is
//! bounded, and its neighbours are served.

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use signet_certs::UnixTime;
use signet_tests::follower::read;
use signet_tests::guest::Guest;
use signet_tests::node::Node;
use signet_tests::process::resident;
use signet_tests::wait::{SOON, until};
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
        open.iter().filter(|stream| !stream.is_finished()).count() <= 300
    })
    .await;
    let page = node.agent.scrape().await;
    let refused = page.value("signet_agent_sds_refusals_total", &[("reason", "no_room")]);
    let turned_away = page.value("signet_agent_messages_turned_away_total", &[]);
    assert!(
        turned_away >= 500.0 && (turned_away - refused).abs() < 0.5,
        "{turned_away} {refused}"
    );
    let held = page.value("signet_agent_call_message_bytes", &[]);
    assert!(held > 24e6 && held <= f64::from(32 << 20), "{held} bytes");
    let grown = resident(node.agent.process.pid()) - before;
    assert!(grown < 128.0, "{grown} MiB more than before");
    // What the neighbour asks now.
    let svid = read(&guest.x509().await.expect("an SVID"), UnixTime::now()).expect("one that is good");
    assert_eq!(svid.id().as_str(), neighbour.id());
    guest.secret("default").await.expect("a secret");
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
