//! Providers of CUSTOM policies: Envoy's `envoy.service.auth.v3.Authorization`, asked over gRPC before tokens
//! are looked at. Whatever is not a clear yes in time is a no.
//!
//! | module | owns |
//! |---|---|
//! | `attributes` | what a provider is told |
//! | [`answer`] | what it says, and what becomes of headers for it |

pub mod answer;
mod attributes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Parts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use signet_proto::wire::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use signet_proto::wire::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use signet_runtime::Clock;
use signet_runtime::grpc::{self, AddressError, Timeouts};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub use answer::{Allowed, Answer, Denied, Failure};

use crate::connection::Accepted;

/// Largest answer, in bytes: a page to show and some headers.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// A provider is asked again, once, where its connection broke: asking changes nothing.
const TRIES: usize = 2;

/// A provider, as configured.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name by which policies mean it.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// How long it may take, dial included.
    pub timeout: Duration,
    /// Most questions at once.
    pub concurrent: usize,
    /// The headers it is told of, in lower case; nothing for all of them.
    pub include_headers: Option<Vec<String>>,
}

/// Where a provider is.
#[derive(Clone)]
pub enum Target {
    /// `host:port`, without TLS: beside us, or within a network that is trusted.
    Plaintext(String),
    /// `host:port` over TLS, and the name that it must prove.
    Tls(String, String, Arc<ClientConfig>),
    /// A unix socket.
    Unix(PathBuf),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plaintext(address) => write!(f, "Plaintext({address})"),
            Self::Tls(address, name, _) => write!(f, "Tls({address}, {name})"),
            Self::Unix(path) => write!(f, "Unix({})", path.display()),
        }
    }
}

/// Who was asked, and what came of it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct AskMetrics {
    /// Questions, by outcome.
    pub asks: Family<Outcome, Counter>,
}

impl AskMetrics {
    /// Registers everything.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register(
            "signet_proxy_ext_authz_asks",
            "Questions to providers of CUSTOM policies, by outcome",
            all.asks.clone(),
        );
        all
    }
}

/// Asks providers. Clones share connections and bounds.
#[derive(Clone)]
pub struct Asker {
    providers: Arc<BTreeMap<String, Reachable>>,
    clock: Arc<dyn Clock>,
    metrics: AskMetrics,
}

struct Reachable {
    client: AuthorizationClient<Channel>,
    timeout: Duration,
    slots: Semaphore,
    include_headers: Option<Vec<String>>,
    failing: AtomicBool,
}

impl Asker {
    /// One that knows these providers. Nothing is dialled yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// An [`AddressError`].
    pub fn new(
        providers: &[Provider],
        clock: Arc<dyn Clock>,
        metrics: AskMetrics,
    ) -> Result<Self, AddressError> {
        let mut known = BTreeMap::new();
        for provider in providers {
            let timeouts = Timeouts {
                connect: provider.timeout,
                ..Timeouts::default()
            };
            let channel = match &provider.target {
                Target::Plaintext(address) => grpc::plaintext_channel(address, timeouts)?,
                Target::Tls(address, name, tls) => grpc::channel(address, Arc::clone(tls), name, timeouts)?,
                Target::Unix(path) => grpc::unix_channel(path.clone(), timeouts),
            };
            let reachable = Reachable {
                client: AuthorizationClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES),
                timeout: provider.timeout,
                slots: Semaphore::new(provider.concurrent),
                include_headers: provider.include_headers.clone(),
                failing: AtomicBool::new(false),
            };
            known.insert(provider.name.clone(), reachable);
        }
        Ok(Self {
            providers: Arc::new(known),
            clock,
            metrics,
        })
    }

    /// Asks whether a request may pass, or with nothing for it, a connection without requests.
    pub async fn ask(&self, provider: &str, accepted: &Accepted, request: Option<&Parts>) -> Answer {
        let answer = match self.providers.get(provider) {
            Some(reachable) => {
                let answer = self.ask_one(reachable, accepted, request).await;
                reachable.note(provider, &answer);
                answer
            }
            None => Answer::Failed(Failure::Unknown),
        };
        let labels = Outcome {
            outcome: answer.as_str(),
        };
        self.metrics.asks.get_or_create(&labels).inc();
        answer
    }

    async fn ask_one(&self, to: &Reachable, accepted: &Accepted, request: Option<&Parts>) -> Answer {
        let Ok(_slot) = to.slots.try_acquire() else {
            return Answer::Failed(Failure::TooBusy);
        };
        let headers = to.include_headers.as_deref();
        let question = attributes::question(accepted, request, headers, self.clock.now());
        let deadline = Instant::now() + to.timeout;
        match tokio::time::timeout_at(deadline, to.check(question)).await {
            Ok(Ok(response)) => answer::read(response),
            Ok(Err(status)) => Answer::Failed(Failure::of(&status)),
            Err(_) => Answer::Failed(Failure::Deadline(to.timeout)),
        }
    }
}

impl Reachable {
    async fn check(&self, question: CheckRequest) -> Result<CheckResponse, Status> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut client = self.client.clone();
            match client.check(question.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if status.code() == Code::Unavailable => last = Some(status),
                Err(status) => return Err(status),
            }
        }
        Err(last.unwrap_or_else(|| Status::unavailable("the connection broke")))
    }

    /// Says once that a provider fails, and once that it answers again.
    fn note(&self, provider: &str, answer: &Answer) {
        let fault = match answer {
            Answer::Failed(fault) => Some(fault),
            Answer::Allowed(_) | Answer::Denied(_) => None,
        };
        let failed_before = self.failing.swap(fault.is_some(), Ordering::Relaxed);
        match fault {
            Some(fault) if !failed_before => tracing::warn!(
                provider,
                reason = fault.as_str(),
                error = %fault,
                "authorization provider does not answer; what it is asked about is refused"
            ),
            None if failed_before => tracing::info!(provider, "authorization provider answers again"),
            _ => {}
        }
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.providers.keys()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
