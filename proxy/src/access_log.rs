//! One record per request or connection, written when it is dropped; and the reasons of all outcomes.

mod reason;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::SpiffeId;
use tokio::time::Instant;

use crate::config::AccessLog;
use crate::connection::{Accepted, Security};
use crate::shared::Shared;
pub use reason::{Capture, Client, Identity, Limit, Policy, Reason, RequestFault, Tls, Token, Upstream};

/// Most of a text from outside that is shown.
const SHOWN: usize = 256;

/// What a request adds to its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFields {
    /// The method.
    pub method: String,
    /// `:authority` or `Host`.
    pub authority: String,
    /// The path as policy saw it, without query.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2` or `gRPC`.
    pub protocol: &'static str,
    /// The status that the client got; 0 for none.
    pub status: u16,
    /// The request's id, as forwarded.
    pub request_id: String,
    /// Who the request's token is of, `issuer/subject`.
    pub token_principal: String,
}

/// A record of one request or connection. What is set until it is dropped is what is written.
pub struct Record {
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    started: Instant,
    /// What came of it.
    pub reason: Reason,
    /// A sentence for people, where there is more to tell.
    pub detail: Option<String>,
    /// The policy or rule that decided.
    pub policy: Option<String>,
    /// Who was dialled.
    pub upstream: Option<SocketAddr>,
    /// The identity that the upstream proved.
    pub upstream_id: Option<SpiffeId>,
    /// How long the upstream took to be connected, or to answer.
    pub upstream_took: Option<Duration>,
    /// Bytes from the downstream.
    pub received: u64,
    /// Bytes to the downstream.
    pub sent: u64,
    /// What a request adds.
    pub request: Option<Box<RequestFields>>,
}

impl Record {
    /// Begins now. Until something else is known, the other end is what ended it.
    #[must_use]
    pub fn begin(shared: &Arc<Shared>, accepted: &Arc<Accepted>) -> Self {
        Self {
            shared: Arc::clone(shared),
            accepted: Arc::clone(accepted),
            started: Instant::now(),
            reason: Reason::Client(Client::Gone),
            detail: None,
            policy: None,
            upstream: None,
            upstream_id: None,
            upstream_took: None,
            received: 0,
            sent: 0,
            request: None,
        }
    }

    /// It began earlier than its record.
    #[must_use]
    pub fn since(mut self, started: Instant) -> Self {
        self.started = started;
        self
    }

    /// Takes over what is known of the connection by now.
    pub fn accepted(&mut self, accepted: &Arc<Accepted>) {
        self.accepted = Arc::clone(accepted);
    }

    /// It ended so, and this is the sentence.
    pub fn ended(&mut self, reason: Reason, detail: impl Into<Option<String>>) {
        self.reason = reason;
        if let Some(detail) = detail.into() {
            self.detail = Some(detail);
        }
    }

    fn write(&self) {
        let accepted = &*self.accepted;
        let request = self.request.as_deref();
        let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "access",
            connection = accepted.id,
            direction = accepted.direction.as_str(),
            security = accepted.security.as_str(),
            source = %accepted.source,
            destination = %accepted.destination,
            port = accepted.port,
            peer = accepted.peer().map(tracing::field::display),
            own_id = accepted.own_id.as_ref().map(tracing::field::display),
            sni = accepted.sni.as_deref(),
            reason = self.reason.as_str(),
            detail = self.detail.as_deref().map(bounded),
            policy = self.policy.as_deref(),
            upstream = self.upstream.map(tracing::field::display),
            upstream_id = self.upstream_id.as_ref().map(tracing::field::display),
            upstream_ms = self.upstream_took.map(millis),
            elapsed_ms = millis(self.started.elapsed()),
            received = self.received,
            sent = self.sent,
            method = request.map(|request| bounded(&request.method)),
            authority = request.map(|request| bounded(&request.authority)),
            path = request.map(|request| bounded(&request.path)),
            protocol = request.map(|request| request.protocol),
            status = request.map(|request| request.status),
            request_id = request.map(|request| bounded(&request.request_id)),
            token_principal = request.map(|request| bounded(&request.token_principal)),
            "access"
        );
    }
}

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(SHOWN)).unwrap_or(text)
}

impl Drop for Record {
    fn drop(&mut self) {
        let refused = self.reason != Reason::Ok;
        if refused {
            self.shared.metrics.ended(self.accepted.direction, self.reason);
        }
        let wanted = match self.shared.config.access_log {
            AccessLog::All => true,
            AccessLog::Refused => refused,
            AccessLog::Off => false,
        };
        if wanted && tracing::enabled!(target: "access", tracing::Level::INFO) {
            self.write();
        }
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, {})", self.accepted.id, self.reason.as_str())
    }
}

impl Accepted {
    /// What Istio's metrics call the security of the connection, seen from the destination.
    #[must_use]
    pub fn security_policy(&self) -> &'static str {
        match self.security {
            Security::Mutual(_) => "mutual_tls",
            Security::PassedThrough | Security::Plaintext | Security::Unsettled => "none",
        }
    }
}
