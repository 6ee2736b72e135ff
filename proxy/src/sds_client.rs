//! The client of the agent's secret discovery service: one stream for our SVID and all bundles, opened again with
//! patience when it ends. What was taken stays in use meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use signet_proto::sds::{Content, SECRET_TYPE_URL, numbered, read};
use signet_proto::wire::envoy::config::core::v3::Node;
use signet_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::wire::google::rpc::Status as RpcStatus;
use signet_runtime::Clock;
use signet_runtime::backoff::{Backoff, random_share};
use signet_runtime::grpc::{Timeouts, dial_error, unix_channel};
use signet_runtime::http::Readiness;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::config::Config;
use crate::keys::{Shelf, Taken};
use crate::metrics::Metrics;

/// Readiness condition: there is an SVID to present.
pub const READY: &str = "svid";
/// Our own key and chain.
const OWN: &str = "default";
/// The roots of every trust domain.
const ALL: &str = "ALL";
/// Largest answer: a bundle of the largest size and an SVID.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Waits between streams.
const PATIENCE: Backoff = Backoff {
    base: Duration::from_millis(250),
    cap: Duration::from_secs(15),
};

/// Follows the agent.
pub struct SdsClient {
    config: Arc<Config>,
    shelf: Shelf,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    /// Versions taken, which the agent need not send again.
    versions: HashMap<String, String>,
}

/// How a stream ended.
enum Ended {
    /// It had served before.
    Served(Status),
    /// It never did.
    Failed(Status),
}

impl SdsClient {
    /// Fills `shelf` from the agent that `config` names.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        shelf: Shelf,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        Self {
            config,
            shelf,
            clock,
            metrics,
            readiness,
            versions: HashMap::new(),
        }
    }

    /// Until the word is given.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow() => ended,
            };
            let status = match ended {
                Ended::Served(status) => {
                    failures = 0;
                    status
                }
                Ended::Failed(status) => status,
            };
            let wait = PATIENCE.delay(failures, random_share());
            failures = failures.saturating_add(1);
            self.metrics.secret("stream_ended");
            let error = dial_error(&status).map_or_else(|| status.message().to_owned(), ToString::to_string);
            tracing::warn!(
                code = ?status.code(), error,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "the agent's secrets are not followed; what we have stays in use"
            );
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn follow(&mut self) -> Ended {
        let channel = unix_channel(self.config.agent_socket.clone(), Timeouts::default());
        let mut client =
            SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let (send, mut queued) = mpsc::channel::<DeltaDiscoveryRequest>(4);
        let requests = futures::stream::poll_fn(move |cx| queued.poll_recv(cx));
        if send.try_send(self.first()).is_err() {
            return Ended::Failed(Status::internal("the first request cannot be queued"));
        }
        let mut answers = match client.delta_secrets(requests).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return Ended::Failed(status),
        };
        let mut served = false;
        loop {
            let status = match answers.message().await {
                Ok(Some(answer)) => {
                    served = true;
                    let reply = self.answer(answer);
                    if send.send(reply).await.is_ok() {
                        continue;
                    }
                    Status::unavailable("the stream takes no answers")
                }
                Ok(None) => Status::unavailable("the agent ended the stream"),
                Err(status) => status,
            };
            return if served {
                Ended::Served(status)
            } else {
                Ended::Failed(status)
            };
        }
    }

    /// What is wanted, and what we have of it.
    fn first(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            node: Some(Node {
                id: "signet-proxy".into(),
                ..Node::default()
            }),
            type_url: SECRET_TYPE_URL.into(),
            resource_names_subscribe: vec![OWN.into(), ALL.into()],
            initial_resource_versions: self.versions.clone(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Takes what came; the reply says yes, or what is wrong with the first that was not taken.
    fn answer(&mut self, answer: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let mut fault = None;
        let mut resources = answer.resources;
        // Roots first: an SVID is judged by the newest.
        resources.sort_by_key(|resource| resource.name != ALL);
        for resource in resources {
            if let Err(refused) = self.take(&resource) {
                self.metrics.secret("refused");
                tracing::warn!(secret = %shown(&resource.name), error = %refused, "a secret of the agent is not used");
                fault.get_or_insert(refused);
            }
        }
        for name in &answer.removed_resources {
            self.metrics.secret("removed");
            tracing::warn!(secret = %shown(name), "the agent has no such secret for us; what we have stays in use");
        }
        DeltaDiscoveryRequest {
            type_url: SECRET_TYPE_URL.into(),
            response_nonce: answer.nonce,
            error_detail: fault.map(|message| RpcStatus {
                code: Code::InvalidArgument.into(),
                message,
            }),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn take(&mut self, resource: &Resource) -> Result<(), String> {
        if resource.name != OWN && resource.name != ALL {
            return Err(format!("{:?} was not asked for", shown(&resource.name)));
        }
        let any = resource.resource.as_ref().ok_or("the resource is empty")?;
        let (_, content) = read(any).map_err(|fault| fault.to_string())?;
        let content = match content {
            Content::Bundles(bundles) => Content::Bundles(numbered(&bundles, resource.metadata.as_ref())),
            pair @ Content::Pair(_) => pair,
        };
        let taken = self
            .shelf
            .take(content, self.clock.now())
            .map_err(|refused| refused.to_string())?;
        self.versions
            .insert(resource.name.clone(), resource.version.clone());
        self.tell(taken);
        Ok(())
    }

    fn tell(&self, taken: Taken) {
        self.metrics.secret(match taken {
            Taken::Svid => "svid",
            Taken::Bundles => "bundles",
            Taken::Withdrawn => "withdrawn",
            Taken::Same => "same",
        });
        let own = self.shelf.own();
        let seconds = own.map_or(0, |own| own.not_after().as_secs());
        self.metrics
            .svid_not_after
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
        match own {
            Some(_) => self.readiness.holds(READY),
            None => self
                .readiness
                .lacks(READY, "there is no SVID that verifies under the bundles"),
        }
        match (taken, own) {
            (Taken::Withdrawn, _) => {
                tracing::error!("our SVID does not verify under the new bundles and is withdrawn");
            }
            (Taken::Bundles, _) => tracing::info!("new bundles are in force"),
            (Taken::Svid, Some(own)) => tracing::info!(
                spiffe_id = %own.id(), serial = own.svid().chain().serial(), "a new SVID is in use"
            ),
            (Taken::Svid, None) | (Taken::Same, _) => {}
        }
    }
}

fn shown(name: &str) -> &str {
    name.get(..name.floor_char_boundary(200)).unwrap_or(name)
}

#[cfg(test)]
mod tests;
