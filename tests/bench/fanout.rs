//! From one new SVID to every SDS stream that shows it: 1,000 streams on one agent.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use signet_proto::sds::SECRET_TYPE_URL;
use signet_proto::wire::envoy::config::core::v3::Node;
use signet_proto::wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Streams per connection, as a node with one Envoy per pod has two; more share one here, since the
/// client is one process.
const PER_CONNECTION: usize = 50;

/// One stream that has the current secret and has acknowledged it.
pub(crate) struct Subscriber {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Subscriber {
    async fn open(channel: Channel, n: usize) -> Self {
        let (requests, outgoing) = mpsc::channel(4);
        requests.send(first_request(n)).await.expect("room");
        let mut client = SecretDiscoveryServiceClient::new(channel);
        let responses = client
            .stream_secrets(ReceiverStream::new(outgoing))
            .await
            .expect("a stream")
            .into_inner();
        let mut this = Self { requests, responses };
        this.next().await;
        this
    }

    /// Waits for the next secret and acknowledges it; answers when it came.
    async fn next(&mut self) -> Instant {
        let response = self
            .responses
            .next()
            .await
            .expect("the stream lives")
            .expect("a secret");
        let came = Instant::now();
        let ack = DiscoveryRequest {
            version_info: response.version_info,
            response_nonce: response.nonce,
            resource_names: vec!["default".into()],
            type_url: SECRET_TYPE_URL.into(),
            ..DiscoveryRequest::default()
        };
        self.requests.send(ack).await.expect("room");
        came
    }
}

fn first_request(n: usize) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node {
            id: format!("bench-{n}"),
            cluster: "bench".into(),
        }),
        resource_names: vec!["default".into()],
        type_url: SECRET_TYPE_URL.into(),
        ..DiscoveryRequest::default()
    }
}

/// Opens `count` streams that all hold the current secret.
pub(crate) async fn subscribe(socket: &Path, count: usize) -> Vec<Subscriber> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let channel =
            signet_runtime::grpc::unix_channel(socket.to_owned(), signet_runtime::grpc::Timeouts::default());
        for _ in 0..PER_CONNECTION.min(count - all.len()) {
            all.push(Subscriber::open(channel.clone(), all.len()).await);
        }
    }
    all
}

/// Has the agent rotate (`rotate` asks it to) and tells how long after asking the median and the last
/// stream had the new secret: the CA's answer is part of it, and of no stream is the start hidden.
pub(crate) async fn fan_out(
    subscribers: Vec<Subscriber>,
    rotate: impl Future<Output = ()>,
) -> (Duration, Duration) {
    let waits: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| tokio::spawn(async move { (subscriber.next().await, subscriber) }))
        .collect();
    let asked = Instant::now();
    rotate.await;
    let mut times = Vec::with_capacity(waits.len());
    let mut alive = Vec::with_capacity(waits.len());
    for wait in waits {
        let (came, subscriber) = wait.await.expect("a subscriber");
        times.push(came);
        alive.push(subscriber);
    }
    times.sort();
    (times[times.len() / 2] - asked, times[times.len() - 1] - asked)
}
