//! `config.yaml` of a proxy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use signet_certs::{ServiceAccountId, TrustDomain};

/// `config.yaml` of a proxy.
#[derive(Clone, Debug, Serialize)]
pub struct ProxyConfig {
    /// Its trust domain.
    pub trust_domain: String,
    /// The node's agent.
    pub agent_socket: PathBuf,
    /// `agent`: the node's agent says which policies concern it.
    pub policies: String,
    /// What metrics call it.
    pub workload: LocalNames,
    /// In front of its application.
    pub inbound: Vec<Inbound>,
    /// Towards others.
    pub outbound: Vec<Outbound>,
    /// Its admin socket.
    pub admin_socket: PathBuf,
    /// Its admin page.
    pub admin_listen: SocketAddr,
    /// Where it serves metrics.
    pub metrics_listen: SocketAddr,
    /// `text` for people.
    pub log_format: String,
    /// What it logs.
    pub log_filter: String,
}

/// What metrics call a workload.
#[derive(Clone, Debug, Serialize)]
pub struct LocalNames {
    /// The workload's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its application.
    pub app: String,
}

/// An inbound listener.
#[derive(Clone, Debug, Serialize)]
pub struct Inbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub upstream: SocketAddr,
    /// The port that policies mean.
    pub port: u16,
    /// What is spoken.
    pub protocol: String,
}

/// An outbound listener.
#[derive(Clone, Debug, Serialize)]
pub struct Outbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The inbound listener of the other's proxy.
    pub upstream: SocketAddr,
    /// What is spoken.
    pub protocol: String,
    /// Who must answer.
    pub mtls: Mutual,
}

/// Who must answer.
#[derive(Clone, Debug, Serialize)]
pub struct Mutual {
    /// One of these SPIFFE IDs.
    pub expected: Vec<String>,
}

impl ProxyConfig {
    /// The proxy of `account`, with no listener yet.
    #[must_use]
    pub fn new(
        account: &ServiceAccountId,
        domain: &TrustDomain,
        agent_socket: &Path,
        (admin, metrics): (SocketAddr, SocketAddr),
    ) -> Self {
        Self {
            trust_domain: domain.to_string(),
            agent_socket: agent_socket.to_owned(),
            policies: "agent".into(),
            workload: LocalNames {
                name: account.name().into(),
                namespace: account.namespace().into(),
                app: account.name().into(),
            },
            inbound: Vec::new(),
            outbound: Vec::new(),
            admin_socket: PathBuf::new(),
            admin_listen: admin,
            metrics_listen: metrics,
            log_format: "text".into(),
            log_filter: "info".into(),
        }
    }
}
