//! What to start, and where everything is then.

use std::path::PathBuf;

use serde::Serialize;
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::config::HumanDuration;

use super::workload::{Foreign, Workload};

/// What to start.
#[derive(Clone, Debug)]
pub struct SystemOptions {
    /// Where everything lies. Must exist.
    pub directory: PathBuf,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Lifetime of SVIDs.
    pub svid_ttl: HumanDuration,
    /// The workloads of the node, at least one. Several may have one account.
    pub workloads: Vec<Workload>,
    /// Foreign trust domains to accept.
    pub foreign: Vec<Foreign>,
}

impl SystemOptions {
    /// The accounts of the workloads, each once, in their order.
    pub(super) fn accounts(&self) -> Vec<ServiceAccountId> {
        let mut accounts: Vec<ServiceAccountId> = Vec::with_capacity(self.workloads.len());
        for workload in &self.workloads {
            if !accounts.contains(&workload.account) {
                accounts.push(workload.account.clone());
            }
        }
        accounts
    }
}

/// Where everything is, once it is ready. Paths and addresses, never a token.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// For `kubectl`, with all rights.
    pub kubeconfig: PathBuf,
    /// Where the CA serves certificates.
    pub ca_address: String,
    /// Roots that vouch for the CA.
    pub ca_root: PathBuf,
    /// The agent's workload socket: SDS and the SPIFFE Workload API.
    pub agent_socket: PathBuf,
    /// The agent's admin socket.
    pub admin_socket: PathBuf,
    /// The CA's admin socket.
    pub ca_admin_socket: PathBuf,
    /// File with the token of the first workload.
    pub token: PathBuf,
    /// The CA's metrics.
    pub ca_metrics: String,
    /// The agent's metrics.
    pub agent_metrics: String,
    /// The workloads' accounts, for people.
    #[serde(skip)]
    pub workloads: Vec<String>,
}
