//! The one warm connection to the CA: HTTP/2 over TLS, dialled again whenever it is gone.
//!
//! Every call has a deadline and carries the token as its file holds it now; every failure has a
//! kind. What the answers are good for is [`crate::rotator`]'s and [`crate::bundle_watch`]'s to say.

mod dial;
mod failure;

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{SpiffeId, SvidChain, TrustBundle, TrustDomain};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
use signet_proto::wire::signet::ca::v1::{WatchBundleRequest, WatchBundleResponse};
use signet_runtime::Clock;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

pub use dial::{DialError, Dialer};
pub(crate) use failure::bounded;
pub use failure::{Failure, FailureKind};

use crate::config::Ca;
use crate::metrics::Metrics;
use crate::token::Token;

/// HTTP/2 pings, as the CA tolerates them (`istio-ca-and-sds.md` §3).
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A ping unanswered for this long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer read. A chain of ten and a bundle of 64 roots stay far below.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

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
    /// A client that dials at its first call, under the newest of `bundles` or the root file.
    ///
    /// # Errors
    /// A sentence when the address makes no URI.
    pub fn new(
        ca: Arc<Ca>,
        domain: TrustDomain,
        bundles: watch::Receiver<Option<Arc<TrustBundle>>>,
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
        let dialer = Dialer::new(Arc::clone(&ca), domain.clone(), bundles, clock, metrics);
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

    /// Sends one CSR.
    ///
    /// # Errors
    /// A [`Failure`]; nothing is retried here.
    pub async fn create_certificate(&self, csr: String, validity: Duration) -> Result<Answer, Failure> {
        let seconds = i64::try_from(validity.as_secs()).unwrap_or(i64::MAX);
        let request = self.with_token(signet_proto::issue::request(csr, seconds))?;
        let mut client = IstioCertificateServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let response = self.in_time(client.create_certificate(request)).await?;
        let (chain, roots_pem) = signet_proto::issue::read_response(response.get_ref())
            .map_err(|e| Failure::new(FailureKind::BadAnswer, e.to_string()))?;
        Ok(Answer { chain, roots_pem })
    }

    /// Opens the stream of bundles.
    ///
    /// # Errors
    /// A [`Failure`]; nothing is retried here.
    pub async fn watch_bundle(&self) -> Result<Streaming<WatchBundleResponse>, Failure> {
        let agent = concat!("signet-agent/", env!("CARGO_PKG_VERSION")).to_owned();
        let mut client =
            AuthorityClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
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
