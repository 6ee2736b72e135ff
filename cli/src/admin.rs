//! The client of the admin sockets: HTTP/1.1 over a unix socket, JSON both ways. Every call has a
//! deadline and every answer a bound.

mod lines;
mod node;
mod wire;

pub use lines::Lines;
pub use node::{
    FederatedDomain, Federation, NodeKeySet, NodePolicies, NodePolicy, PolicyStream, SourceHealth, Workload,
    Workloads,
};
pub use wire::{
    AgentStatus, Authorities, Authority, AuthorityKey, Bundle, CaStatus, Failure, Issuing, Readiness, Svid,
    TokenVerdict,
};
use wire::{RotateQuestion, Svids, TokenQuestion};

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::fault::Fault;

/// Patience for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Patience for an answer that needs the CA: a renewal has its own deadline at the agent.
const LONG_DEADLINE: Duration = Duration::from_secs(45);
/// Largest answer read, in bytes; a chain has some 2 KiB, a bundle of 64 roots some 100.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Why an admin socket gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Nobody listens there, or not to us.
    #[error("{}: {source}{}", socket.display(), connect_hint(source))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// It closed the connection without an answer.
    #[error("{}: closed the connection ({reason}); an admin socket serves only the user its daemon runs as", socket.display())]
    Closed {
        /// The socket.
        socket: PathBuf,
        /// What hyper said.
        reason: String,
    },
    /// No answer in time.
    #[error("{}: no answer within {} s", socket.display(), after.as_secs())]
    Slow {
        /// The socket.
        socket: PathBuf,
        /// The patience that was spent.
        after: Duration,
    },
    /// It answered with an error.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its sentence.
        error: String,
    },
    /// It has no such page: the other kind of daemon, or another version.
    #[error("{} has no {page}; is it the socket of a {wanted}?", socket.display())]
    NoSuchPage {
        /// The socket.
        socket: PathBuf,
        /// What was asked for.
        page: String,
        /// Which daemon has that page.
        wanted: &'static str,
    },
    /// It answered with something else than agreed.
    #[error("{}: the answer to {page} cannot be read: {reason}", socket.display())]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What was asked for.
        page: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn connect_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "; is the daemon running, and is this its admin_socket?",
        std::io::ErrorKind::ConnectionRefused => "; the daemon that made this socket is gone",
        std::io::ErrorKind::PermissionDenied => "; run as the user the daemon runs as",
        _ => "",
    }
}

impl From<AdminError> for Fault {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Refused { .. } => Self::refused(error),
            _ => Self::unanswered(error),
        }
    }
}

/// An admin socket.
#[derive(Clone, Debug)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// The socket at `path`. Nothing is connected yet.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            socket: path.to_owned(),
        }
    }

    /// The state of a CA.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn ca_status(&self) -> Result<CaStatus, AdminError> {
        self.get("/v1/status", "signet-ca").await
    }

    /// The state of an agent.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn agent_status(&self) -> Result<AgentStatus, AdminError> {
        self.get("/v1/status", "signet-agent").await
    }

    /// Whether a daemon, of whichever kind, is ready.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn readiness(&self) -> Result<Readiness, AdminError> {
        self.get("/v1/status", "signet-ca or a signet-agent").await
    }

    /// The authorities of a CA.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn authorities(&self) -> Result<Authorities, AdminError> {
        self.get("/v1/authorities", "signet-ca").await
    }

    /// The bundle of a CA or an agent.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn bundle(&self) -> Result<Bundle, AdminError> {
        self.get("/v1/bundle", "signet-ca or a signet-agent").await
    }

    /// What a CA says to a token.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn check_token(&self, token: &str) -> Result<TokenVerdict, AdminError> {
        let question = serde_json::to_vec(&TokenQuestion { token }).unwrap_or_default();
        self.call("POST", "/v1/token/check", question, DEADLINE, "signet-ca")
            .await
    }

    /// The SVIDs of an agent.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn svids(&self) -> Result<Vec<Svid>, AdminError> {
        self.get::<Svids>("/v1/svids", "signet-agent")
            .await
            .map(|all| all.svids)
    }

    /// Renews the SVID of `id` now, or the only one; the new SVID.
    ///
    /// # Errors
    /// An [`AdminError`]; [`AdminError::Refused`] with the reason why there is no new one.
    pub async fn rotate(&self, id: Option<&str>) -> Result<Svid, AdminError> {
        let question =
            id.map(|spiffe_id| serde_json::to_vec(&RotateQuestion { spiffe_id }).unwrap_or_default());
        self.call(
            "POST",
            "/v1/svids/rotate",
            question.unwrap_or_default(),
            LONG_DEADLINE,
            "signet-agent",
        )
        .await
    }

    /// The workloads of a node's agent, and what they hold.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn workloads(&self) -> Result<Workloads, AdminError> {
        self.get("/v1/workloads", "signet-agent").await
    }

    /// What an agent knows of policies, and which proxy has which.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn policies(&self) -> Result<NodePolicies, AdminError> {
        self.get("/v1/policies", "signet-agent").await
    }

    /// The foreign trust domains that are accepted beside our own.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn federation(&self) -> Result<Federation, AdminError> {
        self.get("/v1/federation", "signet-ca or a signet-agent").await
    }

    /// The SVIDs of an agent, now and after every change.
    ///
    /// # Errors
    /// An [`AdminError`].
    pub async fn watch_svids(&self) -> Result<Lines<Svid>, AdminError> {
        let page = "/v1/svids/watch";
        let response = self.in_time(DEADLINE, self.send("GET", page, Vec::new())).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.in_time(DEADLINE, self.whole(page, response)).await?;
            return Err(self.refusal(page, status, &body, "signet-agent"));
        }
        Ok(Lines::new(self.clone(), response.into_body()))
    }

    async fn get<T: DeserializeOwned>(&self, page: &str, wanted: &'static str) -> Result<T, AdminError> {
        self.call("GET", page, Vec::new(), DEADLINE, wanted).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        page: &str,
        body: Vec<u8>,
        patience: Duration,
        wanted: &'static str,
    ) -> Result<T, AdminError> {
        let exchange = async {
            let response = self.send(method, page, body).await?;
            let status = response.status();
            Ok((status, self.whole(page, response).await?))
        };
        let (status, body) = self.in_time(patience, exchange).await?;
        if !status.is_success() {
            return Err(self.refusal(page, status, &body, wanted));
        }
        serde_json::from_slice(&body).map_err(|e| self.garbled(page, &e))
    }

    async fn send(
        &self,
        method: &str,
        page: &str,
        body: Vec<u8>,
    ) -> Result<http::Response<Incoming>, AdminError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| AdminError::Connect {
                socket: self.socket.clone(),
                source,
            })?;
        let closed = |e: hyper::Error| AdminError::Closed {
            socket: self.socket.clone(),
            reason: e.to_string(),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(closed)?;
        // Ends by itself with the response body: nothing else keeps the connection.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::builder()
            .method(method)
            .uri(page)
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.garbled(page, &e))?;
        sender.send_request(request).await.map_err(closed)
    }

    async fn whole(&self, page: &str, response: http::Response<Incoming>) -> Result<Bytes, AdminError> {
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|e| self.garbled(page, &e))
    }

    async fn in_time<T>(
        &self,
        patience: Duration,
        exchange: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, AdminError> {
        match tokio::time::timeout(patience, exchange).await {
            Ok(done) => done,
            Err(_) => Err(AdminError::Slow {
                socket: self.socket.clone(),
                after: patience,
            }),
        }
    }

    fn refusal(&self, page: &str, status: http::StatusCode, body: &[u8], wanted: &'static str) -> AdminError {
        match serde_json::from_slice::<wire::Refusal>(body) {
            Ok(refusal) => AdminError::Refused {
                status: status.as_u16(),
                error: refusal.error,
            },
            Err(_) if status == http::StatusCode::NOT_FOUND => AdminError::NoSuchPage {
                socket: self.socket.clone(),
                page: page.into(),
                wanted,
            },
            Err(_) => self.garbled(page, &format!("status {status} without a reason")),
        }
    }

    fn garbled(&self, page: &str, reason: &dyn std::fmt::Display) -> AdminError {
        AdminError::Garbled {
            socket: self.socket.clone(),
            page: page.into(),
            reason: reason.to_string(),
        }
    }
}
