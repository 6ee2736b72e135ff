//! Secrets fetched as Envoy fetches them: one stream per name, one request, one answer, acknowledged.

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use signet_proto::sds::SECRET_TYPE_URL;
use signet_proto::wire::envoy::config::core::v3::data_source::Specifier;
use signet_proto::wire::envoy::config::core::v3::{DataSource, Node};
use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use signet_proto::wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_runtime::grpc::{self, Timeouts};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use zeroize::Zeroizing;

use crate::fault::Fault;

/// Patience for a secret. An agent holds a request for one on its way for 5 s, then says why.
const DEADLINE: Duration = Duration::from_secs(10);

/// A key pair as served.
pub(crate) struct KeyPair {
    /// PEM, leaf first.
    pub(crate) chain: Vec<u8>,
    /// PEM.
    pub(crate) key: Zeroizing<Vec<u8>>,
}

/// The key pair called `name`.
pub(crate) async fn key_pair(socket: &Path, name: &str) -> Result<KeyPair, Fault> {
    match fetch(socket, name).await? {
        secret::Type::TlsCertificate(pair) => Ok(KeyPair {
            chain: inline(pair.certificate_chain, socket, name)?,
            key: Zeroizing::new(inline(pair.private_key, socket, name)?),
        }),
        secret::Type::ValidationContext(_) => Err(odd(socket, name, "holds roots instead of a key pair")),
    }
}

/// The roots called `name`, PEM.
pub(crate) async fn roots(socket: &Path, name: &str) -> Result<Vec<u8>, Fault> {
    match fetch(socket, name).await? {
        secret::Type::ValidationContext(context) => inline(context.trusted_ca, socket, name),
        secret::Type::TlsCertificate(_) => Err(odd(socket, name, "holds a key pair instead of roots")),
    }
}

async fn fetch(socket: &Path, name: &str) -> Result<secret::Type, Fault> {
    let response = match tokio::time::timeout(DEADLINE, first_answer(socket, name)).await {
        Ok(answered) => answered?,
        Err(_) => {
            return Err(odd(
                socket,
                name,
                &format!("did not come within {} s", DEADLINE.as_secs()),
            ));
        }
    };
    let secrets = response
        .resources
        .iter()
        .filter(|any| any.type_url == SECRET_TYPE_URL);
    let mut named = secrets
        .filter_map(|any| Secret::decode(any.value.as_slice()).ok())
        .filter(|s| s.name == name);
    let kind = named.next().and_then(|secret| secret.r#type);
    kind.ok_or_else(|| odd(socket, name, "is not in the answer"))
}

async fn first_answer(socket: &Path, name: &str) -> Result<DiscoveryResponse, Fault> {
    let mut client =
        SecretDiscoveryServiceClient::new(grpc::unix_channel(socket.to_owned(), Timeouts::default()));
    let (requests, outgoing) = mpsc::channel(2);
    let request = DiscoveryRequest {
        node: Some(Node {
            id: "signet".into(),
            cluster: String::new(),
        }),
        resource_names: vec![name.into()],
        type_url: SECRET_TYPE_URL.into(),
        ..DiscoveryRequest::default()
    };
    // Two fit: the request and its acknowledgement.
    let _ = requests.try_send(request.clone());
    let fault = |status: tonic::Status| said(socket, name, &status);
    let mut answers = client
        .stream_secrets(ReceiverStream::new(outgoing))
        .await
        .map_err(fault)?
        .into_inner();
    let answer = answers.message().await.map_err(fault)?;
    let answer = answer.ok_or_else(|| odd(socket, name, "did not come: the stream ended"))?;
    let _ = requests.try_send(DiscoveryRequest {
        version_info: answer.version_info.clone(),
        response_nonce: answer.nonce.clone(),
        node: None,
        ..request
    });
    Ok(answer)
}

/// A refusal of the agent's is an answer; a socket nobody serves is none.
fn said(socket: &Path, name: &str, status: &tonic::Status) -> Fault {
    match grpc::dial_error(status) {
        Some(error) => Fault::Unanswered(format!("{error}; is the agent running, and is this its socket?")),
        None => Fault::Refused(format!(
            "{}: the agent does not serve {name}: {} ({:?})",
            socket.display(),
            status.message(),
            status.code()
        )),
    }
}

fn inline(source: Option<DataSource>, socket: &Path, name: &str) -> Result<Vec<u8>, Fault> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.to_vec()),
        Some(Specifier::InlineString(text)) => Ok(text.into_bytes()),
        Some(Specifier::Filename(file)) => Err(odd(socket, name, &format!("points at a file, {file:?}"))),
        None => Err(odd(socket, name, "is empty")),
    }
}

fn odd(socket: &Path, name: &str, what: &str) -> Fault {
    Fault::Unanswered(format!("{}: the secret {name:?} {what}", socket.display()))
}
