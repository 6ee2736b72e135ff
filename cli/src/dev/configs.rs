//! Configuration files of the daemons, with the keys a system on one machine has to set. Everything
//! else keeps its default.

use std::path::{Path, PathBuf};

use serde::Serialize;
use signet_certs::TrustDomain;
use signet_runtime::config::HumanDuration;

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
    /// The workload's token.
    pub token_file: PathBuf,
    /// Where the workload is served.
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

impl AgentConfig {
    /// An agent with its files in `directory`, for the workload of `token_file`.
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
            socket: directory.join("workload/agent.sock"),
            admin_socket: directory.join("admin/admin.sock"),
            metrics_listen: ANY_PORT.into(),
            svid_ttl: ttl,
            log_format: "text".into(),
            log_filter: "info".into(),
        }
    }
}
