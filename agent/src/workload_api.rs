//! The SPIFFE Workload API on the workload socket (SPIFFE_Workload_API, SPIFFE_Workload_Endpoint).
//!
//! | module | owns |
//! |---|---|
//! | [`front_door`] | the security metadata, demanded of every call of this service |
//! | [`updates`] | what a stream sends and when it is silent: pure |
//! | [`serve`] | driving one stream |
//! | `tokens` | the two calls about JWT-SVIDs that are answered once |
//! | [`limits`] | how often tokens may be asked for, and streams opened: pure |
//! | [`reflection`] | gRPC reflection beside it |
//! | [`ending`] | requests that end with the agent, for services that do not know of it |
//! | [`refusal`] | why a call is not answered, in words and codes |
//!
//! A caller is attested before anything is answered, and again before each later message. Who has
//! nothing yet is held for a while and then told `UNAVAILABLE`; never an empty set, and never
//! `PERMISSION_DENIED` for what is merely not known.

pub mod ending;
pub mod front_door;
pub mod limits;
pub mod reflection;
pub mod refusal;
pub mod serve;
mod tokens;
pub mod updates;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signet_proto::wire::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use signet_proto::wire::{
    JwtBundlesRequest, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
    WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse, X509BundlesRequest,
    X509svidRequest,
};
use signet_runtime::Clock;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::attest::Peer;
use crate::jwt_cache::JwtCache;
use crate::metrics::{Kind, Metrics};
use crate::sds::serve::Client;
use crate::sds::{Closing, Parts};
use front_door::FrontDoor;
use limits::{Limits, Payer, TOKENS};
use serve::Messages;
use updates::{Content, JwtBundles, X509Bundles, X509Svids};

/// Largest request read: a token of [`signet_certs::jwt::MAX_TOKEN_BYTES`] and an audience beside it,
/// several times over.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The service.
#[derive(Clone)]
pub struct WorkloadApi {
    parts: Parts,
    tokens: JwtCache,
    limits: Arc<Mutex<Limits<Payer>>>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl WorkloadApi {
    /// Serves what is on the shelves, and tokens from `tokens`, until shutdown.
    #[must_use]
    pub fn new(
        parts: Parts,
        tokens: JwtCache,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> FrontDoor<SpiffeWorkloadApiServer<Self>> {
        let service = Self {
            parts,
            tokens,
            limits: Arc::new(Mutex::new(Limits::new(TOKENS, Instant::now()))),
            clock,
            metrics: metrics.clone(),
        };
        let server = SpiffeWorkloadApiServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
        FrontDoor::new(server, metrics)
    }

    async fn open<C: Content, R>(&self, request: &Request<R>) -> Result<Response<Messages<C>>, Status> {
        let peer = self.peer(request)?;
        let admitted = self.parts.admit(C::KIND, &peer).await;
        let (entry, workload) = admitted.map_err(|closing| refusal::status(&closing))?;
        let client = Client {
            view: self.parts.shelves.view(&workload),
            attestor: self.parts.attestor.clone(),
            shutdown: self.parts.shutdown.clone(),
            peer,
            workload,
        };
        Ok(Response::new(serve::messages::<C>(client, entry)))
    }

    /// Counts the outcome of a call that is answered once, and answers it.
    fn answer<T>(&self, kind: &'static str, outcome: Result<T, Closing>) -> Result<Response<T>, Status> {
        match outcome {
            Ok(message) => {
                self.metrics.workload_messages.get_or_create(&Kind { kind }).inc();
                Ok(Response::new(message))
            }
            Err(closing) => Err(self.refuse(kind, &closing)),
        }
    }

    fn refuse(&self, kind: &'static str, closing: &Closing) -> Status {
        Metrics::blame(&self.metrics.workload_refusals, closing.reason);
        tracing::debug!(kind, reason = closing.reason, error = %closing.text, "workload api call refused");
        refusal::status(closing)
    }

    fn peer<R>(&self, request: &Request<R>) -> Result<Peer, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        peer.ok_or_else(|| self.refuse("peer", &refusal::no_peer()))
    }

    fn lock_limits(&self) -> MutexGuard<'_, Limits<Payer>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509Svids>;
    type FetchX509BundlesStream = Messages<X509Bundles>;
    type FetchJWTBundlesStream = Messages<JwtBundles>;
    type FetchWITSVIDStream = futures::stream::Empty<Result<WitsvidResponse, Status>>;
    type FetchWITBundlesStream = futures::stream::Empty<Result<WitBundlesResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.open::<X509Svids, _>(&request).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.open::<X509Bundles, _>(&request).await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let peer = self.peer(&request)?;
        let outcome = self.fetch_tokens(peer, request.into_inner()).await;
        self.answer("jwt_svid", outcome)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.open::<JwtBundles, _>(&request).await
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let peer = self.peer(&request)?;
        let outcome = self.validate(peer, request.get_ref()).await;
        self.answer("validate_jwt", outcome)
    }

    async fn fetch_witsvid(
        &self,
        _request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(self.refuse("wit_svid", &refusal::no_wit_profile()))
    }

    async fn fetch_wit_bundles(
        &self,
        _request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(self.refuse("wit_bundles", &refusal::no_wit_profile()))
    }
}
