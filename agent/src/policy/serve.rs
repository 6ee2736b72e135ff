//! The service: one stream for each proxy. A proxy gets what concerns the workload that the kernel says it is
//! of, once everything is known, and again whenever the content of that changes. Its answers are for status.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use signet_proto::wire::signet::policy::v1::policy_discovery_server::{
    PolicyDiscovery, PolicyDiscoveryServer,
};
use signet_proto::wire::signet::policy::v1::{
    PolicySnapshot, RefreshKeysRequest, RefreshKeysResponse, StreamPoliciesRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::issuers::KeptSets;
use super::snapshot::Basis;
use super::{Policies, protocols, refresh};
use crate::attest::{Peer, Places, Workload};
use crate::ca_client::bounded;
use crate::metrics::Metrics;
use crate::sds::serve::{Ended, ended, shutting_down, unreadable};
use crate::sds::streams::{Entry, StreamKind};
use crate::sds::{Closing, PATIENCE, Parts, status};

/// Largest message of a proxy: a version, and a sentence why it is not in force.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The snapshots of one stream.
pub type Snapshots = Pin<Box<dyn Stream<Item = Result<PolicySnapshot, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub struct PolicyService {
    parts: Parts,
    policies: Option<Policies>,
    metrics: Metrics,
}

impl PolicyService {
    /// Serves `policies`, if any are configured, until shutdown.
    #[must_use]
    pub fn new(parts: Parts, policies: Option<Policies>, metrics: Metrics) -> PolicyDiscoveryServer<Self> {
        let service = Self {
            parts,
            policies,
            metrics,
        };
        PolicyDiscoveryServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

#[tonic::async_trait]
impl PolicyDiscovery for PolicyService {
    type StreamPoliciesStream = Snapshots;

    async fn stream_policies(
        &self,
        request: Request<Streaming<StreamPoliciesRequest>>,
    ) -> Result<Response<Snapshots>, Status> {
        let peer = peer(&request)?;
        let admitted = self.parts.admit(StreamKind::Policies, &peer).await;
        let (entry, workload) = admitted.map_err(|closing| status(&closing))?;
        let Some(policies) = self.policies.clone() else {
            let closing = not_served();
            entry.refused(&closing, "");
            return Err(status(&closing));
        };
        let key_news = policies.issuers.as_ref().map(|issuers| issuers.news());
        let live = Live {
            incoming: request.into_inner(),
            ended: ended(&self.parts.attestor, &peer, &workload),
            places: self.parts.attestor.places(),
            parts: self.parts.clone(),
            peer,
            workload,
            policies,
            entry,
            metrics: self.metrics.clone(),
            proxy: String::new(),
            basis: None,
            sets: KeptSets::default(),
            key_news,
            sent: None,
            patience_ends: None,
        };
        Ok(Response::new(snapshots(live)))
    }

    async fn refresh_keys(
        &self,
        request: Request<RefreshKeysRequest>,
    ) -> Result<Response<RefreshKeysResponse>, Status> {
        let peer = peer(&request)?;
        let asked = refresh::refresh(&self.parts, self.policies.as_ref(), &peer, request.into_inner()).await;
        let outcome = match &asked {
            Ok(true) => "newer",
            Ok(false) => "not_newer",
            Err(closing) => closing.reason,
        };
        Metrics::count(&self.metrics.key_refreshes, outcome);
        let newer = asked.map_err(|closing| status(&closing))?;
        Ok(Response::new(RefreshKeysResponse { newer }))
    }
}

fn peer<R>(request: &Request<R>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Status::permission_denied("the kernel named no peer for this connection"))
}

struct Live {
    incoming: Streaming<StreamPoliciesRequest>,
    parts: Parts,
    peer: Peer,
    workload: Arc<Workload>,
    ended: Ended,
    places: Places,
    policies: Policies,
    entry: Entry,
    metrics: Metrics,
    /// What the proxy calls itself; not proven.
    proxy: String,
    basis: Option<Basis>,
    /// The key sets that its policies ask for.
    sets: KeptSets,
    key_news: Option<watch::Receiver<u64>>,
    /// Version of the last snapshot.
    sent: Option<String>,
    patience_ends: Option<Instant>,
}

/// Why there is nothing to send.
enum Stop {
    /// The stream ends with this.
    Closing(Closing),
    /// The proxy ended it.
    End,
}

impl From<Closing> for Stop {
    fn from(closing: Closing) -> Self {
        Self::Closing(closing)
    }
}

fn snapshots(live: Live) -> Snapshots {
    Box::pin(futures::stream::unfold(Some(live), |live| async {
        let mut live = live?;
        match live.next().await {
            Ok(snapshot) => {
                live.entry.pushed_version(&snapshot.version);
                Some((Ok(snapshot), Some(live)))
            }
            Err(Stop::Closing(closing)) => {
                live.entry.refused(&closing, &live.proxy);
                Some((Err(status(&closing)), None))
            }
            Err(Stop::End) => None,
        }
    }))
}

impl Live {
    async fn next(&mut self) -> Result<PolicySnapshot, Stop> {
        loop {
            // Before each snapshot, and so before any part of one is made.
            let still = self.parts.attestor.recheck(&self.peer, &self.workload);
            still.map_err(Closing::from)?;
            if let Some(snapshot) = self.look()? {
                self.patience_ends = None;
                return Ok(snapshot);
            }
            if self.sent.is_none() {
                self.patience_ends
                    .get_or_insert_with(|| Instant::now() + PATIENCE);
            }
            self.wait().await?;
        }
    }

    /// The snapshot, if it differs from the last one.
    fn look(&mut self) -> Result<Option<PolicySnapshot>, Closing> {
        self.places.seen();
        if let Some(news) = &mut self.key_news {
            news.mark_unchanged();
        }
        self.policies.view.mark_unchanged();
        let Some(basis) = basis(&self.parts, &self.policies, &self.workload)? else {
            return Ok(None);
        };
        let basis = self.with_keys(basis);
        if self.basis.as_ref().is_some_and(|known| known.is_that_of(&basis)) {
            return Ok(None);
        }
        let snapshot = basis.snapshot(&self.policies.mesh).map_err(too_large)?;
        self.tell_disputes(&basis);
        self.basis = Some(basis);
        if self.sent.as_ref() == Some(&snapshot.version) {
            return Ok(None);
        }
        self.sent = Some(snapshot.version.clone());
        Ok(Some(snapshot))
    }

    /// With what is known of the key sets that it asks for, which are kept from now on.
    fn with_keys(&mut self, basis: Basis) -> Basis {
        let Some(issuers) = &self.policies.issuers else {
            return basis;
        };
        if !self
            .basis
            .as_ref()
            .is_some_and(|known| known.has_policies_of(&basis))
        {
            // The former sets are still held, so what both want is not fetched twice.
            self.sets = issuers.keep(&basis.issuers(&self.policies.mesh));
        }
        basis.with_keys(issuers.known(&self.sets))
    }

    /// Services that say different things of a port: not all of them can be right, which their owners will want to know.
    fn tell_disputes(&self, basis: &Basis) {
        let before = self.basis.as_ref().map(Basis::ports);
        for (port, known) in basis.ports() {
            let is_news = before.and_then(|before| before.get(port)) != Some(known);
            if known.disputed && is_news {
                tracing::warn!(
                    pid = self.peer.pid(),
                    port,
                    origin = known.origin,
                    "services disagree on the protocol of a port; it is judged as HTTP"
                );
            }
        }
    }

    /// Waits for something that may mean a new snapshot, and takes answers meanwhile.
    async fn wait(&mut self) -> Result<(), Stop> {
        let patience_ends = self.patience_ends;
        tokio::select! {
            biased;
            () = self.parts.shutdown.cancelled() => Err(shutting_down().into()),
            gone = &mut self.ended => Err(Closing::from(gone).into()),
            message = self.incoming.message() => match message {
                Ok(Some(answer)) => {
                    self.answered(&answer);
                    Ok(())
                }
                Ok(None) => Err(Stop::End),
                Err(error) => Err(match unreadable(&error, MAX_REQUEST_BYTES) {
                    Some(closing) => closing.into(),
                    None => Stop::End,
                }),
            },
            changed = self.policies.view.changed() => match changed {
                Ok(()) => Ok(()),
                // Only at the end of the agent.
                Err(_) => Err(shutting_down().into()),
            },
            () = self.places.changed() => Ok(()),
            () = rings(&mut self.key_news) => Ok(()),
            () = tokio::time::sleep_until(patience_ends.unwrap_or_else(Instant::now)),
                if patience_ends.is_some() =>
            {
                Err(not_known(&self.policies.sources.borrow().missing()).into())
            }
        }
    }

    fn answered(&mut self, answer: &StreamPoliciesRequest) {
        if !answer.proxy.is_empty() {
            self.proxy = bounded(&answer.proxy);
        }
        let version = bounded(&answer.version);
        let outcome = match &self.sent {
            _ if version.is_empty() => {
                self.entry.answered(&self.proxy, None, None);
                return;
            }
            Some(sent) if *sent != version => "stale",
            None => "stale",
            Some(_) if answer.error.is_empty() => "ack",
            Some(_) => "nack",
        };
        Metrics::count(&self.metrics.policy_answers, outcome);
        match outcome {
            "ack" => self.entry.answered(&self.proxy, Some(&version), None),
            "nack" => {
                let error = bounded(&answer.error);
                tracing::warn!(
                    reason = "nack",
                    error,
                    node = self.proxy,
                    pid = self.peer.pid(),
                    version,
                    "a proxy does not enforce its policies; it keeps the last ones"
                );
                self.entry
                    .answered(&self.proxy, None, Some(&format!("{version}: {error}")));
            }
            _ => {}
        }
    }
}

/// What the snapshot of a workload is made of now, but for key sets. Nothing before everything is known.
pub(super) fn basis(
    parts: &Parts,
    policies: &Policies,
    workload: &Workload,
) -> Result<Option<Basis>, Closing> {
    let Some(view) = policies.view.borrow().clone() else {
        return Ok(None);
    };
    let place = parts.attestor.place(workload).ok_or_else(no_place)?;
    let services = view.services.space(&place.workload.namespace);
    let ports = protocols::ports(services.map(AsRef::as_ref), &place.workload.labels, &place.ports);
    let basis = Basis::new(&view.spaces, &policies.mesh, place.workload);
    Ok(Some(basis.with_ports(ports)))
}

async fn rings(news: &mut Option<watch::Receiver<u64>>) {
    let rang = match news {
        Some(news) => news.changed().await.is_ok(),
        None => false,
    };
    if !rang {
        std::future::pending::<()>().await;
    }
}

pub(super) fn not_served() -> Closing {
    Closing {
        code: Code::FailedPrecondition,
        reason: "not_served",
        text: "the agent's configuration has no policies; set policies.source there, or give the proxy a directory"
            .into(),
    }
}

fn no_place() -> Closing {
    Closing {
        code: Code::Unavailable,
        reason: "no_place",
        text: "namespace and labels of this workload are not known".into(),
    }
}

fn not_known(missing: &str) -> Closing {
    Closing {
        code: Code::Unavailable,
        reason: "policies_unknown",
        text: bounded(&format!("not all policies are known yet: {missing}")),
    }
}

fn too_large(bytes: usize) -> Closing {
    let most = signet_proto::policy::MAX_SNAPSHOT_BYTES;
    Closing {
        code: Code::ResourceExhausted,
        reason: "too_large",
        text: format!("the policies of this workload have {bytes} bytes, at most {most} are sent"),
    }
}
