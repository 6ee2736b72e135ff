//! Envoy's secret discovery service on the workload socket: both stream protocols from one snapshot.
//!
//! [`book`], [`sotw`] and [`delta`] decide and know no sockets; [`serve`] drives one stream;
//! [`streams`] is the table of open ones. A ready secret is sent at once; one on its way is held for
//! [`PATIENCE`]; a name that cannot exist is refused with a sentence that Envoy puts into its log.

pub mod book;
pub mod delta;
pub mod serve;
pub mod sotw;
pub mod streams;

use std::sync::Arc;
use std::time::Duration;

use signet_proto::wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::rotator::Status as RotationStatus;
use crate::svids::{Reader, Snapshot};
use crate::workload_socket::Peer;
use streams::Streams;

/// How long a stream is held open for a secret that is on its way.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Largest request read. Envoy's first one has 61,088 bytes, nearly all of them its list of extensions.
pub const MAX_REQUEST_BYTES: usize = 512 * 1024;
/// Most names one stream may ask for. There are five to be had.
pub const MAX_NAMES: usize = 64;

/// What a stream does next.
#[derive(Debug)]
pub enum Step<R> {
    /// Send this.
    Send(R),
    /// End the stream for this reason.
    Close(Closing),
    /// Nothing for now.
    Wait,
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The status code.
    pub code: Code,
    /// A short word that stays the same.
    pub reason: &'static str,
    /// The sentence that the client logs.
    pub text: String,
}

/// Something worth counting that did not end the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The client accepted the last push.
    Acked,
    /// It rejected the last push, which holds these versions, with this text.
    Nacked {
        /// `name version` of each resource in it.
        rejected: String,
        /// The client's text, cut to a bound.
        text: String,
    },
    /// It answered a push that is no longer the last.
    Stale,
    /// A name was refused and the others went on.
    Refused(Closing),
}

/// One of the two protocols, as a machine over parsed messages.
pub trait Machine: Send + 'static {
    /// What the client sends.
    type Request: Send + 'static;
    /// What we send.
    type Response: Send + 'static;
    /// `sotw` or `delta`.
    const KIND: &'static str;

    /// A message came.
    fn receive(&mut self, request: Self::Request, snapshot: &Snapshot) -> Step<Self::Response>;
    /// There is a newer snapshot.
    fn refresh(&mut self, snapshot: &Snapshot) -> Step<Self::Response>;
    /// The names and versions, for waiting, notices and the table of streams.
    fn book(&mut self) -> &mut book::Book;
}

/// The service.
#[derive(Clone)]
pub struct Sds {
    snapshots: Reader,
    status: watch::Receiver<Arc<RotationStatus>>,
    streams: Arc<Streams>,
    shutdown: CancellationToken,
}

impl Sds {
    /// Serves what is on the shelf until `shutdown`.
    #[must_use]
    pub fn new(
        snapshots: Reader,
        status: watch::Receiver<Arc<RotationStatus>>,
        streams: Arc<Streams>,
        shutdown: CancellationToken,
    ) -> SecretDiscoveryServiceServer<Self> {
        let service = Self {
            snapshots,
            status,
            streams,
            shutdown,
        };
        SecretDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn open<M: Machine>(
        &self,
        machine: M,
        request: Request<Streaming<M::Request>>,
    ) -> Result<Response<serve::Responses<M>>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .copied()
            .ok_or_else(|| Status::permission_denied("the kernel named no peer for this connection"))?;
        let entry = self
            .streams
            .open(M::KIND, peer)
            .map_err(|closing| status(&closing))?;
        let ways = serve::Ways {
            snapshots: self.snapshots.clone(),
            status: self.status.clone(),
            shutdown: self.shutdown.clone(),
        };
        Ok(Response::new(serve::responses(
            machine,
            request.into_inner(),
            ways,
            entry,
        )))
    }
}

/// A closing as tonic sends it.
#[must_use]
pub fn status(closing: &Closing) -> Status {
    Status::new(closing.code, closing.text.clone())
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type StreamSecretsStream = serve::Responses<sotw::Sotw>;
    type DeltaSecretsStream = serve::Responses<delta::Delta>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        self.open(sotw::Sotw::default(), request)
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<<delta::Delta as Machine>::Request>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        self.open(delta::Delta::default(), request)
    }

    async fn fetch_secrets(
        &self,
        _request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented(
            "secrets come by StreamSecrets or DeltaSecrets; FetchSecrets is not served",
        ))
    }
}
