//! Configuration files of the daemons, with the keys a system on one machine has to set. Everything
//! else keeps its default.

mod proxy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::config::HumanDuration;

use super::workload::{Foreign, Workload};

pub use proxy::{Inbound, LocalNames, Mutual, Outbound, ProxyConfig};

/// Name the CA of a development system proves, as in a cluster.
pub const CA_NAME: &str = "signet-ca.signet-system.svc";
/// Shortest lifetime a CA issues unless told otherwise, in seconds.
const USUAL_MIN_SECONDS: u64 = 60;
/// Longest lifetime a CA issues unless told otherwise, in seconds.
const USUAL_MAX_SECONDS: u64 = 86_400;
/// Loopback, with a port the system chooses.
const ANY_PORT: &str = "127.0.0.1:0";

/// `config.yaml` of a CA.
#[derive(Clone, Debug, Serialize)]
pub struct CaConfig {
    /// Its trust domain.
    pub trust_domain: String,
    /// Where it serves certificates.
    pub listen: String,
    /// Where it serves metrics.
    pub metrics_listen: String,
    /// Its admin socket.
    pub admin_socket: PathBuf,
    /// The names it proves.
    pub serving_names: Vec<String>,
    /// Its cluster.
    pub kubeconfig: PathBuf,
    /// Where it keeps its root.
    pub state_directory: PathBuf,
    /// Accounts of agents that ask for what runs on their node.
    pub trusted_node_accounts: Vec<String>,
    /// Foreign trust domains, by their bundles in files.
    pub federation: Vec<FederatedFile>,
    /// Lifetime of SVIDs.
    pub svid_ttl: HumanDuration,
    /// Longest lifetime.
    pub max_svid_ttl: HumanDuration,
    /// Shortest lifetime.
    pub min_svid_ttl: HumanDuration,
    /// `text` for people.
    pub log_format: String,
    /// What it logs.
    pub log_filter: String,
}

/// A foreign trust domain in a CA's `federation`.
#[derive(Clone, Debug, Serialize)]
pub struct FederatedFile {
    /// Its name.
    pub trust_domain: String,
    /// Its bundle.
    pub bundle_file: PathBuf,
}

impl From<&Foreign> for FederatedFile {
    fn from(foreign: &Foreign) -> Self {
        Self {
            trust_domain: foreign.trust_domain.to_string(),
            bundle_file: foreign.file.clone(),
        }
    }
}

impl CaConfig {
    /// A CA with its files in `directory`.
    #[must_use]
    pub fn new(directory: &Path, kubeconfig: &Path, domain: &TrustDomain, ttl: HumanDuration) -> Self {
        let seconds = |seconds| HumanDuration(std::time::Duration::from_secs(seconds));
        Self {
            trust_domain: domain.to_string(),
            listen: ANY_PORT.into(),
            metrics_listen: ANY_PORT.into(),
            admin_socket: directory.join("admin/admin.sock"),
            serving_names: vec![CA_NAME.into(), "localhost".into()],
            kubeconfig: kubeconfig.to_owned(),
            state_directory: directory.join("state"),
            trusted_node_accounts: Vec::new(),
            federation: Vec::new(),
            svid_ttl: ttl,
            max_svid_ttl: ttl.max(seconds(USUAL_MAX_SECONDS)),
            min_svid_ttl: ttl.min(seconds(USUAL_MIN_SECONDS)),
            log_format: "text".into(),
            log_filter: "info".into(),
        }
    }
}

/// `config.yaml` of an agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentConfig {
    /// Its trust domain.
    pub trust_domain: String,
    /// Its CA.
    pub ca_address: String,
    /// The name its CA must prove.
    pub ca_server_name: String,
    /// Roots that may vouch for its CA.
    pub ca_root_file: PathBuf,
    /// Its own token.
    pub token_file: PathBuf,
    /// Who tells workloads apart.
    pub attestor: String,
    /// Which processes are which workload.
    pub workloads: Vec<UnixRule>,
    /// Where the cluster is, for its policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Where policies come from; nowhere without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<PolicySource>,
    /// Where workloads are served.
    pub socket: PathBuf,
    /// Its admin socket.
    pub admin_socket: PathBuf,
    /// Where it serves metrics.
    pub metrics_listen: String,
    /// Lifetime it asks for.
    pub svid_ttl: HumanDuration,
    /// `text` for people.
    pub log_format: String,
    /// What it logs.
    pub log_filter: String,
}

/// An agent's `policies`.
#[derive(Clone, Debug, Serialize)]
pub struct PolicySource {
    /// `kubernetes`.
    pub source: String,
}

/// A rule in an agent's `workloads`.
#[derive(Clone, Debug, Serialize)]
pub struct UnixRule {
    /// The account, as `namespace/name`.
    pub service_account: String,
    /// The user of its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Their group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The file they run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<PathBuf>,
    /// What clients are told the identity is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What policies select the workload by, as its pod has them.
    pub labels: BTreeMap<String, String>,
}

impl UnixRule {
    /// `account`, as whatever of `uid` runs this file.
    #[must_use]
    pub fn of_file(account: &ServiceAccountId, uid: u32, executable: PathBuf) -> Self {
        Self {
            service_account: account.to_string(),
            uid: Some(uid),
            gid: None,
            executable: Some(executable),
            hint: None,
            labels: labels(account),
        }
    }
}

impl From<&Workload> for UnixRule {
    fn from(workload: &Workload) -> Self {
        Self {
            service_account: workload.account.to_string(),
            uid: workload.uid,
            gid: workload.gid,
            executable: workload.executable.clone(),
            hint: workload.hint.clone(),
            labels: labels(&workload.account),
        }
    }
}

/// The labels of an account's pod.
fn labels(account: &ServiceAccountId) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), account.name().to_owned())])
}

impl AgentConfig {
    /// The agent of a node, with its files in `directory` and its own token in `token_file`.
    /// Without rules in `workloads` it serves nobody.
    #[must_use]
    pub fn new(
        directory: &Path,
        ca_address: &str,
        token_file: &Path,
        domain: &TrustDomain,
        ttl: HumanDuration,
    ) -> Self {
        Self {
            trust_domain: domain.to_string(),
            ca_address: ca_address.into(),
            ca_server_name: CA_NAME.into(),
            ca_root_file: directory.join("root-cert.pem"),
            token_file: token_file.to_owned(),
            attestor: "unix".into(),
            workloads: Vec::new(),
            kubeconfig: None,
            policies: None,
            socket: directory.join("workload/agent.sock"),
            admin_socket: directory.join("admin/admin.sock"),
            metrics_listen: ANY_PORT.into(),
            svid_ttl: ttl,
            log_format: "text".into(),
            log_filter: "info".into(),
        }
    }
}
