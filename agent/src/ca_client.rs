//! The one warm connection to the CA: HTTP/2 over TLS, dialled again whenever it is gone, and left for another when
//! the replica at its other end keeps failing.
//!
//! Every call has a deadline and carries the token as its file holds it now; every failure has a
//! kind. What the answers are good for is [`crate::keeper`]'s and [`crate::bundle_watch`]'s to say.

mod dial;
mod failure;
mod line;

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{SpiffeId, SvidChain, TrustDomain};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
use signet_proto::wire::signet::ca::v1::{MintJwtSvidRequest, WatchBundleRequest, WatchBundleResponse};
use signet_runtime::Clock;
use tokio::sync::watch;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

pub use dial::{DialError, Dialer};
pub(crate) use failure::bounded;
pub use failure::{Failure, FailureKind};
use line::{Call, Line};

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
    line: Arc<Line>,
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
        let dialer = Dialer::new(Arc::clone(&ca), domain.clone(), trust, clock, metrics.clone());
        let line = Arc::new(Line::new(endpoint, dialer.clone(), metrics));
        Ok(Self {
            line,
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
        let (channel, number) = self.line.current();
        let mut client =
            IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let went = self.in_time(client.create_certificate(request)).await;
        self.line.hear((Call::Issue, number), &went);
        let response = went?;
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
        let (channel, number) = self.line.current();
        let mut client = AuthorityClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let went = self.in_time(client.mint_jwt_svid(request)).await;
        self.line.hear((Call::Mint, number), &went);
        Ok(went?.into_inner().token)
    }

    /// Opens the stream of bundles.
    ///
    /// # Errors
    /// A [`Failure`]; nothing is retried here.
    pub async fn watch_bundle(&self) -> Result<BundleStream, Failure> {
        let agent = concat!("signet-agent/", env!("CARGO_PKG_VERSION")).to_owned();
        let moves = self.line.moves();
        let (channel, number) = self.line.current();
        let mut client = AuthorityClient::new(channel).max_decoding_message_size(MAX_BUNDLES_BYTES);
        let request = Request::new(WatchBundleRequest { agent });
        let went = self.in_time(client.watch_bundle(request)).await;
        if went.is_err() {
            self.line.hear((Call::Watch, number), &went);
        }
        Ok(BundleStream {
            messages: went?.into_inner(),
            heard: false,
            number,
            moves,
            ca: self.clone(),
        })
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
            Ok(Err(status)) => Err(Failure::from_status(&status, &self.ca.address())),
            Err(_) => {
                let deadline = signet_runtime::config::HumanDuration(self.ca.deadline);
                let text = format!("the CA at {} did not answer within {deadline}", self.ca.address());
                Err(Failure::new(FailureKind::Deadline, text))
            }
        }
    }
}

/// The bundles of one replica of the CA, until it ends the stream or its connection is left.
pub struct BundleStream {
    messages: Streaming<WatchBundleResponse>,
    /// Whether one came.
    heard: bool,
    number: u64,
    moves: watch::Receiver<u64>,
    ca: CaClient,
}

/// Why there are no more bundles on a stream.
#[derive(Debug)]
pub enum StreamEnd {
    /// It failed, or ended before there was a bundle.
    Failed(Failure),
    /// The CA ended it, as it does once the connection has its age: all is well.
    Ended,
    /// Calls go over another connection now; this one reaches a replica that keeps failing.
    Left,
}

impl BundleStream {
    /// The next bundle.
    ///
    /// # Errors
    /// The end of the stream.
    pub async fn next(&mut self) -> Result<WatchBundleResponse, StreamEnd> {
        let message = tokio::select! {
            message = self.messages.message() => message,
            // The line lives as long as its clients, of which this holds one.
            _ = self.moves.changed() => return Err(StreamEnd::Left),
        };
        let went = match message {
            Ok(Some(message)) => {
                self.heard = true;
                Ok(message)
            }
            Ok(None) if self.heard => return Err(StreamEnd::Ended),
            Ok(None) => {
                let text = "the CA ended the stream before it sent a bundle";
                let ended = Failure::new(FailureKind::Unavailable, text);
                return Err(StreamEnd::Failed(ended));
            }
            Err(status) => Err(Failure::from_status(&status, &self.ca.ca.address())),
        };
        self.ca.line.hear((Call::Watch, self.number), &went);
        went.map_err(StreamEnd::Failed)
    }
}

fn seconds(life: Duration) -> i64 {
    i64::try_from(life.as_secs()).unwrap_or(i64::MAX)
}
