//! A client of the agent's secret discovery service, without Envoy's good manners.

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use signet_proto::sds::SECRET_TYPE_URL;
use signet_proto::wire::envoy::config::core::v3::data_source::Specifier;
use signet_proto::wire::envoy::config::core::v3::{DataSource, Node};
use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use signet_proto::wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_runtime::grpc::{Timeouts, unix_channel};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::client::Presented;

/// A client of the socket at `path`.
#[must_use]
pub fn client(path: &Path) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(unix_channel(path.to_owned(), Timeouts::default()))
}

/// One state-of-the-world stream.
pub struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    /// Opens a stream and asks for `names`.
    ///
    /// # Errors
    /// The agent's status.
    ///
    /// # Panics
    /// When the request cannot be queued.
    pub async fn open(path: &Path, names: &[&str]) -> Result<Self, Status> {
        Self::open_with(client(path), names).await
    }

    /// As [`Stream::open`], by any client.
    ///
    /// # Errors
    /// As [`Stream::open`].
    ///
    /// # Panics
    /// As [`Stream::open`].
    pub async fn open_with(
        client: SecretDiscoveryServiceClient<Channel>,
        names: &[&str],
    ) -> Result<Self, Status> {
        let first = DiscoveryRequest {
            node: Some(Node {
                id: "test".into(),
                cluster: "test".into(),
            }),
            ..ask(names, "", "")
        };
        Self::open_saying(client, first).await
    }

    /// As [`Stream::open_with`], with a first request of the test's own.
    ///
    /// # Errors
    /// As [`Stream::open`].
    ///
    /// # Panics
    /// As [`Stream::open`].
    pub async fn open_saying(
        mut client: SecretDiscoveryServiceClient<Channel>,
        first: DiscoveryRequest,
    ) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(8);
        requests.send(first).await.expect("room");
        let responses = client
            .stream_secrets(ReceiverStream::new(queue))
            .await?
            .into_inner();
        Ok(Self { requests, responses })
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When the stream is gone.
    pub async fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.expect("stream");
    }

    /// The next response, however long it takes; nothing at the end of the stream.
    ///
    /// # Errors
    /// The status that ends the stream.
    pub async fn message(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        self.responses.message().await
    }

    /// The next response.
    ///
    /// # Errors
    /// The status that ends the stream.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.message());
        let next = next.await.expect("an answer in time")?;
        next.ok_or_else(|| Status::ok("end of stream"))
    }
}

/// A request for these names.
#[must_use]
pub fn ask(names: &[&str], version: &str, nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: version.into(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.into(),
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    }
}

/// The one name asked for, once, or why not.
///
/// # Errors
/// The status that ends the stream.
///
/// # Panics
/// When the answer is no secret.
pub async fn fetch(path: &Path, name: &str) -> Result<Secret, Status> {
    let mut stream = Stream::open(path, &[name]).await?;
    Ok(first(&stream.next().await?))
}

/// The first secret of a response.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn first(answer: &DiscoveryResponse) -> Secret {
    let resource = answer.resources.first().expect("a resource");
    assert_eq!(resource.type_url, SECRET_TYPE_URL);
    Secret::decode(resource.value.as_slice()).expect("a secret")
}

/// Chain and key in a secret.
///
/// # Panics
/// When it is no key pair.
#[must_use]
pub fn pair(secret: &Secret) -> Presented {
    match &secret.r#type {
        Some(secret::Type::TlsCertificate(pair)) => Presented {
            chain: text(pair.certificate_chain.as_ref()),
            key: text(pair.private_key.as_ref()),
        },
        _ => panic!("{} is no key pair", secret.name),
    }
}

/// Roots in a secret, as PEM.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn roots(secret: &Secret) -> String {
    match &secret.r#type {
        Some(secret::Type::ValidationContext(context)) => text(context.trusted_ca.as_ref()),
        _ => panic!("{} is no validation context", secret.name),
    }
}

fn text(source: Option<&DataSource>) -> String {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => panic!("not inline"),
    }
}
