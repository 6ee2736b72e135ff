//! The streams of all pods, each read by a task that tells when a message came.

use std::collections::BTreeMap;

use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::wire::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::wire::{X509BundlesRequest, X509svidRequest};
use signet_tests::guest::Guest;
use signet_tests::node::Pod;
use signet_tests::sds;
use signet_tests::wait::{SOON, within};
use signet_tests::workload::secure;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

/// A stream said something.
struct Said {
    /// The identity, where the stream carries its SVID; nothing where it carries bundles.
    svid_of: Option<String>,
    /// When; nothing at its end.
    at: Option<Instant>,
}

/// Where a stream tells it.
#[derive(Clone)]
struct Mouth {
    svid_of: Option<String>,
    ears: UnboundedSender<Said>,
}

impl Mouth {
    fn say(&self, at: Option<Instant>) {
        let svid_of = self.svid_of.clone();
        // At the end of the run nobody listens.
        let _ = self.ears.send(Said { svid_of, at });
    }
}

/// All streams.
pub(crate) struct Crowd {
    ears: UnboundedReceiver<Said>,
    /// How many streams carry the SVID of which identity.
    carrying: BTreeMap<String, usize>,
    streams: usize,
    lost: usize,
}

impl Crowd {
    /// Opens four streams for every pod, over two connections as a library and an Envoy do, and waits for
    /// their first messages.
    pub(crate) async fn gather(pods: &[Pod], guests: &[Guest]) -> Self {
        let (mouth, ears) = unbounded_channel();
        let mut crowd = Self {
            ears,
            carrying: BTreeMap::new(),
            streams: 0,
            lost: 0,
        };
        for (pod, guest) in pods.iter().zip(guests) {
            let mouth = |svid_of| Mouth {
                svid_of,
                ears: mouth.clone(),
            };
            let api = SpiffeWorkloadApiClient::new(guest.channel());
            let envoy = SecretDiscoveryServiceClient::new(guest.channel());
            tokio::spawn(svids(api.clone(), mouth(Some(pod.id()))));
            tokio::spawn(bundles(api, mouth(None)));
            tokio::spawn(secrets(envoy.clone(), "default", mouth(Some(pod.id()))));
            tokio::spawn(secrets(envoy, "ROOTCA", mouth(None)));
            *crowd.carrying.entry(pod.id()).or_default() += 2;
            crowd.streams += 4;
        }
        for _ in 0..crowd.streams {
            crowd.hear().await;
        }
        assert_eq!(crowd.lost, 0, "a stream ended before its first message");
        crowd
    }

    /// How many streams there are.
    pub(crate) fn len(&self) -> usize {
        self.streams
    }

    async fn hear(&mut self) -> Said {
        let said = within("a message", SOON * 4, self.ears.recv()).await;
        let said = said.expect("streams");
        self.lost += usize::from(said.at.is_none());
        said
    }

    /// When each stream that carries this identity's SVID had the next.
    pub(crate) async fn renewed(&mut self, id: &str) -> Vec<Instant> {
        let count = self.carrying.get(id).copied().unwrap_or_default();
        let mut came = Vec::with_capacity(count);
        while came.len() < count {
            let said = self.hear().await;
            if said.svid_of.as_deref() == Some(id) {
                came.push(said.at.expect("a stream that goes on"));
            }
        }
        came
    }

    /// How many streams have ended so far.
    pub(crate) fn lost(&mut self) -> usize {
        while let Ok(said) = self.ears.try_recv() {
            self.lost += usize::from(said.at.is_none());
        }
        self.lost
    }
}

async fn svids(mut api: SpiffeWorkloadApiClient<Channel>, mouth: Mouth) {
    let opened = api.fetch_x509svid(secure(X509svidRequest {})).await;
    follow(opened.expect("a stream").into_inner(), &mouth).await;
}

async fn bundles(mut api: SpiffeWorkloadApiClient<Channel>, mouth: Mouth) {
    let opened = api.fetch_x509_bundles(secure(X509BundlesRequest {})).await;
    follow(opened.expect("a stream").into_inner(), &mouth).await;
}

async fn follow<T>(mut stream: Streaming<T>, mouth: &Mouth) {
    while let Ok(Some(_)) = stream.message().await {
        mouth.say(Some(Instant::now()));
    }
    mouth.say(None);
}

/// Follows one secret and accepts every version, as Envoy does.
async fn secrets(envoy: SecretDiscoveryServiceClient<Channel>, name: &str, mouth: Mouth) {
    let mut stream = sds::Stream::open_with(envoy, &[name]).await.expect("a stream");
    while let Ok(Some(answer)) = stream.message().await {
        mouth.say(Some(Instant::now()));
        let ack = sds::ask(&[name], &answer.version_info, &answer.nonce);
        stream.send(ack).await;
    }
    mouth.say(None);
}
