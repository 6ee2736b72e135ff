//! The one warm connection to the CA: HTTP/2 over TLS, dialled again whenever it is gone.
//!
//! Every call has a deadline and carries the token as its file holds it now; every failure has a
//! kind. What the answers are good for is [`crate::keeper`]'s and [`crate::bundle_watch`]'s to say.

mod dial;
mod failure;

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{SpiffeId, SvidChain, TrustDomain};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
use signet_proto::wire::signet::ca::v1::{MintJwtSvidRequest, WatchBundleRequest, WatchBundleResponse};
use signet_runtime::Clock;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

pub use dial::{DialError, Dialer};
pub(crate) use failure::bounded;
pub use failure::{Failure, FailureKind};

use crate::config::Ca;
use crate::metrics::Metrics;
use crate::svids::Trust;
use crate::token::Token;

/// HTTP/2 pings, as the CA tolerates them (`istio-ca-and-sds.md` §3).
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A ping unanswered for this long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest certificate or token read. A chain of ten and a bundle of 64 roots stay far below.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Largest message of bundles read: our own and those of many domains we federate with.
const MAX_BUNDLES_BYTES: usize = 4 * 1024 * 1024;

/// An answer of the CA, parsed and not yet verified.
#[derive(Debug)]
pub struct Answer {
    /// The chain, leaf first.
    pub chain: SvidChain,
    /// The roots that came with it, as PEM: compared with the bundle, never used.
    pub roots_pem: String,
}

/// Speaks to the CA.
#[derive(Clone)]
pub struct CaClient {
    channel: Channel,
    dialer: Dialer,
    ca: Arc<Ca>,
    domain: TrustDomain,
}

impl CaClient {
    /// A client that dials at its first call, under the newest bundle or the root file.
    ///
    /// # Errors
    /// A sentence when the address makes no URI.
    pub fn new(
        ca: Arc<Ca>,
        domain: TrustDomain,
        trust: watch::Receiver<Option<Arc<Trust>>>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let uri = format!("https://{}", ca.address());
        let endpoint = Endpoint::from_shared(uri.clone())
            .map_err(|e| format!("{uri}: {e}"))?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .buffer_size(16);
        let dialer = Dialer::new(Arc::clone(&ca), domain.clone(), trust, clock, metrics);
        let channel = endpoint.connect_with_connector_lazy(dialer.clone());
        Ok(Self {
            channel,
            dialer,
            ca,
            domain,
        })
    }

    /// Follows the root file for ever; dropped at shutdown.
    pub async fn follow_root_file(self) {
        self.dialer.follow_root_file().await;
    }

    /// The identity our token claims, if it claims one and can be read.
    #[must_use]
    pub fn claimed_identity(&self) -> Option<SpiffeId> {
        let token = Token::read(&self.ca.token_file).ok()?;
        token
            .claimed_account()
            .map(|account| account.spiffe_id(&self.domain))
    }

    /// Sends one CSR, for ourselves or for the workload `impersonated`.
    ///
    /// # Errors
    /// A [`Failure`]; nothing is retried here.
    pub async fn create_certificate(
        &self,
        csr: String,
        validity: Duration,
        impersonated: Option<&SpiffeId>,
    ) -> Result<Answer, Failure> {
        let message = signet_proto::issue::request(csr, seconds(validity));
        let request = self.with_token(match impersonated {
            Some(id) => signet_proto::issue::impersonating(message, id),
            None => message,
        })?;
        let mut client = IstioCertificateServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let response = self.in_time(client.create_certificate(request)).await?;
        let (chain, roots_pem) = signet_proto::issue::read_response(response.get_ref())
            .map_err(|e| Failure::new(FailureKind::BadAnswer, e.to_string()))?;
        Ok(Answer { chain, roots_pem })
    }

    /// Asks for a JWT-SVID for `audience`, of ourselves or of the workload `id`. The token comes as it
    /// was sent: it is a secret, and not checked yet.
    ///
    /// # Errors
    /// A [`Failure`]; nothing is retried here.
    pub async fn mint_jwt(
        &self,
        id: Option<&SpiffeId>,
        audience: &[String],
        ttl: Duration,
    ) -> Result<String, Failure> {
        let request = self.with_token(MintJwtSvidRequest {
            spiffe_id: id.map_or_else(String::new, ToString::to_string),
            audience: audience.to_vec(),
            validity_seconds: seconds(ttl),
        })?;
        let mut client =
            AuthorityClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let response = self.in_time(client.mint_jwt_svid(request)).await?;
        Ok(response.into_inner().token)
    }

    /// Opens the stream of bundles.
    ///
    /// # Errors
    /// A [`Failure`]; nothing is retried here.
    pub async fn watch_bundle(&self) -> Result<Streaming<WatchBundleResponse>, Failure> {
        let agent = concat!("signet-agent/", env!("CARGO_PKG_VERSION")).to_owned();
        let mut client =
            AuthorityClient::new(self.channel.clone()).max_decoding_message_size(MAX_BUNDLES_BYTES);
        let request = Request::new(WatchBundleRequest { agent });
        self.in_time(client.watch_bundle(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// The meaning of a status that ended a stream of this CA.
    #[must_use]
    pub fn meaning(&self, status: &tonic::Status) -> Failure {
        Failure::from_status(status, &self.ca.address())
    }

    fn with_token<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let unreadable = |text: String| Failure::new(FailureKind::TokenUnreadable, text);
        let token = Token::read(&self.ca.token_file).map_err(|e| unreadable(e.to_string()))?;
        let bearer = token
            .expose_bearer()
            .ok_or_else(|| unreadable("token makes no header".into()))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<tonic::Response<T>, Failure> {
        match tokio::time::timeout(self.ca.deadline, call).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) => Err(self.meaning(&status)),
            Err(_) => {
                let deadline = signet_runtime::config::HumanDuration(self.ca.deadline);
                let text = format!("the CA at {} did not answer within {deadline}", self.ca.address());
                Err(Failure::new(FailureKind::Deadline, text))
            }
        }
    }
}

fn seconds(life: Duration) -> i64 {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX)
}
