//! One request's account: opened when its head is there, closed when its answer is sent or given up.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode, Version, request};
use signet_certs::SpiffeId;
use tokio::time::Instant;

use super::docket::{Case, Docket, Sentence};
use super::flow::{Flow, Verdict};
use super::gate::Gate;
use super::headers::REQUEST_ID;
use super::metrics::{self, Code, HttpMetrics, Kind, Series};
use super::refusal::Refusal;
use super::target;
use crate::access_log::{Client, Reason, Record, RequestFields};
use crate::config::AccessLog;
use crate::connection::{Accepted, Direction};
use crate::keys::Trust;
use crate::listed::Listed;
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
    /// Its requests under way, where they are judged here.
    pub(super) docket: Docket,
    trust: Option<Arc<Trust>>,
    metrics: HttpMetrics,
    known: Mutex<Vec<(Kind, Series)>>,
    _listed: Option<Listed<Self>>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.accepted.id)
    }
}

impl Account {
    /// Of a connection. One to the workload is found from now on by who withdraws permits.
    #[must_use]
    pub fn open(shared: Arc<Shared>, accepted: Arc<Accepted>) -> Arc<Self> {
        let metrics = shared.http.metrics().clone();
        let proof = accepted.proof().cloned();
        let trust = proof.map(|proof| shared.keys.follow(proof, shared.clock.now()));
        let inbound = accepted.direction == Direction::Inbound;
        let accounts = shared.http.accounts().clone();
        let most = shared.config.limits.waiting_bytes;
        let gate = Gate::new(shared.connections.waiting().clone(), most);
        let make = |listed| Self {
            shared,
            accepted,
            gate,
            docket: Docket::default(),
            trust,
            metrics,
            known: Mutex::default(),
            _listed: listed,
        };
        if !inbound {
            return Arc::new(make(None));
        }
        let account = accounts.enter(|place| make(Some(place)));
        // From here on it is found when something is withdrawn; that may have happened before.
        account.judge_trust();
        if let Some(enforced) = account.shared.policies.current() {
            account.judge_again(&enforced);
        }
        account
    }

    /// What the trust in the client rests on.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
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
    flow: Arc<Flow>,
    /// What is needed to judge it again, where it is judged here.
    case: Option<Arc<Case>>,
    /// What came of it so far; it counts as `Ok` only when the answer is sent.
    outcome: Reason,
    /// Whether the whole answer was handed over.
    completed: bool,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({:?}, {:?})", self.account, self.outcome)
    }
}

/// Whether this content type is that of gRPC; gRPC-Web is HTTP to all but its ends.
fn speaks_grpc(kind: &[u8]) -> bool {
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

impl Ticket {
    /// For a request that has just come.
    #[must_use]
    pub fn open(account: &Arc<Account>, head: &request::Parts, flow: Arc<Flow>) -> Box<Self> {
        account.gate.request_begins();
        let grpc = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| speaks_grpc(kind.as_bytes()));
        let judged = account.accepted.direction == Direction::Inbound;
        let mut ticket = Box::new(Self {
            account: Arc::clone(account),
            case: judged.then(|| account.docket.open(&flow)),
            record: Record::begin(&account.shared, &account.accepted),
            started: flow.started(),
            kind: Kind {
                protocol: if grpc { "grpc" } else { "http" },
                code: Code::default(),
                flags: "-",
                grpc: "",
                upstream: None,
            },
            received: 0,
            sent: 0,
            flow,
            outcome: Reason::Ok,
            completed: false,
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

    /// What its bodies know of one another.
    #[must_use]
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Its answer begins.
    pub fn answered(&self) {
        let until = self.deadline();
        self.flow.answered(until);
        if !self.flow.is_stream() {
            self.account.gate.answered(until);
        }
        if self.outcome == Reason::Ok && self.sentence().is_some() {
            // Said when nobody could have known that there would be an answer.
            self.flow.withdraw();
        }
    }

    /// What is wrong with the client's body, if anything is.
    #[must_use]
    pub fn body_fault(&self) -> Option<Reason> {
        self.flow.fault().map(Reason::Request)
    }

    /// What is needed to judge it again; nothing where it is judged by others.
    pub(super) fn case(&self) -> Option<&Arc<Case>> {
        self.case.as_ref()
    }

    /// Why it must not go on, if it must not.
    pub(super) fn sentence(&self) -> Option<Sentence> {
        self.case.as_ref()?.sentence()
    }

    /// Ready when it must not go on: see [`Self::sentence`].
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.case {
            Some(case) => case.poll_ended(cx),
            None => Poll::Pending,
        }
    }

    /// Whether it must not go on. Then the record says so.
    pub(super) fn is_ended(&mut self) -> bool {
        let Some(sentence) = self.sentence() else {
            return false;
        };
        self.record.policy = sentence.policy.or(self.record.policy.take());
        self.ended(sentence.reason, Some(sentence.detail));
        true
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
        self.kind.code = Code::of(status.as_u16());
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

    /// So many bytes more of a body were handed over for the client to take.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.flow.handed(bytes);
        self.sent = self.sent.saturating_add(bytes);
    }

    /// So many bytes came from the client and went to it, after an upgrade.
    pub fn carried(&mut self, received: u64, sent: u64) {
        self.received = received;
        self.sent = sent;
    }

    /// gRPC's status, from the trailers or from an answer that is nothing else.
    pub fn grpc_status(&mut self, headers: &HeaderMap) {
        if self.is_grpc()
            && let Some(status) = headers.get("grpc-status")
        {
            self.kind.grpc = metrics::grpc_status(status.as_bytes());
        }
    }

    /// The whole answer was handed over.
    pub fn complete(&mut self) {
        self.completed = true;
        self.record.ended(self.outcome, None);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.completed && self.outcome == Reason::Ok {
            self.is_ended();
        }
        if let Some(case) = self.case.take() {
            self.account.docket.close(case);
        }
        // A whole answer may have been handed over that its client never took.
        let gave_up = match self.flow.verdict() {
            None if self.record.reason == Reason::Client(Client::Gone) => self.account.gate.verdict(),
            by_guard => by_guard,
        };
        if let Some((reason, detail)) = gave_up.and_then(Verdict::reason) {
            self.ended(reason, Some(detail.to_owned()));
        }
        // Whoever still sends its body on may stop.
        self.flow.give_up(Verdict::Over);
        self.record.received = self.received.saturating_add(self.flow.bytes());
        self.record.sent = self.sent;
        self.kind.flags = Refusal::flags(self.record.reason);
        let millis = self.started.elapsed().as_secs_f64() * 1000.0;
        self.account
            .count(&self.kind, millis, self.record.received, self.sent);
        self.account.gate.request_ends();
    }
}
