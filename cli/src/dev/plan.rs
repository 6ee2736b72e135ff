//! What to start, and where everything is then.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::config::HumanDuration;

use super::app::App;
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
    /// Those that get a proxy of their own.
    pub apps: Vec<App>,
    /// Whether policies to begin with are written, for the operator to apply.
    pub samples: bool,
    /// Foreign trust domains to accept.
    pub foreign: Vec<Foreign>,
}

impl SystemOptions {
    /// The accounts of workloads and applications, each once, in their order.
    pub(super) fn accounts(&self) -> Vec<ServiceAccountId> {
        let workloads = self.workloads.iter().map(|workload| &workload.account);
        let apps = self.apps.iter().map(|app| &app.account);
        let mut accounts: Vec<ServiceAccountId> = Vec::with_capacity(self.workloads.len() + self.apps.len());
        for account in workloads.chain(apps) {
            if !accounts.contains(account) {
                accounts.push(account.clone());
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
    /// The proxies, in the order they were asked for.
    pub proxies: Vec<ReadyProxy>,
    /// Directory with policies to begin with, if there is one.
    pub samples: Option<PathBuf>,
    /// The accounts, for people.
    #[serde(skip)]
    pub workloads: Vec<String>,
}

/// A running proxy. Addresses are `host:port`.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyProxy {
    /// Whose it is.
    pub service_account: String,
    /// Where its application listens; nothing without one.
    pub application: Option<String>,
    /// The port of the application, as policies mean it.
    pub port: Option<u16>,
    /// Where it listens in front of its application.
    pub inbound: Option<String>,
    /// Where it listens for its own workload, by who is asked there.
    pub outbound: BTreeMap<String, String>,
    /// Its admin socket.
    pub admin_socket: PathBuf,
    /// Its admin page.
    pub admin_address: String,
    /// Its metrics.
    pub metrics: String,
    /// Its log, with a record of every request.
    pub log: PathBuf,
}
