//! One request's account: opened when its head is there, closed when its answer is sent or given up.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode, Version, request};
use signet_certs::SpiffeId;
use tokio::time::Instant;

use super::body::Progress;
use super::gate::Gate;
use super::headers::REQUEST_ID;
use super::metrics::{HttpMetrics, Kind, Series};
use super::refusal::Refusal;
use super::target;
use crate::access_log::{Reason, Record, RequestFields};
use crate::config::AccessLog;
use crate::connection::Accepted;
use crate::shared::Shared;

/// Kinds of outcomes whose series a connection remembers.
const MAX_KNOWN: usize = 16;

/// A connection's account: what its requests share.
pub struct Account {
    /// What every connection shares.
    pub shared: Arc<Shared>,
    /// The connection.
    pub accepted: Arc<Accepted>,
    /// Its bytes.
    pub gate: Arc<Gate>,
    metrics: HttpMetrics,
    known: Mutex<Vec<(Kind, Series)>>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.accepted.id)
    }
}

impl Account {
    /// Of a connection.
    #[must_use]
    pub fn new(shared: Arc<Shared>, accepted: Arc<Accepted>, gate: Arc<Gate>, metrics: HttpMetrics) -> Self {
        let known = Mutex::default();
        Self {
            shared,
            accepted,
            gate,
            metrics,
            known,
        }
    }

    fn count(&self, kind: &Kind, millis: f64, received: u64, sent: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, series)) = known.iter().find(|(one, _)| one == kind) {
            return series.count(millis, received, sent);
        }
        let series = self.metrics.series(&self.accepted, kind);
        series.count(millis, received, sent);
        if known.len() < MAX_KNOWN {
            known.push((kind.clone(), series));
        }
    }
}

/// One request's account.
pub struct Ticket {
    account: Arc<Account>,
    record: Record,
    started: Instant,
    kind: Kind,
    /// Of an upgraded connection.
    received: u64,
    sent: u64,
    progress: Option<Arc<Progress>>,
    /// What came of it so far; it counts as `Ok` only when the answer is sent.
    outcome: Reason,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({:?}, {:?})", self.account, self.outcome)
    }
}

impl Ticket {
    /// For a request that has just come.
    #[must_use]
    pub fn open(account: &Arc<Account>, head: &request::Parts) -> Box<Self> {
        account.gate.request_begins();
        let grpc = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let mut ticket = Box::new(Self {
            account: Arc::clone(account),
            record: Record::begin(&account.shared, &account.accepted),
            started: Instant::now(),
            kind: Kind {
                protocol: if grpc { "grpc" } else { "http" },
                code: 0,
                flags: "-",
                grpc: Arc::default(),
                upstream: None,
            },
            received: 0,
            sent: 0,
            progress: None,
            outcome: Reason::Ok,
        });
        ticket.describe(head);
        ticket
    }

    fn describe(&mut self, head: &request::Parts) {
        if self.account.shared.config.access_log == AccessLog::Off {
            return;
        }
        let protocol = match head.version {
            _ if self.is_grpc() => "gRPC",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        self.record.request = Some(Box::new(RequestFields {
            method: head.method.as_str().to_owned(),
            protocol,
            ..RequestFields::default()
        }));
        self.told(head);
    }

    /// Takes over the head as it goes on.
    pub fn told(&mut self, head: &request::Parts) {
        if let Some(fields) = &mut self.record.request {
            target::authority(head).clone_into(&mut fields.authority);
            head.uri.path().clone_into(&mut fields.path);
            let id = head.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
            id.unwrap_or_default().clone_into(&mut fields.request_id);
        }
    }

    /// Whose token the request carries.
    pub fn token(&mut self, principal: Option<&str>) {
        if let (Some(fields), Some(principal)) = (&mut self.record.request, principal) {
            principal.clone_into(&mut fields.token_principal);
        }
    }

    /// Whether it is a call of gRPC.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.kind.protocol == "grpc"
    }

    /// When the whole request must be over, if it must.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let total = self.account.shared.config.limits.http.total;
        total.map(|total| self.started + total)
    }

    /// The policy that decided.
    pub fn policy(&mut self, policy: String) {
        self.record.policy = Some(policy);
    }

    /// Whether the policy that permits is worth its name in the record.
    #[must_use]
    pub fn wants_permits(&self) -> bool {
        self.account.shared.config.access_log == AccessLog::All
    }

    /// The client's body is followed here.
    pub fn follow(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// What is wrong with the client's body, if anything is.
    #[must_use]
    pub fn body_fault(&self) -> Option<Reason> {
        self.progress.as_ref()?.fault().map(Reason::Request)
    }

    /// Who answered.
    pub fn upstream(&mut self, address: Option<std::net::SocketAddr>, peer: Option<SpiffeId>) {
        self.record.upstream = address;
        self.record.upstream_took = Some(self.started.elapsed());
        self.kind.upstream.clone_from(&peer);
        self.record.upstream_id = peer;
    }

    /// The status that the client gets.
    pub fn status(&mut self, status: StatusCode) {
        self.kind.code = status.as_u16();
        if let Some(fields) = &mut self.record.request {
            fields.status = status.as_u16();
        }
    }

    /// It is refused, or failed.
    pub fn refused(&mut self, refusal: &mut Refusal) {
        self.record.policy = refusal.policy.take().or(self.record.policy.take());
        self.status(refusal.status());
        let detail = refusal.detail.take();
        self.ended(refusal.reason, detail);
        self.outcome = refusal.reason;
    }

    /// It ended so.
    pub fn ended(&mut self, reason: Reason, detail: Option<String>) {
        self.outcome = reason;
        self.record.ended(reason, detail);
    }

    /// So many bytes more of a body went to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// So many bytes came from the client and went to it, after an upgrade.
    pub fn carried(&mut self, received: u64, sent: u64) {
        self.received = received;
        self.sent = sent;
    }

    /// gRPC's status, from the trailers or from an answer that is nothing else.
    pub fn grpc_status(&mut self, headers: &HeaderMap) {
        if self.is_grpc()
            && let Some(status) = headers.get("grpc-status").and_then(|status| status.to_str().ok())
            && status.len() <= 2
            && status.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.kind.grpc = status.into();
        }
    }

    /// The whole answer was handed over.
    pub fn complete(&mut self) {
        self.record.ended(self.outcome, None);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let body = self.progress.as_ref().map_or(0, |progress| progress.bytes());
        self.record.received = self.received.saturating_add(body);
        self.record.sent = self.sent;
        self.kind.flags = Refusal::flags(self.record.reason);
        let millis = self.started.elapsed().as_secs_f64() * 1000.0;
        self.account
            .count(&self.kind, millis, self.record.received, self.sent);
        self.account.gate.request_ends();
    }
}
