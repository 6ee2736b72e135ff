//! Envoy's secret discovery service on the workload socket: both stream protocols, to attested peers.
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
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::attest::kubernetes::WAIT;
use crate::attest::{AttestError, Attestor, Peer, Workload};
use crate::calls::MAX_MESSAGE_BYTES;
use crate::svids::{Seen, Shelves};
use streams::{Entry, StreamKind, Streams};

/// How long a stream is held open for a secret that is on its way.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// End of every attestation. The attestor's own bound comes sooner and tells what is missing.
const ATTESTED_BY: Duration = Duration::from_secs(10);
const _: () = assert!(WAIT.as_secs() < ATTESTED_BY.as_secs());
/// Largest request read.
pub const MAX_REQUEST_BYTES: usize = MAX_MESSAGE_BYTES;
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
    /// Which of the two.
    const KIND: StreamKind;

    /// A message came.
    fn receive(&mut self, request: Self::Request, seen: &Seen) -> Step<Self::Response>;
    /// Something in sight has changed.
    fn refresh(&mut self, seen: &Seen) -> Step<Self::Response>;
    /// The names and versions, for waiting, notices and the table of streams.
    fn book(&mut self) -> &mut book::Book;
}

impl From<AttestError> for Closing {
    fn from(error: AttestError) -> Self {
        Self {
            code: match error {
                AttestError::Unavailable { .. } => Code::Unavailable,
                AttestError::Denied { .. } => Code::PermissionDenied,
            },
            reason: error.reason(),
            text: error.to_string(),
        }
    }
}

/// What the service works with.
#[derive(Clone)]
pub struct Parts {
    /// Who a client is.
    pub attestor: Attestor,
    /// What it may see.
    pub shelves: Shelves,
    /// The table of open streams.
    pub streams: Arc<Streams>,
    /// The word that ends streams.
    pub shutdown: CancellationToken,
}

impl Parts {
    /// Attests `peer`, waiting as long as the attestor does.
    ///
    /// # Errors
    /// The reason to close: it is not known who the client is, or that it has no identity.
    pub(crate) async fn attest(&self, peer: &Peer) -> Result<Arc<Workload>, Closing> {
        let attested = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(serve::shutting_down()),
            attested = tokio::time::timeout(ATTESTED_BY, self.attestor.attest(peer)) => attested,
        };
        match attested {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Closing {
                code: Code::Unavailable,
                reason: "not_attested",
                text: "no identity issued: it is not known yet which workload this process is".into(),
            }),
        }
    }

    /// Enters a stream of `peer` into the table and attests it.
    ///
    /// # Errors
    /// The reason to close, counted already.
    pub(crate) async fn admit(
        &self,
        kind: StreamKind,
        peer: &Peer,
    ) -> Result<(Entry, Arc<Workload>), Closing> {
        // Entered before anything is waited for, so that the bound holds for those who wait as well.
        let mut entry = self.streams.open(kind, peer)?;
        let attested = match self.attest(peer).await {
            Ok(workload) => entry.attested(&workload).map(|()| workload),
            Err(closing) => Err(closing),
        };
        match attested {
            Ok(workload) => Ok((entry, workload)),
            Err(closing) => {
                entry.refused(&closing, "");
                Err(closing)
            }
        }
    }
}

/// The service.
#[derive(Clone)]
pub struct Sds(Parts);

impl Sds {
    /// Serves what is on the shelves until shutdown.
    #[must_use]
    pub fn new(parts: Parts) -> SecretDiscoveryServiceServer<Self> {
        SecretDiscoveryServiceServer::new(Self(parts)).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn open<M: Machine>(
        &self,
        machine: M,
        request: Request<Streaming<M::Request>>,
    ) -> Result<Response<serve::Responses<M>>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer =
            peer.ok_or_else(|| Status::permission_denied("the kernel named no peer for this connection"))?;
        let admitted = self.0.admit(M::KIND, &peer).await;
        let (entry, workload) = admitted.map_err(|closing| status(&closing))?;
        let client = serve::Client {
            view: self.0.shelves.view(&workload),
            attestor: self.0.attestor.clone(),
            shutdown: self.0.shutdown.clone(),
            peer,
            workload,
        };
        Ok(Response::new(serve::responses(
            machine,
            request.into_inner(),
            client,
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
        self.open(sotw::Sotw::default(), request).await
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<<delta::Delta as Machine>::Request>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        self.open(delta::Delta::default(), request).await
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
